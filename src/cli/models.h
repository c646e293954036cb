/* `brim models ...`: the weight store. SPDX-License-Identifier: Apache-2.0 */
#pragma once

int cli_models(int argc, char **argv);

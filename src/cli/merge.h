/* `brim merge --estimate SITE|MODEL... [--json] [--svg F]`: what the models could share. SPDX-License-Identifier: Apache-2.0 */
#pragma once

int cli_merge(int argc, char **argv);

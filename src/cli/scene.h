/* `brim scene`: a synthetic site into a folder. Returns the exit status. SPDX-License-Identifier: Apache-2.0 */
#pragma once

int cli_scene(int argc, char **argv);

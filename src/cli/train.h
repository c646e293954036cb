/* `brim train`, `brim export`, and the parts of `brim eval` that score networks. SPDX-License-Identifier: Apache-2.0 */
#pragma once

int cli_train(int argc, char **argv);
int cli_export(int argc, char **argv);
/* argv[1] is "classify". */
int cli_eval_network(int argc, char **argv);

/* `brim serve` and what talks to a running box: `mem`, `why`, `budget`. Each returns the exit status.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

int cli_serve(int argc, char **argv);
int cli_mem(int argc, char **argv);
int cli_why(int argc, char **argv);
int cli_budget(int argc, char **argv);

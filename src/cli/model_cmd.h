/* `brim run`, `brim explain`, `brim verify`: one model at a time. Each returns the exit status.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

int cli_run(int argc, char **argv);
int cli_explain(int argc, char **argv);
int cli_new(int argc, char **argv);
int cli_verify(int argc, char **argv);

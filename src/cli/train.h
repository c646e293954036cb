/* `brim train`, `brim export`, and the parts of `brim eval` that score networks. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

int cli_train(int argc, char **argv);
int cli_export(int argc, char **argv);
/* "car=2,ambulance=7" or "car,ambulance": names in the order of a head's classes; free each and the list, also after a failure. */
err cli_train_classes(const char *text, char ***ret, size_t *ret_n);
/* argv[1] is "classify" or "detect". */
int cli_eval_network(int argc, char **argv);

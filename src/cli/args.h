/* Command-line options from a table: "--name VALUE", "--name=VALUE", flags, and the rest as positional arguments.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

enum args_kind { ARGS_FLAG = 1, ARGS_STRING, ARGS_STRINGS, ARGS_INT, ARGS_FLOAT, ARGS_SIZE };

struct args_option {
    const char *name; /* without the dashes */
    enum args_kind kind;
    void *to; /* bool*, const char**, struct args_list*, int64_t*, double*, uint64_t* */
    const char *help;
};
struct args_list {
    const char **items;
    size_t n, cap;
};

/* ERR_USAGE with a sentence that names the option and, for a typing error, the nearest one. `--help` sets *ret_help. The table ends with a NULL
 * name. Positional arguments go to `rest` (free its items). Strings are borrowed from argv. */
err args_parse(int argc, char **argv, const struct args_option *table, struct args_list *rest, bool *ret_help);
/* Prints "usage: ..." and the table on stdout. */
void args_help(const char *usage, const struct args_option *table);
/* Prints the last error as "brim COMMAND: SENTENCE" on stderr; returns the exit status that goes with it. */
int args_fail(const char *command, err e);

/* `brim merge --estimate SITE|MODEL...`: what the models could share. `brim merge SITE|MODEL... --out DIR`: makes them share it.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "cli/args.h"
#include "methods/merge_search.h"

int cli_merge(int argc, char **argv);

struct merge_run_options {
    const char *out, *store;
    bool json, guard;
    struct args_list data, val, cards;  /* NAME=PATH, or PATH for all */
    struct merge_search_options search; /* what the command line says of it */
};
err cli_merge_run(const struct merge_run_options *o, const struct args_list *paths);

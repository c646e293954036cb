/* `brim merge --estimate SITE|MODEL...`: what the models could share. `brim merge SITE|MODEL... --out DIR`: makes them share it.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "cli/args.h"
#include "engine/job.h"
#include "methods/merge_search.h"

int cli_merge(int argc, char **argv);

struct merge_run_options {
    const char *out, *store;
    bool json, guard;
    struct args_list data, val, cards;  /* NAME=PATH, or PATH for all */
    struct args_list crops;             /* NAME=CATEGORY or NAME=CATEGORY:KEY */
    struct merge_search_options search; /* what the command line says of it */
    struct engine_job_run *job;         /* it is a job of a running box: stored models are the box's, results are published there. NULL: a command */
    bool only_check;                    /* are site, names and cards right? Nothing is done */
};
err cli_merge_run(const struct merge_run_options *o, const struct args_list *paths);

/* The words of `brim merge` (after "merge") made into options, relative paths seen from `folder`; borrowed until `use` returns. */
typedef err cli_merge_use_fn(void *user, struct merge_run_options *o, const struct args_list *paths);
err cli_merge_words(const char *folder, const char *const *words, int n, cli_merge_use_fn *use, void *user);
/* merge_box.c: as a job of a running box. */
extern const struct engine_job_kind cli_merge_kind;

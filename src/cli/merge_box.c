/* A merge as a job of a running box: `brim merge SITE --out DIR --on-box` (docs/merging.md).
 *
 * The box gets the words of the command and the folder that they were said in. While it runs, what changed in the best state is published at once: the site's
 * models, which are the store's, get a new version each, and are opened anew one after the other. SPDX-License-Identifier: Apache-2.0 */
#include "cli/merge.h"

#include <stdlib.h>
#include <unistd.h>

static bool begun(const char *out)
{
    char *state = xasprintf("%s/state.brim", out);
    bool there = access(state, F_OK) == 0;
    free(state);
    return there;
}

/* `job`: only that there is one, for what may be merged in a box. */
static err look(void *job, struct merge_run_options *o, const struct args_list *paths)
{
    o->job = job;
    o->only_check = true;
    err e = cli_merge_run(o, paths);
    if (!e && begun(o->out) && !o->search.resume) e = err_set(ERR_USAGE, "%s holds a search already: --resume goes on with it, or give another --out", o->out);
    return e;
}

static err check(const char *folder, const char *const *words, int n)
{
    struct mem_budget *budget = mem_budget_new("check", UINT64_MAX);
    struct engine_job_run nothing = {.budget = budget};
    err e = cli_merge_words(folder, words, n, look, &nothing);
    mem_budget_free(&budget);
    return e;
}

static err use(void *user, struct merge_run_options *o, const struct args_list *paths)
{
    o->job = user;
    if (o->job->again) o->search.resume = true;
    return cli_merge_run(o, paths);
}

static err run(struct engine_job_run *r)
{
    return cli_merge_words(r->folder, r->words, r->n_words, use, r);
}

const struct engine_job_kind cli_merge_kind = {.name = "merge", .check = check, .run = run, .publishes = true};

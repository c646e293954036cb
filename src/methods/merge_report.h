/* Inside: a search, and what is told of it. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "methods/merge_search.h"

#include <jansson.h>

struct merge_search {
    const struct merge_search_options *o;
    merge_progress_fn *fn;
    void *user;
    const struct merge_policy *policy;
    void *state;
    struct mem_budget *budget;
    struct merge_member **members;
    double *targets;
    struct merge_problem *problem;
    struct merge_joint *joint;
    json_t *log, *points; /* outcomes; measurements: seconds, saved bytes, scores */
    int trials;
    bool found;           /* it goes on from a best state found before */
};
/* The policy's next trial after an outcome at second `now`; clears what it fills. */
bool merge_search_next(struct merge_search *s, const struct merge_outcome *last, double now, struct merge_trial *trial);

void merge_report_point(struct merge_search *s, const struct merge_progress *p);
/* OUT/merge.json and OUT/merge.svg, each replaced by a rename. */
err merge_report_write(struct merge_search *s);

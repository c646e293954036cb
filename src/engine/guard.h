/* The drift guard: is a merged model of the running box still like its original on what the cameras see today?
 *
 * Every `every` (site file, models: NAME: guard:) one frame that one of its queries has just processed is kept, cameras in turn, and the original runs on it as well: a guest
 * of the scheduler (sched_model_set_guest), after everybody else, in memory that nobody else needs, else not at all. Their answers are compared over a window
 * (methods/merge_drift.h). Below target, the model goes back to its original at once (engine_publish); the others keep sharing, bit for bit. Where a search is
 * in the folder (merge.json), it is told, and a job that searches there goes on.
 *
 * By itself it guards what `brim merge` has made: a network beside a merge.json, whose original lies in models/. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

#include <jansson.h>

struct engine;

/* Before engine_start; without it a box guards nothing. */
void engine_guard_enable(struct engine *e);

enum engine_guard_state {
    ENGINE_GUARD_STARTING = 1, /* nothing compared yet, or its original is being opened */
    ENGINE_GUARD_ON,           /* it compares */
    ENGINE_GUARD_EQUAL,        /* it is its original: nothing to guard */
    ENGINE_GUARD_REVERTED,     /* it went back, now or before the last start */
    ENGINE_GUARD_CANNOT        /* `why` */
};
const char *engine_guard_state_name(enum engine_guard_state s);

struct engine_guard_row {
    char model[72], original[256], measure[48];
    enum engine_guard_state state;
    char why[256];              /* why it cannot, or why a frame was skipped last; "" */
    double score, error, target; /* of the window; error: one standard error */
    int pictures, window;       /* in the window now, and when it is full */
    uint64_t compared, empty, skipped; /* frames: compared (empty of them: nothing in them to compare), not compared for lack of room or an error */
    int64_t last_ns;            /* clock: the last comparison; 0: none */
    double ago_s;               /* seconds since; below 0: none */
    double reverted_at, reverted_score; /* seconds since 1970; 0: never */
};
size_t engine_guards(struct engine *e, struct engine_guard_row **ret); /* by name of the site's models; free() */
json_t *engine_guards_json(struct engine *e);

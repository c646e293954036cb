/* The drift guard of a merge: is what was merged still like its originals on the pictures of today?
 *
 * Every merged model (OUT/NAME.onnx) is compared with its original (OUT/models/NAME.onnx) on given pictures, without labels (merge_score.h). One that falls
 * below its target goes back to its original at once; the others keep sharing, bit for bit as before. merge.json says so (`reverted`), and a search that is
 * gone on with (merge_search, resume) begins from there. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "methods/merge_search.h"

struct merge_guard_result {
    char *name;
    bool shares;     /* it has shared layers; else it was not looked at */
    double score, target;
    bool reverted;   /* now */
};
struct merge_guard_options {
    const char *out;
    const struct merge_source *sources; /* `data`: the pictures; `onnx` is not used */
    int n;
    double target;                      /* 0: 0.95 */
    int threads, size;
    int64_t most;                       /* pictures, at most; 0: 200 */
    uint64_t budget;                    /* 0: what the machine has */
};
/* *ret: one per model of the merge (free with merge_guard_free). ERR_NOT_FOUND: OUT holds no merge; ERR_USAGE: a merged model has no pictures. */
err merge_guard(const struct merge_guard_options *o, struct merge_guard_result **ret, int *ret_n);
/* For the guard of the running box (engine/guard.h), which compares by itself. ERR_NOT_FOUND: OUT holds no merge. */
/* Does the model share anything in the best state? */
err merge_guard_shares(const char *out, const char *name, bool *ret);
/* It is to be its original again, in OUT too: the file, then merge.json. Nothing is done for one that shares nothing. */
err merge_guard_note(const char *out, const char *name);
void merge_guard_free(struct merge_guard_result **r, int n);

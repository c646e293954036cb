/* What a reload has to touch: the difference of two sites. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/site.h"

/* An entry per name that is in either site; -1 where it is not. A query is `same` only if its
 * cameras and models are the same too; a model's files are compared by path, not by content. */
struct site_change {
    const char *name; /* of whichever site has it */
    int old_index, new_index;
    bool same;
};
struct site_diff {
    size_t camera_count, model_count, query_count;
    struct site_change *cameras, *models, *queries;
    bool settings_same; /* store, precision, threads: need a new start */
    bool budget_same, outputs_same;
};
struct site_diff *site_diff(const struct site *old_site, const struct site *new_site);
void site_diff_free(struct site_diff **d);

/* The verdict of KERNEL_AUTO on disk: a small text file per model, number of threads, range of inputs and processor. Losing one costs a
 * measurement and nothing else, so nothing here fails: a folder that cannot be made or written, and a file that is torn or of another
 * version, are as if there were none. A folder keeps the newest MODEL_VERDICTS of them. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model/plan.h"

enum { MODEL_VERDICTS = 500, MODEL_VERDICT_GROUPS = 16 };

/* Its path; free(). NULL: the model has no folder for it. graph: a hash of the model's graph and numbers. */
char *model_verdict_path(const struct model *m, uint64_t graph);
bool model_verdict_load(const char *path, struct model_choice *ret);
void model_verdict_save(const char *path, const struct model_choice *c);

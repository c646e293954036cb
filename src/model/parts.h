/* Inside: long operators of training in parts of the batch. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model/plan.h"

struct model_part_query {
    struct kernel_query q;
    struct tensor in[KERNEL_MAX_IN], out[KERNEL_MAX_OUT];
};
/* In how many parts? More than 1: *ret asks for the kernel of one part; layouts are final. */
int model_parts(const struct kernel_query *q, struct model_part_query *ret);
void model_parts_keep(const struct model_part_query *p, int parts, struct model_split *ret);
/* Of the kernel, and of the sums of a part. */
size_t model_parts_scratch(const struct model_step *s);
err model_parts_run(struct model_plan *p, struct model_step *s, const struct kernel_buffers *whole);

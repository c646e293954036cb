/* Plans of networks in training: parameters, targets, gradients lie outside the arena, runs can be stopped between steps and cut in two, and a number that is
 * not finite is traced to the step that made it. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model/model.h"

#include <stdatomic.h>

/* Inputs from number `first_input` and outputs from `first_output` on lie outside the arena: row-major, 64-byte aligned, the caller's, bound before a run.
 * Inputs are left as they are. INT32_MAX: none. Before the first plan; not for models of a store. An output that is wanted twice is copied. */
void model_external(struct model *m, int first_input, int first_output);
/* Products whose weights are no constants round what they multiply to bf16, and images between operators lie as bf16 (graph/training.h), where the processor is
 * faster so; weights, gradients of weights, statistics and sums stay f32. Before the first plan. */
void model_half_products(struct model *m);
void model_plan_bind_input(struct model_plan *p, int i, void *at);
void model_plan_bind_output(struct model_plan *p, int i, void *at);

/* From now on a run returns ERR_CANCELLED before its next step once *stop is set (borrowed; NULL: never). */
void model_plan_set_stop(struct model_plan *p, const atomic_bool *stop);

/* The first step that reads an input from number `first_input` on, before which all outputs below `n_outputs` are written: where a run can be cut in two, so
 * that the host makes those inputs out of those outputs. ERR_UNSUPPORTED if there is no such step. */
err model_plan_cut(const struct model_plan *p, int first_input, int n_outputs, int *ret_step);
/* Steps from .. to - 1 of a model without a ring; a run is 0 .. model_plan_sizes.steps, in order. */
err model_plan_run_part(struct model_plan *p, int from, int to);

/* Runs once more, looking at each step's first output: the name of the first that gives NaN or infinity, "" if none does. `buf` holds "NAME (OP)". */
err model_plan_find_nonfinite(struct model_plan *p, char *buf, size_t size);

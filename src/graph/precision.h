/* Lower precision as a rewrite: what flows between the operators that gain by it becomes bf16, and casts stand where it begins and ends.
 *
 * Weights stay f32 in the graph (truth is the file's); kernels that take a bf16 input pack them as bf16. Inputs and outputs of the graph keep
 * their types. bfloat16 has f32's range and 8 bits of significand: Kalamkar et al., A Study of BFLOAT16 for Deep Learning Training, 2019.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"

/* Can this node compute in bf16 with a gain of its own (Conv, ConvTranspose, Gemm, MatMul with constant weights)? */
bool graph_gains_by_bf16(const struct graph *g, const struct graph_node *n);
/* Works on a specialised, rewritten graph. `keep`: NULL, or one flag per node: true stays in f32. Execution order stays. ERR_OK if nothing gains. */
err graph_to_bf16(struct graph *g, const bool *keep);

/* RNN, GRU and LSTM (ONNX operators; all directions, lengths, peepholes, clip, linear_before_reset).
 *
 * W and R of a direction are transposed once per run to [in, G H], so that a step of one sequence is a row of
 * multiply-adds over all gates at once. Gates lie as ONNX has them: LSTM i o f c, GRU z r h. Sequences are
 * independent, so each walks its own steps: 0 .. length - 1, or back. What lies behind a length is zero in Y.
 * Everything is computed in float32, or in float64 (recurrent_f64.c) where it is stored so: recurrent.inc is both. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#define real float
#define M(name) name##f
#include "kernels/ref/recurrent.inc"

size_t ref_recurrent_scratch(const struct ref_call *c)
{
    return c->in[0].dtype == TENSOR_F64 ? ref_recurrent_f64_scratch(c) : scratch_bytes(c);
}

err ref_recurrent(struct ref_call *c)
{
    return c->in[0].dtype == TENSOR_F64 ? ref_recurrent_f64(c) : run(c);
}

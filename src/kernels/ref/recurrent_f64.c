/* RNN, GRU and LSTM in float64; see recurrent.c. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#define real double
#define M(name) name
#include "kernels/ref/recurrent.inc"

size_t ref_recurrent_f64_scratch(const struct ref_call *c)
{
    return scratch_bytes(c);
}

err ref_recurrent_f64(struct ref_call *c)
{
    return run(c);
}

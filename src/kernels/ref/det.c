/* Det: the determinant of square matrices, by elimination with the largest pivot of each column, in float64.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>

size_t ref_det_scratch(const struct ref_call *c)
{
    const struct tensor_shape *s = &c->in[0].shape;
    if (s->rank < 2) return 0;
    return REF_ALIGN(s->dims[s->rank - 1] * s->dims[s->rank - 1] * 8);
}

static double determinant(double *a, int64_t n)
{
    double result = 1;
    for (int64_t k = 0; k < n; k++) {
        int64_t best = k;
        for (int64_t i = k + 1; i < n; i++)
            if (fabs(a[i * n + k]) > fabs(a[best * n + k])) best = i;
        if (a[best * n + k] == 0) return 0;
        for (int64_t j = k; j < n && best != k; j++) {
            double t = a[k * n + j];
            a[k * n + j] = a[best * n + j];
            a[best * n + j] = t;
        }
        result *= best != k ? -a[k * n + k] : a[k * n + k];
        for (int64_t i = k + 1; i < n; i++) {
            double f = a[i * n + k] / a[k * n + k];
            for (int64_t j = k; j < n; j++)
                a[i * n + j] -= f * a[k * n + j];
        }
    }
    return result;
}

err ref_det(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    int rank = in->shape.rank;
    if (rank < 2 || in->shape.dims[rank - 1] != in->shape.dims[rank - 2]) return err_set(ERR_SHAPE, "the matrices are not square");
    int64_t n = in->shape.dims[rank - 1], count = tensor_count(&out->shape);
    double *a = ref_scratch(c, (size_t)(n * n) * sizeof *a);
    for (int64_t k = 0; k < count; k++) {
        for (int64_t i = 0; i < n * n; i++)
            a[i] = ref_double_at(in, k * n * n + i);
        double v = determinant(a, n), own;
        ref_convert(REF_F64, &v, out->dtype, &own, 1);
        ref_put(out->dtype, (char *)out->data + ref_offset(out, k) * ref_size(out), 0, 1, &own);
    }
    return ERR_OK;
}

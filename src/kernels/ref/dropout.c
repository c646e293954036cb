/* DropoutBy in any layout and float type: elements are visited in the order in which they are counted, so each group of 64 random words is made once.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/dropout.h"
#include "kernels/ref/ops.h"

/* The axes in the order of counting: the last one first to move. */
static int axes_of(const struct op_node *n, int rank, int *order)
{
    bool last = op_attr_int(n, "channels_last", 0) && rank >= 3;
    int k = 0;
    for (int i = 0; i < rank; i++)
        if (!last || i != 1) order[k++] = i;
    if (last) order[k++] = 1;
    return k;
}

struct words {
    struct kernel_dropout d;
    int64_t group; /* whose words these are; -1: none yet */
    uint32_t word[KERNEL_DROPOUT_GROUP];
};

static bool keeps(struct words *w, int64_t i)
{
    if (w->group != i / KERNEL_DROPOUT_GROUP) kernel_dropout_words(&w->d, w->group = i / KERNEL_DROPOUT_GROUP, w->word);
    return !w->d.all && w->word[i % KERNEL_DROPOUT_GROUP] >= w->d.below;
}

/* n numbers from element i on. */
static void drop(struct words *w, enum ref_domain domain, void *numbers, int64_t i, int64_t n)
{
    double *d = numbers;
    float *f = numbers, scale = (float)w->d.scale;
    for (int64_t k = 0; k < n; k++) {
        if (domain == REF_F64)
            d[k] = keeps(w, i + k) ? d[k] * w->d.scale : 0;
        else
            f[k] = keeps(w, i + k) ? f[k] * scale : 0;
    }
}

err ref_dropout_by(struct ref_call *c)
{
    const struct tensor *x = &c->in[0], *y = &c->out[0];
    int64_t dims[TENSOR_MAX_RANK], index[TENSOR_MAX_RANK] = {0}, at = 0, draw[3];
    int order[TENSOR_MAX_RANK], rank = axes_of(c->node, x->shape.rank, order);
    union {
        float f[REF_CHUNK];
        double d[REF_CHUNK];
    } row;
    if (tensor_count(&x->shape) == 0) return ERR_OK;
    for (int i = 0; i < 3; i++) draw[i] = ref_int_at(&c->in[1], i);
    struct words w = {.d = kernel_dropout_of(c->node, draw), .group = -1};
    for (int i = 0; i < rank; i++) dims[i] = x->shape.dims[order[i]];
    int inner = rank ? order[rank - 1] : 0;
    int64_t length = rank ? dims[rank - 1] : 1, from_step = rank ? x->strides[inner] * ref_size(x) : ref_size(x), to_step = rank ? y->strides[inner] * ref_size(y) : ref_size(y);
    do {
        const char *from = x->data;
        char *to = y->data;
        for (int i = 0; i + 1 < rank; i++) {
            from += index[i] * x->strides[order[i]] * ref_size(x);
            to += index[i] * y->strides[order[i]] * ref_size(y);
        }
        for (int64_t k = 0; k < length; k += REF_CHUNK) {
            int64_t n = MIN(length - k, REF_CHUNK);
            ref_get(x->dtype, from + k * from_step, from_step, n, &row);
            drop(&w, ref_domain(x->dtype), &row, at + k, n);
            ref_put(y->dtype, to + k * to_step, to_step, n, &row);
        }
        at += length;
    } while (rank > 1 && ref_next(rank - 1, dims, index));
    return ERR_OK;
}

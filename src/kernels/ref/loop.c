/* Walking several tensors at once in the order in which the first one lies in memory.
 *
 * Axes of size 1 go; the others are sorted by the strides of operand 0 (then of operand 1 ...), largest
 * outside; neighbours melt into one axis where step[outer] == step[inner] * size[inner] holds for every
 * operand. Two dense tensors of one layout melt into a single row. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <string.h>

bool ref_next(int rank, const int64_t *dims, int64_t *index)
{
    for (int i = rank - 1; i >= 0; i--) {
        if (++index[i] < dims[i]) return true;
        index[i] = 0;
    }
    return false;
}

/* True if axis a of the loop must be outside axis b. */
static bool outside(const struct ref_loop *l, int a, int b)
{
    for (int k = 0; k < l->n; k++)
        if (l->step[k][a] != l->step[k][b]) return l->step[k][a] > l->step[k][b];
    return false;
}

static void move_axis(struct ref_loop *l, int from, int to)
{
    l->dims[to] = l->dims[from];
    for (int k = 0; k < l->n; k++)
        l->step[k][to] = l->step[k][from];
}

static void sort_axes(struct ref_loop *l)
{
    for (int i = 1; i < l->rank; i++)
        for (int j = i; j > 0 && outside(l, j, j - 1); j--) {
            int64_t d = l->dims[j];
            l->dims[j] = l->dims[j - 1];
            l->dims[j - 1] = d;
            for (int k = 0; k < l->n; k++) {
                int64_t s = l->step[k][j];
                l->step[k][j] = l->step[k][j - 1];
                l->step[k][j - 1] = s;
            }
        }
}

static void melt_axes(struct ref_loop *l)
{
    int last = 0;
    for (int i = 1; i < l->rank; i++) {
        bool chained = true;
        for (int k = 0; k < l->n; k++)
            chained &= l->step[k][last] == l->step[k][i] * l->dims[i];
        if (chained) {
            int64_t dims = l->dims[last] * l->dims[i];
            move_axis(l, i, last);
            l->dims[last] = dims;
        } else {
            move_axis(l, i, ++last);
        }
    }
    l->rank = last + 1;
}

void ref_loop_init(struct ref_loop *l, const struct tensor_shape *shape, int n,
                   const struct tensor *const *operands)
{
    l->n = n;
    l->rank = 0;
    l->empty = false;
    for (int k = 0; k < n; k++)
        l->base[k] = operands[k]->data;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dims[i] == 0) l->empty = true;
        if (shape->dims[i] == 1) continue;
        l->dims[l->rank] = shape->dims[i];
        for (int k = 0; k < n; k++) {
            const struct tensor *t = operands[k];
            int axis = i - (shape->rank - t->shape.rank);
            bool stretched = axis < 0 || t->shape.dims[axis] == 1;
            l->step[k][l->rank] = stretched ? 0 : t->strides[axis] * ref_size(t);
        }
        l->rank++;
    }
    if (l->rank > 1) {
        sort_axes(l);
        melt_axes(l);
    }
    if (l->rank == 0) { /* one element is one row */
        l->rank = 1;
        l->dims[0] = 1;
        for (int k = 0; k < n; k++)
            l->step[k][0] = 0;
    }
}

void ref_loop_run(const struct ref_loop *l, ref_row_fn *row, void *context)
{
    if (l->empty) return;
    int64_t index[TENSOR_MAX_RANK] = {0}, step[REF_MAX_OPERANDS];
    char *p[REF_MAX_OPERANDS];
    int inner = l->rank - 1;
    for (int k = 0; k < l->n; k++) {
        p[k] = l->base[k];
        step[k] = l->step[k][inner];
    }
    for (;;) {
        row(context, p, step, l->dims[inner]);
        int i = inner - 1;
        for (; i >= 0; i--) {
            if (++index[i] < l->dims[i]) break;
            for (int k = 0; k < l->n; k++)
                p[k] -= l->step[k][i] * (l->dims[i] - 1);
            index[i] = 0;
        }
        if (i < 0) return;
        for (int k = 0; k < l->n; k++)
            p[k] += l->step[k][i];
    }
}

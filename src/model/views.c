/* Operators that move no bytes: with layouts as strides, Transpose, Reshape, Slice, Split and their like only look at the same
 * memory in another way. What cannot be seen so (a reshape over a permuted image) is refused here, and the planner copies.
 * Invariant: a view never reaches outside its slot. SPDX-License-Identifier: Apache-2.0 */
#include "model/plan.h"

#include <string.h>

bool model_is_reshape(enum op_kind kind)
{
    return kind == OP_RESHAPE || kind == OP_FLATTEN || kind == OP_SQUEEZE || kind == OP_UNSQUEEZE;
}

static void put_view(struct model_plan *p, int out, const struct model_value *in, const struct tensor *t, int64_t start)
{
    struct model_value *v = &p->values[out];
    struct tensor_shape shape = v->t.shape;
    v->t = *t;
    v->t.shape = shape; /* keeps the bounded bits */
    v->t.data = NULL;
    v->slot = in->slot;
    v->start = start;
}

static bool view_transpose(struct model_plan *p, const struct op_node *n, const struct model_value *in, struct tensor *t)
{
    const int64_t *perm;
    size_t count = op_attr_ints(n, "perm", &perm);
    int rank = in->t.shape.rank;
    for (int i = 0; i < rank; i++) {
        int64_t from = count == (size_t)rank ? perm[i] : rank - 1 - i;
        if (from < 0 || from >= rank) return false;
        t->strides[i] = in->t.strides[from];
    }
    (void)p;
    return true;
}

/* Integers of constant input i, or of the attribute that stood for it in older opsets. */
static int int_list(const struct model_plan *p, const struct op_node *n, int i, const char *attr, int64_t *ret)
{
    if (i < n->n_in && n->in[i] >= 0) {
        const struct tensor *t = &p->values[n->in[i]].t;
        int64_t count = t->data ? tensor_count(&t->shape) : -1;
        if (count > TENSOR_MAX_RANK) return -1;
        for (int64_t k = 0; k < count; k++)
            ret[k] = t->dtype == TENSOR_I32 ? ((const int32_t *)t->data)[k] : ((const int64_t *)t->data)[k];
        return (int)count;
    }
    const int64_t *list;
    size_t count = op_attr_ints(n, attr, &list);
    if (count > TENSOR_MAX_RANK) return -1;
    if (count) memcpy(ret, list, count * sizeof *ret);
    return (int)count;
}

/* Forward slices; the shape rule has the sizes, so only starts and steps are needed here. */
static bool view_slice(struct model_plan *p, const struct op_node *n, const struct model_value *in, struct tensor *t,
                       int64_t *start)
{
    int64_t starts[TENSOR_MAX_RANK], axes[TENSOR_MAX_RANK], steps[TENSOR_MAX_RANK];
    int count = int_list(p, n, 1, "starts", starts);
    int n_axes = int_list(p, n, 3, "axes", axes), n_steps = int_list(p, n, 4, "steps", steps);
    int rank = in->t.shape.rank;
    if (count <= 0 || (n_axes && n_axes != count) || (n_steps && n_steps != count)) return false;
    for (int k = 0; k < count; k++) {
        int64_t axis = n_axes ? axes[k] : k, step = n_steps ? steps[k] : 1;
        if (axis < 0) axis += rank;
        if (axis < 0 || axis >= rank || step <= 0) return false;
        int64_t size = in->t.shape.dims[axis], from = starts[k] < 0 ? MAX(starts[k] + size, 0) : MIN(starts[k], size);
        if (t->shape.dims[axis] == 0) continue;
        *start += from * in->t.strides[axis];
        t->strides[axis] *= step;
    }
    return true;
}

static bool view_split(struct model_plan *p, const struct op_node *n, const struct model_value *in)
{
    int rank = in->t.shape.rank;
    int64_t axis = op_attr_int(n, "axis", 0), at = 0;
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank) return false;
    for (int k = 0; k < n->n_out; k++) {
        if (n->out[k] < 0) return false; /* an output that nobody names has a size that nobody knows */
        struct tensor t = in->t;
        int64_t size = p->values[n->out[k]].t.shape.dims[axis];
        t.shape.dims[axis] = size;
        put_view(p, n->out[k], in, &t, in->start + at * in->t.strides[axis]);
        at += size;
    }
    return true;
}

bool model_view(struct model_plan *p, const struct graph_node *node)
{
    const struct op_node *n = &node->op;
    if (node->n_post || n->n_in < 1 || n->n_out < 1 || n->in[0] < 0 || n->out[0] < 0) return false;
    struct model_value in = p->values[n->in[0]];
    struct tensor t = in.t;
    int64_t start = in.start;
    if (in.slot < 0 || in.t.shape.bounded) return false;
    t.shape = p->values[n->out[0]].t.shape;
    switch (n->kind) {
    case OP_IDENTITY: break; /* a Dropout without a mask is gone since graph_specialise */
    case OP_TRANSPOSE:
        if (!view_transpose(p, n, &in, &t)) return false;
        break;
    case OP_RESHAPE: case OP_FLATTEN: case OP_SQUEEZE: case OP_UNSQUEEZE:
        if (!tensor_reshape_view(&in.t, &t.shape, &t)) return false;
        break;
    case OP_SLICE:
        if (!view_slice(p, n, &in, &t, &start)) return false;
        break;
    case OP_SPLIT: return view_split(p, n, &in);
    default: return false;
    }
    if (t.dtype != p->values[n->out[0]].t.dtype) return false;
    put_view(p, n->out[0], &in, &t, start);
    return true;
}

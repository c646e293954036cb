/* Gradients of operators that move numbers: what came from a place goes back to it. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "graph/backward_inside.h"

void bw_identity(struct graph_backward *w, const struct graph_node *n)
{
    bw_give(w, n, 0, bw_grad(w, n, 0));
}

/* Reshape, Flatten, Squeeze, Unsqueeze */
void bw_reshape(struct graph_backward *w, const struct graph_node *n)
{
    struct tensor_shape s = *bw_shape(w, n->op.in[0]);
    bw_give(w, n, 0, graph_b_reshape(&w->b, bw_grad(w, n, 0), &s));
}

void bw_transpose(struct graph_backward *w, const struct graph_node *n)
{
    const int64_t *perm = NULL;
    int64_t back[TENSOR_MAX_RANK];
    int rank = bw_shape(w, n->op.in[0])->rank;
    bool given = op_attr_ints(&n->op, "perm", &perm) == (size_t)rank && rank > 0;
    for (int i = 0; i < rank; i++) {
        int64_t from = given ? perm[i] : rank - 1 - i;
        back[from < 0 ? from + rank : from] = i;
    }
    bw_give(w, n, 0, graph_b_transpose(&w->b, bw_grad(w, n, 0), back));
}

void bw_expand(struct graph_backward *w, const struct graph_node *n)
{
    bw_give_reduced(w, n, 0, bw_grad(w, n, 0));
}

/* Axis by axis: [before, repeats, size, after] summed over the repeats. */
void bw_tile(struct graph_backward *w, const struct graph_node *n)
{
    int64_t repeats[TENSOR_MAX_RANK * 2], one = 1;
    int dy = bw_grad(w, n, 0), count = bw_ints(w, n, 1, "repeats", repeats);
    struct tensor_shape now = *bw_shape(w, n->op.out[0]);
    for (int i = 0; i < now.rank && i < count && !w->b.e; i++) {
        int64_t size = bw_shape(w, n->op.in[0])->dims[i];
        if (repeats[i] == 1) continue;
        struct tensor_shape four = {.rank = 4, .dims = {1, repeats[i], size, 1}};
        for (int k = 0; k < i; k++) four.dims[0] *= now.dims[k];
        for (int k = i + 1; k < now.rank; k++) four.dims[3] *= now.dims[k];
        dy = graph_b_reduce(&w->b, OP_REDUCE_SUM, graph_b_reshape(&w->b, dy, &four), &one, 1, false);
        now.dims[i] = size;
        dy = graph_b_reshape(&w->b, dy, &now);
    }
    bw_give(w, n, 0, dy);
}

/* [from, from + size) of one axis. */
static int slice(struct graph_backward *w, int x, int axis, int64_t from, int64_t size)
{
    if (w->b.e) return -1;
    int64_t to = from + size, at = axis;
    if (from == 0 && bw_shape(w, x)->dims[axis] == size) return x;
    int in[] = {x, graph_b_ints(&w->b, &from, 1), graph_b_ints(&w->b, &to, 1), graph_b_ints(&w->b, &at, 1)};
    return graph_b_close(&w->b, graph_b_open(&w->b, OP_SLICE, in, 4, 1));
}

void bw_concat(struct graph_backward *w, const struct graph_node *n)
{
    int axis = bw_axis(w, n, 1, bw_shape(w, n->op.out[0])->rank), dy = bw_grad(w, n, 0);
    int64_t at = 0;
    for (int i = 0; i < n->op.n_in; i++) {
        int64_t size = bw_shape(w, n->op.in[i])->dims[axis];
        if (bw_wants(w, n, i)) bw_give(w, n, i, slice(w, dy, axis, at, size));
        at += size;
    }
}

/* Parts without a gradient are zeros. */
void bw_split(struct graph_backward *w, const struct graph_node *n)
{
    int parts[KERNEL_MAX_OUT], count = 0, axis = bw_axis(w, n, 0, bw_shape(w, n->op.in[0])->rank);
    for (int o = 0; o < n->op.n_out && o < KERNEL_MAX_OUT; o++) {
        if (n->op.out[o] < 0) {
            bw_cannot(w, "a part of it has no name");
            return;
        }
        parts[count++] = bw_grad(w, n, o) >= 0 ? bw_grad(w, n, o) : graph_b_zeros(&w->b, n->op.out[o]);
    }
    struct graph_node *c = graph_b_open(&w->b, OP_CONCAT, parts, count, 1);
    graph_set_int(c, "axis", axis);
    bw_give(w, n, 0, graph_b_close(&w->b, c));
}

static int slice_grad(struct graph_backward *w, int dy, const struct tensor_shape *x, const int64_t *starts, const int64_t *steps)
{
    struct graph_node *d = graph_b_open(&w->b, OP_SLICE_GRAD, &dy, 1, 1);
    graph_set_ints(d, "shape", x->dims, (size_t)x->rank);
    graph_set_ints(d, "starts", starts, (size_t)x->rank);
    graph_set_ints(d, "steps", steps, (size_t)x->rank);
    return graph_b_close(&w->b, d);
}

void bw_slice(struct graph_backward *w, const struct graph_node *n)
{
    struct tensor_shape x = *bw_shape(w, n->op.in[0]);
    int64_t starts[TENSOR_MAX_RANK * 2], axes[TENSOR_MAX_RANK * 2], steps[TENSOR_MAX_RANK * 2], from[TENSOR_MAX_RANK], by[TENSOR_MAX_RANK];
    int count = bw_ints(w, n, 1, "starts", starts), n_axes = bw_ints(w, n, 3, "axes", axes), n_steps = bw_ints(w, n, 4, "steps", steps);
    for (int i = 0; i < x.rank; i++) {
        from[i] = 0;
        by[i] = 1;
    }
    for (int i = 0; i < count && !w->b.e; i++) {
        int64_t axis = n_axes < 0 ? i : axes[i], step = n_steps < 0 ? 1 : steps[i];
        if (axis < 0) axis += x.rank;
        int64_t size = x.dims[axis], start = starts[i] < 0 ? starts[i] + size : starts[i];
        from[axis] = MAX(0, MIN(start, step < 0 ? size - 1 : size));
        by[axis] = step;
    }
    bw_give(w, n, 0, slice_grad(w, bw_grad(w, n, 0), &x, from, by));
}

/* Where each place of one axis of Pad comes from. */
static int64_t source(const char *mode, int64_t at, int64_t size)
{
    if (strcmp(mode, "wrap") == 0) return ((at % size) + size) % size;
    if (strcmp(mode, "edge") == 0) return MAX(0, MIN(at, size - 1));
    while (at < 0 || at >= size) at = at < 0 ? -at : 2 * (size - 1) - at;
    return at;
}

/* Axis by axis: constants take their part away, copies are added to where they were taken from. */
void bw_pad(struct graph_backward *w, const struct graph_node *n)
{
    int64_t pads[TENSOR_MAX_RANK * 2], axes[TENSOR_MAX_RANK * 2];
    struct tensor_shape x = *bw_shape(w, n->op.in[0]);
    const char *mode = op_attr_string(&n->op, "mode", "constant");
    int dy = bw_grad(w, n, 0), count = bw_ints(w, n, 1, "pads", pads) / 2, n_axes = n->op.n_in > 3 ? bw_ints(w, n, 3, "axes", axes) : -1;
    for (int i = 0; i < count && !w->b.e; i++) {
        int64_t axis = n_axes < 0 ? i : axes[i] < 0 ? axes[i] + x.rank : axes[i], size = x.dims[axis], begin = pads[i];
        struct tensor_shape now = *bw_shape(w, dy);
        int64_t padded = now.dims[axis];
        if (begin == 0 && pads[count + i] == 0) continue;
        now.dims[axis] = size;
        if (strcmp(mode, "constant") == 0) {
            int64_t cut = MAX(0, -begin), end = MAX(0, -pads[count + i]), starts[TENSOR_MAX_RANK] = {0}, steps[TENSOR_MAX_RANK];
            dy = slice(w, dy, (int)axis, MAX(0, begin), size - cut - end);
            for (int k = 0; k < x.rank; k++) steps[k] = 1;
            starts[axis] = cut;
            if (cut || end) dy = slice_grad(w, dy, &now, starts, steps);
            continue;
        }
        int64_t *from = xnewn(int64_t, (size_t)padded + 1);
        for (int64_t k = 0; k < padded && size > 0; k++) from[k] = source(mode, k - begin, size);
        int in[] = {dy, graph_b_ints(&w->b, from, (int)padded)};
        free(from);
        struct graph_node *d = graph_b_open(&w->b, OP_GATHER_GRAD, in, 2, 1);
        graph_set_int(d, "axis", axis);
        graph_set_ints(d, "shape", now.dims, (size_t)now.rank);
        dy = graph_b_close(&w->b, d);
    }
    bw_give(w, n, 0, dy);
}

void bw_gather(struct graph_backward *w, const struct graph_node *n)
{
    struct tensor_shape x = *bw_shape(w, n->op.in[0]);
    int in[] = {bw_grad(w, n, 0), n->op.in[1]};
    struct graph_node *d = graph_b_open(&w->b, OP_GATHER_GRAD, in, 2, 1);
    bw_copy_attr(d, n, "axis");
    graph_set_ints(d, "shape", x.dims, (size_t)x.rank);
    bw_give(w, n, 0, graph_b_close(&w->b, d));
}

/* dy added into zeros by the scatter that belongs to the gather. */
static int scatter_into_zeros(struct graph_backward *w, const struct graph_node *n, enum op_kind kind, int ids, int64_t axis)
{
    int in[] = {graph_b_zeros(&w->b, n->op.in[0]), ids, bw_grad(w, n, 0)};
    struct graph_node *d = graph_b_open(&w->b, kind, in, 3, 1);
    d->op.opset = 18;
    graph_set_string(d, "reduction", "add");
    if (kind == OP_SCATTER_ELEMENTS) graph_set_int(d, "axis", axis);
    return graph_b_close(&w->b, d);
}

void bw_gather_elements(struct graph_backward *w, const struct graph_node *n)
{
    bw_give(w, n, 0, scatter_into_zeros(w, n, OP_SCATTER_ELEMENTS, n->op.in[1], op_attr_int(&n->op, "axis", 0)));
}

void bw_gather_nd(struct graph_backward *w, const struct graph_node *n)
{
    if (op_attr_int(&n->op, "batch_dims", 0) != 0)
        bw_cannot(w, "batch_dims is not 0");
    else
        bw_give(w, n, 0, scatter_into_zeros(w, n, OP_SCATTER_ND, n->op.in[1], 0));
}

/* y = x with updates at places: x loses what was written over, updates get what lies at their places. */
static void scatter(struct graph_backward *w, const struct graph_node *n, enum op_kind scatter_kind, enum op_kind gather_kind)
{
    struct graph_builder *b = &w->b;
    const char *how = op_attr_string(&n->op, "reduction", "none");
    int dy = bw_grad(w, n, 0);
    if (strcmp(how, "none") != 0 && strcmp(how, "add") != 0) {
        bw_cannot(w, "its reduction is neither none nor add");
        return;
    }
    if (bw_wants(w, n, 0) && strcmp(how, "add") == 0) bw_give(w, n, 0, dy);
    if (bw_wants(w, n, 0) && strcmp(how, "none") == 0) {
        int in[] = {dy, n->op.in[1], graph_b_zeros(b, n->op.in[2])};
        struct graph_node *d = graph_b_open(b, scatter_kind, in, 3, 1);
        bw_copy_attr(d, n, "axis");
        bw_give(w, n, 0, graph_b_close(b, d));
    }
    if (!bw_wants(w, n, 2)) return;
    struct graph_node *d = graph_b_open(b, gather_kind, (int[]){dy, n->op.in[1]}, 2, 1);
    bw_copy_attr(d, n, "axis");
    bw_give(w, n, 2, graph_b_close(b, d));
}

/* Two updates of one place: each gets the gradient, as in PyTorch, which says that the order is undefined. */
void bw_scatter_elements(struct graph_backward *w, const struct graph_node *n)
{
    scatter(w, n, OP_SCATTER_ELEMENTS, OP_GATHER_ELEMENTS);
}

void bw_scatter_nd(struct graph_backward *w, const struct graph_node *n)
{
    scatter(w, n, OP_SCATTER_ND, OP_GATHER_ND);
}

/* The values are those at the places. */
void bw_topk(struct graph_backward *w, const struct graph_node *n)
{
    if (n->op.n_out < 2 || n->op.out[1] < 0)
        bw_cannot(w, "its second output (the places) is not there");
    else
        bw_give(w, n, 0, scatter_into_zeros(w, n, OP_SCATTER_ELEMENTS, n->op.out[1], op_attr_int(&n->op, "axis", -1)));
}

/* DCR: SpaceToDepth is the inverse. CRD: by hand. */
void bw_depth_to_space(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    int dy = bw_grad(w, n, 0);
    int64_t k = op_attr_int(&n->op, "blocksize", 1);
    struct tensor_shape x = *bw_shape(w, n->op.in[0]), y = *bw_shape(w, n->op.out[0]);
    if (strcmp(op_attr_string(&n->op, "mode", "DCR"), "CRD") != 0) {
        struct graph_node *d = graph_b_open(b, OP_SPACE_TO_DEPTH, &dy, 1, 1);
        graph_set_int(d, "blocksize", k);
        bw_give(w, n, 0, graph_b_close(b, d));
        return;
    }
    struct tensor_shape six = {.rank = 6, .dims = {y.dims[0], y.dims[1], x.dims[2], k, x.dims[3], k}};
    static const int64_t perm[] = {0, 1, 3, 5, 2, 4};
    bw_give(w, n, 0, graph_b_reshape(b, graph_b_transpose(b, graph_b_reshape(b, dy, &six), perm), &x));
}

void bw_space_to_depth(struct graph_backward *w, const struct graph_node *n)
{
    int dy = bw_grad(w, n, 0);
    struct graph_node *d = graph_b_open(&w->b, OP_DEPTH_TO_SPACE, &dy, 1, 1);
    graph_set_int(d, "blocksize", op_attr_int(&n->op, "blocksize", 1));
    bw_give(w, n, 0, graph_b_close(&w->b, d));
}

void bw_trilu(struct graph_backward *w, const struct graph_node *n)
{
    int in[] = {bw_grad(w, n, 0), bw_in(n, 1)};
    struct graph_node *d = graph_b_open(&w->b, OP_TRILU, in, in[1] >= 0 ? 2 : 1, 1);
    d->op.opset = 14;
    bw_copy_attr(d, n, "upper");
    bw_give(w, n, 0, graph_b_close(&w->b, d));
}

/* ---- Resize: along each axis y = M x for a matrix M that the operator itself tells, by resizing the columns of an identity */

/* M as a constant [out, in]: the node's own Resize on an identity [in, in], along axis 0 of two. */
static int matrix(struct graph_backward *w, const struct graph_node *n, int axis, int64_t in, int64_t out)
{
    struct graph *g = w->b.g;
    enum tensor_dtype dtype = bw_dtype(w, n->op.in[0]) == TENSOR_F64 ? TENSOR_F64 : TENSOR_F32;
    int rank = bw_shape(w, n->op.in[0])->rank, old = n->op.kind == OP_UPSAMPLE || n->op.opset < 11, count = rank;
    float scales[TENSOR_MAX_RANK] = {0}, two_scales[2] = {0, 1};
    int at = bw_in(n, old ? 1 : 2), from = axis;
    const struct op_attr *list = op_attr(&n->op, "scales");
    const int64_t *axes = NULL;
    if (op_attr_ints(&n->op, "axes", &axes) > 0) {
        count = (int)op_attr_ints(&n->op, "axes", &axes);
        for (int i = 0; i < count; i++)
            if ((axes[i] < 0 ? axes[i] + rank : axes[i]) == axis) from = i;
    }
    bool given = at >= 0 && g->values[at].constant && tensor_count(&g->values[at].shape) == count;
    if (given) memcpy(scales, g->values[at].constant, (size_t)count * sizeof *scales);
    if (list && list->type == OP_ATTR_FLOATS && list->n == (size_t)rank) memcpy(scales, list->floats, (size_t)rank * sizeof *scales);
    two_scales[0] = scales[from] > 0 ? scales[from] : (float)out / (float)in;
    struct op_node r = n->op;
    struct op_attr attrs[16];
    r.n_attrs = 0;
    for (int i = 0; i < n->op.n_attrs && r.n_attrs < 15; i++) /* what speaks of axes is said anew */
        if (strcmp(n->op.attrs[i].name, "axes") != 0 && strcmp(n->op.attrs[i].name, "scales") != 0 &&
            strcmp(n->op.attrs[i].name, "keep_aspect_ratio_policy") != 0)
            attrs[r.n_attrs++] = n->op.attrs[i];
    r.attrs = attrs;
    if (old) r.kind = OP_RESIZE;
    if (old) r.opset = 10;
    struct tensor_shape eye_shape = {.rank = 2, .dims = {in, in}}, m_shape = {.rank = 2, .dims = {out, in}}, s2 = {.rank = 1, .dims = {2}};
    void *eye = NULL, *m = NULL;
    int v = -1;
    size_t size = tensor_dtype_size(dtype);
    if (w->b.e) return -1;
    w->b.e = mem_alloc(g->payer, MEM_OTHER, (size_t)(in * in) * size, &eye);
    if (w->b.e) return -1;
    memset(eye, 0, (size_t)(in * in) * size);
    for (int64_t i = 0; i < in; i++) {
        if (dtype == TENSOR_F64) ((double *)eye)[i * in + i] = 1;
        else ((float *)eye)[i * in + i] = 1;
    }
    w->b.e = graph_add_constant(g, "", dtype, &m_shape, &v, &m);
    struct tensor ins[4] = {tensor_view(dtype, &eye_shape, eye)}, outs[1];
    ins[old ? 1 : 2] = tensor_view(TENSOR_F32, &s2, two_scales);
    if (!w->b.e) {
        outs[0] = tensor_view(dtype, &m_shape, m);
        w->b.e = kernels_ref_run(&r, ins, old ? 2 : 3, outs, 1);
    }
    mem_free(g->payer, MEM_OTHER, eye, (size_t)(in * in) * size);
    return w->b.e ? -1 : v;
}

/* Nearest by a whole number: the sum over each window. */
static bool whole_nearest(const struct graph_node *n, const struct tensor_shape *x, const struct tensor_shape *y)
{
    bool old = n->op.kind == OP_UPSAMPLE || n->op.opset < 11;
    if (strcmp(op_attr_string(&n->op, "mode", "nearest"), "nearest") != 0 || x->rank < 3) return false;
    const char *where = op_attr_string(&n->op, "coordinate_transformation_mode", "half_pixel");
    const char *round = op_attr_string(&n->op, "nearest_mode", "round_prefer_floor");
    bool half = strcmp(where, "half_pixel") == 0 || strcmp(where, "pytorch_half_pixel") == 0, rounds = strncmp(round, "round", 5) == 0;
    if (!old && !(half && rounds) && !(strcmp(where, "asymmetric") == 0 && strcmp(round, "floor") == 0)) return false;
    bool whole = x->dims[0] == y->dims[0] && x->dims[1] == y->dims[1];
    for (int i = 2; i < x->rank; i++) whole = whole && x->dims[i] > 1 && y->dims[i] % x->dims[i] == 0;
    return whole;
}

void bw_resize(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    struct tensor_shape x = *bw_shape(w, n->op.in[0]), y = *bw_shape(w, n->op.out[0]);
    int dy = bw_grad(w, n, 0);
    if (strcmp(op_attr_string(&n->op, "coordinate_transformation_mode", ""), "tf_crop_and_resize") == 0) {
        bw_cannot(w, "it crops");
        return;
    }
    if (whole_nearest(n, &x, &y)) {
        int64_t k[TENSOR_MAX_RANK], all = 1;
        for (int i = 2; i < x.rank; i++) all *= k[i - 2] = y.dims[i] / x.dims[i];
        struct graph_node *p = graph_b_open(b, OP_AVERAGE_POOL, &dy, 1, 1);
        graph_set_ints(p, "kernel_shape", k, (size_t)x.rank - 2);
        graph_set_ints(p, "strides", k, (size_t)x.rank - 2);
        bw_give(w, n, 0, graph_b_scale(b, graph_b_close(b, p), (double)all));
        return;
    }
    struct tensor_shape now = y;
    for (int i = 0; i < x.rank && !b->e; i++) {
        int64_t outer = 1, inner = 1;
        if (x.dims[i] == y.dims[i]) continue;
        for (int k = 0; k < i; k++) outer *= now.dims[k];
        for (int k = i + 1; k < x.rank; k++) inner *= now.dims[k];
        struct tensor_shape three = {.rank = 3, .dims = {outer, y.dims[i], inner}};
        static const int64_t swap[] = {1, 0};
        int m = matrix(w, n, i, x.dims[i], y.dims[i]);
        dy = graph_b2(b, OP_MATMUL, graph_b_transpose(b, m, swap), graph_b_reshape(b, dy, &three));
        now.dims[i] = x.dims[i];
        dy = graph_b_reshape(b, dy, &now);
    }
    bw_give(w, n, 0, dy);
}

/* Gradients of convolutions and poolings.
 *
 * With y = Conv(x, W) along one axis, y[o] = sum_k W[k] x[o stride + k dilation - pad]: the gradient by x is the ConvTranspose of dy with the same W
 * and sizes, and that of ConvTranspose is Conv. What stride left over at the end of x is ConvTranspose's output_padding. The gradient by W is
 * an operator of its own (ConvGradWeight), the same for both with x and dy exchanged. SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "graph/backward_inside.h"

/* Sizes written out, so that auto_pad and output_shape need not be understood again. */
static void set_window(struct graph_node *n, const struct op_window *w, bool pool)
{
    int64_t pads[12];
    size_t k = (size_t)w->n;
    memcpy(pads, w->pad_begin, k * sizeof *pads);
    memcpy(pads + k, w->pad_end, k * sizeof *pads);
    graph_set_ints(n, "kernel_shape", w->kernel, k);
    graph_set_ints(n, "strides", w->stride, k);
    graph_set_ints(n, "dilations", w->dilation, k);
    graph_set_ints(n, "pads", pads, 2 * k);
    if (!pool) graph_set_int(n, "group", w->group);
}

static bool window(struct graph_backward *w, const struct graph_node *n, bool pool, struct op_window *ret)
{
    err e = op_window(&n->op, bw_shape(w, n->op.in[0]), pool ? NULL : bw_shape(w, n->op.in[1]), ret);
    if (e && !w->b.e) w->b.e = e;
    return !w->b.e;
}

/* All but the channels. */
static int sum_channels(struct graph_backward *w, int dy)
{
    int64_t axes[TENSOR_MAX_RANK];
    int n = 0, rank = bw_shape(w, dy)->rank;
    for (int i = 0; i < rank; i++)
        if (i != 1) axes[n++] = i;
    return graph_b_reduce(&w->b, OP_REDUCE_SUM, dy, axes, n, false);
}

static struct graph_node *open_weight(struct graph_backward *w, int dy, int x, const struct op_window *win, int weight, int outputs)
{
    struct tensor_shape s = *bw_shape(w, weight);
    struct graph_node *d = graph_b_open(&w->b, OP_CONV_GRAD_WEIGHT, (int[]){dy, x}, 2, outputs);
    set_window(d, win, false);
    graph_set_ints(d, "shape", s.dims, (size_t)s.rank);
    return d;
}

void bw_conv(struct graph_backward *w, const struct graph_node *n)
{
    struct op_window win;
    int x = n->op.in[0], weight = n->op.in[1], dy = bw_grad(w, n, 0);
    if (!window(w, n, false, &win)) return;
    if (bw_wants(w, n, 1)) {
        bool bias = bw_wants(w, n, 2);
        int dw = graph_b_close(&w->b, open_weight(w, dy, x, &win, weight, bias ? 2 : 1));
        bw_give(w, n, 1, dw);
        if (bias) bw_give(w, n, 2, graph_b_output(&w->b, dw, 1));
    } else if (bw_wants(w, n, 2)) {
        bw_give(w, n, 2, sum_channels(w, dy));
    }
    if (!bw_wants(w, n, 0)) return;
    int64_t rest[6];
    for (int i = 0; i < win.n; i++) {
        int64_t cover = (win.kernel[i] - 1) * win.dilation[i] + 1;
        rest[i] = win.in[i] + win.pad_begin[i] + win.pad_end[i] - cover - win.stride[i] * (win.out[i] - 1);
    }
    struct graph_node *d = graph_b_open(&w->b, OP_CONV_TRANSPOSE, (int[]){dy, weight}, 2, 1);
    set_window(d, &win, false);
    graph_set_ints(d, "output_padding", rest, (size_t)win.n);
    bw_give(w, n, 0, graph_b_close(&w->b, d));
}

void bw_conv_transpose(struct graph_backward *w, const struct graph_node *n)
{
    struct op_window win;
    int x = n->op.in[0], weight = n->op.in[1], dy = bw_grad(w, n, 0);
    if (!window(w, n, false, &win)) return;
    if (bw_wants(w, n, 1)) bw_give(w, n, 1, graph_b_close(&w->b, open_weight(w, x, dy, &win, weight, 1)));
    if (bw_wants(w, n, 2)) bw_give(w, n, 2, sum_channels(w, dy));
    if (!bw_wants(w, n, 0)) return;
    struct graph_node *d = graph_b_open(&w->b, OP_CONV, (int[]){dy, weight}, 2, 1);
    set_window(d, &win, false);
    int dx = graph_b_close(&w->b, d);
    for (int i = 0; i < win.n && !w->b.e; i++) { /* output_padding of a stride or more gives windows that x has no place for */
        int64_t from = 0, axis = 2 + i;
        if (bw_shape(w, dx)->dims[axis] == win.in[i]) continue;
        int in[] = {dx, graph_b_ints(&w->b, &from, 1), graph_b_ints(&w->b, &win.in[i], 1), graph_b_ints(&w->b, &axis, 1)};
        dx = graph_b_close(&w->b, graph_b_open(&w->b, OP_SLICE, in, 4, 1));
    }
    bw_give(w, n, 0, dx);
}

void bw_max_pool(struct graph_backward *w, const struct graph_node *n)
{
    struct op_window win;
    if (!window(w, n, true, &win)) return;
    struct graph_node *d = graph_b_open(&w->b, OP_MAX_POOL_GRAD, (int[]){bw_grad(w, n, 0), n->op.in[0]}, 2, 1);
    set_window(d, &win, true);
    bw_copy_attr(d, n, "ceil_mode");
    bw_give(w, n, 0, graph_b_close(&w->b, d));
}

void bw_average_pool(struct graph_backward *w, const struct graph_node *n)
{
    struct op_window win;
    struct tensor_shape x = *bw_shape(w, n->op.in[0]);
    int dy = bw_grad(w, n, 0);
    if (!window(w, n, true, &win)) return;
    struct graph_node *d = graph_b_open(&w->b, OP_AVERAGE_POOL_GRAD, &dy, 1, 1);
    set_window(d, &win, true);
    bw_copy_attr(d, n, "ceil_mode");
    bw_copy_attr(d, n, "count_include_pad");
    graph_set_ints(d, "shape", x.dims, (size_t)x.rank);
    bw_give(w, n, 0, graph_b_close(&w->b, d));
}

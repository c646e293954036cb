/* The quantised operators of com.microsoft as bodies of others.
 *
 * Products are taken of whole numbers held in f32, without their scales: sums are exact up to 2^24, which is what integers would give for as
 * many as 500 places of 8 bits by 8 at their worst, and they run on the fast kernels of f32. What only moves or averages numbers is
 * done on real ones and quantised again. SPDX-License-Identifier: Apache-2.0 */
#include "graph/standard.h"

int std_without_zero(struct maker *m, int a, int zero)
{
    a = std_f32(m, a);
    return zero < 0 ? a : std_two(m, OP_SUB, a, std_f32(m, zero));
}

/* Input i with its scale and zero point behind it, as real numbers. */
static int real_of(struct maker *m, const struct op_node *n, int i)
{
    return node(m, OP_DEQUANTIZE_LINEAR, n->in[i], n->in[i + 1], std_input(n, i + 2), -1);
}

static int quantised(struct maker *m, const struct op_node *n, int x, int i, int to)
{
    return node(m, OP_QUANTIZE_LINEAR, x, n->in[i], std_input(n, i + 1), to);
}

static int scaled(struct maker *m, int product, int a, int b)
{
    return std_two(m, OP_MUL, product, std_two(m, OP_MUL, a, b));
}

void graph_standard_qgemm(struct maker *m, const struct op_node *n)
{
    int a = std_without_zero(m, n->in[0], std_input(n, 2)), b = std_f32(m, n->in[3]);
    float alpha = op_attr_float(n, "alpha", 1);
    if (op_attr_int(n, "transA", 0)) a = STD_TRANSPOSE(m, a, 1, 0);
    if (op_attr_int(n, "transB", 0)) b = STD_TRANSPOSE(m, b, 1, 0);
    if (std_input(n, 5) >= 0) b = std_two(m, OP_SUB, b, std_f32(m, n->in[5])); /* per column, if not one for all */
    int y = std_two(m, OP_MATMUL, a, b);
    if (std_input(n, 6) >= 0) y = std_two(m, OP_ADD, y, std_f32(m, n->in[6]));
    y = scaled(m, y, n->in[1], n->in[4]);
    if (alpha != 1) y = std_two(m, OP_MUL, y, real(m, alpha));
    if (std_input(n, 7) >= 0)
        quantised(m, n, y, 7, n->out[0]);
    else
        std_give(m, n, 0, y);
}

static void finish(struct maker *m, const struct op_node *n, int y, int bias)
{
    std_give(m, n, 0, bias < 0 ? y : std_two(m, OP_ADD, y, bias));
}

void graph_standard_dynamic_matmul(struct maker *m, const struct op_node *n)
{
    int q = value(m, "quantised"), scale = value(m, "scale"), zero = value(m, "zero");
    struct graph_node *d = graph_add_node(m->g, OP_DYNAMIC_QUANTIZE, m->name, 1, 3);
    d->op.opset = OPSET;
    d->op.in[0] = n->in[0];
    memcpy(d->op.out, (int[]){q, scale, zero}, 3 * sizeof(int));
    int y = std_two(m, OP_MATMUL, std_without_zero(m, q, zero), std_without_zero(m, n->in[1], std_input(n, 3)));
    finish(m, n, scaled(m, y, scale, n->in[2]), std_input(n, 4));
}

void graph_standard_integer_matmul(struct maker *m, const struct op_node *n)
{
    int y = std_two(m, OP_MATMUL, std_without_zero(m, n->in[0], std_input(n, 4)), std_without_zero(m, n->in[1], std_input(n, 5)));
    finish(m, n, scaled(m, y, n->in[2], n->in[3]), std_input(n, 6));
}

static bool channels_last(const struct op_node *n)
{
    return op_attr_int(n, "channels_last", 0) != 0;
}

void graph_standard_qconv(struct maker *m, const struct op_node *n)
{
    int in[9];
    for (int i = 0; i < 9; i++) in[i] = std_input(n, i);
    if (channels_last(n)) in[0] = std_channels_first(m, in[0]);
    int y = std_copy(m, n, OP_QLINEAR_CONV, 10, n->n_in, in, channels_last(n) ? -1 : n->out[0]);
    if (channels_last(n)) std_give_channels_last(m, n, y);
}

void graph_standard_qconcat(struct maker *m, const struct op_node *n)
{
    int parts[KERNEL_MAX_IN / 3 + 1], count = 0;
    for (int i = 2; i < n->n_in; i += 3) {
        if (n->in[i] < 0 || std_input(n, i + 1) < 0) {
            m->e = err_set(ERR_FORMAT, "QLinearConcat needs a scale for each of its tensors; input %d or %d is absent", i, i + 1);
            return;
        }
        parts[count++] = real_of(m, n, i);
    }
    int y = std_many(m, OP_CONCAT, OPSET, count, parts, -1);
    graph_set_int(last(m), "axis", op_attr_int(n, "axis", 0));
    quantised(m, n, y, 0, n->out[0]);
}

/* A pool over planes: x is real, the result is quantised with inputs 3 and 4. */
static void pooled(struct maker *m, const struct op_node *n, enum op_kind kind, int opset)
{
    int x = real_of(m, n, 0);
    if (channels_last(n)) x = std_channels_first(m, x);
    int y = quantised(m, n, std_copy(m, n, kind, opset, 1, &x, -1), 3, channels_last(n) ? -1 : n->out[0]);
    if (channels_last(n)) std_give_channels_last(m, n, y);
}

void graph_standard_qglobal_pool(struct maker *m, const struct op_node *n)
{
    pooled(m, n, OP_GLOBAL_AVERAGE_POOL, 1);
}

void graph_standard_qpool(struct maker *m, const struct op_node *n)
{
    pooled(m, n, OP_AVERAGE_POOL, 11);
}

void graph_standard_qsoftmax(struct maker *m, const struct op_node *n)
{
    int64_t opset = op_attr_int(n, "opset", 13);
    int y = std_one(m, OP_SOFTMAX, real_of(m, n, 0));
    last(m)->op.opset = opset < 13 ? 11 : 13;
    graph_set_int(last(m), "axis", op_attr_int(n, "axis", -1));
    quantised(m, n, y, 3, n->out[0]);
}

void graph_standard_qwhere(struct maker *m, const struct op_node *n)
{
    int a = real_of(m, n, 1), b = real_of(m, n, 4);
    quantised(m, n, node(m, OP_WHERE, n->in[0], a, b, -1), 7, n->out[0]);
}

void graph_standard_qmean(struct maker *m, const struct op_node *n)
{
    int x = real_of(m, n, 0);
    quantised(m, n, std_copy(m, n, OP_REDUCE_MEAN, OPSET, 1, &x, -1), 3, n->out[0]);
}

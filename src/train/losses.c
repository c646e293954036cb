/* Each loss reads like its formula; what can be done without exp of large numbers is done so. SPDX-License-Identifier: Apache-2.0 */
#include "train/losses.h"

#include "train/runner.h"

#include <math.h>
#include <string.h>

static int number(struct graph_builder *b, double v)
{
    return graph_b_number(b, TENSOR_F32, v);
}

static int mean(struct graph_builder *b, int x)
{
    return graph_b_reduce(b, OP_REDUCE_MEAN, x, NULL, -1, false);
}

static int sum_rows(struct graph_builder *b, int x)
{
    if (b->e) return -1;
    double rows = (double)MAX(graph_b_shape(b, x)->dims[0], 1);
    return graph_b_scale(b, graph_b_reduce(b, OP_REDUCE_SUM, x, NULL, -1, false), 1 / rows);
}

static int log_softmax(struct graph_builder *b, int x)
{
    if (b->e) return -1;
    struct graph_node *n = graph_b_open(b, OP_LOG_SOFTMAX, &x, 1, 1);
    graph_set_int(n, "axis", 1);
    return graph_b_close(b, n);
}

/* -t log s(x) - (1 - t) log(1 - s(x)) = log(1 + exp(x)) - t x */
int train_b_bce(struct graph_builder *b, int logits, int target)
{
    return mean(b, graph_b2(b, OP_SUB, graph_b1(b, OP_SOFTPLUS, logits), graph_b2(b, OP_MUL, target, logits)));
}

int train_b_focal(struct graph_builder *b, int logits, int target, double gamma)
{
    int logs = log_softmax(b, logits), each = graph_b2(b, OP_MUL, target, logs);
    if (gamma > 0) {
        int rest = graph_b2(b, OP_SUB, number(b, 1), graph_b1(b, OP_EXP, logs));
        each = graph_b2(b, OP_MUL, each, graph_b2(b, OP_POW, graph_b1(b, OP_RELU, rest), number(b, gamma)));
    }
    return graph_b_scale(b, sum_rows(b, each), -1);
}

int train_b_distill(struct graph_builder *b, int logits, int teacher, double temperature)
{
    int logs = log_softmax(b, graph_b_scale(b, logits, 1 / temperature));
    return graph_b_scale(b, sum_rows(b, graph_b2(b, OP_MUL, teacher, logs)), -temperature * temperature);
}

int train_b_l1(struct graph_builder *b, int x, int y)
{
    return mean(b, graph_b1(b, OP_ABS, graph_b2(b, OP_SUB, x, y)));
}

int train_b_mse(struct graph_builder *b, int x, int y)
{
    int d = graph_b2(b, OP_SUB, x, y);
    return mean(b, graph_b2(b, OP_MUL, d, d));
}

enum { WINDOW = 11 };

/* The Gaussian window over each channel of [N, C, H, W]. */
static int blur(struct graph_builder *b, int x, int weight, int64_t channels)
{
    if (b->e) return -1;
    struct graph_node *n = graph_b_open(b, OP_CONV, (int[]){x, weight}, 2, 1);
    graph_set_int(n, "group", channels);
    return graph_b_close(b, n);
}

static int window(struct graph_builder *b, int64_t channels)
{
    struct tensor_shape s = {.rank = 4, .dims = {channels, 1, WINDOW, WINDOW}};
    double line[WINDOW], total = 0;
    float *f;
    int v;
    if (b->e || (b->e = graph_add_constant(b->g, "ssim_window", TENSOR_F32, &s, &v, (void **)&f))) return -1;
    for (int i = 0; i < WINDOW; i++) total += line[i] = exp(-(i - WINDOW / 2) * (i - WINDOW / 2) / (2 * 1.5 * 1.5));
    for (int64_t c = 0; c < channels; c++)
        for (int i = 0; i < WINDOW * WINDOW; i++) f[c * WINDOW * WINDOW + i] = (float)(line[i / WINDOW] * line[i % WINDOW] / (total * total));
    return v;
}

/* (2 mx my + c1)(2 sxy + c2) / ((mx^2 + my^2 + c1)(sx + sy + c2)), c1 = (0.01 range)^2, c2 = (0.03 range)^2 */
int train_b_ssim(struct graph_builder *b, int x, int y, double range)
{
    if (b->e) return -1;
    const struct tensor_shape *s = graph_b_shape(b, x);
    if (s->rank != 4 || s->dims[2] < WINDOW || s->dims[3] < WINDOW) {
        b->e = err_set(ERR_SHAPE, "SSIM needs pictures of [N, C, H, W] of at least %d pixels a side", WINDOW);
        return -1;
    }
    int64_t channels = s->dims[1];
    int w = window(b, channels), c1 = number(b, 1e-4 * range * range), c2 = number(b, 9e-4 * range * range);
    int mx = blur(b, x, w, channels), my = blur(b, y, w, channels);
    int mxx = graph_b2(b, OP_MUL, mx, mx), myy = graph_b2(b, OP_MUL, my, my), mxy = graph_b2(b, OP_MUL, mx, my);
    int sx = graph_b2(b, OP_SUB, blur(b, graph_b2(b, OP_MUL, x, x), w, channels), mxx);
    int sy = graph_b2(b, OP_SUB, blur(b, graph_b2(b, OP_MUL, y, y), w, channels), myy);
    int sxy = graph_b2(b, OP_SUB, blur(b, graph_b2(b, OP_MUL, x, y), w, channels), mxy);
    int top = graph_b2(b, OP_MUL, graph_b2(b, OP_ADD, graph_b_scale(b, mxy, 2), c1), graph_b2(b, OP_ADD, graph_b_scale(b, sxy, 2), c2));
    int bottom = graph_b2(b, OP_MUL, graph_b2(b, OP_ADD, graph_b2(b, OP_ADD, mxx, myy), c1), graph_b2(b, OP_ADD, graph_b2(b, OP_ADD, sx, sy), c2));
    return graph_b2(b, OP_SUB, number(b, 1), mean(b, graph_b2(b, OP_DIV, top, bottom)));
}

/* |a - b|^2 = a.a + b.b - 2 a.b, kept above 1e-12 so that the root has a slope. Rows that are not allowed are moved out of reach. */
int train_b_triplet(struct graph_builder *b, int x, int same, double margin)
{
    enum { FAR = 1000000 };
    int64_t axis1 = 1, turned[] = {1, 0};
    int squares = graph_b_reduce(b, OP_REDUCE_SUM, graph_b2(b, OP_MUL, x, x), &axis1, 1, true);
    int products = graph_b2(b, OP_MATMUL, x, graph_b_transpose(b, x, turned));
    int d = graph_b2(b, OP_SUB, graph_b2(b, OP_ADD, squares, graph_b_transpose(b, squares, turned)), graph_b_scale(b, products, 2));
    d = graph_b1(b, OP_SQRT, graph_b2(b, OP_MAX, d, number(b, 1e-12)));
    int other = graph_b_scale(b, graph_b2(b, OP_SUB, number(b, 1), same), FAR), own = graph_b_scale(b, same, FAR);
    int positive = graph_b_reduce(b, OP_REDUCE_MAX, graph_b2(b, OP_SUB, d, other), &axis1, 1, false);
    int negative = graph_b_reduce(b, OP_REDUCE_MIN, graph_b2(b, OP_ADD, d, own), &axis1, 1, false);
    return mean(b, graph_b1(b, OP_RELU, graph_b2(b, OP_ADD, graph_b2(b, OP_SUB, positive, negative), number(b, margin))));
}

int train_b_unit(struct graph_builder *b, int x)
{
    int64_t axis = 1;
    int squares = graph_b_reduce(b, OP_REDUCE_SUM, graph_b2(b, OP_MUL, x, x), &axis, 1, true);
    return graph_b2(b, OP_DIV, x, graph_b1(b, OP_SQRT, graph_b2(b, OP_MAX, squares, number(b, 1e-24))));
}

/* ---- classification */

/* `from` has the numbers of `v`, in its order. */
static err as_rows(struct graph_builder *b, const struct graph *g, int v, int from, int *ret)
{
    struct tensor_shape s = g->values[v].shape;
    char text[96];
    for (int i = 2; i < s.rank; i++)
        if (s.dims[i] != 1)
            return err_set(ERR_SHAPE, "%s: output '%s' is %s, no list of numbers per picture [N, numbers]", g->name, g->values[v].name,
                           tensor_shape_text(&s, NULL, text, sizeof text));
    if (s.rank < 2) return err_set(ERR_SHAPE, "%s: output '%s' has %d axes; [N, numbers] is needed", g->name, g->values[v].name, s.rank);
    s.rank = 2;
    *ret = graph_b_reshape(b, from, &s);
    return b->e;
}

err train_logits(struct graph_builder *b, const struct graph_training *t, int *ret)
{
    if (!t->n_outputs) return err_set(ERR_USAGE, "%s: it has no output", t->g->name);
    static const enum op_kind ends[] = {OP_SOFTMAX, OP_LOG_SOFTMAX, OP_SIGMOID};
    const struct graph_node *last = NULL;
    for (size_t i = 0; i < ARRAY_LEN(ends) && !last; i++) last = train_ends_in(t->g, ends[i]);
    int v = t->g->outputs[0];
    return as_rows(b, t->g, v, last ? last->op.in[0] : v, ret);
}

err train_loss_classify(struct graph_builder *b, const struct graph_training *t, void *context, int *ret_loss)
{
    const struct train_classify *o = context;
    int logits, target, loss;
    err e = train_logits(b, t, &logits);
    if (e) return e;
    struct tensor_shape s = *graph_b_shape(b, logits);
    target = graph_add_input(b->g, "train_target", TENSOR_F32, &s);
    if (o->focal > 0)
        loss = train_b_focal(b, logits, target, o->focal);
    else
        loss = graph_b_cross_entropy(b, logits, target, o->smoothing);
    if (o->distill > 0) {
        int teacher = graph_add_input(b->g, "train_teacher", TENSOR_F32, &s);
        int soft = train_b_distill(b, logits, teacher, o->temperature > 0 ? o->temperature : 1);
        loss = graph_b2(b, OP_ADD, graph_b_scale(b, loss, 1 - o->distill), graph_b_scale(b, soft, o->distill));
    }
    *ret_loss = loss;
    return b->e;
}

/* ---- identities */

err train_loss_embed(struct graph_builder *b, const struct graph_training *t, void *context, int *ret_loss)
{
    const struct train_embed *o = context;
    int x, head = -1, logits;
    for (int i = 1; i < t->n_outputs; i++)
        if (str_starts(t->g->values[t->g->outputs[i]].name, "train_head")) head = t->g->outputs[i];
    if (head < 0) return err_set(ERR_USAGE, "%s: it has no output 'train_head' with the identities", t->g->name);
    err e = as_rows(b, t->g, t->g->outputs[0], t->g->outputs[0], &x);
    if (!e) e = as_rows(b, t->g, head, head, &logits);
    if (e) return e;
    struct tensor_shape s = *graph_b_shape(b, logits), pairs = {.rank = 2, .dims = {s.dims[0], s.dims[0]}};
    int target = graph_add_input(b->g, "train_target", TENSOR_F32, &s), same = graph_add_input(b->g, "train_same", TENSOR_F32, &pairs);
    int loss = graph_b_cross_entropy(b, logits, target, o->smoothing);
    *ret_loss = graph_b2(b, OP_ADD, loss, graph_b_scale(b, train_b_triplet(b, train_b_unit(b, x), same, o->margin), o->triplet));
    return b->e;
}

/* The kernel contract for batch normalisation over the batch and its gradient (Ioffe and Szegedy 2015), and for the gradients of Softmax, LogSoftmax and
 * LayerNormalization along the last axes (train.inc). Why not oneDNN's batch normalisation: its threads wait for each other in a loop of their own, which lasts a time slice where one of them has lost its processor (training is what gives way).
 *
 *     forward   mean, var of the batch; y = (x - mean) r s + b, r = 1 / sqrt(var + epsilon); running statistics
 *     backward  ds = r sum(dy (x - mean)), db = sum(dy), dx = s r (dy - db / N - (x - mean) r ds / N)
 *
 * x, dy, y and dx are f32 or bf16, each on its own, everything else f32; all dense. Results do not depend on the number of threads. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/onednn/engine.h"
#include "kernels/onednn/state.h"
#include "kernels/own/train.h"

struct kernel_state {
    struct own_train t;
    const struct own_lanes *lanes;
    struct mem_payer *payer;
    int threads, rooms;
    bool forward, running, x_half, dy_half, y_half;
    double epsilon;
    float momentum;
};

static err state_new(const struct kernel_state *from, double ns, const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    err e = mem_charge(payer, MEM_CODE, sizeof *from);
    if (e) return e;
    struct kernel_state *s = xnew(struct kernel_state);
    *s = *from;
    s->lanes = own_lanes();
    s->payer = payer;
    s->threads = onednn_threads_for(ns, q->threads);
    *ret = s;
    return ERR_OK;
}

static void member(void *arg, int thread, int threads)
{
    const struct own_train_call *k = arg;
    k->run(k, thread, threads);
}

/* ---- batch normalisation */

/* What is as large as x may be bf16, each on its own; what belongs to channels is f32. */
static bool images_taken(const struct kernel_query *q, bool forward)
{
    bool yes = onednn_takes_half(&q->in[0]) && (forward || onednn_takes_half(&q->in[1])) && onednn_takes_half(&q->out[0]);
    for (int i = forward ? 1 : 2; i < q->n_in; i++) yes &= !q->in[i].dtype || onednn_takes(&q->in[i]);
    for (int i = 1; i < q->n_out; i++) yes &= !q->out[i].dtype || onednn_takes(&q->out[i]);
    return yes;
}

static bool accepts_batch_norm(const struct kernel_query *q)
{
    bool forward = q->node->kind == OP_BATCH_NORM_TRAIN;
    int rank = q->n_in ? q->in[0].shape.rank : 0;
    if ((!forward && q->node->kind != OP_BATCH_NORM_GRAD) || !own_lanes() || q->n_post || rank < 3 || rank > 5) return false;
    if (q->n_in < (forward ? 3 : 5) || q->n_out < 3 || !images_taken(q, forward)) return false;
    for (int i = 0; i < 3; i++)
        if (!q->out[i].dtype) return false;
    return tensor_count(&q->in[0].shape) > 0;
}

static err prepare_batch_norm(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    bool forward = q->node->kind == OP_BATCH_NORM_TRAIN;
    const struct tensor *x = &q->in[forward ? 0 : 1];
    if (!onednn_is_last(x) || !onednn_is_last(&q->in[0]) || !onednn_is_last(&q->out[0]))
        return err_set(ERR_UNSUPPORTED, "own batch norm wants channels-last");
    struct kernel_state s = {.forward = forward, .epsilon = (double)op_attr_float(q->node, "epsilon", 1e-5f),
                             .momentum = op_attr_float(q->node, "momentum", 0.9f),
                             .x_half = x->dtype == TENSOR_BF16, .dy_half = !forward && q->in[0].dtype == TENSOR_BF16, .y_half = q->out[0].dtype == TENSOR_BF16,
                             .running = forward && q->n_in > 4 && q->n_out > 4 && q->out[3].dtype && q->out[4].dtype};
    s.t.c = x->shape.dims[1];
    s.t.rows = tensor_count(&x->shape) / s.t.c;
    s.t.tasks = MIN(MAX(s.t.rows * s.t.c / OWN_TRAIN_NUMBERS, 1), MIN((s.t.rows + OWN_TRAIN_ALIGN - 1) / OWN_TRAIN_ALIGN, OWN_TRAIN_TASKS));
    s.rooms = OWN_TRAIN_ROOM;
    return state_new(&s, 0.4 * (double)tensor_count(&x->shape), q, payer, ret);
}

/* What every run needs beside the sums: three vectors of floats, then the threads' room. */
static float *vectors(const struct kernel_state *s, const struct kernel_buffers *b)
{
    return (float *)((double *)b->scratch + s->t.tasks * 2 * s->t.c);
}

static double first_of(const struct own_train_call *k, int64_t at)
{
    return (double)(k->x_half ? tensor_bf16_float(((const uint16_t *)k->x)[at]) : ((const float *)k->x)[at]);
}

/* Moments of the tasks, which are each around their first row, into mean and variance (Chan, Golub and LeVeque 1979). */
static void moments(const struct own_train *t, const struct own_train_call *k, int64_t c, double *ret_mean, double *ret_var)
{
    double mean = 0, square = 0, count = 0;
    for (int64_t i = 0; i < t->tasks; i++) {
        int64_t row, end;
        own_train_rows(t, i, &row, &end);
        const double *sum = k->sums + i * 2 * t->c;
        double n = (double)(end - row), off = sum[c] / n, m = first_of(k, row * t->c + c) + off, d = m - mean;
        square += sum[t->c + c] - off * sum[c] + d * d * count * n / (count + n);
        count += n;
        mean += d * n / count;
    }
    *ret_mean = mean;
    *ret_var = fmax(square / count, 0);
}

static err run_forward(struct kernel_state *s, const struct kernel_buffers *b)
{
    const struct own_train *t = &s->t;
    const float *scale = b->in[1], *shift = b->in[2], *old_mean = s->running ? b->in[3] : NULL, *old_var = s->running ? b->in[4] : NULL;
    float *mean = b->out[1], *var = b->out[2], *factor = vectors(s, b), *addend = factor + t->c;
    double unbiased = t->rows > 1 ? (double)t->rows / (double)(t->rows - 1) : 1;
    struct own_train_call k = {.t = t, .x = b->in[0], .y = b->out[0], .sums = b->scratch, .factor = factor, .addend = addend, .room = addend + 2 * t->c,
                               .x_half = s->x_half, .y_half = s->y_half, .run = s->lanes->sums};
    own_team(s->threads, member, &k);
    for (int64_t c = 0; c < t->c; c++) {
        double m, v;
        moments(t, &k, c, &m, &v);
        double f = (double)scale[c] / sqrt(v + s->epsilon);
        mean[c] = (float)m;
        var[c] = (float)v;
        factor[c] = (float)f;
        addend[c] = (float)((double)shift[c] - m * f);
        if (!s->running) continue;
        ((float *)b->out[3])[c] = s->momentum * old_mean[c] + (1 - s->momentum) * mean[c];
        ((float *)b->out[4])[c] = s->momentum * old_var[c] + (1 - s->momentum) * (float)(v * unbiased);
    }
    k.run = s->lanes->affine;
    own_team(s->threads, member, &k);
    return ERR_OK;
}

static err run_backward(struct kernel_state *s, const struct kernel_buffers *b)
{
    const struct own_train *t = &s->t;
    const float *scale = b->in[2], *mean = b->in[3], *var = b->in[4];
    float *ds = b->out[1], *db = b->out[2], *factor = vectors(s, b), *addend = factor + t->c, *slope = addend + t->c;
    struct own_train_call k = {.t = t, .dy = b->in[0], .x = b->in[1], .y = b->out[0], .mean = mean, .sums = b->scratch, .factor = factor, .addend = addend,
                               .slope = slope, .room = slope + t->c, .x_half = s->x_half, .dy_half = s->dy_half, .y_half = s->y_half, .run = s->lanes->sums};
    own_team(s->threads, member, &k);
    for (int64_t c = 0; c < t->c; c++) {
        double g = 0, gx = 0, r = 1 / sqrt((double)var[c] + s->epsilon);
        for (int64_t i = 0; i < t->tasks; i++) {
            g += k.sums[i * 2 * t->c + c];
            gx += k.sums[i * 2 * t->c + t->c + c];
        }
        double f = (double)scale[c] * r, n = (double)t->rows;
        ds[c] = (float)(gx * r);
        db[c] = (float)g;
        factor[c] = (float)f;
        slope[c] = (float)(-f * r * r * gx / n);
        addend[c] = (float)(-f * g / n);
    }
    k.run = s->lanes->affine;
    own_team(s->threads, member, &k);
    return ERR_OK;
}

static err run_batch_norm(struct kernel_state *s, const struct kernel_buffers *b)
{
    return s->forward ? run_forward(s, b) : run_backward(s, b);
}

/* ---- rows */

static bool accepts_softmax_grad(const struct kernel_query *q)
{
    if (q->node->kind != OP_SOFTMAX_GRAD || !own_lanes() || q->n_post || q->n_in != 2 || !onednn_takes_all(q)) return false;
    int rank = q->in[0].shape.rank;
    int64_t axis = op_attr_int(q->node, "axis", -1);
    return rank > 0 && (axis == -1 || axis == rank - 1) && tensor_count(&q->in[0].shape) > 0;
}

static bool rows_lie_densely(const struct kernel_query *q, int n_in)
{
    bool yes = tensor_is_row_major(&q->out[0]);
    for (int i = 0; i < n_in; i++) yes &= tensor_is_row_major(&q->in[i]);
    return yes;
}

static err prepare_softmax_grad(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    if (!rows_lie_densely(q, 2)) return err_set(ERR_UNSUPPORTED, "own softmax gradient wants row-major");
    const struct tensor_shape *x = &q->in[0].shape;
    struct kernel_state s = {.t = {.c = x->dims[x->rank - 1], .log = !strcmp(op_attr_string(q->node, "of", ""), "LogSoftmax")}};
    s.t.rows = tensor_count(x) / s.t.c;
    return state_new(&s, 0.3 * (double)tensor_count(x), q, payer, ret);
}

static err run_softmax_grad(struct kernel_state *s, const struct kernel_buffers *b)
{
    struct own_train_call k = {.t = &s->t, .dy = b->in[0], .x = b->in[1], .y = b->out[0], .run = s->lanes->softmax_grad};
    own_team(s->threads, member, &k);
    return ERR_OK;
}

static bool accepts_layer_norm_grad(const struct kernel_query *q)
{
    if (q->node->kind != OP_LAYER_NORM_GRAD || !own_lanes() || q->n_post || q->n_in != 3 || !onednn_takes_tensors(q)) return false;
    return q->out[0].dtype && tensor_count(&q->in[1].shape) > 0;
}

static err prepare_layer_norm_grad(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    if (!rows_lie_densely(q, 3)) return err_set(ERR_UNSUPPORTED, "own layer norm gradient wants row-major");
    const struct tensor_shape *x = &q->in[1].shape;
    struct kernel_state s = {.t = {.c = tensor_count(&q->in[2].shape), .epsilon = op_attr_float(q->node, "epsilon", 1e-5f)}};
    s.t.rows = tensor_count(x) / s.t.c;
    s.t.tasks = MIN(MAX(tensor_count(x) / OWN_TRAIN_NUMBERS, 1), MIN(s.t.rows, OWN_TRAIN_TASKS));
    return state_new(&s, 0.5 * (double)tensor_count(x), q, payer, ret);
}

static err run_layer_norm_grad(struct kernel_state *s, const struct kernel_buffers *b)
{
    const struct own_train *t = &s->t;
    struct own_train_call k = {.t = t, .dy = b->in[0], .x = b->in[1], .factor = b->in[2], .y = b->out[0], .sums = b->scratch, .run = s->lanes->layer_norm_grad};
    own_team(s->threads, member, &k);
    for (int o = 1; o < 3; o++) {
        float *to = b->out[o];
        const float *from = (const float *)b->scratch + (o - 1) * t->c;
        for (int64_t i = 0; to && i < t->c; i++) {
            double sum = 0;
            for (int64_t task = 0; task < t->tasks; task++) sum += (double)from[task * 2 * t->c + i];
            to[i] = (float)sum;
        }
    }
    return ERR_OK;
}

/* ---- the rest of the contract */

static size_t scratch_bytes(const struct kernel_state *s)
{
    return (size_t)s->t.c * ((size_t)s->t.tasks * 2 * sizeof(double) + (3 + (size_t)s->threads * (size_t)s->rooms) * sizeof(float));
}

static size_t code_bytes(const struct kernel_state *s)
{
    return sizeof *s;
}

static const char *describe(const struct kernel_state *s)
{
    return s->lanes->lanes == 16 ? "avx512" : "avx2";
}

static void state_free(struct kernel_state **s)
{
    if (!*s) return;
    mem_release((*s)->payer, MEM_CODE, sizeof **s);
    free(*s);
    *s = NULL;
}

extern const struct kernel_class own_batch_norm, own_softmax_grad, own_layer_norm_grad; /* named by list.c */
#define CLASS(word, layouts_)                                                                                          \
    const struct kernel_class own_##word = {.name = "own:" #word,                                                      \
                                            .accepts = accepts_##word,                                                 \
                                            .layouts = layouts_,                                                       \
                                            .prepare = prepare_##word,                                                 \
                                            .scratch_bytes = scratch_bytes,                                            \
                                            .code_bytes = code_bytes,                                                  \
                                            .describe = describe,                                                      \
                                            .run = run_##word,                                                         \
                                            .free = state_free}
CLASS(batch_norm, onednn_layouts_last);
CLASS(softmax_grad, onednn_layouts_rows);
CLASS(layer_norm_grad, onednn_layouts_rows);

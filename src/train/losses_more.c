/* Whole losses of tasks other than classes and identities. SPDX-License-Identifier: Apache-2.0 */
#include "train/losses.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- pictures */

err train_loss_image(struct graph_builder *b, const struct graph_training *t, void *context, int *ret_loss)
{
    const struct train_image *o = context;
    char text[96];
    int x = t->n_outputs ? t->g->outputs[0] : -1, sum = -1;
    if (x < 0 || t->g->values[x].shape.rank != 4)
        return err_set(ERR_SHAPE, "%s: output '%s' is %s; pictures [N, C, H, W] are needed", t->g->name, x < 0 ? "" : t->g->values[x].name,
                       x < 0 ? "not there" : tensor_shape_text(&t->g->values[x].shape, NULL, text, sizeof text));
    struct tensor_shape s = t->g->values[x].shape;
    int target = graph_add_input(b->g, "train_target", TENSOR_F32, &s);
    const struct { double weight; int kind; } parts[] = {{o->l1, 0}, {o->mse, 1}, {o->ssim, 2}};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i].weight <= 0) continue;
        int v = parts[i].kind == 0 ? train_b_l1(b, x, target) : parts[i].kind == 1 ? train_b_mse(b, x, target) : train_b_ssim(b, x, target, o->range);
        v = graph_b_scale(b, v, parts[i].weight);
        sum = sum < 0 ? v : graph_b2(b, OP_ADD, sum, v);
        if (b->e) return b->e;
    }
    if (o->adversary > 0) {
        struct train_image *out = context;
        int v = graph_b_scale(b, train_b_rival(b, t, target, &out->rival), o->adversary);
        sum = sum < 0 ? v : graph_b2(b, OP_ADD, sum, v);
    }
    *ret_loss = sum;
    return b->e;
}

/* ---- attributes: known * (log(1 + exp(x)) - t x), summed, times 1 / number of known ones */

err train_loss_attributes(struct graph_builder *b, const struct graph_training *t, void *context, int *ret_loss)
{
    struct tensor_shape single = {.rank = 1, .dims = {1}};
    int logits;
    (void)context;
    err e = train_logits(b, t, &logits);
    if (e) return e;
    struct tensor_shape s = *graph_b_shape(b, logits);
    int target = graph_add_input(b->g, "train_target", TENSOR_F32, &s), known = graph_add_input(b->g, "train_known", TENSOR_F32, &s);
    int share = graph_add_input(b->g, "train_share", TENSOR_F32, &single);
    int each = graph_b2(b, OP_SUB, graph_b1(b, OP_SOFTPLUS, logits), graph_b2(b, OP_MUL, target, logits));
    int sum = graph_b_reduce(b, OP_REDUCE_SUM, graph_b2(b, OP_MUL, known, each), NULL, -1, false);
    *ret_loss = graph_b_reduce(b, OP_REDUCE_SUM, graph_b2(b, OP_MUL, sum, share), NULL, -1, false);
    return b->e;
}

/* ---- texts */

err train_loss_text(struct graph_builder *b, const struct graph_training *t, void *context, int *ret_loss)
{
    const struct train_classify *o = context;
    char text[96];
    int x = t->n_outputs ? t->g->outputs[0] : -1;
    if (x < 0 || t->g->values[x].shape.rank != 3)
        return err_set(ERR_SHAPE, "%s: output '%s' is %s; a language model gives [N, tokens, words]", t->g->name, x < 0 ? "" : t->g->values[x].name,
                       x < 0 ? "not there" : tensor_shape_text(&t->g->values[x].shape, NULL, text, sizeof text));
    struct tensor_shape s = t->g->values[x].shape, rows = {.rank = 2, .dims = {s.dims[0] * s.dims[1], s.dims[2]}}, labels = {.rank = 1, .dims = {rows.dims[0]}};
    int target = graph_add_input(b->g, "train_target", TENSOR_I64, &labels);
    *ret_loss = graph_b_cross_entropy_labels(b, graph_b_reshape(b, x, &rows), target, o->smoothing, -1);
    return b->e;
}

/* ---- a rival: a second network that tells answers from true pictures, in patches (Isola et al. 2017), each with its own loss (Goodfellow et al. 2014, the form
 * that does not saturate). Its weights come with the graph (train_add_adversary); here it looks at the true pictures. */

static const struct { int out, kernel, stride; } LAYERS[] = {{16, 4, 2}, {32, 4, 2}, {1, 3, 1}};

static int parameter(struct graph_builder *b, const struct graph_training *t, const char *what, size_t layer)
{
    char name[64];
    snprintf(name, sizeof name, "train_head.rival%zu.%s", layer, what);
    for (int i = 0; i < t->n_params; i++)
        if (!strcmp(t->params[i].name, name)) return t->params[i].value;
    if (!b->e) b->e = err_set(ERR_USAGE, "%s: '%s' is not among what is trained", t->g->name, name);
    return -1;
}

static void settings(struct graph_node *n, size_t layer)
{
    int64_t k = LAYERS[layer].kernel, s = LAYERS[layer].stride, p = (k - 1) / 2;
    graph_set_ints(n, "kernel_shape", (int64_t[]){k, k}, 2);
    graph_set_ints(n, "strides", (int64_t[]){s, s}, 2);
    graph_set_ints(n, "pads", (int64_t[]){p, p, p, p}, 4);
}

static int judge(struct graph_builder *b, const struct graph_training *t, int x)
{
    for (size_t i = 0; i < ARRAY_LEN(LAYERS); i++) {
        int in[] = {x, parameter(b, t, "weight", i), parameter(b, t, "bias", i)};
        if (b->e) return -1;
        struct graph_node *n = graph_b_open(b, OP_CONV, in, 3, 1);
        settings(n, i);
        x = graph_b_close(b, n);
        if (b->e || i + 1 == ARRAY_LEN(LAYERS)) return x;
        n = graph_b_open(b, OP_LEAKY_RELU, &x, 1, 1);
        graph_set_float(n, "alpha", 0.2f);
        x = graph_b_close(b, n);
    }
    return x;
}

static int mean_softplus(struct graph_builder *b, int x, double sign)
{
    return graph_b_reduce(b, OP_REDUCE_MEAN, graph_b1(b, OP_SOFTPLUS, graph_b_scale(b, x, sign)), NULL, -1, false);
}

int train_b_rival(struct graph_builder *b, const struct graph_training *t, int truth, int *ret_rival)
{
    int answer = -1;
    for (int i = 1; i < t->n_outputs; i++)
        if (!strcmp(t->g->values[t->g->outputs[i]].name, "train_head.rival")) answer = t->g->outputs[i];
    if (answer < 0 && !b->e) b->e = err_set(ERR_USAGE, "%s: it has no output 'train_head.rival'", t->g->name);
    if (b->e) return -1;
    *ret_rival = graph_b2(b, OP_ADD, mean_softplus(b, answer, 1), mean_softplus(b, judge(b, t, truth), -1));
    return mean_softplus(b, answer, -1);
}

static err rival_weights(struct graph *g, size_t layer, int64_t in, uint64_t seed, int *ret)
{
    char name[64];
    float *f;
    int64_t k = LAYERS[layer].kernel, out = LAYERS[layer].out;
    snprintf(name, sizeof name, "train_head.rival%zu.weight", layer);
    err e = graph_add_constant(g, name, TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {out, in, k, k}}, &ret[0], (void **)&f);
    if (e) return e;
    double by = sqrt(3.0 / (double)(in * k * k));
    uint64_t key = hash64(name, strlen(name), seed);
    for (int64_t i = 0; i < out * in * k * k; i++) f[i] = (float)(((double)(hash64(&i, sizeof i, key) >> 11) / 4503599627370496.0 - 1) * by);
    snprintf(name, sizeof name, "train_head.rival%zu.bias", layer);
    e = graph_add_constant(g, name, TENSOR_F32, &(struct tensor_shape){.rank = 1, .dims = {out}}, &ret[1], (void **)&f);
    for (int64_t i = 0; i < out && !e; i++) f[i] = 0;
    return e;
}

err train_add_rival(struct graph *g, uint64_t seed)
{
    const struct graph_value *v = g->n_outputs ? &g->values[g->outputs[0]] : NULL;
    if (!v || v->shape.rank != 4 || v->shape.dims[1] < 1) return err_set(ERR_SHAPE, "%s: its output is no picture [N, C, H, W] of known channels", g->name);
    int64_t channels = v->shape.dims[1];
    int x = g->outputs[0];
    for (size_t i = 0; i < ARRAY_LEN(LAYERS); i++) {
        bool last = i + 1 == ARRAY_LEN(LAYERS);
        char name[64];
        int w[2];
        err e = rival_weights(g, i, channels, seed, w);
        if (e) return e;
        snprintf(name, sizeof name, last ? "train_head.rival" : "train_head.rival%zu", i);
        int y = graph_add_value(g, name, TENSOR_F32, NULL);
        struct graph_node *n = graph_add_node(g, OP_CONV, name, 3, 1);
        memcpy(n->op.in, (int[]){x, w[0], w[1]}, 3 * sizeof *n->op.in);
        n->op.out[0] = x = y;
        settings(n, i);
        channels = LAYERS[i].out;
        if (last) break;
        snprintf(name, sizeof name, "train_head.rival%zu.relu", i);
        y = graph_add_value(g, name, TENSOR_F32, NULL);
        n = graph_add_node(g, OP_LEAKY_RELU, name, 1, 1);
        n->op.in[0] = x;
        n->op.out[0] = x = y;
        graph_set_float(n, "alpha", 0.2f);
    }
    graph_add_output(g, x);
    return ERR_OK;
}

/* Embeddings of identities: the same one near, others far, also of those never seen.
 *
 * The network's first output is the embedding. A new job adds a head of its own, logits = x W for the identities of the training part, with a batch norm
 * before it that keeps the two losses from pulling at the same numbers (Luo et al., Bag of Tricks for person re-identification, 2019). It lies in OUT/model.onnx
 * and in checkpoints; what is scored and exported has none of it. Identities that are held out are whole. SPDX-License-Identifier: Apache-2.0 */
#include "train/task.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Identities of the training part, numbered as they come. */
static int *numbered(const struct train_job *j, int *ret_n)
{
    int *number = xnewn(int, j->classes + 1), n = 0;
    int64_t count = j->train_samples ? j->n_train : train_set_count(j->set);
    for (int c = 0; c < j->classes; c++) number[c] = -1;
    for (int64_t i = 0; i < count; i++) {
        int label = train_set_label(j->set, j->train_samples ? j->train_samples[i] : i);
        if (number[label] < 0) number[label] = n++;
    }
    *ret_n = n;
    return number;
}

static err constant(struct graph *g, const char *name, struct tensor_shape s, float **ret, int *ret_value)
{
    return graph_add_constant(g, name, TENSOR_F32, &s, ret_value, (void **)ret);
}

static int append(struct graph *g, enum op_kind kind, const char *name, const int *in, int n_in, struct tensor_shape s)
{
    int y = graph_add_value(g, name, TENSOR_F32, &s);
    struct graph_node *n = graph_add_node(g, kind, name, n_in, 1);
    memcpy(n->op.in, in, (size_t)n_in * sizeof *in);
    n->op.out[0] = y;
    return y;
}

static err vectors(struct graph *g, int64_t d, int *in)
{
    static const char *const names[] = {TRAIN_HEAD ".norm.weight", TRAIN_HEAD ".norm.bias", TRAIN_HEAD ".norm.mean", TRAIN_HEAD ".norm.var"};
    err e = ERR_OK;
    float *f;
    for (int i = 0; i < 4 && !e; i++)
        if (!(e = constant(g, names[i], (struct tensor_shape){.rank = 1, .dims = {d}}, &f, &in[1 + i])))
            for (int64_t k = 0; k < d; k++) f[k] = i % 3 == 0;
    return e;
}

static err add_head(struct graph *g, int64_t d, int n, uint64_t seed)
{
    int in[5], v;
    float *f;
    struct tensor_shape rows = {.rank = 2, .dims = {g->values[g->outputs[0]].shape.dims[0], d}}, logits = rows;
    logits.dims[1] = n;
    in[0] = append(g, OP_FLATTEN, TRAIN_HEAD ".rows", &g->outputs[0], 1, rows);
    err e = vectors(g, d, in);
    if (!e) e = constant(g, TRAIN_HEAD ".weight", (struct tensor_shape){.rank = 2, .dims = {d, n}}, &f, &v);
    if (e) return e;
    for (int64_t i = 0; i < d * n; i++)
        f[i] = (float)((double)(hash64(&i, sizeof i, seed ^ 0x4ead) >> 11) / 4503599627370496.0 - 1) / sqrtf((float)d);
    int x = append(g, OP_BATCH_NORM, TRAIN_HEAD ".norm", in, 5, rows);
    graph_add_output(g, append(g, OP_GEMM, TRAIN_HEAD, (int[]){x, v}, 2, logits));
    return ERR_OK;
}

static err adapt(struct train_job *j, struct graph *g)
{
    char text[96];
    if (g->n_outputs < 1) return err_set(ERR_SHAPE, "%s: it has no output", g->name);
    const struct graph_value *v = &g->values[g->outputs[0]];
    tensor_shape_text(&v->shape, (const char *const *)g->symbols, text, sizeof text);
    bool rows = v->has_shape && v->shape.rank >= 2 && v->dtype == TENSOR_F32;
    for (int i = 2; i < v->shape.rank; i++) rows = rows && v->shape.dims[i] == 1;
    if (!rows || v->shape.dims[1] < 2)
        return err_set(ERR_SHAPE, "%s: output '%s' is %s; an embedding is float32 [N, numbers] of known width", g->name, v->name, v->has_shape ? text : "of a shape that the file does not say");
    if (j->o->embed.width && v->shape.dims[1] != j->o->embed.width)
        return err_set(ERR_USAGE, "%s: output '%s' has %lld numbers, not %d; leave --width out", g->name, v->name, (long long)v->shape.dims[1], j->o->embed.width);
    int n, *number = numbered(j, &n);
    free(number);
    if (n < 2) return err_set(ERR_USAGE, "%s: %d identity to train on; two or more are needed", j->o->data, n);
    return add_head(g, v->shape.dims[1], n, j->o->seed);
}

static err loss(struct train_job *j, struct train_net_options *n)
{
    j->embed = (struct train_embed){.margin = j->o->embed.margin > 0 ? j->o->embed.margin : 0.3, .triplet = j->o->embed.triplet, .smoothing = j->o->classify.smoothing};
    n->loss = train_loss_embed;
    n->loss_context = &j->embed;
    return ERR_OK;
}

static err ready(struct train_job *j)
{
    j->numbers = numbered(j, &j->n_numbers);
    struct tensor t = train_net_target(j->net, 0);
    if (t.shape.dims[1] != j->n_numbers)
        return err_set(ERR_FORMAT, "%s: the head is for %d identities, the data has %d: it is not the data that the job began with", j->o->out, (int)t.shape.dims[1], j->n_numbers);
    return ERR_OK;
}

static err batch(struct train_job *j, const struct train_batch *b, float *ret_loss)
{
    struct tensor target = train_net_target(j->net, 0), pairs = train_net_target(j->net, 1);
    float *to = target.data, *same = pairs.data;
    memset(to, 0, (size_t)tensor_count(&target.shape) * sizeof *to);
    for (int i = 0; i < b->count; i++) to[(size_t)i * (size_t)j->n_numbers + (size_t)j->numbers[b->labels[i]]] = 1;
    for (int i = 0; i < b->count; i++)
        for (int k = 0; k < b->count; k++) same[(size_t)i * (size_t)b->count + (size_t)k] = b->labels[i] == b->labels[k];
    return train_net_run(j->net, ret_loss);
}

static double scored(const struct train_scores *s)
{
    return s->map;
}

const struct train_task_kind train_task_embed = {.name = "embed", .score = "map", .identities = true, .adapt = adapt, .loss = loss, .ready = ready, .batch = batch,
                                                 .evaluate = train_evaluate_embed, .scored = scored};

err train_strip_heads(struct graph *g)
{
    int n = 0;
    for (int i = 0; i < g->n_outputs; i++) {
        struct graph_value *v = &g->values[g->outputs[i]];
        if (v->name && str_starts(v->name, TRAIN_HEAD)) v->is_output = false;
        else g->outputs[n++] = g->outputs[i];
    }
    if (n == g->n_outputs) return ERR_OK;
    g->n_outputs = n;
    return graph_compact(g);
}

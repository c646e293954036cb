/* Evaluation of classifiers. Outputs that went through a Softmax and those that did not are told apart by the graph's last node, for the cross entropy alone;
 * the order of classes is the same. SPDX-License-Identifier: Apache-2.0 */
#include "train/evaluate.h"

#include "train/runner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

err train_picture_input(const struct graph *g, struct train_picture *ret)
{
    char text[96];
    if (g->n_inputs != 1) return err_set(ERR_UNSUPPORTED, "%s: %d inputs; training takes networks with one picture as input", g->name, g->n_inputs);
    const struct graph_value *v = &g->values[g->inputs[0]];
    const struct tensor_shape *s = &v->shape;
    tensor_shape_text(s, (const char *const *)g->symbols, text, sizeof text);
    if (s->rank != 4 || v->dtype != TENSOR_F32)
        return err_set(ERR_SHAPE, "%s: input '%s' is %s %s; a picture is float32 [N, C, H, W]", g->name, v->name, tensor_dtype_name(v->dtype), text);
    bool nhwc = s->dims[1] != 1 && s->dims[1] != 3 && (s->dims[3] == 1 || s->dims[3] == 3);
    struct train_picture p = {.channels = (int)s->dims[nhwc ? 3 : 1], .height = (int)s->dims[nhwc ? 1 : 2], .width = (int)s->dims[nhwc ? 2 : 3], .nhwc = nhwc};
    if ((p.channels != 1 && p.channels != 3) || p.width < 1 || p.height < 1 || p.width > 8192 || p.height > 8192)
        return err_set(ERR_SHAPE, "%s: input '%s' is %s; 1 or 3 channels and known sides are needed", g->name, v->name, text);
    *ret = p;
    return ERR_OK;
}

err train_fill_input(const struct train_picture *p, const float *images, int rows, const struct tensor *input)
{
    struct tensor to = *input, from = tensor_view(TENSOR_F32, &to.shape, images);
    if (rows > to.shape.dims[0]) return err_set(ERR_INTERNAL, "%d rows for an input of %d", rows, (int)to.shape.dims[0]);
    to.shape.dims[0] = from.shape.dims[0] = rows;
    if (p->nhwc)
        tensor_strides_row_major(&from.shape, from.strides);
    else
        tensor_strides_channels_last(&from.shape, from.strides);
    if (!tensor_same_dense_layout(&from, &to)) return model_copy(&from, &to);
    memcpy(to.data, images, (size_t)tensor_count(&to.shape) * sizeof *images);
    return ERR_OK;
}

void train_runner_close(struct train_runner *r)
{
    if (r->pinned) model_release(r->model);
    model_plan_free(&r->plan);
    model_free(&r->model);
}

/* The model wants a graph that it may own: what is specialised keeps `g` alive and borrows its constants. */
err train_runner_open(const struct graph *g, const struct train_evaluate_options *o, int batch, struct mem_payer *payer, struct train_runner *ret)
{
    struct train_runner r = {0};
    struct graph *own;
    struct tensor_shape shape = g->values[g->inputs[0]].shape;
    struct model_options options = {.budget = o->budget, .threads = o->threads};
    shape.dims[0] = batch;
    err e = graph_specialise(g, &shape, payer, &own);
    if (!e) e = model_from_graph(own, "evaluation", &options, &r.model);
    if (!e) e = model_plan_new(r.model, NULL, &r.plan);
    if (!e) e = model_plan_reserve(r.plan);
    if (!e) e = model_request(r.model);
    if (!e) {
        r.pinned = true;
        e = model_wait(r.model);
    }
    if (e) {
        train_runner_close(&r);
        return e;
    }
    model_plan_set_stop(r.plan, o->stop);
    *ret = r;
    return ERR_OK;
}

struct train_data_options train_evaluate_data(const struct train_evaluate_options *o, const struct train_picture *p, int batch)
{
    struct train_data_options d = {.width = p->width, .height = p->height, .channels = p->channels, .batch = batch, .threads = 1, .idle = o->idle, .evaluate = true,
                                   .samples = o->samples, .n_samples = o->n_samples, .bgr = o->feed.bgr, .fit = o->feed.fit};
    memcpy(d.mean, o->feed.mean, sizeof d.mean);
    memcpy(d.scale, o->feed.scale, sizeof d.scale);
    return d;
}

static const struct graph_node *made_by(const struct graph *g, int value)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i].dead && g->nodes[i].op.n_out > 0 && g->nodes[i].op.out[0] == value) return &g->nodes[i];
    return NULL;
}

const struct graph_node *train_ends_in(const struct graph *g, enum op_kind kind)
{
    const struct graph_node *n = g->n_outputs ? made_by(g, g->outputs[0]) : NULL;
    for (size_t steps = 0; n && steps <= g->n_nodes; steps++) {
        enum op_kind k = n->op.kind;
        if (k == kind) return n;
        if (k != OP_RESHAPE && k != OP_FLATTEN && k != OP_SQUEEZE && k != OP_UNSQUEEZE && k != OP_IDENTITY && k != OP_DROPOUT) return NULL;
        n = n->op.n_in > 0 && n->op.in[0] >= 0 ? made_by(g, n->op.in[0]) : NULL;
    }
    return NULL;
}

/* One row of classes into the sums. */
static void score_row(const float *row, int classes, int label, bool probabilities, struct train_scores *s)
{
    int above = 0;
    double most = -INFINITY, sum = 0;
    for (int c = 0; c < classes; c++) {
        above += !(row[c] <= row[label]) || (row[c] == row[label] && c < label); /* what is no number is never right */
        most = fmax(most, (double)row[c]);
    }
    for (int c = 0; c < classes; c++) sum += probabilities ? 0 : exp((double)row[c] - most);
    s->top1 += above == 0;
    s->top5 += above < 5;
    s->loss += probabilities ? -log(fmax((double)row[label], 1e-12)) : most + log(sum) - (double)row[label];
    s->samples++;
}

static err check_classes(const struct model_plan *plan, const struct graph *g, const struct train_set *set, int batch, int *ret_classes)
{
    struct tensor out = model_plan_output(plan, 0);
    int64_t classes = tensor_count(&out.shape) / batch;
    char text[96];
    if (train_set_has_boxes(set)) return err_set(ERR_USAGE, "the data has boxes, not one class per picture; this is --task detect");
    if (out.shape.rank < 1 || out.shape.dims[0] != batch)
        return err_set(ERR_SHAPE, "%s: output '%s' is %s for %d pictures; a classifier gives [N, classes]", g->name, g->values[g->outputs[0]].name,
                       tensor_shape_text(&out.shape, NULL, text, sizeof text), batch);
    if (classes != train_set_classes(set))
        return err_set(ERR_USAGE, "the data has %d classes, output '%s' of the network has %lld: make one with 'brim new ARCH --classes %d', or choose classes",
                       train_set_classes(set), g->values[g->outputs[0]].name, (long long)classes, train_set_classes(set));
    *ret_classes = (int)classes;
    return ERR_OK;
}

static err score_batch(const struct train_runner *r, const struct train_picture *picture, const struct train_batch *b, int classes, bool probabilities,
                       float *rows, struct train_scores *s)
{
    struct tensor in = model_plan_input(r->plan, 0);
    err e = train_fill_input(picture, b->images, b->count, &in);
    if (!e) e = model_plan_run(r->plan, NULL);
    if (e) return e;
    struct tensor out = model_plan_output(r->plan, 0), to = tensor_view(TENSOR_F32, &out.shape, rows);
    if ((e = model_copy(&out, &to))) return e;
    for (int i = 0; i < b->count; i++) {
        if (b->samples[i] < 0) s->skipped++;
        else if (b->labels[i] >= 0 && b->labels[i] < classes) score_row(rows + (size_t)i * (size_t)classes, classes, b->labels[i], probabilities, s);
    }
    return ERR_OK;
}

err train_evaluate_classify(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret)
{
    struct train_picture picture;
    struct train_runner r = {0};
    struct train_data *data = NULL;
    const struct train_batch *b;
    struct train_scores s = {0};
    int classes = 0, batch = o->batch > 0 ? o->batch : 32;
    bool probabilities = train_ends_in(g, OP_SOFTMAX);
    float *rows = NULL;
    int64_t begin = clock_ns();
    err e = train_picture_input(g, &picture);
    if (e) return e;
    struct mem_payer *payer = mem_payer_new(o->budget, "evaluation");
    e = train_runner_open(g, o, batch, payer, &r);
    if (!e) e = check_classes(r.plan, g, set, batch, &classes);
    size_t bytes = (size_t)batch * (size_t)classes * sizeof *rows;
    if (!e) e = mem_alloc(payer, MEM_OTHER, bytes, (void **)&rows);
    struct train_data_options d = train_evaluate_data(o, &picture, batch);
    if (!e) e = train_data_open(set, &d, payer, &data);
    while (!e && !(e = train_data_next(data, &b))) e = score_batch(&r, &picture, b, classes, probabilities, rows, &s);
    if (e == ERR_CLOSED) e = ERR_OK;
    train_data_close(&data);
    mem_free(payer, MEM_OTHER, rows, bytes);
    train_runner_close(&r);
    mem_payer_free(&payer);
    if (e) return e;
    if (!s.samples) return err_set(ERR_FORMAT, "none of the %lld pictures could be read", (long long)s.skipped);
    s.top1 /= (double)s.samples;
    s.top5 /= (double)s.samples;
    s.loss /= (double)s.samples;
    s.seconds = (double)(clock_ns() - begin) * 1e-9;
    *ret = s;
    return ERR_OK;
}

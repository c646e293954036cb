/* Evaluations that look at one row of the output after another: pictures into pictures, attributes, texts.
 *
 * Pictures: PSNR = 10 log10(range^2 / mean squared difference) per picture, and its mean over pictures; the answer is cut to what pixels can say, first. Attributes:
 * the share of known ones that are said rightly, per attribute, and its mean over attributes. Texts: exp of the mean over tokens of -log p(the next token).
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/data_set.h"
#include "train/runner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct row_sums {
    const struct train_set *set;
    const struct graph *g;
    const struct train_evaluate_options *o;
    struct train_picture picture;
    struct tensor_shape out;    /* of output 0, batch included */
    bool probabilities;
    double sum;                 /* PSNRs, or nats */
    int64_t counted;            /* tokens */
    int64_t *right, *known;     /* [attributes] */
    struct train_scores scores;
};
typedef err row_fn(struct row_sums *k, const struct train_batch *b, int i, const float *row);

/* Windows without their last token, which is the answer to the one before. Rows that the last batch does not fill are token 0. */
static err fill_tokens(const struct train_batch *b, int length, const struct tensor *input)
{
    struct tensor to = *input, from = tensor_view(TENSOR_I64, &to.shape, b->images);
    if (b->count < to.shape.dims[0]) memset(to.data, 0, (size_t)tensor_count(&to.shape) * sizeof(int64_t));
    to.shape.dims[0] = from.shape.dims[0] = b->count;
    from.strides[0] = length + 1;
    return model_copy(&from, &to);
}

static err run_batch(struct row_sums *k, struct train_runner *r, const struct train_batch *b, float *rows, row_fn *fn)
{
    struct tensor in = model_plan_input(r->plan, 0);
    err e = train_set_kind(k->set) == TRAIN_SET_TEXT ? fill_tokens(b, (int)in.shape.dims[1], &in) : train_fill_input(&k->picture, b->images, b->count, &in);
    if (!e) e = model_plan_run(r->plan, NULL);
    if (e) return e;
    struct tensor out = model_plan_output(r->plan, 0), to = tensor_view(TENSOR_F32, &out.shape, rows);
    if ((e = model_copy(&out, &to))) return e;
    size_t width = (size_t)tensor_count(&out.shape) / (size_t)out.shape.dims[0];
    for (int i = 0; i < b->count && !e; i++) {
        if (b->samples[i] < 0) k->scores.skipped++;
        else if (!(e = fn(k, b, i, rows + (size_t)i * width))) k->scores.samples++;
    }
    return e;
}

typedef err check_fn(struct row_sums *k, struct train_data_options *d);

static err each_row(struct row_sums *k, struct mem_payer *payer, check_fn *check, row_fn *fn)
{
    struct train_runner r = {0};
    struct train_data *data = NULL;
    const struct train_batch *b;
    float *rows = NULL;
    int batch = k->o->batch > 0 ? k->o->batch : 16;
    err e = train_runner_open(k->g, k->o, batch, payer, &r);
    if (e) return e;
    struct tensor out = model_plan_output(r.plan, 0);
    struct train_data_options d = train_evaluate_data(k->o, &k->picture, batch);
    size_t bytes = (size_t)tensor_count(&out.shape) * sizeof *rows;
    k->out = out.shape;
    if (out.shape.rank < 2 || out.shape.dims[0] != batch) e = err_set(ERR_SHAPE, "%s: output '%s' has no batch as its first size", k->g->name, k->g->values[k->g->outputs[0]].name);
    if (!e) e = check(k, &d);
    if (!e) e = mem_alloc(payer, MEM_OTHER, bytes, (void **)&rows);
    if (!e) e = train_data_open(k->set, &d, payer, &data);
    while (!e && !(e = train_data_next(data, &b))) e = run_batch(k, &r, b, rows, fn);
    if (e == ERR_CLOSED) e = ERR_OK;
    train_data_close(&data);
    if (rows) mem_free(payer, MEM_OTHER, rows, bytes);
    train_runner_close(&r);
    if (!e && !k->scores.samples) e = err_set(ERR_FORMAT, "none of the %lld pictures could be read", (long long)k->scores.skipped);
    return e;
}

/* ---- pictures into pictures */

static err image_row(struct row_sums *k, const struct train_batch *b, int i, const float *row)
{
    int64_t c = k->out.dims[1], n = k->out.dims[2] * k->out.dims[3];
    const float *target = b->targets + (size_t)i * (size_t)(c * n);
    double square = 0;
    for (int64_t p = 0; p < n; p++)
        for (int64_t j = 0; j < c; j++) {
            double scale = (double)k->o->feed.scale[j] > 0 ? (double)k->o->feed.scale[j] : 1, low = -(double)k->o->feed.mean[j] * scale, high = low + 255 * scale;
            double d = fmin(fmax((double)row[j * n + p], low), high) - (double)target[p * c + j];
            square += d * d / (scale * scale);
        }
    k->sum += 10 * log10(255.0 * 255.0 / fmax(square / (double)(c * n), 1e-4));
    return ERR_OK;
}

static err image_check(struct row_sums *k, struct train_data_options *d)
{
    char text[96];
    if (train_set_kind(k->set) != TRAIN_SET_PAIRS) return err_set(ERR_USAGE, "the data is no folder with input/ and target/ in it; that is what --task image takes");
    if (k->picture.nhwc || k->out.rank != 4 || k->out.dims[1] != k->picture.channels)
        return err_set(ERR_SHAPE, "%s: output '%s' is %s; --task image takes pictures of as many channels as the input, [N, C, H, W]", k->g->name,
                       k->g->values[k->g->outputs[0]].name, tensor_shape_text(&k->out, NULL, text, sizeof text));
    d->target_width = (int)k->out.dims[3];
    d->target_height = (int)k->out.dims[2];
    return ERR_OK;
}

static err evaluate(struct row_sums *k, bool text, check_fn *check, row_fn *fn)
{
    int64_t begin = clock_ns();
    err e = text ? ERR_OK : train_picture_input(k->g, &k->picture);
    if (e) return e;
    struct mem_payer *payer = mem_payer_new(k->o->budget, "evaluation");
    e = each_row(k, payer, check, fn);
    mem_payer_free(&payer);
    k->scores.seconds = (double)(clock_ns() - begin) * 1e-9;
    return e;
}

err train_evaluate_image(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret)
{
    struct row_sums k = {.set = set, .g = g, .o = o};
    err e = evaluate(&k, false, image_check, image_row);
    if (e) return e;
    k.scores.psnr = k.sum / (double)k.scores.samples;
    *ret = k.scores;
    return ERR_OK;
}

/* ---- attributes */

static err attribute_row(struct row_sums *k, const struct train_batch *b, int i, const float *row)
{
    int n = train_set_classes(k->set);
    for (int c = 0; c < n; c++) {
        float truth = b->attributes[(size_t)i * (size_t)n + (size_t)c];
        if (truth < 0) continue;
        k->known[c]++;
        k->right[c] += (row[c] > (k->probabilities ? 0.5f : 0)) == (truth > 0.5f);
    }
    return ERR_OK;
}

static err nothing_known(void)
{
    return err_set(ERR_USAGE, "no attribute of these pictures is known");
}

static err attribute_check(struct row_sums *k, struct train_data_options *d)
{
    (void)d;
    if (!train_set_has_attributes(k->set)) return err_set(ERR_USAGE, "the data has no attributes.csv; that is what --task attributes takes");
    int64_t n = tensor_count(&k->out) / k->out.dims[0];
    if (n != train_set_classes(k->set))
        return err_set(ERR_USAGE, "the data has %d attributes, output '%s' of the network has %lld", train_set_classes(k->set), k->g->values[k->g->outputs[0]].name, (long long)n);
    const int8_t *known = k->set->attributes.items;
    int64_t pictures = k->o->samples ? k->o->n_samples : train_set_count(k->set);
    for (int64_t i = 0; i < pictures && !k->o->unscored; i++)
        for (int64_t c = 0; c < n; c++)
            if (known[(k->o->samples ? k->o->samples[i] : i) * n + c] >= 0) return ERR_OK;
    return k->o->unscored ? ERR_OK : nothing_known();
}

err train_evaluate_attributes(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret)
{
    int n = train_set_classes(set), counted = 0;
    struct row_sums k = {.set = set, .g = g, .o = o, .probabilities = train_ends_in(g, OP_SIGMOID), .right = xnewn(int64_t, n + 1), .known = xnewn(int64_t, n + 1)};
    err e = evaluate(&k, false, attribute_check, attribute_row);
    for (int c = 0; c < n && !e; c++) {
        if (!k.known[c]) continue;
        k.scores.accuracy += (double)k.right[c] / (double)k.known[c];
        counted++;
    }
    if (!e && !counted) e = nothing_known();
    free(k.right);
    free(k.known);
    if (e) return e;
    k.scores.accuracy /= counted;
    *ret = k.scores;
    return ERR_OK;
}

/* ---- texts */

static err text_row(struct row_sums *k, const struct train_batch *b, int i, const float *row)
{
    int64_t length = k->out.dims[1], words = k->out.dims[2];
    const int64_t *tokens = (const int64_t *)b->images + (size_t)i * (size_t)(length + 1);
    for (int64_t t = 0; t < length; t++) {
        const float *p = row + t * words;
        double most = -INFINITY, sum = 0;
        for (int64_t w = 0; w < words; w++) most = fmax(most, (double)p[w]);
        for (int64_t w = 0; w < words; w++) sum += exp((double)p[w] - most);
        k->sum += most + log(sum) - (double)p[tokens[t + 1]];
        k->counted++;
    }
    return ERR_OK;
}

err train_check_text(const struct graph *g, const struct train_set *set, const struct tensor_shape *out)
{
    char text[96];
    if (train_set_kind(set) != TRAIN_SET_TEXT) return err_set(ERR_USAGE, "the data is no text (.txt, .u16, .u32); that is what --task text takes");
    if (out->rank != 3)
        return err_set(ERR_SHAPE, "%s: output '%s' is %s; --task text takes [N, tokens, words]", g->name, g->values[g->outputs[0]].name, tensor_shape_text(out, NULL, text, sizeof text));
    if (train_set_vocabulary(set) > out->dims[2])
        return err_set(ERR_USAGE, "the text has tokens up to %d, the network knows %lld: make one with 'brim new ARCH --classes %d'", train_set_vocabulary(set) - 1,
                       (long long)out->dims[2], train_set_vocabulary(set));
    return ERR_OK;
}

static err text_check(struct row_sums *k, struct train_data_options *d)
{
    (void)d;
    return train_check_text(k->g, k->set, &k->out);
}

err train_text_length(const struct graph *g, int *ret)
{
    const struct graph_value *v = g->n_inputs == 1 ? &g->values[g->inputs[0]] : NULL;
    if (!v || v->dtype != TENSOR_I64 || v->shape.rank != 2 || v->shape.dims[1] < 1 || v->shape.dims[1] > 1 << 20)
        return err_set(ERR_SHAPE, "%s: a language model has one input of int64 [N, tokens], of a known number of tokens", g->name);
    *ret = (int)v->shape.dims[1];
    return ERR_OK;
}

err train_evaluate_text(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret)
{
    struct row_sums k = {.set = set, .g = g, .o = o, .picture = {.width = 1, .height = 1, .channels = 1}};
    err e = evaluate(&k, true, text_check, text_row);
    if (e) return e;
    k.scores.loss = k.sum / (double)MAX(k.counted, 1);
    k.scores.perplexity = exp(k.scores.loss);
    *ret = k.scores;
    return ERR_OK;
}

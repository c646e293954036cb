/* The arithmetic is written in the order in which PyTorch does it, so that goldens agree to the last bits or so (contraction is off here and on
 * there). Gradients are read only once per step where the rule allows it. SPDX-License-Identifier: Apache-2.0 */
#include "train/optimise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static err check(const struct train_optimiser_options *o)
{
    if (!(o->momentum >= 0 && o->momentum < 1)) return err_set(ERR_USAGE, "momentum is %g; it goes from 0 to below 1", (double)o->momentum);
    if (o->nesterov && o->momentum == 0) return err_set(ERR_USAGE, "Nesterov's step needs a momentum");
    if (!(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1)) return err_set(ERR_USAGE, "the betas go from 0 to below 1");
    if (!(o->weight_decay >= 0 && o->weight_decay < 10)) return err_set(ERR_USAGE, "weight decay is %g; it goes from 0 to 10", (double)o->weight_decay);
    if (!(o->clip >= 0)) return err_set(ERR_USAGE, "the norm to clip at is %g; it is above 0, or 0 for none", (double)o->clip);
    if (o->relative && o->rule == TRAIN_LAMB) return err_set(ERR_USAGE, "LAMB's steps are relative by themselves");
    if (!(o->ema >= 0 && o->ema < 1)) return err_set(ERR_USAGE, "the decay of the running mean is %g; it goes from 0 to below 1", (double)o->ema);
    return ERR_OK;
}

static bool needs_m(const struct train_optimiser_options *o)
{
    return o->rule >= TRAIN_ADAMW || o->momentum > 0;
}

size_t train_optimiser_bytes(const struct train_optimiser_options *o, size_t count)
{
    return count * sizeof(float) * ((size_t)needs_m(o) + (o->rule >= TRAIN_ADAMW) + (o->ema > 0));
}

err train_optimiser_new(const struct train_optimiser_options *o, const struct train_slice *slices, int n, size_t count, struct mem_payer *payer,
                        struct train_optimiser **ret)
{
    err e = check(o);
    if (e) return e;
    struct train_optimiser *op = xnew(struct train_optimiser);
    op->o = *o;
    if (!op->o.rule) op->o.rule = TRAIN_SGD;
    if (op->o.beta1 == 0) op->o.beta1 = 0.9f;
    if (op->o.beta2 == 0) op->o.beta2 = 0.999f;
    if (op->o.eps == 0) op->o.eps = o->rule == TRAIN_LAMB ? 1e-6f : 1e-8f;
    op->n_slices = n;
    op->slices = xnewn(struct train_slice, n + 1);
    if (n) memcpy(op->slices, slices, (size_t)n * sizeof *slices);
    if (op->o.relative) op->gains = xnewn(float *, n + 1);
    op->count = count;
    op->payer = payer;
    if (needs_m(&op->o)) e = mem_alloc(payer, MEM_TRAINING, count * sizeof(float), (void **)&op->m);
    if (!e && op->o.rule >= TRAIN_ADAMW) e = mem_alloc(payer, MEM_TRAINING, count * sizeof(float), (void **)&op->v);
    if (!e && op->o.ema > 0) e = mem_alloc(payer, MEM_TRAINING, count * sizeof(float), (void **)&op->ema);
    if (e) {
        train_optimiser_free(&op);
        return e;
    }
    *ret = op;
    return ERR_OK;
}

void train_optimiser_free(struct train_optimiser **opp)
{
    struct train_optimiser *op = *opp;
    if (!op) return;
    mem_free(op->payer, MEM_TRAINING, op->m, op->count * sizeof(float));
    mem_free(op->payer, MEM_TRAINING, op->v, op->count * sizeof(float));
    mem_free(op->payer, MEM_TRAINING, op->ema, op->count * sizeof(float));
    for (int k = 0; op->gains && k < op->n_slices; k++) free(op->gains[k]);
    free(op->gains);
    free(op->slices);
    free(op);
    *opp = NULL;
}

/* A row of nearly nothing gets a hundredth of the slice's mean length, so that it can still move. */
static void measure(struct train_optimiser *op, const float *params)
{
    for (int k = 0; k < op->n_slices; k++) {
        const struct train_slice *s = &op->slices[k];
        if (!s->rows) continue;
        size_t width = s->count / s->rows;
        double least = 0.01 * train_norm(params + s->at, s->count) / sqrt((double)s->rows);
        free(op->gains[k]);
        op->gains[k] = xnewn(float, s->rows);
        for (size_t r = 0; r < s->rows; r++) {
            double size = fmax(train_norm(params + s->at + r * width, width), least);
            op->gains[k][r] = size > 0 ? (float)size : 1;
        }
    }
}

void train_optimiser_begin(struct train_optimiser *op, const float *params)
{
    if (op->gains) measure(op, params);
    if (op->ema) memcpy(op->ema, params, op->count * sizeof(float));
}

double train_norm(const float *x, size_t n)
{
    double part[8] = {0}, sum = 0; /* eight sums: the order is fixed, and the compiler can use its vectors */
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) part[k] += (double)x[i + k] * (double)x[i + k];
    for (; i < n; i++) sum += (double)x[i] * (double)x[i];
    for (int k = 0; k < 8; k++) sum += part[k];
    return sqrt(sum);
}

/* Of the gradients in the units in which steps are made. */
static double norm_of(const struct train_optimiser *op, const float *g)
{
    if (!op->gains) return train_norm(g, op->count);
    double sum = 0;
    for (int k = 0; k < op->n_slices; k++) {
        const struct train_slice *s = &op->slices[k];
        size_t rows = MAX(s->rows, 1), width = s->count / rows;
        for (size_t r = 0; r < rows; r++) {
            double of = train_norm(g + s->at + r * width, width) * (s->rows ? (double)op->gains[k][r] : 1);
            sum += of * of;
        }
    }
    return sqrt(sum);
}

static void clip(const struct train_optimiser *op, float *g)
{
    if (op->o.clip == 0) return;
    double norm = norm_of(op, g), by = (double)op->o.clip / (norm + 1e-6);
    if (!(by < 1)) return;
    for (size_t i = 0; i < op->count; i++) g[i] *= (float)by;
}

/* ---- the rules, on one slice */

static void sgd(const struct train_optimiser *op, float *restrict p, float *restrict m, const float *restrict g, size_t n, float lr, float decay, float gain)
{
    float momentum = op->o.momentum;
    bool first = op->steps == 0, nesterov = op->o.nesterov;
    lr *= gain * gain;
    decay /= gain * gain;
    if (!m) {
        for (size_t i = 0; i < n; i++) p[i] -= lr * (g[i] + decay * p[i]);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        float d = g[i] + decay * p[i];
        m[i] = first ? d : momentum * m[i] + d;
        p[i] -= lr * (nesterov ? d + momentum * m[i] : m[i]);
    }
}

static void adamw(const struct train_optimiser *op, float *restrict p, float *restrict m, float *restrict v, const float *restrict g, size_t n,
                  double lr, float decay, float gain)
{
    double steps = (double)op->steps + 1;
    float b1 = op->o.beta1, b2 = op->o.beta2, eps = op->o.eps / gain, c1 = (float)(1 - (double)b1), c2 = (float)(1 - (double)b2);
    float keep = (float)(1 - lr * (double)decay), step = (float)(lr * (double)gain / (1 - pow((double)b1, steps)));
    float root = (float)sqrt(1 - pow((double)b2, steps));
    for (size_t i = 0; i < n; i++) {
        m[i] = b1 * m[i] + c1 * g[i];
        v[i] = b2 * v[i] + c2 * g[i] * g[i];
        p[i] = p[i] * keep - step * (m[i] / (sqrtf(v[i]) / root + eps));
    }
}

/* g is overwritten by the direction r. */
static void lamb(const struct train_optimiser *op, float *restrict p, float *restrict m, float *restrict v, float *restrict g, size_t n, double lr,
                 float decay)
{
    double steps = (double)op->steps + 1;
    float b1 = op->o.beta1, b2 = op->o.beta2, eps = op->o.eps, c1 = (float)(1 - (double)b1), c2 = (float)(1 - (double)b2);
    float d1 = (float)(1 - pow((double)b1, steps)), d2 = (float)(1 - pow((double)b2, steps));
    for (size_t i = 0; i < n; i++) {
        m[i] = b1 * m[i] + c1 * g[i];
        v[i] = b2 * v[i] + c2 * g[i] * g[i];
        g[i] = (m[i] / d1) / (sqrtf(v[i] / d2) + eps) + decay * p[i];
    }
    double of_p = train_norm(p, n), of_r = train_norm(g, n);
    float by = (float)(lr * (of_p > 0 && of_r > 0 ? of_p / of_r : 1));
    for (size_t i = 0; i < n; i++) p[i] -= by * g[i];
}

void train_optimiser_step(struct train_optimiser *op, float *params, float *grads, double lr)
{
    clip(op, grads);
    for (int k = 0; k < op->n_slices; k++) {
        const struct train_slice *s = &op->slices[k];
        float *p = params + s->at, *g = grads + s->at, *m = op->m ? op->m + s->at : NULL, *v = op->v ? op->v + s->at : NULL;
        float decay = s->decay ? op->o.weight_decay : 0;
        size_t rows = op->gains && s->rows ? s->rows : 1, width = s->count / rows;
        for (size_t r = 0; r < rows; r++) {
            size_t at = r * width;
            float gain = op->gains && s->rows ? op->gains[k][r] : 1;
            switch (op->o.rule) {
            case TRAIN_SGD: sgd(op, p + at, m ? m + at : NULL, g + at, width, (float)lr, decay, gain); break;
            case TRAIN_ADAMW: adamw(op, p + at, m + at, v + at, g + at, width, lr, decay, gain); break;
            case TRAIN_LAMB: lamb(op, p, m, v, g, s->count, lr, decay); break;
            }
        }
    }
    op->steps++;
    if (!op->ema) return;
    double n = (double)op->steps, d = fmin((double)op->o.ema, (1 + n) / (10 + n));
    for (size_t i = 0; i < op->count; i++) op->ema[i] += (float)(1 - d) * (params[i] - op->ema[i]);
}

/* ---- schedules */

double train_schedule_at(const struct train_schedule *s, int64_t step)
{
    if (step < s->warmup) return s->lr * (double)(step + 1) / (double)s->warmup;
    if (s->kind == TRAIN_COSINE) {
        double span = (double)MAX(s->total - s->warmup, 1), at = fmin((double)(step - s->warmup) / span, 1);
        return s->lr * (s->last + (1 - s->last) * 0.5 * (1 + cos(3.14159265358979323846 * at)));
    }
    if (s->kind != TRAIN_STEP) return s->lr;
    int64_t drops = s->every > 0 ? step / s->every : 0;
    for (int i = 0; i < s->n_at; i++) drops += step >= s->at[i];
    return s->lr * pow(s->gamma, (double)drops);
}

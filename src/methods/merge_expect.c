/* See merge_expect.h. A member's answers to the pictures are kept as one Gram matrix a layer (n x n), so memory does not depend on widths.
 *
 * Invariant: row k of every member's matrices is of the same picture. SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_expect.h"
#include "train/runner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PICTURES = 96, BATCH = 8 };

/* ---- likeness of weights */

static const struct graph_value *weight(const struct merge_problem *p, const struct graph *const *graphs, int slot, int member)
{
    return &graphs[member]->values[p->slots[slot].value[member]];
}

static double cosine(const struct graph_value *a, const struct graph_value *b)
{
    int64_t rows = MAX(a->shape.dims[0], 1), n = tensor_count(&a->shape) / rows;
    const float *x = a->constant, *y = b->constant;
    double sum = 0;
    if (a->dtype != TENSOR_F32 || b->dtype != TENSOR_F32) return 0;
    for (int64_t r = 0; r < rows; r++, x += n, y += n) {
        double xy = 0, xx = 0, yy = 0;
        for (int64_t k = 0; k < n; k++) {
            xy += (double)x[k] * (double)y[k];
            xx += (double)x[k] * (double)x[k];
            yy += (double)y[k] * (double)y[k];
        }
        sum += xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0;
    }
    return fmax(0, sum / (double)rows);
}

static bool equal(const struct graph_value *a, const struct graph_value *b)
{
    return a->dtype == b->dtype && a->constant_bytes == b->constant_bytes && !memcmp(a->constant, b->constant, a->constant_bytes);
}

/* Slots in common against layers of both. */
static double same_architecture(const struct merge_problem *p, const int *layers, int a, int b)
{
    int common = 0;
    for (int s = 0; s < p->n_slots; s++) common += p->slots[s].value[a] >= 0 && p->slots[s].value[b] >= 0;
    return 2.0 * common / MAX(layers[a] + layers[b], 1);
}

/* ---- likeness of what layers give */

static double hsic(const double *k, const double *l, int n)
{
    double trace = 0, cross = 0, all_k = 0, all_l = 0;
    for (int i = 0; i < n; i++) {
        double row_k = 0, row_l = 0;
        for (int j = 0; j < n; j++) {
            if (i == j) continue; /* the diagonal counts as 0 */
            trace += k[i * n + j] * l[i * n + j];
            row_k += k[i * n + j];
            row_l += l[i * n + j];
        }
        cross += row_k * row_l;
        all_k += row_k;
        all_l += row_l;
    }
    double m = n;
    return (trace + all_k * all_l / ((m - 1) * (m - 2)) - 2 * cross / (m - 2)) / (m * (m - 3));
}

static double cka_of(const double *k, const double *l, int n)
{
    if (n < 4) return 0;
    double kl = hsic(k, l, n), kk = hsic(k, k, n), ll = hsic(l, l, n);
    return kk > 0 && ll > 0 ? fmin(fmax(kl / sqrt(kk * ll), 0), 1) : 0;
}

static void gram(const float *x, int width, int n, double *ret)
{
    for (int i = 0; i < n; i++)
        for (int j = i; j < n; j++) {
            double sum = 0;
            for (int k = 0; k < width; k++) sum += (double)x[(int64_t)i * width + k] * (double)x[(int64_t)j * width + k];
            ret[i * n + j] = ret[j * n + i] = sum;
        }
}

double merge_cka(const float *x, int wx, const float *y, int wy, int n)
{
    double *k = xnewn(double, 2 * n * n + 1), *l = k + n * n;
    gram(x, wx, n, k);
    gram(y, wy, n, l);
    double c = cka_of(k, l, n);
    free(k);
    return c;
}

/* ---- looking at pictures */

struct look {
    const struct merge_problem *p;
    const struct merge_expect_options *o;
    struct mem_payer *payer;
    int n, n_sets;                /* rows of a matrix; different data */
    const struct merge_source **from; /* [set] */
    struct train_set **sets;
    int64_t **samples;            /* [set][each] */
    int *each;
    double **grams;               /* [slot * members + member]: n x n; NULL: it has no such slot */
};

static const char *layer_output(const struct graph *g, int weight_value)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i].dead && g->nodes[i].op.n_in > 1 && g->nodes[i].op.in[1] == weight_value) return g->values[g->nodes[i].op.out[0]].name;
    return "";
}

static err open_sets(struct look *l)
{
    int want = l->o->pictures > 0 ? l->o->pictures : PICTURES, members = l->p->n_members;
    err e = ERR_OK;
    for (int i = 0; i < members && !e; i++) {
        const struct merge_source *s = &l->o->sources[i];
        bool known = false;
        if (!s->data) return err_set(ERR_USAGE, "model '%s': no pictures to look at: --data %s=PATH", l->p->names[i], l->p->names[i]);
        for (int k = 0; k < l->n_sets; k++) known |= !strcmp(l->from[k]->data, s->data) && l->from[k]->crops == s->crops && l->from[k]->category == s->category;
        if (known) continue;
        l->from[l->n_sets] = s;
        e = merge_source_open(s, s->data, false, l->payer, &l->sets[l->n_sets]);
        if (!e) l->n_sets++;
    }
    for (int k = 0; k < l->n_sets && !e; k++) {
        int64_t all = train_set_count(l->sets[k]);
        l->each[k] = (int)MIN(all, (int64_t)MAX(want / l->n_sets, 1));
        l->samples[k] = xnewn(int64_t, l->each[k] + 1);
        for (int i = 0; i < l->each[k]; i++) l->samples[k][i] = i * all / l->each[k];
        l->n += l->each[k];
    }
    return e;
}

/* One member: the network with the outputs of its slots' layers, and room for their channel means. */
struct watch {
    struct train_runner r;
    struct train_picture picture;
    int n, *slot, *output, *width;
    float **rows;       /* [watched]: n x width */
    float *flat;
    size_t flat_bytes;
};

static err add_outputs(struct watch *w, const struct look *l, int member, const struct graph *seen, struct graph *g)
{
    int slots = l->p->n_slots;
    w->slot = xnewn(int, slots + 1);
    w->output = xnewn(int, slots + 1);
    w->width = xnewn(int, slots + 1);
    w->rows = xnewn(float *, slots + 1);
    for (int s = 0; s < slots; s++) {
        if (l->p->slots[s].value[member] < 0) continue;
        const char *name = layer_output(seen, l->p->slots[s].value[member]);
        int value = -1, at = -1;
        for (size_t i = 0; i < g->n_values && value < 0; i++)
            if (*name && g->values[i].name && !strcmp(g->values[i].name, name)) value = (int)i;
        if (value < 0) return err_set(ERR_UNSUPPORTED, "model '%s': what %s gives has no name", l->p->names[member], l->p->slots[s].what);
        for (int k = 0; k < g->n_outputs; k++)
            if (g->outputs[k] == value) at = k;
        if (at < 0) {
            graph_add_output(g, value);
            at = g->n_outputs - 1;
        }
        w->slot[w->n] = s;
        w->output[w->n++] = at;
    }
    return ERR_OK;
}

static err open_watch(struct watch *w, const struct look *l, int member, const struct graph *seen)
{
    const struct merge_source *source = &l->o->sources[member];
    struct train_evaluate_options o = {.budget = l->o->budget, .batch = BATCH, .threads = l->o->threads, .feed = source->feed};
    struct graph *g;
    size_t most = 0;
    err e = merge_source_load(source->onnx, l->o->size, l->payer, &g);
    if (e) return e;
    e = train_picture_input(g, &w->picture);
    if (!e) e = add_outputs(w, l, member, seen, g);
    if (!e) e = train_runner_open(g, &o, BATCH, l->payer, &w->r);
    graph_free(&g);
    for (int i = 0; i < w->n && !e; i++) {
        struct tensor t = model_plan_output(w->r.plan, w->output[i]);
        if (t.dtype != TENSOR_F32 || t.shape.rank < 2) return err_set(ERR_UNSUPPORTED, "model '%s': what its layers give is not float32", l->p->names[member]);
        w->width[i] = (int)t.shape.dims[t.shape.rank == 3 ? 2 : 1]; /* [batch, tokens, width], else [batch, channels, ...] */
        w->rows[i] = xnewn(float, (size_t)l->n * (size_t)w->width[i] + 1);
        most = MAX(most, (size_t)tensor_count(&t.shape));
    }
    w->flat_bytes = MAX(most, 1) * sizeof(float);
    return e ? e : mem_alloc(l->payer, MEM_OTHER, w->flat_bytes, (void **)&w->flat);
}

static void close_watch(struct watch *w, const struct look *l)
{
    mem_free(l->payer, MEM_OTHER, w->flat, w->flat_bytes);
    train_runner_close(&w->r);
    for (int i = 0; i < w->n; i++) free(w->rows[i]);
    free(w->rows);
    free(w->slot);
    free(w->output);
    free(w->width);
}

/* Means over everything but the channels, of each picture of the batch. */
static void take_means(const struct watch *w, int i, const struct tensor *t, int first, int count)
{
    int64_t n = tensor_count(&t->shape) / t->shape.dims[0];
    int width = w->width[i];
    bool last = t->shape.rank == 3;
    for (int b = 0; b < count; b++) {
        float *row = w->rows[i] + (int64_t)(first + b) * width;
        const float *x = w->flat + b * n;
        for (int c = 0; c < width; c++) {
            double sum = 0;
            for (int64_t k = 0; k < n / width; k++) sum += (double)(last ? x[k * width + c] : x[c * (n / width) + k]);
            row[c] = (float)(sum / (double)(n / width));
        }
    }
}

static err run_set(struct watch *w, const struct look *l, int member, int set, int first)
{
    struct train_evaluate_options o = {.budget = l->o->budget, .batch = BATCH, .threads = l->o->threads, .feed = l->o->sources[member].feed, .samples = l->samples[set], .n_samples = l->each[set]};
    struct train_data_options d = train_evaluate_data(&o, &w->picture, BATCH);
    struct train_data *data = NULL;
    const struct train_batch *b;
    err e = train_data_open(l->sets[set], &d, l->payer, &data);
    for (int at = first; !e && !(e = train_data_next(data, &b)); at += b->count) {
        struct tensor in = model_plan_input(w->r.plan, 0);
        e = train_fill_input(&w->picture, b->images, b->count, &in);
        if (!e) e = model_plan_run(w->r.plan, NULL);
        for (int i = 0; i < w->n && !e; i++) {
            struct tensor t = model_plan_output(w->r.plan, w->output[i]), flat = tensor_view(TENSOR_F32, &t.shape, w->flat);
            if (!(e = model_copy(&t, &flat))) take_means(w, i, &t, at, MIN(b->count, first + l->each[set] - at));
        }
    }
    train_data_close(&data);
    return e == ERR_CLOSED ? ERR_OK : e;
}

static err look_at(struct look *l, int member, const struct graph *seen)
{
    struct watch w = {0};
    err e = open_watch(&w, l, member, seen);
    for (int k = 0, first = 0; k < l->n_sets && !e; first += l->each[k++]) e = run_set(&w, l, member, k, first);
    for (int i = 0; i < w.n && !e; i++) {
        double **to = &l->grams[w.slot[i] * l->p->n_members + member];
        *to = xnewn(double, l->n * l->n + 1);
        gram(w.rows[i], w.width[i], l->n, *to);
    }
    close_watch(&w, l);
    return e ? err_wrap(e, "model '%s'", l->p->names[member]) : ERR_OK;
}

static err look_at_all(struct look *l, const struct graph *const *graphs)
{
    int n = l->p->n_members;
    l->payer = mem_payer_new(l->o->budget, "expect");
    l->from = xnewn(const struct merge_source *, n);
    l->sets = xnewn(struct train_set *, n);
    l->samples = xnewn(int64_t *, n);
    l->each = xnewn(int, n);
    l->grams = xnewn(double *, (size_t)l->p->n_slots * (size_t)n);
    err e = open_sets(l);
    for (int i = 0; i < n && !e; i++) e = look_at(l, i, graphs[i]);
    return e;
}

static void look_done(struct look *l)
{
    if (!l->payer) return;
    for (int i = 0; i < l->p->n_slots * l->p->n_members; i++) free(l->grams[i]);
    for (int k = 0; k < l->n_sets; k++) {
        train_set_free(&l->sets[k]);
        free(l->samples[k]);
    }
    free(l->grams);
    free(l->from);
    free(l->sets);
    free(l->samples);
    free(l->each);
    mem_payer_free(&l->payer);
}

/* ---- both together */

static double pair(const struct merge_problem *p, const struct graph *const *graphs, const struct look *l, const int *layers, int slot, int a, int b)
{
    const struct graph_value *x = weight(p, graphs, slot, a), *y = weight(p, graphs, slot, b);
    if (equal(x, y)) return 1;
    double c = cosine(x, y), q = 0.5 * same_architecture(p, layers, a, b);
    if (l->grams) q = cka_of(l->grams[slot * p->n_members + a], l->grams[slot * p->n_members + b], l->n);
    return c + (1 - c) * q;
}

static int count_layers(const struct graph *g)
{
    struct merge_estimate *m = merge_estimate_new();
    merge_estimate_add(m, "", g);
    int n = (int)m->members[0].n_layers;
    merge_estimate_free(&m);
    return n;
}

err merge_expect(const struct merge_problem *p, const struct graph *const *graphs, const struct merge_expect_options *o, struct merge_expected *ret)
{
    struct look l = {.p = p, .o = o};
    err e = o->sources ? look_at_all(&l, graphs) : ERR_OK;
    int *layers = xnewn(int, p->n_members + 1);
    double expected = 0;
    for (int i = 0; i < p->n_members; i++) layers[i] = count_layers(graphs[i]);
    if (!e) *ret = (struct merge_expected){.likelihood = xnewn(double, p->n_slots + 1), .pictures = o->sources != NULL};
    for (int s = 0; s < p->n_slots && !e; s++) {
        double sum = 0;
        for (int i = 1; i < p->n_members; i++) {
            double best = 0;
            for (int k = 0; k < i && p->slots[s].value[i] >= 0; k++)
                if (p->slots[s].value[k] >= 0) best = fmax(best, pair(p, graphs, &l, layers, s, i, k));
            sum += best;
        }
        ret->likelihood[s] = sum / (p->slots[s].n - 1);
        expected += sum * (double)p->slots[s].bytes;
    }
    if (!e) ret->bytes = (uint64_t)(expected + 0.5);
    free(layers);
    look_done(&l);
    return e;
}

void merge_expected_done(struct merge_expected *x)
{
    free(x->likelihood);
    *x = (struct merge_expected){0};
}

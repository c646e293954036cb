/* Classes, attributes and embeddings: vectors in, vectors out.
 *
 * `classify`: one probability per class, and the best top_k in order. `attributes`: independent
 * probabilities, then maybe points (two numbers each, relative to the picture). `embedding`: a direction;
 * only cosines of it mean anything. A vector may come as [N, C] or with trailing ones.
 * SPDX-License-Identifier: Apache-2.0 */
#include "task/head_impl.h"

enum { MAX_EMBEDDING = 1 << 16 };

/* [N, C], or [N, C, 1, 1]; -1: any C. */
static err expect_vector(const struct task_card *c, const struct task_output *o, const char *what,
                         int64_t length)
{
    int64_t dims[8] = {-1, length, 1, 1, 1, 1, 1, 1};
    return head_expect(c, o, what, MAX(o->rank, 2), dims);
}

static err classify_check(const struct task_card *c, const struct task_output *o, int n,
                          struct head_needs *ret)
{
    (void)n;
    *ret = (struct head_needs){.batched = true, .floats = (size_t)c->class_count, .ints = (size_t)c->top_k};
    return expect_vector(c, &o[0], "one score per class", c->class_count);
}

static void probabilities(struct task_head *h, const float *v, struct task_result *r)
{
    const struct task_card *c = h->card;
    for (int i = 0; i < c->class_count; i++)
        h->floats[i] = v[i];
    if (c->activation == TASK_SOFTMAX) head_softmax(h->floats, c->class_count);
    for (int i = 0; i < c->class_count; i++)
        h->floats[i] = head_score(c, h->floats[i]);
    r->class_count = c->class_count;
    r->probabilities = h->floats;
}

static void classify_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    (void)n;
    probabilities(h, o[0].data, r);
    int want = MIN(h->card->top_k, h->card->class_count), have = 0;
    for (int i = 0; i < h->card->class_count; i++) { /* insertion into the best so far: top_k is small */
        float p = h->floats[i];
        if (have == want && !(p > h->floats[h->ints[have - 1]])) continue;
        int at = have < want ? have++ : have - 1;
        for (; at > 0 && p > h->floats[h->ints[at - 1]]; at--)
            h->ints[at] = h->ints[at - 1];
        h->ints[at] = i;
    }
    r->best = h->ints;
    r->best_count = have;
}

static err attributes_check(const struct task_card *c, const struct task_output *o, int n,
                            struct head_needs *ret)
{
    *ret = (struct head_needs){.batched = true, .floats = (size_t)c->class_count};
    err e = expect_vector(c, &o[0], "one probability per attribute", c->class_count);
    for (int i = 1; i < n && !e; i++)
        e = expect_vector(c, &o[i], "a point", 2);
    return e;
}

static void attributes_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    probabilities(h, o[0].data, r);
    for (int i = 1; i < n && r->point_count < TASK_MAX_POINTS; i++) {
        float x = o[i].data[0], y = o[i].data[1];
        r->points[r->point_count++] = (struct task_point){x > 0 ? fminf(x, 1) : 0, y > 0 ? fminf(y, 1) : 0};
    }
}

static err embedding_check(const struct task_card *c, const struct task_output *o, int n,
                           struct head_needs *ret)
{
    (void)n;
    int64_t length = o[0].rank > 1 ? o[0].dims[1] : 0;
    if (length > MAX_EMBEDDING)
        return err_set(ERR_SHAPE, "%s: an embedding of %lld numbers, at most %d are possible", c->path,
                       (long long)length, MAX_EMBEDDING);
    *ret = (struct head_needs){.batched = true, .floats = (size_t)length};
    return expect_vector(c, &o[0], "one vector", -1);
}

static void embedding_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    (void)n;
    int length = (int)o[0].dims[1];
    double sum = 0;
    bool finite = true;
    for (int i = 0; i < length; i++) {
        float v = o[0].data[i];
        finite = finite && isfinite(v);
        sum += (double)v * v;
    }
    double scale = !finite || !(sum > 0) ? 0 : h->card->l2 ? 1 / sqrt(sum) : 1;
    for (int i = 0; i < length; i++)
        h->floats[i] = scale > 0 ? (float)(o[0].data[i] * scale) : 0;
    r->embedding = h->floats;
    r->embedding_count = length;
}

const struct head_ops head_classify = {1, 1, classify_check, classify_run};
const struct head_ops head_attributes = {1, 1 + TASK_MAX_POINTS, attributes_check, attributes_run};
const struct head_ops head_embedding = {1, 1, embedding_check, embedding_run};

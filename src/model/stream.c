/* Runs whose weights stream: which operands come through the ring, and when each may go.
 *
 * What can stream is every large extent; whether it does is asked of the weight set at the beginning of each run, so a new block plan takes
 * effect at the next run without anything being reloaded that stays. (An extent that one run uses twice is always planned to be kept.) A pass for the run after this
 * one may be open at the same time (`ahead`): its bytes take the window's room as this run gives it back.
 *
 * Step times are measured at every run, waiting excluded, because the block plan is computed from them. Invariant: `now` is set exactly
 * while a run is under way. SPDX-License-Identifier: Apache-2.0 */
#include "model/plan.h"

#include <stdlib.h>
#include <string.h>

/* Before the first run: a guess from the work and the bytes, good enough for a first division. */
static int64_t guess_ns(const struct model_step *s)
{
    return 5000 + s->flops / 40 + (int64_t)s->weight_bytes / 8;
}

static struct model_stream *stream_new(struct model_plan *p)
{
    struct model_stream *s = xnew(struct model_stream);
    int *count = xnewn(int, p->model->n_weights + 1);
    size_t cap = 0;
    s->step_ns = xnewn(int64_t, p->n_steps + 1);
    for (size_t i = 0; i < p->n_steps; i++) s->step_ns[i] = guess_ns(&p->steps[i]);
    for (size_t i = 0; i < p->n_steps; i++)
        for (int k = 0; k < p->steps[i].n_in; k++)
            if (p->steps[i].in[k].slot == -1) count[p->steps[i].in[k].extent]++;
    for (size_t i = 0; i < p->n_steps; i++)
        for (int k = 0; k < p->steps[i].n_in; k++) {
            struct model_operand *o = &p->steps[i].in[k];
            size_t bytes = o->slot == -1 ? weights_extent_block_bytes(p->model->weights, o->extent) : 0;
            if (!bytes) continue;
            vec_grow(&s->uses, &cap, (size_t)s->n_uses);
            s->uses[s->n_uses] = (struct model_use){.step = (int)i, .extent = o->extent, .bytes = bytes, .k = -1, .only = count[o->extent] == 1};
            o->use = ++s->n_uses;
        }
    s->list = xnewn(int, s->n_uses + 1);
    free(count);
    return s;
}

static struct model_stream *stream_of(struct model_plan *p)
{
    if (!p->stream) p->stream = stream_new(p);
    return p->stream;
}

void model_stream_free(struct model_plan *p)
{
    struct model_stream *s = p->stream;
    if (!s) return;
    weights_pass_free(&s->now);
    weights_pass_free(&s->ahead);
    free(s->uses);
    free(s->list);
    free(s->step_ns);
    free(s);
    p->stream = NULL;
}

/* A pass over what streams now; NULL if nothing does. */
static err open_pass(struct model_plan *p, struct weights_pass **ret)
{
    struct model_stream *s = stream_of(p);
    int n = 0;
    for (int u = 0; u < s->n_uses; u++)
        if (weights_extent_streams(p->model->weights, s->uses[u].extent)) s->list[n++] = s->uses[u].extent;
    *ret = NULL;
    if (!n) return ERR_OK;
    if (!p->model->ring) return err_set(ERR_INTERNAL, "%s: weights stream, but there is no window", p->model->name);
    return weights_pass_new(p->model->ring, p->model->weights, s->list, n, ret);
}

err model_plan_ahead(struct model_plan *p)
{
    struct model_stream *s = stream_of(p);
    if (s->ahead && s->generation == p->model->generation) return ERR_OK;
    weights_pass_free(&s->ahead);
    s->generation = p->model->generation;
    return open_pass(p, &s->ahead);
}

void model_plan_forget_ahead(struct model_plan *p)
{
    if (p->stream) weights_pass_free(&p->stream->ahead);
}

err model_plan_begin(struct model_plan *p)
{
    struct model_stream *s = stream_of(p);
    if (s->begun) return ERR_OK;
    err e = model_plan_ahead(p);
    if (e) return e;
    s->now = s->ahead;
    s->ahead = NULL;
    s->begun = true;
    return ERR_OK;
}

void model_plan_end(struct model_plan *p)
{
    if (!p->stream) return;
    weights_pass_free(&p->stream->now);
    p->stream->begun = false;
}

err model_stream_begin(struct model_plan *p)
{
    struct model_stream *s = stream_of(p);
    err e = model_plan_begin(p);
    if (e) return e;
    s->wait_ns = 0;
    for (int u = 0, k = 0; u < s->n_uses; u++) s->uses[u].k = weights_extent_streams(p->model->weights, s->uses[u].extent) ? k++ : -1;
    s->next = 0;
    return ERR_OK;
}

/* Blocks until the step's streamed operands are there, and notes where. */
err model_stream_step(struct model_plan *p, int step)
{
    struct model_stream *s = p->stream;
    for (int u = s->next; u < s->n_uses && s->uses[u].step == step; u++) {
        if (s->uses[u].k < 0) continue;
        int64_t begin = weights_reader_now(p->model->options.reader);
        err e = weights_pass_wait(s->now, s->uses[u].k, &s->uses[u].at);
        s->wait_ns += weights_reader_now(p->model->options.reader) - begin;
        if (e) return e;
    }
    return ERR_OK;
}

void model_stream_step_done(struct model_plan *p, int step, int64_t ns)
{
    struct model_stream *s = p->stream;
    int end = -1;
    for (; s->next < s->n_uses && s->uses[s->next].step == step; s->next++)
        if (s->uses[s->next].k >= 0) end = s->uses[s->next].k + 1;
    if (end > 0) weights_pass_done(s->now, end);
    s->step_ns[step] = s->measured ? (3 * s->step_ns[step] + ns) / 4 : ns;
}

void model_stream_end(struct model_plan *p, bool complete)
{
    model_plan_end(p);
    if (p->stream) p->stream->measured |= complete;
}

/* ---- rehearsals */

void model_plan_set_step_ns(struct model_plan *p, const int64_t *step_ns)
{
    memcpy(stream_of(p)->step_ns, step_ns, p->n_steps * sizeof *step_ns);
    p->stream->measured = true;
}

err model_plan_rehearse(struct model_plan *p, const int64_t *step_ns, struct weights_clock *clock)
{
    bool streams = p->model->ring != NULL;
    err e = streams ? model_stream_begin(p) : ERR_OK;
    for (size_t i = 0; i < p->n_steps && !e; i++) {
        if (streams && (e = model_stream_step(p, (int)i))) break;
        clock->go(clock, clock->now + step_ns[i]);
        if (streams) model_stream_step_done(p, (int)i, step_ns[i]);
    }
    if (streams) model_stream_end(p, !e);
    return e;
}

int64_t model_plan_wait_ns(const struct model_plan *p)
{
    return p->stream ? p->stream->wait_ns : 0;
}

bool model_step_streams(const struct model_plan *p, int step)
{
    for (int u = 0; p->stream && u < p->stream->n_uses; u++)
        if (p->stream->uses[u].step == step && weights_extent_streams(p->model->weights, p->stream->uses[u].extent)) return true;
    return false;
}

/* ---- block plans */

static void live_bytes(const struct model_plan *p, size_t *live)
{
    for (size_t i = 0; i < p->n_steps; i++)
        for (size_t k = 0; k < p->n_slots; k++)
            if (p->slots[k].first <= (int)i && (int)i <= p->slots[k].last) live[i] += p->slots[k].bytes;
}

void model_blocks_problem(struct model_plan *p, double bandwidth, struct model_blocks_problem *ret)
{
    struct model_stream *s = stream_of(p);
    struct blocks_problem b = {.n_steps = (int)p->n_steps, .step_ns = s->step_ns, .bandwidth = bandwidth, .fixed = weights_bytes(p->model->weights),
                               .arena_bytes = p->sizes.activations};
    struct blocks_use *uses = xnewn(struct blocks_use, s->n_uses + 1);
    size_t *live = xnewn(size_t, p->n_steps + 1);
    for (int u = 0; u < s->n_uses; u++) {
        if (!s->uses[u].only) continue;
        uses[b.n_uses++] = (struct blocks_use){s->uses[u].step, s->uses[u].extent, s->uses[u].bytes, weights_extent_id(p->model->weights, s->uses[u].extent)};
        b.fixed -= s->uses[u].bytes;
    }
    live_bytes(p, live);
    b.uses = uses;
    b.live = live;
    *ret = (struct model_blocks_problem){b, uses, live};
}

void model_blocks_problem_done(struct model_blocks_problem *b)
{
    free(b->uses);
    free(b->live);
    *b = (struct model_blocks_problem){0};
}

err model_blocks_make(struct model_plan *p, size_t bytes, double bandwidth, struct blocks_plan *ret)
{
    struct model_blocks_problem b;
    model_blocks_problem(p, bandwidth, &b);
    b.problem.bytes = bytes;
    err e = blocks_make(&b.problem, ret);
    model_blocks_problem_done(&b);
    return e ? err_wrap(e, "%s", p->model->name) : ERR_OK;
}

size_t model_blocks_least(struct model_plan *p)
{
    struct model_blocks_problem b;
    model_blocks_problem(p, 1, &b);
    size_t least = MIN(blocks_least(&b.problem), weights_bytes(p->model->weights));
    model_blocks_problem_done(&b);
    return least;
}

err model_blocks_apply(struct model_plan *p, const struct blocks_plan *plan)
{
    struct model *m = p->model;
    struct model_stream *s = stream_of(p);
    bool *keep = xnewn(bool, m->n_weights + 1);
    for (size_t i = 0; i < m->n_weights; i++) keep[i] = true;
    for (int u = 0, k = 0; u < s->n_uses; u++)
        if (s->uses[u].only) keep[s->uses[u].extent] = plan->keep[k++];
    err e = weights_set_keep(m->weights, keep);
    free(keep);
    if (!e) m->generation++;
    return e;
}

void model_set_ring(struct model *m, struct weights_ring *ring)
{
    m->ring = ring;
    m->generation++;
}

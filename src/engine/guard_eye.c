/* A merged model's original beside it, and one frame seen by both.
 *
 * What the merged model gave for a frame is read once more from its outputs, with thresholds for measuring, and kept with the frame; then the original is offered the
 * frame through the scheduler, and the comparison is made at the end of its run. One sample is under way at a time, so the guard holds one frame at most.
 *
 * Of the merged one's detections those of half the original's threshold and more count: AP looks at the order of scores only, and a model all of whose scores have
 * fallen says nothing to its query although their order is as it was.
 *
 * The original's plan runs in the arena that all plans share; where that is too small for it, in one of its own, if there is room.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/guard_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening */

err engine_eye_new(struct engine_guards *gs, struct engine_site *site, const struct site_model *o, const char *original, struct engine_eye **ret)
{
    struct engine_eye *y = xnew(struct engine_eye);
    y->guards = gs;
    y->as = (struct site_model){.name = y->name, .onnx = original, .card = o->card, .batch = 1, .precision = o->precision, .at = o->at,
                                .guard = {.when = SITE_GUARD_OFF}};
    snprintf(y->name, sizeof y->name, "guard %.64s", o->name);
    y->every_ns = o->guard.every_ms * 1000000;
    y->payer = mem_payer_new(gs->engine->budget, y->name);
    err e = engine_model_make(gs->engine, site, &y->as, &y->theirs);
    if (e) {
        engine_eye_close(&y);
        return e;
    }
    *ret = y;
    return ERR_OK;
}

static enum merge_measure measure_of(const struct task_card *c)
{
    return task_head_detects(c->head) ? MERGE_SAME_BOXES : c->head == TASK_CLASSIFY ? MERGE_SAME_CLASS : MERGE_SAME_NUMBERS;
}

static err check_outputs(const struct engine_model *a, const struct engine_model *b)
{
    bool same = a->n_outputs == b->n_outputs;
    for (int k = 0; k < a->n_outputs && same; k++) {
        const struct task_output *x = &a->one.outputs[k], *z = &b->one.outputs[k];
        same = x->rank == z->rank && !memcmp(x->dims, z->dims, (size_t)x->rank * sizeof *x->dims);
    }
    return same ? ERR_OK : err_set(ERR_SHAPE, "%s and %s have different outputs: it is not its original", b->path, a->path);
}

/* Without where its numbers are: the executor, which may be running the model, writes that at each run. */
static struct task_output form_of(const struct task_output *o)
{
    struct task_output form = {.name = o->name, .rank = o->rank};
    memcpy(form.dims, o->dims, sizeof form.dims);
    return form;
}

static err open_rows(struct engine_eye *y, const struct engine_model *m)
{
    size_t count = 0;
    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;
        for (int k = 0; k < m->n_outputs; k++) {
            const struct task_output *o = &m->one.outputs[k];
            size_t n = 1;
            for (int i = 1; i < o->rank; i++) n *= (size_t)o->dims[i];
            y->copy[k] = form_of(o);
            y->copy[k].data = y->rows ? y->rows + at : NULL;
            at += n;
        }
        count = at;
        if (pass) break;
        y->rows_bytes = MAX(count, (size_t)1) * sizeof(float);
        err e = mem_alloc(y->payer, MEM_OTHER, y->rows_bytes, (void **)&y->rows);
        if (e) return e;
    }
    return ERR_OK;
}

static err open_measure(struct engine_eye *y, const struct engine_model *m)
{
    err e = check_outputs(m, y->theirs);
    y->measure = measure_of(m->card);
    if (e || y->measure == MERGE_SAME_CLASS) return e;
    if (y->measure == MERGE_SAME_NUMBERS) return open_rows(y, m);
    struct task_output ours[TASK_MAX_OUTPUTS];
    for (int k = 0; k < m->n_outputs; k++) ours[k] = form_of(&m->one.outputs[k]);
    y->our_card = task_alike_card(m->card);
    y->their_card = task_alike_card(y->theirs->card);
    e = task_head_new(y->payer, &y->our_card, ours, m->n_outputs, &y->our_head);
    return e ? e : task_head_new(y->payer, &y->their_card, y->theirs->one.outputs, y->theirs->n_outputs, &y->their_head);
}

static bool fits_shared(const struct engine_eye *y)
{
    const struct engine *e = y->guards->engine;
    struct model_sizes s = model_plan_sizes(y->theirs->one.plan);
    return e->arena && e->scratch && s.activations <= e->arena_bytes && s.scratch <= e->scratch_bytes;
}

static err bind(struct engine_eye *y)
{
    struct engine *e = y->guards->engine;
    struct model_sizes s = model_plan_sizes(y->theirs->one.plan);
    if (fits_shared(y)) {
        if (e->arena != y->shared_arena || e->scratch != y->shared_scratch) model_plan_bind(y->theirs->one.plan, e->arena, e->scratch);
        y->shared_arena = e->arena;
        y->shared_scratch = e->scratch;
        return ERR_OK;
    }
    y->arena_bytes = s.activations;
    y->scratch_bytes = s.scratch;
    err x = mem_alloc(y->payer, MEM_ACTIVATIONS, y->arena_bytes, &y->arena);
    if (!x) x = mem_alloc(y->payer, MEM_SCRATCH, y->scratch_bytes, &y->scratch);
    if (!x) model_plan_bind(y->theirs->one.plan, y->arena, y->scratch);
    return x;
}

/* Cameras, plans and the least part of all weights must fit with it as they did without it. */
static err check_room(const struct engine_eye *y)
{
    struct engine *e = y->guards->engine;
    uint64_t limit = mem_budget_limit(e->budget);
    struct engine_floor f = engine_floor_locked(e);
    uint64_t least = engine_floor_before_weights(&f) + f.least_weights + (e->blocks ? y->theirs->fixed : 0);
    return least <= limit ? ERR_OK : err_set(ERR_NOMEM, "the budget leaves no room for its original beside the models");
}

static err run(void *user, struct sched_item *item);
static void drop(void *user, struct sched_item *item, enum sched_drop why);

err engine_eye_join(struct engine_eye *y, struct engine_model *m)
{
    static const struct sched_stream_ops ops = {run, drop};
    struct engine *e = y->guards->engine;
    err x = open_measure(y, m);
    if (!x) x = bind(y);
    if (!x) x = check_room(y);
    if (x) return x;
    engine_model_join(y->theirs);
    sched_model_set_guest(e->sched, y->theirs->sched);
    y->stream = sched_stream_add(e->sched, &(struct sched_stream_options){.name = y->name, .model = y->theirs->sched, .period_ns = y->every_ns, .capacity = 1, .ops = &ops, .user = y});
    atomic_store(&m->eye, y);
    engine_eye_count(m);
    return ERR_OK;
}

void engine_eye_count(struct engine_model *m)
{
    struct engine_eye *y = atomic_load(&m->eye);
    int n = 0;
    for (const struct engine_stream *s = m->engine->streams; s && y; s = s->next) n += s->model == m && s->sched;
    if (y) atomic_store(&y->streams, n);
}

/* ---- closing */

void engine_eye_close(struct engine_eye **yp)
{
    struct engine_eye *y = *yp;
    if (!y) return;
    if (y->stream) sched_stream_remove(y->guards->engine->sched, &y->stream);
    video_frame_unref(&y->frame);
    task_head_free(&y->our_head);
    task_head_free(&y->their_head);
    engine_model_close(&y->theirs);
    mem_free(y->payer, MEM_OTHER, y->rows, y->rows_bytes);
    mem_free(y->payer, MEM_ACTIVATIONS, y->arena, y->arena_bytes);
    mem_free(y->payer, MEM_SCRATCH, y->scratch, y->scratch_bytes);
    mem_payer_free(&y->payer);
    free(y);
    *yp = NULL;
}

void engine_eye_leave(struct engine_model *m)
{
    struct engine_eye *y = atomic_exchange(&m->eye, NULL);
    engine_eye_close(&y);
}

void engine_eye_bind(struct engine_model *m)
{
    struct engine_eye *y = atomic_load(&m->eye);
    if (!y || y->arena) return;
    if (fits_shared(y)) (void)bind(y);
    else engine_eye_leave(m); /* it comes again, with an arena of its own */
}

bool engine_eyes_leave(struct engine *e)
{
    bool some = false;
    for (size_t i = 0; i < e->n_models; i++) some = some || atomic_load(&e->models[i]->eye);
    if (!some) return false;
    sched_stop(e->sched);
    for (size_t i = 0; i < e->n_models; i++) engine_eye_leave(e->models[i]);
    if (e->running && sched_start(e->sched)) engine_set_problem(e, "executor", err_text());
    return true;
}

/* ---- a sample; on the executor */

/* One frame of each stream, then the next round; a stream that gives no frames is not waited for. */
static bool turn(struct engine_eye *y, struct engine_stream *s, int64_t now)
{
    bool again = s->looked_ns >= y->round_ns && y->round_ns;
    if (again && now - y->due_ns < y->every_ns / 2) return false;
    if (again || y->left <= 0) {
        y->round_ns = now;
        y->left = atomic_load(&y->streams);
    }
    s->looked_ns = now;
    if (--y->left <= 0) y->round_ns = now + 1; /* everybody's turn again */
    return true;
}

static err remember(struct engine_eye *y, struct engine_model *m, const struct engine_plan *p, int item)
{
    struct task_result r;
    err e = ERR_OK;
    switch (y->measure) {
    case MERGE_SAME_CLASS: y->our_class = task_alike_class(p->outputs, item); break;
    case MERGE_SAME_BOXES:
        if (!(e = task_head_run(y->our_head, p->outputs, m->n_outputs, item, &r))) y->n_found = task_alike_boxes(&r, TASK_ALIKE_SURE / 2, 0, y->found);
        break;
    default:
        for (int k = 0; k < m->n_outputs; k++) {
            size_t n = 1;
            for (int i = 1; i < y->copy[k].rank; i++) n *= (size_t)y->copy[k].dims[i];
            memcpy((void *)(uintptr_t)y->copy[k].data, p->outputs[k].data + (size_t)item * n, n * sizeof(float));
        }
    }
    return e;
}

static void end_sample(struct engine_eye *y, const char *why)
{
    video_frame_unref(&y->frame);
    snprintf(y->why, sizeof y->why, "%s", why ? why : "");
    atomic_store(&y->state, why ? ENGINE_EYE_FAILED : ENGINE_EYE_DONE);
    thread_event_set(&y->guards->wake);
}

void engine_eye_look(struct engine_stream *s, const struct engine_work *w, struct engine_plan *p, int item)
{
    struct engine_eye *y = atomic_load(&s->model->eye);
    if (!y || atomic_load(&y->state) != ENGINE_EYE_IDLE) return;
    int64_t now = clock_ns();
    if (now < y->due_ns || !turn(y, s, now)) return;
    y->due_ns = now + y->every_ns;
    y->frame = video_frame_ref(w->frame);
    y->whole = !s->cascade;
    if (s->cascade) y->roi = w->roi;
    y->n_truth = y->n_found = 0;
    y->wrong = 0;
    if (remember(y, s->model, p, item)) {
        end_sample(y, err_text());
        return;
    }
    atomic_store(&y->state, ENGINE_EYE_TAKEN);
    sched_offer(s->engine->sched, y->stream, &(struct sched_item){.what = y, .arrived_ns = now, .seq = w->frame->seq});
}

/* The original's outputs are there: how far are the merged one's from them? */
static err compare(struct engine_eye *y)
{
    struct engine_model *t = y->theirs;
    struct task_result r;
    err e = ERR_OK;
    switch (y->measure) {
    case MERGE_SAME_CLASS: y->wrong = y->our_class != task_alike_class(t->one.outputs, 0); break;
    case MERGE_SAME_BOXES:
        if (!(e = task_head_run(y->their_head, t->one.outputs, t->n_outputs, 0, &r))) y->n_truth = task_alike_boxes(&r, TASK_ALIKE_SURE, 0, y->truth);
        break;
    default: y->wrong = task_alike_distance(y->copy, 0, t->one.outputs, 0, t->n_outputs); break;
    }
    return e;
}

static err run(void *user, struct sched_item *item)
{
    struct engine_eye *y = item->what;
    struct video_mapping map;
    (void)user;
    err e = engine_model_fill(y->theirs, &y->theirs->one, 0, y->frame, y->whole ? NULL : &y->roi, &map);
    if (!e) e = engine_model_compute(y->theirs, &y->theirs->one);
    if (!e) e = compare(y);
    end_sample(y, e ? err_text() : NULL);
    return e;
}

static void drop(void *user, struct sched_item *item, enum sched_drop why)
{
    (void)user;
    end_sample(item->what, why == SCHED_DROP_MEMORY ? "there was no room for its original's weights" : sched_drop_text(why));
}

/* A stream: one query on one camera, or one cascade behind it; what sched runs.
 *
 * Invariant: everything that the executor uses without a lock (tracker, watch, labels) is touched by sched's callbacks only, and sched runs one
 * at a time; a stream is removed from sched before anything of it is freed. SPDX-License-Identifier: Apache-2.0 */
#include "engine/guard_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void work_free(struct engine_work **wp)
{
    struct engine_work *w = *wp;
    atomic_fetch_sub(&w->camera->pending, 1);
    if (w->camera->max_pace) thread_event_set(&w->camera->engine->wake);
    video_frame_unref(&w->frame);
    free(w);
    *wp = NULL;
}

static void count_run(struct engine_stream *s)
{
    long long second = clock_ns() / 1000000000, last = atomic_load(&s->window_second);
    for (long long k = MAX(last + 1, second - 7); k <= second; k++) atomic_store(&s->runs_window[k % 8], 0);
    atomic_store(&s->window_second, second);
    atomic_fetch_add(&s->runs_window[second % 8], 1);
}

/* What the head said, in frame pixels, to whoever wants it. */
static void deliver(struct engine_stream *s, struct engine_work *w, const struct task_result *r, const struct video_mapping *map)
{
    if (!s->cascade && !task_head_detects(r->head)) { /* a model that says something of the whole picture */
        w->roi = (struct video_rect){0, 0, w->frame->width, w->frame->height};
        snprintf(w->label, sizeof w->label, "picture");
    }
    if (s->cascade || !task_head_detects(r->head)) {
        engine_cascade_found(s, w, r);
        return;
    }
    struct task_detection d[TASK_MAX_TOP_K];
    int n = 0;
    for (int i = 0; i < r->detection_count && n < TASK_MAX_TOP_K; i++) {
        const struct task_detection *x = &r->detections[i];
        if (x->score < s->q->min_score) continue;
        if (s->wanted && (x->class_id < 0 || x->class_id >= s->model->card->class_count || !s->wanted[x->class_id])) continue;
        struct video_rect b = video_map_rect(map, (struct video_rect){x->box.x1, x->box.y1, x->box.x2 - x->box.x1, x->box.y2 - x->box.y1});
        d[n] = *x;
        d[n++].box = (struct task_box){(float)b.x, (float)b.y, (float)(b.x + b.w), (float)(b.y + b.h)};
    }
    engine_stream_found(s, w, d, n);
}

static err run_model(struct engine_stream *s, struct engine_work *w)
{
    struct task_result r;
    struct video_mapping map;
    err e = engine_model_run(s->model, w->frame, s->cascade ? &w->roi : NULL, &r, &map);
    if (!e) deliver(s, w, &r, &map);
    if (!e) engine_eye_look(s, w, &s->model->one, 0);
    return e;
}

static err run_motion(struct engine_stream *s, struct engine_work *w)
{
    struct task_motion_result r;
    err e = video_grey_small(w->frame, s->thumb_w, s->thumb_h, s->thumb);
    if (e) return e;
    task_motion_update(s->motion, w->frame->pts, s->thumb, (size_t)s->thumb_w, &r);
    struct task_detection d[TASK_MAX_MOTION_BOXES];
    float sx = (float)w->frame->width / (float)s->thumb_w, sy = (float)w->frame->height / (float)s->thumb_h;
    for (int i = 0; i < r.count; i++) {
        d[i] = r.boxes[i];
        d[i].box = (struct task_box){d[i].box.x1 * sx, d[i].box.y1 * sy, d[i].box.x2 * sx, d[i].box.y2 * sy};
    }
    engine_stream_found(s, w, d, r.count);
    return ERR_OK;
}

void engine_stream_problem(struct engine_stream *s, const char *sentence)
{
    pthread_mutex_lock(&s->camera->lock);
    snprintf(s->problem, sizeof s->problem, "%s", sentence);
    pthread_mutex_unlock(&s->camera->lock);
}

static err run(void *user, struct sched_item *item)
{
    struct engine_stream *s = user;
    struct engine_work *w = item->what;
    err e = s->model ? run_model(s, w) : run_motion(s, w);
    count_run(s);
    engine_stream_problem(s, e ? err_text() : "");
    work_free(&w);
    return e;
}

/* A batch is run as one only when it is full: the plan has that size. */
err engine_stream_run_batch(void *const *streams, struct sched_item *items, int n)
{
    struct engine_model *m = ((struct engine_stream *)streams[0])->model;
    struct video_mapping maps[SCHED_MAX_BATCH];
    err e = ERR_OK;
    if (n != m->batch) {
        for (int i = 0; i < n; i++) {
            err one = run(streams[i], &items[i]);
            if (one) e = one;
        }
        return e;
    }
    for (int i = 0; i < n && !e; i++) {
        struct engine_stream *s = streams[i];
        struct engine_work *w = items[i].what;
        e = engine_model_fill(m, &m->many, i, w->frame, s->cascade ? &w->roi : NULL, &maps[i]);
    }
    if (!e) e = engine_model_compute(m, &m->many);
    for (int i = 0; i < n; i++) {
        struct engine_stream *s = streams[i];
        struct engine_work *w = items[i].what;
        struct task_result r;
        if (!e) e = engine_model_read(m, &m->many, i, &r);
        if (!e) deliver(s, w, &r, &maps[i]);
        if (!e) engine_eye_look(s, w, &m->many, i);
        engine_stream_problem(s, e ? err_text() : "");
        count_run(s);
        work_free(&w);
    }
    return e;
}

static void drop(void *user, struct sched_item *item, enum sched_drop why)
{
    struct engine_work *w = item->what;
    (void)user;
    (void)why;
    work_free(&w);
}

static const struct sched_stream_ops ops = {run, drop};

void engine_stream_offer(struct engine_stream *s, struct video_frame *f, const struct video_rect *roi, int64_t track, const char *label)
{
    struct engine_work *w = xnew(struct engine_work);
    w->frame = video_frame_ref(f);
    w->camera = s->camera;
    if (roi) w->roi = *roi;
    w->track = track;
    snprintf(w->label, sizeof w->label, "%s", label);
    atomic_fetch_add(&s->camera->pending, 1);
    sched_offer(s->engine->sched, s->sched, &(struct sched_item){.what = w, .arrived_ns = f->captured_ns, .seq = f->seq});
}

/* ---- opening */

static err choose_labels(struct engine_stream *s, const struct site_names *names)
{
    if (names->all || !s->model) return ERR_OK;
    const struct task_card *c = s->model->card;
    s->wanted = xnewn(bool, c->class_count);
    for (size_t i = 0; i < names->count; i++) {
        bool known = false;
        for (int k = 0; k < c->class_count; k++)
            if (!strcmp(c->labels[k], names->items[i])) s->wanted[k] = known = true;
        if (!known)
            return err_set(ERR_NOT_FOUND, "model '%s' has no label '%s'; its card %s lists them", s->model->name, names->items[i], c->path);
    }
    return ERR_OK;
}

static struct task_motion_options motion_options(const struct site_motion *m)
{
    struct task_motion_options o = task_motion_defaults();
    o.floor = (float)m->threshold;
    o.k = (float)m->deviations;
    o.min_pixels = m->min_pixels;
    o.hold_seconds = (double)m->hold_ms / 1e3;
    o.adapt_seconds = (double)m->adapt_ms / 1e3;
    return o;
}

static err open_motion(struct engine_stream *s)
{
    bool gate = s->q->motion.gate && s->model && !s->cascade;
    if (s->model && !gate) return ERR_OK;
    struct task_motion_options o = motion_options(&s->q->motion);
    s->thumb_w = s->q->motion.width;
    s->thumb_h = MAX(s->thumb_w * 9 / 16, 8);
    err e = mem_alloc(s->payer, MEM_OTHER, (size_t)s->thumb_w * (size_t)s->thumb_h, (void **)&s->thumb);
    return e ? e : task_motion_new(s->payer, s->thumb_w, s->thumb_h, &o, gate ? &s->gate : &s->motion);
}

static err check_head(const struct engine_stream *s)
{
    if (!s->model) return ERR_OK;
    enum task_head_kind head = s->model->card->head;
    if (s->cascade && task_head_detects(head))
        return err_set(ERR_USAGE, "cascade model '%s' is a detector; a cascade takes attributes, embeddings or classes", s->model->name);
    return ERR_OK;
}

static err open_parts(struct engine_stream *s)
{
    char payer[64];
    snprintf(payer, sizeof payer, "query %.55s", s->name);
    s->payer = mem_payer_new(s->engine->budget, payer);
    err e = check_head(s);
    if (!e) e = choose_labels(s, s->cascade ? &(struct site_names){.all = true} : &s->q->objects);
    if (!e) e = open_motion(s);
    struct task_tracker_options o = task_tracker_defaults();
    o.high = (float)MAX(s->q->min_score, 0.3);
    if (!s->model) o.confirm_hits = 3;
    if (!e && !s->cascade && s->q->track) e = task_tracker_new(s->payer, &o, &s->tracker);
    return e;
}

err engine_stream_open(struct engine *e, struct engine_site *site, const struct site_query *q, int camera,
                       const struct site_cascade *cascade, struct engine_stream *parent, struct engine_stream **ret)
{
    struct engine_stream *s = xnew(struct engine_stream);
    int model = cascade ? cascade->model : q->model;
    s->engine = e;
    s->site = engine_site_ref(site);
    s->q = q;
    s->cascade = cascade;
    s->parent = parent;
    s->camera_index = camera;
    const char *camera_name = site->site->cameras[camera].name;
    if (cascade)
        snprintf(s->name, sizeof s->name, "%.64s@%.64s>%.64s", q->name, camera_name, site->site->models[model].name);
    else
        snprintf(s->name, sizeof s->name, "%.64s@%.64s", q->name, camera_name);
    for (size_t i = 0; i < e->n_cameras; i++)
        if (!strcmp(e->cameras[i]->name, camera_name)) s->camera = e->cameras[i];
    for (size_t i = 0; i < e->n_models && model >= 0; i++)
        if (!strcmp(e->models[i]->name, site->site->models[model].name)) s->model = e->models[i];
    err x = model >= 0 && (!s->model || !s->model->sched)
                ? err_set(ERR_NOT_FOUND, "%s", s->model ? s->model->problem : "its model could not be opened")
                : open_parts(s);
    *ret = s;
    if (x) {
        engine_stream_problem(s, err_text());
        return x;
    }
    double fps = q->fps > 0 ? q->fps : 0;
    s->sched = sched_stream_add(e->sched, &(struct sched_stream_options){
        .name = s->name, .model = s->model ? s->model->sched : NULL,
        .period_ns = cascade || fps <= 0 ? 0 : (int64_t)(1e9 / fps),
        .deadline_ns = s->camera->max_pace ? 0 : (int64_t)q->deadline_ms * 1000000, .priority = q->priority,
        .capacity = cascade ? MAX(cascade->max_per_frame, 1) : 1, .ops = &ops, .user = s});
    return ERR_OK;
}

void engine_stream_close(struct engine_stream **sp)
{
    struct engine_stream *s = *sp;
    if (!s) return;
    if (s->sched) sched_stream_remove(s->engine->sched, &s->sched);
    task_tracker_free(&s->tracker);
    task_watch_free(&s->watch);
    task_motion_free(&s->motion);
    task_motion_free(&s->gate);
    if (s->payer) mem_free(s->payer, MEM_OTHER, s->thumb, (size_t)s->thumb_w * (size_t)s->thumb_h);
    mem_payer_free(&s->payer);
    engine_site_unref(&s->site);
    free(s->wanted);
    free(s);
    *sp = NULL;
}

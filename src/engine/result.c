/* What a run found, on its way to trackers, zones, cascades and sinks. Runs on the executor's thread.
 *
 * Invariant: every box that leaves here is in frame pixels, inside the frame. SPDX-License-Identifier: Apache-2.0 */
#include "engine/inside.h"

#include "video/look.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

const char *engine_label_of(const struct engine_stream *s, int class_id)
{
    return s->model ? task_card_label(s->model->card, class_id) : "motion";
}

/* ---- zones: rules need the frame's size, so they are made at the first frame and again when the size changes */

static err make_watch(struct engine_stream *s, int w, int h)
{
    struct task_rules r = task_rules_defaults();
    struct task_zone *zones = xnewn(struct task_zone, s->q->zone_count);
    struct task_line *lines = xnewn(struct task_line, s->q->line_count);
    for (size_t i = 0; i < s->q->zone_count && r.zone_count < SITE_MAX_SHAPES; i++) {
        const struct site_shape *z = &s->q->zones[i];
        if (z->camera >= 0 && z->camera != s->camera_index) continue;
        struct task_zone *t = &zones[r.zone_count];
        t->point_count = MIN(z->point_count, (int)TASK_MAX_ZONE_POINTS);
        for (int k = 0; k < t->point_count; k++)
            t->points[k] = (struct task_point){z->points[k][0] * (float)w, z->points[k][1] * (float)h};
        t->stay_seconds = (double)(z->stay_ms ? z->stay_ms : s->q->stay_ms) / 1e3;
        s->zone_of[r.zone_count++] = (int)i;
    }
    for (size_t i = 0; i < s->q->line_count && r.line_count < SITE_MAX_SHAPES; i++) {
        const struct site_shape *l = &s->q->lines[i];
        if (l->camera >= 0 && l->camera != s->camera_index) continue;
        lines[r.line_count] = (struct task_line){{l->points[0][0] * (float)w, l->points[0][1] * (float)h},
                                                 {l->points[1][0] * (float)w, l->points[1][1] * (float)h}};
        s->line_of[r.line_count++] = (int)i;
    }
    r.zones = zones;
    r.lines = lines;
    r.anchor_centre = s->q->anchor_centre;
    r.settle_seconds = (double)s->q->settle_ms / 1e3;
    task_watch_free(&s->watch);
    err e = task_watch_new(s->payer, &r, &s->watch);
    free(zones);
    free(lines);
    if (e) return e;
    s->watch_w = w;
    s->watch_h = h;
    return ERR_OK;
}

/* ---- attributes that cascades said of a track */

static struct engine_label *label_slot(struct engine_stream *s, int64_t track)
{
    return &s->labels[track % ENGINE_LABELS];
}

static void put_track(const struct engine_stream *s, struct engine_track *t, int64_t id, const struct task_box *b, float score, int class_id)
{
    t->id = id;
    t->box = *b;
    t->score = score;
    snprintf(t->label, sizeof t->label, "%s", engine_label_of(s, class_id));
    const struct engine_label *l = &s->labels[id % ENGINE_LABELS];
    snprintf(t->attributes, sizeof t->attributes, "%s", id && l->track == id ? l->text : "");
}

/* ---- sinks */

static double wall_time(const struct video_frame *f)
{
    return clock_wall() - (double)(clock_ns() - f->captured_ns) / 1e9;
}

static struct engine_record record_of(const struct engine_stream *s, const struct video_frame *f)
{
    return (struct engine_record){.camera = s->camera->name, .query = s->q->name, .time = wall_time(f), .pts = f->pts, .frame = f->seq,
                                  .width = f->width, .height = f->height, .event = "", .zone = "", .picture = f,
                                  .latency_ms = (double)(clock_ns() - f->captured_ns) / 1e6};
}

static void emit_event(struct engine_stream *s, const struct engine_work *w, const struct task_event *ev, const struct engine_track *seen, int n)
{
    static const unsigned bits[] = {[TASK_APPEARED] = SITE_EVENT_APPEARED, [TASK_LEFT] = SITE_EVENT_LEFT, [TASK_ENTERED] = SITE_EVENT_ENTERED,
                                    [TASK_EXITED] = SITE_EVENT_EXITED, [TASK_CROSSED] = SITE_EVENT_CROSSED, [TASK_STAYED] = SITE_EVENT_STAYED};
    if (!(s->q->events & bits[ev->kind])) return;
    struct engine_record r = record_of(s, w->frame);
    r.kind = ENGINE_EVENT;
    r.event = task_event_name(ev->kind);
    if (ev->rule >= 0) r.zone = ev->kind == TASK_CROSSED ? s->q->lines[s->line_of[ev->rule]].name : s->q->zones[s->zone_of[ev->rule]].name;
    r.direction = ev->direction;
    r.seconds = ev->seconds;
    r.tracks = seen;
    r.n_tracks = n;
    put_track(s, &r.track, ev->track, &ev->box, ev->score, ev->class_id);
    if (getrandom(r.uid, sizeof r.uid, 0) != sizeof r.uid) {
        uint64_t h = hash64(&r.time, sizeof r.time, r.frame); /* no randomness yet, early in the boot: still unique here */
        memcpy(r.uid, &h, sizeof h);
    }
    atomic_fetch_add(&s->events, 1);
    engine_emit(s->engine, &r);
}

static void show(struct engine_stream *s, const struct engine_work *w, const struct engine_track *t, int n)
{
    struct engine_camera *c = s->camera;
    pthread_mutex_lock(&c->lock);
    if (c->result_frame != w->frame->seq) c->n_tracks = 0; /* several queries of one frame are shown together */
    c->result_frame = w->frame->seq;
    for (int i = 0; i < n && c->n_tracks < ENGINE_MAX_TRACKS; i++) c->tracks[c->n_tracks++] = t[i];
    pthread_mutex_unlock(&c->lock);
}

/* ---- cascades */

static bool named(const struct site_names *names, const char *label)
{
    for (size_t i = 0; !names->all && i < names->count; i++)
        if (!strcmp(names->items[i], label)) return true;
    return names->all;
}

static void offer_crops(struct engine_stream *child, const struct engine_work *w, const struct engine_track *t, int n)
{
    const struct site_cascade *c = child->cascade;
    int offered = 0;
    for (int i = 0; i < n && offered < c->max_per_frame; i++) {
        double bw = t[i].box.x2 - t[i].box.x1, bh = t[i].box.y2 - t[i].box.y1;
        if (!named(&c->objects, t[i].label) || MIN(bw, bh) < c->min_size) continue;
        struct engine_label *last = label_slot(child, t[i].id);
        if (t[i].id && c->every_ms && last->track == t[i].id && w->frame->captured_ns - last->at_ns < c->every_ms * 1000000) continue;
        last->track = t[i].id;
        last->at_ns = w->frame->captured_ns;
        struct video_rect roi = {t[i].box.x1 - bw * c->margin, t[i].box.y1 - bh * c->margin, bw * (1 + 2 * c->margin), bh * (1 + 2 * c->margin)};
        engine_stream_offer(child, w->frame, &roi, t[i].id, t[i].label);
        offered++;
    }
}

static void describe(const struct engine_stream *s, const struct task_result *r, char *text, size_t size)
{
    size_t n = 0;
    text[0] = 0;
    double least = s->cascade ? s->cascade->min_score : 0; /* weaker results are not told */
    if (r->head == TASK_CLASSIFY && r->best_count && (double)r->probabilities[r->best[0]] >= least)
        snprintf(text, size, "%s %.2f", engine_label_of(s, r->best[0]), r->probabilities[r->best[0]]);
    for (int i = 0; r->head == TASK_ATTRIBUTES && i < r->class_count && n < size; i++)
        if (r->probabilities[i] >= s->model->card->score && (double)r->probabilities[i] >= least)
            n += (size_t)snprintf(text + n, size - n, "%s%s %.2f", n ? ", " : "", engine_label_of(s, i), r->probabilities[i]);
    for (int i = 0; r->head == TASK_SEGMENTATION && r->shares && i < s->model->card->class_count && n < size; i++)
        if (r->shares[i] >= 0.02f) n += (size_t)snprintf(text + n, size - n, "%s%s %.0f%%", n ? ", " : "", engine_label_of(s, i), (double)r->shares[i] * 100);
    if (r->head == TASK_EMBEDDING) snprintf(text, size, "embedding[%d]", r->embedding_count);
}

void engine_cascade_found(struct engine_stream *s, const struct engine_work *w, const struct task_result *r)
{
    struct engine_record rec = record_of(s, w->frame);
    struct engine_track t = {.id = w->track, .score = 1};
    t.box = (struct task_box){(float)w->roi.x, (float)w->roi.y, (float)(w->roi.x + w->roi.w), (float)(w->roi.y + w->roi.h)};
    snprintf(t.label, sizeof t.label, "%s", w->label);
    describe(s, r, t.attributes, sizeof t.attributes);
    atomic_fetch_add(&s->detections, 1);
    if (w->track && r->head != TASK_EMBEDDING) { /* a vector says nothing that a person can read */
        struct engine_label *l = label_slot(s->parent, w->track);
        l->track = w->track;
        snprintf(l->text, sizeof l->text, "%s", t.attributes);
    }
    rec.kind = ENGINE_RESULT;
    rec.n_tracks = 1;
    rec.tracks = &t;
    engine_emit(s->engine, &rec);
}

/* ---- a query's own detections */

enum { MOST_LOOKED_AT = 256 };

/* What each detection looks like; NULL: too many, or spots of motion, which look like anything. */
static const struct task_look *look_at(const struct engine_stream *s, const struct video_frame *f, const struct task_detection *d, int n, struct task_look *room)
{
    _Static_assert((int)VIDEO_LOOK == (int)TASK_LOOK, "the tracker takes what video_look gives");
    if (!s->model || n > MOST_LOOKED_AT) return NULL;
    for (int i = 0; i < n; i++) {
        const struct task_box *b = &d[i].box;
        video_look(f, &(struct video_rect){b->x1, b->y1, b->x2 - b->x1, b->y2 - b->y1}, room[i].at);
    }
    return room;
}

static int tracked(struct engine_stream *s, const struct engine_work *w, const struct task_detection *d, int n, struct engine_track *t)
{
    const struct task_track *all;
    int out = 0;
    struct task_look looks[MOST_LOOKED_AT];
    task_tracker_update(s->tracker, w->frame->pts, d, look_at(s, w->frame, d, n, looks), n);
    int count = task_tracker_tracks(s->tracker, &all);
    for (int i = 0; i < count && out < ENGINE_MAX_TRACKS; i++)
        if (all[i].state == TASK_CONFIRMED && all[i].detection >= 0)
            put_track(s, &t[out++], all[i].id, &d[all[i].detection].box, all[i].score, all[i].class_id);
    if (s->watch_w != w->frame->width || s->watch_h != w->frame->height || !s->watch) {
        if (make_watch(s, w->frame->width, w->frame->height)) return out;
    }
    const struct task_event *events;
    int n_events = task_watch_update(s->watch, w->frame->pts, all, count, &events);
    for (int i = 0; i < n_events; i++) emit_event(s, w, &events[i], t, out);
    atomic_store(&s->tracks, (unsigned long long)(task_tracker_next_id(s->tracker) - 1));
    return out;
}

void engine_stream_found(struct engine_stream *s, const struct engine_work *w, const struct task_detection *d, int n)
{
    struct engine_track t[ENGINE_MAX_TRACKS];
    int count = 0;
    atomic_fetch_add(&s->detections, (unsigned long long)n);
    if (s->tracker)
        count = tracked(s, w, d, n, t);
    else
        for (int i = 0; i < n && count < ENGINE_MAX_TRACKS; i++) put_track(s, &t[count++], 0, &d[i].box, d[i].score, d[i].class_id);
    show(s, w, t, count);
    for (int i = 0; i < SITE_MAX_CASCADE; i++)
        if (s->cascades[i]) offer_crops(s->cascades[i], w, t, count);
    struct engine_record r = record_of(s, w->frame);
    r.kind = ENGINE_RESULT;
    r.n_tracks = count;
    r.tracks = t;
    engine_emit(s->engine, &r);
}

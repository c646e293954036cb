/* The pump: takes the newest frame of each camera, and offers it to the streams that are due.
 *
 * One thread for all cameras; it converts nothing. The motion gate looks at an area-averaged thumbnail, which costs far less than
 * any model. A camera with `pace: max` is asked for its next frame only when nothing of the last one is left in sched.
 * Invariant: the pump holds a frame only while it hands it out. SPDX-License-Identifier: Apache-2.0 */
#include "engine/inside.h"

#include <stdlib.h>
#include <string.h>

static const int64_t SECOND = 1000000000;
enum { PICTURE_SECONDS = 5, PICTURE_FPS = 10 };

/* Due at its period, with a tenth of a period of grace, so that 10 of 25 fps come evenly. */
static bool due(struct engine_stream *s, const struct video_frame *f)
{
    if (s->camera->max_pace || s->q->fps <= 0) return true;
    int64_t period = (int64_t)((double)SECOND / s->q->fps);
    if (f->captured_ns + period / 10 < s->next_due_ns) return false;
    s->next_due_ns = MAX(s->next_due_ns, f->captured_ns - period) + period;
    return true;
}

static bool gate_open(struct engine_stream *s, const struct video_frame *f)
{
    struct task_motion_result r;
    if (!s->gate || video_grey_small(f, s->thumb_w, s->thumb_h, s->thumb)) return true;
    task_motion_update(s->gate, f->pts, s->thumb, (size_t)s->thumb_w, &r);
    if (!r.open) atomic_fetch_add(&s->motion_saved, 1);
    return r.open;
}

static void keep_picture(struct engine_camera *c, struct video_frame *f)
{
    struct video_frame *old = NULL;
    pthread_mutex_lock(&c->lock);
    bool asked = c->asked_ns && clock_ns() - c->asked_ns < PICTURE_SECONDS * SECOND;
    old = c->picture;
    c->picture = asked ? video_frame_ref(f) : NULL;
    pthread_mutex_unlock(&c->lock);
    video_frame_unref(&old);
}

static void tell_need(struct engine *e, struct engine_camera *c)
{
    double need = 0;
    for (const struct engine_stream *s = e->streams; s; s = s->next)
        if (s->camera == c && s->sched && !s->cascade && need >= 0) need = s->q->fps > 0 ? MAX(need, s->q->fps) : -1;
    pthread_mutex_lock(&c->lock);
    bool asked = c->asked_ns && clock_ns() - c->asked_ns < PICTURE_SECONDS * SECOND;
    pthread_mutex_unlock(&c->lock);
    if (asked && need >= 0) need = MAX(need, (double)PICTURE_FPS);
    if (need == c->need) return;
    c->need = need;
    video_camera_set_need(c->cam, need);
}

static void pump_camera(struct engine *e, struct engine_camera *c)
{
    struct video_frame *f;
    tell_need(e, c);
    if (c->max_pace && atomic_load(&c->pending) > 0) return;
    if (video_camera_latest(c->cam, &f)) return;
    for (struct engine_stream *s = e->streams; s; s = s->next)
        if (s->camera == c && s->sched && !s->cascade && due(s, f) && gate_open(s, f)) engine_stream_offer(s, f, NULL, 0, "");
    keep_picture(c, f);
    video_frame_unref(&f);
    atomic_fetch_add(&c->taken, 1); /* after the offers: engine_finished must not come between */
}

void *engine_pump(void *arg)
{
    struct engine *e = arg;
    while (!atomic_load(&e->stop)) {
        thread_event_wait(&e->wake, 200);
        thread_event_reset(&e->wake);
        pthread_mutex_lock(&e->lock);
        for (size_t i = 0; i < e->n_cameras; i++) pump_camera(e, e->cameras[i]);
        pthread_mutex_unlock(&e->lock);
    }
    return NULL;
}

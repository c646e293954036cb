/* A camera: the thread that connects, plays, and tries again; the slot; the figures.
 *
 * The thread alone moves the state (drawn in video.h: set_state is the only writer) and alone talks to the session;
 * everybody else sees the slot, the state and the counters. The slot holds one frame: publishing replaces it, taking
 * empties it. With pace max the thread waits on `changed` until it is empty.
 *
 * Waiting grows from 0.5 s to 30 s, doubled by every connection that did not stay up for ten seconds, with a fifth of
 * jitter drawn from the name, so that forty cameras behind one dead switch do not come back in step.
 * SPDX-License-Identifier: Apache-2.0 */
#include "video/session.h"

#include <libavcodec/avcodec.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    POOL_FRAMES = 32,          /* 16 references, reordering, the slot, and what takers hold */
    STACK_BYTES = 4 << 20,     /* of address space; a decoder touches a tenth */
    TICK_NS = 50000000,        /* how often the state is looked at */
    STEADY_NS = 2000000000,    /* behind by this much, a file does not try to catch up */
    MAX_URL = 2000
};
#define SECOND 1000000000LL

struct video_camera {
    struct video_options o; /* with our own strings */
    char *name, *url;
    struct video_pool *pool;
    struct video_counters counters;
    video_wakeup_fn *wakeup;
    void *user;
    pthread_t thread;
    atomic_bool stop;

    pthread_mutex_t lock; /* guards the fields up to the next comment */
    pthread_cond_t changed; /* the slot was emptied, or stop */
    struct video_frame *slot;
    enum video_state state;
    char error[256];
    struct video_info info;
    int width, height;
    double fps_in;
    uint64_t published, dropped, reconnects;
    int64_t last_frame_ns, wait_until_ns;

    /* the thread's own */
    int64_t last_tick_ns, window_ns;
    uint64_t window_pictures, pictures_at_open;
    double last_pts, pts_offset;
    bool first_of_session, have_pts, file;
    int64_t anchor_ns;
    double anchor_pts;
    int failures;
};

const char *video_state_name(enum video_state s)
{
    static const char *const names[] = {"connecting", "live", "stalled", "waiting", "ended", "failed"};
    return s <= VIDEO_FAILED ? names[s] : "?";
}

static void set_state(struct video_camera *c, enum video_state s)
{
    pthread_mutex_lock(&c->lock);
    bool changed = c->state != s;
    c->state = s;
    pthread_mutex_unlock(&c->lock);
    if (changed && c->wakeup) c->wakeup(c->user);
}

/* Waits until `until_ns` or stop, or (with `emptied`) until the slot is empty. True: stop. */
static bool wait_until(struct video_camera *c, int64_t until_ns, bool emptied)
{
    struct timespec ts = {until_ns / SECOND, until_ns % SECOND};
    pthread_mutex_lock(&c->lock);
    while (!atomic_load(&c->stop) && !(emptied && !c->slot) && clock_ns() < until_ns)
        pthread_cond_timedwait(&c->changed, &c->lock, &ts);
    pthread_mutex_unlock(&c->lock);
    return atomic_load(&c->stop);
}

/* The session calls this all the time: keeps the state and the rate right, and says when to stop. */
static bool tick(void *user)
{
    struct video_camera *c = user;
    if (atomic_load(&c->stop)) return true;
    int64_t now = clock_ns();
    if (now - c->last_tick_ns < TICK_NS) return false;
    c->last_tick_ns = now;
    uint64_t pictures = atomic_load(&c->counters.pictures);
    if (now - c->window_ns > SECOND) {
        double rate = (double)(pictures - c->window_pictures) * 1e9 / (double)(now - c->window_ns);
        pthread_mutex_lock(&c->lock);
        c->fps_in = c->fps_in > 0 ? 0.5 * (c->fps_in + rate) : rate;
        pthread_mutex_unlock(&c->lock);
        c->window_ns = now;
        c->window_pictures = pictures;
    }
    if (pictures > c->pictures_at_open) {
        int64_t quiet = now - atomic_load(&c->counters.progress_ns);
        set_state(c, !c->file && quiet > c->o.stall_ms * 1000000LL ? VIDEO_STALLED : VIDEO_LIVE);
    }
    return false;
}

/* Gives the frame its place on the camera's own clock, which goes on over reconnects, and waits for its moment. True:
 * stop. */
static bool pace(struct video_camera *c, struct video_frame *f)
{
    if (c->first_of_session) {
        c->first_of_session = false;
        double gap = c->file ? 0.04 : (double)(clock_ns() - c->last_frame_ns) / 1e9;
        c->pts_offset = c->have_pts ? c->last_pts + gap - f->pts : 0;
        c->anchor_ns = 0;
    }
    f->pts += c->pts_offset;
    c->last_pts = f->pts;
    c->have_pts = true;
    if (!c->file || c->o.pace == VIDEO_PACE_MAX) return atomic_load(&c->stop);
    int64_t now = clock_ns(), due = c->anchor_ns + (int64_t)((f->pts - c->anchor_pts) * 1e9);
    if (!c->anchor_ns || due < now - STEADY_NS) {
        c->anchor_ns = due = now;
        c->anchor_pts = f->pts;
    }
    bool stop = wait_until(c, due, false);
    f->captured_ns = clock_ns();
    return stop;
}

static void publish(struct video_camera *c, struct video_frame *f)
{
    if (c->file && c->o.pace == VIDEO_PACE_MAX && wait_until(c, INT64_MAX, true)) {
        video_frame_unref(&f);
        return;
    }
    pthread_mutex_lock(&c->lock);
    struct video_frame *old = c->slot;
    if (old) c->dropped++;
    f->seq = ++c->published;
    c->slot = f;
    c->width = f->width;
    c->height = f->height;
    c->last_frame_ns = clock_ns();
    pthread_mutex_unlock(&c->lock);
    video_frame_unref(&old);
    set_state(c, VIDEO_LIVE);
    if (c->wakeup) c->wakeup(c->user);
}

/* One connection, from open to its end; says why it ended. */
static err one_session(struct video_camera *c)
{
    const struct video_session_ops *ops = c->o.decode == VIDEO_DECODE_PROCESS ? &video_remote_ops : &video_source_ops;
    struct video_env env = {&c->o, c->pool, &c->counters, tick, c};
    void *session = NULL;
    set_state(c, VIDEO_CONNECTING);
    c->first_of_session = true;
    c->file = false;
    c->window_ns = clock_ns();
    c->window_pictures = c->pictures_at_open = atomic_load(&c->counters.pictures);
    atomic_store(&c->counters.progress_ns, clock_ns());
    err e = ops->open(&env, &session);
    if (!e) {
        struct video_info info;
        ops->info(session, &info);
        c->file = info.file;
        pthread_mutex_lock(&c->lock);
        c->info = info;
        pthread_mutex_unlock(&c->lock);
        atomic_store(&c->counters.progress_ns, clock_ns());
    }
    int64_t since = clock_ns();
    while (!e && !tick(c)) {
        struct video_frame *f = NULL;
        e = ops->next(session, &f);
        if (e) break;
        if (!c->info.codec[0]) { /* a folder of images knows it only now; our own thread is the only writer */
            pthread_mutex_lock(&c->lock);
            ops->info(session, &c->info);
            pthread_mutex_unlock(&c->lock);
        }
        bool stop = pace(c, f), unwanted = c->file && c->o.pace == VIDEO_PACE_LIVE && atomic_load(&c->counters.need) == 0;
        if (unwanted) atomic_fetch_add(&c->counters.skipped, 1); /* it came for its moment only: see decode.c */
        if (stop || unwanted)
            video_frame_unref(&f);
        else
            publish(c, f);
    }
    if (atomic_load(&c->counters.pictures) > c->pictures_at_open && clock_ns() - since > 10 * SECOND) c->failures = 0;
    if (e && e != ERR_CLOSED && e != ERR_CANCELLED) {
        char text[sizeof c->error];
        snprintf(text, sizeof text, "%s", err_text());
        pthread_mutex_lock(&c->lock);
        memcpy(c->error, text, sizeof text);
        pthread_mutex_unlock(&c->lock);
    }
    ops->close(&session);
    return e;
}

static void *camera_main(void *arg)
{
    struct video_camera *c = arg;
    char name[16];
    snprintf(name, sizeof name, "cam %s", c->name);
    pthread_setname_np(pthread_self(), name);
    while (!atomic_load(&c->stop)) {
        err e = one_session(c);
        if (atomic_load(&c->stop)) break;
        if (e == ERR_CLOSED) {
            set_state(c, VIDEO_ENDED);
            break;
        }
        enum video_kind kind;
        const char *path;
        bool known = video_url_kind(c->url, &kind, &path) == ERR_OK;
        bool once = c->o.pace == VIDEO_PACE_MAX && (kind == VIDEO_FILE || kind == VIDEO_IMAGES);
        if (!known || once || e == ERR_UNSUPPORTED || e == ERR_USAGE) {
            set_state(c, VIDEO_FAILED);
            break;
        }
        double wait = MIN(0.5 * pow(2, MIN(c->failures, 10)), 30);
        uint64_t dice = hash64(c->name, strlen(c->name), (uint64_t)c->failures++ + c->reconnects);
        wait *= 0.8 + 0.4 * (double)(dice >> 40) / (1 << 24);
        int64_t until = clock_ns() + (int64_t)(wait * 1e9);
        pthread_mutex_lock(&c->lock);
        c->wait_until_ns = until;
        c->fps_in = 0;
        pthread_mutex_unlock(&c->lock);
        set_state(c, VIDEO_WAITING);
        if (wait_until(c, until, false)) break;
        pthread_mutex_lock(&c->lock);
        c->reconnects++;
        pthread_mutex_unlock(&c->lock);
    }
    return NULL;
}

static void camera_free(struct video_camera *c)
{
    video_frame_unref(&c->slot);
    video_pool_close(c->pool);
    video_pool_unref(&c->pool);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    free(c->name);
    free(c->url);
    free(c);
}

err video_camera_open(const struct video_options *o, struct mem_budget *b, video_wakeup_fn *wakeup, void *user,
                      struct video_camera **ret)
{
    enum video_kind kind;
    const char *path;
    if (!o->name || !*o->name) return err_set(ERR_USAGE, "a camera needs a name");
    if (!o->url || !*o->url) return err_set(ERR_USAGE, "camera '%s' needs a url", o->name);
    if (strlen(o->url) > MAX_URL)
        return err_set(ERR_USAGE, "camera '%s': its url has over %d bytes", o->name, MAX_URL);
    if (o->timeout_ms < 0 || o->stall_ms < 0 || !(o->max_fps >= 0) || isinf(o->max_fps))
        return err_set(ERR_USAGE, "camera '%s': times and rates must not be negative", o->name);
    err e = video_url_kind(o->url, &kind, &path);
    if (e) return err_wrap(e, "camera '%s'", o->name);
    struct video_camera *c = xnew(struct video_camera);
    c->o = *o;
    c->o.name = c->name = xstrdup(o->name);
    c->o.url = c->url = xstrdup(o->url);
    if (!o->timeout_ms) c->o.timeout_ms = 10000;
    if (!o->stall_ms) c->o.stall_ms = 3000;
    c->wakeup = wakeup;
    c->user = user;
    atomic_init(&c->counters.need, -1);
    char payer[64];
    snprintf(payer, sizeof payer, "camera %s", o->name);
    c->pool = video_pool_new(b, payer, POOL_FRAMES);
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_t ca;
    pthread_condattr_init(&ca);
    pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &ca);
    pthread_condattr_destroy(&ca);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    int r = pthread_create(&c->thread, &attr, camera_main, c);
    pthread_attr_destroy(&attr);
    if (r) {
        e = err_set(ERR_IO, "camera '%s': cannot start a thread: %s", o->name, strerror(r));
        camera_free(c);
        return e;
    }
    *ret = c;
    return ERR_OK;
}

void video_camera_close(struct video_camera **cam)
{
    struct video_camera *c = *cam;
    if (!c) return;
    *cam = NULL;
    pthread_mutex_lock(&c->lock);
    atomic_store(&c->stop, true);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    camera_free(c);
}

err video_camera_latest(struct video_camera *c, struct video_frame **ret)
{
    pthread_mutex_lock(&c->lock);
    struct video_frame *f = c->slot;
    c->slot = NULL;
    bool over = c->state == VIDEO_ENDED || c->state == VIDEO_FAILED;
    if (f) pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (!f) return over ? err_set(ERR_CLOSED, "camera '%s' has ended", c->name) : ERR_AGAIN;
    *ret = f;
    return ERR_OK;
}

void video_camera_set_need(struct video_camera *c, double fps)
{
    atomic_store(&c->counters.need, fps);
}

void video_camera_stats(struct video_camera *c, struct video_stats *ret)
{
    struct video_stats s = {0};
    pthread_mutex_lock(&c->lock);
    s.state = c->state;
    memcpy(s.error, c->error, sizeof s.error);
    memcpy(s.codec, c->info.codec, sizeof s.codec);
    s.stream_fps = c->info.fps;
    s.child_pid = c->state == VIDEO_LIVE || c->state == VIDEO_STALLED ? c->info.child_pid : 0;
    s.width = c->width;
    s.height = c->height;
    s.fps_in = c->fps_in;
    s.published = c->published;
    s.dropped = c->dropped;
    s.reconnects = c->reconnects;
    s.last_frame_ns = c->last_frame_ns;
    if (c->state == VIDEO_WAITING) s.wait_s = MAX(0, (double)(c->wait_until_ns - clock_ns()) / 1e9);
    pthread_mutex_unlock(&c->lock);
    video_url_redact(c->url, s.url, sizeof s.url);
    s.decoded = atomic_load(&c->counters.decoded);
    s.skipped = atomic_load(&c->counters.skipped);
    s.corrupt = atomic_load(&c->counters.corrupt);
    s.no_memory = atomic_load(&c->counters.no_memory);
    s.bytes = atomic_load(&c->counters.bytes);
    *ret = s;
}

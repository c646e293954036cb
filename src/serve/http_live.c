/* Live pictures: JPEG with boxes and zones, one at a time or as a stream of them.
 *
 * Cost does not grow with the number of people who look: a *view* is a camera at one of five widths, and makes at
 * most VIEW_FPS pictures a second, when somebody asks; all who look get the same bytes (a counted *picture*). A slow
 * client holds one old picture while it is sent and then gets the newest. Drawing and encoding happen on one of
 * BENCHES *benches*, one at a time, because an encoder of each view would take megabytes each. A view that nobody
 * looked at for LINGER_NS is freed by the sweeper thread, and with the last one the benches, so that models get the
 * bytes back. Everything is charged to the payer "live"; if the budget refuses, weights make room as far as the models can run beside it; else there is no
 * picture this time.
 *
 * Locks: live->lock guards the list and `users`; view->lock what is in the view; live->work the benches, taken under
 * a view's lock; live->lock and a view's are never held together. SPDX-License-Identifier: Apache-2.0 */
#include "serve/http_inside.h"
#include "serve/paint.h"
#include "video/convert.h"
#include "video/encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    VIEW_FPS = 8,
    MAX_VIEWS = 64,
    BENCHES = 3,
    JPEG_QUALITY = 78,
    WAIT_MS = 30,
    FIRST_PICTURE_MS = 3000,
    REPEAT_MS = 4000,
    HEAD_BYTES = 96
};
static const int64_t MS = 1000000, LINGER_NS = 3000 * (int64_t)1000000;
static const int WIDTHS[] = {320, 480, 640, 960, 1280};

struct picture {
    atomic_int refs;
    struct mem_payer *payer;
    size_t size;
    uint64_t number; /* rising within a view */
    uint8_t bytes[];
};

struct view {
    struct view *next;
    char camera[65];
    int width;
    int users;            /* live->lock */
    int64_t left_ns;      /* when the last user left; live->lock */
    pthread_mutex_t lock; /* guards what follows */
    int64_t made_ns;
    uint64_t frame, result; /* what `last` shows */
    struct picture *last;
};

/* What one size of picture needs. */
struct bench {
    int w, h; /* 0: none */
    uint8_t *rgb;
    struct video_conv *conv;
    struct video_jpeg *jpeg;
    int64_t used_ns;
};

struct http_live {
    struct serve_http *http;
    struct mem_payer *payer;
    pthread_mutex_t lock;
    struct view *views;
    pthread_mutex_t work; /* guards benches */
    struct bench benches[BENCHES];
    struct thread_event wake, stop;
    pthread_t sweeper;
    bool started;
};

/* ---- pictures */

static struct picture *picture_ref(struct picture *p)
{
    atomic_fetch_add(&p->refs, 1);
    return p;
}

static void picture_unref(struct picture **pp)
{
    struct picture *p = *pp;
    *pp = NULL;
    if (p && atomic_fetch_sub(&p->refs, 1) == 1) mem_free(p->payer, MEM_QUEUE, p, sizeof *p + p->size);
}

static err picture_new(struct mem_payer *payer, const uint8_t *bytes, size_t n, uint64_t number, struct picture **ret)
{
    struct picture *p;
    err e = mem_alloc(payer, MEM_QUEUE, sizeof *p + n, (void **)&p);
    if (e) return e;
    atomic_init(&p->refs, 1);
    p->payer = payer;
    p->size = n;
    p->number = number;
    memcpy(p->bytes, bytes, n);
    *ret = p;
    return ERR_OK;
}

/* ---- views */

static int allowed_width(int64_t asked)
{
    for (size_t i = 0; i < ARRAY_LEN(WIDTHS); i++)
        if (asked <= WIDTHS[i]) return WIDTHS[i];
    return WIDTHS[ARRAY_LEN(WIDTHS) - 1];
}

static void view_free(struct view *v)
{
    picture_unref(&v->last);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

static struct view *view_find(struct http_live *l, const char *camera, int width, int *ret_count)
{
    struct view *found = NULL;
    *ret_count = 0;
    for (struct view *v = l->views; v; v = v->next, ++*ret_count)
        if (v->width == width && !strcmp(v->camera, camera)) found = v;
    return found;
}

static err view_enter(struct http_live *l, const char *camera, int width, struct view **ret)
{
    int count;
    pthread_mutex_lock(&l->lock);
    struct view *v = view_find(l, camera, width, &count);
    if (!v && count < MAX_VIEWS) {
        v = xnew(struct view);
        snprintf(v->camera, sizeof v->camera, "%s", camera);
        v->width = width;
        pthread_mutex_init(&v->lock, NULL);
        v->next = l->views;
        l->views = v;
    }
    if (v) v->users++;
    pthread_mutex_unlock(&l->lock);
    if (!v) return err_set(ERR_BUSY, "%d views are open, more are not served", MAX_VIEWS);
    *ret = v;
    return ERR_OK;
}

static void view_leave(struct http_live *l, struct view *v)
{
    pthread_mutex_lock(&l->lock);
    v->left_ns = clock_ns();
    bool idle = --v->users == 0;
    pthread_mutex_unlock(&l->lock);
    if (idle) thread_event_set(&l->wake);
}

static void bench_done(struct http_live *l, struct bench *b)
{
    if (b->w) {
        video_jpeg_free(&b->jpeg);
        video_conv_free(&b->conv);
    }
    mem_free(l->payer, MEM_SCRATCH, b->rgb, (size_t)b->w * (size_t)b->h * 3);
    *b = (struct bench){0};
}

/* The bench for this size; otherwise the one that was longest unused is made into it. Under live->work. */
static err bench_get(struct http_live *l, int w, int h, struct bench **ret)
{
    struct bench *b = &l->benches[0];
    void *rgb;
    for (int i = 0; i < BENCHES; i++) {
        if (l->benches[i].used_ns < b->used_ns) b = &l->benches[i];
        if (l->benches[i].w == w && l->benches[i].h == h) {
            b = &l->benches[i];
            break;
        }
    }
    if (b->w != w || b->h != h) {
        bench_done(l, b);
        err e = mem_alloc(l->payer, MEM_SCRATCH, (size_t)w * (size_t)h * 3, &rgb);
        if (e) return e;
        *b = (struct bench){.w = w,
                            .h = h,
                            .rgb = rgb,
                            .conv = video_conv_new(l->payer),
                            .jpeg = video_jpeg_new(l->payer, JPEG_QUALITY)};
    }
    b->used_ns = clock_ns();
    *ret = b;
    return ERR_OK;
}

/* Benches of other sizes go; they are made again, which takes a millisecond or two. */
static void drop_others(struct http_live *l, int w, int h)
{
    pthread_mutex_lock(&l->work);
    for (int i = 0; i < BENCHES; i++)
        if (l->benches[i].w != w || l->benches[i].h != h) bench_done(l, &l->benches[i]);
    pthread_mutex_unlock(&l->work);
}

/* Frees what nobody looked at for a while; true if there is something left to watch. */
static bool sweep(struct http_live *l, int64_t older_than)
{
    bool idle = false;
    pthread_mutex_lock(&l->lock);
    for (struct view **at = &l->views; *at;) {
        struct view *v = *at;
        if (v->users || v->left_ns > older_than) {
            idle |= !v->users;
            at = &v->next;
            continue;
        }
        *at = v->next;
        view_free(v);
    }
    bool empty = !l->views;
    pthread_mutex_unlock(&l->lock);
    if (empty) {
        pthread_mutex_lock(&l->work); /* a view made just now gets a new one */
        for (int i = 0; i < BENCHES; i++) bench_done(l, &l->benches[i]);
        pthread_mutex_unlock(&l->work);
    }
    return idle;
}

static void *run_sweeper(void *arg)
{
    struct http_live *l = arg;
    while (!thread_event_is_set(&l->stop)) {
        thread_event_wait(&l->wake, -1);
        thread_event_reset(&l->wake);
        while (sweep(l, clock_ns() - LINGER_NS) && !thread_event_wait(&l->stop, 1000)) continue;
    }
    return NULL;
}

/* ---- making one */

static void paint(struct http_live *l, const struct bench *b, const char *camera, const struct engine_picture *from)
{
    struct video_picture canvas = {b->rgb, b->w, b->h, 3 * b->w};
    struct engine_site *site = engine_site_hold(l->http->engine);
    serve_paint_zones(&canvas, engine_site_get(site), camera);
    engine_site_unref(&site);
    serve_paint_tracks(&canvas, (double)b->w / from->frame->width, from->tracks, from->n_tracks);
}

/* On a bench, which one at a time works at. */
static err make(struct http_live *l, const struct view *v, const struct engine_picture *from, int w, int h, struct picture **ret)
{
    struct bench *b = NULL;
    const uint8_t *bytes;
    size_t n;
    pthread_mutex_lock(&l->work);
    err e = bench_get(l, w, h, &b);
    if (!e) e = video_to_rgb24(b->conv, from->frame, NULL, w, h, b->rgb, 3 * w);
    if (!e) {
        paint(l, b, v->camera, from);
        e = video_jpeg_encode(b->jpeg, b->rgb, 3 * w, w, h, &bytes, &n);
    }
    if (!e) e = picture_new(l->payer, bytes, n, (v->last ? v->last->number : 0) + 1, ret);
    pthread_mutex_unlock(&l->work);
    return e;
}

/* Where the budget is full, benches of other sizes make room, then weights. */
static err draw(struct http_live *l, struct view *v, const struct engine_picture *from)
{
    enum { BESIDE = 256 << 10 }; /* the converter, and the picture itself */
    const struct video_frame *f = from->frame;
    int w = MIN(v->width, f->width), h = (int)((int64_t)f->height * w / MAX(f->width, 1));
    struct picture *p = NULL;
    h = MIN(MAX(h, 1), 4 * w + 16); /* a frame of 1 x 8192 stays small */
    err e = make(l, v, from, w, h, &p);
    if (e == ERR_NOMEM) {
        drop_others(l, w, h);
        e = make(l, v, from, w, h, &p);
    }
    if (e == ERR_NOMEM && !engine_spare(l->http->engine, video_jpeg_bytes(w, h) + (size_t)w * (size_t)h * 3 + BESIDE)) e = make(l, v, from, w, h, &p);
    if (e) return e;
    picture_unref(&v->last);
    v->last = p;
    v->frame = f->seq;
    v->result = from->result_frame;
    v->made_ns = clock_ns();
    return ERR_OK;
}

/* The newest picture if its number is over `after`; ERR_AGAIN: not yet. */
static err view_picture(struct http_live *l, struct view *v, uint64_t after, struct picture **ret)
{
    struct engine_picture from;
    err e = ERR_OK;
    pthread_mutex_lock(&v->lock);
    if (!v->last || clock_ns() - v->made_ns >= 1000 * MS / VIEW_FPS) {
        e = engine_picture(l->http->engine, v->camera, &from);
        if (!e) {
            if (!v->last || v->frame != from.frame->seq || v->result != from.result_frame) e = draw(l, v, &from);
            video_frame_unref(&from.frame);
        }
    }
    if (!e && v->last && v->last->number > after) *ret = picture_ref(v->last);
    else if (!e) e = ERR_AGAIN;
    pthread_mutex_unlock(&v->lock);
    return e;
}

/* Waits for the first picture; the engine keeps none until somebody asks. */
static err first_picture(struct http_live *l, struct view *v, struct picture **ret)
{
    int64_t end = clock_ns() + FIRST_PICTURE_MS * MS;
    for (;;) {
        err e = view_picture(l, v, 0, ret);
        if (e != ERR_AGAIN && e != ERR_NOMEM) return e;
        if (clock_ns() > end) return e == ERR_NOMEM ? err_wrap(ERR_BUSY, "no picture") : e;
        if (thread_event_wait(&l->http->stop, WAIT_MS)) return err_set(ERR_AGAIN, "the box is stopping");
    }
}

/* ---- one picture */

static void free_picture(void *arg)
{
    struct picture *p = arg;
    picture_unref(&p);
}

static http_result send_one(struct http_request *r, struct view *v)
{
    struct http_live *l = r->http->live;
    struct picture *p = NULL;
    err e = first_picture(l, v, &p);
    view_leave(l, v);
    if (e) return http_send_err(r, e);
    struct MHD_Response *resp =
        MHD_create_response_from_buffer_with_free_callback_cls(p->size, p->bytes, free_picture, p);
    if (!resp) picture_unref(&p);
    return http_queue(r, 200, resp, "image/jpeg");
}

/* ---- a stream of them */

struct film {
    struct http_live *live;
    struct view *view;
    struct picture *p;
    char head[HEAD_BYTES];
    size_t head_size, at; /* `at` runs over head, picture, "\r\n" */
    int64_t sent_ns;
};

static void take(struct film *f, struct picture *p)
{
    picture_unref(&f->p);
    f->p = p;
    f->head_size = (size_t)snprintf(f->head, sizeof f->head,
                                    "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %zu\r\n\r\n", p->size);
    f->at = 0;
    f->sent_ns = clock_ns();
}

/* The next picture, or the same again after a while, so that a client that has gone is noticed. False: the end. */
static bool next_picture(struct film *f)
{
    for (;;) {
        struct picture *p = NULL;
        int64_t age = clock_ns() - f->sent_ns;
        err e = age < 1000 * MS / VIEW_FPS ? ERR_AGAIN : view_picture(f->live, f->view, f->p->number, &p);
        if (!e) take(f, p);
        else if (e == ERR_NOT_FOUND) return false; /* the camera was removed */
        else if (age > REPEAT_MS * MS) take(f, picture_ref(f->p));
        else if (thread_event_wait(&f->live->http->stop, WAIT_MS)) return false;
        else continue;
        return true;
    }
}

static size_t copy_part(struct film *f, const void *part, size_t size, size_t before, char *buf, size_t max)
{
    if (f->at < before || f->at >= before + size) return 0;
    size_t n = MIN(max, before + size - f->at);
    memcpy(buf, (const char *)part + (f->at - before), n);
    f->at += n;
    return n;
}

static ssize_t read_film(void *arg, uint64_t pos, char *buf, size_t max)
{
    struct film *f = arg;
    (void)pos;
    if (f->at == f->head_size + f->p->size + 2 && !next_picture(f)) return MHD_CONTENT_READER_END_OF_STREAM;
    size_t n = copy_part(f, f->head, f->head_size, 0, buf, max);
    n += copy_part(f, f->p->bytes, f->p->size, f->head_size, buf + n, max - n);
    n += copy_part(f, "\r\n", 2, f->head_size + f->p->size, buf + n, max - n);
    return (ssize_t)n;
}

static void film_free(void *arg)
{
    struct film *f = arg;
    picture_unref(&f->p);
    view_leave(f->live, f->view);
    http_stream_end(f->live->http);
    free(f);
}

static http_result send_film(struct http_request *r, struct view *v)
{
    struct http_live *l = r->http->live;
    struct picture *p = NULL;
    http_result x;
    err e = first_picture(l, v, &p);
    if (e || !http_stream_begin(r, &x)) {
        picture_unref(&p);
        view_leave(l, v);
        return e ? http_send_err(r, e) : x;
    }
    struct film *f = xnew(struct film);
    f->live = l;
    f->view = v;
    take(f, p);
    struct MHD_Response *resp = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 32768, read_film, f, film_free);
    if (!resp) film_free(f);
    return http_queue(r, 200, resp, "multipart/x-mixed-replace; boundary=frame");
}

http_result http_live_get(struct http_request *r)
{
    const char *name = r->path + strlen("/live/"), *dot = strrchr(name, '.'), *w = http_argument(r, "w");
    bool film = dot && !strcmp(dot, ".mjpeg");
    char camera[65];
    int64_t width = 960;
    struct view *v = NULL;
    struct engine_picture probe;
    if (!dot || (!film && strcmp(dot, ".jpg") != 0) || !http_guard_name(name, (size_t)(dot - name)))
        return http_send_error(r, 404, "expected /live/CAMERA.jpg or /live/CAMERA.mjpeg");
    if (w && !http_guard_int(w, 16, 8192, &width)) return http_send_error(r, 400, "w is a width from 16 to 8192");
    snprintf(camera, sizeof camera, "%.*s", (int)(dot - name), name);
    err e = engine_picture(r->http->engine, camera,
                           &probe); /* before a view is made for a name that anybody may invent */
    if (!e) video_frame_unref(&probe.frame);
    if (e == ERR_NOT_FOUND) return http_send_err(r, e);
    e = view_enter(r->http->live, camera, allowed_width(width), &v);
    if (e) return http_send_err(r, e);
    return film ? send_film(r, v) : send_one(r, v);
}

/* ---- */

err http_live_new(struct serve_http *h, struct http_live **ret)
{
    struct http_live *l = xnew(struct http_live);
    l->http = h;
    l->wake.fd = l->stop.fd = -1;
    pthread_mutex_init(&l->lock, NULL);
    pthread_mutex_init(&l->work, NULL);
    l->payer = mem_payer_new(engine_budget(h->engine), "live");
    err e = thread_event_init(&l->wake);
    if (!e) e = thread_event_init(&l->stop);
    if (!e) e = thread_start("brim-live", run_sweeper, l, &l->sweeper);
    l->started = !e;
    if (e) http_live_free(&l);
    else *ret = l;
    return e;
}

/* All connections are gone. */
void http_live_free(struct http_live **lp)
{
    struct http_live *l = *lp;
    if (!l) return;
    if (l->started) {
        thread_event_set(&l->stop);
        thread_event_set(&l->wake);
        pthread_join(l->sweeper, NULL);
    }
    sweep(l, INT64_MAX);
    thread_event_done(&l->wake);
    thread_event_done(&l->stop);
    mem_payer_free(&l->payer);
    pthread_mutex_destroy(&l->work);
    pthread_mutex_destroy(&l->lock);
    free(l);
    *lp = NULL;
}

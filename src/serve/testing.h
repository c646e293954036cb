/* For tests of this room: a box that watches a square jump about, and a client that speaks through a socket.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/testing.h"
#include "engine/engine.h"
#include "rows/rows.h"
#include "serve/http.h"
#include "serve/serve.h"
#include "video/encode.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <cmocka.h>

enum { CLIP_W = 320, CLIP_H = 192, CLIP_FRAMES = 60, CLIP_FPS = 15 };

struct box {
    char dir[64];
    struct engine *engine;
    struct serve *serve;
};

/* A bright square crosses a grey yard for two of four seconds, again and again: it appears and leaves. */
static inline err make_clip(const char *path)
{
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "clip");
    struct video_writer *w;
    uint8_t *rgb = malloc(CLIP_W * CLIP_H * 3);
    err e = video_writer_open(&(struct video_writer_options){.path = path, .w = CLIP_W, .h = CLIP_H, .fps = CLIP_FPS},
                              p, &w);
    for (int i = 0; !e && i < CLIP_FRAMES; i++) {
        memset(rgb, 90, CLIP_W * CLIP_H * 3);
        int x0 = 10 + i * 8, shown = i < CLIP_FRAMES / 2;
        for (int y = 70; shown && y < 120; y++)
            for (int x = x0; x < x0 + 50 && x < CLIP_W; x++) memset(rgb + (y * CLIP_W + x) * 3, 230, 3);
        e = video_writer_add(w, rgb, CLIP_W * 3);
    }
    if (!e) e = video_writer_close(&w);
    free(rgb);
    mem_payer_free(&p);
    mem_budget_free(&b);
    return e;
}

/* `outputs` is more of the site's outputs, `rest` more of the site. 0 or 1, as cmocka wants it. */
static inline int box_open(struct box *b, const char *outputs, const char *rest)
{
    struct site *site = NULL;
    memset(b, 0, sizeof *b);
    snprintf(b->dir, sizeof b->dir, "/tmp/brim-serve-XXXXXX");
    if (!mkdtemp(b->dir)) return 1;
    char *clip = xasprintf("%s/yard.mp4", b->dir), *path = xasprintf("%s/site.yaml", b->dir);
    char *text =
        xasprintf("version: 1\nbudget: 300M\nstore: store\ncameras:\n  yard: {url: yard.mp4, loop: true}\nqueries:\n"
                  "  stir:\n    cameras: all\n    model: motion\n    fps: 15\n"
                  "    zones: {lawn: [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]}\n"
                  "outputs: {http: {listen: \"127.0.0.1:0\"}%s}\n%s",
                  outputs, rest);
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    err e = make_clip(clip);
    if (!e) e = site_load(path, &site);
    if (!e && (e = engine_open(site, &(struct engine_options){0}, &b->engine))) site_free(&site);
    if (!e) e = serve_open(b->engine, &(struct serve_options){.site_path = path}, &b->serve);
    if (!e) e = engine_start(b->engine);
    if (e) fprintf(stderr, "# the box does not open: %s\n", err_text());
    free(clip), free(path), free(text);
    return e != ERR_OK;
}

static inline void box_close(struct box *b)
{
    if (b->engine) engine_stop(b->engine);
    serve_close(&b->serve);
    engine_close(&b->engine);
    char *command = xasprintf("rm -rf %s", b->dir);
    if (system(command)) fprintf(stderr, "# %s stays\n", b->dir);
    free(command);
}

/* ---- a client */

struct wire {
    int fd;
    char *got; /* what came between the last two marks; ends with 0 */
    char *in;  /* what came after the last mark */
    size_t n, cap;
};

static inline struct wire wire_open(const struct box *b)
{
    struct wire w = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)serve_port(b->serve)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(w.fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = TESTING_PATIENCE_S}, sizeof(struct timeval));
    setsockopt(w.fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){.tv_sec = TESTING_PATIENCE_S}, sizeof(struct timeval));
    if (connect(w.fd, (struct sockaddr *)&a, sizeof a)) fail_msg("connect: %s", strerror(errno));
    return w;
}

static inline void wire_say(struct wire *w, const char *s)
{
    for (size_t n = strlen(s), at = 0; at < n;) {
        ssize_t sent = send(w->fd, s + at, n - at, MSG_NOSIGNAL);
        if (sent <= 0) return; /* it was told enough; the answer says so */
        at += (size_t)sent;
    }
}

/* False at the end. */
static inline bool wire_more(struct wire *w)
{
    if (w->cap < w->n + 65537) w->in = xrealloc(w->in, w->cap = 2 * w->n + 131072);
    ssize_t n = recv(w->fd, w->in + w->n, 65536, 0);
    if (n <= 0) return false;
    w->n += (size_t)n;
    w->in[w->n] = 0;
    return true;
}

/* Reads up to and with `mark`; what came before it is in w->got. */
static inline bool wire_until(struct wire *w, const char *mark)
{
    for (;;) {
        char *at = w->n ? memmem(w->in, w->n, mark, strlen(mark)) : NULL;
        if (at) {
            free(w->got);
            w->got = xstrndup(w->in, (size_t)(at - w->in));
            size_t used = (size_t)(at - w->in) + strlen(mark);
            memmove(w->in, w->in + used, w->n -= used);
            w->in[w->n] = 0;
            return true;
        }
        if (!wire_more(w)) return false;
    }
}

static inline char *wire_body(struct wire *w, size_t n)
{
    while (w->n < n)
        if (!wire_more(w)) fail_msg("the body ended early");
    char *bytes = xcalloc(1, n + 1);
    memcpy(bytes, w->in, n);
    memmove(w->in, w->in + n, w->n -= n);
    return bytes;
}

static inline void wire_close(struct wire *w)
{
    close(w->fd);
    free(w->got), free(w->in);
    *w = (struct wire){.fd = -1};
}

struct reply {
    int status; /* 0: no answer */
    char *head, *body;
    size_t body_size;
};

/* The request must ask for "Connection: close". */
static inline struct reply talk(const struct box *b, const char *request)
{
    struct wire w = wire_open(b);
    struct reply r = {0};
    wire_say(&w, request);
    if (wire_until(&w, "\r\n\r\n")) {
        r.head = xstrdup(w.got);
        sscanf(r.head, "HTTP/%*d.%*d %d", &r.status);
    } else {
        r.head = xstrdup("");
    }
    while (wire_more(&w)) continue;
    r.body_size = r.status ? w.n : 0;
    r.body = xcalloc(1, r.body_size + 1);
    if (r.body_size) memcpy(r.body, w.in, r.body_size);
    wire_close(&w);
    return r;
}

static inline struct reply get(const struct box *b, const char *path)
{
    char *request = xasprintf("GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    struct reply r = talk(b, request);
    free(request);
    return r;
}

static inline void reply_done(struct reply *r)
{
    free(r->head), free(r->body);
    *r = (struct reply){0};
}

/* After many clients have gone: their connections end one by one. */
static inline struct reply get_patiently(const struct box *b, const char *path)
{
    struct reply r = get(b, path);
    for (int64_t end = testing_deadline(); r.status != 200 && clock_ns() < end;) {
        reply_done(&r);
        sleep(1);
        r = get(b, path);
    }
    return r;
}

static inline json_t *get_json(const struct box *b, const char *path, int status)
{
    struct reply r = get(b, path);
    json_t *j = json_loads(r.body, 0, NULL);
    if (r.status != status || !j) fail_msg("%s: %d %s", path, r.status, r.body);
    reply_done(&r);
    return j;
}

/* Until so many events are in the database, and the box calls itself ready. */
static inline void box_wait_events(const struct box *b, size_t n)
{
    for (int64_t end = testing_deadline(); clock_ns() < end;) {
        json_t *j = get_json(b, "/api/v1/events?limit=1000", 200);
        size_t have = json_array_size(json_object_get(j, "events"));
        json_decref(j);
        struct reply r = get(b, "/readyz");
        bool ready = r.status == 200;
        reply_done(&r);
        if (have >= n && ready) return;
        usleep(100000);
    }
    fail_msg("no %zu events came", n);
}

static inline void check_jpeg(const struct box *b, const void *bytes, size_t n, int width)
{
    struct mem_budget *budget = mem_budget_new("host", UINT64_MAX);
    char *path = xasprintf("%s/one.jpg", b->dir);
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    struct video_options o = {
        .name = "one", .url = path, .pace = VIDEO_PACE_MAX, .timeout_ms = TESTING_PATIENCE_MS};
    struct video_camera *cam;
    struct video_frame *frame = NULL;
    err e = ERR_AGAIN;
    assert_int_equal(video_camera_open(&o, budget, NULL, NULL, &cam), ERR_OK);
    for (int64_t end = testing_deadline(); e == ERR_AGAIN && clock_ns() < end;) {
        e = video_camera_latest(cam, &frame);
        if (e == ERR_AGAIN) usleep(10000);
    }
    assert_int_equal(e, ERR_OK);
    assert_int_equal(frame->width, width);
    video_frame_unref(&frame);
    video_camera_close(&cam);
    mem_budget_free(&budget);
    free(path);
}

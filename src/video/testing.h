/* Inside the room, for its tests only: clips made on the spot, and waiting for frames.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/testing.h"
#include "video/convert.h"
#include "video/encode.h"

/* Frame i of a clip: grey that says i, and a box that moves. */
static inline int clip_grey(int i)
{
    return 40 + i % 40 * 4;
}

static inline void clip_paint(uint8_t *rgb, int w, int h, int i)
{
    memset(rgb, clip_grey(i), (size_t)w * (size_t)h * 3);
    for (int y = h / 4; y < h / 2; y++)
        memset(rgb + ((size_t)y * (size_t)w + (size_t)(i * 3 % (w / 2))) * 3, 250, 3 * (size_t)(w / 4));
}

static inline err clip_make(const char *path, int w, int h, int frames, double fps, int b_frames, bool mpeg4)
{
    struct mem_budget *b = mem_budget_new("clip", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "clip");
    struct video_writer_options o = {.path = path, .w = w, .h = h, .fps = fps, .quality = 80, .b_frames = b_frames,
                                     .mpeg4 = mpeg4};
    struct video_writer *wr = NULL;
    uint8_t *rgb = malloc((size_t)w * (size_t)h * 3);
    err e = video_writer_open(&o, p, &wr);
    for (int i = 0; i < frames && !e; i++) {
        clip_paint(rgb, w, h, i);
        e = video_writer_add(wr, rgb, 3 * w);
    }
    err x = video_writer_close(&wr);
    free(rgb);
    mem_payer_free(&p);
    mem_budget_free(&b);
    return e ? e : x;
}

/* A JPEG of clip frame i; free() it. */
static inline uint8_t *clip_jpeg(int w, int h, int i, size_t *ret_size)
{
    struct mem_budget *b = mem_budget_new("clip", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "clip");
    struct video_jpeg *j = video_jpeg_new(p, 90);
    uint8_t *rgb = malloc((size_t)w * (size_t)h * 3), *copy = NULL;
    const uint8_t *bytes;
    clip_paint(rgb, w, h, i);
    if (video_jpeg_encode(j, rgb, 3 * w, w, h, &bytes, ret_size) == ERR_OK) {
        copy = malloc(*ret_size);
        memcpy(copy, bytes, *ret_size);
    }
    video_jpeg_free(&j);
    free(rgb);
    mem_payer_free(&p);
    mem_budget_free(&b);
    return copy;
}

static inline void file_write(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f)) abort();
}

static inline uint8_t *file_read(const char *path, size_t *ret)
{
    FILE *f = fopen(path, "rb");
    if (!f) abort();
    fseek(f, 0, SEEK_END);
    *ret = (size_t)ftell(f);
    rewind(f);
    uint8_t *p = malloc(*ret + 1);
    if (fread(p, 1, *ret, f) != *ret) abort();
    fclose(f);
    return p;
}

static inline char *temp_dir(void)
{
    const char *t = getenv("TMPDIR");
    char *d = xasprintf("%s/brim-video-XXXXXX", t ? t : "/tmp");
    if (!mkdtemp(d)) abort();
    return d;
}

static inline void remove_dir(char *d)
{
    char *c = xasprintf("rm -rf '%s'", d);
    if (system(c)) abort();
    free(c);
    free(d);
}

/* Counts wakeups; waits for one. */
struct waker {
    pthread_mutex_t lock; /* guards n */
    pthread_cond_t cond;
    unsigned n;
};
#define WAKER_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}

static inline void waker_wake(void *user)
{
    struct waker *w = user;
    pthread_mutex_lock(&w->lock);
    w->n++;
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

/* The next frame, or ERR_CLOSED, or ERR_TIMEOUT when nothing will come any more. */
static inline err next_frame(struct video_camera *cam, struct waker *w, struct video_frame **ret)
{
    int64_t end = testing_deadline();
    for (;;) {
        err e = video_camera_latest(cam, ret);
        if (e != ERR_AGAIN) return e;
        if (clock_ns() > end) return ERR_TIMEOUT;
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        ts.tv_nsec += 20000000;
        if (ts.tv_nsec >= 1000000000) ts.tv_sec++, ts.tv_nsec -= 1000000000;
        pthread_mutex_lock(&w->lock);
        pthread_cond_timedwait(&w->cond, &w->lock, &ts);
        pthread_mutex_unlock(&w->lock);
    }
}

/* Waits until the camera is in the state; false after a generous time. */
static inline bool await_state(struct video_camera *cam, enum video_state s)
{
    int64_t end = testing_deadline();
    struct video_stats st;
    do {
        video_camera_stats(cam, &st);
        if (st.state == s) return true;
        usleep(5000);
    } while (clock_ns() < end);
    fprintf(stderr, "# waited for %s, but it is %s: %s\n", video_state_name(s), video_state_name(st.state), st.error);
    return false;
}

/* $BRIM_DATA or its default; NULL with a printed reason when absent. free() it. */
static inline char *data_path(const char *rest)
{
    const char *d = getenv("BRIM_DATA"), *s = getenv("BRIM_SOURCE");
    char *p = d ? xasprintf("%s/%s", d, rest) : xasprintf("%s/../shared/data/%s", s ? s : ".", rest);
    if (access(p, R_OK) == 0) return p;
    fprintf(stderr, "# skipped: %s is not there (set BRIM_DATA)\n", p);
    free(p);
    return NULL;
}

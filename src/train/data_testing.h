/* Inside train, for tests: folders of pictures made on the spot. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "train/data.h"
#include "video/encode.h"

struct bench {
    struct mem_budget *budget;
    struct mem_payer *payer;
    char *dir;
};

static inline struct bench bench_begin(void)
{
    const char *t = getenv("TMPDIR");
    struct bench b = {.budget = mem_budget_new("host", UINT64_MAX), .dir = xasprintf("%s/brim-data-XXXXXX", t ? t : "/tmp")};
    b.payer = mem_payer_new(b.budget, "training");
    assert_non_null(mkdtemp(b.dir));
    return b;
}

static inline void bench_end(struct bench *b)
{
    char *c = xasprintf("rm -rf '%s'", b->dir);
    assert_int_equal(system(c), 0);
    free(c);
    free(b->dir);
    assert_int_equal(mem_budget_used(b->budget), 0);
    mem_payer_free(&b->payer);
    mem_budget_free(&b->budget);
}

static inline char *bench_path(const struct bench *b, const char *name)
{
    return xasprintf("%s/%s", b->dir, name);
}

static inline void bench_folder(const struct bench *b, const char *name)
{
    char *p = bench_path(b, name);
    assert_int_equal(mkdir(p, 0700), 0);
    free(p);
}

static inline void bench_write(const struct bench *b, const char *name, const void *bytes, size_t n)
{
    char *p = bench_path(b, name);
    FILE *f = fopen(p, "wb");
    assert_non_null(f);
    if (n) assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    free(p);
}

static inline void bench_text(const struct bench *b, const char *name, const char *text)
{
    bench_write(b, name, text, strlen(text));
}

/* A dark picture with a bright rectangle of a colour: 0 red, 1 green, 2 blue. */
static inline void bench_picture(const struct bench *b, const char *name, int w, int h, int x, int y, int bw, int bh, int colour)
{
    uint8_t *rgb = malloc((size_t)w * (size_t)h * 3);
    const uint8_t *bytes;
    size_t n;
    for (int i = 0; i < h; i++)
        for (int k = 0; k < w; k++)
            for (int c = 0; c < 3; c++)
                rgb[((size_t)i * (size_t)w + (size_t)k) * 3 + (size_t)c] = k >= x && k < x + bw && i >= y && i < y + bh && c == colour ? 230 : 30;
    struct video_jpeg *j = video_jpeg_new(b->payer, 100);
    assert_int_equal(video_jpeg_encode(j, rgb, 3 * w, w, h, &bytes, &n), ERR_OK);
    bench_write(b, name, bytes, n);
    video_jpeg_free(&j);
    free(rgb);
}

/* Inside train/data: from a position in the order to a row of a batch. One data_maker per thread. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "train/data_set.h"
#include "video/convert.h"
#include "video/still.h"

/* ---- numbers from a key: data_draw.c */

struct data_random {
    uint64_t state;
};
struct data_random data_random_of(uint64_t seed, int64_t epoch, int64_t position, uint64_t purpose);
uint64_t data_bits(struct data_random *r);
double data_uniform(struct data_random *r, double low, double high);
bool data_chance(struct data_random *r, double chance);
int64_t data_below(struct data_random *r, int64_t n);
/* The sample at a position of an epoch: a permutation of 0 ... n - 1 that needs no table. */
int64_t data_order(uint64_t seed, int64_t epoch, int64_t position, int64_t n);

/* ---- pixels on a canvas of R G B bytes: data_pixels.c */

struct data_canvas {
    uint8_t *rgb; /* [h][w][3] */
    int w, h;
};
struct data_view {
    double sx, sy, ox, oy; /* canvas = stored pixel * s + o */
};
struct data_rect {
    int x0, y0, x1, y1; /* pixels of the canvas; x1, y1 are outside */
};
void data_fill(const struct data_canvas *c, uint8_t value);
/* The frame, seen through the view, onto the part of the canvas inside `clip`. */
err data_place(struct video_conv *conv, const struct video_frame *f, const struct data_view *v, const struct data_rect *clip, const struct data_canvas *c);
void data_flip(const struct data_canvas *c);
/* Gains around 1, hue in turns; in this order: brightness, contrast (around the mean grey), saturation, hue. */
void data_colour(const struct data_canvas *c, double brightness, double contrast, double saturation, double hue);
void data_blend(const struct data_canvas *c, const struct data_canvas *other, double weight);
/* The canvas as it goes into a batch. */
void data_store(const struct data_canvas *c, const struct train_data_options *o, void *dst);
size_t data_image_bytes(const struct train_data_options *o);
/* A window of a text: to[0 .. length]. */
err data_tokens(const struct train_set *s, int64_t sample, int64_t *to);

/* ---- rows: data_sample.c */

struct data_row {
    void *image;
    float *target, *attributes; /* where the set has them */
    int64_t *sample;
    int32_t *label, *label2, *n_boxes;
    float *mix, *geometry;
    struct train_box *boxes; /* [max_boxes] */
};
struct data_counts {
    _Atomic int64_t corrupt, cut, dropped;
    pthread_mutex_t lock; /* guards problem */
    char problem[256];
};
/* Samples by class, for batches of some of each: members of group g are members[first[g] .. first[g + 1]), places in the order that is asked for. */
struct data_groups {
    int64_t n, *first, *members;
};
err data_groups_make(const struct train_set *set, const struct train_data_options *o, struct mem_payer *payer, struct data_groups *ret);
void data_groups_done(struct mem_payer *payer, struct data_groups *g, int64_t samples);
/* Which place of the order stands at a position of an epoch; `again`: another of the same group, because that one is damaged. */
int64_t data_groups_place(const struct data_groups *g, const struct train_data_options *o, int64_t epoch, int64_t position, struct data_random *again);

struct data_maker {
    const struct train_set *set;
    const struct train_data_options *o;
    struct data_counts *counts;
    const struct data_groups *groups; /* NULL: none */
    struct video_still *still;
    struct video_conv *conv;
    struct data_canvas canvas, other, target; /* MEM_TRAINING of the set's payer */
    uint8_t *pixels;                  /* of one record, twice: as stored, and interleaved */
    size_t pixel_bytes;
    struct mem_payer *payer;
};
err data_maker_init(struct data_maker *m, const struct train_set *set, const struct train_data_options *o, struct mem_payer *payer, struct data_counts *counts);
void data_maker_done(struct data_maker *m);
/* Row number `position` of an epoch (training), or sample number `position` of the list (evaluation). */
err data_make(struct data_maker *m, int64_t epoch, int64_t position, const struct data_row *row);

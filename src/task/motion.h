/* Motion on a thumbnail: a cheap gate before a dear model, and a detector that needs no model at all.
 *
 * Each pixel of a small grey picture (80 x 45, say) keeps a running mean and a running deviation; it moves
 * when it differs from the mean by more than `floor` + `k` deviations. The mean adapts with the time constant
 * `adapt_seconds`, so what stays becomes background. First the median difference of the whole picture is
 * taken out: a lamp that is switched on changes all pixels alike and is not motion; and when more than
 * `global_share` still moves, the picture is taken as a new background. Moving pixels, grown by one, are
 * joined to boxes (8-connected components). SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"
#include "task/box.h"

enum { TASK_MAX_MOTION_BOXES = 64, TASK_MAX_MOTION_SIDE = 640 };

struct task_motion_options {
    float floor;          /* grey levels that are never motion (10) */
    float k;              /* deviations on top (4) */
    double adapt_seconds; /* time constant of the background (10) */
    double hold_seconds;  /* the gate stays open this long after the last motion (1) */
    int min_pixels;       /* smaller components are noise (4) */
    float global_share;   /* more than this share of pixels at once: light, not motion (0.7) */
    int grow;             /* moving pixels are grown by this many before they are joined, 0 to 8 (1) */
};
struct task_motion_options task_motion_defaults(void);

struct task_motion_result {
    bool open;   /* the gate: motion now or within hold_seconds; also true for the first picture */
    bool global; /* a change of light (or of the scene) was swallowed */
    float share; /* of pixels that move */
    int count;   /* boxes, largest first; class 0, score = share of moving pixels in the box, at least 0.5 */
    const struct task_detection *boxes; /* in thumbnail pixels; valid until the next update */
};

struct task_motion;
/* width, height: 8 to TASK_MAX_MOTION_SIDE. NULL options: the defaults. ERR_USAGE, ERR_NOMEM. Memory:
 * MEM_OTHER, about 12 bytes per pixel. */
err task_motion_new(struct mem_payer *payer, int width, int height, const struct task_motion_options *o,
                    struct task_motion **ret);
void task_motion_free(struct task_motion **m);
uint64_t task_motion_bytes(int width, int height);
/* grey: height rows of `stride` bytes. `pts` in seconds; a step back or of more than a minute starts over. */
void task_motion_update(struct task_motion *m, double pts, const uint8_t *grey, size_t stride,
                        struct task_motion_result *ret);
/* Updates seen, and those with the gate closed: the runs that were saved. */
void task_motion_counts(const struct task_motion *m, uint64_t *ret_seen, uint64_t *ret_closed);

/* Tracks: the same object in frame after frame, with a number that is never used again.
 *
 * ByteTrack's idea (Zhang et al., ECCV 2022): first match the confident detections, then give the doubtful
 * ones to the tracks that are left, because a low score is often the same person half hidden. A Kalman filter
 * with constant velocity on (cx, cy, w, h) predicts where each track is at the frame's own time, so skipped
 * frames cost accuracy but not identity. The matching is exact (assign.h). Different classes never match.
 * Where the caller says what detections look like, that counts beside the overlap: two that pass each other
 * keep their numbers, and a lost track is found again also a little beside where it should be.
 *
 *     tentative --confirmed by `confirm_hits` matches--> confirmed --no match--> lost --match--> confirmed
 *     tentative --no match--> gone                       lost --longer than `lost_seconds`--> gone
 *
 * Memory is fixed at birth: max_tracks tracks, max_detections detections per update, the matrix between them.
 * One thread at a time. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"
#include "task/box.h"

struct task_tracker_options {
    float high;          /* scores from here on are matched first and may start a track (0.5) */
    float low;           /* scores below are ignored (0.1) */
    float match_iou;     /* least overlap with a confident detection (0.2) */
    float match_iou_low; /* least overlap with a doubtful one (0.3) */
    int confirm_hits;    /* matches before a track counts; 1: at once (3) */
    double lost_seconds; /* how long a track may be invisible (2.0) */
    int max_tracks;      /* 128 */
    int max_detections;  /* 256; of more, the best are taken */
    int64_t first_id;    /* 1: a restarted camera goes on from its last id */
};
/* The defaults in brackets above. */
struct task_tracker_options task_tracker_defaults(void);

enum task_track_state { TASK_TENTATIVE, TASK_CONFIRMED, TASK_LOST };

struct task_track {
    int64_t id; /* 0 while tentative: ids are given at confirmation, rise, and are never reused */
    int class_id;
    enum task_track_state state;
    struct task_box box;        /* the filter's answer at the last update */
    float vx, vy;               /* of the centre, pixels per second */
    float score;                /* of the last detection */
    double first_pts, last_pts; /* seconds: first and last time it was seen */
    int hits;                   /* detections so far */
    int detection;              /* index into this update's detections, -1 if it was not seen */
};

/* A few numbers that are near for the same object and mostly not for another (video_look): brightness and two
 * colours, in turns. */
enum { TASK_LOOK = 18 };
struct task_look {
    uint8_t at[TASK_LOOK];
};

struct task_tracker;
/* NULL options: the defaults. ERR_USAGE for options that make no sense, ERR_NOMEM. Memory: MEM_OTHER of
 * `payer`. */
err task_tracker_new(struct mem_payer *payer, const struct task_tracker_options *o,
                     struct task_tracker **ret);
void task_tracker_free(struct task_tracker **t);
uint64_t task_tracker_bytes(const struct task_tracker_options *o);
/* `pts` in seconds. A step back, or a step forward of more than lost_seconds, ends all tracks; ids go on
 * rising. Detections that are not finite are ignored. Never fails for what is in them; O((tracks +
 * detections)^3) at worst. looks: of the same n detections, or NULL: overlaps alone. */
void task_tracker_update(struct task_tracker *t, double pts, const struct task_detection *d, const struct task_look *looks, int n);
/* All tracks, tentative and lost ones included, in order of age; valid until the next update. Returns how
 * many. */
int task_tracker_tracks(const struct task_tracker *t, const struct task_track **ret);
/* The next id that would be given: store it to go on after a restart. */
int64_t task_tracker_next_id(const struct task_tracker *t);
/* Detections ignored because max_detections or max_tracks was reached, since birth. */
uint64_t task_tracker_dropped(const struct task_tracker *t);

/* Zones, lines and events: what a track did that somebody wanted to know.
 *
 * A track stands where its anchor is: the middle of its box's lower edge (feet, wheels) or the box's centre.
 * Per track there is one small state machine per rule. Jitter does not flap, because a side only counts when
 * the anchor is clearly on it: further from the border than `margin` times the box's height, and for
 * `settle_seconds`. Between the two nothing changes.
 *
 *     unknown --clearly inside--> inside --clearly outside--> outside --clearly inside--> inside ...
 *                  ENTERED            |         EXITED                     ENTERED
 *                                     +--stay_seconds--> STAYED (once per visit)
 *
 * Only confirmed tracks make events; APPEARED comes first and LEFT last (when the tracker gives up, with the
 * box where it was last seen). Coordinates: the same unit as the tracks' boxes. Memory is fixed at birth.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"
#include "task/tracker.h"

enum { TASK_MAX_ZONES = 32, TASK_MAX_LINES = 32, TASK_MAX_ZONE_POINTS = 64, TASK_MAX_EVENTS = 1024 };

struct task_zone {
    int point_count; /* 3 to TASK_MAX_ZONE_POINTS; the polygon closes itself, may be concave, even-odd where
                        it crosses itself */
    struct task_point points[TASK_MAX_ZONE_POINTS];
    double stay_seconds; /* > 0: also report a longer stay */
};
struct task_line {
    struct task_point a, b;
};
struct task_rules {
    int zone_count, line_count;
    const struct task_zone *zones; /* copied */
    const struct task_line *lines; /* copied */
    bool anchor_centre;            /* false: the middle of the lower edge */
    float margin;                  /* of the box's height (0.05) */
    double settle_seconds;         /* (0.2) */
    int max_tracks;                /* at least the tracker's (128) */
};
struct task_rules task_rules_defaults(void);

/* clang-format off */
#define TASK_EVENTS(X)                                                                               \
    X(TASK_APPEARED, "appeared")                                                                     \
    X(TASK_LEFT, "left")                                                                             \
    X(TASK_ENTERED, "entered")                                                                       \
    X(TASK_EXITED, "exited")                                                                         \
    X(TASK_CROSSED, "crossed")                                                                       \
    X(TASK_STAYED, "stayed")
/* clang-format on */
enum task_event_kind {
#define X(id, name) id,
    TASK_EVENTS(X)
#undef X
        TASK_EVENT_KIND_COUNT
};
const char *task_event_name(enum task_event_kind kind);

struct task_event {
    enum task_event_kind kind;
    double pts;
    int64_t track;
    int class_id;
    int rule;       /* index of the zone or line, -1 otherwise */
    int direction;  /* crossed: +1 from the left of a->b to its right as seen on the screen (y down), -1 back
                     */
    double seconds; /* exited, stayed: in the zone; left: since it appeared */
    float score;
    struct task_box box;
};

/* Even-odd rule; points on the border count as inside. False for anything that is not finite. */
bool task_zone_contains(const struct task_zone *z, struct task_point p);
/* Distance to the polygon's border. */
float task_zone_distance(const struct task_zone *z, struct task_point p);
/* Do the closed segments p-q and a-b touch? */
bool task_segments_touch(struct task_point p, struct task_point q, struct task_point a, struct task_point b);
struct task_point task_anchor(const struct task_box *b, bool centre);

struct task_watch;
/* One per camera and query. ERR_USAGE for rules that make no sense (which one, and why), ERR_NOMEM. Memory:
 * MEM_OTHER. */
err task_watch_new(struct mem_payer *payer, const struct task_rules *r, struct task_watch **ret);
void task_watch_free(struct task_watch **w);
/* Call once after each task_tracker_update, with its tracks. *ret_events is valid until the next call;
 * returns how many. More than TASK_MAX_EVENTS in one step are counted in task_watch_dropped and lost. */
int task_watch_update(struct task_watch *w, double pts, const struct task_track *tracks, int n,
                      const struct task_event **ret_events);
uint64_t task_watch_dropped(const struct task_watch *w);
/* How many confirmed tracks are in zone i now. */
int task_watch_inside(const struct task_watch *w, int zone);

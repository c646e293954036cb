/* The tracker: ByteTrack's association (Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every
 * Detection Box", ECCV 2022, algorithm 1) over a Kalman filter that knows the time.
 *
 * The usual eight-dimensional filter has only diagonal noise, so it falls apart, exactly, into four filters
 * of two numbers (position, speed) for cx, cy, w and h: no matrices. Speeds are per second and the process
 * noise grows with dt, so a camera that delivers 5, 12 or 30 frames a second, or skips some, needs no other
 * settings; noise is relative to the box's size, as in SORT. The figures were chosen on
 * the CAMPUS boxes with 10 % and 30 % misses and 5 % and 10 % jitter, one seed, at 30, 10 and 5 frames a second
 * (`brim eval tracks --degrade`). With process noise more than twice as large and a measured noise of 1/20, as first
 * tried, speeds followed the jitter: mean IDF1 at 30 % misses and 30 frames was 0.54 instead of 0.75.
 *
 * With looks, a pair costs 1 - IoU and up to LOOKS for what is unlike, where the mean of a track's looks moves
 * by LEARN per frame, and brightness (shadows) counts half. Then half the overlap will do, and a lost track is
 * matched with its box and the detection's grown by GROWN where they are alike. Chosen on what the demo's
 * detector finds in three rendered sites at 5 frames a second: mean IDF1 over 20 s 0.685 -> 0.739 (live, 12 s: docs/results.md).
 *
 * One update: predict all; match confirmed and lost tracks with confident detections; match confirmed tracks
 * that are left with doubtful ones; match tentative tracks with what is left of the confident; start new
 * tracks from the rest. Lost tracks are not offered doubtful detections: that mostly revives ghosts. A lost
 * track that lies on a confirmed one is the same object, found anew, and the younger goes. Invariant:
 * tracks[0..count) are alive, in order of birth; ids are given once, rising.
 * SPDX-License-Identifier: Apache-2.0 */
#include "task/tracker.h"

#include "task/assign.h"

#include <math.h>
#include <string.h>

enum { AXES = 4 }; /* cx, cy, w, h */

/* Noise, in sizes (mean of w and h): of a measurement; of a first guess of position and speed; of what a
 * second of unknown movement adds to position and to speed. Sides change far more slowly than the centre. */
static const double MEASURED = 0.08, DUPLICATE_IOU = 0.85, FURTHEST = 1e6;
static const float LOOKS = 4, UNLIKE = 12 /* levels of 255, in the mean: as unlike as can be */, LEARN = 0.1f, ALIKE = 0.6f, GROWN = 0.3f;
static const double FIRST_SPEED[AXES] = {1.5, 1.5, 0.1, 0.1}, DRIFT[AXES] = {0.15, 0.15, 0.05, 0.05},
                    JERK[AXES] = {0.4, 0.4, 0.05, 0.05};

struct axis {
    double at, speed;     /* the state */
    double paa, pas, pss; /* its covariance */
};

struct entry {
    struct axis axis[AXES];
    bool looked;
    float look[TASK_LOOK]; /* if looked */
};

struct task_tracker {
    struct mem_payer *payer;
    size_t bytes;
    struct task_tracker_options o;
    double pts;
    bool started;
    int64_t next_id;
    uint64_t dropped;
    int count, det_count;
    struct task_track *tracks;   /* max_tracks */
    struct entry *entries;       /* beside tracks */
    struct task_detection *dets; /* max_detections: those worth a look */
    const struct task_look *looks; /* of the caller's array; NULL: none. During an update */
    int *det_index, *det_track;  /* their index in the caller's array; the track they went to or -1 */
    int *rows, *cols, *match;    /* what is being matched now */
    float *cost;
    void *scratch;
};

struct task_tracker_options task_tracker_defaults(void)
{
    return (struct task_tracker_options){.high = 0.5f,
                                         .low = 0.1f,
                                         .match_iou = 0.2f,
                                         .match_iou_low = 0.3f,
                                         .confirm_hits = 3,
                                         .lost_seconds = 2.0,
                                         .max_tracks = 128,
                                         .max_detections = 256,
                                         .first_id = 1};
}

/* Lays the arrays out behind the struct; with t == NULL it only counts. */
static size_t lay_out(struct task_tracker *t, const struct task_tracker_options *o)
{
    size_t n = (size_t)o->max_tracks, m = (size_t)o->max_detections, at = sizeof(struct task_tracker);
    char *base = (char *)t;
#define PLACE(field, size)                                                                                   \
    do {                                                                                                     \
        at = (at + 15) / 16 * 16;                                                                            \
        if (t) t->field = (void *)(base + at);                                                               \
        at += (size);                                                                                        \
    } while (0)
    PLACE(tracks, n * sizeof(struct task_track));
    PLACE(entries, n * sizeof(struct entry));
    PLACE(dets, m * sizeof(struct task_detection));
    PLACE(det_index, m * sizeof(int));
    PLACE(det_track, m * sizeof(int));
    PLACE(rows, n * sizeof(int));
    PLACE(cols, m * sizeof(int));
    PLACE(match, n * sizeof(int));
    PLACE(cost, n * m * sizeof(float));
    PLACE(scratch, task_assign_bytes(o->max_tracks, o->max_detections));
#undef PLACE
    return at;
}

uint64_t task_tracker_bytes(const struct task_tracker_options *o)
{
    struct task_tracker_options d = task_tracker_defaults();
    return lay_out(NULL, o ? o : &d);
}

static err check_options(const struct task_tracker_options *o)
{
    if (!(o->low >= 0 && o->low <= o->high && o->high <= 1))
        return err_set(ERR_USAGE, "tracker: needs 0 <= low <= high <= 1, not low %g and high %g", o->low,
                       o->high);
    if (!(o->match_iou > 0 && o->match_iou <= 1 && o->match_iou_low > 0 && o->match_iou_low <= 1))
        return err_set(ERR_USAGE,
                       "tracker: match_iou (%g) and match_iou_low (%g) must be above 0 and at most 1",
                       o->match_iou, o->match_iou_low);
    if (!(o->lost_seconds >= 0 && o->lost_seconds <= 3600))
        return err_set(ERR_USAGE, "tracker: lost_seconds must be 0 to 3600, not %g", o->lost_seconds);
    if (o->max_tracks < 1 || o->max_tracks > 4096 || o->max_detections < 1 || o->max_detections > 4096)
        return err_set(ERR_USAGE, "tracker: max_tracks (%d) and max_detections (%d) must be 1 to 4096",
                       o->max_tracks, o->max_detections);
    if (o->confirm_hits < 1 || o->first_id < 1)
        return err_set(ERR_USAGE, "tracker: confirm_hits (%d) and first_id (%lld) must be at least 1",
                       o->confirm_hits, (long long)o->first_id);
    return ERR_OK;
}

err task_tracker_new(struct mem_payer *payer, const struct task_tracker_options *o, struct task_tracker **ret)
{
    struct task_tracker_options d = task_tracker_defaults();
    if (!o) o = &d;
    err e = check_options(o);
    if (e) return e;
    size_t bytes = lay_out(NULL, o);
    struct task_tracker *t;
    e = mem_alloc(payer, MEM_OTHER, bytes, (void **)&t);
    if (e) return e;
    lay_out(t, o);
    t->payer = payer;
    t->bytes = bytes;
    t->o = *o;
    t->next_id = o->first_id;
    *ret = t;
    return ERR_OK;
}

void task_tracker_free(struct task_tracker **t)
{
    if (!*t) return;
    mem_free((*t)->payer, MEM_OTHER, *t, (*t)->bytes);
    *t = NULL;
}

/* --- the filter -------------------------------------------------------------------------------------------
 */

static void box_to_axes(const struct task_box *b, double z[AXES])
{
    z[0] = ((double)b->x1 + b->x2) / 2;
    z[1] = ((double)b->y1 + b->y2) / 2;
    z[2] = (double)b->x2 - b->x1;
    z[3] = (double)b->y2 - b->y1;
}

static double size_of(double w, double h)
{
    return fmax((w + h) / 2, 1);
}

/* The filter's box; sides never below one pixel, so that a track can always be found again. */
static struct task_box axes_to_box(const struct axis a[AXES])
{
    double w = fmax(a[2].at, 1) / 2, h = fmax(a[3].at, 1) / 2;
    return (struct task_box){(float)(a[0].at - w), (float)(a[1].at - h), (float)(a[0].at + w),
                             (float)(a[1].at + h)};
}

static void filter_init(struct entry *e, const struct task_box *b)
{
    double z[AXES];
    box_to_axes(b, z);
    double size = size_of(z[2], z[3]), position = 2 * MEASURED * size;
    for (int i = 0; i < AXES; i++) {
        double speed = FIRST_SPEED[i] * size;
        e->axis[i] = (struct axis){.at = z[i], .paa = position * position, .pss = speed * speed};
    }
}

static void filter_predict(struct entry *e, double dt)
{
    double size = size_of(e->axis[2].at, e->axis[3].at);
    for (int i = 0; i < AXES; i++) {
        struct axis *a = &e->axis[i];
        double drift = DRIFT[i] * size, jerk = JERK[i] * size, q = jerk * jerk;
        a->at = fmin(fmax(a->at + a->speed * dt, -FURTHEST), FURTHEST);
        a->paa += dt * (2 * a->pas + dt * a->pss) + drift * drift * dt + q * dt * dt * dt / 3;
        a->pas += dt * a->pss + q * dt * dt / 2;
        a->pss += q * dt;
    }
}

static void filter_correct(struct entry *e, const struct task_box *b)
{
    double z[AXES];
    box_to_axes(b, z);
    double noise = MEASURED * size_of(z[2], z[3]);
    for (int i = 0; i < AXES; i++) {
        struct axis *a = &e->axis[i];
        double s = a->paa + noise * noise, ka = a->paa / s, ks = a->pas / s, y = z[i] - a->at;
        a->at += ka * y;
        a->speed += ks * y;
        a->pss -= ks * a->pas;
        a->pas *= 1 - ka;
        a->paa *= 1 - ka;
    }
}

/* --- tracks -----------------------------------------------------------------------------------------------
 */

static void remove_track(struct task_tracker *t, int i)
{
    t->count--;
    memmove(&t->tracks[i], &t->tracks[i + 1], (size_t)(t->count - i) * sizeof *t->tracks);
    memmove(&t->entries[i], &t->entries[i + 1], (size_t)(t->count - i) * sizeof *t->entries);
}

static void show_filter(struct task_track *k, const struct entry *e)
{
    k->box = axes_to_box(e->axis);
    k->vx = (float)e->axis[0].speed;
    k->vy = (float)e->axis[1].speed;
}

static void confirm_if_due(struct task_tracker *t, struct task_track *k)
{
    if (k->state == TASK_TENTATIVE && k->hits < t->o.confirm_hits) return;
    k->state = TASK_CONFIRMED;
    if (!k->id) k->id = t->next_id++;
}

/* --- looks */

static void learn_look(struct task_tracker *t, struct entry *e, int det)
{
    if (!t->looks) return;
    const uint8_t *now = t->looks[t->det_index[det]].at;
    for (int i = 0; i < TASK_LOOK; i++) e->look[i] = e->looked ? e->look[i] + LEARN * ((float)now[i] - e->look[i]) : (float)now[i];
    e->looked = true;
}

/* 0: the same, 1: nothing in common. */
static float unlike(const struct task_tracker *t, const struct entry *e, int det)
{
    const uint8_t *now = t->looks[t->det_index[det]].at;
    float sum = 0;
    for (int i = 0; i < TASK_LOOK; i++) sum += fabsf((float)now[i] - e->look[i]) * (i % 3 ? 1 : 0.5f);
    return fminf(sum / TASK_LOOK / UNLIKE, 1);
}

static void see(struct task_tracker *t, int track, int det)
{
    struct task_track *k = &t->tracks[track];
    const struct task_detection *d = &t->dets[det];
    filter_correct(&t->entries[track], &d->box);
    learn_look(t, &t->entries[track], det);
    show_filter(k, &t->entries[track]);
    k->score = d->score;
    k->last_pts = t->pts;
    k->hits++;
    k->detection = t->det_index[det];
    t->det_track[det] = track;
    confirm_if_due(t, k);
}

/* Room for one more: a full house gives up the track that has been lost longest. */
static bool make_room(struct task_tracker *t)
{
    if (t->count < t->o.max_tracks) return true;
    int oldest = -1;
    for (int i = 0; i < t->count; i++)
        if (t->tracks[i].state == TASK_LOST &&
            (oldest < 0 || t->tracks[i].last_pts < t->tracks[oldest].last_pts))
            oldest = i;
    if (oldest < 0) return false;
    remove_track(t, oldest);
    return true;
}

static void begin_track(struct task_tracker *t, int det)
{
    const struct task_detection *d = &t->dets[det];
    if (!make_room(t)) {
        t->dropped++;
        return;
    }
    int i = t->count++;
    t->tracks[i] = (struct task_track){.class_id = d->class_id,
                                       .state = TASK_TENTATIVE,
                                       .score = d->score,
                                       .hits = 1,
                                       .first_pts = t->pts,
                                       .last_pts = t->pts,
                                       .detection = t->det_index[det]};
    t->entries[i].looked = false;
    filter_init(&t->entries[i], &d->box);
    learn_look(t, &t->entries[i], det);
    show_filter(&t->tracks[i], &t->entries[i]);
    confirm_if_due(t, &t->tracks[i]);
}

/* --- one update -------------------------------------------------------------------------------------------
 */

static bool usable(const struct task_detection *d, float low)
{
    const struct task_box *b = &d->box;
    return isfinite(d->score) && d->score >= low && task_box_valid(b) && b->x1 >= -FURTHEST &&
           b->y1 >= -FURTHEST && b->x2 <= FURTHEST && b->y2 <= FURTHEST;
}

/* Copies the detections worth a look; of too many, the worst go. */
static void take_detections(struct task_tracker *t, const struct task_detection *d, int n)
{
    t->det_count = 0;
    for (int i = 0; i < n; i++) {
        if (!usable(&d[i], t->o.low)) continue;
        int at = t->det_count;
        if (at == t->o.max_detections) {
            t->dropped++;
            at = 0;
            for (int k = 1; k < t->det_count; k++)
                if (t->dets[k].score < t->dets[at].score) at = k;
            if (d[i].score <= t->dets[at].score) continue;
        } else {
            t->det_count++;
        }
        t->dets[at] = d[i];
        t->det_index[at] = i;
        t->det_track[at] = -1;
    }
}

static struct task_box grown(struct task_box b)
{
    float w = GROWN * (b.x2 - b.x1), h = GROWN * (b.y2 - b.y1);
    return (struct task_box){b.x1 - w, b.y1 - h, b.x2 + w, b.y2 + h};
}

/* Of a pair; least: the overlap that it takes. `familiar`: what looks alike may overlap less. */
static float cost_of(const struct task_tracker *t, int track, int det, float least, bool familiar)
{
    const struct task_track *k = &t->tracks[track];
    const struct task_detection *d = &t->dets[det];
    const struct entry *e = &t->entries[track];
    if (k->class_id != d->class_id) return TASK_NO_PAIR;
    if (!t->looks || !e->looked) {
        float iou = task_box_iou(&k->box, &d->box);
        return iou >= least ? 1 - iou : TASK_NO_PAIR;
    }
    bool lost = k->state == TASK_LOST;
    struct task_box a = lost ? grown(k->box) : k->box, b = lost ? grown(d->box) : d->box;
    float iou = task_box_iou(&a, &b), other = unlike(t, e, det);
    if (familiar) least *= lost ? 0.1f : 0.5f;
    return iou >= least && (!lost || other <= ALIKE) ? 1 - iou + LOOKS * other : TASK_NO_PAIR;
}

/* Matches tracks (whose state is in the mask and that were not seen yet) with detections of scores [from,
 * to). */
static void match_round(struct task_tracker *t, unsigned states, float from, float to, float least_iou, bool familiar)
{
    int rows = 0, cols = 0;
    for (int i = 0; i < t->count; i++)
        if (((states >> t->tracks[i].state) & 1) && t->tracks[i].detection < 0) t->rows[rows++] = i;
    for (int j = 0; j < t->det_count; j++)
        if (t->det_track[j] < 0 && t->dets[j].score >= from && t->dets[j].score < to) t->cols[cols++] = j;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) t->cost[(size_t)i * (size_t)cols + (size_t)j] = cost_of(t, t->rows[i], t->cols[j], least_iou, familiar);
    task_assign(t->cost, rows, cols, t->scratch, t->match);
    for (int i = 0; i < rows; i++)
        if (t->match[i] >= 0) see(t, t->rows[i], t->cols[t->match[i]]);
}

static void let_go(struct task_tracker *t)
{
    for (int i = t->count - 1; i >= 0; i--) {
        struct task_track *k = &t->tracks[i];
        if (k->detection >= 0) continue;
        if (k->state == TASK_TENTATIVE)
            remove_track(t, i);
        else
            k->state = TASK_LOST;
    }
}

/* A lost track on top of a confirmed one is the same object: the younger goes. */
static void drop_duplicates(struct task_tracker *t)
{
    for (int i = t->count - 1; i >= 0; i--) {
        for (int j = 0; j < i; j++) {
            const struct task_track *a = &t->tracks[j], *b = &t->tracks[i];
            bool pair = (a->state == TASK_LOST) != (b->state == TASK_LOST) && a->state != TASK_TENTATIVE &&
                        b->state != TASK_TENTATIVE && a->class_id == b->class_id;
            if (!pair || task_box_iou(&a->box, &b->box) <= DUPLICATE_IOU) continue;
            if (a->state == TASK_LOST) { /* the older identity lives on in the younger's place */
                t->tracks[i].id = a->id;
                t->tracks[i].first_pts = a->first_pts;
                t->tracks[i].hits += a->hits;
                struct task_track merged = t->tracks[i];
                t->entries[j] = t->entries[i];
                t->tracks[j] = merged;
            }
            remove_track(t, i);
            break;
        }
    }
}

void task_tracker_update(struct task_tracker *t, double pts, const struct task_detection *d, const struct task_look *looks, int n)
{
    t->looks = looks;
    double dt = t->started && isfinite(pts) ? pts - t->pts : 0;
    if (isfinite(pts)) t->pts = pts;
    if (dt < 0 || dt > t->o.lost_seconds) t->count = 0;
    t->started = t->started || isfinite(pts);
    for (int i = t->count - 1; i >= 0; i--)
        if (t->tracks[i].state == TASK_LOST && t->pts - t->tracks[i].last_pts > t->o.lost_seconds)
            remove_track(t, i);
    for (int i = 0; i < t->count; i++) {
        filter_predict(&t->entries[i], dt);
        show_filter(&t->tracks[i], &t->entries[i]);
        t->tracks[i].detection = -1;
    }
    take_detections(t, d, n);
    match_round(t, 1u << TASK_CONFIRMED | 1u << TASK_LOST, t->o.high, INFINITY, t->o.match_iou, true);
    match_round(t, 1u << TASK_CONFIRMED, t->o.low, t->o.high, t->o.match_iou_low, false);
    match_round(t, 1u << TASK_TENTATIVE, t->o.high, INFINITY, t->o.match_iou, false);
    let_go(t);
    for (int j = 0; j < t->det_count; j++)
        if (t->det_track[j] < 0 && t->dets[j].score >= t->o.high) begin_track(t, j);
    drop_duplicates(t);
}

int task_tracker_tracks(const struct task_tracker *t, const struct task_track **ret)
{
    *ret = t->tracks;
    return t->count;
}

int64_t task_tracker_next_id(const struct task_tracker *t)
{
    return t->next_id;
}

uint64_t task_tracker_dropped(const struct task_tracker *t)
{
    return t->dropped;
}

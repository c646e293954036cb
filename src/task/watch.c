/* Events: one small state machine per track and rule.
 *
 * A zone or line has two sides. `side` is the one that counts, `next` the one on which the anchor has clearly
 * been since `next_since`; when it has been there for settle_seconds, side becomes next, and that is the only
 * place where an event about a border is made. An anchor within the margin of the border says nothing: next
 * is forgotten only when the anchor is clearly back. Near the border of a zone that is thinner than the
 * margin nothing would ever be clear, so the margin is also bounded by half of area / perimeter, which is
 * less than the inscribed circle's radius for any convex zone.
 *
 * Positions are judged only in updates that saw the track: the filter's guesses about a hidden person must
 * not open doors. Invariant: slots with id != 0 are the confirmed tracks of the last update; each got one
 * APPEARED, and gets one LEFT. SPDX-License-Identifier: Apache-2.0 */
#include "task/zone.h"

#include <math.h>
#include <string.h>

enum side { UNKNOWN, INSIDE, OUTSIDE, LEFT_SIDE = INSIDE, RIGHT_SIDE = OUTSIDE };

struct place {
    enum side side, next;
    double next_since, since;
    struct task_point from; /* lines: where the anchor last was, clearly on `side` */
    struct task_point to;   /* lines: where it first was, clearly on `next` */
    bool stayed;
};

struct slot {
    int64_t id; /* 0: free */
    int class_id;
    float score;
    bool present;
    double first_pts;
    struct task_box box;
};

struct task_watch {
    struct mem_payer *payer;
    size_t bytes;
    struct task_rules rules; /* zones and lines point into this block */
    struct task_zone *zones;
    struct task_line *lines;
    float *zone_margin; /* the most that is allowed */
    struct slot *slots;
    struct place *places; /* max_tracks x (zones, then lines) */
    struct task_event *events;
    int event_count;
    uint64_t dropped;
};

const char *task_event_name(enum task_event_kind kind)
{
    static const char *const names[] = {
#define X(id, name) name,
        TASK_EVENTS(X)
#undef X
    };
    return kind < TASK_EVENT_KIND_COUNT ? names[kind] : "?";
}

struct task_rules task_rules_defaults(void)
{
    return (struct task_rules){.margin = 0.05f, .settle_seconds = 0.2, .max_tracks = 128};
}

static size_t lay_out(struct task_watch *w, const struct task_rules *r)
{
    size_t zones = (size_t)r->zone_count, lines = (size_t)r->line_count, n = (size_t)r->max_tracks;
    size_t at = sizeof *w;
#define PLACE(field, size)                                                                                   \
    do {                                                                                                     \
        at = (at + 15) / 16 * 16;                                                                            \
        if (w) w->field = (void *)((char *)w + at);                                                          \
        at += (size);                                                                                        \
    } while (0)
    PLACE(zones, zones * sizeof(struct task_zone));
    PLACE(lines, lines * sizeof(struct task_line));
    PLACE(zone_margin, zones * sizeof(float));
    PLACE(slots, n * sizeof(struct slot));
    PLACE(places, n * (zones + lines) * sizeof(struct place));
    PLACE(events, TASK_MAX_EVENTS * sizeof(struct task_event));
#undef PLACE
    return at;
}

static err check_zone(const struct task_zone *z, int number)
{
    if (z->point_count < 3 || z->point_count > TASK_MAX_ZONE_POINTS)
        return err_set(ERR_USAGE, "zone %d: has %d points, but needs 3 to %d", number + 1, z->point_count,
                       TASK_MAX_ZONE_POINTS);
    for (int i = 0; i < z->point_count; i++)
        if (!isfinite(z->points[i].x) || !isfinite(z->points[i].y))
            return err_set(ERR_USAGE, "zone %d: point %d is not a number", number + 1, i + 1);
    if (!(z->stay_seconds >= 0))
        return err_set(ERR_USAGE, "zone %d: stay must be 0 or more seconds", number + 1);
    return ERR_OK;
}

static err check_rules(const struct task_rules *r)
{
    if (r->zone_count < 0 || r->zone_count > TASK_MAX_ZONES || r->line_count < 0 ||
        r->line_count > TASK_MAX_LINES)
        return err_set(ERR_USAGE, "%d zones and %d lines, but at most %d and %d are possible", r->zone_count,
                       r->line_count, TASK_MAX_ZONES, TASK_MAX_LINES);
    if (!(r->margin >= 0 && r->margin <= 1) || !(r->settle_seconds >= 0 && r->settle_seconds <= 60))
        return err_set(ERR_USAGE, "zones: margin must be 0 to 1 (is %g), settle_seconds 0 to 60 (is %g)",
                       r->margin, r->settle_seconds);
    if (r->max_tracks < 1 || r->max_tracks > 4096)
        return err_set(ERR_USAGE, "zones: max_tracks must be 1 to 4096, not %d", r->max_tracks);
    for (int i = 0; i < r->zone_count; i++) {
        err e = check_zone(&r->zones[i], i);
        if (e) return e;
    }
    for (int i = 0; i < r->line_count; i++) {
        const struct task_line *l = &r->lines[i];
        double length = hypot((double)l->b.x - l->a.x, (double)l->b.y - l->a.y);
        if (!(isfinite(length) && length > 0))
            return err_set(ERR_USAGE, "line %d: its two points must be numbers, and not the same", i + 1);
    }
    return ERR_OK;
}

static float most_margin(const struct task_zone *z)
{
    double area = 0, around = 0;
    for (int i = 0, j = z->point_count - 1; i < z->point_count; j = i++) {
        struct task_point a = z->points[j], b = z->points[i];
        area += (double)a.x * b.y - (double)b.x * a.y;
        around += hypot((double)b.x - a.x, (double)b.y - a.y);
    }
    return around > 0 ? (float)(fabs(area) / 2 / around / 2) : 0;
}

err task_watch_new(struct mem_payer *payer, const struct task_rules *r, struct task_watch **ret)
{
    err e = check_rules(r);
    if (e) return e;
    size_t bytes = lay_out(NULL, r);
    struct task_watch *w;
    e = mem_alloc(payer, MEM_OTHER, bytes, (void **)&w);
    if (e) return e;
    lay_out(w, r);
    w->payer = payer;
    w->bytes = bytes;
    for (int i = 0; i < r->zone_count; i++) {
        w->zones[i] = r->zones[i];
        w->zone_margin[i] = most_margin(&r->zones[i]);
    }
    for (int i = 0; i < r->line_count; i++)
        w->lines[i] = r->lines[i];
    w->rules = *r;
    w->rules.zones = w->zones;
    w->rules.lines = w->lines;
    *ret = w;
    return ERR_OK;
}

void task_watch_free(struct task_watch **w)
{
    if (!*w) return;
    mem_free((*w)->payer, MEM_OTHER, *w, (*w)->bytes);
    *w = NULL;
}

static struct place *place_of(const struct task_watch *w, int slot, int rule)
{
    return &w->places[(size_t)slot * (size_t)(w->rules.zone_count + w->rules.line_count) + (size_t)rule];
}

static void emit(struct task_watch *w, enum task_event_kind kind, double pts, const struct slot *s, int rule,
                 int direction, double seconds)
{
    if (w->event_count == TASK_MAX_EVENTS) {
        w->dropped++;
        return;
    }
    w->events[w->event_count++] = (struct task_event){.kind = kind,
                                                      .pts = pts,
                                                      .track = s->id,
                                                      .class_id = s->class_id,
                                                      .rule = rule,
                                                      .direction = direction,
                                                      .seconds = seconds,
                                                      .score = s->score,
                                                      .box = s->box};
}

/* Feeds what is clearly seen now (or UNKNOWN) into a place; true when its side has just changed. */
static bool settle(struct place *p, enum side seen, double pts, double settle_seconds)
{
    if (seen == UNKNOWN) return false;
    if (seen == p->side) {
        p->next = UNKNOWN;
        return false;
    }
    if (p->next != seen) {
        p->next = seen;
        p->next_since = pts;
    }
    if (pts - p->next_since < settle_seconds) return false;
    p->side = seen;
    p->since = p->next_since;
    p->next = UNKNOWN;
    return true;
}

static void judge_zone(struct task_watch *w, int slot, int zone, double pts, struct task_point at,
                       float margin)
{
    const struct task_zone *z = &w->zones[zone];
    const struct slot *s = &w->slots[slot];
    struct place *p = place_of(w, slot, zone);
    bool clear = task_zone_distance(z, at) >= MIN(margin, w->zone_margin[zone]);
    enum side seen = !clear ? UNKNOWN : task_zone_contains(z, at) ? INSIDE : OUTSIDE;
    double since = p->since;
    enum side before = p->side;
    if (settle(p, seen, pts, w->rules.settle_seconds)) {
        if (p->side == INSIDE) {
            p->stayed = false;
            emit(w, TASK_ENTERED, pts, s, zone, 0, 0);
        } else if (before == INSIDE) {
            emit(w, TASK_EXITED, pts, s, zone, 0, p->since - since);
        }
    }
    if (p->side == INSIDE && z->stay_seconds > 0 && !p->stayed && pts - p->since >= z->stay_seconds) {
        p->stayed = true;
        emit(w, TASK_STAYED, pts, s, zone, 0, pts - p->since);
    }
}

static void judge_line(struct task_watch *w, int slot, int line, double pts, struct task_point at,
                       float margin)
{
    const struct task_line *l = &w->lines[line];
    struct place *p = place_of(w, slot, w->rules.zone_count + line);
    double dx = (double)l->b.x - l->a.x, dy = (double)l->b.y - l->a.y;
    double d = (dx * ((double)at.y - l->a.y) - dy * ((double)at.x - l->a.x)) / hypot(dx, dy);
    enum side seen = fabs(d) < margin || d == 0 ? UNKNOWN : d > 0 ? RIGHT_SIDE : LEFT_SIDE;
    enum side before = p->side;
    if (seen != UNKNOWN && seen != p->side && p->next != seen) p->to = at;
    if (settle(p, seen, pts, w->rules.settle_seconds) && before != UNKNOWN &&
        task_segments_touch(p->from, p->to, l->a, l->b))
        emit(w, TASK_CROSSED, pts, &w->slots[slot], line, p->side == RIGHT_SIDE ? 1 : -1, 0);
    if (seen != UNKNOWN && seen == p->side) p->from = at;
}

static int find_slot(const struct task_watch *w, int64_t id)
{
    for (int i = 0; i < w->rules.max_tracks; i++)
        if (w->slots[i].id == id) return i;
    return -1;
}

static void gone(struct task_watch *w, int i, double pts)
{
    struct slot *s = &w->slots[i];
    for (int z = 0; z < w->rules.zone_count; z++) {
        struct place *p = place_of(w, i, z);
        if (p->side == INSIDE) emit(w, TASK_EXITED, pts, s, z, 0, pts - p->since);
    }
    emit(w, TASK_LEFT, pts, s, -1, 0, pts - s->first_pts);
    s->id = 0;
}

static void present(struct task_watch *w, double pts, const struct task_track *k)
{
    int i = find_slot(w, k->id);
    if (i < 0 && k->detection < 0) return; /* never seen by us, and not now */
    bool fresh = i < 0;
    if (fresh && (i = find_slot(w, 0)) < 0) {
        w->dropped++;
        return;
    }
    struct slot *s = &w->slots[i];
    s->present = true;
    if (k->detection < 0) return;
    int rules = w->rules.zone_count + w->rules.line_count;
    if (fresh) {
        *s = (struct slot){.id = k->id, .present = true, .first_pts = pts};
        if (rules) memset(place_of(w, i, 0), 0, (size_t)rules * sizeof(struct place));
    }
    s->class_id = k->class_id;
    s->score = k->score;
    s->box = k->box;
    if (fresh) emit(w, TASK_APPEARED, pts, s, -1, 0, 0);
    struct task_point at = task_anchor(&k->box, w->rules.anchor_centre);
    float margin = w->rules.margin * (k->box.y2 - k->box.y1);
    if (!isfinite(at.x) || !isfinite(at.y) || !isfinite(margin)) return;
    for (int z = 0; z < w->rules.zone_count; z++)
        judge_zone(w, i, z, pts, at, margin);
    for (int l = 0; l < w->rules.line_count; l++)
        judge_line(w, i, l, pts, at, margin);
}

int task_watch_update(struct task_watch *w, double pts, const struct task_track *tracks, int n,
                      const struct task_event **ret_events)
{
    w->event_count = 0;
    for (int i = 0; i < w->rules.max_tracks; i++)
        w->slots[i].present = false;
    for (int i = 0; i < n; i++) {
        int slot = tracks[i].id > 0 ? find_slot(w, tracks[i].id) : -1;
        if (slot >= 0) w->slots[slot].present = true;
    }
    for (int i = 0; i < w->rules.max_tracks; i++) /* first, so that their slots are free for new tracks */
        if (w->slots[i].id && !w->slots[i].present) gone(w, i, pts);
    for (int i = 0; i < n; i++)
        if (tracks[i].id > 0 && tracks[i].state != TASK_TENTATIVE) present(w, pts, &tracks[i]);
    *ret_events = w->events;
    return w->event_count;
}

uint64_t task_watch_dropped(const struct task_watch *w)
{
    return w->dropped;
}

int task_watch_inside(const struct task_watch *w, int zone)
{
    int count = 0;
    if (zone < 0 || zone >= w->rules.zone_count) return 0;
    for (int i = 0; i < w->rules.max_tracks; i++)
        if (w->slots[i].id && place_of(w, i, zone)->side == INSIDE) count++;
    return count;
}

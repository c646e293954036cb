/* Who is where.
 *
 * People walk from place to place of a small graph (pavements, crossings, the square, the path), each with an offset
 * of its own so that they do not walk on one line, push each other gently aside, and stand now and then. At a
 * crossing they wait for what moves; drivers stop for whoever is on it or has waited a second, so nobody starves. A
 * driver looks along its own lane: whatever is nearer than it can stop, it brakes for. Two that block each other for
 * six seconds creep on.
 *
 * Who leaves at the end of a street comes back as somebody else: ids are never used again.
 * SPDX-License-Identifier: Apache-2.0 */
#include "scene/traffic.h"

#include "scene/world.h"

#include <stdlib.h>
#include <string.h>

enum { NODES = 32, MOST_EDGES = 6 };
static const struct node {
    float x, y, spread;
    bool end, rest;
    signed char to[MOST_EDGES]; /* -1 ends the list */
} nodes[NODES] = {
    /* north pavement */
    [0] = {-58, 5, 0.8f, true, false, {1, -1}},
    [1] = {-27, 5, 0.8f, false, false, {0, 2, 20, -1}},
    [2] = {-24.4f, 6.4f, 0.5f, false, false, {1, 3, 20, -1}},     /* second crossing, west */
    [3] = {-15.6f, 6.4f, 0.5f, false, false, {2, 4, 18, 10, -1}}, /* and east */
    [4] = {-9, 5, 0.8f, false, false, {3, 5, 10, -1}},
    [5] = {-2, 5, 1, false, false, {4, 6, 8, 11, -1}}, /* crossing, north kerb */
    [6] = {12, 5, 0.8f, false, false, {5, 7, 13, 12, -1}},
    [7] = {28, 5, 0.8f, false, false, {6, 17, 14, -1}},
    [8] = {-2, -4.7f, 0.9f, false, false, {5, 9, 21, 26, -1}}, /* crossing, south kerb */
    [9] = {4.4f, -5.6f, 0.7f, false, false, {8, 22, -1}},
    /* the square */
    [10] = {-9, 9, 1.4f, false, true, {4, 3, 11, 15, -1}},
    [11] = {-3, 9, 1.6f, false, true, {5, 10, 12, 15, 16, -1}},
    [12] = {6, 8.4f, 1.6f, false, true, {11, 6, 13, 16, -1}},
    [13] = {16, 7.6f, 1.2f, false, true, {6, 12, 14, 16, -1}},
    [14] = {23, 13, 1.4f, false, true, {13, 7, 16, -1}},
    [15] = {-8, 13, 1.2f, false, true, {10, 11, 16, -1}},
    [16] = {7, 13.2f, 1.6f, false, true, {15, 11, 12, 13, 14, -1}},
    [17] = {56, 5, 0.8f, true, false, {7, -1}},
    /* side street */
    [18] = {-15.6f, 21, 0.6f, false, true, {3, 19, -1}},
    [19] = {-15.9f, 52, 0.6f, true, false, {18, -1}},
    [20] = {-25, 21, 0.7f, false, false, {1, 2, 27, -1}},
    /* south */
    [21] = {-24, -5, 0.8f, false, true, {8, 28, -1}},
    [22] = {4.6f, -10.5f, 0.6f, false, true, {9, 23, -1}},
    [23] = {18, -10.8f, 0.7f, false, true, {22, 24, -1}},
    [24] = {31.3f, -10.5f, 0.6f, false, false, {23, 25, -1}},
    [25] = {33, -5.2f, 0.7f, false, true, {24, 29, -1}},
    [26] = {-5, -17, 0.5f, false, true, {8, 30, -1}},
    [27] = {-25, 52, 0.7f, true, false, {20, -1}},
    [28] = {-58, -5, 0.8f, true, false, {21, -1}},
    [29] = {56, -5, 0.8f, true, false, {25, -1}},
    [30] = {-8.6f, -29, 0.5f, true, false, {26, -1}},
    [31] = {0, 0, 0, false, false, {-1}},
};
static const signed char ends[] = {0, 17, 19, 27, 28, 29, 30};

static struct scene_identity *new_identity(struct scene_traffic *t, enum scene_class c, int *ret_id)
{
    vec_grow(&t->ids, &t->ids_cap, t->ids_n);
    struct scene_identity *i = &t->ids[t->ids_n++];
    memset(i, 0, sizeof *i);
    i->id = *ret_id = (int)t->ids_n;
    i->class_id = c, i->first_frame = i->last_frame = t->frame;
    return i;
}

static void describe_person(struct scene_identity *i, const struct scene_looks *l, const char *kind)
{
    i->kind = kind;
    i->top = scene_clothes[l->top].name, i->bottom = scene_clothes[l->bottom].name;
    i->hair = l->bald && !l->cap ? "none" : scene_hairs[l->hair].name;
    i->top_kind = l->jacket ? "jacket" : "t-shirt";
    i->bottom_kind = l->skirt ? "skirt" : l->shorts ? "shorts" : "trousers";
    i->backpack = l->backpack, i->height = l->height;
}

static struct scene_looks draw_person(struct rng *r)
{
    static const uint8_t low[] = {0, 4, 4, 4, 2, 8, 11, 0, 5};
    struct scene_looks l = {.top = (uint8_t)rng_below(r, CLOTHES_COLOURS),
                            .bottom = low[rng_below(r, ARRAY_LEN(low))],
                            .hair = (uint8_t)rng_below(r, HAIR_COLOURS),
                            .skin = (uint8_t)rng_below(r, SKINS),
                            .paint = (uint8_t)rng_below(r, 4)};
    if (l.skin > 2 && l.hair > 1) l.hair = 0;
    l.jacket = rng_unit(r) < 0.55f;
    l.long_hair = rng_unit(r) < 0.4f;
    float legs = rng_unit(r);
    l.skirt = l.long_hair && legs < 0.4f;
    l.shorts = !l.skirt && !l.jacket && legs < 0.5f;
    if (l.skirt && rng_unit(r) < 0.5f) l.bottom = (uint8_t)rng_below(r, CLOTHES_COLOURS);
    l.backpack = rng_unit(r) < 0.25f;
    l.cap = rng_unit(r) < 0.12f;
    l.bald = !l.long_hair && rng_unit(r) < 0.1f;
    l.height = rng_range(r, 1.56f, 1.92f);
    l.build = l.height / 1.75f * rng_range(r, 0.92f, 1.2f);
    return l;
}

static void next_place(struct scene_traffic *t, struct scene_person *p)
{
    const struct node *n = &nodes[p->to];
    int count = 0, to = n->to[0];
    while (count < MOST_EDGES && n->to[count] >= 0) count++;
    for (int tries = 0; tries < 4; tries++) {
        to = n->to[rng_below(&t->rng, count)];
        if (to != p->from) break;
    }
    p->from = p->to, p->to = to;
    n = &nodes[to];
    p->tx = n->x + p->ox * n->spread, p->ty = n->y + p->oy * n->spread;
    p->waits = 0;
}

static void new_person(struct scene_traffic *t, struct scene_person *p, bool anywhere)
{
    memset(p, 0, sizeof *p);
    p->looks = draw_person(&t->rng);
    describe_person(new_identity(t, SCENE_PERSON, &p->id), &p->looks, "walker");
    p->ox = rng_range(&t->rng, -1, 1), p->oy = rng_range(&t->rng, -1, 1);
    p->pace = rng_range(&t->rng, 1.05f, 1.6f), p->phase = rng_range(&t->rng, 0, 6);
    p->to = ends[rng_below(&t->rng, ARRAY_LEN(ends))];
    if (anywhere) { /* more of them where cameras look */
        static const signed char busy[] = {4,  5, 6, 8,  8,  9,  10, 11, 11, 12, 13, 15,
                                           16, 3, 2, 18, 20, 22, 23, 23, 24, 21, 26};
        p->to = busy[rng_below(&t->rng, ARRAY_LEN(busy))];
    }
    p->from = -1;
    float x = nodes[p->to].x + p->ox * nodes[p->to].spread, y = nodes[p->to].y + p->oy * nodes[p->to].spread;
    next_place(t, p);
    float along = anywhere ? rng_unit(&t->rng) : 0;
    if ((p->from == 5 && p->to == 8) || (p->from == 8 && p->to == 5))
        along = anywhere && rng_unit(&t->rng) < 0.4f ? along : 0;
    if ((p->from == 2 && p->to == 3) || (p->from == 3 && p->to == 2)) along = 0;
    p->x = mixf(x, p->tx, along), p->y = mixf(y, p->ty, along);
    p->z = scene_world_ground(p->x, p->y);
    p->heading = angle_of(p->ty - p->y, p->tx - p->x);
}

static void add_point(struct scene_path *p, float x, float y)
{
    if (p->n == (int)ARRAY_LEN(p->x)) return;
    float dx = p->n ? x - p->x[p->n - 1] : 0, dy = p->n ? y - p->y[p->n - 1] : 0;
    p->s[p->n] = p->n ? p->s[p->n - 1] + sqrtf(dx * dx + dy * dy) : 0;
    p->x[p->n] = x, p->y[p->n++] = y;
}

static void add_bend(struct scene_path *p, float x1, float y1, float x2,
                     float y2) /* a parabola; its corner is (x1, y1) */
{
    float x0 = p->x[p->n - 1], y0 = p->y[p->n - 1];
    for (int i = 1; i <= 12; i++) {
        float t = (float)i / 12, a = (1 - t) * (1 - t), b = 2 * t * (1 - t), c = t * t;
        add_point(p, a * x0 + b * x1 + c * x2, a * y0 + b * y1 + c * y2);
    }
}

static void make_paths(struct scene_path *p)
{
    add_point(&p[0], -68, -1.75f), add_point(&p[0], 68, -1.75f);
    add_point(&p[1], 68, 1.75f), add_point(&p[1], -68, 1.75f);
    add_point(&p[2], -68, -1.75f), add_point(&p[2], -26, -1.75f), add_bend(&p[2], -18.6f, -1.75f, -18.5f, 6),
        add_point(&p[2], -18.5f, 58);
    add_point(&p[3], 68, 1.75f), add_point(&p[3], -12.5f, 1.75f), add_bend(&p[3], -18.5f, 1.75f, -18.5f, 8),
        add_point(&p[3], -18.5f, 58);
    add_point(&p[4], -21.5f, 58), add_point(&p[4], -21.5f, 8), add_bend(&p[4], -21.5f, 1.75f, -27.5f, 1.75f),
        add_point(&p[4], -68, 1.75f);
    add_point(&p[5], -21.5f, 58), add_point(&p[5], -21.5f, 6), add_bend(&p[5], -21.4f, -1.75f, -13, -1.75f),
        add_point(&p[5], 68, -1.75f);
}

static void at_path(const struct scene_path *p, float s, float *x, float *y, float *heading)
{
    int lo = 0, hi = p->n - 2;
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (p->s[mid] <= s)
            lo = mid;
        else
            hi = mid - 1;
    }
    float dx = p->x[lo + 1] - p->x[lo], dy = p->y[lo + 1] - p->y[lo], t = (s - p->s[lo]) / (p->s[lo + 1] - p->s[lo]);
    *x = p->x[lo] + dx * t, *y = p->y[lo] + dy * t;
    *heading = angle_of(dy, dx);
}

static void place_car(const struct scene_traffic *t, struct scene_car *c)
{
    /* axles are on the path, so that a vehicle turns about its rear */
    float x0, y0, x1, y1, h, half = c->length * 0.3f;
    const struct scene_path *p = &t->paths[c->path];
    at_path(p, c->s - half, &x0, &y0, &h);
    at_path(p, c->s + half, &x1, &y1, &h);
    c->heading = angle_of(y1 - y0, x1 - x0);
    c->x = (x0 + x1) / 2 + sin_of(c->heading) * c->side;
    c->y = (y0 + y1) / 2 - cos_of(c->heading) * c->side;
}

static void describe_car(struct scene_traffic *t, struct scene_car *c)
{
    struct scene_identity *i = new_identity(t, c->class_id, &c->id);
    i->kind = c->class_id == SCENE_BICYCLE ? "bicycle" : scene_vehicle_names[c->looks.kind];
    i->colour = scene_paints[c->looks.paint].name;
    i->parked = c->path < 0;
    if (c->class_id != SCENE_BICYCLE) return;
    c->rider_looks = draw_person(&t->rng);
    c->rider_looks.skirt = false;
    c->rider_looks.height = clampf(c->rider_looks.height, 1.65f, 1.82f);
    int bicycle = c->id;
    struct scene_identity *r = new_identity(t, SCENE_PERSON, &c->rider);
    describe_person(r, &c->rider_looks, "rider");
    r->partner = bicycle;
    t->ids[bicycle - 1].partner = c->rider;
}

static void new_car(struct scene_traffic *t, struct scene_car *c, int slot, bool anywhere)
{
    memset(c, 0, sizeof *c);
    float kind = rng_unit(&t->rng);
    c->class_id = kind < 0.26f ? SCENE_BICYCLE : kind < 0.38f ? SCENE_TRUCK : SCENE_CAR;
    if (anywhere && slot < 4)
        c->class_id = slot == 0   ? SCENE_BICYCLE
                      : slot == 2 ? SCENE_TRUCK
                                  : SCENE_CAR; /* some of each from the start */
    c->looks.paint = (uint8_t)rng_below(&t->rng, PAINT_COLOURS);
    c->looks.skin = (uint8_t)rng_below(&t->rng, 2);
    c->looks.kind = (uint8_t)(c->class_id == SCENE_TRUCK ? VEHICLE_LORRY : rng_below(&t->rng, VEHICLE_LORRY));
    c->length = c->class_id == SCENE_BICYCLE ? 1.7f : scene_vehicle_length(c->looks.kind);
    bool bicycle = c->class_id == SCENE_BICYCLE;
    c->pace = bicycle ? rng_range(&t->rng, 3.6f, 5) : rng_range(&t->rng, 6.5f, 9.5f);
    c->side = bicycle ? 0.95f : 0;
    c->path = rng_below(&t->rng, TRAFFIC_PATHS);
    for (int tries = 0; tries < 30; tries++) {
        float end = t->paths[c->path].s[t->paths[c->path].n - 1];
        c->s = anywhere ? rng_range(&t->rng, end * 0.12f, end * 0.8f) : 4;
        place_car(t, c);
        bool free_ = scene_world_ground(c->x, c->y) == 0 && !(c->x > -8 && c->x < 4 && anywhere);
        for (int i = 0; i < t->cars_n && free_; i++) {
            const struct scene_car *o = &t->cars[i];
            float dx = o->x - c->x, dy = o->y - c->y;
            if (o != c && o->id && dx * dx + dy * dy < 100) free_ = false;
        }
        if (free_) break;
        c->path = rng_below(&t->rng, TRAFFIC_PATHS);
        if (tries == 29) c->s = -40 - 12 * (float)slot; /* waits outside */
    }
    c->speed = anywhere ? c->pace * 0.8f : c->pace;
    if (c->s < 0) c->x = -500, c->y = 0;
    describe_car(t, c);
}

static void park_car(struct scene_traffic *t, struct scene_car *c, int bay)
{
    memset(c, 0, sizeof *c);
    c->class_id = SCENE_CAR, c->path = -1;
    c->looks.paint = (uint8_t)rng_below(&t->rng, PAINT_COLOURS);
    c->looks.kind = (uint8_t)rng_below(&t->rng, VEHICLE_LORRY);
    c->length = scene_vehicle_length(c->looks.kind);
    c->x = 7.3f + 2.6f * (float)bay + rng_range(&t->rng, -0.15f, 0.15f),
    c->y = -6.4f + rng_range(&t->rng, -0.25f, 0.2f);
    c->heading = SCENE_PI / 2 * (rng_unit(&t->rng) < 0.4f ? 1 : -1) + rng_range(&t->rng, -0.03f, 0.03f);
    describe_car(t, c);
}

void scene_traffic_init(struct scene_traffic *t, uint64_t seed, int people, int cars)
{
    t->rng.state = seed * 0x9e3779b97f4a7c15u + 11;
    t->people_n = people, t->cars_n = cars;
    make_paths(t->paths);
    int bays[9], parked = MIN(cars * 2 / 5, 7);
    for (int i = 0; i < 9; i++) bays[i] = i;
    for (int i = 8; i > 0; i--) {
        int k = rng_below(&t->rng, i + 1), swap = bays[i];
        bays[i] = bays[k], bays[k] = swap;
    }
    for (int i = 0; i < cars; i++) {
        if (i >= cars - parked)
            park_car(t, &t->cars[i], bays[i - (cars - parked)]);
        else
            new_car(t, &t->cars[i], i, true);
    }
    for (int i = 0; i < people; i++) new_person(t, &t->people[i], true);
    scene_traffic_step(t, 0);
}

void scene_traffic_done(struct scene_traffic *t)
{
    free(t->ids);
    t->ids = NULL, t->ids_n = t->ids_cap = 0;
}

/* 1 or 2: the crossing that lies between two places; 0: none. */
static int crossing(int from, int to)
{
    if ((from == 5 && to == 8) || (from == 8 && to == 5)) return 1;
    if ((from == 2 && to == 3) || (from == 3 && to == 2)) return 2;
    return 0;
}

static bool stands_on(const struct scene_car *c, int which)
{
    float cx = which == 1 ? -2 : -20, cy = which == 1 ? 0 : 6.4f, wide = which == 1 ? 2.5f : 3.2f,
          deep = which == 1 ? 3.6f : 1.8f;
    float ch = cos_of(c->heading), sh = sin_of(c->heading);
    for (int k = -2; k <= 2; k++) {
        float u = 0.25f * (float)k * c->length, x = c->x + u * ch - cx, y = c->y + u * sh - cy;
        if (x > -wide && x < wide && y > -deep && y < deep) return true;
    }
    return false;
}

static bool occupied(const struct scene_traffic *t, int which)
{
    for (int i = 0; i < t->cars_n; i++)
        if (t->cars[i].path >= 0 && stands_on(&t->cars[i], which)) return true;
    return false;
}

/* Nothing stands on the crossing, and nothing that comes is too near to stop. */
static bool may_cross(const struct scene_traffic *t, int which)
{
    if (occupied(t, which)) return false;
    for (int i = 0; i < t->cars_n; i++) {
        const struct scene_car *c = &t->cars[i];
        float dx = (which == 1 ? -2 : -20) - c->x, dy = (which == 1 ? 0 : 6.4f) - c->y;
        float ahead = dx * cos_of(c->heading) + dy * sin_of(c->heading), d = sqrtf(dx * dx + dy * dy);
        if (c->path >= 0 && ahead > 0 && c->speed > 0.6f && d < 5 + c->length * 0.5f + 1.4f * c->speed) return false;
    }
    return true;
}

static void walk(struct scene_traffic *t, struct scene_person *p, float dt)
{
    p->phase += p->standing ? dt * 0.6f : 0;
    if (p->rest > 0) {
        p->rest -= dt, p->standing = true, p->speed = 0;
        return;
    }
    float dx = p->tx - p->x, dy = p->ty - p->y, d = sqrtf(dx * dx + dy * dy);
    if (d < 0.35f) {
        const struct node *n = &nodes[p->to];
        if (n->end) {
            new_person(t, p, false);
            return;
        }
        if (n->rest && rng_unit(&t->rng) < 0.35f) p->rest = rng_range(&t->rng, 2, 9);
        next_place(t, p);
        return;
    }
    int which = crossing(p->from, p->to);
    bool on_road = which && scene_world_ground(p->x, p->y) == 0;
    float ux = dx / d, uy = dy / d;
    if (which && !on_road && p->waits >= 0 && scene_world_ground(p->x + ux * 0.9f, p->y + uy * 0.9f) == 0) {
        p->waits += dt;
        if (!may_cross(t, which)) {
            p->standing = true, p->speed = 0;
            return;
        }
        p->waits = -1; /* off it goes */
    }
    float px = 0, py = 0; /* pushed aside by others */
    for (int i = 0; i < t->people_n; i++) {
        const struct scene_person *o = &t->people[i];
        float ox = p->x - o->x, oy = p->y - o->y, r2 = ox * ox + oy * oy;
        if (o == p || r2 > 0.81f || r2 < 1e-6f) continue;
        float r = sqrtf(r2), k = (0.9f - r) / r * 1.6f;
        px += ox * k - oy * k * 0.5f, py += oy * k + ox * k * 0.5f;
    }
    float vx = ux * p->pace + px, vy = uy * p->pace + py, v = sqrtf(vx * vx + vy * vy) + 1e-6f, most = p->pace * 1.2f;
    if (v > most) vx *= most / v, vy *= most / v, v = most;
    float nx = p->x + vx * dt, ny = p->y + vy * dt;
    if (which || scene_world_ground(nx, ny) > 0 || on_road)
        p->x = nx, p->y = ny; /* nobody is pushed onto the road */
    else
        p->x += ux * p->pace * dt, p->y += uy * p->pace * dt;
    float turn = angle_of(vy, vx) - p->heading;
    turn -= 2 * SCENE_PI * floorf(turn / (2 * SCENE_PI) + 0.5f);
    p->heading += clampf(turn, -3.5f * dt, 3.5f * dt);
    p->phase += v * dt * (2 * SCENE_PI / (1.42f * p->looks.height / 1.75f)); /* a double step is 1.42 m */
    p->speed = v, p->standing = v < 0.25f;
    float g = scene_world_ground(p->x, p->y);
    p->z += clampf(g - p->z, -0.8f * dt, 0.8f * dt);
}

/* Is a person on the crossing that (x, y) of a lane lies on, or waiting for it? */
static bool crossing_taken(const struct scene_traffic *t, float x, float y)
{
    int which = x > -4.4f && x < 0.4f && y > -3.5f && y < 3.5f ? 1
                : x > -23 && x < -17 && y > 4.9f && y < 8.1f   ? 2
                                                               : 0;
    if (!which) return false;
    bool blocked = occupied(t, which); /* then nobody could set off anyway: waiting for them would be for ever */
    for (int i = 0; i < t->people_n; i++) {
        const struct scene_person *p = &t->people[i];
        if (crossing(p->from, p->to) != which) continue;
        if ((p->waits > 0.8f && !blocked) || scene_world_ground(p->x, p->y) == 0 || (p->waits < 0 && p->z < 0.1f))
            return true;
    }
    return false;
}

static float free_road(const struct scene_traffic *t, const struct scene_car *c)
{
    const struct scene_path *p = &t->paths[c->path];
    float front = c->s + c->length / 2, end = p->s[p->n - 1];
    float hx, hy, hh;
    at_path(p, clampf(front, 0, end), &hx, &hy, &hh);
    bool inside =
        (hx > -4.6f && hx < 0.6f && hy > -3.5f && hy < 3.5f) || (hx > -23 && hx < -17 && hy > 4.7f && hy < 8.3f);
    for (float ahead = 0.5f; ahead < 22; ahead += 0.75f) {
        float x, y, h;
        if (front + ahead < 0 || front + ahead > end) continue;
        at_path(p, front + ahead, &x, &y, &h);
        x += sin_of(h) * c->side, y -= cos_of(h) * c->side;
        if (!inside && crossing_taken(t, x, y)) return ahead - 0.6f;
        for (int i = 0; i < t->cars_n; i++) {
            const struct scene_car *o = &t->cars[i];
            if (o == c || o->path < 0 || o->x < -400 || c->stuck > 16) continue;
            float oc = cos_of(o->heading), os = sin_of(o->heading), dx = x - o->x, dy = y - o->y;
            float u = dx * oc + dy * os, v = dy * oc - dx * os,
                  wide = (o->class_id == SCENE_BICYCLE ? 0.4f : 1.1f) + (c->class_id == SCENE_BICYCLE ? 0.3f : 0.8f);
            if (u > -o->length / 2 - 0.3f && u < o->length / 2 + 0.3f && v > -wide && v < wide) return ahead - 1.2f;
        }
        for (int i = 0; i < t->people_n; i++) {
            float dx = x - t->people[i].x, dy = y - t->people[i].y;
            if (t->people[i].z < 0.11f && dx * dx + dy * dy < 1.9f) return ahead - 1.2f;
        }
    }
    return 22;
}

static void drive(struct scene_traffic *t, struct scene_car *c, int slot, float dt)
{
    if (c->path < 0) return;
    const struct scene_path *p = &t->paths[c->path];
    if (c->s > p->s[p->n - 1] - c->length) {
        new_car(t, c, slot, false);
        return;
    }
    float gap = free_road(t, c), want = c->pace, x, y, h, h2;
    if (c->s > 0) {
        at_path(p, c->s, &x, &y, &h);
        at_path(p, MIN(c->s + 7, p->s[p->n - 1]), &x, &y, &h2);
        float bend = h2 - h;
        bend -= 2 * SCENE_PI * floorf(bend / (2 * SCENE_PI) + 0.5f);
        if (bend > 0.15f || bend < -0.15f) want = MIN(want, 3.6f); /* slow for a bend */
    }
    if (c->stopped > 6 && c->stopped < 8 && gap > -0.6f)
        want = MIN(want, 1.2f); /* creeps, so that nobody waits for ever */
    else
        want = MIN(want, gap <= 0.9f ? 0 : sqrtf(2 * 2.4f * (gap - 0.9f)));
    float dv = clampf(want - c->speed, -6 * dt, 1.8f * dt);
    c->brakes = dv < -0.5f * dt || want == 0;
    c->speed = MAX(c->speed + dv, 0);
    c->stopped = c->speed < 0.3f ? c->stopped + dt : c->stopped > 6 && c->stopped < 8 ? c->stopped + dt : 0;
    if (c->stopped > 8) c->stopped = 3;
    c->stuck = clampf(c->stuck + (c->speed < 1 ? dt : -4 * dt), 0,
                      22); /* above 16 it no longer minds vehicles: a knot must come undone */
    c->s += c->speed * dt;
    c->phase += c->speed * dt * 1.15f;
    if (c->s > 2.3f) place_car(t, c);
}

static void note(struct scene_traffic *t, int id, float x, float y, float z, float heading)
{
    struct scene_identity *i = &t->ids[id - 1];
    i->position[0] = x, i->position[1] = y, i->position[2] = z, i->heading = heading, i->last_frame = t->frame;
}

void scene_traffic_step(struct scene_traffic *t, float dt)
{
    int parts = dt > 0 ? (int)(dt / 0.051f) + 1 : 0;
    for (int k = 0; k < parts; k++) {
        for (int i = 0; i < t->people_n; i++) walk(t, &t->people[i], dt / (float)parts);
        for (int i = 0; i < t->cars_n; i++) drive(t, &t->cars[i], i, dt / (float)parts);
    }
    t->time += dt;
    for (int i = 0; i < t->people_n; i++)
        note(t, t->people[i].id, t->people[i].x, t->people[i].y, t->people[i].z, t->people[i].heading);
    for (int i = 0; i < t->cars_n; i++) {
        const struct scene_car *c = &t->cars[i];
        note(t, c->id, c->x, c->y, 0, c->heading);
        if (c->rider) note(t, c->rider, c->x, c->y, 0, c->heading);
    }
}

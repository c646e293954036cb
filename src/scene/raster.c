/* Triangles into samples.
 *
 * 1 / Z is linear on the screen, so interpolating it is exact; bigger is nearer and 0 is infinitely far. A sample
 * belongs to a triangle if it is on the inner side of its three edges; on a shared edge both may have it and the
 * nearer wins, which is harmless. Light is interpolated on the screen: triangles are small. SPDX-License-Identifier:
 * Apache-2.0 */
#ifndef __clang__
#pragma GCC optimize("O3") /* clang vectorises at -O2 already */
#endif
#include "scene/view.h"

struct setup {
    int x0, y0, x1, y1;     /* x1, y1 excluded */
    float a[3], b[3], c[3]; /* weight i = a x + b y + c, 0 to 1 */
    float inv[3];           /* -1 / a; 0: the edge is level, or the triangle too small to care */
};

static bool prepare(const struct raster_vertex *t, int w, int h, struct setup *s, bool both_sides)
{
    float area = (t[1].x - t[0].x) * (t[2].y - t[0].y) - (t[2].x - t[0].x) * (t[1].y - t[0].y);
    if (both_sides ? area == 0 : area >= 0) return false; /* y runs down, so what faces us has a negative area */
    float lx = MIN(t[0].x, MIN(t[1].x, t[2].x)), hx = MAX(t[0].x, MAX(t[1].x, t[2].x));
    float ly = MIN(t[0].y, MIN(t[1].y, t[2].y)), hy = MAX(t[0].y, MAX(t[1].y, t[2].y));
    if (!(hx > 0 && hy > 0 && lx < (float)w && ly < (float)h)) return false;
    s->x0 = (int)MAX(lx, 0), s->y0 = (int)MAX(ly, 0);
    s->x1 = (int)MIN(hx + 1, (float)w), s->y1 = (int)MIN(hy + 1, (float)h);
    float k = 1 / area;
    for (int i = 0; i < 3; i++) {
        const struct raster_vertex *p = &t[(i + 1) % 3], *q = &t[(i + 2) % 3];
        s->a[i] = -(q->y - p->y) * k;
        s->b[i] = (q->x - p->x) * k;
        s->c[i] = -(s->a[i] * p->x + s->b[i] * p->y);
        s->inv[i] = s->x1 - s->x0 > 4 && (s->a[i] > 1e-9f || s->a[i] < -1e-9f) ? -1 / s->a[i] : 0;
    }
    return true;
}

static inline bool outside(const struct setup *s, int x, float y)
{
    float fx = (float)x + 0.5f;
    return s->a[0] * fx + s->b[0] * y + s->c[0] < 0 || s->a[1] * fx + s->b[1] * y + s->c[1] < 0 ||
           s->a[2] * fx + s->b[2] * y + s->c[2] < 0;
}

/* The samples of row y that are inside: the ends are guessed, then tested; what lies between is inside, as triangles
 * are convex. */
static inline void row_span(const struct setup *s, float y, int *ret_x0, int *ret_x1)
{
    float lo = (float)s->x0, hi = (float)s->x1;
    for (int i = 0; i < 3; i++) {
        float x = (s->b[i] * y + s->c[i]) * s->inv[i];
        if (s->inv[i] < 0)
            lo = MAX(lo, x - 1.5f);
        else if (s->inv[i] > 0)
            hi = MIN(hi, x + 1.5f);
    }
    int x0 = (int)lo, x1 = hi > lo ? (int)hi : x0;
    while (x0 < x1 && outside(s, x0, y)) x0++;
    while (x0 < x1 && outside(s, x1 - 1, y)) x1--;
    *ret_x0 = x0, *ret_x1 = x1;
}

/* A value that is linear over the triangle: at sample x of row y it is a (x + 0.5) + row. */
struct slope {
    float a, b, c;
};
static struct slope slope_of(const struct setup *s, float v0, float v1, float v2)
{
    return (struct slope){s->a[0] * v0 + s->a[1] * v1 + s->a[2] * v2, s->b[0] * v0 + s->b[1] * v1 + s->b[2] * v2,
                          s->c[0] * v0 + s->c[1] * v1 + s->c[2] * v2};
}

static uint16_t light16(float x)
{
    x *= VIEW_ONE;
    return (uint16_t)(x <= 0 ? 0 : x >= 65535 ? 65535 : x);
}

static void count_whole(struct scene_object *ob, int x0, int x1, int y)
{
    ob->wx0 = MIN(ob->wx0, x0), ob->wx1 = MAX(ob->wx1, x1), ob->wy0 = MIN(ob->wy0, y), ob->wy1 = MAX(ob->wy1, y + 1);
}

void scene_raster_solid(struct scene *sc, const struct scene_view *v, struct scene_object *ob,
                        const struct raster_vertex t[3])
{
    int w = 2 * sc->o.width, h = 2 * sc->o.height;
    struct setup s;
    if (!prepare(t, w, h, &s, false)) return;
    uint16_t id = (uint16_t)(ob - sc->objects + 1);
    struct slope z = slope_of(&s, t[0].near_, t[1].near_, t[2].near_), r = slope_of(&s, t[0].c.x, t[1].c.x, t[2].c.x);
    struct slope g = slope_of(&s, t[0].c.y, t[1].c.y, t[2].c.y), b = slope_of(&s, t[0].c.z, t[1].c.z, t[2].c.z);
    for (int y = s.y0; y < s.y1; y++) {
        float fy = (float)y + 0.5f, z_row = z.b * fy + z.c, r_row = r.b * fy + r.c, g_row = g.b * fy + g.c,
              b_row = b.b * fy + b.c;
        int x0, x1, fresh = 0;
        row_span(&s, fy, &x0, &x1);
        if (x0 >= x1) continue;
        struct scene_sample *row = sc->samples + (size_t)y * (size_t)w;
        const float *still = v->near_ + (size_t)y * (size_t)w;
        for (int x = x0; x < x1; x++) {
            struct scene_sample *p = &row[x];
            fresh += p->stamp != id;
            p->stamp = id;
            float fx = (float)x + 0.5f, near_ = z.a * fx + z_row;
            if (near_ <= p->near_ || near_ <= still[x]) continue;
            p->near_ = near_, p->object = id;
            p->rgb[0] = light16(r.a * fx + r_row);
            p->rgb[1] = light16(g.a * fx + g_row);
            p->rgb[2] = light16(b.a * fx + b_row);
        }
        ob->whole += fresh;
        count_whole(ob, x0, x1, y);
    }
}

void scene_raster_shade(struct scene *sc, const struct scene_view *v, const struct raster_vertex t[3])
{
    int w = 2 * sc->o.width, h = 2 * sc->o.height;
    struct setup s;
    if (!prepare(t, w, h, &s, true)) return;
    struct slope z = slope_of(&s, t[0].near_, t[1].near_, t[2].near_);
    scene_dirty(sc, s.x0 / 2, s.y0 / 2, (s.x1 + 1) / 2, (s.y1 + 1) / 2);
    for (int y = s.y0; y < s.y1; y++) {
        float fy = (float)y + 0.5f, z_row = z.b * fy + z.c;
        int x0, x1;
        row_span(&s, fy, &x0, &x1);
        struct scene_sample *row = sc->samples + (size_t)y * (size_t)w;
        const float *still = v->near_ + (size_t)y * (size_t)w;
        for (int x = x0; x < x1; x++) {
            float near_ = z.a * ((float)x + 0.5f) + z_row;
            if (near_ > still[x] * 0.97f && near_ < still[x] * 1.05f)
                row[x].shaded = 1; /* the ground, a kerb up or down */
        }
    }
}

void scene_dirty(struct scene *s, int x0, int y0, int x1, int y1)
{
    x0 = MAX(x0, 0), x1 = MIN(x1, s->o.width), y0 = MAX(y0, 0), y1 = MIN(y1, s->o.height);
    if (x0 >= x1) return;
    for (int y = y0; y < y1; y++) {
        struct scene_span *p = &s->spans[y];
        if (p->lo >= p->hi)
            *p = (struct scene_span){x0, x1};
        else
            p->lo = MIN(p->lo, x0), p->hi = MAX(p->hi, x1);
    }
}

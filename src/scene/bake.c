/* Cameras, and the still world as each sees it.
 *
 * Cameras never move and the sun's place is fixed, so what a pixel of the still world looks like is a sum of four
 * parts that only change in strength and colour: light of the sky, of the sun (with all shadows that stand still), of
 * street lamps, and its own. They are cast once, four rays a pixel; a picture then costs four products a channel, and
 * none while the light stands. SPDX-License-Identifier: Apache-2.0 */
#include "scene/view.h"

void scene_camera_setup(struct scene_view *v, int index, int w, int h)
{
    static const struct {
        const char *name;
        struct v3 at, to;
        float wide; /* tangent of half the horizontal angle */
        struct v3 gain;
    } places[SCENE_MAX_CAMERAS] = {
        {"crossing", {5.2f, -8.6f, 4.8f}, {-3.6f, 4.2f, 0.4f}, 0.62f, {1, 1, 1}},
        {"shops", {-11.5f, 15.2f, 4.9f}, {1.5f, 0.8f, 0.2f}, 0.64f, {1.03f, 1, 0.95f}},
        {"parking", {33.6f, -13.2f, 5.4f}, {19.5f, -4.2f, 0.3f}, 0.6f, {0.97f, 1, 1.04f}},
        {"side street", {-14.8f, 23.5f, 5.2f}, {-20.6f, 6, 0.2f}, 0.6f, {1.02f, 1.01f, 0.97f}},
        {"junction", {-31, -7.8f, 5}, {-19, 1.5f, 0.4f}, 0.6f, {1, 1, 1.03f}},
        {"square", {24.5f, 16.1f, 4.9f}, {10, 8.6f, 0.2f}, 0.62f, {0.98f, 1, 1}},
        {"east street", {52, 6.6f, 5}, {38, -1, 0.3f}, 0.6f, {1.04f, 1, 0.98f}},
        {"west street", {-56, -6, 5}, {-42, 1.5f, 0.3f}, 0.6f, {1, 1.02f, 1}},
    };
    struct v3 at = places[index].at, z = v3_unit(v3_sub(places[index].to, at)), x = v3_unit(v3_cross(z, V3(0, 0, 1))),
              y = v3_cross(z, x);
    v->camera = (struct scene_camera){.name = places[index].name,
                                      .position = {at.x, at.y, at.z},
                                      .r = {x.x, x.y, x.z, y.x, y.y, y.z, z.x, z.y, z.z},
                                      .f = (float)w / 2 / places[index].wide,
                                      .cx = (float)w / 2,
                                      .cy = (float)h / 2};
    v->gain = places[index].gain;
}

static struct v3 ray_of(const struct scene_camera *c, float u, float v)
{
    float x = (u - c->cx) / c->f, y = (v - c->cy) / c->f;
    const float *r = c->r;
    return V3(r[0] * x + r[3] * y + r[6], r[1] * x + r[4] * y + r[7],
              r[2] * x + r[5] * y + r[8]); /* Z = 1 along it */
}

/* Adds one sample's four parts to sum; returns 1 / Z. */
static float cast(const struct scene_world *w, const struct world_set *set, const struct scene_camera *c, float u,
                  float v, struct v3 sum[4])
{
    struct v3 from = V3(c->position[0], c->position[1], c->position[2]), ray = ray_of(c, u, v);
    float len = v3_length(ray);
    struct v3 d = v3_scale(ray, 1 / len);
    struct world_hit h;
    scene_world_cast(w, set, from, d, 0.5f / c->f, &h);
    if (h.sky) {
        sum[0] = v3_add(sum[0], v3_scale(h.albedo, 1.25f));
        return 0;
    }
    struct v3 p = v3_madd(from, d, h.t), lifted = v3_madd(p, h.normal, 0.012f);
    float lit = v3_dot(h.normal, w->sun), sky = h.open * (0.72f + 0.28f * h.normal.z);
    if (lit > 0) lit *= scene_world_sun(w, lifted);
    struct v3 bounce = V3(0.05f, 0.046f, 0.04f); /* light that came from the ground or a wall */
    sum[0] = v3_add(sum[0], v3_scale(h.albedo, sky));
    sum[1] =
        v3_add(sum[1], v3_mul(h.albedo, v3_add(V3(MAX(lit, 0), MAX(lit, 0), MAX(lit, 0)), v3_scale(bounce, h.open))));
    sum[2] = v3_add(sum[2], v3_scale(h.albedo, scene_world_lamps(w, p, h.normal)));
    sum[3] = v3_add(sum[3], h.glow);
    if (h.gloss > 0) {
        struct v3 m = v3_madd(d, h.normal, -2 * v3_dot(d, h.normal));
        struct v3 seen = m.z > 0.02f ? scene_world_sky(w, m) : V3(0.2f, 0.2f, 0.19f);
        sum[0] = v3_madd(sum[0], seen, h.gloss * (m.z > 0.25f ? 1 : 0.35f + 2.6f * MAX(m.z, 0)));
    }
    return len / h.t;
}

static uint16_t light16(float x)
{
    x *= VIEW_ONE;
    return (uint16_t)(x >= 65535 ? 65535 : x);
}

static bool on_screen(const void *camera, struct v3 p, float *x, float *y)
{
    const float world[3] = {p.x, p.y, p.z};
    return scene_project(camera, world, x, y);
}

static void bake_pixel(struct scene *s, struct scene_view *v, const struct world_set *set, int x, int y)
{
    size_t w = (size_t)s->o.width, i = (size_t)y * w + (size_t)x;
    struct v3 sum[4] = {{0, 0, 0}};
    for (int k = 0; k < 4; k++) {
        int sx = 2 * x + (k & 1), sy = 2 * y + (k >> 1);
        v->near_[(size_t)sy * 2 * w + (size_t)sx] =
            cast(&s->world, set, &v->camera, ((float)sx + 0.5f) * 0.5f, ((float)sy + 0.5f) * 0.5f, sum);
    }
    for (int k = 0; k < 4; k++) {
        v->baked[k][0][i] = light16(sum[k].x * 0.25f);
        v->baked[k][1][i] = light16(sum[k].y * 0.25f);
        v->baked[k][2][i] = light16(sum[k].z * 0.25f);
    }
}

void scene_bake(struct scene *s, struct scene_view *v)
{
    enum { TILE = 16 }; /* pixels that share a list of what their rays can meet */
    struct world_rect rects[WORLD_BOXES + WORLD_TREES];
    scene_world_rects(&s->world, on_screen, &v->camera, rects);
    for (int ty = 0; ty < s->o.height; ty += TILE)
        for (int tx = 0; tx < s->o.width; tx += TILE) {
            struct world_set set = scene_world_within(&s->world, rects, (float)tx - 1, (float)ty - 1,
                                                      (float)(tx + TILE + 1), (float)(ty + TILE + 1));
            for (int y = ty; y < MIN(ty + TILE, s->o.height); y++)
                for (int x = tx; x < MIN(tx + TILE, s->o.width); x++) bake_pixel(s, v, &set, x, y);
        }
}

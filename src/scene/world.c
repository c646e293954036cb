/* What stands still, and the light on it.
 *
 * The still world is met by rays and not by triangles: it is cast once per camera, so time does not matter much, and
 * patterns (bricks, slabs, asphalt, leaves) are functions of the place, which a ray finds exactly. The ground is
 * three levels of one plane: carriageway, kerb, pavement. Everything else is a box or, for trees, a heap of balls
 * with ragged edges.
 *
 * Patterns get the footprint of a sample and fade to their mean where they would be finer than that (Norton, Rockwood
 * and Skolmoski 1982 call it clamping), or distant paving would shimmer. SPDX-License-Identifier: Apache-2.0 */
#include "scene/world.h"

#include <string.h>

enum material {
    MAT_SHOPS,
    MAT_BRICK,
    MAT_PLASTER,
    MAT_POLE,
    MAT_WOOD,
    MAT_AWNING,
    MAT_SIGN,
    MAT_TRUNK,
    MAT_PLANTER,
    MAT_METAL,
    MAT_SHELTER,
    MAT_ROOF,
    MAT_HEDGE,
    MAT_BULB
};

static void box(struct scene_world *w, int material, struct v3 lo, struct v3 hi)
{
    if (w->boxes_n == WORLD_BOXES) return;
    w->boxes[w->boxes_n] = (struct world_box){lo, hi, material, w->seed + 31 * w->boxes_n};
    w->boxes_n++;
}

static void tree(struct scene_world *w, struct rng *r, float x, float y, float h)
{
    if (w->trees_n == WORLD_TREES) return;
    struct world_tree *t = &w->trees[w->trees_n++];
    float z = scene_world_ground(x, y);
    box(w, MAT_TRUNK, V3(x - 0.14f, y - 0.14f, z), V3(x + 0.14f, y + 0.14f, z + h * 0.6f));
    *t = (struct world_tree){V3(x, y, z + h * 0.68f), h * 0.42f, rng_unit(r), w->balls_n, 0};
    for (int i = 0; i < 11 && w->balls_n < WORLD_BALLS; i++, t->count++) {
        float a = rng_range(r, 0, 2 * SCENE_PI), d = h * rng_range(r, 0.08f, 0.23f),
              up = h * rng_range(r, -0.17f, 0.2f);
        w->balls[w->balls_n++] = (struct world_ball){V3(x + d * cos_of(a), y + d * sin_of(a), t->centre.z + up),
                                                     h * rng_range(r, 0.11f, 0.17f)};
    }
}

static void lamp(struct scene_world *w, float x, float y, float towards)
{
    if (w->lamps_n == WORLD_LAMPS) return;
    float z = 5.6f, end = y + towards;
    box(w, MAT_POLE, V3(x - 0.06f, y - 0.06f, 0.1f), V3(x + 0.06f, y + 0.06f, z));
    box(w, MAT_POLE, V3(x - 0.04f, MIN(y, end), z - 0.08f), V3(x + 0.04f, MAX(y, end), z));
    box(w, MAT_POLE, V3(x - 0.13f, end - 0.3f, z - 0.06f), V3(x + 0.13f, end + 0.3f, z + 0.06f));
    box(w, MAT_BULB, V3(x - 0.1f, end - 0.26f, z - 0.1f), V3(x + 0.1f, end + 0.26f, z - 0.06f));
    w->lamps[w->lamps_n++] = V3(x, end, z - 0.15f);
}

static void bench(struct scene_world *w, float x, float y)
{
    float z = WORLD_KERB;
    box(w, MAT_WOOD, V3(x - 0.9f, y - 0.22f, z + 0.4f), V3(x + 0.9f, y + 0.22f, z + 0.46f));
    box(w, MAT_WOOD, V3(x - 0.9f, y + 0.2f, z + 0.5f), V3(x + 0.9f, y + 0.25f, z + 0.85f));
    box(w, MAT_METAL, V3(x - 0.75f, y - 0.2f, z), V3(x - 0.68f, y + 0.24f, z + 0.7f));
    box(w, MAT_METAL, V3(x + 0.68f, y - 0.2f, z), V3(x + 0.75f, y + 0.24f, z + 0.7f));
}

static void buildings(struct scene_world *w)
{
    box(w, MAT_SHOPS, V3(-14, 17, 0), V3(26, 29, 13.2f));
    box(w, MAT_BRICK, V3(-62, 7, 0), V3(-27, 20, 10.2f));
    box(w, MAT_PLASTER, V3(-62, 20.2f, 0), V3(-27, 60, 12.8f));
    box(w, MAT_PLASTER, V3(30, 7, 0), V3(62, 19, 16.4f));
    box(w, MAT_BRICK, V3(-13, 31, 0), V3(26, 60, 13.2f));
    box(w, MAT_PLASTER, V3(-62, -44, 0), V3(-25, -33, 10.2f));
    box(w, MAT_BRICK, V3(-24, -44, 0), V3(6, -33, 12.6f));
    box(w, MAT_PLASTER, V3(7, -46, 0), V3(30, -32, 16.2f));
    box(w, MAT_BRICK, V3(31, -44, 0), V3(66, -33, 10.4f));
    box(w, MAT_BRICK, V3(-40, 62, 0), V3(10, 70, 12));
    box(w, MAT_PLASTER, V3(72, -24, 0), V3(84, 20, 13));
    box(w, MAT_BRICK, V3(-84, -24, 0), V3(-73, 20, 13));
    for (int i = 0; i < 5; i++) { /* awnings over the shops */
        float x = -12.8f + 8 * (float)i;
        box(w, MAT_AWNING, V3(x, 15.6f, 2.75f), V3(x + 5.4f, 17, 2.85f));
        box(w, MAT_AWNING, V3(x, 15.6f, 2.5f), V3(x + 5.4f, 15.63f, 2.76f));
        box(w, MAT_SIGN, V3(x, 16.9f, 3), V3(x + 5.4f, 17, 3.7f));
    }
}

static void furniture(struct scene_world *w, struct rng *r)
{
    lamp(w, -42, 4.1f, -1.2f);
    lamp(w, -12, 4.1f, -1.2f);
    lamp(w, 9, 4.1f, -1.2f);
    lamp(w, 30, 4.1f, -1.2f);
    lamp(w, 55.5f, 4.1f, -1.2f);
    lamp(w, -30, -4.1f, 1.2f);
    lamp(w, -8.6f, -4.1f, 1.2f);
    lamp(w, 32.4f, -4.1f, 1.2f);
    lamp(w, 41, -4.1f, 1.2f);
    lamp(w, -24.4f, 15, 0.4f);
    lamp(w, -15.2f, 29, 0.4f);
    lamp(w, 3, 12.5f, 0.4f);
    lamp(w, 20, 12.5f, 0.4f);
    bench(w, -6, 14.4f);
    bench(w, 9.5f, 14.4f);
    bench(w, -9, -9);
    for (int i = 0; i < 4; i++) {
        float x = -10.5f + 10 * (float)i;
        box(w, MAT_PLANTER, V3(x - 1, 10, 0.12f), V3(x + 1, 11, 0.6f));
        box(w, MAT_HEDGE, V3(x - 0.9f, 10.1f, 0.6f), V3(x + 0.9f, 10.9f, 0.95f));
    }
    for (int i = 0; i < 7; i++)
        box(w, MAT_METAL, V3(-13 + 1.5f * (float)i, 6.5f, 0.1f), V3(-12.9f + 1.5f * (float)i, 6.6f, 0.95f));
    box(w, MAT_SHELTER, V3(36, 5.7f, 0.1f), V3(40, 5.78f, 2.4f)); /* a bus stop */
    box(w, MAT_METAL, V3(35.8f, 4.6f, 2.4f), V3(40.2f, 5.9f, 2.5f));
    box(w, MAT_HEDGE, V3(-58, -7.6f, 0), V3(-13, -6.9f, 0.8f));
    box(w, MAT_HEDGE, V3(34, -7.6f, 0), V3(58, -6.9f, 0.8f));
    static const float at[][3] = {
        {-14, -12, 7}, {-22, -16, 8},   {-34, -12, 7.5f}, {-46, -17, 8},   {1, -19, 7},      {12, -17, 8},
        {21, -22, 7},  {29, -17, 7.5f}, {40, -13, 7},     {50, -18, 8},    {14, 8.4f, 5.2f}, {28.2f, 9.4f, 5.4f},
        {-26, -24, 8}, {-6, -27, 8},    {36, -25, 8},     {-25.6f, 34, 6}, {-15.6f, 44, 6}};
    for (size_t i = 0; i < ARRAY_LEN(at); i++) tree(w, r, at[i][0], at[i][1], at[i][2] * rng_range(r, 0.92f, 1.08f));
}

/* Where the sun's ray through p meets z = 0. */
static bool along_sun(const void *world, struct v3 p, float *x, float *y)
{
    struct v3 sun = ((const struct scene_world *)world)->sun;
    *x = p.x - p.z * sun.x / sun.z, *y = p.y - p.z * sun.y / sun.z;
    return true;
}

void scene_world_rects(const struct scene_world *w, world_project_fn *f, const void *camera,
                       struct world_rect ret[WORLD_BOXES + WORLD_TREES])
{
    for (int i = 0; i < w->boxes_n + w->trees_n; i++) {
        const struct world_tree *t = &w->trees[MAX(i - w->boxes_n, 0)];
        float tr = t->r * 1.2f;
        bool is_box = i < w->boxes_n;
        struct v3 lo = is_box ? w->boxes[i].lo : V3(t->centre.x - tr, t->centre.y - tr, t->centre.z - tr);
        struct v3 hi = is_box ? w->boxes[i].hi : V3(t->centre.x + tr, t->centre.y + tr, t->centre.z + tr);
        struct world_rect r = {1e9f, 1e9f, -1e9f, -1e9f};
        for (int k = 0; k < 8; k++) {
            float x, y;
            if (!f(camera, V3(k & 1 ? lo.x : hi.x, k & 2 ? lo.y : hi.y, k & 4 ? lo.z : hi.z), &x, &y)) {
                r = (struct world_rect){-1e9f, -1e9f, 1e9f, 1e9f}; /* reaches behind the camera: could be anywhere */
                break;
            }
            r.x0 = MIN(r.x0, x), r.x1 = MAX(r.x1, x), r.y0 = MIN(r.y0, y), r.y1 = MAX(r.y1, y);
        }
        ret[is_box ? i : WORLD_BOXES + i - w->boxes_n] = r;
    }
}

struct world_set scene_world_within(const struct scene_world *w, const struct world_rect *rects, float x0, float y0,
                                    float x1, float y1)
{
    struct world_set s = {{0, 0, 0}};
    for (int i = 0; i < WORLD_BOXES + w->trees_n; i++) {
        if (i == w->boxes_n) i = WORLD_BOXES;
        const struct world_rect *r = &rects[i];
        if (i < WORLD_BOXES + w->trees_n && r->x0 <= x1 && r->x1 >= x0 && r->y0 <= y1 && r->y1 >= y0)
            s.bits[i / 64] |= (uint64_t)1 << (i % 64);
    }
    return s;
}

enum { SHADE_CELL = 4 };
static void make_shades(struct scene_world *w)
{
    struct world_rect rects[WORLD_BOXES + WORLD_TREES];
    scene_world_rects(w, along_sun, w, rects);
    for (int y = 0; y < WORLD_GRID; y++)
        for (int x = 0; x < WORLD_GRID; x++) {
            float fx = (float)((x - WORLD_GRID / 2) * SHADE_CELL), fy = (float)((y - WORLD_GRID / 2) * SHADE_CELL);
            w->shades[y][x] = scene_world_within(w, rects, x ? fx : -1e8f, y ? fy : -1e8f,
                                                 x < WORLD_GRID - 1 ? fx + SHADE_CELL : 1e8f,
                                                 y < WORLD_GRID - 1 ? fy + SHADE_CELL : 1e8f);
        }
}

static int grid_cell(float x)
{
    int i = (int)floorf(clampf(x, -1000, 1000) / SHADE_CELL) + WORLD_GRID / 2;
    return i < 0 ? 0 : i >= WORLD_GRID ? WORLD_GRID - 1 : i;
}

/* Calls for each thing of a set: for (struct world_set left = *set; (i = next_of(&left)) >= 0;) */
static inline int next_of(struct world_set *s)
{
    for (int k = 0; k < 3; k++)
        if (s->bits[k]) {
            int i = __builtin_ctzll(s->bits[k]);
            s->bits[k] &= s->bits[k] - 1;
            return 64 * k + i;
        }
    return -1;
}

void scene_world_init(struct scene_world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    struct rng r = {seed * 77 + 5};
    w->seed = (int)(rng_next(&r) >> 8);
    w->sun = v3_unit(V3(-0.52f, -0.62f, 0.62f));
    buildings(w);
    furniture(w, &r);
    make_shades(w);
}

/* Is (x, y) carriageway? Two kerbs at the side street's mouth are rounded. */
static bool is_road(float x, float y)
{
    if (y > -3.5f && y < 3.5f) return true;
    if (x > -23 && x < -17 && y >= 3.5f) return true;
    if (x > 6 && x < 29.4f && y > -9 && y <= -3.5f) return true;
    float cx = x < -20 ? -26 : -14, dx = x - cx, dy = y - 6.5f; /* corners of radius 3 */
    return y >= 3.5f && y < 6.5f && x > -26 && x < -14 && dx * dx + dy * dy > 9;
}

float scene_world_ground(float x, float y)
{
    return is_road(x, y) ? 0 : WORLD_KERB;
}

static float line(float x, float at, float half, float foot) /* 1 on a stripe, softened by the footprint */
{
    float d = x - at;
    if (d < 0) d = -d;
    return clampf((half - d) / MAX(foot, 0.01f) + 0.5f, 0, 1);
}

static float joint(float x, float size, float width, float foot) /* 1 on the grid lines of a paving */
{
    float u = x / size, f = (u - floorf(u)) * size;
    float d = MIN(f, size - f), wide = MAX(width, foot * 0.7f);
    return clampf((wide - d) / wide * 1.5f, 0, 1) * MIN(1, width / wide);
}

/* How much paint lies at (x, y) of the carriageway. */
static float paint(float x, float y, float foot)
{
    float p = 0, dash = x / 6 - floorf(x / 6);
    bool mouth = x > -24 && x<-16, zebra = x> - 4.6f && x < 0.6f;
    if (y > -3.6f && y < 3.6f) {
        if (!mouth && !zebra && (x < -9 || x > 5 || dash < 2)) {
            if (dash < 0.5f || (x > -10 && x < 5)) p = MAX(p, line(y, 0, 0.06f, foot));
        }
        if (!mouth && !zebra) p = MAX(p, line(y < 0 ? -y : y, 3.25f, 0.05f, foot) * (x < 6 || x > 29.4f || y > 0));
        if (x > -4.2f && x < 0.2f) {
            float u = y / 1.0f + 100.25f;
            u -= floorf(u);
            float edge = line(x, -2, 2, foot);
            p = MAX(p, clampf((0.25f - (u > 0.5f ? u - 0.5f : 0.5f - u)) / MAX(foot, 0.01f) + 0.5f, 0, 1) * edge);
        }
        if (y < 0 && y > -3.2f) p = MAX(p, line(x, -5.4f, 0.2f, foot));
        if (y > 0 && y < 3.2f) p = MAX(p, line(x, 1.4f, 0.2f, foot));
    }
    if (x > -23 && x < -17 && y > 3.5f) {
        if (y > 5.2f && y < 7.8f) { /* a second crossing */
            float u = (x - 0.25f) / 1.0f;
            u -= floorf(u);
            p = MAX(p, clampf((0.25f - (u > 0.5f ? u - 0.5f : 0.5f - u)) / MAX(foot, 0.01f) + 0.5f, 0, 1));
        } else if (y > 9.2f) {
            float d = y / 5 - floorf(y / 5);
            if (d < 0.5f) p = MAX(p, line(x, -20, 0.06f, foot));
        }
        if (x < -20 && x > -22.8f) p = MAX(p, line(y, 8.7f, 0.2f, foot));
    }
    if (y < -3.5f && x > 5.8f && x < 29.6f) {
        float u = (x - 6) / 2.6f, k = floorf(u + 0.5f);
        p = MAX(p, line(x, 6 + 2.6f * k, 0.05f, foot) * (y < -4.1f));
    }
    return p;
}

static struct v3 asphalt(int seed, float x, float y, float foot)
{
    float near_ = clampf(0.05f / MAX(foot, 0.001f), 0, 1);
    float big = fbm2(x * 0.22f, y * 0.22f, 3, seed + 1), mid = fbm2(x * 1.7f, y * 1.7f, 2, seed + 2);
    float grain = noise2(x * 23, y * 23, seed + 3) - 0.5f,
          speck = hash_unit((int)floorf(x * 41), (int)floorf(y * 41), seed + 4) - 0.5f;
    float g = 0.083f + 0.05f * (big - 0.5f) + 0.025f * (mid - 0.5f) + near_ * (0.035f * grain + 0.045f * speck);
    float yy = y < 0 ? -y : y;
    if (yy < 3.5f) { /* wheel tracks are polished, the middle of a lane is oily */
        float lane = yy - 1.75f, l = lane < 0 ? -lane : lane;
        g += 0.012f * line(l, 0.75f, 0.28f, 0.3f) - 0.016f * line(l, 0, 0.3f, 0.5f) * fbm2(x * 0.5f, y, 2, seed + 5);
    } else if (y < -3.5f) {
        g -= 0.045f * smooth(0.62f, 0.8f, fbm2(x * 0.9f, y * 0.7f, 3, seed + 6)); /* oil in the bays */
    }
    float patch = noise2(x * 0.09f + 3, y * 0.21f, seed + 7); /* repaired rectangles */
    float px = floorf(x / 7.3f), py = floorf(y / 2.4f);
    if (hash_unit((int)px, (int)py, seed + 8) > 0.86f) g *= 0.72f + 0.2f * patch;
    float crack = fbm2(x * 0.6f, y * 0.6f, 4, seed + 9) - 0.5f;
    g *= 1 - 0.5f * clampf(1 - (crack < 0 ? -crack : crack) * 130, 0, 1) * near_ * smooth(0.5f, 0.6f, big);
    float mx = x - floorf(x / 19) * 19 - 9, my = yy - 1.2f, md = mx * mx + my * my; /* manholes */
    if (md < 0.11f)
        g = md > 0.085f ? 0.035f
                        : 0.1f + 0.05f * ((int)floorf(x * 16 + 1000) & 1) - 0.03f * ((int)floorf(y * 16 + 1000) & 1);
    g = MAX(g, 0.02f);
    return V3(g, g * 0.985f, g * 0.97f);
}

static struct v3 slabs(int seed, float x, float y, float sx, float sy, float foot, struct v3 a, struct v3 b)
{
    float row = floorf(y / sy), shifted = x + (((int)row & 1) ? sx * 0.5f : 0);
    float t = hash_unit((int)floorf(shifted / sx), (int)row, seed);
    struct v3 c = v3_mix(a, b, t * clampf(sx / MAX(foot, 0.01f), 0, 1));
    float dirt = fbm2(x * 0.5f, y * 0.5f, 3, seed + 1), fine = noise2(x * 14, y * 14, seed + 2) - 0.5f;
    float k = 0.82f + 0.36f * dirt + 0.12f * fine * clampf(0.08f / MAX(foot, 0.01f), 0, 1);
    k *= 1 - 0.45f * MAX(joint(shifted, sx, 0.02f, foot), joint(y, sy, 0.02f, foot));
    if (hash_unit((int)floorf(x * 9), (int)floorf(y * 9), seed + 3) > 0.997f) k *= 0.75f; /* chewing gum */
    return v3_scale(c, k);
}

static struct v3 grass(int seed, float x, float y, float foot)
{
    float big = fbm2(x * 0.15f, y * 0.15f, 3, seed), mid = fbm2(x * 1.3f, y * 1.3f, 3, seed + 1);
    float near_ = clampf(0.07f / MAX(foot, 0.001f), 0, 1);
    float blade = (noise2(x * 17, y * 26, seed + 2) - 0.5f) * near_;
    struct v3 c = v3_mix(V3(0.055f, 0.105f, 0.028f), V3(0.13f, 0.165f, 0.05f),
                         clampf(0.2f + 1.2f * (big - 0.3f) + 0.3f * (mid - 0.5f), 0, 1));
    c = v3_scale(c, 1 + 0.5f * (mid - 0.5f) + 0.7f * blade);
    return v3_mix(c, V3(0.16f, 0.12f, 0.07f),
                  smooth(0.66f, 0.85f, fbm2(x * 0.5f + 40, y * 0.5f, 3, seed + 3)) * 0.7f);
}

static struct v3 raised(int seed, float x, float y,
                        float foot) /* what a place that is not carriageway is paved with */
{
    if (y > 6.5f && y < 17 && x > -14 && x < 30) {
        bool band = (x / 6 - floorf(x / 6)) < 0.1f;
        return band ? slabs(seed + 20, x, y, 0.6f, 0.6f, foot, V3(0.15f, 0.14f, 0.135f), V3(0.19f, 0.18f, 0.17f))
                    : slabs(seed + 21, x, y, 1.2f, 0.8f, foot, V3(0.30f, 0.27f, 0.235f), V3(0.41f, 0.375f, 0.33f));
    }
    bool south = y < 0 && (y > -6.5f ? true : (x > 3 && x < 33 && y > -12));
    bool path =
        y < -6.4f && (x + 2 + (y + 6.5f) * -0.31f) * 1 > -1.1f && (x + 2 + (y + 6.5f) * -0.31f) < 1.1f && y > -33;
    if (path) {
        float g = 0.8f + 0.4f * fbm2(x * 2, y * 2, 3, seed + 30);
        return v3_scale(V3(0.30f, 0.255f, 0.19f), g);
    }
    if (y < -6.5f && !south) return grass(seed + 40, x, y, foot);
    return slabs(seed + 22, x, y, 0.5f, 0.5f, foot, V3(0.21f, 0.205f, 0.2f), V3(0.285f, 0.28f, 0.27f));
}

static void hit_ground(const struct scene_world *w, struct v3 from, struct v3 d, float angle, struct world_hit *h)
{
    if (d.z > -1e-4f) return;
    float t = (WORLD_KERB - from.z) / d.z, x = from.x + t * d.x, y = from.y + t * d.y;
    if (t <= 0 || t > 170) return;
    float foot = angle * t / MAX(-d.z, 0.08f);
    *h = (struct world_hit){.t = t, .normal = {0, 0, 1}, .open = 1};
    if (!is_road(x, y)) {
        h->albedo = raised(w->seed, x, y, foot);
        float e = foot + 0.02f;
        if (is_road(x + 0.15f, y) || is_road(x - 0.15f, y) || is_road(x, y + 0.15f) || is_road(x, y - 0.15f))
            h->albedo =
                v3_scale(V3(0.34f, 0.335f, 0.33f), 1 - 0.4f * MAX(joint(x, 1, 0.015f, e), joint(y, 1, 0.015f, e)));
        return;
    }
    float t0 = -from.z / d.z;
    x = from.x + t0 * d.x, y = from.y + t0 * d.y;
    if (!is_road(x, y)) { /* went under the pavement: the kerb's side */
        h->albedo = V3(0.22f, 0.22f, 0.215f);
        h->normal = v3_unit(V3(-d.x, -d.y, 0.3f));
        h->open = 0.6f;
        h->t = (t + t0) * 0.5f;
        return;
    }
    h->t = t0;
    h->albedo = asphalt(w->seed, x, y, foot);
    float worn = fbm2(x * 3.1f, y * 3.1f, 3, w->seed + 60),
          p = paint(x, y, foot) * (1 - 0.75f * smooth(0.52f, 0.7f, worn));
    h->albedo = v3_mix(h->albedo, V3(0.68f, 0.68f, 0.65f), p * 0.9f);
    for (int i = 0; i < 4; i++) { /* gutters are darker */
        float e = 0.12f * (float)(i + 1);
        if (!is_road(x, y + e) || !is_road(x, y - e)) {
            h->open = 0.72f + 0.06f * (float)i;
            h->albedo = v3_scale(h->albedo, 0.8f + 0.05f * (float)i);
            break;
        }
    }
}

/* A wall with windows: u along it, z up. Glass mirrors the sky; some windows are lit at night. */
static void facade(const struct world_box *b, float u, float z, float foot, struct world_hit *h)
{
    float floor_h = 3.2f, bay = b->material == MAT_BRICK ? 2.6f : 2.9f;
    int storey = (int)floorf(z / floor_h), col = (int)floorf(u / bay);
    float fz = z - (float)storey * floor_h, fu = u - (float)col * bay;
    float near_ = clampf(0.06f / MAX(foot, 0.001f), 0, 1), dirt = fbm2(u * 0.6f, z * 0.35f, 3, b->seed);
    struct v3 wall;
    if (b->material == MAT_BRICK) {
        float row = floorf(z / 0.085f), su = u + (((int)row & 1) ? 0.12f : 0);
        float tone = hash_unit((int)floorf(su / 0.24f), (int)row, b->seed) * near_ + 0.5f * (1 - near_);
        wall = v3_mix(V3(0.21f, 0.085f, 0.055f), V3(0.33f, 0.15f, 0.1f), tone);
        if ((b->seed / 31) & 1) wall = v3_mix(wall, V3(0.3f, 0.22f, 0.14f), 0.6f);
        wall = v3_mix(wall, V3(0.33f, 0.31f, 0.28f),
                      0.7f * MAX(joint(su, 0.24f, 0.008f, foot), joint(z, 0.085f, 0.008f, foot)));
    } else {
        static const struct v3 tints[] = {
            {0.52f, 0.46f, 0.36f}, {0.42f, 0.43f, 0.44f}, {0.50f, 0.38f, 0.28f}, {0.4f, 0.45f, 0.38f}};
        wall = tints[b->material == MAT_SHOPS ? 0 : (b->seed / 31) & 3];
        wall = v3_scale(wall, 0.96f + 0.08f * noise2(u * 11, z * 11, b->seed + 1));
    }
    wall = v3_scale(wall, (0.82f + 0.3f * dirt) * (0.8f + 0.2f * smooth(0, 0.9f, z)));
    if (fz < 0.12f && storey > 0) wall = v3_scale(wall, 1.18f); /* string courses */
    float top = b->hi.z - z;
    if (top < 0.5f) wall = v3_scale(wall, top < 0.35f ? 0.62f : 1.2f);
    h->albedo = wall;
    bool shop = b->material == MAT_SHOPS && storey == 0;
    float wu = shop ? 1.32f : 0.62f, lo = shop ? 0.45f : 0.85f, hi = shop ? 2.6f : 2.6f;
    float du = fu - bay * 0.5f;
    du = du < 0 ? -du : du;
    if (du > wu + 0.08f || fz < lo - 0.1f || fz > hi + 0.1f || top < 0.6f) return;
    if (du > wu || fz < lo || fz > hi) { /* frames and sills */
        h->albedo = fz < lo ? V3(0.45f, 0.44f, 0.42f) : shop ? V3(0.06f, 0.065f, 0.07f) : V3(0.55f, 0.55f, 0.53f);
        return;
    }
    float r = hash_unit(col, storey, b->seed + 2), lit = hash_unit(col, storey, b->seed + 3);
    if (!shop && (du < 0.03f || (fz > 1.95f && fz < 2.01f))) {
        h->albedo = V3(0.5f, 0.5f, 0.48f);
        return;
    }
    h->albedo = v3_scale(V3(0.03f, 0.035f, 0.042f), 0.7f + 0.6f * r);
    h->gloss = 0.35f;
    float room = 0.55f + 0.45f * noise2(u * 1.9f, z * 1.3f, b->seed + 4);
    if (shop) { /* goods behind the glass */
        float gu = u * 1.7f, gz = z * 2.4f, tone = hash_unit((int)floorf(gu), (int)floorf(gz), b->seed + 5);
        float gap = MAX(joint(gu, 1, 0.06f, foot), joint(gz, 1, 0.1f, foot));
        struct v3 warm = v3_mix(V3(0.2f, 0.15f, 0.1f), V3(0.13f, 0.16f, 0.18f),
                                hash_unit((int)floorf(gu), (int)floorf(gz), b->seed + 6));
        struct v3 goods = v3_scale(warm, (0.25f + 0.9f * tone) * (1 - 0.8f * gap) * (fz < 1.65f ? 1 : 0.12f));
        h->albedo = v3_add(h->albedo, v3_scale(goods, 0.5f));
        h->glow = v3_add(v3_scale(V3(1, 0.86f, 0.62f), 0.22f * room + 0.3f * smooth(1.9f, 2.6f, fz)),
                         v3_scale(goods, 1.6f));
        h->gloss = 0.22f;
    } else {
        if (r > 0.55f && fz > 2.6f - 1.9f * (r - 0.5f))
            h->albedo = V3(0.42f, 0.41f, 0.37f), h->gloss = 0.12f;                               /* a blind */
        if (r < 0.25f && du > wu * 0.55f) h->albedo = V3(0.33f, 0.31f, 0.28f), h->gloss = 0.15f; /* curtains */
        if (lit > 0.68f)
            h->glow = v3_scale(lit > 0.9f ? V3(0.62f, 0.75f, 1) : V3(1, 0.78f, 0.45f), (0.16f + 0.3f * r) * room);
    }
}

static void hit_box(const struct scene_world *w, const struct world_box *b, struct v3 from, struct v3 d, float angle,
                    struct world_hit *h)
{
    struct v3 p = v3_madd(from, d, h->t), n = h->normal;
    float u = n.x != 0 ? p.y + 200 : p.x + 200, across = n.z != 0 ? p.y + 200 : p.z;
    float c = v3_dot(n, d), foot = angle * h->t / MAX(c < 0 ? -c : c, 0.1f);
    h->open = n.z > 0.5f ? 1 : n.z < -0.5f ? 0.25f : 0.62f;
    h->glow = V3(0, 0, 0), h->gloss = 0;
    switch ((enum material)b->material) {
    case MAT_SHOPS:
    case MAT_BRICK:
    case MAT_PLASTER:
        if (n.z > 0.5f)
            h->albedo = V3(0.14f, 0.13f, 0.13f);
        else
            facade(b, u, p.z, foot, h);
        return;
    case MAT_POLE: h->albedo = V3(0.09f, 0.1f, 0.1f); return;
    case MAT_METAL: h->albedo = V3(0.16f, 0.165f, 0.17f); return;
    case MAT_WOOD:
        h->albedo = v3_scale(V3(0.26f, 0.15f, 0.07f), 0.75f + 0.5f * noise2(u * 3, across * 31, b->seed));
        return;
    case MAT_TRUNK:
        h->albedo = v3_scale(V3(0.14f, 0.1f, 0.07f), 0.6f + 0.8f * noise2(u * 21, across * 4, b->seed));
        return;
    case MAT_PLANTER:
        h->albedo = v3_scale(V3(0.27f, 0.26f, 0.25f), 0.85f + 0.3f * fbm2(u * 2, across * 2, 2, b->seed));
        return;
    case MAT_HEDGE:
        h->albedo = v3_scale(V3(0.06f, 0.125f, 0.035f), 0.45f + 1.1f * fbm2(u * 7, across * 9, 3, b->seed));
        h->open *= 0.85f;
        return;
    case MAT_ROOF: h->albedo = V3(0.2f, 0.1f, 0.08f); return;
    case MAT_SHELTER: h->albedo = V3(0.05f, 0.07f, 0.07f), h->gloss = 0.3f; return;
    case MAT_BULB: h->albedo = V3(0.7f, 0.7f, 0.65f), h->glow = V3(3.2f, 2.5f, 1.5f); return;
    case MAT_AWNING: {
        static const struct v3 tints[] = {{0.48f, 0.05f, 0.05f},
                                          {0.05f, 0.2f, 0.1f},
                                          {0.08f, 0.12f, 0.34f},
                                          {0.5f, 0.27f, 0.05f},
                                          {0.28f, 0.07f, 0.2f}};
        int shop = (int)((b->lo.x + 12.81f) / 8);
        bool pale = ((int)floorf(u / 0.45f) & 1) && foot < 0.4f;
        h->albedo = pale ? V3(0.62f, 0.6f, 0.56f) : tints[(shop + w->seed) % 5];
        return;
    }
    case MAT_SIGN: {
        static const struct v3 tints[] = {{0.04f, 0.05f, 0.07f},
                                          {0.32f, 0.04f, 0.05f},
                                          {0.04f, 0.16f, 0.09f},
                                          {0.05f, 0.1f, 0.28f},
                                          {0.3f, 0.2f, 0.04f}};
        int shop = (int)((b->lo.x + 12.81f) / 8);
        float fu = p.x - b->lo.x - 0.7f, fz = (p.z - b->lo.z) / 0.7f;
        int k = (int)floorf(fu / 0.34f), cx = (int)floorf((fu / 0.34f - (float)k) * 5),
            cz = (int)floorf((fz - 0.2f) / 0.6f * 5);
        bool letter = fu > 0 && k < 12 && cx < 4 && fz > 0.2f && fz < 0.8f &&
                      hash_unit(k * 5 + MIN(cx, 3 - cx), cz, shop * 7 + w->seed) > 0.42f;
        h->albedo = letter ? V3(0.7f, 0.68f, 0.6f) : tints[(shop + w->seed + 2) % 5];
        h->glow = v3_scale(letter ? V3(1, 0.95f, 0.8f) : tints[(shop + w->seed + 2) % 5], letter ? 0.7f : 0.5f);
        return;
    }
    }
}

/* Entry of a ray into a box, or a negative number; *axis is 0 to 2, the side it enters by. */
static inline float box_entry(const struct world_box *b, struct v3 o, struct v3 inv, int *axis)
{
    float x0 = (b->lo.x - o.x) * inv.x, x1 = (b->hi.x - o.x) * inv.x;
    float y0 = (b->lo.y - o.y) * inv.y, y1 = (b->hi.y - o.y) * inv.y;
    float z0 = (b->lo.z - o.z) * inv.z, z1 = (b->hi.z - o.z) * inv.z;
    float nx = MIN(x0, x1), ny = MIN(y0, y1), nz = MIN(z0, z1);
    float in = MAX(nx, MAX(ny, nz)), out = MIN(MAX(x0, x1), MIN(MAX(y0, y1), MAX(z0, z1)));
    if (in > out || in < 0.01f) return -1;
    *axis = in == nx ? 0 : in == ny ? 1 : 2;
    return in;
}

static struct v3 inverse(struct v3 d)
{
    float e = 1e-7f;
    return V3(1 / (d.x < e && d.x > -e ? e : d.x), 1 / (d.y < e && d.y > -e ? e : d.y),
              1 / (d.z < e && d.z > -e ? e : d.z));
}

static float ball_entry(struct v3 c, float r, struct v3 o, struct v3 d)
{
    struct v3 oc = v3_sub(o, c);
    float b = v3_dot(oc, d), disc = b * b - (v3_dot(oc, oc) - r * r);
    if (disc < 0) return -1;
    return -b - sqrtf(disc);
}

static float ragged(struct v3 p) /* 0 to 1: where leaves are */
{
    return 0.5f * (noise2(p.x * 3.1f + p.z * 1.7f, p.y * 3.1f - p.z * 2.3f, 3) +
                   noise2(p.x * 7.9f - p.z * 5.1f, p.y * 7.9f + p.z * 6.7f, 4));
}

static void hit_tree(const struct scene_world *w, const struct world_tree *t, struct v3 o, struct v3 d,
                     struct world_hit *h)
{
    float near_ = ball_entry(t->centre, t->r * 1.1f, o, d);
    if (near_ < 0 || near_ > h->t) return;
    for (int k = 0; k < t->count; k++) {
        const struct world_ball *b = &w->balls[t->first + k];
        float at = ball_entry(b->centre, b->r, o, d);
        if (at < 0.01f || at > h->t) continue;
        struct v3 p = v3_madd(o, d, at), n = v3_unit(v3_sub(p, b->centre));
        float leaf = ragged(p), rim = -v3_dot(n, d);
        if (leaf < 0.47f - 0.3f * rim) continue;
        float fine = noise2(p.x * 15 + p.z * 9, p.y * 15 - p.z * 11, 5);
        struct v3 green = v3_mix(V3(0.045f, 0.105f, 0.024f), V3(0.105f, 0.155f, 0.035f), t->tint);
        *h = (struct world_hit){
            .t = at,
            .normal = v3_unit(V3(n.x + (fine - 0.5f), n.y + (leaf - 0.5f) * 1.5f, n.z + 0.5f * (fine - leaf)))};
        h->albedo = v3_scale(green, 0.45f + 1.0f * leaf + 0.5f * (fine - 0.5f));
        h->open = clampf(0.55f + 0.45f * (p.z - t->centre.z) / t->r, 0.2f, 1);
    }
}

struct v3 scene_world_sky(const struct scene_world *w, struct v3 d)
{
    float up = clampf(d.z, 0, 1), k = 1 - up;
    struct v3 c = v3_mix(V3(0.36f, 0.58f, 1.0f), V3(0.92f, 0.98f, 1.05f), k * k * k);
    float s = 1 / (up + 0.12f),
          cloud = smooth(0.5f, 0.78f, fbm2(d.x * s * 1.3f + 9, d.y * s * 1.3f, 5, w->seed + 90));
    return v3_mix(c, V3(1.15f, 1.13f, 1.1f), cloud * 0.8f * smooth(0, 0.1f, up));
}

void scene_world_cast(const struct scene_world *w, const struct world_set *set, struct v3 from, struct v3 d,
                      float angle, struct world_hit *h)
{
    *h = (struct world_hit){.t = 1000, .sky = true, .open = 1};
    hit_ground(w, from, d, angle, h);
    int best = -1;
    struct v3 inv = inverse(d);
    struct world_set left = *set;
    int i;
    while ((i = next_of(&left)) >= 0 && i < WORLD_BOXES) {
        int axis;
        float t = box_entry(&w->boxes[i], from, inv, &axis);
        if (t < 0 || t >= h->t) continue;
        h->t = t, best = i, h->sky = false;
        h->normal = axis == 0   ? V3(d.x > 0 ? -1 : 1, 0, 0)
                    : axis == 1 ? V3(0, d.y > 0 ? -1 : 1, 0)
                                : V3(0, 0, d.z > 0 ? -1 : 1);
    }
    if (best >= 0) hit_box(w, &w->boxes[best], from, d, angle, h);
    for (; i >= 0; i = next_of(&left)) hit_tree(w, &w->trees[i - WORLD_BOXES], from, d, h);
    if (h->sky)
        h->albedo = scene_world_sky(w, d);
    else if (h->normal.z > 0.9f && from.z + h->t * d.z < 0.2f) { /* the ground by a wall sees less sky */
        struct v3 p = v3_madd(from, d, h->t);
        for (int k = 0; k < 12; k++) { /* the buildings */
            const struct world_box *b = &w->boxes[k];
            float dx = MAX(MAX(b->lo.x - p.x, p.x - b->hi.x), 0), dy = MAX(MAX(b->lo.y - p.y, p.y - b->hi.y), 0);
            h->open *= 1 - 0.38f * (1 - smooth(0, 5, sqrtf(dx * dx + dy * dy)));
        }
    }
}

float scene_world_sun(const struct scene_world *w, struct v3 p)
{
    struct v3 inv = inverse(w->sun);
    float gx, gy, light = 1;
    along_sun(w, p, &gx, &gy);
    struct world_set left = w->shades[grid_cell(gy)][grid_cell(gx)];
    int i, axis;
    while ((i = next_of(&left)) >= 0 && i < WORLD_BOXES)
        if (box_entry(&w->boxes[i], p, inv, &axis) > 0) return 0;
    for (; i >= 0; i = next_of(&left)) {
        const struct world_tree *t = &w->trees[i - WORLD_BOXES];
        if (ball_entry(t->centre, t->r * 1.1f, p, w->sun) < 0) continue;
        for (int k = 0; k < t->count && light > 0.05f; k++) {
            const struct world_ball *b = &w->balls[t->first + k];
            float at = ball_entry(b->centre, b->r, p, w->sun);
            if (at >= 0.02f && ragged(v3_madd(p, w->sun, at)) > 0.40f) light *= 0.2f;
        }
    }
    return light;
}

float scene_world_lamps(const struct scene_world *w, struct v3 p, struct v3 n)
{
    float sum = 0;
    for (int i = 0; i < w->lamps_n; i++) {
        struct v3 d = v3_sub(w->lamps[i], p);
        float r2 = v3_dot(d, d);
        if (r2 > 900 || d.z < 0.1f) continue;
        float r = sqrtf(r2), down = d.z / r, lit = v3_dot(d, n) / r;
        sum += MAX(lit, 0) * (0.25f + 0.75f * down) * 17 / (r2 + 2);
    }
    return sum;
}

void scene_lighting(float hour, struct scene_lighting *ret)
{
    /* sky, sun, lamp, window, noise, beams; already times the camera's gain, which follows only in part */
    static const struct scene_lighting keys[] = {
        {{0.40f, 0.455f, 0.55f}, {1.62f, 1.46f, 1.2f}, {0, 0, 0}, {0.05f, 0.05f, 0.05f}, 1, 0},
        {{0.37f, 0.39f, 0.48f}, {1.05f, 0.7f, 0.38f}, {0, 0, 0}, {0.12f, 0.12f, 0.12f}, 1.3f, 0},
        {{0.25f, 0.26f, 0.37f}, {0.12f, 0.06f, 0.035f}, {0.34f, 0.245f, 0.145f}, {0.75f, 0.7f, 0.6f}, 2.2f, 0.8f},
        {{0.055f, 0.062f, 0.098f}, {0, 0, 0}, {0.66f, 0.5f, 0.31f}, {0.8f, 0.75f, 0.65f}, 4.2f, 1},
    };
    static const float at[] = {0, 0.5f, 1, 2};
    int i = hour < at[1] ? 0 : hour < at[2] ? 1 : 2;
    float t = clampf((hour - at[i]) / (at[i + 1] - at[i]), 0, 1);
    const struct scene_lighting *a = &keys[i], *b = &keys[i + 1];
    *ret = (struct scene_lighting){v3_mix(a->sky, b->sky, t),   v3_mix(a->sun, b->sun, t),
                                   v3_mix(a->lamp, b->lamp, t), v3_mix(a->window, b->window, t),
                                   mixf(a->noise, b->noise, t), mixf(a->beams, b->beams, t)};
}

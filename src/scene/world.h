/* Inside the room: what stands still. Streets, buildings, trees and lamps, met by rays; and the light of a moment.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "scene/maths.h"
#include "scene/scene.h"

enum { WORLD_BOXES = 160, WORLD_BALLS = 220, WORLD_TREES = 20, WORLD_LAMPS = 16, WORLD_GRID = 48 };
static const float WORLD_KERB = 0.12f;

struct world_box {
    struct v3 lo, hi;
    int material, seed;
};
struct world_ball { /* of a tree's crown */
    struct v3 centre;
    float r;
};
struct world_tree {
    struct v3 centre; /* of a ball around the whole crown */
    float r, tint;
    int first, count;
};
struct world_set { /* which boxes (bit i) and trees (bit WORLD_BOXES + i) can matter for a ray */
    uint64_t bits[3];
};
struct scene_world {
    int seed, boxes_n, balls_n, trees_n, lamps_n;
    struct v3 sun; /* unit, towards it */
    struct world_box boxes[WORLD_BOXES];
    struct world_ball balls[WORLD_BALLS];
    struct world_tree trees[WORLD_TREES];
    struct v3 lamps[WORLD_LAMPS];
    struct world_set shades[WORLD_GRID]
                           [WORLD_GRID]; /* what can shade a place, by where its ray from the sun meets z = 0 */
};
void scene_world_init(struct scene_world *w, uint64_t seed);

struct world_hit {
    float t;
    struct v3 normal, albedo, glow; /* glow: light of its own at night */
    float open;                     /* share of the sky that it sees, 0 to 1 */
    float gloss;                    /* glass: share of mirrored sky */
    bool sky;
};
/* The things whose picture in pixels (a camera's corner points, see view.h) touches a rectangle. */
typedef bool world_project_fn(const void *camera, struct v3 p, float *x, float *y);
struct world_rect {
    float x0, y0, x1, y1;
};
void scene_world_rects(const struct scene_world *w, world_project_fn *f, const void *camera,
                       struct world_rect ret[WORLD_BOXES + WORLD_TREES]);
struct world_set scene_world_within(const struct scene_world *w, const struct world_rect *rects, float x0, float y0,
                                    float x1, float y1);
/* What the ray meets first; always something (the sky). `angle`: of one sample, so that fine patterns fade out. */
void scene_world_cast(const struct scene_world *w, const struct world_set *set, struct v3 from, struct v3 dir,
                      float angle, struct world_hit *ret);
/* The share of the sun that reaches p, 0 or 1, less in leaves. */
float scene_world_sun(const struct scene_world *w, struct v3 p);
/* Street lamps' light on a surface. */
float scene_world_lamps(const struct scene_world *w, struct v3 p, struct v3 normal);
struct v3 scene_world_sky(const struct scene_world *w, struct v3 dir);
/* Height of the ground: 0, or the kerb's. */
float scene_world_ground(float x, float y);

/* The light of a moment, exposure included: colours by which the baked layers are multiplied. */
struct scene_lighting {
    struct v3 sky, sun, lamp, window;
    float noise, beams; /* of the sensor; head lamps, 0 to 1 */
};
/* hour: 0 day, 1 dusk, 2 night. */
void scene_lighting(float hour, struct scene_lighting *ret);

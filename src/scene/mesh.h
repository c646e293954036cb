/* Inside the room: the moving things as triangles, made anew for every frame. A mesh is built around its own origin
 * (x forwards, y left, z up, the ground at 0) and then placed. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "scene/maths.h"

#include <stdbool.h>

enum { MESH_VERTICES = 2400, MESH_TRIANGLES = 3200 };
enum mesh_surface { MESH_MATT, MESH_PAINT, MESH_GLASS, MESH_HEAD_LAMP, MESH_TAIL_LAMP };

struct mesh_vertex {
    struct v3 p, n, colour;
    uint8_t surface;
};
struct mesh {
    struct mesh_vertex *v; /* MESH_VERTICES */
    uint16_t (*t)[3];      /* MESH_TRIANGLES; counter-clockwise from outside */
    int nv, nt;
};

struct mesh_ring {
    struct v3 centre, a, b; /* half axes of an ellipse */
    struct v3 colour;
};
/* A closed skin over rings, ends closed. */
void scene_mesh_tube(struct mesh *m, const struct mesh_ring *rings, int n, int sides, enum mesh_surface s);
/* A straight limb from p to q, round, with radii. */
void scene_mesh_limb(struct mesh *m, struct v3 p, struct v3 q, float rp, float rq, int sides, struct v3 colour);
/* half: half axes along x, y, z; z_from (-1 to 1): how far down it goes. Tilted forwards by `tilt`. */
void scene_mesh_ball(struct mesh *m, struct v3 centre, struct v3 half, float z_from, float tilt, struct v3 colour);
/* Four corners around, flat; `out` says which side is outside. */
void scene_mesh_quad(struct mesh *m, const struct v3 c[4], struct v3 out, struct v3 colour, enum mesh_surface s);
void scene_mesh_block(struct mesh *m, struct v3 lo, struct v3 hi, struct v3 colour, enum mesh_surface s);
/* rows x cols points, smooth, not closed; normals turn away from `inside`. */
void scene_mesh_sheet(struct mesh *m, const struct v3 *p, int rows, int cols, struct v3 inside, struct v3 colour,
                      enum mesh_surface s);
/* A wheel whose axle is along y: tyre and hub. */
void scene_mesh_wheel(struct mesh *m, struct v3 centre, float r, float half_width, struct v3 hub);
void scene_mesh_disc(struct mesh *m, struct v3 centre, float r, float side, struct v3 colour); /* in the x-z plane */
/* Turns by heading about z and moves; from `first` on. */
void scene_mesh_place(struct mesh *m, int first, struct v3 at, float heading);

/* Somebody's looks, drawn by lot. Colours index the name tables below. */
struct scene_looks {
    uint8_t top, bottom, hair, skin, paint, kind;
    bool jacket, shorts, skirt, long_hair, backpack, cap, bald;
    float height, build;
};
enum figure_pose { FIGURE_WALK, FIGURE_STAND, FIGURE_RIDE };
/* phase: of the gait or the pedals, radians. */
void scene_figure(struct mesh *m, const struct scene_looks *l, enum figure_pose pose, float phase, float sway);
void scene_bicycle(struct mesh *m, const struct scene_looks *l, float phase);
enum vehicle_kind { VEHICLE_HATCHBACK, VEHICLE_SALOON, VEHICLE_ESTATE, VEHICLE_LORRY, VEHICLE_KINDS };
void scene_vehicle(struct mesh *m, const struct scene_looks *l);
float scene_vehicle_length(enum vehicle_kind kind);

struct named_colour {
    const char *name;
    struct v3 c; /* linear */
};
enum { CLOTHES_COLOURS = 12, HAIR_COLOURS = 5, PAINT_COLOURS = 10, SKINS = 5 };
extern const struct named_colour scene_clothes[CLOTHES_COLOURS], scene_hairs[HAIR_COLOURS],
    scene_paints[PAINT_COLOURS];
extern const char *const scene_vehicle_names[VEHICLE_KINDS];

/* Inside the room: a scene as it is held, and the steps of a picture.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "scene/traffic.h"
#include "scene/world.h"

enum { VIEW_ONE = 8192 }; /* of baked and linear light in 16 bits: 1.0; what is brighter than 8 is cut */

struct scene_view { /* a camera, and the still world as it sees it */
    struct scene_camera camera;
    struct v3 gain;            /* its white balance */
    uint16_t *baked[4][3];     /* sky, sun, lamps, own light; planes of w * h */
    uint16_t *still[3];        /* these four in the light of now */
    float *near_;              /* 1 / Z of 2 w * 2 h samples; 0: the sky */
    struct scene_lighting lit; /* what `still` was made with */
    bool ready;
};
struct scene_sample { /* of the picture that is being drawn; all 0 between pictures but in dirty spans */
    float near_;
    uint16_t object, stamp; /* index + 1 of the nearest; of the last that came by, seen or not */
    uint16_t rgb[3];
    uint16_t shaded; /* bit 0: something stands between it and the sun */
};
struct scene_object {
    int id;
    enum scene_class class_id;
    struct mesh mesh;
    struct v3 at;
    float heading, half_length, half_width, height, sun;
    bool lamps_on, brakes;
    struct v3 lamp_at[2];
    int lamp_n;
    /* of the camera that is being drawn */
    int seen, whole, x0, y0, x1, y1, wx0, wy0, wx1, wy1;
};
struct scene {
    struct scene_options o;
    struct mem_payer *payer;
    struct scene_world world;
    struct scene_traffic traffic;
    struct scene_view views[SCENE_MAX_CAMERAS];
    int frame, only;
    bool moved; /* meshes are older than the traffic */
    struct scene_lighting lit;
    struct scene_object *objects;
    int objects_n, objects_cap;
    struct scene_sample *samples;
    uint16_t *lin[3];
    float *ao, *beam; /* per pixel: light of the sky and the sun that is left; light of head lamps. Like samples: 1
                         and 0 between */
    struct scene_span {
        int lo, hi; /* pixels lo to hi - 1 of a row are dirty */
    } * spans;
    uint8_t *curve; /* 65536: linear to picture */
    int8_t *grain;  /* 65536 */
    struct block {
        void *p;
        size_t size;
    } blocks[32 + SCENE_MAX_CAMERAS * 20];
    int blocks_n;
};

/* Screen coordinates in samples, 1 / Z, light. */
struct raster_vertex {
    float x, y, near_;
    struct v3 c;
};
/* Covers samples; counts into `ob`. The vertices run counter-clockwise in the world, or nothing is drawn. */
void scene_raster_solid(struct scene *s, const struct scene_view *v, struct scene_object *ob,
                        const struct raster_vertex t[3]);
/* Marks samples of the ground as shaded. */
void scene_raster_shade(struct scene *s, const struct scene_view *v, const struct raster_vertex t[3]);
/* Dirty pixels; cut to the picture. */
void scene_dirty(struct scene *s, int x0, int y0, int x1, int y1);

void scene_camera_setup(struct scene_view *v, int index, int w, int h);
void scene_bake(struct scene *s, struct scene_view *v);
void scene_build_objects(struct scene *s);

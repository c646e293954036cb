/* A synthetic site: a drawn street with people and vehicles, several calibrated cameras, and exact ground truth.
 *
 * The world is a street with a zebra crossing and a side street, pavements, parking bays, a paved square before a
 * shop front, grass and trees. x is east, y north, z up, in metres; z = 0 is the carriageway. People and vehicles
 * keep one identity in all cameras; who leaves the world comes back as somebody else, with a new id.
 *
 *     struct scene_options o = SCENE_OPTIONS_DEFAULT;
 *     o.seed = 7;
 *     err e = scene_new(&o, budget, &s);
 *     for (int t = 0; !e && t < frames; t++) {             // scene_new stands at frame 0
 *         for (int c = 0; c < o.cameras; c++) e = scene_render(s, c, rgb, 3 * o.width, boxes, SCENE_MAX_BOXES, &n);
 *         scene_step(s);
 *     }
 *     scene_free(&s);
 *
 * The same options draw the same bytes on every machine (IEEE floats, no libm but sqrt and floor, own generator).
 * Bytes: payer "scene", MEM_FRAMES; per camera 30 bytes a pixel of baked light and 16 of depth. One thread per scene.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"
#include "mem/mem.h"

enum { SCENE_MAX_CAMERAS = 8, SCENE_MAX_PEOPLE = 200, SCENE_MAX_VEHICLES = 60, SCENE_MAX_BOXES = 512 };

enum scene_light { SCENE_DAY, SCENE_DUSK, SCENE_DAY_TO_DUSK, SCENE_NIGHT };
enum scene_class { SCENE_PERSON = 1, SCENE_CAR, SCENE_TRUCK, SCENE_BICYCLE }; /* a rider is a person of its own */

struct scene_options {
    uint64_t seed;
    int cameras;       /* 1 to 8; 1 and 2 see the same crossing, 3 the parking bays, 4 the side street ... */
    double seconds;    /* length; day-to-dusk is spread over it. 0.1 to 86400 */
    double fps;        /* 0.5 to 60 */
    int width, height; /* even, 64 to 1920 and 1080 */
    enum scene_light light;
    int people;   /* on foot, at any time */
    int vehicles; /* at any time, parked ones included; a bicycle brings its rider */
    double noise; /* of the sensors: 1 is mild, 0 none */
};
#define SCENE_OPTIONS_DEFAULT                                                                                        \
    {                                                                                                                \
        .seed = 1, .cameras = 4, .seconds = 20, .fps = 10, .width = 640, .height = 360, .light = SCENE_DAY,          \
        .people = 26, .vehicles = 14, .noise = 1                                                                     \
    }

struct scene;
/* ERR_USAGE for options out of range, ERR_NOMEM. Casts the still world once per camera (some tenths of a second
 * each). */
err scene_new(const struct scene_options *o, struct mem_budget *b, struct scene **ret);
/* Accepts a pointer to NULL. */
void scene_free(struct scene **s);
/* On to the next frame: everything moves by 1 / fps seconds. */
void scene_step(struct scene *s);
int scene_frame(const struct scene *s);  /* 0, 1, 2 ... */
int scene_frames(const struct scene *s); /* seconds * fps, rounded; scene_step may go on after it */

/* One object that covers at least one sample of a picture. The picture has 2 x 2 samples per pixel, so boxes are
 * exact to half a pixel; (x, y) is the top left, (0, 0) the top left of the picture. */
struct scene_box {
    int id; /* the identity, from 1 */
    enum scene_class class_id;
    float x, y, w, h;                         /* of what is seen; w = 0: all hidden */
    float whole_x, whole_y, whole_w, whole_h; /* as if nothing stood before it; cut to the picture */
    float visibility;                         /* samples seen / samples of the whole in the picture, 0 to 1 */
    int samples;                              /* seen */
};
/* Draws frame scene_frame(s) of camera 0 to cameras-1 as R G B bytes; rows are `stride` bytes apart. At most `cap`
 * boxes, in order of id; boxes may be NULL with cap 0. Calls may come in any order: the same frame gives the same
 * bytes. */
void scene_render(struct scene *s, int camera, uint8_t *rgb, int stride, struct scene_box *boxes, int cap,
                  int *ret_n);

/* A pinhole without distortion, as OpenCV has it: X_cam = R (X - position) with x right, y down, z forwards;
 * u = f X/Z + cx, v = f Y/Z + cy; the first pixel covers u 0 to 1, so its centre is 0.5. */
struct scene_camera {
    const char *name;
    float position[3], r[9]; /* rows of R */
    float f, cx, cy;
};
const struct scene_camera *scene_camera(const struct scene *s, int camera);
/* False if it is behind the camera. */
bool scene_project(const struct scene_camera *c, const float world[3], float *ret_u, float *ret_v);

/* Who somebody is. Colours are names ("dark blue"); NULL where it does not apply. */
struct scene_identity {
    int id;
    enum scene_class class_id;
    const char *kind;                /* "walker", "rider", "hatchback", "saloon", "estate", "van", "box lorry"... */
    const char *colour;              /* vehicles */
    const char *top, *bottom, *hair; /* people: colours */
    const char *top_kind, *bottom_kind; /* "jacket", "t-shirt"; "trousers", "shorts", "skirt" */
    bool backpack, parked;
    float height;                /* metres */
    int partner;                 /* rider <-> bicycle; 0: none */
    int first_frame, last_frame; /* in the world, seen or not */
    float position[3], heading;  /* now: the point on the ground under it; radians from x to y */
};
int scene_identity_count(const struct scene *s);
const struct scene_identity *scene_identity(const struct scene *s, int index); /* index = id - 1 */

/* For tests: the identity at sample (x, y) of the last picture (2 w x 2 h of them; 0: the still world) and how near
 * it is (1 / Z; 0 for the still world); and drawing one identity only (0: all). */
int scene_sample(const struct scene *s, int x, int y, float *ret_near);
void scene_only(struct scene *s, int id);
const char *scene_class_name(enum scene_class c);

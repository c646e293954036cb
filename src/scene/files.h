/* A whole scene into a folder:
 *
 *     DIR/cam1.mp4 ...            H.264
 *     DIR/calibration.json        per camera: K, R, t, position, size; the conventions are scene.h's
 *     DIR/scene.json              every parameter, and the classes' numbers
 *     DIR/truth/cam1.txt ...      MOT CSV: frame (from 1), id, x, y, w, h, 1, class, visibility; boxes of what is
 * seen, in pixels from the picture's top left (0, 0), exact to half a pixel; all hidden: no row
 *     DIR/truth/objects.json      identities: class, kind, colours, first and last frame
 *     DIR/truth/world.csv         frame, id, x, y, z, heading: metres and radians, the point on the ground
 *     DIR/truth/coco.json, DIR/images/   with coco_every: every n-th frame as JPEG, annotated as COCO does
 *
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "scene/scene.h"

struct scene_files_options {
    const char *dir; /* made, with its parents' last part; files in it are overwritten */
    int quality;     /* of the videos, 1 to 100; 0: 75 */
    int coco_every;  /* 0: no COCO */
    void (*progress)(void *user, int done, int total); /* frames; may be NULL */
    void *user;
};
struct scene_files_result {
    int frames, identities;
    long boxes;          /* rows in all of truth/cam*.txt */
    double seconds;      /* it took */
    double bake_seconds; /* of these, before the first frame */
};
/* ERR_USAGE, ERR_IO, ERR_NOMEM. What is on disk after a failure is incomplete but each video plays. */
err scene_files_write(const struct scene_options *o, const struct scene_files_options *f, struct mem_budget *b,
                      struct scene_files_result *ret);
const char *scene_light_name(enum scene_light l); /* "day-to-dusk" */
/* ERR_USAGE with the possible names. */
err scene_light_parse(const char *name, enum scene_light *ret);

/* Inside the room: who is where. People walk a graph of places, vehicles follow lanes, both give way.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "scene/mesh.h"
#include "scene/scene.h"

struct scene_person {
    int id, from, to;
    struct scene_looks looks;
    float x, y, z, heading, speed, pace, phase; /* speed: now; pace: as it likes to walk */
    float ox, oy, tx, ty;                       /* its own offset from places; where it goes now */
    float rest, waits;                          /* seconds it still stands; seconds it has waited at a kerb */
    bool standing;
};
struct scene_car {
    int id, rider; /* rider: identity of the person on a bicycle, else 0 */
    enum scene_class class_id;
    struct scene_looks looks, rider_looks;
    float x, y, heading, speed, pace, s, side, phase, stopped, stuck, length; /* stopped: seconds; stuck: of late */
    int path;                                                                 /* -1: parked */
    bool brakes;
};
struct scene_path {
    float x[200], y[200], s[200];
    int n;
};
enum { TRAFFIC_PATHS = 6 };
struct scene_traffic {
    struct rng rng;
    struct scene_person *people;
    struct scene_car *cars;
    int people_n, cars_n, frame;
    struct scene_identity *ids;
    size_t ids_n, ids_cap;
    struct scene_path paths[TRAFFIC_PATHS];
    float time;
};
/* Arrays of `people` and `cars` are the caller's and zeroed. */
void scene_traffic_init(struct scene_traffic *t, uint64_t seed, int frame_people, int frame_cars);
void scene_traffic_step(struct scene_traffic *t, float dt);
void scene_traffic_done(struct scene_traffic *t);

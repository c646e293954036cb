/* The running box: cameras + site file + lifetimes, wired into one thing.
 *
 *     engine_open     reads nothing but the site; plans every model, checks that the configuration fits, opens
 * cameras engine_start    threads run; frames flow:  camera -> pump (rate, motion gate) -> sched -> run -> head ->
 * tracker -> zones -> sinks engine_reload   a new site: what did not change goes on untouched engine_close
 *
 * `serve` looks at it through snapshots (copies, never pointers into it) and listens through a sink. All functions
 * are safe from any thread except open and close. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"
#include "engine/site.h"
#include "mem/mem.h"
#include "sched/sched.h"
#include "task/box.h"
#include "video/video.h"

#include <jansson.h>

struct engine;

struct engine_options {
    struct mem_budget *budget; /* its limit is the site's budget; NULL: the engine makes one from the site */
    bool measure_precision; /* `precision: auto` is measured now (seconds per model), not beside the running box */
    uint64_t outputs; /* bytes that what listens will take (serve_bytes): known to the sentence about the smallest budget */
    bool offline; /* pace max: every frame of every file is run, nothing is dropped; ends when all cameras ended */
};

/* The site is taken over on success. ERR_NOMEM says the smallest budget that would do. A model or camera that
 * cannot be opened fails its queries only (engine_problem rows), unless nothing at all is left. */
err engine_open(struct site *site, const struct engine_options *o, struct engine **ret);
err engine_start(struct engine *e);
/* Frames stop flowing; what was found stays to be looked at. */
void engine_stop(struct engine *e);
void engine_close(struct engine **e);
/* On failure the old site runs on, and err_text says why. The new site is taken over in any case. A new budget is applied; outputs, store,
 * precision and threads are not: a warning says that they need a new start. */
err engine_reload(struct engine *e, struct site *site);
/* All cameras ended (files that do not loop) and all items ran. */
bool engine_finished(struct engine *e);
struct mem_budget *engine_budget(struct engine *e);

/* ---- results, as they happen */

enum engine_record_kind { ENGINE_EVENT = 1, ENGINE_RESULT };

/* A track, as it is in one frame. */
struct engine_track {
    int64_t id; /* 0: detection without a confirmed track */
    struct task_box box; /* frame pixels */
    float score;
    char label[32];
    char attributes[160]; /* of a cascade: "male 0.9, backpack 0.8"; "" if none */
};
struct engine_record {
    enum engine_record_kind kind;
    const char *camera, *query;
    double time;          /* seconds since 1970 of the frame */
    double pts;
    uint64_t frame;       /* sequence number of the camera */
    int width, height;    /* of the frame */
    /* everything seen in this frame */
    int n_tracks;
    const struct engine_track *tracks;
    double latency_ms;
    /* ENGINE_EVENT: "appeared", "entered" ...; one track */
    const char *event, *zone; /* zone or line name, "" if none */
    int direction;
    double seconds;
    struct engine_track track;
    uint8_t uid[16];      /* of the event: random, the same in every output */
    const struct video_frame *picture; /* borrowed until the callback returns; may be NULL */
};
/* Called on the executor's thread, in order: must be quick (enqueue). Strings and arrays are borrowed until it
 * returns. */
typedef void engine_sink_fn(void *user, const struct engine_record *r);
/* At most 16 sinks; before engine_start. */
void engine_add_sink(struct engine *e, engine_sink_fn *fn, void *user);

/* ---- snapshots; free the arrays with free() */

struct engine_camera_row {
    char name[72];
    struct video_stats video;
    int queries;
};
size_t engine_cameras(struct engine *e, struct engine_camera_row **ret);

struct engine_query_row {
    char query[160], camera[72], model[72];
    double fps_asked, fps_run; /* run: over the last seconds */
    int priority;
    int64_t deadline_ns;
    struct sched_stream_stats stats;
    uint64_t motion_saved;     /* runs that the motion gate saved */
    uint64_t detections, events, tracks;
    char problem[256];         /* "" if healthy: why this query does not run */
};
size_t engine_queries(struct engine *e, struct engine_query_row **ret);

struct engine_model_row {
    char name[72], path[256];
    struct sched_model_stats stats;
    struct model_sizes sizes;
    char problem[256];
};
size_t engine_models(struct engine *e, struct engine_model_row **ret);

/* What is wrong with the box as a whole, one line each ("outputs: database: disk is full ..."), as JSON strings in
 * an array. */
json_t *engine_problems(struct engine *e);
/* How weights are divided under block residency: {window, kept, disk_share, stall, bandwidth, divisions, read_bytes}; null otherwise. */
json_t *engine_blocks(struct engine *e);
/* Outputs say here what is wrong with them ("" clears it); shown on the page and in /metrics. `what` is a short
 * stable word. */
void engine_set_problem(struct engine *e, const char *what, const char *sentence);

/* `brim why CAMERA`: {camera, state, decisions: [{time_ago_s, query, seq, outcome, reason, wait_ms, run_ms,
 * loaded}], queries: [...]}. */
json_t *engine_why(struct engine *e, const char *camera);
/* `brim mem`: {limit_bytes, used_bytes, peak_bytes, rss: {...}, payers: [{payer, used: {purpose: bytes}, peak:
 * ...}]}. */
json_t *engine_memory(struct engine *e);

/* The newest frame of a camera that was seen by anybody, with what was found in it; for live pictures. Asking keeps
 * the camera's frames coming for a few seconds even if no query wants them. ERR_NOT_FOUND, ERR_AGAIN. */
struct engine_picture {
    struct video_frame *frame; /* unref it */
    int n_tracks;
    struct engine_track tracks[64];
    uint64_t result_frame;     /* which frame the boxes are of */
};
err engine_picture(struct engine *e, const char *camera, struct engine_picture *ret);
/* For a picture that somebody waits for: weights leave memory until so many bytes are free, and are read again when they are needed. ERR_NOMEM: not now (a run
 * holds them: ask again), or the models could not run beside it. */
err engine_spare(struct engine *e, uint64_t bytes);

/* `brim budget BYTES`. ERR_NOMEM if not even the floor fits: nothing changes then. */
err engine_set_budget(struct engine *e, uint64_t bytes);
/* Where weights, the control socket and the default database are; free() it. */
char *engine_store_path(const struct site *s);
/* Makes the folder and those above it (mkdir -p). */
err engine_make_folders(const char *path);
double engine_uptime_s(struct engine *e);
/* The site that runs now; it lives at least until the unref, whatever is reloaded meanwhile. */
struct engine_site;
struct engine_site *engine_site_hold(struct engine *e);
const struct site *engine_site_get(const struct engine_site *s);
void engine_site_unref(struct engine_site **s);
/* The smallest budget with which every query runs at all, and its parts. */
struct engine_floor {
    uint64_t arena, scratch, code, frames, decoders, heads, other, largest_model, all_models, least_weights;
};
struct engine_floor engine_floor(struct engine *e);
uint64_t engine_floor_before_weights(const struct engine_floor *f);

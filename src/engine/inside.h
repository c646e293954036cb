/* Inside the engine: cameras, models and streams of the running box, and who may touch what.
 *
 *   pump thread      takes frames from cameras, decides by rate and motion gate, offers them to sched
 *   executor thread  (sched's) runs models; trackers, watches and cascades of a stream belong to it
 *   any thread       snapshots: under engine->lock (lists) and camera->lock (results)
 *
 * Order of locks: engine->lock, then camera->lock; the executor takes engine->lock never (a reload holds it while it waits for the run);
 * sched's own lock may be taken under either, and it calls back without it. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/thread.h"
#include "engine/engine.h"
#include "task/head.h"
#include "task/motion.h"
#include "task/tracker.h"
#include "task/zone.h"
#include "video/convert.h"
#include "weights/store.h"

enum { ENGINE_MAX_SINKS = 16, ENGINE_MAX_TRACKS = 64, ENGINE_LABELS = 128 };

/* A site lives as long as anything that was made from it. */
struct engine_site {
    struct site *site;
    int refs; /* atomic */
    bool borrowed; /* outlives the engine; not freed here */
};

struct engine_camera {
    struct engine *engine;
    char name[72];
    struct engine_site *site;
    const struct site_camera *o;
    struct video_camera *cam;
    bool max_pace;                 /* every frame waits for its streams */
    double need;                   /* last told to the camera; pump only */
    atomic_int pending;            /* items of this camera in sched */
    atomic_ullong taken;           /* frames that the pump took */
    pthread_mutex_t lock;          /* guards what follows */
    struct video_frame *picture;
    int64_t asked_ns;              /* when somebody last wanted a picture */
    int n_tracks;
    struct engine_track tracks[ENGINE_MAX_TRACKS];
    uint64_t result_frame;
};

/* A plan for one batch size, and its outputs in the head's order. */
struct engine_plan {
    struct model_plan *plan;
    struct task_output outputs[TASK_MAX_OUTPUTS];
    float *flat[TASK_MAX_OUTPUTS]; /* row-major copies, where a view is not */
    size_t flat_bytes[TASK_MAX_OUTPUTS];
};

struct engine_model {
    struct engine *engine;
    char name[72], path[256], problem[256];
    struct engine_site *site;
    const struct site_model *o;
    struct task_card *card;
    struct model *model;
    struct model_options options;  /* it was opened with */
    bool stored;                   /* its ONNX is the name of a model in the store */
    struct engine_plan one, many;  /* many: for `batch` pictures at once, if the site asks for it */
    int batch;
    struct sched_model *sched;
    size_t fixed, largest_step;    /* bytes that cannot stream; the most that one step streams */
    struct mem_payer *payer;       /* head, flat copies, converter */
    struct task_head *head;
    struct video_conv *conv;
    int n_outputs, order[TASK_MAX_OUTPUTS]; /* order: head's output k is plan output order[k] */
    uint64_t serial;               /* of this opening; guarded by engine->lock */
    struct engine_eye *_Atomic eye; /* guard_inside.h; NULL: nobody looks. Set under engine->lock, read by the executor */
};

/* What sched carries for us. */
struct engine_work {
    struct video_frame *frame;
    struct engine_camera *camera;
    struct video_rect roi;         /* cascades */
    int64_t track;
    char label[32];
};

struct engine_label {
    int64_t track, at_ns;          /* at_ns: when this track was last handed on, per cascade */
    char text[160];
};

struct engine_stream {
    struct engine_stream *next;
    struct engine *engine;
    char name[208];                /* "query@camera", of a cascade "query@camera>model" */
    struct engine_site *site;
    const struct site_query *q;
    const struct site_cascade *cascade; /* NULL: the query's own stream */
    struct engine_stream *parent;
    int camera_index;              /* in its site */
    struct engine_camera *camera;
    struct engine_model *model;    /* NULL: motion */
    struct sched_stream *sched;
    struct mem_payer *payer;
    char problem[256];             /* guarded by camera->lock */
    bool stays;                    /* of a reload under way */
    bool *wanted;                  /* per class; NULL: all */

    int64_t next_due_ns;           /* pump only */
    struct task_motion *gate;      /* pump only */
    uint8_t *thumb;
    int thumb_w, thumb_h;

    struct task_tracker *tracker;  /* executor only, down to labels */
    struct task_watch *watch;
    int watch_w, watch_h;
    int zone_of[SITE_MAX_SHAPES], line_of[SITE_MAX_SHAPES]; /* rule number to shape number */
    struct task_motion *motion;
    struct engine_stream *cascades[SITE_MAX_CASCADE];
    int64_t looked_ns;             /* when the guard last took a frame of it */
    struct engine_label labels[ENGINE_LABELS]; /* ring by track % ENGINE_LABELS; of cascades: when handed on */

    atomic_ullong motion_saved, detections, events, tracks;
    atomic_ullong runs_window[8];  /* runs per second of the clock, by second % 8 */
    atomic_llong window_second;
};

struct engine {
    struct mem_budget *budget;
    bool own_budget;
    struct sched *sched;
    struct weights_reader *reader;
    bool blocks;                   /* block residency, for as long as the engine lives */
    char *store;
    struct weights_store *models_store; /* in it */
    struct mem_payer *payer;
    void *arena, *scratch;         /* shared by all plans: one runs at a time */
    size_t arena_bytes, scratch_bytes;
    int64_t started_ns;
    struct thread_event wake;      /* frames came, or stop */
    atomic_bool stop;
    bool running;                  /* written by engine_start and engine_stop under lock */
    pthread_t pump;
    bool measure_now;              /* precision is measured while models are opened; else beside the running box (precise.c) */
    struct engine_precise *precise; /* NULL: nothing to measure */
    struct engine_jobs *jobs;      /* NULL: no kind of job was given */
    struct engine_guards *guards;  /* NULL: nothing is guarded */
    uint64_t serials;              /* of models opened; guarded by lock */
    const struct weights_fs *publish_fs; /* NULL: the system's; another for tests of disks that fail */
    const char *renew;             /* a build of now opens this model anew; NULL: none. Guarded by lock */
    int n_sinks;
    struct {
        engine_sink_fn *fn;
        void *user;
    } sinks[ENGINE_MAX_SINKS];

    pthread_mutex_t lock;          /* guards the lists below; held by the pump while it walks them */
    struct engine_site *site;
    size_t n_cameras, n_models;
    struct engine_camera **cameras;
    struct engine_model **models;
    struct engine_stream *streams; /* queries' streams, then their cascades'; NULL-terminated list */

    pthread_mutex_t problems_lock; /* guards problems; taken last, for outputs report from inside a run while a reload waits for it */
    json_t *problems;              /* object: what -> sentence */
};

/* precise.c; *ret is NULL if no model waits for a verdict */
err engine_precise_start(struct engine *e, struct engine_precise **ret);
void engine_precise_stop(struct engine_precise **p);
/* model.c: *ret is always made; on an error it has no sched model, and its problem says why. */
err engine_model_open(struct engine *e, struct engine_site *site, const struct site_model *o, struct engine_model **ret);
/* Its two halves: everything but the scheduler, without any lock; and into the scheduler. */
err engine_model_make(struct engine *e, struct engine_site *site, const struct site_model *o, struct engine_model **ret);
void engine_model_join(struct engine_model *m);
void engine_model_close(struct engine_model **m);
/* Fills the inputs from the frame (or its rectangle), runs, reads the head. Weights are resident. `map` turns network pixels into frame pixels. */
err engine_model_run(struct engine_model *m, const struct video_frame *f, const struct video_rect *roi, struct task_result *ret,
                     struct video_mapping *map);
/* `batch` pictures in one run: `fill` for each, then one run, then `read` for each. */
err engine_model_fill(struct engine_model *m, struct engine_plan *p, int item, const struct video_frame *f, const struct video_rect *roi,
                      struct video_mapping *map);
err engine_model_compute(struct engine_model *m, struct engine_plan *p);
err engine_model_read(struct engine_model *m, struct engine_plan *p, int item, struct task_result *ret);
/* stream.c: runs items of several streams of one model (sched_batch_fn) */
err engine_stream_run_batch(void *const *streams, struct sched_item *items, int n);
/* stream.c: *ret is always made; on an error it has no sched stream, and its problem says why. The camera must be open. */
err engine_stream_open(struct engine *e, struct engine_site *site, const struct site_query *q, int camera, const struct site_cascade *cascade,
                       struct engine_stream *parent, struct engine_stream **ret);
void engine_stream_close(struct engine_stream **s);
void engine_stream_offer(struct engine_stream *s, struct video_frame *f, const struct video_rect *roi, int64_t track, const char *label);
/* Says why it does not run; "" if it does. Under camera->lock. */
void engine_stream_problem(struct engine_stream *s, const char *sentence);
/* result.c: what a run found, on its way to trackers, zones, cascades and sinks. */
void engine_stream_found(struct engine_stream *s, const struct engine_work *w, const struct task_detection *d, int n);
void engine_cascade_found(struct engine_stream *s, const struct engine_work *w, const struct task_result *r);
const char *engine_label_of(const struct engine_stream *s, int class_id);
/* pump.c */
void *engine_pump(void *engine);
/* camera.c */
err engine_camera_open(struct engine *e, struct engine_site *site, const struct site_camera *o, struct engine_camera **ret);
void engine_camera_close(struct engine_camera **c);
/* report.c; with engine->lock held */
struct engine_floor engine_floor_locked(struct engine *e);
/* engine.c */
/* Gives cameras three seconds to connect, so that their frames and decoders are measured; returns how many did not. */
size_t engine_wait_for_cameras(struct engine *e);
/* Bytes that the box needs beside weights; `away`: cameras that could not be measured. */
uint64_t engine_beside_weights(struct engine *e, size_t away);
/* For `brim plan`: the site stays the caller's and must outlive the engine. */
err engine_open_borrowed(struct site *s, struct mem_budget *budget, struct engine **ret);
struct engine_site *engine_site_ref(struct engine_site *s);
void engine_emit(struct engine *e, const struct engine_record *r);
/* build.c: makes what the new site has and the old did not; keeps what is the same. old may be NULL. */
err engine_build(struct engine *e, struct engine_site *site);

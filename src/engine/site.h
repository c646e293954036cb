/* The site file: which cameras there are, which models look at them, what is wanted, and where it goes.
 *
 * docs/site.md is its reference and site.schema.json its schema. It is read into the plain structs below with every
 * name resolved to an index and every default filled in; nothing else in the engine looks at YAML. Each thing keeps
 * its node
 * (`at`), so that later errors can still say file:line:column (yaml_err). All strings belong to the site.
 *
 *     struct site *s = NULL;
 *     err e = site_load("site.yaml", &s);         // all or nothing: a wrong file changes nothing
 *     site_free(&s);                              // SIGHUP: engine/site_diff.h says what stays as it is
 *
 * Passwords are never part of an error: sentences show neither URLs nor expanded variables.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/yaml.h"
#include "video/video.h"

enum { SITE_MAX_CAMERAS = 256, SITE_MAX_MODELS = 256, SITE_MAX_QUERIES = 1024, SITE_MAX_PROBLEMS = 100 };
enum { SITE_MAX_STREAMS = 4096 }; /* queries times their cameras and cascades */
/* of one query: zones, and lines; points of a zone; steps of a cascade; labels */
enum { SITE_MAX_SHAPES = 32, SITE_MAX_POINTS = 64, SITE_MAX_CASCADE = 8, SITE_MAX_OBJECTS = 256 };

enum site_precision { SITE_F32, SITE_AUTO, SITE_BF16 };
enum { SITE_MOTION = -1 }; /* query.model: the built-in motion detector */

struct site_camera {
    const char *name;
    struct video_options video; /* name, url (a relative path is joined to the site file's folder), and all else */
    const struct yaml_node *at;
};

enum site_guarding { SITE_GUARD_AUTO, SITE_GUARD_ON, SITE_GUARD_OFF };
struct site_guard { /* of a merged model; docs/merging.md */
    enum site_guarding when; /* AUTO: if it came out of `brim merge` */
    const char *original;    /* NULL: what `brim merge` kept of it */
    int64_t every_ms;
    double target;
    int window; /* pictures */
};

struct site_model {
    const char *name, *onnx, *card; /* paths, joined to the site file's folder */
    bool pin;
    int priority; /* 0 to 9 */
    int batch;    /* pictures of several cameras in one run, at most; 1: never */
    enum site_precision precision;
    struct site_guard guard;
    const struct yaml_node *at;
};

/* A zone (3 or more points) or a line (2), in 0..1 of the picture's width and height. */
struct site_shape {
    const char *name;
    int camera; /* index; -1: every camera of the query */
    int point_count;
    float points[SITE_MAX_POINTS][2];
    int64_t stay_ms; /* zones: report a longer stay; 0: never */
    const struct yaml_node *at;
};

struct site_names { /* labels */
    bool all;
    size_t count;
    const char **items;
};

struct site_cascade {
    int model; /* index */
    struct site_names objects; /* which of the query's detections are handed on */
    int min_size;              /* least width and height of the crop in pixels of the frame */
    int max_per_frame;
    int64_t every_ms; /* per track: not again before this; 0: every frame */
    double min_score;
    double margin; /* the box is enlarged by this share on each side */
    const struct yaml_node *at;
};

struct site_motion { /* see task/motion.h */
    bool gate;
    double threshold, deviations;
    int min_pixels, width;
    int64_t hold_ms, adapt_ms;
};

enum { /* bits of site_query.events, in the order of TASK_EVENTS */
    SITE_EVENT_APPEARED = 1, SITE_EVENT_LEFT = 2, SITE_EVENT_ENTERED = 4, SITE_EVENT_EXITED = 8,
    SITE_EVENT_CROSSED = 16, SITE_EVENT_STAYED = 32, SITE_EVENT_ALL = 63
};

struct site_query {
    const char *name;
    size_t camera_count;
    int *cameras; /* indices, in the order of the file's cameras */
    int model;    /* index or SITE_MOTION */
    struct site_names objects;
    double fps;
    int deadline_ms, priority;
    double min_score; /* < 0: the card's */
    size_t zone_count, line_count, cascade_count;
    struct site_shape *zones, *lines;
    struct site_cascade *cascade;
    struct site_motion motion;
    bool track;
    unsigned events;
    bool anchor_centre;
    int64_t stay_ms, settle_ms;
    const struct yaml_node *at;
};

struct site_outputs {
    bool database_off;
    const char *database; /* NULL: in the store */
    const char *jsonl;    /* NULL: none; "-": stdout */
    const char *mot, *video; /* folders; NULL: none */
    struct site_names video_cameras;
    uint64_t pictures_keep; /* bytes of pictures of events beside the database; 0: none */
    int pictures_side;      /* their longest side */
    const char *mqtt_host; /* NULL: no MQTT */
    int mqtt_port;
    const char *mqtt_prefix, *mqtt_user, *mqtt_password;
    bool mqtt_discovery;
    uint64_t mqtt_outbox_max; /* bytes on disk */
    bool http_off;
    const char *http_host;
    int http_port; /* 0: any */
    struct site_names http_hosts; /* allowed Host names besides the address listened on */
};

/* Work of the box itself, beside its cameras (engine/job.h). */
struct site_job {
    const char *name, *kind;
    const char **words;
    size_t word_count;
    int publish;  /* index of the model that the result replaces; -1: none */
    int from, to; /* minutes since midnight between which it runs; -1: at any time */
    const struct yaml_node *at;
};

struct site {
    const char *path, *folder;
    uint64_t budget; /* 0: automatic */
    const char *store; /* NULL: the usual place */
    enum site_precision precision;
    int threads; /* 0: all cores */
    bool whole_models; /* residency: model */
    bool blind;        /* sharing: blind: the scheduler knows nothing of weights that models share; for comparisons */
    size_t camera_count, model_count, query_count;
    struct site_camera *cameras;
    struct site_model *models;
    struct site_query *queries;
    struct site_outputs outputs;
    size_t job_count;
    struct site_job *jobs;
    struct site_inside *inside;
};

/* Sentences "FILE:LINE:COL: ...", at most SITE_MAX_PROBLEMS. */
struct site_problems {
    size_t count, cap;
    char **items;
};
void site_problems_done(struct site_problems *p);

/* ERR_FORMAT (or ERR_NOT_FOUND, ERR_IO, ERR_LIMIT of the file): the first problem's sentence, and how many more. */
err site_load(const char *path, struct site **ret);
/* The same, and all sentences into `problems` (may be NULL). `text` instead of the file if not NULL. */
err site_load_all(const char *path, const char *text, size_t n, struct site_problems *problems, struct site **ret);
void site_free(struct site **s);

/* Are the labels that queries name known to their models? `labels` answers with a model's NULL-terminated labels,
 * or NULL if it cannot (then nothing is said). ERR_FORMAT if a problem was found. */
typedef const char *const *site_labels_fn(void *arg, int model);
err site_check_labels(const struct site *s, site_labels_fn *labels, void *arg, struct site_problems *problems);

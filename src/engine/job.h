/* Long work beside the cameras: a training, a merge. The box runs one job at a time, when nobody else wants the processor (SCHED_IDLE), within its
 * budget, and keeps the list in STORE/jobs, so that jobs go on after the box ended, however it ended.
 *
 *     waiting -> running -> done | failed | stopped          begin anew: engine_job_start
 *         ^---------'  paused: cameras or a smaller budget need the memory; it goes on by itself once there is room
 *
 * A job may replace models of the site while it runs (`publish`): the manager does it, at the usual priority, so that no camera waits for an idle thread.
 *
 * A kind of job is one function that works until it is done, or until *stop is set: then it keeps what it has and returns ERR_CANCELLED, and the next call
 * (`again`) goes on. It takes all memory from `budget`, which lies inside the box's: what it needs is refused if the box cannot do without it,
 * and models' weights give way before it gets it. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"
#include "mem/mem.h"

#include <jansson.h>
#include <stdatomic.h>

struct engine;

enum { ENGINE_JOB_NUMBERS = 12, ENGINE_MAX_JOBS = 32, ENGINE_JOB_WORDS = 256 };

struct engine_job_progress {
    double done, eta_s;     /* 0 to 1; seconds, below 0: unknown */
    int n;
    struct {
        const char *name;   /* static: a word of a-z and _ */
        double value;
    } numbers[ENGINE_JOB_NUMBERS];
};

/* What a job is given each time it begins or goes on. All is borrowed until `run` returns. */
struct engine_job_run {
    const char *name;
    const char *folder;     /* what relative paths among the words are relative to; absolute */
    const char *store;      /* the box's */
    const char *const *words;
    int n_words;
    bool again;             /* it ran before */
    uint64_t room;          /* bytes that the box can do without as this run begins */
    struct mem_budget *budget; /* its own: mem_budget_hold says what it needs in all, once it knows */
    const atomic_bool *stop;
    void (*tell)(struct engine_job_run *r, const struct engine_job_progress *p); /* as often as it likes, on any thread */
    /* engine_publish_all, and waits for it: on the job's thread. ERR_CANCELLED: the job is to stop, and nothing was done. */
    err (*publish)(struct engine_job_run *r, const char *const *models, const char *const *onnx, int n);
    char *result;           /* set by `run` (malloc): the ONNX file that came out of it; NULL: none */
};
struct engine_job_kind {
    const char *name;       /* "train" */
    /* Are the words in order? Without doing anything; ERR_USAGE. */
    err (*check)(const char *folder, const char *const *words, int n);
    err (*run)(struct engine_job_run *r);
    bool publishes;         /* replaces models by itself while it runs: none can be named to be replaced at the end */
    bool normal;            /* at the usual priority: for tests on a busy machine */
};

/* Before engine_start, which looks into the store and goes on with what was not done; the table must outlive the engine. Without kinds there are no jobs. */
void engine_job_kinds(struct engine *e, const struct engine_job_kind *kinds, int n);

struct engine_job_options {
    const char *name;       /* NULL: "KIND-1" and so on */
    const char *kind, *folder;
    const char *const *words;
    int n_words;
    bool of_site;           /* the site file names it; then `from` and `to` are the minutes of the day between which it runs, below 0: any */
    int from, to;
    const char *publish;    /* a model of the site, whose ONNX file is replaced by the result, and which is then opened anew; NULL: none */
};
/* ERR_USAGE, ERR_BUSY (the name is taken), ERR_LIMIT, ERR_UNSUPPORTED (this engine runs no jobs). It is on disk when this returns. */
err engine_job_add(struct engine *e, const struct engine_job_options *o, char ret_name[72]);
/* ERR_NOT_FOUND with the names there are. Stop: it keeps what it has, soon. Start: a stopped or failed one goes on. Remove: its entry, not its files; not while it runs. */
err engine_job_stop(struct engine *e, const char *name);
err engine_job_start(struct engine *e, const char *name);
err engine_job_remove(struct engine *e, const char *name);

enum engine_job_state { ENGINE_JOB_WAITING = 1, ENGINE_JOB_RUNNING, ENGINE_JOB_DONE, ENGINE_JOB_STOPPED, ENGINE_JOB_FAILED };
const char *engine_job_state_name(enum engine_job_state s);
struct engine_job_row {
    char name[72], kind[24], publish[72];
    enum engine_job_state state;
    char why[512];          /* why it waits, failed or was stopped; "" */
    uint64_t bytes, need;   /* held now; what it asked for in all when it last ran */
    int pauses;
    double done, eta_s, seconds; /* seconds: of this run */
    int n;
    struct {
        char name[24];
        double value;
    } numbers[ENGINE_JOB_NUMBERS];
};
size_t engine_jobs(struct engine *e, struct engine_job_row **ret); /* in order of birth; free() */
json_t *engine_jobs_json(struct engine *e);
/* Opens a model of the site anew with this ONNX file in the place of its own. A file is replaced and kept as FILE.before; a model of the store gets a new
 * version. If it cannot run, the old one is put back: an error. Not with engine->lock. */
err engine_publish(struct engine *e, const char *model, const char *onnx);
/* Several, one after the other, each whole; tensors that are equal in two of those in the store are marked as shared (model/share.h). One that is as before is
 * left alone. All or none: after an error the box runs what it ran, and so does the next one on this store. */
err engine_publish_all(struct engine *e, const char *const *models, const char *const *onnx, int n);

/* Inside the jobs: the list, and who touches what. The manager thread alone begins and ends runs; others set wishes under the lock and wake it.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/thread.h"
#include "engine/inside.h"
#include "engine/job.h"

enum engine_job_reason { ENGINE_JOB_GOES_ON, ENGINE_JOB_USER, ENGINE_JOB_BUDGET, ENGINE_JOB_CLOSING, ENGINE_JOB_HOURS };

struct engine_job_wish { /* models to replace, of the worker, carried out by the manager */
    enum { ENGINE_WISH_NONE, ENGINE_WISH_WAITS, ENGINE_WISH_TAKEN, ENGINE_WISH_DONE } state;
    const char *const *models, *const *onnx;
    int n;
    err result;
    char sentence[512];
};
struct engine_job {
    struct engine_job *next;
    struct engine_jobs *jobs;
    const struct engine_job_kind *kind;
    int64_t number;                /* order of birth */
    char *folder, **words;
    int n_words;
    bool began, worked;            /* it was begun once; it got so far as to tell of progress */
    int starts;                    /* begun, and neither ended nor told of progress since: a box that dies of it must not try for ever */
    bool remove;
    bool of_site;                  /* the site file names it: it goes when the file no longer does */
    int from, to;                  /* minutes of the day between which it runs; below 0: any. Guarded by jobs->lock */

    struct engine_job_run run;     /* of the worker thread */
    pthread_t thread;
    struct mem_payer *payer;       /* outside; the worker's budget lies in it */
    struct mem_budget *budget;
    atomic_bool stop;
    struct engine_job_wish wish;   /* guarded by jobs->lock; what it points to is the worker's, who waits */
    enum engine_job_reason reason; /* why stop was set; guarded by jobs->lock */
    bool refused;                  /* the box could not give what it asked for; worker only */
    err result;                    /* of the worker; read after `ended` */
    char sentence[512], refusal[512];
    atomic_bool ended;
    int64_t begun_ns, not_before_ns;
    struct engine_job_row row;     /* guarded by jobs->lock */
};

struct engine_jobs {
    struct engine *engine;
    const struct engine_job_kind *kinds;
    int n_kinds;
    char *dir;                     /* STORE/jobs */
    pthread_t manager;
    atomic_bool started, closing;
    struct thread_event wake;
    pthread_mutex_t lock;          /* guards what follows; no engine or sched lock is taken under it, only the one of problems */
    struct engine_job *list, *running;
    int64_t last_number;
    bool given_way;                /* no job begins: the budget is being changed */
};

/* job_file.c */
err engine_job_store(struct engine_job *j);          /* jobs->lock held */
err engine_job_forget(struct engine_job *j);
/* All of the folder into the list; what cannot be read is said in the log and left alone. */
void engine_jobs_load(struct engine_jobs *js);
struct engine_job *engine_job_make(struct engine_jobs *js, const struct engine_job_options *o, const struct engine_job_kind *kind, int64_t number);
void engine_job_free(struct engine_job **j);
bool engine_job_good_name(const char *name);

/* job_site.c */
/* The site's jobs are made, and those that it no longer has go. After the list was read, and whenever the site changed. Without engine->lock. */
void engine_jobs_follow_site(struct engine *e);
bool engine_job_in_hours(int from, int to, int minute);
/* Are these its hours? If not, `why` says which are. Lock held. */
bool engine_job_may_run(const struct engine_job *j, char *why, size_t size);

/* job_run.c */
void engine_job_begin(struct engine_job *j);         /* starts the worker, if it still waits */
void engine_job_end(struct engine_job *j);           /* joins it, and settles what becomes of the job */
/* What the box can do without, in bytes: its budget without what cameras, plans and the least part of the weights take. */
uint64_t engine_job_room(struct engine *e);
/* Jobs that do not fit into `budget` beside the box pause; waits until their bytes are back, 4 s at most. Without engine->lock.
 * UINT64_MAX: stays as it is; 0: all pause. None begins until engine_jobs_go_on. */
void engine_jobs_give_way(struct engine *e, uint64_t budget);
void engine_jobs_go_on(struct engine *e);
err engine_jobs_open(struct engine *e);
void engine_jobs_free(struct engine *e);
void engine_jobs_close(struct engine *e);

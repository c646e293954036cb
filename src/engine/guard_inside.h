/* Inside the guard, and who touches what.
 *
 *   guard thread   the list, windows, scores, going back; opens originals without any lock, joins them under engine->lock
 *   executor       looks at runs of the merged model and runs the original (guard_eye.c); no lock: whose a sample is says eye->state
 *   any thread     rows, under guards->lock, which is taken last
 *
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/thread.h"
#include "engine/guard.h"
#include "engine/inside.h"
#include "methods/merge_drift.h"

enum { ENGINE_GUARD_RETRY = 5 }; /* times `every`: when what failed is tried again */

/* Of the executor while IDLE and TAKEN, of the guard thread (under engine->lock) while DONE and FAILED. */
enum engine_eye_state { ENGINE_EYE_IDLE, ENGINE_EYE_TAKEN, ENGINE_EYE_DONE, ENGINE_EYE_FAILED };

/* The original beside a merged model. It lives as long as the model, which owns it. */
struct engine_eye {
    struct engine_guards *guards;
    struct engine_model *theirs;   /* the original */
    struct site_model as;          /* what it was opened with */
    char name[72];
    struct sched_stream *stream;
    struct mem_payer *payer;
    enum merge_measure measure;
    int64_t every_ns, due_ns;      /* due, round, left: executor */
    int64_t round_ns;              /* streams that were looked at since are not looked at again in this round */
    int left;                      /* in this round */
    atomic_int streams;            /* of the model it looks at */
    struct task_card our_card, their_card; /* with thresholds for measuring */
    struct task_head *our_head, *their_head;
    void *shared_arena, *shared_scratch; /* what it is bound to, if not to its own */
    void *arena, *scratch;         /* its own, if the shared ones are too small; NULL: the shared ones */
    size_t arena_bytes, scratch_bytes;

    atomic_int state;              /* enum engine_eye_state */
    struct video_frame *frame;     /* the sample; down to why */
    struct video_rect roi;
    bool whole;
    int our_class;
    struct task_output copy[TASK_MAX_OUTPUTS]; /* what the merged one gave, where outputs are compared by numbers */
    float *rows;
    size_t rows_bytes;
    int n_truth, n_found;
    struct task_ap_box truth[TASK_ALIKE_MOST], found[TASK_ALIKE_MOST];
    double wrong;
    char why[256];
};

struct engine_guard { /* one per guarded model; all but row of the guard thread */
    struct engine_guard *next;
    struct engine_guards *guards;
    uint64_t serial;               /* of the model that was looked at */
    char *file, *original;
    char *out, *member;            /* the folder of the search, and what it calls the model; NULL: none */
    int64_t tell_ns;               /* when the search is told again, if it could not be */
    int64_t examine_ns;            /* when it is examined again, if that could not be done */
    bool stored;                   /* file is a name of the store */
    int64_t attach_ns;             /* when the original is opened, or tried again */
    struct site_guard o;
    int classes;
    enum merge_measure measure;
    struct mem_payer *payer;
    struct merge_drift *drift;
    struct engine_guard_row row;   /* guarded by guards->lock */
};

struct engine_guards {
    struct engine *engine;
    pthread_t thread;
    bool started;
    atomic_bool stop;
    struct thread_event wake;
    char *record_path;             /* STORE/guard.json; guard thread */
    json_t *record;                /* model -> {file, content, time, score, target, frames, told, stopped: the search's job, until it goes on}: what went back */
    pthread_mutex_t lock;          /* guards list and rows; taken last */
    struct engine_guard *list;
};

/* guard.c */
err engine_guards_open(struct engine *e);
void engine_guards_close(struct engine *e);
void engine_guards_free(struct engine *e);

/* guard_eye.c */
/* Opens the original; takes no lock. */
err engine_eye_new(struct engine_guards *gs, struct engine_site *site, const struct site_model *o, const char *original, struct engine_eye **ret);
/* With engine->lock: from now on it looks at m's runs. ERR_NOMEM: there is no room beside the models. */
err engine_eye_join(struct engine_eye *y, struct engine_model *m);
/* Nothing of the model it looks at runs. Also for one that was not joined. */
void engine_eye_close(struct engine_eye **y);
/* How many streams of m it has to do with, after the site changed; with engine->lock. */
void engine_eye_count(struct engine_model *m);
/* m's eye, if it has one; m's streams are gone, or the executor is stopped. */
void engine_eye_leave(struct engine_model *m);
/* The shared arena is another one, and the executor is stopped. */
void engine_eye_bind(struct engine_model *m);
/* All of them go: memory is needed. With engine->lock. True: there were some. */
bool engine_eyes_leave(struct engine *e);
/* After a run of s's model on w: on the executor. */
void engine_eye_look(struct engine_stream *s, const struct engine_work *w, struct engine_plan *p, int item);

/* guard_back.c; guard thread, no lock */
void engine_guard_load(struct engine_guards *gs);
/* Is the file its original? By content; a stored model: by what was recorded when it went back. */
err engine_guard_equal(struct engine_guard *g, bool *ret);
/* NULL: it did not go back. */
const json_t *engine_guard_record(struct engine_guard *g);
void engine_guard_forget(struct engine_guard *g);
/* The folder of a search that is a job of the box, in which this member's original lies; free() it. NULL: none. */
char *engine_guard_search_of(struct engine_guards *gs, const char *member);
/* The original takes the place of the merged one. */
err engine_guard_go_back(struct engine_guard *g, const struct merge_drift_verdict *v);
/* Tells the search, and starts its job again, when the job does not run; called until it is done. */
void engine_guard_settle(struct engine_guard *g);
/* What the box says of its going back, or not, is over. */
void engine_guard_clear(struct engine_guard *g);

/* Which job runs next, on what, before when, with which weights.
 *
 * One executor owns the processor time of inference and one budget owns the memory. Work comes from *streams* (one per query and
 * camera, and one per cascade): each holds a few *items* (a frame, or a crop of one), newest wins. Items of several streams that use
 * the same model may run as one batch.
 *
 * Order: earliest deadline first; a stream whose waiting item was replaced by a newer one keeps its turn, so that too much work is shared out instead of
 * the same stream losing every time. If that would make an item of higher priority late, the latter goes first; if an item's model is not in
 * memory and one that is has an item whose run makes nobody late, the latter goes first (so that models are not swapped more often than
 * needed). An item that cannot be done before its deadline (measured run time, plus the load if the weights are not in memory)
 * is dropped and counted with that reason. A stream that would never run for that reason still gets one run every few seconds,
 * because the measurement may be old.
 *
 * Residency: whole models. When a model has to come in, the victim is the one that will be needed last (from the periods of its
 * streams; LRU would evict exactly the next one in cyclic use), never a pinned one or one of higher priority that is needed sooner.
 * While an item runs, the weights of the next one in the order are read.
 *
 * Models that share weights: a model that comes in holds what others have of it before any of them goes, so only the rest is read; what a victim shares
 * with a model that is needed sooner stays; and of models that are not in memory, one that shares more with what is there goes first if that makes
 * nobody late. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model/model.h"

struct sched;
struct sched_model;
struct sched_stream;

/* clang-format off */
#define SCHED_DROPS(X)                                                                                       \
    X(SCHED_DROP_NEWER, "a newer frame came")                                                                \
    X(SCHED_DROP_LATE, "it would have been late")                                                            \
    X(SCHED_DROP_MEMORY, "its model did not fit into the budget")                                            \
    X(SCHED_DROP_ERROR, "running it failed")                                                                 \
    X(SCHED_DROP_CLOSED, "its query was removed")
/* clang-format on */
enum sched_drop {
    SCHED_RUN = 0, /* not dropped */
#define X(id, text) id,
    SCHED_DROPS(X)
#undef X
        SCHED_DROP_COUNT
};
const char *sched_drop_text(enum sched_drop why);

struct sched_item {
    void *what;          /* the engine's: a frame reference, a crop */
    int64_t arrived_ns;  /* latency counts from here */
    uint64_t seq;
};

/* Called by the executor without any lock. */
struct sched_stream_ops {
    /* The weights of the stream's model are resident. ERR_NOMEM and others count as SCHED_DROP_ERROR. Owns item->what afterwards. */
    err (*run)(void *user, struct sched_item *item);
    /* The item will not run; owns item->what. Also called by sched_offer's thread for SCHED_DROP_NEWER. */
    void (*drop)(void *user, struct sched_item *item, enum sched_drop why);
};

struct sched_stream_options {
    const char *name;
    struct sched_model *model; /* NULL: needs no model (motion) */
    int64_t period_ns;         /* expected distance of items, for predictions; 0: unknown */
    int64_t deadline_ns;       /* from arrival; 0: none */
    int priority;              /* 0 to 9, 9 first */
    int capacity;              /* items that may wait; 1 for live video */
    const struct sched_stream_ops *ops;
    void *user;
};

struct sched_stream_stats {
    uint64_t offered, run, dropped[SCHED_DROP_COUNT];
    uint64_t late;             /* ran, but finished after the deadline */
    int64_t p50_ns, p95_ns, max_ns; /* arrival to result, of the last 512 runs */
    int64_t last_run_ns;       /* clock; 0: never */
    int waiting;
};
struct sched_model_stats {
    bool resident, pinned, impossible; /* impossible: larger than the budget leaves room for, even alone */
    int64_t run_ns, load_ns;   /* estimates in use: moving averages plus deviation */
    uint64_t loads, evictions, runs, batched; /* batched: items that ran together with others */
    size_t weight_bytes;
    size_t resident_bytes;     /* of the weights now; shared_bytes of them are paid by another model that has the same */
    size_t shared_bytes, streamed_bytes; /* streamed_bytes: of the weights, those that pass through the window in each run */
    uint64_t read_bytes;       /* from disk since the start */
    int64_t waited_ns;         /* all runs' waits for streamed weights */
};

/* A decision, for `brim why`. */
struct sched_decision {
    int64_t at_ns, wait_ns, run_ns;
    char stream[208];
    uint64_t seq;
    enum sched_drop outcome;
    bool loaded; /* weights had to be read first */
};

/* now: the clock, or NULL for clock_ns (tests have their own).
 * Until sched_free, frames and decoders that do not fit into the budget evict weights (mem_budget_set_relief): cameras close first. */
err sched_new(struct mem_budget *budget, int64_t (*now)(void *), void *now_user, struct sched **ret);
/* Stops the executor first. Streams and models must be gone. */
void sched_free(struct sched **s);
/* Nothing to do if it runs already. */
err sched_start(struct sched *s);
/* Stops after the current item; what waits stays. */
void sched_stop(struct sched *s);
/* Takes and runs (or drops) one item on this thread; false if there was nothing to do. For tests and offline runs; not beside sched_start. */
bool sched_step(struct sched *s);

/* The model is borrowed. It must have its plans made and bound; sched requests and evicts its weights. */
struct sched_model *sched_model_add(struct sched *s, struct model *m, bool pin, int priority);
/* Its streams must be gone. */
void sched_model_remove(struct sched *s, struct sched_model **m);
void sched_model_get_stats(struct sched *s, struct sched_model *m, struct sched_model_stats *ret);
/* A guest runs when there is room for it: nobody's weights go because of it, it is the first to be left out of a division, and its own weights go after each run. */
void sched_model_set_guest(struct sched *s, struct sched_model *m);
/* A measured run time to start from (a warm-up run), so that the first decisions are not blind. */
void sched_model_set_run_ns(struct sched *s, struct sched_model *m, int64_t run_ns);

/* Lets items of several streams of this model run together: `run` gets the streams' users and their items, 2 <= n <= max, all of which it
 * then owns. Used only where the batch ends before the earliest deadline in it. */
typedef err sched_batch_fn(void *const *users, struct sched_item *items, int n);
enum { SCHED_MAX_BATCH = 8 };
void sched_model_set_batch(struct sched *s, struct sched_model *m, int max, sched_batch_fn *run);

struct sched_stream *sched_stream_add(struct sched *s, const struct sched_stream_options *o);
/* Waits for a run under way, drops what waits. */
void sched_stream_remove(struct sched *s, struct sched_stream **st);
/* Hands an item over; never blocks. A full stream drops its oldest item. From any thread. */
void sched_offer(struct sched *s, struct sched_stream *st, const struct sched_item *item);
void sched_stream_get_stats(struct sched *s, struct sched_stream *st, struct sched_stream_stats *ret);

/* The last decisions about streams whose name contains `part`, newest first; returns how many were written. */
int sched_decisions(struct sched *s, const char *part, struct sched_decision *ret, int max);
/* On by default: read the next model's weights while one runs. It hides the read, and may read more often. */
void sched_set_prefetch(struct sched *s, bool on);
/* On by default: loads, evictions and the order know what models share. Off, for comparisons: blocks that happen to be in memory are still held once. */
void sched_set_sharing(struct sched *s, bool on);
/* Bytes of the budget that weights leave free from now on, for frames that could not be had; evicts at once what stands in the way. */
void sched_set_reserve(struct sched *s, uint64_t bytes);
/* For somebody who waits for so many bytes: weights leave until they are free, and do not take them for a moment. False: not now, or the `least` that weights
 * need would not fit beside them. */
bool sched_spare(struct sched *s, uint64_t bytes, uint64_t least);
/* Work asked for in the near future as a share of the executor's time (sum of run_ns / period_ns): over 1 means that frames must be dropped. */
double sched_load(struct sched *s);

/* ---- block residency (blocks.c): instead of whole models coming and going, each keeps a part and the rest streams through one window
 *
 * `payer` pays for the window, `reader` reads (both borrowed until sched_free; NULL turns it off again); `headroom`: bytes that a division
 * leaves free for what grows and shrinks (frames under way). Models take part once their plans are known. */
void sched_set_blocks(struct sched *s, struct mem_payer *payer, struct weights_reader *reader, uint64_t headroom);
/* The plans for one picture and for a batch (NULL: none), borrowed until the model is removed. */
void sched_model_set_plans(struct sched *s, struct sched_model *m, struct model_plan *one, struct model_plan *many);
/* Divide again, between two items: the budget or the site changed. */
void sched_divide(struct sched *s);
/* So many bytes that were no weights are free for good (a job ended): divide again, and do not wait until their use lies behind. */
void sched_given_back(struct sched *s, uint64_t bytes);
struct sched_blocks_stats {
    bool on;
    size_t window, kept;    /* bytes; window 0: nothing streams */
    double disk_share;      /* of the disk's time that the streams ask for */
    double stall;           /* seconds a second that runs are predicted to wait */
    double bandwidth;       /* of the disk as measured, bytes a second */
    int divisions;
};
struct sched_blocks_stats sched_blocks_get_stats(struct sched *s);

/* Nanoseconds that the executor spent running, loading (waiting for weights) since sched_new. */
void sched_times(struct sched *s, int64_t *ret_run_ns, int64_t *ret_load_ns);

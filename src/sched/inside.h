/* Inside the scheduler: its state, shared by order.c (which item), residency.c (which weights) and sched.c (threads, counters).
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "sched/sched.h"

#include <pthread.h>

enum { SCHED_LATENCIES = 512, SCHED_DECISIONS = 512 };

struct sched_estimate {
    double mean, deviation; /* ns; mean 0: not measured yet */
};

struct sched_model {
    struct sched_model *next;
    struct model *model;
    bool pinned, impossible, guest;
    int priority;
    int pins;                  /* requests of ours that hold the weights now */
    int max_batch;
    sched_batch_fn *run_batch;
    struct sched_estimate run, load;
    uint64_t evictions, runs, batched;
    struct model_plan *one, *many; /* block residency; borrowed */
    bool left_out;                 /* does not fit beside the others even if all of it streams */
    uint64_t runs_then;            /* at the last division */
    int64_t waited_ns;             /* all runs, for streamed weights */
};

struct sched_blocks {
    struct mem_payer *payer;       /* NULL: whole models */
    struct weights_reader *reader;
    struct weights_ring *ring;
    struct sched_model *ahead;     /* whose pass is open for the run after this one */
    uint64_t headroom;
    bool wanted;
    int divisions;
    int64_t divided_ns, again_ns;
    uint64_t evictions_then;
    uint64_t others[2];            /* the most that was not weights: in the last ten seconds, and in those before */
    int64_t bucket_ends_ns;
    size_t kept;
    double disk_share, stall, bandwidth;
};

struct sched_stream {
    struct sched_stream *next;
    struct sched_stream_options o;
    char name[208];
    struct sched_item *items;  /* ring of o.capacity */
    int head, waiting;
    bool running, removed;
    struct sched_estimate run;
    uint64_t offered, ran, late, dropped[SCHED_DROP_COUNT];
    int64_t since_ns;          /* it has waited without a break since then, whatever took the waiting item's place; waiting only */
    int64_t last_arrival_ns, last_run_ns, max_ns;
    int64_t latency[SCHED_LATENCIES];
};

struct sched {
    struct mem_budget *budget;
    int64_t (*now)(void *);
    void *now_user;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;     /* guards everything below and in streams and models */
    pthread_cond_t wake, idle; /* work came or stop; a run ended */
    bool stop;
    struct sched_model *models, *prefetched; /* prefetched holds one pin */
    struct sched_stream *streams;
    struct sched_decision decisions[SCHED_DECISIONS];
    uint64_t n_decisions;
    int64_t run_ns, load_ns;
    uint64_t reserve, owed;   /* bytes that weights leave free; those that a frame could not get, until then */
    int64_t owed_until_ns;
    bool no_prefetch, blind; /* blind: to what models share */
    struct sched_blocks blocks;
};

/* What to do next: run or drop the oldest item of a stream. */
struct sched_choice {
    struct sched_stream *stream; /* NULL: nothing waits */
    enum sched_drop outcome;
};

int64_t sched_clock(const struct sched *s);
void sched_estimate_add(struct sched_estimate *e, int64_t ns);
int64_t sched_estimate_ns(const struct sched_estimate *e);

/* order.c; the lock is held. */
struct sched_choice sched_choose(struct sched *s, int64_t now);
/* When the model is needed next: now if an item waits, else when one is expected; INT64_MAX: never. */
int64_t sched_next_need(const struct sched *s, const struct sched_model *m, int64_t now);
/* The time of one run of the stream's next item; with the load if the weights are not there. */
int64_t sched_cost(const struct sched *s, const struct sched_stream *st, bool with_load);
const struct sched_item *sched_first(const struct sched_stream *st);
int64_t sched_deadline(const struct sched_stream *st);
/* Whose turn it is: the deadline of the item with which the stream began to wait. */
int64_t sched_turn(const struct sched_stream *st);

/* Bytes of the model that others hold in memory, while it is not: what reading it now would save. */
size_t sched_shared_now(const struct sched *s, const struct sched_model *m);

/* residency.c. `acquire` takes the lock itself, may block on a read, and pins once; `prefetch` only starts reads. */
err sched_acquire(struct sched *s, struct sched_model *m, bool *ret_loaded);
void sched_prefetch(struct sched *s, const struct sched_model *running, int64_t now);
void sched_forget_prefetch(struct sched *s);
/* mem_relief_fn: takes the lock; evicts for a frame or a decoder. */
bool sched_give_way(void *sched, uint64_t bytes);
/* Lock held: bytes that weights and the window take now. */
uint64_t sched_weights_now(const struct sched *s);
/* Lock held: evicts until `reserve` bytes are free or nothing is left to evict. */
void sched_make_room(struct sched *s, int64_t now);
/* Evicts the one victim that is needed last; false: there is none. */
bool sched_evict_one(struct sched *s, int64_t now);
/* The model that will be needed first by what is expected, or NULL. */
struct sched_model *sched_needed_next(struct sched *s, int64_t now);

/* blocks.c; the lock is held */
bool sched_blocks_on(const struct sched *s);
void sched_blocks_divide(struct sched *s);
void sched_blocks_keep_up(struct sched *s);
void sched_blocks_begin(struct sched *s, struct sched_model *m, int batch, int64_t now);
void sched_blocks_end(struct sched_model *m, int batch);
void sched_blocks_forget(struct sched *s, const struct sched_model *m);
void sched_blocks_free(struct sched *s); /* without it */

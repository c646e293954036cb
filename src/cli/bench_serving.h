/* Inside `brim bench serving`: one workload, its models, and how it is run: live, or rehearsed. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "sched/rehearse.h"
#include "weights/store.h"

enum { SERVING_MOST = 16, SERVING_ROUNDS = 12 };

/* One model and its stream of frames. */
struct serving_query {
    struct serving *w;
    char *arch, *name;     /* name: of the stored model, originals */
    int classes, size;
    double rate;           /* frames a second in proportion to the other queries */
    /* of the models that are open now: */
    struct model *model;
    struct model_plan *plan;
    int64_t *step_ns;      /* mean */
    double run_ns[SERVING_ROUNDS]; /* measured, input included; ascending */
    double slower;         /* how much longer a run takes while weights are read */
    int64_t *at_ns;        /* when frames come */
    size_t frames;
    /* of all: */
    double median_ns, period_ns; /* of the original */
    size_t bytes[2];       /* packed weights: original, merged */
};

struct serving {
    char *folder;
    int n, threads;
    struct serving_query q[SERVING_MOST];
    double pace, load, deadline_ns, warm;
    double seconds;        /* of the coming run, after the warm-up */
    uint64_t seed;         /* of the coming run: when frames come, which times are drawn */
    struct weights_store *store;
    struct mem_budget *budget;
    struct mem_payer *payer, *window;
    struct weights_reader *reader;
    void *arena, *scratch;
    size_t arena_bytes, scratch_bytes;
    bool merged;           /* which models are open */
    double evict_ns;       /* a byte */
    uint64_t base;         /* of the budget with all weights evicted */
    size_t least, all;     /* bytes of weights: the largest model alone; all originals */
    size_t bound, numbers; /* what sharing all equal layers saves, of so many */
    uint64_t once[2];      /* packed bytes with equal blocks once: originals, merged */
};

/* bench_serving_models.c: makes originals and merged models and puts them into the store. */
err serving_make(struct serving *w);
/* Opens the originals or the merged ones, and measures how long they take. */
err serving_open(struct serving *w, bool merged, bool measured);
void serving_close(struct serving *w);
/* One frame: fills the input and runs. step_ns: as model_plan_run. */
err serving_compute(struct serving_query *q, int64_t *step_ns);

/* ---- bench_serving_run.c */


struct serving_run {
    bool blind, blocks;
    double setting;        /* share of the way from the largest model to all of them; negative: no limit */
};
struct serving_counts {
    int offered, in_time, late, dropped[SCHED_DROP_COUNT];
};
struct serving_outcome {
    struct serving_counts streams[SERVING_MOST]; /* of frames that came after the warm-up */
    uint64_t bytes, loads, peak, limit; /* read, models loaded, of the budget's weights */
    double load_s, run_s;  /* of the executor */
    struct sched_blocks_stats blocks;
};
/* Really, against the clock; or in a time of its own, with the run times that were measured. */
err serving_run(struct serving *w, const struct serving_run *r, bool rehearsed, struct serving_outcome *ret);

/* One model that can run: graph + weights + kernels + memory plan.
 *
 *     model_open      reads the ONNX file
 *     model_plan_new  specialises the graph to shapes, chooses kernels and layouts, packs weights, computes every offset
 *     reserve / bind  gives the plan its arena: its own, or one that many plans share because they run one after the other
 *     model_request + model_wait ... model_release   the weights are in memory in between
 *     model_plan_run  no budgeted allocation, no lock
 *
 * A model may have several plans (batch sizes); equal packed weights are held once. All calls on one model come from one thread at a
 * time; different models are independent. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"
#include "model/blocks.h"
#include "weights/weights.h"

#include <stdatomic.h>

struct model;
struct weights_store;
struct model_plan;

/* Cutting always, whatever the budget, keeps the bits of the results the same at every budget; it costs no time that could be measured. At 3 MiB
 * they are also the same on one thread and on two (oneDNN splits sums of very narrow parts differently). */
enum { MODEL_SLICE = 3 << 20 };

struct model_options {
    struct mem_budget *budget;         /* pays for weights, code and the plan's own arena */
    enum kernel_precision precision;   /* 0: KERNEL_F32. BF16 and AUTO are F32 where the machine has no bf16; AUTO: as much of it as keeps every output's
                                          ||a - b|| / ||a|| within 0.03 of f32's, if that is faster (measured once per model and kept in spill_dir, else in verdict_dir) */
    int threads;                       /* 0: all processors */
    float sample_range[2];             /* KERNEL_AUTO: what inputs hold, from and to; both 0: not known, [0, 1] and [0, 255] are tried */
    bool precision_later;              /* AUTO without a verdict runs in f32, and nothing is measured: model_precision_pending */
    bool precision_in_budget;          /* what measuring takes comes from `budget`, even with a spill_dir; too little: f32, no verdict */
    const atomic_bool *stop;           /* NULL, or ends measuring early with ERR_CANCELLED */
    bool only_ref;                     /* plain C kernels only */
    bool no_rewrites;
    struct weights_reader *reader;     /* both NULL: weights stay in memory for good */
    size_t slice_bytes;                /* larger weights are cut along the output channel; 0: MODEL_SLICE */
    const char *spill_dir;             /* where packed weights lie when they are not resident, and what an import computes */
    const char *verdict_dir;           /* NULL: what was measured for AUTO is forgotten, unless there is a spill_dir. Is made; never an error */
};
/* Where a user's verdicts lie: $BRIM_CACHE, else $XDG_CACHE_HOME/brim, else ~/.cache/brim; free(). NULL: nowhere (BRIM_CACHE is empty). */
char *model_cache_dir(void);

struct model_io {
    const char *name;
    enum tensor_dtype dtype;
    struct tensor_shape shape; /* of an open model: may hold symbols */
};

/* A model of a weight store (weights/store.h), with a reader and a spill directory: what was packed once is not packed again, nor are the ONNX numbers
 * read then. It counts as used until model_free; the store must outlive it. */
err model_open_stored(struct weights_store *store, const char *stored, const char *name, const struct model_options *o, struct model **ret);
/* "", or why packed weights could not be kept for the next start (which packs again then). */
const char *model_stored_problem(const struct model *m);
err model_open(const char *path, const char *name, const struct model_options *o, struct model **ret);
/* Takes the graph over, also on failure. For graphs built in memory. */
err model_from_graph(struct graph *g, const char *name, const struct model_options *o, struct model **ret);
/* All plans must be gone, and all pins. */
void model_free(struct model **m);
const char *model_name(const struct model *m);
int model_input_count(const struct model *m);
int model_output_count(const struct model *m);
struct model_io model_input(const struct model *m, int i);
struct model_io model_output(const struct model *m, int i);
const struct graph *model_graph(const struct model *m);
/* AUTO, but it was not measured: precision_later, or the budget had no room. Known once it has a plan. */
bool model_precision_pending(const struct model *m);
/* What it runs in: F32, BF16, or AUTO if a part is bf16. Known once it has a plan. */
enum kernel_precision model_precision(const struct model *m);
/* Packed weights of all plans so far. */
size_t model_weight_bytes(const struct model *m);
struct weights_set *model_weights(const struct model *m);
struct weights_reader *model_weights_reader(const struct model *m);
struct mem_budget *model_budget(const struct model *m);

err model_request(struct model *m); /* weights_request: pins, or ERR_NOMEM */
err model_wait(struct model *m);
void model_release(struct model *m);
err model_evict(struct model *m);

/* input_shapes: one per input, or NULL for those of the file (a symbolic batch becomes 1). */
err model_plan_new(struct model *m, const struct tensor_shape *input_shapes, struct model_plan **ret);
void model_plan_free(struct model_plan **p);

struct model_sizes {
    size_t activations;    /* the arena */
    size_t activations_lower_bound; /* largest set of values that live at one moment */
    size_t scratch, code, weights;
    int64_t flops;
    int steps, ref_steps;  /* kernel calls of a run; how many of them in plain C */
    int views;             /* nodes that cost nothing */
    int copies;            /* layout changes the planner had to insert */
};
struct model_sizes model_plan_sizes(const struct model_plan *p);

err model_plan_reserve(struct model_plan *p);
/* The arena and scratch stay the caller's; 64-byte aligned, at least as large as model_plan_sizes says. */
void model_plan_bind(struct model_plan *p, void *activations, void *scratch);
/* Views into the arena: fill the inputs before a run (their strides may be channels-last!), read the outputs before the next. */
struct tensor model_plan_input(const struct model_plan *p, int i);
struct tensor model_plan_output(const struct model_plan *p, int i);
/* Weights must be resident. `step_ns`: NULL, or room for `steps` numbers that get the time of each added. */
err model_plan_run(struct model_plan *p, int64_t *step_ns);
/* Row-major <-> strided: copies a whole tensor between two views of equal shape and type. */
err model_copy(const struct tensor *from, const struct tensor *to);

/* For `brim explain`: one row per kernel call. */
struct model_step_info {
    const char *op, *name, *kernel, *implementation;
    struct tensor out;
    int64_t flops;
    size_t weight_bytes, scratch_bytes, code_bytes;
    int n_post;
    const char *shared;   /* the name of its weight, if that is kept as other models have it; else NULL */
    size_t shared_bytes;  /* of weight_bytes */
};
struct model_step_info model_plan_step(const struct model_plan *p, int step);

/* ---- weights that do not all fit: block plans (model/blocks.h), for models with a spill directory
 *
 * With a ring set, a run brings what is not kept through it; without one everything is kept. The step times that a block plan is made from
 * are measured at every run with a ring; before the first they are guessed. */
/* `ring` is borrowed until the next call or model_free, and may serve many models whose runs follow each other. */
void model_set_ring(struct model *m, struct weights_ring *ring);
/* A division of `bytes` (all weights: kept, and the window) at `bandwidth` bytes a second. Free with blocks_done. */
err model_blocks_make(struct model_plan *p, size_t bytes, double bandwidth, struct blocks_plan *ret);
/* What blocks_make and blocks_divide want to know of this plan (`bytes` is left 0); it owns what `problem` points to. */
struct model_blocks_problem {
    struct blocks_problem problem;
    struct blocks_use *uses;
    size_t *live;
};
void model_blocks_problem(struct model_plan *p, double bandwidth, struct model_blocks_problem *ret);
void model_blocks_problem_done(struct model_blocks_problem *b);
/* The least bytes with which that succeeds. */
size_t model_blocks_least(struct model_plan *p);
/* Keeps what the plan keeps from the next request and run on; what stays is not read again. The ring must hold plan->window. ERR_BUSY: pinned. */
err model_blocks_apply(struct model_plan *p, const struct blocks_plan *plan);
/* Starts to read for the next run of this plan. Runs must then come in the order of these calls; forget drops it. */
err model_plan_ahead(struct model_plan *p);
void model_plan_forget_ahead(struct model_plan *p);
/* Opens the pass of the coming run now, so that one for the run after it may be opened before it begins; end gives it up if no run took it. */
err model_plan_begin(struct model_plan *p);
void model_plan_end(struct model_plan *p);
/* How long the last run waited for weights. */
int64_t model_plan_wait_ns(const struct model_plan *p);
bool model_step_streams(const struct model_plan *p, int step);
/* Step times that were measured before (one per step), for the first division. */
void model_plan_set_step_ns(struct model_plan *p, const int64_t *step_ns);
/* model_plan_run as it would be: waits for weights that stream, and turns the clock by each step's time; computes nothing (weights/weights.h, rehearsals). */
err model_plan_rehearse(struct model_plan *p, const int64_t *step_ns, struct weights_clock *clock);

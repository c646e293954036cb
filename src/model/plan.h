/* Inside the model room: what a plan is made of. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model/model.h"

#include <stdatomic.h>

/* A weight of the model: packed once for all plans that want the same form of the same bytes. */
struct model_weight {
    uint64_t hash;       /* of the constant's bytes */
    size_t bytes;        /* packed */
    char *format;
    int extent;
};

/* How much of a model is in bf16 (choose.c). */
struct model_choice {
    bool known, half;
    bool pending;     /* f32 without a verdict */
    int groups;       /* into so many the operators that gain are cut, in their order; at most 32 */
    unsigned keep;    /* bit i: group i stays in f32 */
    double error, ms_f32, ms;
};

struct model {
    char *name;
    struct model_options options;
    char *spill_dir, *verdict_dir;
    struct mem_payer *payer;         /* weights, code, own arenas */
    struct mem_budget *import;       /* what the import computes; backed by files if there is a spill directory */
    struct mem_payer *import_payer;
    struct graph *graph;             /* as read */
    struct weights_set *weights;
    bool filling;
    size_t n_weights, cap_weights;
    struct model_weight *table;
    int n_plans;
    bool half; /* products in training may round to bf16 (training.c) */
    int first_external, first_external_out; /* inputs, outputs from these on lie outside arenas; INT32_MAX: none */
    struct model_stored *stored;     /* NULL: not of a weight store (stored.c) */
    struct model_choice choice;      /* with KERNEL_AUTO */
    struct weights_ring *ring;       /* borrowed; NULL: nothing streams */
    uint64_t generation;             /* of what is kept; passes of an older one are of no use */
};

/* Memory of the arena: one per value that is not a view or constant. */
struct model_slot {
    size_t bytes, offset;
    int first, last; /* steps; -1: written before the run; n_steps: read after it */
    bool external;   /* not in the arena: `at` is the owner's (model_plan_bind_input) */
    void *at;
};

/* A value as the plan sees it: a view into a slot, or a constant. */
struct model_value {
    struct tensor t;      /* data: constant bytes or NULL */
    int slot;             /* -1: constant or absent */
    int64_t start;        /* elements from the slot's first byte */
    int copy[3];          /* the copy of this value in another layout: see copy_for (0: none, else 1 + value) */
    struct tensor_shape actual; /* of a bounded value, after a run */
    bool loose;           /* made by a loose step: it lives in `cell` (dynamic.h), up to last_step */
    int last_step;
    struct model_cell *cell;
};

struct model_operand {
    int slot;      /* >= 0: arena; -1: weight; -2: absent */
    size_t offset; /* bytes in the slot */
    int extent;
    int use;       /* weights that can stream: 1 + number in model_stream.uses; else 0 */
    int bounded;   /* outputs whose size depends on data: 1 + value; else 0 */
};

/* How a step runs in parts of the batch (parts.c). */
struct model_split {
    int parts;                               /* 0: in one */
    size_t in[KERNEL_MAX_POST + 3], out;     /* bytes from part to part; 0: the same for all */
    size_t sum[2];                           /* floats of outputs that are sums over the batch; 0: parts lie side by side */
};

struct model_step {
    const struct kernel_class *class;
    struct kernel_state *state;
    struct op_node *node;      /* borrowed from the graph, or `own` */
    struct op_node *own;       /* of a copy that the planner inserted, else NULL */
    int out_value;             /* the first, for explain */
    int n_in, n_out, n_post;
    struct model_loose *loose; /* runs with the sizes that it meets; no state, no out */
    int n_own;
    struct model_operand *in, *out;
    int64_t flops;
    size_t weight_bytes;
    struct model_split split;
};

/* One use of an extent that can stream. */
struct model_use {
    int step, extent;
    size_t bytes;
    bool only;      /* the run's only use of the extent */
    int k;          /* place in the pass under way; -1: kept */
    const void *at; /* set by model_stream_step */
};

struct model_stream {
    int n_uses, next;            /* next: first use of the step that runs */
    struct model_use *uses;
    int *list;
    struct weights_pass *now, *ahead;
    uint64_t generation;         /* of ahead */
    bool begun, measured;        /* begun: `now` is open (or nothing streams) */
    int64_t *step_ns, wait_ns;
};

struct model_plan {
    struct model *model;
    int threads;                 /* what kernels are prepared for: the option, or 1 */
    struct model_stream *stream; /* made when first needed */
    struct graph *graph;       /* specialised; nodes live here */
    size_t n_values, cap_values;
    struct model_value *values;
    size_t n_slots, cap_slots;
    struct model_slot *slots;
    size_t n_steps, cap_steps;
    struct model_step *steps;
    struct model_sizes sizes;
    unsigned char *arena, *scratch;
    int n_loose;
    const atomic_bool *stop;   /* training.c: a run ends before its next step; NULL: never */
    bool own;                  /* arena and scratch are ours */
};

/* model.c: one step; the error names it. */
err model_run_step(struct model_plan *p, struct model_step *s);
/* stored.c: models of the weight store. */
err model_stored_plan(struct model *m, const struct tensor_shape *shapes, struct model_plan *p);
/* A constant of a plan: true if its extent (s->in[i]) is known from a packed copy, so that nothing has to be packed. */
err model_stored_place(struct model *m, size_t bytes, const char *format, bool *ret_known, int *ret_extent);
void model_stored_placed(struct model *m, int extent);
void model_stored_free(struct model *m);
/* Equal for equal manifests. */
uint64_t model_stored_hash(const struct model *m);
/* choose.c. With KERNEL_AUTO: is the choice made, here or at an earlier start? g: any form of the model's graph if it is a stored one. */
bool model_choice_known(struct model *m, const struct graph *g);
/* Makes it, from a graph with all its numbers. */
err model_choose(struct model *m, const struct graph *g, const struct tensor_shape *shapes);
/* One flag per node; free(). */
bool *model_choice_flags(const struct graph *g, const struct model_choice *c);
/* model.c: specialised, rewritten, sliced; in f32. */
err model_make_ready(struct model *m, const struct graph *g, const struct tensor_shape *shapes, struct graph **ret);
/* model.c: specialise, rewrite, build from this graph. */
err model_plan_from(struct model_plan *p, const struct graph *g, const struct tensor_shape *shapes);
void model_plan_clear(struct model_plan *p);
err model_prepare(const char *name, const struct model_options *o, struct model **ret);

/* build.c */
err model_plan_build(struct model_plan *p);
void model_step_done(struct model_step *s);
/* Operand i is a constant, as it is. */
err model_place_raw(struct model_plan *p, struct model_step *s, int i, const struct tensor *t);
/* Operand i is a value in the arena, which is read by the step that is added next. */
void model_place_read(struct model_plan *p, struct model_step *s, int i, int value);
void *model_operand_address(const struct model_plan *p, const struct model_operand *o);
static inline unsigned char *model_slot_address(const struct model_plan *p, int slot)
{
    const struct model_slot *s = &p->slots[slot];
    return s->external ? (unsigned char *)s->at : p->arena + s->offset;
}
/* views.c: makes output(s) of `n` views of its input if that is possible without moving bytes. */
bool model_view(struct model_plan *p, const struct graph_node *n);
bool model_is_reshape(enum op_kind kind);
int model_slot_new(struct model_plan *p, size_t bytes);
/* training.c: output `value` goes outside the arena, by a copy if it does not lie alone and row-major in its slot. */
bool model_output_alone(const struct model_plan *p, int value);
/* arena.c: offsets from lifetimes. */
err model_arena_layout(struct model_plan *p);
/* stream.c: around a run of a model that has a ring. */
err model_stream_begin(struct model_plan *p);
err model_stream_step(struct model_plan *p, int step);
void model_stream_step_done(struct model_plan *p, int step, int64_t ns);
void model_stream_end(struct model_plan *p, bool complete);
void model_stream_free(struct model_plan *p);

/* Inside the model room: what a plan is made of. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model/model.h"

/* A weight of the model: packed once for all plans that want the same form of the same bytes. */
struct model_weight {
    uint64_t hash;       /* of the constant's bytes */
    size_t bytes;        /* packed */
    char *format;
    int extent;
};

struct model {
    char *name;
    struct model_options options;
    char *spill_dir;
    struct mem_payer *payer;         /* weights, code, own arenas */
    struct mem_budget *import;       /* what the import computes; backed by files if there is a spill directory */
    struct mem_payer *import_payer;
    struct graph *graph;             /* as read */
    struct weights_set *weights;
    bool filling;
    size_t n_weights, cap_weights;
    struct model_weight *table;
    int n_plans;
};

/* Memory of the arena: one per value that is not a view or constant. */
struct model_slot {
    size_t bytes, offset;
    int first, last; /* steps; -1: written before the run; n_steps: read after it */
};

/* A value as the plan sees it: a view into a slot, or a constant. */
struct model_value {
    struct tensor t;      /* data: constant bytes or NULL */
    int slot;             /* -1: constant or absent */
    int64_t start;        /* elements from the slot's first byte */
    int copy[3];          /* the copy of this value in another layout: see copy_for (0: none, else 1 + value) */
    struct tensor_shape actual; /* of a bounded value, after a run */
};

struct model_operand {
    int slot;      /* >= 0: arena; -1: weight; -2: absent */
    size_t offset; /* bytes in the slot */
    int extent;
    int bounded;   /* outputs whose size depends on data: 1 + value; else 0 */
};

struct model_step {
    const struct kernel_class *class;
    struct kernel_state *state;
    struct op_node *node;      /* borrowed from the graph, or `own` */
    struct op_node *own;       /* of a copy that the planner inserted, else NULL */
    int out_value;             /* the first, for explain */
    int n_in, n_out, n_post;
    struct model_operand *in, *out;
    int64_t flops;
    size_t weight_bytes;
};

struct model_plan {
    struct model *model;
    struct graph *graph;       /* specialised; nodes live here */
    size_t n_values, cap_values;
    struct model_value *values;
    size_t n_slots, cap_slots;
    struct model_slot *slots;
    size_t n_steps, cap_steps;
    struct model_step *steps;
    struct model_sizes sizes;
    unsigned char *arena, *scratch;
    bool own;                  /* arena and scratch are ours */
};

/* build.c */
err model_plan_build(struct model_plan *p);
void model_step_done(struct model_step *s);
/* views.c: makes output(s) of `n` views of its input if that is possible without moving bytes. */
bool model_view(struct model_plan *p, const struct graph_node *n);
bool model_is_reshape(enum op_kind kind);
int model_slot_new(struct model_plan *p, size_t bytes);
/* arena.c: offsets from lifetimes. */
err model_arena_layout(struct model_plan *p);

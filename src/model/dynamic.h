/* Inside the model room: what runs with the sizes that it meets (loose nodes of the graph, see graph/graph.h).
 *
 * A *cell* is a value at run time: a view, and the counted buffer behind it, or bytes that somebody else keeps for the run. Buffers
 * are paid by the model (activations) and exist from the step that makes them to the last that reads them; ERR_NOMEM ends the run
 * cleanly. Cells are row-major. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model/plan.h"

struct model_buffer {
    int refs;
    size_t bytes;
    struct mem_payer *payer;
    void *p;
};
struct model_cell {
    struct tensor t;            /* dtype TENSOR_NONE: absent */
    struct model_buffer *own;   /* NULL: borrowed */
};

err model_cell_new(struct mem_payer *payer, enum tensor_dtype dtype, const struct tensor_shape *shape, struct model_cell *ret);
void model_cell_done(struct model_cell *c);
struct model_cell model_cell_ref(const struct model_cell *c);
/* Makes a borrowed cell its own copy. */
err model_cell_own(struct mem_payer *payer, struct model_cell *c);
/* Makes `ret` of `c` with another shape of the same count (shares the buffer if there is one). */
err model_cell_reshaped(struct mem_payer *payer, const struct model_cell *c, const struct tensor_shape *shape, struct model_cell *ret);

/* A subgraph as it runs: where the values come from that it reads from outside, and which constants are extents of the model. */
struct model_body {
    const struct graph *g;
    int *capture;               /* per value: number of the value around it, or -1 */
    int *last;                  /* per value: the last node that reads it; n_nodes: an output */
    int *constant;              /* per value: 1 + index into the step's constants, or 0 */
    struct model_body **subs;   /* n_subs: of all attributes of all nodes, in order */
    int *first_sub;             /* per node */
    int n_subs;
};

/* One loose step. */
struct model_loose {
    int n_cells;                /* inputs of the node, captured ones included */
    int *values;                /* their numbers in the plan, -1: absent */
    int n_subs;
    struct model_body **subs;   /* per attribute with a graph, in order */
    int n_constants, cap_constants; /* of the bodies: operands n_cells on */
};
/* While a step runs. */
struct model_eval {
    struct mem_payer *payer;
    const char *name;
    int n_constants;
    const void **constants;
};
/* in: own inputs of `n`, then whatever subs capture by number. ret: n->n_out cells. */
err model_eval_node(struct model_eval *e, const struct op_node *n, struct model_body *const *subs, const struct model_cell *in, int n_own,
                    const struct model_cell *around, struct model_cell *ret);
err model_eval_control(struct model_eval *e, const struct op_node *n, struct model_body *const *subs, const struct model_cell *in,
                       int n_own, const struct model_cell *around, struct model_cell *ret);
/* Runs a body: inputs in the order of the graph; ret: its outputs. Nothing is owed on failure. */
err model_body_run(struct model_eval *e, const struct model_body *b, const struct model_cell *in, int n_in, const struct model_cell *around,
                   struct model_cell *ret);
void model_body_free(struct model_body **b);

/* ---- for build.c and model.c */
err model_loose_add(struct model_plan *p, struct graph_node *n);
void model_loose_free(struct model_step *s);
err model_loose_run(struct model_plan *p, struct model_step *s);
/* Before a run: what the last one left. After step i: what nobody reads any more. */
void model_loose_begin(struct model_plan *p);
void model_loose_after(struct model_plan *p, int step);

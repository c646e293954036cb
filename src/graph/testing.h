/* For the tests of this room: a budget in one line, an interpreter of graphs over plain C, and models written by
 * hand. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"

struct testing {
    struct mem_budget *budget;
    struct mem_payer *payer;
};
void testing_init(struct testing *t, uint64_t limit);
/* Fails the test if something is still owed. */
void testing_done(struct testing *t);

/* Runs a specialised graph with plain C; post-ops are computed here, independently of the kernels. `seed` draws the
 * inputs: the same numbers for the same shapes. The first output, as floats (free() it); *ret_n is their number.
 * NULL: err_text() says why. */
float *testing_run(const struct graph *g, uint64_t seed, size_t *ret_n);
/* max |a - b| / max |b|, or 1e9 if the numbers of elements differ. */
double testing_distance(const float *a, size_t n, const float *b, size_t m);

/* Building: values are numbers, 0 on is fine; floats are drawn from seed in [-1, 1). */
int testing_input(struct graph *g, const char *name, int rank, const int64_t *dims);
int testing_floats(struct graph *g, uint64_t seed, int rank, const int64_t *dims);
int testing_number(struct graph *g, float v);
int testing_ints(struct graph *g, int n, const int64_t *v);
/* A node of up to four inputs (-1 ends the list) and one output, whose value is returned. The node is
 * g->nodes[g->n_nodes - 1]. */
int testing_node(struct graph *g, enum op_kind kind, int a, int b, int c);
struct graph_node *testing_last(struct graph *g);
/* Writes, reads, specialises: what every test of a whole graph starts with. */
struct graph *testing_specialised(const struct graph *g, struct mem_payer *payer);
#define DIMS(...) ARRAY_LEN(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__}

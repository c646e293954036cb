/* For tests of gradients: an interpreter over plain C that keeps every value, and finite differences.
 *
 * Graphs are built in float64, so that central differences (f(x + h) - f(x - h)) / 2h with h = 1e-5 are right to about nine digits, and a
 * rule that is wrong in a corner shows. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/backward.h"
#include "graph/testing.h"

/* Numbers of every value (row-major, strided as tensor_view); inputs from `in` in their order. NULL entries where a value was not computed.
 * NULL on failure: err_text(). */
struct tensor *try_run(const struct graph *g, void *const *in);
void try_free(const struct graph *g, struct tensor **values);
double try_at(const struct tensor *t, int64_t i); /* of a float tensor */

struct try_draw {
    uint64_t state;
};
double try_unit(struct try_draw *d); /* [0, 1) */
double try_between(struct try_draw *d, double low, double high);
int64_t try_int(struct try_draw *d, int64_t low, int64_t high); /* both included */

/* Inputs of float64. */
int try_input(struct graph *g, int rank, const int64_t *dims);

/* y: the value whose weighted sum is the loss (weights drawn). Derives by every float64 input, drawn from [low, high), and compares up to 24 of
 * each one's numbers. Prints what differs and returns false. */
bool try_gradients(struct graph *g, int y, uint64_t seed, double low, double high, const char *what);

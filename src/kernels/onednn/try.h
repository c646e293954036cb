/* For tests: one operator through the kernel contract, from row-major numbers to row-major numbers.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/onednn/onednn.h"

/* A node under construction; everything is inside, nothing to free. */
struct try_node {
    struct op_node op;
    struct op_attr attrs[12];
    int64_t ints[12][8];
    char names[12][32], words[12][32];
};
void try_init(struct try_node *n, enum op_kind kind, int opset);
void try_int(struct try_node *n, const char *name, int64_t v);
void try_float(struct try_node *n, const char *name, float v);
void try_word(struct try_node *n, const char *name, const char *v);
void try_ints(struct try_node *n, const char *name, int count, const int64_t *v);

enum try_lie { TRY_ROWS, TRY_LAST }; /* how activations lie where the class takes any layout */
struct try_case {
    const struct kernel_class *class; /* found by try_run: the first that accepts and prepares, unless set */
    struct kernel_query q;
    struct tensor in[KERNEL_MAX_IN]; /* row-major, with data; */
    bool constant[KERNEL_MAX_IN];
    struct tensor out; /* row-major, with data: receives the result */
    enum try_lie lie;
    /* what happened */
    char impl[64], format[96];
    size_t code, scratch, weight_bytes;
};
/* Sets up the query over in, out; `n_in` inputs. */
void try_query(struct try_case *c, const struct try_node *n, int n_in, int threads);
/* Runs it. ERR_UNSUPPORTED: no oneDNN class takes it (class is NULL then). */
err try_run(struct try_case *c, struct mem_payer *payer);

/* A dense row-major f32 tensor with memory (free(t.data)); numbers in [-1, 1) from the seed. */
struct tensor try_tensor(int rank, const int64_t *dims, uint64_t *seed);
uint64_t try_random(uint64_t *seed); /* 63 bits */
int try_below(uint64_t *seed, int n);

/* One of each kind of post-operation. */
enum { TRY_POST_COUNT = 11 };
extern const struct kernel_post TRY_POSTS[TRY_POST_COUNT];
/* Adds up to two post-operations; an ADD becomes a new input. which < 0: number -1 - which alone. */
void try_draw_posts(struct try_case *c, uint64_t *seed, int which);
/* Runs on one and on two threads: both near `want` (before post-operations; freed here), with equal bits. False: no
 * class takes it. */
bool try_check(struct try_case *c, struct mem_payer *payer, double *want, double tolerance, const char *what);
/* The same; no class taking it is a failure, too. */
void try_must(struct try_case *c, struct mem_payer *payer, double *want, double tolerance, const char *what);
/* Frees the inputs and the output. */
void try_done(struct try_case *c);

/* The block plan: which weights stay in memory, which stream, and through how large a window.
 *
 * Given how long each step computes, which weights it uses, how many bytes there are for weights and how fast the disk is, this chooses
 * the division that ends a run soonest (SwapNet, 2024, chooses its blocks so; here a block is a single weight tensor). It knows nothing of
 * tensors or files: numbers in, numbers out, so that the scheduler can ask what another budget would cost. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

struct blocks_use {
    int step;     /* ascending */
    int extent;   /* no extent comes twice */
    size_t bytes;
    const uint8_t *id; /* 32 bytes that are equal for equal numbers, across models; NULL: nobody else has it */
};

struct blocks_problem {
    int n_steps, n_uses;
    const int64_t *step_ns;        /* compute time of each step */
    const struct blocks_use *uses; /* all that could stream, in order of use */
    size_t fixed;                  /* bytes of weights that cannot stream */
    size_t bytes;                  /* for all weights: fixed, kept and the window */
    double bandwidth;              /* of the disk, bytes a second */
    const size_t *live;            /* bytes of activations alive at each step, for the bound; NULL: arena_bytes throughout */
    size_t arena_bytes;            /* what the arena takes of the budget */
};

struct blocks_plan {
    bool *keep;                    /* per use; free() */
    size_t window;                 /* 0: nothing streams */
    size_t kept, streamed;         /* bytes; kept counts `fixed` */
    int64_t compute_ns;            /* all in memory */
    int64_t predicted_ns;          /* of a run whose window is full when it starts */
    int64_t steady_ns;             /* of runs that follow each other without a pause */
    int64_t bound_ns;              /* no plan can be faster: max over steps of C(<i) + (bytes from i on that cannot be there) / bandwidth */
    int64_t naive_ns;              /* max(compute, streamed bytes / bandwidth) */
};

/* ERR_NOMEM: it cannot run at all; the sentence says the least `bytes`. */
err blocks_make(const struct blocks_problem *p, struct blocks_plan *ret);
/* The least bytes with which blocks_make succeeds. */
size_t blocks_least(const struct blocks_problem *p);
void blocks_done(struct blocks_plan *plan);
/* How long a run takes with this division; `steady`: the third of three runs without a pause. */
int64_t blocks_predict(const struct blocks_problem *p, const bool *keep, size_t window, bool steady);

/* ---- several models, one budget (divide.c) */

struct blocks_tenant {
    const struct blocks_problem *problem; /* its `bytes` is not used; equal bandwidth for all */
    double rate;                          /* runs a second that are asked for */
    int64_t deadline_ns;                  /* 0: none */
    double weight;                        /* of its lateness against the others'; 1 */
};

struct blocks_division {
    struct blocks_plan *plans; /* one per tenant; the same window for all */
    size_t window, kept;       /* bytes; kept over all tenants */
    size_t shared;             /* of kept: in memory already, because another tenant has the same (blocks_divide_shared) */
    double disk_share;         /* reads asked for over what the disk can give: above 1, frames must be dropped */
    double stall;              /* seconds a second that runs will wait for weights */
};

/* Divides `bytes` over all weights of all tenants and one window. ERR_NOMEM: it cannot be done; the sentence says the least bytes. */
err blocks_divide(const struct blocks_tenant *t, int n, size_t bytes, struct blocks_division *ret);
/* The same where tenants have weights in common, which are in memory once. twice: of their `fixed` bytes, those that others have as well. */
err blocks_divide_shared(const struct blocks_tenant *t, int n, size_t bytes, size_t twice, struct blocks_division *ret);
void blocks_division_done(struct blocks_division *d, int n);
/* What a division costs (divide.c): seconds a second that runs wait and are late, weighted, and a price for a disk that is asked for too much. */
double blocks_division_cost(const struct blocks_tenant *t, int n, const struct blocks_plan *plans);
/* Sums over the plans, anew. */
void blocks_division_account(const struct blocks_tenant *t, int n, struct blocks_division *d);
/* The least bytes with which blocks_divide succeeds. */
size_t blocks_divide_least(const struct blocks_tenant *t, int n);
/* The best division of one problem for a given window and at most `room` bytes that stay beside `fixed`. False: some step's streamed weights are
 * larger than the window. Free with blocks_done. */
bool blocks_with_window(const struct blocks_problem *p, size_t room, size_t window, struct blocks_plan *ret);

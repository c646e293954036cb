/* Inside the api room: what the handles of brim.h are.
 *
 *     brim_plan --holds--> brim_model --holds--> brim_budget        (counts; the last hold frees)
 *
 * Locks, outermost first: a model's `lock` (its plans, its figures, a run), then the budget's gate (which runs may
 * have threads now). Nothing is called back into the program, so neither can be taken twice. SPDX-License-Identifier:
 * Apache-2.0 */
#pragma once

#include "api/brim.h"
#include "model/model.h"

#include <pthread.h>
#include <stdatomic.h>

struct brim_budget {
    atomic_int holds;
    struct mem_budget *bytes;
    int threads;          /* of one run, unless its model says less */
    int limit;            /* of all runs together; INT_MAX: none */
    pthread_mutex_t lock; /* guards the gate: what follows */
    pthread_cond_t changed;
    int busy;                      /* threads of runs under way */
    uint64_t next_ticket, serving; /* who asked first runs first */
};

struct brim_model {
    atomic_int holds;
    brim_budget *budget;
    struct mem_payer *bytes_payer; /* of a model read from memory, else NULL */
    int threads, max_idle;
    pthread_mutex_t lock; /* guards all that follows, `model` inside, and the plans */
    struct model *model;
    struct mem_payer *payer; /* arenas and scratch */
    struct brim_plan *plans;
    uint64_t clock; /* of use, for the oldest idle plan */
    char *cache;    /* folder for verdicts, or NULL */
    void *scratch;  /* of all plans: one of them runs at a time */
    size_t scratch_bytes;
};

struct brim_plan {
    struct brim_plan *next;
    brim_model *owner;
    struct model_plan *plan;
    struct tensor_shape *shapes; /* of the inputs, as asked for; NULL if those of the file were */
    int holds;
    uint64_t used_at;
    void *arena;
    size_t arena_bytes;
};

/* A code of ours for one of err.h; the sentence stays. */
brim_err api_result(err e);
/* Structs that carry their size. Read: fields that an older program does not have are zero; what a newer one has must
 * be zero. Written: as much as the program has room for; its size stays. ERR_USAGE: the size was not set. */
err api_struct_read(const char *name, const void *from, void *to, size_t size);
err api_struct_write(const char *name, const void *from, void *to, size_t size);
void api_budget_hold(brim_budget *b);
/* A run of n threads may start; waits until it may. */
void api_gate_enter(brim_budget *b, int n);
void api_gate_leave(brim_budget *b, int n);
void api_model_drop(brim_model *m);
/* With the model's lock held. */
void api_plan_destroy(struct brim_plan *p);

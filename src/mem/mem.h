/* Budgets: who may use how many bytes, who uses them now, and what for.
 *
 * Everything that grows is allocated here: weights, activations, scratch, kernel code, frames, decoders, queues.
 * An allocation names its *payer* (a model, a camera, the engine) and its *purpose* and may fail with ERR_NOMEM, which is
 * a normal answer. Free takes the size back, so accounting needs no hidden header. Bytes that somebody else allocates for us
 * (JIT code, a decoder's internals) are *charged* from a measurement.
 *
 *     struct mem_payer *p = mem_payer_new(budget, "model yolox");
 *     err e = mem_alloc(p, MEM_WEIGHTS, bytes, &ptr);
 *     mem_free(p, MEM_WEIGHTS, ptr, bytes);
 *     mem_payer_free(&p);                              // asserts that the payer owes nothing
 *
 * Thread-safe throughout. Blocks of 64 KiB or more are their own mappings and go back to the system when freed.
 * All blocks are zeroed and 64-byte aligned (mappings, and blocks of whole pages: page-aligned). SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

#define MEM_PURPOSES(X)                                                                                      \
    X(MEM_WEIGHTS, "weights")                                                                                \
    X(MEM_ACTIVATIONS, "activations")                                                                        \
    X(MEM_SCRATCH, "scratch")                                                                                \
    X(MEM_CODE, "code")                                                                                      \
    X(MEM_FRAMES, "frames")                                                                                  \
    X(MEM_DECODER, "decoder")                                                                                \
    X(MEM_QUEUE, "queue")                                                                                    \
    X(MEM_TRAINING, "training")                                                                              \
    X(MEM_OTHER, "other")

enum mem_purpose {
#define X(id, name) id,
    MEM_PURPOSES(X)
#undef X
        MEM_PURPOSE_COUNT
};
const char *mem_purpose_name(enum mem_purpose purpose);

struct mem_budget;
struct mem_payer;

/* A budget of `limit` bytes (UINT64_MAX: unlimited). `name` is of the memory: "host". */
struct mem_budget *mem_budget_new(const char *name, uint64_t limit);
/* All payers must be gone. Accepts a pointer to NULL. */
void mem_budget_free(struct mem_budget **b);
/* May be below what is used now: then every allocation fails until enough was freed. */
void mem_budget_set_limit(struct mem_budget *b, uint64_t limit);
uint64_t mem_budget_limit(const struct mem_budget *b);
/* Blocks that are their own mappings lie in unlinked files of `dir` from now on: the kernel can write them out, so they are no memory
 * that could run out. For what is computed once while a model is imported. ERR_IO if dir takes no files. */
err mem_budget_back_with_files(struct mem_budget *b, const char *dir);
uint64_t mem_budget_used(const struct mem_budget *b);
uint64_t mem_budget_peak(const struct mem_budget *b);
void mem_budget_reset_peak(struct mem_budget *b);

/* A budget inside another: every byte that is used in it was charged to `outer` (MEM_TRAINING) before, in steps of some MiB; so what works on it counts
 * in the outer budget and cannot exceed it. `grow` charges that many bytes to `outer`, or says why not (NULL: mem_charge): it may wait, but it must not
 * use the inner budget. The limit begins at UINT64_MAX. */
typedef err mem_grow_fn(void *user, struct mem_payer *outer, uint64_t bytes);
struct mem_budget *mem_budget_within(struct mem_payer *outer, const char *name, mem_grow_fn *grow, void *user);
/* So many bytes in all are the inner budget's from now on, used or not: admission, once the need is known. ERR_NOMEM: nothing changed. A budget inside no
 * other only looks at its limit. */
err mem_budget_hold(struct mem_budget *b, uint64_t bytes);
uint64_t mem_budget_held(const struct mem_budget *b); /* bytes charged to the outer payer now */

/* Payers. `name` is copied; several payers may have one name. Free asserts that nothing is owed. */
struct mem_payer *mem_payer_new(struct mem_budget *b, const char *name);
void mem_payer_free(struct mem_payer **p);
struct mem_budget *mem_payer_budget(const struct mem_payer *p);
const char *mem_payer_name(const struct mem_payer *p);
uint64_t mem_payer_used(const struct mem_payer *p, enum mem_purpose purpose);

/* size 0 is allowed (a unique pointer is returned). ERR_NOMEM's sentence names payer, purpose, bytes, used and limit. */
err mem_alloc(struct mem_payer *p, enum mem_purpose purpose, size_t size, void **ret);
/* Accepts NULL with any size. `size` must be the one asked for. */
void mem_free(struct mem_payer *p, enum mem_purpose purpose, void *ptr, size_t size);

/* Frames go before whatever can be read again: when MEM_FRAMES or MEM_DECODER do not fit, `fn` is asked on that thread, without any lock of
 * the budget, to free so many bytes at once; true: it did, and the allocation is tried once more. It must not wait for anybody who may
 * wait for a frame. Injected faults do not ask. NULL: nobody; removed only when nobody allocates frames any more. */
typedef bool mem_relief_fn(void *user, uint64_t bytes);
void mem_budget_set_relief(struct mem_budget *b, mem_relief_fn *fn, void *user);

/* Accounts for bytes that were or will be allocated elsewhere. `mem_charge_forced` cannot fail and may take the budget
 * over its limit: only for what was already spent and is given back at once by the caller's error path. */
err mem_charge(struct mem_payer *p, enum mem_purpose purpose, size_t size);
void mem_charge_forced(struct mem_payer *p, enum mem_purpose purpose, size_t size);
void mem_release(struct mem_payer *p, enum mem_purpose purpose, size_t size);
/* Somebody else pays from now on; both payers have one budget, whose use does not change. */
void mem_move(struct mem_payer *from, struct mem_payer *to, enum mem_purpose purpose, size_t size);

/* What `brim mem` and /metrics show: a snapshot, one row per payer. Free with free(). */
struct mem_row {
    char payer[64];
    uint64_t used[MEM_PURPOSE_COUNT], peak[MEM_PURPOSE_COUNT];
    uint64_t count; /* live allocations and charges */
};
size_t mem_snapshot(const struct mem_budget *b, struct mem_row **ret_rows);

/* Fault injection: the n-th mem_alloc or mem_charge from now on fails once (1: the next); 0 turns it off.
 * mem_fault_calls says how many were made since, so that a test knows when it has tried them all. */
void mem_fault_at(struct mem_budget *b, uint64_t n);
uint64_t mem_fault_calls(const struct mem_budget *b);

/* The smaller of the cgroup's limit (v1 or v2) and MemAvailable, less 25 %: the default of `serve`. */
uint64_t mem_budget_auto(void);
/* RssAnon and the whole resident set of this process in bytes (from /proc/self/status), and the peak of the latter. */
struct mem_rss {
    uint64_t anon, file, total, peak;
};
struct mem_rss mem_process_rss(void);

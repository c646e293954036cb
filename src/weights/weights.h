/* Where trained bytes live: resident, or on disk until somebody asks, or on their way through.
 *
 * A *set* is the packed weights of one model: extents in execution order, named by numbers. This room moves bytes and never packs
 * them: whoever adds an extent fills it. A set that has a spill directory keeps its bytes in an unlinked file there (so nothing is left
 * behind after any kind of death); a set without one is in memory for as long as it lives.
 *
 *     FILLING --seal--> ON_DISK --request--> LOADING --(reader thread)--> RESIDENT --evict--> ON_DISK
 *                                               `--(read error)--> ON_DISK, and wait says why
 *
 * RESIDENT means that everything *kept* is in memory: all extents (whole-model residency), or those that a block plan chose
 * (weights_set_keep). Extents that are not kept stream: a *pass* over a *ring* brings them in just before they are used and forgets
 * them after (block swapping: SwapNet, 2024). Either way a byte is read once, with O_DIRECT where the file system allows it, into
 * the place where the kernel uses it. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"

struct weights_reader; /* the thread that reads; one for all sets and rings */
struct weights_set;
struct weights_ring;
struct weights_pass;

enum weights_state { WEIGHTS_FILLING = 1, WEIGHTS_ON_DISK, WEIGHTS_LOADING, WEIGHTS_RESIDENT };

err weights_reader_new(struct weights_reader **ret);
/* PREAD: as on a kernel without io_uring. COPYING, for benches only: as simple programs read, through the page cache and a buffer. */
enum weights_reader_kind { WEIGHTS_URING, WEIGHTS_PREAD, WEIGHTS_COPYING };
err weights_reader_new_with(enum weights_reader_kind kind, struct weights_reader **ret);
void weights_reader_free(struct weights_reader **r);
/* From now on reads take at least as long as on a disk of this speed that serves one request after the other; 0: no longer. For benches, tests, and
 * to find out what a slower disk would do. */
void weights_reader_set_pace(struct weights_reader *r, double bytes_per_s);
/* busy_ns: time with at least one read under way. bandwidth: of the disk as we use it, bytes a second, over the last hundred megabytes;
 * 0: not known yet. */
struct weights_reader_stats {
    uint64_t bytes, requests;
    int64_t busy_ns;
    double bandwidth;
    bool uring;
};
struct weights_reader_stats weights_reader_stats(struct weights_reader *r);

/* ---- rehearsals: the same in a time of its own, to find out what would happen
 *
 * While a reader has a clock, reads land, by that clock, when a disk of `bytes_per_s` would have brought them, and bring nothing; who has to wait for one
 * turns the clock. Everything happens on one thread; nothing may be under way when a rehearsal begins or ends (clock NULL), and what was "read" in it must
 * be evicted before anything real runs. `go` moves `now` to `at`, and calls weights_reader_land whenever weights_reader_next was reached on the way. */
struct weights_clock {
    int64_t now;
    double evict_ns; /* what evicting takes, for each byte */
    void (*go)(struct weights_clock *c, int64_t at);
};
void weights_reader_rehearse(struct weights_reader *r, struct weights_clock *clock, double bytes_per_s);
int64_t weights_reader_next(struct weights_reader *r); /* when the next piece lands; INT64_MAX: nothing is under way */
void weights_reader_land(struct weights_reader *r);    /* what has landed by now */
int64_t weights_reader_now(const struct weights_reader *r); /* the clock's time, else clock_ns */

/* `payer` pays (MEM_WEIGHTS) for what is resident. reader and spill_dir NULL: memory only. */
err weights_set_new(struct mem_payer *payer, struct weights_reader *reader, const char *spill_dir, struct weights_set **ret);
/* Unpinned by then, and no pass over it. Waits for a read under way. */
void weights_set_free(struct weights_set **s);

/* Adds an extent of `bytes` and gives memory to fill; with a spill file the memory is a buffer that lives until the next add or
 * seal. Only while FILLING; a sealed set with a spill file is opened again by weights_set_reopen (it must not be pinned). */
err weights_set_add(struct weights_set *s, size_t bytes, int *ret_extent, void **ret_fill);
/* The same for what other sets hold as well: a block of its own even if it is small (down to 2 KiB), so that equal ones are held once. Small ones are
 * always kept. */
err weights_set_add_shared(struct weights_set *s, size_t bytes, int *ret_extent, void **ret_fill);
err weights_set_seal(struct weights_set *s);
err weights_set_reopen(struct weights_set *s);

/* Starts to bring the set in and pins it. ERR_NOMEM: it does not fit now; nothing is pinned then. */
err weights_request(struct weights_set *s);
/* Blocks until resident. On a read error the pin stays, and weights_release is still due. */
err weights_wait(struct weights_set *s);
void weights_release(struct weights_set *s);
/* Drops the bytes; ERR_BUSY if pinned, loading or memory only. Evicting what is not resident is fine. */
err weights_evict(struct weights_set *s);

/* Which extents are kept from now on (one flag per extent; NULL: all). What is no longer kept is dropped at once, what stays is not
 * touched, what is new is read at the next request. Small extents are always kept. ERR_BUSY as for evict. */
err weights_set_keep(struct weights_set *s, const bool *keep);
bool weights_extent_streams(const struct weights_set *s, int extent);
/* Bytes that streaming this extent moves; 0 if it is too small to stream, or memory only. */
size_t weights_extent_block_bytes(const struct weights_set *s, int extent);

enum weights_state weights_state(const struct weights_set *s);
size_t weights_bytes(const struct weights_set *s);          /* of all extents, padding included */
size_t weights_kept_bytes(const struct weights_set *s);     /* needed to be RESIDENT */
size_t weights_resident_bytes(const struct weights_set *s); /* in memory or allocated for a read */
size_t weights_paid_bytes(const struct weights_set *s);     /* what its payer pays: less, if another set with an equal block has read it */
/* What a request would have to read now: kept, not in memory, and in no other set that this one could share with. */
size_t weights_missing_bytes(const struct weights_set *s);
/* What these sets have in memory, each byte once. */
size_t weights_union_bytes(struct weights_set *const *sets, size_t n);
/* Holds what is kept and other sets have in memory now, without reading or allocating anything, so that it stays when they are evicted. A set that
 * still lacks something stays ON_DISK; evicting it lets go. Nothing is done to one that is not ON_DISK. */
void weights_hold_shared(struct weights_set *s);
/* Bytes that these sets would hold more than once if equal blocks were not shared: of all blocks, or only of those that are always kept. */
size_t weights_twice_bytes(struct weights_set *const *sets, size_t n, bool always_kept);
/* 32 bytes that name what the extent holds, across sets: equal names, equal bytes, held once. NULL: it has none. */
const uint8_t *weights_extent_id(const struct weights_set *s, int extent);
/* The address of an extent that is kept: valid while pinned and RESIDENT (or memory only). */
const void *weights_extent(const struct weights_set *s, int extent);
/* What was read (passes included) and how often as a whole, since the start: for figures. */
void weights_counts(const struct weights_set *s, uint64_t *ret_loads, uint64_t *ret_bytes, int64_t *ret_ns);

/* ---- streaming: ring.c */

/* A window of `bytes` for streamed extents of any number of sets. ERR_NOMEM as any allocation. */
err weights_ring_new(struct mem_payer *payer, struct weights_reader *reader, size_t bytes, struct weights_ring **ret);
/* All passes must have been freed; waits for reads under way. */
void weights_ring_free(struct weights_ring **r);
size_t weights_ring_bytes(const struct weights_ring *r);
/* Waits until no read into it is under way; all passes must have been freed. */
void weights_ring_drain(struct weights_ring *r);
/* The same for reads of this set, whose passes must have been freed: before the set is freed while the ring goes on. */
void weights_ring_drain_set(struct weights_ring *r, const struct weights_set *s);

/* Starts to read these extents (of a sealed set), in this order, as room allows. Passes are used in the order in which they were made; a
 * pass that shall not be used is freed first. ERR_NOMEM: an extent is larger than the ring. One thread makes and uses passes. */
err weights_pass_new(struct weights_ring *r, struct weights_set *s, const int *extents, int n, struct weights_pass **ret);
/* The address of the k-th extent; blocks until it is there. Valid until weights_pass_done with an end beyond k. */
err weights_pass_wait(struct weights_pass *p, int k, const void **ret);
/* Extents before `end` are not needed any more. */
void weights_pass_done(struct weights_pass *p, int end);
/* At any time. */
void weights_pass_free(struct weights_pass **p);

/* Where trained bytes live: resident, or on disk until somebody asks.
 *
 * A *set* is the packed weights of one model: extents in execution order, page-aligned, named by numbers. This room moves bytes and
 * never packs them: whoever adds an extent fills it. A set that has a spill directory keeps its bytes in an unlinked file there (so
 * nothing is left behind after any kind of death) and can be brought in and dropped as a whole; a set without one is in memory
 * for as long as it lives.
 *
 *     FILLING --seal--> ON_DISK --request--> LOADING --(reader thread)--> RESIDENT --evict--> ON_DISK
 *                                               `--(read error)--> ON_DISK, and wait says why
 *
 * Bringing a set in is one direct read (O_DIRECT where the file system allows it) into its final place; dropping it is
 * munmap. weights_request pins, weights_release unpins; only an unpinned set can be evicted. This is whole-model residency, the
 * baseline; block streaming replaces it behind the same verbs. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"

struct weights_reader; /* the thread that reads; one for all sets */
struct weights_set;

enum weights_state { WEIGHTS_FILLING = 1, WEIGHTS_ON_DISK, WEIGHTS_LOADING, WEIGHTS_RESIDENT };

err weights_reader_new(struct weights_reader **ret);
void weights_reader_free(struct weights_reader **r);

/* `payer` pays (MEM_WEIGHTS) for what is resident. reader and spill_dir NULL: memory only. */
err weights_set_new(struct mem_payer *payer, struct weights_reader *reader, const char *spill_dir, struct weights_set **ret);
/* Unpinned by then. Waits for a read under way. */
void weights_set_free(struct weights_set **s);

/* Adds an extent of `bytes` and gives memory to fill; with a spill file the memory is a bounce buffer that lives until the next add or
 * seal. Only while FILLING; a sealed set with a spill file is opened again by weights_set_reopen (it must not be pinned). */
err weights_set_add(struct weights_set *s, size_t bytes, int *ret_extent, void **ret_fill);
err weights_set_seal(struct weights_set *s);
err weights_set_reopen(struct weights_set *s);

/* Starts to bring the set in and pins it. ERR_NOMEM: it does not fit now; nothing is pinned then. */
err weights_request(struct weights_set *s);
/* Blocks until resident. On a read error the pin stays, and weights_release is still due. */
err weights_wait(struct weights_set *s);
void weights_release(struct weights_set *s);
/* Drops the bytes; ERR_BUSY if pinned, loading or memory only. Evicting what is not resident is fine. */
err weights_evict(struct weights_set *s);

enum weights_state weights_state(const struct weights_set *s);
size_t weights_bytes(const struct weights_set *s);         /* of all extents, padding included */
/* The address of an extent: valid while pinned and RESIDENT (or memory only). */
const void *weights_extent(const struct weights_set *s, int extent);
/* What was read and how often, since the start: for figures. */
void weights_counts(const struct weights_set *s, uint64_t *ret_loads, uint64_t *ret_bytes, int64_t *ret_ns);

/* Inside the weights room: one read on its way, and the thread that does them.
 *
 * Sets (whole extents that stay) and rings (extents that pass through) hand *reads* to the reader; it does them in the order in which
 * they will be needed and says when each has landed. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "weights/weights.h"

#include <pthread.h>
#include <stdatomic.h>

enum { WEIGHTS_PAGE = 4096, WEIGHTS_SENTENCE = 200 };

static inline size_t weights_round(size_t n)
{
    return (n + WEIGHTS_PAGE - 1) / WEIGHTS_PAGE * WEIGHTS_PAGE;
}

/* A file of packed weights, opened by a set; shared by the reads from it. */
struct weights_file {
    int fd;
    atomic_bool direct; /* O_DIRECT is on; the reader turns it off where the file system takes the flag but not the read */
};

struct weights_read {
    struct weights_file *file;
    const char *who;       /* for sentences; lives as long as the read */
    size_t offset, bytes;  /* multiples of WEIGHTS_PAGE */
    const uint32_t *crc;   /* CRC32C of each 64 KiB of what is read, checked when it is there; NULL: none */
    unsigned char *to;     /* page-aligned */
    int64_t when;          /* smaller is needed sooner */
    /* On the reader's thread, without its lock; the read is the owner's again. */
    void (*done)(struct weights_read *r);
    void *owner;
    err failure;
    char sentence[WEIGHTS_SENTENCE];
    /* the reader's: */
    struct weights_read *next;
    size_t begun, pending;
};

void weights_reader_submit(struct weights_reader *r, struct weights_read *read);
/* True: it was not begun and will not be; `done` is not called. */
bool weights_reader_cancel(struct weights_reader *r, struct weights_read *read);
/* pthread_cond_wait for something that a read on its way will change; in a rehearsal, turns the clock until the next piece has landed. */
/* Evicting takes time: in a rehearsal, turns the clock. */
void weights_reader_spend(struct weights_reader *r, size_t evicted);
void weights_reader_sleep(struct weights_reader *r, pthread_cond_t *changed, pthread_mutex_t *lock);

/* pool.c: blocks that several sets hold. */
struct weights_pool;
struct weights_shared;
struct weights_id;
struct weights_pool *weights_pool_new(void);
void weights_pool_free(struct weights_pool **p); /* nothing is held by then */
/* Holds the block of that name if somebody has it in memory; NULL: nobody has. */
struct weights_shared *weights_pool_take(struct weights_pool *p, const struct weights_id *id, size_t bytes, struct mem_payer *payer,
                                         unsigned char **ret_memory);
/* Is it in somebody's memory, where `payer` could hold it? */
bool weights_pool_has(struct weights_pool *p, const struct weights_id *id, size_t bytes, const struct mem_payer *payer);
/* What `payer` has read and pays can be taken by others from now on; NULL: somebody has published it already, and it stays the caller's alone. */
struct weights_shared *weights_pool_publish(struct weights_pool *p, const struct weights_id *id, size_t bytes, struct mem_payer *payer,
                                            unsigned char *memory);
/* Lets go; the last one frees. */
void weights_pool_drop(struct weights_pool *p, struct weights_shared *x, struct mem_payer *payer);
struct weights_pool *weights_reader_pool(struct weights_reader *r);

/* set.c, for rings: where the bytes of an extent are. */
void weights_set_locate(struct weights_set *s, int extent, struct weights_read *ret);
struct weights_reader *weights_set_reader(const struct weights_set *s);
/* Counts what a ring read on behalf of the set. */
void weights_set_count(struct weights_set *s, size_t bytes);

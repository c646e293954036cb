/* What must survive a restart, as rows: events, and messages for a broker that is away (SQLite).
 *
 * One owner (`serve`), one writer thread, WAL, synchronous=FULL: an event is reported to others (`committed`) only after it is on disk, so
 * no client is ever told of something that a kill -9 could take back. rows_add never blocks: events wait in a bounded queue
 * (payer "rows", MEM_QUEUE); if the disk is full they wait and are tried again each second, and when the queue is full the oldest is dropped and
 * counted. Readers have a connection of their own and never block the writer.
 *
 * Schema: `PRAGMA user_version`; rows_open brings an older file up to date in one transaction and refuses a newer one.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"

struct rows;

enum { ROWS_UID = 16, ROWS_QUEUE = 4096 };

struct rows_event {
    int64_t id;             /* given by the database, rising; 0 before */
    uint8_t uid[ROWS_UID];  /* random: the same in every output */
    double time;            /* seconds since 1970 */
    char camera[72], query[72], event[16], zone[72], label[32];
    char attributes[160];
    int64_t track;
    uint64_t frame;
    double score, seconds;
    int direction;
    float box[4];           /* x1 y1 x2 y2, frame pixels */
    int width, height;      /* of the frame */
};

#define ROWS_BYTES (ROWS_QUEUE * sizeof(struct rows_event)) /* what an open database is charged */

struct rows_options {
    const char *path;
    struct mem_budget *budget;
    /* Called on the writer's thread with events that are safely on disk, in order. May be NULL. */
    void (*committed)(void *user, const struct rows_event *events, int n);
    void *user;
    bool outbox;            /* also put each event into the outbox, in the same transaction */
    int64_t keep_rows;      /* older events are deleted beyond this many; 0: 1,000,000 */
};

/* ERR_BUSY if another process owns it, ERR_CORRUPT, ERR_UNSUPPORTED (newer schema), ERR_IO. */
err rows_open(const struct rows_options *o, struct rows **ret);
/* Writes what waits (unless the disk refuses), then closes. */
void rows_close(struct rows **r);

/* Copies the event into the queue. Never blocks, never fails; a full queue drops its oldest event and counts it. */
void rows_add(struct rows *r, const struct rows_event *e);
/* Waits until everything added so far is on disk or `timeout_ms` is over (ERR_TIMEOUT). */
err rows_flush(struct rows *r, int timeout_ms);

struct rows_filter {
    const char *camera, *query, *event; /* NULL: any */
    double since, until;                /* seconds since 1970; 0: open */
    int64_t before_id, after_id;        /* 0: open */
    bool oldest_first;
    int limit;                          /* 1 to 1000 */
};
/* Free *ret with free(). */
err rows_events(struct rows *r, const struct rows_filter *f, struct rows_event **ret, int *ret_n);

/* Events of a database that another process may be writing at this moment: it is only read, and what is committed meanwhile is not seen. A limit of 0 is none.
 * `fn` ends it with anything but ERR_OK, which is then returned. ERR_NOT_FOUND, ERR_CORRUPT, ERR_UNSUPPORTED (newer schema), ERR_FORMAT: no events of brim's. */
typedef err rows_read_fn(void *user, const struct rows_event *e);
err rows_read(const char *path, const struct rows_filter *f, rows_read_fn *fn, void *user);

/* Messages that a broker has not acknowledged: oldest first, those with id > after. */
err rows_outbox(struct rows *r, int64_t after, struct rows_event **ret, int64_t **ret_ids, int *ret_n, int max);
err rows_outbox_done(struct rows *r, int64_t id);
int64_t rows_outbox_count(struct rows *r);
/* Drops the oldest messages beyond `max`; returns how many. */
int64_t rows_outbox_trim(struct rows *r, int64_t max);

struct rows_stats {
    uint64_t written, lost;  /* events */
    int waiting;
    char problem[256];       /* "" if healthy */
};
void rows_stats(struct rows *r, struct rows_stats *ret);

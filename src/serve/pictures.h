/* Pictures of events, beside the database (rows/picture.h): what training on the box's own events learns from.
 *
 * A picture is made when the event happens, on the executor's thread, since the frame is there only then; writing is a thread's of its own, behind a queue of
 * SERVE_PICTURES_BYTES. What does not fit is dropped and counted. The folder holds at most `keep` bytes: the oldest go first, a tenth of all at once.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/engine.h"
#include "serve/counts.h"

enum { SERVE_PICTURES_BYTES = 2 << 20 };

struct serve_pictures;

struct serve_pictures_options {
    const char *database;
    uint64_t keep;
    int side;                  /* longest, in pixels */
    struct mem_payer *payer;
    struct serve_count *count; /* may be NULL */
    /* Called on the thread that writes whenever the state changes: what is wrong, or "" once it works again. May be NULL. */
    void (*problem)(void *user, const char *sentence);
    void *user;
};

/* ERR_IO, ERR_NOMEM. */
err serve_pictures_open(const struct serve_pictures_options *o, struct serve_pictures **ret);
/* An event with its frame and what was seen in it; from one thread at a time. Others are left alone. */
void serve_pictures_put(struct serve_pictures *p, const struct engine_record *r);
/* Writes what waits, closes. */
void serve_pictures_close(struct serve_pictures **p);

/* Events that may be told to others: after they are on disk (or at once, if the site has no database).
 *
 * A ring of the last SERVE_FEED events, and listeners that are called with each. Slow readers (HTTP streams) read the ring by sequence number
 * and lose what it no longer holds; they can ask the database for that. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/thread.h"
#include "rows/rows.h"
#include "serve/counts.h"

#include <jansson.h>

enum { SERVE_FEED = 1024, SERVE_MAX_LISTENERS = 8 };

struct serve_feed;
typedef void serve_listener(void *user, const struct rows_event *e);

struct serve_feed *serve_feed_new(void);
void serve_feed_free(struct serve_feed **f);
/* Before the first put. Called on the thread that puts, without the feed's lock. */
void serve_feed_listen(struct serve_feed *f, serve_listener *fn, void *user);
/* In order; from one thread at a time. */
void serve_feed_put(struct serve_feed *f, const struct rows_event *e);
/* Sequence number of the last event (0: none yet). */
uint64_t serve_feed_last(struct serve_feed *f);
/* Events after number `after`, oldest first; waits up to timeout_ms for the first. Returns how many, and the number of the last one in *ret_last;
 * ERR_CLOSED (negative) once the feed was closed. */
int serve_feed_read(struct serve_feed *f, uint64_t after, struct rows_event *ret, int max, int timeout_ms, uint64_t *ret_last);
/* Ends all waits; returns when no listener is being called, and none is called any more. */
void serve_feed_close(struct serve_feed *f);

/* Numbers of the outputs; they live as long as the feed. */
struct serve_counts *serve_feed_counts(struct serve_feed *f);

/* {"id", "uid", "time", "camera", "query", "event", "zone", "label", "track", "frame", "score", "box": [x1,y1,x2,y2], ...} */
json_t *serve_event_json(const struct rows_event *e);

/* Events as they happen, as Server-Sent Events: "id:" is the database's number, so that a browser that comes back
 * says where it was.
 *
 * A stream reads what it missed from the database (oldest first, in pages), then the feed's ring; if it is so slow
 * that the ring went past it, it goes back to the database. The feed's number is taken before the database is read,
 * so nothing falls between the two, and ids that were already told are not told again. The feed holds only what is on
 * disk; so does the database.
 *
 * Invariant: after `last_id` was sent, no event with that id or a smaller one is sent. SPDX-License-Identifier:
 * Apache-2.0 */
#include "serve/http_inside.h"

#include <stdlib.h>
#include <string.h>

enum { PAGE_EVENTS = 32, KEEP_ALIVE_MS = 8000, SLICE_MS = 250 };

struct stream {
    struct serve_http *http;
    bool catching_up;  /* reads the database */
    int64_t last_id;   /* of the database; 0: none told yet */
    uint64_t seen;     /* the feed's number up to which events were told or are in the database */
    struct strbuf out; /* at most PAGE_EVENTS events */
    size_t at;
};

static void put_event(struct stream *s, const struct rows_event *e)
{
    if (e->id && e->id <= s->last_id) return;
    json_t *j = serve_event_json(e);
    char *text = json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(13));
    json_decref(j);
    if (e->id) {
        strbuf_addf(&s->out, "id: %lld\n", (long long)e->id);
        s->last_id = e->id;
    }
    strbuf_addf(&s->out, "event: %s\ndata: %s\n\n", "event", text ? text : "{}");
    free(text);
}

static void read_database(struct stream *s)
{
    struct rows_event *events;
    int n;
    if (rows_events(s->http->rows,
                    &(struct rows_filter){.after_id = s->last_id, .oldest_first = true, .limit = PAGE_EVENTS},
                    &events, &n)) {
        thread_event_wait(&s->http->stop, SLICE_MS); /* tried again */
        return;
    }
    for (int i = 0; i < n; i++) put_event(s, &events[i]);
    s->catching_up = n == PAGE_EVENTS;
    free(events);
}

/* False: the feed was closed. */
static bool read_feed(struct stream *s)
{
    struct rows_event events[8];
    uint64_t last = s->seen;
    int n = serve_feed_read(s->http->feed, s->seen, events, (int)ARRAY_LEN(events), SLICE_MS, &last);
    if (n < 0) return false;
    if (n && last - (uint64_t)n > s->seen && s->http->rows && s->last_id) { /* the ring went past us */
        s->seen = last;
        s->catching_up = true;
        return true;
    }
    for (int i = 0; i < n; i++) put_event(s, &events[i]);
    s->seen = last;
    return true;
}

/* Waits for something to say; says ": " every few seconds, so that a client that has gone is noticed. */
static bool fill(struct stream *s)
{
    int64_t begin = clock_ns();
    s->out.len = s->at = 0;
    while (!s->out.len) {
        if (thread_event_is_set(&s->http->stop)) return false;
        if (s->catching_up) read_database(s);
        else if (!read_feed(s)) return false;
        if (!s->out.len && clock_ns() - begin > (int64_t)KEEP_ALIVE_MS * 1000000) strbuf_add(&s->out, ":\n\n");
    }
    return true;
}

static ssize_t reader(void *arg, uint64_t pos, char *buf, size_t max)
{
    struct stream *s = arg;
    (void)pos;
    if (s->at == s->out.len && !fill(s)) return MHD_CONTENT_READER_END_OF_STREAM;
    size_t n = MIN(max, s->out.len - s->at);
    memcpy(buf, s->out.s + s->at, n);
    s->at += n;
    return (ssize_t)n;
}

static void stream_free(void *arg)
{
    struct stream *s = arg;
    http_stream_end(s->http);
    strbuf_done(&s->out);
    free(s);
}

http_result http_events_stream(struct http_request *r)
{
    http_result x;
    const char *last = http_header(r, "Last-Event-ID");
    int64_t id = 0;
    if (!last || !*last) last = http_argument(r, "after");
    if (last && *last && !http_guard_int(last, 0, INT64_MAX, &id))
        return http_send_error(r, 400, "Last-Event-ID and after are an event's id");
    if (!http_stream_begin(r, &x)) return x;
    struct stream *s = xnew(struct stream);
    s->http = r->http;
    s->seen = serve_feed_last(r->http->feed); /* before the database is read */
    s->last_id = id;
    s->catching_up = r->http->rows && last && *last;
    strbuf_add(&s->out, "retry: 2000\n\n");
    struct MHD_Response *resp = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 8192, reader, s, stream_free);
    if (!resp) stream_free(s);
    return http_queue(r, 200, resp, "text/event-stream");
}

/* Inside the HTTP side: one request, and the answers to it.
 *
 *     http.c         the daemon, who may ask, which handler answers; bodies and headers
 *     http_api.c     JSON                      metrics.c       Prometheus text
 *     http_live.c    pictures                  http_stream.c   events as they happen
 *     http_guard.c   who may ask               http_patience.c how long asking may take
 *
 * Every connection has a thread of libmicrohttpd's, so handlers and readers may wait; each wait ends with `stop`.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "serve/http.h"
#include "serve/http_guard.h"
#include "serve/http_patience.h"

#include <jansson.h>
#include <microhttpd.h>

/* Streams are fewer than connections, so that somebody who holds them all cannot keep /healthz from being answered.
 */
enum { HTTP_MAX_STREAMS = 48, HTTP_MAX_BODY = 4096, HTTP_CONNECTION_BYTES = 16384, HTTP_TIMEOUT_S = 20 };

struct http_live;

struct serve_http {
    struct engine *engine;
    struct rows *rows; /* may be NULL */
    struct serve_feed *feed;
    struct engine_site *hold; /* keeps the strings of `guard` */
    struct http_guard guard;
    char listen[64];
    int port;
    struct MHD_Daemon *daemon;
    struct mem_payer *payer; /* "http": answers on their way */
    struct http_live *live;
    struct http_patience *patience;
    struct thread_event stop;
    atomic_int streams;
    atomic_ullong requests, refused;
    pthread_mutex_t build; /* one large answer is made at a time: bounds what making it takes */
};

struct http_request {
    struct serve_http *http;
    struct MHD_Connection *c;
    const char *path;
    size_t body_size;
    bool too_large;
    char body[HTTP_MAX_BODY + 1];
};

typedef enum MHD_Result http_result;

/* Answers; each adds the security headers. `text` is taken over (malloc). A refused charge becomes a 503. */
http_result http_send(struct http_request *r, unsigned status, const char *type, char *text, size_t n);
http_result http_send_json(struct http_request *r, unsigned status, json_t *j);
/* {"error": sentence} */
http_result http_send_error(struct http_request *r, unsigned status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The status that fits the code, with err_text(). */
http_result http_send_err(struct http_request *r, err e);
/* Adds the headers that all answers have, queues and releases `resp` (NULL: closes the connection). */
http_result http_queue(struct http_request *r, unsigned status, struct MHD_Response *resp, const char *type);
/* One of HTTP_MAX_STREAMS; false: there is none (an answer was sent, *ret is its result). */
bool http_stream_begin(struct http_request *r, http_result *ret);
void http_stream_end(struct serve_http *h);

const char *http_argument(struct http_request *r, const char *name);
const char *http_header(struct http_request *r, const char *name);
/* May the box be relied on? Appends sentences why not. */
bool http_ready(struct serve_http *h, json_t *reasons);

http_result http_api_status(struct http_request *r);
http_result http_api_cameras(struct http_request *r);
http_result http_api_queries(struct http_request *r);
http_result http_api_models(struct http_request *r);
http_result http_api_events(struct http_request *r);
http_result http_api_jobs(struct http_request *r);
http_result http_api_guards(struct http_request *r);
http_result http_api_memory(struct http_request *r);
http_result http_api_why(struct http_request *r);
http_result http_api_budget(struct http_request *r);
http_result http_events_stream(struct http_request *r);
http_result http_live_get(struct http_request *r);
http_result http_metrics(struct http_request *r);

err http_live_new(struct serve_http *h, struct http_live **ret);
void http_live_free(struct http_live **l);

/* The HTTP side of a running box: health, metrics, the JSON API, live pictures, the event stream and one page.
 *
 * Loopback unless the site says otherwise. A request whose Host is not the address listened on or one of `http.hosts`, or whose Origin is
 * foreign, is refused even on loopback, and so is a POST from another site (DNS rebinding, CSRF). At most SERVE_HTTP_CLIENTS connections and
 * bounded bytes each. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/engine.h"
#include "serve/feed.h"

enum { SERVE_HTTP_CLIENTS = 64 };

struct serve_http;

/* `rows` may be NULL (no database). ERR_BUSY if the port is in use: the sentence says which and what to do. */
err serve_http_open(struct engine *e, struct rows *rows, struct serve_feed *feed, const struct site_outputs *o, struct serve_http **ret);
/* The feed must be closed before, so that streams end. */
void serve_http_close(struct serve_http **h);
int serve_http_port(const struct serve_http *h);

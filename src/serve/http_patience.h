/* How long a client may take to say what it wants. libmicrohttpd ends connections that are silent; one that sends a byte now and then would
 * hold its thread for ever. A watchdog ends every connection whose request is not whole in time. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/err.h"

#include <microhttpd.h>

/* From the connection's begin (or from the end of the silence allowed between requests) to the request's last byte. */
enum { HTTP_REQUEST_S = 10 };

struct http_patience;

/* idle_s: between requests of one connection. */
err http_patience_new(int idle_s, struct http_patience **ret);
/* After the daemon has stopped. */
void http_patience_free(struct http_patience **p);
/* MHD_OPTION_NOTIFY_CONNECTION; arg is the http_patience. */
void http_patience_connection(void *arg, struct MHD_Connection *c, void **context, enum MHD_ConnectionNotificationCode code);
/* The request of this connection is whole; the answer may take its time. */
void http_patience_asked(struct http_patience *p, struct MHD_Connection *c);
/* It has been answered: the next may come. */
void http_patience_answered(struct http_patience *p, struct MHD_Connection *c);
/* Connections ended. */
unsigned long long http_patience_ended(struct http_patience *p);

/* A list of connections and the moment at which each must have asked; a thread looks at it once a second and shuts down the sockets of those
 * that have not. libmicrohttpd then sees the end and closes. A connection leaves the list before its socket is closed (the notification comes
 * first), so a number that the kernel has given to somebody else is never shut down.
 * Invariant: a node's fd is open while it is in the list. SPDX-License-Identifier: Apache-2.0 */
#include "serve/http_patience.h"

#include "base/base.h"
#include "base/thread.h"

#include <stdlib.h>
#include <sys/socket.h>

enum { LOOK_MS = 1000 };

struct node {
    struct node *next;
    int fd;
    int64_t until_ns; /* INT64_MAX: it has asked, or was ended */
};

struct http_patience {
    int idle_s;
    struct thread_event stop;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards what follows */
    struct node *nodes;
    unsigned long long ended;
};

static int64_t in_seconds(int s)
{
    return clock_ns() + (int64_t)s * 1000000000;
}

static void look(struct http_patience *p)
{
    int64_t now = clock_ns();
    pthread_mutex_lock(&p->lock);
    for (struct node *n = p->nodes; n; n = n->next) {
        if (n->until_ns > now) continue;
        shutdown(n->fd, SHUT_RDWR);
        n->until_ns = INT64_MAX;
        p->ended++;
    }
    pthread_mutex_unlock(&p->lock);
}

static void *run(void *arg)
{
    struct http_patience *p = arg;
    while (!thread_event_wait(&p->stop, LOOK_MS)) look(p);
    return NULL;
}

static void set_until(struct http_patience *p, struct MHD_Connection *c, int64_t until_ns)
{
    const union MHD_ConnectionInfo *i = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct node *n = i ? i->socket_context : NULL;
    if (!n) return;
    pthread_mutex_lock(&p->lock);
    n->until_ns = until_ns;
    pthread_mutex_unlock(&p->lock);
}

void http_patience_asked(struct http_patience *p, struct MHD_Connection *c)
{
    set_until(p, c, INT64_MAX);
}

void http_patience_answered(struct http_patience *p, struct MHD_Connection *c)
{
    set_until(p, c, in_seconds(p->idle_s + HTTP_REQUEST_S));
}

void http_patience_connection(void *arg, struct MHD_Connection *c, void **context, enum MHD_ConnectionNotificationCode code)
{
    struct http_patience *p = arg;
    const union MHD_ConnectionInfo *i = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct node *n = *context, **at;
    if (code == MHD_CONNECTION_NOTIFY_STARTED && i) {
        n = *context = xnew(struct node);
        n->fd = i->connect_fd;
        n->until_ns = in_seconds(HTTP_REQUEST_S);
        pthread_mutex_lock(&p->lock);
        n->next = p->nodes;
        p->nodes = n;
        pthread_mutex_unlock(&p->lock);
    } else if (code == MHD_CONNECTION_NOTIFY_CLOSED && n) {
        pthread_mutex_lock(&p->lock);
        for (at = &p->nodes; *at && *at != n;) at = &(*at)->next;
        if (*at) *at = n->next;
        pthread_mutex_unlock(&p->lock);
        free(n);
        *context = NULL;
    }
}

unsigned long long http_patience_ended(struct http_patience *p)
{
    pthread_mutex_lock(&p->lock);
    unsigned long long n = p->ended;
    pthread_mutex_unlock(&p->lock);
    return n;
}

err http_patience_new(int idle_s, struct http_patience **ret)
{
    struct http_patience *p = xnew(struct http_patience);
    p->idle_s = idle_s;
    pthread_mutex_init(&p->lock, NULL);
    err e = thread_event_init(&p->stop);
    if (!e) e = thread_start("brim-http-wait", run, p, &p->thread);
    p->started = !e;
    if (e) http_patience_free(&p);
    else *ret = p;
    return e;
}

void http_patience_free(struct http_patience **pp)
{
    struct http_patience *p = *pp;
    if (!p) return;
    if (p->started) {
        thread_event_set(&p->stop);
        pthread_join(p->thread, NULL);
    }
    thread_event_done(&p->stop);
    pthread_mutex_destroy(&p->lock);
    free(p);
    *pp = NULL;
}

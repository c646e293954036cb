/* HTTP on libmicrohttpd. SPDX-License-Identifier: Apache-2.0 */
#include "serve/http.h"
#include "serve/page.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct serve_http {
    struct MHD_Daemon *daemon;
    int port;
};

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method, const char *version,
                                  const char *data, size_t *size, void **state)
{
    (void)arg, (void)url, (void)method, (void)version, (void)data, (void)size, (void)state;
    struct MHD_Response *r = MHD_create_response_from_buffer(serve_page_size, (void *)(uintptr_t)serve_page, MHD_RESPMEM_PERSISTENT);
    enum MHD_Result x = MHD_queue_response(c, 200, r);
    MHD_destroy_response(r);
    return x;
}

err serve_http_open(struct engine *e, struct rows *rows, struct serve_feed *feed, const struct site_outputs *o, struct serve_http **ret)
{
    struct serve_http *h = xnew(struct serve_http);
    (void)e, (void)rows, (void)feed;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o->http_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    h->daemon = MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD, 0, NULL, NULL, on_request, h,
                                 MHD_OPTION_SOCK_ADDR, &a, MHD_OPTION_CONNECTION_LIMIT, (unsigned)SERVE_HTTP_CLIENTS, MHD_OPTION_END);
    if (!h->daemon) {
        free(h);
        return err_set(ERR_BUSY, "http: %s:%d is in use by another program; set outputs.http.listen to another port", o->http_host, o->http_port);
    }
    h->port = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
    *ret = h;
    return ERR_OK;
}

void serve_http_close(struct serve_http **hp)
{
    struct serve_http *h = *hp;
    if (!h) return;
    MHD_stop_daemon(h->daemon);
    free(h);
    *hp = NULL;
}

int serve_http_port(const struct serve_http *h)
{
    return h->port;
}

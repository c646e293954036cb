/* The client's side of the control socket: connect, one line there, one line back, all before one deadline. The
 * server's code and sentence become ours, so that a command says the same with and without a box.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct call {
    const char *path;
    int fd, timeout_ms;
    int64_t end_ns;
};

static err wait_for(const struct call *k, short events)
{
    for (;;) {
        int64_t left = (k->end_ns - clock_ns()) / 1000000;
        if (left <= 0) return err_set(ERR_TIMEOUT, "%s: no answer within %d ms", k->path, k->timeout_ms);
        struct pollfd p = {.fd = k->fd, .events = events};
        if (poll(&p, 1, (int)left) > 0) return ERR_OK;
    }
}

/* A relative name in the socket's folder keeps long paths within sun_path: see control.c. */
static err connect_to(struct call *k)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int dir = -1;
    const char *slash = strrchr(k->path, '/');
    if (strlen(k->path) < sizeof addr.sun_path) {
        memcpy(addr.sun_path, k->path, strlen(k->path) + 1);
    } else {
        if (!slash || strlen(slash) > 64) return err_set(ERR_IO, "%s: too long a name for a socket", k->path);
        char *folder = xstrndup(k->path, (size_t)(slash - k->path));
        dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
        free(folder);
        snprintf(addr.sun_path, sizeof addr.sun_path, "/proc/self/fd/%d%s", dir, slash);
    }
    err e = ERR_OK;
    while (connect(k->fd, (struct sockaddr *)&addr, sizeof addr)) {
        if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR)
            e = err_set(ERR_NOT_FOUND, "%s: no brim serve is running on this store", k->path);
        else if (errno != EAGAIN && errno != EINTR)
            e = err_set(ERR_IO, "%s: cannot connect: %s", k->path, strerror(errno));
        else if (clock_ns() >= k->end_ns) /* its line of waiting clients is full */
            e = err_set(ERR_TIMEOUT, "%s: no answer within %d ms", k->path, k->timeout_ms);
        else
            usleep(5000);
        if (e) break;
    }
    if (dir >= 0) close(dir);
    return e;
}

static err send_all(const struct call *k, const char *s, size_t n)
{
    while (n) {
        ssize_t sent = send(k->fd, s, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return err_set(ERR_CLOSED, "%s: the connection ended: %s", k->path, strerror(errno));
        if (sent > 0) s += sent, n -= (size_t)sent;
        err e = n ? wait_for(k, POLLOUT) : ERR_OK;
        if (e) return e;
    }
    return ERR_OK;
}

static err receive_line(const struct call *k, struct strbuf *line)
{
    char buf[16384];
    for (;;) {
        err e = wait_for(k, POLLIN);
        if (e) return e;
        ssize_t n = recv(k->fd, buf, sizeof buf, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) return err_set(ERR_CLOSED, "%s: the connection ended before the answer", k->path);
        strbuf_addn(line, buf, (size_t)n);
        if (memchr(buf, '\n', (size_t)n)) return ERR_OK;
        if (line->len > CONTROL_MAX_REPLY) return err_set(ERR_LIMIT, "%s: too large an answer", k->path);
    }
}

static err code_of(const char *name)
{
    for (err e = ERR_BASE + 1; e < ERR_END; e++)
        if (!strcmp(err_name(e), name)) return e;
    return ERR_INTERNAL;
}

static err read_reply(const struct call *k, const struct strbuf *line, json_t **ret)
{
    json_t *reply = json_loadb(line->s, line->len, 0, NULL);
    const char *code = json_string_value(json_object_get(reply, "code")), *text;
    err e = ERR_OK;
    if (json_is_true(json_object_get(reply, "ok"))) {
        *ret = json_incref(json_object_get(reply, "result"));
    } else if (code) {
        text = json_string_value(json_object_get(reply, "error"));
        e = err_set(code_of(code), "%s", text ? text : code);
    } else {
        e = err_set(ERR_FORMAT, "%s: the answer is not one of brim's", k->path);
    }
    json_decref(reply);
    return e;
}

err control_call(const char *path, const json_t *request, int timeout_ms, json_t **ret_result)
{
    char *text = json_dumps(request, JSON_COMPACT);
    if (!text || strlen(text) > CONTROL_MAX_REQUEST) {
        free(text);
        return err_set(ERR_LIMIT, "a request may have at most %d bytes", CONTROL_MAX_REQUEST);
    }
    struct call k = {.path = path, .timeout_ms = timeout_ms, .end_ns = clock_ns() + (int64_t)timeout_ms * 1000000};
    struct strbuf line = {0};
    json_t *result = NULL;
    k.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    err e = k.fd < 0 ? err_set(ERR_IO, "cannot make a socket: %s", strerror(errno)) : connect_to(&k);
    strbuf_add(&line, text);
    strbuf_add(&line, "\n");
    if (!e) e = send_all(&k, line.s, line.len);
    line.len = 0;
    if (!e) e = receive_line(&k, &line);
    if (!e) e = read_reply(&k, &line, &result);
    if (!e) *ret_result = result ? result : json_null();
    if (k.fd >= 0) close(k.fd);
    strbuf_done(&line);
    free(text);
    return e;
}

/* The server and the client of the control socket: see control.h.
 *
 * One thread polls the listening socket, an event that ends it, and the clients. A client is read only while
 * nothing waits to be sent to it, so a client that asks and never listens holds one reply and no more. Ownership is
 * a lock on a file beside the socket, not a try to connect: the kernel lets go of it however the owner dies, and
 * there is no moment in which two servers each think the other is dead. The lock file stays (removing it would open
 * just that moment).
 *
 * Invariants: the socket at PATH was made by the holder of PATH.lock; client.in.len <= CONTROL_MAX_REQUEST + 1.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/control.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct client {
    int fd; /* -1: free */
    struct strbuf in, out;
    size_t sent;
    int64_t last_ns;
    bool ending; /* close when everything is sent */
};

struct control {
    char *path;
    int lock_fd, fd;
    pthread_t thread;
    struct thread_event stop;
    control_handler *handler;
    void *arg;
    struct client clients[CONTROL_MAX_CLIENTS]; /* of the thread alone */
};

static void add_json(struct strbuf *out, json_t *reply)
{
    char *text = reply ? json_dumps(reply, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(reply);
    if (text && strlen(text) < CONTROL_MAX_REPLY)
        strbuf_add(out, text);
    else
        strbuf_add(
            out, "{\"ok\":false,\"code\":\"internal error (a bug in brim)\",\"error\":\"the reply is too large\"}");
    strbuf_add(out, "\n");
    free(text);
}

static void add_error(struct strbuf *out, err e)
{
    json_t *text = json_string(err_text()); /* NULL if a file name in it is not UTF-8 */
    if (!text) text = json_string("(the sentence is not text)");
    add_json(out, json_pack("{s:b,s:s,s:o}", "ok", 0, "code", err_name(e), "error", text));
}

void control_answer(const char *line, size_t n, control_handler *handler, void *arg, struct strbuf *reply)
{
    json_error_t where;
    json_t *request = json_loadb(line, n, JSON_REJECT_DUPLICATES, &where), *result = NULL;
    err e = ERR_OK;
    if (!request)
        e = err_set(ERR_FORMAT, "the request is not JSON: %s at byte %d", where.text, where.position);
    else if (!json_is_object(request))
        e = err_set(ERR_FORMAT, "the request must be a JSON object");
    else
        e = handler(arg, request, &result);
    if (e)
        add_error(reply, e);
    else
        add_json(reply, json_pack("{s:b,s:o}", "ok", 1, "result", result ? result : json_null()));
    json_decref(request);
}

/* Fills `addr` for a path of any length: a long one goes through its folder's descriptor (*ret_dir, else -1). */
static err address(const char *path, struct sockaddr_un *addr, int *ret_dir)
{
    *addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    *ret_dir = -1;
    if (strlen(path) < sizeof addr->sun_path) {
        memcpy(addr->sun_path, path, strlen(path) + 1);
        return ERR_OK;
    }
    const char *slash = strrchr(path, '/');
    if (!slash || strlen(slash) > 64) return err_set(ERR_IO, "%s: too long a name for a socket", path);
    char *dir = xstrndup(path, (size_t)(slash - path));
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    free(dir);
    if (fd < 0) return err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    snprintf(addr->sun_path, sizeof addr->sun_path, "/proc/self/fd/%d%s", fd, slash);
    *ret_dir = fd;
    return ERR_OK;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* Takes PATH.lock and writes our pid into it. */
static err take_lock(const char *path, int *ret)
{
    char *lock = xasprintf("%s.lock", path), pid[32] = {0};
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    err e = fd < 0 ? err_set(ERR_IO, "%s: cannot open: %s", lock, strerror(errno)) : ERR_OK;
    if (!e && flock(fd, LOCK_EX | LOCK_NB)) {
        int why = errno;
        ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
        long number = n > 0 ? strtol(pid, NULL, 10) : 0;
        if (why == EWOULDBLOCK)
            e = err_set(ERR_BUSY,
                        "%s: another brim serve uses this store (pid %ld); stop it or choose another store", path,
                        number);
        else
            e = err_set(ERR_IO, "%s: cannot lock: %s", lock, strerror(why));
    }
    if (!e) {
        int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
        if (ftruncate(fd, 0) || pwrite(fd, pid, (size_t)n, 0) != n)
            e = err_set(ERR_IO, "%s: cannot write: %s", lock, strerror(errno));
    }
    free(lock);
    if (e)
        close_fd(&fd);
    else
        *ret = fd;
    return e;
}

/* With the lock held: whatever socket is there belongs to nobody. */
static err listen_at(const char *path, int *ret)
{
    struct stat st;
    if (!lstat(path, &st)) {
        if (!S_ISSOCK(st.st_mode)) return err_set(ERR_IO, "%s: exists and is not a socket; remove it", path);
        unlink(path);
    }
    struct sockaddr_un addr;
    int dir, fd = -1;
    err e = address(path, &addr, &dir);
    if (e) return e;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* nobody can connect between bind and listen, so there is no moment with a wider mode */
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) || chmod(path, 0600) || listen(fd, 16)) {
        e = err_set(ERR_IO, "%s: cannot listen: %s", path, strerror(errno));
        close_fd(&fd);
    }
    close_fd(&dir);
    if (!e) *ret = fd;
    return e;
}

static void client_end(struct client *k)
{
    close_fd(&k->fd);
    strbuf_done(&k->in);
    strbuf_done(&k->out);
    k->sent = 0;
    k->ending = false;
}

static void client_accept(struct control *c)
{
    int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    struct client *free_one = &c->clients[0];
    for (int i = 0; i < CONTROL_MAX_CLIENTS && free_one->fd >= 0; i++) {
        struct client *k = &c->clients[i];
        if (k->fd < 0 || k->last_ns < free_one->last_ns) free_one = k;
    }
    client_end(free_one); /* if all are taken: the one that was silent longest */
    free_one->fd = fd;
    free_one->last_ns = clock_ns();
}

/* Answers lines until one answer waits to be sent. */
static void client_answer(struct control *c, struct client *k)
{
    while (!k->out.len && k->in.len) {
        char *end = memchr(k->in.s, '\n', k->in.len);
        size_t n = end ? (size_t)(end - k->in.s) : k->in.len;
        if (n > CONTROL_MAX_REQUEST) {
            add_error(&k->out, err_set(ERR_LIMIT, "a request may have at most %d bytes", CONTROL_MAX_REQUEST));
            k->ending = true;
            return;
        }
        if (!end) return;
        control_answer(k->in.s, n, c->handler, c->arg, &k->out);
        k->in.len -= n + 1;
        memmove(k->in.s, end + 1, k->in.len);
    }
}

/* False when the connection is over. */
static bool client_send(struct client *k)
{
    while (k->sent < k->out.len) {
        ssize_t n = send(k->fd, k->out.s + k->sent, k->out.len - k->sent, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        k->sent += (size_t)n;
    }
    strbuf_done(&k->out);
    k->sent = 0;
    return !k->ending;
}

static bool client_step(struct control *c, struct client *k)
{
    k->last_ns = clock_ns();
    if (!k->out.len) {
        char buf[4096];
        ssize_t n = recv(k->fd, buf, MIN(sizeof buf, CONTROL_MAX_REQUEST + 1 - k->in.len), 0);
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        if (n == 0) return false;
        strbuf_addn(&k->in, buf, (size_t)n);
    }
    do {
        if (!client_send(k)) return false;
        if (k->out.len) return true; /* the rest when it can be sent */
        client_answer(c, k);
    } while (k->out.len);
    return true;
}

static void *serve(void *arg)
{
    struct control *c = arg;
    for (;;) {
        struct pollfd p[CONTROL_MAX_CLIENTS + 2];
        p[0] = (struct pollfd){.fd = thread_event_fd(&c->stop), .events = POLLIN};
        p[1] = (struct pollfd){.fd = c->fd, .events = POLLIN};
        for (int i = 0; i < CONTROL_MAX_CLIENTS; i++)
            p[i + 2] = (struct pollfd){.fd = c->clients[i].fd, .events = c->clients[i].out.len ? POLLOUT : POLLIN};
        if (poll(p, ARRAY_LEN(p), -1) < 0 && errno != EINTR) break;
        if (thread_event_is_set(&c->stop)) break;
        for (int i = 0; i < CONTROL_MAX_CLIENTS; i++)
            if (p[i + 2].fd >= 0 && p[i + 2].revents && !client_step(c, &c->clients[i])) client_end(&c->clients[i]);
        if (p[1].revents) client_accept(c);
    }
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++) client_end(&c->clients[i]);
    return NULL;
}

err control_open(const char *path, control_handler *handler, void *arg, struct control **ret)
{
    struct control *c = xnew(struct control);
    *c = (struct control){.path = xstrdup(path), .lock_fd = -1, .fd = -1, .handler = handler, .arg = arg};
    c->stop.fd = -1;
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++) c->clients[i].fd = -1;
    err e = take_lock(path, &c->lock_fd);
    if (!e) e = listen_at(path, &c->fd);
    if (!e) e = thread_event_init(&c->stop);
    if (!e) e = thread_start("control", serve, c, &c->thread);
    if (!e) {
        *ret = c;
        return ERR_OK;
    }
    if (c->fd >= 0) unlink(path);
    if (c->stop.fd >= 0) thread_event_done(&c->stop);
    close_fd(&c->fd);
    close_fd(&c->lock_fd);
    free(c->path);
    free(c);
    return e;
}

void control_close(struct control **cp)
{
    struct control *c = *cp;
    if (!c) return;
    thread_event_set(&c->stop);
    pthread_join(c->thread, NULL);
    thread_event_done(&c->stop);
    unlink(c->path);
    close_fd(&c->fd);
    close_fd(&c->lock_fd);
    free(c->path);
    free(c);
    *cp = NULL;
}

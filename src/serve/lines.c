/* The writer of lines.
 *
 * A ring of bytes that holds whole lines only. The thread writes from the oldest line on and gives a line's bytes back when the whole line is
 * out; so after an error the half that reached a regular file is cut off again and the line is written anew, and where nothing can be cut
 * off (a pipe) the rest follows the half. No write of ours waits: files are waited for with poll for at most TICK_MS, and standard output is opened
 * again through /proc, because O_NONBLOCK on the descriptor that we were given would change it for whoever shares it. Where
 * that is refused (another user's pipe) pieces of PIPE_BUF are written once poll says that there is room (pipe(7)).
 *
 * Invariant: the ring begins with a line's first byte; `mid` bytes of that line are in the file. SPDX-License-Identifier: Apache-2.0 */
#include "serve/lines.h"

#include "base/log.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TICK_MS = 100, RETRY_MS = 1000, SLOW_MS = 1000, PIECE = 64 << 10 };

enum way { REGULAR, FREE, SHARED, SOCKET }; /* FREE: the descriptor does not block. SHARED: it does, see above */

struct serve_lines {
    struct serve_lines_options o;
    char *name; /* for sentences */
    int fd;
    bool ours; /* fd is to be closed */
    enum way way;
    pthread_t thread;
    bool started;
    char said[256]; /* the problem as last told; the thread only */

    pthread_mutex_t lock; /* guards what follows; the thread alone moves head and mid, and reads the ring's bytes without it */
    pthread_cond_t more, room;
    char *ring;
    size_t head, used, mid;
    bool stop, failing, closed; /* failing: the last write failed; closed: the reader has gone for good */
    int64_t stop_ns;
    uint64_t dropped; /* since it last worked */
};

static struct timespec after_ms(int ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    return t;
}

/* ---- the queue */

static void drop_one(struct serve_lines *l)
{
    l->dropped++;
    if (l->o.count) atomic_fetch_add(l->failing || l->closed ? &l->o.count->failed : &l->o.count->slow, 1);
}

void serve_lines_put(struct serve_lines *l, const char *text, size_t n)
{
    pthread_mutex_lock(&l->lock);
    if (l->way == REGULAR && !l->failing && n > SERVE_LINES_BYTES - l->used && n <= SERVE_LINES_BYTES) {
        struct timespec until = after_ms(SERVE_LINES_WAIT_MS);
        int rc = 0;
        while (!rc && !l->failing && n > SERVE_LINES_BYTES - l->used) rc = pthread_cond_timedwait(&l->room, &l->lock, &until);
        if (rc) l->failing = true; /* a disk that takes nothing for so long; nobody waits for it again before it did */
    }
    if (l->closed || n > SERVE_LINES_BYTES - l->used) {
        drop_one(l);
    } else {
        size_t at = (l->head + l->used) % SERVE_LINES_BYTES, first = MIN(n, SERVE_LINES_BYTES - at);
        memcpy(l->ring + at, text, first);
        memcpy(l->ring, text + first, n - first);
        l->used += n;
        pthread_cond_signal(&l->more);
    }
    pthread_mutex_unlock(&l->lock);
}

/* n more bytes are in the file: gives whole lines back. Lock held. */
static void advance(struct serve_lines *l, size_t n)
{
    uint64_t lines = 0;
    size_t from = l->mid, whole = 0;
    for (size_t i = from; i < from + n; i++)
        if (l->ring[(l->head + i) % SERVE_LINES_BYTES] == '\n') whole = i + 1, lines++;
    l->mid = from + n - whole;
    l->head = (l->head + whole) % SERVE_LINES_BYTES;
    l->used -= whole;
    if (!l->used) l->head = 0; /* an idle queue does not wander through, and touch, all of its memory */
    if (l->o.count) atomic_fetch_add(&l->o.count->written, lines);
    if (whole) pthread_cond_broadcast(&l->room);
}

static uint64_t count_lines(const struct serve_lines *l)
{
    uint64_t lines = 0;
    for (size_t i = 0; i < l->used; i++) lines += l->ring[(l->head + i) % SERVE_LINES_BYTES] == '\n';
    return lines;
}

/* ---- the file */

/* Bytes written, 0 if it takes none now, -1 and errno. */
static ssize_t write_piece(struct serve_lines *l, const char *p, size_t n)
{
    struct pollfd ready = {.fd = l->fd, .events = POLLOUT};
    if (l->way != REGULAR && poll(&ready, 1, TICK_MS) <= 0) return 0;
    ssize_t got = l->way == SOCKET ? send(l->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL)
                                   : write(l->fd, p, l->way == SHARED ? MIN(n, (size_t)PIPE_BUF) : n);
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : got;
}

/* Cuts the half line off; false if that cannot be, then its rest follows later. */
static bool cut_half(struct serve_lines *l)
{
    struct stat st;
    off_t at = l->way == REGULAR ? lseek(l->fd, 0, SEEK_CUR) : -1;
    if (at < (off_t)l->mid || fstat(l->fd, &st) || st.st_size != at) return false; /* somebody else writes there too */
    at -= (off_t)l->mid;
    return ftruncate(l->fd, at) == 0 && lseek(l->fd, at, SEEK_SET) == at;
}

static void tell(struct serve_lines *l, const char *sentence)
{
    if (!strcmp(l->said, sentence)) return;
    snprintf(l->said, sizeof l->said, "%s", sentence);
    if (l->o.problem) l->o.problem(l->o.user, l->said);
}

/* Lock held; it is released meanwhile. */
static void after_error(struct serve_lines *l, int error)
{
    char text[256];
    struct timespec until = after_ms(RETRY_MS);
    l->failing = true;
    l->closed = error == EPIPE && l->way != REGULAR;
    if (l->mid && cut_half(l)) l->mid = 0;
    if (l->closed) {
        uint64_t lines = count_lines(l);
        if (l->o.count) atomic_fetch_add(&l->o.count->failed, lines);
        l->dropped += lines;
        l->head = l->used = l->mid = 0;
    }
    pthread_cond_broadcast(&l->room);
    pthread_mutex_unlock(&l->lock);
    snprintf(text, sizeof text, "%s: %s", l->name,
             l->closed ? "its reader has gone; results are dropped" : strerror(error));
    tell(l, text);
    pthread_mutex_lock(&l->lock);
    for (int rc = 0; !rc && !l->closed && !l->stop;) rc = pthread_cond_timedwait(&l->more, &l->lock, &until);
}

static void tell_slow(struct serve_lines *l)
{
    char text[256];
    snprintf(text, sizeof text, "%s: its reader does not read fast enough; results wait, and are dropped when there are too many", l->name);
    pthread_mutex_unlock(&l->lock);
    tell(l, text);
    pthread_mutex_lock(&l->lock);
}

/* Lock held; it is released meanwhile. All is well again when half of the queue is free, or people would be told twice a second. */
static void after_success(struct serve_lines *l, size_t n, size_t asked)
{
    uint64_t dropped = l->dropped;
    advance(l, n);
    if (l->way == REGULAR && n < asked) return; /* a disk that fills takes a part first; the next write says what it is */
    l->failing = false;
    if (l->used > SERVE_LINES_BYTES / 2) {
        if (dropped && l->way != REGULAR) tell_slow(l);
        return;
    }
    l->dropped = 0;
    pthread_mutex_unlock(&l->lock);
    if (dropped) log_warn("serve", "%s: %llu lines were dropped", l->name, (unsigned long long)dropped);
    tell(l, "");
    pthread_mutex_lock(&l->lock);
}

static bool over(const struct serve_lines *l)
{
    return l->stop && (!l->used || clock_ns() - l->stop_ns > (int64_t)SERVE_LINES_CLOSE_MS * 1000000);
}

static void *run(void *arg)
{
    struct serve_lines *l = arg;
    int64_t moved_ns = clock_ns();
    bool last = false; /* an error after stop is final */
    pthread_mutex_lock(&l->lock);
    while (!over(l) && !last) {
        if (!l->used) {
            pthread_cond_wait(&l->more, &l->lock);
            moved_ns = clock_ns();
            continue;
        }
        size_t at = (l->head + l->mid) % SERVE_LINES_BYTES;
        size_t n = MIN(MIN(l->used - l->mid, SERVE_LINES_BYTES - at), (size_t)PIECE);
        pthread_mutex_unlock(&l->lock);
        ssize_t got = write_piece(l, l->ring + at, n);
        int error = errno;
        pthread_mutex_lock(&l->lock);
        if (got < 0) {
            last = l->stop;
            after_error(l, error);
        } else if (got > 0) {
            moved_ns = clock_ns();
            after_success(l, (size_t)got, n);
        } else {
            if (clock_ns() - moved_ns > (int64_t)SLOW_MS * 1000000) tell_slow(l);
        }
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- lifetimes */

static int open_stdout(struct serve_lines *l)
{
    struct stat st;
    if (fstat(STDOUT_FILENO, &st)) return -1;
    l->way = S_ISREG(st.st_mode) ? REGULAR : S_ISSOCK(st.st_mode) ? SOCKET : FREE;
    if (l->way != FREE) return STDOUT_FILENO; /* a file is written on at the place where it is */
    int fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    l->ours = fd >= 0;
    if (fd < 0) l->way = SHARED;
    return fd < 0 ? STDOUT_FILENO : fd;
}

/* A FIFO is opened for reading too: so it needs no reader, and readers may come and go. */
static int open_path(struct serve_lines *l)
{
    struct stat st;
    int fd = open(l->o.path, O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644);
    if (fd < 0 && errno == EACCES) fd = open(l->o.path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    l->ours = fd >= 0;
    l->way = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? REGULAR : FREE;
    char end = '\n';
    if (l->way == REGULAR && st.st_size && pread(fd, &end, 1, st.st_size - 1) == 1 && end != '\n')
        (void)!write(fd, "\n", 1); /* a kill -9 left half a line; if this fails too, the first line says so */
    return fd;
}

err serve_lines_open(const struct serve_lines_options *o, struct serve_lines **ret)
{
    struct serve_lines *l = xnew(struct serve_lines);
    pthread_condattr_t monotonic;
    l->o = *o;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&l->more, &monotonic);
    pthread_cond_init(&l->room, &monotonic);
    pthread_condattr_destroy(&monotonic);
    bool out = !strcmp(o->path, "-");
    l->name = xstrdup(out ? "standard output" : o->path);
    l->fd = out ? open_stdout(l) : open_path(l);
    err e = l->fd < 0 ? err_set(ERR_IO, "%s: cannot write JSON lines there: %s", l->name, strerror(errno)) : ERR_OK;
    if (!e) e = mem_alloc(o->payer, MEM_QUEUE, SERVE_LINES_BYTES, (void **)&l->ring);
    if (!e) e = thread_start("brim-lines", run, l, &l->thread);
    l->started = !e;
    if (e) serve_lines_close(&l);
    else *ret = l;
    return e;
}

void serve_lines_close(struct serve_lines **lp)
{
    struct serve_lines *l = *lp;
    if (!l) return;
    if (l->started) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        l->stop_ns = clock_ns();
        pthread_cond_broadcast(&l->more);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    uint64_t lines = l->ring ? count_lines(l) : 0;
    if (lines && l->o.count) atomic_fetch_add(l->failing ? &l->o.count->failed : &l->o.count->slow, lines);
    lines += l->dropped;
    if (lines) log_warn("serve", "%s: %llu lines were dropped", l->name, (unsigned long long)lines);
    if (l->ours) close(l->fd);
    mem_free(l->o.payer, MEM_QUEUE, l->ring, SERVE_LINES_BYTES);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->more);
    pthread_cond_destroy(&l->room);
    free(l->name);
    free(l);
    *lp = NULL;
}

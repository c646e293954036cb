/* A connection in a child process: the program itself, started again as a decoder behind shared-memory slots.
 *
 * FFmpeg reads what strangers send; a crash or a leak in it then costs one camera a second instead of the box its
 * life. The child gets the URL over a socket pair (argv is public), writes pictures into one of three slots of a
 * memory file, and says so in a packet. Nothing of it is believed: each packet is checked (wire.c), the layout is
 * computed here, the file is sealed so that it cannot shrink under us, and we map it read-only. A child that is
 * silent, lies, grows beyond the budget or dies is killed, and the camera's ordinary back-off starts another one.
 *
 * Slots live as long as frames of them are held: `struct slots` is counted, and its way back to the child is cut (fd
 * -1) when the connection ends. Bytes: the slots as MEM_FRAMES; the child's anonymous memory, read from /proc every
 * second, as MEM_DECODER. SPDX-License-Identifier: Apache-2.0 */
#include "video/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_START_BYTES = 16 << 20, GRACE_MS = 300, POLL_MS = 50, CHILD_FD = 3 };

struct slots {
    struct video_pool *pool;
    uint8_t *base;
    size_t slot_bytes, all_bytes;
    uint32_t generation;
    pthread_mutex_t lock; /* guards the rest, and sending on fd */
    int fd, refs;         /* fd -1: nobody to tell any more */
    bool busy[VIDEO_SLOTS];
};

struct remote {
    const struct video_env *env;
    pid_t pid;
    int fd;
    struct slots *slots;
    uint32_t generation;
    struct video_info info;
    struct video_wire last; /* the counters of its last packet */
    int64_t heard_ns, measured_ns;
    double need;
    size_t charged;
};

static void slots_unref(struct slots *s)
{
    pthread_mutex_lock(&s->lock);
    bool last = --s->refs == 0;
    pthread_mutex_unlock(&s->lock);
    if (!last) return;
    munmap(s->base, s->all_bytes);
    mem_release(video_pool_payer(s->pool), MEM_FRAMES, s->all_bytes);
    video_pool_unref(&s->pool);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* The connection is over, or has new slots: frames may live on, but nobody is told when they go. */
static void slots_cut(struct slots **s)
{
    if (!*s) return;
    pthread_mutex_lock(&(*s)->lock);
    (*s)->fd = -1;
    pthread_mutex_unlock(&(*s)->lock);
    slots_unref(*s);
    *s = NULL;
}

static void slot_drop(void *owner, int index)
{
    struct slots *s = owner;
    struct video_wire m = {.magic = VIDEO_WIRE_MAGIC, .type = WIRE_FREE, .generation = s->generation,
                           .slot = (uint32_t)index};
    pthread_mutex_lock(&s->lock);
    s->busy[index] = false;
    if (s->fd >= 0) send(s->fd, &m, sizeof m, MSG_DONTWAIT | MSG_NOSIGNAL);
    pthread_mutex_unlock(&s->lock);
    slots_unref(s);
}

/* Three slots in a new sealed memory file; the descriptor goes to the child and is closed here. */
static err slots_new(struct remote *r, size_t bytes, int *ret_memfd)
{
    size_t slot = (bytes + 4095) / 4096 * 4096, all = slot * VIDEO_SLOTS;
    struct mem_payer *payer = video_pool_payer(r->env->pool);
    err e = mem_charge(payer, MEM_FRAMES, all);
    if (e) return e;
    int fd = memfd_create("brim-frames", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *base = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)all) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        base = mmap(NULL, all, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        e = err_set(ERR_NOMEM, "cannot share %zu bytes with the decoder: %s", all, strerror(errno));
        if (fd >= 0) close(fd);
        mem_release(payer, MEM_FRAMES, all);
        return e;
    }
    struct slots *s = xnew(struct slots);
    s->pool = video_pool_ref(r->env->pool);
    s->base = base;
    s->slot_bytes = slot;
    s->all_bytes = all;
    s->generation = ++r->generation;
    s->fd = r->fd;
    s->refs = 1;
    pthread_mutex_init(&s->lock, NULL);
    r->slots = s;
    *ret_memfd = fd;
    return ERR_OK;
}

static void send_with_fd(int sock, const struct video_wire *m, int fd)
{
    struct iovec iov = {(void *)m, sizeof *m};
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        h.msg_control = control.room;
        h.msg_controllen = sizeof control.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    sendmsg(sock, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void give_slots(struct remote *r, uint64_t bytes)
{
    struct video_wire m = {.magic = VIDEO_WIRE_MAGIC, .type = WIRE_SLOTS};
    int memfd = -1;
    slots_cut(&r->slots); /* first, so that there need not be room for both */
    if (slots_new(r, bytes, &memfd) == ERR_OK) {
        m.bytes = r->slots->slot_bytes;
        m.generation = r->generation;
    }
    send_with_fd(r->fd, &m, memfd);
    if (memfd >= 0) close(memfd);
}

/* Signals and descriptors of the child are the defaults; only the socket stays open. */
static err spawn(struct remote *r)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return err_set(ERR_IO, "cannot make a socket pair: %s", strerror(errno));
    int theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, CHILD_FD + 1); /* dup2 onto itself would keep close-on-exec */
    close(pair[1]);
    r->fd = pair[0];
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t at;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, theirs, CHILD_FD);
    posix_spawn_file_actions_addclosefrom_np(&fa, CHILD_FD + 1);
    posix_spawnattr_init(&at);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    sigdelset(&all, SIGKILL);
    sigdelset(&all, SIGSTOP);
    posix_spawnattr_setsigmask(&at, &none);
    posix_spawnattr_setsigdefault(&at, &all);
    posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    char *argv[] = {(char *)"brim", (char *)VIDEO_DECODE_ARG, NULL};
    int rc = posix_spawn(&r->pid, "/proc/self/exe", &fa, &at, argv, environ);
    posix_spawnattr_destroy(&at);
    posix_spawn_file_actions_destroy(&fa);
    if (theirs >= 0) close(theirs);
    if (rc) r->pid = 0;
    return rc ? err_set(ERR_IO, "cannot start the decoder process: %s", strerror(rc)) : ERR_OK;
}

/* Charges what the child really uses; a child that has outgrown the budget ends here. */
static err measure(struct remote *r)
{
    if (clock_ns() - r->measured_ns < 1000000000) return ERR_OK;
    r->measured_ns = clock_ns();
    char path[40], line[128];
    unsigned long kb = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)r->pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %lu", &kb) == 1) break;
    if (f) fclose(f);
    size_t now = VIDEO_SANITIZED ? CHILD_START_BYTES : MAX((size_t)kb << 10, (size_t)CHILD_START_BYTES);
    struct mem_payer *payer = video_pool_payer(r->env->pool);
    return video_recharge(payer, MEM_DECODER, &r->charged, now);
}

/* The child's counters begin at 0 with each child and may only rise; a lie here shows a wrong figure and no more. */
static void add_counters(struct remote *r, const struct video_wire *m)
{
    struct video_counters *c = r->env->c;
#define ADD(to, field) \
    if (m->field > r->last.field) atomic_fetch_add(&c->to, m->field - r->last.field)
    if (m->pictures > r->last.pictures) atomic_store(&c->progress_ns, clock_ns());
    ADD(pictures, pictures);
    ADD(decoded, decoded);
    ADD(skipped, skipped);
    ADD(corrupt, corrupt);
    ADD(no_memory, no_memory);
    ADD(bytes, bytes_read);
#undef ADD
    r->last = *m;
}

/* The next checked packet, within POLL_MS: ERR_AGAIN if there is none. */
static err receive(struct remote *r, struct video_wire *m)
{
    struct pollfd p = {.fd = r->fd, .events = POLLIN};
    if (r->env->tick(r->env->user)) return err_set(ERR_CANCELLED, "stopped");
    double need = atomic_load(&r->env->c->need);
    if (need != r->need) {
        struct video_wire n = {.magic = VIDEO_WIRE_MAGIC, .type = WIRE_NEED, .need = need};
        if (send(r->fd, &n, sizeof n, MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof n) r->need = need;
    }
    err e = measure(r);
    if (e) return e;
    if (poll(&p, 1, POLL_MS) <= 0) {
        if (clock_ns() - r->heard_ns > (r->env->o->timeout_ms + 3000) * 1000000LL)
            return err_set(ERR_TIMEOUT, "the decoder process does not answer");
        return ERR_AGAIN;
    }
    ssize_t n = recv(r->fd, m, sizeof *m, MSG_DONTWAIT | MSG_TRUNC);
    /* A child that went while a packet of ours lay unread there: Linux says so once, and before what the child had still sent. */
    if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNRESET)) return ERR_AGAIN;
    if (n <= 0) return err_set(ERR_IO, "the decoder process died");
    struct video_wire_state state = {0};
    if (r->slots) {
        state.generation = r->slots->generation;
        state.slot_bytes = r->slots->slot_bytes;
        pthread_mutex_lock(&r->slots->lock);
        memcpy(state.busy, r->slots->busy, sizeof state.busy);
        pthread_mutex_unlock(&r->slots->lock);
    }
    e = video_wire_check(m, (size_t)n, &state);
    if (e) return e;
    r->heard_ns = clock_ns();
    add_counters(r, m);
    if (m->type != WIRE_END) return ERR_OK;
    e = m->code == ERR_CANCELLED ? ERR_IO : m->code;
    return err_set(e, "%.900s", m->text);
}

static void remote_close(void **p);

static err remote_open(const struct video_env *env, void **ret)
{
    struct remote *r = xnew(struct remote);
    void *self = r;
    r->env = env;
    r->fd = -1;
    r->need = -1;
    r->heard_ns = r->measured_ns = clock_ns();
    err e = mem_charge(video_pool_payer(env->pool), MEM_DECODER, CHILD_START_BYTES);
    if (!e) {
        r->charged = CHILD_START_BYTES;
        e = spawn(r);
    }
    const struct video_options *o = env->o;
    struct video_wire m = {.magic = VIDEO_WIRE_MAGIC,
                           .type = WIRE_OPEN,
                           .need = atomic_load(&env->c->need),
                           .open = {.pace = o->pace,
                                    .loop = o->loop,
                                    .transport = o->transport,
                                    .timeout_ms = o->timeout_ms,
                                    .stall_ms = o->stall_ms,
                                    .hint_w = o->hint_w,
                                    .hint_h = o->hint_h,
                                    .max_fps = o->max_fps}};
    r->need = m.need;
    snprintf(m.text, sizeof m.text, "%s", o->url);
    if (!e && send(r->fd, &m, sizeof m, MSG_NOSIGNAL) != sizeof m)
        e = err_set(ERR_IO, "the decoder process died at once");
    while (!e && !r->info.child_pid) {
        e = receive(r, &m);
        if (e == ERR_AGAIN) {
            e = ERR_OK;
        } else if (!e && m.type == WIRE_INFO) {
            snprintf(r->info.codec, sizeof r->info.codec, "%.31s", m.text);
            for (char *s = r->info.codec; *s; s++)
                if (*s < ' ' || *s > '~') *s = '?';
            r->info.fps = m.fps;
            r->info.file = m.file;
            r->info.child_pid = (int)r->pid;
        } else if (!e && m.type != WIRE_BEAT) {
            e = err_set(ERR_CORRUPT, "the decoder sent frames before it had opened");
        }
    }
    if (e) {
        char text[1024]; /* closing may set another sentence */
        snprintf(text, sizeof text, "%s", err_text());
        remote_close(&self);
        return err_set(e, "%s", text);
    }
    *ret = r;
    return ERR_OK;
}

static struct video_frame *slot_frame(struct slots *s, const struct video_wire *m)
{
    struct video_layout l;
    if (!video_layout((enum video_format)m->frame.format, m->frame.width, m->frame.height, &l)) return NULL;
    pthread_mutex_lock(&s->lock);
    s->busy[m->slot] = true;
    s->refs++;
    pthread_mutex_unlock(&s->lock);
    struct video_frame *f = video_frame_wrap(slot_drop, s, (int)m->slot);
    f->format = (enum video_format)m->frame.format;
    f->width = m->frame.width;
    f->height = m->frame.height;
    for (int i = 0; i < l.planes; i++) {
        f->plane[i] = s->base + m->slot * s->slot_bytes + l.offset[i];
        f->stride[i] = l.stride[i];
    }
    f->matrix = (enum video_matrix)m->frame.matrix;
    f->full_range = m->frame.full_range != 0;
    f->chroma_left = m->frame.chroma_left != 0;
    f->pts = m->frame.pts;
    f->captured_ns = MIN(m->frame.captured_ns, clock_ns());
    return f;
}

static err remote_next(void *p, struct video_frame **ret)
{
    struct remote *r = p;
    struct video_wire m;
    for (;;) {
        err e = receive(r, &m);
        if (e == ERR_AGAIN) continue;
        if (e) return e;
        if (m.type == WIRE_WANT) give_slots(r, m.bytes);
        if (m.type != WIRE_FRAME) continue;
        struct video_frame *f = slot_frame(r->slots, &m);
        if (!f) continue;
        *ret = f;
        return ERR_OK;
    }
}

static void remote_info(const void *p, struct video_info *ret)
{
    *ret = ((const struct remote *)p)->info;
}

/* Closing the socket asks the child to say goodbye to the camera and go; after the grace it is killed. */
static void remote_close(void **p)
{
    struct remote *r = *p;
    if (!r) return;
    *p = NULL;
    slots_cut(&r->slots);
    if (r->fd >= 0) close(r->fd);
    for (int i = 0; r->pid > 0; i++) {
        if (i == GRACE_MS / 10) kill(r->pid, SIGKILL);
        pid_t got = waitpid(r->pid, NULL, i >= GRACE_MS / 10 ? 0 : WNOHANG);
        if (got == r->pid || (got < 0 && errno != EINTR)) break;
        usleep(10000);
    }
    if (r->charged) mem_release(video_pool_payer(r->env->pool), MEM_DECODER, r->charged);
    free(r);
}

const struct video_session_ops video_remote_ops = {remote_open, remote_next, remote_info, remote_close};

/* The decoding child: opens one camera, writes its pictures into shared slots, and goes when anything is wrong.
 *
 * It makes one connection; trying again is the parent's business. A live camera's picture that finds no free slot is
 * skipped; a file waits. It dies with its parent (PR_SET_PDEATHSIG, and the end of the socket), and its address space
 * is limited. SPDX-License-Identifier: Apache-2.0 */
#include "video/wire.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHILD_FD = 3, BEAT_NS = 500000000, TICK_NS = 10000000 };
#define SPACE_BYTES  (4ULL << 30) /* of address space, libraries included */
#define BUDGET_BYTES (2ULL << 30) /* of pictures */

struct child {
    struct video_counters counters;
    bool gone; /* the parent */
    int64_t last_beat_ns, last_tick_ns, refused_ns;
    uint8_t *base;
    uint64_t slot_bytes, wanted;
    uint32_t generation;
    bool slot_free[VIDEO_SLOTS];
};

static void say(struct child *c, struct video_wire *m, enum video_wire_type type)
{
    m->magic = VIDEO_WIRE_MAGIC;
    m->type = type;
    m->pictures = atomic_load(&c->counters.pictures);
    m->decoded = atomic_load(&c->counters.decoded);
    m->skipped = atomic_load(&c->counters.skipped);
    m->corrupt = atomic_load(&c->counters.corrupt);
    m->no_memory = atomic_load(&c->counters.no_memory);
    m->bytes_read = atomic_load(&c->counters.bytes);
    if (send(CHILD_FD, m, sizeof *m, MSG_NOSIGNAL) != sizeof *m) c->gone = true;
}

static void map_slots(struct child *c, const struct video_wire *m, int fd)
{
    if (c->base) munmap(c->base, c->slot_bytes * VIDEO_SLOTS);
    c->base = NULL;
    c->wanted = 0;
    c->refused_ns = clock_ns();
    if (fd < 0) return;
    void *p = mmap(NULL, m->bytes * VIDEO_SLOTS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED) return;
    c->base = p;
    c->slot_bytes = m->bytes;
    c->generation = m->generation;
    for (int i = 0; i < VIDEO_SLOTS; i++) c->slot_free[i] = true;
}

/* Handles all packets that wait. */
static void listen_to_parent(struct child *c)
{
    struct video_wire m;
    for (;;) {
        struct iovec iov = {&m, sizeof m};
        union {
            struct cmsghdr align;
            char room[CMSG_SPACE(sizeof(int))];
        } control;
        struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room,
                           .msg_controllen = sizeof control.room};
        ssize_t n = recvmsg(CHILD_FD, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n != sizeof m) {
            c->gone = true;
            return;
        }
        int fd = -1;
        struct cmsghdr *cm = CMSG_FIRSTHDR(&h);
        if (cm && cm->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(cm), sizeof fd);
        if (m.type == WIRE_NEED) atomic_store(&c->counters.need, m.need);
        if (m.type == WIRE_FREE && m.generation == c->generation && m.slot < VIDEO_SLOTS) c->slot_free[m.slot] = true;
        if (m.type == WIRE_SLOTS) map_slots(c, &m, fd);
    }
}

static bool child_tick(void *user)
{
    struct child *c = user;
    int64_t now = clock_ns();
    if (c->gone || now - c->last_tick_ns < TICK_NS) return c->gone;
    c->last_tick_ns = now;
    listen_to_parent(c);
    if (!c->gone && now - c->last_beat_ns > BEAT_NS) {
        c->last_beat_ns = now;
        struct video_wire m = {0};
        say(c, &m, WIRE_BEAT);
    }
    return c->gone;
}

/* A free slot of at least `bytes`, or -1 (gone; or live and none free; or the parent's budget refused). */
static int find_slot(struct child *c, uint64_t bytes, bool patient)
{
    for (;;) {
        listen_to_parent(c);
        if (child_tick(c)) return -1;
        bool big = c->base && c->slot_bytes >= bytes && c->slot_bytes < 4 * bytes + 4096;
        for (int i = 0; big && i < VIDEO_SLOTS; i++)
            if (c->slot_free[i]) return i;
        if (!big && !c->wanted && clock_ns() - c->refused_ns > 500000000) {
            struct video_wire m = {.bytes = bytes};
            c->wanted = bytes;
            say(c, &m, WIRE_WANT);
        } else if (!big && !c->wanted) {
            atomic_fetch_add(&c->counters.no_memory, 1);
            return -1;
        } else if (big && !patient) {
            atomic_fetch_add(&c->counters.skipped, 1);
            return -1;
        }
        struct pollfd p = {.fd = CHILD_FD, .events = POLLIN};
        poll(&p, 1, 100);
    }
}

static void hand_over(struct child *c, const struct video_frame *f, bool patient)
{
    struct video_layout l;
    if (!video_layout(f->format, f->width, f->height, &l)) return;
    int slot = find_slot(c, l.bytes, patient);
    if (slot < 0) return;
    for (int i = 0; i < l.planes; i++) {
        int half = (f->width + 1) / 2;
        int row = i == 0                    ? f->width * (f->format == VIDEO_RGB24 ? 3 : 1)
                  : f->format == VIDEO_NV12 ? half * 2
                  : f->format == VIDEO_I444 ? f->width
                                            : half;
        uint8_t *to = c->base + (uint64_t)slot * c->slot_bytes + l.offset[i];
        for (int y = 0; y < l.rows[i]; y++)
            memcpy(to + (size_t)y * (size_t)l.stride[i], f->plane[i] + (ptrdiff_t)y * f->stride[i], (size_t)row);
    }
    struct video_wire m = {.generation = c->generation,
                           .slot = (uint32_t)slot,
                           .frame = {.format = f->format, .width = f->width, .height = f->height, .matrix = f->matrix,
                                     .full_range = f->full_range, .chroma_left = f->chroma_left, .pts = f->pts,
                                     .captured_ns = f->captured_ns}};
    c->slot_free[slot] = false;
    say(c, &m, WIRE_FRAME);
}

static err play(struct child *c, const struct video_options *o, struct video_pool *pool)
{
    struct video_env env = {o, pool, &c->counters, child_tick, c};
    void *session = NULL;
    atomic_store(&c->counters.progress_ns, clock_ns());
    err e = video_source_ops.open(&env, &session);
    if (e) return e;
    atomic_store(&c->counters.progress_ns, clock_ns());
    struct video_info info;
    video_source_ops.info(session, &info);
    struct video_wire m = {.fps = info.fps, .file = info.file};
    snprintf(m.text, sizeof m.text, "%s", info.codec);
    say(c, &m, WIRE_INFO);
    while (!e && !c->gone) {
        struct video_frame *f = NULL;
        e = video_source_ops.next(session, &f);
        if (!e) hand_over(c, f, info.file);
        video_frame_unref(&f);
    }
    char text[1024];
    snprintf(text, sizeof text, "%s", err_text());
    video_source_ops.close(&session);
    return err_set(e ? e : ERR_CANCELLED, "%s", text);
}

int video_decode_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "brim decode");
    if (!VIDEO_SANITIZED) { /* shadow memory needs terabytes of address space */
        struct rlimit space = {SPACE_BYTES, SPACE_BYTES}, none = {0, 0};
        setrlimit(RLIMIT_AS, &space);
        setrlimit(RLIMIT_CORE, &none);
    }
    struct video_wire m;
    if (recv(CHILD_FD, &m, sizeof m, 0) != sizeof m || m.magic != VIDEO_WIRE_MAGIC || m.type != WIRE_OPEN ||
        !memchr(m.text, 0, sizeof m.text)) {
        fprintf(stderr, "brim: %s is for brim's own use\n", VIDEO_DECODE_ARG);
        return 2;
    }
    struct video_options o = {.name = "decoder",
                              .url = m.text,
                              .pace = m.open.pace,
                              .loop = m.open.loop,
                              .transport = m.open.transport,
                              .timeout_ms = m.open.timeout_ms,
                              .stall_ms = m.open.stall_ms,
                              .max_fps = m.open.max_fps,
                              .hint_w = m.open.hint_w,
                              .hint_h = m.open.hint_h};
    struct child *c = xnew(struct child);
    atomic_init(&c->counters.need, m.need);
    struct mem_budget *b = mem_budget_new("decoder", BUDGET_BYTES);
    struct video_pool *pool = video_pool_new(b, "decoder", 32);
    err e = play(c, &o, pool);
    struct video_wire end = {.code = e};
    snprintf(end.text, sizeof end.text, "%s", err_text());
    if (!c->gone) say(c, &end, WIRE_END);
    if (c->base) munmap(c->base, c->slot_bytes * VIDEO_SLOTS);
    video_pool_close(pool);
    video_pool_unref(&pool);
    mem_budget_free(&b);
    free(c);
    return 0;
}

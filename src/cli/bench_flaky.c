/* Cameras that misbehave: one thread, one port, one client at a time (brim makes one connection per camera).
 *
 * Every wait is a poll of at most SLICE_MS, so that stopping takes no longer. Nothing is remembered of a
 * client but its socket. SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench_inside.h"

#include "base/thread.h"
#include "mem/mem.h"
#include "video/draw.h"
#include "video/encode.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SLICE_MS = 100, UP_MS = 8000, DOWN_MS = 4000, PICTURE_MS = 100, WIDTH = 320, HEIGHT = 240 };

struct bench_flaky {
    enum bench_flaky_kind kind;
    int port, connections, pictures;
    pthread_t thread;
    atomic_bool stop;
    uint64_t random;
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct video_jpeg *jpeg;
    uint8_t *rgb;
};

static int listen_on(int port) {
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 4) == 0) return fd;
    close(fd);
    return -1;
}

static bool send_all(int fd, const void *bytes, size_t n) {
    for (const char *p = bytes; n;) {
        ssize_t got = send(fd, p, n, MSG_NOSIGNAL);
        if (got < 0 && errno == EAGAIN) {
            struct pollfd w = {.fd = fd, .events = POLLOUT};
            if (poll(&w, 1, 1000) <= 0) return false; /* a client that reads nothing for a second */
            continue;
        }
        if (got <= 0) return false;
        p += got, n -= (size_t)got;
    }
    return true;
}

static void noise(struct bench_flaky *f, uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        f->random = f->random * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (uint8_t)(f->random >> 56);
    }
}

static bool send_part(int fd, const uint8_t *jpeg, size_t n) {
    char head[128];
    int h =
        snprintf(head, sizeof head, "--next\r\nContent-Type: image/jpeg\r\nContent-Length: %zu\r\n\r\n", n);
    return send_all(fd, head, (size_t)h) && send_all(fd, jpeg, n) && send_all(fd, "\r\n", 2);
}

/* A square that goes round. */
static bool send_picture(struct bench_flaky *f, int fd) {
    struct video_picture p = {f->rgb, WIDTH, HEIGHT, WIDTH * 3};
    const uint8_t *jpeg;
    size_t n;
    video_draw_fill(&p, 0, 0, WIDTH, HEIGHT, 0x506050);
    video_draw_fill(&p, f->pictures++ * 4 % WIDTH, 80, 40, 60, 0xe0d0c0);
    return video_jpeg_encode(f->jpeg, f->rgb, WIDTH * 3, WIDTH, HEIGHT, &jpeg, &n) == ERR_OK &&
           send_part(fd, jpeg, n);
}

static bool send_garbage(struct bench_flaky *f, int fd) {
    uint8_t bytes[4096];
    noise(f, bytes, sizeof bytes);
    if (f->connections % 3 == 0) return send_all(fd, bytes, sizeof bytes);
    if (f->connections % 3 == 1)
        bytes[0] = 0xff, bytes[1] = 0xd8, bytes[2] = 0xff, bytes[3] = 0xdb; /* begins like a JPEG */
    return send_part(fd, bytes, sizeof bytes);
}

/* Serves one client until it goes, the time is over, or the bench ends. */
static void serve_one(struct bench_flaky *f, int fd, int64_t until_ns) {
    static const char head[] =
        "HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=next\r\n\r\n";
    bool alive = f->kind == BENCH_SILENT || (f->kind == BENCH_GARBAGE && f->connections % 3 == 0) ||
                 send_all(fd, head, sizeof head - 1);
    while (alive && !atomic_load(&f->stop) && clock_ns() < until_ns) {
        char request[1024];
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, f->kind == BENCH_SILENT ? SLICE_MS : PICTURE_MS) > 0)
            alive = recv(fd, request, sizeof request, MSG_DONTWAIT) > 0;
        if (alive && f->kind == BENCH_FLAPPING) alive = send_picture(f, fd);
        if (alive && f->kind == BENCH_GARBAGE) alive = send_garbage(f, fd);
    }
}

static void *flaky_main(void *arg) {
    struct bench_flaky *f = arg;
    while (!atomic_load(&f->stop)) {
        int64_t until = f->kind == BENCH_FLAPPING ? clock_ns() + (int64_t)UP_MS * 1000000 : INT64_MAX;
        int fd = listen_on(f->port);
        while (fd >= 0 && !atomic_load(&f->stop) && clock_ns() < until) {
            struct pollfd p = {.fd = fd, .events = POLLIN};
            int client =
                poll(&p, 1, SLICE_MS) > 0 ? accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) : -1;
            if (client < 0) continue;
            f->connections++;
            serve_one(f, client, until);
            close(client);
        }
        if (fd >= 0) close(fd);
        for (int ms = 0; ms < DOWN_MS && !atomic_load(&f->stop); ms += SLICE_MS)
            poll(NULL, 0, SLICE_MS);
    }
    return NULL;
}

static void flaky_free(struct bench_flaky *f) {
    video_jpeg_free(&f->jpeg);
    mem_payer_free(&f->payer);
    mem_budget_free(&f->budget);
    free(f->rgb);
    free(f);
}

err bench_flaky_start(enum bench_flaky_kind kind, struct bench_flaky **ret) {
    struct bench_flaky *f = xnew(struct bench_flaky);
    *f = (struct bench_flaky){.kind = kind, .port = bench_free_port(), .random = 1};
    f->budget = mem_budget_new("flaky", 64u << 20);
    f->payer = mem_payer_new(f->budget, "flaky");
    f->jpeg = video_jpeg_new(f->payer, 80);
    f->rgb = xcalloc(WIDTH * HEIGHT, 3);
    if (f->port && f->jpeg && pthread_create(&f->thread, NULL, flaky_main, f) == 0) {
        *ret = f;
        return ERR_OK;
    }
    flaky_free(f);
    return err_set(ERR_IO, "no free port or no thread for a flaky camera");
}

int bench_flaky_stop(struct bench_flaky **pf) {
    struct bench_flaky *f = *pf;
    if (!f) return 0;
    *pf = NULL;
    atomic_store(&f->stop, true);
    pthread_join(f->thread, NULL);
    int n = f->connections;
    flaky_free(f);
    return n;
}

int bench_flaky_port(const struct bench_flaky *f) {
    return f->port;
}

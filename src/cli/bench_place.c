/* What the benches share. SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench_inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

err bench_place_open(struct bench_place *p) {
    ssize_t n = readlink("/proc/self/exe", p->self, sizeof p->self - 1);
    if (n < 0)
        return err_set(ERR_IO,
                       "no /proc/self/exe: a bench runs this program again and must know where it is");
    p->self[n] = 0;
    snprintf(p->folder, sizeof p->folder, "/tmp/brim-bench-XXXXXX");
    if (!mkdtemp(p->folder)) return err_set(ERR_IO, "cannot make a folder in /tmp: %s", strerror(errno));
    unsetenv("BRIM_STARTED"); /* children start as from a shell */
    unsetenv("OMP_WAIT_POLICY");
    return ERR_OK;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f) {
    (void)st, (void)type, (void)f;
    remove(path);
    return 0;
}

void bench_place_close(struct bench_place *p, bool keep) {
    if (!p->folder[0]) return;
    if (keep)
        fprintf(stderr, "logs and site: %s\n", p->folder);
    else
        nftw(p->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    p->folder[0] = 0;
}

err bench_file(const struct bench_place *p, const char *name, FILE **ret) {
    char *path = xasprintf("%s/%s", p->folder, name);
    FILE *f = fopen(path, "we");
    err e = f ? ERR_OK : err_set(ERR_IO, "%s: %s", path, strerror(errno));
    if (f) *ret = f;
    free(path);
    return e;
}

err bench_draw(const struct bench_place *p, double seconds) {
    char folder[96], log[96], length[32], *output;
    struct child c;
    snprintf(folder, sizeof folder, "%s/scene", p->folder);
    snprintf(log, sizeof log, "%s/scene.log", p->folder);
    snprintf(length, sizeof length, "%g", seconds);
    const char *argv[] = {p->self, "scene",  "-o",      folder,      "--cameras", "4", "--fps",
                          "10",    "--size", "320x180", "--seconds", length,      NULL};
    err e = child_start(&c, (char *const *)(uintptr_t)argv, log, 0);
    if (!e) e = child_finish(&c, &output);
    if (e) return e;
    free(output);
    return c.status == 0 ? ERR_OK : err_set(ERR_IO, "brim scene failed; its log is %s", log);
}

int bench_free_port(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return 0;
    int port = bind(fd, (struct sockaddr *)&a, n) == 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0
                   ? ntohs(a.sin_port)
                   : 0;
    close(fd);
    return port;
}

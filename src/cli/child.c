/* Measured children: RssAnon from /proc, a memory cgroup (v1 or v2) around them where the machine allows it.
 * Invariant: a child that was started is always reaped, and its cgroup removed. SPDX-License-Identifier:
 * Apache-2.0 */
#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static bool write_text(const char *folder, const char *file, const char *text) {
    char *path = xasprintf("%s/%s", folder, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0) close(fd);
    free(path);
    return ok;
}

static err make_cgroup(struct child *c, uint64_t limit) {
    char bytes[32];
    bool v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
    snprintf(bytes, sizeof bytes, "%" PRIu64, limit);
    snprintf(c->cgroup, sizeof c->cgroup,
             v2 ? "/sys/fs/cgroup/brim-bench-%d" : "/sys/fs/cgroup/memory/brim-bench-%d", (int)getpid());
    if (mkdir(c->cgroup, 0755) && errno != EEXIST) {
        err e = err_set(ERR_UNSUPPORTED, "%s: %s; run as root on a machine with memory cgroups", c->cgroup,
                        strerror(errno));
        c->cgroup[0] = 0;
        return e;
    }
    if (!write_text(c->cgroup, v2 ? "memory.max" : "memory.limit_in_bytes", bytes)) {
        rmdir(c->cgroup);
        c->cgroup[0] = 0;
        return err_set(ERR_UNSUPPORTED, "the memory cgroup takes no limit here");
    }
    if (v2) write_text(c->cgroup, "memory.swap.max", "0");
    return ERR_OK;
}

err child_start(struct child *c, char *const *argv, const char *log, uint64_t memory_limit) {
    int fds[2];
    *c = (struct child){.out = -1};
    err e = memory_limit ? make_cgroup(c, memory_limit) : ERR_OK;
    if (e) return e;
    if (pipe2(fds, O_CLOEXEC)) return err_set(ERR_IO, "pipe: %s", strerror(errno));
    c->pid = fork();
    if (c->pid == 0) {
        char pid[16];
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        if (c->cgroup[0] && !write_text(c->cgroup, "cgroup.procs", pid)) _exit(126);
        int err_fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        dup2(fds[1], STDOUT_FILENO);
        if (err_fd >= 0) dup2(err_fd, STDERR_FILENO);
        execv(argv[0], argv);
        _exit(127);
    }
    close(fds[1]);
    c->out = fds[0];
    return c->pid > 0 ? ERR_OK : err_set(ERR_IO, "fork: %s", strerror(errno));
}

void child_sample(struct child *c) {
    char path[64], line[256];
    uint64_t kb;
    snprintf(path, sizeof path, "/proc/%d/status", c->pid);
    FILE *f = fopen(path, "re");
    if (!f) return;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "RssAnon: %" SCNu64, &kb) == 1)
            c->last_anon = kb * 1024, c->peak_anon = MAX(c->peak_anon, kb * 1024);
        if (sscanf(line, "VmRSS: %" SCNu64, &kb) == 1) c->peak_rss = MAX(c->peak_rss, kb * 1024);
    }
    fclose(f);
}

static bool oom_happened(const struct child *c) {
    char line[128], *path = xasprintf("%s/%s", c->cgroup,
                                      access("/sys/fs/cgroup/cgroup.controllers", F_OK) ? "memory.oom_control"
                                                                                        : "memory.events");
    unsigned long long n;
    bool happened = false;
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        happened |= sscanf(line, "oom_kill %llu", &n) == 1 && n > 0;
    if (f) fclose(f);
    free(path);
    return happened;
}

err child_finish(struct child *c, char **ret_output) {
    struct strbuf b = {0};
    struct rusage before, after;
    getrusage(RUSAGE_CHILDREN, &before);
    for (;;) {
        char chunk[65536];
        struct pollfd p = {.fd = c->out, .events = POLLIN};
        child_sample(c);
        if (poll(&p, 1, 100) <= 0) continue;
        ssize_t n = read(c->out, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        if (b.len < (64u << 20)) strbuf_addn(&b, chunk, (size_t)n);
    }
    close(c->out);
    waitpid(c->pid, &c->status, 0);
    getrusage(RUSAGE_CHILDREN, &after);
    c->cpu_s = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec -
                        before.ru_stime.tv_sec) +
               (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec -
                        before.ru_stime.tv_usec) /
                   1e6;
    if (c->cgroup[0]) {
        c->oom_killed = oom_happened(c);
        rmdir(c->cgroup);
    }
    *ret_output = strbuf_take(&b);
    return ERR_OK;
}

/* A verdict is written beside its place and renamed, and ends with a checksum, so that what a power cut leaves is not believed. Without fsync:
 * a lost one is measured again. SPDX-License-Identifier: Apache-2.0 */
#include "model/verdict.h"

#include "base/crc32c.h"
#include "base/version.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VERSION = 3, MOST_BYTES = 512, MOST_GONE = 8 };
static const char PREFIX[] = "precision-";

char *model_cache_dir(void)
{
    const char *own = getenv("BRIM_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own) return *own ? xstrdup(own) : NULL;
    if (xdg && *xdg == '/') return xasprintf("%s/brim", xdg);
    return home && *home == '/' ? xasprintf("%s/.cache/brim", home) : NULL;
}

/* What is faster, and how much is lost, is this processor's answer, and this version's. */
static uint64_t machine(uint64_t seed)
{
    char line[256];
    const char *isa = getenv("DNNL_MAX_CPU_ISA");
    seed = hash64(BRIM_VERSION, strlen(BRIM_VERSION), seed + VERSION);
    if (isa) seed = hash64(isa, strlen(isa), seed);
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "model name", 10) || !strncmp(line, "CPU part", 8)) {
            seed = hash64(line, strlen(line), seed);
            break;
        }
    if (f) fclose(f);
    return seed;
}

char *model_verdict_path(const struct model *m, uint64_t graph)
{
    const char *dir = m->spill_dir ? m->spill_dir : m->options.verdict_dir;
    const float *range = m->options.sample_range;
    if (!dir) return NULL;
    uint64_t h = machine(hash64(range, 2 * sizeof *range, graph ^ (uint64_t)m->options.threads));
    return xasprintf("%s/%s%016llx", dir, PREFIX, (unsigned long long)h);
}

bool model_verdict_load(const char *path, struct model_choice *ret)
{
    char text[MOST_BYTES];
    int version = 0, half = 0, groups = 0;
    unsigned keep = 0, crc = 0;
    int f = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    ssize_t n = f < 0 ? -1 : read(f, text, sizeof text - 1);
    if (f >= 0) close(f);
    if (n <= 0) return false;
    text[n] = '\0';
    char *last = strstr(text, "\ncrc ");
    if (!last || sscanf(last, "\ncrc %8x\n", &crc) != 1 || crc != crc32c(0, text, (size_t)(last - text))) return false;
    if (sscanf(text, "brim precision %d\nbf16 %d\ngroups %d keep %x\n", &version, &half, &groups, &keep) != 4) return false;
    if (version != VERSION || groups < 1 || groups > MODEL_VERDICT_GROUPS || keep >> groups) return false;
    *ret = (struct model_choice){.known = true, .half = half == 1, .groups = groups, .keep = keep};
    return true;
}

/* The folder and those above it, as far as they are missing. */
static void make_folders(char *path)
{
    for (char *p = path + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        mkdir(path, 0700);
        *p = '/';
    }
}

/* Takes the oldest away while there are too many; true: there were. */
static bool drop_oldest(const char *dir)
{
    DIR *d = opendir(dir);
    char oldest[256] = "";
    struct timespec when = {0};
    int count = 0;
    for (struct dirent *i; d && (i = readdir(d));) {
        struct stat st;
        if (strncmp(i->d_name, PREFIX, strlen(PREFIX)) || fstatat(dirfd(d), i->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
        bool older = !*oldest || st.st_mtim.tv_sec < when.tv_sec || (st.st_mtim.tv_sec == when.tv_sec && st.st_mtim.tv_nsec < when.tv_nsec);
        if (older) {
            snprintf(oldest, sizeof oldest, "%s", i->d_name);
            when = st.st_mtim;
        }
        count++;
    }
    bool many = count > MODEL_VERDICTS;
    if (many) many = unlinkat(dirfd(d), oldest, 0) == 0;
    if (d) closedir(d);
    return many;
}

void model_verdict_save(const char *path, const struct model_choice *c)
{
    char text[MOST_BYTES];
    if (!path) return;
    char *temporary = xasprintf("%s.XXXXXX", path);
    make_folders(temporary);
    int f = mkostemp(temporary, O_CLOEXEC);
    if (f >= 0) {
        int n = snprintf(text, sizeof text, "brim precision %d\nbf16 %d\ngroups %d keep %x\nerror %.5f ms_f32 %.4f ms %.4f", VERSION, c->half, c->groups, c->keep, c->error,
                         c->ms_f32, c->ms);
        n += snprintf(text + n, sizeof text - (size_t)n, "\ncrc %08x\n", crc32c(0, text, (size_t)n));
        bool good = write(f, text, (size_t)n) == n;
        if ((close(f) || !good || rename(temporary, path)) && unlink(temporary)) good = false;
        char *end = strrchr(temporary, '/');
        if (end) *end = '\0';
        for (int k = 0; k < MOST_GONE && drop_oldest(end ? temporary : "."); k++) continue;
    }
    free(temporary);
}

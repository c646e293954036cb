/* What the kernel says about this process and this machine: /proc and the memory cgroup.
 * Invariant: a file that is missing or unreadable means 'no limit' or 0, never an error: the numbers are advice.
 * SPDX-License-Identifier: Apache-2.0 */
#include "mem/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The value in bytes of a "Name:   123 kB" line; 0 if there is none. */
static uint64_t kb_line(const char *path, const char *name)
{
    char line[256];
    uint64_t kb = 0;
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    while (fgets(line, sizeof line, f))
        if (str_starts(line, name) && line[strlen(name)] == ':') {
            sscanf(line + strlen(name) + 1, "%" SCNu64, &kb);
            break;
        }
    fclose(f);
    return kb * 1024;
}

static uint64_t number_file(const char *path)
{
    uint64_t v = UINT64_MAX;
    FILE *f = fopen(path, "re");
    if (!f) return v;
    if (fscanf(f, "%" SCNu64, &v) != 1) v = UINT64_MAX; /* v2 says "max" */
    fclose(f);
    return v;
}

/* The limit of the cgroup that this process is in, and of all above it. */
static uint64_t cgroup_limit(void)
{
    char line[512];
    uint64_t limit = UINT64_MAX;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) return limit;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        bool v2 = controllers[1] == 0, v1 = strstr(controllers, "memory") != NULL;
        if (!v1 && !v2) continue;
        for (;;) {
            char file[1024];
            snprintf(file, sizeof file, v2 ? "/sys/fs/cgroup%s/memory.max" : "/sys/fs/cgroup/memory%s/memory.limit_in_bytes",
                     path);
            limit = MIN(limit, number_file(file));
            char *slash = strrchr(path, '/');
            if (!slash || !path[0]) break;
            *slash = 0;
        }
    }
    fclose(f);
    return limit;
}

uint64_t mem_budget_auto(void)
{
    uint64_t available = kb_line("/proc/meminfo", "MemAvailable");
    uint64_t most = MIN(cgroup_limit(), available ? available : UINT64_MAX);
    return most / 4 * 3;
}

struct mem_rss mem_process_rss(void)
{
    return (struct mem_rss){
        .anon = kb_line("/proc/self/status", "RssAnon"),
        .file = kb_line("/proc/self/status", "RssFile"),
        .total = kb_line("/proc/self/status", "VmRSS"),
        .peak = kb_line("/proc/self/status", "VmHWM"),
    };
}

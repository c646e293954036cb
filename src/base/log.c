/* Log lines: see log.h. The level is the one process-wide setting in brim (an atomic; set at start).
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_int threshold; /* 0: not asked yet */

static int level_from_environment(void)
{
    const char *s = getenv("BRIM_LOG");
    if (!s) return LOG_INFO;
    return !strcmp(s, "debug") ? LOG_DEBUG : !strcmp(s, "warn") ? LOG_WARN : !strcmp(s, "error") ? LOG_ERROR : LOG_INFO;
}

void log_set_level(enum log_level level)
{
    if (!getenv("BRIM_LOG")) atomic_store(&threshold, (int)level);
}

void log_line(enum log_level level, const char *room, const char *fmt, ...)
{
    static const char *const names[] = {"", "debug", "info ", "warn ", "error"};
    char line[1600];
    int min = atomic_load(&threshold);
    if (!min) atomic_store(&threshold, min = level_from_environment());
    if ((int)level < min) return;

    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %s %s: ", now.tv_nsec / 1000000, names[level], room);
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
    va_end(ap);
    size_t head = n;
    n += m < 0 ? 0 : (size_t)m < sizeof line - n - 1 ? (size_t)m : sizeof line - n - 2;
    for (size_t i = head; i < n; i++) /* foreign text must not look like another line, nor steer a terminal */
        if ((unsigned char)line[i] < ' ' || line[i] == 127) line[i] = ' ';
    line[n++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, n);
    (void)ignored;
}

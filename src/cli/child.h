/* A child process that is measured while it runs: for benches. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

struct child {
    int pid, out;                            /* out: its standard output */
    char cgroup[256];                        /* folder of its memory cgroup; "" if none */
    uint64_t peak_anon, peak_rss, last_anon; /* bytes, as sampled */
    double cpu_s;                            /* user and system, at its end */
    int status;                              /* of waitpid */
    bool oom_killed;
};

/* Starts argv[0] with stderr to `log` (a file). memory_limit > 0: in a fresh memory cgroup of that size;
 * ERR_UNSUPPORTED where that is not allowed. */
err child_start(struct child *c, char *const *argv, const char *log, uint64_t memory_limit);
/* Reads /proc once. */
void child_sample(struct child *c);
/* Samples ten times a second until the child's output ends or it dies; gives the output (free()). */
err child_finish(struct child *c, char **ret_output);

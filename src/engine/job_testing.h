/* For tests of jobs in a running box. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "base/testing.h"
#include "engine/job.h"

static inline void job_testing_nap(int ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

/* All 0 if there is no such job. */
static inline struct engine_job_row job_testing_row(struct engine *e, const char *name)
{
    struct engine_job_row *rows, found = {0};
    size_t n = engine_jobs(e, &rows);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(rows[i].name, name)) found = rows[i];
    free(rows);
    return found;
}

/* Fails the test if the job ends otherwise, or never does. */
static inline struct engine_job_row job_testing_wait(struct engine *e, const char *name, enum engine_job_state state)
{
    struct engine_job_row r = {0};
    for (int64_t end = testing_deadline(); clock_ns() < end; job_testing_nap(2)) {
        r = job_testing_row(e, name);
        if (r.state == state) return r;
        if (r.state > ENGINE_JOB_RUNNING) break;
    }
    fail_msg("%s is not %s but %s: %s", name, engine_job_state_name(state), engine_job_state_name(r.state), r.why);
    return r;
}

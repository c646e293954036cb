/* For kernel tests: one payer for the whole program, with everything given back at its end, and the whole program once more as on older
 * processors: DNNL_MAX_CPU_ISA is the only way to change what oneDNN believes of the processor, and it is read once, so it needs a new
 * process. For the one file that has main(). SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "kernels/onednn/onednn.h"

static struct mem_budget *budget;
static struct mem_payer *payer;

/* This program as on the processor `isa`, unless it already plays one. Must be the first test: no thread may exist at the fork. */
static void again_on(const char *isa)
{
    if (getenv("DNNL_MAX_CPU_ISA")) return;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("DNNL_MAX_CPU_ISA", isa, 1);
        setenv("CMOCKA_MESSAGE_OUTPUT", "STDOUT", 1);
        dup2(STDERR_FILENO, STDOUT_FILENO); /* its report is not ours */
        execl("/proc/self/exe", "again", (char *)NULL);
        _exit(127);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static int start(void **state)
{
    (void)state;
    unsetenv("BRIM_ONLY_REF"); /* these tests are about the other kernels */
    budget = mem_budget_new("host", UINT64_MAX);
    payer = mem_payer_new(budget, "test");
    return 0;
}

static int end(void **state)
{
    (void)state;
    mem_payer_free(&payer); /* asserts that everything was given back */
    mem_budget_free(&budget);
    return kernels_onednn_usage().primitives != 0;
}

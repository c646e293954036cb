/* The one oneDNN engine of the process.
 *
 * oneDNN keeps process-wide state whatever we do (the detected processor, its primitive cache); an engine is a
 * handle to it. So one engine, made once behind pthread_once and never freed, is an honest exception to "no mutable
 * globals": it cannot change, nobody sees it outside this folder, and class tables have no context to carry it.
 *
 * oneDNN's own cache of primitives is turned off here: it keeps code after everybody has freed it (94 MB measured),
 * and no payer could be named for it. Ours (prim.c) keeps a primitive exactly as long as somebody uses it.
 *
 * OpenMP is called through two prototypes instead of <omp.h>, so that no compiler flag is needed and clang does not
 * bring its own second OpenMP library into the process. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/engine.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

extern void omp_set_num_threads(int n);
extern int omp_get_max_threads(void);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static dnnl_engine_t engine; /* written once, by make_engine */

static void make_engine(void)
{
    if (dnnl_set_primitive_cache_capacity(0) != dnnl_success ||
        dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success) {
        fputs("brim: oneDNN cannot use this processor\n", stderr);
        abort();
    }
}

dnnl_engine_t onednn_engine(void)
{
    pthread_once(&once, make_engine);
    return engine;
}

void onednn_threads(int n)
{
    if (n > 0 && omp_get_max_threads() != n) omp_set_num_threads(n);
}

/* A team that has just run still spins for 40 microseconds (GOMP_SPINCOUNT=1000) and starts on the next operator within 2 or 3, so
 * two threads pay from about 10 on. Measured on whole networks: 40 for this made the small ones 1.1 to 1.35 times slower, 5 gained nothing. */
int onednn_threads_for(double ns, int threads)
{
    enum { PAYS_FROM_NS = 10000 };
    return ns < PAYS_FROM_NS || threads < 1 ? 1 : threads;
}

int onednn_isa(void)
{
    return (int)dnnl_get_effective_cpu_isa();
}

err onednn_check(dnnl_status_t status, err otherwise, const char *what)
{
    static const char *const words[] = {"fine",          "out of memory", "invalid arguments", "not implemented",
                                        "iterator ends", "runtime error", "not required"};
    if (status == dnnl_success) return ERR_OK;
    const char *word = (unsigned)status < sizeof words / sizeof *words ? words[status] : "unknown status";
    return err_set(status == dnnl_out_of_memory ? ERR_NOMEM : otherwise, "oneDNN: %s: %s", what, word);
}

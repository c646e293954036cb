/* A team of threads for brim's own kernels: libgomp's, which oneDNN uses too, so that a thread that has just finished one operator is awake for the
 * next and there is no second team. It is called through its entry point, because -fopenmp would bring clang's own library into the process.
 * ThreadSanitizer does not see libgomp's barriers; it is told of them. SPDX-License-Identifier: Apache-2.0 */
#include <dnnl.h>

#include "kernels/onednn/engine.h"
#include "kernels/own/conv.h"

extern void GOMP_parallel(void (*fn)(void *), void *data, unsigned threads, unsigned flags);
extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);

#ifdef __SANITIZE_THREAD__
extern void __tsan_acquire(void *at);
extern void __tsan_release(void *at);
#else
static void __tsan_acquire(void *at)
{
    (void)at;
}
static void __tsan_release(void *at)
{
    (void)at;
}
#endif

struct team {
    void (*fn)(void *arg, int thread, int threads);
    void *arg;
};

static void member(void *data)
{
    struct team *t = data;
    __tsan_acquire(t);
    t->fn(t->arg, omp_get_thread_num(), omp_get_num_threads());
    __tsan_release(t);
}

void own_team(int threads, void (*fn)(void *arg, int thread, int threads), void *arg)
{
    struct team t = {fn, arg};
    if (threads < 2) {
        fn(arg, 0, 1);
        return;
    }
    __tsan_release(&t);
    GOMP_parallel(member, &t, (unsigned)threads, 0);
    __tsan_acquire(&t);
}

const struct own_lanes *own_lanes(void)
{
    int isa = onednn_isa();
    if ((isa & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core) return &own_lanes512;
    return (isa & dnnl_cpu_isa_avx2) == dnnl_cpu_isa_avx2 ? &own_lanes256 : NULL;
}

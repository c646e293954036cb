/* Budgets, errors, version: what needs no model.
 *
 * The gate. Where a program limits the threads of a budget, a run takes its threads from it, in the order of asking:
 * no wide run starves behind narrow ones. Without a limit runs overlap, and that is the default, because it was
 * measured: two to eight models with two threads each on two processors did 71 to 103 % of the work that one at a
 * time does alone, queued behind the gate 33 to 60 %. Each calling thread has an OpenMP team of its own, and libgomp
 * lets teams hardly spin once they are more than the processors, so a lone run sleeps between its operators; a second
 * one fills the gaps. SPDX-License-Identifier: Apache-2.0 */
#include "api/inside.h"
#include "base/version.h"

#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *brim_version(void)
{
    return BRIM_VERSION;
}

/* ---- errors */

brim_err api_result(err e)
{
    switch (e) {
    case ERR_OK:
        return BRIM_OK;
    case ERR_NOMEM:
        return BRIM_ERR_NOMEM;
    case ERR_IO:
        return BRIM_ERR_IO;
    case ERR_NOT_FOUND:
        return BRIM_ERR_IO;
    case ERR_USAGE:
        return BRIM_ERR_USAGE;
    case ERR_FORMAT:
        return BRIM_ERR_FORMAT;
    case ERR_UNSUPPORTED:
        return BRIM_ERR_UNSUPPORTED;
    case ERR_LIMIT:
        return BRIM_ERR_LIMIT;
    case ERR_SHAPE:
        return BRIM_ERR_SHAPE;
    default:
        return BRIM_ERR_OTHER;
    }
}

const char *brim_error_text(void)
{
    return err_text();
}

const char *brim_error_name(brim_err code)
{
    static const struct {
        brim_err ours;
        err theirs;
    } names[] = {{BRIM_ERR_NOMEM, ERR_NOMEM},
                 {BRIM_ERR_IO, ERR_IO},
                 {BRIM_ERR_USAGE, ERR_USAGE},
                 {BRIM_ERR_FORMAT, ERR_FORMAT},
                 {BRIM_ERR_UNSUPPORTED, ERR_UNSUPPORTED},
                 {BRIM_ERR_LIMIT, ERR_LIMIT},
                 {BRIM_ERR_SHAPE, ERR_SHAPE}};
    if (code == BRIM_OK) return "no error";
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (names[i].ours == code) return err_name(names[i].theirs);
    return "error";
}

const char *brim_dtype_name(brim_dtype t)
{
    return tensor_dtype_name((enum tensor_dtype)t);
}

size_t brim_dtype_size(brim_dtype t)
{
    return tensor_dtype_size((enum tensor_dtype)t);
}

void brim_text_free(char **text)
{
    if (!text) return;
    free(*text);
    *text = NULL;
}

/* ---- structs of other versions */

enum { FIRST_SIZE = 2 * sizeof(size_t), LARGEST_SIZE = 4096 };

static err check_size(const char *name, const void *p, size_t *ret)
{
    if (p) memcpy(ret, p, sizeof *ret); /* its first field */
    if (!p || *ret < FIRST_SIZE || *ret > LARGEST_SIZE)
        return err_set(ERR_USAGE, "%s: its size is not set; start from its _INIT macro", name);
    return ERR_OK;
}

err api_struct_read(const char *name, const void *from, void *to, size_t size)
{
    size_t theirs = 0;
    err e = check_size(name, from, &theirs);
    if (e) return e;
    for (size_t i = size; i < theirs; i++)
        if (((const char *)from)[i])
            return err_set(ERR_USAGE, "%s: the program wants something that this library (%s) does not have", name,
                           BRIM_VERSION);
    memset(to, 0, size);
    memcpy(to, from, MIN(size, theirs));
    return ERR_OK;
}

err api_struct_write(const char *name, const void *from, void *to, size_t size)
{
    size_t theirs = 0;
    err e = check_size(name, to, &theirs);
    if (e) return e;
    memset(to, 0, theirs);
    memcpy(to, from, MIN(size, theirs));
    memcpy(to, &theirs, sizeof theirs);
    return ERR_OK;
}

/* ---- budgets */

static int processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    return (int)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1);
}

brim_err brim_budget_new(const brim_budget_options *options, brim_budget **ret)
{
    brim_budget_options o = BRIM_BUDGET_OPTIONS_INIT;
    if (!ret) return api_result(err_set(ERR_USAGE, "brim_budget_new: nowhere to put the budget"));
    err e = options ? api_struct_read("brim_budget_options", options, &o, sizeof o) : ERR_OK;
    if (e) return api_result(e);
    if (o.threads < 0 || o.threads > 1024) return api_result(err_set(ERR_USAGE, "%d threads: 0 to 1024", o.threads));
    brim_budget *b = xnew(brim_budget);
    atomic_init(&b->holds, 1);
    b->bytes = mem_budget_new("host", o.bytes ? o.bytes : UINT64_MAX);
    b->threads = o.threads ? o.threads : processors();
    b->limit = o.threads ? o.threads : INT_MAX;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->changed, NULL);
    *ret = b;
    return BRIM_OK;
}

void api_budget_hold(brim_budget *b)
{
    atomic_fetch_add(&b->holds, 1);
}

void brim_budget_free(brim_budget **bp)
{
    if (!bp || !*bp) return;
    brim_budget *b = *bp;
    *bp = NULL;
    if (atomic_fetch_sub(&b->holds, 1) != 1) return;
    mem_budget_free(&b->bytes);
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

uint64_t brim_budget_used(const brim_budget *b)
{
    return mem_budget_used(b->bytes);
}

uint64_t brim_budget_peak(const brim_budget *b)
{
    return mem_budget_peak(b->bytes);
}

uint64_t brim_budget_limit(const brim_budget *b)
{
    return mem_budget_limit(b->bytes);
}

/* ---- the gate */

void api_gate_enter(brim_budget *b, int n)
{
    pthread_mutex_lock(&b->lock);
    uint64_t mine = b->next_ticket++;
    while (mine != b->serving || (b->busy && n > b->limit - b->busy))
        pthread_cond_wait(&b->changed, &b->lock);
    b->serving++;
    b->busy += n;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

void api_gate_leave(brim_budget *b, int n)
{
    pthread_mutex_lock(&b->lock);
    b->busy -= n;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

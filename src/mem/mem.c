/* Budgets.
 *
 * One mutex per budget guards every number in it and in its payers: an allocation is large and rare (models are planned and
 * reserved, then run without any), so a lock of 20 ns is nothing, and the sums are exact at every moment. The system call
 * that gets the memory is made outside the lock, after the bytes were reserved.
 *
 * Invariant: used == sum over payers and purposes of used; used <= limit except through mem_charge_forced or a lowered
 * limit. Tried and rejected: atomics per payer (the budget check and the payer's number could disagree for a moment, and the
 * test that sums them could not be exact). SPDX-License-Identifier: Apache-2.0 */
#include "mem/mem.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAP_FROM = 64 << 10, ALIGN = 64, PAGE = 4096, GROW_STEP = 4 << 20 };

struct mem_payer {
    struct mem_budget *budget;
    struct mem_payer *next;
    char name[64];
    uint64_t used[MEM_PURPOSE_COUNT], peak[MEM_PURPOSE_COUNT];
    uint64_t count;
};

struct mem_budget {
    pthread_mutex_t lock; /* guards everything below, and the payers' numbers */
    char name[16];
    char *dir; /* of backing files, or NULL; set before use */
    uint64_t limit, used, peak;
    uint64_t fault_at, fault_calls;
    struct mem_payer *payers;
    mem_relief_fn *relief; /* NULL: nobody gives way */
    void *relief_user;
    struct mem_payer *outer; /* NULL: inside no other budget */
    mem_grow_fn *grow;
    void *grow_user;
    uint64_t held, least; /* charged to outer: used <= held, and least <= held once mem_budget_hold said so */
};

const char *mem_purpose_name(enum mem_purpose purpose)
{
    static const char *const names[] = {
#define X(id, name) name,
        MEM_PURPOSES(X)
#undef X
    };
    return purpose < MEM_PURPOSE_COUNT ? names[purpose] : "?";
}

struct mem_budget *mem_budget_new(const char *name, uint64_t limit)
{
    struct mem_budget *b = xnew(struct mem_budget);
    pthread_mutex_init(&b->lock, NULL);
    snprintf(b->name, sizeof b->name, "%s", name);
    b->limit = limit;
    return b;
}

void mem_budget_free(struct mem_budget **b)
{
    if (!*b) return;
    assert(!(*b)->payers && (*b)->used == 0);
    if ((*b)->held) mem_release((*b)->outer, MEM_TRAINING, (*b)->held);
    pthread_mutex_destroy(&(*b)->lock);
    free((*b)->dir);
    free(*b);
    *b = NULL;
}

struct mem_budget *mem_budget_within(struct mem_payer *outer, const char *name, mem_grow_fn *grow, void *user)
{
    struct mem_budget *b = mem_budget_new(name, UINT64_MAX);
    b->outer = outer;
    b->grow = grow;
    b->grow_user = user;
    return b;
}

/* An unlinked file in dir, or -1. */
static int nameless_file(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) return fd;
    char *name = xasprintf("%s/brim-XXXXXX", dir); /* a file system without O_TMPFILE */
    fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0) unlink(name);
    free(name);
    return fd;
}

err mem_budget_back_with_files(struct mem_budget *b, const char *dir)
{
    int fd = nameless_file(dir);
    if (fd < 0) return err_set(ERR_IO, "%s: cannot make a temporary file there: %s", dir, strerror(errno));
    close(fd);
    free(b->dir);
    b->dir = xstrdup(dir);
    return ERR_OK;
}

static void *map_block(const struct mem_budget *b, size_t size)
{
    int fd = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    if (b->dir) {
        fd = nameless_file(b->dir);
        flags = MAP_SHARED;
        /* posix_fallocate, not ftruncate: a full disk is an answer now, and not SIGBUS later */
        if (fd < 0 || posix_fallocate(fd, 0, (off_t)size)) {
            if (fd >= 0) close(fd);
            return NULL;
        }
    }
    void *ptr = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (fd >= 0) close(fd);
    return ptr == MAP_FAILED ? NULL : ptr;
}

static void lock(const struct mem_budget *b)
{
    pthread_mutex_lock((pthread_mutex_t *)&b->lock);
}

static void unlock(const struct mem_budget *b)
{
    pthread_mutex_unlock((pthread_mutex_t *)&b->lock);
}

static uint64_t locked_read(const struct mem_budget *b, const uint64_t *field)
{
    lock(b);
    uint64_t v = *field;
    unlock(b);
    return v;
}

void mem_budget_set_limit(struct mem_budget *b, uint64_t limit)
{
    lock(b);
    b->limit = limit;
    unlock(b);
}

void mem_budget_set_relief(struct mem_budget *b, mem_relief_fn *fn, void *user)
{
    lock(b);
    b->relief = fn;
    b->relief_user = user;
    unlock(b);
}

uint64_t mem_budget_limit(const struct mem_budget *b)
{
    return locked_read(b, &b->limit);
}

uint64_t mem_budget_used(const struct mem_budget *b)
{
    return locked_read(b, &b->used);
}

uint64_t mem_budget_peak(const struct mem_budget *b)
{
    return locked_read(b, &b->peak);
}

void mem_budget_reset_peak(struct mem_budget *b)
{
    lock(b);
    b->peak = b->used;
    for (struct mem_payer *p = b->payers; p; p = p->next) memcpy(p->peak, p->used, sizeof p->peak);
    unlock(b);
}

struct mem_payer *mem_payer_new(struct mem_budget *b, const char *name)
{
    struct mem_payer *p = xnew(struct mem_payer);
    snprintf(p->name, sizeof p->name, "%s", name);
    p->budget = b;
    lock(b);
    struct mem_payer **at = &b->payers; /* at the end, so that a snapshot is in order of birth */
    while (*at) at = &(*at)->next;
    *at = p;
    unlock(b);
    return p;
}

void mem_payer_free(struct mem_payer **pp)
{
    struct mem_payer *p = *pp;
    if (!p) return;
    lock(p->budget);
    for (int i = 0; i < MEM_PURPOSE_COUNT; i++) {
        if (p->used[i])
            fprintf(stderr, "brim: payer '%s' still owes %llu bytes of %s\n", p->name, (unsigned long long)p->used[i],
                    mem_purpose_name((enum mem_purpose)i));
        assert(p->used[i] == 0);
    }
    struct mem_payer **at = &p->budget->payers;
    while (*at != p) at = &(*at)->next;
    *at = p->next;
    unlock(p->budget);
    free(p);
    *pp = NULL;
}

struct mem_budget *mem_payer_budget(const struct mem_payer *p)
{
    return p->budget;
}

const char *mem_payer_name(const struct mem_payer *p)
{
    return p->name;
}

uint64_t mem_payer_used(const struct mem_payer *p, enum mem_purpose purpose)
{
    return locked_read(p->budget, &p->used[purpose]);
}

static void add(struct mem_payer *p, enum mem_purpose purpose, uint64_t size)
{
    struct mem_budget *b = p->budget;
    b->used += size;
    b->peak = MAX(b->peak, b->used);
    p->used[purpose] += size;
    p->peak[purpose] = MAX(p->peak[purpose], p->used[purpose]);
    p->count++;
}

static void remove_bytes(struct mem_payer *p, enum mem_purpose purpose, uint64_t size)
{
    assert(p->used[purpose] >= size && p->budget->used >= size && p->count > 0);
    p->used[purpose] -= size;
    p->budget->used -= size;
    p->count--;
}

/* Lock held. */
static bool take(struct mem_payer *p, enum mem_purpose purpose, size_t size)
{
    const struct mem_budget *b = p->budget;
    bool fits = size <= b->limit && b->used <= b->limit - size;
    if (fits) add(p, purpose, size);
    return fits;
}

/* ---- inside another budget; b's lock is held, also while `grow` waits: whoever works on b has nothing to do before it is answered */

static err charge_outer(struct mem_budget *b, uint64_t bytes)
{
    err e = b->grow ? b->grow(b->grow_user, b->outer, bytes) : mem_charge(b->outer, MEM_TRAINING, bytes);
    if (e) return e;
    lock(b->outer->budget);
    if (b->held) b->outer->count--; /* one charge, however often it grew */
    unlock(b->outer->budget);
    b->held += bytes;
    return ERR_OK;
}

/* A whole step, or what is needed exactly if that is refused. */
static err cover(struct mem_budget *b)
{
    if (!b->outer || b->used <= b->held) return ERR_OK;
    uint64_t need = b->used - b->held, step = (need + GROW_STEP - 1) / GROW_STEP * GROW_STEP;
    return charge_outer(b, step) ? charge_outer(b, need) : ERR_OK;
}

static void give_back(struct mem_budget *b)
{
    uint64_t keep = MAX(b->least, (b->used + GROW_STEP - 1) / GROW_STEP * GROW_STEP);
    if (!b->outer || b->held < keep + GROW_STEP) return;
    lock(b->outer->budget);
    b->outer->used[MEM_TRAINING] -= b->held - keep;
    b->outer->budget->used -= b->held - keep;
    b->outer->count -= keep == 0;
    unlock(b->outer->budget);
    b->held = keep;
}

err mem_budget_hold(struct mem_budget *b, uint64_t bytes)
{
    err e = ERR_OK;
    lock(b);
    char s[2][16];
    if (bytes > b->limit) e = err_set(ERR_NOMEM, "%s are needed, the %s budget is %s", size_text(bytes, s[0]), b->name, size_text(b->limit, s[1]));
    if (!e && b->outer && bytes > b->held) e = charge_outer(b, bytes - b->held);
    if (!e) b->least = bytes;
    if (!e) give_back(b);
    unlock(b);
    return e;
}

uint64_t mem_budget_held(const struct mem_budget *b)
{
    return locked_read(b, &b->held);
}

/* Somebody else may be faster after the relief: then this is refused, and nothing is asked twice. */
err mem_charge(struct mem_payer *p, enum mem_purpose purpose, size_t size)
{
    struct mem_budget *b = p->budget;
    lock(b);
    bool injected = ++b->fault_calls == b->fault_at, first = purpose == MEM_FRAMES || purpose == MEM_DECODER;
    bool taken = !injected && take(p, purpose, size);
    mem_relief_fn *relief = taken || injected || !first || size > b->limit ? NULL : b->relief;
    void *user = b->relief_user;
    if (relief) {
        unlock(b);
        bool freed = relief(user, size);
        lock(b);
        taken = freed && take(p, purpose, size);
    }
    uint64_t used = b->used, limit = b->limit;
    err outer = taken ? cover(b) : ERR_OK;
    if (outer) remove_bytes(p, purpose, size);
    unlock(b);
    if (outer) return err_wrap(outer, "%s", p->name);
    if (taken) return ERR_OK;
    char s[3][16];
    return err_set(ERR_NOMEM, "%s needs %s more for %s, but %s of the %s budget of %s are in use%s", p->name,
                   size_text(size, s[0]), mem_purpose_name(purpose), size_text(used, s[1]), b->name,
                   size_text(limit, s[2]), injected ? " (injected fault)" : "");
}

void mem_charge_forced(struct mem_payer *p, enum mem_purpose purpose, size_t size)
{
    struct mem_budget *b = p->budget;
    lock(b);
    add(p, purpose, size);
    if (b->outer && b->used > b->held) { /* what was spent counts out there, too */
        mem_charge_forced(b->outer, MEM_TRAINING, b->used - b->held);
        lock(b->outer->budget);
        if (b->held) b->outer->count--;
        unlock(b->outer->budget);
        b->held = b->used;
    }
    unlock(b);
}

void mem_release(struct mem_payer *p, enum mem_purpose purpose, size_t size)
{
    lock(p->budget);
    remove_bytes(p, purpose, size);
    give_back(p->budget);
    unlock(p->budget);
}

void mem_move(struct mem_payer *from, struct mem_payer *to, enum mem_purpose purpose, size_t size)
{
    assert(from->budget == to->budget);
    lock(from->budget);
    assert(from->used[purpose] >= size && from->count > 0);
    from->used[purpose] -= size;
    from->budget->used -= size;
    from->count--;
    add(to, purpose, size);
    unlock(from->budget);
}

err mem_alloc(struct mem_payer *p, enum mem_purpose purpose, size_t size, void **ret)
{
    err e = mem_charge(p, purpose, size);
    if (e) return e;
    void *ptr;
    if (size >= MAP_FROM) {
        ptr = map_block(p->budget, size);
    } else {
        size_t rounded = (MAX(size, (size_t)1) + ALIGN - 1) / ALIGN * ALIGN;
        ptr = aligned_alloc(size && size % PAGE == 0 ? PAGE : ALIGN, rounded);
        if (ptr) memset(ptr, 0, rounded);
    }
    if (!ptr) {
        mem_release(p, purpose, size);
        return err_set(ERR_NOMEM, "%s: the system refused %zu bytes for %s although the budget allows them", p->name, size,
                       mem_purpose_name(purpose));
    }
    *ret = ptr;
    return ERR_OK;
}

void mem_free(struct mem_payer *p, enum mem_purpose purpose, void *ptr, size_t size)
{
    if (!ptr) return;
    if (size >= MAP_FROM)
        munmap(ptr, size);
    else
        free(ptr);
    mem_release(p, purpose, size);
}

size_t mem_snapshot(const struct mem_budget *b, struct mem_row **ret_rows)
{
    size_t n = 0;
    lock(b);
    for (struct mem_payer *p = b->payers; p; p = p->next) n++;
    struct mem_row *rows = xnewn(struct mem_row, n), *row = rows;
    for (struct mem_payer *p = b->payers; p; p = p->next, row++) {
        memcpy(row->payer, p->name, sizeof row->payer);
        memcpy(row->used, p->used, sizeof row->used);
        memcpy(row->peak, p->peak, sizeof row->peak);
        row->count = p->count;
    }
    unlock(b);
    *ret_rows = rows;
    return n;
}

void mem_fault_at(struct mem_budget *b, uint64_t n)
{
    lock(b);
    b->fault_at = n;
    b->fault_calls = 0;
    unlock(b);
}

uint64_t mem_fault_calls(const struct mem_budget *b)
{
    return locked_read(b, &b->fault_calls);
}

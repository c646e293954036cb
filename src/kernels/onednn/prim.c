/* Shared primitives and what they cost.
 *
 * A primitive is oneDNN's machine code for one operator at one shape. It takes 20 KB to 1.2 MB, and 0.3 to 100 ms
 * to make, and it has no state of its own (scratch is ours, oneDNN's "user" mode), so models that have equal layers
 * share it. The table of them is process-wide and hidden here, because class tables are constants without a
 * context; entries live exactly as long as somebody holds them.
 *
 * Key: all bytes that the implementation may depend on (operation descriptor, post-operations, threads).
 * Padding inside oneDNN's structs may differ between equal descriptors: then they are merely not shared.
 *
 * Who pays: the first holder pays for all of it; when it goes, the charge moves to the next holder (a move inside
 * one budget leaves the sum as it was; between two budgets it is forced). So the sum over all payers is what is
 * there, at every moment, and the last one out gives it back.
 *
 * What it costs is measured, under the lock that also serialises creation:
 *   - code: resident pages of private, anonymous, executable mappings, before and after (/proc/self/maps and
 * mincore(2), 0.1 ms; what was there after one creation is there before the next). oneDNN maps 256 KiB per function and touches what it needs; nothing else in the process
 * makes such mappings, so this is exact.
 *   - bookkeeping on the heap (70 KB for a brgconv!): growth of mallinfo2().uordblks + hblkhd. Exact when no other
 * thread allocates in the same millisecond; otherwise off by what that one did. A negative or absurd growth counts
 * as 0.
 *   - the key (6 KB for a convolution).
 * The bytes are charged after they were spent: a budget can be over by one primitive for the time of its creation,
 * and the primitive is destroyed if the charge is refused. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/prim.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/onednn/engine.h"
#include "kernels/onednn/onednn.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards `table`, all prims' holds, and creation */
static struct onednn_prim *table;
static size_t code_known = SIZE_MAX; /* what code_now said after the last creation; SIZE_MAX: something went since */

/* ---- cost */

static size_t resident(uintptr_t from, uintptr_t to)
{
    unsigned char pages[256];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;
    while (from < to) {
        size_t count = MIN((to - from) / page, sizeof pages);
        if (mincore((void *)from, count * page, pages)) return n;
        for (size_t i = 0; i < count; i++) n += (pages[i] & 1) * page;
        from += count * page;
    }
    return n;
}

/* "from-to rwxp 00000000 00:00 0": private, executable, of no file, and without a name such as [vdso]. */
static size_t code_of_line(const char *line, const char *end)
{
    static const char nowhere[] = "p 00000000 00:00 0";
    char *p;
    unsigned long from = strtoul(line, &p, 16), to = *p == '-' ? strtoul(p + 1, &p, 16) : 0;
    if (end - p < (ptrdiff_t)sizeof nowhere + 3 || p[3] != 'x' || memcmp(p + 4, nowhere, sizeof nowhere - 1) != 0) return 0;
    for (p += 3 + sizeof nowhere; p < end; p++)
        if (*p != ' ') return 0;
    return resident(from, to);
}

static size_t code_now(void)
{
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    char buffer[16384];
    size_t have = 0, n = 0;
    ssize_t got;
    while (fd >= 0 && (got = read(fd, buffer + have, sizeof buffer - 1 - have)) > 0) {
        have += (size_t)got;
        buffer[have] = 0;
        char *line = buffer, *end;
        for (; (end = strchr(line, '\n')); line = end + 1) n += code_of_line(line, end);
        have -= (size_t)(line - buffer);
        memmove(buffer, line, have);
    }
    if (fd >= 0) close(fd);
    return n;
}

static size_t heap_now(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* ---- post-operations */

static dnnl_status_t post_append(dnnl_post_ops_t ops, const struct kernel_post *p, const struct onednn_spec *spec)
{
    dnnl_status_t s;
    switch (p->kind) {
    case KERNEL_POST_RELU: return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_relu, 0, 0);
    case KERNEL_POST_LEAKY_RELU: return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_relu, p->alpha, 0);
    case KERNEL_POST_CLIP: return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_clip, p->alpha, p->beta);
    case KERNEL_POST_SIGMOID: return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_logistic, 0, 0);
    case KERNEL_POST_SILU: return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_swish, 1, 0);
    case KERNEL_POST_HARD_SIGMOID:
        s = dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_linear, p->alpha, p->beta);
        return s ? s : dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_clip, 0, 1);
    case KERNEL_POST_HARD_SWISH: return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_hardswish, 0, 0);
    case KERNEL_POST_TANH: return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_tanh, 0, 0);
    case KERNEL_POST_ELU: return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_elu, p->alpha, 0);
    case KERNEL_POST_ADD:
        return spec->sum ? dnnl_post_ops_append_sum(ops, 1)
                         : dnnl_post_ops_append_binary(ops, dnnl_binary_add, spec->dst);
    case KERNEL_POST_SCALE: {
        dnnl_memory_desc_t channels = onednn_channels_of(spec->dst);
        return dnnl_post_ops_append_binary(ops, dnnl_binary_mul, &channels);
    }
    }
    return dnnl_unimplemented;
}

dnnl_memory_desc_t onednn_channels_of(const dnnl_memory_desc_t *dst)
{
    dnnl_memory_desc_t md = {0};
    dnnl_dims_t dims = {0}, strides = {0};
    for (int i = 0; i < dst->ndims; i++) {
        dims[i] = i == 1 ? dst->dims[1] : 1;
        strides[i] = i == 0 ? dst->dims[1] : 1;
    }
    dnnl_memory_desc_init_by_strides(&md, dst->ndims, dims, dnnl_f32, strides);
    return md;
}

int onednn_post_index(const struct kernel_post *post, int i)
{
    int n = 0;
    for (int k = 0; k < i; k++) n += post[k].kind == KERNEL_POST_HARD_SIGMOID ? 2 : 1;
    return n;
}

bool onednn_posts_known(const struct kernel_query *q)
{
    for (int i = 0; i < q->n_post; i++) {
        const struct kernel_post *p = &q->post[i];
        if (p->kind < KERNEL_POST_RELU || p->kind > KERNEL_POST_SCALE) return false;
        if (p->kind == KERNEL_POST_CLIP && !(p->alpha <= p->beta)) return false; /* oneDNN refuses an empty range */
    }
    return true;
}

bool onednn_scales(const struct kernel_query *q)
{
    for (int i = 0; i < q->n_post; i++)
        if (q->post[i].kind == KERNEL_POST_SCALE) return true;
    return false;
}

/* oneDNN 2.6.3 makes the code of one function for all post-operations of the same algorithm, with the numbers of the first: max(x, 0) after a leaky
 * ReLU is another leaky ReLU. */
static bool one_code_for_both(const struct kernel_post *a, const struct kernel_post *b)
{
    static const enum kernel_post_kind ALIKE[][2] = {{KERNEL_POST_RELU, KERNEL_POST_LEAKY_RELU}, {KERNEL_POST_CLIP, KERNEL_POST_HARD_SIGMOID}};
    if (a->kind == b->kind) return !kernel_post_reads(a) && (a->alpha != b->alpha || a->beta != b->beta);
    for (size_t i = 0; i < ARRAY_LEN(ALIKE); i++)
        if ((a->kind == ALIKE[i][0] && b->kind == ALIKE[i][1]) || (a->kind == ALIKE[i][1] && b->kind == ALIKE[i][0])) return true;
    return false;
}

err onednn_posts_distinct(const struct kernel_query *q)
{
    for (int i = 0; i < q->n_post; i++)
        for (int k = 0; k < i; k++)
            if (one_code_for_both(&q->post[k], &q->post[i])) return err_set(ERR_UNSUPPORTED, "oneDNN: two functions of one kind after each other");
    return ERR_OK;
}

static err attr_new(const struct onednn_spec *s, dnnl_primitive_attr_t *ret)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t st = dnnl_primitive_attr_create(&attr);
    if (!st) st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!st) st = dnnl_primitive_attr_set_fpmath_mode(attr, dnnl_fpmath_mode_strict);
    if (!st && s->n_post) {
        st = dnnl_post_ops_create(&ops);
        for (int i = 0; i < s->n_post && !st; i++) st = post_append(ops, &s->post[i], s);
        if (!st) st = dnnl_primitive_attr_set_post_ops(attr, ops);
        if (ops) dnnl_post_ops_destroy(ops);
    }
    if (st) {
        if (attr) dnnl_primitive_attr_destroy(attr);
        return onednn_check(st, ERR_UNSUPPORTED, s->what);
    }
    *ret = attr;
    return ERR_OK;
}

/* ---- choosing and making */

/* oneDNN 2.6.3's convolution by gemm (what is left without AVX2, and for odd groups) adds the wrong numbers in a
 * binary post-operation, and multiplies by them; its "sum" is right. onednn_test.c finds it in seconds. */
static bool adds_wrongly(const struct onednn_spec *s, const char *impl)
{
    for (int i = 0; i < s->n_post; i++)
        if (kernel_post_reads(&s->post[i]) && s->window && !(s->sum && s->post[i].kind == KERNEL_POST_ADD) && strstr(impl, "gemm")) return true;
    return false;
}

static bool good_enough(const struct onednn_spec *s, dnnl_primitive_desc_t pd)
{
    const char *impl = "";
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &impl);
    if (adds_wrongly(s, impl)) return false;
    return s->flops <= ONEDNN_REF_FLOPS || !strstr(impl, "ref");
}

static err only_reference(const struct onednn_spec *s)
{
    return err_set(ERR_UNSUPPORTED, "oneDNN: %s: only its reference implementation takes this", s->what);
}

/* The first implementation in oneDNN's order that is good enough. */
static err choose(const struct onednn_spec *s, const_dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *ret)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_desc_iterator_t it = NULL;
    err e;
    if (s->make) {
        if ((e = onednn_check(s->make(s->desc, attr, onednn_engine(), &pd), ERR_UNSUPPORTED, s->what))) return e;
        if (good_enough(s, pd)) {
            *ret = pd;
            return ERR_OK;
        }
        dnnl_primitive_desc_destroy(pd);
        return only_reference(s);
    }
    e = onednn_check(dnnl_primitive_desc_iterator_create(&it, s->desc, attr, onednn_engine(), NULL),
                     ERR_UNSUPPORTED, s->what);
    if (e) return e;
    e = ERR_UNSUPPORTED;
    do {
        pd = dnnl_primitive_desc_iterator_fetch(it);
        if (pd && good_enough(s, pd)) {
            *ret = pd;
            e = ERR_OK;
            break;
        }
        if (pd) dnnl_primitive_desc_destroy(pd);
    } while (dnnl_primitive_desc_iterator_next(it) == dnnl_success);
    dnnl_primitive_desc_iterator_destroy(it);
    return e ? only_reference(s) : ERR_OK;
}

static err prim_new(const struct onednn_spec *s, struct onednn_prim **ret)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t handle = NULL;
    onednn_engine(); /* before the first measurement */
    size_t code = code_known == SIZE_MAX ? code_now() : code_known, heap = heap_now();
    err e = attr_new(s, &attr);
    if (e) return e;
    e = choose(s, attr, &pd);
    dnnl_primitive_attr_destroy(attr);
    if (e) return e;
    e = onednn_check(dnnl_primitive_create(&handle, pd), ERR_UNSUPPORTED, s->what);
    dnnl_primitive_desc_destroy(pd);
    if (e) return e;
    size_t heap_after = heap_now(), code_after = code_known = code_now();
    struct onednn_prim *p = xnew(struct onednn_prim);
    p->handle = handle;
    dnnl_primitive_get_primitive_desc(handle, &p->desc);
    dnnl_primitive_desc_query(p->desc, dnnl_query_impl_info_str, 0, &p->impl);
    p->bytes = code_after > code ? code_after - code : 0;
    if (heap_after > heap && heap_after - heap < (8u << 20)) p->bytes += heap_after - heap;
    *ret = p;
    return ERR_OK;
}

/* ---- sharing */

static void *key_of(const struct onednn_spec *s, size_t *ret_bytes)
{
    struct strbuf b = {0};
    strbuf_addf(&b, "%s %d %d %d;", s->what, s->threads, s->sum, s->flops > ONEDNN_REF_FLOPS);
    strbuf_addn(&b, s->desc, s->desc_bytes);
    for (int i = 0; i < s->n_post; i++)
        strbuf_addf(&b, ";%d %a %a", s->post[i].kind, (double)s->post[i].alpha, (double)s->post[i].beta);
    *ret_bytes = b.len;
    return strbuf_take(&b);
}

static struct onednn_prim *find(const void *key, size_t n, uint64_t hash)
{
    for (struct onednn_prim *p = table; p; p = p->next)
        if (p->hash == hash && p->key_bytes == n && memcmp(p->key, key, n) == 0) return p;
    return NULL;
}

err onednn_hold(const struct onednn_spec *s, struct mem_payer *payer, struct onednn_hold *ret)
{
    size_t n;
    void *key = key_of(s, &n);
    uint64_t hash = hash64(key, n, 0);
    err e = ERR_OK;
    onednn_threads(s->threads);
    pthread_mutex_lock(&lock);
    struct onednn_prim *p = find(key, n, hash);
    if (!p && !(e = prim_new(s, &p))) {
        p->bytes += n + sizeof *p;
        if ((e = mem_charge(payer, MEM_CODE, p->bytes))) {
            dnnl_primitive_destroy(p->handle);
            code_known = SIZE_MAX;
            free(p);
        } else {
            p->hash = hash;
            p->key = key;
            p->key_bytes = n;
            p->next = table;
            table = p;
            key = NULL;
        }
    }
    if (!e) { /* at the end: the one that pays keeps paying */
        struct onednn_hold **at = &p->holds;
        while (*at) at = &(*at)->next;
        *ret = (struct onednn_hold){p, payer, NULL};
        *at = ret;
    }
    pthread_mutex_unlock(&lock);
    free(key);
    return e;
}

void onednn_drop(struct onednn_hold *h)
{
    struct onednn_prim *p = h->prim;
    if (!p) return;
    pthread_mutex_lock(&lock);
    bool paid = p->holds == h;
    for (struct onednn_hold **at = &p->holds; *at; at = &(*at)->next)
        if (*at == h) {
            *at = h->next;
            break;
        }
    if (paid) mem_release(h->payer, MEM_CODE, p->bytes);
    if (paid && p->holds) mem_charge_forced(p->holds->payer, MEM_CODE, p->bytes);
    if (!p->holds) {
        for (struct onednn_prim **at = &table; *at; at = &(*at)->next)
            if (*at == p) {
                *at = p->next;
                break;
            }
        dnnl_primitive_destroy(p->handle);
        code_known = SIZE_MAX;
        free(p->key);
        free(p);
    }
    pthread_mutex_unlock(&lock);
    h->prim = NULL;
}

struct kernels_onednn_usage kernels_onednn_usage(void)
{
    struct kernels_onednn_usage u = {0};
    pthread_mutex_lock(&lock);
    for (const struct onednn_prim *p = table; p; p = p->next) {
        u.primitives++;
        u.bytes += p->bytes;
    }
    pthread_mutex_unlock(&lock);
    return u;
}

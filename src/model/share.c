/* Which tensors models share: found by content, written into their manifests.
 *
 * Merging ends with models whose layers hold equal numbers. That they are equal is a fact of the blobs, but what is packed of them depends on
 * what is folded in; so the intention is recorded in the manifest, and with it in the key of everything packed. Large tensors are blobs with a name;
 * small ones lie in the tail and are hashed here.
 *
 * Invariant: a tensor is marked in one model only if another of the same call is marked for the same content. SPDX-License-Identifier: Apache-2.0 */
#include "model/share.h"

#include "graph/graph.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct item {
    struct weights_id id;
    uint32_t model, tensor;
    uint64_t bytes;
};

struct sharing {
    struct weights_store *s;
    size_t n_models, n_items, cap_items;
    struct weights_manifest *models;
    bool *changes, *shares;
    struct item *items;
};

static int by_id(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int c = memcmp(&x->id, &y->id, sizeof x->id);
    return c ? c : x->model != y->model ? (x->model < y->model ? -1 : 1) : x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

/* The numbers of the tail; free(). */
static err read_tail(struct weights_store *s, const struct weights_manifest *m, unsigned char **ret)
{
    struct weights_blob_info info;
    char id[65];
    err e = weights_blob_check(s, &m->blobs[m->tail], true, &info);
    if (e) return e;
    char *path = xasprintf("%s/%s", weights_store_blobs(s), weights_id_text(&m->blobs[m->tail], id));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    unsigned char *p = xcalloc((size_t)info.bytes + 1, 1);
    size_t at = 0;
    for (ssize_t got = 1; fd >= 0 && at < info.bytes && got > 0; at += got > 0 ? (size_t)got : 0)
        got = pread(fd, p + at, (size_t)info.bytes - at, (off_t)(WEIGHTS_BLOB_HEADER + at));
    if (fd < 0 || at < info.bytes) e = err_set(ERR_IO, "%s: %s", path, fd < 0 ? strerror(errno) : "it ends too early");
    if (fd >= 0) close(fd);
    free(path);
    if (e) free(p);
    else *ret = p;
    return e;
}

static err collect(struct sharing *x, uint32_t model)
{
    const struct weights_manifest *m = &x->models[model];
    unsigned char *tail = NULL;
    err e = m->tail < m->n_blobs ? read_tail(x->s, m, &tail) : ERR_OK;
    for (uint32_t i = 0; i < m->n_tensors && !e; i++) {
        const struct weights_tensor *t = &m->tensors[i];
        bool small = t->blob == m->tail;
        if (!*t->name) continue; /* a constant inside a node: nothing refers to it by name */
        struct weights_id id = small ? weights_blob_id(t->dtype, &t->shape, tail + t->offset, (size_t)t->bytes) : m->blobs[t->blob];
        vec_grow(&x->items, &x->cap_items, x->n_items);
        x->items[x->n_items++] = (struct item){id, model, i, t->bytes};
    }
    free(tail);
    return e ? err_wrap(e, "%s", m->name) : ERR_OK;
}

/* One past the last item with the content of `from`; is it in more than one model? */
static size_t group_end(const struct sharing *x, size_t from, bool *ret_several)
{
    size_t end = from;
    *ret_several = false;
    for (; end < x->n_items && weights_id_equal(&x->items[end].id, &x->items[from].id); end++)
        *ret_several |= x->items[end].model != x->items[from].model;
    return end;
}

/* Who shares a tensor that is worth it. */
static void find_models(struct sharing *x)
{
    bool several;
    for (size_t i = 0, end; i < x->n_items; i = end) {
        end = group_end(x, i, &several);
        for (size_t k = i; k < end && several && x->items[i].bytes >= MODEL_SHARE_LEAST; k++) x->shares[x->items[k].model] = true;
    }
}

static void mark(struct sharing *x, const struct item *item, bool on)
{
    bool *flag = &x->models[item->model].tensors[item->tensor].shared;
    x->changes[item->model] |= *flag != on;
    *flag = on;
}

static void mark_all(struct sharing *x, struct model_share_report *r)
{
    bool several;
    for (size_t i = 0, end; i < x->n_items; i = end) {
        uint32_t last = UINT32_MAX;
        size_t models = 0;
        end = group_end(x, i, &several);
        for (size_t k = i; k < end; k++) {
            if (!x->shares[x->items[k].model] || x->items[k].model == last) continue;
            last = x->items[k].model;
            models++;
        }
        for (size_t k = i; k < end; k++) mark(x, &x->items[k], models > 1 && x->shares[x->items[k].model]);
        if (models < 2) continue;
        r->tensors++;
        r->bytes += x->items[i].bytes;
        r->saved_bytes += x->items[i].bytes * (models - 1);
    }
    for (size_t i = 0; i < x->n_models; i++) r->models += x->shares[i];
}

static err load(struct sharing *x, const char *const *names, size_t n)
{
    err e = ERR_OK;
    x->models = xcalloc(n + 1, sizeof *x->models);
    x->changes = xcalloc(n + 1, sizeof *x->changes);
    x->shares = xcalloc(n + 1, sizeof *x->shares);
    for (size_t i = 0; i < n && !e; i++) {
        for (size_t k = 0; k < i && !e; k++)
            if (!strcmp(names[k], names[i])) e = err_set(ERR_USAGE, "%s is named twice", names[i]);
        if (!e) e = weights_manifest_current(x->s, names[i], &x->models[x->n_models]);
        if (e) break;
        e = collect(x, (uint32_t)x->n_models++);
    }
    if (!e && x->n_items) qsort(x->items, x->n_items, sizeof *x->items, by_id);
    return e;
}

static err share(struct sharing *x, const char *const *names, size_t n, struct model_share_report *r)
{
    err e = load(x, names, n);
    if (e) return e;
    find_models(x);
    mark_all(x, r);
    for (size_t i = 0; i < x->n_models && !e; i++) {
        bool is_new = false;
        if (x->changes[i]) e = weights_manifest_commit(x->s, &x->models[i], &is_new);
        r->changed += is_new;
    }
    return e;
}

err model_share(struct weights_store *s, const char *const *names, size_t n, struct model_share_report *ret)
{
    struct sharing x = {.s = s};
    struct model_share_report r = {0};
    char **all = NULL;
    err e = weights_store_begin(s);
    if (e) return e;
    if (!names) e = weights_store_list(s, &all, &n);
    if (!e) e = share(&x, names ? names : (const char *const *)all, n, &r);
    weights_store_end(s);
    for (size_t i = 0; all && i < n; i++) free(all[i]);
    for (size_t i = 0; i < x.n_models; i++) weights_manifest_done(&x.models[i]);
    free(all);
    free(x.models);
    free(x.changes);
    free(x.shares);
    free(x.items);
    if (!e) *ret = r;
    return e;
}

static void append(char **list, const char *name)
{
    char *more = *list ? xasprintf("%s, %s", *list, name) : xstrdup(name);
    free(*list);
    *list = more;
}

/* `other` against m: items of both, sorted. */
static void compare(struct sharing *x, const char *other, char **with)
{
    bool several;
    qsort(x->items, x->n_items, sizeof *x->items, by_id);
    for (size_t i = 0, end; i < x->n_items; i = end) {
        end = group_end(x, i, &several);
        bool there = false;
        for (size_t k = i; k < end; k++) there |= x->items[k].model == 1 && x->models[1].tensors[x->items[k].tensor].shared;
        for (size_t k = i; k < end && there; k++)
            if (x->items[k].model == 0 && x->models[0].tensors[x->items[k].tensor].shared) append(&with[x->items[k].tensor], other);
    }
}

err model_share_names(struct weights_store *s, const struct weights_manifest *m, char ***ret)
{
    char **names, **with = xnewn(char *, m->n_tensors + 1);
    size_t n;
    struct weights_manifest pair[2] = {*m};
    err e = weights_store_list(s, &names, &n);
    if (e) n = 0;
    for (size_t i = 0; i < n; i++) {
        struct sharing x = {.s = s, .models = pair, .n_models = 2};
        bool other = strcmp(names[i], m->name) != 0 && !weights_manifest_current(s, names[i], &pair[1]); /* a damaged one is verify's to name */
        if (other && !e) e = collect(&x, 0);
        if (other && !e) e = collect(&x, 1);
        if (other && !e && x.n_items) compare(&x, names[i], with);
        if (other) weights_manifest_done(&pair[1]);
        free(x.items);
        free(names[i]);
    }
    if (!e || n) free(names);
    for (size_t i = 0; e && i < m->n_tensors; i++) free(with[i]);
    if (e) free(with);
    else *ret = with;
    return e;
}

void model_share_mark(struct graph *g, const struct weights_manifest *m)
{
    for (size_t i = 0; i < m->n_tensors; i++)
        for (size_t v = 0; m->tensors[i].shared && v < g->n_values; v++)
            if (g->values[v].constant && g->values[v].name && !strcmp(g->values[v].name, m->tensors[i].name)) g->values[v].shared = true;
}

void model_share_keep(struct weights_manifest *m, const struct weights_manifest *old)
{
    if (m->n_tensors != old->n_tensors || m->n_blobs != old->n_blobs || m->graph != old->graph || m->tail != old->tail) return;
    for (size_t i = 0; i < m->n_blobs; i++)
        if (!weights_id_equal(&m->blobs[i], &old->blobs[i])) return;
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct weights_tensor *a = &m->tensors[i], *b = &old->tensors[i];
        if (strcmp(a->name, b->name) || a->blob != b->blob || a->offset != b->offset || a->bytes != b->bytes) return;
    }
    for (size_t i = 0; i < m->n_tensors; i++) m->tensors[i].shared = old->tensors[i].shared;
}

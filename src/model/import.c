/* Importing: an ONNX file becomes blobs, a stripped graph and a manifest.
 *
 * Two walks over the file: the first puts every tensor of 64 KiB or more into the store as a blob and the smaller initialisers one after the other into
 * the tail; the second writes the graph, with each of them replaced by external data whose location is the blob's name. So what comes out of the store
 * is an ordinary ONNX graph that reads its numbers in place, 64-byte aligned.
 *
 * Invariant: the manifest is committed last. SPDX-License-Identifier: Apache-2.0 */
#include "model/import.h"
#include "graph/strip.h"
#include "model/share.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ALIGN = 64, TAIL = -1, STAYS = -2 };

struct place {
    int blob; /* index, or TAIL or STAYS */
    uint64_t offset, bytes;
};

struct import {
    struct weights_store *s;
    struct mem_payer *payer;
    struct weights_manifest m;
    size_t cap_blobs, cap_bytes, cap_tensors;
    struct place *places;
    size_t n_places, cap_places, next;
    struct strbuf tail;
    uint64_t new_bytes;
    char location[65];
};

static int add_blob(struct import *i, const struct weights_id *id, uint64_t bytes, bool is_new)
{
    struct weights_manifest *m = &i->m;
    i->new_bytes += is_new ? bytes : 0;
    for (size_t k = 0; k < m->n_blobs; k++)
        if (weights_id_equal(&m->blobs[k], id)) return (int)k;
    size_t n = m->n_blobs;
    vec_grow(&m->blobs, &i->cap_blobs, n);
    vec_grow(&m->blob_bytes, &i->cap_bytes, n);
    m->blobs[n] = *id;
    m->blob_bytes[n] = bytes;
    return (int)m->n_blobs++;
}

/* First walk. */
static err take(void *user, const char *name, const struct tensor *t, size_t bytes, bool initialiser, struct graph_reference *ret)
{
    struct import *i = user;
    struct place p = {STAYS, 0, bytes};
    ret->out = false;
    if (bytes >= WEIGHTS_BLOB_SMALL) {
        struct weights_id id;
        bool is_new;
        err e = weights_blob_put(i->s, t->dtype, &t->shape, t->data, bytes, &id, &is_new);
        if (e) return e;
        p.blob = add_blob(i, &id, bytes, is_new);
    } else if (initialiser) {
        static const char zeros[ALIGN];
        p.blob = TAIL;
        p.offset = i->tail.len;
        strbuf_addn(&i->tail, t->data, bytes);
        if (bytes % ALIGN) strbuf_addn(&i->tail, zeros, ALIGN - bytes % ALIGN);
    }
    vec_grow(&i->places, &i->cap_places, i->n_places);
    i->places[i->n_places++] = p;
    if (p.blob == STAYS) return ERR_OK;
    vec_grow(&i->m.tensors, &i->cap_tensors, i->m.n_tensors);
    i->m.tensors[i->m.n_tensors++] =
        (struct weights_tensor){xstrdup(name), t->dtype, t->shape, (uint32_t)p.blob, p.offset, bytes, false};
    return ERR_OK;
}

/* Second walk. */
static err refer(void *user, const char *name, const struct tensor *t, size_t bytes, bool initialiser, struct graph_reference *ret)
{
    struct import *i = user;
    (void)name;
    (void)t;
    (void)initialiser;
    if (i->next >= i->n_places || i->places[i->next].bytes != bytes)
        return err_set(ERR_BUSY, "the file was changed while it was imported; import it again");
    const struct place *p = &i->places[i->next++];
    *ret = (struct graph_reference){.out = p->blob != STAYS};
    if (p->blob == STAYS) return ERR_OK;
    ret->location = weights_id_text(&i->m.blobs[p->blob == TAIL ? (int)i->m.tail : p->blob], i->location);
    ret->offset = WEIGHTS_BLOB_HEADER + p->offset;
    ret->bytes = bytes;
    return ERR_OK;
}

static err put_bytes(struct import *i, const void *p, size_t n, uint32_t *ret)
{
    struct tensor_shape shape = tensor_shape_of(1, (int64_t[]){(int64_t)n});
    struct weights_id id;
    bool is_new;
    err e = weights_blob_put(i->s, TENSOR_U8, &shape, p, n, &id, &is_new);
    if (!e) *ret = (uint32_t)add_blob(i, &id, n, is_new);
    return e;
}

static err put_tail(struct import *i)
{
    err e = i->tail.len ? put_bytes(i, i->tail.s, i->tail.len, &i->m.tail) : ERR_OK;
    for (size_t k = 0; k < i->m.n_tensors && !e; k++)
        if (i->m.tensors[k].blob == (uint32_t)TAIL) i->m.tensors[k].blob = i->m.tail;
    return e;
}

static err put_graph(struct import *i, const char *path)
{
    void *p;
    size_t n;
    if (!i->tail.len) i->m.tail = UINT32_MAX;
    err e = graph_strip(path, i->payer, refer, i, &p, &n);
    if (e) return e;
    e = put_bytes(i, p, n, &i->m.graph);
    if (i->m.tail == UINT32_MAX) i->m.tail = (uint32_t)i->m.n_blobs;
    free(p);
    return e;
}

static err readable(const char *path, struct mem_payer *payer)
{
    struct graph *g;
    err e = graph_load(path, payer, &g);
    if (!e) graph_free(&g);
    return e;
}

static err put_all(struct import *i, const char *path)
{
    err e = graph_strip(path, i->payer, take, i, NULL, NULL);
    if (!e) e = put_tail(i);
    return e ? e : put_graph(i, path);
}

err model_import_numbers(struct weights_store *s, const char *path, struct mem_payer *payer)
{
    struct import i = {.s = s, .payer = payer};
    err e = weights_store_begin(s);
    if (e) return e;
    e = put_all(&i, path);
    weights_store_end(s);
    weights_manifest_done(&i.m);
    strbuf_done(&i.tail);
    free(i.places);
    return e;
}

err model_import(struct weights_store *s, const char *path, const char *name, struct mem_payer *payer, struct model_import_report *ret)
{
    struct import i = {.s = s, .payer = payer};
    struct model_import_report r = {0};
    struct stat st;
    err e = weights_name_check(name);
    if (!e) e = readable(path, payer);
    if (!e) e = weights_store_begin(s);
    if (e) return e;
    i.m.name = xstrdup(name);
    i.m.source = xstrdup(strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
    i.m.source_bytes = stat(path, &st) ? 0 : (uint64_t)st.st_size;
    e = put_all(&i, path);
    struct weights_manifest old;
    if (!e && !weights_manifest_current(s, name, &old)) { /* the same once more: what it shares stays marked */
        model_share_keep(&i.m, &old);
        weights_manifest_done(&old);
    }
    if (!e) e = weights_manifest_commit(s, &i.m, &r.is_new);
    weights_store_end(s);
    if (!e) e = model_import_shared(s, &i.m, &r.shared_bytes, NULL);
    if (!e) {
        r.version = i.m.version;
        r.new_bytes = i.new_bytes;
        r.tensors = i.m.n_tensors;
        r.blobs = i.m.n_blobs;
        for (size_t k = 0; k < i.m.n_blobs; k++) r.bytes += i.m.blob_bytes[k];
        *ret = r;
    }
    weights_manifest_done(&i.m);
    strbuf_done(&i.tail);
    free(i.places);
    return e ? err_wrap(e, "%s", name) : ERR_OK;
}

char *model_import_name(const char *path)
{
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    char *name = xstrndup(base, str_ends(base, ".onnx") ? strlen(base) - 5 : strlen(base));
    for (char *c = name; *c; c++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", *c)) *c = '_';
    return name;
}

/* ---- out again */

err model_import_graph(struct weights_store *s, const struct weights_manifest *m, bool hollow, struct mem_payer *payer, struct graph **ret)
{
    struct weights_blob_info info;
    char id[65], tail[65];
    err e = ERR_OK;
    for (size_t i = 0; i < m->n_blobs && !e; i++) e = weights_blob_check(s, &m->blobs[i], !hollow || i == m->graph || i == m->tail, &info);
    if (e) return err_wrap(e, "%s", m->name);
    char *path = xasprintf("%s/%s", weights_store_blobs(s), weights_id_text(&m->blobs[m->graph], id));
    const char *solid = !hollow ? NULL : m->tail < m->n_blobs ? weights_id_text(&m->blobs[m->tail], tail) : "";
    e = graph_load_stripped(m->name, path, WEIGHTS_BLOB_HEADER, weights_store_blobs(s), solid, payer, ret);
    free(path);
    if (!e) model_share_mark(*ret, m);
    return e;
}

static bool has(const struct weights_manifest *m, const struct weights_id *id)
{
    for (size_t i = 0; i < m->n_blobs; i++)
        if (weights_id_equal(&m->blobs[i], id)) return true;
    return false;
}

err model_import_shared(struct weights_store *s, const struct weights_manifest *m, uint64_t *ret_bytes, char ***ret_with)
{
    char **names, **with = xnewn(char *, m->n_blobs + 1);
    size_t n;
    struct weights_manifest other;
    err e = weights_store_list(s, &names, &n);
    for (size_t i = 0; i < n && !e; i++) {
        if (!strcmp(names[i], m->name) || weights_manifest_current(s, names[i], &other)) continue; /* a damaged one is verify's to name */
        for (size_t k = 0; k < m->n_blobs; k++) {
            if (!has(&other, &m->blobs[k])) continue;
            char *more = with[k] ? xasprintf("%s, %s", with[k], names[i]) : xstrdup(names[i]);
            free(with[k]);
            with[k] = more;
        }
        weights_manifest_done(&other);
    }
    if (!e) {
        for (size_t i = 0; i < n; i++) free(names[i]);
        free(names);
        *ret_bytes = 0;
        for (size_t k = 0; k < m->n_blobs; k++) *ret_bytes += with[k] ? m->blob_bytes[k] : 0;
    }
    if (!e && ret_with) {
        *ret_with = with;
        return ERR_OK;
    }
    for (size_t k = 0; k < m->n_blobs; k++) free(with[k]);
    free(with);
    return e;
}

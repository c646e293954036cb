/* Manifests: which blobs a version of a model is made of, and where in them each tensor is.
 *
 *     "BRIMMODL"  u32 format  u32 version  u64 created  u64 source_bytes  string name  string source  u32 graph  u32 tail
 *     u32 n_blobs  { id[32]  u64 bytes }  u32 n_tensors  { string name  u32 dtype  u32 rank  u64 dims[rank]  u32 blob  u64 offset  u64 bytes }
 *     [format 2: u32 n_shared  { u32 tensor }, ascending]  BLAKE2b-256 of all before
 *
 * string: u32 length, bytes without control characters. The checksum comes first in reading: whatever is wrong after that was written so, and is
 * refused all the same (the reader is fuzzed with right checksums).
 *
 * Invariant of a parsed manifest: every tensor lies inside its blob; graph < n_blobs; tail <= n_blobs. SPDX-License-Identifier: Apache-2.0 */
#include "weights/wire.h"

#include "base/crc32c.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char MAGIC[8] = "BRIMMODL";
enum { ID = 32, MOST_BYTES = 256 << 20, MOST_BLOBS = 1 << 20, MOST_TENSORS = 1 << 20, MOST_NAME = 1 << 12 };

/* ---- reading */

static void tensor(struct weights_in *in, const struct weights_manifest *m, struct weights_tensor *t)
{
    int64_t elements = 0;
    t->name = weights_in_string(in, MOST_NAME);
    uint64_t dtype = weights_in_number(in, 4), rank = weights_in_number(in, 4);
    if (!in->e && (dtype > TENSOR_DTYPE_LAST || !tensor_dtype_size((enum tensor_dtype)dtype) || rank > TENSOR_MAX_RANK)) weights_in_fail(in, "a tensor's type");
    if (in->e) return;
    t->dtype = (enum tensor_dtype)dtype;
    t->shape.rank = (int)rank;
    for (int i = 0; i < t->shape.rank; i++) {
        t->shape.dims[i] = (int64_t)weights_in_number(in, 8);
        if (t->shape.dims[i] < 0) weights_in_fail(in, "a tensor's shape");
    }
    t->blob = (uint32_t)weights_in_number(in, 4);
    t->offset = weights_in_number(in, 8);
    t->bytes = weights_in_number(in, 8);
    if (in->e) return;
    if (tensor_shape_count(&t->shape, &elements) || (uint64_t)elements * tensor_dtype_size(t->dtype) != t->bytes) weights_in_fail(in, "a tensor's size");
    else if (t->blob >= m->n_blobs || t->bytes > m->blob_bytes[t->blob] || t->offset > m->blob_bytes[t->blob] - t->bytes)
        weights_in_fail(in, "a tensor outside of its blob");
}

/* Of format 2: which tensors other models have as well. */
static void shared(struct weights_in *in, struct weights_manifest *m)
{
    size_t n = weights_in_count(in, MOST_TENSORS, 4);
    uint64_t next = 0;
    for (size_t i = 0; i < n && !in->e; i++) {
        uint64_t t = weights_in_number(in, 4);
        if (!in->e && (t < next || t >= m->n_tensors)) weights_in_fail(in, "a shared tensor that is none");
        if (in->e) return;
        m->tensors[t].shared = true;
        next = t + 1;
    }
    if (!in->e && !n) weights_in_fail(in, "no shared tensor");
}

err weights_manifest_parse(const char *where, const void *bytes, size_t n, struct weights_manifest *ret)
{
    const unsigned char *p = bytes;
    struct weights_in in = {where, "import the model again", p, p + n, ERR_OK};
    struct weights_manifest m = {0};
    if (n < sizeof MAGIC + 4 + ID || memcmp(p, MAGIC, sizeof MAGIC)) return weights_in_fail(&in, "not a manifest");
    unsigned format = (unsigned)weights_get(p + 8, 4);
    if (format != WEIGHTS_FORMAT && format != WEIGHTS_FORMAT_SHARED)
        return err_set(ERR_UNSUPPORTED, "%s: format %u, and this brim knows 1 and 2; use the brim that wrote it, or import the model again", where,
                       format);
    m.id = weights_hash(p, n - ID);
    if (memcmp(m.id.b, p + n - ID, ID)) return weights_in_fail(&in, "its checksum is another");
    in.p += sizeof MAGIC + 4;
    in.end -= ID;
    m.version = (uint32_t)weights_in_number(&in, 4);
    m.created = weights_in_number(&in, 8);
    m.source_bytes = weights_in_number(&in, 8);
    m.name = weights_in_string(&in, MOST_NAME);
    m.source = weights_in_string(&in, MOST_NAME);
    m.graph = (uint32_t)weights_in_number(&in, 4);
    m.tail = (uint32_t)weights_in_number(&in, 4);
    m.n_blobs = weights_in_count(&in, MOST_BLOBS, ID + 8);
    m.blobs = xcalloc(m.n_blobs + 1, sizeof *m.blobs);
    m.blob_bytes = xcalloc(m.n_blobs + 1, sizeof *m.blob_bytes);
    for (size_t i = 0; i < m.n_blobs && !in.e; i++) {
        weights_in_id(&in, &m.blobs[i]);
        m.blob_bytes[i] = weights_in_number(&in, 8);
    }
    if (!in.e && (m.graph >= m.n_blobs || m.tail > m.n_blobs)) weights_in_fail(&in, "no graph");
    size_t n_tensors = weights_in_count(&in, MOST_TENSORS, 32);
    m.tensors = xcalloc(n_tensors + 1, sizeof *m.tensors);
    while (m.n_tensors < n_tensors && !in.e) tensor(&in, &m, &m.tensors[m.n_tensors++]);
    if (!in.e && format == WEIGHTS_FORMAT_SHARED) shared(&in, &m);
    if (!in.e && in.p != in.end) weights_in_fail(&in, "more bytes than it needs");
    if (!in.e) {
        *ret = m;
        return ERR_OK;
    }
    weights_manifest_done(&m);
    return in.e;
}

void weights_manifest_done(struct weights_manifest *m)
{
    for (size_t i = 0; i < m->n_tensors; i++) free(m->tensors[i].name);
    free(m->tensors);
    free(m->blobs);
    free(m->blob_bytes);
    free(m->name);
    free(m->source);
    *m = (struct weights_manifest){0};
}

/* ---- writing */

void weights_manifest_write(const struct weights_manifest *m, void **ret, size_t *ret_n)
{
    struct strbuf b = {0};
    strbuf_addn(&b, MAGIC, sizeof MAGIC);
    size_t n_shared = 0;
    for (size_t i = 0; i < m->n_tensors; i++) n_shared += m->tensors[i].shared;
    weights_out_number(&b, n_shared ? WEIGHTS_FORMAT_SHARED : WEIGHTS_FORMAT, 4);
    weights_out_number(&b, m->version, 4);
    weights_out_number(&b, m->created, 8);
    weights_out_number(&b, m->source_bytes, 8);
    weights_out_string(&b, m->name, MOST_NAME);
    weights_out_string(&b, m->source ? m->source : "", MOST_NAME);
    weights_out_number(&b, m->graph, 4);
    weights_out_number(&b, m->tail, 4);
    weights_out_number(&b, m->n_blobs, 4);
    for (size_t i = 0; i < m->n_blobs; i++) {
        weights_out_id(&b, &m->blobs[i]);
        weights_out_number(&b, m->blob_bytes[i], 8);
    }
    weights_out_number(&b, m->n_tensors, 4);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct weights_tensor *t = &m->tensors[i];
        weights_out_string(&b, t->name, MOST_NAME);
        weights_out_number(&b, (uint64_t)t->dtype, 4);
        weights_out_number(&b, (uint64_t)t->shape.rank, 4);
        for (int k = 0; k < t->shape.rank; k++) weights_out_number(&b, (uint64_t)t->shape.dims[k], 8);
        weights_out_number(&b, t->blob, 4);
        weights_out_number(&b, t->offset, 8);
        weights_out_number(&b, t->bytes, 8);
    }
    if (n_shared) weights_out_number(&b, n_shared, 4);
    for (size_t i = 0; i < m->n_tensors; i++)
        if (m->tensors[i].shared) weights_out_number(&b, i, 4);
    struct weights_id id = weights_hash(b.s, b.len);
    weights_out_id(&b, &id);
    *ret_n = b.len;
    *ret = strbuf_take(&b);
}

/* ---- in a store */

/* "brim current 1\nVERSION\nCRC32C of the two lines\n" */
static char *current_text(uint32_t version)
{
    char *lines = xasprintf("brim current 1\n%u\n", version);
    char *text = xasprintf("%s%08x\n", lines, crc32c(0, lines, strlen(lines)));
    free(lines);
    return text;
}

err weights_current(struct weights_store *s, const char *name, uint32_t *ret)
{
    err e = weights_name_check(name);
    if (e) return e;
    char *path = xasprintf("%s/%s/current", s->models, name), *want = NULL;
    unsigned char *text = NULL;
    size_t n;
    e = weights_fs_get(&s->fs, path, 64, &text, &n);
    if (e == ERR_NOT_FOUND) e = err_set(ERR_NOT_FOUND, "no model '%s' in the store %s; brim models list says what is there", name, s->path);
    if (!e) {
        unsigned v = 0;
        if (strlen((char *)text) == n && sscanf((char *)text, "brim current 1\n%9u\n", &v) == 1) want = current_text(v);
        if (want && v > 0 && !strcmp(want, (char *)text)) *ret = v;
        else e = err_set(ERR_CORRUPT, "%s: damaged; import the model again to repair it", path);
    }
    free(want);
    free(text);
    free(path);
    return e;
}

err weights_manifest_read(struct weights_store *s, const char *name, uint32_t version, struct weights_manifest *ret)
{
    char *path = xasprintf("%s/%s/%u", s->models, name, version);
    unsigned char *p = NULL;
    size_t n;
    struct weights_manifest m;
    err e = weights_fs_get(&s->fs, path, MOST_BYTES, &p, &n);
    if (e == ERR_NOT_FOUND) e = err_set(ERR_CORRUPT, "%s: missing; import the model again to repair it", path);
    if (!e) e = weights_manifest_parse(path, p, n, &m);
    if (!e && (strcmp(m.name, name) || m.version != version)) {
        e = err_set(ERR_CORRUPT, "%s: it is the manifest of '%s' version %u; import the model again", path, m.name, m.version);
        weights_manifest_done(&m);
    }
    free(p);
    free(path);
    if (!e) *ret = m;
    return e;
}

err weights_manifest_current(struct weights_store *s, const char *name, struct weights_manifest *ret)
{
    uint32_t version = 0;
    err e = weights_current(s, name, &version);
    return e ? e : weights_manifest_read(s, name, version, ret);
}

/* Same content: blobs, tensors, graph. */
static bool equal(const struct weights_manifest *a, const struct weights_manifest *b)
{
    struct weights_manifest x = *a, y = *b;
    void *p, *q;
    size_t n, k;
    x.version = y.version = 0;
    x.created = y.created = 0;
    x.source = y.source = NULL;
    x.source_bytes = y.source_bytes = 0;
    weights_manifest_write(&x, &p, &n);
    weights_manifest_write(&y, &q, &k);
    bool same = n == k && !memcmp(p, q, n);
    free(p);
    free(q);
    return same;
}

static err next_version(struct weights_store *s, const char *dir, uint32_t *ret)
{
    char **names;
    size_t n;
    uint32_t v;
    (void)s;
    err e = weights_entries(dir, &names, &n);
    if (e) return e;
    *ret = 1;
    for (size_t i = 0; i < n; i++)
        if (weights_version_parse(names[i], &v)) *ret = MAX(*ret, v + 1);
    weights_entries_free(names, n);
    return ERR_OK;
}

static err commit(struct weights_store *s, struct weights_manifest *m, const char *dir)
{
    err e = next_version(s, dir, &m->version);
    if (e) return e;
    void *p;
    size_t n;
    char name[16], *text = current_text(m->version);
    m->created = (uint64_t)time(NULL);
    weights_manifest_write(m, &p, &n);
    memcpy(m->id.b, (unsigned char *)p + n - ID, ID);
    snprintf(name, sizeof name, "%u", m->version);
    const void *parts[] = {p, text};
    const size_t sizes[] = {n, strlen(text)};
    if (s->fs.mkdir(s->fs.self, dir)) e = err_set(ERR_IO, "%s: cannot make the folder: %s", dir, strerror(errno));
    if (!e) e = weights_sync_dir(s, s->models);
    if (!e) e = weights_sync_dir(s, s->blobs); /* their names, before anybody refers to them */
    if (!e) e = weights_fs_put(&s->fs, s->tmp, dir, name, &parts[0], &sizes[0], 1, false);
    if (!e) e = weights_fs_put(&s->fs, s->tmp, dir, "current", &parts[1], &sizes[1], 1, false);
    free(p);
    free(text);
    return e;
}

err weights_manifest_commit(struct weights_store *s, struct weights_manifest *m, bool *ret_new)
{
    struct weights_manifest old;
    err e = weights_name_check(m->name);
    if (!e) e = weights_store_begin(s);
    if (e) return e;
    bool same = false;
    if (!weights_manifest_current(s, m->name, &old)) { /* one that is missing or damaged is replaced */
        same = equal(&old, m);
        if (same) {
            m->version = old.version;
            m->created = old.created;
            m->id = old.id;
        }
        weights_manifest_done(&old);
    }
    char *dir = xasprintf("%s/%s", s->models, m->name);
    if (same) e = weights_sync_dir(s, s->blobs); /* some may have been repaired */
    else e = commit(s, m, dir);
    free(dir);
    weights_store_end(s);
    if (!e) *ret_new = !same;
    return e;
}

/* Taking the weights out of an ONNX file, on the wire.
 *
 * The message is walked, not parsed: fields that hold graphs, nodes or tensors are rewritten, every other byte is copied, known to us or not. So
 * a stripped file keeps metadata, functions and whatever else comes. Nested messages need their length first, so each is built in a buffer of
 * its own; without weights they are small.
 *
 * Invariant: calls of `fn` depend on the file alone. SPDX-License-Identifier: Apache-2.0 */
#include "graph/strip.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/onnx.h"

enum kind { MODEL, GRAPH, NODE, ATTRIBUTE };
enum { MOST_NESTED = 32 };

struct strip {
    struct graph_file *file;
    graph_strip_fn *fn;
    void *user;
    bool output;
};

static void varint(struct strbuf *b, uint64_t v)
{
    do {
        char c = (char)((v & 127) | (v > 127 ? 128 : 0));
        strbuf_addn(b, &c, 1);
        v >>= 7;
    } while (v);
}

static void put(struct strbuf *b, uint32_t field, const void *p, size_t n)
{
    varint(b, (uint64_t)field << 3 | 2);
    varint(b, n);
    if (n) strbuf_addn(b, p, n);
}

static void put_entry(struct strbuf *b, const char *key, const char *value)
{
    struct strbuf entry = {0};
    put(&entry, 1, key, strlen(key));
    put(&entry, 2, value, strlen(value));
    put(b, 13, entry.s, entry.len);
    strbuf_done(&entry);
}

/* The numbers go, the reference comes. */
static err put_reference(struct graph_wire w, const struct graph_reference *r, struct strbuf *out)
{
    struct graph_field f;
    char number[32];
    int more;
    while ((more = graph_wire_next(&w, &f)) > 0) {
        bool numbers = (f.number >= 4 && f.number <= 7) || (f.number >= 9 && f.number <= 11) || f.number == 13 || f.number == 14;
        if (!numbers) strbuf_addn(out, (const char *)f.start, (size_t)(w.at - f.start));
    }
    put_entry(out, "location", r->location);
    snprintf(number, sizeof number, "%llu", (unsigned long long)r->offset);
    put_entry(out, "offset", number);
    snprintf(number, sizeof number, "%llu", (unsigned long long)r->bytes);
    put_entry(out, "length", number);
    varint(out, 14 << 3);
    varint(out, 1);
    return more;
}

/* A tensor that brim cannot read (strings) stays: whether it matters is the reader's to say. */
static err tensor(struct strip *s, const struct graph_wire *w, const struct graph_field *f, bool initialiser, struct strbuf *out)
{
    struct graph_wire sub;
    struct graph_tensor_proto t;
    struct graph_reference r = {0};
    err e = graph_wire_sub(w, f, &sub);
    if (e) return e;
    e = graph_read_tensor(s->file, &sub, &t);
    if (e && e != ERR_UNSUPPORTED) return e;
    if (!e && t.bytes) {
        struct tensor view = tensor_view(t.dtype, &t.shape, t.data);
        char *name = xstrndup((const char *)t.name.p, t.name.n);
        e = s->fn(s->user, name, &view, t.bytes, initialiser, &r);
        free(name);
        if (e) return e;
    }
    if (!s->output) return ERR_OK;
    if (!r.out) {
        strbuf_addn(out, (const char *)f->p, f->n);
        return ERR_OK;
    }
    return put_reference(sub, &r, out);
}

/* What a field of a message holds: a kind, -1 for a tensor, -2 for anything else. */
static int inside(enum kind kind, uint32_t field)
{
    switch (kind) {
    case MODEL: return field == 7 ? GRAPH : -2;
    case GRAPH: return field == 1 ? NODE : field == 5 ? -1 : -2;
    case NODE: return field == 5 ? ATTRIBUTE : -2;
    case ATTRIBUTE: return field == 5 || field == 10 ? -1 : field == 6 || field == 11 ? GRAPH : -2;
    }
    return -2;
}

static err message(struct strip *s, enum kind kind, struct graph_wire w, int depth, struct strbuf *out)
{
    struct graph_field f;
    int more;
    if (depth > MOST_NESTED) return graph_wire_fail(&w, ERR_LIMIT, w.at, "messages nested deeper than %d", MOST_NESTED);
    while ((more = graph_wire_next(&w, &f)) > 0) {
        int what = inside(kind, f.number);
        if (what == -2 || f.type != GRAPH_WIRE_BYTES) {
            if (s->output) strbuf_addn(out, (const char *)f.start, (size_t)(w.at - f.start));
            continue;
        }
        struct strbuf inner = {0};
        struct graph_wire sub;
        err e = what == -1 ? tensor(s, &w, &f, kind == GRAPH, &inner) : graph_wire_sub(&w, &f, &sub);
        if (!e && what != -1) e = message(s, (enum kind)what, sub, depth + 1, &inner);
        if (!e && s->output) put(out, f.number, inner.s, inner.len);
        strbuf_done(&inner);
        if (e) return e;
    }
    return more;
}

err graph_strip(const char *path, struct mem_payer *payer, graph_strip_fn *fn, void *user, void **ret, size_t *ret_n)
{
    char *copy = xstrdup(path);
    struct strip s = {graph_file_new(dirname(copy), payer), fn, user, ret != NULL};
    const struct graph_mapping *m = NULL;
    struct strbuf out = {0};
    err e = graph_file_map(s.file, path, NULL, &m);
    if (!e) e = message(&s, MODEL, (struct graph_wire){path, m->base, m->base, m->base + m->size}, 0, &out);
    graph_file_unref(&s.file);
    free(copy);
    if (!e && ret) {
        *ret_n = out.len;
        *ret = strbuf_take(&out);
    }
    strbuf_done(&out);
    return e;
}

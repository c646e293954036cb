/* Protobuf's wire format: see wire.h.
 *
 * Invariant: w->at <= w->end, and every pointer handed out lies within [at, end) of the message it came from.
 * SPDX-License-Identifier: Apache-2.0 */
#include "graph/wire.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

err graph_wire_fail(const struct graph_wire *w, err code, const uint8_t *where, const char *fmt, ...)
{
    char text[768];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(code, "%s: byte %zu: %s", w->name, (size_t)(where - w->base), text);
}

/* At most ten bytes; the tenth holds one bit. 0 and *at moved, or ERR_FORMAT. */
static err varint(const struct graph_wire *w, const uint8_t **at, const uint8_t *end, uint64_t *ret)
{
    uint64_t v = 0;
    const uint8_t *p = *at;
    for (int shift = 0; shift < 70; shift += 7) {
        if (p >= end) return graph_wire_fail(w, ERR_FORMAT, *at, "the file ends inside a number");
        uint8_t b = *p++;
        if (shift == 63 && b > 1) break;
        v |= (uint64_t)(b & 127) << shift;
        if (!(b & 128)) {
            *at = p;
            *ret = v;
            return ERR_OK;
        }
    }
    return graph_wire_fail(w, ERR_FORMAT, *at, "a number of more than 64 bits");
}

static err fixed(const struct graph_wire *w, const uint8_t **at, const uint8_t *end, size_t size, uint64_t *ret)
{
    if ((size_t)(end - *at) < size) return graph_wire_fail(w, ERR_FORMAT, *at, "the file ends inside a number");
    uint64_t v = 0;
    for (size_t i = 0; i < size; i++) v |= (uint64_t)(*at)[i] << (8 * i);
    *at += size;
    *ret = v;
    return ERR_OK;
}

static err number(const struct graph_wire *w, enum graph_wire_type type, const uint8_t **at, const uint8_t *end,
                  uint64_t *ret)
{
    if (type == GRAPH_WIRE_VARINT) return varint(w, at, end, ret);
    return fixed(w, at, end, type == GRAPH_WIRE_FIXED32 ? 4 : 8, ret);
}

int graph_wire_next(struct graph_wire *w, struct graph_field *ret)
{
    if (w->at >= w->end) return 0;
    struct graph_field f = {.start = w->at};
    const uint8_t *at = w->at;
    uint64_t tag = 0, n = 0;
    err e = varint(w, &at, w->end, &tag);
    if (e) return e;
    if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
        return graph_wire_fail(w, ERR_FORMAT, f.start, "not a field of protobuf");
    f.number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case GRAPH_WIRE_VARINT:
    case GRAPH_WIRE_FIXED32:
    case GRAPH_WIRE_FIXED64:
        f.type = (enum graph_wire_type)(tag & 7);
        e = number(w, f.type, &at, w->end, &f.u);
        if (e) return e;
        break;
    case GRAPH_WIRE_BYTES:
        f.type = GRAPH_WIRE_BYTES;
        e = varint(w, &at, w->end, &n);
        if (e) return e;
        if (n > (size_t)(w->end - at))
            return graph_wire_fail(w, ERR_FORMAT, f.start,
                                   "a field of %llu bytes where %zu are left: the file is cut or damaged",
                                   (unsigned long long)n, (size_t)(w->end - at));
        f.p = at;
        f.n = (size_t)n;
        at += n;
        break;
    default:
        return graph_wire_fail(w, ERR_FORMAT, f.start, "wire type %d, which ONNX does not use", (int)(tag & 7));
    }
    w->at = at;
    *ret = f;
    return 1;
}

err graph_wire_want(const struct graph_wire *w, const struct graph_field *f, enum graph_wire_type type)
{
    if (f->type == type) return ERR_OK;
    return graph_wire_fail(w, ERR_FORMAT, f->start, "field %u has wire type %d, not %d", f->number, (int)f->type,
                           (int)type);
}

err graph_wire_sub(const struct graph_wire *w, const struct graph_field *f, struct graph_wire *ret)
{
    err e = graph_wire_want(w, f, GRAPH_WIRE_BYTES);
    if (e) return e;
    *ret = (struct graph_wire){w->name, w->base, f->p, f->p + f->n};
    return ERR_OK;
}

int graph_wire_number(const struct graph_wire *w, const struct graph_field *f, enum graph_wire_type type,
                      const uint8_t **pos, uint64_t *ret)
{
    if (f->type != GRAPH_WIRE_BYTES) { /* not packed: one number */
        if (*pos) return 0;
        err e = graph_wire_want(w, f, type);
        if (e) return e;
        *pos = f->start;
        *ret = f->u;
        return 1;
    }
    if (!*pos) *pos = f->p;
    if (*pos >= f->p + f->n) return 0;
    err e = number(w, type, pos, f->p + f->n, ret);
    return e ? e : 1;
}

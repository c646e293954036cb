/* TensorProto: constants, read in place where the file allows it.
 *
 * raw_data and packed float_data / double_data are little-endian arrays already: if they are aligned for their type
 * (protobuf promises nothing, so three in four are not), the constant is a pointer into the file. Misaligned ones
 * and packed integers are decoded into a block that the payer pays. A tensor's length is checked against dims
 * before anything is allocated, so a file can cost at most eight times its size here (int64 of one byte each).
 *
 * Invariant: ret->bytes == product of dims * size of the type, and data has that many readable bytes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "graph/onnx.h"
#include "tensor/small.h"

enum { /* field numbers of onnx.proto */
       T_DIMS = 1,
       T_TYPE = 2,
       T_SEGMENT = 3,
       T_FLOATS = 4,
       T_INT32S = 5,
       T_STRINGS = 6,
       T_INT64S = 7,
       T_NAME = 8,
       T_RAW = 9,
       T_DOUBLES = 10,
       T_UINT64S = 11,
       T_EXTERNAL = 13,
       T_LOCATION = 14,
};

struct parts {
    int rank;
    uint64_t type;
    bool has_raw, external;
    struct graph_field raw, location;
    bool has_offset, has_length;
    uint64_t offset, length;
    int typed;        /* the number of the field that holds the elements, 0: none */
    bool many_typed;  /* elements in fields of two kinds */
    size_t n_typed;   /* elements counted in it */
    struct graph_field only; /* if the elements lie in one packed field */
    size_t n_fields;
};

static const char *name_of(const struct graph_tensor_proto *t, char buf[64])
{
    size_t n = MIN(t->name.n, (size_t)60);
    for (size_t i = 0; i < n; i++) buf[i] = t->name.p[i] < 32 || t->name.p[i] == 127 ? '?' : (char)t->name.p[i];
    buf[n] = 0;
    return buf;
}

bool graph_read_dtype(uint64_t number, enum tensor_dtype *ret)
{
    if (number > TENSOR_DTYPE_LAST || !tensor_dtype_size((enum tensor_dtype)number)) return false;
    *ret = (enum tensor_dtype)number;
    return true;
}

static enum graph_wire_type element_type(int field)
{
    if (field == T_FLOATS) return GRAPH_WIRE_FIXED32;
    return field == T_DOUBLES ? GRAPH_WIRE_FIXED64 : GRAPH_WIRE_VARINT;
}

/* Which field holds the elements of a type when it is not raw_data. */
static int field_for(enum tensor_dtype t)
{
    switch (t) {
    case TENSOR_F32: return T_FLOATS;
    case TENSOR_F64: return T_DOUBLES;
    case TENSOR_I64: return T_INT64S;
    case TENSOR_U32: case TENSOR_U64: return T_UINT64S;
    default: return T_INT32S;
    }
}

static bool decimal(const struct graph_field *f, uint64_t *ret)
{
    uint64_t v = 0;
    if (f->n == 0 || f->n > 18) return false;
    for (size_t i = 0; i < f->n; i++) {
        if (f->p[i] < '0' || f->p[i] > '9') return false;
        v = v * 10 + (f->p[i] - '0');
    }
    *ret = v;
    return true;
}

static bool is(const struct graph_field *f, const char *s)
{
    return f->n == strlen(s) && memcmp(f->p, s, f->n) == 0;
}

static err read_external(const struct graph_wire *w, const struct graph_field *field, struct parts *p)
{
    struct graph_wire sub;
    struct graph_field f, key = {0}, value = {0};
    err e = graph_wire_sub(w, field, &sub);
    if (e) return e;
    int more;
    while ((more = graph_wire_next(&sub, &f)) > 0) {
        if (f.number != 1 && f.number != 2) continue;
        if ((e = graph_wire_want(&sub, &f, GRAPH_WIRE_BYTES))) return e;
        *(f.number == 1 ? &key : &value) = f;
    }
    if (more < 0) return more;
    bool ok = true;
    if (is(&key, "location"))
        p->location = value;
    else if (is(&key, "offset"))
        ok = p->has_offset = decimal(&value, &p->offset);
    else if (is(&key, "length"))
        ok = p->has_length = decimal(&value, &p->length);
    return ok ? ERR_OK
              : graph_wire_fail(w, ERR_FORMAT, field->start, "external data: offset or length is not a number");
}

static err count_typed(const struct graph_wire *w, const struct graph_field *f, struct parts *p)
{
    if (p->typed && p->typed != (int)f->number) p->many_typed = true;
    p->typed = (int)f->number;
    p->n_fields++;
    p->only = *f;
    enum graph_wire_type type = element_type((int)f->number);
    if (f->type == GRAPH_WIRE_BYTES && type != GRAPH_WIRE_VARINT) {
        size_t size = type == GRAPH_WIRE_FIXED32 ? 4 : 8;
        if (f->n % size)
            return graph_wire_fail(w, ERR_FORMAT, f->start, "%zu bytes are no whole number of elements", f->n);
        p->n_typed += f->n / size;
        return ERR_OK;
    }
    const uint8_t *pos = NULL;
    uint64_t v;
    int more;
    while ((more = graph_wire_number(w, f, type, &pos, &v)) > 0) p->n_typed++;
    return more;
}

static err read_dims(const struct graph_wire *w, const struct graph_field *f, struct graph_tensor_proto *ret)
{
    const uint8_t *pos = NULL;
    uint64_t v;
    int more;
    while ((more = graph_wire_number(w, f, GRAPH_WIRE_VARINT, &pos, &v)) > 0) {
        if (ret->shape.rank >= TENSOR_MAX_RANK)
            return graph_wire_fail(w, ERR_LIMIT, f->start, "a tensor of more than %d dimensions", TENSOR_MAX_RANK);
        if ((int64_t)v < 0)
            return graph_wire_fail(w, ERR_FORMAT, f->start, "a constant with the size %lld", (long long)v);
        ret->shape.dims[ret->shape.rank++] = (int64_t)v;
    }
    return more;
}

static err read_fields(const struct graph_wire *whole, struct parts *p, struct graph_tensor_proto *ret)
{
    struct graph_wire w = *whole;
    struct graph_field f;
    int more;
    err e = ERR_OK;
    while (!e && (more = graph_wire_next(&w, &f)) > 0) {
        switch (f.number) {
        case T_DIMS: e = read_dims(&w, &f, ret); break;
        case T_TYPE:
            e = graph_wire_want(&w, &f, GRAPH_WIRE_VARINT);
            p->type = f.u;
            break;
        case T_SEGMENT: return graph_wire_fail(&w, ERR_UNSUPPORTED, f.start, "a tensor in segments");
        case T_FLOATS:
        case T_INT32S:
        case T_INT64S:
        case T_DOUBLES:
        case T_UINT64S: e = count_typed(&w, &f, p); break;
        case T_NAME:
            e = graph_wire_want(&w, &f, GRAPH_WIRE_BYTES);
            ret->name = f;
            break;
        case T_RAW:
            e = graph_wire_want(&w, &f, GRAPH_WIRE_BYTES);
            p->raw = f;
            p->has_raw = true;
            break;
        case T_EXTERNAL: e = read_external(&w, &f, p); break;
        case T_LOCATION: p->external = f.u == 1; break;
        default: break;
        }
    }
    return e ? e : MIN(more, 0);
}

static err block(struct graph_file *file, size_t n, struct graph_tensor_proto *ret, void **p)
{
    if (file) return graph_file_block(file, n, p);
    *p = ret->owned = xcalloc(1, n + 1);
    return ERR_OK;
}

/* In place if aligned, else a copy. */
static err adopt(struct graph_file *file, const uint8_t *p, struct graph_tensor_proto *ret)
{
    size_t size = tensor_dtype_size(ret->dtype);
    ret->data = p;
    if ((uintptr_t)p % size == 0) return ERR_OK;
    void *copy = NULL;
    err e = block(file, ret->bytes, ret, &copy);
    if (e) return e;
    memcpy(copy, p, ret->bytes);
    ret->data = copy;
    return ERR_OK;
}

static bool is_packed(const struct graph_tensor_proto *t)
{
    int bits = tensor_small_bits(t->dtype);
    return bits && bits < 8;
}

/* Bytes that a file has for the elements: fewer than in memory where it packs two or four into one. */
static size_t packed_bytes(const struct graph_tensor_proto *t)
{
    return is_packed(t) ? (t->bytes * (size_t)tensor_small_bits(t->dtype) + 7) / 8 : t->bytes;
}

static err unpack(struct graph_file *file, const uint8_t *p, struct graph_tensor_proto *ret)
{
    void *to = NULL;
    err e = block(file, ret->bytes, ret, &to);
    if (e) return e;
    tensor_small_unpack(ret->dtype, p, ret->bytes, to);
    ret->data = to;
    return ERR_OK;
}

static err use_external(struct graph_file *file, const struct graph_wire *w, const struct parts *p,
                        struct graph_tensor_proto *ret)
{
    if (!file || !p->location.n || p->location.n > 1024 || memchr(p->location.p, 0, p->location.n))
        return graph_wire_fail(w, ERR_FORMAT, w->at, "external data without a usable location");
    char *location = xstrndup((const char *)p->location.p, p->location.n);
    const struct graph_mapping *m = NULL;
    err e = graph_file_external(file, location, &m);
    free(location);
    if (e) return err_wrap(e, "%s", w->name);
    size_t bytes = packed_bytes(ret);
    if (p->has_length && p->length != bytes)
        return graph_wire_fail(w, ERR_FORMAT, w->at, "external data of %llu bytes for a tensor of %zu",
                               (unsigned long long)p->length, bytes);
    if (p->offset > m->size || bytes > m->size - p->offset)
        return graph_wire_fail(w, ERR_FORMAT, w->at, "external data at %llu reaches past the end of '%s' (%zu bytes)",
                               (unsigned long long)p->offset, m->location, m->size);
    return is_packed(ret) ? unpack(file, m->base + p->offset, ret) : adopt(file, m->base + p->offset, ret);
}

static void store(void *dst, size_t i, size_t size, uint64_t v)
{
    memcpy((char *)dst + i * size, &v, size); /* little-endian: the low bytes are the narrower integer */
}

/* Elements in packed or separate numbers; they were counted, so dst is large enough. */
static err decode_typed(const struct graph_wire *whole, const struct parts *p, size_t size, void *dst)
{
    struct graph_wire w = *whole;
    struct graph_field f;
    size_t i = 0;
    while (graph_wire_next(&w, &f) > 0) {
        if ((int)f.number != p->typed) continue;
        const uint8_t *pos = NULL;
        uint64_t v;
        while (graph_wire_number(&w, &f, element_type(p->typed), &pos, &v) > 0) store(dst, i++, size, v);
    }
    return ERR_OK;
}

static err use_typed(struct graph_file *file, const struct graph_wire *w, const struct parts *p,
                     struct graph_tensor_proto *ret)
{
    size_t size = tensor_dtype_size(ret->dtype);
    char name[64];
    if (p->many_typed || (p->typed && p->typed != field_for(ret->dtype)))
        return graph_wire_fail(w, ERR_FORMAT, w->at, "tensor '%s' keeps %s in a field of another type",
                               name_of(ret, name), tensor_dtype_name(ret->dtype));
    size_t bytes = packed_bytes(ret); /* a byte of several elements is one number of int32_data */
    if (p->n_typed != bytes / size)
        return graph_wire_fail(w, ERR_FORMAT, w->at, "tensor '%s' has %zu elements where its dimensions say %zu",
                               name_of(ret, name), p->n_typed, bytes / size);
    if (p->n_fields == 1 && p->only.type == GRAPH_WIRE_BYTES && element_type(p->typed) != GRAPH_WIRE_VARINT)
        return adopt(file, p->only.p, ret);
    void *dst = NULL;
    err e = block(file, ret->bytes, ret, &dst);
    if (e) return e;
    ret->data = dst;
    e = decode_typed(w, p, size, dst);
    for (size_t n = ret->bytes; is_packed(ret) && n-- > 0;) { /* from the end, in place: element n lies at or behind its byte */
        uint8_t few[4];
        size_t per_byte = 8 / (size_t)tensor_small_bits(ret->dtype);
        tensor_small_unpack(ret->dtype, (const uint8_t *)dst + n / per_byte, per_byte, few);
        ((uint8_t *)dst)[n] = few[n % per_byte];
    }
    return e;
}

err graph_read_tensor(struct graph_file *file, const struct graph_wire *w, struct graph_tensor_proto *ret)
{
    static const uint64_t nothing;
    struct parts p = {0};
    struct graph_tensor_proto t = {0};
    char name[64];
    err e = read_fields(w, &p, &t);
    if (e) return e;
    name_of(&t, name);
    if (!graph_read_dtype(p.type, &t.dtype))
        return graph_wire_fail(w, p.type ? ERR_UNSUPPORTED : ERR_FORMAT, w->at,
                               p.type == TENSOR_STRING ? "tensor '%s' holds strings (type %llu)"
                                                       : "tensor '%s' has the element type %llu",
                               name, (unsigned long long)p.type);
    int64_t count;
    e = tensor_shape_count(&t.shape, &count);
    if (e) return graph_wire_fail(w, e, w->at, "tensor '%s': %s", name, err_text());
    if (count > ((int64_t)1 << 47) / (int64_t)tensor_dtype_size(t.dtype))
        return graph_wire_fail(w, ERR_LIMIT, w->at, "tensor '%s' has more than 2^47 bytes", name);
    t.bytes = (size_t)count * tensor_dtype_size(t.dtype);
    if (p.external) {
        e = use_external(file, w, &p, &t);
    } else if (p.has_raw) {
        if (p.raw.n != packed_bytes(&t))
            return graph_wire_fail(w, ERR_FORMAT, p.raw.start,
                                   "tensor '%s' has %zu bytes where its dimensions say %zu", name, p.raw.n,
                                   packed_bytes(&t));
        e = is_packed(&t) ? unpack(file, p.raw.p, &t) : adopt(file, p.raw.p, &t);
    } else {
        e = use_typed(file, w, &p, &t);
    }
    if (e) return e;
    if (!t.bytes) t.data = &nothing;
    *ret = t;
    return ERR_OK;
}

err graph_parse_tensor(const void *bytes, size_t n, struct tensor *ret, char **ret_name, void **ret_owned)
{
    struct graph_wire w = {"tensor", bytes, bytes, (const uint8_t *)bytes + n};
    struct graph_tensor_proto t;
    err e = graph_read_tensor(NULL, &w, &t);
    if (e) return e;
    *ret = tensor_view(t.dtype, &t.shape, t.data);
    if (ret_name) {
        char *s = *ret_name = xcalloc(t.name.n + 1, 1);
        for (size_t i = 0; i < t.name.n; i++) s[i] = t.name.p[i] < 32 ? '?' : (char)t.name.p[i];
    }
    *ret_owned = t.owned;
    return ERR_OK;
}

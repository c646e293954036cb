/* See cases.h. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *take(struct case_reader *r, size_t n)
{
    if (n > r->size - r->at) {
        fprintf(stderr, "op_cases.bin ends too early, at %zu\n", r->at);
        abort();
    }
    void *p = r->data + r->at;
    r->at += n;
    return p;
}

static void *own(struct case_reader *r, size_t bytes)
{
    vec_grow(&r->owned, &r->cap_owned, r->n_owned);
    void *p = xcalloc(1, bytes + 1);
    r->owned[r->n_owned++] = p;
    return p;
}

static unsigned byte(struct case_reader *r)
{
    return *(unsigned char *)take(r, 1);
}

static unsigned word(struct case_reader *r)
{
    uint16_t v;
    memcpy(&v, take(r, 2), 2);
    return v;
}

static char *text(struct case_reader *r)
{
    size_t n = byte(r);
    char *s = own(r, n);
    memcpy(s, take(r, n), n);
    return s;
}

static struct tensor tensor(struct case_reader *r)
{
    unsigned dtype = byte(r);
    if (dtype == 255) {
        unsigned number = word(r);
        if (number >= r->n_seen) abort();
        return r->seen[number];
    }
    struct tensor_shape s = {.rank = (int)byte(r)};
    if (s.rank > TENSOR_MAX_RANK) abort();
    for (int i = 0; i < s.rank; i++) {
        int32_t d;
        memcpy(&d, take(r, 4), 4);
        s.dims[i] = d;
    }
    size_t bytes = dtype ? (size_t)tensor_count(&s) * tensor_dtype_size((enum tensor_dtype)dtype) : 0;
    void *copy = own(r, bytes); /* aligned, unlike the file */
    memcpy(copy, take(r, bytes), bytes);
    struct tensor t = tensor_view((enum tensor_dtype)dtype, &s, copy);
    vec_grow(&r->seen, &r->cap_seen, r->n_seen);
    r->seen[r->n_seen++] = t;
    return t;
}

static void attribute(struct case_reader *r, struct op_attr *a)
{
    a->name = text(r);
    a->type = (enum op_attr_type)byte(r);
    switch (a->type) {
    case OP_ATTR_FLOAT:
        memcpy(&a->f, take(r, 4), 4);
        break;
    case OP_ATTR_INT:
        memcpy(&a->i, take(r, 8), 8);
        break;
    case OP_ATTR_STRING:
        a->s = text(r);
        break;
    case OP_ATTR_TENSOR:
        a->tensor = tensor(r);
        break;
    case OP_ATTR_FLOATS:
        a->n = word(r);
        a->floats = own(r, a->n * sizeof *a->floats);
        memcpy(a->floats, take(r, a->n * sizeof *a->floats), a->n * sizeof *a->floats);
        break;
    case OP_ATTR_INTS:
        a->n = word(r);
        a->ints = own(r, a->n * sizeof *a->ints);
        memcpy(a->ints, take(r, a->n * sizeof *a->ints), a->n * sizeof *a->ints);
        break;
    default:
        abort();
    }
}

bool case_open(struct case_reader *r, const char *path)
{
    FILE *f = fopen(path, "rb");
    *r = (struct case_reader){.size = 0};
    if (!f) return false;
    enum { MOST = 4 << 20 };
    r->data = xcalloc(1, MOST);
    r->size = fread(r->data, 1, MOST, f);
    fclose(f);
    uint32_t version;
    if (memcmp(take(r, 4), "BOPC", 4) != 0) abort();
    memcpy(&version, take(r, 4), 4);
    memcpy(&r->count, take(r, 4), 4);
    if (version != 1) abort();
    return true;
}

bool case_next(struct case_reader *r, struct op_case *c)
{
    if (r->count == 0) return false;
    r->count--;
    memset(c, 0, sizeof *c);
    const char *name = text(r);
    snprintf(c->label, sizeof c->label, "%s", text(r));
    c->node.kind = op_find("", name);
    if (!c->node.kind) c->node.kind = op_find("brim", name);
    c->node.name = (char *)(uintptr_t)name;
    c->node.opset = (int)byte(r);
    memcpy(&c->tolerance, take(r, 4), 4);
    c->node.n_attrs = (int)byte(r);
    c->node.attrs = own(r, (size_t)c->node.n_attrs * sizeof *c->node.attrs);
    for (int i = 0; i < c->node.n_attrs; i++)
        attribute(r, &c->node.attrs[i]);
    c->node.n_in = c->n_in = (int)byte(r);
    if (c->n_in > CASE_MAX) abort();
    for (int i = 0; i < c->n_in; i++)
        c->in[i] = tensor(r);
    c->node.n_out = c->n_out = (int)byte(r);
    if (c->n_out > CASE_MAX) abort();
    for (int i = 0; i < c->n_out; i++)
        c->want[i] = tensor(r);
    return true;
}

void case_close(struct case_reader *r)
{
    for (size_t i = 0; i < r->n_owned; i++)
        free(r->owned[i]);
    free(r->owned);
    free(r->seen);
    free(r->data);
}

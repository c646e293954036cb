/* Tests of reading ONNX: what was written comes back, every form of a tensor is understood, and files that are cut,
 * cyclic, lying, doubled or hostile get one line and nothing more. SPDX-License-Identifier: Apache-2.0 */
#include "graph/testing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- protobuf by hand */

static void pb_varint(struct strbuf *b, uint64_t v)
{
    do {
        char c = (char)((v & 127) | (v > 127 ? 128 : 0));
        strbuf_addn(b, &c, 1);
        v >>= 7;
    } while (v);
}

static void pb_number(struct strbuf *b, int field, uint64_t v)
{
    pb_varint(b, (uint64_t)field << 3);
    pb_varint(b, v);
}

static void pb_bytes(struct strbuf *b, int field, const void *p, size_t n)
{
    pb_varint(b, (uint64_t)field << 3 | 2);
    pb_varint(b, n);
    if (n) strbuf_addn(b, p, n);
}

static void pb_string(struct strbuf *b, int field, const char *s)
{
    pb_bytes(b, field, s, strlen(s));
}

static void pb_message(struct strbuf *b, int field, struct strbuf *m)
{
    pb_bytes(b, field, m->s, m->len);
    strbuf_done(m);
}

static void pb_node(struct strbuf *graph, const char *op, const char *in, const char *out, struct strbuf *attr)
{
    struct strbuf n = {0};
    if (*in) pb_string(&n, 1, in);
    pb_string(&n, 2, out);
    pb_string(&n, 3, op);
    pb_string(&n, 4, op);
    if (attr) pb_message(&n, 5, attr);
    pb_message(graph, 1, &n);
}

/* A float32 value of two sizes, the first one a symbol. */
static void pb_info(struct strbuf *graph, int field, const char *name)
{
    struct strbuf info = {0}, type = {0}, tensor = {0}, shape = {0}, dim = {0}, dim2 = {0};
    pb_string(&dim, 2, "N");
    pb_message(&shape, 1, &dim);
    pb_number(&dim2, 1, 4);
    pb_message(&shape, 1, &dim2);
    pb_number(&tensor, 1, 1);
    pb_message(&tensor, 2, &shape);
    pb_message(&type, 1, &tensor);
    pb_string(&info, 1, name);
    pb_message(&info, 2, &type);
    pb_message(graph, field, &info);
}

static struct strbuf pb_model(struct strbuf *graph, int opset)
{
    struct strbuf m = {0}, o = {0};
    pb_number(&m, 1, 8);
    pb_string(&o, 1, "");
    pb_number(&o, 2, (uint64_t)opset);
    pb_message(&m, 8, &o);
    pb_message(&m, 7, graph);
    return m;
}

/* Parses and frees the bytes; the graph, if there is one, is freed as well. */
static err parse(struct strbuf *model)
{
    struct testing t;
    testing_init(&t, 64 << 20);
    struct graph *g = NULL;
    err e = graph_parse("m.onnx", model->s, model->len, NULL, t.payer, &g);
    assert_true((e == ERR_OK) == (g != NULL));
    graph_free(&g);
    testing_done(&t);
    strbuf_done(model);
    return e;
}

#define REFUSED(model, code, ...)                                        \
    do {                                                                 \
        assert_int_equal(parse(model), code);                            \
        const char *const words[] = {__VA_ARGS__};                       \
        for (size_t w_ = 0; w_ < ARRAY_LEN(words); w_++)                 \
            if (!strstr(err_text(), words[w_])) fail_msg("%s", err_text()); \
    } while (0)

/* ---- a small network */

static struct graph *small(struct mem_payer *payer)
{
    struct graph *g = graph_new("small", 13, payer);
    int x = testing_input(g, "x", DIMS(1, 3, 8, 8));
    int y = testing_node(g, OP_CONV, x, testing_floats(g, 1, DIMS(4, 3, 3, 3)), testing_floats(g, 2, DIMS(4)));
    graph_set_ints(testing_last(g), "pads", (int64_t[]){1, 1, 1, 1}, 4);
    y = testing_node(g, OP_LEAKY_RELU, y, -1, -1);
    graph_set_float(testing_last(g), "alpha", 0.25f);
    y = testing_node(g, OP_RESHAPE, y, testing_ints(g, 2, (int64_t[]){1, -1}), -1);
    y = testing_node(g, OP_GEMM, y, testing_floats(g, 3, DIMS(256, 5)), -1);
    g->values[y].dtype = TENSOR_F32;
    g->values[y].shape = tensor_shape_of(2, (int64_t[]){1, 5});
    g->values[y].has_shape = true;
    graph_add_output(g, y);
    return g;
}

static void comes_back(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct graph *g = small(t.payer), *h = NULL;
    void *bytes;
    size_t n;
    assert_int_equal(graph_write(g, &bytes, &n), ERR_OK);
    if (graph_parse("small.onnx", bytes, n, NULL, t.payer, &h)) fail_msg("%s", err_text());
    assert_int_equal(h->n_nodes, 4);
    assert_int_equal(h->n_inputs, 1);
    assert_int_equal(h->opset, 13);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(h->nodes[i].op.kind, g->nodes[i].op.kind);
        for (int k = 0; k < g->nodes[i].op.n_in; k++) {
            const struct graph_value *a = &g->values[g->nodes[i].op.in[k]], *b = &h->values[h->nodes[i].op.in[k]];
            assert_int_equal(a->constant_bytes, b->constant_bytes);
            if (!a->constant) continue;
            assert_memory_equal(a->constant, b->constant, a->constant_bytes);
            assert_true(tensor_shape_equal(&a->shape, &b->shape));
            assert_int_equal((uintptr_t)b->constant % tensor_dtype_size(b->dtype), 0);
        }
    }
    const int64_t *pads;
    assert_int_equal(op_attr_ints(&h->nodes[0].op, "pads", &pads), 4);
    assert_int_equal(pads[3], 1);
    assert_true(op_attr_float(&h->nodes[1].op, "alpha", 0) == 0.25f);
    graph_free(&g);
    graph_free(&h);
    free(bytes);
    testing_done(&t);
}

/* What we wrote is read in place: whatever comes before them, numbers begin where their type wants. */
static void written_numbers_are_in_place(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct graph *g = small(t.payer), *h = NULL;
    void *bytes, *p;
    size_t n;
    for (int i = 0; i < 20; i++) { /* names of all lengths, numbers of 4 and 8 bytes, rows from 1 to 39 (lengths of one and two bytes) */
        char name[32] = "longer_and_longer_and_longer", to[8];
        snprintf(to, sizeof to, "to%d", i);
        int v, x = graph_add_value(g, to, TENSOR_F32, &g->values[g->outputs[0]].shape);
        name[i + 1] = 0;
        struct tensor_shape shape = tensor_shape_of(1, (int64_t[]){2 * i + 1});
        assert_int_equal(graph_add_constant(g, name, i % 2 ? TENSOR_I64 : TENSOR_F32, &shape, &v, &p), ERR_OK);
        memset(p, i, g->values[v].constant_bytes);
        struct graph_node *node = graph_add_node(g, OP_CAST, name, 1, 1);
        node->op.in[0] = v;
        node->op.out[0] = x;
        graph_set_int(node, "to", TENSOR_F32);
        graph_add_output(g, x);
    }
    assert_int_equal(graph_write(g, &bytes, &n), ERR_OK);
    if (graph_parse("placed.onnx", bytes, n, NULL, t.payer, &h)) fail_msg("%s", err_text());
    assert_int_equal(h->n_nodes, g->n_nodes);
    assert_int_equal(graph_decoded_bytes(h), 0);
    for (size_t i = 0; i < h->n_nodes; i++)
        for (int k = 0; k < h->nodes[i].op.n_in; k++) {
            const struct graph_value *a = &g->values[g->nodes[i].op.in[k]], *b = &h->values[h->nodes[i].op.in[k]];
            if (!b->constant) continue;
            assert_true((const char *)b->constant > (const char *)bytes && (const char *)b->constant < (const char *)bytes + n);
            assert_int_equal(((const char *)b->constant - (const char *)bytes) % 8, 0);
            assert_int_equal(a->constant_bytes, b->constant_bytes);
            assert_memory_equal(a->constant, b->constant, a->constant_bytes);
        }
    graph_free(&g);
    graph_free(&h);
    free(bytes);
    testing_done(&t);
}

static void cut_anywhere(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct graph *g = small(t.payer), *h = NULL;
    void *bytes;
    size_t n;
    assert_int_equal(graph_write(g, &bytes, &n), ERR_OK);
    uint64_t owed = mem_budget_used(t.budget);
    for (size_t cut = 0; cut < n; cut++) {
        char *copy = malloc(cut + 1); /* so that reading past the end is seen */
        memcpy(copy, bytes, cut);
        assert_int_equal(graph_parse("cut.onnx", copy, cut, NULL, t.payer, &h), ERR_FORMAT);
        assert_non_null(strstr(err_text(), "cut.onnx: byte "));
        assert_int_equal(mem_budget_used(t.budget), owed);
        free(copy);
    }
    free(bytes);
    graph_free(&g);
    testing_done(&t);
}

/* Whatever a byte becomes, nothing breaks and nothing is kept. */
static void changed_anywhere(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, 64 << 20);
    struct graph *g = small(t.payer), *h = NULL, *s = NULL;
    uint8_t *bytes;
    size_t n;
    assert_int_equal(graph_write(g, (void **)&bytes, &n), ERR_OK);
    graph_free(&g);
    static const uint8_t masks[] = {0x01, 0x80, 0xff, 0x08};
    for (size_t i = 0; i < n; i++) {
        if (i > 600 && i % 53) continue; /* the middle is weights */
        for (size_t m = 0; m < ARRAY_LEN(masks); m++) {
            bytes[i] ^= masks[m];
            if (graph_parse("changed.onnx", bytes, n, NULL, t.payer, &h) == ERR_OK) {
                graph_specialise(h, NULL, t.payer, &s);
                graph_free(&s);
                graph_free(&h);
            }
            bytes[i] ^= masks[m];
        }
    }
    free(bytes);
    testing_done(&t);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct graph *g = small(t.payer);
    void *bytes;
    size_t n;
    assert_int_equal(graph_write(g, &bytes, &n), ERR_OK);
    graph_free(&g);
    uint8_t *odd = malloc(n + 1); /* where no number can be read in place */
    memcpy(odd + 1, bytes, n);
    free(bytes);
    bool done = false;
    for (uint64_t at = 1; !done; at++) {
        struct graph *h = NULL, *s = NULL;
        mem_fault_at(t.budget, at);
        err e = graph_parse("small.onnx", odd + 1, n, NULL, t.payer, &h);
        if (!e) e = graph_specialise(h, NULL, t.payer, &s);
        if (!e) e = graph_rewrite(s, GRAPH_REWRITE_ALL);
        done = mem_fault_calls(t.budget) < at;
        mem_fault_at(t.budget, 0);
        if (e != (done ? ERR_OK : ERR_NOMEM)) fail_msg("at %d: %s", (int)at, err_text());
        graph_free(&s);
        graph_free(&h);
        assert_int_equal(mem_budget_used(t.budget), 0);
    }
    free(odd);
    testing_done(&t);
}

/* ---- bad graphs */

static void bad_graphs(void **state)
{
    (void)state;
    struct strbuf g = {0}, m;
    pb_info(&g, 11, "x");
    pb_node(&g, "Relu", "b", "a", NULL);
    pb_node(&g, "Tanh", "a", "b", NULL);
    pb_info(&g, 12, "b");
    m = pb_model(&g, 13);
    REFUSED(&m, ERR_FORMAT, "cycle", "m.onnx");
    pb_info(&g, 11, "x");
    pb_node(&g, "Relu", "x", "a", NULL);
    pb_node(&g, "Tanh", "x", "a", NULL);
    pb_info(&g, 12, "a");
    m = pb_model(&g, 13);
    REFUSED(&m, ERR_FORMAT, "'a' is made twice", "byte ");
    pb_info(&g, 11, "x");
    pb_node(&g, "Relu", "y", "a", NULL);
    pb_info(&g, 12, "a");
    m = pb_model(&g, 13);
    REFUSED(&m, ERR_FORMAT, "'y', which nothing makes");
    pb_info(&g, 11, "x");
    pb_info(&g, 12, "z");
    m = pb_model(&g, 13);
    REFUSED(&m, ERR_FORMAT, "nothing makes the output 'z'");
    pb_info(&g, 11, "x");
    pb_info(&g, 11, "x");
    pb_info(&g, 12, "x");
    m = pb_model(&g, 13);
    REFUSED(&m, ERR_FORMAT, "two inputs have the name 'x'");
    pb_info(&g, 11, "x");
    pb_node(&g, "Froble", "x", "a", NULL);
    pb_info(&g, 12, "a");
    m = pb_model(&g, 13);
    REFUSED(&m, ERR_UNSUPPORTED, "operator Froble", "ai.onnx", "opset 13", "node 'Froble'", "export");
    pb_info(&g, 11, "x");
    pb_info(&g, 12, "x");
    m = pb_model(&g, 0);
    REFUSED(&m, ERR_FORMAT, "opset 0 of ''");
    pb_info(&g, 11, "a\nb");
    m = pb_model(&g, 13);
    REFUSED(&m, ERR_FORMAT, "control character");
}

static void wrong_order_is_sorted(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct strbuf b = {0};
    pb_info(&b, 12, "c");
    pb_node(&b, "Exp", "b", "c", NULL);
    pb_node(&b, "Tanh", "a", "b", NULL);
    pb_node(&b, "Relu", "x", "a", NULL);
    pb_info(&b, 11, "x");
    struct strbuf m = pb_model(&b, 13);
    struct graph *g = NULL;
    assert_int_equal(graph_parse("m", m.s, m.len, NULL, t.payer, &g), ERR_OK);
    assert_int_equal(g->nodes[0].op.kind, OP_RELU);
    assert_int_equal(g->nodes[1].op.kind, OP_TANH);
    assert_int_equal(g->nodes[2].op.kind, OP_EXP);
    assert_int_equal(g->n_symbols, 1);
    assert_string_equal(g->symbols[0], "N");
    assert_int_equal(g->values[g->inputs[0]].shape.dims[0], TENSOR_SYMBOL(0));
    graph_free(&g);
    strbuf_done(&m);
    testing_done(&t);
}

/* ---- tensors */

static err read_tensor(struct strbuf *b, double *ret, size_t want)
{
    struct tensor t;
    void *owned = NULL;
    char *name = NULL;
    char *exact = malloc(b->len + 1);
    memcpy(exact, b->s, b->len);
    err e = graph_parse_tensor(exact, b->len, &t, &name, &owned);
    if (!e) {
        assert_int_equal(tensor_count(&t.shape), want);
        for (size_t i = 0; i < want; i++) {
            switch (t.dtype) {
            case TENSOR_F32: ret[i] = ((float *)t.data)[i]; break;
            case TENSOR_F64: ret[i] = ((double *)t.data)[i]; break;
            case TENSOR_I64: ret[i] = (double)((int64_t *)t.data)[i]; break;
            case TENSOR_I32: ret[i] = ((int32_t *)t.data)[i]; break;
            case TENSOR_I8: ret[i] = ((int8_t *)t.data)[i]; break;
            case TENSOR_F16: ret[i] = ((uint16_t *)t.data)[i]; break;
            case TENSOR_U64: ret[i] = (double)((uint64_t *)t.data)[i]; break;
            default: ret[i] = 0;
            }
        }
        free(name);
    }
    free(owned);
    free(exact);
    strbuf_done(b);
    return e;
}

static struct strbuf head(int dtype, uint64_t dim)
{
    struct strbuf b = {0};
    pb_number(&b, 1, dim);
    pb_number(&b, 2, (uint64_t)dtype);
    return b;
}

static void every_form_of_a_tensor(void **state)
{
    (void)state;
    double v[4];
    float f[2] = {1.5f, -2};
    struct strbuf b = head(TENSOR_F32, 2), packed = {0};
    pb_bytes(&b, 4, f, 8); /* float_data, packed */
    assert_int_equal(read_tensor(&b, v, 2), ERR_OK);
    assert_true(v[0] == 1.5 && v[1] == -2);
    b = head(TENSOR_F32, 2);
    for (int i = 0; i < 2; i++) { /* float_data, one by one */
        pb_varint(&b, 4 << 3 | 5);
        strbuf_addn(&b, (char *)&f[i], 4);
    }
    assert_int_equal(read_tensor(&b, v, 2), ERR_OK);
    assert_true(v[0] == 1.5 && v[1] == -2);
    b = head(TENSOR_I64, 2);
    pb_varint(&packed, 7);
    pb_varint(&packed, (uint64_t)-5);
    pb_message(&b, 7, &packed);
    assert_int_equal(read_tensor(&b, v, 2), ERR_OK);
    assert_true(v[0] == 7 && v[1] == -5);
    b = head(TENSOR_I8, 2); /* int32_data holds the narrow types */
    pb_number(&b, 5, 3);
    pb_number(&b, 5, (uint64_t)-4);
    assert_int_equal(read_tensor(&b, v, 2), ERR_OK);
    assert_true(v[0] == 3 && v[1] == -4);
    b = head(TENSOR_F16, 1);
    pb_number(&b, 5, 0x3c00);
    assert_int_equal(read_tensor(&b, v, 1), ERR_OK);
    assert_true(v[0] == 0x3c00);
    b = head(TENSOR_U64, 1);
    pb_number(&b, 11, 1ull << 40);
    assert_int_equal(read_tensor(&b, v, 1), ERR_OK);
    assert_true(v[0] == (double)(1ull << 40));
    double d = 2.5;
    b = head(TENSOR_F64, 1);
    pb_bytes(&b, 10, &d, 8);
    assert_int_equal(read_tensor(&b, v, 1), ERR_OK);
    assert_true(v[0] == 2.5);
    b = head(TENSOR_F32, 2);
    pb_bytes(&b, 9, f, 8);
    assert_int_equal(read_tensor(&b, v, 2), ERR_OK);
    assert_true(v[0] == 1.5 && v[1] == -2);
    b = head(TENSOR_F32, 0);
    assert_int_equal(read_tensor(&b, v, 0), ERR_OK);
}

static void tensor_refused(struct strbuf b, err code, const char *words)
{
    double v[4];
    assert_int_equal(read_tensor(&b, v, 2), code);
    if (!strstr(err_text(), words)) fail_msg("%s", err_text());
}

static void lying_tensors(void **state)
{
    (void)state;
    struct strbuf b = head(TENSOR_F32, 3);
    pb_bytes(&b, 9, "12345678", 8);
    tensor_refused(b, ERR_FORMAT, "8 bytes where its dimensions say 12");
    b = head(TENSOR_F32, 1ull << 40);
    pb_bytes(&b, 9, "12345678", 8);
    tensor_refused(b, ERR_FORMAT, "dimensions say");
    b = head(TENSOR_F32, 1ull << 40);
    pb_number(&b, 1, 1ull << 40);
    tensor_refused(b, ERR_LIMIT, "2^47");
    b = head(TENSOR_I64, 1ull << 46);
    tensor_refused(b, ERR_LIMIT, "2^47");
    b = head(TENSOR_F32, (uint64_t)-1);
    tensor_refused(b, ERR_FORMAT, "size -1");
    b = head(TENSOR_F32, 5);
    pb_bytes(&b, 4, "12345678", 8);
    tensor_refused(b, ERR_FORMAT, "2 elements where its dimensions say 5");
    b = head(TENSOR_F32, 1);
    pb_bytes(&b, 4, "12345", 5);
    tensor_refused(b, ERR_FORMAT, "no whole number");
    b = head(TENSOR_F32, 2);
    pb_number(&b, 7, 1);
    pb_number(&b, 7, 1);
    tensor_refused(b, ERR_FORMAT, "field of another type");
    b = head(TENSOR_STRING, 1);
    tensor_refused(b, ERR_UNSUPPORTED, "strings");
    b = head(14, 1);
    tensor_refused(b, ERR_UNSUPPORTED, "element type 14");
    b = head(TENSOR_F32, 1);
    for (int i = 0; i < 8; i++) pb_number(&b, 1, 1);
    tensor_refused(b, ERR_LIMIT, "8 dimensions");
    b = head(TENSOR_F32, 1);
    strbuf_addn(&b, "\x4b", 1); /* a group */
    tensor_refused(b, ERR_FORMAT, "wire type 3");
    b = head(TENSOR_F32, 1);
    strbuf_addn(&b, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11);
    tensor_refused(b, ERR_FORMAT, "more than 64 bits");
}

/* ---- external data */

static err load_external(const char *dir, const char *location, const char *offset)
{
    struct testing t;
    testing_init(&t, 64 << 20);
    struct strbuf g = {0}, tensor = {0}, entry = {0}, entry2 = {0};
    pb_number(&tensor, 1, 4);
    pb_number(&tensor, 2, 1);
    pb_string(&tensor, 8, "w");
    pb_string(&entry, 1, "location");
    pb_string(&entry, 2, location);
    pb_message(&tensor, 13, &entry);
    pb_string(&entry2, 1, "offset");
    pb_string(&entry2, 2, offset);
    pb_message(&tensor, 13, &entry2);
    pb_number(&tensor, 14, 1);
    pb_message(&g, 5, &tensor);
    pb_info(&g, 11, "x");
    pb_node(&g, "Relu", "w", "a", NULL);
    pb_info(&g, 12, "a");
    struct strbuf m = pb_model(&g, 13);
    char *path = xasprintf("%s/m.onnx", dir);
    FILE *f = fopen(path, "wb");
    fwrite(m.s, 1, m.len, f);
    fclose(f);
    struct graph *loaded = NULL;
    err e = graph_load(path, t.payer, &loaded);
    if (!e)
        for (size_t v = 0; v < loaded->n_values; v++)
            if (strcmp(loaded->values[v].name, "w") == 0)
                assert_memory_equal(loaded->values[v].constant, "abcdefghijklmnop", 16);
    graph_free(&loaded);
    strbuf_done(&m);
    free(path);
    testing_done(&t);
    return e;
}

static void external_data(void **state)
{
    (void)state;
    char dir[] = "/tmp/brim-onnx-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *data = xasprintf("%s/w.bin", dir), *inside = xasprintf("%s/in", dir), *link = xasprintf("%s/link", dir),
         *model = xasprintf("%s/m.onnx", dir);
    FILE *f = fopen(data, "wb");
    fputs("1234abcdefghijklmnop", f);
    fclose(f);
    assert_int_equal(mkdir(inside, 0700), 0);
    assert_int_equal(symlink("/etc/passwd", link), 0);
    assert_int_equal(load_external(dir, "w.bin", "4"), ERR_OK);
    assert_int_equal(load_external(dir, "in/w.bin", "4"), ERR_NOT_FOUND);
    assert_int_equal(load_external(dir, "w.bin", "5"), ERR_FORMAT);
    assert_non_null(strstr(err_text(), "past the end"));
    assert_int_equal(load_external(dir, "w.bin", "99999999999999999"), ERR_FORMAT);
    assert_int_equal(load_external(dir, "w.bin", "-4"), ERR_FORMAT);
    assert_int_equal(load_external(dir, "../w.bin", "4"), ERR_FORMAT);
    assert_non_null(strstr(err_text(), "outside"));
    assert_int_equal(load_external(dir, "in/../../w.bin", "4"), ERR_FORMAT);
    assert_int_equal(load_external(dir, "in/..", "4"), ERR_FORMAT);
    assert_int_equal(load_external(dir, "/etc/passwd", "0"), ERR_FORMAT);
    assert_int_equal(load_external(dir, "link", "0"), ERR_FORMAT);
    assert_non_null(strstr(err_text(), "link out"));
    assert_int_equal(load_external(dir, "none.bin", "0"), ERR_NOT_FOUND);
    unlink(link);
    unlink(data);
    unlink(model);
    rmdir(inside);
    rmdir(dir);
    free(data);
    free(inside);
    free(link);
    free(model);
}

/* A constant of 2.5 GB, as a hole in a file: read in place, nothing is touched or copied. */
static void larger_than_two_gigabytes(void **state)
{
    (void)state;
    static const uint64_t size = 2500000000u;
    struct strbuf front = {0}, rest = {0}, head = {0}, inner = {0}, opset = {0};
    pb_number(&inner, 1, size);
    pb_number(&inner, 2, TENSOR_U8);
    pb_string(&inner, 8, "w");
    pb_varint(&inner, 9 << 3 | 2);
    pb_varint(&inner, size);
    pb_varint(&head, 5 << 3 | 2);
    pb_varint(&head, inner.len + size);
    pb_info(&rest, 11, "x");
    pb_node(&rest, "Relu", "x", "y", NULL);
    pb_info(&rest, 12, "y");
    pb_info(&rest, 12, "w");
    pb_number(&front, 1, 8);
    pb_number(&opset, 2, 13);
    pb_message(&front, 8, &opset);
    pb_varint(&front, 7 << 3 | 2);
    pb_varint(&front, head.len + inner.len + size + rest.len);
    strbuf_addn(&front, head.s, head.len);
    strbuf_addn(&front, inner.s, inner.len);
    char path[] = "/tmp/brim-onnx-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    bool written = pwrite(fd, front.s, front.len, 0) == (ssize_t)front.len &&
                   pwrite(fd, rest.s, rest.len, (off_t)(front.len + size)) == (ssize_t)rest.len;
    struct testing t;
    testing_init(&t, 1 << 20);
    struct graph *g = NULL;
    err e = written ? graph_load(path, t.payer, &g) : ERR_OK;
    unlink(path);
    close(fd);
    if (written) {
        if (e) fail_msg("%s", err_text());
        assert_int_equal(g->values[g->outputs[1]].constant_bytes, size);
        assert_int_equal(((const char *)g->values[g->outputs[1]].constant)[size - 1], 0);
        assert_int_equal(graph_decoded_bytes(g), 0);
    }
    graph_free(&g);
    testing_done(&t);
    strbuf_done(&front);
    strbuf_done(&head);
    strbuf_done(&inner);
    strbuf_done(&rest);
    if (!written) {
        print_message("# skipped: no sparse files of 2.5 GB here\n");
        skip();
    }
}

/* ---- subgraphs */

/* If(c) { then: Exp(x) of the graph around; else: Tanh(x) }, `depth` deep. */
static struct strbuf branch(const char *op, int depth)
{
    struct strbuf g = {0}, out = {0}, attr = {0}, inner, node = {0};
    if (depth == 0) {
        pb_node(&g, op, "x", "y", NULL);
    } else {
        pb_string(&node, 1, "c");
        pb_string(&node, 2, "y");
        pb_string(&node, 4, "If");
        for (int i = 0; i < 2; i++) {
            inner = branch(op, depth - 1);
            pb_string(&attr, 1, i ? "else_branch" : "then_branch");
            pb_number(&attr, 20, 5);
            pb_message(&attr, 6, &inner);
            pb_message(&node, 5, &attr);
        }
        pb_message(&g, 1, &node);
    }
    pb_string(&out, 1, "y");
    pb_message(&g, 12, &out);
    return g;
}

static struct strbuf if_model(bool condition, int depth)
{
    struct strbuf g = {0}, node = {0}, attr = {0}, sub, cond = {0};
    char c = condition;
    pb_number(&cond, 2, 9);
    pb_string(&cond, 8, "c");
    pb_bytes(&cond, 9, &c, 1);
    pb_message(&g, 5, &cond);
    pb_info(&g, 11, "x");
    pb_string(&node, 1, "c");
    pb_string(&node, 2, "out");
    pb_string(&node, 4, "If");
    for (int i = 0; i < 2; i++) {
        sub = branch(i ? "Tanh" : "Exp", depth);
        pb_string(&attr, 1, i ? "else_branch" : "then_branch");
        pb_number(&attr, 20, 5);
        pb_message(&attr, 6, &sub);
        pb_message(&node, 5, &attr);
    }
    pb_message(&g, 1, &node);
    pb_info(&g, 12, "out");
    return pb_model(&g, 13);
}

static void decided_branches_are_inlined(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct testing t;
        testing_init(&t, UINT64_MAX);
        struct strbuf m = if_model(i & 1, i & 2);
        struct graph *g = NULL, *s = NULL;
        if (graph_parse("if", m.s, m.len, NULL, t.payer, &g)) fail_msg("%s", err_text());
        assert_non_null(op_attr(&g->nodes[0].op, "then_branch")->graph);
        if (graph_specialise(g, NULL, t.payer, &s)) fail_msg("%s", err_text());
        assert_int_equal(s->n_nodes, 1);
        assert_int_equal(s->nodes[0].op.kind, i & 1 ? OP_EXP : OP_TANH);
        assert_string_equal(s->values[s->outputs[0]].name, "out");
        assert_int_equal(s->values[s->outputs[0]].shape.dims[0], 1);
        graph_free(&g); /* the specialised graph lives on alone */
        assert_int_equal(s->values[s->inputs[0]].shape.dims[1], 4);
        graph_free(&s);
        strbuf_done(&m);
        testing_done(&t);
    }
    struct strbuf deep = if_model(true, 9);
    REFUSED(&deep, ERR_LIMIT, "more than 8 deep");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back),
        cmocka_unit_test(written_numbers_are_in_place),
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(changed_anywhere),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(bad_graphs),
        cmocka_unit_test(wrong_order_is_sorted),
        cmocka_unit_test(every_form_of_a_tensor),
        cmocka_unit_test(lying_tensors),
        cmocka_unit_test(external_data),
        cmocka_unit_test(larger_than_two_gigabytes),
        cmocka_unit_test(decided_branches_are_inlined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Importing: what comes out of the store is what went in; equal tensors lie there once. SPDX-License-Identifier: Apache-2.0 */
#include "model/import.h"
#include "model/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char *dir;
    struct weights_store *s;
    struct mem_budget *budget;
    struct mem_payer *payer;
};

static int setup(void **state)
{
    struct fixture *f = xnew(struct fixture);
    f->dir = xstrdup("/tmp/brim-import-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    char *store = xasprintf("%s/store", f->dir);
    assert_int_equal(weights_store_open(store, NULL, &f->s), ERR_OK);
    free(store);
    f->budget = mem_budget_new("host", UINT64_MAX);
    f->payer = mem_payer_new(f->budget, "test");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char *command = xasprintf("rm -rf '%s'", f->dir);
    weights_store_close(&f->s);
    mem_payer_free(&f->payer);
    mem_budget_free(&f->budget);
    assert_int_equal(system(command), 0);
    free(command);
    free(f->dir);
    free(f);
    return 0;
}

static float number(int64_t i, int seed)
{
    return (float)(hash64(&i, sizeof i, (uint64_t)seed) >> 40) / 16777216.0f - 0.5f;
}

/* Two layers of 64 KiB or more, with biases; the second from `seed`. */
static char *make_model(const struct fixture *f, const char *name, int seed)
{
    struct graph *g = graph_new("g", 13, f->payer);
    struct tensor_shape x = tensor_shape_of(2, (int64_t[]){1, 200}), w = tensor_shape_of(2, (int64_t[]){200, 200}), b = tensor_shape_of(1, (int64_t[]){200});
    int value = graph_add_input(g, "x", TENSOR_F32, &x);
    for (int layer = 0; layer < 2; layer++) {
        int weight, bias;
        float *p, *q;
        char wn[16], bn[16], on[16];
        snprintf(wn, sizeof wn, "w%d", layer);
        snprintf(bn, sizeof bn, "b%d", layer);
        snprintf(on, sizeof on, "y%d", layer);
        assert_int_equal(graph_add_constant(g, wn, TENSOR_F32, &w, &weight, (void **)&p), ERR_OK);
        assert_int_equal(graph_add_constant(g, bn, TENSOR_F32, &b, &bias, (void **)&q), ERR_OK);
        for (int i = 0; i < 40000; i++) p[i] = number(i, layer ? seed : 1) / 8;
        for (int i = 0; i < 200; i++) q[i] = number(i, seed + 100 + layer);
        int out = graph_add_value(g, on, TENSOR_F32, &x);
        struct graph_node *n = graph_add_node(g, OP_GEMM, "", 3, 1);
        n->op.in[0] = value;
        n->op.in[1] = weight;
        n->op.in[2] = bias;
        n->op.out[0] = out;
        value = out;
    }
    graph_add_output(g, value);
    char *path = xasprintf("%s/%s.onnx", f->dir, name);
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    return path;
}

static void same_graph(const struct graph *a, const struct graph *b, bool hollow)
{
    assert_int_equal(a->n_values, b->n_values);
    assert_int_equal(a->n_nodes, b->n_nodes);
    for (size_t i = 0; i < a->n_values; i++) {
        assert_string_equal(a->values[i].name, b->values[i].name);
        assert_int_equal(a->values[i].constant_bytes, b->values[i].constant_bytes);
        assert_true(tensor_shape_equal(&a->values[i].shape, &b->values[i].shape));
        if (!a->values[i].constant_bytes) continue;
        bool zeros = hollow && a->values[i].constant_bytes >= WEIGHTS_BLOB_SMALL;
        if (!zeros) assert_memory_equal(a->values[i].constant, b->values[i].constant, a->values[i].constant_bytes);
        else assert_float_equal(*(const float *)b->values[i].constant, 0, 0);
    }
}

static void round_trip(const struct fixture *f, const char *path, const char *name, bool big)
{
    struct model_import_report r;
    struct weights_manifest m;
    struct graph *a, *b;
    err e = model_import(f->s, path, name, f->payer, &r);
    if (e) fail_msg("%s: %s", path, err_text());
    assert_true(r.is_new);
    assert_int_equal(weights_manifest_current(f->s, name, &m), ERR_OK);
    assert_int_equal(graph_load(path, f->payer, &a), ERR_OK);
    for (int hollow = 0; hollow < 2; hollow++) {
        e = model_import_graph(f->s, &m, hollow, f->payer, &b);
        if (e) fail_msg("%s: %s", path, err_text());
        same_graph(a, b, hollow && big);
        graph_free(&b);
    }
    graph_free(&a);
    weights_manifest_done(&m);
    assert_int_equal(model_import(f->s, path, name, f->payer, &r), ERR_OK);
    assert_false(r.is_new);
    assert_int_equal(r.new_bytes, 0);
}

static void imports(void **state)
{
    struct fixture *f = *state;
    char *path = make_model(f, "a", 2), **with;
    struct weights_manifest m;
    uint64_t shared;
    round_trip(f, path, "a", true);
    free(path);
    path = make_model(f, "b", 3);
    round_trip(f, path, "b", true);
    free(path);
    assert_int_equal(weights_manifest_current(f->s, "b", &m), ERR_OK);
    assert_int_equal(m.n_tensors, 4);
    assert_int_equal(m.n_blobs, 4); /* two weights, the tail, the graph */
    assert_int_equal(model_import_shared(f->s, &m, &shared, &with), ERR_OK);
    for (size_t i = 0; i < m.n_blobs; i++) {
        bool both = with[i] != NULL; /* the first weights; and the graph, if the names of blobs in it were equal, which they are not */
        assert_int_equal(both, m.blob_bytes[i] == 160000 && i == 0);
        free(with[i]);
    }
    free(with);
    assert_int_equal(shared, 160000);
    weights_manifest_done(&m);
}

/* A model keeps its numbers when the file it came from is gone, and a damaged store is refused before anything runs. */
static void stands_alone(void **state)
{
    struct fixture *f = *state;
    char *path = make_model(f, "a", 2), id[65];
    struct model_import_report r;
    struct weights_manifest m;
    struct graph *g;
    assert_int_equal(model_import(f->s, path, "a", f->payer, &r), ERR_OK);
    assert_int_equal(unlink(path), 0);
    free(path);
    assert_int_equal(weights_manifest_current(f->s, "a", &m), ERR_OK);
    path = xasprintf("%s/%s", weights_store_blobs(f->s), weights_id_text(&m.blobs[0], id));
    assert_int_equal(truncate(path, 5000), 0);
    assert_int_equal(model_import_graph(f->s, &m, true, f->payer, &g), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), id));
    weights_manifest_done(&m);
    free(path);
}

static void refuses(void **state)
{
    struct fixture *f = *state;
    struct model_import_report r;
    char *path = xasprintf("%s/x.onnx", f->dir), *name = model_import_name("/a/b c/M\xc3\xa9 1.onnx");
    assert_string_equal(name, "M___1");
    free(name);
    assert_int_equal(model_import(f->s, path, "x", f->payer, &r), ERR_NOT_FOUND);
    FILE *file = fopen(path, "w");
    assert_true(file && fputs("no protobuf at all", file) != EOF);
    fclose(file);
    assert_int_equal(model_import(f->s, path, "x", f->payer, &r), ERR_FORMAT);
    assert_int_equal(model_import(f->s, path, "../x", f->payer, &r), ERR_USAGE);
    free(path);
}

static void real_files(void **state)
{
    struct fixture *f = *state;
    const char *data = getenv("BRIM_DATA"), *source = getenv("BRIM_SOURCE");
    const char *const files[] = {"yolox/yolox_nano_416x416", "openvino/face-detection-retail-0004", "openvino/face-detection-retail-0044",
                                 "lowlight/tbefn_240x320", "lowlight/tbefn_320x480", "person_reid/person-reidentification-retail-0248"};
    char *root = data ? xstrdup(data) : xasprintf("%s/../shared/data", source ? source : ".");
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char *path = xasprintf("%s/models/%s.onnx", root, files[i]), *name = model_import_name(path);
        if (access(path, R_OK)) {
            print_message("%s is not there\n", path);
            free(path);
            free(name);
            free(root);
            skip();
        }
        round_trip(f, path, name, true);
        free(path);
        free(name);
    }
    free(root);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {TEST(imports), TEST(stands_alone), TEST(refuses), TEST(real_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

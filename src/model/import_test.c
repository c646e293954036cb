/* Importing: what comes out of the store is what went in; equal tensors lie there once. SPDX-License-Identifier: Apache-2.0 */
#include "model/import.h"
#include "model/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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
            return; /* for the compiler */
        }
        round_trip(f, path, name, true);
        free(path);
        free(name);
    }
    free(root);
}

/* ---- packed copies */

static err open_stored(const struct fixture *f, struct weights_reader *reader, const char *name, struct model **ret)
{
    struct model_options o = {.budget = f->budget, .threads = 1, .reader = reader, .spill_dir = f->dir};
    return model_open_stored(f->s, name, name, &o, ret);
}

/* Runs it once: the sum of the outputs, and how many bytes were read. */
static err run_once(struct model *m, float *ret)
{
    struct model_plan *p = NULL;
    err e = model_plan_new(m, NULL, &p);
    if (!e) e = model_plan_reserve(p);
    if (!e) e = model_request(m);
    if (!e) {
        e = model_wait(m);
        struct tensor in = model_plan_input(p, 0), out = model_plan_output(p, 0);
        for (int i = 0; i < 200; i++) ((float *)in.data)[i] = (float)i / 200;
        if (!e) e = model_plan_run(p, NULL);
        if (!e) memcpy(ret, out.data, 200 * sizeof *ret);
        model_release(m);
    }
    model_plan_free(&p);
    return e;
}

static err run_stored(const struct fixture *f, const char *name, float *ret)
{
    struct weights_reader *reader;
    struct model *m = NULL;
    err e = weights_reader_new(&reader);
    if (!e) e = open_stored(f, reader, name, &m);
    if (!e) e = run_once(m, ret);
    if (!e && *model_stored_problem(m)) fail_msg("%s", model_stored_problem(m));
    model_free(&m);
    weights_reader_free(&reader);
    return e;
}

static char *only_packed(const struct fixture *f, size_t want)
{
    char *command = xasprintf("ls '%s/store/packed'", f->dir), line[80], *last = NULL;
    FILE *list = popen(command, "r");
    size_t n = 0;
    while (fgets(line, sizeof line, list)) {
        line[strcspn(line, "\n")] = 0;
        free(last);
        last = xasprintf("%s/store/packed/%s", f->dir, line);
        n++;
    }
    assert_int_equal(pclose(list), 0);
    free(command);
    assert_int_equal(n, want);
    return last;
}

static void packs_once(void **state)
{
    struct fixture *f = *state;
    char *path = make_model(f, "a", 2), *packed;
    struct model_import_report r;
    struct model_options o = {.budget = f->budget, .threads = 1};
    struct model *m;
    float truth[200], got[200];
    struct stat st, again;
    assert_int_equal(model_open(path, "a", &o, &m), ERR_OK);
    assert_int_equal(run_once(m, truth), ERR_OK);
    model_free(&m);
    assert_int_equal(model_import(f->s, path, "a", f->payer, &r), ERR_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(run_stored(f, "a", got), ERR_OK);
    assert_memory_equal(truth, got, sizeof got);
    packed = only_packed(f, 1);
    assert_int_equal(stat(packed, &st), 0);
    /* the numbers as ONNX has them are not needed any more: spoil one, keeping its length and header */
    struct weights_manifest x;
    char id[65];
    assert_int_equal(weights_manifest_current(f->s, "a", &x), ERR_OK);
    char *blob = xasprintf("%s/%s", weights_store_blobs(f->s), weights_id_text(&x.blobs[0], id));
    FILE *file = fopen(blob, "r+b");
    assert_true(file && !fseek(file, 5000, SEEK_SET) && fputs("spoilt", file) != EOF && !fclose(file));
    assert_int_equal(run_stored(f, "a", got), ERR_OK);
    assert_memory_equal(truth, got, sizeof got);
    assert_int_equal(stat(packed, &again), 0);
    assert_int_equal(st.st_ino, again.st_ino); /* not made again */
    /* without the packed copy, the spoilt blob is found before it is packed */
    assert_int_equal(unlink(packed), 0);
    assert_int_equal(run_stored(f, "a", got), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), id));
    weights_manifest_done(&x);
    free(blob);
    free(packed);
    free(path);
}

/* An altered index is made again; an altered block is found when it is read. */
static void altered_copies(void **state)
{
    struct fixture *f = *state;
    char *path = make_model(f, "a", 2), *packed;
    struct model_import_report r;
    struct stat st;
    float truth[200], got[200];
    assert_int_equal(model_import(f->s, path, "a", f->payer, &r), ERR_OK);
    assert_int_equal(run_stored(f, "a", truth), ERR_OK);
    packed = only_packed(f, 1);
    assert_int_equal(stat(packed, &st), 0);
    assert_int_equal(truncate(packed, st.st_size - 10), 0);
    assert_int_equal(run_stored(f, "a", got), ERR_OK);
    assert_memory_equal(truth, got, sizeof got);
    FILE *file = fopen(packed, "r+b");
    assert_true(file && !fseek(file, 70000, SEEK_SET) && fputs("altered", file) != EOF && !fclose(file));
    assert_int_equal(run_stored(f, "a", got), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "altered on disk"));
    assert_int_equal(unlink(packed), 0);
    assert_int_equal(run_stored(f, "a", got), ERR_OK);
    assert_memory_equal(truth, got, sizeof got);
    free(packed);
    free(path);
}

/* The second model's copy has its own blocks only. */
static void packed_once_for_two(void **state)
{
    struct fixture *f = *state;
    struct model_import_report r;
    struct stat st;
    float got[200];
    off_t sizes[2];
    for (int i = 0; i < 2; i++) {
        char *path = make_model(f, i ? "b" : "a", 2 + i), *sum = xasprintf("cat '%s/store/packed/'* > '%s/all'", f->dir, f->dir), *all = xasprintf("%s/all", f->dir);
        assert_int_equal(model_import(f->s, path, i ? "b" : "a", f->payer, &r), ERR_OK);
        assert_int_equal(run_stored(f, i ? "b" : "a", got), ERR_OK);
        assert_int_equal(system(sum), 0);
        assert_int_equal(stat(all, &st), 0);
        sizes[i] = st.st_size;
        free(path);
        free(sum);
        free(all);
    }
    free(only_packed(f, 2));
    assert_true(sizes[1] > sizes[0] && sizes[1] - sizes[0] < sizes[0] * 6 / 10); /* one weight more, not two */
}

/* Equal weights of two models are in memory once, whoever comes and goes first; the results stay. Weights of 160,000 bytes, one of two in common. */
static void once_in_memory_for_two(void **state)
{
    struct fixture *f = *state;
    enum { WEIGHT = 163840 }; /* 200 x 200 numbers, in whole pages */
    struct weights_reader *reader;
    struct model *m[2];
    float first[2][200], again[2][200];
    for (int i = 0; i < 2; i++) {
        struct model_import_report r;
        char *path = make_model(f, i ? "b" : "a", 2 + i);
        assert_int_equal(model_import(f->s, path, i ? "b" : "a", f->payer, &r), ERR_OK);
        assert_int_equal(run_stored(f, i ? "b" : "a", first[i]), ERR_OK);
        free(path);
    }
    assert_int_equal(weights_reader_new(&reader), ERR_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(open_stored(f, reader, i ? "b" : "a", &m[i]), ERR_OK);
        assert_int_equal(run_once(m[i], again[i]), ERR_OK);
        assert_memory_equal(again[i], first[i], sizeof *first);
    }
    struct weights_set *a = model_weights(m[0]), *b = model_weights(m[1]);
    size_t alone = weights_paid_bytes(a);
    assert_true(alone >= 2 * WEIGHT && weights_resident_bytes(b) == alone);
    assert_in_range(weights_paid_bytes(b), WEIGHT, alone - WEIGHT); /* its own one, and the tail */
    assert_int_equal(model_evict(m[0]), ERR_OK); /* who paid goes: the other pays */
    assert_int_equal(weights_paid_bytes(a), 0);
    assert_int_equal(weights_paid_bytes(b), alone);
    assert_int_equal(run_once(m[1], again[1]), ERR_OK);
    assert_memory_equal(again[1], first[1], sizeof *first);
    assert_int_equal(model_request(m[0]), ERR_OK);
    assert_int_equal(model_wait(m[0]), ERR_OK);
    assert_in_range(weights_paid_bytes(a), WEIGHT, alone - WEIGHT);
    model_release(m[0]);
    model_free(&m[1]);
    assert_int_equal(weights_paid_bytes(a), alone);
    assert_int_equal(run_once(m[0], again[0]), ERR_OK);
    assert_memory_equal(again[0], first[0], sizeof *first);
    model_free(&m[0]);
    weights_reader_free(&reader);
}

/* While somebody runs it, nobody removes it. */
static void used(void **state)
{
    struct fixture *f = *state;
    struct weights_reader *reader;
    struct weights_gc_report gc;
    struct model_import_report r;
    struct model *m;
    float got[200];
    char *path = make_model(f, "a", 2);
    assert_int_equal(model_import(f->s, path, "a", f->payer, &r), ERR_OK);
    assert_int_equal(weights_reader_new(&reader), ERR_OK);
    assert_int_equal(open_stored(f, reader, "none", &m), ERR_NOT_FOUND);
    assert_int_equal(open_stored(f, reader, "a", &m), ERR_OK);
    assert_int_equal(weights_store_remove(f->s, "a", &gc), ERR_BUSY);
    assert_int_equal(run_once(m, got), ERR_OK);
    model_free(&m);
    assert_int_equal(weights_store_remove(f->s, "a", &gc), ERR_OK);
    weights_reader_free(&reader);
    free(path);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {TEST(imports), TEST(stands_alone), TEST(refuses), TEST(real_files),
                                       TEST(packs_once), TEST(altered_copies), TEST(packed_once_for_two), TEST(once_in_memory_for_two), TEST(used)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

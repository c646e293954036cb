/* The guard in a running box: two "merged" models made here, whose originals say the same of bright pictures and, one of them, something else of dark ones. Clips are
 * bright or dark, so what the guard must say is known. Everything is waited for, nothing is timed. SPDX-License-Identifier: Apache-2.0 */
#include "engine/guard_inside.h"
#include "engine/job.h"
#include "graph/graph.h"
#include "model/import.h"
#include "video/encode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { W = 64, H = 48, FRAMES = 30, PATIENCE_MS = 60000, MB = 1 << 20 };

static char *dir;

static char *in_dir(const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

static void write_text(const char *name, const char *text)
{
    char *path = in_dir(name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    free(path);
}

static bool equal(const char *a, const char *b)
{
    char *command = xasprintf("cmp -s %s/%s %s/%s", dir, a, dir, b);
    int r = system(command);
    free(command);
    return r == 0;
}

static void copy(const char *from, const char *to)
{
    char *command = xasprintf("cp %s/%s %s/%s", dir, from, dir, to);
    assert_int_equal(system(command), 0);
    free(command);
}

static void write_clip(const char *name, int level)
{
    struct mem_budget *b = mem_budget_new("clip", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "clip");
    struct video_writer *w;
    char *path = in_dir(name);
    uint8_t *rgb = xcalloc(W * H, 3);
    assert_int_equal(video_writer_open(&(struct video_writer_options){.path = path, .w = W, .h = H, .fps = 25, .quality = 90}, p, &w), ERR_OK);
    memset(rgb, level, (size_t)W * H * 3);
    for (int i = 0; i < FRAMES; i++) assert_int_equal(video_writer_add(w, rgb, W * 3), ERR_OK);
    assert_int_equal(video_writer_close(&w), ERR_OK);
    free(rgb);
    free(path);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

/* ---- networks: the mean of the picture, times `slope`, plus numbers of their own */

static int constant(struct graph *g, const char *name, struct tensor_shape s, const float *values)
{
    float *f;
    int v;
    assert_int_equal(graph_add_constant(g, name, TENSOR_F32, &s, &v, (void **)&f), ERR_OK);
    memcpy(f, values, (size_t)tensor_count(&s) * sizeof *f);
    return v;
}

static int node(struct graph *g, enum op_kind kind, const char *name, const int *in, int n_in, struct tensor_shape s)
{
    int out = graph_add_value(g, name, TENSOR_F32, &s);
    struct graph_node *n = graph_add_node(g, kind, name, n_in, 1);
    memcpy(n->op.in, in, (size_t)n_in * sizeof *in);
    n->op.out[0] = out;
    return out;
}

static int reshaped(struct graph *g, const char *name, int x, struct tensor_shape s)
{
    int64_t *to;
    int shape;
    char text[64];
    snprintf(text, sizeof text, "%s_shape", name);
    assert_int_equal(graph_add_constant(g, text, TENSOR_I64, &(struct tensor_shape){.rank = 1, .dims = {s.rank}}, &shape, (void **)&to), ERR_OK);
    memcpy(to, s.dims, (size_t)s.rank * sizeof *to);
    return node(g, OP_RESHAPE, name, (int[]){x, shape}, 2, s);
}

/* out[k] = slope[k] * mean + bias[k] */
static int line(struct graph *g, const char *name, int x, int n, const float *slope, const float *bias)
{
    char text[64];
    float w[64];
    for (int k = 0; k < n; k++)
        for (int c = 0; c < 3; c++) w[3 * k + c] = slope[k] / 3;
    snprintf(text, sizeof text, "%s_w", name);
    int in[3] = {x, constant(g, text, (struct tensor_shape){.rank = 4, .dims = {n, 3, 1, 1}}, w)};
    snprintf(text, sizeof text, "%s_b", name);
    in[2] = constant(g, text, (struct tensor_shape){.rank = 1, .dims = {n}}, bias);
    return node(g, OP_CONV, name, in, 3, (struct tensor_shape){.rank = 4, .dims = {1, n, 1, 1}});
}

enum kind { DETECTOR, CLASSIFIER, EMBEDDING };
enum likeness { ORIGINAL, NEAR, BLIND };

/* Dark pictures: a blind detector sees nothing, a blind classifier says "bright", a blind embedding points elsewhere. Near: other numbers, the same answers. */
static void write_model(const char *name, enum kind kind, enum likeness like)
{
    const bool blind = like == BLIND;
    const float off = like == NEAR ? 0.01f : 0;
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "graph");
    struct graph *g = graph_new("net", 13, p);
    int x = graph_add_input(g, "image", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, 3, 32, 32}});
    x = node(g, OP_GLOBAL_AVERAGE_POOL, "mean", &x, 1, (struct tensor_shape){.rank = 4, .dims = {1, 3, 1, 1}});
    if (kind == DETECTOR) { /* two boxes: background and thing */
        const float sees[4] = {0, 0, 0, 0}, level[4] = {0.1f, 0.9f - off, 0.2f, 0.8f - off}, slope[4] = {0, 1, 0, 0.9f}, none[4] = {0};
        graph_add_output(g, reshaped(g, "scores", line(g, "s", x, 4, blind ? slope : sees, blind ? none : level), (struct tensor_shape){.rank = 3, .dims = {1, 2, 2}}));
        const float flat[8] = {0}, box[8] = {0.5f, 0, 0.9f, 0.9f, 0.1f, 0.1f, 0.3f, 0.3f};
        graph_add_output(g, reshaped(g, "boxes", line(g, "k", x, 8, flat, box), (struct tensor_shape){.rank = 3, .dims = {1, 2, 4}}));
    } else {
        const float slope[2] = {blind ? 0.f : -1.f, 1}, bias[2] = {!blind ? 1 + off : kind == CLASSIFIER ? -1 : 0.1f, 0};
        graph_add_output(g, reshaped(g, "classes", line(g, "c", x, 2, slope, bias), (struct tensor_shape){.rank = 2, .dims = {1, 2}}));
    }
    char *path = in_dir(name);
    assert_int_equal(graph_save(g, path), ERR_OK);
    free(path);
    graph_free(&g);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static const char DETECTOR_CARD[] = "card: 1\nhead: ultraface\ninput: {size: [32, 32], std: 255}\noutputs: [scores, boxes]\nlabels: [thing]\nscore: 0.5\n";
static const char CLASSIFIER_CARD[] = "card: 1\nhead: classify\ninput: {size: [32, 32], std: 255}\nlabels: [dark, bright]\n";
static const char EMBEDDING_CARD[] = "card: 1\nhead: embedding\ninput: {size: [32, 32], std: 255}\n";

/* What `brim merge` leaves: `cars` and `people` share a layer. Cars is not what it was on dark pictures. */
static void write_merge(enum kind kind)
{
    const char *card = kind == DETECTOR ? DETECTOR_CARD : kind == CLASSIFIER ? CLASSIFIER_CARD : EMBEDDING_CARD;
    char *command = xasprintf("rm -rf %s/out %s/store && mkdir -p %s/out/models", dir, dir, dir);
    assert_int_equal(system(command), 0);
    free(command);
    write_model("out/models/cars.onnx", kind, ORIGINAL);
    write_model("out/cars.onnx", kind, BLIND);
    copy("out/cars.onnx", "merged.onnx");
    write_model("out/models/people.onnx", kind, ORIGINAL);
    write_model("out/people.onnx", kind, NEAR);
    copy("out/people.onnx", "people.onnx");
    copy("out/models/cars.onnx", "out/models/more.onnx");
    copy("out/models/cars.onnx", "out/more.onnx");
    write_text("out/cars.yaml", card);
    write_text("out/people.yaml", card);
    write_text("out/more.yaml", card);
    write_text("out/merge.json", "{\"members\": [{\"name\": \"cars\"}, {\"name\": \"people\"}, {\"name\": \"more\"}], \"bytes\": 1000, \"saved_bytes\": 200,"
                                 " \"layers\": [{\"bytes\": 100, \"users\": [\"cars\", \"people\", \"more\"]}]}\n");
}

static int setup(void **state)
{
    const char *tmp = getenv("TMPDIR");
    (void)state;
    dir = xasprintf("%s/brim-guard-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) return -1;
    write_clip("bright.mp4", 230);
    write_clip("dark.mp4", 10);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char *command = xasprintf("rm -rf '%s'", dir);
    int r = system(command);
    free(command);
    free(dir);
    return r;
}

/* ---- a box */

struct box {
    struct mem_budget *budget;
    struct engine *e;
};

static struct site *site_of(const char *clip, const char *cars, const char *rest)
{
    struct site *s = NULL;
    char *path = in_dir("site.yaml");
    char *text = xasprintf("version: 1\nstore: store\nthreads: 1\nprecision: f32\ncameras: {a: {url: %s, loop: true}, b: {url: %s, loop: true}}\n"
                           "models:\n  cars: {onnx: out/cars.onnx, guard: %s}\n  people: {onnx: out/people.onnx, guard: {every: 100ms, window: 10, target: 0.9}}\n"
                           "  more: {onnx: out/more.onnx}\n"
                           "queries:\n  one: {cameras: all, model: cars, fps: 25}\n  two: {cameras: a, model: people, fps: 25}\n  three: {cameras: a, model: more, fps: 5}\n%s",
                           clip, clip, cars, rest);
    err e = site_load_all(path, text, strlen(text), NULL, &s);
    if (e) print_message("# %s\n", err_text());
    assert_int_equal(e, ERR_OK);
    free(text);
    free(path);
    return s;
}

static void box_start(struct box *b, struct site *s, uint64_t limit)
{
    b->budget = mem_budget_new("host", limit);
    err e = engine_open(s, &(struct engine_options){.budget = b->budget}, &b->e);
    if (e) print_message("# %s\n", err_text());
    assert_int_equal(e, ERR_OK);
    engine_guard_enable(b->e);
    assert_int_equal(engine_start(b->e), ERR_OK);
}

static void box_end(struct box *b)
{
    engine_close(&b->e);
    assert_int_equal(mem_budget_used(b->budget), 0);
    mem_budget_free(&b->budget);
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

static struct engine_guard_row row(struct box *b, const char *model)
{
    struct engine_guard_row *rows, found = {0};
    size_t n = engine_guards(b->e, &rows);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(rows[i].model, model)) found = rows[i];
    free(rows);
    return found;
}

static struct engine_guard_row await(struct box *b, const char *model, enum engine_guard_state state, uint64_t compared)
{
    for (int64_t end = clock_ns() + (int64_t)PATIENCE_MS * 1000000; clock_ns() < end; nap()) {
        struct engine_guard_row r = row(b, model);
        if (r.state == state && r.compared >= compared) return r;
    }
    struct engine_guard_row r = row(b, model);
    fail_msg("%s is %s after %llu frames (%s), not %s", model, engine_guard_state_name(r.state), (unsigned long long)r.compared, r.why, engine_guard_state_name(state));
    return r;
}

static bool has_problem(struct box *b, const char *part)
{
    json_t *list = engine_problems(b->e), *one;
    size_t i;
    bool found = false;
    json_array_foreach(list, i, one) found = found || strstr(json_string_value(one), part);
    json_decref(list);
    return found;
}

static uint64_t runs(struct box *b, const char *query)
{
    struct engine_query_row *rows;
    uint64_t found = 0;
    size_t n = engine_queries(b->e, &rows);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(rows[i].query, query)) found += rows[i].stats.run;
    free(rows);
    return found;
}

/* ---- */

static const char FAST[] = "{every: 100ms, window: 10, target: 0.9}";

static void one_that_drifts_goes_back(enum kind kind, const char *measure)
{
    struct box b;
    write_merge(kind);
    box_start(&b, site_of("bright.mp4", FAST, ""), 256 * MB);
    struct engine_guard_row r = await(&b, "cars", ENGINE_GUARD_ON, 12);
    assert_true(r.score > 0.999 && r.error < 1e-6 && r.target == 0.9 && r.pictures == 10 && r.window == 10 && r.skipped == 0);
    assert_string_equal(r.measure, measure);
    assert_non_null(strstr(r.original, "/out/models/cars.onnx"));
    assert_int_equal(await(&b, "more", ENGINE_GUARD_EQUAL, 0).compared, 0); /* it is its original */
    assert_true(await(&b, "people", ENGINE_GUARD_ON, 3).score > 0.9);
    assert_false(has_problem(&b, "guard"));
    assert_int_equal(engine_reload(b.e, site_of("dark.mp4", FAST, "")), ERR_OK); /* another video, the same models */
    r = await(&b, "cars", ENGINE_GUARD_REVERTED, 0);
    assert_true(r.reverted_score < 0.9 && r.reverted_at > 1e9);
    assert_true(equal("out/cars.onnx", "out/models/cars.onnx"));
    assert_true(equal("out/cars.onnx.before", "merged.onnx"));
    assert_true(has_problem(&b, "guard cars: merged, it was "));
    uint64_t one = runs(&b, "one");
    for (int64_t end = clock_ns() + (int64_t)PATIENCE_MS * 1000000; runs(&b, "one") < one + 5 && clock_ns() < end;) nap();
    assert_true(runs(&b, "one") >= one + 5); /* it runs */
    uint64_t more = row(&b, "people").compared + 12;
    assert_true(await(&b, "people", ENGINE_GUARD_ON, more).score > 0.9); /* a whole window of the dark: the other one stays */
    assert_true(equal("out/people.onnx", "people.onnx"));
    box_end(&b);
    json_t *report, *list;
    char *path = in_dir("out/merge.json");
    report = json_load_file(path, 0, NULL);
    free(path);
    list = json_object_get(report, "reverted");
    assert_int_equal(json_array_size(list), 1);
    assert_string_equal(json_string_value(json_array_get(list, 0)), "cars");
    list = json_object_get(json_array_get(json_object_get(report, "layers"), 0), "users");
    assert_int_equal(json_array_size(list), 2); /* the others share on */
    assert_int_equal(json_integer_value(json_object_get(report, "saved_bytes")), 100);
    json_decref(report);
    box_start(&b, site_of("dark.mp4", FAST, ""), 256 * MB); /* the next start knows */
    struct engine_guard_row again = await(&b, "cars", ENGINE_GUARD_REVERTED, 0);
    assert_true(again.compared == 0 && again.reverted_score == r.reverted_score && again.reverted_at == r.reverted_at);
    box_end(&b);
    copy("merged.onnx", "out/cars.onnx"); /* merged anew */
    box_start(&b, site_of("bright.mp4", FAST, ""), 256 * MB);
    assert_true(await(&b, "cars", ENGINE_GUARD_ON, 3).reverted_at == 0);
    box_end(&b);
}

static void a_detector_goes_back(void **state)
{
    (void)state;
    one_that_drifts_goes_back(DETECTOR, "AP50 against the original");
}

static void a_classifier_goes_back(void **state)
{
    (void)state;
    one_that_drifts_goes_back(CLASSIFIER, "same class as the original");
}

static void an_embedding_goes_back(void **state)
{
    (void)state;
    one_that_drifts_goes_back(EMBEDDING, "likeness to the original");
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_detector_goes_back),
        cmocka_unit_test(a_classifier_goes_back),
        cmocka_unit_test(an_embedding_goes_back),
    };
    return cmocka_run_group_tests_name("guard", tests, setup, teardown);
}

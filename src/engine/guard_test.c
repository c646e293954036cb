/* The guard in a running box: two "merged" models made here, whose originals say the same of bright pictures and, one of them, something else of dark ones. Clips are
 * bright or dark, so what the guard must say is known. Everything is waited for, nothing is timed. SPDX-License-Identifier: Apache-2.0 */
#include "base/testing.h"
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

enum { W = 64, H = 48, FRAMES = 30, MB = 1 << 20 };

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
                           "models:\n  cars: {onnx: out/cars.onnx, guard: %s}\n  people: {onnx: out/people.onnx, guard: {every: 100ms, window: 8, target: 0.9}}\n"
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
    for (int64_t end = testing_deadline(); clock_ns() < end; nap()) {
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

static const char FAST[] = "{every: 100ms, window: 8, target: 0.9}";

static void await_run(struct box *b, const char *query)
{
    uint64_t now = runs(b, query);
    for (int64_t end = testing_deadline(); runs(b, query) < now + 3 && clock_ns() < end;) nap();
    assert_true(runs(b, query) >= now + 3);
}

/* Bright, then dark. The box is left as it is then. */
static void drift(struct box *b, enum kind kind, const char *measure, const char *guard)
{
    write_merge(kind);
    box_start(b, site_of("bright.mp4", guard, ""), 256 * MB);
    struct engine_guard_row r = await(b, "cars", ENGINE_GUARD_ON, 9);
    assert_true(r.score > 0.999 && r.error < 1e-6 && r.target == 0.9 && r.pictures >= 8 && r.window == 8 && r.skipped == 0);
    assert_string_equal(r.measure, measure);
    assert_non_null(strstr(r.original, "/out/models/cars.onnx"));
    assert_false(has_problem(b, "guard"));
    assert_int_equal(engine_reload(b->e, site_of("dark.mp4", guard, "")), ERR_OK); /* another video, the same models */
    r = await(b, "cars", ENGINE_GUARD_REVERTED, 0);
    assert_true(r.reverted_score < 0.9 && r.reverted_at > 1e9);
    assert_true(has_problem(b, "guard cars: merged, it was "));
    assert_true(equal("out/cars.onnx", "out/models/cars.onnx"));
    assert_true(equal("out/cars.onnx.before", "merged.onnx"));
    await_run(b, "one");
}

static json_t *await_report(const char *reverted)
{
    char *path = in_dir("out/merge.json");
    json_t *report = NULL;
    for (int64_t end = testing_deadline(); clock_ns() < end; nap()) {
        json_decref(report);
        report = json_load_file(path, 0, NULL);
        json_t *list = json_object_get(report, "reverted");
        if (json_array_size(list) == 1 && !strcmp(json_string_value(json_array_get(list, 0)), reverted)) break;
    }
    free(path);
    assert_int_equal(json_array_size(json_object_get(report, "reverted")), 1);
    return report;
}

static void a_detector_goes_back_and_stays_so(void **state)
{
    (void)state;
    struct box b;
    drift(&b, DETECTOR, "AP50 against the original", FAST);
    double score = row(&b, "cars").reverted_score, at = row(&b, "cars").reverted_at;
    assert_int_equal(await(&b, "more", ENGINE_GUARD_EQUAL, 0).compared, 0); /* it is its original */
    uint64_t more = row(&b, "people").compared + 9;
    assert_true(await(&b, "people", ENGINE_GUARD_ON, more).score > 0.9); /* a whole window of the dark: the other one stays */
    assert_true(equal("out/people.onnx", "people.onnx"));
    json_t *report = await_report("cars");
    assert_int_equal(json_array_size(json_object_get(json_array_get(json_object_get(report, "layers"), 0), "users")), 2); /* the others share on */
    assert_int_equal(json_integer_value(json_object_get(report, "saved_bytes")), 100);
    json_decref(report);
    box_end(&b);
    box_start(&b, site_of("dark.mp4", FAST, ""), 256 * MB); /* the next start knows */
    struct engine_guard_row again = await(&b, "cars", ENGINE_GUARD_REVERTED, 0);
    assert_true(again.compared == 0 && again.reverted_score == score && again.reverted_at == at);
    json_t *guards = engine_guards_json(b.e);
    assert_string_equal(json_string_value(json_object_get(json_array_get(guards, 0), "state")), "reverted");
    json_decref(guards);
    box_end(&b);
    write_merge(DETECTOR); /* merged anew, and the guard told otherwise */
    box_start(&b, site_of("bright.mp4", "off", ""), 256 * MB);
    await(&b, "people", ENGINE_GUARD_ON, 1);
    assert_int_equal(row(&b, "cars").state, 0);
    assert_int_equal(engine_reload(b.e, site_of("bright.mp4", FAST, "")), ERR_OK);
    assert_true(await(&b, "cars", ENGINE_GUARD_ON, 1).reverted_at == 0);
    assert_int_equal(engine_reload(b.e, site_of("bright.mp4", "{original: out/models/nobody.onnx}", "")), ERR_OK);
    assert_non_null(strstr(await(&b, "cars", ENGINE_GUARD_CANNOT, 0).why, "out/models/nobody.onnx: No such file or directory"));
    box_end(&b);
}

static void a_classifier_goes_back(void **state)
{
    (void)state;
    struct box b;
    drift(&b, CLASSIFIER, "same class as the original", FAST);
    box_end(&b);
}

static void an_embedding_goes_back(void **state)
{
    (void)state;
    struct box b;
    drift(&b, EMBEDDING, "likeness to the original", FAST);
    box_end(&b);
}

/* Its file cannot be replaced (the name for the old one is a folder): the merged one runs on, and it is tried again. */
static void what_cannot_go_back_is_tried_again(void **state)
{
    (void)state;
    struct box b;
    char *in_the_way = in_dir("out/cars.onnx.before");
    write_merge(CLASSIFIER);
    assert_int_equal(engine_make_folders(in_the_way), ERR_OK);
    box_start(&b, site_of("dark.mp4", FAST, ""), 256 * MB);
    for (int64_t end = testing_deadline(); !has_problem(&b, "guard cars: ") && clock_ns() < end;) nap();
    assert_true(has_problem(&b, "and cannot go back"));
    assert_int_equal(row(&b, "cars").state, ENGINE_GUARD_ON);
    assert_true(equal("out/cars.onnx", "merged.onnx"));
    await_run(&b, "one");
    assert_int_equal(rmdir(in_the_way), 0);
    await(&b, "cars", ENGINE_GUARD_REVERTED, 0);
    assert_true(equal("out/cars.onnx", "out/models/cars.onnx"));
    assert_false(has_problem(&b, "cannot go back"));
    box_end(&b);
    free(in_the_way);
}

/* ---- a model of the store, merged by a job of the box */

static atomic_bool held, asked; /* a search that is told to stop goes on while `held` */

/* A search that only waits; its last word: a file that gets 'b' or 'a' (again) each time it begins. */
static err search(struct engine_job_run *r)
{
    FILE *f = fopen(r->words[r->n_words - 1], "ae");
    assert_non_null(f);
    fputc(r->again ? 'a' : 'b', f);
    assert_int_equal(fclose(f), 0);
    while (!atomic_load(r->stop)) nap();
    atomic_store(&asked, true);
    while (atomic_load(&held)) nap();
    return err_set(ERR_CANCELLED, "stopped");
}

static err any_words(const char *folder, const char *const *words, int n)
{
    (void)folder, (void)words, (void)n;
    return ERR_OK;
}

static const struct engine_job_kind kinds[] = {{.name = "merge", .check = any_words, .run = search, .normal = true}};

static void import(const char *file, const char *name)
{
    struct weights_store *store;
    struct model_import_report r;
    struct mem_budget *b = mem_budget_new("import", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "import");
    char *path = in_dir("store"), *from = in_dir(file);
    assert_int_equal(engine_make_folders(path), ERR_OK);
    assert_int_equal(weights_store_open(path, NULL, &store), ERR_OK);
    assert_int_equal(model_import(store, from, name, p, &r), ERR_OK);
    weights_store_close(&store);
    free(path);
    free(from);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static struct site *stored_site(int window)
{
    struct site *s = NULL;
    char *path = in_dir("site.yaml");
    char *text = xasprintf("version: 1\nstore: store\nthreads: 1\nprecision: f32\ncameras: {a: {url: dark.mp4, loop: true}}\n"
                           "models: {cars: {onnx: autos, card: out/cars.yaml, guard: {every: 100ms, window: %d, target: 0.9}}}\nqueries:\n  one: {cameras: all, model: cars, fps: 25}\n", window);
    assert_int_equal(site_load_all(path, text, strlen(text), NULL, &s), ERR_OK);
    free(text);
    free(path);
    return s;
}

static void await_log(const char *name, const char *text)
{
    char *path = in_dir(name), got[32] = {0};
    for (int64_t end = testing_deadline(); strcmp(got, text) && clock_ns() < end; nap()) {
        FILE *f = fopen(path, "re");
        size_t n = f ? fread(got, 1, sizeof got - 1, f) : 0;
        got[n] = 0;
        if (f) fclose(f);
    }
    free(path);
    assert_string_equal(got, text);
}

static uint32_t version_of(const char *name, char content[65])
{
    struct weights_store *store;
    struct weights_manifest m;
    char *path = in_dir("store");
    assert_int_equal(weights_store_open(path, NULL, &store), ERR_OK);
    assert_int_equal(weights_manifest_current(store, name, &m), ERR_OK);
    uint32_t version = m.version;
    weights_id_text(&m.id, content);
    weights_manifest_done(&m);
    weights_store_close(&store);
    free(path);
    return version;
}

static void stored_box_start(struct box *b)
{
    b->budget = mem_budget_new("host", 256 * MB);
    assert_int_equal(engine_open(stored_site(8), &(struct engine_options){.budget = b->budget}, &b->e), ERR_OK);
    engine_job_kinds(b->e, kinds, 1);
    engine_guard_enable(b->e);
    assert_int_equal(engine_start(b->e), ERR_OK);
}

/* A box with a stored model, and a search for it that runs. */
static void search_in_box(struct box *b, const char *log_name)
{
    char name[72], *log = in_dir(log_name), content[65];
    const char *words[] = {"site.yaml", "--out", "out", "--on-box", log};
    write_merge(CLASSIFIER);
    import("out/cars.onnx", "autos");
    assert_int_equal(version_of("autos", content), 1);
    stored_box_start(b);
    assert_non_null(strstr(await(b, "cars", ENGINE_GUARD_CANNOT, 0).why, "there is no original of it"));
    assert_int_equal(engine_job_add(b->e, &(struct engine_job_options){.kind = "merge", .folder = dir, .words = words, .n_words = 5}, name), ERR_OK);
    await_log(log_name, "b");
    free(log);
}

static void a_stored_model_goes_back_and_its_search_goes_on(void **state)
{
    (void)state;
    struct box b;
    char content[65];
    search_in_box(&b, "search.log");
    assert_int_equal(engine_reload(b.e, stored_site(9)), ERR_OK); /* opened again, and its search is known now */
    struct engine_guard_row r = await(&b, "cars", ENGINE_GUARD_REVERTED, 0);
    assert_true(r.reverted_score < 0.9);
    assert_non_null(strstr(r.original, "/out/models/cars.onnx"));
    assert_true(version_of("autos", content) >= 2);
    json_decref(await_report("cars"));
    await_log("search.log", "ba"); /* it was stopped, told, and started again */
    assert_true(equal("out/cars.onnx", "out/models/cars.onnx"));
    await_run(&b, "one");
    box_end(&b);
    stored_box_start(&b);
    assert_true(await(&b, "cars", ENGINE_GUARD_REVERTED, 0).reverted_at == r.reverted_at); /* the next start knows */
    box_end(&b);
}

/* The guard stops the search, and the box ends before the search does: the next one tells it, and starts it again. */
static void a_search_that_was_stopped_goes_on_in_the_next_box(void **state)
{
    (void)state;
    struct box b;
    atomic_store(&held, true);
    atomic_store(&asked, false);
    search_in_box(&b, "held.log");
    assert_int_equal(engine_reload(b.e, stored_site(9)), ERR_OK);
    await(&b, "cars", ENGINE_GUARD_REVERTED, 0);
    for (int64_t end = testing_deadline(); !atomic_load(&asked) && clock_ns() < end;) nap();
    assert_true(atomic_load(&asked));
    engine_guards_close(b.e); /* as the box does first */
    atomic_store(&held, false);
    box_end(&b);
    await_log("held.log", "b");
    stored_box_start(&b);
    json_decref(await_report("cars"));
    await_log("held.log", "ba");
    box_end(&b);
}

static void await_problem(struct box *b, const char *part, bool there)
{
    for (int64_t end = testing_deadline(); has_problem(b, part) != there && clock_ns() < end;) nap();
    assert_int_equal(has_problem(b, part), there);
}

/* The report cannot be written (a folder has the name of the new one): said, and done later. And what the box says of a model is over when it is merged anew. */
static void what_the_search_is_not_told_is_told_later(void **state)
{
    (void)state;
    struct box b;
    char *name = xasprintf("out/%ld-merge.json", (long)getpid()), *in_the_way = in_dir(name);
    write_merge(CLASSIFIER);
    copy("out/merge.json", "report.json");
    assert_int_equal(engine_make_folders(in_the_way), ERR_OK);
    box_start(&b, site_of("dark.mp4", FAST, ""), 256 * MB);
    await_problem(&b, "search of cars: it could not be told that the model went back, and stands still until it is: ", true);
    assert_int_equal(row(&b, "cars").state, ENGINE_GUARD_REVERTED);
    assert_true(equal("out/merge.json", "report.json"));
    assert_int_equal(rmdir(in_the_way), 0);
    json_decref(await_report("cars"));
    await_problem(&b, "search of cars", false);
    assert_true(has_problem(&b, "guard cars: merged, it was "));
    copy("merged.onnx", "out/cars.onnx");
    copy("report.json", "out/merge.json");
    assert_int_equal(engine_reload(b.e, site_of("bright.mp4", "{every: 100ms, window: 9, target: 0.9}", "")), ERR_OK);
    await(&b, "cars", ENGINE_GUARD_ON, 1);
    assert_false(has_problem(&b, "guard cars"));
    box_end(&b);
    free(in_the_way);
    free(name);
}

/* An original that is not there yet, or cannot be read for a moment, is looked for again. */
static void an_original_that_comes_later_is_found(void **state)
{
    (void)state;
    struct box b;
    write_merge(CLASSIFIER);
    box_start(&b, site_of("bright.mp4", "{every: 100ms, window: 8, target: 0.9, original: out/models/late.onnx}", ""), 256 * MB);
    assert_non_null(strstr(await(&b, "cars", ENGINE_GUARD_CANNOT, 0).why, "out/models/late.onnx: No such file or directory"));
    copy("out/models/cars.onnx", "out/models/late.onnx");
    await(&b, "cars", ENGINE_GUARD_ON, 1);
    box_end(&b);
}

/* ---- memory */

/* Bytes of everybody but the cameras, which may read a frame meanwhile. */
static uint64_t used_beside_cameras(struct mem_budget *b)
{
    struct mem_row *rows;
    uint64_t sum = 0;
    size_t n = mem_snapshot(b, &rows);
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < MEM_PURPOSE_COUNT && !str_starts(rows[i].payer, "camera "); k++) sum += rows[i].used[k];
    free(rows);
    return sum;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    for (int kind = DETECTOR; kind <= EMBEDDING; kind++) {
        struct box b = {.budget = mem_budget_new("host", 256 * MB)};
        write_merge((enum kind)kind);
        assert_int_equal(engine_open(site_of("bright.mp4", "off", ""), &(struct engine_options){.budget = b.budget}, &b.e), ERR_OK);
        engine_guard_enable(b.e); /* nothing is started: no thread but the cameras' allocates beside this one */
        struct engine_site *hold = engine_site_hold(b.e);
        char *original = in_dir("out/models/cars.onnx");
        uint64_t used = used_beside_cameras(b.budget);
        bool done = false;
        for (uint64_t n = 1; !done; n++) {
            struct engine_eye *y = NULL;
            mem_fault_at(b.budget, n);
            err x = engine_eye_new(b.e->guards, hold, &hold->site->models[0], original, &y);
            if (!x) x = engine_eye_join(y, b.e->models[0]);
            bool failed = mem_fault_calls(b.budget) >= n; /* one did; without x it was a camera's, so once more */
            mem_fault_at(b.budget, 0);
            if (x) {
                assert_int_equal(x, ERR_NOMEM);
                engine_eye_close(&y);
            } else {
                engine_eye_leave(b.e->models[0]);
                done = !failed;
                n -= failed;
                assert_true(failed || n > 3);
            }
            assert_null(atomic_load(&b.e->models[0]->eye));
            assert_int_equal(used_beside_cameras(b.budget), used);
        }
        free(original);
        engine_site_unref(&hold);
        box_end(&b);
    }
}

/* Nothing that a run writes is read meanwhile. (The thread sanitizer sees it.) */
static void an_original_comes_while_its_model_runs(void **state)
{
    (void)state;
    for (int kind = DETECTOR; kind <= EMBEDDING; kind++) {
        struct box b;
        write_merge((enum kind)kind);
        box_start(&b, site_of("bright.mp4", "off", ""), 256 * MB);
        await_run(&b, "one");
        struct engine_site *hold = engine_site_hold(b.e);
        char *original = in_dir("out/models/cars.onnx");
        for (int i = 0; i < 30; i++) {
            struct engine_eye *y = NULL;
            assert_int_equal(engine_eye_new(b.e->guards, hold, &hold->site->models[0], original, &y), ERR_OK);
            nap();
            pthread_mutex_lock(&b.e->lock);
            assert_int_equal(engine_eye_join(y, b.e->models[0]), ERR_OK);
            engine_eyes_leave(b.e);
            pthread_mutex_unlock(&b.e->lock);
        }
        free(original);
        engine_site_unref(&hold);
        box_end(&b);
    }
}

/* What the guard takes goes first when the budget shrinks to what the models need. */
static void a_small_budget_sends_it_away(void **state)
{
    (void)state;
    struct box b;
    write_merge(DETECTOR);
    box_start(&b, site_of("bright.mp4", "off", ""), 256 * MB);
    await_run(&b, "one");
    struct engine_floor f = engine_floor(b.e);
    box_end(&b);
    write_merge(DETECTOR);
    box_start(&b, site_of("bright.mp4", FAST, ""), 256 * MB);
    uint64_t compared = 0;
    err x = ERR_NOMEM;
    for (int64_t end = testing_deadline(); x && clock_ns() < end;) { /* the most that frames took may grow in between: then it is so again */
        compared = await(&b, "cars", ENGINE_GUARD_ON, compared + 1).compared;
        struct engine_floor with = engine_floor(b.e);
        assert_true(with.least_weights == f.least_weights && with.largest_model == f.largest_model && with.all_models == f.all_models); /* it is nobody's need */
        x = engine_set_budget(b.e, engine_floor_before_weights(&with) - 1); /* too small with it, not without */
    }
    assert_int_equal(x, ERR_OK);
    await_run(&b, "one");
    await_run(&b, "two");
    box_end(&b);
}

/* Room for its original, but not for the window: it waits for that, and nothing is left behind. */
static void the_window_may_come_later(void **state)
{
    (void)state;
    struct box b;
    void *rest;
    write_merge(DETECTOR);
    box_start(&b, site_of("bright.mp4", "off", ""), 256 * MB);
    await_run(&b, "one");
    await_run(&b, "two");
    const size_t window = 4 * (size_t)MERGE_DRIFT_MOST * TASK_ALIKE_MOST * sizeof(struct task_ap_box), size = 256 * (size_t)MB - mem_budget_used(b.budget) - window * 9 / 10;
    struct mem_payer *p = mem_payer_new(b.budget, "somebody");
    assert_int_equal(mem_alloc(p, MEM_OTHER, size, &rest), ERR_OK);
    assert_int_equal(engine_reload(b.e, site_of("bright.mp4", "{every: 100ms, window: 200, target: 0.9}", "")), ERR_OK);
    await(&b, "cars", ENGINE_GUARD_CANNOT, 0);
    mem_free(p, MEM_OTHER, rest, size);
    sched_given_back(b.e->sched, size);
    await(&b, "cars", ENGINE_GUARD_ON, 1);
    mem_payer_free(&p);
    box_end(&b);
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_detector_goes_back_and_stays_so),
        cmocka_unit_test(a_classifier_goes_back),
        cmocka_unit_test(an_embedding_goes_back),
        cmocka_unit_test(what_cannot_go_back_is_tried_again),
        cmocka_unit_test(a_stored_model_goes_back_and_its_search_goes_on),
        cmocka_unit_test(a_search_that_was_stopped_goes_on_in_the_next_box),
        cmocka_unit_test(what_the_search_is_not_told_is_told_later),
        cmocka_unit_test(an_original_that_comes_later_is_found),
        cmocka_unit_test(the_window_may_come_later),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(an_original_comes_while_its_model_runs),
        cmocka_unit_test(a_small_budget_sends_it_away),
    };
    return cmocka_run_group_tests_name("guard", tests, setup, teardown);
}

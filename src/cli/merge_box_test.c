/* A merge in a running box: the site's stored models are replaced while it runs and hold less memory together, a killed box goes on, a model that somebody else
 * replaced is left alone, a disk that fails at any call leaves the box as it was, and what cannot work is refused at once. Pictures and networks are made here.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/merge.h"
#include "engine/inside.h"
#include "engine/job_testing.h"
#include "methods/merge_testing.h"
#include "model/import.h"
#include "serve/testing.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

enum { MODELS = 2 };

static struct engine_job_kind kinds[1];

static void say_file(const char *name, const char *text)
{
    char *path = in_dir(name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    free(path);
}

static void import(const char *name, const char *file)
{
    struct mem_budget *b = mem_budget_new("import", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "import");
    struct weights_store *store;
    struct model_import_report r;
    char *folder = in_dir("store"), *path = in_dir(file);
    assert_int_equal(weights_store_open(folder, NULL, &store), ERR_OK);
    if (model_import(store, path, name, p, &r)) fail_msg("%s", err_text());
    weights_store_close(&store);
    mem_payer_free(&p);
    mem_budget_free(&b);
    free(folder);
    free(path);
}

#define MODEL(k) "  m" #k ": {onnx: m" #k ", card: card.yaml}\n"
#define QUERY(k) "  q" #k ": {cameras: yard, model: m" #k ", fps: 5}\n"
#define SITE(rest) "version: 1\nbudget: 300M\nstore: store\nthreads: 1\nprecision: f32\ncameras:\n  yard: {url: yard.mp4, loop: true}\nmodels:\n" rest "outputs: {http: off, database: off}\n"

static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    dir = xasprintf("%s/brim-boxmerge-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) return -1;
    for (int k = 0; k <= MODELS; k++) {
        write_data(k);
        train_net(k, 8);
    }
    char *clip = in_dir("yard.mp4");
    err e = make_clip(clip);
    free(clip);
    say_file("card.yaml", "card: 1\nhead: classify\ninput: {size: [32, 32], mean: 80, std: 100}\nlabels: [a, b, c, d, e, f, g, h, i, j]\n");
    say_file("site.yaml", SITE(MODEL(0) MODEL(1) "queries:\n" QUERY(0) QUERY(1)));
    say_file("files.yaml", SITE("  m0: {onnx: m0.onnx, card: card.yaml}\n" MODEL(1) "queries:\n" QUERY(0) QUERY(1)));
    say_file("twice.yaml", SITE(MODEL(0) "  again: {onnx: m0, card: card.yaml}\nqueries:\n" QUERY(0)));
    return e ? -1 : 0;
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

/* A store with the two originals, and nothing else. */
static int fresh(void **state)
{
    (void)state;
    char *command = xasprintf("rm -rf '%s/store' '%s/out'", dir, dir);
    assert_int_equal(system(command), 0);
    free(command);
    import("m0", "m0.onnx");
    import("m1", "m1.onnx");
    return 0;
}

static struct engine *open_box(void)
{
    char *path = in_dir("site.yaml");
    struct site *site;
    struct engine *e;
    kinds[0] = cli_merge_kind;
    kinds[0].normal = true;
    if (site_load(path, &site) || engine_open(site, &(struct engine_options){0}, &e)) fail_msg("%s", err_text());
    engine_job_kinds(e, kinds, 1);
    assert_int_equal(engine_start(e), ERR_OK);
    free(path);
    return e;
}

#define WORDS(site, out, target) site, "--out", out, "--data", "m0=d0.bin", "--data", "m1=d1.bin", "--minutes", "30", "--target", target, "--batch", "8", "--threads", "1", "--lr", "0.02"

static err add(struct engine *e, const char *const *words, int n)
{
    char made[72];
    return engine_job_add(e, &(struct engine_job_options){.kind = "merge", .folder = dir, .words = words, .n_words = n}, made);
}

static struct engine_job_row wait_for(struct engine *e, const char *name, enum engine_job_state state)
{
    return job_testing_wait(e, name, state);
}

static double number(const struct engine_job_row *r, const char *name)
{
    for (int i = 0; i < r->n; i++)
        if (!strcmp(r->numbers[i].name, name)) return r->numbers[i].value;
    fail_msg("no number '%s'", name);
    return 0;
}

/* Until both queries have run `more` times. */
static void let_run(struct engine *e, uint64_t more)
{
    uint64_t first[MODELS] = {0};
    for (int64_t end = testing_deadline(), round = 0; clock_ns() < end; job_testing_nap(10), round++) {
        struct engine_query_row *rows;
        size_t n = engine_queries(e, &rows), enough = 0;
        assert_int_equal(n, MODELS);
        for (size_t i = 0; i < n; i++) {
            assert_string_equal(rows[i].problem, "");
            if (!round) first[i] = rows[i].stats.run;
            if (rows[i].stats.run < first[i]) first[i] = 0; /* it was opened anew */
            enough += rows[i].stats.run >= first[i] + more;
        }
        free(rows);
        if (enough == MODELS) return;
    }
    fail_msg("the queries do not run");
}

static uint64_t weights_held(struct engine *e)
{
    struct mem_row *rows;
    size_t n = mem_snapshot(engine_budget(e), &rows);
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += rows[i].used[MEM_WEIGHTS];
    free(rows);
    return bytes;
}

/* ---- looking into the store */

struct stored {
    struct mem_budget *budget;
    struct mem_payer *payer;
    uint32_t version[MODELS];
    struct graph *g[MODELS];
};

static struct stored look(void)
{
    struct stored s = {.budget = mem_budget_new("look", UINT64_MAX)};
    struct weights_store *store;
    struct weights_manifest m;
    char *folder = in_dir("store"), name[8];
    s.payer = mem_payer_new(s.budget, "look");
    assert_int_equal(weights_store_open(folder, NULL, &store), ERR_OK);
    for (int k = 0; k < MODELS; k++) {
        snprintf(name, sizeof name, "m%d", k);
        assert_int_equal(weights_manifest_current(store, name, &m), ERR_OK);
        s.version[k] = m.version;
        assert_int_equal(model_import_graph(store, &m, false, s.payer, &s.g[k]), ERR_OK);
        weights_manifest_done(&m);
    }
    weights_store_close(&store);
    free(folder);
    return s;
}

static void stored_done(struct stored *s)
{
    for (int k = 0; k < MODELS; k++) graph_free(&s->g[k]);
    mem_payer_free(&s->payer);
    mem_budget_free(&s->budget);
}

static const struct graph_value *value(const struct graph *g, const char *name)
{
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i].name && !strcmp(g->values[i].name, name)) return &g->values[i];
    fail_msg("no '%s'", name);
    return NULL;
}

static bool equal(const struct graph *a, const struct graph *b, const char *name)
{
    const struct graph_value *x = value(a, name), *y = value(b, name);
    return x->constant_bytes == y->constant_bytes && memcmp(x->constant, y->constant, x->constant_bytes) == 0;
}

/* Is model k of the store what this file says? */
static bool is_file(const struct stored *s, int k, const char *file)
{
    struct graph *g;
    char *path = in_dir(file);
    bool same = true;
    assert_int_equal(graph_load(path, s->payer, &g), ERR_OK);
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i].constant && g->values[i].name && *g->values[i].name) same = same && equal(g, s->g[k], g->values[i].name);
    graph_free(&g);
    free(path);
    return same;
}

static void is_merged(void)
{
    struct stored s = look();
    assert_true(equal(s.g[0], s.g[1], "a.weight"));
    assert_true(value(s.g[0], "a.weight")->shared && value(s.g[1], "a.weight")->shared);
    assert_false(equal(s.g[0], s.g[1], "a.bias"));
    assert_true(is_file(&s, 0, "out/m0.onnx") && is_file(&s, 1, "out/m1.onnx"));
    stored_done(&s);
}

/* ---- tests */

static void box_until_killed(void)
{
    static const char *const words[] = {WORDS("site.yaml", "out", "90")};
    struct engine *e = open_box();
    if (add(e, words, ARRAY_LEN(words))) _exit(1);
    for (;;) job_testing_nap(100);
}

/* At the first sign of a search, and in its middle. */
static void a_killed_box_goes_on(void **state)
{
    (void)state;
    char *begun = in_dir("out/merge.json"), *saved = in_dir("out/state.brim");
    const char *signs[] = {begun, saved};
    for (int round = 0; round < 2; round++) {
        fresh(NULL);
        pid_t child = fork();
        if (!child) box_until_killed();
        assert_true(child > 0);
        for (int64_t end = testing_deadline(); access(signs[round], F_OK) && clock_ns() < end; job_testing_nap(1)) {}
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        struct stored s = look(); /* whole, whatever happened */
        stored_done(&s);
        struct engine *e = open_box();
        struct engine_job_row r = wait_for(e, "merge-1", ENGINE_JOB_DONE);
        assert_true(r.done == 1 && r.bytes == 0 && number(&r, "saved_bytes") > 0 && number(&r, "least_of_target") >= 1);
        let_run(e, 2);
        engine_close(&e);
        is_merged();
    }
    free(begun);
    free(saved);
}

/* Packed weights of the running box fall; then somebody imports another m1, and the search that goes on leaves it alone. */
static void the_box_improves_and_others_are_respected(void **state)
{
    (void)state;
    static const char *const words[] = {WORDS("site.yaml", "out", "90")}, *const more[] = {WORDS("site.yaml", "out", "90"), "--resume"};
    struct engine *e = open_box();
    let_run(e, 3);
    uint64_t before = weights_held(e);
    assert_int_equal(add(e, words, ARRAY_LEN(words)), ERR_OK);
    struct engine_job_row r = wait_for(e, "merge-1", ENGINE_JOB_DONE);
    assert_true(number(&r, "published") >= 1);
    assert_true(number(&r, "saved_bytes") >= 8 * 3 * 8 * 8 * 4);
    let_run(e, 3);
    is_merged();
    uint64_t after = weights_held(e);
    assert_true(after + 8 * 3 * 8 * 8 * 4 <= before + 1024); /* what is shared is held once; scales and shifts are new */
    import("m1", "out/models/m1.onnx"); /* as the drift guard puts it back: not somebody else's */
    assert_int_equal(add(e, more, ARRAY_LEN(more)), ERR_OK);
    wait_for(e, "merge-2", ENGINE_JOB_DONE);
    let_run(e, 1);
    is_merged();
    import("m1", "m2.onnx");
    struct stored s = look();
    uint32_t version = s.version[0];
    stored_done(&s);
    assert_int_equal(add(e, more, ARRAY_LEN(more)), ERR_OK);
    r = wait_for(e, "merge-3", ENGINE_JOB_FAILED);
    assert_non_null(strstr(r.why, "model 'm1' was replaced since the search began (in the store): nothing is published any more. What was found is in "));
    s = look();
    assert_int_equal(s.version[0], version);
    assert_true(is_file(&s, 0, "out/m0.onnx") && is_file(&s, 1, "m2.onnx"));
    stored_done(&s);
    let_run(e, 1);
    engine_close(&e);
}

/* Nobody keeps 10000 % of what it was... but 100 is the most that can be asked: labels that were changed under it make sure. */
static void nothing_is_published_below_the_target(void **state)
{
    (void)state;
    static const char *const words[] = {"site.yaml", "--out", "out", "--data", "m0=d0.bin", "--data", "m1=d1.bin", "--minutes", "0.02", "--target", "100", "--batch", "8", "--threads", "1", "--lr",
                                        "0.0000001"};
    struct engine *e = open_box();
    assert_int_equal(add(e, words, ARRAY_LEN(words)), ERR_OK);
    struct engine_job_row r = wait_for(e, "merge-1", ENGINE_JOB_DONE);
    assert_true(r.done == 1);
    let_run(e, 1);
    engine_close(&e);
    struct stored s = look();
    assert_true(s.version[0] == 1 && s.version[1] == 1);
    stored_done(&s);
}

/* ---- disks that fail */

struct failing {
    struct weights_fs fs;
    int call, at;  /* the call numbered `at` fails; `full`: and all that write after it */
    bool full;
};

static bool fails(struct failing *x, bool writes)
{
    x->call++;
    bool now = x->call == x->at || (x->full && writes && x->call > x->at);
    if (now) errno = ENOSPC;
    return now;
}

static int f_create(void *self, const char *path)
{
    return fails(self, true) ? -1 : weights_fs_system.create(NULL, path);
}

static ssize_t f_pwrite(void *self, int fd, const void *p, size_t n, off_t at)
{
    return fails(self, true) ? -1 : weights_fs_system.pwrite(NULL, fd, p, n, at);
}

static int f_sync(void *self, int fd)
{
    return fails(self, false) ? -1 : weights_fs_system.sync(NULL, fd);
}

static int f_rename(void *self, const char *a, const char *b)
{
    return fails(self, false) ? -1 : weights_fs_system.rename(NULL, a, b);
}

static int f_mkdir(void *self, const char *path)
{
    return fails(self, true) ? -1 : weights_fs_system.mkdir(NULL, path);
}

static void every_call_fails_once(struct engine *e, const char *const *models, const char *const *files, bool full)
{
    struct failing x = {.fs = weights_fs_system, .full = full};
    x.fs.self = &x;
    x.fs.create = f_create;
    x.fs.pwrite = f_pwrite;
    x.fs.sync = f_sync;
    x.fs.rename = f_rename;
    x.fs.mkdir = f_mkdir;
    for (x.at = 1;; x.at += full ? 3 : 1) {
        fresh(NULL);
        x.call = 0;
        e->publish_fs = &x.fs;
        err failed = engine_publish_all(e, models, files, MODELS);
        e->publish_fs = NULL;
        struct stored s = look();
        if (!failed) {
            assert_true(is_file(&s, 0, "m1.onnx") && is_file(&s, 1, "m2.onnx"));
            stored_done(&s);
            break;
        }
        assert_int_equal(failed, ERR_IO);
        assert_non_null(strstr(err_text(), "No space left on device"));
        assert_non_null(strstr(err_text(), "the old one runs on"));
        bool back = !strstr(err_text(), "could not be put back");
        assert_true(back || full);
        for (int k = 0; k < MODELS; k++) assert_true(is_file(&s, k, k ? "m1.onnx" : "m0.onnx") || (!back && is_file(&s, k, k ? "m2.onnx" : "m1.onnx")));
        stored_done(&s);
    }
    assert_true(x.at > 20);
    let_run(e, 1);
}

/* m0 becomes m1, and m1 m2: all or none. */
static void a_full_disk_leaves_the_box_as_it_was(void **state)
{
    (void)state;
    const char *models[] = {"m0", "m1"}, *files[] = {in_dir("m1.onnx"), in_dir("m2.onnx")};
    struct engine *e = open_box();
    let_run(e, 1);
    every_call_fails_once(e, models, files, false);
    every_call_fails_once(e, models, files, true);
    engine_close(&e);
    free((char *)(uintptr_t)files[0]);
    free((char *)(uintptr_t)files[1]);
}

static void refused(struct engine *e, const char *const *words, int n, const char *sentence)
{
    assert_int_equal(add(e, words, n), ERR_USAGE);
    if (!strstr(err_text(), sentence)) fail_msg("'%s' is not in '%s'", sentence, err_text());
}

static void what_cannot_work_is_refused_at_once(void **state)
{
    (void)state;
    static const char *const files[] = {WORDS("files.yaml", "out", "90")}, *const twice[] = {WORDS("twice.yaml", "out", "90")}, *const guard[] = {WORDS("site.yaml", "out", "90"), "--guard"},
                            *const estimate[] = {"site.yaml", "--estimate"}, *const nowhere[] = {"site.yaml"}, *const begun[] = {WORDS("site.yaml", "begun", "90")};
    struct engine *e = open_box();
    refused(e, files, ARRAY_LEN(files), "m0.onnx is a file, and the box holds equal weights once only for models of the store: 'brim models import ");
    refused(e, twice, ARRAY_LEN(twice), "models 'm0' and 'again' are one model of the store, 'm0': they share it already");
    refused(e, guard, ARRAY_LEN(guard), "--guard is no work for a box");
    refused(e, estimate, ARRAY_LEN(estimate), "--estimate is no work for a box");
    refused(e, nowhere, ARRAY_LEN(nowhere), "--out DIR is needed");
    char *command = xasprintf("mkdir -p '%s/begun' && touch '%s/begun/state.brim'", dir, dir);
    assert_int_equal(system(command), 0);
    free(command);
    refused(e, begun, ARRAY_LEN(begun), "begun holds a search already: --resume goes on with it, or give another --out");
    char made[72];
    struct engine_job_options named = {.kind = "merge", .folder = dir, .words = begun, .n_words = ARRAY_LEN(begun), .publish = "m0"};
    assert_int_equal(engine_job_add(e, &named, made), ERR_USAGE);
    assert_string_equal(err_text(), "a merge replaces the site's models by itself: do without 'publish'");
    const char *models[] = {"m0", "nobody"}, *paths[] = {"x", "y"};
    assert_int_equal(engine_publish_all(e, models, paths, 2), ERR_NOT_FOUND);
    assert_string_equal(err_text(), "the site has no model 'nobody' any more");
    engine_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_box_goes_on),
        cmocka_unit_test_setup(the_box_improves_and_others_are_respected, fresh),
        cmocka_unit_test_setup(nothing_is_published_below_the_target, fresh),
        cmocka_unit_test_setup(a_full_disk_leaves_the_box_as_it_was, fresh),
        cmocka_unit_test_setup(what_cannot_work_is_refused_at_once, fresh),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

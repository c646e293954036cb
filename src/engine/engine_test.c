/* The engine on a tiny site that is made here: two clips of a few dozen frames, a detector and a classifier whose
 * answers can be told in advance, and site files. With `pace: max` every frame is run, so counts are exact; live
 * cameras are waited for, never timed.
 *
 * The detector says "thing" for the right half of any picture with score 0.9; the classifier says how bright its crop
 * is. SPDX-License-Identifier: Apache-2.0 */
#include "base/testing.h"
#include "engine/engine_testing.h"
#include "engine/inside.h"
#include "engine/job.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

enum { NAP_MS = 5 };

static char *folder(void **state)
{
    return *state;
}

static int make_site(void **state)
{
    char *dir = xstrdup("/tmp/brim-engine-XXXXXX");
    assert_non_null(mkdtemp(dir));
    write_clip(dir, "move.mp4", FRAMES, true);
    write_clip(dir, "still.mp4", FRAMES, false);
    write_clip(dir, "short.mp4", 6, true);
    write_model(dir, "det.onnx", true, TENSOR_F32);
    write_text(dir, "det.yaml",
               "card: 1\nhead: ultraface\ninput: {size: [32, 32], std: 255}\noutputs: [scores, boxes]\nlabels: "
               "[thing]\nscore: 0.5\n");
    write_model(dir, "cls.onnx", false, TENSOR_F32);
    write_text(dir, "cls.yaml",
               "card: 1\nhead: classify\ninput: {size: [32, 32], std: 255}\nlabels: [dark, bright]\n");
    write_model(dir, "bytes.onnx", false, TENSOR_U8);
    write_text(dir, "bytes.yaml",
               "card: 1\nhead: classify\ninput: {size: [32, 32], std: 255}\nlabels: [dark, bright]\n");
    write_text(dir, "wrong.yaml", "card: 1\nhead: classify\ninput: {size: [48, 32]}\nlabels: [dark, bright]\n");
    write_text(dir, "three.yaml", "card: 1\nhead: classify\ninput: {size: [32, 32]}\nlabels: [a, b, c]\n");
    write_text(dir, "torn.onnx", "\x08\x07\x12\xff\xff\xff\xff\x0f");
    *state = dir;
    return 0;
}

static int remove_site(void **state)
{
    char *command = xasprintf("rm -rf '%s'", folder(state));
    int failed = system(command);
    free(command);
    free(*state);
    return failed;
}

static struct site *site_of(const char *dir, const char *rest)
{
    struct site *s = NULL;
    char *path = xasprintf("%s/site.yaml", dir);
    char *text = xasprintf("version: 1\nstore: store\nthreads: 1\nprecision: f32\n%s", rest);
    err e = site_load_all(path, text, strlen(text), NULL, &s);
    if (e) print_message("# %s\n", err_text());
    assert_int_equal(e, ERR_OK);
    free(text);
    free(path);
    return s;
}

/* ---- a running box, and what came out of it */

struct box {
    struct mem_budget *budget;
    struct engine *e;
    atomic_int results, events, wrong;
    atomic_int kinds[8];
    atomic_int bright, dark;
    atomic_bool complain;
};

static void sink(void *user, const struct engine_record *r)
{
    static const char *const names[] = {"appeared", "left", "entered", "exited", "crossed", "stayed"};
    struct box *b = user;
    if (atomic_load(&b->complain)) engine_set_problem(b->e, "test", r->frame % 2 ? "odd" : "even");
    if (r->kind == ENGINE_EVENT) {
        atomic_fetch_add(&b->events, 1);
        for (size_t i = 0; i < ARRAY_LEN(names); i++)
            if (!strcmp(r->event, names[i])) atomic_fetch_add(&b->kinds[i], 1);
        return;
    }
    atomic_fetch_add(&b->results, 1);
    for (int i = 0; i < r->n_tracks; i++) {
        const struct engine_track *t = &r->tracks[i];
        if (t->box.x1 < -0.01f || t->box.y1 < -0.01f || t->box.x2 > W + 0.01f || t->box.y2 > H + 0.01f ||
            !(t->box.x1 < t->box.x2))
            b->wrong++;
        atomic_fetch_add(&b->bright, strstr(t->attributes, "bright 0.7") || strstr(t->attributes, "bright 0.8"));
        atomic_fetch_add(&b->dark, strstr(t->attributes, "dark") != NULL);
    }
}

static err box_try(struct box *b, struct site *s, uint64_t limit)
{
    *b = (struct box){.budget = mem_budget_new("host", limit)};
    err e = engine_open(s, &(struct engine_options){.budget = b->budget}, &b->e);
    if (e) {
        site_free(&s);
        return e;
    }
    engine_add_sink(b->e, sink, b);
    return ERR_OK;
}

static void box_start(struct box *b, struct site *s, uint64_t limit)
{
    err e = box_try(b, s, limit);
    if (e) print_message("# %s\n", err_text());
    assert_int_equal(e, ERR_OK);
    assert_int_equal(engine_start(b->e), ERR_OK);
}

/* Everything is given back, whatever happened. */
static void box_end(struct box *b)
{
    engine_close(&b->e);
    assert_int_equal(mem_budget_used(b->budget), 0);
    mem_budget_free(&b->budget);
    assert_int_equal(b->wrong, 0);
}

static void nap(void)
{
    usleep(NAP_MS * 1000);
}

static void box_finish(struct box *b)
{
    for (int i = 0; !engine_finished(b->e); i++) {
        assert_true(i < TESTING_PATIENCE_MS / NAP_MS);
        nap();
    }
    engine_stop(b->e);
}

static struct engine_query_row row(struct box *b, const char *query, const char *camera)
{
    struct engine_query_row *rows, found = {0};
    size_t n = engine_queries(b->e, &rows);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(rows[i].query, query) && !strcmp(rows[i].camera, camera)) found = rows[i];
    free(rows);
    assert_string_equal(found.query, query);
    return found;
}

static struct video_stats camera(struct box *b, const char *name)
{
    struct engine_camera_row *rows;
    struct video_stats v = {0};
    size_t n = engine_cameras(b->e, &rows);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(rows[i].name, name)) v = rows[i].video;
    free(rows);
    return v;
}

static struct engine_model_row model(struct box *b, const char *name)
{
    struct engine_model_row *rows, found = {0};
    size_t n = engine_models(b->e, &rows);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(rows[i].name, name)) found = rows[i];
    free(rows);
    return found;
}

static void await_runs(struct box *b, const char *query, const char *cam, uint64_t runs)
{
    for (int i = 0; row(b, query, cam).stats.run < runs; i++) {
        assert_true(i < TESTING_PATIENCE_MS / NAP_MS);
        nap();
    }
}

static bool pays(struct box *b, const char *payer)
{
    struct mem_row *rows;
    bool found = false;
    size_t n = mem_snapshot(b->budget, &rows);
    for (size_t i = 0; i < n; i++)
        found |= !strcmp(rows[i].payer, payer);
    free(rows);
    return found;
}

/* ---- frames flow */

static void every_frame_is_run_once(void **state)
{
    struct box b;
    box_start(&b,
              site_of(folder(state),
                      "cameras: {move: {url: move.mp4, pace: max}}\nmodels: {det: {onnx: det.onnx}}\nqueries:\n"
                      "  stir: {cameras: all, model: motion, zones: {right: [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]}, "
                      "lines: {mid: [[0.4, 0], [0.4, 1]]}}\n"
                      "  see: {cameras: all, model: det}\n"),
              256 << 20);
    box_finish(&b);
    struct engine_query_row stir = row(&b, "stir", "move"), see = row(&b, "see", "move");
    assert_int_equal(stir.stats.run, FRAMES);
    assert_int_equal(see.stats.run, FRAMES);
    for (int k = 1; k < SCHED_DROP_COUNT; k++)
        assert_int_equal(stir.stats.dropped[k] + see.stats.dropped[k], 0);
    assert_int_equal(atomic_load(&b.results), 2 * FRAMES);
    assert_int_equal(see.detections, FRAMES); /* one thing in each frame */
    assert_int_equal(see.tracks, 1);
    assert_true(stir.tracks >= 1);
    assert_true(b.kinds[0] >= 2); /* appeared: the thing, and what moved */
    assert_true(b.kinds[2] >= 1); /* entered the zone */
    assert_true(b.kinds[4] >= 1); /* crossed the line */
    assert_int_equal(stir.events + see.events, (uint64_t)atomic_load(&b.events));
    assert_string_equal(stir.problem, "");
    assert_true(mem_budget_peak(b.budget) <= 256 << 20);
    json_t *memory = engine_memory(b.e), *why = engine_why(b.e, "move"), *problems = engine_problems(b.e);
    assert_non_null(memory);
    assert_int_equal(json_array_size(json_object_get(why, "queries")), 2);
    assert_true(json_array_size(json_object_get(why, "decisions")) > 0);
    assert_int_equal(json_array_size(problems), 0);
    assert_null(engine_why(b.e, "mov"));
    json_decref(memory), json_decref(why), json_decref(problems);
    box_end(&b);
}

static void rates_are_kept(void **state)
{
    struct box b;
    box_start(&b,
              site_of(folder(state), "cameras: {still: {url: still.mp4, fps: 10}}\n"
                                     "queries: {half: {cameras: all, model: motion, fps: 5}, whole: {cameras: all, "
                                     "model: motion, fps: 100}}\n"),
              256 << 20);
    box_finish(&b);
    uint64_t half = row(&b, "half", "still").stats.offered, whole = row(&b, "whole", "still").stats.offered;
    assert_true(whole <= FRAMES);
    assert_true(half <= whole);
    assert_true(half <= FRAMES / 2 + 2); /* a slow machine may see fewer frames, never more */
    box_end(&b);
}

static void cascades_see_crops(void **state)
{
    struct box b;
    box_start(&b,
              site_of(folder(state), "cameras: {still: {url: still.mp4, pace: max}}\nmodels: {det: {onnx: det.onnx}, "
                                     "cls: {onnx: cls.onnx}}\nqueries:\n"
                                     "  see: {cameras: all, model: det, cascade: [{model: cls, every: 0s}]}\n"
                                     "  whole: {cameras: all, model: cls, track: false}\n"),
              256 << 20);
    box_finish(&b);
    struct engine_query_row see = row(&b, "see", "still"), cls = row(&b, "see>cls", "still"),
                            whole = row(&b, "whole", "still");
    assert_int_equal(see.stats.run, FRAMES);
    assert_int_equal(whole.stats.run, FRAMES);
    assert_true(cls.stats.run >= FRAMES - 4 &&
                cls.stats.run <= FRAMES); /* from the frame in which the track is confirmed */
    assert_true((uint64_t)atomic_load(&b.bright) >=
                2 * cls.stats.run - 4); /* in its own results, and then in the track's */
    assert_true(model(&b, "cls").stats.runs == cls.stats.run + whole.stats.run);
    box_end(&b);
}

static void still_scenes_cost_nothing(void **state)
{
    struct box b;
    box_start(&b,
              site_of(folder(state),
                      "cameras: {still: {url: still.mp4, pace: max}, move: {url: move.mp4, pace: max}}\nmodels: "
                      "{det: {onnx: det.onnx}}\n"
                      "queries: {see: {cameras: all, model: det, motion: {gate: true, hold_ms: 300}}}\n"),
              256 << 20);
    box_finish(&b);
    struct engine_query_row still = row(&b, "see", "still"), move = row(&b, "see", "move");
    assert_int_equal(still.stats.run + still.motion_saved, FRAMES);
    assert_int_equal(move.stats.run + move.motion_saved, FRAMES);
    assert_true(still.stats.run <= 6);
    assert_true(move.stats.run >= FRAMES * 3 / 4);
    box_end(&b);
}

/* ---- reload */

#define LIVE                                                                                                         \
    "cameras: {a: {url: move.mp4, loop: true}, b: {url: still.mp4, loop: true}}\n"                                   \
    "models: {det: {onnx: det.onnx}, cls: {onnx: cls.onnx}}\n"

static void reload_keeps_what_is_the_same(void **state)
{
    struct box b;
    box_start(&b,
              site_of(folder(state), LIVE
                      "queries:\n  keep: {cameras: a, model: det, fps: 10, cascade: [{model: cls}]}\n"
                      "  change: {cameras: b, model: motion, fps: 10}\n  go: {cameras: b, model: cls, fps: 10}\n"),
              256 << 20);
    b.complain = true; /* outputs report problems from inside a run, while a reload waits for it */
    await_runs(&b, "keep", "a", 5), await_runs(&b, "change", "b", 5), await_runs(&b, "go", "b", 1);
    uint64_t kept = row(&b, "keep", "a").stats.run, published = camera(&b, "a").published;
    for (int i = 0; i < 8; i++) {
        char *text = xasprintf(LIVE "queries:\n  keep: {cameras: a, model: det, fps: 10, cascade: [{model: cls}]}\n"
                                    "  change: {cameras: b, model: motion, fps: %d}\n",
                               7 + i % 2);
        assert_int_equal(engine_reload(b.e, site_of(folder(state), text)), ERR_OK);
        free(text);
        assert_true(row(&b, "change", "b").stats.run < 5 + (uint64_t)i); /* begun anew */
        await_runs(&b, "change", "b", 1);
    }
    assert_true(row(&b, "keep", "a").stats.run >= kept);
    assert_true(camera(&b, "a").published >= published);
    assert_int_equal(camera(&b, "a").reconnects + camera(&b, "b").reconnects, 0);
    await_runs(&b, "keep", "a", kept + 5);
    struct engine_query_row *rows;
    assert_int_equal(engine_queries(b.e, &rows), 3); /* `go` is gone */
    free(rows);
    box_end(&b);
}

static void reload_frees_what_is_gone(void **state)
{
    struct box b;
    box_start(
        &b, site_of(folder(state), LIVE "queries: {one: {cameras: a, model: det}, two: {cameras: a, model: cls}}\n"),
        256 << 20);
    await_runs(&b, "one", "a", 1), await_runs(&b, "two", "a", 1);
    assert_true(pays(&b, "model cls") && pays(&b, "head cls"));
    assert_int_equal(engine_reload(b.e, site_of(folder(state), LIVE "queries: {one: {cameras: a, model: det}}\n")),
                     ERR_OK);
    assert_false(pays(&b, "model cls")); /* still in the file, but nobody asks for it */
    assert_int_equal(
        engine_reload(
            b.e,
            site_of(folder(state),
                    "cameras: {a: {url: move.mp4, loop: true}}\nqueries: {stir: {cameras: a, model: motion}}\n")),
        ERR_OK);
    assert_false(pays(&b, "model det"));
    await_runs(&b, "stir", "a", 2);
    assert_int_equal(
        engine_reload(b.e, site_of(folder(state), LIVE "queries: {two: {cameras: [a, b], model: cls}}\n")), ERR_OK);
    await_runs(&b, "two", "a", 2), await_runs(&b, "two", "b", 2);
    box_end(&b);
}

static void reload_that_does_not_fit_changes_nothing(void **state)
{
    struct box b;
    box_start(&b,
              site_of(folder(state), "budget: 64M\ncameras: {a: {url: move.mp4, loop: true}}\nqueries: {stir: "
                                     "{cameras: a, model: motion, fps: 10}}\n"),
              64 << 20);
    await_runs(&b, "stir", "a", 3);
    uint64_t published = camera(&b, "a").published;
    mem_fault_at(b.budget, 0);
    assert_int_equal(
        engine_reload(
            b.e, site_of(folder(state),
                         "budget: 1M\n" LIVE
                         "queries: {one: {cameras: a, model: det}, stir: {cameras: a, model: motion, fps: 10}}\n")),
        ERR_NOMEM);
    assert_int_equal(mem_budget_limit(b.budget), 64 << 20);
    assert_true(camera(&b, "a").published >= published);
    uint64_t runs = row(&b, "stir", "a").stats.run;
    await_runs(&b, "stir", "a", runs + 3);
    assert_false(pays(&b, "model det"));
    assert_int_equal(
        engine_reload(b.e, site_of(folder(state), "budget: 80M\ncameras: {a: {url: move.mp4, loop: true}}\nqueries: "
                                                  "{stir: {cameras: a, model: motion, fps: 9}}\n")),
        ERR_OK);
    assert_int_equal(mem_budget_limit(b.budget), 80 << 20);
    await_runs(&b, "stir", "a", 3);
    box_end(&b);
}

static void reload_tries_again_what_had_a_problem(void **state)
{
    struct box b;
    char *card = xasprintf("%s/late.yaml", folder(state));
    unlink(card);
    const char *text =
        "cameras: {a: {url: move.mp4, loop: true}}\nmodels: {late: {onnx: cls.onnx, card: late.yaml}}\n"
        "queries: {q: {cameras: a, model: late, fps: 10}, stir: {cameras: a, model: motion, fps: 10}}\n";
    box_start(&b, site_of(folder(state), text), 256 << 20);
    await_runs(&b, "stir", "a", 2);
    assert_non_null(strstr(row(&b, "q", "a").problem, "late.yaml"));
    assert_int_equal(engine_reload(b.e, site_of(folder(state), text)), ERR_OK);
    assert_non_null(strstr(row(&b, "q", "a").problem, "late.yaml"));
    write_text(folder(state), "late.yaml",
               "card: 1\nhead: classify\ninput: {size: [32, 32], std: 255}\nlabels: [dark, bright]\n");
    assert_int_equal(engine_reload(b.e, site_of(folder(state), text)), ERR_OK);
    await_runs(&b, "q", "a", 2);
    assert_string_equal(row(&b, "q", "a").problem, "");
    free(card);
    box_end(&b);
}

/* ---- the budget */

#define BOTH                                                                                                         \
    "cameras: {a: {url: move.mp4, loop: true}}\nmodels: {det: {onnx: det.onnx}, cls: {onnx: cls.onnx}}\n"            \
    "queries: {one: {cameras: a, model: det, fps: 10}, two: {cameras: a, model: cls, fps: 10}}\n"

static void too_small_a_budget_names_one_that_would_do(void **state)
{
    struct box b;
    char size[32] = "";
    uint64_t limit = 64 << 10, enough = 0;
    assert_int_equal(box_try(&b, site_of(folder(state), BOTH), limit), ERR_NOMEM);
    print_message("# %s\n", err_text());
    const char *about = strstr(err_text(), "; about ");
    assert_non_null(about);
    assert_int_equal(sscanf(about, "; about %31[0-9.]", size), 1);
    strcat(size, strstr(about, " MiB ") ? "M" : strstr(about, " KiB ") ? "K" : "G");
    assert_true(size_parse(size, &enough));
    assert_int_equal(mem_budget_used(b.budget), 0);
    mem_budget_free(&b.budget);
    box_start(&b, site_of(folder(state), BOTH), enough + enough / 100); /* it was printed with one decimal */
    await_runs(&b, "one", "a", 3), await_runs(&b, "two", "a", 3);
    assert_true(mem_budget_peak(b.budget) <= enough + enough / 100);
    box_end(&b);
}

static void a_smaller_budget_evicts(void **state)
{
    struct box b;
    box_start(&b, site_of(folder(state), "residency: model\n" BOTH), 256 << 20);
    await_runs(&b, "one", "a", 3), await_runs(&b, "two", "a", 3);
    struct engine_model_row det = model(&b, "det"), cls = model(&b, "cls");
    assert_true(det.stats.resident && cls.stats.resident);
    uint64_t weights = MIN(det.stats.weight_bytes, cls.stats.weight_bytes);
    assert_true(weights > 200 << 10);
    assert_int_equal(engine_set_budget(b.e, 64 << 10), ERR_NOMEM); /* less than the floor */
    assert_int_equal(mem_budget_limit(b.budget), 256 << 20);
    uint64_t limit = mem_budget_used(b.budget) - weights / 2;
    assert_int_equal(engine_set_budget(b.e, limit), ERR_OK);
    uint64_t one = row(&b, "one", "a").stats.run, two = row(&b, "two", "a").stats.run;
    await_runs(&b, "one", "a", one + 3), await_runs(&b, "two", "a", two + 3);
    assert_true(model(&b, "det").stats.evictions + model(&b, "cls").stats.evictions > 0);
    mem_budget_reset_peak(b.budget);
    await_runs(&b, "one", "a", one + 6);
    assert_true(mem_budget_peak(b.budget) <= limit);
    box_end(&b);
}

/* The same under block residency: nobody is evicted, weights stream, and the budget goes down and up while everything runs. */
static void a_smaller_budget_streams(void **state)
{
    struct box b;
    box_start(&b, site_of(folder(state), BOTH), 256 << 20);
    await_runs(&b, "one", "a", 3), await_runs(&b, "two", "a", 3);
    uint64_t weights = MIN(model(&b, "det").stats.weight_bytes, model(&b, "cls").stats.weight_bytes);
    uint64_t all = mem_budget_used(b.budget), limit = all - weights / 2;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(engine_set_budget(b.e, limit), ERR_OK);
        uint64_t one = row(&b, "one", "a").stats.run, two = row(&b, "two", "a").stats.run;
        await_runs(&b, "one", "a", one + 3), await_runs(&b, "two", "a", two + 3);
        mem_budget_reset_peak(b.budget);
        await_runs(&b, "one", "a", one + 6);
        assert_true(mem_budget_peak(b.budget) <= limit);
        json_t *blocks = engine_blocks(b.e);
        assert_true(json_integer_value(json_object_get(blocks, "window")) > 0);
        json_decref(blocks);
        struct engine_floor f = engine_floor(b.e);
        uint64_t before = engine_floor_before_weights(&f);
        assert_int_equal(engine_set_budget(b.e, before + f.least_weights / 2), ERR_NOMEM); /* which no division would fit into */
        assert_non_null(strstr(err_text(), "the least part of these"));
        assert_int_equal(mem_budget_limit(b.budget), limit);
        assert_int_equal(engine_set_budget(b.e, 256 << 20), ERR_OK);
        one = row(&b, "one", "a").stats.run, two = row(&b, "two", "a").stats.run;
        await_runs(&b, "one", "a", one + 3), await_runs(&b, "two", "a", two + 3);
        blocks = engine_blocks(b.e);
        assert_int_equal(json_integer_value(json_object_get(blocks, "window")), 0);
        json_decref(blocks);
    }
    box_end(&b);
}

/* ---- what does not work does not stop the rest */

static void a_bad_model_fails_its_queries_only(void **state)
{
    static const struct {
        const char *query, *says;
    } expected[] = {{"gone", "nowhere.onnx"},    {"torn", "torn.onnx"},
                    {"nocard", "has no card"},   {"wrong", "wrong.yaml: says 48 x 32"},
                    {"three", "three.yaml"},     {"bytes", "is uint8"},
                    {"label", "no label 'cow'"}, {"fine>det", "is a detector"}};
    struct box b;
    write_model(folder(state), "bare.onnx", false, TENSOR_F32);
    box_start(&b,
              site_of(folder(state), "cameras: {move: {url: move.mp4, pace: max}}\nmodels:\n  gone: {onnx: "
                                     "nowhere.onnx, card: cls.yaml}\n  torn: {onnx: torn.onnx, card: cls.yaml}\n"
                                     "  nocard: {onnx: bare.onnx}\n  wrong: {onnx: cls.onnx, card: wrong.yaml}\n  "
                                     "three: {onnx: cls.onnx, card: three.yaml}\n  bytes: {onnx: bytes.onnx}\n"
                                     "  cls: {onnx: cls.onnx}\n  det: {onnx: det.onnx}\nqueries:\n"
                                     "  gone: {cameras: all, model: gone}\n  torn: {cameras: all, model: torn}\n  "
                                     "nocard: {cameras: all, model: nocard}\n"
                                     "  wrong: {cameras: all, model: wrong}\n  three: {cameras: all, model: three}\n "
                                     " bytes: {cameras: all, model: bytes}\n"
                                     "  label: {cameras: all, model: cls, objects: cow}\n  fine: {cameras: all, "
                                     "model: cls, cascade: [{model: det}]}\n"),
              256 << 20);
    box_finish(&b);
    for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
        struct engine_query_row r = row(&b, expected[i].query, "move");
        if (!strstr(r.problem, expected[i].says)) print_message("# %s: '%s'\n", r.query, r.problem);
        assert_non_null(strstr(r.problem, expected[i].says));
        assert_int_equal(r.stats.run, 0);
    }
    assert_int_equal(row(&b, "fine", "move").stats.run, FRAMES);
    json_t *problems = engine_problems(b.e);
    assert_int_equal(json_array_size(problems), 6); /* models */
    json_decref(problems);
    box_end(&b);
}

static void a_dead_camera_does_not_stop_the_others(void **state)
{
    struct box b;
    box_start(&b,
              site_of(folder(state), "cameras: {gone: {url: nowhere.mp4}, closed: {url: \"rtsp://127.0.0.1:9/x\"}, "
                                     "garbage: {url: det.onnx}, fine: {url: move.mp4, pace: max}}\n"
                                     "queries: {stir: {cameras: all, model: motion}}\n"),
              256 << 20);
    await_runs(&b, "stir", "fine", FRAMES);
    for (int i = 0; !camera(&b, "gone").error[0] || !camera(&b, "closed").error[0] || !camera(&b, "garbage").error[0];
         i++) {
        assert_true(i < TESTING_PATIENCE_MS / NAP_MS);
        nap();
    }
    assert_int_equal(row(&b, "stir", "fine").stats.run, FRAMES);
    assert_int_equal(row(&b, "stir", "gone").stats.run, 0);
    assert_false(engine_finished(b.e)); /* `closed` may come back */
    box_end(&b);
}

static void pictures_come_when_asked_for(void **state)
{
    struct box b;
    struct engine_picture p;
    box_start(&b, site_of(folder(state), LIVE "queries: {one: {cameras: a, model: det, fps: 10}}\n"), 256 << 20);
    assert_int_equal(engine_picture(b.e, "zebra", &p), ERR_NOT_FOUND);
    for (int i = 0; engine_picture(b.e, "a", &p); i++) {
        assert_true(i < TESTING_PATIENCE_MS / NAP_MS);
        nap();
    }
    assert_int_equal(p.frame->width, W);
    video_frame_unref(&p.frame);
    for (int i = 0; engine_picture(b.e, "b", &p); i++) { /* no query needs b: it comes because it was asked for */
        assert_true(i < TESTING_PATIENCE_MS / NAP_MS);
        nap();
    }
    video_frame_unref(&p.frame);
    box_end(&b);
}

/* ---- every budgeted allocation fails once */

static void every_allocation_may_fail(void **state)
{
    uint64_t n, calls, refused = 0;
    for (n = 1;; n++) {
        struct box b = {.budget = mem_budget_new("host", UINT64_MAX)};
        struct site *s = site_of(
            folder(state),
            "cameras: {short: {url: short.mp4, pace: max}}\nmodels: {det: {onnx: det.onnx}, cls: {onnx: cls.onnx}}\n"
            "queries: {see: {cameras: all, model: det, motion: {gate: true}, cascade: [{model: cls, every: 0s}]}, "
            "stir: {cameras: all, model: motion,"
            " lines: {mid: [[0.4, 0], [0.4, 1]]}}}\n");
        mem_fault_at(b.budget, n);
        err e = engine_open(s, &(struct engine_options){.budget = b.budget}, &b.e);
        if (e) {
            assert_int_equal(e, ERR_NOMEM);
            site_free(&s);
            refused++;
        } else {
            engine_add_sink(b.e, sink, &b);
            assert_int_equal(engine_start(b.e), ERR_OK);
            for (int i = 0; i < 60 && !engine_finished(b.e); i++)
                nap(); /* a camera that was refused waits before it tries again */
            engine_stop(b.e);
        }
        calls = mem_fault_calls(b.budget);
        mem_fault_at(b.budget, 0);
        box_end(&b);
        if (calls < n) break; /* the fault was not reached: all have had their turn */
    }
    print_message("# %llu allocations failed in turn; %llu of them before the box was open\n",
                  (unsigned long long)(n - 1), (unsigned long long)refused);
    assert_true(n > 20 && refused > 5);
}

/* A reload in which one allocation fails leaves a box that runs and, in the end, owes nothing. */
static void a_reload_may_fail_at_every_allocation(void **state)
{
    bool reached = true;
    struct box b;
    box_start(&b,
              site_of(folder(state), "cameras: {a: {url: move.mp4, loop: true}}\nmodels: {cls: {onnx: "
                                     "cls.onnx}}\nqueries: {two: {cameras: a, model: cls, fps: 10}}\n"),
              256 << 20);
    for (uint64_t n = 1; reached && n < 60; n += 3) {
        mem_fault_at(b.budget, n);
        err e = engine_reload(b.e, site_of(folder(state), BOTH));
        reached = mem_fault_calls(b.budget) >= n;
        mem_fault_at(b.budget, 0);
        if (e) assert_int_equal(e, ERR_NOMEM);
        e = engine_reload(b.e,
                          site_of(folder(state), "cameras: {a: {url: move.mp4, loop: true}}\nmodels: {cls: {onnx: "
                                                 "cls.onnx}}\nqueries: {two: {cameras: a, model: cls, fps: 10}}\n"));
        assert_int_equal(e, ERR_OK);
        uint64_t runs = row(&b, "two", "a").stats.run;
        await_runs(&b, "two", "a", runs + 1);
    }
    box_end(&b);
}

/* What is published is opened at once; what cannot run is not kept. */
static void a_published_model_takes_over(void **state)
{
    struct box b;
    char *good = xasprintf("%s/cls.onnx", folder(state)), *bad = xasprintf("%s/bytes.onnx", folder(state));
    char *compare = xasprintf("cmp -s %s %s/live.onnx", good, folder(state));
    write_model(folder(state), "live.onnx", false, TENSOR_U8);
    box_start(&b,
              site_of(folder(state), "cameras: {a: {url: move.mp4, loop: true}}\nmodels:\n  live: {onnx: live.onnx, card: cls.yaml}\n  det: {onnx: det.onnx}\n"
                                     "queries:\n  one: {cameras: a, model: live, fps: 10}\n  two: {cameras: a, model: det, fps: 10}\n"),
              256 << 20);
    assert_non_null(strstr(row(&b, "one", "a").problem, "is uint8"));
    await_runs(&b, "two", "a", 2);
    assert_int_equal(engine_publish(b.e, "live", good), ERR_OK);
    assert_true(row(&b, "two", "a").stats.run >= 2); /* untouched */
    await_runs(&b, "one", "a", 2);
    assert_int_equal(engine_publish(b.e, "live", bad), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "is uint8"));
    assert_non_null(strstr(err_text(), "; the old one runs on"));
    await_runs(&b, "one", "a", 2); /* counted anew: it was opened again */
    assert_int_equal(system(compare), 0);
    assert_int_equal(engine_publish(b.e, "nobody", good), ERR_NOT_FOUND);
    box_end(&b);
    free(compare);
    free(good);
    free(bad);
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_frame_is_run_once),
        cmocka_unit_test(rates_are_kept),
        cmocka_unit_test(cascades_see_crops),
        cmocka_unit_test(still_scenes_cost_nothing),
        cmocka_unit_test(reload_keeps_what_is_the_same),
        cmocka_unit_test(reload_frees_what_is_gone),
        cmocka_unit_test(reload_that_does_not_fit_changes_nothing),
        cmocka_unit_test(reload_tries_again_what_had_a_problem),
        cmocka_unit_test(too_small_a_budget_names_one_that_would_do),
        cmocka_unit_test(a_smaller_budget_evicts),
        cmocka_unit_test(a_smaller_budget_streams),
        cmocka_unit_test(a_bad_model_fails_its_queries_only),
        cmocka_unit_test(a_dead_camera_does_not_stop_the_others),
        cmocka_unit_test(pictures_come_when_asked_for),
        cmocka_unit_test(a_published_model_takes_over),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(a_reload_may_fail_at_every_allocation),
    };
    return cmocka_run_group_tests_name("engine", tests, make_site, remove_site);
}

/* What models share is in memory once, with private batch norms and heads, and down to tensors of a few kilobytes; and the numbers hold.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/import.h"
#include "model/model.h"
#include "model/share.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { MODELS = 3, CONVS = 4 };
static const int64_t CHANNELS[CONVS + 1] = {3, 16, 16, 32, 64};
static const size_t RAW[CONVS] = {16 * 27 * 4, 16 * 144 * 4, 32 * 144 * 4, 64 * 288 * 4}; /* 1.7, 9.2, 18.4 and 73.7 KB */

struct fixture {
    char *dir;
    struct weights_store *s;
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct weights_reader *reader;
};

static int setup(void **state)
{
    struct fixture *f = xnew(struct fixture);
    f->dir = xstrdup("/tmp/brim-share-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    char *store = xasprintf("%s/store", f->dir);
    assert_int_equal(weights_store_open(store, NULL, &f->s), ERR_OK);
    free(store);
    f->budget = mem_budget_new("host", UINT64_MAX);
    f->payer = mem_payer_new(f->budget, "test");
    assert_int_equal(weights_reader_new(&f->reader), ERR_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char *command = xasprintf("rm -rf '%s'", f->dir);
    weights_reader_free(&f->reader);
    weights_store_close(&f->s);
    mem_payer_free(&f->payer);
    mem_budget_free(&f->budget);
    assert_int_equal(system(command), 0);
    free(command);
    free(f->dir);
    free(f);
    return 0;
}

static int constant(struct graph *g, const char *name, int seed, float from, float to, int rank, const int64_t *dims)
{
    struct tensor_shape shape = tensor_shape_of(rank, dims);
    void *p;
    int v;
    assert_int_equal(graph_add_constant(g, name, TENSOR_F32, &shape, &v, &p), ERR_OK);
    for (int64_t i = 0; i < tensor_count(&shape); i++)
        ((float *)p)[i] = from + (to - from) * (float)(hash64(&i, sizeof i, (uint64_t)seed) >> 40) / 16777216.0f;
    return v;
}

static int node(struct graph *g, enum op_kind kind, const int *in, int n_in, int rank, const int64_t *dims)
{
    struct tensor_shape shape = tensor_shape_of(rank, dims);
    char name[24];
    snprintf(name, sizeof name, "v%zu", g->n_values);
    int out = graph_add_value(g, name, TENSOR_F32, &shape);
    struct graph_node *n = graph_add_node(g, kind, "", n_in, 1);
    memcpy(n->op.in, in, (size_t)n_in * sizeof *in);
    n->op.out[0] = out;
    return out;
}

/* Four convolutions of 24 x 24 pictures, each with batch norm and ReLU, and a head of `classes`. weights: seed of the convolutions; own: of norms and
 * head; norms: of the norms. */
static char *make_model(const struct fixture *f, const char *name, int weights, int norms, int own, int64_t classes)
{
    struct graph *g = graph_new("g", 13, f->payer);
    struct tensor_shape in = tensor_shape_of(4, (int64_t[]){1, CHANNELS[0], 24, 24});
    int x = graph_add_input(g, "x", TENSOR_F32, &in);
    for (int i = 0; i < CONVS; i++) {
        char word[5][8];
        int64_t c = CHANNELS[i], o = CHANNELS[i + 1], dims[] = {1, o, 24, 24};
        for (int k = 0; k < 5; k++) snprintf(word[k], sizeof word[k], "%c%d", "wgbmv"[k], i);
        float spread = 1.7f / sqrtf((float)c * 9);
        x = node(g, OP_CONV, (int[]){x, constant(g, word[0], weights + i, -spread, spread, 4, (int64_t[]){o, c, 3, 3})}, 2, 4, dims);
        graph_set_ints(&g->nodes[g->n_nodes - 1], "pads", (int64_t[]){1, 1, 1, 1}, 4);
        int p[] = {x, constant(g, word[1], norms + i, 0.5f, 1.5f, 1, &o), constant(g, word[2], norms + 20 + i, -0.5f, 0.5f, 1, &o),
                   constant(g, word[3], norms + 40 + i, -0.5f, 0.5f, 1, &o), constant(g, word[4], norms + 60 + i, 0.5f, 2, 1, &o)};
        x = node(g, OP_RELU, (int[]){node(g, OP_BATCH_NORM, p, 5, 4, dims)}, 1, 4, dims);
    }
    x = node(g, OP_GLOBAL_AVERAGE_POOL, &x, 1, 4, (int64_t[]){1, 64, 1, 1});
    x = node(g, OP_FLATTEN, &x, 1, 2, (int64_t[]){1, 64});
    x = node(g, OP_GEMM, (int[]){x, constant(g, "head", own, -1, 1, 2, (int64_t[]){64, classes})}, 2, 2, (int64_t[]){1, classes});
    graph_add_output(g, x);
    char *path = xasprintf("%s/%s.onnx", f->dir, name);
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    return path;
}

static void import(const struct fixture *f, const char *name, int weights, int norms, int own, int64_t classes)
{
    struct model_import_report r;
    char *path = make_model(f, name, weights, norms, own, classes);
    if (model_import(f->s, path, name, f->payer, &r)) fail_msg("%s", err_text());
    free(path);
}

/* Weights requested, all at once. */
struct loaded {
    struct model *m;
    struct model_plan *p;
    size_t resident, paid;
};

static void load(const struct fixture *f, const char *name, const char *path, struct loaded *l)
{
    struct model_options o = {.budget = f->budget, .threads = 1, .reader = f->reader, .spill_dir = f->dir};
    err e = path ? model_open(path, name, &o, &l->m) : model_open_stored(f->s, name, name, &o, &l->m);
    if (!e) e = model_plan_new(l->m, NULL, &l->p);
    if (!e) e = model_plan_reserve(l->p);
    if (!e) e = model_request(l->m);
    if (!e) e = model_wait(l->m);
    if (e) fail_msg("%s", err_text());
    assert_string_equal(model_stored_problem(l->m), "");
    l->resident = weights_resident_bytes(model_weights(l->m));
    l->paid = weights_paid_bytes(model_weights(l->m));
}

static void unload(struct loaded *l)
{
    model_release(l->m);
    model_plan_free(&l->p);
    model_free(&l->m);
}

static const char *const NAMES[] = {"a", "b", "c"};

/* Bytes paid by all; of the second model, what it need not pay. */
static size_t resident_bytes(const struct fixture *f, size_t *ret_saved)
{
    struct loaded l[MODELS];
    size_t paid = 0;
    for (int i = 0; i < MODELS; i++) {
        load(f, NAMES[i], NULL, &l[i]);
        paid += l[i].paid;
    }
    *ret_saved = l[1].resident - l[1].paid;
    assert_int_equal(l[2].resident - l[2].paid, *ret_saved);
    assert_int_equal(mem_payer_used(f->payer, MEM_WEIGHTS), 0);
    for (int i = 0; i < MODELS; i++) unload(&l[i]);
    return paid;
}

static void run(const struct loaded *l)
{
    struct tensor in = model_plan_input(l->p, 0);
    float *p = xnewn(float, 3 * 24 * 24);
    for (int k = 0; k < 3 * 24 * 24; k++) p[k] = sinf((float)k);
    struct tensor rows = tensor_view(TENSOR_F32, &in.shape, p);
    assert_int_equal(model_copy(&rows, &in), ERR_OK);
    free(p);
    assert_int_equal(model_plan_run(l->p, NULL), ERR_OK);
}

static void same_numbers_within(const struct loaded *x, const struct loaded *y, float most)
{
    run(x);
    run(y);
    struct tensor a = model_plan_output(x->p, 0), b = model_plan_output(y->p, 0);
    for (int64_t i = 0; i < tensor_count(&a.shape); i++)
        assert_true(fabsf(((float *)a.data)[i] - ((float *)b.data)[i]) <= most * (1 + fabsf(((float *)b.data)[i])));
}

static void same_numbers(const struct fixture *f, const char *name)
{
    struct loaded l[2];
    char *path = xasprintf("%s/%s.onnx", f->dir, name);
    load(f, name, NULL, &l[0]);
    load(f, name, path, &l[1]);
    same_numbers_within(&l[0], &l[1], 2e-5f);
    for (int i = 0; i < 2; i++) unload(&l[i]);
    free(path);
}

static struct model_share_report share(const struct fixture *f, const char *const *names, size_t n)
{
    struct model_share_report r;
    if (model_share(f->s, names, n, &r)) fail_msg("%s", err_text());
    return r;
}

static void shared_bytes_are_resident_once(void **state)
{
    struct fixture *f = *state;
    size_t saved, raw = RAW[1] + RAW[2] + RAW[3]; /* the first is below half a page */
    for (int i = 0; i < MODELS; i++) import(f, NAMES[i], 1000, 100 * (i + 1), 500 * (i + 1), 8 + 4 * i);
    size_t apart = resident_bytes(f, &saved);
    assert_int_equal(saved, 0); /* private norms are folded: nothing that is packed is equal */
    struct model_share_report r = share(f, NULL, 0);
    assert_int_equal(r.models, MODELS);
    assert_int_equal(r.tensors, CONVS);
    assert_int_equal(r.changed, MODELS);
    assert_int_equal(r.bytes, raw + RAW[0]);
    assert_int_equal(r.saved_bytes, 2 * (raw + RAW[0]));
    for (int again = 0; again < 2; again++) { /* packed, then from what was packed */
        size_t together = resident_bytes(f, &saved);
        assert_true(saved >= raw);
        /* what is saved is saved, up to less than a page for each of four blocks in each model */
        assert_true(together + 2 * saved < apart + MODELS * CONVS * 4096);
        assert_true(apart - together >= 2 * raw - MODELS * CONVS * 4096);
    }
    for (int i = 0; i < MODELS; i++) same_numbers(f, NAMES[i]);
    r = share(f, NULL, 0);
    assert_int_equal(r.changed, 0);
}

/* Whatever each would choose alone. */
static void sharers_agree_on_a_precision(void **state)
{
    struct fixture *f = *state;
    struct loaded l[2];
    for (int i = 0; i < 2; i++) import(f, NAMES[i], 1000, 100 * (i + 1), 500 * (i + 1), 8);
    share(f, NULL, 0);
    for (int i = 0; i < 2; i++) {
        struct model_options o = {.budget = f->budget, .threads = 1, .reader = f->reader, .spill_dir = f->dir, .precision = KERNEL_AUTO};
        assert_int_equal(model_open_stored(f->s, NAMES[i], NAMES[i], &o, &l[i].m), ERR_OK);
        assert_int_equal(model_plan_new(l[i].m, NULL, &l[i].p), ERR_OK);
        assert_int_equal(model_precision(l[i].m), KERNEL_F32);
        assert_false(model_precision_pending(l[i].m));
        assert_int_equal(model_request(l[i].m), ERR_OK);
        assert_int_equal(model_wait(l[i].m), ERR_OK);
    }
    assert_true(weights_paid_bytes(model_weights(l[1].m)) + RAW[1] + RAW[2] + RAW[3] <= weights_resident_bytes(model_weights(l[1].m)));
    for (int i = 0; i < 2; i++) unload(&l[i]);
}

/* bf16 that a person asks for: what is shared is packed as bf16 once, at half of its bytes, and the numbers are near those of f32. */
static void bf16_that_is_asked_for_is_shared(void **state)
{
    struct fixture *f = *state;
    struct loaded l[2], alone;
    size_t saved, raw = RAW[1] + RAW[2] + RAW[3];
    for (int i = 0; i < MODELS; i++) import(f, NAMES[i], 1000, 100 * (i + 1), 500 * (i + 1), 8);
    share(f, NULL, 0);
    size_t paid = 0, f32 = resident_bytes(f, &saved);
    for (int again = 0; again < 2; again++) { /* packed, then from what was packed */
        paid = 0;
        for (int i = 0; i < 2; i++) {
            struct model_options o = {.budget = f->budget, .threads = 1, .reader = f->reader, .spill_dir = f->dir, .precision = KERNEL_BF16};
            err e = model_open_stored(f->s, NAMES[i], NAMES[i], &o, &l[i].m);
            if (!e) e = model_plan_new(l[i].m, NULL, &l[i].p);
            if (!e) e = model_plan_reserve(l[i].p);
            if (!e) e = model_request(l[i].m);
            if (!e) e = model_wait(l[i].m);
            if (e) fail_msg("%s", err_text());
            paid += weights_paid_bytes(model_weights(l[i].m));
        }
        if (model_precision(l[0].m) != KERNEL_BF16) {
            for (int i = 0; i < 2; i++) unload(&l[i]);
            print_message("this processor has no bf16\n");
            skip();
        }
        size_t once = weights_resident_bytes(model_weights(l[1].m)) - weights_paid_bytes(model_weights(l[1].m));
        assert_true(once >= raw / 2 && once < raw); /* of the second model, what the first has paid for */
        assert_true(paid < f32);
        load(f, "a", NULL, &alone);
        same_numbers_within(&l[0], &alone, 0.03f);
        unload(&alone);
        for (int i = 0; i < 2; i++) unload(&l[i]);
    }
}

static void shared_norms_are_folded(void **state)
{
    struct fixture *f = *state;
    size_t saved;
    for (int i = 0; i < MODELS; i++) import(f, NAMES[i], 1000, 100, 500 * (i + 1), 8);
    struct model_share_report r = share(f, NULL, 0);
    assert_int_equal(r.tensors, CONVS * 5);
    resident_bytes(f, &saved);
    assert_true(saved >= RAW[1] + RAW[2] + RAW[3]);
    struct loaded l;
    load(f, "a", NULL, &l);
    for (int i = 0; i < model_plan_sizes(l.p).steps; i++) assert_true(model_plan_step(l.p, i).n_post <= 1); /* ReLU alone */
    unload(&l);
    same_numbers(f, "b");
}

static int marks(const struct fixture *f, const char *name, uint32_t *ret_version)
{
    struct weights_manifest m;
    int n = 0;
    assert_int_equal(weights_manifest_current(f->s, name, &m), ERR_OK);
    for (size_t i = 0; i < m.n_tensors; i++) n += m.tensors[i].shared;
    *ret_version = m.version;
    weights_manifest_done(&m);
    return n;
}

static void marks_follow_the_models(void **state)
{
    struct fixture *f = *state;
    uint32_t v;
    for (int i = 0; i < MODELS; i++) import(f, NAMES[i], i < 2 ? 1000 : 3000, 100 * (i + 1), 500 * (i + 1), 8);
    struct model_share_report r = share(f, NULL, 0);
    assert_int_equal(r.models, 2);
    assert_int_equal(r.changed, 2);
    assert_int_equal(marks(f, "a", &v), CONVS);
    assert_int_equal(v, 2);
    assert_int_equal(marks(f, "c", &v), 0);
    assert_int_equal(v, 1);
    import(f, "a", 1000, 100, 500, 8); /* the same file once more: as it was */
    assert_int_equal(marks(f, "a", &v), CONVS);
    assert_int_equal(v, 2);
    import(f, "a", 4000, 100, 500, 8); /* another content */
    assert_int_equal(marks(f, "a", &v), 0);
    assert_int_equal(v, 3);
    assert_int_equal(marks(f, "b", &v), CONVS);
    assert_int_equal(share(f, NULL, 0).changed, 1); /* b has nobody left */
    assert_int_equal(marks(f, "b", &v), 0);
    import(f, "a", 3000, 100, 500, 8);
    const char *two[] = {"a", "b"}, *twice[] = {"a", "a"}, *none[] = {"a", "x"};
    assert_int_equal(share(f, two, 2).tensors, 0); /* only among those that are named */
    assert_int_equal(share(f, NULL, 0).tensors, CONVS);
    assert_int_equal(model_share(f->s, twice, 2, &r), ERR_USAGE);
    assert_int_equal(model_share(f->s, none, 2, &r), ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(shared_bytes_are_resident_once, setup, teardown),
        cmocka_unit_test_setup_teardown(shared_norms_are_folded, setup, teardown),
        cmocka_unit_test_setup_teardown(sharers_agree_on_a_precision, setup, teardown),
        cmocka_unit_test_setup_teardown(bf16_that_is_asked_for_is_shared, setup, teardown),
        cmocka_unit_test_setup_teardown(marks_follow_the_models, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

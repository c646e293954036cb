/* A packed file is deleted, cut, altered or cannot be read while two models stream from theirs through one window:
 * the model it belongs to says so, by name, the other goes on with the right numbers, no byte of the budget is lost,
 * and when the file is whole again so is the model. SPDX-License-Identifier: Apache-2.0 */
#include "model/import.h"
#include "sched/sched.h"
#include "weights/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { SIDE = 256, LAYERS = 6, MODELS = 2 };

struct part {
    struct world *w;
    struct model *model;
    struct model_plan *plan;
    struct sched_model *scheduled;
    struct sched_stream *stream;
    float truth[SIDE];
    bool know_truth;
    char *packed; /* path of its packed file */
    err last;     /* of the last run or drop */
    char text[512];
    int ran, dropped;
};
struct world {
    char *dir;
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct weights_store *store;
    struct weights_reader *reader;
    struct sched *sched;
    uint64_t seq;
    struct part parts[MODELS];
};

/* ---- models */

static float number(int64_t i, uint64_t seed)
{
    return ((float)(hash64(&i, sizeof i, seed) >> 40) / 16777216.0f - 0.5f) / 4;
}

static void import(struct world *w, const char *name, uint64_t seed)
{
    struct graph *g = graph_new("g", 13, w->payer);
    struct tensor_shape x = tensor_shape_of(2, (int64_t[]){1, SIDE}),
                        square = tensor_shape_of(2, (int64_t[]){SIDE, SIDE});
    int value = graph_add_input(g, "x", TENSOR_F32, &x);
    for (int layer = 0; layer < LAYERS; layer++) {
        int weight;
        float *p;
        char wn[16], on[16];
        snprintf(wn, sizeof wn, "w%d", layer);
        snprintf(on, sizeof on, "y%d", layer);
        assert_int_equal(graph_add_constant(g, wn, TENSOR_F32, &square, &weight, (void **)&p), ERR_OK);
        for (int i = 0; i < SIDE * SIDE; i++)
            p[i] = number(i, seed + (uint64_t)layer);
        int out = graph_add_value(g, on, TENSOR_F32, &x);
        struct graph_node *n = graph_add_node(g, OP_MATMUL, "", 2, 1);
        n->op.in[0] = value;
        n->op.in[1] = weight;
        n->op.out[0] = out;
        value = out;
    }
    graph_add_output(g, value);
    char *path = xasprintf("%s/%s.onnx", w->dir, name);
    struct model_import_report r;
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    assert_int_equal(model_import(w->store, path, name, w->payer, &r), ERR_OK);
    free(path);
}

/* The packed file that was not there before: opening the model has written it. */
static char *new_packed(const struct world *w)
{
    char *folder = xasprintf("%s/store/packed", w->dir), *found = NULL;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        char *path = xasprintf("%s/%s", folder, e->d_name);
        bool known = w->parts[0].packed && !strcmp(w->parts[0].packed, path);
        if (known)
            free(path);
        else
            assert_null(found), found = path;
    }
    closedir(d);
    free(folder);
    assert_non_null(found);
    return found;
}

/* ---- running */

static err run(void *user, struct sched_item *item)
{
    struct part *p = user;
    (void)item;
    struct tensor in = model_plan_input(p->plan, 0);
    for (int i = 0; i < SIDE; i++)
        ((float *)in.data)[i] = number(i, 1000);
    err e = model_plan_run(p->plan, NULL);
    p->last = e;
    snprintf(p->text, sizeof p->text, "%s", e ? err_text() : "");
    p->ran++;
    if (e) return e;
    const float *out = model_plan_output(p->plan, 0).data;
    if (!p->know_truth) memcpy(p->truth, out, sizeof p->truth);
    p->know_truth = true;
    assert_memory_equal(p->truth, out, sizeof p->truth);
    return ERR_OK;
}

static void drop(void *user, struct sched_item *item, enum sched_drop why)
{
    struct part *p = user;
    (void)item, (void)why;
    p->dropped++;
}

static const struct sched_stream_ops ops = {run, drop};

/* Both models, one after the other, `times` times. */
static void both(struct world *w, int times)
{
    for (int k = 0; k < times; k++) {
        for (int i = 0; i < MODELS; i++)
            sched_offer(w->sched, w->parts[i].stream,
                        &(struct sched_item){.arrived_ns = clock_ns(), .seq = w->seq++});
        while (sched_step(w->sched)) {
        }
    }
}

static int set_up(void **state, enum weights_reader_kind kind)
{
    struct world *w = xnew(struct world);
    *state = w;
    w->dir = xstrdup("/tmp/brim-fault-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    char *store = xasprintf("%s/store", w->dir);
    assert_int_equal(weights_store_open(store, NULL, &w->store), ERR_OK);
    w->budget = mem_budget_new("host", UINT64_MAX);
    w->payer = mem_payer_new(w->budget, "window");
    assert_int_equal(weights_reader_new_with(kind, &w->reader), ERR_OK);
    assert_int_equal(sched_new(w->budget, NULL, NULL, &w->sched), ERR_OK);
    sched_set_blocks(w->sched, w->payer, w->reader, 0);
    for (int i = 0; i < MODELS; i++) {
        struct part *p = &w->parts[i];
        const char *name = i ? "second" : "first";
        p->w = w;
        import(w, name, (uint64_t)i * 100 + 1);
        struct model_options o = {.budget = w->budget, .threads = 1, .reader = w->reader, .spill_dir = w->dir};
        assert_int_equal(model_open_stored(w->store, name, name, &o, &p->model), ERR_OK);
        assert_int_equal(model_plan_new(p->model, NULL, &p->plan), ERR_OK);
        assert_int_equal(model_plan_reserve(p->plan), ERR_OK);
        p->packed = new_packed(w);
        p->scheduled = sched_model_add(w->sched, p->model, false, 5);
        sched_model_set_plans(w->sched, p->scheduled, p->plan, NULL);
        p->stream = sched_stream_add(w->sched, &(struct sched_stream_options){.name = name,
                                                                              .model = p->scheduled,
                                                                              .period_ns = 100000000,
                                                                              .priority = 5,
                                                                              .capacity = 1,
                                                                              .ops = &ops,
                                                                              .user = p});
    }
    mem_budget_set_limit(w->budget, mem_budget_used(w->budget) + (768 << 10)); /* of 3 MiB of weights */
    free(store);
    both(w, 3);
    assert_true(sched_blocks_get_stats(w->sched).window > 0);
    for (int i = 0; i < MODELS; i++)
        assert_int_equal(w->parts[i].ran, 3);
    return 0;
}

static int with_uring(void **state)
{
    return set_up(state, WEIGHTS_URING);
}

static int without(void **state)
{
    return set_up(state, WEIGHTS_PREAD);
}

static int tear_down(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < MODELS; i++)
        sched_stream_remove(w->sched, &w->parts[i].stream);
    for (int i = 0; i < MODELS; i++)
        sched_model_remove(w->sched, &w->parts[i].scheduled);
    for (int i = 0; i < MODELS; i++) {
        model_plan_free(&w->parts[i].plan);
        model_free(&w->parts[i].model); /* before the window, which is the scheduler's */
    }
    sched_free(&w->sched);
    for (int i = 0; i < MODELS; i++)
        free(w->parts[i].packed);
    weights_reader_free(&w->reader);
    weights_store_close(&w->store);
    mem_payer_free(&w->payer);
    assert_int_equal(mem_budget_used(w->budget), 0); /* nothing was lost on the way */
    mem_budget_free(&w->budget);
    char *command = xasprintf("rm -rf '%s'", w->dir);
    assert_int_equal(system(command), 0);
    free(command);
    free(w->dir);
    free(w);
    return 0;
}

/* ---- what happens to the first model's file; `bytes` is what was there */

static void put_back(const char *path, const unsigned char *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, n, 0), n);
    assert_int_equal(fsync(fd), 0); /* direct reads see it */
    assert_int_equal(close(fd), 0);
}

static unsigned char *read_all(const char *path, size_t *ret_n)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && !fstat(fd, &st));
    unsigned char *p = xcalloc((size_t)st.st_size, 1);
    assert_int_equal(pread(fd, p, (size_t)st.st_size, 0), st.st_size);
    close(fd);
    *ret_n = (size_t)st.st_size;
    return p;
}

/* The first fails with `code` and says its name, the second does not notice; the budget holds. */
static void first_fails(struct world *w, err code, const char *says)
{
    struct part *first = &w->parts[0], *second = &w->parts[1];
    mem_budget_reset_peak(w->budget);
    int before = second->ran, failures = 0;
    for (int i = 0; i < 5; i++) {
        first->last = ERR_OK;
        both(w, 1);
        assert_int_equal(second->last, ERR_OK);
        if (!first->last) continue;
        failures++;
        assert_int_equal(first->last, code);
        assert_non_null(strstr(first->text, "first"));
        assert_non_null(strstr(first->text, says));
    }
    assert_in_range(failures, 4, 5); /* blocks that had been read ahead may serve one run */
    assert_int_equal(second->ran, before + 5);
    assert_true(mem_budget_peak(w->budget) <= mem_budget_limit(w->budget));
}

static void both_run_again(struct world *w)
{
    int ran[MODELS] = {w->parts[0].ran, w->parts[1].ran};
    both(w, 2); /* of the first, blocks that failed may have been read ahead */
    both(w, 2);
    for (int i = 0; i < MODELS; i++) {
        assert_int_equal(w->parts[i].last, ERR_OK);
        assert_int_equal(w->parts[i].ran, ran[i] + 4);
    }
}

static void an_altered_file(void **state)
{
    struct world *w = *state;
    size_t n;
    unsigned char *bytes = read_all(w->parts[0].packed, &n), *bad = xcalloc(n, 1);
    memcpy(bad, bytes, n);
    for (size_t i = 4096 + 100; i + 4096 < n; i += 64 << 10)
        bad[i] ^= 1; /* one bit in each checked part */
    put_back(w->parts[0].packed, bad, n);
    first_fails(w, ERR_CORRUPT, "altered on disk");
    put_back(w->parts[0].packed, bytes, n);
    both_run_again(w);
    free(bad);
    free(bytes);
}

static void a_cut_file(void **state)
{
    struct world *w = *state;
    size_t n;
    unsigned char *bytes = read_all(w->parts[0].packed, &n);
    assert_int_equal(truncate(w->parts[0].packed, 4096), 0);
    first_fails(w, ERR_CORRUPT, "the file ends there");
    put_back(w->parts[0].packed, bytes, n);
    both_run_again(w);
    free(bytes);
}

/* Its descriptor keeps it alive: nothing is to be noticed. */
static void a_deleted_file(void **state)
{
    struct world *w = *state;
    assert_int_equal(unlink(w->parts[0].packed), 0);
    both_run_again(w);
}

/* Puts a descriptor that cannot be read in place of each of this process's that is open on the file. */
static void break_descriptors(const char *path, int *ret_fds, int *ret_copies, int *ret_n)
{
    struct stat want, st;
    assert_int_equal(stat(path, &want), 0);
    int broken = open("/dev/null", O_WRONLY | O_CLOEXEC);
    *ret_n = 0;
    for (int fd = 3; fd < 900 && *ret_n < 8; fd++) {
        if (fd == broken || fstat(fd, &st) || st.st_ino != want.st_ino || st.st_dev != want.st_dev) continue;
        ret_fds[*ret_n] = fd;
        ret_copies[*ret_n] = fcntl(fd, F_DUPFD_CLOEXEC, 1024 - 100);
        assert_true(ret_copies[*ret_n] >= 0 && dup2(broken, fd) == fd);
        (*ret_n)++;
    }
    close(broken);
    assert_true(*ret_n > 0);
}

static void a_disk_that_is_gone(void **state)
{
    struct world *w = *state;
    int fds[8], copies[8], n;
    break_descriptors(w->parts[0].packed, fds, copies, &n);
    first_fails(w, ERR_IO, "first");
    for (int i = 0; i < n; i++) {
        assert_int_equal(dup2(copies[i], fds[i]), fds[i]);
        close(copies[i]);
    }
    both_run_again(w);
}

int main(void)
{
#define BOTH(f)                                                                                                      \
    cmocka_unit_test_setup_teardown(f, with_uring, tear_down),                                                       \
    {                                                                                                                \
#f " (pread)", f, without, tear_down, NULL                                                                   \
    }
    const struct CMUnitTest tests[] = {BOTH(an_altered_file), BOTH(a_cut_file), BOTH(a_deleted_file),
                                       BOTH(a_disk_that_is_gone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

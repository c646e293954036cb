/* Training in a box: a box that is killed while it trains goes on to the same bits as the command, a budget that is too small is refused with a sentence, the n-th
 * allocation of the job may fail and the box runs on, what comes out replaces a model of the site. Pictures and networks are made here.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/train.h"
#include "engine/engine.h"
#include "engine/job_testing.h"
#include "serve/testing.h"
#include "train/job.h"
#include "weights/fs.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

enum { MB = 1 << 20, SIDE = 32, PICTURES = 60 };

static char *dir;

static char *in_dir(const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

static void say_file(const char *name, const char *text)
{
    char *path = in_dir(name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    free(path);
}

static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    dir = xasprintf("%s/brim-boxjob-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) return -1;
    char *data = in_dir("data.bin");
    FILE *f = fopen(data, "wbe");
    for (int i = 0; f && i < PICTURES; i++) {
        fputc(i % 3, f);
        for (int k = 0; k < 3 * SIDE * SIDE; k++) fputc((i * 7 + k * 13) % 100 + (k / (SIDE * SIDE) == i % 3 ? 120 : 20), f);
    }
    free(data);
    say_file("site.yaml", "version: 1\nbudget: 300M\nstore: store\noutputs: {http: off, database: off}\n");
    return f ? fclose(f) : -1;
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

#define WORDS(out) "--model", "cifar-resnet20", "--size", "32", "--data", "data.bin", "--out", out, "--epochs", "2", "--batch", "8", "--threads", "1"

static err run_here(void *user, struct train_job_options *o)
{
    o->idle = false; /* or this thread would starve on a busy machine, as idle threads should */
    return train_job(o, NULL, NULL, user);
}

/* ---- kinds for tests */

static _Atomic(uint64_t) fault; /* the n-th allocation of a job fails */
static atomic_llong calls;      /* how many the last run made */
static char sentence[512];

static err run_faulty(void *user, struct train_job_options *o)
{
    struct engine_job_run *r = user;
    struct train_result result;
    o->host = r->budget;
    o->stop = r->stop;
    o->idle = false;
    mem_fault_at(r->budget, fault);
    err e = train_job(o, NULL, NULL, &result);
    atomic_store(&calls, (long long)mem_fault_calls(r->budget));
    return e;
}

static err faulty(struct engine_job_run *r)
{
    return cli_train_words(r->folder, r->words, r->n_words, run_faulty, r);
}

static err checked(const char *folder, const char *const *words, int n)
{
    return cli_train_kind.check(folder, words, n);
}

static struct engine_job_kind kinds[2];

static struct engine *open_box(const char *site_name)
{
    char *path = in_dir(site_name);
    struct site *site;
    struct engine *e;
    kinds[0] = cli_train_kind;
    kinds[1] = (struct engine_job_kind){.name = "faulty", .check = checked, .run = faulty};
    kinds[0].normal = kinds[1].normal = true;
    assert_int_equal(site_load(path, &site), ERR_OK);
    assert_int_equal(engine_open(site, &(struct engine_options){0}, &e), ERR_OK);
    engine_job_kinds(e, kinds, 2);
    assert_int_equal(engine_start(e), ERR_OK);
    free(path);
    return e;
}

static err add(struct engine *e, const char *kind, const char *name, const char *const *words, int n, const char *publish)
{
    char made[72];
    return engine_job_add(e, &(struct engine_job_options){.name = name, .kind = kind, .folder = dir, .words = words, .n_words = n, .publish = publish}, made);
}

static struct engine_job_row wait_for(struct engine *e, const char *name, enum engine_job_state state)
{
    return job_testing_wait(e, name, state);
}

static void same_file(const char *a_name, const char *b_name)
{
    char *a = in_dir(a_name), *b = in_dir(b_name);
    unsigned char *p, *q;
    size_t n, m;
    assert_int_equal(weights_fs_get(&weights_fs_system, a, 1 << 24, &p, &n), ERR_OK);
    assert_int_equal(weights_fs_get(&weights_fs_system, b, 1 << 24, &q, &m), ERR_OK);
    assert_int_equal(n, m);
    assert_memory_equal(p, q, n);
    free(p);
    free(q);
    free(a);
    free(b);
}

/* ---- */

/* In a child, before anything of OpenMP ran here. */
static void box_until_killed(void)
{
    static const char *const words[] = {WORDS("box")};
    struct engine *e = open_box("site.yaml");
    if (!job_testing_row(e, "killed").state && add(e, "train", "killed", words, ARRAY_LEN(words), NULL)) _exit(1);
    for (;;) job_testing_nap(100);
}

static void a_killed_box_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    static const char *const words[] = {WORDS("here")};
    char *last = in_dir("box/last.brim");
    for (int round = 0; round < 2; round++) {
        pid_t child = fork();
        if (!child) box_until_killed();
        assert_true(child > 0);
        int64_t end = testing_deadline();
        for (; access(last, F_OK) && clock_ns() < end; job_testing_nap(5)) {}
        job_testing_nap(40 + 100 * round);
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
    }
    struct engine *e = open_box("site.yaml");
    struct engine_job_row r = wait_for(e, "killed", ENGINE_JOB_DONE);
    assert_true(r.done == 1 && r.bytes == 0 && (r.need > MB || r.seconds == 0)); /* 0: a fast machine was done before it was killed */
    engine_close(&e);
    struct train_result result;
    assert_int_equal(cli_train_words(dir, words, ARRAY_LEN(words), run_here, &result), ERR_OK);
    same_file("here/last.onnx", "box/last.onnx");
    same_file("here/best.onnx", "box/best.onnx");
    free(last);
}

static void a_small_box_refuses(void **state)
{
    (void)state;
    static const char *const words[] = {WORDS("small"), "--batch", "512"}, *const other[] = {WORDS("small"), "--optimizer", "sdg"}, *const again[] = {WORDS("here")};
    struct engine *e = open_box("site.yaml");
    uint64_t used = mem_budget_used(engine_budget(e));
    assert_int_equal(engine_set_budget(e, 24 * MB), ERR_OK);
    assert_int_equal(add(e, "train", "small", words, ARRAY_LEN(words), NULL), ERR_OK);
    struct engine_job_row r = wait_for(e, "small", ENGINE_JOB_FAILED);
    assert_non_null(strstr(r.why, "job 'small' needs "));
    assert_non_null(strstr(r.why, " of its 24.0 MiB: raise its budget, or give the job less to do (a smaller --batch)"));
    assert_int_equal(mem_budget_used(engine_budget(e)), used);
    assert_true(mem_budget_peak(engine_budget(e)) <= 24 * MB);
    assert_int_equal(add(e, "train", "typo", other, ARRAY_LEN(other), NULL), ERR_USAGE);
    assert_string_equal(err_text(), "--optimizer: 'sdg' is none of sgd, adamw, lamb; did you mean 'sgd'?");
    assert_int_equal(add(e, "train", "twice", again, ARRAY_LEN(again), NULL), ERR_USAGE);
    assert_non_null(strstr(err_text(), "here/last.brim: a job's checkpoint is there; --resume goes on with it"));
    engine_close(&e);
}

/* Allocations from the first to the last, in growing steps: the job fails with that allocation's sentence, the box owes nothing, and the next job runs. */
static void any_allocation_of_a_job_may_fail(void **state)
{
    (void)state;
    static const char *const words[] = {WORDS("faulty"), "--max-steps", "2"};
    struct engine *e = open_box("site.yaml");
    uint64_t used = mem_budget_used(engine_budget(e));
    for (uint64_t n = 1;; n = n < 10 ? n + 1 : n + n / 3) {
        fault = n;
        char *command = xasprintf("rm -rf '%s/faulty'", dir);
        assert_int_equal(system(command), 0);
        free(command);
        assert_int_equal(add(e, "faulty", "faulty", words, ARRAY_LEN(words), NULL), ERR_OK);
        struct engine_job_row r;
        for (;; job_testing_nap(1)) {
            r = job_testing_row(e, "faulty");
            if (r.state > ENGINE_JOB_RUNNING) break;
        }
        assert_int_equal(mem_budget_used(engine_budget(e)), used);
        snprintf(sentence, sizeof sentence, "%s", r.why);
        assert_int_equal(r.state, ENGINE_JOB_FAILED);
        if ((uint64_t)atomic_load(&calls) < n) break;
        assert_true(strstr(sentence, "(injected fault)") || strstr(sentence, "stopped after 2 updates")); /* some are only wishes: a faster kernel, a folded constant */
        assert_int_equal(engine_job_remove(e, "faulty"), ERR_OK);
    }
    assert_non_null(strstr(sentence, "stopped after 2 updates; --resume goes on")); /* no allocation failed: --max-steps ended it */
    fault = 0;
    engine_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_box_goes_on_to_the_same_bits),
        cmocka_unit_test(a_small_box_refuses),
        cmocka_unit_test(any_allocation_of_a_job_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

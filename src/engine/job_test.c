/* Jobs beside the cameras, with a kind of job that only counts: one after the other, what is refused and what pauses when the budget shrinks, what is on disk and
 * goes on after the box, every way of stopping. SPDX-License-Identifier: Apache-2.0 */
#include "engine/job_testing.h"
#include "engine/job_inside.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { MB = 1 << 20 };

static char *dir;

/* words: bytes to hold in MiB, steps of 2 ms (0: for ever), what it ends with ("ok", "corrupt"), a file that gets 'b' (begun) or 'a' (again) each time. */
static err count(struct engine_job_run *r)
{
    void *p = NULL;
    long megabytes = strtol(r->words[0], NULL, 10), steps = strtol(r->words[1], NULL, 10);
    FILE *f = fopen(r->words[3], "ae");
    assert_non_null(f);
    fputc(r->again ? 'a' : 'b', f);
    assert_int_equal(fclose(f), 0);
    err e = mem_budget_hold(r->budget, (uint64_t)megabytes * MB);
    if (e) return e;
    struct mem_payer *payer = mem_payer_new(r->budget, "count");
    e = mem_alloc(payer, MEM_TRAINING, (size_t)megabytes * MB, &p);
    for (long i = 1; !e && (i <= steps || !steps); i++) {
        if (atomic_load(r->stop)) e = err_set(ERR_CANCELLED, "stopped");
        struct engine_job_progress told = {.done = steps ? (double)i / (double)steps : 0.5, .eta_s = 1, .n = 1, .numbers = {{"step", (double)i}}};
        r->tell(r, &told);
        job_testing_nap(2);
    }
    mem_free(payer, MEM_TRAINING, p, (size_t)megabytes * MB);
    mem_payer_free(&payer);
    return e ? e : strcmp(r->words[2], "ok") ? err_set(ERR_CORRUPT, "it counted wrong") : ERR_OK;
}

static err four_words(const char *folder, const char *const *words, int n)
{
    (void)folder, (void)words;
    return n == 4 ? ERR_OK : err_set(ERR_USAGE, "four words, not %d", n);
}

static const struct engine_job_kind kinds[] = {{.name = "count", .check = four_words, .run = count, .normal = true}};

/* ---- a box without cameras */

/* `jobs`: of the site. */
static struct site *site_with(const char *budget, const char *jobs)
{
    char *path = xasprintf("%s/site.yaml", dir), *text = xasprintf("version: 1\nbudget: %s\nstore: store\n%s", budget, jobs);
    struct site *site;
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    if (site_load(path, &site)) fail_msg("%s", err_text());
    free(path);
    free(text);
    return site;
}

static struct engine *open_box_with(const char *budget, const char *jobs)
{
    struct engine *e;
    assert_int_equal(engine_open(site_with(budget, jobs), &(struct engine_options){0}, &e), ERR_OK);
    engine_job_kinds(e, kinds, 1);
    assert_int_equal(engine_start(e), ERR_OK);
    return e;
}

static struct engine *open_box(const char *budget)
{
    return open_box_with(budget, "");
}

static int setup(void **state)
{
    const char *tmp = getenv("TMPDIR");
    (void)state;
    dir = xasprintf("%s/brim-jobs-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
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

static err add(struct engine *e, const char *name, const char *megabytes, const char *steps, const char *end)
{
    char *log = xasprintf("%s/%s.log", dir, name), made[72] = "";
    const char *words[] = {megabytes, steps, end, log};
    err x = engine_job_add(e, &(struct engine_job_options){.name = name, .kind = "count", .folder = "/", .words = words, .n_words = 4}, made);
    if (!x) assert_string_equal(made, name);
    free(log);
    return x;
}

static struct engine_job_row wait_for(struct engine *e, const char *name, enum engine_job_state state)
{
    for (int64_t end = testing_deadline(); clock_ns() < end; job_testing_nap(2)) {
        struct engine_job_row r = job_testing_row(e, name);
        if (r.state == state && (state != ENGINE_JOB_RUNNING || r.n)) return r;
    }
    fail_msg("%s is not %s but %s: %s", name, engine_job_state_name(state), engine_job_state_name(job_testing_row(e, name).state), job_testing_row(e, name).why);
    return (struct engine_job_row){0};
}

static void wait_for_reason(struct engine *e, const char *name)
{
    for (int64_t end = testing_deadline(); !job_testing_row(e, name).why[0] && clock_ns() < end;) job_testing_nap(2);
    assert_true(job_testing_row(e, name).why[0]);
}

static void log_is(const char *name, const char *text)
{
    char *path = xasprintf("%s/%s.log", dir, name), got[32] = {0};
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_true(fread(got, 1, sizeof got - 1, f) > 0);
    fclose(f);
    free(path);
    assert_string_equal(got, text);
}

static bool has_problem(struct engine *e, const char *says)
{
    json_t *list = engine_problems(e);
    size_t i;
    const json_t *p;
    bool found = false;
    json_array_foreach(list, i, p)
        found = found || strstr(json_string_value(p), says);
    json_decref(list);
    return found;
}

/* ---- */

static void jobs_run_one_after_the_other(void **state)
{
    (void)state;
    struct engine *e = open_box("200M");
    assert_int_equal(add(e, "one", "10", "0", "ok"), ERR_OK);
    assert_int_equal(add(e, "two", "20", "5", "ok"), ERR_OK);
    assert_int_equal(add(e, "three", "0", "3", "corrupt"), ERR_OK);
    assert_int_equal(add(e, "one", "0", "3", "ok"), ERR_BUSY);
    assert_non_null(strstr(err_text(), "there is a job 'one' already"));
    struct engine_job_row r = wait_for(e, "one", ENGINE_JOB_RUNNING);
    assert_int_equal(r.bytes, 10 * MB);
    assert_int_equal(job_testing_row(e, "two").state, ENGINE_JOB_WAITING);
    assert_string_equal(r.numbers[0].name, "step");
    assert_int_equal(engine_job_remove(e, "one"), ERR_BUSY);
    assert_int_equal(engine_job_start(e, "one"), ERR_USAGE);
    assert_int_equal(engine_job_stop(e, "one"), ERR_OK);
    wait_for(e, "one", ENGINE_JOB_STOPPED);
    r = wait_for(e, "two", ENGINE_JOB_DONE);
    assert_int_equal(r.need, 20 * MB);
    assert_int_equal(r.bytes, 0);
    assert_true(r.done == 1);
    r = wait_for(e, "three", ENGINE_JOB_FAILED);
    assert_string_equal(r.why, "it counted wrong");
    json_t *problems = engine_problems(e);
    assert_int_equal(json_array_size(problems), 1);
    assert_string_equal(json_string_value(json_array_get(problems, 0)), "job three: it counted wrong");
    json_decref(problems);
    assert_int_equal(engine_job_start(e, "two"), ERR_USAGE);
    assert_int_equal(engine_job_stop(e, "two"), ERR_USAGE);
    assert_int_equal(engine_job_remove(e, "three"), ERR_OK);
    assert_int_equal(engine_job_stop(e, "three"), ERR_NOT_FOUND);
    assert_string_equal(err_text(), "no job 'three'; there are: one, two");
    problems = engine_problems(e);
    assert_int_equal(json_array_size(problems), 0);
    json_decref(problems);
    assert_int_equal(engine_job_start(e, "one"), ERR_OK);
    wait_for(e, "one", ENGINE_JOB_RUNNING);
    log_is("one", "ba");
    engine_close(&e); /* stops it */
}

static void the_box_refuses_what_it_cannot_give(void **state)
{
    (void)state;
    struct engine *e = open_box("64M");
    uint64_t used = mem_budget_used(engine_budget(e));
    assert_int_equal(add(e, "large", "100", "5", "ok"), ERR_OK);
    struct engine_job_row r = wait_for(e, "large", ENGINE_JOB_FAILED);
    assert_non_null(strstr(r.why, "job 'large' needs 100.0 MiB at least, and the box can do without "));
    assert_non_null(strstr(r.why, " of its 64.0 MiB: raise its budget"));
    assert_int_equal(r.need, 100 * MB);
    assert_int_equal(mem_budget_used(engine_budget(e)), used);
    assert_int_equal(engine_set_budget(e, 200 * MB), ERR_OK);
    assert_int_equal(engine_job_start(e, "large"), ERR_OK);
    wait_for(e, "large", ENGINE_JOB_DONE);
    log_is("large", "ba");
    engine_close(&e);
}

static void a_smaller_budget_pauses_it(void **state)
{
    (void)state;
    struct engine *e = open_box("200M");
    assert_int_equal(add(e, "paused", "90", "0", "ok"), ERR_OK);
    wait_for(e, "paused", ENGINE_JOB_RUNNING);
    assert_int_equal(engine_set_budget(e, 64 * MB), ERR_OK);
    assert_true(mem_budget_used(engine_budget(e)) <= 64 * MB); /* its bytes were back before the limit was lowered */
    struct engine_job_row r = wait_for(e, "paused", ENGINE_JOB_WAITING);
    assert_int_equal(r.pauses, 1);
    assert_true(*r.why);
    assert_int_equal(engine_set_budget(e, 200 * MB), ERR_OK);
    r = wait_for(e, "paused", ENGINE_JOB_RUNNING);
    assert_string_equal(r.why, "");
    log_is("paused", "ba");
    assert_int_equal(engine_set_budget(e, 150 * MB), ERR_OK); /* it fits: nothing happens to it */
    assert_int_equal(job_testing_row(e, "paused").state, ENGINE_JOB_RUNNING);
    assert_int_equal(engine_set_budget(e, 64 * MB), ERR_OK);
    wait_for(e, "paused", ENGINE_JOB_WAITING);
    assert_int_equal(engine_job_stop(e, "paused"), ERR_OK);
    assert_int_equal(job_testing_row(e, "paused").state, ENGINE_JOB_STOPPED);
    engine_close(&e);
}

static void edit(const char *name, const char *text)
{
    char *path = xasprintf("%s/store/jobs/%s", dir, name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    free(path);
}

static void jobs_outlive_the_box(void **state)
{
    (void)state;
    struct engine *e = open_box("200M");
    assert_int_equal(add(e, "long", "10", "0", "ok"), ERR_OK);
    assert_int_equal(add(e, "next", "10", "4", "ok"), ERR_OK);
    wait_for(e, "long", ENGINE_JOB_RUNNING);
    engine_close(&e);
    edit("broken.json", "{");
    edit("other.json", "{\"version\": 1, \"name\": \"other\", \"do\": \"dance\", \"words\": []}");
    edit("wrong.json", "{\"version\": 1, \"name\": \"../wrong\", \"do\": \"count\", \"words\": []}");
    edit("4711-long.json", "half a");
    char *log = xasprintf("%s/dies.log", dir),
         *dies = xasprintf("{\"version\": 1, \"name\": \"dies\", \"do\": \"count\", \"folder\": \"/\", \"words\": [\"1\", \"1\", \"ok\", \"%s\"], \"state\": \"running\", "
                           "\"starts\": 5, \"number\": 99}", log);
    edit("dies.json", dies);
    e = open_box("200M");
    struct engine_job_row *rows;
    wait_for(e, "long", ENGINE_JOB_RUNNING);
    log_is("long", "ba");
    size_t n = engine_jobs(e, &rows);
    assert_string_equal(rows[n - 1].name, "dies");
    assert_string_equal(rows[n - 2].name, "next");
    free(rows);
    assert_int_equal(job_testing_row(e, "broken").state, 0);
    assert_int_equal(job_testing_row(e, "other").state, 0);
    assert_int_equal(engine_job_stop(e, "long"), ERR_OK);
    wait_for(e, "next", ENGINE_JOB_DONE);
    struct engine_job_row r = wait_for(e, "dies", ENGINE_JOB_FAILED);
    assert_string_equal(r.why, "the box ended 5 times while it ran; 'brim job start dies' tries again");
    assert_int_equal(access(log, F_OK), -1);
    assert_true(has_problem(e, "job dies: the box ended 5 times"));
    assert_int_equal(engine_job_start(e, "dies"), ERR_OK);
    assert_false(has_problem(e, "job dies"));
    wait_for(e, "dies", ENGINE_JOB_DONE);
    engine_close(&e);
    e = open_box("200M");
    assert_int_equal(job_testing_row(e, "long").state, ENGINE_JOB_STOPPED);
    assert_int_equal(job_testing_row(e, "next").state, ENGINE_JOB_DONE);
    engine_close(&e);
    char *left = xasprintf("%s/store/jobs/4711-long.json", dir);
    assert_int_equal(access(left, F_OK), -1);
    free(left);
    free(dies);
    free(log);
}

static void wrong_jobs_are_refused_at_once(void **state)
{
    (void)state;
    const char *words[] = {"0", "1", "ok", "x"};
    struct engine *e = open_box("64M");
    char name[72] = "", long_name[80];
    memset(long_name, 'a', sizeof long_name);
    long_name[65] = 0;
    const char *bad[] = {"", "1st", "a/b", ".hidden", "with space", long_name};
    struct engine_job_options o = {.kind = "count", .folder = "/", .words = words, .n_words = 4};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        o.name = bad[i];
        assert_int_equal(engine_job_add(e, &o, name), ERR_USAGE);
    }
    o.name = NULL;
    o.n_words = 3;
    assert_int_equal(engine_job_add(e, &o, name), ERR_USAGE);
    assert_string_equal(err_text(), "four words, not 3");
    o.n_words = 4;
    o.publish = "nobody";
    assert_int_equal(engine_job_add(e, &o, name), ERR_NOT_FOUND);
    o.publish = NULL;
    o.folder = "here";
    assert_int_equal(engine_job_add(e, &o, name), ERR_USAGE);
    o.folder = "/";
    o.kind = "dance";
    assert_int_equal(engine_job_add(e, &o, name), ERR_USAGE);
    o.kind = "count";
    words[3] = "\xff";
    assert_int_equal(engine_job_add(e, &o, name), ERR_USAGE);
    assert_string_equal(name, "");
    char *log = xasprintf("%s/unnamed.log", dir);
    words[3] = log;
    assert_int_equal(engine_job_add(e, &o, name), ERR_OK);
    assert_string_equal(name, "count-1");
    assert_int_equal(engine_job_add(e, &o, name), ERR_OK);
    assert_string_equal(name, "count-2");
    wait_for(e, "count-2", ENGINE_JOB_DONE);
    struct engine_job_row *rows;
    for (size_t n = engine_jobs(e, &rows); n < ENGINE_MAX_JOBS; n++) {
        assert_int_equal(engine_job_add(e, &o, name), ERR_OK);
    }
    free(rows);
    assert_int_equal(engine_job_add(e, &o, name), ERR_LIMIT);
    engine_close(&e);
    free(log);
}

/* The n-th charge of the box fails while a job grows: it fails or waits, the box goes on and owes nothing. */
static void a_fault_ends_the_job_not_the_box(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 3; n++) {
        char name[16];
        snprintf(name, sizeof name, "fault%d", (int)n);
        char *command = xasprintf("rm -rf '%s/store'", dir);
        assert_int_equal(system(command), 0);
        free(command);
        struct engine *e = open_box("64M");
        uint64_t used = mem_budget_used(engine_budget(e));
        mem_fault_at(engine_budget(e), n);
        assert_int_equal(add(e, name, "8", "3", "ok"), ERR_OK);
        struct engine_job_row r;
        do {
            r = job_testing_row(e, name);
        } while (r.state == ENGINE_JOB_WAITING || r.state == ENGINE_JOB_RUNNING);
        mem_fault_at(engine_budget(e), 0);
        assert_true(r.state == ENGINE_JOB_DONE || r.state == ENGINE_JOB_FAILED); /* a fault that passes is waited out */
        assert_int_equal(mem_budget_used(engine_budget(e)), used);
        engine_close(&e);
    }
}

/* ---- of the site file */

/* Hours that begin so many minutes from now and last two hours. */
static const char *hours(int from_now, char buf[16])
{
    struct tm t;
    time_t now = time(NULL);
    assert_non_null(localtime_r(&now, &t));
    int from = (60 * t.tm_hour + t.tm_min + from_now + 1440) % 1440, to = (from + 120) % 1440;
    snprintf(buf, 16, "%02d:%02d-%02d:%02d", from / 60, from % 60, to / 60, to % 60);
    return buf;
}

static void hours_of_the_day(void **state)
{
    (void)state;
    assert_true(engine_job_in_hours(-1, -1, 0));
    assert_true(engine_job_in_hours(60, 120, 60) && engine_job_in_hours(60, 120, 119) && !engine_job_in_hours(60, 120, 120) && !engine_job_in_hours(60, 120, 59));
    assert_true(engine_job_in_hours(1320, 360, 1320) && engine_job_in_hours(1320, 360, 0) && engine_job_in_hours(1320, 360, 359) && !engine_job_in_hours(1320, 360, 360) &&
                !engine_job_in_hours(1320, 360, 1319));
}

static bool has_file(const char *name)
{
    char *path = xasprintf("%s/store/jobs/%s.json", dir, name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

static void reload(struct engine *e, const char *jobs)
{
    if (engine_reload(e, site_with("200M", jobs))) fail_msg("%s", err_text());
}

static void of_the_site(void **state)
{
    (void)state;
    char now[16], later[16], *first, *second, *third;
    hours(-60, now);
    hours(240, later);
    first = xasprintf("jobs:\n  night: {do: count, words: [1, 3, ok, %s/night.log]}\n  later: {do: count, words: '1 0 ok %s/later.log', between: \"%s\"}\n"
                      "  bad: {do: count, words: one}\n  odd: {do: bake, words: []}\n", dir, dir, later);
    second = xasprintf("jobs:\n  later: {do: count, words: '1 0 ok %s/later.log', between: \"%s\"}\n", dir, now);
    third = xasprintf("jobs:\n  later: {do: count, words: '1 3 ok %s/anew.log'}\n", dir);
    struct engine *e = open_box_with("200M", first);
    wait_for(e, "night", ENGINE_JOB_DONE);
    assert_true(has_problem(e, "four words, not 1") && has_problem(e, "there are no jobs of the kind 'bake'"));
    wait_for_reason(e, "later");
    assert_int_equal(job_testing_row(e, "later").state, ENGINE_JOB_WAITING);
    assert_non_null(strstr(job_testing_row(e, "later").why, "it runs from "));
    engine_close(&e);

    e = open_box_with("200M", first); /* what is done stays done, and what waits for its hours does not begin */
    wait_for_reason(e, "later");
    char *log = xasprintf("%s/later.log", dir);
    assert_int_equal(access(log, F_OK), -1);
    free(log);
    assert_int_equal(job_testing_row(e, "night").state, ENGINE_JOB_DONE);
    log_is("night", "b");
    assert_int_equal(add(e, "mine", "1", "3", "ok"), ERR_OK);
    reload(e, second); /* its hours begin; another's entry goes; one that was given by hand stays */
    wait_for(e, "later", ENGINE_JOB_RUNNING);
    assert_int_equal(job_testing_row(e, "night").state, 0);
    assert_false(has_file("night"));
    assert_true(has_file("later") && has_file("mine"));

    char *ended = xasprintf("jobs:\n  later: {do: count, words: '1 0 ok %s/later.log', between: \"%s\"}\n", dir, later);
    reload(e, ended); /* and end */
    wait_for(e, "later", ENGINE_JOB_WAITING);
    assert_non_null(strstr(job_testing_row(e, "later").why, "it runs from "));
    assert_int_equal(job_testing_row(e, "later").pauses, 0);
    reload(e, second);
    wait_for(e, "later", ENGINE_JOB_RUNNING);
    log_is("later", "ba");
    reload(e, third); /* other words: another job */
    struct engine_job_row r = wait_for(e, "later", ENGINE_JOB_DONE);
    assert_string_equal(r.why, "");
    assert_true(has_file("later"));
    log_is("anew", "b");
    engine_close(&e);
    free(first), free(second), free(third), free(ended);
}

/* A name that somebody used by hand is his. */
static void of_the_site_and_by_hand(void **state)
{
    (void)state;
    char *jobs = xasprintf("jobs: {night: {do: count, words: [1, 3, ok, %s/other.log]}}\n", dir);
    struct engine *e = open_box("200M");
    assert_int_equal(add(e, "night", "1", "3", "ok"), ERR_OK);
    wait_for(e, "night", ENGINE_JOB_DONE);
    reload(e, jobs);
    assert_true(has_problem(e, "one of that name was given to the box by hand; 'brim job remove night', or rename it"));
    assert_int_equal(engine_job_remove(e, "night"), ERR_OK);
    reload(e, jobs);
    wait_for(e, "night", ENGINE_JOB_DONE);
    assert_false(has_problem(e, "by hand"));
    log_is("other", "b");
    engine_close(&e);
    free(jobs);
}

/* The manager had chosen it when another site was given to the box, whose models need the memory: it begins afterwards. */
static void none_begins_while_the_site_changes(void **state)
{
    (void)state;
    struct engine *e = open_box("200M");
    engine_jobs_give_way(e, 0);
    assert_int_equal(add(e, "chosen", "1", "3", "ok"), ERR_OK);
    pthread_mutex_lock(&e->jobs->lock);
    struct engine_job *j = e->jobs->list;
    pthread_mutex_unlock(&e->jobs->lock);
    engine_job_begin(j);
    assert_int_equal(job_testing_row(e, "chosen").state, ENGINE_JOB_WAITING);
    engine_jobs_go_on(e);
    wait_for(e, "chosen", ENGINE_JOB_DONE);
    log_is("chosen", "b");
    engine_close(&e);
}

static void what_cannot_be_removed_stays(void **state)
{
    (void)state;
    struct engine *e = open_box("200M");
    char *file = xasprintf("%s/store/jobs/stuck.json", dir);
    assert_int_equal(add(e, "stuck", "1", "1", "ok"), ERR_OK);
    wait_for(e, "stuck", ENGINE_JOB_DONE);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(engine_make_folders(file), ERR_OK); /* a folder in its place cannot be unlinked */
    assert_int_equal(engine_job_remove(e, "stuck"), ERR_IO);
    assert_non_null(strstr(err_text(), "/store/jobs/stuck.json cannot be removed, and the job would be there again"));
    assert_int_equal(job_testing_row(e, "stuck").state, ENGINE_JOB_DONE);
    assert_int_equal(rmdir(file), 0);
    assert_int_equal(engine_job_remove(e, "stuck"), ERR_OK);
    assert_int_equal(job_testing_row(e, "stuck").state, 0);
    engine_close(&e);
    free(file);
}

static atomic_bool over, looked;

/* What the control socket and the page do at any time. */
static void *reloads(void *arg)
{
    do {
        if (engine_reload(arg, site_with("200M", ""))) abort();
    } while (!atomic_load(&over));
    if (engine_reload(arg, site_with("200M", ""))) abort();
    return NULL;
}

static void *looks(void *arg)
{
    struct engine_job_row *rows;
    do {
        engine_jobs(arg, &rows);
        free(rows);
        atomic_store_explicit(&looked, true, memory_order_relaxed);
    } while (!atomic_load(&over));
    return NULL;
}

/* Reloads and snapshots while it starts, while it stops, and after: nothing runs then. (The thread sanitizer sees what is wrong.) */
static void a_box_is_asked_while_it_starts_and_stops(void **state)
{
    (void)state;
    struct engine *e = open_box("200M");
    assert_int_equal(add(e, "kept", "1", "0", "ok"), ERR_OK);
    wait_for(e, "kept", ENGINE_JOB_RUNNING);
    engine_close(&e);
    for (int i = 0; i < 3; i++) {
        pthread_t reloader, looker;
        assert_int_equal(engine_open(site_with("200M", ""), &(struct engine_options){0}, &e), ERR_OK);
        engine_job_kinds(e, kinds, 1);
        atomic_store(&over, false);
        atomic_store(&looked, false);
        assert_int_equal(pthread_create(&looker, NULL, looks, e), 0);
        while (!atomic_load_explicit(&looked, memory_order_relaxed)) job_testing_nap(1);
        assert_int_equal(pthread_create(&reloader, NULL, reloads, e), 0);
        assert_int_equal(engine_start(e), ERR_OK);
        wait_for(e, "kept", ENGINE_JOB_RUNNING);
        engine_stop(e);
        atomic_store(&over, true);
        pthread_join(reloader, NULL);
        pthread_join(looker, NULL);
        assert_int_equal(job_testing_row(e, "kept").state, ENGINE_JOB_WAITING);
        engine_close(&e);
    }
}

/* What was wrong with them goes with them; and one that a person removed comes again when the site is read, not when the budget changes. */
static void of_the_site_and_gone(void **state)
{
    (void)state;
    char *jobs = xasprintf("jobs:\n  wrong: {do: count, words: '0 1 corrupt %s/wrong.log'}\n  bad: {do: count, words: one}\n  night: {do: count, words: [1, 3, ok, %s/night.log]}\n", dir, dir);
    struct engine *e = open_box_with("200M", jobs);
    wait_for(e, "night", ENGINE_JOB_DONE);
    wait_for(e, "wrong", ENGINE_JOB_FAILED);
    assert_true(has_problem(e, "job wrong: it counted wrong") && has_problem(e, "job bad: four words, not 1"));
    assert_int_equal(engine_job_remove(e, "night"), ERR_OK);
    assert_int_equal(engine_set_budget(e, 150 * MB), ERR_OK);
    assert_int_equal(job_testing_row(e, "night").state, 0);
    assert_false(has_file("night"));
    log_is("night", "b");
    reload(e, jobs);
    wait_for(e, "night", ENGINE_JOB_DONE);
    log_is("night", "bb");
    assert_true(has_problem(e, "job wrong: it counted wrong") && has_problem(e, "job bad: four words, not 1"));
    reload(e, "");
    assert_false(has_problem(e, "job "));
    assert_int_equal(job_testing_row(e, "wrong").state, 0);
    engine_close(&e);
    free(jobs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(jobs_run_one_after_the_other, setup, teardown),
        cmocka_unit_test_setup_teardown(the_box_refuses_what_it_cannot_give, setup, teardown),
        cmocka_unit_test_setup_teardown(a_smaller_budget_pauses_it, setup, teardown),
        cmocka_unit_test_setup_teardown(jobs_outlive_the_box, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_jobs_are_refused_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_fault_ends_the_job_not_the_box, setup, teardown),
        cmocka_unit_test(hours_of_the_day),
        cmocka_unit_test_setup_teardown(of_the_site, setup, teardown),
        cmocka_unit_test_setup_teardown(of_the_site_and_by_hand, setup, teardown),
        cmocka_unit_test_setup_teardown(of_the_site_and_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(none_begins_while_the_site_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_removed_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(a_box_is_asked_while_it_starts_and_stops, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Tests of the writer of lines and of MOT files: a reader that does not read costs lines and never waits; a full disk (a limit on the size
 * of files, as SQLite's test has it) leaves whole lines, and what waited is written when there is room again; and a whole
 * box on such a disk goes on. SPDX-License-Identifier: Apache-2.0 */
#include "serve/lines.h"
#include "serve/mot_files.h"
#include "serve/testing.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

struct place {
    char dir[64], path[96];
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct serve_count count;
    pthread_mutex_t lock; /* guards said */
    char said[256];
    atomic_int told;
};

static int begin(void **state)
{
    struct place *p = xnew(struct place);
    snprintf(p->dir, sizeof p->dir, "/tmp/brim-lines-XXXXXX");
    if (!mkdtemp(p->dir)) return 1;
    snprintf(p->path, sizeof p->path, "%s/lines", p->dir);
    p->budget = mem_budget_new("host", UINT64_MAX);
    p->payer = mem_payer_new(p->budget, "files");
    pthread_mutex_init(&p->lock, NULL);
    signal(SIGXFSZ, SIG_IGN);
    *state = p;
    return 0;
}

static int end(void **state)
{
    struct place *p = *state;
    char *command = xasprintf("rm -rf %s", p->dir);
    int rc = system(command);
    free(command);
    mem_payer_free(&p->payer);
    mem_budget_free(&p->budget);
    pthread_mutex_destroy(&p->lock);
    free(p);
    return rc;
}

static void on_problem(void *user, const char *sentence)
{
    struct place *p = user;
    atomic_fetch_add(&p->told, 1);
    pthread_mutex_lock(&p->lock);
    snprintf(p->said, sizeof p->said, "%s", sentence);
    pthread_mutex_unlock(&p->lock);
}

static void wait_said(struct place *p, const char *word)
{
    bool good = false;
    for (int64_t end = testing_deadline(); clock_ns() < end && !good;) {
        pthread_mutex_lock(&p->lock);
        good = *word ? strstr(p->said, word) != NULL : !p->said[0];
        pthread_mutex_unlock(&p->lock);
        if (!good) usleep(10000);
    }
    if (!good) fail_msg("'%s' was not said", word);
}

static struct serve_lines *open_lines(struct place *p)
{
    struct serve_lines *l = NULL;
    const struct serve_lines_options o = {.path = p->path, .payer = p->payer, .count = &p->count, .problem = on_problem, .user = p};
    assert_int_equal(serve_lines_open(&o, &l), ERR_OK);
    return l;
}

/* Line i has its number and as many letters as that says. */
static size_t line_text(int i, char ret[512])
{
    return (size_t)snprintf(ret, 512, "%d %.*s\n", i, i % 300,
                            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                            "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
                            "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc");
}

static void put_line(struct serve_lines *l, int i)
{
    char text[512];
    serve_lines_put(l, text, line_text(i, text));
}

/* All lines whole and in rising order; returns how many. */
static int check_lines(FILE *f, int *ret_last)
{
    char got[1024], want[512];
    int n = 0, last = -1;
    while (fgets(got, sizeof got, f)) {
        int i = atoi(got);
        line_text(i, want);
        assert_string_equal(got, want);
        assert_true(i > last);
        last = i;
        n++;
    }
    if (ret_last) *ret_last = last;
    return n;
}

static int check_file(const char *path, int *ret_last)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    int n = check_lines(f, ret_last);
    fclose(f);
    return n;
}

static void a_file_gets_every_line(void **state)
{
    struct place *p = *state;
    struct serve_lines *l = open_lines(p);
    for (int i = 0; i < 50000; i++) put_line(l, i); /* eight times what the queue holds */
    serve_lines_close(&l);
    assert_int_equal(check_file(p->path, NULL), 50000);
    assert_int_equal(p->count.written, 50000);
    assert_int_equal(p->count.slow + p->count.failed, 0);
}

/* A FIFO that is open for reading and never read holds 64 KiB; then the queue fills. */
static void a_reader_that_does_not_read_costs_lines_only(void **state)
{
    struct place *p = *state;
    assert_int_equal(mkfifo(p->path, 0600), 0);
    struct serve_lines *l = open_lines(p);
    int fd = open(p->path, O_RDONLY | O_NONBLOCK);
    for (int i = 0; i < 20000; i++) put_line(l, i);
    assert_true(p->count.slow > 10000);
    wait_said(p, "does not read");
    fcntl(fd, F_SETFL, 0); /* it reads after all: first what waited, then what comes now, whole lines all */
    FILE *f = fdopen(fd, "r");
    char got[512], want[512];
    int last = -1;
    unsigned long long waited = 20000 - atomic_load(&p->count.slow);
    for (unsigned long long i = 0; i < waited; i++) {
        assert_non_null(fgets(got, sizeof got, f));
        line_text(atoi(got), want); /* short ones may have found room where a long one did not */
        assert_string_equal(got, want);
        assert_true(atoi(got) > last);
        last = atoi(got);
    }
    wait_said(p, "");
    put_line(l, 30000);
    assert_non_null(fgets(got, sizeof got, f));
    assert_int_equal(atoi(got), 30000);
    for (int i = 0; i < 20000; i++) put_line(l, i); /* and stops again: closing does not wait for it */
    serve_lines_close(&l);
    fclose(f);
    assert_int_equal(p->count.written + p->count.slow, 40001);
}

static void limit_files(rlim_t bytes)
{
    struct rlimit r;
    getrlimit(RLIMIT_FSIZE, &r);
    r.rlim_cur = bytes == RLIM_INFINITY ? r.rlim_max : bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void a_full_disk_leaves_whole_lines(void **state)
{
    struct place *p = *state;
    struct serve_lines *l = open_lines(p);
    limit_files(10000); /* in the middle of a line */
    for (int i = 0; i < 1000; i++) put_line(l, i);
    wait_said(p, "File too large");
    int last, n = check_file(p->path, &last); /* cut back, while it fails */
    assert_true(n > 10 && n == last + 1);
    for (int i = 1000; i < 20000; i++) put_line(l, i); /* more than waits: the newest go */
    int others = p->told;
    usleep(2500000); /* it is tried again, and nothing else is said about it */
    assert_int_equal(p->told, others);
    limit_files(RLIM_INFINITY);
    wait_said(p, "");
    put_line(l, 20000);
    serve_lines_close(&l);
    n = check_file(p->path, &last);
    assert_int_equal(last, 20000);
    assert_int_equal(p->count.written, n);
    assert_true(p->count.failed > 1000);
    assert_int_equal(p->count.written + p->count.failed, 20001);
}

static void half_a_line_of_a_killed_box_is_ended(void **state)
{
    struct place *p = *state;
    FILE *f = fopen(p->path, "w");
    fputs("1 a\n2 a", f);
    fclose(f);
    struct serve_lines *l = open_lines(p);
    put_line(l, 3);
    serve_lines_close(&l);
    char text[64] = "";
    f = fopen(p->path, "r");
    assert_true(fread(text, 1, sizeof text - 1, f) > 0);
    fclose(f);
    assert_string_equal(text, "1 a\n2 a\n3 aaa\n");
}

static void no_memory_for_the_queue(void **state)
{
    struct place *p = *state;
    struct serve_lines *l = NULL;
    const struct serve_lines_options o = {.path = p->path, .payer = p->payer};
    mem_fault_at(p->budget, 1);
    assert_int_equal(serve_lines_open(&o, &l), ERR_NOMEM);
    mem_fault_at(p->budget, 0);
    assert_null(l);
}

/* ---- MOT */

static void mot_files_come_back(void **state)
{
    struct place *p = *state;
    struct engine_track t = {.id = 7, .box = {1, 2, 11, 22}, .score = 0.5f};
    struct engine_record r = {.kind = ENGINE_RESULT, .camera = "yard", .query = "stir", .n_tracks = 1, .tracks = &t};
    struct serve_mots *m = serve_mots_new(p->path, &p->count, on_problem, p); /* the folder is not there */
    serve_mots_write(m, &r);
    wait_said(p, "No such file");
    assert_int_equal(mkdir(p->path, 0700), 0);
    for (int64_t end = testing_deadline(); clock_ns() < end && p->said[0];) usleep(100000), r.frame++, serve_mots_write(m, &r);
    wait_said(p, "");
    assert_int_equal(p->count.written, 1);
    limit_files(200); /* cuts a line */
    for (int i = 0; i < 50; i++) r.frame++, serve_mots_write(m, &r);
    wait_said(p, "File too large");
    limit_files(RLIM_INFINITY);
    for (int64_t end = testing_deadline(); clock_ns() < end && p->said[0];) usleep(100000), r.frame++, serve_mots_write(m, &r);
    wait_said(p, "");
    serve_mots_free(&m);
    char *path = xasprintf("%s/yard.stir.txt", p->path), line[256];
    FILE *f = fopen(path, "r");
    unsigned long long n = 0;
    while (fgets(line, sizeof line, f)) {
        assert_non_null(strstr(line, ",7,1.00,2.00,10.00,20.00,0.5000,-1,-1,-1\n"));
        n++;
    }
    fclose(f);
    free(path);
    assert_int_equal(n, p->count.written);
    assert_true(p->count.failed > 0);
}

/* ---- a whole box */

static bool has_problem(const struct box *b, const char *what)
{
    char *want = xasprintf("brim_problem{what=\"%s\"} 1\n", what);
    struct reply r = get(b, "/metrics");
    bool has = strstr(r.body, want) != NULL;
    reply_done(&r);
    free(want);
    return has;
}

static void wait_problem(const struct box *b, const char *what, bool there)
{
    for (int64_t end = testing_deadline(); clock_ns() < end;) {
        serve_tick(b->serve);
        if (has_problem(b, what) == there) return;
        usleep(100000);
    }
    fail_msg("the problem '%s' %s", what, there ? "did not come" : "stays");
}

static void every_line_is_json(const char *path)
{
    char *line = NULL;
    size_t cap = 0;
    FILE *f = fopen(path, "r");
    int n = 0;
    while (getline(&line, &cap, f) > 0) {
        json_t *j = json_loads(line, 0, NULL);
        if (!j) fail_msg("no JSON: %s", line);
        json_decref(j);
        n++;
    }
    assert_true(n > 10);
    free(line);
    fclose(f);
}

static void a_box_on_a_full_disk_goes_on(void **state)
{
    struct box b;
    (void)state;
    assert_int_equal(box_open(&b, ", jsonl: lines, mot: mot", ""), 0);
    box_wait_events(&b, 2);
    limit_files(64); /* no file grows: database, lines, tracks */
    wait_problem(&b, "jsonl", true);
    wait_problem(&b, "mot", true);
    wait_problem(&b, "database", true);
    struct reply r = get(&b, "/healthz");
    assert_int_equal(r.status, 200);
    reply_done(&r);
    limit_files(RLIM_INFINITY);
    wait_problem(&b, "jsonl", false);
    wait_problem(&b, "mot", false);
    wait_problem(&b, "database", false);
    json_t *j = get_json(&b, "/api/v1/events?limit=1000", 200);
    size_t n = json_array_size(json_object_get(j, "events"));
    json_decref(j);
    box_wait_events(&b, n + 2); /* events are written again */
    char *path = xasprintf("%s/lines", b.dir);
    engine_stop(b.engine);
    serve_close(&b.serve);
    every_line_is_json(path);
    free(path);
    box_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_gets_every_line, begin, end),
        cmocka_unit_test_setup_teardown(a_reader_that_does_not_read_costs_lines_only, begin, end),
        cmocka_unit_test_setup_teardown(a_full_disk_leaves_whole_lines, begin, end),
        cmocka_unit_test_setup_teardown(half_a_line_of_a_killed_box_is_ended, begin, end),
        cmocka_unit_test_setup_teardown(no_memory_for_the_queue, begin, end),
        cmocka_unit_test_setup_teardown(mot_files_come_back, begin, end),
        cmocka_unit_test_setup_teardown(a_box_on_a_full_disk_goes_on, begin, end),
    };
    return cmocka_run_group_tests_name("serve-lines", tests, NULL, NULL);
}

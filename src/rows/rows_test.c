/* Tests of rows: what was reported is on disk after kill -9, a full disk loses nothing that fits into memory, one owner, old and new schemas.
 * SPDX-License-Identifier: Apache-2.0 */
#include "rows/rows.h"

#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

struct place {
    char dir[64], path[96];
    struct mem_budget *budget;
};

static int begin(void **state)
{
    struct place *p = xnew(struct place);
    snprintf(p->dir, sizeof p->dir, "/tmp/brim-rows-XXXXXX");
    if (!mkdtemp(p->dir)) return 1;
    snprintf(p->path, sizeof p->path, "%s/events.db", p->dir);
    p->budget = mem_budget_new("host", UINT64_MAX);
    *state = p;
    return 0;
}

static int end(void **state)
{
    struct place *p = *state;
    char *command = xasprintf("rm -rf %s", p->dir);
    int rc = system(command);
    free(command);
    mem_budget_free(&p->budget);
    free(p);
    return rc;
}

static struct rows_event event(int i)
{
    struct rows_event e = {.time = 1000 + i, .track = i, .frame = (uint64_t)i * 10, .score = 0.5, .box = {1, 2, 3, 4}};
    memcpy(e.uid, &i, sizeof i);
    snprintf(e.camera, sizeof e.camera, "cam%d", i % 3);
    snprintf(e.query, sizeof e.query, "people");
    snprintf(e.event, sizeof e.event, i % 2 ? "entered" : "left");
    return e;
}

static void events_are_found_again(void **state)
{
    struct place *p = *state;
    struct rows *r;
    assert_int_equal(rows_open(&(struct rows_options){.path = p->path, .budget = p->budget, .outbox = true}, &r), ERR_OK);
    for (int i = 1; i <= 1000; i++) {
        struct rows_event e = event(i);
        rows_add(r, &e);
    }
    assert_int_equal(rows_flush(r, 10000), ERR_OK);
    rows_close(&r);
    assert_int_equal(rows_open(&(struct rows_options){.path = p->path, .budget = p->budget, .outbox = true}, &r), ERR_OK);
    struct rows_event *found;
    int n;
    assert_int_equal(rows_events(r, &(struct rows_filter){.camera = "cam1", .event = "entered", .limit = 5}, &found, &n), ERR_OK);
    assert_int_equal(n, 5);
    assert_int_equal(found[0].track, 997);
    assert_true(found[0].box[3] == 4);
    free(found);
    assert_int_equal(rows_events(r, &(struct rows_filter){.since = 1500, .until = 1510, .oldest_first = true, .limit = 100}, &found, &n), ERR_OK);
    assert_int_equal(n, 11);
    assert_int_equal(found[0].track, 500);
    free(found);
    assert_int_equal(rows_events(r, &(struct rows_filter){.after_id = 998, .oldest_first = true, .limit = 100}, &found, &n), ERR_OK);
    assert_int_equal(n, 2);
    free(found);
    assert_int_equal(rows_outbox_count(r), 1000);
    int64_t *ids;
    assert_int_equal(rows_outbox(r, 0, &found, &ids, &n, 3), ERR_OK);
    assert_int_equal(n, 3);
    assert_int_equal(found[2].track, 3);
    assert_int_equal(rows_outbox_done(r, ids[0]), ERR_OK);
    free(found), free(ids);
    assert_int_equal(rows_outbox_trim(r, 10), 989);
    assert_int_equal(rows_outbox_count(r), 10);
    rows_close(&r);
}

static void only_one_owner(void **state)
{
    struct place *p = *state;
    struct rows *r, *other = NULL;
    struct rows_options o = {.path = p->path, .budget = p->budget};
    assert_int_equal(rows_open(&o, &r), ERR_OK);
    assert_int_equal(rows_open(&o, &other), ERR_BUSY);
    assert_null(other);
    rows_close(&r);
}

static void newer_schemas_and_other_files_are_refused(void **state)
{
    struct place *p = *state;
    struct rows *r = NULL;
    struct rows_options o = {.path = p->path, .budget = p->budget};
    sqlite3 *db;
    assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
    sqlite3_exec(db, "PRAGMA user_version=99", NULL, NULL, NULL);
    sqlite3_close(db);
    assert_int_equal(rows_open(&o, &r), ERR_UNSUPPORTED);
    FILE *f = fopen(p->path, "w");
    for (int i = 0; i < 5000; i++) fputc(i * 7 + 1, f);
    fclose(f);
    assert_int_equal(rows_open(&o, &r), ERR_CORRUPT);
    assert_null(r);
}

/* ---- kill -9: whatever `committed` told is there afterwards */

static void tell(void *user, const struct rows_event *events, int n)
{
    int fd = *(int *)user;
    for (int i = 0; i < n; i++)
        if (write(fd, &events[i].track, sizeof events[i].track) < 0) _exit(3);
}

static void child(const struct place *p, int fd, int first)
{
    struct rows *r;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    if (rows_open(&(struct rows_options){.path = p->path, .budget = b, .committed = tell, .user = &fd}, &r)) _exit(2);
    for (int i = first;; i++) {
        struct rows_event e = event(i);
        rows_add(r, &e);
        usleep(200);
    }
}

static void killed_at_any_moment(void **state)
{
    struct place *p = *state;
    int first = 1, told = 0;
    for (int round = 0; round < 20; round++) {
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t pid = fork();
        if (pid == 0) child(p, fds[1], first);
        close(fds[1]);
        usleep((useconds_t)(5000 + round * 3571 % 40000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        int64_t track, last = first - 1;
        while (read(fds[0], &track, sizeof track) == sizeof track) {
            assert_int_equal(track, last + 1);
            last = track;
            told++;
        }
        close(fds[0]);
        struct rows *r;
        assert_int_equal(rows_open(&(struct rows_options){.path = p->path, .budget = p->budget}, &r), ERR_OK);
        struct rows_event *found;
        int n;
        assert_int_equal(rows_events(r, &(struct rows_filter){.limit = 1}, &found, &n), ERR_OK);
        int64_t stored = n ? found[0].track : 0;
        free(found);
        assert_true(stored >= last); /* more may be there than was told; never less */
        first = (int)stored + 1;
        rows_close(&r);
    }
    assert_true(told > 20);
}

/* ---- a full disk: here a limit on the size of files, which SQLite sees as one */

static void a_full_disk_loses_nothing_that_waits(void **state)
{
    struct place *p = *state;
    pid_t pid = fork();
    if (pid == 0) {
        struct rows *r;
        struct rows_stats s;
        struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
        struct rlimit old, small;
        signal(SIGXFSZ, SIG_IGN);
        if (rows_open(&(struct rows_options){.path = p->path, .budget = b}, &r)) _exit(2);
        getrlimit(RLIMIT_FSIZE, &old);
        small = old;
        small.rlim_cur = 32768;
        setrlimit(RLIMIT_FSIZE, &small);
        for (int i = 1; i <= 2000; i++) {
            struct rows_event e = event(i);
            rows_add(r, &e);
        }
        if (rows_flush(r, 1500) != ERR_TIMEOUT) _exit(3);
        rows_stats(r, &s);
        if (!s.problem[0] || s.lost) _exit(4);
        setrlimit(RLIMIT_FSIZE, &old); /* space again */
        if (rows_flush(r, 20000)) _exit(5);
        rows_stats(r, &s);
        if (s.problem[0] || s.lost || s.written != 2000) _exit(6);
        rows_close(&r);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void every_allocation_may_fail(void **state)
{
    struct place *p = *state;
    for (uint64_t n = 1;; n++) {
        struct rows *r = NULL;
        mem_fault_at(p->budget, n);
        err e = rows_open(&(struct rows_options){.path = p->path, .budget = p->budget}, &r);
        mem_fault_at(p->budget, 0);
        assert_true(e == ERR_OK || e == ERR_NOMEM);
        rows_close(&r);
        if (!e) break;
    }
}

/* ---- by another process */

struct seen {
    int n, stop_at;
    int64_t first, last;
    struct rows *writer; /* adds one in the middle */
};

static err see(void *user, const struct rows_event *e)
{
    struct seen *s = user;
    if (!s->n++) s->first = e->track;
    s->last = e->track;
    if (s->writer && s->n == 5) {
        struct rows_event more = event(500);
        rows_add(s->writer, &more);
        assert_int_equal(rows_flush(s->writer, 10000), ERR_OK);
    }
    return s->n == s->stop_at ? ERR_CLOSED : ERR_OK;
}

static struct seen read_all(const struct place *p, const struct rows_filter *f)
{
    struct seen s = {0};
    if (rows_read(p->path, f, see, &s)) fail_msg("%s", err_text());
    return s;
}

/* While its owner writes: nobody waits for anybody, and what is committed meanwhile is seen the next time. */
static void read_while_it_is_written(void **state)
{
    struct place *p = *state;
    struct rows *r;
    assert_int_equal(rows_open(&(struct rows_options){.path = p->path, .budget = p->budget}, &r), ERR_OK);
    assert_int_equal(read_all(p, &(struct rows_filter){0}).n, 0);
    for (int i = 1; i <= 2000; i++) {
        struct rows_event e = event(i == 500 ? 5000 : i);
        rows_add(r, &e);
    }
    assert_int_equal(rows_flush(r, 10000), ERR_OK);
    struct seen s = {.writer = r};
    assert_int_equal(rows_read(p->path, &(struct rows_filter){.oldest_first = true}, see, &s), ERR_OK);
    assert_true(s.n == 2000 && s.first == 1 && s.last == 2000);
    s = read_all(p, &(struct rows_filter){.oldest_first = true});
    assert_true(s.n == 2001 && s.last == 500);
    s = read_all(p, &(struct rows_filter){.camera = "cam1", .query = "people", .since = 2001, .until = 2700});
    assert_true(s.n == 233 && s.first == 1699 && s.last == 1003); /* the newest first */
    s = read_all(p, &(struct rows_filter){.event = "left", .limit = 7});
    assert_true(s.n == 7 && s.first == 500); /* the last one written */
    s = (struct seen){.stop_at = 3};
    assert_int_equal(rows_read(p->path, &(struct rows_filter){0}, see, &s), ERR_CLOSED);
    assert_int_equal(s.n, 3);
    rows_close(&r);
    s = read_all(p, &(struct rows_filter){0});
    assert_int_equal(s.n, 2001);
    assert_int_equal(rows_open(&(struct rows_options){.path = p->path, .budget = p->budget}, &r), ERR_OK); /* a reader leaves nothing in the way */
    rows_close(&r);
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void what_cannot_be_read(void **state)
{
    struct place *p = *state;
    struct seen s = {0};
    char want[256];
    sqlite3 *db;
    assert_int_equal(rows_read(p->path, &(struct rows_filter){0}, see, &s), ERR_NOT_FOUND);
    assert_int_not_equal(access(p->path, F_OK), 0); /* and is not made */
    put(p->path, "");
    assert_int_equal(rows_read(p->path, &(struct rows_filter){0}, see, &s), ERR_FORMAT);
    snprintf(want, sizeof want, "%s: no database of events of brim serve", p->path);
    assert_string_equal(err_text(), want);
    put(p->path, "This is no database, whatever its name says, and it is longer than a header.                                   ");
    assert_int_equal(rows_read(p->path, &(struct rows_filter){0}, see, &s), ERR_CORRUPT);
    unlink(p->path);
    assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=7", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(rows_read(p->path, &(struct rows_filter){0}, see, &s), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "has schema 7, this brim knows 1"));
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=1; CREATE TABLE events(id)", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(rows_read(p->path, &(struct rows_filter){0}, see, &s), ERR_IO); /* a table of that name, with other columns */
    sqlite3_close(db);
    assert_int_equal(s.n, 0);
}

/* Pages in the middle are gone; and texts of any length. */
static void damaged_and_odd(void **state)
{
    struct place *p = *state;
    struct rows *r;
    struct seen s = {0};
    sqlite3 *db;
    assert_int_equal(rows_open(&(struct rows_options){.path = p->path, .budget = p->budget}, &r), ERR_OK);
    for (int i = 1; i <= 500; i++) {
        struct rows_event e = event(i);
        rows_add(r, &e);
    }
    rows_close(&r);
    assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE events SET camera = hex(zeroblob(5000)), uid = 'short', label = x'ff00fe', width = 'wide' WHERE id = 1", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    s = read_all(p, &(struct rows_filter){.limit = 1, .oldest_first = true});
    assert_true(s.n == 1 && s.first == 1);
    FILE *f = fopen(p->path, "r+b");
    assert_non_null(f);
    for (int i = 0; i < 30000; i++) {
        if (i == 0) fseek(f, 2 * 4096, SEEK_SET);
        fputc(0xa5, f);
    }
    fclose(f);
    s = (struct seen){0};
    assert_int_equal(rows_read(p->path, &(struct rows_filter){0}, see, &s), ERR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(events_are_found_again, begin, end),
        cmocka_unit_test_setup_teardown(only_one_owner, begin, end),
        cmocka_unit_test_setup_teardown(newer_schemas_and_other_files_are_refused, begin, end),
        cmocka_unit_test_setup_teardown(killed_at_any_moment, begin, end),
        cmocka_unit_test_setup_teardown(a_full_disk_loses_nothing_that_waits, begin, end),
        cmocka_unit_test_setup_teardown(every_allocation_may_fail, begin, end),
        cmocka_unit_test_setup_teardown(read_while_it_is_written, begin, end),
        cmocka_unit_test_setup_teardown(what_cannot_be_read, begin, end),
        cmocka_unit_test_setup_teardown(damaged_and_odd, begin, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

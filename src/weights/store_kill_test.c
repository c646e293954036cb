/* The writer killed at each of its system calls, by its parent: afterwards the store opens, every byte is right, and either the old state or the new
 * one is there; what is left over is collected.
 *
 * ptrace stops the child at the entry and the exit of each system call; for n = 1, 2, ... the child is killed at its n-th stop, until it ends by itself
 * before. Where ptrace is forbidden the test says so and is skipped. SPDX-License-Identifier: Apache-2.0 */
#include "weights/store_testing.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { ENDED = 1, KILLED, FORBIDDEN };

/* What the writer does in its process; 0 if it went well. */
typedef int writer(const char *dir);

static int import_second(const char *dir)
{
    struct weights_store *s;
    bool is_new;
    return weights_store_open(dir, NULL, &s) || testing_import(s, "a", (int[]){2, 3}, 2, &is_new);
}

static int import_new(const char *dir)
{
    struct weights_store *s;
    bool is_new;
    return weights_store_open(dir, NULL, &s) || testing_import(s, "b", (int[]){2, 3}, 2, &is_new);
}

static int pack(const char *dir)
{
    struct weights_store *s;
    struct weights_manifest m;
    int written;
    return weights_store_open(dir, NULL, &s) || weights_manifest_current(s, "a", &m) || testing_pack(s, "kb", &m.id, (int[]){4, 1}, 2, &written);
}

static int remove_it(const char *dir)
{
    struct weights_store *s;
    struct weights_gc_report gc;
    return weights_store_open(dir, NULL, &s) || weights_store_remove(s, "a", &gc);
}

static int collect(const char *dir)
{
    struct weights_store *s;
    struct weights_gc_report gc;
    return weights_store_open(dir, NULL, &s) || weights_store_gc(s, &gc);
}

static int pin_it(const char *dir)
{
    struct weights_store *s;
    return weights_store_open(dir, NULL, &s) || weights_pin(s, "a", true) || weights_pin(s, "a", false);
}

/* Kills it at its n-th stop. */
static int run(writer *w, const char *dir, int n)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) _exit(99);
        raise(SIGSTOP);
        _exit(w(dir) ? 1 : 0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status)) return FORBIDDEN;
    for (int k = 0;; k++) {
        if (k == n) {
            kill(child, SIGKILL);
            assert_int_equal(waitpid(child, &status, 0), child);
            return KILLED;
        }
        if (ptrace(PTRACE_SYSCALL, child, NULL, NULL) || waitpid(child, &status, 0) != child) fail_msg("ptrace: %s", strerror(errno));
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            return ENDED;
        }
        assert_true(WIFSTOPPED(status));
    }
}

static void print_bad(void *user, const char *sentence)
{
    (void)user;
    print_error("%s\n", sentence);
}

/* The version that `name` means, 0: none. */
static uint32_t version_of(struct weights_store *s, const char *name)
{
    struct weights_manifest m;
    err e = weights_manifest_current(s, name, &m);
    if (e && e != ERR_NOT_FOUND) fail_msg("%s", err_text());
    uint32_t v = e ? 0 : m.version;
    if (!e) weights_manifest_done(&m);
    return v;
}

struct after {
    const char *name; /* whose version must be the old one or the new one */
    uint32_t old_version, new_version;
};

/* Opens, verifies, collects, verifies; returns the version found. */
static uint32_t check(const char *dir, const struct after *a)
{
    struct weights_store *s;
    struct weights_verify_report r;
    struct weights_gc_report gc;
    assert_int_equal(weights_store_open(dir, NULL, &s), ERR_OK);
    assert_int_equal(weights_store_verify(s, print_bad, NULL, &r), ERR_OK);
    assert_int_equal(r.damaged + r.missing, 0);
    uint32_t v = version_of(s, a->name);
    assert_true(v == a->old_version || v == a->new_version);
    assert_int_equal(weights_store_gc(s, &gc), ERR_OK);
    assert_int_equal(weights_store_verify(s, print_bad, NULL, &r), ERR_OK);
    assert_int_equal(r.damaged + r.missing, 0);
    char *tmp = xasprintf("%s/tmp", dir), **names;
    size_t n;
    assert_int_equal(weights_entries(tmp, &names, &n), ERR_OK);
    assert_int_equal(n, 0);
    free(tmp);
    weights_entries_free(names, n);
    if (v) { /* and what is there can be used */
        struct weights_manifest m;
        struct weights_blob_info info;
        assert_int_equal(weights_manifest_current(s, a->name, &m), ERR_OK);
        for (size_t i = 0; i < m.n_blobs; i++) assert_int_equal(weights_blob_check(s, &m.blobs[i], true, &info), ERR_OK);
        weights_manifest_done(&m);
    }
    weights_store_close(&s);
    return v;
}

/* A store with one model, an orphan of an older version, and a packed file. */
static void make(const char *dir, bool orphan)
{
    struct weights_store *s;
    struct weights_manifest m;
    bool is_new;
    int written;
    assert_int_equal(weights_store_open(dir, NULL, &s), ERR_OK);
    if (orphan) assert_int_equal(testing_import(s, "a", (int[]){7, 8}, 2, &is_new), ERR_OK);
    assert_int_equal(testing_import(s, "a", (int[]){1, 2}, 2, &is_new), ERR_OK);
    assert_int_equal(weights_manifest_current(s, "a", &m), ERR_OK);
    assert_int_equal(testing_pack(s, "ka", &m.id, (int[]){1, 2}, 2, &written), ERR_OK);
    weights_manifest_done(&m);
    weights_store_close(&s);
}

static void at_each_call(writer *w, bool orphan, const struct after *a)
{
    int saw_old = 0, saw_new = 0;
    for (int n = 1;; n++) {
        char *dir = testing_folder();
        make(dir, orphan);
        int how = run(w, dir, n);
        if (how == FORBIDDEN) {
            testing_remove(dir);
            free(dir);
            print_message("ptrace is not allowed here\n");
            skip();
        }
        uint32_t v = check(dir, a);
        saw_old += v == a->old_version;
        saw_new += v == a->new_version;
        if (how == ENDED) assert_int_equal(v, a->new_version);
        testing_remove(dir);
        free(dir);
        if (how == ENDED) {
            print_message("killed at %d places: %d times as before, %d times as after\n", n - 1, saw_old, saw_new);
            assert_true(n > 20 && saw_old && saw_new);
            return;
        }
    }
}

static void importing_again(void **state)
{
    (void)state;
    at_each_call(import_second, false, &(struct after){"a", 1, 2});
}

static void importing(void **state)
{
    (void)state;
    at_each_call(import_new, false, &(struct after){"b", 0, 1});
}

static void packing(void **state)
{
    (void)state;
    at_each_call(pack, false, &(struct after){"a", 1, 1});
}

static void removing(void **state)
{
    (void)state;
    at_each_call(remove_it, true, &(struct after){"a", 2, 0});
}

static void collecting(void **state)
{
    (void)state;
    at_each_call(collect, true, &(struct after){"a", 2, 2});
}

static void pinning(void **state)
{
    (void)state;
    at_each_call(pin_it, false, &(struct after){"a", 1, 1});
}

int main(void)
{
    if (!access("/dev/shm", W_OK | X_OK)) setenv("TMPDIR", "/dev/shm", 0); /* a thousand stores: in memory where that can be */
    const struct CMUnitTest tests[] = {cmocka_unit_test(importing_again), cmocka_unit_test(importing),  cmocka_unit_test(packing),
                                       cmocka_unit_test(removing),        cmocka_unit_test(collecting), cmocka_unit_test(pinning)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

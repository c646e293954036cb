/* Checkpoints: what was written is read; a file cut at any byte or altered in any is refused or gives the same numbers; a writer killed at any system call
 * leaves the old file or the new one. SPDX-License-Identifier: Apache-2.0 */
#include "train/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { COUNT = 37, BIG = 20000 };

static char *folder(void)
{
    const char *tmp = getenv("TMPDIR");
    char *dir = xasprintf("%s/brim-checkpoint-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    return dir;
}

static void remove_folder(char *dir)
{
    char *command = xasprintf("rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
    free(command);
    free(dir);
}

static err write_one(const char *dir, int from, int n)
{
    static float a[BIG], b[3];
    for (int i = 0; i < n; i++) a[i] = (float)(from + i);
    for (int i = 0; i < 3; i++) b[i] = (float)(from - i);
    char job[64];
    snprintf(job, sizeof job, "{\"step\": %d}", from);
    struct train_section s[] = {{"parameters", a, (uint64_t)n * sizeof *a}, {"empty", b, 0}, {"ema", b, sizeof b}};
    return train_checkpoint_write(&weights_fs_system, dir, "last.brim", job, s, 3);
}

/* Every byte that counts is checked: 1 if all is as written with `from`, 0 if it was refused. */
static int is_whole(const char *path, int from, int n)
{
    static float a[BIG];
    float b[3];
    struct train_checkpoint c;
    char job[64];
    if (train_checkpoint_open(path, &c)) return 0;
    err e = train_checkpoint_verify(&c);
    if (!e) e = train_checkpoint_read(&c, "parameters", a, (uint64_t)n * sizeof *a);
    if (!e) e = train_checkpoint_read(&c, "ema", b, sizeof b);
    snprintf(job, sizeof job, "{\"step\": %d}", from);
    int same = !e && !strcmp(c.job, job);
    for (int i = 0; i < n && same; i++) same = a[i] == (float)(from + i);
    for (int i = 0; i < 3 && same; i++) same = b[i] == (float)(from - i);
    train_checkpoint_close(&c);
    assert_true(e || same); /* accepted: then as it was */
    return same;
}

static void round_trip(void **state)
{
    (void)state;
    char *dir = folder(), *path = xasprintf("%s/last.brim", dir);
    struct train_checkpoint c;
    float x[COUNT];
    assert_int_equal(train_checkpoint_open(path, &c), ERR_NOT_FOUND);
    assert_int_equal(write_one(dir, 5, COUNT), ERR_OK);
    assert_true(is_whole(path, 5, COUNT));
    assert_int_equal(train_checkpoint_open(path, &c), ERR_OK);
    assert_int_equal(train_checkpoint_bytes(&c, "empty"), 0);
    assert_int_equal(train_checkpoint_bytes(&c, "nothing"), -1);
    assert_int_equal(train_checkpoint_read(&c, "nothing", x, 4), ERR_FORMAT);
    assert_int_equal(train_checkpoint_read(&c, "parameters", x, 4), ERR_FORMAT);
    train_checkpoint_close(&c);
    assert_int_equal(write_one("/nonexistent", 5, COUNT), ERR_IO);
    free(path);
    remove_folder(dir);
}

static void put_file(const char *path, const unsigned char *p, size_t n)
{
    FILE *f = fopen(path, "wbe");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

static void cut_and_altered(void **state)
{
    (void)state;
    char *dir = folder(), *path = xasprintf("%s/last.brim", dir);
    unsigned char *p;
    size_t n, refused = 0;
    assert_int_equal(write_one(dir, 5, COUNT), ERR_OK);
    assert_int_equal(weights_fs_get(&weights_fs_system, path, 1 << 20, &p, &n), ERR_OK);
    for (size_t cut = 0; cut < n; cut++) {
        put_file(path, p, cut);
        assert_false(is_whole(path, 5, COUNT));
    }
    for (size_t at = 0; at < n; at++) {
        p[at] ^= 0x10;
        put_file(path, p, n);
        refused += !is_whole(path, 5, COUNT);
        p[at] ^= 0x10;
    }
    assert_true(refused > n / 2); /* the rest is padding */
    put_file(path, p, n);
    assert_true(is_whole(path, 5, COUNT));
    free(p);
    free(path);
    remove_folder(dir);
}

/* 0: killed at its n-th system call; 1: it ended before; -1: ptrace is forbidden here. */
static int killed_at(const char *dir, int n)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) _exit(99);
        raise(SIGSTOP);
        _exit(write_one(dir, 9, BIG) != 0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status)) return -1;
    for (int k = 0;; k++) {
        if (k == n) {
            kill(child, SIGKILL);
            assert_int_equal(waitpid(child, &status, 0), child);
            return 0;
        }
        if (ptrace(PTRACE_SYSCALL, child, NULL, NULL) || waitpid(child, &status, 0) != child) fail_msg("ptrace: %s", strerror(errno));
        if (WIFEXITED(status)) return 1;
    }
}

static void killed_anywhere(void **state)
{
    (void)state;
    char *dir = folder(), *path = xasprintf("%s/last.brim", dir);
    bool seen_old = false, seen_new = false;
    for (int n = 0;; n++) {
        assert_int_equal(write_one(dir, 5, COUNT), ERR_OK);
        int r = killed_at(dir, n);
        if (r < 0) {
            print_message("ptrace is forbidden here\n");
            free(path);
            remove_folder(dir);
            skip();
        }
        struct train_checkpoint c;
        assert_int_equal(train_checkpoint_open(path, &c), ERR_OK);
        bool is_new = strcmp(c.job, "{\"step\": 9}") == 0;
        train_checkpoint_close(&c);
        assert_true(is_whole(path, is_new ? 9 : 5, is_new ? BIG : COUNT));
        *(is_new ? &seen_new : &seen_old) = true;
        if (r == 1) break;
    }
    assert_true(seen_old && seen_new);
    free(path);
    remove_folder(dir);
}

/* The log of a long merge: what can be written can be read, and what cannot be read is not written over what can. */
static void long_jobs(void **state)
{
    (void)state;
    char *dir = folder(), *path = xasprintf("%s/last.brim", dir);
    size_t most = TRAIN_CHECKPOINT_JOB, some = 20 << 20;
    char *job = xcalloc(most + 2, 1);
    struct train_checkpoint c;
    memset(job, 'x', some);
    assert_int_equal(train_checkpoint_write(&weights_fs_system, dir, "last.brim", job, NULL, 0), ERR_OK);
    assert_int_equal(train_checkpoint_open(path, &c), ERR_OK);
    assert_int_equal(strlen(c.job), some);
    train_checkpoint_close(&c);
    memset(job, 'x', most + 1);
    assert_int_equal(train_checkpoint_write(&weights_fs_system, dir, "last.brim", job, NULL, 0), ERR_LIMIT);
    assert_int_equal(train_checkpoint_open(path, &c), ERR_OK);
    assert_int_equal(strlen(c.job), some);
    train_checkpoint_close(&c);
    free(job);
    free(path);
    remove_folder(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_jobs),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(cut_and_altered),
        cmocka_unit_test(killed_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Tests of `brim eval tracks`: figures by hand, the same seed gives the same tracks, exit codes, and real
 * annotations. SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"
#include "cli/eval.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

struct world {
    char dir[32];
    char out[8192]; /* what the last run printed on stdout */
};

static int setup(void **state)
{
    struct world *w = xnew(struct world);
    snprintf(w->dir, sizeof w->dir, "/tmp/brim-eval-XXXXXX");
    *state = w;
    return mkdtemp(w->dir) ? 0 : -1;
}

static int teardown(void **state)
{
    struct world *w = *state;
    static const char *const names[] = {"truth", "found", "a", "b", "out"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char *path = xasprintf("%s/%s", w->dir, names[i]);
        unlink(path);
        free(path);
    }
    rmdir(w->dir);
    free(w);
    return 0;
}

static void put(const struct world *w, const char *name, const char *text)
{
    char *path = xasprintf("%s/%s", w->dir, name);
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    free(path);
}

/* The words of `command`, with %s for the folder; returns the exit status. */
static int eval(struct world *w, const char *command)
{
    char words[1024], *argv[32], *save = NULL, *path = xasprintf("%s/out", w->dir);
    size_t at = 0;
    int argc = 0;
    for (const char *s = command; *s && at + 64 < sizeof words; s++) {
        if (*s == '@')
            at += (size_t)snprintf(words + at, sizeof words - at, "%s", w->dir);
        else
            words[at++] = *s;
    }
    words[at] = 0;
    for (char *p = strtok_r(words, " ", &save); p && argc < 31; p = strtok_r(NULL, " ", &save))
        argv[argc++] = p;
    argv[argc] = NULL;
    fflush(stdout);
    int keep = dup(1), to = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    dup2(to, 1);
    int status = cli_eval(argc, argv);
    fflush(stdout);
    dup2(keep, 1);
    close(keep);
    ssize_t n = pread(to, w->out, sizeof w->out - 1, 0);
    w->out[MAX(n, 0)] = 0;
    close(to);
    free(path);
    return status;
}

static void figures(void **state)
{
    struct world *w = *state;
    put(w, "truth", "1,7,0,0,10,10\n2,7,0,0,10,10\n3,7,0,0,10,10\n4,7,0,0,10,10\n");
    put(w, "found", "1,1,0,0,10,10\n2,1,0,0,10,10\n3,2,0,0,10,10\n4,9,50,0,10,10\n");
    assert_int_equal(eval(w, "eval tracks --truth @/truth --tracks @/found --json"), 0);
    /* one miss, one false box, one switch: MOTA 1 - 3/4; identity 1 agrees on two frames of 4 + 4 */
    assert_non_null(
        strstr(w->out, "\"mota\": 0.2500, \"idf1\": 0.5000, \"precision\": 0.7500, \"recall\": 0.7500"));
    assert_non_null(strstr(w->out, "\"id_switches\": 1,"));
    assert_int_equal(eval(w, "eval tracks --truth @/truth --tracks @/truth"), 0);
    assert_non_null(strstr(w->out, "IDF1            1.0000"));
}

static void same_seed_same_tracks(void **state)
{
    struct world *w = *state;
    struct strbuf b = {0};
    for (int i = 0; i < 90; i++)
        strbuf_addf(&b, "3 %d 50 %d 150 %d 0 0 0 \"PERSON\"\n", 10 + 2 * i, 60 + 2 * i, i);
    put(w, "truth", b.s);
    strbuf_done(&b);
    assert_int_equal(
        eval(w, "eval tracks --truth @/truth --degrade miss=0.1,jitter=0.03,fp=0.1 --out @/a --json"), 0);
    char first[sizeof w->out];
    memcpy(first, w->out, sizeof first);
    assert_int_equal(
        eval(w, "eval tracks --truth @/truth --degrade miss=0.1,jitter=0.03,fp=0.1 --out @/b --json"), 0);
    assert_string_equal(first, w->out);
    assert_non_null(strstr(first, "\"id_switches\": 0,"));
    /* what was written scores the same when it is read back */
    assert_int_equal(eval(w, "eval tracks --truth @/truth --tracks @/a --json"), 0);
    assert_memory_equal(first, w->out, strlen("{\"mota\": 0.0000, \"idf1\": 0.0000"));
    assert_int_equal(
        eval(w, "eval tracks --truth @/truth --degrade miss=0.1,jitter=0.03,fp=0.1 --seed 2 --json"), 0);
    assert_string_not_equal(first, w->out);
    assert_int_equal(eval(w, "eval tracks --truth @/truth --degrade miss=0 --every 3 --json"), 0);
    assert_non_null(strstr(w->out, "\"frames\": 30,"));
}

static void exit_codes(void **state)
{
    struct world *w = *state;
    put(w, "truth", "1,1,0,0,10,10\n1,1,0,0,10,10\n");
    put(w, "found", "not a file of tracks\n");
    assert_int_equal(eval(w, "eval"), 2);
    assert_int_equal(eval(w, "eval boxes --truth @/truth"), 2);
    assert_int_equal(eval(w, "eval tracks --truth @/truth"), 2);
    assert_int_equal(eval(w, "eval tracks --truth @/truth --tracks @/truth --degrade miss=0"), 2);
    assert_int_equal(eval(w, "eval tracks --truth @/truth --degrade lost=1"), 2);
    assert_int_equal(eval(w, "eval tracks --truth @/truth --degrade miss=2"), 2);
    assert_int_equal(eval(w, "eval tracks --truth @/truth --tracks @/truth --iou 0"), 2);
    assert_int_equal(eval(w, "eval tracks --truth @/nothing --tracks @/truth"), 2);
    assert_int_equal(eval(w, "eval tracks --truth @/found --tracks @/truth"), 2);
    assert_int_equal(eval(w, "eval tracks --truth @/truth --tracks @/truth"),
                     2); /* one identity twice in a frame */
    assert_int_equal(eval(w, "eval --help"), 0);
}

/* People filmed by four cameras: boxes as good as the annotation must be followed nearly without fault. */
static void real_annotations(void **state)
{
    struct world *w = *state;
    const char *data = getenv("BRIM_DATA"), *source = getenv("BRIM_SOURCE");
    char *path =
        data ? xasprintf("%s/tracks/campus_split/dev/view-HC3.txt", data)
             : xasprintf("%s/../shared/data/tracks/campus_split/dev/view-HC3.txt", source ? source : ".");
    if (access(path, R_OK) != 0) {
        print_message("no %s\n", path);
        free(path);
        skip();
    }
    char *command =
        xasprintf("eval tracks --truth %s --degrade miss=0,jitter=0,fp=0 --fps 29.97 --json", path);
    double mota = 0, idf1 = 0;
    assert_int_equal(eval(w, command), 0);
    assert_int_equal(sscanf(w->out, "{\"mota\": %lf, \"idf1\": %lf", &mota, &idf1), 2);
    assert_true(mota > 0.98 && idf1 > 0.98);
    free(command);
    command =
        xasprintf("eval tracks --truth %s --degrade miss=0.1,jitter=0.05,fp=0.1 --fps 29.97 --json", path);
    assert_int_equal(eval(w, command), 0);
    assert_int_equal(sscanf(w->out, "{\"mota\": %lf, \"idf1\": %lf", &mota, &idf1), 2);
    assert_true(mota > 0.85 && idf1 > 0.85);
    free(command);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(figures, setup, teardown),
        cmocka_unit_test_setup_teardown(same_seed_same_tracks, setup, teardown),
        cmocka_unit_test_setup_teardown(exit_codes, setup, teardown),
        cmocka_unit_test_setup_teardown(real_annotations, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

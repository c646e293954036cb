/* Pictures of events: what is written into one is read again, and nothing else is believed. SPDX-License-Identifier: Apache-2.0 */
#include "rows/picture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint8_t jpeg[ROWS_PICTURE_COMMENT + 16];

static size_t wrap(const struct rows_seen *s, int n)
{
    memcpy(jpeg, (uint8_t[]){0xff, 0xd8}, 2);
    return 2 + rows_picture_comment(s, n, jpeg + 2);
}

static size_t wrap_text(const char *text)
{
    size_t n = strlen(text);
    memcpy(jpeg, (uint8_t[]){0xff, 0xd8, 0xff, 0xfe, (uint8_t)((n + 2) >> 8), (uint8_t)(n + 2)}, 6);
    memcpy(jpeg + 6, text, n);
    return 6 + n;
}

static void there_and_back(void **state)
{
    (void)state;
    struct rows_seen s[3] = {{{0, 0.25f, 1, 0.5f}, 0.75f, "person"}, {{0.1f, 0.2f, 0.3f, 0.4f}, 1, "dark green van"}, {{0.5f, 0.5f, 0.5f, 0.6f}, 0.5f, "no width"}}, got[ROWS_PICTURE_SEEN];
    size_t n = wrap(s, 3);
    assert_int_equal(rows_picture_seen(jpeg, n, got), 2); /* a box of no area is not taken back */
    assert_string_equal(got[1].label, "dark green van");
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 4; k++) assert_float_equal(got[i].box[k], s[i].box[k], 1e-5);
        assert_float_equal(got[i].score, s[i].score, 1e-4);
    }
    assert_int_equal(rows_picture_seen(jpeg, n - 1, got), -1); /* cut off */
    assert_int_equal(rows_picture_seen(jpeg, wrap(NULL, 0), got), 0);
    static struct rows_seen many[2000];
    for (int i = 0; i < 2000; i++) many[i] = s[1];
    n = wrap(many, 2000);
    assert_true(n <= ROWS_PICTURE_COMMENT + 2);
    assert_int_equal(rows_picture_seen(jpeg, n, got), ROWS_PICTURE_SEEN);
}

static void foreign(void **state)
{
    (void)state;
    struct rows_seen got[ROWS_PICTURE_SEEN];
    static const struct { const char *text; int n; } cases[] = {
        {"brim 1\n", 0}, {"brim 2\n0 0 1 1 1 a\n", -1}, {"made by a camera", -1}, {"", -1}, {"brim 1\n0 0 1 1 1 a", 1}, {"brim 1\n0 0 1 1 1\n", 0}, {"brim 1\n0 0 1 1 1 \n", 0},
        {"brim 1\n0 0 1 1.1 1 a\n0 0 1 1 1 b\n", 1}, {"brim 1\nnan 0 1 1 1 a\n", 0}, {"brim 1\n0 0 1 1 inf a\n", 0}, {"brim 1\n0 0 1 1 1 a name that has far too many letters for one\n", 0},
        {"brim 1\n\n\n0 0 1 1 0.5 a\n\n", 1}, {"brim 1\n-0 0 1 1 -0.5 a\n", 0}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int n = rows_picture_seen(jpeg, wrap_text(cases[i].text), got);
        if (n != cases[i].n) fail_msg("%s: %d, expected %d", cases[i].text, n, cases[i].n);
    }
    size_t n = wrap_text("brim 1\n0 0 1 1 1 a\n");
    for (size_t k = 0; k < n; k++) assert_int_equal(rows_picture_seen(jpeg, k, got), -1);
    jpeg[13] = 0;
    assert_int_equal(rows_picture_seen(jpeg, n, got), 0);
    jpeg[5] = 1;
    assert_int_equal(rows_picture_seen(jpeg, n, got), -1);
}

static void names(void **state)
{
    (void)state;
    uint8_t uid[ROWS_UID] = {0, 1, 0xab, [15] = 0xff};
    char *folder = rows_picture_folder("/store/events.db"), *path = rows_picture_path(folder, uid);
    assert_string_equal(path, "/store/events.db.pictures/0001ab000000000000000000000000ff.jpg");
    assert_true(rows_picture_named(strrchr(path, '/') + 1));
    assert_false(rows_picture_named("0001ab000000000000000000000000f.jpg"));
    assert_false(rows_picture_named("0001AB000000000000000000000000ff.jpg"));
    assert_false(rows_picture_named("0001ab000000000000000000000000ff.jpg2"));
    assert_false(rows_picture_named("new"));
    free(folder);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back), cmocka_unit_test(foreign), cmocka_unit_test(names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

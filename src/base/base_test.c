/* Tests of err and base. SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"
#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void sentences_nest(void **state)
{
    (void)state;
    err e = err_set(ERR_FORMAT, "line %d", 3);
    assert_int_equal(e, ERR_FORMAT);
    assert_int_equal(err_wrap(e, "file %s", "a.yaml"), ERR_FORMAT);
    assert_string_equal(err_text(), "file a.yaml: line 3");
    err_set(ERR_IO, "again: %s", err_text());
    assert_string_equal(err_text(), "again: file a.yaml: line 3");
}

static void long_sentences_are_cut(void **state)
{
    (void)state;
    char big[5000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    err_set(ERR_IO, "%s", big);
    for (int i = 0; i < 10; i++) err_wrap(ERR_IO, "%s", big);
    assert_true(strlen(err_text()) < 1024);
}

static void exit_statuses(void **state)
{
    (void)state;
    assert_int_equal(err_exit_status(ERR_OK), 0);
    assert_int_equal(err_exit_status(ERR_NOMEM), 1);
    assert_int_equal(err_exit_status(ERR_FORMAT), 2);
    assert_int_equal(err_exit_status(-1), 1);
    assert_string_equal(err_name(ERR_NOMEM), "out of budget");
}

static void sizes_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        uint64_t value;
    } t[] = {{"0", true, 0},           {"64K", true, 65536},        {"300M", true, 300u << 20},
             {"1.5G", true, 3u << 29}, {"10MiB", true, 10u << 20},  {"7b", true, 7},
             {"", false, 0},           {"-1", false, 0},            {"1e9", false, 0},
             {"nan", false, 0},        {"99999999T", false, 0},     {"5 M", false, 0},
             {"0x10", false, 0},       {"3MM", false, 0},           {"1.2.3", false, 0}};
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        uint64_t v = 0;
        assert_int_equal(size_parse(t[i].text, &v), t[i].ok);
        if (t[i].ok) assert_int_equal(v, t[i].value);
    }
    char s[16];
    assert_string_equal(size_text(1536, s), "1.5 KiB");
}

static void strings_grow(void **state)
{
    (void)state;
    struct strbuf b = {0};
    for (int i = 0; i < 1000; i++) strbuf_addf(&b, "%d,", i);
    assert_int_equal(b.len, strlen(b.s));
    char big[600];
    memset(big, 'y', sizeof big - 1);
    big[sizeof big - 1] = 0;
    strbuf_addf(&b, "%s", big);
    assert_true(str_ends(b.s, big));
    char *s = strbuf_take(&b);
    assert_null(b.s);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sentences_nest), cmocka_unit_test(long_sentences_are_cut),
                                       cmocka_unit_test(exit_statuses), cmocka_unit_test(sizes_parse),
                                       cmocka_unit_test(strings_grow)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

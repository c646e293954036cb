/* Tests of YAML: the tree and its positions, every refusal, every typed reader with its sentence, and the bounds.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/yaml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static struct yaml *parse(const char *text, unsigned flags)
{
    struct yaml *doc = NULL;
    err e = yaml_parse("f.yaml", text, strlen(text), flags, &doc);
    if (e) print_message("%s\n", err_text());
    assert_int_equal(e, ERR_OK);
    return doc;
}

static void refused(const char *text, err code, const char *sentence)
{
    struct yaml *doc = NULL;
    assert_int_equal(yaml_parse("f.yaml", text, strlen(text), YAML_ENV, &doc), code);
    assert_null(doc);
    if (!strstr(err_text(), sentence)) print_message("got:    %s\nwanted: %s\n", err_text(), sentence);
    assert_non_null(strstr(err_text(), sentence));
}

static void tree_and_positions(void **state)
{
    (void)state;
    struct yaml *doc = parse("# a comment\na: 1\nlist:\n  - x\n  - {p: q, r: [1, 2]}\nü: 'quoted ~'\nnone:\n", 0);
    const struct yaml_node *r = yaml_root(doc);
    assert_int_equal(yaml_kind(r), YAML_MAP);
    assert_int_equal(yaml_count(r), 4);
    assert_int_equal(yaml_line(yaml_get(r, "a")), 2);
    assert_int_equal(yaml_column(yaml_get(r, "a")), 4);
    const struct yaml_node *list = yaml_get(r, "list");
    assert_int_equal(yaml_kind(list), YAML_LIST);
    const struct yaml_node *second = yaml_next(yaml_first(list));
    assert_int_equal(yaml_line(second), 5);
    assert_int_equal(yaml_column(second), 5);
    assert_string_equal(yaml_text(yaml_get(second, "p")), "q");
    assert_int_equal(yaml_count(yaml_get(second, "r")), 2);
    assert_int_equal(yaml_column(yaml_get(r, "ü")), 4); /* characters, not bytes */
    assert_string_equal(yaml_text(yaml_get(r, "ü")), "quoted ~");
    assert_int_equal(yaml_kind(yaml_get(r, "none")), YAML_NULL);
    assert_string_equal(yaml_key(yaml_first(r)), "a");
    assert_null(yaml_key(yaml_first(list)));
    assert_null(yaml_get(r, "b"));
    assert_null(yaml_get(NULL, "b"));
    assert_null(yaml_first(yaml_get(r, "a")));
    yaml_doc_free(&doc);
    assert_null(doc);
    doc = parse("", 0);
    assert_int_equal(yaml_kind(yaml_root(doc)), YAML_NULL);
    yaml_doc_free(&doc);
    yaml_doc_free(&doc);
}

static void refusals(void **state)
{
    (void)state;
    refused("a: 1\nb: 2\na: 3\n", ERR_FORMAT, "f.yaml:3:1: a: this key is already in line 1; keep one of them");
    refused("x:\n  b: 1\n  c: 1\n  c: 2\n  b: 1\n", ERR_FORMAT, "f.yaml:4:3: x.c: this key is already in line 3");
    refused("a: &x 1\nb: *x\n", ERR_FORMAT, "f.yaml:1:4: anchors");
    refused("a: *x\n", ERR_FORMAT, "anchors (&name) and aliases (*name) are not supported");
    refused("a: !!str 1\n", ERR_FORMAT, "f.yaml:1:4: tags");
    refused("&k a: 1\n", ERR_FORMAT, "anchors");
    refused("[a, b]: 1\n", ERR_FORMAT, "f.yaml:1:1: a key must be a word");
    refused("'': 1\n", ERR_FORMAT, "a key must not be empty");
    refused("a: \"x\\0y\"\n", ERR_FORMAT, "f.yaml:1:4: text must not contain a byte 0");
    refused("a: 1\n---\nb: 1\n", ERR_FORMAT, "a second document");
    refused("a: [1, 2\nb: 3\n", ERR_FORMAT, "not valid YAML");
    refused("a: 'open\n", ERR_FORMAT, "f.yaml:2:1: not valid YAML");
    refused("a: b: c\n", ERR_FORMAT, "f.yaml:1:5: not valid YAML: mapping values are not allowed in this context");
    refused("a\x01", ERR_FORMAT, "f.yaml: byte 2: not readable as text");
    refused("\xff\xff\xff", ERR_FORMAT, "not readable as text");
}

static void bounds(void **state)
{
    (void)state;
    struct strbuf b = {0};
    for (int i = 0; i < 31; i++) strbuf_add(&b, "[");
    strbuf_add(&b, "x");
    for (int i = 0; i < 31; i++) strbuf_add(&b, "]");
    struct yaml *doc = parse(b.s, 0);
    yaml_doc_free(&doc);
    strbuf_done(&b);
    for (int i = 0; i < 40; i++) strbuf_add(&b, "[");
    refused(b.s, ERR_LIMIT, "f.yaml:1:33: nested more than 32 deep");
    for (int i = 0; i < 400000; i++) strbuf_add(&b, "[");
    refused(b.s, ERR_LIMIT, "nested more than 32 deep");
    b.len = 0;
    for (int i = 0; i < 99999; i++) strbuf_add(&b, "- a\n"); /* and the list itself: exactly the limit */
    doc = parse(b.s, 0);
    assert_int_equal(yaml_count(yaml_root(doc)), 99999);
    yaml_doc_free(&doc);
    strbuf_add(&b, "- a\n");
    refused(b.s, ERR_LIMIT, "f.yaml:100000:3: more than 100000 values");
    b.len = 0;
    for (int i = 0; i < 90000; i++) strbuf_addf(&b, "k%d:\n", i); /* duplicates are looked for in n log n */
    doc = parse(b.s, 0);
    yaml_doc_free(&doc);
    strbuf_add(&b, "k0: 1");
    refused(b.s, ERR_FORMAT, "f.yaml:90001:1: k0: this key is already in line 1");
    while (b.len <= YAML_MAX_BYTES) strbuf_add(&b, "# a long comment\n");
    refused(b.s, ERR_LIMIT, "f.yaml: larger than");
    strbuf_done(&b);
}

static void environment(void **state)
{
    (void)state;
    setenv("BRIM_TEST_A", "one", 1);
    setenv("BRIM_TEST_SECRET", "hunter2", 1);
    unsetenv("BRIM_TEST_NONE");
    struct yaml *doc =
        parse("a: ${BRIM_TEST_A}/x/${BRIM_TEST_A}\nb: '$$ $HOME $'\nc: $${BRIM_TEST_A}\nn: ${BRIM_TEST_SECRET}\n"
              "${KEY}: 1\n",
              YAML_ENV);
    const struct yaml_node *r = yaml_root(doc);
    assert_string_equal(yaml_text(yaml_get(r, "a")), "one/x/one");
    assert_string_equal(yaml_text(yaml_get(r, "b")), "$ $HOME $");
    assert_string_equal(yaml_text(yaml_get(r, "c")), "${BRIM_TEST_A}");
    assert_non_null(yaml_get(r, "${KEY}"));
    int64_t v = 7;
    assert_int_equal(yaml_int(yaml_get(r, "n"), 0, 9, &v), ERR_FORMAT);
    assert_string_equal(err_text(),
                        "f.yaml:4:4: n: expected a whole number from 0 to 9, found '${BRIM_TEST_SECRET}'");
    assert_int_equal(v, 7);
    yaml_doc_free(&doc);
    doc = parse("a: ${BRIM_TEST_NONE} $$\n", 0); /* without YAML_ENV nothing is special */
    assert_string_equal(yaml_text(yaml_get(yaml_root(doc), "a")), "${BRIM_TEST_NONE} $$");
    yaml_doc_free(&doc);
    refused("x:\n  - ${BRIM_TEST_NONE}\n", ERR_NOT_FOUND,
            "f.yaml:2:5: x[0]: the environment has no variable BRIM_TEST_NONE");
    refused("a: ${BRIM_TEST_A\n", ERR_FORMAT, "f.yaml:1:4: a: '${' must be followed by");
    refused("a: ${}\n", ERR_FORMAT, "'${' must be followed by");
    char *big = xcalloc(60001, 1);
    memset(big, 'x', 60000);
    setenv("BRIM_TEST_A", big, 1);
    struct strbuf b = {0};
    for (int i = 0; i < 100; i++) strbuf_add(&b, "- ${BRIM_TEST_A}\n");
    refused(b.s, ERR_LIMIT, "the file with its variables is larger");
    strbuf_done(&b);
    free(big);
}

/* One line of YAML, one reader: `call` is tried on the value of x. */
#define FAILS(text, call, sentence)                                                                          \
    do {                                                                                                     \
        struct yaml *doc_ = parse(text, 0);                                                                  \
        const struct yaml_node *x = yaml_get(yaml_root(doc_), "x");                                          \
        assert_int_equal(call, ERR_FORMAT);                                                                  \
        if (!strstr(err_text(), sentence)) print_message("got: %s\n", err_text());                           \
        assert_non_null(strstr(err_text(), sentence));                                                       \
        yaml_doc_free(&doc_);                                                                                \
    } while (0)
#define WORKS(text, call)                                                                                    \
    do {                                                                                                     \
        struct yaml *doc_ = parse(text, 0);                                                                  \
        const struct yaml_node *x = yaml_get(yaml_root(doc_), "x");                                          \
        assert_int_equal(call, ERR_OK);                                                                      \
        yaml_doc_free(&doc_);                                                                                \
    } while (0)

static void numbers(void **state)
{
    (void)state;
    int64_t i = 1;
    double d = 1;
    bool b = false;
    WORKS("x: -12", yaml_int(x, -20, 20, &i));
    assert_int_equal(i, -12);
    WORKS("x: '9223372036854775807'", yaml_int(x, 0, INT64_MAX, &i));
    assert_true(i == INT64_MAX);
    FAILS("x: 9223372036854775808", yaml_int(x, 0, INT64_MAX, &i),
          "expected a whole number of at least 0, found '92233");
    FAILS("x: 1.5", yaml_int(x, 0, 5, &i), "f.yaml:1:4: x: expected a whole number from 0 to 5, found '1.5'");
    FAILS("x: 0x10", yaml_int(x, 0, 50, &i), "found '0x10'");
    FAILS("x: ' 1'", yaml_int(x, 0, 50, &i), "found ' 1'");
    FAILS("x: 1-2", yaml_int(x, 0, 50, &i), "found '1-2'");
    FAILS("x:", yaml_int(x, 0, 50, &i), "found nothing");
    FAILS("x: {}", yaml_int(x, 0, 50, &i), "found a map");
    WORKS("x: 2.5e-1", yaml_float(x, 0, 1, &d));
    assert_true(d == 0.25);
    FAILS("x: high", yaml_float(x, 0, 1, &d), "f.yaml:1:4: x: expected a number from 0 to 1, found 'high'");
    FAILS("x: 1.0001", yaml_float(x, 0, 1, &d), "found '1.0001'");
    FAILS("x: nan", yaml_float(x, 0, 1, &d), "found 'nan'");
    FAILS("x: inf", yaml_float(x, 0, 1e300, &d), "a number of at least 0, found 'inf'");
    FAILS("x: 1e999", yaml_float(x, -1e300, 1e300, &d), "expected a number, found '1e999'");
    FAILS("x: [1]", yaml_float(x, 0, 1, &d), "found a list");
    assert_true(d == 0.25);
    WORKS("x: true", yaml_bool(x, &b));
    assert_true(b);
    WORKS("x: false", yaml_bool(x, &b));
    assert_false(b);
    FAILS("x: yes", yaml_bool(x, &b), "expected true or false, found 'yes'");
    WORKS("y: 1", yaml_int(x, 0, 9, &i)); /* not there: left alone */
    WORKS("y: 1", yaml_float(x, 0, 9, &d));
    assert_true(d == 0.25);
}

static void sizes_and_durations(void **state)
{
    (void)state;
    uint64_t u = 0;
    int64_t ms = 0;
    WORKS("x: 300M", yaml_size(x, 0, UINT64_MAX, &u));
    assert_int_equal(u, 300 << 20);
    FAILS("x: much", yaml_size(x, 0, UINT64_MAX, &u), "expected a size such as 300M, 1.5G or 64K, found 'much'");
    FAILS("x: 1K", yaml_size(x, 1 << 20, UINT64_MAX, &u), "expected a size of at least 1.0 MiB, found '1K'");
    FAILS("x: 3G", yaml_size(x, 1 << 20, 1 << 30, &u), "expected a size from 1.0 MiB to 1.0 GiB, found '3G'");
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"x: 500ms", 500}, {"x: 2s", 2000},    {"x: 1.5s", 1500},
                {"x: 5m", 300000}, {"x: 1h", 3600000}, {"x: 0", 0}};
    for (size_t k = 0; k < ARRAY_LEN(good); k++) {
        WORKS(good[k].text, yaml_duration_ms(x, 0, 3600000, &ms));
        assert_int_equal(ms, good[k].ms);
    }
    FAILS("x: 5", yaml_duration_ms(x, 0, 3600000, &ms), "expected a duration such as 500ms, 2s, 5m or 1h, found '5'");
    FAILS("x: 1.2.3s", yaml_duration_ms(x, 0, 3600000, &ms), "expected a duration such as");
    FAILS("x: s", yaml_duration_ms(x, 0, 3600000, &ms), "expected a duration such as");
    FAILS("x: -1s", yaml_duration_ms(x, 0, 3600000, &ms), "expected a duration such as");
    FAILS("x: 2h", yaml_duration_ms(x, 1, 3600000, &ms), "expected a duration from 1ms to 1h, found '2h'");
    FAILS("x: 0", yaml_duration_ms(x, 1000, 90000, &ms), "expected a duration from 1s to 90s, found '0'");
    FAILS("x: 99999999999999999999999d", yaml_duration_ms(x, 0, INT64_MAX - 1, &ms), "expected a duration from");
}

static void texts_words_and_lists(void **state)
{
    (void)state;
    const char *s = "";
    static const char *const words[] = {"live", "max", NULL}, *const three[] = {"f32", "bf16", "auto", NULL};
    int k = -1;
    float f[4] = {0};
    size_t n = 0;
    const struct yaml_node *child = NULL;
    WORKS("x: a b", yaml_str(x, &s));
    FAILS("x: ''", yaml_str(x, &s), "expected text, found ''");
    FAILS("x: [a]", yaml_str(x, &s), "expected text, found a list");
    WORKS("x: max", yaml_enum(x, words, &k));
    assert_int_equal(k, 1);
    FAILS("x: fast", yaml_enum(x, words, &k), "expected live or max, found 'fast'");
    FAILS("x: f16", yaml_enum(x, three, &k), "expected f32, bf16 or auto, found 'f16'");
    WORKS("x: [1, -2.5, 3e1]", yaml_floats(x, -10, 30, 1, 4, f, &n));
    assert_int_equal(n, 3);
    assert_true(f[0] == 1 && f[1] == -2.5f && f[2] == 30);
    FAILS("x: [5, 6, z]", yaml_floats(x, -10, 30, 3, 3, f, &n),
          "f.yaml:1:11: x[2]: expected a number from -10 to 30, found 'z'");
    assert_true(f[0] == 1 && n == 3);
    FAILS("x: [1, 2]", yaml_floats(x, -10, 30, 3, 3, f, &n),
          "f.yaml:1:4: x: expected a list of 3 numbers; this one has 2");
    FAILS("x: [1]", yaml_floats(x, -10, 30, 2, 4, f, &n), "expected a list of 2 to 4 numbers; this one has 1");
    FAILS("x: 3", yaml_floats(x, -10, 30, 3, 3, f, NULL), "expected a list of 3 numbers, found '3'");
    FAILS("x: [1, 2, 3e38]", yaml_floats(x, -1e300, 1e300, 1, 2, f, NULL), "this one has 3");
    FAILS("x: 1", yaml_is_map(x), "expected a map (lines of 'key: value'), found '1'");
    FAILS("x: {}", yaml_is_list(x), "expected a list, found a map");
    FAILS("a: 1\nx: {b: 2}", yaml_need(x, "c", &child), "f.yaml:2:1: x: the key 'c' is missing; add it");
    FAILS("x: \"\\e[31m\\x9b evil\\n\"", yaml_bool(x, &(bool){0}), "found '?[31m? evil?'");
    FAILS("x: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaü", yaml_bool(x, &(bool){0}),
          "found 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'");
}

static void keys_are_checked(void **state)
{
    (void)state;
    static const char *const keys[] = {"fps", "deadline_ms", "cameras", NULL};
    FAILS("x: {fps: 1, camera: 2}", yaml_check_keys(x, keys),
          "f.yaml:1:13: x.camera: unknown key; did you mean 'cameras'?");
    FAILS("x: {fsp: 1}", yaml_check_keys(x, keys), "x.fsp: unknown key; did you mean 'fps'?");
    FAILS("x: {colour: 1}", yaml_check_keys(x, keys), "x.colour: unknown key; known here: fps, deadline_ms, cameras");
    FAILS("x: 5", yaml_check_keys(x, keys), "expected a map");
    WORKS("x: {fps: 1, cameras: 2}", yaml_check_keys(x, keys));
    assert_string_equal(yaml_nearest("deadline", keys), "deadline_ms");
    assert_string_equal(yaml_nearest("fps", keys), "fps");
    assert_null(yaml_nearest("zzz", keys));
    assert_null(yaml_nearest("", keys));
    char longer[200] = {0};
    memset(longer, 'f', sizeof longer - 1);
    assert_null(yaml_nearest(longer, keys));
}

static void files(void **state)
{
    (void)state;
    struct yaml *doc = NULL;
    char path[] = "/tmp/brim-yaml-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, "a: 1\n", 5) == 5);
    close(fd);
    assert_int_equal(yaml_load_file(path, 0, &doc), ERR_OK);
    assert_string_equal(yaml_name(doc), path);
    yaml_doc_free(&doc);
    unlink(path);
    assert_int_equal(yaml_load_file(path, 0, &doc), ERR_NOT_FOUND);
    assert_non_null(strstr(err_text(), "cannot open: No such file"));
    assert_int_equal(yaml_load_file("/", 0, &doc), ERR_IO);
    assert_int_equal(yaml_load_file("/dev/zero", 0, &doc), ERR_LIMIT);
    assert_null(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_and_positions),    cmocka_unit_test(refusals),
        cmocka_unit_test(bounds),                cmocka_unit_test(environment),
        cmocka_unit_test(numbers),               cmocka_unit_test(sizes_and_durations),
        cmocka_unit_test(texts_words_and_lists), cmocka_unit_test(keys_are_checked),
        cmocka_unit_test(files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

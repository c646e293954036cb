/* Tests of `brim check`: exit status, JSON, problems of the site file, of cards, and between the two.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/check.h"
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <jansson.h>
#include <cmocka.h>

static char folder[] = "/tmp/brim-check-XXXXXX";

static char *put(const char *name, const char *text)
{
    char *path = xasprintf("%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    return path;
}

/* Runs `brim check PATH --json` with stdout into a file, and reads it. */
static json_t *check(char *path, int *ret_status)
{
    char *out = xasprintf("%s/out", folder);
    char name[] = "check", json[] = "--json", *argv[] = {name, path, json, NULL};
    fflush(stdout);
    int keep = dup(1);
    assert_non_null(freopen(out, "w", stdout));
    *ret_status = cli_check(3, argv);
    fflush(stdout);
    dup2(keep, 1);
    close(keep);
    json_t *o = json_load_file(out, 0, NULL);
    assert_non_null(o);
    unlink(out);
    free(out);
    return o;
}

static void expect(const char *site, const char *problem)
{
    char *path = put("site.yaml", site);
    int status = -1;
    json_t *o = check(path, &status), *list = json_object_get(o, "problems");
    if (!problem && json_array_size(list)) fail_msg("%s", json_string_value(json_array_get(list, 0)));
    assert_int_equal(status, problem ? 2 : 0);
    assert_int_equal(json_is_true(json_object_get(o, "ok")), problem == NULL);
    assert_int_equal(json_array_size(list), problem ? 1 : 0);
    if (problem && !strstr(json_string_value(json_array_get(list, 0)), problem))
        fail_msg("got: %s\nwanted: %s", json_string_value(json_array_get(list, 0)), problem);
    json_decref(o);
    unlink(path);
    free(path);
}

#define SITE "version: 1\ncameras: {c: {url: x.mp4}}\n"

static void sites_and_cards(void **state)
{
    (void)state;
    char *onnx = put("m.onnx", ""), *none = put("n.onnx", ""), *bad = put("bad.yaml", "card: 1\nhead: yolux\n");
    char *card = put("m.yaml", "card: 1\nhead: yolox\ninput: {size: [64, 64]}\nlabels: [person, car]\n");
    char *faces = put("e.yaml", "card: 1\nhead: embedding\ninput: {size: [64, 64]}\n");
    expect(SITE, NULL);
    expect(SITE "models: {m: {onnx: m.onnx}}\nqueries: {q: {cameras: c, model: m, objects: car}}\n", NULL);
    expect("version: 1\nbudgt: 1\n", "site.yaml:2:1: budgt: unknown key; did you mean 'budget'?");
    expect(SITE "models: {m: {onnx: x.onnx, card: m.yaml}}\n", "site.yaml:3:20: models.m.onnx: cannot open");
    expect(SITE "models: {n: {onnx: n.onnx}}\n", "site.yaml:3:10: models.n: there is no card at");
    expect(SITE "models: {n: {onnx: n.onnx, card: z.yaml}}\n", "models.n.card: cannot open");
    expect(SITE "models: {n: {onnx: n.onnx, card: bad.yaml}}\n", "bad.yaml:");
    expect(SITE "models: {m: {onnx: m.onnx}}\nqueries: {q: {cameras: c, model: m, objects: cat}}\n",
           "queries.q.objects: no label of this model has the name 'cat'; did you mean 'car'?");
    expect(SITE "models: {m: {onnx: m.onnx, card: e.yaml}}\nqueries: {q: {cameras: c, model: m, "
                "zones: {z: [[0, 0], [1, 0], [1, 1]]}}}\n",
           "queries.q.zones: needs a model that finds boxes, but 'm' has the head 'embedding'");
    expect(SITE "jobs: {night: {do: train, words: detect --model brimdet --data store --out o, between: '22:00-06:00'}}\n", NULL);
    expect(SITE "jobs: {night: {do: train, words: detect --model brimdet --data store}}\n", "site.yaml:3:8: jobs.night: --out DIR is needed");
    expect(SITE "jobs: {night: {do: train, words: [detekt, --out, o, --model, m, --data, d]}}\n", "jobs.night: --task: 'detekt' is none of");
    expect(SITE "jobs: {night: {do: bake, words: []}}\n", "jobs.night: 'bake' is no kind of job; there are train and merge");
    char *all[] = {onnx, none, bad, card, faces};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        unlink(all[i]);
        free(all[i]);
    }
}

static void wrong_usage(void **state)
{
    (void)state;
    char name[] = "check", typo[] = "--jsn", path[] = "/nonexistent/x.yaml";
    char *none[] = {name, NULL}, *option[] = {name, typo, path, NULL}, *missing[] = {name, path, NULL};
    assert_int_equal(cli_check(1, none), 2);
    assert_int_equal(cli_check(3, option), 2);
    assert_int_equal(cli_check(2, missing), 2);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sites_and_cards), cmocka_unit_test(wrong_usage)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

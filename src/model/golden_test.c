/* Every real model against outputs recorded with ONNX Runtime (golden.json): f32 within 1e-4 of the output's largest magnitude.
 * One test per model of $BRIM_DATA; skipped where the data is absent. With BRIM_ONLY_REF=1 plain C kernels alone are used.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/model.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char *data_path(const char *name)
{
    const char *data = getenv("BRIM_DATA"), *source = getenv("BRIM_SOURCE");
    return data && *data ? xasprintf("%s/%s", data, name) : xasprintf("%s/../shared/data/%s", source ? source : ".", name);
}

static void fill(const struct tensor *to, uint32_t seed)
{
    int64_t n = tensor_count(&to->shape);
    float *values = xnewn(float, n);
    uint32_t x = seed;
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        values[i] = (float)(x >> 8) / 16777216.0f;
    }
    struct tensor from = tensor_view(TENSOR_F32, &to->shape, values);
    assert_int_equal(model_copy(&from, to), ERR_OK);
    free(values);
}

static double largest(const json_t *o)
{
    return fmax(fabs(json_number_value(json_object_get(o, "min"))), fabs(json_number_value(json_object_get(o, "max"))));
}

static double compare_list(const float *got, const json_t *values, int64_t stride, int64_t n)
{
    double worst = 0;
    size_t i;
    json_t *v;
    json_array_foreach(values, i, v)
    {
        assert_true((int64_t)i * stride < n);
        double d = fabs((double)got[(int64_t)i * stride] - json_number_value(v));
        worst = d > worst || isnan(d) ? d : worst;
    }
    return worst;
}

static double compare_file(const float *got, const char *name, int64_t n)
{
    char *relative = xasprintf("golden/%s", name), *path = data_path(relative);
    FILE *f = fopen(path, "rb");
    float *want = xnewn(float, n);
    double worst = 0;
    assert_non_null(f);
    assert_int_equal(fread(want, sizeof *want, (size_t)n, f), n);
    fclose(f);
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        worst = d > worst || isnan(d) ? d : worst;
    }
    free(want);
    free(path);
    free(relative);
    return worst;
}

static void check_output(const char *model, const struct tensor *out, const json_t *o)
{
    int64_t n = tensor_count(&out->shape);
    const json_t *samples = json_object_get(o, "stride_samples");
    const char *file = json_string_value(json_object_get(o, "file"));
    float *flat = xnewn(float, n);
    struct tensor to = tensor_view(TENSOR_F32, &out->shape, flat);
    assert_int_equal(model_copy(out, &to), ERR_OK);
    assert_int_equal(n, json_integer_value(json_object_get(o, "n")));
    double worst = compare_list(flat, json_object_get(o, "first64"), 1, n);
    if (samples)
        worst = fmax(worst, compare_list(flat, json_object_get(samples, "values"), json_integer_value(json_object_get(samples, "stride")), n));
    if (file) worst = fmax(worst, compare_file(flat, file, n));
    if (!(worst <= 1e-4 * largest(o)))
        fail_msg("%s: output '%s' differs by %g, largest magnitude %g", model, json_string_value(json_object_get(o, "name")), worst, largest(o));
    free(flat);
}

/* By name: ONNX Runtime may list outputs in another order than the file. */
static const json_t *recorded(const json_t *outputs, const char *name)
{
    size_t i;
    json_t *o;
    json_array_foreach((json_t *)(uintptr_t)outputs, i, o)
        if (!strcmp(json_string_value(json_object_get(o, "name")), name)) return o;
    fail_msg("no recorded output '%s'", name);
    return NULL;
}

/* Above 1 MFLOP nothing runs on plain C, except Upsample (deeplab's two take 5 % of its time there, 0.6 ns a number). Processors without AVX2, on
 * which brim's own kernels do not run, are left out. */
static void no_slow_step(const char *name, const struct model_plan *p, int steps)
{
    bool own = false;
    for (int i = 0; i < steps; i++) own |= str_starts(model_plan_step(p, i).kernel, "own:");
    for (int i = 0; i < steps && own; i++) {
        struct model_step_info x = model_plan_step(p, i);
        if (str_starts(x.kernel, "ref") && x.flops > 1000000 && strcmp(x.op, "Upsample"))
            fail_msg("%s: step %d, %s '%s', %.1f MFLOP, runs on plain C", name, i, x.op, x.name, (double)x.flops / 1e6);
    }
}

static void run_model(void **state)
{
    const json_t *entry = *state, *inputs = json_object_get(entry, "inputs"), *outputs = json_object_get(entry, "outputs");
    const char *name = json_string_value(json_object_get(entry, "model"));
    char *relative = xasprintf("models/%s.onnx", name), *path = data_path(relative);
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct model *m = NULL;
    struct model_plan *p = NULL;
    const char *ref = getenv("BRIM_ONLY_REF");
    struct model_options o = {.budget = b, .only_ref = ref && *ref == '1'};
    err e = model_open(path, name, &o, &m);
    struct tensor_shape shapes[4];
    for (int i = 0; !e && i < model_input_count(m); i++) {
        const json_t *dims = json_object_get(json_array_get(inputs, (size_t)i), "shape");
        shapes[i] = (struct tensor_shape){.rank = (int)json_array_size(dims)};
        for (int k = 0; k < shapes[i].rank; k++) shapes[i].dims[k] = json_integer_value(json_array_get(dims, (size_t)k));
    }
    if (!e) e = model_plan_new(m, shapes, &p);
    if (!e) e = model_plan_reserve(p);
    for (int i = 0; !e && i < model_input_count(m); i++) {
        struct tensor t = model_plan_input(p, i);
        fill(&t, (uint32_t)json_integer_value(json_object_get(json_array_get(inputs, (size_t)i), "seed")));
    }
    if (!e) e = model_plan_run(p, NULL);
    if (e) fail_msg("%s: %s", name, err_text());
    for (int i = 0; i < model_output_count(m); i++) {
        struct tensor t = model_plan_output(p, i);
        check_output(name, &t, recorded(outputs, model_output(m, i).name));
    }
    struct model_sizes s = model_plan_sizes(p);
    assert_true(s.activations >= s.activations_lower_bound);
    assert_true((double)s.activations <= 1.05 * (double)s.activations_lower_bound);
    if (!o.only_ref) no_slow_step(name, p, s.steps);
    model_plan_free(&p);
    model_free(&m);
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
    free(path);
    free(relative);
}

static void no_data(void **state)
{
    (void)state;
    print_message("recorded outputs are not here; set BRIM_DATA\n");
    skip();
}

int main(void)
{
    char *path = data_path("golden/golden.json");
    json_t *golden = json_load_file(path, 0, NULL), *models = json_object_get(golden, "models"), *entry;
    const char *name;
    struct CMUnitTest tests[64];
    size_t n = 0;
    free(path);
    json_object_foreach(models, name, entry)
    {
        if (n == ARRAY_LEN(tests)) break;
        json_object_set_new(entry, "model", json_string(name));
        tests[n++] = (struct CMUnitTest){.name = name, .test_func = run_model, .initial_state = entry};
    }
    if (!n) tests[n++] = (struct CMUnitTest)cmocka_unit_test(no_data);
    int failed = _cmocka_run_group_tests("golden", tests, n, NULL, NULL);
    json_decref(golden);
    return failed;
}

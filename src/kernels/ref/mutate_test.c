/* The recorded cases with foreign numbers put into their attributes, constants, indices and sizes: whatever
 * the shape rules still accept must run or be refused, inside its memory (the sanitizers watch).
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/cases.h"
#include "kernels/ref/ref.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROUNDS = 8, MOST_ELEMENTS = 1 << 14 };

static uint64_t next(uint64_t *s)
{
    *s = *s * 6364136223846793005ull + 1442695040888963407ull;
    return *s >> 33;
}

static int64_t foreign(uint64_t *s)
{
    static const int64_t V[] = {INT64_MIN,
                                INT64_MIN + 1,
                                INT64_MAX,
                                INT64_MAX - 1,
                                INT32_MIN,
                                INT32_MAX,
                                (int64_t)1 << 30,
                                -1000,
                                -8,
                                -4,
                                -3,
                                -2,
                                -1,
                                0,
                                1,
                                2,
                                3,
                                4,
                                5,
                                7,
                                8,
                                9,
                                16,
                                100,
                                4096};
    return V[next(s) % ARRAY_LEN(V)];
}

static float foreign_float(uint64_t *s)
{
    static const float V[] = {0, -0.0f, 1, -1, 0.5f, 1e-30f, 1e30f, -1e30f, 2, 3.7f, 0.01f};
    uint32_t special[] = {0x7fc00000, 0x7f800000, 0xff800000};
    float f;
    memcpy(&f, &special[next(s) % 3], 4);
    return next(s) % 4 ? V[next(s) % ARRAY_LEN(V)] : f;
}

static void change_attribute(struct op_attr *a, uint64_t *s)
{
    switch (a->type) {
    case OP_ATTR_INT:
        a->i = foreign(s);
        break;
    case OP_ATTR_FLOAT:
        a->f = foreign_float(s);
        break;
    case OP_ATTR_INTS:
        if (a->n) a->ints[next(s) % a->n] = foreign(s);
        break;
    case OP_ATTR_FLOATS:
        if (a->n) a->floats[next(s) % a->n] = foreign_float(s);
        break;
    default:
        break;
    }
}

static void change_input(struct tensor *t, uint64_t *s)
{
    int64_t n = tensor_count(&t->shape);
    if (t->dtype == TENSOR_NONE || n == 0) return;
    if (next(s) % 8 == 0 && t->shape.rank > 0) { /* smaller sizes stay inside the memory */
        int64_t *d = &t->shape.dims[next(s) % (uint64_t)t->shape.rank];
        *d = (int64_t)(next(s) % (uint64_t)(*d + 1));
        tensor_strides_row_major(&t->shape, t->strides);
        return;
    }
    int64_t v = foreign(s);
    double own;
    float f = foreign_float(s);
    if (tensor_dtype_is_float(t->dtype))
        ref_convert(REF_F32, &f, t->dtype, &own, 1);
    else
        ref_convert(REF_I64, &v, t->dtype, &own, 1);
    ref_put(t->dtype, (char *)t->data + (int64_t)(next(s) % (uint64_t)n) * ref_size(t), 0, 1, &own);
}

static bool run(const struct op_case *c)
{
    struct op_info in[CASE_MAX], info[CASE_MAX];
    struct tensor out[CASE_MAX];
    int64_t count;
    memset(info, 0, sizeof info);
    for (int i = 0; i < c->n_in; i++)
        in[i] = (struct op_info){c->in[i].dtype, c->in[i].shape, c->in[i].data};
    if (op_infer(&c->node, in, info)) return false;
    for (int i = 0; i < c->n_out; i++)
        if (tensor_shape_count(&info[i].shape, &count) || count > MOST_ELEMENTS) return false;
    for (int i = 0; i < c->n_out; i++) {
        out[i] = tensor_view(info[i].dtype, &info[i].shape, NULL);
        out[i].data =
            xcalloc((size_t)tensor_count(&info[i].shape) + 1, MAX(tensor_dtype_size(info[i].dtype), 1));
    }
    bool ran = kernels_ref_run(&c->node, c->in, c->n_in, out, c->n_out) == ERR_OK;
    for (int i = 0; i < c->n_out; i++)
        free(out[i].data);
    return ran;
}

static void clone_lists(struct op_attr *a)
{
    if (a->type == OP_ATTR_INTS) {
        int64_t *copy = xnewn(int64_t, a->n + 1);
        if (a->n) memcpy(copy, a->ints, a->n * sizeof *copy);
        a->ints = copy;
    } else if (a->type == OP_ATTR_FLOATS) {
        float *copy = xnewn(float, a->n + 1);
        if (a->n) memcpy(copy, a->floats, a->n * sizeof *copy);
        a->floats = copy;
    }
}

static bool mutate(const struct op_case *original, uint64_t seed)
{
    struct op_case c = *original;
    struct op_attr *attrs = xnewn(struct op_attr, c.node.n_attrs + 1);
    for (int i = 0; i < c.node.n_attrs; i++) {
        attrs[i] = original->node.attrs[i];
        clone_lists(&attrs[i]);
    }
    c.node.attrs = attrs;
    for (int i = 0; i < c.n_in; i++) {
        size_t bytes = (size_t)tensor_count(&c.in[i].shape) * tensor_dtype_size(c.in[i].dtype);
        c.in[i].data = xcalloc(1, bytes + 1);
        memcpy(c.in[i].data, original->in[i].data, bytes);
    }
    for (uint64_t k = 0; k < 1 + seed % 3; k++) {
        uint64_t which = next(&seed) % (uint64_t)(c.n_in + c.node.n_attrs + 1);
        if (which < (uint64_t)c.n_in)
            change_input(&c.in[which], &seed);
        else if (which < (uint64_t)(c.n_in + c.node.n_attrs))
            change_attribute(&attrs[which - (uint64_t)c.n_in], &seed);
        else
            c.node.opset = 7 + (int)(next(&seed) % 15);
    }
    bool ran = run(&c);
    for (int i = 0; i < c.node.n_attrs; i++)
        free(attrs[i].type == OP_ATTR_INTS     ? (void *)attrs[i].ints
             : attrs[i].type == OP_ATTR_FLOATS ? (void *)attrs[i].floats
                                               : NULL);
    for (int i = 0; i < c.n_in; i++)
        free(c.in[i].data);
    free(attrs);
    return ran;
}

static void test_mutations(void **state)
{
    (void)state;
    const char *source = getenv("BRIM_SOURCE"), *rounds = getenv("BRIM_MUTATE_ROUNDS");
    char *path = xasprintf("%s/tests/data/op_cases.bin", source ? source : ".");
    struct case_reader r;
    bool opened = case_open(&r, path);
    free(path);
    if (!opened) {
        print_message("tests/data/op_cases.bin is not there (BRIM_SOURCE unset?)\n");
        skip();
    }
    struct op_case c;
    int64_t tried = 0, ran = 0;
    int n = rounds ? atoi(rounds) : ROUNDS;
    for (uint64_t seed = 1; case_next(&r, &c);)
        for (int i = 0; i < n; i++, tried++)
            ran += mutate(&c, seed++ * 0x9e3779b97f4a7c15ull);
    case_close(&r);
    print_message("# %lld mutations, %lld ran to the end\n", (long long)tried, (long long)ran);
    assert_true(ran > tried / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mutations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

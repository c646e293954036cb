/* Every operator of plain C against what ONNX Runtime (or ONNX's reference) computed:
 * tests/data/op_cases.bin.
 *
 * Each case runs with row-major, channels-last and oddly strided operands (gaps between all elements, which
 * must stay as they were), and once through the kernel class in the layouts that the class asks for, with
 * exactly the scratch that it asks for. Output shapes come from the shape rules, as in a plan.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/cases.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum layout { ROW_MAJOR, CHANNELS_LAST, ODD, LAYOUTS };
static const char *const LAYOUT_NAMES[] = {"row-major", "channels-last", "odd strides"};
enum { POISON = 0xa5 };

/* Memory of its own for `t` in a layout; the block's size is returned. */
static size_t place(struct tensor *t, enum layout layout)
{
    if (t->dtype == TENSOR_NONE) return 0;
    if (layout == CHANNELS_LAST)
        tensor_strides_channels_last(&t->shape, t->strides);
    else
        tensor_strides_row_major(&t->shape, t->strides);
    if (layout == ODD) {
        int64_t step = 2; /* axes in a permuted order, each with a gap */
        for (int i = 0; i < t->shape.rank; i++) {
            int axis = (i * 3 + 1) % t->shape.rank;
            if (t->shape.rank % 3 == 0) axis = i;
            t->strides[axis] = step;
            step = step * MAX(t->shape.dims[axis], 1) + 1;
        }
    }
    size_t bytes = (size_t)tensor_span(t) * tensor_dtype_size(t->dtype);
    t->data = xcalloc(1, bytes + 1);
    memset(t->data, POISON, bytes);
    return bytes;
}

static void *clone(const struct tensor *from, struct tensor *to, enum layout layout)
{
    *to = *from;
    place(to, layout);
    if (to->dtype) ref_copy_tensor(to, from);
    return to->data;
}

static bool same_number(double a, double b, double tolerance)
{
    if (isnan(a) || isnan(b)) return isnan(a) && isnan(b);
    if (isinf(a) || isinf(b)) return a == b;
    return fabs(a - b) <= tolerance * fmax(1, fabs(b));
}

static int compare(const struct op_case *c, const char *how, int k, const struct tensor *got)
{
    const struct tensor *want = &c->want[k];
    if (!tensor_shape_equal(&got->shape, &want->shape) || got->dtype != want->dtype) {
        char a[128], b[128];
        print_error("%s (opset %d, %s) output %d: %s %s, not %s %s\n", c->node.name, c->node.opset, how, k,
                    tensor_dtype_name(got->dtype), tensor_shape_text(&got->shape, NULL, a, sizeof a),
                    tensor_dtype_name(want->dtype), tensor_shape_text(&want->shape, NULL, b, sizeof b));
        return 1;
    }
    for (int64_t i = 0; i < tensor_count(&want->shape); i++) {
        double a = ref_double_at(got, i), b = ref_double_at(want, i);
        if (same_number(a, b, (double)c->tolerance)) continue;
        print_error("%s (opset %d, %s) output %d [%lld]: %.9g, not %.9g\n", c->node.name, c->node.opset, how,
                    k, (long long)i, a, b);
        for (int j = 0; j < c->node.n_attrs; j++)
            print_error("    %s %d '%s'\n", c->node.attrs[j].name, (int)c->node.attrs[j].i,
                        c->node.attrs[j].s ? c->node.attrs[j].s : "");
        return 1;
    }
    return 0;
}

/* Bytes of a block that belong to no element must still be poison. */
static bool gaps_untouched(const struct tensor *t, size_t bytes)
{
    size_t size = tensor_dtype_size(t->dtype);
    unsigned char *used = xcalloc(1, bytes + 1), *p = t->data;
    for (int64_t i = 0; i < tensor_count(&t->shape); i++)
        memset(used + (size_t)ref_offset(t, i) * size, 1, size);
    bool fine = true;
    for (size_t i = 0; i < bytes; i++)
        fine &= used[i] || p[i] == POISON;
    free(used);
    return fine;
}

static err infer(const struct op_case *c, struct tensor *out)
{
    struct op_info in[CASE_MAX], info[CASE_MAX];
    memset(info, 0, sizeof info);
    for (int i = 0; i < c->n_in; i++)
        in[i] = (struct op_info){c->in[i].dtype, c->in[i].shape, c->in[i].data};
    err e = op_infer(&c->node, in, info);
    for (int i = 0; i < c->n_out && !e; i++)
        out[i] = (struct tensor){.dtype = info[i].dtype, .shape = info[i].shape};
    return e;
}

static int run_at_once(const struct op_case *c, enum layout layout)
{
    struct tensor in[CASE_MAX], out[CASE_MAX];
    size_t bytes[CASE_MAX];
    int bad = 0;
    err e = infer(c, out);
    if (e) {
        print_error("%s (opset %d): shape rule: %s\n", c->node.name, c->node.opset, err_text());
        return 1;
    }
    for (int i = 0; i < c->n_in; i++)
        clone(&c->in[i], &in[i], layout);
    for (int i = 0; i < c->n_out; i++)
        bytes[i] = place(&out[i], layout);
    struct tensor before[CASE_MAX];
    memcpy(before, out, sizeof before);
    if ((e = kernels_ref_run(&c->node, in, c->n_in, out, c->n_out))) {
        print_error("%s (opset %d, %s): %s\n", c->node.name, c->node.opset, LAYOUT_NAMES[layout], err_text());
        bad = 1;
    }
    for (int i = 0; i < c->n_out && !bad; i++) {
        bad = compare(c, LAYOUT_NAMES[layout], i, &out[i]);
        if (!bad && !gaps_untouched(&before[i], bytes[i])) {
            print_error("%s (opset %d, %s): output %d: wrote between elements\n", c->node.name, c->node.opset,
                        LAYOUT_NAMES[layout], i);
            bad = 1;
        }
    }
    for (int i = 0; i < c->n_in; i++)
        if (in[i].dtype) free(in[i].data);
    for (int i = 0; i < c->n_out; i++)
        free(out[i].data);
    return bad;
}

static void set_layout(struct tensor *t, enum kernel_layout l)
{
    if (l == KERNEL_LAYOUT_ROW_MAJOR)
        tensor_strides_row_major(&t->shape, t->strides);
    else
        tensor_strides_channels_last(&t->shape, t->strides);
}

static int run_class(const struct op_case *c)
{
    struct tensor in[CASE_MAX], out[CASE_MAX];
    struct kernel_layouts l = {{0}, {0}};
    struct kernel_query q = {
        .node = &c->node, .n_in = c->n_in, .n_out = c->n_out, .in = in, .out = out, .threads = 1};
    struct kernel_state *s = NULL;
    struct kernel_buffers b = {.scratch = NULL};
    struct tensor_shape shapes[CASE_MAX];
    const struct kernel_class *ref = kernels_list(true)[0];
    if (infer(c, out)) return 1;
    for (int i = 0; i < c->n_in; i++)
        in[i] = c->in[i];
    if (!ref->accepts(&q)) {
        print_error("%s: not accepted\n", c->node.name);
        return 1;
    }
    ref->layouts(&q, &l);
    for (int i = 0; i < c->n_in; i++) {
        if (in[i].dtype == TENSOR_NONE) continue;
        set_layout(&in[i], l.in[i]);
        in[i].data = xcalloc(1, (size_t)tensor_span(&in[i]) * tensor_dtype_size(in[i].dtype) + 1);
        ref_copy_tensor(&in[i], &c->in[i]);
        b.in[i] = in[i].data;
        in[i].data = NULL;
    }
    for (int i = 0; i < c->n_out; i++) {
        set_layout(&out[i], l.out[i]);
        b.out[i] = xcalloc(1, (size_t)tensor_span(&out[i]) * tensor_dtype_size(out[i].dtype) + 1);
        b.out_shape[i] = &shapes[i];
    }
    int bad = ref->prepare(&q, NULL, &s) != 0;
    if (!bad) {
        size_t scratch = ref->scratch_bytes(s);
        if (scratch) assert_int_equal(posix_memalign(&b.scratch, 64, scratch), 0);
        bad = ref->run(s, &b) != 0;
        free(b.scratch);
    }
    if (bad) print_error("%s (opset %d, class): %s\n", c->node.name, c->node.opset, err_text());
    for (int i = 0; i < c->n_out && !bad; i++) {
        out[i].data = b.out[i];
        out[i].shape = shapes[i];
        bad = compare(c, "class", i, &out[i]);
    }
    ref->free(&s);
    for (int i = 0; i < c->n_in; i++)
        free((void *)(uintptr_t)b.in[i]);
    for (int i = 0; i < c->n_out; i++)
        free(b.out[i]);
    return bad;
}

static void test_cases(void **state)
{
    (void)state;
    const char *source = getenv("BRIM_SOURCE");
    char *path = xasprintf("%s/tests/data/op_cases.bin", source ? source : ".");
    struct case_reader r;
    bool opened = case_open(&r, path);
    free(path);
    if (!opened) {
        print_message("tests/data/op_cases.bin is not there (BRIM_SOURCE unset?)\n");
        skip();
    }
    struct op_case c;
    bool tried[OP_KIND_COUNT] = {false};
    int bad = 0, count = 0, kinds = 0;
    while (case_next(&r, &c)) {
        int wrong = 0;
        for (int layout = 0; layout < LAYOUTS; layout++)
            wrong += run_at_once(&c, (enum layout)layout);
        wrong += run_class(&c);
        bad += wrong != 0;
        count++;
        tried[c.node.kind] = true;
    }
    case_close(&r);
    for (int k = 1; k < OP_KIND_COUNT; k++) {
        kinds += tried[k];
        if (!tried[k] && ref_op_find((enum op_kind)k))
            print_error("no case tries %s\n", op_name((enum op_kind)k));
        if (!ref_op_find((enum op_kind)k) && k != OP_IF && k != OP_LOOP && k != OP_SCAN)
            print_error("plain C has no %s\n", op_name((enum op_kind)k));
    }
    print_message("# %d cases of %d operators, %d wrong\n", count, kinds, bad);
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Tests of the shape rules: recorded truth (tests/data/op_shapes.txt, made by tests/tools/make_op_shapes.py
 * from ONNX Runtime), hand-computed cases, bounds, and what foreign numbers must be answered with.
 * SPDX-License-Identifier: Apache-2.0 */
#include "op/op.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* ---- the recorded nodes: see make_op_shapes.py for the form */

struct node_case {
    struct op_node node;
    struct op_attr attrs[16];
    struct op_info in[64], want[64];
};

static enum tensor_dtype read_type(char **s)
{
    static const struct {
        const char *name;
        enum tensor_dtype type;
    } TYPES[] = {{"f32", TENSOR_F32}, {"f64", TENSOR_F64}, {"f16", TENSOR_F16}, {"i8", TENSOR_I8},
                 {"u8", TENSOR_U8},   {"i16", TENSOR_I16}, {"u16", TENSOR_U16}, {"i32", TENSOR_I32},
                 {"u32", TENSOR_U32}, {"i64", TENSOR_I64}, {"u64", TENSOR_U64}, {"bool", TENSOR_BOOL}};
    for (size_t i = 0; i < ARRAY_LEN(TYPES); i++)
        if (str_starts(*s, TYPES[i].name)) {
            *s += strlen(TYPES[i].name);
            return TYPES[i].type;
        }
    fail_msg("type at '%s'", *s);
    return TENSOR_NONE;
}

static void put_number(enum tensor_dtype type, void *at, size_t i, const char *s, char **end)
{
    double d = strtod(s, end);
    long long l = type == TENSOR_F32 || type == TENSOR_F64 ? 0 : strtoll(s, end, 10);
    switch (type) {
    case TENSOR_F32: ((float *)at)[i] = (float)d; break;
    case TENSOR_F64: ((double *)at)[i] = d; break;
    case TENSOR_I64: ((int64_t *)at)[i] = l; break;
    case TENSOR_I32: ((int32_t *)at)[i] = (int32_t)l; break;
    case TENSOR_BOOL: ((uint8_t *)at)[i] = (uint8_t)l; break;
    default: fail_msg("a constant of type %d", type);
    }
}

/* "-", "f32[2,<3]" or "i64[2]{1,2}" */
static struct op_info read_tensor(char *s)
{
    struct op_info v = {0};
    if (strcmp(s, "-") == 0) return v;
    v.dtype = read_type(&s);
    for (s++; *s != ']'; s += *s == ',') {
        if (*s == '<') {
            v.shape.bounded |= (uint8_t)(1u << v.shape.rank);
            s++;
        }
        v.shape.dims[v.shape.rank++] = strtoll(s, &s, 10);
    }
    if (*++s == '{') {
        size_t n = (size_t)tensor_count(&v.shape);
        void *bytes = xcalloc(n + 1, 8);
        s++;
        for (size_t i = 0; i < n; i++, s += *s == ',') put_number(v.dtype, bytes, i, s, &s);
        v.constant = bytes;
    }
    return v;
}

static void read_attr(char *s, struct op_attr *a)
{
    char *value = strchr(s, '=');
    *value++ = 0;
    *a = (struct op_attr){.name = s};
    char kind = *value++;
    size_t most = strlen(value) + 1;
    if (kind == 'i') {
        a->type = OP_ATTR_INT;
        a->i = strtoll(value, NULL, 10);
    } else if (kind == 'f') {
        a->type = OP_ATTR_FLOAT;
        a->f = strtof(value, NULL);
    } else if (kind == 's') {
        a->type = OP_ATTR_STRING;
        a->s = value;
    } else if (kind == 't') {
        struct op_info v = read_tensor(value);
        a->type = OP_ATTR_TENSOR;
        a->tensor = tensor_view(v.dtype, &v.shape, v.constant);
    } else if (kind == 'I') {
        a->type = OP_ATTR_INTS;
        a->ints = xnewn(int64_t, most);
        while (*value) {
            a->ints[a->n++] = strtoll(value, &value, 10);
            value += *value == ',';
        }
    } else {
        a->type = OP_ATTR_FLOATS;
        a->floats = xnewn(float, most);
        while (*value) {
            a->floats[a->n++] = strtof(value, &value);
            value += *value == ',';
        }
    }
}

static void read_case(char *line, struct node_case *c)
{
    char *part[4] = {line}, *save;
    for (int i = 1; i < 4; i++) {
        part[i] = strchr(part[i - 1], '|');
        *part[i]++ = 0;
    }
    *c = (struct node_case){0};
    char *space = strchr(line, ' ');
    *space = 0;
    c->node.kind = op_find("", line);
    c->node.name = line;
    c->node.opset = atoi(space + 1);
    c->node.attrs = c->attrs;
    for (char *t = strtok_r(part[1], " ", &save); t; t = strtok_r(NULL, " ", &save))
        read_attr(t, &c->attrs[c->node.n_attrs++]);
    for (char *t = strtok_r(part[2], " ", &save); t; t = strtok_r(NULL, " ", &save))
        c->in[c->node.n_in++] = read_tensor(t);
    for (char *t = strtok_r(part[3], " \n", &save); t; t = strtok_r(NULL, " \n", &save))
        c->want[c->node.n_out++] = read_tensor(t);
}

static void free_case(struct node_case *c)
{
    for (int i = 0; i < c->node.n_in; i++) free((void *)(uintptr_t)c->in[i].constant);
    for (int i = 0; i < c->node.n_attrs; i++) {
        free(c->attrs[i].ints);
        free(c->attrs[i].floats);
        if (c->attrs[i].type == OP_ATTR_TENSOR) free(c->attrs[i].tensor.data);
    }
}

/* Where the truth depends on data, our size is a bound and must not be below it. */
static bool same(const struct op_info *got, const struct op_info *want)
{
    if (got->dtype != want->dtype || got->shape.rank != want->shape.rank) return false;
    if (got->shape.bounded != want->shape.bounded) return false;
    for (int i = 0; i < want->shape.rank; i++)
        if (want->shape.bounded >> i & 1 ? got->shape.dims[i] < want->shape.dims[i]
                                         : got->shape.dims[i] != want->shape.dims[i])
            return false;
    return true;
}

static bool run_case(const char *line, struct node_case *c)
{
    struct op_info out[64];
    char text[2][160];
    if (!c->node.kind) {
        print_error("unknown operator: %s", line);
        return false;
    }
    if (op_infer(&c->node, c->in, out)) {
        print_error("%s: %s\n", line, err_text());
        return false;
    }
    for (int i = 0; i < c->node.n_out; i++)
        if (!same(&out[i], &c->want[i])) {
            tensor_shape_text(&out[i].shape, NULL, text[0], sizeof text[0]);
            tensor_shape_text(&c->want[i].shape, NULL, text[1], sizeof text[1]);
            print_error("%s: output %d is %s %s, not %s %s\n", line, i, tensor_dtype_name(out[i].dtype),
                        text[0], tensor_dtype_name(c->want[i].dtype), text[1]);
            return false;
        }
    assert_true(op_flops(&c->node, c->in, out) >= 0);
    return true;
}

/* Of no standard: there is nobody to record it from. */
static bool is_own(enum op_kind kind)
{
    return op_find("brim", op_name(kind)) == kind;
}

static void recorded_shapes(void **state)
{
    (void)state;
    const char *source = getenv("BRIM_SOURCE");
    if (!source) {
        print_message("# BRIM_SOURCE is not set\n");
        skip();
    }
    char *path = xasprintf("%s/tests/data/op_shapes.txt", source), *line = NULL;
    size_t cap = 0;
    int cases = 0, wrong = 0;
    bool seen[OP_KIND_COUNT] = {0};
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (getline(&line, &cap, f) > 0) {
        struct node_case c;
        char *whole = xstrndup(line, strcspn(line, "\n"));
        read_case(line, &c);
        wrong += !run_case(whole, &c);
        seen[c.node.kind] = true;
        cases++;
        free_case(&c);
        free(whole);
    }
    fclose(f);
    free(line);
    free(path);
    for (int k = OP_NONE + 1; k < OP_KIND_COUNT; k++)
        if (!seen[k] && k != OP_IF && k != OP_LOOP && k != OP_SCAN && !is_own((enum op_kind)k) && /* graph/backward_test.c has the gradients */
            k != OP_CAST_LIKE) /* becomes a Cast when a file is read */
            fail_msg("%s has no recorded case", op_name((enum op_kind)k));
    print_message("# %d nodes, %d wrong\n", cases, wrong);
    assert_true(cases > 1000);
    assert_int_equal(wrong, 0);
}

/* The answer to one node in the form of the file; what comes out goes to out[0], if wanted. */
static err answer(const char *line, struct op_info *ret_out)
{
    struct node_case c;
    struct op_info out[32];
    char *copy = xstrdup(line);
    memset(out, 0x55, sizeof out);
    read_case(copy, &c);
    err e = op_infer(&c.node, c.in, out);
    for (size_t i = 0; e && i < sizeof out; i++) assert_int_equal(((unsigned char *)out)[i], 0x55);
    if (!e && ret_out) *ret_out = out[0];
    free_case(&c);
    free(copy);
    return e;
}

static void names_and_attributes(void **state)
{
    (void)state;
    for (int k = OP_NONE + 1; k < OP_KIND_COUNT; k++) {
        bool own = k == OP_COPY || k == OP_SILU || (k >= OP_UNARY_GRAD && k <= OP_DROPOUT_BY);
        assert_int_equal(op_find(own ? "brim" : "", op_name((enum op_kind)k)), k);
        assert_int_equal(op_find(own ? "" : "brim", op_name((enum op_kind)k)), OP_NONE);
    }
    assert_int_equal(op_find("ai.onnx", "Conv"), OP_CONV);
    assert_int_equal(op_find(NULL, "Conv"), OP_CONV);
    assert_int_equal(op_find("com.microsoft", "Conv"), OP_NONE);
    assert_int_equal(op_find("", "conv"), OP_NONE);
    assert_string_equal(op_name((enum op_kind)12345), "none");
    int64_t two[] = {3, 4};
    const int64_t *v = NULL;
    struct op_attr attrs[] = {{.name = (char[]){"i"}, .type = OP_ATTR_INT, .i = 7, .f = 9},
                              {.name = (char[]){"f"}, .type = OP_ATTR_FLOAT, .i = 7, .f = 9},
                              {.name = (char[]){"s"}, .type = OP_ATTR_STRING, .s = (char[]){"text"}},
                              {.name = (char[]){"v"}, .type = OP_ATTR_INTS, .ints = two, .n = 2}};
    struct op_node n = {.n_attrs = 4, .attrs = attrs};
    assert_int_equal(op_attr_int(&n, "i", 1), 7);
    assert_int_equal(op_attr_int(&n, "f", 1), 1); /* of another type: as if absent */
    assert_true(op_attr_float(&n, "f", 1) == 9);
    assert_true(op_attr_float(&n, "x", 1) == 1);
    assert_string_equal(op_attr_string(&n, "s", "no"), "text");
    assert_string_equal(op_attr_string(&n, "i", "no"), "no");
    assert_int_equal(op_attr_ints(&n, "v", &v), 2);
    assert_ptr_equal(v, two);
    assert_int_equal(op_attr_ints(&n, "i", &v), 0);
}

static void axes_are_sorted_and_checked(void **state)
{
    (void)state;
    int64_t given[] = {-1, 0, 2}, axes[TENSOR_MAX_RANK] = {0};
    int64_t as_input[] = {1};
    struct op_attr a = {.name = (char[]){"axes"}, .type = OP_ATTR_INTS, .ints = given, .n = 3};
    struct op_node n = {.kind = OP_REDUCE_SUM, .n_attrs = 1, .attrs = &a};
    struct op_info in = {
        .dtype = TENSOR_I64, .shape = tensor_shape_of(1, (int64_t[]){1}), .constant = as_input};
    assert_int_equal(op_axes(&n, NULL, 4, axes), 3);
    assert_int_equal(axes[0], 0);
    assert_int_equal(axes[1], 2);
    assert_int_equal(axes[2], 3);
    assert_int_equal(op_axes(&n, NULL, 3, axes), ERR_SHAPE); /* -1 and 2 are the same */
    assert_int_equal(op_axes(&n, NULL, 2, axes), ERR_SHAPE);
    assert_int_equal(op_axes(&n, NULL, -1, axes), ERR_SHAPE);
    assert_int_equal(op_axes(&n, NULL, 9, axes), ERR_SHAPE);
    assert_int_equal(op_axes(&n, &in, 4, axes), 1); /* the input wins */
    assert_int_equal(axes[0], 1);
    in.constant = NULL;
    assert_int_equal(op_axes(&n, &in, 4, axes), ERR_UNSUPPORTED);
    given[0] = INT64_MIN;
    assert_int_equal(op_axes(&n, NULL, 4, axes), ERR_SHAPE);
    a.n = 100;
    assert_int_equal(op_axes(&n, NULL, 4, axes), ERR_SHAPE);
}

/* Counts windows one by one: the definition that the closed formula must agree with. */
static int64_t windows_by_walking(int64_t in, int64_t k, int64_t s, int64_t d, int64_t pb, int64_t pe,
                                  bool ceil_mode)
{
    int64_t count = 0, cover = (k - 1) * d + 1;
    for (int64_t at = -pb;; at += s) {
        if (at + cover > in + pe) return count + (ceil_mode && at < in && at + cover - s < in + pe);
        count++;
    }
}

static void windows_agree_with_walking(void **state)
{
    (void)state;
    int64_t v[6];
    struct op_attr attrs[] = {{.name = (char[]){"kernel_shape"}, .type = OP_ATTR_INTS, .ints = &v[0], .n = 1},
                              {.name = (char[]){"strides"}, .type = OP_ATTR_INTS, .ints = &v[1], .n = 1},
                              {.name = (char[]){"dilations"}, .type = OP_ATTR_INTS, .ints = &v[2], .n = 1},
                              {.name = (char[]){"pads"}, .type = OP_ATTR_INTS, .ints = &v[3], .n = 2},
                              {.name = (char[]){"ceil_mode"}, .type = OP_ATTR_INT}};
    struct op_node n = {
        .kind = OP_MAX_POOL, .opset = 12, .n_in = 1, .n_out = 1, .n_attrs = 5, .attrs = attrs};
    int tried = 0;
    for (int i = 0; i < 2 * 12 * 4 * 4 * 3 * 3 * 3; i++) {
        int r = i;
        attrs[4].i = r % 2, r /= 2;
        struct tensor_shape x = tensor_shape_of(3, (int64_t[]){1, 1, r % 12});
        r /= 12;
        v[0] = r % 4 + 1, r /= 4;
        v[1] = r % 4 + 1, r /= 4;
        v[2] = r % 3 + 1, r /= 3;
        v[3] = r % 3, r /= 3;
        v[4] = r % 3;
        struct op_window w;
        err e = op_window(&n, &x, NULL, &w);
        int64_t want = windows_by_walking(x.dims[2], v[0], v[1], v[2], v[3], v[4], attrs[4].i != 0);
        if (x.dims[2] + v[3] + v[4] < (v[0] - 1) * v[2] + 1) {
            assert_int_equal(e, ERR_SHAPE);
            continue;
        }
        assert_int_equal(e, ERR_OK);
        assert_int_equal(w.out[0], want);
        tried++;
    }
    assert_true(tried > 5000);
}

static void transposed_window_holds_its_equation(void **state)
{
    (void)state;
    struct op_info out;
    assert_int_equal(
        answer("ConvTranspose 11|strides=I3,2 output_shape=I10,8|f32[1,1,3,3] f32[1,2,3,3]|-", &out), ERR_OK);
    assert_int_equal(out.shape.dims[1], 2);
    assert_int_equal(out.shape.dims[2], 10); /* more than the 9 there are */
    assert_int_equal(out.shape.dims[3], 8);
    int64_t strides[] = {3, 2}, shape[] = {10, 6};
    struct op_attr attrs[] = {
        {.name = (char[]){"strides"}, .type = OP_ATTR_INTS, .ints = strides, .n = 2},
        {.name = (char[]){"output_shape"}, .type = OP_ATTR_INTS, .ints = shape, .n = 2}};
    struct op_node n = {.kind = OP_CONV_TRANSPOSE, .opset = 11, .n_attrs = 2, .attrs = attrs};
    struct tensor_shape x = tensor_shape_of(4, (int64_t[]){1, 1, 3, 3}),
                        w = tensor_shape_of(4, (int64_t[]){1, 2, 3, 3});
    struct op_window q;
    assert_int_equal(op_window(&n, &x, &w, &q), ERR_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(q.out[i], q.stride[i] * (q.in[i] - 1) + q.output_padding[i] + q.kernel[i] -
                                       q.pad_begin[i] - q.pad_end[i]);
        assert_int_equal(q.out[i], shape[i]);
    }
    assert_int_equal(q.pad_begin[1], 1); /* 7 - 6: the odd one goes to the beginning unless SAME_UPPER */
    assert_int_equal(q.pad_end[1], 0);
}

/* Whatever the true size under a bound is: the answer to the bound covers the answer to the size. */
static void bounds_cover_every_size(void **state)
{
    (void)state;
    static const char *const FORMS[] = {
        "Reshape 13||f32[%s,4] i64[1]{-1}|-",
        "Reshape 13||f32[%s,4] i64[3]{0,2,-1}|-",
        "Flatten 13|axis=i0|f32[%s,4]|-",
        "Transpose 13|perm=I1,0|f32[%s,4]|-",
        "Concat 13|axis=i0|f32[%s,4] f32[3,4]|-",
        "Concat 13|axis=i1|f32[%s,4] f32[%s,2]|-",
        "Tile 13||f32[%s] i64[1]{3}|-",
        "Pad 13||f32[%s] i64[2]{1,2}|-",
        "Gather 13||f32[5,6] i64[%s]|-",
        "GatherND 13||f32[5,6] i64[%s,2]|-",
        "MatMul 13||f32[%s,4] f32[4,2]|-",
        "Gemm 13||f32[%s,4] f32[4,2] f32[2]|-",
        "ReduceSum 13|keepdims=i0|f32[%s,4] i64[1]{1}|-",
        "Add 13||f32[%s,4] f32[4]|-",
        "Unsqueeze 13||f32[%s,4] i64[1]{0}|-",
        "Conv 11|strides=I2,2 pads=I1,1,1,1|f32[%s,3,8,8] f32[2,3,3,3]|-",
        "MaxPool 12|kernel_shape=I3 strides=I2 pads=I1,1 ceil_mode=i1|f32[1,1,%s]|-",
        "MaxPool 12|kernel_shape=I3 strides=I2 auto_pad=sSAME_UPPER|f32[1,1,%s]|-",
        "NonZero 13||f32[%s,2]|-",
        "OneHot 11||i64[%s] i64[]{5} f32[2]|-",
        "TopK 11||f32[%s,6] i64[1]|-",
    };
    char size[16], line[256], of_bound[16];
    for (size_t f = 0; f < ARRAY_LEN(FORMS); f++) {
        for (int bound = 3; bound < 9; bound++) {
            struct op_info most, real;
            snprintf(of_bound, sizeof of_bound, "<%d", bound);
            snprintf(line, sizeof line, FORMS[f], of_bound, of_bound);
            assert_int_equal(answer(line, &most), ERR_OK);
            for (int n = 2; n <= bound; n++) {
                snprintf(size, sizeof size, "%d", n);
                snprintf(line, sizeof line, FORMS[f], size, size);
                assert_int_equal(answer(line, &real), ERR_OK);
                assert_int_equal(real.shape.rank, most.shape.rank);
                for (int i = 0; i < real.shape.rank; i++) {
                    assert_true(real.shape.dims[i] <= most.shape.dims[i]);
                    if (!(most.shape.bounded >> i & 1))
                        assert_int_equal(real.shape.dims[i], most.shape.dims[i]);
                }
            }
        }
    }
}

static void bounds_cover_every_slice(void **state)
{
    (void)state;
    char line[128];
    for (int i = 0; i < 15 * 15 * 6; i++) {
        int start = i % 15 - 7, end = i / 15 % 15 - 7, step = i / 225 - 3;
        if (step >= 0) step++;
        struct op_info most, real;
        snprintf(line, sizeof line, "Slice 13||f32[<6] i64[1]{%d} i64[1]{%d} i64[1]{0} i64[1]{%d}|-", start,
                 end, step);
        assert_int_equal(answer(line, &most), ERR_OK);
        for (int n = 0; n <= 6; n++) {
            snprintf(line, sizeof line, "Slice 13||f32[%d] i64[1]{%d} i64[1]{%d} i64[1]{0} i64[1]{%d}|-", n,
                     start, end, step);
            assert_int_equal(answer(line, &real), ERR_OK);
            assert_true(real.shape.dims[0] <= most.shape.dims[0]);
        }
    }
}

/* Numbers that a file may hold and no shape can: an answer, never more. */
static void impossible_nodes_are_refused(void **state)
{
    (void)state;
    static const char *const LINES[] = {
        "Conv 11|group=i0|f32[1,2,3,3] f32[2,2,3,3]|-",
        "Conv 11|group=i-9223372036854775808|f32[1,2,3,3] f32[2,2,3,3]|-",
        "Conv 11|group=i9223372036854775807|f32[1,2,3,3] f32[2,2,3,3]|-",
        "Conv 11|strides=I0,1|f32[1,2,3,3] f32[2,2,3,3]|-",
        "Conv 11|strides=I1|f32[1,2,3,3] f32[2,2,3,3]|-",
        "Conv 11|dilations=I9223372036854775807,1|f32[1,2,3,3] f32[2,2,3,3]|-",
        "Conv 11|pads=I-1,0,0,0|f32[1,2,3,3] f32[2,2,3,3]|-",
        "Conv 11|pads=I9223372036854775807,9223372036854775807,1,1|f32[1,2,3,3] f32[2,2,3,3]|-",
        "Conv 11|auto_pad=sSOME|f32[1,2,3,3] f32[2,2,3,3]|-",
        "Conv 11|kernel_shape=I2,3|f32[1,2,3,3] f32[2,2,3,3]|-",
        "Conv 11||f32[1,3,3,3] f32[2,2,3,3]|-",
        "Conv 11||f32[1,2,2,3] f32[2,2,3,3]|-",
        "Conv 11||f32[1,2,3,3] f32[2,2,3,3] f32[3]|-",
        "Conv 11||f32[1,2] f32[2,2]|-",
        "Conv 11||f32[1,2,3,3] f32[2,2,3]|-",
        "Conv 11||f32[1,2,3,3] f64[2,2,3,3]|-",
        "Conv 11||f32[1,2,3,3]|-",
        "Conv 11||- f32[2,2,3,3]|-",
        "MaxPool 11||f32[1,2,3,3]|-",
        "MaxPool 11|kernel_shape=I0,1|f32[1,2,3,3]|-",
        "MaxPool 11|kernel_shape=I1,1|f32[1,2,3,3]|- - -",
        "ConvTranspose 11|output_shape=I-5,2|f32[1,2,3,3] f32[2,2,3,3]|-",
        "ConvTranspose 11|pads=I9,9,9,9|f32[1,2,3,3] f32[2,2,3,3]|-",
        "Reshape 13||f32[2,3] i64[2]{-1,-1}|-",
        "Reshape 13||f32[2,3] i64[2]{-2,3}|-",
        "Reshape 13||f32[2,3] i64[2]{4,-1}|-",
        "Reshape 13||f32[2,3] i64[3]{2,3,0}|-",
        "Reshape 13||f32[2,3] i64[2]{4611686018427387904,4}|-",
        "Reshape 13||f32[2,3] i64[9]{1,1,1,1,1,1,1,2,3}|-",
        "Reshape 13||f32[0,3] i64[2]{0,-1}|-",
        "Reshape 14|allowzero=i1|f32[0,3] i64[2]{0,-1}|-",
        "Expand 13||f32[2,3] i64[1]{-1}|-",
        "Expand 13||f32[2,3] i64[2]{4,3}|-",
        "Expand 13||f32[1] i64[2]{9007199254740992,9007199254740992}|-",
        "Tile 13||f32[2,3] i64[2]{9223372036854775807,9223372036854775807}|-",
        "Tile 13||f32[2,3] i64[1]{2}|-",
        "Tile 13||f32[2] i64[1]{-1}|-",
        "Slice 13||f32[2,3] i64[1]{0} i64[2]{1,1}|-",
        "Slice 13||f32[2,3] i64[1]{0} i64[1]{1} i64[1]{0} i64[1]{0}|-",
        "Slice 13||f32[2,3] i64[2]{0,0} i64[2]{1,1} i64[2]{0,-2}|-",
        "Slice 13||f32[2,3] i64[1]{0} i64[1]{1} i64[1]{2}|-",
        "Slice 13||f32[2,3] f32[1]{0} i64[1]{1} i64[1]{2}|-",
        "Pad 13||f32[2] i64[2]{9223372036854775807,1}|-",
        "Pad 13||f32[2] i64[2]{-9223372036854775808,-1}|-",
        "Pad 13||f32[2] i64[2]{-2,-1}|-",
        "Pad 13||f32[2] i64[1]{1}|-",
        "Pad 13|mode=sedge|f32[0] i64[2]{1,0}|-",
        "Concat 13|axis=i2|f32[2,3] f32[2,3]|-",
        "Concat 13||f32[2,3] f32[2,3]|-",
        "Concat 13|axis=i0|f32[2,3] f32[2,4]|-",
        "Concat 13|axis=i0|f32[2,3] f32[3]|-",
        "Concat 13|axis=i0|f32[2,3] -|-",
        "Split 13|axis=i0|f32[5]|- -",
        "Split 13|axis=i0|f32[5] i64[2]{9223372036854775807,6}|- -",
        "Split 18|num_outputs=i3|f32[5]|- -",
        "Transpose 13|perm=I0,0|f32[2,3]|-",
        "Transpose 13|perm=I0,-9223372036854775808|f32[2,3]|-",
        "Transpose 13|perm=I0|f32[2,3]|-",
        "Squeeze 13||f32[2,3] i64[1]{0}|-",
        "Unsqueeze 13||f32[1,1,1,1,1,1,1,1] i64[1]{0}|-",
        "Unsqueeze 13||f32[2] i64[2]{0,-3}|-",
        "Flatten 13|axis=i3|f32[2,3]|-",
        "Gather 13|axis=i2|f32[2,3] i64[1]|-",
        "Gather 13||f32[] i64[1]|-",
        "Gather 13||f32[2] f32[1]|-",
        "Gather 13||f32[0] i64[1]|-",
        "GatherND 13|batch_dims=i9223372036854775807|f32[2,3] i64[1,1]|-",
        "GatherND 13||f32[2,3] i64[1,3]|-",
        "ScatterND 13||f32[2,3] i64[1,1] f32[1,4]|-",
        "ScatterElements 13||f32[2,3] i64[2,4] f32[2,4]|-",
        "OneHot 13||i64[2] f32[]{-1} f32[2]|-",
        "OneHot 13||i64[2] f64[]{1e300} f32[2]|-",
        "OneHot 13||i64[2] f32[]{nan} f32[2]|-",
        "Resize 13||f32[1,1,2,2] - f32[4]{1,1,inf,1}|-",
        "Resize 13||f32[1,1,2,2] - f32[4]{1,1,-1,1}|-",
        "Resize 13||f32[1,1,2,2] - f32[4]{1,1,1e38,1}|-",
        "Resize 13||f32[1,1,2,2] - f32[2]{1,1}|-",
        "Resize 13||f32[1,1,2,2]|-",
        "Resize 13||f32[1,1,2,2] - - i64[4]{1,1,-1,9223372036854775807}|-",
        "Upsample 7|scales=F1,1,0|f32[1,1,2]|-",
        "Range 11||i64[]{0} i64[]{9223372036854775807} i64[]{1}|-",
        "Range 11||i64[]{-9223372036854775808} i64[]{9223372036854775807} i64[]{1}|-",
        "Range 11||i64[]{0} i64[]{1} i64[]{0}|-",
        "Range 11||f32[]{0} f32[]{inf} f32[]{1}|-",
        "Range 11||f32[]{nan} f32[]{1} f32[]{1}|-",
        "ConstantOfShape 9||i64[1]{-1}|-",
        "ConstantOfShape 9||i64[2]{70000000,70000000}|-",
        "TopK 11||f32[3] i64[1]{4}|- -",
        "TopK 11||f32[3] i64[1]{-1}|- -",
        "DepthToSpace 11|blocksize=i0|f32[1,4,2,2]|-",
        "DepthToSpace 11|blocksize=i9223372036854775807|f32[1,4,2,2]|-",
        "SpaceToDepth 11|blocksize=i3|f32[1,4,2,2]|-",
        "MatMul 13||f32[2,3] f32[2,3]|-",
        "MatMul 13||f32[] f32[2,3]|-",
        "Gemm 13||f32[2,3] f32[3,4] f32[3]|-",
        "Einsum 12|equation=sij,jk->iz|f32[2,3] f32[3,4]|-",
        "Einsum 12|equation=sij,jk->ik|f32[2,3] f32[4,4]|-",
        "Einsum 12|equation=sij->ij|f32[2,3] f32[4,4]|-",
        "Einsum 12|equation=s....->|f32[2,3]|-",
        "Einsum 12|equation=sabcdefghijklmn|f32[2,3]|-",
        "Einsum 12||f32[2,3]|-",
        "Add 13||f32[2,3] f32[4]|-",
        "Add 13||f32[2,3] i64[3]|-",
        "Add 13||f32[2,3]|-",
        "Relu 13||f32[200000000,200000000]|-",
        "Relu 13||f32[]|- -",
        "BatchNormalization 9||f32[1,2,3] f32[3] f32[2] f32[2] f32[2]|-",
        "ArgMax 13|axis=i-4|f32[1,2,3]|-",
        "ArgMax 13|axis=i0|f32[0]|-",
        "Softmax 13||f32[]|-",
        "NonMaxSuppression 11||f32[1,5,3] f32[1,1,5]|-",
        "NonMaxSuppression 11||f32[1,5,4] f32[1,1,6]|-",
    };
    for (size_t i = 0; i < ARRAY_LEN(LINES); i++) {
        err e = answer(LINES[i], NULL);
        if (e != ERR_SHAPE) fail_msg("%s: %s", LINES[i], e ? err_text() : "accepted");
    }
}

/* What could be right but cannot be answered before the run says so and names the input. */
static void what_depends_on_data_is_unsupported(void **state)
{
    (void)state;
    static const char *const LINES[] = {
        "Reshape 13||f32[2,3] i64[2]|-",    "Expand 13||f32[3] i64[2]|-",
        "Tile 13||f32[3] i64[1]|-",         "Slice 13||f32[3] i64[1] i64[1]|-",
        "Pad 13||f32[3] i64[2]|-",          "Resize 13||f32[1,1,2,2] - f32[4]|-",
        "Range 11||i64[] i64[] i64[]|-",    "ConstantOfShape 9||i64[2]|-",
        "OneHot 11||i64[3] i64[] f32[2]|-", "Split 13||f32[3] i64[2]|- -",
        "ReduceSum 13||f32[3] i64[1]|-",    "If 13||bool[]|-",
        "Loop 13||i64[] bool[]|-",          "Cast 13|to=i8|f32[3]|-",
        "Cast 19|to=i14|f32[3]|-",          "Cast 13|to=i9223372036854775807|f32[3]|-",
    };
    for (size_t i = 0; i < ARRAY_LEN(LINES); i++) {
        err e = answer(LINES[i], NULL);
        if (e != ERR_UNSUPPORTED) fail_msg("%s: %s", LINES[i], e ? err_text() : "accepted");
    }
    assert_int_equal(answer("Reshape 13||f32[2,3] i64[2]|-", NULL), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "input 1 (shape)"));
}

static int64_t flops(const char *line)
{
    struct node_case c;
    struct op_info out[32];
    char *copy = xstrdup(line);
    read_case(copy, &c);
    assert_int_equal(op_infer(&c.node, c.in, out), ERR_OK);
    int64_t r = op_flops(&c.node, c.in, out);
    free_case(&c);
    free(copy);
    return r;
}

static void flops_by_hand(void **state)
{
    (void)state;
    assert_int_equal(flops("Conv 11|pads=I1,1,1,1|f32[1,3,8,8] f32[4,3,3,3]|-"), 2 * 4 * 64 * 27);
    assert_int_equal(flops("Conv 11|pads=I1,1,1,1|f32[1,3,8,8] f32[4,3,3,3] f32[4]|-"),
                     2 * 4 * 64 * 27 + 4 * 64);
    assert_int_equal(flops("Conv 11|group=i4|f32[2,4,3,3] f32[4,1,3,3]|-"), 2 * 2 * 4 * 9);
    assert_int_equal(flops("ConvTranspose 11|strides=I2,2|f32[1,3,8,8] f32[3,4,2,2]|-"), 2 * 3 * 64 * 4 * 4);
    assert_int_equal(flops("MatMul 13||f32[5,2,3] f32[3,4]|-"), 2 * 5 * 2 * 3 * 4);
    assert_int_equal(flops("Gemm 13|transA=i1|f32[3,2] f32[3,4] f32[4]|-"), 2 * 4 * (2 * 3 + 1));
    assert_int_equal(flops("Einsum 12|equation=sij,jk->ik|f32[2,3] f32[3,4]|-"), 2 * 2 * 3 * 4);
    assert_int_equal(flops("Add 13||f32[2,3] f32[3]|-"), 6);
    assert_int_equal(flops("Transpose 13||f32[2,3]|-"), 0);
    assert_int_equal(flops("MaxPool 12|kernel_shape=I2,2 strides=I2,2|f32[1,3,8,8]|-"), 3 * 16 * 4);
    /* 2^22 x 2^22 results of 2^22 products each: more than an int64_t counts */
    assert_int_equal(flops("MatMul 13||f32[4194304,4194304] f32[4194304,4194304]|-"), INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_attributes),
        cmocka_unit_test(axes_are_sorted_and_checked),
        cmocka_unit_test(recorded_shapes),
        cmocka_unit_test(windows_agree_with_walking),
        cmocka_unit_test(transposed_window_holds_its_equation),
        cmocka_unit_test(bounds_cover_every_size),
        cmocka_unit_test(bounds_cover_every_slice),
        cmocka_unit_test(impossible_nodes_are_refused),
        cmocka_unit_test(what_depends_on_data_is_unsupported),
        cmocka_unit_test(flops_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

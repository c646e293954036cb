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

static enum tensor_dtype read_type(char **s) {
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

static void put_number(enum tensor_dtype type, void *at, size_t i, const char *s, char **end) {
    double d = strtod(s, end);
    long long l = type == TENSOR_F32 || type == TENSOR_F64 ? 0 : strtoll(s, end, 10);
    switch (type) {
    case TENSOR_F32:
        ((float *)at)[i] = (float)d;
        break;
    case TENSOR_F64:
        ((double *)at)[i] = d;
        break;
    case TENSOR_I64:
        ((int64_t *)at)[i] = l;
        break;
    case TENSOR_I32:
        ((int32_t *)at)[i] = (int32_t)l;
        break;
    case TENSOR_BOOL:
        ((uint8_t *)at)[i] = (uint8_t)l;
        break;
    default:
        fail_msg("a constant of type %d", type);
    }
}

/* "-", "f32[2,<3]" or "i64[2]{1,2}" */
static struct op_info read_tensor(char *s) {
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
        for (size_t i = 0; i < n; i++, s += *s == ',')
            put_number(v.dtype, bytes, i, s, &s);
        v.constant = bytes;
    }
    return v;
}

static void read_attr(char *s, struct op_attr *a) {
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

static void read_case(char *line, struct node_case *c) {
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

static void free_case(struct node_case *c) {
    for (int i = 0; i < c->node.n_in; i++)
        free((void *)(uintptr_t)c->in[i].constant);
    for (int i = 0; i < c->node.n_attrs; i++) {
        free(c->attrs[i].ints);
        free(c->attrs[i].floats);
        if (c->attrs[i].type == OP_ATTR_TENSOR) free(c->attrs[i].tensor.data);
    }
}

/* Where the truth depends on data, our size is a bound and must not be below it. */
static bool same(const struct op_info *got, const struct op_info *want) {
    if (got->dtype != want->dtype || got->shape.rank != want->shape.rank) return false;
    if (got->shape.bounded != want->shape.bounded) return false;
    for (int i = 0; i < want->shape.rank; i++)
        if (want->shape.bounded >> i & 1 ? got->shape.dims[i] < want->shape.dims[i]
                                         : got->shape.dims[i] != want->shape.dims[i])
            return false;
    return true;
}

static bool run_case(const char *line, struct node_case *c) {
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

static void recorded_shapes(void **state) {
    (void)state;
    const char *source = getenv("BRIM_SOURCE");
    if (!source) {
        print_message("BRIM_SOURCE is not set\n");
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
        if (!seen[k] && k != OP_IF && k != OP_LOOP && k != OP_SCAN && k != OP_COPY && k != OP_SILU)
            fail_msg("%s has no recorded case", op_name((enum op_kind)k));
    print_message("%d nodes, %d wrong\n", cases, wrong);
    assert_true(cases > 1000);
    assert_int_equal(wrong, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

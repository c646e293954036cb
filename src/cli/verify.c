/* `brim verify CASE...`: folders in the layout of ONNX's backend tests: model.onnx and test_data_set_K/input_I.pb, output_I.pb.
 *
 * A case passes if all its data sets do; tolerance |a - b| <= 1e-7 + 1e-3 |b|, as ONNX's own runner has it, which also allows two steps
 * of a bfloat16: 2^-6 |b|. What brim does not support yet is counted apart from what is wrong. SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"
#include "cli/model_cmd.h"
#include "model/model.h"
#include "tensor/small.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_INPUTS = 64 };

struct verify {
    struct mem_budget *budget;
    bool only_ref, json, quiet;
    double relative, absolute;
    int64_t threads;
    int passed, failed, unsupported;
};

struct blob {
    void *bytes, *owned;
    struct tensor t;
};

static void blob_done(struct blob *b)
{
    free(b->bytes);
    free(b->owned);
    *b = (struct blob){0};
}

static err read_file(const char *path, void **ret, size_t *ret_n)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || st.st_size > (off_t)1 << 31) {
        err e = err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        return e;
    }
    char *bytes = xcalloc((size_t)st.st_size + 1, 1);
    size_t at = 0;
    for (ssize_t n; at < (size_t)st.st_size && (n = read(fd, bytes + at, (size_t)st.st_size - at)) > 0;) at += (size_t)n;
    close(fd);
    *ret = bytes;
    *ret_n = at;
    return ERR_OK;
}

static err load(const char *dir, int set, const char *what, int i, struct blob *ret)
{
    char *path = xasprintf("%s/test_data_set_%d/%s_%d.pb", dir, set, what, i);
    size_t n = 0;
    struct blob b = {0};
    err e = read_file(path, &b.bytes, &n);
    if (!e) {
        char *name = NULL;
        e = graph_parse_tensor(b.bytes, n, &b.t, &name, &b.owned);
        free(name);
        if (e) {
            e = err_wrap(e, "%s", path);
            blob_done(&b);
        }
    }
    free(path);
    if (!e) *ret = b;
    return e;
}

static double number(const struct tensor *t, int64_t i)
{
    switch (t->dtype) {
    case TENSOR_F32: return ((const float *)t->data)[i];
    case TENSOR_F64: return ((const double *)t->data)[i];
    case TENSOR_I64: return (double)((const int64_t *)t->data)[i];
    case TENSOR_U64: return (double)((const uint64_t *)t->data)[i];
    case TENSOR_I32: return ((const int32_t *)t->data)[i];
    case TENSOR_U32: return ((const uint32_t *)t->data)[i];
    case TENSOR_I16: return ((const int16_t *)t->data)[i];
    case TENSOR_U16: return ((const uint16_t *)t->data)[i];
    case TENSOR_I8: return ((const int8_t *)t->data)[i];
    case TENSOR_U8: case TENSOR_BOOL: return ((const uint8_t *)t->data)[i];
    case TENSOR_BF16: {
        uint32_t bits = (uint32_t)((const uint16_t *)t->data)[i] << 16;
        float f;
        memcpy(&f, &bits, 4);
        return f;
    }
    case TENSOR_F16: {
        uint16_t h = ((const uint16_t *)t->data)[i];
        int exponent = h >> 10 & 31, mantissa = h & 1023;
        double v = exponent == 31 ? (mantissa ? (double)NAN : (double)INFINITY)
                   : exponent     ? ldexp(mantissa + 1024, exponent - 25)
                                  : ldexp(mantissa, -24);
        return h >> 15 ? -v : v;
    }
    case TENSOR_U4: case TENSOR_U2: return ((const uint8_t *)t->data)[i];
    case TENSOR_I4: case TENSOR_I2: return ((const int8_t *)t->data)[i];
    default: return tensor_dtype_is_small(t->dtype) ? (double)tensor_small_float(t->dtype, ((const uint8_t *)t->data)[i]) : 0;
    }
}

/* NumPy has no bfloat16: ONNX's tests keep its bits as uint16. */
static void bits_as_bf16(struct blob *b, enum tensor_dtype wanted)
{
    if (wanted == TENSOR_BF16 && b->t.dtype == TENSOR_U16) b->t.dtype = TENSOR_BF16;
}

static err compare(const struct verify *v, int i, const struct tensor *got, const struct tensor *want)
{
    char s[2][128];
    if (got->dtype != want->dtype)
        return err_set(ERR_INTERNAL, "output %d is %s, expected %s", i, tensor_dtype_name(got->dtype), tensor_dtype_name(want->dtype));
    if (!tensor_shape_equal(&got->shape, &want->shape))
        return err_set(ERR_INTERNAL, "output %d is %s, expected %s", i, tensor_shape_text(&got->shape, NULL, s[0], 128),
                       tensor_shape_text(&want->shape, NULL, s[1], 128));
    double relative = want->dtype == TENSOR_BF16 ? MAX(v->relative, 0x1p-6) : v->relative;
    for (int64_t k = 0; k < tensor_count(&want->shape); k++) {
        double a = number(got, k), b = number(want, k);
        bool equal = a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= v->absolute + relative * fabs(b);
        if (!equal) return err_set(ERR_INTERNAL, "output %d[%lld] is %.9g, expected %.9g", i, (long long)k, a, b);
    }
    return ERR_OK;
}

static err check_outputs(const struct verify *v, const char *dir, int set, const struct model *m, const struct model_plan *p)
{
    err e = ERR_OK;
    for (int i = 0; i < model_output_count(m) && !e; i++) {
        struct blob want;
        if ((e = load(dir, set, "output", i, &want))) break;
        struct tensor from = model_plan_output(p, i);
        void *flat = xcalloc((size_t)tensor_count(&from.shape) + 1, MAX(tensor_dtype_size(from.dtype), (size_t)1));
        struct tensor got = tensor_view(from.dtype, &from.shape, flat);
        bits_as_bf16(&want, got.dtype);
        e = model_copy(&from, &got);
        if (!e) e = compare(v, i, &got, &want.t);
        free(flat);
        blob_done(&want);
    }
    return e;
}

/* Runs one data set; inputs that were frozen into the graph are not the model's any more. */
static err run_set(const struct verify *v, const char *dir, int set, struct model *m, const struct blob *in, const bool *frozen)
{
    struct tensor_shape shapes[MAX_INPUTS];
    const struct tensor *feed[MAX_INPUTS];
    struct model_plan *p = NULL;
    int n = model_input_count(m);
    for (int i = 0, k = 0; k < n; i++) {
        if (frozen[i]) continue;
        shapes[k] = in[i].t.shape;
        feed[k++] = &in[i].t;
    }
    err e = model_plan_new(m, shapes, &p);
    if (!e) e = model_plan_reserve(p);
    for (int i = 0; i < n && !e; i++) {
        struct tensor to = model_plan_input(p, i);
        e = model_copy(feed[i], &to);
    }
    if (!e) e = model_plan_run(p, NULL);
    if (!e) e = check_outputs(v, dir, set, m, p);
    model_plan_free(&p);
    return e;
}

/* ONNX's tests feed shapes, axes and scales as inputs, where a model that is meant to run has them as constants. brim must know
 * them when it plans; so what is no longer than a shape becomes a constant with the numbers of the data set. */
static void freeze(struct graph *g, const struct blob *in, bool *ret_frozen)
{
    static const int64_t nothing = 0;
    int kept = 0;
    for (int i = 0; i < g->n_inputs; i++) {
        struct graph_value *value = &g->values[g->inputs[i]];
        const struct tensor *t = &in[i].t;
        ret_frozen[i] = t->shape.rank <= 1 && tensor_count(&t->shape) <= 2 * TENSOR_MAX_RANK && value->dtype == t->dtype;
        if (!ret_frozen[i]) {
            g->inputs[kept++] = g->inputs[i];
            continue;
        }
        value->shape = t->shape;
        value->has_shape = true;
        value->is_input = false;
        value->constant = t->data ? t->data : &nothing; /* an empty list of axes is a constant, too */
        value->constant_bytes = (size_t)tensor_count(&t->shape) * tensor_dtype_size(t->dtype);
    }
    g->n_inputs = kept;
}

static err run_frozen(const struct verify *v, const char *dir, int set, const char *path, const struct model_options *o,
                      const struct blob *in)
{
    struct mem_payer *payer = mem_payer_new(v->budget, "verify");
    struct graph *g = NULL;
    struct model *m = NULL;
    bool frozen[MAX_INPUTS] = {0};
    err e = graph_load(path, payer, &g);
    if (!e) {
        freeze(g, in, frozen);
        e = model_from_graph(g, path, o, &m);
    }
    if (!e) e = run_set(v, dir, set, m, in, frozen);
    model_free(&m);
    mem_payer_free(&payer);
    return e;
}

static err check_set(const struct verify *v, const char *dir, int set, const char *path, const struct model_options *o, struct model *m)
{
    static const bool none[MAX_INPUTS];
    struct blob in[MAX_INPUTS] = {{0}};
    int n = model_input_count(m);
    err e = n > MAX_INPUTS ? err_set(ERR_UNSUPPORTED, "more than %d inputs", MAX_INPUTS) : ERR_OK;
    for (int i = 0; i < n && !e; i++) {
        e = load(dir, set, "input", i, &in[i]);
        if (!e) bits_as_bf16(&in[i], model_input(m, i).dtype);
    }
    if (!e) {
        e = run_set(v, dir, set, m, in, none);
        if (e == ERR_UNSUPPORTED) e = run_frozen(v, dir, set, path, o, in);
    }
    for (int i = 0; i < n && i < MAX_INPUTS; i++) blob_done(&in[i]);
    return e;
}

static err run_case(const struct verify *v, const char *dir)
{
    char *path = xasprintf("%s/model.onnx", dir);
    struct model_options o = {.budget = v->budget, .threads = (int)v->threads, .only_ref = v->only_ref};
    struct model *m = NULL;
    err e = model_open(path, path, &o, &m);
    int set = 0;
    for (; !e; set++) {
        char *folder = xasprintf("%s/test_data_set_%d", dir, set);
        bool there = access(folder, F_OK) == 0;
        free(folder);
        if (!there) break;
        e = check_set(v, dir, set, path, &o, m);
    }
    if (!e && set == 0) e = err_set(ERR_FORMAT, "%s: no test_data_set_0", dir);
    model_free(&m);
    free(path);
    return e;
}

static void one(struct verify *v, const char *dir)
{
    err e = run_case(v, dir);
    const char *verdict = !e ? "passed" : e == ERR_UNSUPPORTED ? "unsupported" : "failed";
    v->passed += !e;
    v->unsupported += e == ERR_UNSUPPORTED;
    v->failed += e && e != ERR_UNSUPPORTED;
    if (v->json) {
        json_t *j = json_pack("{s:s, s:s, s:s}", "case", dir, "verdict", verdict, "why", e ? err_text() : "");
        json_dumpf(j, stdout, JSON_PRESERVE_ORDER);
        putchar('\n');
        json_decref(j);
    } else if (e && !v->quiet) {
        printf("%s: %s: %s\n", dir, verdict, err_text());
    }
}

int cli_verify(int argc, char **argv)
{
    struct verify v = {.relative = 1e-3, .absolute = 1e-7};
    bool help = false;
    struct args_list rest = {0};
    const struct args_option table[] = {{"only-ref", ARGS_FLAG, &v.only_ref, "plain C kernels only"},
                                        {"threads", ARGS_INT, &v.threads, "default: all processors"},
                                        {"rtol", ARGS_FLOAT, &v.relative, "relative tolerance (default 1e-3)"},
                                        {"atol", ARGS_FLOAT, &v.absolute, "absolute tolerance (default 1e-7)"},
                                        {"quiet", ARGS_FLAG, &v.quiet, "only the last line"},
                                        {"json", ARGS_FLAG, &v.json, "one JSON object a case on stdout; the last line on stderr"},
                                        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && !help && rest.n == 0) e = err_set(ERR_USAGE, "expected folders with model.onnx and test_data_set_0");
    if (help) args_help("verify CASE... [options]", table);
    if (!e && !help) {
        v.budget = mem_budget_new("host", UINT64_MAX);
        for (size_t i = 0; i < rest.n; i++) one(&v, rest.items[i]);
        mem_budget_free(&v.budget);
        fprintf(v.json ? stderr : stdout, "%d passed, %d failed, %d unsupported\n", v.passed, v.failed, v.unsupported);
    }
    free(rest.items);
    return e ? args_fail("verify", e) : v.failed != 0;
}

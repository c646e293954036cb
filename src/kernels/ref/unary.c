/* Element-wise operators of one input: y = f(x), in any layout.
 *
 * One line per operator and domain: an expression of x and of up to three parameters. float32 in dense memory
 * is one loop over the flat memory; all else is converted in chunks. Half precision computes in float32 and
 * rounds once. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/fastmath.h"
#include "kernels/ref/ref.h"
#include "kernels/ref/ops.h"

typedef void unary_fn(void *to, const void *from, int64_t n, const float *p);

#define RELU_LIKE(x) ((x) < 0 ? 0 : (x))
#define BOUND01(x)   ((x) < 0 ? 0 : (x) > 1 ? 1 : (x))

static inline float softplusf(float x)
{
    return (x > 0 ? x : 0) + log1pf(ref_expf(-fabsf(x)));
}

static inline double softplus(double x)
{
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}

/* operator, float32, float64; p[0], p[1], p[2]: its parameters */
#define UNARY_FLOAT(X)                                                                                       \
    X(ABS, fabsf(x), fabs(x))                                                                                \
    X(ACOS, acosf(x), acos(x))                                                                               \
    X(ACOSH, acoshf(x), acosh(x))                                                                            \
    X(ASIN, asinf(x), asin(x))                                                                               \
    X(ASINH, asinhf(x), asinh(x))                                                                            \
    X(ATAN, atanf(x), atan(x))                                                                               \
    X(ATANH, atanhf(x), atanh(x))                                                                            \
    X(CEIL, ceilf(x), ceil(x))                                                                               \
    X(CELU, x < 0 ? p[0] * expm1f(x / p[0]) : x, x < 0 ? p[0] * expm1(x / p[0]) : x)                         \
    X(COS, cosf(x), cos(x))                                                                                  \
    X(COSH, coshf(x), cosh(x))                                                                               \
    X(ELU, x < 0 ? p[0] * expm1f(x) : x, x < 0 ? p[0] * expm1(x) : x)                                        \
    X(ERF, erff(x), erf(x))                                                                                  \
    X(EXP, ref_expf(x), exp(x))                                                                              \
    X(FLOOR, floorf(x), floor(x))                                                                            \
    X(GELU,                                                                                                  \
      p[0] != 0 ? 0.5f * x * (1 + ref_tanhf(0.7978845608f * (x + 0.044715f * x * x * x)))                    \
                : 0.5f * x * (1 + erff(x * 0.70710678118f)),                                                 \
      p[0] != 0 ? 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)))                  \
                : 0.5 * x * (1 + erf(x * 0.70710678118654752440)))                                           \
    X(HARD_SIGMOID, BOUND01(p[0] * x + p[1]), BOUND01(p[0] * x + p[1]))                                      \
    X(HARD_SWISH, x * BOUND01(x * (1.0f / 6) + 0.5f), x * BOUND01(x * (1.0 / 6) + 0.5))                          \
    X(LEAKY_RELU, x < 0 ? p[0] * x : x, x < 0 ? p[0] * x : x)                                                \
    X(LOG, logf(x), log(x))                                                                                  \
    X(MISH, x * ref_tanhf(softplusf(x)), x * tanh(softplus(x)))                                                \
    X(NEG, -x, -x)                                                                                           \
    X(RECIPROCAL, 1 / x, 1 / x)                                                                              \
    X(RELU, RELU_LIKE(x), RELU_LIKE(x))                                                                      \
    X(ROUND, rintf(x), rint(x))                                                                              \
    X(SELU, p[1] * (x > 0 ? x : p[0] * expm1f(x)), p[1] * (x > 0 ? x : p[0] * expm1(x)))                     \
    X(SIGMOID, ref_sigmoidf(x), 1 / (1 + exp(-x)))                                                           \
    X(SIGN, x != x ? x : (float)((x > 0) - (x < 0)), x != x ? x : (double)((x > 0) - (x < 0)))               \
    X(SILU, x * ref_sigmoidf(x), x / (1 + exp(-x)))                                                           \
    X(SIN, sinf(x), sin(x))                                                                                  \
    X(SINH, sinhf(x), sinh(x))                                                                               \
    X(SOFTPLUS, softplusf(x), softplus(x))                                                                   \
    X(SOFTSIGN, x / (1 + fabsf(x)), x / (1 + fabs(x)))                                                       \
    X(SQRT, sqrtf(x), sqrt(x))                                                                               \
    X(TAN, tanf(x), tan(x))                                                                                  \
    X(TANH, ref_tanhf(x), tanh(x))                                                                           \
    X(THRESHOLDED_RELU, x > p[0] ? x : 0, x > p[0] ? x : 0)

/* Integers wrap, so everything is computed without a sign; `s` is the value with its sign. */
#define UNARY_INT(X)                                                                                         \
    X(ABS, s < 0 ? 0 - x : x)                                                                                \
    X(NEG, 0 - x)                                                                                            \
    X(RELU, s < 0 ? 0 : x)                                                                                   \
    X(SIGN, (uint64_t)(int64_t)((s > 0) - (s < 0)))                                                          \
    X(NOT, s == 0)

#define X(kind, f, d)                                                                                        \
    static void REF_HOT f32_##kind(void *to, const void *from, int64_t n, const float *p)                    \
    {                                                                                                        \
        (void)p;                                                                                             \
        float *restrict y = to;                                                                              \
        const float *restrict v = from;                                                                      \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            float x = v[i];                                                                                  \
            y[i] = f;                                                                                        \
        }                                                                                                    \
    }                                                                                                        \
    static void f64_##kind(void *to, const void *from, int64_t n, const float *p)                            \
    {                                                                                                        \
        (void)p;                                                                                             \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            double x = ((const double *)from)[i];                                                            \
            ((double *)to)[i] = d;                                                                           \
        }                                                                                                    \
    }
UNARY_FLOAT(X)
#undef X
#define X(kind, f)                                                                                           \
    static void i64_##kind(void *to, const void *from, int64_t n, const float *p)                            \
    {                                                                                                        \
        (void)p;                                                                                             \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            uint64_t x = ((const uint64_t *)from)[i];                                                        \
            int64_t s = (int64_t)x;                                                                          \
            (void)s;                                                                                         \
            ((uint64_t *)to)[i] = f;                                                                         \
        }                                                                                                    \
    }
UNARY_INT(X)
#undef X

/* IsNaN and IsInf write truth in the integer domain; p: count +inf, count -inf. */
static void f32_test_nan(void *to, const void *from, int64_t n, const float *p)
{
    (void)p;
    for (int64_t i = 0; i < n; i++)
        ((int64_t *)to)[i] = isnan(((const float *)from)[i]) != 0;
}
static void f64_test_nan(void *to, const void *from, int64_t n, const float *p)
{
    (void)p;
    for (int64_t i = 0; i < n; i++)
        ((int64_t *)to)[i] = isnan(((const double *)from)[i]) != 0;
}
static bool is_inf(double x, const float *p)
{
    return isinf(x) && (x > 0 ? p[0] != 0 : p[1] != 0);
}
static void f32_test_inf(void *to, const void *from, int64_t n, const float *p)
{
    for (int64_t i = 0; i < n; i++)
        ((int64_t *)to)[i] = is_inf((double)((const float *)from)[i], p);
}
static void f64_test_inf(void *to, const void *from, int64_t n, const float *p)
{
    for (int64_t i = 0; i < n; i++)
        ((int64_t *)to)[i] = is_inf(((const double *)from)[i], p);
}

static const struct {
    unary_fn *f32, *f64;
} FLOATS[OP_KIND_COUNT] = {
#define X(kind, f, d) [OP_##kind] = {f32_##kind, f64_##kind},
    UNARY_FLOAT(X)
#undef X
        [OP_IS_NAN] = {f32_test_nan, f64_test_nan},
    [OP_IS_INF] = {f32_test_inf, f64_test_inf},
};
static unary_fn *const INTEGERS[OP_KIND_COUNT] = {
#define X(kind, f) [OP_##kind] = i64_##kind,
    UNARY_INT(X)
#undef X
};

static void parameters(const struct op_node *n, float *p)
{
    switch (n->kind) {
    case OP_LEAKY_RELU:
        p[0] = op_attr_float(n, "alpha", 0.01f);
        break;
    case OP_HARD_SIGMOID:
        p[0] = op_attr_float(n, "alpha", 0.2f);
        p[1] = op_attr_float(n, "beta", 0.5f);
        break;
    case OP_SELU:
        p[0] = op_attr_float(n, "alpha", 1.67326319217681884765625f);
        p[1] = op_attr_float(n, "gamma", 1.05070102214813232421875f);
        break;
    case OP_GELU:
        p[0] = op_attr_string(n, "approximate", "none")[0] == 't';
        break;
    case OP_IS_INF:
        p[0] = op_attr_int(n, "detect_positive", 1) != 0;
        p[1] = op_attr_int(n, "detect_negative", 1) != 0;
        break;
    default:
        p[0] = op_attr_float(n, "alpha", 1.0f);
        break;
    }
}

struct unary {
    unary_fn *fn;
    const float *p;
    enum tensor_dtype in, out;
};

static void unary_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const struct unary *u = context;
    double in[REF_CHUNK], out[REF_CHUNK];
    bool plain = step[0] == (int64_t)tensor_dtype_size(u->out) && ref_domain_dtype(u->out) == u->out;
    if (plain && step[1] == (int64_t)tensor_dtype_size(u->in) && ref_domain_dtype(u->in) == u->in) {
        u->fn(p[0], p[1], n, u->p);
        return;
    }
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        const void *s = ref_fetch(u->in, p[1] + i * step[1], step[1], m, in);
        char *to = p[0] + i * step[0];
        u->fn(plain ? to : (char *)out, s, m, u->p);
        if (!plain) ref_put(u->out, to, step[0], m, out);
    }
}

err ref_unary(struct ref_call *c)
{
    float p[3] = {0};
    parameters(c->node, p);
    struct unary u = {.p = p, .in = c->in[0].dtype, .out = c->out[0].dtype};
    switch (ref_domain(u.in)) {
    case REF_F32:
        u.fn = FLOATS[c->node->kind].f32;
        break;
    case REF_F64:
        u.fn = FLOATS[c->node->kind].f64;
        break;
    case REF_I64:
    case REF_U64:
        u.fn = INTEGERS[c->node->kind];
        break;
    }
    if (u.in == TENSOR_U64 && (c->node->kind == OP_ABS || c->node->kind == OP_RELU)) {
        ref_copy_tensor(&c->out[0], &c->in[0]);
        return ERR_OK;
    }
    if (!u.fn) return err_set(ERR_UNSUPPORTED, "%s of %s", op_name(c->node->kind), tensor_dtype_name(u.in));
    struct ref_loop l;
    ref_loop_init(&l, &c->out[0].shape, 2, (const struct tensor *[]){&c->out[0], &c->in[0]});
    ref_loop_run(&l, unary_row, &u);
    return ERR_OK;
}

/* ---- post-ops */

static void post_values(const struct kernel_post *post, float *v, const float *add, int64_t n)
{
    float p[3] = {post->alpha, post->beta};
    switch (post->kind) {
    case KERNEL_POST_RELU:
        f32_RELU(v, v, n, p);
        return;
    case KERNEL_POST_LEAKY_RELU:
        f32_LEAKY_RELU(v, v, n, p);
        return;
    case KERNEL_POST_CLIP:
        for (int64_t i = 0; i < n; i++) {
            float x = v[i] < p[0] ? p[0] : v[i];
            v[i] = x > p[1] ? p[1] : x;
        }
        return;
    case KERNEL_POST_SIGMOID:
        f32_SIGMOID(v, v, n, p);
        return;
    case KERNEL_POST_SILU:
        f32_SILU(v, v, n, p);
        return;
    case KERNEL_POST_HARD_SIGMOID:
        f32_HARD_SIGMOID(v, v, n, p);
        return;
    case KERNEL_POST_HARD_SWISH:
        f32_HARD_SWISH(v, v, n, p);
        return;
    case KERNEL_POST_TANH:
        f32_TANH(v, v, n, p);
        return;
    case KERNEL_POST_ELU:
        f32_ELU(v, v, n, p);
        return;
    case KERNEL_POST_ADD:
        for (int64_t i = 0; i < n; i++)
            v[i] += add[i];
        return;
    case KERNEL_POST_SCALE:
        for (int64_t i = 0; i < n; i++)
            v[i] *= add[i];
        return;
    }
}

struct post {
    int n;
    const struct kernel_post *post;
    enum tensor_dtype out, add[KERNEL_MAX_POST];
};

/* p: the output, then one extra input for each post-op that reads one, in order. */
static void post_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const struct post *t = context;
    float v[REF_CHUNK], add[REF_CHUNK * 2];
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        char *to = p[0] + i * step[0];
        ref_get(t->out, to, step[0], m, v);
        for (int k = 0, extra = 0; k < t->n; k++) {
            const float *other = NULL;
            if (kernel_post_reads(&t->post[k])) {
                extra++;
                other = ref_fetch(t->add[extra - 1], p[extra] + i * step[extra], step[extra], m, add);
            }
            post_values(&t->post[k], v, other, m);
        }
        ref_put(t->out, to, step[0], m, v);
    }
}

void ref_post(const struct tensor *out, int n_post, const struct kernel_post *post, const struct tensor *in)
{
    const struct tensor *operands[1 + KERNEL_MAX_POST] = {out};
    struct post t = {.n = n_post, .post = post, .out = out->dtype};
    int n = 0;
    for (int i = 0; i < n_post; i++)
        if (kernel_post_reads(&post[i])) {
            t.add[n] = in[post[i].input].dtype;
            operands[++n] = &in[post[i].input];
        }
    struct ref_loop l;
    ref_loop_init(&l, &out->shape, 1 + n, operands);
    ref_loop_run(&l, post_row, &t);
}

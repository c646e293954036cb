/* UnaryGrad: dx = dy * f'(v), element by element in any layout, where v is the x or the y of y = f(x) (op/gradient.c says which).
 *
 * One line per operator: an expression of v and up to three parameters, compiled for float32 and float64 by defining the functions it names
 * twice. Choices at points without a derivative are PyTorch's. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/fastmath.h"
#include "kernels/ref/ops.h"

#include <string.h>

/* operator, f'(v); p: parameters. V(c): the constant c in the domain's type. */
#define UNARY_GRAD(X)                                                                                        \
    X(ABS, v > 0 ? V(1) : v < 0 ? V(-1) : V(0))                                                              \
    X(ACOS, V(-1) / SQRT(1 - v * v))                                                                         \
    X(ACOSH, V(1) / (SQRT(v - 1) * SQRT(v + 1)))                                                             \
    X(ASIN, V(1) / SQRT(1 - v * v))                                                                          \
    X(ASINH, V(1) / SQRT(v * v + 1))                                                                         \
    X(ATAN, V(1) / (1 + v * v))                                                                              \
    X(ATANH, V(1) / (1 - v * v))                                                                             \
    X(CELU, v > 0 ? V(1) : EXP(v / p[0]))                                                                    \
    X(CLIP, (v >= p[0]) & (v <= p[1]) ? V(1) : V(0)) /* no branch: it is vectorised */                                                         \
    X(COS, -SIN(v))                                                                                          \
    X(COSH, SINH(v))                                                                                         \
    X(ELU, v > 0 ? V(1) : p[0] * EXP(v))                                                                     \
    X(ERF, V(1.12837916709551257390) * EXP(-v * v))                                                          \
    X(EXP, v)                                                                                                \
    X(GELU, p[0] != 0 ? gelu_tanh(v) : gelu_erf(v))                                                          \
    X(HARD_SIGMOID, p[0] * v + p[1] > 0 && p[0] * v + p[1] < 1 ? (REAL)p[0] : V(0))                          \
    X(HARD_SWISH, v < -3 ? V(0) : v > 3 ? V(1) : v * V(1.0 / 3) + V(0.5))                                    \
    X(LEAKY_RELU, v > 0 ? V(1) : (REAL)p[0])                                                                 \
    X(LOG, V(1) / v)                                                                                         \
    X(MISH, mish(v))                                                                                         \
    X(RECIPROCAL, -v * v)                                                                                    \
    X(RELU, v > 0 ? V(1) : V(0))                                                                             \
    X(SELU, p[1] * (v > 0 ? V(1) : p[0] * EXP(v)))                                                           \
    X(SIGMOID, v * (1 - v))                                                                                  \
    X(SILU, silu(v))                                                                                         \
    X(SIN, COS(v))                                                                                           \
    X(SINH, COSH(v))                                                                                         \
    X(SOFTPLUS, SIGMOID(v))                                                                                  \
    X(SOFTSIGN, V(1) / ((1 + ABS(v)) * (1 + ABS(v))))                                                        \
    X(SQRT, V(0.5) / v)                                                                                      \
    X(TAN, 1 + TAN(v) * TAN(v))                                                                              \
    X(TANH, 1 - v * v)                                                                                       \
    X(THRESHOLDED_RELU, v > p[0] ? V(1) : V(0))

typedef void grad_fn(void *dx, const void *dy, const void *from, int64_t n, const float *p);

#define FUNCTIONS(suffix)                                                                                    \
    static inline REAL silu_##suffix(REAL v)                                                                 \
    {                                                                                                        \
        REAL s = SIGMOID(v);                                                                                 \
        return s * (1 + v * (1 - s));                                                                        \
    }                                                                                                        \
    static inline REAL gelu_erf_##suffix(REAL v)                                                             \
    {                                                                                                        \
        return V(0.5) * (1 + ERF(v * V(0.70710678118654752440))) +                                           \
               v * V(0.39894228040143267794) * EXP(V(-0.5) * v * v);                                         \
    }                                                                                                        \
    static inline REAL gelu_tanh_##suffix(REAL v)                                                            \
    {                                                                                                        \
        const REAL k = V(0.79788456080286535588), a = V(0.044715);                                           \
        REAL t = TANH(k * (v + a * v * v * v));                                                              \
        return V(0.5) * (1 + t) + V(0.5) * v * (1 - t * t) * k * (1 + 3 * a * v * v);                        \
    }                                                                                                        \
    static inline REAL mish_##suffix(REAL v) /* t = tanh(softplus(v)); softplus' = sigmoid */                \
    {                                                                                                        \
        REAL t = TANH((v > 0 ? v : 0) + LOG1P(EXP(-ABS(v))));                                                \
        return t + v * SIGMOID(v) * (1 - t * t);                                                             \
    }

#define EACH(suffix, kind, expression)                                                                       \
    static void REF_HOT suffix##_##kind(void *to, const void *dy, const void *from, int64_t n, const float *p) \
    {                                                                                                        \
        (void)p;                                                                                             \
        REAL *restrict dx = to;                                                                              \
        const REAL *restrict g = dy, *restrict x = from;                                                     \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            REAL v = x[i];                                                                                   \
            dx[i] = g[i] * (expression);                                                                     \
        }                                                                                                    \
    }

#define REAL        float
#define V(c)        ((float)(c))
#define EXP(x)      ref_expf(x)
#define SIGMOID(x)  ref_sigmoidf(x)
#define TANH(x)     ref_tanhf(x)
#define LOG1P(x)    log1pf(x)
#define SQRT(x)     sqrtf(x)
#define ERF(x)      erff(x)
#define ABS(x)      fabsf(x)
#define SIN(x)      sinf(x)
#define COS(x)      cosf(x)
#define TAN(x)      tanf(x)
#define SINH(x)     sinhf(x)
#define COSH(x)     coshf(x)
FUNCTIONS(f32)
#define silu        silu_f32
#define mish        mish_f32
#define gelu_erf    gelu_erf_f32
#define gelu_tanh   gelu_tanh_f32
#define X(kind, expression) EACH(f32, kind, expression)
UNARY_GRAD(X)
#undef X
#undef REAL
#undef V
#undef EXP
#undef SIGMOID
#undef TANH
#undef LOG1P
#undef SQRT
#undef ERF
#undef ABS
#undef SIN
#undef COS
#undef TAN
#undef SINH
#undef COSH
#undef silu
#undef mish
#undef gelu_erf
#undef gelu_tanh

#define REAL        double
#define V(c)        ((double)(c))
#define EXP(x)      exp(x)
#define SIGMOID(x)  (1 / (1 + exp(-(x))))
#define TANH(x)     tanh(x)
#define LOG1P(x)    log1p(x)
#define SQRT(x)     sqrt(x)
#define ERF(x)      erf(x)
#define ABS(x)      fabs(x)
#define SIN(x)      sin(x)
#define COS(x)      cos(x)
#define TAN(x)      tan(x)
#define SINH(x)     sinh(x)
#define COSH(x)     cosh(x)
FUNCTIONS(f64)
#define silu        silu_f64
#define mish        mish_f64
#define gelu_erf    gelu_erf_f64
#define gelu_tanh   gelu_tanh_f64
#define X(kind, expression) EACH(f64, kind, expression)
UNARY_GRAD(X)
#undef X

static const struct {
    enum op_kind kind;
    grad_fn *f32, *f64;
} FNS[] = {
#define X(kind, expression) {OP_##kind, f32_##kind, f64_##kind},
    UNARY_GRAD(X)
#undef X
};

static void parameters(const struct op_node *n, enum op_kind of, float *p)
{
    bool hard = of == OP_HARD_SIGMOID, selu = of == OP_SELU, leaky = of == OP_LEAKY_RELU;
    p[0] = op_attr_float(n, "alpha", hard ? 0.2f : selu ? 1.67326319217681884765625f : leaky ? 0.01f : 1.0f);
    p[1] = op_attr_float(n, "beta", 0.5f);
    if (selu) p[1] = op_attr_float(n, "gamma", 1.05070102214813232421875f);
    if (of == OP_GELU) p[0] = op_attr_string(n, "approximate", "none")[0] == 't';
}

struct unary_grad {
    grad_fn *fn;
    const float *p;
    enum tensor_dtype type, own;
};

/* p: dx, dy, v; all of one type */
static void row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const struct unary_grad *u = context;
    int64_t size = (int64_t)tensor_dtype_size(u->own);
    if (u->type == u->own && step[0] == size && step[1] == size && step[2] == size) {
        u->fn(p[0], p[1], p[2], n, u->p);
        return;
    }
    double g[REF_CHUNK], v[REF_CHUNK], out[REF_CHUNK];
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        const void *dy = ref_fetch(u->type, p[1] + i * step[1], step[1], m, g);
        u->fn(out, dy, ref_fetch(u->type, p[2] + i * step[2], step[2], m, v), m, u->p);
        ref_put(u->type, p[0] + i * step[0], step[0], m, out);
    }
}

err ref_unary_grad(struct ref_call *c)
{
    const char *name = op_attr_string(c->node, "of", "");
    enum op_kind of = op_find("", name);
    if (of == OP_NONE) of = op_find("brim", name);
    float p[2];
    struct unary_grad u = {.p = p, .type = c->in[0].dtype, .own = ref_domain_dtype(c->in[0].dtype)};
    for (size_t i = 0; i < ARRAY_LEN(FNS); i++)
        if (FNS[i].kind == of) u.fn = u.own == TENSOR_F64 ? FNS[i].f64 : FNS[i].f32;
    if (!u.fn) return err_set(ERR_UNSUPPORTED, "plain C has no gradient of '%.32s'", name);
    parameters(c->node, of, p);
    const struct tensor *operands[] = {&c->out[0], &c->in[0], &c->in[1]};
    struct ref_loop l;
    ref_loop_init(&l, &c->out[0].shape, 3, operands);
    ref_loop_run(&l, row, &u);
    return ERR_OK;
}

/* ---- Softmax: dx = y (dy - sum(dy y)); LogSoftmax: dx = dy - exp(y) sum(dy) */

#define SOFTMAX(suffix, REAL, E)                                                                             \
    static void softmax_##suffix(REAL *dx, const REAL *dy, const REAL *y, int64_t n, int64_t step, bool log) \
    {                                                                                                        \
        double sum = 0;                                                                                      \
        for (int64_t i = 0; i < n; i++)                                                                      \
            sum += log ? (double)dy[i * step] : (double)dy[i * step] * (double)y[i * step];                  \
        REAL s = (REAL)sum;                                                                                  \
        if (log)                                                                                             \
            for (int64_t i = 0; i < n; i++)                                                                  \
                dx[i * step] = dy[i * step] - E(y[i * step]) * s;                                            \
        else                                                                                                 \
            for (int64_t i = 0; i < n; i++)                                                                  \
                dx[i * step] = y[i * step] * (dy[i * step] - s);                                             \
    }
SOFTMAX(f32, float, ref_expf)
SOFTMAX(f64, double, exp)

err ref_softmax_grad(struct ref_call *c)
{
    int axis = 0, rank = c->in[0].shape.rank;
    err e = ref_axis(op_attr_int(c->node, "axis", -1), rank, &axis);
    if (e || tensor_count(&c->out[0].shape) == 0) return e;
    bool log = strcmp(op_attr_string(c->node, "of", ""), "LogSoftmax") == 0;
    struct tensor dy = ref_dense_in(c, 0, false), y = ref_dense_in(c, 1, false), dx = ref_dense_out(c, 0, false);
    int64_t n = y.shape.dims[axis], inner = 1, outer = 1;
    for (int i = 0; i < axis; i++) outer *= y.shape.dims[i];
    for (int i = axis + 1; i < rank; i++) inner *= y.shape.dims[i];
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            int64_t at = o * n * inner + i;
            if (y.dtype == TENSOR_F64)
                softmax_f64((double *)dx.data + at, (const double *)dy.data + at, (const double *)y.data + at, n, inner, log);
            else
                softmax_f32((float *)dx.data + at, (const float *)dy.data + at, (const float *)y.data + at, n, inner, log);
        }
    ref_dense_done(c, 0, &dx);
    return ERR_OK;
}

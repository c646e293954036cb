/* Element-wise operators of two or more inputs with NumPy's broadcasting: arithmetic, comparison, logic,
 * Where, Clip, Pow.
 *
 * Bad numbers: an integer divided by zero is 0, and its remainder too; the smallest integer over -1 wraps;
 * shifts by the width or more are 0. Max and Min give NaN if any operand is NaN. SPDX-License-Identifier:
 * Apache-2.0 */
#include "kernels/ref/fastmath.h"
#include "kernels/ref/ref.h"
#include "kernels/ref/ops.h"

typedef void binary_fn(void *to, const void *a, const void *b, int64_t n);

static inline float mod_floor_f32(float x, float y)
{
    float r = fmodf(x, y);
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}
static inline double mod_floor_f64(double x, double y)
{
    double r = fmod(x, y);
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}
static inline int64_t int_div(int64_t x, int64_t y)
{
    return y == 0 ? 0 : y == -1 ? (int64_t)(0 - (uint64_t)x) : x / y;
}
static inline int64_t int_rem(int64_t x, int64_t y)
{
    return y == 0 || y == -1 ? 0 : x % y;
}
static inline int64_t int_mod(int64_t x, int64_t y)
{
    int64_t r = int_rem(x, y);
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}
#define WRAP(op) (int64_t)((uint64_t)x op(uint64_t) y)

/* name, float32, float64, i64, u64 */
#define ARITHMETIC(X)                                                                                        \
    X(add, x + y, x + y, WRAP(+), x + y)                                                                     \
    X(sub, x - y, x - y, WRAP(-), x - y)                                                                     \
    X(mul, x *y, x *y, WRAP(*), x *y)                                                                        \
    X(div, x / y, x / y, int_div(x, y), y == 0 ? 0 : x / y)                                                  \
    X(max, x < y || y != y ? y : x, x < y || y != y ? y : x, x < y ? y : x, x < y ? y : x)                   \
    X(min, x > y || y != y ? y : x, x > y || y != y ? y : x, x > y ? y : x, x > y ? y : x)                   \
    X(fmod, fmodf(x, y), fmod(x, y), int_rem(x, y), y == 0 ? 0 : x % y)                                      \
    X(mod, mod_floor_f32(x, y), mod_floor_f64(x, y), int_mod(x, y), y == 0 ? 0 : x % y)                      \
    X(prelu, x < 0 ? x * y : x, x < 0 ? x * y : x, x < 0 ? WRAP(*) : x, x)                                   \
    X(pow, powf(x, y), pow(x, y), x, x) /* integers: int_power */                                            \
    X(and, 0, 0, x &&y, x &&y)                                                                               \
    X(or, 0, 0, x || y, x || y)                                                                              \
    X(xor, 0, 0, !x != !y, !x != !y)                                                                         \
    X(bitand, 0, 0, x & y, x & y)                                                                            \
    X(bitor, 0, 0, x | y, x | y)                                                                             \
    X(bitxor, 0, 0, x ^ y, x ^ y)                                                                            \
    X(left, 0, 0, y<0 || y> 63 ? 0 : WRAP(<<), y > 63 ? 0 : x << y)                                          \
    X(right, 0, 0, x >> (y < 0 || y > 63 ? 63 : y), y > 63 ? 0 : x >> y)
#define COMPARISON(X) X(equal, ==) X(greater, >) X(greater_equal, >=) X(less, <) X(less_equal, <=)

#define LOOP(name, T, R, expression)                                                                         \
    static void name(void *to, const void *a, const void *b, int64_t n)                                      \
    {                                                                                                        \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            T x = ((const T *)a)[i], y = ((const T *)b)[i];                                                  \
            ((R *)to)[i] = (R)(expression);                                                                  \
        }                                                                                                    \
    }
#define HOT_LOOP(name, expression)                                                                           \
    static void REF_HOT name(void *to, const void *a, const void *b, int64_t n)                              \
    {                                                                                                        \
        float *t = to;                                                                                       \
        const float *p = a, *q = b;                                                                          \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            float x = p[i], y = q[i];                                                                        \
            (void)x;                                                                                         \
            (void)y;                                                                                         \
            t[i] = expression;                                                                               \
        }                                                                                                    \
    }
#define X(name, f, d, i, u)                                                                                  \
    HOT_LOOP(name##_f32, f)                                                                                  \
    LOOP(name##_f64, double, double, ((void)x, (void)y, d))                                                  \
    LOOP(name##_i64, int64_t, int64_t, ((void)x, (void)y, i))                                                \
    LOOP(name##_u64, uint64_t, uint64_t, ((void)x, (void)y, u))
ARITHMETIC(X)
#undef X
#define X(name, op)                                                                                          \
    LOOP(name##_f32, float, int64_t, x op y)                                                                 \
    LOOP(name##_f64, double, int64_t, x op y)                                                                \
    LOOP(name##_i64, int64_t, int64_t, x op y)                                                               \
    LOOP(name##_u64, uint64_t, int64_t, x op y)
COMPARISON(X)
#undef X

#define FN(name)                                                                                             \
    {                                                                                                        \
        name##_f32, name##_f64, name##_i64, name##_u64                                                       \
    }
static binary_fn *const FUNCTIONS[OP_KIND_COUNT][4] = {
    [OP_ADD] = FN(add),
    [OP_SUM] = FN(add),
    [OP_MEAN] = FN(add),
    [OP_SUB] = FN(sub),
    [OP_MUL] = FN(mul),
    [OP_DIV] = FN(div),
    [OP_MAX] = FN(max),
    [OP_MIN] = FN(min),
    [OP_MOD] = FN(mod),
    [OP_PRELU] = FN(prelu),
    [OP_AND] = FN(and),
    [OP_OR] = FN(or),
    [OP_XOR] = FN(xor),
    [OP_BITSHIFT] = FN(right),
    [OP_BITWISE_AND] = FN(bitand),
    [OP_BITWISE_OR] = FN(bitor),
    [OP_BITWISE_XOR] = FN(bitxor),
    [OP_EQUAL] = FN(equal),
    [OP_GREATER] = FN(greater),
    [OP_GREATER_OR_EQUAL] = FN(greater_equal),
    [OP_LESS] = FN(less),
    [OP_LESS_OR_EQUAL] = FN(less_equal),
};
static binary_fn *const FMOD[4] = FN(fmod), *const LEFT[4] = FN(left), *const POW[4] = FN(pow);

struct binary {
    binary_fn *fn;
    int n; /* operands */
    enum tensor_dtype in, out;
    float scale; /* of the result, for Mean; else 1 */
};

static void scale_row(const struct binary *b, void *v, int64_t n)
{
    if (b->scale == 1) return;
    if (b->in == TENSOR_F64)
        for (int64_t i = 0; i < n; i++)
            ((double *)v)[i] /= (double)b->n;
    else
        for (int64_t i = 0; i < n; i++)
            ((float *)v)[i] *= b->scale;
}

/* p[0]: the output; p[1 ...]: the operands, folded from the left. */
static void binary_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const struct binary *b = context;
    double one[REF_CHUNK], two[REF_CHUNK], result[REF_CHUNK];
    bool plain = step[0] == (int64_t)tensor_dtype_size(b->out) && ref_domain_dtype(b->out) == b->out;
    int64_t most = REF_CHUNK, size = (int64_t)tensor_dtype_size(b->in);
    if (plain && step[1] == size && step[2] == size && b->n == 2 && ref_domain_dtype(b->in) == b->in)
        most = n;
    for (int64_t i = 0; i < n; i += most) {
        int64_t m = MIN(n - i, most);
        char *to = p[0] + i * step[0];
        void *d = plain ? to : (char *)result;
        const void *x = ref_fetch(b->in, p[1] + i * step[1], step[1], m, one);
        for (int k = 2; k <= b->n; k++) {
            const void *y = ref_fetch(b->in, p[k] + i * step[k], step[k], m, two);
            b->fn(d, x, y, m);
            x = d;
        }
        scale_row(b, d, m);
        if (!plain) ref_put(b->out, to, step[0], m, d);
    }
}

err ref_binary(struct ref_call *c)
{
    const struct op_node *n = c->node;
    enum ref_domain d = ref_domain(c->in[0].dtype);
    struct binary b = {.n = c->n_in, .in = c->in[0].dtype, .out = c->out[0].dtype, .scale = 1};
    b.fn = FUNCTIONS[n->kind][d];
    if (n->kind == OP_MOD && op_attr_int(n, "fmod", 0)) b.fn = FMOD[d];
    if (n->kind == OP_BITSHIFT && op_attr_string(n, "direction", "")[0] == 'L') b.fn = LEFT[d];
    if (n->kind == OP_MEAN) b.scale = 1.0f / (float)b.n;
    if (c->n_in == 1) { /* Sum, Mean, Max, Min of one */
        ref_copy_tensor(&c->out[0], &c->in[0]);
        return ERR_OK;
    }
    const struct tensor *operands[1 + KERNEL_MAX_IN] = {&c->out[0]};
    if (c->n_in < 1 || c->n_in > KERNEL_MAX_IN) return err_set(ERR_LIMIT, "%d operands", c->n_in);
    for (int i = 0; i < c->n_in; i++)
        operands[1 + i] = &c->in[i];
    struct ref_loop l;
    ref_loop_init(&l, &c->out[0].shape, 1 + c->n_in, operands);
    ref_loop_run(&l, binary_row, &b);
    return ERR_OK;
}

/* ---- Pow: the exponent has a type of its own */

static uint64_t int_power(uint64_t x, int64_t y)
{
    if (y < 0) return x == 1 ? 1 : x == UINT64_MAX ? (y & 1 ? x : 1) : 0;
    uint64_t r = 1;
    for (; y; y >>= 1, x *= x)
        if (y & 1) r *= x;
    return r;
}

struct power {
    enum tensor_dtype base, exponent;
};

static void power_float(const struct power *t, void *d, const void *x, void *y, int64_t m)
{
    bool wide = t->base == TENSOR_F64;
    bool square = !wide && m > 0;
    for (int64_t i = 0; square && i < m; i++)
        square = ((const float *)y)[i] == 2;
    if (square)
        mul_f32(d, x, x, m);
    else
        POW[wide ? REF_F64 : REF_F32](d, x, y, m);
}

static void power_int(const struct power *t, void *d, const void *x, const void *y, int64_t m)
{
    if (tensor_dtype_is_float(t->exponent)) {
        double v[REF_CHUNK], e[REF_CHUNK];
        ref_convert(ref_domain(t->base), x, TENSOR_F64, v, m);
        ref_convert(ref_domain(t->exponent), y, TENSOR_F64, e, m);
        for (int64_t i = 0; i < m; i++)
            v[i] = pow(v[i], e[i]);
        ref_convert(REF_F64, v, t->base, d, m);
        return;
    }
    for (int64_t i = 0; i < m; i++)
        ((uint64_t *)d)[i] = int_power(((const uint64_t *)x)[i], ((const int64_t *)y)[i]);
}

static void power_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const struct power *t = context;
    double base[REF_CHUNK], exponent[REF_CHUNK], same[REF_CHUNK], result[REF_CHUNK];
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        const void *x = ref_fetch(t->base, p[1] + i * step[1], step[1], m, base);
        const void *y = ref_fetch(t->exponent, p[2] + i * step[2], step[2], m, exponent);
        if (tensor_dtype_is_float(t->base)) {
            ref_convert(ref_domain(t->exponent), y, t->base, same, m);
            power_float(t, result, x, same, m);
        } else {
            power_int(t, result, x, y, m);
        }
        ref_put(t->base, p[0] + i * step[0], step[0], m, result);
    }
}

err ref_pow(struct ref_call *c)
{
    struct power t = {c->in[0].dtype, c->in[1].dtype};
    struct ref_loop l;
    ref_loop_init(&l, &c->out[0].shape, 3, (const struct tensor *[]){&c->out[0], &c->in[0], &c->in[1]});
    ref_loop_run(&l, power_row, &t);
    return ERR_OK;
}

/* ---- Where */

static void where_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    size_t size = *(const size_t *)context;
#define PICK(T)                                                                                              \
    for (int64_t i = 0; i < n; i++) {                                                                        \
        const char *from = p[1][i * step[1]] ? p[2] + i * step[2] : p[3] + i * step[3];                      \
        *(T *)(void *)(p[0] + i * step[0]) = *(const T *)(const void *)from;                                 \
    }
    switch (size) {
    case 1:
        PICK(uint8_t) return;
    case 2:
        PICK(uint16_t) return;
    case 4:
        PICK(uint32_t) return;
    case 8:
        PICK(uint64_t) return;
    }
#undef PICK
}

err ref_where(struct ref_call *c)
{
    size_t size = (size_t)ref_size(&c->out[0]);
    struct ref_loop l;
    ref_loop_init(&l, &c->out[0].shape, 4,
                  (const struct tensor *[]){&c->out[0], &c->in[0], &c->in[1], &c->in[2]});
    ref_loop_run(&l, where_row, &size);
    return ERR_OK;
}

/* ---- Clip */

struct clip {
    enum tensor_dtype type;
    bool has_low, has_high;
    union {
        float f;
        double d;
        int64_t i;
        uint64_t u;
    } low, high;
};

static void clip_values(const struct clip *c, void *to, const void *from, int64_t n)
{
#define CLIP(T, field)                                                                                       \
    for (int64_t i = 0; i < n; i++) {                                                                        \
        T x = ((const T *)from)[i];                                                                          \
        x = x < c->low.field ? c->low.field : x;                                                             \
        ((T *)to)[i] = x > c->high.field ? c->high.field : x;                                                \
    }
    switch (ref_domain(c->type)) {
    case REF_F32:
        CLIP(float, f) break;
    case REF_F64:
        CLIP(double, d) break;
    case REF_I64:
        CLIP(int64_t, i) break;
    case REF_U64:
        CLIP(uint64_t, u) break;
    }
#undef CLIP
}

static void clip_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const struct clip *c = context;
    double in[REF_CHUNK], out[REF_CHUNK];
    int64_t size = (int64_t)tensor_dtype_size(c->type);
    if (step[0] == size && step[1] == size && ref_domain_dtype(c->type) == c->type) {
        clip_values(c, p[0], p[1], n);
        return;
    }
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        clip_values(c, out, ref_fetch(c->type, p[1] + i * step[1], step[1], m, in), m);
        ref_put(c->type, p[0] + i * step[0], step[0], m, out);
    }
}

/* Since opset 11 the limits are inputs, before they were attributes. */
err ref_clip(struct ref_call *c)
{
    struct clip t = {.type = c->in[0].dtype};
    bool is_float = tensor_dtype_is_float(t.type);
    double low = is_float ? -INFINITY : -0x1p63, high = is_float ? (double)INFINITY : 0x1p64;
    if (c->node->opset < 11) {
        low = (double)op_attr_float(c->node, "min", -3.4028234663852886e38f);
        high = (double)op_attr_float(c->node, "max", 3.4028234663852886e38f);
    }
    enum tensor_dtype own = ref_domain_dtype(t.type);
    ref_convert(REF_F64, &low, own, &t.low, 1);
    ref_convert(REF_F64, &high, own, &t.high, 1);
    if (c->node->opset >= 11 && ref_has(c, 1) && tensor_count(&c->in[1].shape) == 1)
        ref_get(t.type, c->in[1].data, 0, 1, &t.low);
    if (c->node->opset >= 11 && ref_has(c, 2) && tensor_count(&c->in[2].shape) == 1)
        ref_get(t.type, c->in[2].data, 0, 1, &t.high);
    struct ref_loop l;
    ref_loop_init(&l, &c->out[0].shape, 2, (const struct tensor *[]){&c->out[0], &c->in[0]});
    ref_loop_run(&l, clip_row, &t);
    return ERR_OK;
}

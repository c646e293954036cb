/* RNN, GRU and LSTM (ONNX operators; all directions, lengths, peepholes, clip, linear_before_reset).
 *
 * W and R of a direction are transposed once per run to [in, G H], so that a step of one sequence is a row of
 * multiply-adds over all gates at once. Gates lie as ONNX has them: LSTM i o f c, GRU z r h. Sequences are
 * independent, so each walks its own steps: 0 .. length - 1, or back. What lies behind a length is zero in Y.
 * Everything is computed in float32. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>
#include <strings.h>

enum act { TANH, SIGMOID, RELU, AFFINE, LEAKY, THRESHOLDED, SCALED_TANH, HARD_SIGMOID, ELU, SOFTSIGN, SOFTPLUS };
static const struct {
    const char *name;
    float alpha, beta;
} ACTS[] = {[TANH] = {"Tanh", 0, 0},
            [SIGMOID] = {"Sigmoid", 0, 0},
            [RELU] = {"Relu", 0, 0},
            [AFFINE] = {"Affine", 1, 0},
            [LEAKY] = {"LeakyRelu", 0.01f, 0},
            [THRESHOLDED] = {"ThresholdedRelu", 1, 0},
            [SCALED_TANH] = {"ScaledTanh", 1, 1},
            [HARD_SIGMOID] = {"HardSigmoid", 0.2f, 0.5f},
            [ELU] = {"Elu", 1, 0},
            [SOFTSIGN] = {"Softsign", 0, 0},
            [SOFTPLUS] = {"Softplus", 0, 0}};

struct f {
    enum act act;
    float alpha, beta;
};

struct job {
    enum op_kind kind;
    int64_t gates, h, in, steps, batch, dirs, layout;
    bool before_reset, couple;
    float clip;
    struct f f[6];
    /* of the direction at hand */
    const float *b, *p;
    float *wt, *rt, *g, *u, *state, *cell;
};

static float apply(const struct job *j, int which, float x)
{
    const struct f *f = &j->f[which];
    if (j->clip > 0) x = x > j->clip ? j->clip : x < -j->clip ? -j->clip : x;
    switch (f->act) {
    case TANH: return tanhf(x);
    case SIGMOID: return 1 / (1 + expf(-x));
    case RELU: return x > 0 ? x : 0;
    case AFFINE: return f->alpha * x + f->beta;
    case LEAKY: return x < 0 ? f->alpha * x : x;
    case THRESHOLDED: return x > f->alpha ? x : 0;
    case SCALED_TANH: return f->alpha * tanhf(f->beta * x);
    case HARD_SIGMOID: return fminf(1, fmaxf(0, f->alpha * x + f->beta));
    case ELU: return x < 0 ? f->alpha * (expf(x) - 1) : x;
    case SOFTSIGN: return x / (1 + fabsf(x));
    case SOFTPLUS: return x > 20 ? x : log1pf(expf(x));
    }
    return x;
}

/* Names are one after the other, each with its 0. */
static err read_acts(const struct op_node *n, struct job *j)
{
    int each = j->kind == OP_LSTM ? 3 : j->kind == OP_GRU ? 2 : 1, all = each * (int)j->dirs;
    const struct op_attr *names = op_attr(n, "activations"), *alpha = op_attr(n, "activation_alpha"),
                         *beta = op_attr(n, "activation_beta");
    for (int i = 0; i < all; i++)
        j->f[i].act = each == 1 || i % each > 0 ? TANH : SIGMOID;
    if (names && (names->type != OP_ATTR_STRINGS || !names->s || names->n != (size_t)all))
        return err_set(ERR_SHAPE, "activations must be %d names", all);
    const char *s = names ? names->s : NULL;
    size_t na = 0, nb = 0;
    for (int i = 0; i < all; i++) {
        size_t k = j->f[i].act;
        if (s) {
            for (k = 0; k < ARRAY_LEN(ACTS) && strcasecmp(ACTS[k].name, s) != 0; k++) {}
            if (k == ARRAY_LEN(ACTS)) return err_set(ERR_UNSUPPORTED, "the activation '%.32s'", s);
            s += strlen(s) + 1;
        }
        j->f[i] = (struct f){(enum act)k, ACTS[k].alpha, ACTS[k].beta};
        bool has_beta = k == AFFINE || k == SCALED_TANH || k == HARD_SIGMOID, has_alpha = ACTS[k].alpha != 0;
        if (has_alpha && alpha && alpha->type == OP_ATTR_FLOATS && na < alpha->n) j->f[i].alpha = alpha->floats[na++];
        if (has_beta && beta && beta->type == OP_ATTR_FLOATS && nb < beta->n) j->f[i].beta = beta->floats[nb++];
    }
    return ERR_OK;
}

static void turn(const float *from, float *to, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) to[c * rows + r] = from[r * cols + c];
}

/* y += v[0..k) times the rows of m, columns [from, from + n) of `width` */
static void REF_HOT add_rows(float *restrict y, const float *restrict v, int64_t k, const float *restrict m,
                             int64_t width, int64_t n)
{
    for (int64_t i = 0; i < k; i++) {
        float s = v[i];
        for (int64_t c = 0; c < n; c++) y[c] += s * m[i * width + c];
    }
}

static void lstm_step(struct job *j, int f)
{
    int64_t h = j->h;
    float *i = j->g, *o = i + h, *g = o + h, *c = g + h;
    add_rows(j->g, j->state, h, j->rt, 4 * h, 4 * h);
    for (int64_t k = 0; k < h; k++) {
        float before = j->cell[k], p_i = j->p ? j->p[k] * before : 0, p_f = j->p ? j->p[2 * h + k] * before : 0;
        float gate_i = apply(j, f, i[k] + p_i), gate_f = j->couple ? 1 - gate_i : apply(j, f, g[k] + p_f);
        float cell = gate_f * before + gate_i * apply(j, f + 1, c[k]);
        float gate_o = apply(j, f, o[k] + (j->p ? j->p[h + k] * cell : 0)), clip = j->clip;
        j->cell[k] = cell;
        j->clip = 0; /* h of the cell is not a gate's input */
        j->state[k] = gate_o * apply(j, f + 2, cell);
        j->clip = clip;
    }
}

static void gru_step(struct job *j, int f)
{
    int64_t h = j->h;
    float *z = j->g, *r = z + h, *n = r + h, *u = j->u;
    const float *rb = j->b ? j->b + 5 * h : NULL;
    add_rows(z, j->state, h, j->rt, 3 * h, 2 * h);
    for (int64_t k = 0; k < h; k++) {
        z[k] = apply(j, f, z[k]);
        r[k] = apply(j, f, r[k]);
        u[k] = j->before_reset ? (rb ? rb[k] : 0) : r[k] * j->state[k];
    }
    if (j->before_reset) {
        add_rows(u, j->state, h, j->rt + 2 * h, 3 * h, h);
        for (int64_t k = 0; k < h; k++) n[k] += r[k] * u[k];
    } else {
        for (int64_t k = 0; rb && k < h; k++) n[k] += rb[k];
        add_rows(n, u, h, j->rt + 2 * h, 3 * h, h);
    }
    for (int64_t k = 0; k < h; k++) j->state[k] = (1 - z[k]) * apply(j, f + 1, n[k]) + z[k] * j->state[k];
}

/* The gates' inputs from x and the biases; GRU's third recurrent bias is added by the step. */
static void gates_of(struct job *j, const float *x)
{
    int64_t all = j->gates * j->h, shared = j->kind == OP_GRU ? 2 * j->h : all;
    for (int64_t k = 0; k < all; k++) j->g[k] = j->b ? j->b[k] + (k < shared ? j->b[all + k] : 0) : 0;
    add_rows(j->g, x, j->in, j->wt, all, all);
}

static void sequence(struct job *j, const float *x, int64_t x_step, float *y, int64_t y_step, int64_t length,
                     bool back, int f)
{
    for (int64_t s = 0; s < length; s++) {
        int64_t t = back ? length - 1 - s : s;
        gates_of(j, x + t * x_step);
        if (j->kind == OP_LSTM)
            lstm_step(j, f);
        else if (j->kind == OP_GRU)
            gru_step(j, f);
        else {
            add_rows(j->g, j->state, j->h, j->rt, j->h, j->h);
            for (int64_t k = 0; k < j->h; k++) j->state[k] = apply(j, f, j->g[k]);
        }
        if (y) memcpy(y + t * y_step, j->state, (size_t)j->h * sizeof *y);
    }
    for (int64_t t = length; y && t < j->steps; t++) memset(y + t * y_step, 0, (size_t)j->h * sizeof *y);
}

static struct job sizes(const struct ref_call *c)
{
    struct job j = {.kind = c->node->kind, .layout = op_attr_int(c->node, "layout", 0) != 0};
    j.gates = j.kind == OP_LSTM ? 4 : j.kind == OP_GRU ? 3 : 1;
    j.h = c->in[2].shape.dims[2];
    j.dirs = c->in[2].shape.dims[0];
    j.steps = c->in[0].shape.dims[j.layout];
    j.batch = c->in[0].shape.dims[1 - j.layout];
    j.in = c->in[0].shape.dims[2];
    return j;
}

size_t ref_recurrent_scratch(const struct ref_call *c)
{
    struct job j = sizes(c);
    size_t all = (size_t)(j.gates * j.h) * sizeof(float), h = REF_ALIGN((size_t)j.h * sizeof(float));
    return ref_scratch_rows(c) + REF_ALIGN(all * (size_t)j.in) + REF_ALIGN(all * (size_t)j.h) +
           REF_ALIGN(all) + 3 * h;
}

static err prepare(struct ref_call *c, struct job *j)
{
    size_t all = (size_t)(j->gates * j->h) * sizeof(float), h = (size_t)j->h * sizeof(float);
    const char *way = op_attr_string(c->node, "direction", "forward");
    if (ref_domain(c->in[0].dtype) != REF_F32)
        return err_set(ERR_UNSUPPORTED, "%s of float64", op_name(j->kind));
    if (j->dirs != (*way == 'b' ? 2 : 1)) return err_set(ERR_SHAPE, "input 2 does not fit the direction");
    j->before_reset = op_attr_int(c->node, "linear_before_reset", 0) != 0;
    j->couple = op_attr_int(c->node, "input_forget", 0) != 0;
    j->clip = op_attr_float(c->node, "clip", 0);
    j->wt = ref_scratch(c, all * (size_t)j->in);
    j->rt = ref_scratch(c, all * (size_t)j->h);
    j->g = ref_scratch(c, all);
    j->u = ref_scratch(c, h);
    j->state = ref_scratch(c, h);
    j->cell = ref_scratch(c, h);
    return read_acts(c->node, j);
}

static void start(float *to, const struct tensor *from, int64_t at, int64_t h)
{
    if (from->data)
        memcpy(to, (const float *)from->data + at, (size_t)h * sizeof *to);
    else
        memset(to, 0, (size_t)h * sizeof *to);
}

static void one_direction(struct ref_call *c, struct job *j, int64_t d, struct tensor *in, struct tensor *out)
{
    int64_t all = j->gates * j->h, h = j->h, f = d * (j->kind == OP_LSTM ? 3 : j->kind == OP_GRU ? 2 : 1);
    bool back = d == 1 || *op_attr_string(c->node, "direction", "forward") == 'r';
    j->b = in[3].data ? (const float *)in[3].data + d * 2 * all : NULL;
    j->p = in[7].data ? (const float *)in[7].data + d * 3 * h : NULL;
    turn((const float *)in[1].data + d * all * j->in, j->wt, all, j->in);
    turn((const float *)in[2].data + d * all * h, j->rt, all, h);
    for (int64_t b = 0; b < j->batch; b++) {
        int64_t length = in[4].data ? ((const int64_t *)in[4].data)[b] : j->steps;
        int64_t at = (j->layout ? b * j->dirs + d : d * j->batch + b) * h;
        int64_t x0 = (j->layout ? b * j->steps : b) * j->in, x_step = (j->layout ? 1 : j->batch) * j->in;
        int64_t y0 = j->layout ? (b * j->steps * j->dirs + d) * h : at;
        int64_t y_step = (j->layout ? j->dirs : j->dirs * j->batch) * h;
        start(j->state, &in[5], at, h);
        start(j->cell, &in[6], at, h);
        sequence(j, (const float *)in[0].data + x0, x_step, out[0].data ? (float *)out[0].data + y0 : NULL, y_step,
                 length < 0 ? 0 : MIN(length, j->steps), back, (int)f);
        if (out[1].data) memcpy((float *)out[1].data + at, j->state, (size_t)h * sizeof(float));
        if (out[2].data) memcpy((float *)out[2].data + at, j->cell, (size_t)h * sizeof(float));
    }
}

err ref_recurrent(struct ref_call *c)
{
    struct job j = sizes(c);
    struct tensor in[8] = {0}, out[3] = {0};
    err e = prepare(c, &j);
    if (e) return e;
    for (int i = 0; i < MIN(c->n_in, 8); i++)
        if (ref_has(c, i)) in[i] = ref_dense_in(c, i, false);
    for (int i = 0; i < MIN(c->n_out, 3); i++)
        if (ref_wants(c, i)) out[i] = ref_dense_out(c, i, false);
    if (j.batch > 0)
        for (int64_t d = 0; d < j.dirs; d++) one_direction(c, &j, d, in, out);
    for (int i = 0; i < MIN(c->n_out, 3); i++)
        if (ref_wants(c, i)) ref_dense_done(c, i, &out[i]);
    return ERR_OK;
}

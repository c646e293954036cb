/* Shape rules of the operators that gradients need (domain "brim"). dy is the gradient of the loss by what the operator of the same name
 * made; every dx has the type and shape of that operator's input.
 *
 *     UnaryGrad        (dy, v) -> dx        `of` names the operator y = f(x); v is x, or y where f'(x) is a function of y: Exp, Reciprocal,
 *                                           Relu, Sigmoid, Sqrt, Tanh (LeakyRelu takes either). alpha, beta, gamma, approximate: as of `of`;
 *                                           Clip has its limits in alpha and beta.
 *     SoftmaxGrad      (dy, y) -> dx        `of`: Softmax or LogSoftmax, along one `axis`
 *     ConvGradWeight   (dy, x) -> dW, dB    attributes of Conv; `shape` is that of W [M, C / group, kernel...]; dB [M] may be left out.
 *                                           dy may have fewer places than the convolution would give: the rest counts as 0.
 *     MaxPoolGrad      (dy, x) -> dx        attributes of MaxPool; the first of equal maxima gets all
 *     AveragePoolGrad  (dy) -> dx           attributes of AveragePool; `shape` is that of x
 *     BatchNormTrain   (x, scale, bias, mean, var) -> y, m, v, mean', var'   normalises by the batch's own mean m and (biased) variance v;
 *                                           mean' = momentum mean + (1 - momentum) m, var' = the same with the unbiased v, as PyTorch. All but x
 *                                           and y are [C]; the last two of both may be absent.
 *     BatchNormGrad    (dy, x, scale, m, v) -> dx, dscale, dbias
 *     InstanceNormGrad (dy, x, scale) -> dx, dscale, dbias
 *     LayerNormGrad    (dy, x, scale) -> dx, dscale, dbias    scale has x's sizes from `axis` on
 *     GatherGrad       (dy, indices) -> dx  adds the slices of dy to where Gather took them; `axis`, `shape` of x
 *     SliceGrad        (dy) -> dx           zeros of `shape`, and dy at `starts` with `steps` (one of each per axis, steps of any sign but 0)
 *     DropoutBy        (x, draw) -> y       Dropout in training: 0 where the draw says so, else x / (1 - ratio). draw: int64 [3], the seed, the number
 *                                           of the update and of the run within it; with the attribute `node` and the number of the element they say
 *                                           what is dropped (kernels/dropout.h). It is its own gradient by x: DropoutBy(dy, draw). Elements are counted
 *                                           in the order of the axes, or with `channels_last` as in such an image: N, H, W, C.
 *
 * The convolution's gradient by its input is ConvTranspose. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

#include <string.h>

/* The attribute `shape` as a shape. */
static err read_shape(const struct op_node *n, struct tensor_shape *ret)
{
    const int64_t *v = NULL;
    size_t len = op_attr_ints(n, "shape", &v);
    struct tensor_shape s = {.rank = 0};
    const struct op_attr *a = op_attr(n, "shape");
    if (!a || a->type != OP_ATTR_INTS) return err_set(ERR_SHAPE, "the attribute 'shape' is missing");
    if (len > TENSOR_MAX_RANK) return err_set(ERR_SHAPE, "shape has %zu numbers", len);
    err e = ERR_OK;
    for (size_t i = 0; i < len && !e; i++) e = op_push(&s, v[i], false);
    int64_t count;
    if (!e) e = tensor_shape_count(&s, &count);
    if (!e) *ret = s;
    return e;
}

static err want_float(const struct op_info *in, int i)
{
    if (tensor_dtype_is_float(in[i].dtype)) return ERR_OK;
    return err_set(ERR_SHAPE, "input %d is %s, but must be a float", i, tensor_dtype_name(in[i].dtype));
}

static err want_same(const struct op_info *in, int a, int b)
{
    if (in[a].dtype == in[b].dtype && tensor_shape_equal(&in[a].shape, &in[b].shape)) return ERR_OK;
    return err_set(ERR_SHAPE, "inputs %d and %d differ in type or shape", a, b);
}

static void like(const struct op_info *in, int i, struct op_info *out)
{
    out->dtype = in[i].dtype;
    out->shape = in[i].shape;
}

err op_rule_unary_grad(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    err e = want_float(in, 0);
    if (!e) e = want_same(in, 0, 1);
    enum op_kind of = op_find("", op_attr_string(n, "of", ""));
    if (of == OP_NONE) of = op_find("brim", op_attr_string(n, "of", ""));
    if (!e && of == OP_NONE) e = err_set(ERR_SHAPE, "the attribute 'of' names no operator");
    like(in, 0, &out[0]);
    return e;
}

err op_rule_softmax_grad(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int axis;
    const char *of = op_attr_string(n, "of", "");
    err e = want_float(in, 0);
    if (!e) e = want_same(in, 0, 1);
    if (!e) e = op_axis(op_attr_int(n, "axis", -1), in[0].shape.rank, &axis);
    if (!e && strcmp(of, "Softmax") != 0 && strcmp(of, "LogSoftmax") != 0)
        e = err_set(ERR_SHAPE, "the attribute 'of' is neither Softmax nor LogSoftmax");
    like(in, 0, &out[0]);
    return e;
}

/* Is dy [N, M, at most the window's places]? */
static err fits(const struct tensor_shape *dy, int64_t batch, int64_t channels, const struct op_window *w, bool exact)
{
    bool ok = dy->rank == w->n + 2 && dy->dims[0] == batch && dy->dims[1] == channels;
    for (int i = 0; i < w->n && ok; i++) ok = exact ? dy->dims[2 + i] == w->out[i] : dy->dims[2 + i] <= w->out[i];
    return ok ? ERR_OK : err_set(ERR_SHAPE, "input 0 (dy) does not have the shape that the forward operator gives");
}

err op_rule_conv_grad_weight(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[1].shape;
    struct tensor_shape weight;
    struct op_window w;
    int64_t channels, group = op_attr_int(n, "group", 1);
    err e = want_float(in, 0);
    if (!e) e = op_want_same_type(in, 0, 1);
    if (!e) e = read_shape(n, &weight);
    if (!e) e = op_want_rank_from(in, 1, 3);
    if (!e && (weight.rank != x->rank || group < 1 || weight.dims[0] % group))
        e = err_set(ERR_SHAPE, "shape and group do not fit input 1");
    if (!e) e = op_times(weight.dims[1], group, &channels);
    if (!e && channels != x->dims[1]) e = err_set(ERR_SHAPE, "shape and group do not fit input 1's channels");
    if (!e) e = op_window(n, x, &weight, &w);
    if (!e) e = fits(&in[0].shape, x->dims[0], weight.dims[0], &w, false);
    if (e) return e;
    for (int i = 0; i < n->n_out; i++) out[i].dtype = in[0].dtype;
    out[0].shape = weight;
    if (n->n_out > 1) out[1].shape = tensor_shape_of(1, weight.dims);
    return ERR_OK;
}

err op_rule_max_pool_grad(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    struct op_window w;
    err e = want_float(in, 0);
    if (!e) e = op_want_same_type(in, 0, 1);
    if (!e) e = op_window(n, &in[1].shape, NULL, &w);
    if (!e) e = fits(&in[0].shape, in[1].shape.dims[0], in[1].shape.dims[1], &w, true);
    like(in, 1, &out[0]);
    return e;
}

err op_rule_average_pool_grad(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    struct op_window w;
    struct tensor_shape x;
    err e = want_float(in, 0);
    if (!e) e = read_shape(n, &x);
    if (!e) e = op_window(n, &x, NULL, &w);
    if (!e) e = fits(&in[0].shape, x.dims[0], x.dims[1], &w, true);
    if (e) return e;
    out[0].dtype = in[0].dtype;
    out[0].shape = x;
    return ERR_OK;
}

/* x is input `at`; inputs from `first` on are [C]. */
static err want_channels(const struct op_node *n, const struct op_info *in, int at, int first, int64_t *ret)
{
    err e = op_want_rank_from(in, at, 2);
    if (!e) e = want_float(in, at);
    for (int i = first; !e && i < n->n_in; i++) {
        if (!op_present(n, in, i)) continue;
        e = op_want_vector(n, in, i, in[at].shape.dims[1]);
        if (!e) e = op_want_same_type(in, at, i);
    }
    if (!e) *ret = in[at].shape.dims[1];
    return e;
}

static void channel_outputs(const struct op_node *n, enum tensor_dtype dtype, int64_t channels, struct op_info *out)
{
    for (int i = 1; i < n->n_out; i++) {
        out[i].dtype = dtype;
        out[i].shape = tensor_shape_of(1, &channels);
    }
}

err op_rule_batch_norm_train(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int64_t c = 0;
    err e = want_channels(n, in, 0, 1, &c);
    if (!e && n->n_out > 3 && (!op_present(n, in, 3) || !op_present(n, in, 4)))
        e = err_set(ERR_SHAPE, "new running statistics without inputs 3 and 4");
    if (e) return e;
    like(in, 0, &out[0]);
    channel_outputs(n, in[0].dtype, c, out);
    return ERR_OK;
}

err op_rule_batch_norm_grad(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int64_t c = 0;
    err e = want_same(in, 0, 1);
    if (!e) e = want_channels(n, in, 1, 2, &c);
    if (e) return e;
    like(in, 1, &out[0]);
    channel_outputs(n, in[0].dtype, c, out);
    return ERR_OK;
}

err op_rule_instance_norm_grad(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    return op_rule_batch_norm_grad(n, in, out);
}

err op_rule_layer_norm_grad(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[1].shape, *s = &in[2].shape;
    int axis;
    err e = want_same(in, 0, 1);
    if (!e) e = want_float(in, 0);
    if (!e) e = op_axis(op_attr_int(n, "axis", -1), x->rank, &axis);
    if (!e) e = op_want_same_type(in, 1, 2);
    if (!e) e = op_want_rank(in, 2, x->rank - axis);
    for (int i = 0; !e && i < s->rank; i++)
        if (s->dims[i] != x->dims[axis + i]) e = err_set(ERR_SHAPE, "input 2 does not fit the last axes of input 1");
    if (e) return e;
    like(in, 1, &out[0]);
    for (int i = 1; i < n->n_out; i++) like(in, 2, &out[i]);
    return ERR_OK;
}

err op_rule_gather_grad(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *dy = &in[0].shape, *ids = &in[1].shape;
    struct tensor_shape x, want = {.rank = 0};
    int axis;
    err e = want_float(in, 0);
    if (!e && in[1].dtype != TENSOR_I64 && in[1].dtype != TENSOR_I32)
        e = err_set(ERR_SHAPE, "input 1 (indices) is %s", tensor_dtype_name(in[1].dtype));
    if (!e) e = read_shape(n, &x);
    if (!e) e = op_axis(op_attr_int(n, "axis", 0), x.rank, &axis);
    if (!e) e = op_push_range(&want, &x, 0, axis);
    if (!e) e = op_push_range(&want, ids, 0, ids->rank);
    if (!e) e = op_push_range(&want, &x, axis + 1, x.rank);
    if (!e && !tensor_shape_equal(&want, dy)) e = err_set(ERR_SHAPE, "input 0 (dy) is not what Gather gives");
    if (e) return e;
    out[0].dtype = in[0].dtype;
    out[0].shape = x;
    return ERR_OK;
}

err op_rule_slice_grad(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const int64_t *starts = NULL, *steps = NULL;
    struct tensor_shape x;
    size_t n_starts = op_attr_ints(n, "starts", &starts), n_steps = op_attr_ints(n, "steps", &steps);
    err e = read_shape(n, &x);
    if (!e && (n_starts != (size_t)x.rank || n_steps != (size_t)x.rank)) e = err_set(ERR_SHAPE, "starts and steps need one number per axis");
    if (!e) e = op_want_rank(in, 0, x.rank);
    for (int i = 0; !e && i < x.rank; i++) {
        int64_t size = in[0].shape.dims[i], last = 0;
        if (size == 0) continue;
        if (steps[i] == 0 || starts[i] < 0 || starts[i] >= x.dims[i] || __builtin_mul_overflow(size - 1, steps[i], &last) ||
            __builtin_add_overflow(last, starts[i], &last) || last < 0 || last >= x.dims[i])
            e = err_set(ERR_SHAPE, "axis %d: the slice lies outside of shape", i);
    }
    if (e) return e;
    out[0].dtype = in[0].dtype;
    out[0].shape = x;
    return ERR_OK;
}

err op_rule_dropout_by(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    float ratio = op_attr_float(n, "ratio", -1);
    err e = want_float(in, 0);
    if (!e && in[1].dtype != TENSOR_I64) e = err_set(ERR_SHAPE, "input 1 (draw) is %s", tensor_dtype_name(in[1].dtype));
    if (!e) e = op_want_vector(n, in, 1, 3);
    if (!e && !(ratio >= 0 && ratio <= 1)) e = err_set(ERR_SHAPE, "the attribute 'ratio' goes from 0 to 1");
    if (!e && tensor_count(&in[0].shape) > (int64_t)1 << 34) e = err_set(ERR_LIMIT, "input 0 has more than 2^34 elements");
    if (e) return e;
    like(in, 0, &out[0]);
    return ERR_OK;
}

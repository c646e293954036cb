/* Running a plan with the program's numbers, or through views.
 *
 * The kernels choose the layout of what goes in and out (images mostly channels-last), and inputs share their memory
 * with what is computed later; so a row-major buffer is copied in, once, in the pass that changes the layout, and out
 * the same way. A program that can write the strides of a view needs neither. SPDX-License-Identifier: Apache-2.0 */
#include "api/inside.h"

#include <string.h>

static void to_view(const struct tensor *t, brim_tensor *ret)
{
    int64_t size = (int64_t)tensor_dtype_size(t->dtype);
    brim_tensor v = {.size = sizeof v,
                     .dtype = (brim_dtype)t->dtype,
                     .rank = t->shape.rank,
                     .data = t->data,
                     .bytes = (size_t)(tensor_span(t) * size)};
    for (int i = 0; i < v.rank; i++)
        v.shape[i] = t->shape.dims[i], v.strides[i] = t->strides[i] * size;
    *ret = v;
}

static err check_place(const brim_tensor *t, int i, int n, const char *what)
{
    if (!t || t->size != sizeof *t) return err_set(ERR_USAGE, "brim_tensor: size is not set (%s %d)", what, i);
    if (i < 0 || i >= n) return err_set(ERR_USAGE, "%s %d: the model has %d", what, i, n);
    return ERR_OK;
}

brim_err brim_plan_input(const brim_plan *p, int i, brim_tensor *ret)
{
    err e = check_place(ret, i, model_input_count(p->owner->model), "input");
    if (e) return api_result(e);
    pthread_mutex_lock(&p->owner->lock);
    struct tensor t = model_plan_input(p->plan, i);
    pthread_mutex_unlock(&p->owner->lock);
    to_view(&t, ret);
    return BRIM_OK;
}

brim_err brim_plan_output(const brim_plan *p, int i, brim_tensor *ret)
{
    err e = check_place(ret, i, model_output_count(p->owner->model), "output");
    if (e) return api_result(e);
    pthread_mutex_lock(&p->owner->lock);
    struct tensor t = model_plan_output(p->plan, i);
    pthread_mutex_unlock(&p->owner->lock);
    to_view(&t, ret);
    return BRIM_OK;
}

/* The program's tensor as ours: element strides. */
static err from_caller(const brim_tensor *from, const struct tensor *like, const char *name, struct tensor *ret)
{
    int64_t size = (int64_t)tensor_dtype_size(like->dtype), span = 1;
    bool dense = true, fits = from->rank == like->shape.rank;
    if ((int)from->dtype != (int)like->dtype)
        return err_set(ERR_SHAPE, "input '%s' is %s, not %s", name, tensor_dtype_name(like->dtype),
                       brim_dtype_name(from->dtype));
    for (int i = 0; fits && i < from->rank; i++)
        fits = from->shape[i] == like->shape.dims[i];
    if (!fits) {
        char want[128], have[128];
        struct tensor_shape s =
            tensor_shape_of(from->rank >= 0 && from->rank <= TENSOR_MAX_RANK ? from->rank : 0, from->shape);
        return err_set(ERR_SHAPE, "input '%s': the plan is for %s, not %s (rank %d)", name,
                       tensor_shape_text(&like->shape, NULL, want, sizeof want),
                       tensor_shape_text(&s, NULL, have, sizeof have), from->rank);
    }
    *ret = tensor_view(like->dtype, &like->shape, from->data);
    for (int i = 0; i < from->rank; i++)
        dense &= from->strides[i] == 0;
    for (int i = 0; !dense && i < from->rank; i++) {
        if (from->strides[i] < 0 || from->strides[i] % size)
            return err_set(ERR_SHAPE, "input '%s': strides are not negative and multiples of %d bytes", name,
                           (int)size);
        ret->strides[i] = from->strides[i] / size;
    }
    span = tensor_span(ret);
    if (from->bytes && (uint64_t)span * (uint64_t)size > from->bytes)
        return err_set(ERR_LIMIT, "input '%s' needs %lld bytes, there are %zu", name, (long long)(span * size),
                       from->bytes);
    return ERR_OK;
}

static err copy_in(brim_plan *p, const brim_tensor *in, int n)
{
    for (int i = 0; i < n; i++) {
        err e = check_place(&in[i], i, n, "input");
        if (e) return e;
        struct tensor to = model_plan_input(p->plan, i), from;
        if (!in[i].data && tensor_count(&to.shape)) continue;
        e = from_caller(&in[i], &to, model_input(p->owner->model, i).name, &from);
        if (!e && tensor_count(&to.shape)) e = model_copy(&from, &to);
        if (e) return e;
    }
    return ERR_OK;
}

static err copy_out(brim_plan *p, brim_tensor *out, int n)
{
    for (int i = 0; i < n; i++) {
        struct tensor from = model_plan_output(p->plan, i);
        size_t bytes = (size_t)tensor_count(&from.shape) * tensor_dtype_size(from.dtype);
        if (!out[i].data) {
            to_view(&from, &out[i]);
            continue;
        }
        if (out[i].bytes < bytes)
            return err_set(ERR_LIMIT, "output '%s' needs %zu bytes, there are %zu",
                           model_output(p->owner->model, i).name, bytes, out[i].bytes);
        struct tensor to = tensor_view(from.dtype, &from.shape, out[i].data);
        err e = bytes ? model_copy(&from, &to) : ERR_OK;
        if (e) return e;
        to_view(&to, &out[i]);
        out[i].bytes = bytes;
    }
    return ERR_OK;
}

static err check_call(const brim_plan *p, const brim_tensor *in, int n_in, const brim_tensor *out, int n_out)
{
    int want_in = model_input_count(p->owner->model), want_out = model_output_count(p->owner->model);
    if (n_in && (n_in != want_in || !in)) return err_set(ERR_USAGE, "%d inputs: the model has %d", n_in, want_in);
    if (n_out && (n_out != want_out || !out))
        return err_set(ERR_USAGE, "%d outputs: the model has %d", n_out, want_out);
    for (int i = 0; i < n_out; i++) {
        err e = check_place(&out[i], i, n_out, "output");
        if (e) return e;
    }
    return ERR_OK;
}

brim_err brim_run(brim_plan *p, const brim_tensor *in, int n_in, brim_tensor *out, int n_out)
{
    if (!p) return api_result(err_set(ERR_USAGE, "brim_run: no plan"));
    err e = check_call(p, in, n_in, out, n_out);
    if (e) return api_result(e);
    brim_model *m = p->owner;
    pthread_mutex_lock(&m->lock);
    p->used_at = ++m->clock;
    model_plan_bind(p->plan, p->arena, m->scratch); /* the scratch may be another one since */
    e = copy_in(p, in, n_in);
    if (!e) {
        api_gate_enter(m->budget, m->threads);
        e = model_plan_run(p->plan, NULL);
        api_gate_leave(m->budget, m->threads);
    }
    if (!e) e = copy_out(p, out, n_out);
    pthread_mutex_unlock(&m->lock);
    return api_result(e);
}

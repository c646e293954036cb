/* What training asks of a plan, over what inference needs. SPDX-License-Identifier: Apache-2.0 */
#include "model/training.h"
#include "model/dynamic.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void model_external(struct model *m, int first_input, int first_output)
{
    assert(m->n_plans == 0 && !m->stored);
    m->first_external = first_input;
    m->first_external_out = first_output;
}

void model_half_products(struct model *m)
{
    assert(m->n_plans == 0 && !m->stored);
    m->half = kernels_have_bf16() && !m->options.only_ref;
}

static void bind(struct model_plan *p, int value, void *at)
{
    struct model_slot *s = &p->slots[p->values[value].slot];
    assert(s->external && (uintptr_t)at % 64 == 0);
    s->at = at;
}

void model_plan_bind_input(struct model_plan *p, int i, void *at)
{
    bind(p, p->graph->inputs[i], at);
}

void model_plan_bind_output(struct model_plan *p, int i, void *at)
{
    bind(p, p->graph->outputs[i], at);
}

bool model_output_alone(const struct model_plan *p, int value)
{
    const struct model_value *v = &p->values[value];
    const struct model_slot *s = &p->slots[v->slot];
    if (v->start || v->loose || v->t.shape.bounded || s->external || s->first < 0 || !tensor_is_row_major(&v->t)) return false;
    return s->bytes == (size_t)tensor_count(&v->t.shape) * tensor_dtype_size(v->t.dtype);
}

void model_plan_set_stop(struct model_plan *p, const atomic_bool *stop)
{
    p->stop = stop;
}

err model_plan_cut(const struct model_plan *p, int first_input, int n_outputs, int *ret_step)
{
    int cut = (int)p->n_steps;
    for (int i = (int)p->n_steps - 1; i >= 0; i--)
        for (int k = 0; k < p->steps[i].n_in; k++)
            for (int in = first_input; in < p->graph->n_inputs; in++)
                if (p->steps[i].in[k].slot >= 0 && p->steps[i].in[k].slot == p->values[p->graph->inputs[in]].slot) cut = i;
    for (int i = cut; i < (int)p->n_steps; i++)
        for (int k = 0; k < p->steps[i].n_out; k++)
            for (int out = 0; out < n_outputs; out++)
                if (p->steps[i].out[k].slot >= 0 && p->steps[i].out[k].slot == p->values[p->graph->outputs[out]].slot)
                    return err_set(ERR_UNSUPPORTED, "%s: output '%s' is made after the loss is begun", p->model->name,
                                   p->graph->values[p->graph->outputs[out]].name);
    *ret_step = cut;
    return ERR_OK;
}

err model_plan_run_part(struct model_plan *p, int from, int to)
{
    assert((p->arena || p->sizes.activations == 0) && !p->model->ring);
    if (from == 0) model_loose_begin(p);
    for (int i = from; i < to; i++) {
        if (p->stop && atomic_load_explicit(p->stop, memory_order_relaxed)) return err_set(ERR_CANCELLED, "%s: stopped", p->model->name);
        err e = model_run_step(p, &p->steps[i]);
        if (e) return e;
    }
    return ERR_OK;
}

/* Outputs are dense, so their layout does not matter. */
static bool output_finite(const struct model_plan *p, const struct model_step *s, int k, int value)
{
    if (value < 0 || s->out[k].slot < 0) return true;
    const struct tensor *t = &p->values[value].t;
    if ((t->dtype != TENSOR_F32 && t->dtype != TENSOR_BF16) || t->shape.bounded) return true;
    const void *at = model_slot_address(p, s->out[k].slot) + s->out[k].offset;
    const float *f = at;
    const uint16_t *h = at;
    int64_t n = tensor_count(&t->shape);
    for (int64_t i = 0; t->dtype == TENSOR_BF16 && i < n; i++)
        if ((h[i] & 0x7f80) == 0x7f80) return false;
    if (t->dtype == TENSOR_BF16) return true;
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(f[i])) return false;
    return true;
}

/* A batch norm's statistics overflow before what it puts out does. Where the planner put a copy between, the copy is looked at. */
static bool all_finite(const struct model_plan *p, const struct model_step *s)
{
    bool finite = s->n_out < 1 || output_finite(p, s, 0, s->out_value);
    for (int k = 1; k < s->n_out && k < s->node->n_out && finite; k++)
        if (s->node->out[k] >= 0 && p->values[s->node->out[k]].slot == s->out[k].slot) finite = output_finite(p, s, k, s->node->out[k]);
    return finite;
}

err model_plan_find_nonfinite(struct model_plan *p, char *buf, size_t size)
{
    if (size) buf[0] = 0;
    for (int i = 0; i < (int)p->n_steps; i++) {
        struct model_step *s = &p->steps[i];
        err e = model_plan_run_part(p, i, i + 1);
        if (e) return e;
        if (all_finite(p, s)) continue;
        snprintf(buf, size, "'%s' (%s)", s->node->name, op_name(s->node->kind));
        return ERR_OK;
    }
    return ERR_OK;
}

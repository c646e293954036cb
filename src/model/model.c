/* Models and plans: lifetimes, arenas, and the loop that runs the steps.
 *
 * What an import computes (folded weights, decoded constants) is paid by a budget of its own whose blocks lie in unlinked files of the
 * spill directory, and is dropped as soon as the weights are packed; so loading a model never needs more of the box's
 * budget than its largest weight. Without a spill directory the import is paid by the box's budget.
 *
 * Invariant: a plan's graph holds no computed constant after model_plan_new. SPDX-License-Identifier: Apache-2.0 */
#include "graph/file.h"
#include "graph/precision.h"
#include "graph/training.h"
#include "model/dynamic.h"
#include "model/parts.h"
#include "model/share.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- models */

err model_prepare(const char *name, const struct model_options *o, struct model **ret)
{
    struct model *m = xnew(struct model);
    char payer[64];
    m->name = xstrdup(name);
    m->options = *o;
    if (!m->options.precision || m->options.only_ref || !kernels_have_bf16()) m->options.precision = KERNEL_F32;
    if (!m->options.slice_bytes) m->options.slice_bytes = MODEL_SLICE;
    if (m->options.threads <= 0) m->options.threads = (int)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1);
    if (o->spill_dir) m->options.spill_dir = m->spill_dir = xstrdup(o->spill_dir);
    if (o->verdict_dir) m->options.verdict_dir = m->verdict_dir = xstrdup(o->verdict_dir);
    snprintf(payer, sizeof payer, "model %s", name);
    m->payer = mem_payer_new(o->budget, payer);
    err e = ERR_OK;
    if (o->spill_dir) {
        m->import = mem_budget_new("import", UINT64_MAX);
        e = mem_budget_back_with_files(m->import, o->spill_dir);
    }
    snprintf(payer, sizeof payer, "import %s", name);
    m->import_payer = mem_payer_new(m->import ? m->import : o->budget, payer);
    if (!e) e = weights_set_new(m->payer, o->reader, o->spill_dir, &m->weights);
    m->filling = true;
    m->first_external = m->first_external_out = INT32_MAX;
    if (e)
        model_free(&m);
    else
        *ret = m;
    return e;
}

err model_open(const char *path, const char *name, const struct model_options *o, struct model **ret)
{
    struct model *m;
    err e = model_prepare(name, o, &m);
    if (e) return e;
    if ((e = graph_load(path, m->import_payer, &m->graph))) {
        model_free(&m);
        return e;
    }
    *ret = m;
    return ERR_OK;
}

err model_from_graph(struct graph *g, const char *name, const struct model_options *o, struct model **ret)
{
    struct model *m;
    err e = model_prepare(name, o, &m);
    if (e) {
        graph_free(&g);
        return e;
    }
    m->graph = g;
    *ret = m;
    return ERR_OK;
}

void model_free(struct model **mp)
{
    struct model *m = *mp;
    if (!m) return;
    assert(m->n_plans == 0);
    graph_free(&m->graph);
    model_stored_free(m);
    if (m->ring) weights_ring_drain_set(m->ring, m->weights);
    weights_set_free(&m->weights);
    mem_payer_free(&m->import_payer);
    mem_budget_free(&m->import);
    mem_payer_free(&m->payer);
    for (size_t i = 0; i < m->n_weights; i++) free(m->table[i].format);
    free(m->table);
    free(m->spill_dir);
    free(m->verdict_dir);
    free(m->name);
    free(m);
    *mp = NULL;
}

const char *model_name(const struct model *m)
{
    return m->name;
}

int model_input_count(const struct model *m)
{
    return m->graph->n_inputs;
}

int model_output_count(const struct model *m)
{
    return m->graph->n_outputs;
}

static struct model_io io(const struct graph *g, int value)
{
    const struct graph_value *v = &g->values[value];
    return (struct model_io){.name = v->name, .dtype = v->dtype, .shape = v->shape};
}

struct model_io model_input(const struct model *m, int i)
{
    return io(m->graph, m->graph->inputs[i]);
}

struct model_io model_output(const struct model *m, int i)
{
    return io(m->graph, m->graph->outputs[i]);
}

const struct graph *model_graph(const struct model *m)
{
    return m->graph;
}

bool model_precision_pending(const struct model *m)
{
    return m->options.precision == KERNEL_AUTO && m->choice.pending;
}

enum kernel_precision model_precision(const struct model *m)
{
    return m->options.precision == KERNEL_AUTO && !m->choice.half ? KERNEL_F32 : m->options.precision;
}

size_t model_weight_bytes(const struct model *m)
{
    return weights_bytes(m->weights);
}

struct weights_set *model_weights(const struct model *m)
{
    return m->weights;
}

struct weights_reader *model_weights_reader(const struct model *m)
{
    return m->options.reader;
}

struct mem_budget *model_budget(const struct model *m)
{
    return m->options.budget;
}

err model_request(struct model *m)
{
    return weights_request(m->weights);
}

err model_wait(struct model *m)
{
    return weights_wait(m->weights);
}

void model_release(struct model *m)
{
    weights_release(m->weights);
}

err model_evict(struct model *m)
{
    return weights_evict(m->weights);
}

/* ---- plans */

static void drop_computed_constants(struct graph *g)
{
    for (size_t i = 0; i < g->n_values; i++) {
        struct graph_value *v = &g->values[i];
        if (!v->owned) continue;
        mem_free(g->payer, MEM_OTHER, v->owned, v->constant_bytes);
        v->owned = NULL;
        v->constant = NULL;
    }
}

static void forget_constants(struct model_plan *p)
{
    for (size_t i = 0; i < p->n_values; i++) p->values[i].t.data = NULL;
    drop_computed_constants(p->graph);
}

err model_make_ready(struct model *m, const struct graph *g, const struct tensor_shape *shapes, struct graph **ret)
{
    const struct model_options *o = &m->options;
    err e = graph_specialise(g, shapes, m->import_payer, ret);
    if (!e && !o->no_rewrites) e = graph_rewrite(*ret, GRAPH_REWRITE_ALL);
    if (!e && o->slice_bytes) e = graph_slice(*ret, o->slice_bytes);
    return e;
}

static err lower(struct model_plan *p)
{
    const struct model *m = p->model;
    bool automatic = m->options.precision == KERNEL_AUTO && m->choice.half;
    if (m->half) graph_training_to_bf16(p->graph);
    if (!automatic && m->options.precision != KERNEL_BF16) return ERR_OK;
    bool *keep = model_choice_flags(p->graph, automatic ? &m->choice : &(struct model_choice){.groups = 1});
    err e = graph_to_bf16(p->graph, keep);
    free(keep);
    return e;
}

err model_plan_from(struct model_plan *p, const struct graph *g, const struct tensor_shape *shapes)
{
    err e = model_make_ready(p->model, g, shapes, &p->graph);
    if (!e) e = lower(p);
    return e ? e : model_plan_build(p);
}

/* Everything that was built goes; the plan is as new. */
void model_plan_clear(struct model_plan *p)
{
    model_loose_begin(p);
    for (size_t i = 0; i < p->n_steps; i++) model_step_done(&p->steps[i]);
    for (size_t i = 0; i < p->n_values; i++) free(p->values[i].cell);
    graph_free(&p->graph);
    free(p->steps);
    free(p->slots);
    free(p->values);
    *p = (struct model_plan){.model = p->model};
}

err model_plan_new(struct model *m, const struct tensor_shape *input_shapes, struct model_plan **ret)
{
    struct model_plan *p = xnew(struct model_plan);
    p->model = m;
    m->n_plans++;
    err e = m->stored ? model_stored_plan(m, input_shapes, p) : model_choose(m, m->graph, input_shapes);
    if (!e && !m->stored) e = model_plan_from(p, m->graph, input_shapes);
    if (!e && m->filling) {
        e = weights_set_seal(m->weights);
        m->filling = e != ERR_OK;
    }
    if (e) {
        model_plan_free(&p);
        return e;
    }
    forget_constants(p);
    if (m->graph->file) graph_file_forget(m->graph->file);
    p->sizes.weights = weights_bytes(m->weights);
    *ret = p;
    return ERR_OK;
}

void model_plan_free(struct model_plan **pp)
{
    struct model_plan *p = *pp;
    if (!p) return;
    if (p->own) {
        mem_free(p->model->payer, MEM_ACTIVATIONS, p->arena, p->sizes.activations);
        mem_free(p->model->payer, MEM_SCRATCH, p->scratch, p->sizes.scratch);
    }
    model_stream_free(p);
    p->model->n_plans--;
    model_plan_clear(p);
    free(p);
    *pp = NULL;
}

struct model_sizes model_plan_sizes(const struct model_plan *p)
{
    return p->sizes;
}

err model_plan_reserve(struct model_plan *p)
{
    void *arena, *scratch;
    err e = mem_alloc(p->model->payer, MEM_ACTIVATIONS, p->sizes.activations, &arena);
    if (e) return e;
    if ((e = mem_alloc(p->model->payer, MEM_SCRATCH, p->sizes.scratch, &scratch))) {
        mem_free(p->model->payer, MEM_ACTIVATIONS, arena, p->sizes.activations);
        return e;
    }
    p->arena = arena;
    p->scratch = scratch;
    p->own = true;
    return ERR_OK;
}

void model_plan_bind(struct model_plan *p, void *activations, void *scratch)
{
    assert(!p->own);
    if (p->arena == activations && p->scratch == scratch) return; /* it may be running: not even the same bytes are written */
    p->arena = activations;
    p->scratch = scratch;
}

static struct tensor view_of(const struct model_plan *p, int value)
{
    const struct model_value *v = &p->values[value];
    struct tensor t = v->t;
    if (v->loose && v->cell->t.dtype) return v->cell->t;
    if (v->loose) return t; /* before a run: nothing */
    if (v->t.shape.bounded) t.shape = v->actual;
    t.data = model_slot_address(p, v->slot) + (size_t)v->start * tensor_dtype_size(t.dtype);
    return t;
}

struct tensor model_plan_input(const struct model_plan *p, int i)
{
    return view_of(p, p->graph->inputs[i]);
}

struct tensor model_plan_output(const struct model_plan *p, int i)
{
    return view_of(p, p->graph->outputs[i]);
}

void *model_operand_address(const struct model_plan *p, const struct model_operand *o)
{
    if (o->slot >= 0) return model_slot_address(p, o->slot) + o->offset;
    if (o->use && p->model->ring && p->stream->uses[o->use - 1].k >= 0) return (void *)(uintptr_t)p->stream->uses[o->use - 1].at;
    return o->slot == -1 ? (void *)(uintptr_t)weights_extent(p->model->weights, o->extent) : NULL;
}

err model_run_step(struct model_plan *p, struct model_step *s)
{
    struct kernel_buffers b;
    if (s->loose) {
        err r = model_loose_run(p, s);
        model_loose_after(p, (int)(s - p->steps));
        return r ? err_wrap(r, "%s: '%s' (%s)", p->model->name, s->node->name, op_name(s->node->kind)) : ERR_OK;
    }
    for (int i = 0; i < s->n_in; i++) b.in[i] = model_operand_address(p, &s->in[i]);
    for (int i = 0; i < s->n_out; i++) {
        b.out[i] = model_operand_address(p, &s->out[i]);
        b.out_shape[i] = NULL;
        if (s->out[i].bounded) {
            struct model_value *v = &p->values[s->out[i].bounded - 1];
            v->actual = v->t.shape;
            b.out_shape[i] = &v->actual;
        }
    }
    b.scratch = p->scratch;
    err e = s->split.parts ? model_parts_run(p, s, &b) : s->class->run(s->state, &b);
    if (e == ERR_CANCELLED) return e;
    return e ? err_wrap(e, "%s: '%s' (%s)", p->model->name, s->node->name, op_name(s->node->kind)) : ERR_OK;
}

static err run_streaming(struct model_plan *p, int64_t *step_ns)
{
    err e = model_stream_begin(p);
    for (size_t i = 0; i < p->n_steps && !e; i++) {
        if ((e = model_stream_step(p, (int)i))) break;
        int64_t begin = clock_ns();
        e = model_run_step(p, &p->steps[i]);
        int64_t ns = clock_ns() - begin;
        model_stream_step_done(p, (int)i, ns);
        if (step_ns) step_ns[i] += ns;
    }
    model_stream_end(p, !e);
    return e;
}

err model_plan_run(struct model_plan *p, int64_t *step_ns)
{
    assert(p->arena || p->sizes.activations == 0);
    model_loose_begin(p);
    if (p->model->ring) return run_streaming(p, step_ns);
    for (size_t i = 0; i < p->n_steps; i++) {
        if (p->stop && atomic_load_explicit(p->stop, memory_order_relaxed)) return err_set(ERR_CANCELLED, "%s: stopped", p->model->name);
        int64_t begin = step_ns ? clock_ns() : 0;
        err e = model_run_step(p, &p->steps[i]);
        if (e) return e;
        if (step_ns) step_ns[i] += clock_ns() - begin;
    }
    return ERR_OK;
}

err model_copy(const struct tensor *from, const struct tensor *to)
{
    struct op_node n = {.kind = OP_COPY, .name = (char *)(uintptr_t)"", .opset = 1, .n_in = 1, .n_out = 1};
    struct tensor out = *to;
    return kernels_ref_run(&n, from, 1, &out, 1);
}

static const char *shared_weight(const struct model_plan *p, const struct model_step *s, size_t *ret_bytes)
{
    const char *name = NULL;
    for (int i = 0; i < s->n_in && i < s->node->n_in; i++) {
        int v = s->in[i].slot == -1 && !s->own ? s->node->in[i] : -1;
        if (v < 0 || (size_t)v >= p->graph->n_values || !p->graph->values[v].shared) continue;
        size_t packed = s->class->weight_bytes ? s->class->weight_bytes(s->state, i) : 0;
        size_t bytes = packed ? packed : p->graph->values[v].constant_bytes;
        if (bytes < MODEL_SHARE_LEAST) continue; /* lies among the model's own small ones */
        *ret_bytes += bytes;
        if (!name) name = p->graph->values[v].name;
    }
    return name;
}

struct model_step_info model_plan_step(const struct model_plan *p, int step)
{
    const struct model_step *s = &p->steps[step];
    size_t shared_bytes = 0;
    const char *shared = shared_weight(p, s, &shared_bytes);
    return (struct model_step_info){
        .op = op_name(s->node->kind),
        .name = s->node->name,
        .kernel = s->class->name,
        .implementation = s->class->describe ? s->class->describe(s->state) : "",
        .out = s->out_value >= 0 ? p->values[s->out_value].t : (struct tensor){0},
        .flops = s->flops,
        .weight_bytes = s->weight_bytes,
        .scratch_bytes = s->class->scratch_bytes ? s->class->scratch_bytes(s->state) : 0,
        .code_bytes = s->class->code_bytes ? s->class->code_bytes(s->state) : 0,
        .n_post = s->n_post,
        .shared = shared,
        .shared_bytes = shared_bytes,
    };
}

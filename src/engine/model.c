/* A model of the site, ready to run: card, plan, head, and the way of a frame into its inputs.
 *
 * The converter writes straight into the plan's input, in whichever of the two layouts the plan chose; outputs that lie row-major are read in place,
 * others are copied once. Invariant: after a successful open, a run allocates nothing but what the converter keeps.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/guard_inside.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static err load_card(struct engine_model *m)
{
    char *path = m->o->card ? xstrdup(m->o->card) : task_card_default_path(m->o->onnx);
    err e = task_card_load(path, &m->card);
    if (e && access(path, F_OK) && errno == ENOENT)
        e = err_set(ERR_NOT_FOUND, "it has no card: %s does not exist; write it (docs/cards.md), or name another with `card:`", path);
    free(path);
    return e;
}

/* The plan's input for card input k: by name, else by order. */
static int input_index(const struct engine_model *m, int k)
{
    for (int i = 0; m->card->inputs[k].name[0] && i < model_input_count(m->model); i++)
        if (!strcmp(model_input(m->model, i).name, m->card->inputs[k].name)) return i;
    return m->card->inputs[k].name[0] ? -1 : k;
}

/* Input shapes: the card's size where the file leaves sizes open. */
static err plan_shapes(const struct engine_model *m, struct tensor_shape *shapes)
{
    int n = model_input_count(m->model);
    if (n > TASK_MAX_INPUTS || n != m->card->input_count)
        return err_set(ERR_SHAPE, "%s: the card has %d inputs, the model %d", m->card->path, m->card->input_count, n);
    for (int i = 0; i < n; i++) shapes[i] = model_input(m->model, i).shape;
    for (int k = 0; k < n; k++) {
        const struct task_input *in = &m->card->inputs[k];
        int i = input_index(m, k);
        if (i < 0) return err_set(ERR_SHAPE, "%s: the model has no input '%s'", m->card->path, in->name);
        int64_t want[4] = {1, in->nhwc ? in->height : 3, in->nhwc ? in->width : in->height, in->nhwc ? 3 : in->width};
        if (model_input(m->model, i).dtype != TENSOR_F32) /* the converter writes float32 */
            return err_set(ERR_UNSUPPORTED, "%s: input '%s' is %s; brim feeds pictures as float32 only", m->o->onnx, model_input(m->model, i).name,
                           tensor_dtype_name(model_input(m->model, i).dtype));
        if (shapes[i].rank != 4) return err_set(ERR_SHAPE, "%s: input '%s' is no picture", m->card->path, model_input(m->model, i).name);
        for (int d = 0; d < 4; d++) {
            if (shapes[i].dims[d] < 0) shapes[i].dims[d] = want[d];
            if (shapes[i].dims[d] == want[d]) continue;
            char s[96];
            struct model_io io = model_input(m->model, i);
            return err_set(ERR_SHAPE, "%s: says %d x %d (%s), but input '%s' of %s is %s", m->card->path, in->width, in->height,
                           in->nhwc ? "nhwc" : "nchw", io.name, m->o->onnx, tensor_shape_text(&io.shape, NULL, s, sizeof s));
        }
    }
    return ERR_OK;
}

static err order_outputs(struct engine_model *m)
{
    int n = model_output_count(m->model);
    m->n_outputs = m->card->output_count ? m->card->output_count : n;
    if (m->n_outputs > TASK_MAX_OUTPUTS) return err_set(ERR_LIMIT, "%s has %d outputs", m->o->onnx, m->n_outputs);
    for (int k = 0; k < m->n_outputs; k++) {
        m->order[k] = m->card->output_count ? -1 : k;
        for (int i = 0; m->card->output_count && i < n; i++)
            if (!strcmp(model_output(m->model, i).name, m->card->outputs[k])) m->order[k] = i;
        if (m->order[k] < 0) return err_set(ERR_SHAPE, "%s: the model has no output '%s'", m->card->path, m->card->outputs[k]);
    }
    return ERR_OK;
}

/* Before the arena is bound only shapes and strides are known; that is enough for the head. */
static err describe_outputs(struct engine_model *m, struct engine_plan *p)
{
    for (int k = 0; k < m->n_outputs; k++) {
        struct tensor t = model_plan_output(p->plan, m->order[k]);
        struct task_output *o = &p->outputs[k];
        if (t.dtype != TENSOR_F32)
            return err_set(ERR_UNSUPPORTED, "%s: output '%s' is %s, heads read float32", m->o->onnx, model_output(m->model, m->order[k]).name,
                           tensor_dtype_name(t.dtype));
        *o = (struct task_output){.name = model_output(m->model, m->order[k]).name, .rank = t.shape.rank};
        memcpy(o->dims, t.shape.dims, sizeof o->dims);
        if (tensor_is_row_major(&t)) continue;
        p->flat_bytes[k] = (size_t)tensor_count(&t.shape) * sizeof(float);
        err e = mem_alloc(m->payer, MEM_ACTIVATIONS, p->flat_bytes[k], (void **)&p->flat[k]);
        if (e) return e;
    }
    return ERR_OK;
}

static err plan_batch(struct engine_model *m, struct tensor_shape *shapes)
{
    if (m->o->batch < 2) return ERR_OK;
    for (int i = 0; i < model_input_count(m->model); i++) shapes[i].dims[0] = m->o->batch;
    err e = model_plan_new(m->model, shapes, &m->many.plan);
    if (!e) e = describe_outputs(m, &m->many);
    if (!e) m->batch = m->o->batch;
    return e ? err_wrap(e, "batch: %d", m->o->batch) : ERR_OK;
}

/* What the model needs at least under block residency; known before anything runs, and constant. */
static void least_of(struct engine_model *m)
{
    struct model_blocks_problem b;
    model_blocks_problem(m->one.plan, 1, &b);
    m->fixed = b.problem.fixed;
    m->largest_step = blocks_least(&b.problem) - b.problem.fixed;
    model_blocks_problem_done(&b);
}

/* What is no file may be the name of a model in the store: the last part of the path, since a site file's paths are relative to it. */
static err open_model(struct engine_model *m, const struct model_options *o)
{
    const char *slash = strrchr(m->o->onnx, '/'), *name = slash ? slash + 1 : m->o->onnx;
    struct weights_manifest found;
    if (!access(m->o->onnx, F_OK) || str_ends(name, ".onnx") || weights_manifest_current(m->engine->models_store, name, &found))
        return model_open(m->o->onnx, m->name, o, &m->model);
    weights_manifest_done(&found);
    m->stored = true;
    return model_open_stored(m->engine->models_store, name, m->name, o, &m->model);
}

/* What the network sees of pixels from 0 to 255: black to white, over all channels. */
static void range_of(const struct task_input *in, float ret[2])
{
    ret[0] = INFINITY;
    ret[1] = -INFINITY;
    for (int c = 0; c < 3; c++)
        for (int white = 0; white < 2; white++) {
            float v = ((white ? 255 : 0) - in->mean[c]) * in->scale[c];
            ret[0] = MIN(ret[0], v);
            ret[1] = MAX(ret[1], v);
        }
}

static err prepare(struct engine_model *m)
{
    struct engine *e = m->engine;
    struct tensor_shape shapes[TASK_MAX_INPUTS];
    struct model_options o = {.budget = e->budget, .precision = KERNEL_F32, .threads = m->site->site->threads, .reader = e->reader,
                              .spill_dir = e->store};
    if (m->o->precision != SITE_F32) o.precision = m->o->precision == SITE_BF16 ? KERNEL_BF16 : KERNEL_AUTO; /* without the instructions bf16 is f32, too */
    o.precision_later = !e->measure_now;
    err x = load_card(m);
    if (!x && m->card->input_count) range_of(&m->card->inputs[0], o.sample_range);
    m->options = o;
    if (!x) x = open_model(m, &o);
    if (!x) x = plan_shapes(m, shapes);
    if (!x) x = model_plan_new(m->model, shapes, &m->one.plan);
    if (!x) x = order_outputs(m);
    if (!x) x = describe_outputs(m, &m->one);
    if (!x) x = task_head_new(m->payer, m->card, m->one.outputs, m->n_outputs, &m->head);
    if (!x) x = plan_batch(m, shapes);
    if (!x) least_of(m);
    return x;
}

err engine_model_make(struct engine *e, struct engine_site *site, const struct site_model *o, struct engine_model **ret)
{
    struct engine_model *m = xnew(struct engine_model);
    char payer[64];
    m->engine = e;
    m->site = engine_site_ref(site);
    m->o = o;
    snprintf(m->name, sizeof m->name, "%s", o->name);
    snprintf(m->path, sizeof m->path, "%s", o->onnx);
    snprintf(payer, sizeof payer, "head %s", o->name);
    m->payer = mem_payer_new(e->budget, payer);
    m->conv = video_conv_new(m->payer);
    err x = prepare(m);
    *ret = m;
    if (x) {
        x = err_wrap(x, "model '%s'", o->name);
        snprintf(m->problem, sizeof m->problem, "%s", err_text());
    }
    return x;
}

void engine_model_join(struct engine_model *m)
{
    struct engine *e = m->engine;
    m->sched = sched_model_add(e->sched, m->model, m->o->pin, m->o->priority);
    if (e->blocks) sched_model_set_plans(e->sched, m->sched, m->one.plan, m->many.plan);
    if (m->batch > 1) sched_model_set_batch(e->sched, m->sched, m->batch, engine_stream_run_batch);
}

err engine_model_open(struct engine *e, struct engine_site *site, const struct site_model *o, struct engine_model **ret)
{
    err x = engine_model_make(e, site, o, ret);
    (*ret)->serial = ++e->serials;
    if (!x) engine_model_join(*ret);
    return x;
}

static void plan_done(struct engine_model *m, struct engine_plan *p)
{
    for (int k = 0; k < TASK_MAX_OUTPUTS; k++) mem_free(m->payer, MEM_ACTIVATIONS, p->flat[k], p->flat_bytes[k]);
    model_plan_free(&p->plan);
}

void engine_model_close(struct engine_model **mp)
{
    struct engine_model *m = *mp;
    if (!m) return;
    engine_eye_leave(m);
    if (m->sched) sched_model_remove(m->engine->sched, &m->sched);
    task_head_free(&m->head);
    plan_done(m, &m->one);
    plan_done(m, &m->many);
    video_conv_free(&m->conv);
    model_free(&m->model);
    task_card_free(&m->card);
    mem_payer_free(&m->payer);
    engine_site_unref(&m->site);
    free(m);
    *mp = NULL;
}

static struct video_tensor_spec spec_of(const struct task_input *in, const struct tensor *t)
{
    static const enum video_resize resize[] = {[TASK_STRETCH] = VIDEO_STRETCH, [TASK_LETTERBOX] = VIDEO_LETTERBOX_TOPLEFT,
                                               [TASK_LETTERBOX_CENTRE] = VIDEO_LETTERBOX_CENTRE, [TASK_CROP] = VIDEO_CROP_CENTRE};
    struct video_tensor_spec s = {.w = in->width, .h = in->height, .resize = resize[in->resize], .pad_value = in->pad, .rgb = !in->bgr,
                                  .nhwc = in->nhwc || (tensor_is_channels_last(t) && !tensor_is_row_major(t))};
    memcpy(s.mean, in->mean, sizeof s.mean);
    memcpy(s.scale, in->scale, sizeof s.scale);
    return s;
}

err engine_model_fill(struct engine_model *m, struct engine_plan *p, int item, const struct video_frame *f, const struct video_rect *roi,
                      struct video_mapping *map)
{
    for (int k = 0; k < m->card->input_count; k++) {
        struct tensor t = model_plan_input(p->plan, input_index(m, k));
        struct video_tensor_spec s = spec_of(&m->card->inputs[k], &t);
        err e = video_to_tensor(m->conv, f, roi, &s, (float *)t.data + item * t.strides[0], k == 0 ? map : NULL);
        if (e) return e;
    }
    return ERR_OK;
}

err engine_model_compute(struct engine_model *m, struct engine_plan *p)
{
    err e = model_plan_run(p->plan, NULL);
    for (int k = 0; k < m->n_outputs && !e; k++) {
        struct tensor t = model_plan_output(p->plan, m->order[k]);
        p->outputs[k].data = t.data;
        if (!p->flat[k]) continue;
        struct tensor flat = tensor_view(TENSOR_F32, &t.shape, p->flat[k]);
        e = model_copy(&t, &flat);
        p->outputs[k].data = p->flat[k];
    }
    return e;
}

err engine_model_read(struct engine_model *m, struct engine_plan *p, int item, struct task_result *ret)
{
    return task_head_run(m->head, p->outputs, m->n_outputs, item, ret);
}

err engine_model_run(struct engine_model *m, const struct video_frame *f, const struct video_rect *roi, struct task_result *ret,
                     struct video_mapping *map)
{
    err e = engine_model_fill(m, &m->one, 0, f, roi, map);
    if (!e) e = engine_model_compute(m, &m->one);
    return e ? e : engine_model_read(m, &m->one, 0, ret);
}

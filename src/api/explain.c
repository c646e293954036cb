/* What a plan does, for people and for programs. The JSON has the names that `brim explain --json` has.
 * SPDX-License-Identifier: Apache-2.0 */
#include "api/inside.h"

#include <jansson.h>
#include <stdlib.h>

brim_err brim_plan_memory(const brim_plan *p, brim_memory *ret)
{
    if (!p) return api_result(err_set(ERR_USAGE, "brim_plan_memory: no plan"));
    pthread_mutex_lock(&p->owner->lock);
    struct model_sizes s = model_plan_sizes(p->plan);
    uint64_t weights = model_weight_bytes(p->owner->model);
    pthread_mutex_unlock(&p->owner->lock);
    brim_memory found = {.size = sizeof found,
                         .weights = weights,
                         .activations = s.activations,
                         .activations_lower_bound = s.activations_lower_bound,
                         .scratch = s.scratch,
                         .code = s.code,
                         .flops = s.flops,
                         .kernels = s.steps,
                         .plain_kernels = s.ref_steps};
    return api_result(api_struct_write("brim_memory", &found, ret, sizeof found));
}

static const char *layout_name(const struct tensor *t)
{
    bool row = tensor_is_row_major(t), last = tensor_is_channels_last(t);
    return t->shape.rank < 3 || (row && last) ? "dense" : last ? "nhwc" : row ? "nchw" : "strided";
}

static char *as_table(const struct model_plan *p, const struct model_sizes *s)
{
    struct strbuf b = {0};
    char shape[96], t[5][16];
    strbuf_addf(&b, "%4s  %-18s %-22s %-8s %10s %9s  %-24s %s\n", "step", "operator", "output", "layout", "MFLOP",
                "weights", "kernel", "implementation");
    for (int i = 0; i < s->steps; i++) {
        struct model_step_info x = model_plan_step(p, i);
        char op[32];
        snprintf(op, sizeof op, x.n_post ? "%s +%d" : "%s", x.op, x.n_post);
        strbuf_addf(&b, "%4d  %-18s %-22s %-8s %10.3f %9s  %-24s %s\n", i, op,
                    tensor_shape_text(&x.out.shape, NULL, shape, sizeof shape), layout_name(&x.out),
                    (double)x.flops / 1e6, x.weight_bytes ? size_text(x.weight_bytes, t[0]) : "", x.kernel,
                    x.implementation);
    }
    strbuf_addf(&b, "%d kernels (%d in plain C, %d layout copies), %d views, %.3f GFLOP\n", s->steps, s->ref_steps,
                s->copies, s->views, (double)s->flops / 1e9);
    strbuf_addf(&b, "weights %s packed, activations %s (lower bound %s), scratch %s, code %s\n",
                size_text(s->weights, t[0]), size_text(s->activations, t[1]),
                size_text(s->activations_lower_bound, t[2]), size_text(s->scratch, t[3]), size_text(s->code, t[4]));
    return strbuf_take(&b);
}

static char *as_json(const struct model_plan *p, const struct model_sizes *s)
{
    json_t *steps = json_array();
    for (int i = 0; i < s->steps; i++) {
        struct model_step_info x = model_plan_step(p, i);
        json_t *shape = json_array();
        for (int k = 0; k < x.out.shape.rank; k++)
            json_array_append_new(shape, json_integer(x.out.shape.dims[k]));
        json_array_append_new(steps,
                              json_pack("{s:s, s:s, s:o, s:s, s:I, s:I, s:I, s:i, s:s, s:s}", "op", x.op, "name",
                                        x.name ? x.name : "", "shape", shape, "layout", layout_name(&x.out), "flops",
                                        (json_int_t)x.flops, "weight_bytes", (json_int_t)x.weight_bytes, "code_bytes",
                                        (json_int_t)x.code_bytes, "post_ops", x.n_post, "kernel", x.kernel,
                                        "implementation", x.implementation ? x.implementation : ""));
    }
    json_t *j = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:o}", "flops", (json_int_t)s->flops,
                          "weight_bytes", (json_int_t)s->weights, "activation_bytes", (json_int_t)s->activations,
                          "activation_lower_bound_bytes", (json_int_t)s->activations_lower_bound, "scratch_bytes",
                          (json_int_t)s->scratch, "code_bytes", (json_int_t)s->code, "ref_steps", s->ref_steps,
                          "copies", s->copies, "views", s->views, "steps", steps);
    char *text = j ? json_dumps(j, JSON_PRESERVE_ORDER | JSON_INDENT(1)) : NULL;
    json_decref(j);
    return text;
}

brim_err brim_plan_explain(const brim_plan *p, int json, char **ret)
{
    if (!p || !ret)
        return api_result(err_set(ERR_USAGE, "brim_plan_explain: no %s", p ? "place for the text" : "plan"));
    pthread_mutex_lock(&p->owner->lock);
    struct model_sizes s = model_plan_sizes(p->plan);
    char *text = json ? as_json(p->plan, &s) : as_table(p->plan, &s);
    pthread_mutex_unlock(&p->owner->lock);
    if (!text) return api_result(err_set(ERR_FORMAT, "a name in the model is not UTF-8; ask for the table"));
    *ret = text;
    return BRIM_OK;
}

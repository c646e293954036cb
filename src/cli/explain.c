/* `brim explain MODEL`: the operations in order, the kernel chosen for each, layouts and bytes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"
#include "cli/model_cmd.h"
#include "model/model.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static const char *layout_name(const struct tensor *t)
{
    bool row = tensor_is_row_major(t), last = tensor_is_channels_last(t);
    return t->shape.rank < 3 || (row && last) ? "dense" : last ? "nhwc" : row ? "nchw" : "strided";
}

static void print_table(const struct model *m, const struct model_plan *p)
{
    struct model_sizes s = model_plan_sizes(p);
    char shape[96], a[16], b[16], c[16], d[16], e[16];
    printf("%4s  %-18s %-22s %-8s %10s %9s  %-24s %s\n", "step", "operator", "output", "layout", "MFLOP", "weights", "kernel",
           "implementation");
    for (int i = 0; i < s.steps; i++) {
        struct model_step_info x = model_plan_step(p, i);
        char op[32];
        snprintf(op, sizeof op, x.n_post ? "%s +%d" : "%s", x.op, x.n_post);
        printf("%4d  %-18s %-22s %-8s %10.3f %9s  %-24s %s\n", i, op, tensor_shape_text(&x.out.shape, NULL, shape, sizeof shape),
               layout_name(&x.out), (double)x.flops / 1e6, x.weight_bytes ? size_text(x.weight_bytes, a) : "", x.kernel, x.implementation);
    }
    printf("%s: %d steps (%d in plain C, %d layout copies), %d views, %.3f GFLOP\n", model_name(m), s.steps, s.ref_steps, s.copies, s.views,
           (double)s.flops / 1e9);
    printf("weights %s packed, activations %s (lower bound %s), scratch %s, code %s\n", size_text(s.weights, a), size_text(s.activations, b),
           size_text(s.activations_lower_bound, c), size_text(s.scratch, d), size_text(s.code, e));
}

static void print_json(const struct model *m, const struct model_plan *p)
{
    struct model_sizes s = model_plan_sizes(p);
    json_t *steps = json_array();
    for (int i = 0; i < s.steps; i++) {
        struct model_step_info x = model_plan_step(p, i);
        json_t *shape = json_array();
        for (int k = 0; k < x.out.shape.rank; k++) json_array_append_new(shape, json_integer(x.out.shape.dims[k]));
        json_array_append_new(steps, json_pack("{s:s, s:s, s:o, s:s, s:I, s:I, s:I, s:i, s:s, s:s}", "op", x.op, "name", x.name, "shape", shape,
                                               "layout", layout_name(&x.out), "flops", (json_int_t)x.flops, "weight_bytes",
                                               (json_int_t)x.weight_bytes, "code_bytes", (json_int_t)x.code_bytes, "post_ops", x.n_post,
                                               "kernel", x.kernel, "implementation", x.implementation));
    }
    json_t *j = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:o}", "model", model_name(m), "flops", (json_int_t)s.flops,
                          "weight_bytes", (json_int_t)s.weights, "activation_bytes", (json_int_t)s.activations, "activation_lower_bound_bytes",
                          (json_int_t)s.activations_lower_bound, "scratch_bytes", (json_int_t)s.scratch, "code_bytes", (json_int_t)s.code,
                          "ref_steps", s.ref_steps, "copies", s.copies, "views", s.views, "steps", steps);
    json_dumpf(j, stdout, JSON_PRESERVE_ORDER | JSON_INDENT(1));
    putchar('\n');
    json_decref(j);
}

int cli_explain(int argc, char **argv)
{
    uint64_t budget_bytes = UINT64_MAX;
    int64_t threads = 0;
    bool json = false, help = false, only_ref = false, no_rewrites = false;
    struct args_list rest = {0};
    const struct args_option table[] = {{"budget", ARGS_SIZE, &budget_bytes, "refuse what does not fit"},
                                        {"threads", ARGS_INT, &threads, "default: all processors"},
                                        {"only-ref", ARGS_FLAG, &only_ref, "plain C kernels only"},
                                        {"no-rewrites", ARGS_FLAG, &no_rewrites, "the graph as the file has it"},
                                        {"json", ARGS_FLAG, &json, "one JSON object on stdout"},
                                        {NULL, 0, NULL, NULL}};
    struct mem_budget *budget = NULL;
    struct model *m = NULL;
    struct model_plan *p = NULL;
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && !help && rest.n != 1) e = err_set(ERR_USAGE, "expected one MODEL.onnx; --help says more");
    if (help) args_help("explain MODEL.onnx [options]", table);
    if (!e && !help) {
        budget = mem_budget_new("host", budget_bytes);
        struct model_options o = {.budget = budget, .threads = (int)threads, .only_ref = only_ref, .no_rewrites = no_rewrites};
        e = model_open(rest.items[0], rest.items[0], &o, &m);
        if (!e) e = model_plan_new(m, NULL, &p);
        if (!e) (json ? print_json : print_table)(m, p);
    }
    int status = e ? args_fail("explain", e) : 0;
    model_plan_free(&p);
    model_free(&m);
    mem_budget_free(&budget);
    free(rest.items);
    return status;
}

/* `brim explain MODEL`: the operations in order, the kernel chosen for each, types, layouts and bytes; with a budget, which weights stay and which stream.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "cli/args.h"
#include "cli/model_cmd.h"
#include "cli/precision.h"
#include "cli/one_model.h"
#include "cli/shared.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *layout_name(const struct tensor *t)
{
    bool row = tensor_is_row_major(t), last = tensor_is_channels_last(t);
    return t->shape.rank < 3 || (row && last) ? "dense" : last ? "nhwc" : row ? "nchw" : "strided";
}

/* "stays", "streams", or nothing where everything stays. */
static const char *place(const struct one_model *o, int step, size_t bytes)
{
    if (!o->within.ring || !bytes) return "";
    return model_step_streams(o->plan, step) ? "streams" : "stays";
}

/* The fastest of `runs` runs of each step. NULL: none was asked for. */
static err measure(struct one_model *o, int64_t runs, int64_t **ret_ns)
{
    int n = model_plan_sizes(o->plan).steps;
    if (runs < 1) return ERR_OK;
    err e = ERR_OK;
    int64_t *best = xnewn(int64_t, (size_t)n + 1), *now = xnewn(int64_t, (size_t)n + 1);
    for (int i = 0; i < n; i++) best[i] = INT64_MAX;
    for (int64_t r = 0; r <= runs && !e; r++) { /* the first warms up */
        memset(now, 0, (size_t)n * sizeof *now);
        e = o->within.model ? model_within_run(&o->within, now) : model_plan_run(o->plan, now);
        for (int i = 0; i < n && r; i++) best[i] = MIN(best[i], now[i]);
    }
    free(now);
    if (e)
        free(best);
    else
        *ret_ns = best;
    return e;
}

/* Where the time goes, largest first, up to ten rows. */
static void print_times(const struct one_model *o, const int64_t *ns, int steps)
{
    bool *done = xcalloc((size_t)steps + 1, sizeof *done);
    int64_t all = 0;
    for (int i = 0; i < steps; i++) all += ns[i];
    printf("fastest runs of the steps: %.3f ms together; the slowest steps:\n%4s  %-18s %9s %6s %9s %9s  %s\n", (double)all / 1e6, "step", "operator", "ms",
           "share", "GFLOP/s", "MB out", "kernel");
    for (int row = 0; row < 10 && row < steps; row++) {
        int worst = -1;
        for (int i = 0; i < steps; i++)
            if (!done[i] && (worst < 0 || ns[i] > ns[worst])) worst = i;
        struct model_step_info x = model_plan_step(o->plan, worst);
        done[worst] = true;
        printf("%4d  %-18s %9.3f %5.1f%% %9.1f %9.2f  %s\n", worst, x.op, (double)ns[worst] / 1e6, all ? 100 * (double)ns[worst] / (double)all : 0,
               ns[worst] ? (double)x.flops / (double)ns[worst] : 0,
               (double)tensor_count(&x.out.shape) * (double)tensor_dtype_size(x.out.dtype) / 1e6, x.kernel);
    }
    free(done);
}

static void print_steps(const struct one_model *o, const struct cli_shared *with, int steps)
{
    char shape[96], a[16];
    printf("%4s  %-18s %-22s %-8s %-8s %10s %9s %-8s %-24s %s\n", "step", "operator", "output", "type", "layout", "MFLOP", "weights",
           o->within.ring ? "which" : "", "kernel", "implementation");
    for (int i = 0; i < steps; i++) {
        struct model_step_info x = model_plan_step(o->plan, i);
        char op[32];
        snprintf(op, sizeof op, x.n_post ? "%s +%d" : "%s", x.op, x.n_post);
        printf("%4d  %-18s %-22s %-8s %-8s %10.3f %9s %-8s %-24s %s\n", i, op, tensor_shape_text(&x.out.shape, NULL, shape, sizeof shape),
               tensor_dtype_name(x.out.dtype), layout_name(&x.out), (double)x.flops / 1e6, x.weight_bytes ? size_text(x.weight_bytes, a) : "",
               place(o, i, x.weight_bytes), x.kernel, x.implementation);
        if (x.shared) printf("      %s of its weights, '%s', shared with %s\n", size_text(x.shared_bytes, a), x.shared, cli_shared_with(with, x.shared));
    }
}

/* The block plan in words. */
static void print_blocks(const struct one_model *o)
{
    const struct blocks_plan *b = &o->within.blocks;
    char t[5][16];
    size_t paid = weights_paid_bytes(model_weights(o->model)), kept = weights_kept_bytes(model_weights(o->model));
    printf("block plan for %s of weights: %s stay, %s stream through a window of %s at %s/s\n", size_text(o->within.weight_budget, t[0]),
           size_text(b->kept, t[1]), size_text(b->streamed, t[2]), size_text(b->window, t[3]), size_text((uint64_t)o->within.bandwidth, t[4]));
    printf("predicted %.3f ms (without a pause between runs %.3f); all in memory %.3f, no plan can be below %.3f\n", (double)b->predicted_ns / 1e6,
           (double)b->steady_ns / 1e6, (double)b->compute_ns / 1e6, (double)b->bound_ns / 1e6);
    if (paid < kept) printf("%s of what stays are shared with another model\n", size_text(kept - paid, t[0]));
}

static void print_table(const struct one_model *o, const struct cli_shared *with, const int64_t *ns)
{
    size_t shared = cli_shared_bytes(o->plan);
    struct model_sizes s = model_plan_sizes(o->plan);
    char a[16], b[16], c[16], d[16], e[16];
    print_steps(o, with, s.steps);
    printf("%s: %d steps (%d in plain C, %d layout copies), %d views, %.3f GFLOP, %s\n", model_name(o->model), s.steps, s.ref_steps, s.copies, s.views,
           (double)s.flops / 1e9, cli_precision_name(model_precision(o->model)));
    printf("weights %s packed, activations %s (lower bound %s), scratch %s, code %s\n", size_text(s.weights, a), size_text(s.activations, b),
           size_text(s.activations_lower_bound, c), size_text(s.scratch, d), size_text(s.code, e));
    if (shared) printf("%s of the weights are kept as other models have them\n", size_text(shared, a));
    if (o->within.ring) print_blocks(o);
    else if (o->limited) printf("everything stays: the budget has room for all weights\n");
    if (ns) print_times(o, ns, s.steps);
}

static json_t *step_json(const struct one_model *o, const struct cli_shared *with, int i)
{
    struct model_step_info x = model_plan_step(o->plan, i);
    json_t *shape = json_array();
    for (int k = 0; k < x.out.shape.rank; k++) json_array_append_new(shape, json_integer(x.out.shape.dims[k]));
    json_t *j = json_pack("{s:s, s:s, s:o, s:s, s:s, s:I, s:I, s:b, s:I, s:i, s:s, s:s}", "op", x.op, "name", x.name, "shape", shape, "dtype",
                     tensor_dtype_name(x.out.dtype), "layout", layout_name(&x.out), "flops", (json_int_t)x.flops, "weight_bytes",
                     (json_int_t)x.weight_bytes, "streams", o->within.ring && x.weight_bytes && model_step_streams(o->plan, i), "code_bytes",
                     (json_int_t)x.code_bytes, "post_ops", x.n_post, "kernel", x.kernel, "implementation", x.implementation);
    if (x.shared) {
        json_object_set_new(j, "shared", text_json(x.shared));
        json_object_set_new(j, "shared_bytes", json_integer((json_int_t)x.shared_bytes));
        json_object_set_new(j, "shared_with", text_json(cli_shared_with(with, x.shared)));
    }
    return j;
}

static json_t *blocks_json(const struct one_model *o)
{
    const struct blocks_plan *b = &o->within.blocks;
    return json_pack("{s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "weight_budget_bytes", (json_int_t)o->within.weight_budget, "kept_bytes",
                     (json_int_t)b->kept, "streamed_bytes", (json_int_t)b->streamed, "window_bytes", (json_int_t)b->window, "disk_bytes_per_s",
                     o->within.bandwidth, "predicted_ms", (double)b->predicted_ns / 1e6, "steady_ms", (double)b->steady_ns / 1e6, "compute_ms",
                     (double)b->compute_ns / 1e6, "bound_ms", (double)b->bound_ns / 1e6);
}

static void print_json(const struct one_model *o, const struct cli_shared *with, const int64_t *ns)
{
    struct model_sizes s = model_plan_sizes(o->plan);
    json_t *steps = json_array();
    for (int i = 0; i < s.steps; i++) {
        json_t *step = step_json(o, with, i);
        if (ns) json_object_set_new(step, "ns", json_integer(ns[i]));
        json_array_append_new(steps, step);
    }
    json_t *j = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:o}", "model", model_name(o->model), "precision", cli_precision_name(model_precision(o->model)),
                          "flops", (json_int_t)s.flops, "weight_bytes", (json_int_t)s.weights, "activation_bytes", (json_int_t)s.activations,
                          "activation_lower_bound_bytes", (json_int_t)s.activations_lower_bound, "scratch_bytes", (json_int_t)s.scratch, "code_bytes",
                          (json_int_t)s.code, "ref_steps", s.ref_steps, "copies", s.copies, "views", s.views, "steps", steps);
    json_object_set_new(j, "shared_bytes", json_integer((json_int_t)cli_shared_bytes(o->plan)));
    if (o->within.ring) json_object_set_new(j, "blocks", blocks_json(o));
    json_dumpf(j, stdout, JSON_PRESERVE_ORDER | JSON_INDENT(1));
    putchar('\n');
    json_decref(j);
}

int cli_explain(int argc, char **argv)
{
    struct one_model o = {.command = "explain", .budget_bytes = UINT64_MAX};
    bool json = false, help = false;
    int64_t times = 0, *ns = NULL;
    struct args_list rest = {0};
    const struct args_option table[] = {ONE_MODEL_OPTIONS(o), {"times", ARGS_INT, &times, "runs it so often and says how long each step takes at best"}, {"json", ARGS_FLAG, &json, "one JSON object on stdout"}, {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && !help && rest.n != 1) e = err_set(ERR_USAGE, "expected one MODEL.onnx, or the name of a stored model; --help says more");
    if (help) args_help("explain MODEL.onnx [options]", table);
    if (!e && !help) {
        o.path = rest.items[0];
        e = one_model_open(&o);
        if (!e) e = one_model_plan(&o, NULL);
        if (!e) e = measure(&o, times, &ns);
        struct cli_shared with = {0};
        if (!e) e = cli_shared_open(&o, &with);
        if (!e) (json ? print_json : print_table)(&o, &with, ns);
        cli_shared_done(&with);
    }
    free(ns);
    int status = e ? args_fail("explain", e) : 0;
    one_model_close(&o);
    free(rest.items);
    return status;
}

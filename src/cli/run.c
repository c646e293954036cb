/* `brim run MODEL`: one model, its outputs as .npy, times and bytes.
 *
 * Everything happens inside the budget given (default: unlimited, and the peak is printed). `--seed N` draws input i with the
 * linear congruential generator of the recorded reference outputs: x = x * 1664525 + 1013904223 mod 2^32 from seed N + i, value (x >> 8) / 2^24,
 * in row-major order. SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"
#include "cli/model_cmd.h"
#include "cli/one_model.h"
#include "cli/precision.h"
#include "engine/engine.h"
#include "model/within.h"
#include "tensor/npy.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_INPUTS = 64 };

struct run {
    struct one_model o;
    const char *output, *swap; /* swap: NULL: blocks; "copy", "whole": for comparison */
    struct args_list inputs;
    int64_t seed, repeat, pause_ms;
    bool json, profile;
    uint64_t read_bytes_per_run;
    double load_ms, first_ms, *times_ms;
    double run_bandwidth; /* of the disk during the measured runs, bytes a second; 0: nothing was read */
    int64_t bound_ns, naive_ns; /* with that */
    int64_t *step_ns;
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static err fill_seeded(const struct run *r, int i, const struct tensor *to)
{
    int64_t n = tensor_count(&to->shape);
    if (to->dtype != TENSOR_F32)
        return err_set(ERR_UNSUPPORTED, "input %d is %s; --seed draws float32 only: give it with --input NAME=F.npy", i,
                       tensor_dtype_name(to->dtype));
    float *values = malloc((size_t)MAX(n, 1) * sizeof *values);
    if (!values) return err_set(ERR_NOMEM, "no memory for input %d", i);
    uint32_t x = (uint32_t)(r->seed + i);
    for (int64_t k = 0; k < n; k++) {
        x = x * 1664525u + 1013904223u;
        values[k] = (float)(x >> 8) / 16777216.0f;
    }
    struct tensor from = tensor_view(TENSOR_F32, &to->shape, values);
    err e = model_copy(&from, to);
    free(values);
    return e;
}

/* The .npy given for input `name`, or NULL. "NAME=FILE", or just FILE for a model with one input. */
static const char *file_for(const struct run *r, const char *name)
{
    for (size_t i = 0; i < r->inputs.n; i++) {
        const char *item = r->inputs.items[i];
        size_t n = strlen(name);
        if (strncmp(item, name, n) == 0 && item[n] == '=') return item + n + 1;
        if (model_input_count(r->o.model) == 1 && !strchr(item, '=')) return item;
    }
    return NULL;
}

static err check_names(const struct run *r)
{
    for (size_t i = 0; i < r->inputs.n; i++) {
        bool known = model_input_count(r->o.model) == 1 && !strchr(r->inputs.items[i], '=');
        for (int k = 0; k < model_input_count(r->o.model); k++) {
            const char *name = model_input(r->o.model, k).name;
            size_t n = strlen(name);
            known |= strncmp(r->inputs.items[i], name, n) == 0 && r->inputs.items[i][n] == '=';
        }
        if (!known)
            return err_set(ERR_USAGE, "--input %s: the model has no such input; its first is '%s' (NAME=FILE.npy)", r->inputs.items[i],
                           model_input(r->o.model, 0).name);
    }
    return ERR_OK;
}

/* Shapes come from the .npy files that were given; the rest from the model. */
static err input_shapes(struct run *r, struct tensor_shape *shapes)
{
    int n = model_input_count(r->o.model);
    err e = check_names(r);
    if (e) return e;
    if (n > MAX_INPUTS) return err_set(ERR_LIMIT, "%d inputs", n);
    for (int i = 0; i < n; i++) {
        struct model_io io = model_input(r->o.model, i);
        const char *file = file_for(r, io.name);
        shapes[i] = io.shape;
        if (io.shape.rank > 0 && io.shape.dims[0] < 0) shapes[i].dims[0] = 1;
        if (!file) continue;
        struct tensor t;
        void *owned;
        if ((e = npy_load(file, (size_t)1 << 33, &t, &owned))) return e;
        free(owned);
        if (io.dtype != TENSOR_NONE && t.dtype != io.dtype)
            return err_set(ERR_SHAPE, "%s holds %s, but input '%s' is %s", file, tensor_dtype_name(t.dtype), io.name,
                           tensor_dtype_name(io.dtype));
        shapes[i] = t.shape;
    }
    return ERR_OK;
}

static err plan(struct run *r)
{
    struct tensor_shape shapes[MAX_INPUTS];
    err e = input_shapes(r, shapes);
    return e ? e : one_model_plan(&r->o, shapes);
}

static err fill(const struct run *r)
{
    for (int i = 0; i < model_input_count(r->o.model); i++) {
        struct tensor to = model_plan_input(r->o.plan, i), t;
        const char *file = file_for(r, model_input(r->o.model, i).name);
        void *owned;
        err e;
        if (!file) {
            if ((e = fill_seeded(r, i, &to))) return e;
            continue;
        }
        if ((e = npy_load(file, (size_t)1 << 33, &t, &owned))) return e;
        e = model_copy(&t, &to);
        free(owned);
        if (e) return err_wrap(e, "%s", file);
    }
    return ERR_OK;
}

static char *output_path(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s.npy", dir, name);
    for (char *c = path + strlen(dir) + 1; c < path + strlen(path); c++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", *c)) *c = '_';
    return path;
}

static err save_outputs(const struct run *r)
{
    if (!r->output) return ERR_OK;
    if (mkdir(r->output, 0777) && errno != EEXIST) return err_set(ERR_IO, "%s: cannot make the folder: %s", r->output, strerror(errno));
    for (int i = 0; i < model_output_count(r->o.model); i++) {
        struct tensor from = model_plan_output(r->o.plan, i);
        size_t bytes = (size_t)tensor_count(&from.shape) * tensor_dtype_size(from.dtype);
        void *flat = malloc(bytes ? bytes : 1);
        if (!flat) return err_set(ERR_NOMEM, "no memory for output %d", i);
        struct tensor to = tensor_view(from.dtype, &from.shape, flat);
        char *path = output_path(r->output, model_output(r->o.model, i).name);
        err e = model_copy(&from, &to);
        if (!e) e = npy_save(path, &to);
        free(path);
        free(flat);
        if (e) return e;
    }
    return ERR_OK;
}

static void rest(const struct run *r)
{
    if (r->pause_ms) usleep((useconds_t)(r->pause_ms * 1000));
}

/* The disk is not the same after a pause as in runs without one (it may save up credit, or fall asleep), and step times settle: the division is
 * made from runs in the rhythm of those that are measured. */
static err settle(struct run *r)
{
    enum { ROUNDS = 4, RUNS = 2 };
    for (int round = 0; round < ROUNDS && r->repeat > 1 && r->o.within.ring && !r->o.disk; round++) {
        double before = r->o.within.bandwidth;
        for (int i = 0; i < RUNS; i++) {
            err e = fill(r);
            if (!e) e = model_within_run(&r->o.within, NULL);
            if (e) return e;
            rest(r);
        }
        double now = weights_reader_stats(r->o.reader).bandwidth;
        err e = now > 0 ? model_within_divide(&r->o.within, now) : ERR_OK;
        if (e || fabs(now / before - 1) < 0.05) return e;
    }
    return ERR_OK;
}

/* What no plan could beat on the disk as it was during the measured runs. */
static err bound(struct run *r, const struct weights_reader_stats *before)
{
    if (!r->o.within.ring) return ERR_OK;
    struct weights_reader_stats now = weights_reader_stats(r->o.reader);
    if (now.busy_ns <= before->busy_ns || now.bytes == before->bytes) return ERR_OK;
    struct blocks_plan b;
    r->run_bandwidth = (double)(now.bytes - before->bytes) / (double)(now.busy_ns - before->busy_ns) * 1e9;
    err e = model_blocks_make(r->o.plan, r->o.within.weight_budget, r->run_bandwidth, &b);
    if (e) return e;
    r->bound_ns = b.bound_ns;
    r->naive_ns = MAX(b.compute_ns, (int64_t)((double)r->o.within.blocks.streamed / r->run_bandwidth * 1e9));
    blocks_done(&b);
    return ERR_OK;
}

/* Inputs share arena memory with what is computed later, so they are filled anew before each run, outside the time. */
static err measure(struct run *r)
{
    uint64_t loads, before, after;
    int64_t ns;
    err x = settle(r);
    if (x) return x;
    struct weights_reader_stats disk = r->o.reader ? weights_reader_stats(r->o.reader) : (struct weights_reader_stats){0};
    weights_counts(model_weights(r->o.model), &loads, &before, &ns);
    r->times_ms = xnewn(double, r->repeat);
    r->step_ns = xnewn(int64_t, model_plan_sizes(r->o.plan).steps);
    for (int64_t i = 0; i < r->repeat; i++) {
        err e = fill(r);
        if (e) return e;
        if (r->swap && !strcmp(r->swap, "whole") && (e = model_evict(r->o.model))) return e;
        int64_t begin = clock_ns();
        int64_t *step_ns = r->profile && i ? r->step_ns : NULL;
        if ((e = r->o.within.model ? model_within_run(&r->o.within, step_ns) : model_plan_run(r->o.plan, step_ns))) return e;
        r->times_ms[i] = (double)(clock_ns() - begin) / 1e6;
        rest(r);
    }
    weights_counts(model_weights(r->o.model), &loads, &after, &ns);
    r->read_bytes_per_run = (after - before) / (uint64_t)r->repeat;
    r->first_ms = r->times_ms[0];
    err e = bound(r, &disk);
    return e ? e : save_outputs(r);
}

static err execute(struct run *r)
{
    bool whole = r->swap && !strcmp(r->swap, "whole"), copy = r->swap && !strcmp(r->swap, "copy");
    int64_t begin = clock_ns();
    if (r->swap && !whole && !copy) return err_set(ERR_USAGE, "--swap: expected copy or whole, found '%s'", r->swap);
    r->o.limited = whole;
    r->o.kind = copy ? WEIGHTS_COPYING : WEIGHTS_URING;
    r->o.within.no_ahead = copy;
    err e = one_model_open(&r->o);
    if (!e) e = plan(r);
    if (!e && *model_stored_problem(r->o.model)) fprintf(stderr, "brim run: packed weights are not kept: %s\n", model_stored_problem(r->o.model));
    r->load_ms = (double)(clock_ns() - begin) / 1e6;
    if (e) return e;
    mem_budget_reset_peak(r->o.budget);
    return measure(r);
}

static json_t *shape_json(const struct tensor_shape *s)
{
    json_t *a = json_array();
    for (int i = 0; i < s->rank; i++) json_array_append_new(a, json_integer(s->dims[i]));
    return a;
}

static json_t *blocks_json(const struct run *r)
{
    const struct model_within *w = &r->o.within;
    const struct blocks_plan *b = &w->blocks;
    return json_pack("{s:f, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "pack_ms", w->pack_ms, "window_bytes", (json_int_t)b->window,
                     "kept_bytes", (json_int_t)b->kept, "streamed_bytes", (json_int_t)b->streamed, "disk_bytes_per_s", w->bandwidth, "compute_ms",
                     (double)b->compute_ns / 1e6, "predicted_ms", (double)b->predicted_ns / 1e6, "steady_ms", (double)b->steady_ns / 1e6,
                     "run_disk_bytes_per_s", r->run_bandwidth, "bound_ms", (double)(r->run_bandwidth > 0 ? r->bound_ns : b->bound_ns) / 1e6,
                     "naive_bound_ms", (double)(r->run_bandwidth > 0 ? r->naive_ns : b->naive_ns) / 1e6);
}

static void print_blocks(const struct run *r)
{
    const struct model_within *w = &r->o.within;
    const struct blocks_plan *b = &w->blocks;
    char t[4][16];
    printf("blocks: %s stay, %s stream through a window of %s at %s/s; predicted %.3f ms (without a pause %.3f), all in memory %.3f, bound %.3f\n",
           size_text(b->kept, t[0]), size_text(b->streamed, t[1]), size_text(b->window, t[2]), size_text((uint64_t)w->bandwidth, t[3]),
           (double)b->predicted_ns / 1e6, (double)b->steady_ns / 1e6, (double)b->compute_ns / 1e6,
           (double)(r->run_bandwidth > 0 ? r->bound_ns : b->bound_ns) / 1e6);
}

static void report(struct run *r, const double *sorted)
{
    struct model_sizes s = model_plan_sizes(r->o.plan);
    const char *precision = cli_precision_name(model_precision(r->o.model)); /* what it is, not what was asked for */
    double median = sorted[r->repeat / 2], p95 = sorted[(r->repeat * 95 + 99) / 100 - 1];
    if (!r->json) {
        char t[5][16];
        printf("%s: %s, %.3f ms (median of %lld; first %.3f, p95 %.3f), loaded in %.0f ms\n", r->o.path, precision, median, (long long)r->repeat,
               r->first_ms, p95, r->load_ms);
        printf("memory: weights %s, activations %s (lower bound %s), scratch %s, code %s\n", size_text(s.weights, t[0]),
               size_text(s.activations, t[1]), size_text(s.activations_lower_bound, t[2]), size_text(s.scratch, t[3]),
               size_text(s.code, t[4]));
        if (r->o.within.model) print_blocks(r);
        for (int i = 0; i < model_output_count(r->o.model); i++) {
            char shape[128];
            struct tensor o = model_plan_output(r->o.plan, i);
            printf("output %s %s %s\n", model_output(r->o.model, i).name, tensor_dtype_name(o.dtype),
                   tensor_shape_text(&o.shape, NULL, shape, sizeof shape));
        }
        return;
    }
    json_t *outputs = json_array();
    for (int i = 0; i < model_output_count(r->o.model); i++) {
        struct tensor o = model_plan_output(r->o.plan, i);
        json_array_append_new(outputs, json_pack("{s:s, s:s, s:o}", "name", model_output(r->o.model, i).name, "dtype",
                                                 tensor_dtype_name(o.dtype), "shape", shape_json(&o.shape)));
    }
    json_t *j = json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:i, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "model", r->o.path,
                          "load_ms", r->load_ms, "first_ms", r->first_ms, "median_ms", median, "p95_ms", p95, "min_ms", sorted[0],
                          "threads", (int)r->o.threads, "precision", precision, "budget_bytes",
                          r->o.budget_bytes == UINT64_MAX ? json_null() : json_integer((json_int_t)r->o.budget_bytes), "peak_bytes",
                          (json_int_t)mem_budget_peak(r->o.budget), "peak_rss_bytes", (json_int_t)mem_process_rss().peak, "weight_bytes",
                          (json_int_t)s.weights, "resident_weight_bytes", (json_int_t)weights_kept_bytes(model_weights(r->o.model)), "read_bytes_per_run",
                          (json_int_t)r->read_bytes_per_run,
                          "activation_bytes", (json_int_t)s.activations, "flops", (json_int_t)s.flops, "outputs", outputs);
    if (r->o.within.model) json_object_update_new(j, blocks_json(r));
    json_dumpf(j, stdout, JSON_REAL_PRECISION(6) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(j);
}

static void report_profile(const struct run *r)
{
    struct model_sizes s = model_plan_sizes(r->o.plan);
    double runs = (double)MAX(r->repeat - 1, 1);
    for (int i = 0; i < s.steps; i++) {
        struct model_step_info info = model_plan_step(r->o.plan, i);
        double ms = (double)r->step_ns[i] / runs / 1e6;
        fprintf(stderr, "%8.4f ms %7.1f GFLOP/s  %-18s %-24s %s\n", ms, ms > 0 ? (double)info.flops / ms / 1e6 : 0, info.op,
                info.kernel, info.implementation);
    }
}

int cli_run(int argc, char **argv)
{
    struct run r = {.o.command = "run", .o.budget_bytes = UINT64_MAX, .repeat = 1};
    struct args_list rest = {0};
    bool help = false;
    const struct args_option table[] = {
        {"input", ARGS_STRINGS, &r.inputs, "NAME=F.npy; just F.npy for a model with one input"},
        {"seed", ARGS_INT, &r.seed, "draws inputs that were not given (default 0)"},
        {"output", ARGS_STRING, &r.output, "folder for the outputs, NAME.npy each"},
        ONE_MODEL_OPTIONS(r.o),
        {"pace", ARGS_SIZE, &r.o.pace, "read weights no faster than so many bytes a second, as from a slower disk"},
        {"repeat", ARGS_INT, &r.repeat, "runs to time (default 1)"},
        {"pause", ARGS_INT, &r.pause_ms, "milliseconds between runs, as between frames (default 0)"},
        {"swap", ARGS_STRING, &r.swap, "for comparison: copy (blocks by read and copy, none ahead), whole (load, run, drop)"},
        {"slice", ARGS_SIZE, &r.o.slice, "cut weights of more bytes along the output channel (default: 3M)"},
        {"profile", ARGS_FLAG, &r.profile, "time of each kernel on stderr (needs --repeat 2 or more)"},
        {"json", ARGS_FLAG, &r.json, "one JSON object on stdout"},
        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && !help && rest.n != 1) e = err_set(ERR_USAGE, "expected one MODEL.onnx, or the name of a stored model; --help says more");
    if (!e && (r.repeat < 1 || r.repeat > 1000000)) e = err_set(ERR_USAGE, "--repeat: from 1 to 1000000");
    if (help) args_help("run MODEL.onnx [options]", table);
    if (!e && !help) {
        r.o.path = rest.items[0];
        e = execute(&r);
        if (!e) {
            if (r.profile) report_profile(&r);
            qsort(r.times_ms, (size_t)r.repeat, sizeof *r.times_ms, by_value);
            report(&r, r.times_ms);
        }
    }
    int status = e ? args_fail("run", e) : 0;
    one_model_close(&r.o);
    free(r.times_ms);
    free(r.step_ns);
    free(r.inputs.items);
    free(rest.items);
    return status;
}

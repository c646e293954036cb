/* `brim bench train ARCH`: what a training step takes and needs, for a network by name with drawn numbers; --profile: for what. `brim bench train` without a
 * network is bench/train.py, which runs this one beside PyTorch, in turns (--turns), and more.
 *
 * Times are of the whole step: forward, backward, optimiser. SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench.h"

#include "cli/args.h"
#include "cli/bench_inside.h"
#include "cli/bench_train.h"
#include "cli/precision.h"
#include "graph/file.h"
#include "graph/zoo.h"
#include "train/losses.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct options {
    const char *arch, *optimizer, *precision;
    enum kernel_precision kind;
    int64_t size, batch, classes, steps, threads, recompute;
    double dropout;
    uint64_t budget;
    bool json, profile, turns;
};

static double now_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* ---- the job: pictures with a distribution per row, or words with the next word */

static bool words(const struct graph *g)
{
    return g->values[g->inputs[0]].dtype == TENSOR_I64;
}

static err loss_of_words(struct graph_builder *b, const struct graph_training *t, void *context, int *ret_loss)
{
    (void)context;
    int logits = t->g->outputs[0];
    const struct tensor_shape *s = graph_b_shape(b, logits);
    struct tensor_shape rows = {.rank = 2, .dims = {s->dims[0] * s->dims[1], s->dims[2]}}, list = {.rank = 1, .dims = {rows.dims[0]}};
    int next = graph_add_input(b->g, "train_next", TENSOR_I64, &list);
    *ret_loss = graph_b_cross_entropy_labels(b, graph_b_reshape(b, logits, &rows), next, 0, -1);
    return b->e;
}

static uint32_t draw(uint32_t *x)
{
    *x = *x * 1664525u + 1013904223u;
    return *x >> 8;
}

static bool detector(const char *arch)
{
    return str_starts(arch, "yolox-") || !strcmp(arch, "brimdet");
}

static void fill(struct train_net *n, bool text, int64_t classes, const struct train_yolox *boxes)
{
    uint32_t x = 1;
    struct tensor in = train_net_input(n, 0), target = train_net_target(n, 0);
    int64_t count = tensor_count(&in.shape), wanted = tensor_count(&target.shape);
    for (int64_t i = 0; i < count; i++) {
        if (text)
            ((int64_t *)in.data)[i] = draw(&x) % (uint32_t)classes;
        else
            ((float *)in.data)[i] = (float)draw(&x) / 8388608.0f - 1;
    }
    if (text) {
        for (int64_t i = 0; i < wanted; i++) ((int64_t *)target.data)[i] = draw(&x) % (uint32_t)classes;
        return;
    }
    if (boxes) {
        bench_boxes(n, boxes);
        return;
    }
    memset(target.data, 0, (size_t)wanted * sizeof(float));
    for (int64_t i = 0; i < target.shape.dims[0]; i++) ((float *)target.data)[i * classes + draw(&x) % (uint32_t)classes] = 1;
}

/* ---- what it took */

struct row {
    char what[96];
    double ms;
    int calls;
};

static int by_time(const void *a, const void *b)
{
    double x = ((const struct row *)a)->ms, y = ((const struct row *)b)->ms;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void print_profile(const struct train_net *n, const int64_t *ns, int steps)
{
    const struct model_plan *p = train_net_plan(n);
    int count = train_net_sizes(n).plan.steps, rows = 0;
    struct row *all = xnewn(struct row, count + 1);
    for (int i = 0; i < count; i++) {
        struct model_step_info s = model_plan_step(p, i);
        char what[96];
        int k = 0;
        snprintf(what, sizeof what, "%-26s %s", s.op, s.kernel);
        while (k < rows && strcmp(all[k].what, what)) k++;
        if (k == rows) memcpy(all[rows++].what, what, sizeof what);
        all[k].ms += (double)ns[i] / 1e6 / steps;
        all[k].calls++;
    }
    qsort(all, (size_t)rows, sizeof *all, by_time);
    for (int i = 0; i < rows; i++) printf("%9.3f ms %5d x  %s\n", all[i].ms, all[i].calls, all[i].what);
    free(all);
}

static err measure(struct train_net *n, const struct options *o, const struct mem_budget *budget)
{
    float loss;
    double best = 0, best_cpu = 0, first = 0;
    int count = train_net_sizes(n).plan.steps;
    int64_t *ns = xnewn(int64_t, count + 1);
    err e = ERR_OK;
    for (int i = 0; i <= o->steps && !e; i++) {
        double wall = now_ms(CLOCK_MONOTONIC), cpu = now_ms(CLOCK_PROCESS_CPUTIME_ID);
        e = i && o->profile ? model_plan_run(train_net_plan(n), ns) : train_net_run(n, &loss);
        if (!e) train_net_update(n, 1e-4, NULL);
        wall = now_ms(CLOCK_MONOTONIC) - wall;
        cpu = now_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        if (i == 0) first = loss;
        if (i == 1 || (i && wall < best)) best = wall;
        if (i == 1 || (i && cpu < best_cpu)) best_cpu = cpu;
    }
    struct train_net_sizes s = train_net_sizes(n);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    if (!e && o->profile) print_profile(n, ns, (int)o->steps);
    free(ns);
    if (e) return e;
    if (o->json)
        printf("{\"ms\": %.2f, \"cpu_ms\": %.2f, \"activations\": %zu, \"activations_bound\": %zu, \"scratch\": %zu, \"fixed\": %llu, \"all\": %llu, \"resident\": %llu, \"parameters\": %lld, "
               "\"first_loss\": %.6f, \"loss\": %.6f, \"steps\": %d, \"plain\": %d, \"copies\": %d, "
               "\"level\": %d, \"levels\": %d, \"again\": %d, \"again_flops\": %lld}\n",
               best, best_cpu, s.plan.activations, s.plan.activations_lower_bound, s.plan.scratch, (unsigned long long)s.fixed,
               (unsigned long long)mem_budget_peak(budget), (unsigned long long)used.ru_maxrss * 1024, (long long)s.parameters, first, loss, s.plan.steps, s.plan.ref_steps, s.plan.copies, s.level, s.again.levels, s.again.nodes,
               (long long)s.again.flops);
    else
        printf("%s: %.1f ms a step, %.1f ms of the processor; activations %.1f MB, scratch %.1f, parameters and what belongs to them %.1f, at most %.1f in all; "
               "%d kernel calls, %d in plain C, %d copies; level %d of %d of recomputation: %d operators, %.1f %% of the time\n",
               o->arch, best, best_cpu, (double)s.plan.activations / 1e6, (double)s.plan.scratch / 1e6, (double)s.fixed / 1e6,
               (double)mem_budget_peak(budget) / 1e6, s.plan.steps, s.plan.ref_steps, s.plan.copies, s.level, s.again.levels, s.again.nodes, 100 * s.again.share);
    return ERR_OK;
}

/* As a file, like a job's. */
static err read_network(const char *arch, const struct graph_zoo_options *zoo, struct mem_payer *payer, struct graph **ret)
{
    const char *folder = getenv("TMPDIR");
    char *path = xasprintf("%s/brim-bench-XXXXXX", folder && *folder ? folder : "/tmp");
    struct graph *g;
    int fd = mkstemp(path);
    err e = fd < 0 ? err_set(ERR_IO, "%s: cannot be made: %s", path, strerror(errno)) : graph_zoo(arch, zoo, payer, &g);
    if (!e) {
        e = graph_save(g, path);
        graph_free(&g);
    }
    if (!e) e = graph_load(path, payer, ret);
    if (fd >= 0) {
        unlink(path);
        close(fd);
    }
    free(path);
    return e;
}

static err run(const struct options *o)
{
    uint64_t rss = bench_own_bytes("VmRSS:");
    struct mem_budget *budget = mem_budget_new("bench", o->budget ? o->budget : UINT64_MAX), *files = mem_budget_new("network", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(files, "network");
    struct graph *g = NULL;
    struct train_net *n = NULL;
    struct graph_zoo_options zoo = {.classes = (int)o->classes, .size = (int)o->size, .seed = 1};
    struct train_classify classify = {0};
    struct train_yolox yolox = {0};
    uint64_t anon = bench_own_bytes("RssAnon:");
    err e = read_network(o->arch, &zoo, payer, &g);
    if (!e) {
        struct tensor_shape shape = g->values[g->inputs[0]].shape;
        shape.dims[0] = o->batch;
        if (words(g) && o->size) shape.dims[1] = o->size;
        if (!words(g) && o->size) shape.dims[2] = shape.dims[3] = o->size;
        struct train_net_options options = {.budget = budget, .input_shapes = &shape, .threads = (int)o->threads, .loss = words(g) ? loss_of_words : train_loss_classify,
                                            .loss_context = &classify, .recompute = (int)o->recompute, .dropout = o->dropout, .precision = o->kind,
                                            .optimiser = {.rule = !strcmp(o->optimizer, "adamw") ? TRAIN_ADAMW : TRAIN_SGD, .momentum = 0.9f}};
        if (detector(o->arch)) {
            yolox = (struct train_yolox){.width = (int)shape.dims[3], .height = (int)shape.dims[2]};
            options.loss = train_loss_yolox;
            options.loss_context = &yolox;
        }
        e = train_net_new(g, &options, &n);
    }
    if (!e) {
        struct tensor target = train_net_target(n, 0);
        bool text = words(g);
        struct tensor out = train_net_output(n, 0);
        graph_file_forget(g->file); /* as jobs do: its first numbers are the net's own by now */
        fill(n, text, text ? out.shape.dims[out.shape.rank - 1] : target.shape.dims[1], detector(o->arch) ? &yolox : NULL);
        e = o->turns ? bench_turns(n, budget, anon, rss) : measure(n, o, budget);
    }
    train_net_free(&n);
    graph_free(&g);
    mem_payer_free(&payer);
    mem_budget_free(&files);
    mem_budget_free(&budget);
    return e;
}

err bench_train(int argc, char **argv)
{
    if (argc < 2 || argv[1][0] == '-') return bench_train_script(argc, argv);
    struct options o = {.optimizer = "sgd", .batch = 32, .steps = 5, .threads = 2};
    struct args_list rest = {0};
    bool help = false;
    const struct args_option table[] = {{"size", ARGS_INT, &o.size, "of the sides of its pictures, or words in a row (the network's own)"},
                                        {"batch", ARGS_INT, &o.batch, "(32)"},
                                        {"classes", ARGS_INT, &o.classes, "(the network's own)"},
                                        {"steps", ARGS_INT, &o.steps, "measured, after one that is not; the least counts (5)"},
                                        {"threads", ARGS_INT, &o.threads, "(2)"},
                                        {"optimizer", ARGS_STRING, &o.optimizer, "sgd (default), adamw"},
                                        {"budget", ARGS_SIZE, &o.budget, "bytes for everything (default: no end)"},
                                        {"recompute", ARGS_INT, &o.recompute, "level of recomputation (0: what the budget asks for; -1: none)"},
                                        {"dropout", ARGS_FLOAT, &o.dropout, "the ratio of every Dropout (0: its own; below 0: none drops)"},
                                        {"precision", ARGS_STRING, &o.precision, "f32 (default), bf16, auto"},
                                        {"profile", ARGS_FLAG, &o.profile, "time by operator and kernel"},
                                        {"turns", ARGS_FLAG, &o.turns, "for bench/train.py: each line on stdin is a number of seconds to step for"},
                                        {"json", ARGS_FLAG, &o.json, "one line of JSON"},
                                        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && help) args_help("bench train ARCH [options]", table);
    if (!e && !help && rest.n != 1) e = err_set(ERR_USAGE, "one network by name (brim new --list)");
    if (!e && !help && !(o.dropout < 1)) e = err_set(ERR_USAGE, "--dropout is below 1");
    if (!e && !help && (o.batch < 1 || o.steps < 1)) e = err_set(ERR_USAGE, "--batch and --steps: 1 or more");
    if (!e && !help) e = cli_precision("bench", o.precision, &o.kind);
    if (!e && !help) {
        o.arch = rest.items[0];
        e = run(&o);
    }
    free(rest.items);
    return e;
}

/* `brim eval classify`, ... of each task of training, and `brim export`. SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"
#include "cli/train.h"
#include "train/job.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options {
    const char *model, *data, *gallery, *fit, *mean, *std, *classes, *query, *camera, *since;
    int64_t batch, threads;
    uint64_t budget;
    double held_out;
    int64_t seed;
    const char *named;
    double seen;
    int64_t category, every;
    bool bgr, rgb, json, help, detect, embed;
    enum train_task task;
};

err cli_train_since(const char *text, double *ret)
{
    static const struct { char unit; double seconds; } units[] = {{'m', 60}, {'h', 3600}, {'d', 86400}};
    char *end;
    double n = strtod(text, &end);
    struct tm t = {.tm_isdst = -1};
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (end > text && end[0] == units[i].unit && !end[1] && n > 0 && n < 1e6) return *ret = clock_wall() - n * units[i].seconds, ERR_OK;
    end = strptime(text, "%Y-%m-%d", &t);
    if (end && *end) end = strptime(end, "%n%H:%M", &t);
    time_t at = end && !*end ? mktime(&t) : -1;
    if (at <= 0) return err_set(ERR_USAGE, "--since: '%s' is no time such as 90m, 24h, 7d, 2026-11-20 or \"2026-11-20 18:30\"", text);
    *ret = (double)at;
    return ERR_OK;
}

/* "car=2,ambulance=7" or "car,ambulance": the head's classes in order; numbers that nobody names get names that no data has. */
err cli_train_classes(const char *text, char ***ret, size_t *ret_n)
{
    enum { MOST = 100000 };
    char *copy = xstrdup(text), *save = NULL, *end;
    char **names = NULL;
    size_t cap = 0, n = 0;
    err e = ERR_OK;
    for (char *part = strtok_r(copy, ",", &save); part && !e; part = strtok_r(NULL, ",", &save)) {
        char *equals = strrchr(part, '=');
        long at = equals ? strtol(equals + 1, &end, 10) : (long)n;
        if (equals && (end == equals + 1 || *end)) e = err_set(ERR_USAGE, "--classes: '%s': NAME=NUMBER", part);
        if (!e && (at < 0 || at >= MOST)) e = err_set(ERR_USAGE, "--classes: class %ld", at);
        if (equals) *equals = 0;
        while (!e && (long)n <= at) {
            vec_grow(&names, &cap, n);
            names[n] = xasprintf("#%zu", n);
            n++;
        }
        if (e) break;
        free(names[at]);
        names[at] = xstrdup(part);
    }
    free(copy);
    *ret = names; /* also what there is on failure: the caller frees */
    *ret_n = n;
    return e;
}

static err numbers(const char *name, const char *text, float *to)
{
    double v[3];
    int n = 0, end = 0;
    if (sscanf(text, "%lf%n,%lf,%lf%n", &v[0], &end, &v[1], &v[2], &end) == 3) n = 3;
    else if (sscanf(text, "%lf%n", &v[0], &end) == 1) n = 1;
    if (!n || text[end] || !isfinite(v[0]) || (n == 3 && !(isfinite(v[1]) && isfinite(v[2])))) return err_set(ERR_USAGE, "--%s: one number or three with commas, not '%s'", name, text);
    for (int i = 0; i < 3; i++) to[i] = (float)v[n == 1 ? 0 : i];
    return ERR_OK;
}

static err feed(const struct options *o, struct train_feed *ret)
{
    float over[3];
    struct train_feed f = {.bgr = o->detect ? !o->rgb : o->bgr};
    err e = numbers("mean", o->mean, f.mean);
    if (!e) e = numbers("std", o->std, over);
    if (e) return e;
    for (int i = 0; i < 3; i++) {
        if (!(over[i] > 0)) return err_set(ERR_USAGE, "--std: numbers above 0");
        f.scale[i] = 1 / over[i];
    }
    if (!strcmp(o->fit, "letterbox")) f.fit = TRAIN_LETTERBOX;
    else if (!strcmp(o->fit, "crop")) f.fit = TRAIN_CROP;
    else if (strcmp(o->fit, "stretch")) return err_set(ERR_USAGE, "--fit: stretch, letterbox or crop, not '%s'", o->fit);
    *ret = f;
    return ERR_OK;
}

static err check(const struct options *o)
{
    if (!o->model || !o->data) return err_set(ERR_USAGE, "--model and --data are needed");
    if (o->gallery && (!o->embed || o->held_out > 0)) return err_set(ERR_USAGE, "--gallery is for embed, without --held-out");
    if (!(o->held_out >= 0 && o->held_out < 1)) return err_set(ERR_USAGE, "--held-out goes from 0 to below 1");
    if (o->batch < 0 || o->batch > 4096) return err_set(ERR_USAGE, "--batch goes from 1 to 4096");
    if (o->threads < 0 || o->threads > 1024) return err_set(ERR_USAGE, "--threads goes from 0 (all) to 1024");
    return o->seed < 0 ? err_set(ERR_USAGE, "--seed: 0 or more") : ERR_OK;
}

static err score(enum train_task task, const struct graph *g, const struct train_set *set, const struct train_set *gallery, const struct train_evaluate_options *o,
                 struct train_scores *ret)
{
    switch (task) {
    case TRAIN_DETECT: return train_evaluate_detect(g, set, o, ret);
    case TRAIN_EMBED: return train_evaluate_gallery(g, set, gallery, o, ret);
    case TRAIN_IMAGE: return train_evaluate_image(g, set, o, ret);
    case TRAIN_ATTRIBUTES: return train_evaluate_attributes(g, set, o, ret);
    case TRAIN_TEXT: return train_evaluate_text(g, set, o, ret);
    default: return train_evaluate_classify(g, set, o, ret);
    }
}

static err work(const struct options *o, struct mem_budget *b, struct train_scores *ret)
{
    struct mem_payer *payer = mem_payer_new(b, "eval");
    struct train_set *set = NULL, *gallery = NULL;
    struct graph *g = NULL;
    char **names = NULL;
    size_t n_names = 0;
    int64_t *part = NULL, *held = NULL, n_part, n_held;
    struct train_evaluate_options e_options = {.budget = b, .batch = (int)o->batch, .threads = (int)o->threads};
    err e = feed(o, &e_options.feed);
    if (!e) e = graph_load(o->model, payer, &g);
    if (!e && o->classes) e = cli_train_classes(o->classes, &names, &n_names);
    struct train_set_options how = {.classes = (const char *const *)names, .n_classes = (int)n_names, .identities = o->embed, .named = o->named, .seen = o->seen, .category = (int)MIN(o->category, INT32_MAX),
                                    .every = (int)MIN(o->every, INT32_MAX), .boxes = o->detect, .attributes = o->task == TRAIN_ATTRIBUTES, .query = o->query, .camera = o->camera};
    if (!e && o->since) e = cli_train_since(o->since, &how.since);
    if (!e && o->task == TRAIN_TEXT) e = train_text_length(g, &how.length);
    if (!e) e = train_set_open(o->data, &how, payer, &set);
    if (!e && o->gallery) e = train_set_open(o->gallery, &how, payer, &gallery);
    if (!e && o->held_out > 0) {
        (o->embed ? train_data_split_classes : train_data_split)(set, o->held_out, (uint64_t)o->seed, &part, &n_part, &held, &n_held);
        e_options.samples = held;
        e_options.n_samples = n_held;
        if (!n_held) e = err_set(ERR_USAGE, "%s: nothing was held out", o->data);
    }
    if (!e) e = score(o->task, g, set, gallery, &e_options, ret);
    free(part);
    free(held);
    for (size_t i = 0; i < n_names; i++) free(names[i]);
    free(names);
    train_set_free(&set);
    train_set_free(&gallery);
    graph_free(&g);
    mem_payer_free(&payer);
    return e;
}

void cli_train_number(const char *name, int digits, double v)
{
    if (isfinite(v)) printf(", \"%s\": %.*f", name, digits, v);
    else printf(", \"%s\": null", name); /* JSON has no other word for what is no number */
}

static void print_json(enum train_task task, const struct train_scores *s)
{
    printf("{\"samples\": %lld, \"skipped\": %lld", (long long)s->samples, (long long)s->skipped);
    if (task == TRAIN_DETECT) cli_train_number("ap50", 5, s->ap50), cli_train_number("ap", 5, s->ap);
    else if (task == TRAIN_EMBED) cli_train_number("map", 5, s->map), cli_train_number("rank1", 5, s->rank1);
    else if (task == TRAIN_IMAGE) cli_train_number("psnr", 4, s->psnr);
    else if (task == TRAIN_ATTRIBUTES) cli_train_number("accuracy", 5, s->accuracy);
    else if (task == TRAIN_TEXT) cli_train_number("perplexity", 5, s->perplexity), cli_train_number("loss", 6, s->loss);
    else cli_train_number("top1", 5, s->top1), cli_train_number("top5", 5, s->top5), cli_train_number("loss", 6, s->loss);
    printf(", \"seconds\": %.2f}\n", s->seconds);
}

static void print_text(enum train_task task, const struct train_scores *s)
{
    if (task == TRAIN_DETECT) printf("AP50     %.4f\nAP       %.4f\n", s->ap50, s->ap);
    else if (task == TRAIN_EMBED) printf("mAP      %.4f\nrank-1   %.4f\n", s->map, s->rank1);
    else if (task == TRAIN_IMAGE) printf("PSNR     %.3f dB\n", s->psnr);
    else if (task == TRAIN_ATTRIBUTES) printf("right    %.2f %%\n", 100 * s->accuracy);
    else if (task == TRAIN_TEXT) printf("perplexity %.4f\nloss     %.4f\n", s->perplexity, s->loss);
    else printf("top-1    %.2f %%\ntop-5    %.2f %%\nloss     %.4f\n", 100 * s->top1, 100 * s->top5, s->loss);
    printf("%s  %lld\nskipped  %lld\n", task == TRAIN_EMBED ? "asked  " : "samples", (long long)s->samples, (long long)s->skipped);
}

int cli_eval_network(int argc, char **argv)
{
    static const char *const names[] = {"", "classify", "detect", "embed", "image", "attributes", "text"}; /* by enum train_task */
    enum train_task task = TRAIN_CLASSIFY;
    for (size_t i = 1; i < ARRAY_LEN(names); i++)
        if (strcmp(argv[0], names[i]) == 0) task = (enum train_task)i;
    bool detect = task == TRAIN_DETECT, plain = task == TRAIN_IMAGE;
    struct options o = {.task = task, .mean = detect || plain ? "0" : "123.675,116.28,103.53", .std = detect ? "1" : plain ? "255" : "58.395,57.12,57.375",
                        .fit = detect ? "letterbox" : "stretch", .detect = detect, .embed = task == TRAIN_EMBED};
    const struct args_option table[] = {{"model", ARGS_STRING, &o.model, "F.onnx"},
                                        {"data", ARGS_STRING, &o.data, "as for brim train"},
                                        {"gallery", ARGS_STRING, &o.gallery, "embed: who answers; --data asks (default: the other pictures of --data)"},
                                        {"category", ARGS_INT, &o.category, "embed: of videos only objects of this class (all)"},
                                        {"data-every", ARGS_INT, &o.every, "embed, --label: each n-th frame of videos (10)"},
                                        {"label", ARGS_STRING, &o.named, "classify: of videos the class of an object is what objects.json beside its labels says under this key"},
                                        {"query", ARGS_STRING, &o.query, "of a box's events only those of this query"},
                                        {"camera", ARGS_STRING, &o.camera, "... of this camera"},
                                        {"since", ARGS_STRING, &o.since, "... not older than this: 24h, 7d, 2026-11-20"},
                                        {"seen", ARGS_FLOAT, &o.seen, "of videos only what is visible to this share (0: all)"},
                                        {"mean", ARGS_STRING, &o.mean, "of pixels of 0-255 (classify: ImageNet's; detect: 0)"},
                                        {"std", ARGS_STRING, &o.std, "... and what they are divided by (detect: 1)"},
                                        {"bgr", ARGS_FLAG, &o.bgr, "channels in this order (detect: always, but for --rgb)"},
                                        {"rgb", ARGS_FLAG, &o.rgb, "detect: channels in this order"},
                                        {"classes", ARGS_STRING, &o.classes, "NAME=NUMBER,... which class of the data is which of the network's"},
                                        {"held-out", ARGS_FLOAT, &o.held_out, "only the part that brim train holds out with this number and --seed"},
                                        {"seed", ARGS_INT, &o.seed, "of --held-out (0)"},
                                        {"fit", ARGS_STRING, &o.fit, "stretch (default of classify), letterbox (of detect), crop"},
                                        {"batch", ARGS_INT, &o.batch, "(32)"},
                                        {"threads", ARGS_INT, &o.threads, "(all)"},
                                        {"budget", ARGS_SIZE, &o.budget, "bytes for everything"},
                                        {"json", ARGS_FLAG, &o.json, "one object on stdout"},
                                        {NULL, 0, NULL, NULL}};
    struct args_list rest = {0};
    struct train_scores s = {0};
    err e = args_parse(argc, argv, table, &rest, &o.help);
    if (!e && o.help) args_help("eval classify|detect|embed|image|attributes|text --model F.onnx --data DATA [options]", table);
    if (!e && !o.help) {
        e = check(&o);
        struct mem_budget *b = mem_budget_new("host", o.budget ? o.budget : mem_budget_auto());
        if (!e) e = work(&o, b, &s);
        mem_budget_free(&b);
    }
    free(rest.items);
    if (e) return args_fail("eval", e);
    if (o.help) return 0;
    if (o.json) print_json(task, &s);
    else print_text(task, &s);
    return 0;
}

/* A file of somebody else's: as it is, but for inference. */
static err export_file(const char *path, const char *output)
{
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(b, "export");
    struct graph *g = NULL;
    err e = graph_load(path, payer, &g);
    if (!e) e = graph_inference_form(g);
    if (!e) e = graph_save(g, output);
    graph_free(&g);
    mem_payer_free(&payer);
    mem_budget_free(&b);
    return e;
}

int cli_export(int argc, char **argv)
{
    const char *output = NULL;
    bool help = false, raw = false;
    struct args_list rest = {0};
    const struct args_option table[] = {{"output", ARGS_STRING, &output, "the file to write (also -o)"},
                                        {"last-weights", ARGS_FLAG, &raw, "not the running mean, where the job kept one (--ema)"},
                                        {NULL, 0, NULL, NULL}};
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "-o")) argv[i] = (char *)(uintptr_t)"--output";
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && help) args_help("export DIR/last.brim|F.onnx -o F.onnx", table);
    else if (!e && (rest.n != 1 || !output)) e = err_set(ERR_USAGE, "expected one checkpoint, or an ONNX file that was exported while training, and -o F.onnx");
    else if (!e && str_ends(rest.items[0], ".onnx")) e = export_file(rest.items[0], output);
    else if (!e) e = train_export(rest.items[0], output, !raw);
    if (!e && !help) printf("%s\n", output);
    free(rest.items);
    return e ? args_fail("export", e) : 0;
}

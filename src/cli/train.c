/* `brim train`: options into a job, its progress onto a terminal or as JSON lines. With --resume the options are those of the checkpoint.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/train.h"

#include "base/yaml.h"
#include "cli/args.h"
#include "train/job.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_bool stop; /* the one thing a signal can reach */

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stop, true);
}

struct options {
    struct train_job_options job;
    const char *task, *optimizer, *schedule, *fit, *mean, *scale, *priority, *augment, *classes;
    char **names;
    size_t n_names;
    int64_t epochs, batch, threads, data_threads, accumulate, seed, size, freeze_but, patience, every, save_seconds, max_steps;
    double momentum, decay, clip, ema;
    bool nesterov, json, help, rgb;
    struct args_list freeze;
};

static struct options defaults(void)
{
    return (struct options){.task = "classify", .schedule = "cosine", .priority = "idle", .augment = "",
                            .epochs = 30, .batch = 64, .accumulate = 1, .data_threads = 1,
                            .momentum = 0.9, .decay = 5e-4, .job = {.held_out = 0.1, .gamma = 0.1}};
}

/* ---- words into numbers */

static err three(const char *name, const char *text, float *to)
{
    char *end;
    double v[3];
    const char *at = text;
    int n = 0;
    for (; n < 3; n++) {
        v[n] = strtod(at, &end);
        if (end == at) break;
        at = end + (*end == ',');
        if (*end != ',') {
            n++;
            break;
        }
    }
    if (*end || (n != 1 && n != 3)) return err_set(ERR_USAGE, "--%s: one number or three with commas, not '%s'", name, text);
    for (int i = 0; i < 3; i++) to[i] = (float)v[n == 1 ? 0 : i];
    return ERR_OK;
}

static err word(const char *name, const char *text, const char *const *words, int *ret)
{
    for (int i = 0; words[i]; i++)
        if (!strcmp(words[i], text)) {
            *ret = i;
            return ERR_OK;
        }
    const char *near = yaml_nearest(text, words);
    struct strbuf all = {0};
    for (int i = 0; words[i]; i++) strbuf_addf(&all, "%s%s", i ? ", " : "", words[i]);
    err e = err_set(ERR_USAGE, "--%s: '%s' is none of %s%s%s%s", name, text, all.s, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    strbuf_done(&all);
    return e;
}

/* "flip=0.5,shift=4,mixup=0.2" */
static err augment(const char *text, struct train_augment *a)
{
    const struct { const char *name; float *to; } table[] = {
        {"flip", &a->flip}, {"crop", &a->crop}, {"brightness", &a->brightness}, {"contrast", &a->contrast}, {"saturation", &a->saturation},
        {"hue", &a->hue}, {"mosaic", &a->mosaic}, {"mixup", &a->mixup}, {"zoom-least", &a->scale[0]}, {"zoom-most", &a->scale[1]}};
    char *copy = xstrdup(text), *save = NULL;
    err e = ERR_OK;
    for (char *part = strtok_r(copy, ",", &save); part && !e; part = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(part, '='), *end = NULL;
        double v = equals ? strtod(equals + 1, &end) : 0;
        bool found = false;
        if (equals) *equals = 0;
        for (size_t i = 0; i < ARRAY_LEN(table); i++)
            if (!strcmp(part, table[i].name)) *table[i].to = (float)v, found = true;
        if (!strcmp(part, "shift")) a->shift = (int)v, found = true;
        if (!found || !equals || end == equals + 1 || *end || !(v >= 0 && v < 1000))
            e = err_set(ERR_USAGE, "--augment: '%s' is none of flip, crop, shift, brightness, contrast, saturation, hue, mosaic, mixup, zoom-least, zoom-most, "
                                   "each with =NUMBER", part);
    }
    free(copy);
    return e;
}

static err fill_feed(const char *mean, const char *scale, const char *fit, struct train_feed *ret)
{
    float over[3];
    int which = 0;
    err e = three("mean", mean, ret->mean);
    if (!e) e = three("std", scale, over);
    if (!e) e = word("fit", fit, (const char *const[]){"stretch", "letterbox", "crop", NULL}, &which);
    for (int i = 0; i < 3 && !e; i++) {
        if (!(over[i] > 0)) return err_set(ERR_USAGE, "--std: numbers above 0");
        ret->scale[i] = 1 / over[i];
    }
    ret->fit = (enum train_fit)which;
    return e;
}

static err digest(struct options *o)
{
    struct train_job_options *j = &o->job;
    int task = 0, rule = 0, schedule = 0, priority = 0;
    err e = word("task", o->task, (const char *const[]){"classify", "detect", "embed", NULL}, &task);
    if (!o->optimizer) o->optimizer = task == 1 ? "adamw" : "sgd"; /* exported detectors have their batch norms folded in: SGD ruins them */
    if (!e) e = word("optimizer", o->optimizer, (const char *const[]){"sgd", "adamw", "lamb", NULL}, &rule);
    if (!e) e = word("schedule", o->schedule, (const char *const[]){"constant", "cosine", "step", NULL}, &schedule);
    if (!e) e = word("priority", o->priority, (const char *const[]){"idle", "normal", NULL}, &priority);
    if (!e) e = fill_feed(o->mean ? o->mean : task == 1 ? "0" : "123.675,116.28,103.53", o->scale ? o->scale : task == 1 ? "1" : "58.395,57.12,57.375",
                          o->fit ? o->fit : task == 1 ? "letterbox" : "stretch", &j->feed);
    if (task == 1) j->feed.bgr = !o->rgb;
    if (!e && o->classes) e = cli_train_classes(o->classes, &o->names, &o->n_names);
    j->classes = (const char *const *)o->names;
    j->n_classes = (int)o->n_names;
    if (!e) e = augment(o->augment, &j->augment);
    if (e) return e;
    if (o->threads < 0 || o->threads > 1024 || o->data_threads < 0 || o->data_threads > 64) return err_set(ERR_USAGE, "--threads and --data-threads: out of range");
    if (o->seed < 0) return err_set(ERR_USAGE, "--seed: 0 or more");
    j->task = (enum train_task)(task + 1);
    if (j->lr == 0) j->lr = rule == 0 ? 0.05 : task == 1 ? 0.0001 : 0.001;
    j->optimiser = (struct train_optimiser_options){.rule = (enum train_rule)(rule + 1), .momentum = rule ? 0 : (float)o->momentum, .nesterov = !rule && o->nesterov,
                                                    .weight_decay = (float)o->decay, .clip = (float)o->clip, .ema = (float)o->ema};
    j->schedule = (enum train_schedule_kind)(schedule + 1);
    j->idle = priority == 0;
    j->epochs = (int)MIN(o->epochs, INT32_MAX);
    j->batch = (int)MIN(o->batch, INT32_MAX);
    j->threads = o->threads ? (int)o->threads : (int)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1);
    j->data_threads = (int)o->data_threads;
    j->accumulate = (int)MIN(o->accumulate, INT32_MAX);
    j->seed = (uint64_t)o->seed;
    j->size = (int)MIN(o->size, 8192);
    j->freeze_but = (int)MIN(o->freeze_but, INT32_MAX);
    j->freeze = o->freeze.items;
    j->n_freeze = (int)o->freeze.n;
    j->patience = (int)MIN(o->patience, INT32_MAX);
    j->every = (int)MIN(o->every, INT32_MAX);
    j->save_ms = o->save_seconds * 1000;
    j->max_steps = o->max_steps;
    return ERR_OK;
}

static const char usage[] = "train --model F.onnx|ARCH --data DATA --out DIR [options]\n       brim train --resume --out DIR";

static err parse(int argc, char **argv, struct options *o, struct args_list *rest)
{
    struct train_job_options *j = &o->job;
    const struct args_option table[] = {
        {"model", ARGS_STRING, &j->model, "F.onnx, or a network by name (brim new --list)"},
        {"data", ARGS_STRING, &j->data, "folder of classes, CIFAR .bin, IDX, COCO .json, YOLO folder"},
        {"val", ARGS_STRING, &j->val, "DATA to score on after each epoch (default: a part of --data)"},
        {"held-out", ARGS_FLOAT, &j->held_out, "that part (0.1; 0: none)"},
        {"out", ARGS_STRING, &j->out, "DIR: checkpoints, ONNX, curves"},
        {"resume", ARGS_FLAG, &j->resume, "go on with the job in --out, with its own options"},
        {"task", ARGS_STRING, &o->task, "classify (default), detect (YOLOX heads)"},
        {"classes", ARGS_STRING, &o->classes, "detect: NAME=NUMBER,... which class of the data is which of the network's"},
        {"epochs", ARGS_INT, &o->epochs, "(30)"},
        {"batch", ARGS_INT, &o->batch, "(64)"},
        {"accumulate", ARGS_INT, &o->accumulate, "batches per update (1)"},
        {"lr", ARGS_FLOAT, &j->lr, "learning rate (sgd: 0.05; others: 0.001, detect: 0.0001)"},
        {"lr-last", ARGS_FLOAT, &j->lr_last, "cosine: ends at --lr times this (0)"},
        {"optimizer", ARGS_STRING, &o->optimizer, "sgd (default of classify), adamw (of detect), lamb"},
        {"momentum", ARGS_FLOAT, &o->momentum, "sgd (0.9)"},
        {"nesterov", ARGS_FLAG, &o->nesterov, "sgd"},
        {"weight-decay", ARGS_FLOAT, &o->decay, "not of biases and norms (0.0005)"},
        {"clip", ARGS_FLOAT, &o->clip, "largest norm of the gradient (0: none)"},
        {"ema", ARGS_FLOAT, &o->ema, "decay of a running mean of the weights, which is then what is scored and written (0: none)"},
        {"schedule", ARGS_STRING, &o->schedule, "cosine (default), step, constant"},
        {"warmup", ARGS_FLOAT, &j->warmup, "epochs (0)"},
        {"every", ARGS_INT, &o->every, "step: epochs between drops (default: at 50 % and 75 %)"},
        {"gamma", ARGS_FLOAT, &j->gamma, "step: what the rate is multiplied by (0.1)"},
        {"smoothing", ARGS_FLOAT, &j->classify.smoothing, "of labels (0)"},
        {"focal", ARGS_FLOAT, &j->classify.focal, "gamma of the focal loss (0: cross entropy)"},
        {"augment", ARGS_STRING, &o->augment, "flip=0.5,shift=4,crop=1,mixup=0.2,..."},
        {"mean", ARGS_STRING, &o->mean, "of pixels of 0-255 (ImageNet's; detect: 0)"},
        {"std", ARGS_STRING, &o->scale, "... and what they are divided by (detect: 1)"},
        {"bgr", ARGS_FLAG, &j->feed.bgr, "channels in this order (detect: always, but for --rgb)"},
        {"rgb", ARGS_FLAG, &o->rgb, "detect: channels in this order"},
        {"fit", ARGS_STRING, &o->fit, "stretch (default), letterbox (default of detect), crop"},
        {"size", ARGS_INT, &o->size, "sides of the input of a network by name"},
        {"freeze", ARGS_STRINGS, &o->freeze, "PREFIX of tensors that stay as they are; may come again"},
        {"freeze-but", ARGS_INT, &o->freeze_but, "N: train the last N tensors only"},
        {"freeze-statistics", ARGS_FLAG, &j->frozen_statistics, "batch norms keep their running statistics"},
        {"patience", ARGS_INT, &o->patience, "end after N epochs without a better score (0: never)"},
        {"seed", ARGS_INT, &o->seed, "(0)"},
        {"threads", ARGS_INT, &o->threads, "(all; a job keeps its number, the bits depend on it)"},
        {"data-threads", ARGS_INT, &o->data_threads, "that read and augment pictures (1)"},
        {"budget", ARGS_SIZE, &j->budget, "bytes for everything (default: what the machine has)"},
        {"priority", ARGS_STRING, &o->priority, "idle (default: runs where nobody else wants to), normal"},
        {"save-every", ARGS_INT, &o->save_seconds, "seconds between checkpoints inside an epoch (300)"},
        {"max-steps", ARGS_INT, &o->max_steps, "stop after so many updates, as Ctrl-C would"},
        {"json", ARGS_FLAG, &o->json, "a line of JSON per epoch on stdout, and one at the end"},
        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, rest, &o->help);
    if (o->help) args_help(usage, table);
    return e;
}

/* ---- what is shown */

struct shown {
    bool json, terminal, detect;
    int64_t last_ns;
};

static void bar(const struct train_progress *p)
{
    enum { CELLS = 24 };
    int full = (int)(CELLS * p->step / MAX(p->steps, 1)), eta = (int)p->eta_s;
    char cells[CELLS + 1];
    for (int i = 0; i < CELLS; i++) cells[i] = i < full ? '#' : '.';
    cells[CELLS] = 0;
    fprintf(stderr, "\repoch %d/%d [%s] loss %.4f  %.0f/s  ETA %d:%02d:%02d\033[K", p->epoch, p->epochs, cells, p->loss, p->images_per_s, eta / 3600, eta / 60 % 60, eta % 60);
    fflush(stderr);
}

static void show(void *user, const struct train_progress *p)
{
    struct shown *s = user;
    if (!p->epoch_done) {
        int64_t now = clock_ns();
        if (s->terminal && now - s->last_ns > 200000000) {
            bar(p);
            s->last_ns = now;
        }
        return;
    }
    if (s->terminal) fprintf(stderr, "\r\033[K");
    if (s->json) {
        printf("{\"epoch\": %d, \"loss\": %.6f, \"lr\": %.6g", p->epoch, p->loss, p->lr);
        if (p->scored && s->detect) printf(", \"ap50\": %.5f, \"ap\": %.5f, \"skipped\": %lld", p->scores.ap50, p->scores.ap, (long long)p->scores.skipped);
        else if (p->scored) printf(", \"val_loss\": %.6f, \"top1\": %.5f, \"top5\": %.5f, \"skipped\": %lld", p->scores.loss, p->scores.top1, p->scores.top5, (long long)p->scores.skipped);
        printf(", \"images_per_s\": %.1f, \"best\": %s}\n", p->images_per_s, p->best ? "true" : "false");
    } else {
        printf("epoch %d/%d  loss %.4f  lr %.4g", p->epoch, p->epochs, p->loss, p->lr);
        if (p->scored && s->detect) printf("  held out: AP50 %.3f, AP %.3f", p->scores.ap50, p->scores.ap);
        else if (p->scored) printf("  held out: loss %.4f, top-1 %.2f %%", p->scores.loss, 100 * p->scores.top1);
        printf("  %.0f pictures/s%s\n", p->images_per_s, p->best ? "  best" : "");
    }
    fflush(stdout);
}

static void finish(const struct options *o, const struct train_result *r, bool cancelled)
{
    char a[16];
    if (o->json)
        printf("{\"done\": %s, \"epochs\": %d, \"updates\": %lld, \"best_epoch\": %d, \"best\": %.5f, \"parameters\": %lld, \"peak_bytes\": %llu, \"seconds\": %.1f}\n",
               cancelled ? "false" : "true", r->epochs, (long long)r->updates, r->best_epoch, r->best_top1, (long long)r->sizes.parameters,
               (unsigned long long)r->peak, r->seconds);
    else if (!cancelled)
        printf("%s: %d epochs, %lld updates in %.0f s%s; best epoch %d; at most %s; %s/best.onnx, %s/last.onnx\n", o->job.out, r->epochs, (long long)r->updates,
               r->seconds, r->stopped_early ? " (ended early)" : "", r->best_epoch, size_text(r->peak, a), o->job.out, o->job.out);
}

/* ---- */

static err run(struct options *o)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    struct shown shown = {.json = o->json, .terminal = isatty(2), .detect = o->job.task == TRAIN_DETECT};
    struct train_result r = {0};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    o->job.stop = &stop;
    err e = train_job(&o->job, show, &shown, &r);
    if (shown.terminal) fprintf(stderr, "\r\033[K");
    if (!e || e == ERR_CANCELLED) finish(o, &r, e != ERR_OK);
    return e;
}

/* The arguments of the checkpoint, then --resume and what may be said anew. */
static err resumed(struct options *o, struct args_list *rest, char ***ret_arguments)
{
    struct options old = defaults();
    int n;
    bool json = o->json;
    const char *out = o->job.out;
    char **arguments;
    err e = train_job_arguments(out, &arguments, &n);
    if (e) return e;
    char **argv = xnewn(char *, n + 2);
    argv[0] = (char *)(uintptr_t)"train";
    for (int i = 0; i < n; i++) argv[i + 1] = arguments[i];
    free(rest->items);
    *rest = (struct args_list){0};
    e = parse(n + 1, argv, &old, rest);
    old.job.out = out;
    old.job.resume = true;
    old.json = json;
    old.max_steps = o->max_steps;
    old.job.arguments = (const char *const *)arguments;
    old.job.n_arguments = n;
    free(argv);
    *o = old;
    *ret_arguments = arguments;
    return e;
}

int cli_train(int argc, char **argv)
{
    struct options o = defaults();
    struct args_list rest = {0};
    char **kept = NULL, **old = NULL, threads[32];
    err e = parse(argc, argv, &o, &rest);
    if (!e && o.help) {
        free(rest.items);
        free(o.freeze.items);
        return 0;
    }
    if (!e && rest.n) e = err_set(ERR_USAGE, "'%s': what is it? Options begin with --", rest.items[0]);
    if (!e && !o.job.out) e = err_set(ERR_USAGE, "--out DIR is needed");
    if (!e && o.job.resume) {
        e = resumed(&o, &rest, &old);
    } else if (!e) {
        if (!o.job.model || !o.job.data) e = err_set(ERR_USAGE, "--model and --data are needed");
        kept = xnewn(char *, argc + 2);
        for (int i = 1; i < argc; i++) kept[i - 1] = argv[i];
        snprintf(threads, sizeof threads, "--threads=%ld", o.threads ? (long)o.threads : MAX(sysconf(_SC_NPROCESSORS_ONLN), 1L));
        kept[argc - 1] = threads;
        o.job.arguments = (const char *const *)kept;
        o.job.n_arguments = argc;
    }
    if (!e) e = digest(&o);
    if (!e) e = run(&o);
    free(rest.items);
    free(o.freeze.items);
    free(kept);
    for (int i = 0; old && i < o.job.n_arguments; i++) free(old[i]);
    free(old);
    for (size_t i = 0; i < o.n_names; i++) free(o.names[i]);
    free(o.names);
    return e ? args_fail("train", e) : 0;
}

/* `brim train`: options into a job, its progress onto a terminal or as JSON lines. With --resume the options are those of the checkpoint.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/train.h"

#include "base/yaml.h"
#include "cli/args.h"
#include "cli/on_box.h"
#include "cli/precision.h"
#include "train/job.h"

#include <errno.h>
#include <math.h>
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
    const char *task, *optimizer, *rate, *schedule, *fit, *mean, *scale, *priority, *augment, *classes, *teacher_classes, *since;
    char **names, **teacher_names;
    size_t n_names, n_teacher_names;
    int64_t per_class, width, category, data_every;
    const char *precision;
    int64_t epochs, batch, threads, data_threads, accumulate, seed, size, freeze_but, patience, every, save_seconds, max_steps;
    double momentum, decay, clip, ema, dropout;
    bool nesterov, json, text, help, rgb;
    struct args_list freeze;
};

#define NOT_SAID ((double)NAN) /* no number on the command line is that */

static struct options defaults(void)
{
    return (struct options){.schedule = "cosine", .priority = "idle", .augment = "",
                            .epochs = 30, .batch = INT64_MIN, .accumulate = 1, .data_threads = 1,
                            .momentum = 0.9, .decay = 5e-4, .ema = NOT_SAID, .dropout = NOT_SAID,
                            .job = {.lr = NOT_SAID, .held_out = NOT_SAID, .warmup = NOT_SAID, .gamma = 0.1, .embed = {.margin = 0.3, .triplet = 1}, .classify = {.distill = NOT_SAID, .temperature = 4}}};
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

static void trade(void *user, int level, const struct graph_recompute_cost *cost, uint64_t need)
{
    char a[16];
    (void)user;
    if (level == 0) printf("needs       computed again\n");
    printf("%-11s %d operators, %.1f %% more time (level %d of %d)\n", size_text(need, a), cost->nodes, 100 * cost->share, level, cost->levels);
}

static err digest(struct options *o)
{
    struct train_job_options *j = &o->job;
    int task = 0, rule = 0, rate = 0, schedule = 0, priority = 0;
    err e = word("task", o->task ? o->task : "classify", (const char *const[]){"classify", "detect", "embed", "image", "attributes", "text", NULL}, &task);
    if (isnan(j->held_out)) j->held_out = task == 2 ? 0.25 : 0.1;
    if (!o->optimizer) o->optimizer = task ? "adamw" : "sgd";
    if (!e) e = word("optimizer", o->optimizer, (const char *const[]){"sgd", "adamw", "lamb", NULL}, &rule);
    if (!e) e = word("schedule", o->schedule, (const char *const[]){"constant", "cosine", "step", NULL}, &schedule);
    if (!e) e = word("priority", o->priority, (const char *const[]){"idle", "normal", NULL}, &priority);
    if (!e) e = fill_feed(o->mean ? o->mean : task == 1 || task == 3 ? "0" : "123.675,116.28,103.53", o->scale ? o->scale : task == 1 ? "1" : task == 3 ? "255" : "58.395,57.12,57.375",
                          o->fit ? o->fit : task == 1 ? "letterbox" : "stretch", &j->feed);
    if (task == 1) j->feed.bgr = !o->rgb;
    if (!e && o->classes) e = cli_train_classes(o->classes, &o->names, &o->n_names);
    j->classes = (const char *const *)o->names;
    j->n_classes = (int)o->n_names;
    if (!e && o->teacher_classes) e = cli_train_classes(o->teacher_classes, &o->teacher_names, &o->n_teacher_names);
    j->teacher_classes = (const char *const *)o->teacher_names;
    j->n_teacher_classes = (int)o->n_teacher_names;
    if (!e && !j->teacher && (o->teacher_classes || j->classify.distill > 0)) e = err_set(ERR_USAGE, "--distill and --teacher-classes need a --teacher");
    if (isnan(j->classify.distill)) j->classify.distill = j->teacher ? 0.5 : 0;
    if (!e) e = augment(o->augment, &j->augment);
    if (!e && o->since) e = cli_train_since(o->since, &j->rows.since);
    if (e) return e;
    if (o->threads < 0 || o->threads > 1024 || o->data_threads < 0 || o->data_threads > 64) return err_set(ERR_USAGE, "--threads and --data-threads: out of range");
    if (o->seed < 0) return err_set(ERR_USAGE, "--seed: 0 or more");
    if (o->max_steps < 0 || o->patience < 0 || o->freeze_but < 0 || o->every < 0 || o->save_seconds < 0 || o->save_seconds > 1000000)
        return err_set(ERR_USAGE, "--max-steps, --patience, --freeze-but, --every and --save-every are 0 or more");
    if (o->accumulate < 1 || o->size < 0 || o->size > 8192) return err_set(ERR_USAGE, "--accumulate is 1 or more, --size goes to 8192");
    if (o->per_class < 0 || o->width < 0 || o->category < 0 || o->data_every < 0) return err_set(ERR_USAGE, "--per-identity, --width, --category and --data-every are 1 or more");
    if (!(j->embed.margin > 0)) return err_set(ERR_USAGE, "--margin is above 0");
    j->task = (enum train_task)(task + 1);
    /* exported detectors have their batch norms folded in: plain steps ruin them (train/optimise.h) */
    if (!e) e = word("rate", o->rate ? o->rate : task == 1 && rule != 2 ? "relative" : "plain", (const char *const[]){"plain", "relative", NULL}, &rate);
    if (e) return e;
    if (o->batch == INT64_MIN) o->batch = task == 1 ? 8 : 64;
    if (isnan(o->ema)) o->ema = task == 1 ? 0.98 : 0;
    if (!isnan(o->dropout) && !(o->dropout >= 0 && o->dropout < 1)) return err_set(ERR_USAGE, "--dropout goes from 0 to below 1");
    j->dropout = isnan(o->dropout) ? 0 : o->dropout > 0 ? o->dropout : -1;
    if (isnan(j->warmup)) j->warmup = task == 1 ? (double)MIN(o->epochs, 1) : 0;
    if (isnan(j->lr)) j->lr = task == 1 ? (rule == 0 ? 0.0002 : 0.0001) : rule == 0 ? 0.05 : 0.001;
    j->optimiser = (struct train_optimiser_options){.rule = (enum train_rule)(rule + 1), .momentum = rule ? 0 : (float)o->momentum, .nesterov = !rule && o->nesterov,
                                                    .weight_decay = (float)o->decay, .clip = (float)o->clip, .relative = rate == 1, .ema = (float)o->ema};
    j->schedule = (enum train_schedule_kind)(schedule + 1);
    j->idle = priority == 0;
    j->epochs = (int)MIN(o->epochs, INT32_MAX);
    j->batch = (int)MIN(o->batch, INT32_MAX);
    j->threads = o->threads ? (int)o->threads : (int)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1);
    j->data_threads = (int)o->data_threads;
    j->accumulate = (int)MIN(o->accumulate, INT32_MAX);
    j->seed = (uint64_t)o->seed;
    j->size = (int)o->size;
    j->embed.per_class = (int)MIN(o->per_class, INT32_MAX);
    j->embed.width = (int)MIN(o->width, INT32_MAX);
    j->embed.category = (int)MIN(o->category, INT32_MAX);
    j->embed.every = (int)MIN(o->data_every, INT32_MAX);
    j->freeze_but = (int)MIN(o->freeze_but, INT32_MAX);
    j->freeze = o->freeze.items;
    j->n_freeze = (int)o->freeze.n;
    j->patience = (int)MIN(o->patience, INT32_MAX);
    j->every = (int)MIN(o->every, INT32_MAX);
    j->save_ms = o->save_seconds * 1000;
    j->max_steps = o->max_steps;
    if ((e = cli_precision("train", o->precision, &j->precision))) return e;
    if (j->dry_run) j->trade = trade;
    return ERR_OK;
}

static const char usage[] = "train [classify|detect|embed|image|attributes|text] --model F.onnx|ARCH --data DATA --out DIR [options]\n       brim train --resume --out DIR\n"
                            "       brim train ... --on-box [--name JOB] [--publish MODEL] [--store DIR]   in the running box, beside its cameras (brim job)";

static err parse(int argc, char **argv, struct options *o, struct args_list *rest)
{
    struct train_job_options *j = &o->job;
    const struct args_option table[] = {
        {"model", ARGS_STRING, &j->model, "F.onnx, or a network by name (brim new --list)"},
        {"data", ARGS_STRING, &j->data, "folder of classes, CIFAR .bin, IDX, COCO .json, YOLO folder; embed: folder of identities, or videos with MOT labels; image: "
                                           "folder with input/ and target/; attributes: with attributes.csv; text: .txt, .u16, .u32; classify, detect, attributes: a box's store, its own events"},
        {"val", ARGS_STRING, &j->val, "DATA to score on after each epoch (default: a part of --data)"},
        {"held-out", ARGS_FLOAT, &j->held_out, "that part (0.1, embed: 0.25 of the identities; of a video its end; 0: none)"},
        {"out", ARGS_STRING, &j->out, "DIR: checkpoints, ONNX, curves"},
        {"resume", ARGS_FLAG, &j->resume, "go on with the job in --out, with its own options"},
        {"task", ARGS_STRING, &o->task, "classify (default), detect (YOLOX or CenterNet heads), embed (who is it again), image (into another), attributes (yes or no), text; also as the "
                                           "first word"},
        {"l1", ARGS_FLOAT, &j->image.l1, "image: weight of the mean difference (1, if no other is given)"},
        {"mse", ARGS_FLOAT, &j->image.mse, "image: ... of its square (0)"},
        {"ssim", ARGS_FLOAT, &j->image.ssim, "image: ... of 1 - SSIM (0)"},
        {"adversary", ARGS_FLOAT, &j->image.adversary, "image: ... of a second network that learns to tell answers from true pictures (0)"},
        {"per-identity", ARGS_INT, &o->per_class, "embed: pictures of one identity in a batch (4)"},
        {"margin", ARGS_FLOAT, &j->embed.margin, "embed: of the triplet loss (0.3)"},
        {"triplet", ARGS_FLOAT, &j->embed.triplet, "embed: its weight beside the cross entropy of identities (1)"},
        {"width", ARGS_INT, &o->width, "embed: numbers of the embedding, for a network by name (its own)"},
        {"category", ARGS_INT, &o->category, "embed: of videos only objects of this class, the 8th column of MOT rows (all)"},
        {"data-every", ARGS_INT, &o->data_every, "each n-th frame of videos (embed, --label: 10; else all)"},
        {"label", ARGS_STRING, &j->embed.named, "classify: of videos the class of an object is what objects.json beside its labels says under this key (colour); of a box's "
                                                      "events label (default), attributes, zone, event, query or camera"},
        {"query", ARGS_STRING, &j->rows.query, "of a box's events only those of this query"},
        {"camera", ARGS_STRING, &j->rows.camera, "... of this camera"},
        {"since", ARGS_STRING, &o->since, "... not older than this: 24h, 7d, 2026-11-20 (a job that is resumed counts from then)"},
        {"seen", ARGS_FLOAT, &j->embed.seen, "of videos only what is visible to this share, the 9th column of MOT rows (0: all)"},
        {"classes", ARGS_STRING, &o->classes, "detect: NAME=NUMBER,... which class of the data is which of the network's; attributes of events: NAME,... those alone"},
        {"epochs", ARGS_INT, &o->epochs, "(30)"},
        {"batch", ARGS_INT, &o->batch, "(64, detect: 8)"},
        {"accumulate", ARGS_INT, &o->accumulate, "batches per update (1)"},
        {"lr", ARGS_FLOAT, &j->lr, "learning rate (sgd: 0.05; others: 0.001; detect: 0.0001, sgd 0.0002)"},
        {"lr-last", ARGS_FLOAT, &j->lr_last, "cosine: ends at --lr times this (0)"},
        {"optimizer", ARGS_STRING, &o->optimizer, "sgd (default of classify), adamw (of others), lamb"},
        {"rate", ARGS_STRING, &o->rate, "relative (default of detect): the learning rate is in units of each output channel's weights, plain"},
        {"momentum", ARGS_FLOAT, &o->momentum, "sgd (0.9)"},
        {"nesterov", ARGS_FLAG, &o->nesterov, "sgd"},
        {"weight-decay", ARGS_FLOAT, &o->decay, "not of biases and norms (0.0005)"},
        {"clip", ARGS_FLOAT, &o->clip, "largest norm of the gradient (0: none)"},
        {"ema", ARGS_FLOAT, &o->ema, "decay of a running mean of the weights, which is then what is scored and written (0: none; detect: 0.98)"},
        {"schedule", ARGS_STRING, &o->schedule, "cosine (default), step, constant"},
        {"warmup", ARGS_FLOAT, &j->warmup, "epochs (0, detect: 1)"},
        {"every", ARGS_INT, &o->every, "step: epochs between drops (default: at 50 % and 75 %)"},
        {"gamma", ARGS_FLOAT, &j->gamma, "step: what the rate is multiplied by (0.1)"},
        {"smoothing", ARGS_FLOAT, &j->classify.smoothing, "of labels (0)"},
        {"dropout", ARGS_FLOAT, &o->dropout, "the ratio of every Dropout of the network while training (its own; 0: nothing is dropped)"},
        {"focal", ARGS_FLOAT, &j->classify.focal, "gamma of the focal loss (0: cross entropy)"},
        {"teacher", ARGS_STRING, &j->teacher, "F.onnx: its answers are learnt, too; pictures without labels (a folder, a video) get theirs from it"},
        {"distill", ARGS_FLOAT, &j->classify.distill, "classify: weight of the teacher's answers beside the labels, 0 to 1 (0.5)"},
        {"temperature", ARGS_FLOAT, &j->classify.temperature, "classify: of the teacher's answers (4)"},
        {"teacher-classes", ARGS_STRING, &o->teacher_classes, "NAME=NUMBER,... which of the teacher's classes become labels, and their names (all)"},
        {"teacher-score", ARGS_FLOAT, &j->teacher_score, "detect: boxes that the teacher is so sure of become labels (0.4)"},
        {"augment", ARGS_STRING, &o->augment, "flip=0.5,shift=4,...: crop, brightness, contrast, saturation, hue, mosaic, mixup, zoom-least, zoom-most, too (none)"},
        {"mean", ARGS_STRING, &o->mean, "of pixels of 0-255 (ImageNet's; detect: 0)"},
        {"std", ARGS_STRING, &o->scale, "... and what they are divided by (detect: 1)"},
        {"bgr", ARGS_FLAG, &j->feed.bgr, "channels in this order (detect: always, but for --rgb)"},
        {"rgb", ARGS_FLAG, &o->rgb, "detect: channels in this order"},
        {"fit", ARGS_STRING, &o->fit, "stretch (default), letterbox (default of detect), crop"},
        {"size", ARGS_INT, &o->size, "sides of the input of a network by name"},
        {"freeze", ARGS_STRINGS, &o->freeze, "PREFIX of tensors that stay as they are; may come again"},
        {"freeze-but", ARGS_INT, &o->freeze_but, "N: train the last N tensors only"},
        {"freeze-statistics", ARGS_FLAG, &j->frozen_statistics, "batch norms keep their running statistics"},
        {"score-first", ARGS_FLAG, &j->score_first, "score the network as it is, too: epoch 0"},
        {"patience", ARGS_INT, &o->patience, "end after N epochs without a better score (0: never)"},
        {"seed", ARGS_INT, &o->seed, "(0)"},
        {"threads", ARGS_INT, &o->threads, "(all; a job keeps its number, the bits depend on it)"},
        {"data-threads", ARGS_INT, &o->data_threads, "that read and augment pictures (1)"},
        {"budget", ARGS_SIZE, &j->budget, "bytes for everything (default: what the machine has)"},
        {"priority", ARGS_STRING, &o->priority, "idle (default: runs where nobody else wants to), normal"},
        {"save-every", ARGS_INT, &o->save_seconds, "seconds between checkpoints inside an epoch (300)"},
        {"max-steps", ARGS_INT, &o->max_steps, "stop after so many updates, as Ctrl-C would"},
        {"precision", ARGS_STRING, &o->precision, "f32 (default), bf16 (products, and images between operators; weights and sums stay f32), auto"},
        {"dry-run", ARGS_FLAG, &j->dry_run, "say what the job needs, and what less memory costs; OUT gets the network alone"},
        {"json", ARGS_FLAG, &o->json, "a line of JSON per epoch on stdout, and one at the end (the default where stdout is no terminal)"},
        {"text", ARGS_FLAG, &o->text, "lines for people, wherever stdout goes"},
        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, rest, &o->help);
    if (o->help) args_help(usage, table);
    return e;
}

/* ---- what is shown */

struct shown {
    bool json, terminal;
    enum train_task task;
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

static void scores_json(enum train_task task, const struct train_scores *s)
{
    if (task == TRAIN_DETECT) cli_train_number("ap50", 5, s->ap50), cli_train_number("ap", 5, s->ap);
    else if (task == TRAIN_IMAGE) cli_train_number("psnr", 4, s->psnr);
    else if (task == TRAIN_ATTRIBUTES) cli_train_number("accuracy", 5, s->accuracy);
    else if (task == TRAIN_TEXT) cli_train_number("val_loss", 6, s->loss), cli_train_number("perplexity", 5, s->perplexity);
    else if (task == TRAIN_EMBED) cli_train_number("map", 5, s->map), cli_train_number("rank1", 5, s->rank1);
    else cli_train_number("val_loss", 6, s->loss), cli_train_number("top1", 5, s->top1), cli_train_number("top5", 5, s->top5);
    printf(", \"skipped\": %lld", (long long)s->skipped);
}

static void scores_text(enum train_task task, const struct train_scores *s)
{
    if (task == TRAIN_DETECT) printf("  held out: AP50 %.3f, AP %.3f", s->ap50, s->ap);
    else if (task == TRAIN_IMAGE) printf("  held out: PSNR %.2f dB", s->psnr);
    else if (task == TRAIN_ATTRIBUTES) printf("  held out: %.2f %% right", 100 * s->accuracy);
    else if (task == TRAIN_TEXT) printf("  held out: perplexity %.3f", s->perplexity);
    else if (task == TRAIN_EMBED) printf("  held out: mAP %.3f, rank-1 %.3f", s->map, s->rank1);
    else printf("  held out: loss %.4f, top-1 %.2f %%", s->loss, 100 * s->top1);
}

static void say(void *user, const char *sentence)
{
    (void)user;
    fprintf(stderr, "brim train: %s\n", sentence);
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
        printf("{\"epoch\": %d", p->epoch);
        if (p->epoch) printf(", \"loss\": %.6f, \"lr\": %.6g", p->loss, p->lr);
        if (p->scored) scores_json(s->task, &p->scores);
        if (p->epoch) printf(", \"images_per_s\": %.1f, \"best\": %s", p->images_per_s, p->best ? "true" : "false");
        printf("}\n");
    } else {
        if (p->epoch) printf("epoch %d/%d  loss %.4f  lr %.4g", p->epoch, p->epochs, p->loss, p->lr);
        else printf("before");
        if (p->scored) scores_text(s->task, &p->scores);
        if (p->epoch) printf("  %.0f %s/s%s", p->images_per_s, s->task == TRAIN_TEXT ? "windows" : "pictures", p->best ? "  best" : "");
        printf("\n");
    }
    fflush(stdout);
}

static void finish_json(const struct train_result *r, bool cancelled)
{
    printf("{\"done\": %s, \"epochs\": %d, \"updates\": %lld, \"best_epoch\": %d, \"stopped_early\": %s", cancelled ? "false" : "true", r->epochs, (long long)r->updates, r->best_epoch,
           r->stopped_early ? "true" : "false");
    cli_train_number("best", 5, r->best_top1);
    printf(", \"parameters\": %lld, \"peak_bytes\": %llu, \"corrupt\": %lld, \"seconds\": %.1f}\n", (long long)r->sizes.parameters, (unsigned long long)r->peak,
           (long long)r->corrupt, r->seconds);
}

static void finish(const struct options *o, const struct train_result *r, bool cancelled)
{
    char a[16];
    if (r->corrupt)
        fprintf(stderr, "brim train: %lld times a picture could not be decoded, and another took its place. The first: %s\n", (long long)r->corrupt, r->problem);
    if (o->job.dry_run) {
        char b[16];
        printf("takes %s with %s of activations; %d operators computed again, about %.1f %% more time\n", size_text(r->need, a), size_text(r->sizes.plan.activations, b),
               r->sizes.again.nodes, 100 * r->sizes.again.share);
        return;
    }
    if (o->json)
        finish_json(r, cancelled);
    else if (!cancelled)
        printf("%s: %d epoch%s, %lld updates in %.0f s%s; best epoch %d; at most %s; %s/best.onnx, %s/last.onnx\n", o->job.out, r->epochs, r->epochs == 1 ? "" : "s", (long long)r->updates,
               r->seconds, r->stopped_early ? " (ended early)" : "", r->best_epoch, size_text(r->peak, a), o->job.out, o->job.out);
    if (!o->json && !cancelled && r->sizes.level)
        printf("to fit the budget %d operators were computed again for each backward pass, about %.1f %% more time\n", r->sizes.again.nodes, 100 * r->sizes.again.share);
}

/* ---- */

static err run(struct options *o)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    if (o->json && o->text) return err_set(ERR_USAGE, "--json and --text: one of them");
    o->json = o->json || (!o->text && !isatty(1));
    struct shown shown = {.json = o->json, .terminal = isatty(2), .task = o->job.task};
    struct train_result r = {0};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    o->job.stop = &stop;
    o->job.say = say;
    err e = train_job(&o->job, show, &shown, &r);
    if (shown.terminal) fprintf(stderr, "\r\033[K");
    if (!e || e == ERR_CANCELLED) finish(o, &r, e != ERR_OK);
    return e;
}

/* `brim train embed` is `brim train --task embed`. */
static err first_word(struct options *o, const struct args_list *rest)
{
    if (rest->n == 1 && !o->task) {
        o->task = rest->items[0];
        return ERR_OK;
    }
    return rest->n ? err_set(ERR_USAGE, "'%s': what is it? Options begin with --", rest->items[rest->n - 1]) : ERR_OK;
}

/* Was the option before this word said with a value, and never with this one? The word may be another option's. */
static bool is_other_value(const char *option, const char *word, char *const *old, int n)
{
    bool said = false;
    for (int k = 1; *option && k < n; k++) {
        if (strcmp(old[k - 1], option) || str_starts(old[k], "--")) continue;
        if (!strcmp(old[k], word)) return false;
        said = true;
    }
    return said;
}

/* Said again may be what the job was begun with, word by word, and what a job does not keep. Anything else would be passed over in silence. */
static err nothing_new(int argc, char **argv, char *const *old, int n)
{
    for (int i = 1; i < argc; i++) {
        const char *before = i > 1 && str_starts(argv[i - 1], "--") && !str_starts(argv[i], "--") && !strchr(argv[i - 1], '=') ? argv[i - 1] : "";
        bool takes = !strcmp(argv[i], "--out") || !strcmp(argv[i], "--max-steps"), known = takes || !strcmp(argv[i], "--resume") || !strcmp(argv[i], "--json") || !strcmp(argv[i], "--text");
        known |= str_starts(argv[i], "--out=") || str_starts(argv[i], "--max-steps=");
        for (int k = 0; k < n && !known; k++) known = !strcmp(argv[i], old[k]) && !is_other_value(before, argv[i], old, n);
        if (!known)
            return err_set(ERR_USAGE, "%s%s%s: a job that goes on keeps the options that it was begun with; leave that out, or begin another job in another --out", before,
                           *before ? " " : "", argv[i]);
        i += takes;
    }
    return ERR_OK;
}

/* The arguments of the checkpoint, then --resume and what may be said anew. *ret_begun: the folder that it was begun in, NULL if that was not kept. */
static err resumed(int argc, char **words, struct options *o, struct args_list *rest, char ***ret_arguments, char **ret_begun)
{
    struct options old = defaults();
    int n;
    bool json = o->json, text = o->text;
    const char *out = o->job.out;
    char **arguments;
    err e = train_job_arguments(out, &arguments, &n, ret_begun);
    if (e) return e;
    char **argv = xnewn(char *, n + 2);
    argv[0] = (char *)(uintptr_t)"train";
    for (int i = 0; i < n; i++) argv[i + 1] = arguments[i];
    e = nothing_new(argc, words, arguments, n);
    free(rest->items);
    *rest = (struct args_list){0};
    if (!e) e = parse(n + 1, argv, &old, rest);
    if (!e) e = first_word(&old, rest);
    old.job.out = out;
    old.job.resume = true;
    old.json = json;
    old.text = text;
    old.max_steps = o->max_steps;
    old.job.arguments = (const char *const *)arguments;
    old.job.n_arguments = n;
    free(argv);
    free(o->freeze.items);
    *o = old;
    *ret_arguments = arguments;
    return e;
}

/* A job's words, made into options, and all that they borrow from. */
struct prepared {
    struct options o;
    struct args_list rest;
    char **kept, **old, threads[32], *paths[5], *begun, *here;
};

static void prepared_done(struct prepared *p)
{
    free(p->rest.items);
    free(p->o.freeze.items);
    free(p->kept);
    for (int i = 0; p->old && i < p->o.job.n_arguments; i++) free(p->old[i]);
    free(p->old);
    for (size_t i = 0; i < p->o.n_names; i++) free(p->o.names[i]);
    free(p->o.names);
    for (size_t i = 0; i < p->o.n_teacher_names; i++) free(p->o.teacher_names[i]);
    free(p->o.teacher_names);
    for (size_t i = 0; i < ARRAY_LEN(p->paths); i++) free(p->paths[i]);
    free(p->begun);
    free(p->here);
}

/* A path as seen from `folder`; NULL: from here. */
static void join(const char *folder, const char **path, char **keep)
{
    if (!folder || !*path || **path == '/') return;
    free(*keep);
    *path = *keep = xasprintf("%s/%s", folder, *path);
}

static void join_all(const char *folder, struct prepared *p)
{
    struct train_job_options *j = &p->o.job;
    char *model = folder && j->model ? xasprintf("%s/%s", folder, j->model) : NULL;
    if (model && (strchr(j->model, '/') || str_ends(j->model, ".onnx") || !access(model, F_OK))) join(folder, &j->model, &p->paths[0]); /* else a network by name */
    free(model);
    join(folder, &j->data, &p->paths[1]);
    join(folder, &j->val, &p->paths[2]);
    join(folder, &j->teacher, &p->paths[4]);
}

static bool all_there(const char *folder, const struct train_job_options *j)
{
    const char *const inputs[] = {j->data, j->val, j->teacher};
    bool there = true;
    for (size_t i = 0; i < ARRAY_LEN(inputs) && there; i++) {
        if (!inputs[i] || *inputs[i] == '/') continue;
        char *path = xasprintf("%s/%s", folder, inputs[i]);
        there = !access(path, F_OK);
        free(path);
    }
    return there;
}

/* Inputs are seen from the folder in which the job was begun, wherever it goes on; if all of it was moved, and they lie here as they lay there, from here. */
static void find_inputs(const char *folder, struct prepared *p)
{
    struct train_job_options *j = &p->o.job;
    p->here = folder ? xstrdup(folder) : realpath(".", NULL);
    bool elsewhere = p->begun && (!p->here || strcmp(p->begun, p->here)) && (all_there(p->begun, j) || !p->here || !all_there(p->here, j));
    join_all(elsewhere ? p->begun : folder, p);
    j->folder = elsewhere ? p->begun : p->here;
}

static err prepare(int argc, char **argv, const char *folder, struct prepared *p)
{
    struct options *o = &p->o;
    *o = defaults();
    err e = parse(argc, argv, o, &p->rest);
    if (e || o->help) return e;
    if ((e = first_word(o, &p->rest))) return e;
    if (!o->job.out) return err_set(ERR_USAGE, "--out DIR is needed");
    join(folder, &o->job.out, &p->paths[3]);
    if (o->job.resume) {
        e = resumed(argc, argv, o, &p->rest, &p->old, &p->begun);
    } else {
        if (!o->job.model || !o->job.data) return err_set(ERR_USAGE, "--model and --data are needed");
        p->kept = xnewn(char *, argc + 2);
        for (int i = 1; i < argc; i++) p->kept[i - 1] = argv[i];
        snprintf(p->threads, sizeof p->threads, "--threads=%ld", o->threads ? (long)o->threads : MAX(sysconf(_SC_NPROCESSORS_ONLN), 1L));
        p->kept[argc - 1] = p->threads;
        o->job.arguments = (const char *const *)p->kept;
        o->job.n_arguments = argc;
    }
    if (!e) find_inputs(folder, p);
    return e ? e : digest(o);
}

err cli_train_words(const char *folder, const char *const *words, int n, cli_train_use_fn *use, void *user)
{
    struct prepared p = {0};
    char **argv = xnewn(char *, n + 2);
    argv[0] = (char *)(uintptr_t)"train";
    for (int i = 0; i < n; i++) argv[i + 1] = (char *)(uintptr_t)words[i];
    err e = prepare(n + 1, argv, folder, &p);
    if (!e && p.o.help) e = err_set(ERR_USAGE, "--help is for 'brim train --help'");
    if (!e) e = use(user, &p.o.job);
    prepared_done(&p);
    free(argv);
    return e;
}

int cli_train(int argc, char **argv)
{
    struct prepared p = {0};
    if (cli_wants_box(argc, argv)) return cli_on_box("train", argc, argv);
    err e = prepare(argc, argv, NULL, &p);
    if (!e && !p.o.help) e = run(&p.o);
    prepared_done(&p);
    return e ? args_fail("train", e) : 0;
}

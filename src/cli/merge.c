/* The words of `brim merge`: into options, of a command or of a job of a running box. SPDX-License-Identifier: Apache-2.0 */
#include "cli/merge_inside.h"
#include "cli/on_box.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct words {
    struct merge_run_options run;
    struct args_list rest;
    bool estimate, help, look;
    const char *svg;
    double minutes, target, held_out, lr;
    int64_t batch, threads, seed, most_val, size;
    char **own; /* paths seen from another folder */
    size_t n_own, cap_own;
};

static const char USAGE[] = "merge --estimate SITE|MODEL... [--svg F.svg] [--json]\n       brim merge SITE|MODEL... --out DIR [--data NAME=PATH]... [--minutes N]\n"
                            "       brim merge SITE --out DIR --on-box [--name JOB] [--store DIR]   in the running box, beside its cameras (brim job)";

static err check_numbers(const struct words *w)
{
    if (!w->run.out) return err_set(ERR_USAGE, "--out DIR is needed: where the merged models go (or --estimate: what sharing could save)");
    if (!(w->minutes > 0) || w->minutes > 100000) return err_set(ERR_USAGE, "--minutes: more than 0");
    if (!(w->target > 0) || w->target > 100) return err_set(ERR_USAGE, "--target: percent of the model's own score, above 0 to 100");
    if (!(w->lr >= 0 && w->lr < 1000)) return err_set(ERR_USAGE, "--lr: above 0 (0: by what the networks have in common)");
    if (!(w->held_out > 0 && w->held_out < 1)) return err_set(ERR_USAGE, "--held-out: a part of --data, above 0 and below 1");
    if (w->batch < 1 || w->batch > 4096) return err_set(ERR_USAGE, "--batch: 1 to 4096");
    if (w->threads < 0 || w->threads > 1024) return err_set(ERR_USAGE, "--threads: 0 (all) to 1024");
    if (w->seed < 0 || w->most_val < 1) return err_set(ERR_USAGE, "--seed: 0 or more; --measure: 1 picture or more");
    return ERR_OK;
}

static err check_words(const struct words *w)
{
    if (!w->rest.n) return err_set(ERR_USAGE, "give a site file or ONNX files: brim merge --estimate SITE|MODEL..., or brim merge SITE|MODEL... --out DIR");
    if (w->size < 0 || w->size > 4096) return err_set(ERR_USAGE, "--size: up to 4096 pixels a side (0: the models' own)");
    return w->estimate ? ERR_OK : check_numbers(w);
}

static err parse(int argc, char **argv, struct words *w)
{
    struct merge_run_options *run = &w->run;
    const struct args_option table[] = {{"estimate", ARGS_FLAG, &w->estimate, "what sharing could save at most, and probably, without training; with --data also by what layers give on pictures"},
                                        {"look", ARGS_FLAG, &w->look, "--estimate: by pictures of the site's own recordings"},
                                        {"svg", ARGS_STRING, &w->svg, "--estimate: also draw the models as columns of layers into this file"},
                                        {"out", ARGS_STRING, &run->out, "folder of the result: NAME.onnx, merge.json, merge.svg"},
                                        {"data", ARGS_STRINGS, &run->data, "NAME=PATH: pictures, a video or a labelled set to teach this model with (PATH: all of them)"},
                                        {"val", ARGS_STRINGS, &run->val, "NAME=PATH: what it is measured with (default: a part of --data held out)"},
                                        {"card", ARGS_STRINGS, &run->cards, "NAME=PATH: its card (default: the site's, or the one beside the model)"},
                                        {"crops", ARGS_STRINGS, &run->crops, "NAME=N[:KEY]: its pictures are objects of class N (0: all) cut out of videos with MOT rows; KEY: their own class in objects.json"},
                                        {"minutes", ARGS_FLOAT, &w->minutes, "how long to search and train (30)"},
                                        {"target", ARGS_FLOAT, &w->target, "percent of its own score that each model must keep (95)"},
                                        {"policy", ARGS_STRING, &run->search.policy, "grow (the heaviest 60 % at once, then more), groups (GEMEL's order) or split (all at once, then give back)"},
                                        {"share-norm", ARGS_FLAG, &run->search.share_norm, "batch norms behind shared weights are shared, too (default: each model's own)"},
                                        {"labels-only", ARGS_FLAG, &run->search.only_labels, "where there are labels, do without the original as a teacher"},
                                        {"batch", ARGS_INT, &w->batch, "pictures of a model in a step (32)"},
                                        {"size", ARGS_INT, &w->size, "merge them as networks for pictures of N x N (default: their own size)"},
                                        {"lr", ARGS_FLOAT, &w->lr, "learning rate at its highest (0.001; 0.003 where the networks have no common ancestor)"},
                                        {"held-out", ARGS_FLOAT, &w->held_out, "part of --data to measure with, without --val (0.2)"},
                                        {"measure", ARGS_INT, &w->most_val, "pictures to measure a model with, at most (1000)"},
                                        {"threads", ARGS_INT, &w->threads, "0: all"},
                                        {"seed", ARGS_INT, &w->seed, "of the order of pictures"},
                                        {"budget", ARGS_SIZE, &run->search.budget, "bytes that it may take (default: what the machine has)"},
                                        {"guard", ARGS_FLAG, &run->guard, "compare the models merged in --out with their originals on --data; what drifted goes back"},
                                        {"resume", ARGS_FLAG, &run->search.resume, "go on with the search in --out"},
                                        {"store", ARGS_STRING, &run->store, "where stored models are looked for, and results imported to under the models' names"},
                                        {"json", ARGS_FLAG, &run->json, "JSON on stdout: one object, or a line per measurement"},
                                        {0}};
    *w = (struct words){.minutes = 30, .target = 95, .held_out = 0.2, .batch = 32, .most_val = 1000};
    err e = args_parse(argc, argv, table, &w->rest, &w->help);
    if (w->help) args_help(USAGE, table);
    if (!e && !w->help) e = check_words(w);
    struct merge_search_options *s = &run->search;
    s->seconds = 60 * w->minutes;
    s->target = w->target / 100;
    s->lr = w->lr;
    s->held_out = w->held_out;
    s->batch = (int)w->batch;
    s->size = (int)w->size;
    s->threads = (int)w->threads;
    s->seed = (uint64_t)w->seed;
    s->most_val = w->most_val;
    return e;
}

static void words_done(struct words *w)
{
    for (size_t i = 0; i < w->n_own; i++) free(w->own[i]);
    free(w->own);
    free(w->rest.items);
    free(w->run.data.items);
    free(w->run.val.items);
    free(w->run.cards.items);
    free(w->run.crops.items);
}

int cli_merge(int argc, char **argv)
{
    struct words w;
    if (cli_wants_box(argc, argv)) return cli_on_box("merge", argc, argv);
    err e = parse(argc, argv, &w);
    if (!e && !w.help) e = w.estimate ? merge_show_estimate(&w.run, &w.rest, w.svg, w.look) : cli_merge_run(&w.run, &w.rest);
    words_done(&w);
    return e && !w.help ? args_fail("merge", e) : 0;
}

/* ---- said in another folder */

static void join(struct words *w, const char *folder, const char **path)
{
    if (!*path || **path == '/') return;
    vec_grow(&w->own, &w->cap_own, w->n_own);
    *path = w->own[w->n_own++] = xasprintf("%s/%s", folder, *path);
}

/* NAME=PATH, or PATH. */
static void join_named(struct words *w, const char *folder, struct args_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        const char *equal = strchr(l->items[i], '='), *path = equal ? equal + 1 : l->items[i];
        if (*path == '/') continue;
        vec_grow(&w->own, &w->cap_own, w->n_own);
        l->items[i] = w->own[w->n_own++] = xasprintf("%.*s%s/%s", (int)(path - l->items[i]), l->items[i], folder, path);
    }
}

/* What is neither a file nor called like one is the name of a stored model. */
static void join_all(struct words *w, const char *folder)
{
    join(w, folder, &w->run.out);
    join(w, folder, &w->run.store);
    join_named(w, folder, &w->run.data);
    join_named(w, folder, &w->run.val);
    join_named(w, folder, &w->run.cards);
    for (size_t i = 0; i < w->rest.n; i++) {
        const char *path = w->rest.items[i];
        char *there = xasprintf("%s/%s", folder, path);
        if (strchr(path, '/') || str_ends(path, ".onnx") || str_ends(path, ".yaml") || str_ends(path, ".yml") || !access(there, F_OK)) join(w, folder, &w->rest.items[i]);
        free(there);
    }
}

err cli_merge_words(const char *folder, const char *const *words, int n, cli_merge_use_fn *use, void *user)
{
    struct words w;
    char **argv = xnewn(char *, n + 2);
    argv[0] = (char *)(uintptr_t)"merge";
    for (int i = 0; i < n; i++) {
        argv[i + 1] = (char *)(uintptr_t)words[i];
        if (!strcmp(words[i], "-h") || !strcmp(words[i], "--help") || !strcmp(words[i], "--estimate") || !strcmp(words[i], "--guard")) {
            free(argv);
            return err_set(ERR_USAGE, "%s is no work for a box: say it without --on-box", words[i]);
        }
    }
    err e = parse(n + 1, argv, &w);
    if (!e) join_all(&w, folder);
    if (!e) e = use(user, &w.run, &w.rest);
    words_done(&w);
    free(argv);
    return e;
}

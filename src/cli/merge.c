/* `brim merge --estimate SITE|MODEL...`: layers of equal architecture, and the bytes that sharing all of them would save, without training.
 *
 * Members are ONNX files, names of stored models and the models of site files (`.yaml`, `.yml`), in any mix; each is read, counted and closed
 * before the next, so that no more than one model is open at a time. SPDX-License-Identifier: Apache-2.0 */
#include "cli/merge.h"
#include "cli/args.h"
#include "cli/on_box.h"
#include "engine/engine.h"
#include "methods/merge_estimate.h"
#include "model/import.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct members {
    struct merge_estimate *m;
    struct mem_payer *payer;
    const char *store; /* NULL: the site's, or the usual place */
};

/* `stored`: the name of a model of the store, for what is no file. */
static err load(const struct members *to, const struct site *site, const char *path, const char *stored, struct graph **ret)
{
    if (!access(path, F_OK) || str_ends(stored, ".onnx") || weights_name_check(stored)) return graph_load(path, to->payer, ret);
    char *folder = to->store ? xstrdup(to->store) : engine_store_path(site);
    struct weights_store *store = NULL;
    struct weights_manifest found;
    err e = weights_store_open(folder, NULL, &store);
    if (!e) e = weights_manifest_current(store, stored, &found);
    if (!e) {
        e = model_import_graph(store, &found, false, to->payer, ret);
        weights_manifest_done(&found);
    }
    weights_store_close(&store);
    free(folder);
    return e;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static err add_model(const struct members *to, const struct site *site, const char *name, const char *path)
{
    struct graph *g = NULL;
    err e = load(to, site, path, site ? last_part(path) : path, &g); /* a site's paths are joined to its folder */
    if (e) return e;
    merge_estimate_add(to->m, name, g);
    graph_free(&g);
    return ERR_OK;
}

static err add_site(const struct members *to, const char *path)
{
    struct site *site = NULL;
    err e = site_load(path, &site);
    if (e) return e;
    for (size_t i = 0; i < site->model_count && !e; i++) {
        e = add_model(to, site, site->models[i].name, site->models[i].onnx);
        if (e) e = err_wrap(e, "model '%s'", site->models[i].name);
    }
    site_free(&site);
    return e;
}

static err add_member(const struct members *to, const char *path)
{
    if (str_ends(path, ".yaml") || str_ends(path, ".yml")) return add_site(to, path);
    const char *base = last_part(path);
    char *name = xstrndup(base, strlen(base) - (str_ends(base, ".onnx") && base[5] ? 5 : 0));
    err e = add_model(to, NULL, name, path);
    free(name);
    return e;
}

static err write_picture(const struct merge_estimate *m, const char *path)
{
    char *svg = merge_draw_svg(m, NULL);
    FILE *f = fopen(path, "we");
    bool ok = f && fputs(svg, f) >= 0;
    if (f && fclose(f)) ok = false;
    int why = errno;
    free(svg);
    return ok ? ERR_OK : err_set(ERR_IO, "%s: cannot write the picture: %s", path, strerror(why));
}

static void print_text(const struct merge_estimate *m)
{
    char a[16], b[16], c[16];
    for (size_t i = 0; i < m->n_members; i++)
        printf("%-24s %5zu layers %10s\n", m->members[i].name, m->members[i].n_layers, size_text(m->members[i].bytes, a));
    if (!m->saved_bytes) {
        puts("nothing in common: no layer of one model has the operator, sizes and attributes of a layer of another");
        return;
    }
    printf("at most %s of %s (%.1f %%) can be saved by sharing; %s of it are equal numbers, shared without any retraining\n\n",
           size_text(m->saved_bytes, a), size_text(m->bytes, b), 100 * merge_estimate_share(m), size_text(m->equal_bytes, c));
    printf("%10s %10s %10s  %s\n", "saved", "equal", "a layer", "layers (in each model)");
    for (size_t g = 0; g < m->n_groups && m->groups[g].saved_bytes; g++) {
        const struct merge_group *group = &m->groups[g];
        printf("%10s %10s %10s  %s (", size_text(group->saved_bytes, a), size_text(group->equal_bytes, b), size_text(group->bytes, c), group->what);
        for (size_t i = 0; i < m->n_members; i++) printf("%s%d", i ? " " : "", group->counts[i]);
        puts(")");
    }
}

static err estimate(const struct args_list *paths, const char *store, const char *svg, bool json)
{
    struct mem_budget *budget = mem_budget_new("estimate", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(budget, "models");
    struct merge_estimate *m = merge_estimate_new();
    struct members to = {m, payer, store};
    err e = ERR_OK;
    for (size_t i = 0; i < paths->n && !e; i++) e = add_member(&to, paths->items[i]);
    if (!e && m->n_members < 2)
        e = err_set(ERR_USAGE, "%s has %s model: sharing takes two; give more ONNX files, or a site with more models", paths->items[0],
                    m->n_members ? "one" : "no");
    if (!e) merge_estimate_finish(m);
    if (!e && svg) e = write_picture(m, svg);
    if (!e && json) {
        json_t *j = merge_estimate_json(m);
        json_dumpf(j, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(j);
    } else if (!e) {
        print_text(m);
    }
    merge_estimate_free(&m);
    mem_payer_free(&payer);
    mem_budget_free(&budget);
    return e;
}

/* ---- words into options */

struct words {
    struct merge_run_options run;
    struct args_list rest;
    bool estimate, help;
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
    const struct args_option table[] = {{"estimate", ARGS_FLAG, &w->estimate, "what sharing could save at most, without training"},
                                        {"svg", ARGS_STRING, &w->svg, "--estimate: also draw the models as columns of layers into this file"},
                                        {"out", ARGS_STRING, &run->out, "folder of the result: NAME.onnx, merge.json, merge.svg"},
                                        {"data", ARGS_STRINGS, &run->data, "NAME=PATH: pictures, a video or a labelled set to teach this model with (PATH: all of them)"},
                                        {"val", ARGS_STRINGS, &run->val, "NAME=PATH: what it is measured with (default: a part of --data held out)"},
                                        {"card", ARGS_STRINGS, &run->cards, "NAME=PATH: its card (default: the site's, or the one beside the model)"},
                                        {"minutes", ARGS_FLOAT, &w->minutes, "how long to search and train (30)"},
                                        {"target", ARGS_FLOAT, &w->target, "percent of its own score that each model must keep (95)"},
                                        {"policy", ARGS_STRING, &run->search.policy, "split (all at once, then give back what hurts) or groups (GEMEL's order)"},
                                        {"share-norm", ARGS_FLAG, &run->search.share_norm, "batch norms behind shared weights are shared, too (default: each model's own)"},
                                        {"labels-only", ARGS_FLAG, &run->search.only_labels, "where there are labels, do without the original as a teacher"},
                                        {"batch", ARGS_INT, &w->batch, "pictures of a model in a step (32)"},
                                        {"size", ARGS_INT, &w->size, "sides of the pictures that models are trained and measured with (their own)"},
                                        {"lr", ARGS_FLOAT, &w->lr, "learning rate at its highest (0.001)"},
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
    *w = (struct words){.minutes = 30, .target = 95, .held_out = 0.2, .lr = 0.001, .batch = 32, .most_val = 1000};
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
}

int cli_merge(int argc, char **argv)
{
    struct words w;
    if (cli_wants_box(argc, argv)) return cli_on_box("merge", argc, argv);
    err e = parse(argc, argv, &w);
    if (!e && !w.help) e = w.estimate ? estimate(&w.rest, w.run.store, w.svg, w.run.json) : cli_merge_run(&w.run, &w.rest);
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

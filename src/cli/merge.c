/* `brim merge --estimate SITE|MODEL...`: layers of equal architecture, and the bytes that sharing all of them would save, without training.
 *
 * Members are ONNX files, names of stored models and the models of site files (`.yaml`, `.yml`), in any mix; each is read, counted and closed
 * before the next, so that no more than one model is open at a time. SPDX-License-Identifier: Apache-2.0 */
#include "cli/merge.h"
#include "cli/args.h"
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
    char *svg = merge_draw_svg(m);
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

int cli_merge(int argc, char **argv)
{
    bool only = false, json = false, help = false;
    const char *svg = NULL, *store = NULL;
    const struct args_option table[] = {{"estimate", ARGS_FLAG, &only, "what sharing could save at most, without training"},
                                        {"svg", ARGS_STRING, &svg, "also draw the models as columns of layers into this file"},
                                        {"store", ARGS_STRING, &store, "where names of stored models are looked for (default: the site's, or the usual place)"},
                                        {"json", ARGS_FLAG, &json, "one JSON object on stdout"},
                                        {0}};
    struct args_list rest = {0};
    err e = args_parse(argc, argv, table, &rest, &help);
    int status = 0;
    if (help) {
        args_help("merge --estimate SITE|MODEL... [--svg F.svg] [--store DIR] [--json]", table);
    } else {
        if (!e && !only)
            e = err_set(ERR_USAGE, "joint retraining is not built yet; brim merge --estimate SITE|MODEL... says what it could save");
        if (!e && !rest.n) e = err_set(ERR_USAGE, "give a site file or ONNX files: brim merge --estimate SITE|MODEL...");
        if (!e) e = estimate(&rest, store, svg, json);
        if (e) status = args_fail("merge", e);
    }
    free(rest.items);
    return status;
}

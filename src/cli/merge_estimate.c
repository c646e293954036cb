/* `brim merge --estimate SITE|MODEL...`: layers of equal architecture, the bytes that sharing all of them would save, and what it will probably save.
 *
 * Members are ONNX files, names of stored models and the models of site files (`.yaml`, `.yml`), in any mix. With --data, or --look for a site's own
 * recordings, the networks are also run over some pictures (methods/merge_expect.h). SPDX-License-Identifier: Apache-2.0 */
#include "cli/merge_inside.h"
#include "engine/engine.h"
#include "methods/merge_expect.h"
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
    struct graph **graphs;
    struct merge_problem *problem; /* NULL: nothing in common */
    struct merge_expected expected;
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

static err add_model(struct members *to, const struct site *site, const char *name, const char *path)
{
    struct graph *g = NULL;
    err e = load(to, site, path, site ? last_part(path) : path, &g); /* a site's paths are joined to its folder */
    if (e) return e;
    merge_estimate_add(to->m, name, g);
    to->graphs = xrealloc(to->graphs, (to->m->n_members + 1) * sizeof *to->graphs);
    to->graphs[to->m->n_members - 1] = g;
    return ERR_OK;
}

static err add_site(struct members *to, const char *path)
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

static err add_member(struct members *to, const char *path)
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

/* ---- what will probably merge */

/* The pictures of the models, as a merge would take them. */
static err expect_by_pictures(struct members *to, const struct merge_run_options *o, const struct args_list *paths)
{
    const char *tmp = getenv("TMPDIR");
    struct merge_run_options with = *o;
    char *folder = xasprintf("%s/brim-estimate-XXXXXX", tmp && *tmp ? tmp : "/tmp"); /* stored models are read from files there */
    if (!mkdtemp(folder)) {
        err e = err_set(ERR_IO, "%s: cannot make a folder for a moment: %s", folder, strerror(errno));
        free(folder);
        return e;
    }
    with.out = folder;
    struct merge_run r = {.o = &with, .budget = mem_budget_new("pictures", o->search.budget ? o->search.budget : UINT64_MAX), .store = o->store};
    err e = merge_run_open(&r, paths);
    struct merge_source *sources = xnewn(struct merge_source, r.n + 1);
    for (int i = 0; i < r.n; i++) sources[i] = merge_run_source(&r.models[i]);
    struct merge_expect_options x = {.sources = sources, .budget = r.budget, .threads = o->search.threads, .size = o->search.size};
    if (!e) e = merge_expect(to->problem, (const struct graph *const *)to->graphs, &x, &to->expected);
    free(sources);
    merge_run_close(&r);
    mem_budget_free(&r.budget);
    rmdir(folder);
    free(folder);
    return e;
}

static err expect(struct members *to, const struct merge_run_options *o, const struct args_list *paths, bool look)
{
    const char **names = xnewn(const char *, to->m->n_members);
    for (size_t i = 0; i < to->m->n_members; i++) names[i] = to->m->members[i].name;
    err e = merge_problem_new((const struct graph *const *)to->graphs, names, (int)to->m->n_members, &to->problem);
    free(names);
    if (e == ERR_NOT_FOUND) return ERR_OK;
    if (!e && (look || o->data.n)) return expect_by_pictures(to, o, paths);
    return e ? e : merge_expect(to->problem, (const struct graph *const *)to->graphs, &(struct merge_expect_options){0}, &to->expected);
}

/* Of the slots of a group, in their order; mean by bytes. */
static double group_likelihood(const struct members *to, size_t group, json_t *ret_each)
{
    double sum = 0;
    int n = 0;
    for (int nth = 0; nth < to->m->groups[group].second; nth++)
        for (int s = 0; s < to->problem->n_slots; s++) {
            const struct merge_slot *slot = &to->problem->slots[s];
            if (slot->group != (int)group || slot->nth != nth) continue;
            if (ret_each) json_array_append_new(ret_each, json_real(to->expected.likelihood[s]));
            sum += to->expected.likelihood[s] * (slot->n - 1);
            n += slot->n - 1;
        }
    return n ? sum / n : 0;
}

static const char *expected_from(const struct members *to)
{
    return to->expected.pictures ? "weights and pictures" : "weights and architecture";
}

static json_t *estimate_json(const struct members *to)
{
    json_t *j = merge_estimate_json(to->m), *layer;
    size_t i;
    double share = to->m->bytes ? (double)to->expected.bytes / (double)to->m->bytes : 0;
    json_object_set_new(j, "expected_bytes", json_integer((json_int_t)to->expected.bytes));
    json_object_set_new(j, "expected_share", json_real(share));
    if (to->problem) json_object_set_new(j, "expected_from", json_string(expected_from(to)));
    json_array_foreach(json_object_get(j, "layers"), i, layer) {
        json_t *each = json_array();
        json_object_set_new(layer, "likelihood", json_real(group_likelihood(to, i, each)));
        json_object_set_new(layer, "likelihoods", each);
    }
    return j;
}

static void print_text(const struct members *to)
{
    const struct merge_estimate *m = to->m;
    char a[16], b[16], c[16];
    for (size_t i = 0; i < m->n_members; i++)
        printf("%-24s %5zu layers %10s\n", m->members[i].name, m->members[i].n_layers, size_text(m->members[i].bytes, a));
    if (!m->saved_bytes) {
        puts("nothing in common: no layer of one model has the operator, sizes and attributes of a layer of another");
        return;
    }
    printf("at most %s of %s (%.1f %%) can be saved by sharing; %s of it are equal numbers, shared without any retraining\n", size_text(m->saved_bytes, a), size_text(m->bytes, b),
           100 * merge_estimate_share(m), size_text(m->equal_bytes, c));
    printf("probably %s (%.1f %%), by %s; only retraining can tell\n\n", size_text(to->expected.bytes, a), m->bytes ? 100 * (double)to->expected.bytes / (double)m->bytes : 0,
           expected_from(to));
    printf("%10s %10s %10s %8s  %s\n", "saved", "equal", "a layer", "likely %", "layers (in each model)");
    for (size_t g = 0; g < m->n_groups && m->groups[g].saved_bytes; g++) {
        const struct merge_group *group = &m->groups[g];
        printf("%10s %10s %10s %8.0f  %s (", size_text(group->saved_bytes, a), size_text(group->equal_bytes, b), size_text(group->bytes, c), 100 * group_likelihood(to, g, NULL),
               group->what);
        for (size_t i = 0; i < m->n_members; i++) printf("%s%d", i ? " " : "", group->counts[i]);
        puts(")");
    }
}

static void print_json(const struct members *to)
{
    json_t *j = estimate_json(to);
    json_dumpf(j, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(j);
}

err merge_show_estimate(const struct merge_run_options *o, const struct args_list *paths, const char *svg, bool look)
{
    struct mem_budget *budget = mem_budget_new("estimate", UINT64_MAX);
    struct members to = {.m = merge_estimate_new(), .payer = mem_payer_new(budget, "models"), .store = o->store};
    err e = ERR_OK;
    for (size_t i = 0; i < paths->n && !e; i++) e = add_member(&to, paths->items[i]);
    if (!e && to.m->n_members < 2)
        e = err_set(ERR_USAGE, "%s has %s model: sharing takes two; give more ONNX files, or a site with more models", paths->items[0], to.m->n_members ? "one" : "no");
    if (!e) merge_estimate_finish(to.m);
    if (!e && svg) e = write_picture(to.m, svg);
    if (!e) e = expect(&to, o, paths, look);
    if (!e && o->json) print_json(&to);
    else if (!e) print_text(&to);
    for (size_t i = 0; i < to.m->n_members; i++) graph_free(&to.graphs[i]);
    free(to.graphs);
    merge_expected_done(&to.expected);
    merge_problem_free(&to.problem);
    merge_estimate_free(&to.m);
    mem_payer_free(&to.payer);
    mem_budget_free(&budget);
    return e;
}

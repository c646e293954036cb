/* Results of a merge where models run from: a weight store, or a running box.
 *
 * A search takes hours, and a model may be replaced meanwhile by somebody who does not know of it. What the merge began with is written into OUT/sources.json
 * (a hash of each model's numbers), and also what it is about to publish, before it does; a model that is neither is somebody else's, and then nothing
 * is published. So a kill between the two lines of this file leaves nothing that could be mistaken for a stranger's.
 *
 * A model of the store that shares nothing, and never did, is left as it is. SPDX-License-Identifier: Apache-2.0 */
#include "cli/merge_inside.h"
#include "engine/engine.h"
#include "model/import.h"
#include "model/share.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char FILE_NAME[] = "sources.json";

bool merge_publishes(const struct merge_run *r)
{
    for (int i = 0; r->o->job && i < r->n; i++)
        if (r->models[i].stored && r->models[i].of_site) return true;
    return !r->o->job && r->o->store;
}

/* What a store calls the model: what it was taken as, or its own name. */
static const char *target_name(const struct merge_model *m)
{
    return m->stored ? m->stored : m->name;
}

static bool takes_part(const struct merge_run *r, const struct merge_model *m)
{
    return r->o->job ? m->stored && m->of_site : true;
}

/* ---- who is who */

/* Of what a graph computes with: the names and numbers of its constants. Never 0. */
static uint64_t identity(const struct graph *g)
{
    uint64_t sum = 1;
    for (size_t i = 0; i < g->n_values; i++) {
        const struct graph_value *v = &g->values[i];
        if (!v->constant || !v->name || !*v->name) continue;
        struct weights_id id = weights_blob_id(v->dtype, &v->shape, v->constant, v->constant_bytes);
        sum += hash64(id.b, sizeof id.b, hash64(v->name, strlen(v->name), 1)); /* in any order */
    }
    return sum ? sum : 1;
}

static err of_file(struct merge_run *r, const char *path, uint64_t *ret)
{
    struct graph *g;
    err e = graph_load(path, r->payer, &g);
    if (e) return e;
    *ret = identity(g);
    graph_free(&g);
    return ERR_OK;
}

/* 0: the store has none of this name. */
static err of_stored(struct merge_run *r, const char *name, uint64_t *ret)
{
    struct weights_store *store = NULL;
    struct weights_manifest found;
    struct graph *g;
    char *folder = r->store ? xstrdup(r->store) : engine_store_path(NULL);
    err e = weights_store_open(folder, NULL, &store);
    if (!e && !(e = weights_manifest_current(store, name, &found))) {
        if (!(e = model_import_graph(store, &found, false, r->payer, &g))) {
            *ret = identity(g);
            graph_free(&g);
        }
        weights_manifest_done(&found);
    } else if (e == ERR_NOT_FOUND) {
        *ret = 0;
        e = ERR_OK;
    }
    weights_store_close(&store);
    free(folder);
    return e;
}

/* ---- the file */

static err save(const struct merge_run *r)
{
    json_t *models = json_object();
    for (int i = 0; i < r->n; i++) {
        const struct merge_model *m = &r->models[i];
        json_object_set_new(models, m->name, json_pack("{s:I, s:I, s:[I, I], s:b}", "source", (json_int_t)m->source, "target", (json_int_t)m->target, "ours",
                                                       (json_int_t)m->ours[0], (json_int_t)m->ours[1], "published", m->published));
    }
    json_t *j = json_pack("{s:i, s:o}", "version", 1, "models", models);
    char *text = json_dumps(j, JSON_INDENT(1));
    size_t n = strlen(text);
    err e = weights_fs_put(&weights_fs_system, r->o->out, r->o->out, FILE_NAME, (const void *const[]){text}, &n, 1, false);
    free(text);
    json_decref(j);
    return e;
}

static bool load(struct merge_run *r)
{
    char *path = xasprintf("%s/%s", r->o->out, FILE_NAME);
    json_t *j = json_load_file(path, 0, NULL), *models = json_object_get(j, "models");
    bool all = r->n > 0;
    for (int i = 0; i < r->n; i++) {
        struct merge_model *m = &r->models[i];
        const json_t *one = json_object_get(models, m->name), *ours = json_object_get(one, "ours");
        all &= json_is_integer(json_object_get(one, "source"));
        m->source = (uint64_t)json_integer_value(json_object_get(one, "source"));
        m->target = (uint64_t)json_integer_value(json_object_get(one, "target"));
        for (size_t k = 0; k < 2; k++) m->ours[k] = (uint64_t)json_integer_value(json_array_get(ours, k));
        m->published = json_is_true(json_object_get(one, "published"));
    }
    json_decref(j);
    free(path);
    return all;
}

err merge_publish_begin(struct merge_run *r)
{
    if ((r->o->search.resume || r->o->guard) && load(r)) return ERR_OK;
    err e = engine_make_folders(r->o->out);
    for (int i = 0; i < r->n && !e; i++) {
        struct merge_model *m = &r->models[i];
        m->ours[0] = m->ours[1] = 0;
        m->published = false;
        e = of_file(r, m->onnx, &m->source); /* of a stored one: the copy just taken */
        if (!e) e = of_stored(r, target_name(m), &m->target);
    }
    return e ? e : save(r);
}

/* ---- checking and publishing */

/* A result, or the original as the search keeps it, which the drift guard puts back. */
static bool is_ours(struct merge_run *r, const struct merge_model *m, uint64_t now)
{
    uint64_t kept = 0;
    if (now && (now == m->ours[0] || now == m->ours[1])) return true;
    char *path = xasprintf("%s/models/%s.onnx", r->o->out, m->name);
    bool same = now && !of_file(r, path, &kept) && kept == now;
    free(path);
    return same;
}

static err changed(const struct merge_run *r, const struct merge_model *m, const char *where)
{
    return err_set(ERR_BUSY, "model '%s' was replaced since the search began (%s): nothing is published any more. What was found is in %s; begin anew with another --out", m->name, where,
                   r->o->out);
}

static err check_unchanged(struct merge_run *r)
{
    for (int i = 0; i < r->n; i++) {
        struct merge_model *m = &r->models[i];
        uint64_t now = 0;
        if (!m->stored && (of_file(r, m->onnx, &now) || now != m->source)) return changed(r, m, m->onnx);
        err e = of_stored(r, target_name(m), &now);
        if (e) return e;
        if (now != m->target && !is_ours(r, m, now)) return changed(r, m, "in the store");
    }
    return ERR_OK;
}

static char *result_path(const struct merge_run *r, const struct merge_model *m)
{
    return xasprintf("%s/%s.onnx", r->o->out, m->name);
}

/* Which models have something new; their results are noted as ours before anybody else sees them. */
static err note(struct merge_run *r, bool *ret_takes)
{
    bool any = false;
    for (int i = 0; i < r->n; i++) {
        struct merge_model *m = &r->models[i];
        char *path = result_path(r, m);
        uint64_t next = 0, first = 0;
        err e = takes_part(r, m) ? of_file(r, path, &next) : ERR_OK;
        free(path);
        path = xasprintf("%s/models/%s.onnx", r->o->out, m->name);
        if (!e && takes_part(r, m)) e = of_file(r, path, &first);
        free(path);
        if (e) return e;
        ret_takes[i] = takes_part(r, m) && (m->published || next != first || !m->stored);
        if (!ret_takes[i]) continue;
        any = true;
        m->published = true;
        if (next == m->ours[1]) continue;
        m->ours[0] = m->ours[1];
        m->ours[1] = next;
    }
    return any ? save(r) : ERR_OK;
}

static err import_all(struct merge_run *r, const char *const *names, const char *const *paths, size_t n)
{
    struct weights_store *store = NULL;
    struct model_import_report report;
    struct model_share_report share;
    err e = weights_store_open(r->o->store, NULL, &store);
    for (size_t i = 0; i < n && !e; i++) e = model_import(store, paths[i], names[i], r->payer, &report);
    if (!e && n) e = model_share(store, names, n, &share);
    weights_store_close(&store);
    return e;
}

err merge_publish(struct merge_run *r)
{
    if (!merge_publishes(r)) return ERR_OK;
    const char **names = xnewn(const char *, r->n + 1), **paths = xnewn(const char *, r->n + 1);
    bool *takes = xnewn(bool, r->n + 1);
    int n = 0;
    err e = check_unchanged(r);
    if (!e) e = note(r, takes);
    for (int i = 0; i < r->n && !e; i++) {
        if (!takes[i]) continue;
        names[n] = r->o->job ? r->models[i].name : target_name(&r->models[i]);
        paths[n++] = result_path(r, &r->models[i]);
    }
    if (!e && n) e = r->o->job ? r->o->job->publish(r->o->job, names, paths, n) : import_all(r, names, paths, (size_t)n);
    if (!e) r->times += n > 0;
    for (int i = 0; i < n; i++) free((char *)(uintptr_t)paths[i]);
    free(names);
    free(paths);
    free(takes);
    return e;
}

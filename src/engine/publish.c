/* Models are replaced while the box runs: what a job has made takes the place of what the site names.
 *
 *   a file    FILE.before <- FILE (a second name), FILE <- the new one (written beside, synced, renamed), the model and its queries are opened anew
 *   a stored  the new one is imported as the next version of the name; tensors that several of them have are marked; then they are opened anew
 *
 * If one cannot be written or cannot run, all of them come back: FILE from FILE.before, a stored one as a version with the old content. Importing is done
 * without the engine's lock, opening with it. At every moment a name means one of the two, whole: a box that dies in between starts with either.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/job_inside.h"

#include "base/log.h"
#include "model/import.h"
#include "model/share.h"
#include "weights/fs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct item {
    const char *model, *onnx, *file; /* file: the site's `onnx` */
    const char *stored;              /* its name in the store; NULL: it is a file */
    struct weights_manifest before;
    bool known, changed, opened;     /* `before` was read; another one takes its place; and it was opened */
};
struct publishing {
    struct engine *e;
    struct engine_site *site;
    struct weights_store *store;     /* a handle of this thread */
    struct mem_budget *budget;
    struct mem_payer *payer;
    int n;
    struct item *items;
};

static const struct site_model *find(const struct site *s, const char *name)
{
    for (size_t i = 0; i < s->model_count; i++)
        if (!strcmp(s->models[i].name, name)) return &s->models[i];
    return NULL;
}

static err put(const char *from, const char *to)
{
    unsigned char *p;
    size_t n;
    err e = weights_fs_get(&weights_fs_system, from, INT32_MAX, &p, &n);
    if (e) return e;
    const char *slash = strrchr(to, '/');
    char *dir = slash ? xasprintf("%.*s", (int)MAX(slash - to, 1), to) : xstrdup(".");
    const void *part = p;
    e = weights_fs_put(&weights_fs_system, dir, dir, slash ? slash + 1 : to, &part, &n, 1, false);
    free(dir);
    free(p);
    return e;
}

static err keep_old(const char *file, const char *before)
{
    unlink(before);
    if (link(file, before) == 0) return ERR_OK;
    return errno == EPERM || errno == EOPNOTSUPP ? put(file, before) : err_set(ERR_IO, "%s: cannot be kept as %s: %s", file, before, strerror(errno));
}

/* ---- what is to be replaced */

static err name_items(struct publishing *p, const char *const *models, const char *const *onnx)
{
    const struct site *s = engine_site_get(p->site);
    for (int i = 0; i < p->n; i++) {
        struct item *it = &p->items[i];
        const struct site_model *m = find(s, models[i]);
        if (!m) return err_set(ERR_NOT_FOUND, "the site has no model '%s' any more", models[i]);
        const char *slash = strrchr(m->onnx, '/');
        *it = (struct item){.model = m->name, .onnx = onnx[i], .file = m->onnx, .stored = access(m->onnx, F_OK) ? slash ? slash + 1 : m->onnx : NULL};
        for (int k = 0; k < i; k++)
            if (!strcmp(p->items[k].file, it->file)) return err_set(ERR_USAGE, "models '%s' and '%s' of the site are one: it cannot be replaced by two", p->items[k].model, it->model);
    }
    return ERR_OK;
}

/* ---- the new ones into their places */

static err import_one(struct publishing *p, struct item *it)
{
    struct model_import_report r;
    err e = weights_manifest_current(p->store, it->stored, &it->before);
    if (e) return e;
    it->known = true;
    return model_import(p->store, it->onnx, it->stored, p->payer, &r);
}

static err import_all(struct publishing *p)
{
    const char **names = xnewn(const char *, p->n + 1);
    struct model_share_report shared;
    size_t n = 0;
    for (int i = 0; i < p->n; i++)
        if (p->items[i].stored) names[n++] = p->items[i].stored;
    err e = n ? weights_store_open(p->e->store, p->e->publish_fs, &p->store) : ERR_OK;
    if (!e && n) e = mem_budget_back_with_files(p->budget, p->e->store);
    for (int i = 0; i < p->n && !e; i++) /* what is large first: a disk that is full is met before any name means another model */
        if (p->items[i].stored) e = model_import_numbers(p->store, p->items[i].onnx, p->payer);
    for (int i = 0; i < p->n && !e; i++)
        if (p->items[i].stored) e = import_one(p, &p->items[i]);
    if (!e && n > 1) e = model_share(p->store, names, n, &shared);
    free(names);
    for (int i = 0; i < p->n && !e; i++) {
        struct item *it = &p->items[i];
        struct weights_manifest now;
        if (!it->stored || (e = weights_manifest_current(p->store, it->stored, &now))) continue;
        it->changed = !weights_id_equal(&now.id, &it->before.id);
        weights_manifest_done(&now);
    }
    return e;
}

static err replace_file(struct item *it)
{
    char *before = xasprintf("%s.before", it->file);
    err e = keep_old(it->file, before);
    if (!e) e = put(it->onnx, it->file);
    it->changed = !e;
    free(before);
    return e;
}

/* ---- and opened; with engine->lock held */

static err open_anew(struct engine *e, const char *model)
{
    e->renew = model;
    err x = engine_build(e, e->site);
    e->renew = NULL;
    for (size_t i = 0; i < e->n_models && !x; i++) {
        const struct engine_model *m = e->models[i];
        if (!strcmp(m->name, model) && !m->sched) x = err_set(ERR_UNSUPPORTED, "%s", m->problem);
    }
    for (const struct engine_stream *s = e->streams; s && !x; s = s->next)
        if (s->model && !strcmp(s->model->name, model) && !s->sched) x = err_set(ERR_UNSUPPORTED, "query '%s' cannot run on it", s->q->name);
    return x;
}

static err open_all(struct publishing *p)
{
    err e = ERR_OK;
    for (int i = 0; i < p->n && !e; i++) {
        struct item *it = &p->items[i];
        if (!find(p->e->site->site, it->model)) e = err_set(ERR_NOT_FOUND, "the site has no model '%s' any more", it->model);
        if (!e && !it->stored) e = replace_file(it);
        if (e || !it->changed) continue;
        it->opened = true;
        e = open_anew(p->e, it->model);
    }
    return e;
}

/* ---- back again */

static bool put_back(struct publishing *p, struct item *it)
{
    bool is_new, back = true;
    if (it->stored && it->known) {
        back = weights_manifest_commit(p->store, &it->before, &is_new) == ERR_OK;
    } else if (!it->stored && it->changed) {
        char *before = xasprintf("%s.before", it->file);
        back = rename(before, it->file) == 0;
        free(before);
    }
    return back;
}

static err undo(struct publishing *p, err why)
{
    char reason[512];
    bool back = true, opened = false;
    snprintf(reason, sizeof reason, "%s", err_text());
    for (int i = p->n; i-- > 0;) back = put_back(p, &p->items[i]) && back;
    pthread_mutex_lock(&p->e->lock);
    for (int i = 0; i < p->n; i++) {
        if (!p->items[i].opened || !find(p->e->site->site, p->items[i].model)) continue;
        opened = true;
        back = open_anew(p->e, p->items[i].model) == ERR_OK && back;
    }
    pthread_mutex_unlock(&p->e->lock);
    return err_set(why, "%s; %s", reason, back ? "the old one runs on" : opened ? "and the old one could not be opened again" : "the old one runs on, but could not be put back in its place");
}

static void done(struct publishing *p)
{
    for (int i = 0; i < p->n; i++)
        if (p->items[i].known) weights_manifest_done(&p->items[i].before);
    weights_store_close(&p->store);
    engine_site_unref(&p->site);
    mem_payer_free(&p->payer);
    mem_budget_free(&p->budget);
    free(p->items);
}

err engine_publish_all(struct engine *e, const char *const *models, const char *const *onnx, int n)
{
    struct publishing p = {.e = e, .site = engine_site_hold(e), .budget = mem_budget_new("import", UINT64_MAX), .n = n, .items = xnewn(struct item, n + 1)};
    p.payer = mem_payer_new(p.budget, "publish");
    err x = name_items(&p, models, onnx);
    if (x) p.n = 0;
    if (!x) x = import_all(&p);
    if (!x) {
        pthread_mutex_lock(&e->lock);
        x = open_all(&p);
        pthread_mutex_unlock(&e->lock);
    }
    if (x && p.n) x = undo(&p, x);
    for (int i = 0; i < n && !x; i++)
        if (p.items[i].opened) log_info("engine", "model '%s' is %s now; the one before is kept", models[i], onnx[i]);
    done(&p);
    return x;
}

err engine_publish(struct engine *e, const char *model, const char *onnx)
{
    return engine_publish_all(e, &model, &onnx, 1);
}

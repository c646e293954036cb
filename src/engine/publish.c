/* A model's ONNX file is replaced while the box runs: what a job has made takes the place of what the site names.
 *
 *   FILE.before <- FILE (a second name), FILE <- the new one (written beside, synced, renamed), the model and its queries are opened anew.
 *   If the new one cannot run, FILE comes back from FILE.before and is opened again.
 *
 * At every moment FILE is one of the two, whole: a box that dies in between starts with either. SPDX-License-Identifier: Apache-2.0 */
#include "engine/job_inside.h"

#include "base/log.h"
#include "weights/fs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* With engine->lock held. */
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

static err replace(struct engine *e, const char *model, const char *onnx, const char *file)
{
    char reason[512], *before = xasprintf("%s.before", file);
    err x = keep_old(file, before);
    if (!x) x = put(onnx, file);
    if (!x && (x = open_anew(e, model))) {
        snprintf(reason, sizeof reason, "%s", err_text());
        bool back = rename(before, file) == 0 && open_anew(e, model) == ERR_OK;
        x = err_set(x, "%s; %s", reason, back ? "the old one runs on" : "and the old one could not be opened again");
    }
    free(before);
    return x;
}

err engine_publish(struct engine *e, const char *model, const char *onnx)
{
    pthread_mutex_lock(&e->lock);
    const struct site_model *m = find(e->site->site, model);
    err x = ERR_OK;
    if (!m) x = err_set(ERR_NOT_FOUND, "the site has no model '%s' any more", model);
    else if (access(m->onnx, F_OK)) x = err_set(ERR_UNSUPPORTED, "model '%s' is no file but one of the store; import the new one with 'brim model import'", model);
    else x = replace(e, model, onnx, m->onnx);
    pthread_mutex_unlock(&e->lock);
    if (!x) log_info("engine", "model '%s' is %s now; the one before is kept beside it", model, onnx);
    return x;
}

/* From a site to running parts, the first time and at every reload.
 *
 * What is the same in both sites is kept, with everything it holds; what changed is closed first (so that its memory is there for what
 * comes) and opened anew. Streams go before models and cameras, because they borrow them. A model or query that cannot run stays in the lists
 * with its problem, so that people see it; only running out of budget ends the whole.
 *
 * Invariant: called with engine->lock held (or before any thread runs); no stream refers to a model or camera that is not in the lists.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/guard_inside.h"

#include "base/log.h"
#include "engine/site_diff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool stays(const struct site_change *changes, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(changes[i].name, name)) return changes[i].same;
    return false;
}

/* A query that could not run is opened again at a reload: what was wrong with it may lie outside the site file (a card, a model's file). */
static bool runs(const struct engine *e, const char *query)
{
    bool found = false;
    for (const struct engine_stream *s = e->streams; s; s = s->next) {
        if (strcmp(s->q->name, query) != 0) continue;
        if (!s->sched) return false;
        found = true;
    }
    return found;
}

static bool uses(const struct site *s, const struct site_query *q, const char *model)
{
    if (q->model >= 0 && !strcmp(s->models[q->model].name, model)) return true;
    for (size_t k = 0; k < q->cascade_count; k++)
        if (!strcmp(s->models[q->cascade[k].model].name, model)) return true;
    return false;
}

static bool used(const struct site *s, const char *model)
{
    for (size_t i = 0; i < s->query_count; i++)
        if (uses(s, &s->queries[i], model)) return true;
    return false;
}

/* Its file was replaced: it is opened anew, and so is what stands on it. */
static bool renewed(const struct engine *e, const char *model)
{
    return e->renew && !strcmp(e->renew, model);
}

/* ---- closing */

/* A stream feeds its cascades, and a cascade writes into its parent: so all are stopped, parents first, before any is freed. */
static void close_streams(struct engine *e, const struct site_diff *d)
{
    struct engine_stream *doomed = NULL, **at = &e->streams;
    for (struct engine_stream *s = e->streams; s; s = s->next) {
        s->stays = d && stays(d->queries, d->query_count, s->q->name) && runs(e, s->q->name) &&
                   !(e->renew && uses(s->site->site, s->q, e->renew));
    }
    while (*at) {
        struct engine_stream *s = *at;
        if (s->stays) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        s->next = doomed;
        doomed = s;
    }
    for (int cascades = 0; cascades <= 1; cascades++)
        for (struct engine_stream *s = doomed; s; s = s->next)
            if ((s->cascade != NULL) == cascades && s->sched) sched_stream_remove(e->sched, &s->sched);
    while (doomed) {
        struct engine_stream *s = doomed;
        doomed = s->next;
        engine_stream_close(&s);
    }
}

static void close_models(struct engine *e, const struct site_diff *d, const struct site *site)
{
    size_t n = 0;
    for (size_t i = 0; i < e->n_models; i++) {
        if (d && stays(d->models, d->model_count, e->models[i]->name) && e->models[i]->sched && used(site, e->models[i]->name) &&
            !renewed(e, e->models[i]->name))
            e->models[n++] = e->models[i];
        else
            engine_model_close(&e->models[i]);
    }
    e->n_models = n;
}

static void close_cameras(struct engine *e, const struct site_diff *d)
{
    size_t n = 0;
    for (size_t i = 0; i < e->n_cameras; i++) {
        if (d && stays(d->cameras, d->camera_count, e->cameras[i]->name))
            e->cameras[n++] = e->cameras[i];
        else
            engine_camera_close(&e->cameras[i]);
    }
    e->n_cameras = n;
}

/* ---- opening */

static bool have_camera(const struct engine *e, const char *name)
{
    for (size_t i = 0; i < e->n_cameras; i++)
        if (!strcmp(e->cameras[i]->name, name)) return true;
    return false;
}

static bool have_model(const struct engine *e, const char *name)
{
    for (size_t i = 0; i < e->n_models; i++)
        if (!strcmp(e->models[i]->name, name)) return true;
    return false;
}

static bool have_stream(const struct engine *e, const char *query)
{
    for (const struct engine_stream *s = e->streams; s; s = s->next)
        if (!strcmp(s->q->name, query)) return true;
    return false;
}

static err open_cameras(struct engine *e, struct engine_site *site)
{
    e->cameras = xrealloc(e->cameras, MAX(site->site->camera_count, (size_t)1) * sizeof *e->cameras);
    for (size_t i = 0; i < site->site->camera_count; i++) {
        if (have_camera(e, site->site->cameras[i].name)) continue;
        err x = engine_camera_open(e, site, &site->site->cameras[i], &e->cameras[e->n_cameras]);
        if (x) return err_wrap(x, "camera '%s'", site->site->cameras[i].name);
        e->n_cameras++;
    }
    return ERR_OK;
}

static err open_models(struct engine *e, struct engine_site *site)
{
    e->models = xrealloc(e->models, MAX(site->site->model_count, (size_t)1) * sizeof *e->models);
    for (size_t i = 0; i < site->site->model_count; i++) {
        const struct site_model *o = &site->site->models[i];
        if (have_model(e, o->name) || !used(site->site, o->name)) continue;
        err x = engine_model_open(e, site, o, &e->models[e->n_models++]);
        if (x == ERR_NOMEM) return x;
        if (x) log_error("engine", "%s", err_text());
    }
    return ERR_OK;
}

static void push_stream(struct engine *e, struct engine_stream *s)
{
    struct engine_stream **at = &e->streams;
    while (*at) at = &(*at)->next;
    *at = s;
}

static err open_stream(struct engine *e, struct engine_site *site, const struct site_query *q, int camera)
{
    struct engine_stream *s;
    err x = engine_stream_open(e, site, q, camera, NULL, NULL, &s);
    if (x && x != ERR_NOMEM) log_error("engine", "query '%s': %s", s->name, err_text());
    for (size_t k = 0; k < q->cascade_count && !x; k++) {
        struct engine_stream *child;
        x = engine_stream_open(e, site, q, camera, &q->cascade[k], s, &child);
        if (!x) s->cascades[k] = child;
        push_stream(e, child);
        if (x && x != ERR_NOMEM) {
            log_error("engine", "query '%s': %s", child->name, err_text());
            x = ERR_OK;
        }
    }
    push_stream(e, s); /* the pump sees it only now, complete */
    return x == ERR_NOMEM ? x : ERR_OK;
}

static err open_streams(struct engine *e, struct engine_site *site, const struct site_diff *d)
{
    for (size_t i = 0; i < site->site->query_count; i++) {
        const struct site_query *q = &site->site->queries[i];
        if (d && stays(d->queries, d->query_count, q->name) && have_stream(e, q->name)) continue;
        for (size_t k = 0; k < q->camera_count; k++) {
            err x = open_stream(e, site, q, q->cameras[k]);
            if (x) return x;
        }
    }
    return ERR_OK;
}

/* ---- the arena that all plans share */

/* Every model has two plans at most: number 2i is for one picture, 2i + 1 for a batch. NULL: there is none. */
static struct model_plan *plan_number(struct engine *e, size_t i)
{
    return i % 2 ? e->models[i / 2]->many.plan : e->models[i / 2]->one.plan;
}

static err grow_arena(struct engine *e)
{
    size_t arena = 0, scratch = 0;
    for (size_t i = 0; i < 2 * e->n_models; i++) {
        const struct model_plan *p = plan_number(e, i);
        struct model_sizes s = p ? model_plan_sizes(p) : (struct model_sizes){0};
        arena = MAX(arena, s.activations);
        scratch = MAX(scratch, s.scratch);
    }
    if (!e->arena || !e->scratch || arena != e->arena_bytes || scratch != e->scratch_bytes) {
        sched_stop(e->sched); /* nobody runs while the ground is changed; nor without it, if this fails */
        mem_free(e->payer, MEM_ACTIVATIONS, e->arena, e->arena_bytes);
        mem_free(e->payer, MEM_SCRATCH, e->scratch, e->scratch_bytes);
        e->arena = e->scratch = NULL;
        e->arena_bytes = arena;
        e->scratch_bytes = scratch;
        err x = mem_alloc(e->payer, MEM_ACTIVATIONS, arena, &e->arena);
        if (!x) x = mem_alloc(e->payer, MEM_SCRATCH, scratch, &e->scratch);
        if (x) return x;
    }
    for (size_t i = 0; i < 2 * e->n_models; i++)
        if (plan_number(e, i)) model_plan_bind(plan_number(e, i), e->arena, e->scratch);
    for (size_t i = 0; i < e->n_models; i++) engine_eye_bind(e->models[i]);
    return e->running ? sched_start(e->sched) : ERR_OK;
}

err engine_build(struct engine *e, struct engine_site *site)
{
    struct site_diff *d = e->site ? site_diff(e->site->site, site->site) : NULL;
    close_streams(e, d);
    close_models(e, d, site->site);
    close_cameras(e, d);
    err x = open_cameras(e, site);
    if (!x) x = open_models(e, site);
    if (!x) x = grow_arena(e);
    if (!x) x = open_streams(e, site, d);
    site_diff_free(&d);
    return x;
}

/* Measuring precision beside the box: `precision: auto` needs runs in f32 and in bf16 (model/choose.c), seconds for a large model. A box does not wait for
 * that: a model without a verdict runs in f32 first, and this thread measures it when the box has run for a while, with nothing but idle time (SCHED_IDLE, its team
 * too) and inside the budget. The verdict lies in the store and counts from the next start on.
 *
 * The thread has models of its own, from the same files; it touches nothing of the running ones. Invariant: what it knows is copied before it starts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/inside.h"

#include "base/log.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AFTER_MS = 20000 };

struct job {
    char *path, *name, *payer; /* payer: what `brim mem` calls it */
    bool stored;
    struct model_options o;
    int n_shapes;
    struct tensor_shape shapes[TASK_MAX_INPUTS];
};

struct engine_precise {
    struct engine *engine;
    pthread_t thread;
    struct thread_event wake; /* stop */
    atomic_bool stop;
    size_t n;
    struct job *jobs;
};

static err measure(struct engine_precise *p, struct job *j)
{
    struct model *m = NULL;
    struct model_plan *plan = NULL;
    err e = j->stored ? model_open_stored(p->engine->models_store, j->path, j->payer, &j->o, &m) : model_open(j->path, j->payer, &j->o, &m);
    if (!e) e = model_plan_new(m, j->shapes, &plan); /* measures first */
    bool pending = m && model_precision_pending(m);
    model_plan_free(&plan);
    model_free(&m);
    return e ? e : pending ? err_set(ERR_NOMEM, "the budget has no room for it") : ERR_OK;
}

static void *precise_main(void *arg)
{
    struct engine_precise *p = arg;
    struct sched_param none = {0};
    pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    thread_event_wait(&p->wake, AFTER_MS);
    for (size_t i = 0; i < p->n && !atomic_load(&p->stop); i++) {
        err e = measure(p, &p->jobs[i]);
        if (e == ERR_CANCELLED) break;
        if (e) log_info("engine", "model '%s': its precision could not be measured (%s); it stays f32. brim plan measures it, too", p->jobs[i].name, err_text());
        else log_info("engine", "model '%s': precision measured; it counts from the next start on", p->jobs[i].name);
    }
    return NULL;
}

static void add(struct engine_precise *p, const struct engine_model *m)
{
    struct job *j = &p->jobs[p->n];
    j->o = m->options;
    j->n_shapes = model_input_count(m->model);
    if (j->n_shapes > TASK_MAX_INPUTS) return;
    for (int i = 0; i < j->n_shapes; i++) j->shapes[i] = model_plan_input(m->one.plan, i).shape;
    j->o.precision_later = false;
    j->o.precision_in_budget = true;
    j->o.stop = &p->stop;
    j->stored = m->stored;
    const char *slash = strrchr(m->o->onnx, '/');
    j->path = xstrdup(m->stored && slash ? slash + 1 : m->o->onnx);
    j->name = xstrdup(m->name);
    j->payer = xasprintf("%s (measuring)", m->name);
    p->n++;
}

static void free_all(struct engine_precise *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->jobs[i].path);
        free(p->jobs[i].name);
        free(p->jobs[i].payer);
    }
    free(p->jobs);
    free(p);
}

err engine_precise_start(struct engine *e, struct engine_precise **ret)
{
    struct engine_precise *p = xnew(struct engine_precise);
    p->engine = e;
    p->jobs = xnewn(struct job, e->n_models + 1);
    for (size_t i = 0; i < e->n_models; i++)
        if (e->models[i]->one.plan && model_precision_pending(e->models[i]->model)) add(p, e->models[i]);
    err x = p->n ? thread_event_init(&p->wake) : ERR_OK;
    if (!x && p->n && (x = thread_start("brim-precise", precise_main, p, &p->thread))) thread_event_done(&p->wake);
    *ret = x || !p->n ? NULL : p;
    if (!*ret) free_all(p);
    return x;
}

void engine_precise_stop(struct engine_precise **pp)
{
    struct engine_precise *p = *pp;
    if (!p) return;
    atomic_store(&p->stop, true);
    thread_event_set(&p->wake);
    pthread_join(p->thread, NULL);
    thread_event_done(&p->wake);
    free_all(p);
    *pp = NULL;
}

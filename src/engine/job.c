/* The list of jobs, from outside: add, stop, start, remove, snapshots. SPDX-License-Identifier: Apache-2.0 */
#include "engine/job_inside.h"

#include "base/text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void engine_job_kinds(struct engine *e, const struct engine_job_kind *kinds, int n)
{
    if (e->jobs) return;
    struct engine_jobs *js = xnew(struct engine_jobs);
    js->engine = e;
    js->kinds = kinds;
    js->n_kinds = n;
    pthread_mutex_init(&js->lock, NULL);
    if (thread_event_init(&js->wake)) {
        pthread_mutex_destroy(&js->lock);
        free(js);
        return;
    }
    e->jobs = js;
}

void engine_jobs_free(struct engine *e)
{
    struct engine_jobs *js = e->jobs;
    if (!js) return;
    engine_jobs_close(e);
    while (js->list) {
        struct engine_job *j = js->list;
        js->list = j->next;
        engine_job_free(&j);
    }
    thread_event_done(&js->wake);
    pthread_mutex_destroy(&js->lock);
    free(js->dir);
    free(js);
    e->jobs = NULL;
}

static err there_are_jobs(const struct engine *e)
{
    return e->jobs && e->jobs->started ? ERR_OK : err_set(ERR_UNSUPPORTED, "this box runs no jobs");
}

/* A name of a file, that begins with a letter. */
bool engine_job_good_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");
    return isalpha((unsigned char)s[0]) && !s[n] && n <= 64;
}

static const struct engine_job_kind *kind_of(const struct engine_jobs *js, const char *name)
{
    for (int i = 0; i < js->n_kinds; i++)
        if (!strcmp(js->kinds[i].name, name)) return &js->kinds[i];
    return NULL;
}

static err check(const struct engine_jobs *js, const struct engine_job_options *o, const struct engine_job_kind **ret)
{
    const struct engine_job_kind *kind = kind_of(js, o->kind);
    if (!kind) return err_set(ERR_USAGE, "there are no jobs of the kind '%s'", o->kind);
    if (o->name && !engine_job_good_name(o->name)) return err_set(ERR_USAGE, "'%s' is no name for a job: letters, digits, '_', '.', '-', a letter first, 64 at most", o->name);
    if (!o->folder || o->folder[0] != '/') return err_set(ERR_USAGE, "a job needs an absolute folder");
    if (o->n_words > ENGINE_JOB_WORDS) return err_set(ERR_LIMIT, "a job has at most %d words", ENGINE_JOB_WORDS);
    for (int i = 0; i < o->n_words; i++) {
        json_t *utf8 = json_string(o->words[i]);
        if (!utf8) return err_set(ERR_USAGE, "the words of a job are UTF-8: number %d is not", i + 1);
        json_decref(utf8);
    }
    if (o->publish && kind->publishes) return err_set(ERR_USAGE, "a %s replaces the site's models by itself: do without 'publish'", kind->name);
    if (o->publish) { /* known now, not after hours of work */
        struct engine_site *hold = engine_site_hold(js->engine);
        const struct site *s = engine_site_get(hold);
        bool found = false;
        for (size_t i = 0; i < s->model_count; i++) found = found || !strcmp(s->models[i].name, o->publish);
        engine_site_unref(&hold);
        if (!found) return err_set(ERR_NOT_FOUND, "the site has no model '%s' to replace", o->publish);
    }
    *ret = kind;
    return kind->check(o->folder, o->words, o->n_words);
}

/* Lock held. */
static struct engine_job *find(const struct engine_jobs *js, const char *name)
{
    for (struct engine_job *j = js->list; j; j = j->next)
        if (!strcmp(j->row.name, name) && !j->remove) return j;
    return NULL;
}

static err unknown(const struct engine_jobs *js, const char *name)
{
    struct strbuf names = {0};
    for (const struct engine_job *j = js->list; j; j = j->next)
        if (!j->remove) strbuf_addf(&names, "%s%s", names.len ? ", " : "", j->row.name);
    err x = err_set(ERR_NOT_FOUND, "no job '%s'; there are: %s", name, names.len ? names.s : "none");
    strbuf_done(&names);
    return x;
}

static err add(struct engine_jobs *js, const struct engine_job_options *o, const struct engine_job_kind *kind, char *ret_name)
{
    int n = 0;
    char number[72];
    struct engine_job_options named = *o;
    struct engine_job **at = &js->list;
    for (; *at; at = &(*at)->next) n++;
    if (n >= ENGINE_MAX_JOBS) return err_set(ERR_LIMIT, "the box keeps at most %d jobs; remove one that is done ('brim job remove NAME')", ENGINE_MAX_JOBS);
    for (int k = 1; !o->name && (named.name == NULL || find(js, named.name)); k++) {
        snprintf(number, sizeof number, "%.40s-%d", kind->name, k);
        named.name = number;
    }
    if (find(js, named.name)) return err_set(ERR_BUSY, "there is a job '%s' already; 'brim job remove %s', or give another --name", named.name, named.name);
    struct engine_job *j = engine_job_make(js, &named, kind, ++js->last_number);
    err x = engine_job_store(j);
    if (x) {
        engine_job_free(&j);
        return x;
    }
    *at = j;
    snprintf(ret_name, 72, "%s", j->row.name);
    return ERR_OK;
}

err engine_job_add(struct engine *e, const struct engine_job_options *o, char ret_name[72])
{
    const struct engine_job_kind *kind = NULL;
    err x = there_are_jobs(e);
    if (!x) x = check(e->jobs, o, &kind);
    if (x) return x;
    pthread_mutex_lock(&e->jobs->lock);
    x = add(e->jobs, o, kind, ret_name);
    pthread_mutex_unlock(&e->jobs->lock);
    thread_event_set(&e->jobs->wake);
    return x;
}

static err stop_job(struct engine_job *j)
{
    if (j->row.state == ENGINE_JOB_RUNNING) {
        j->reason = ENGINE_JOB_USER;
        atomic_store(&j->stop, true);
        return ERR_OK;
    }
    if (j->row.state != ENGINE_JOB_WAITING) return err_set(ERR_USAGE, "job '%s' does not run: it is %s", j->row.name, engine_job_state_name(j->row.state));
    j->row.state = ENGINE_JOB_STOPPED;
    j->row.why[0] = 0;
    return engine_job_store(j);
}

static err start_job(struct engine_job *j)
{
    if (j->row.state == ENGINE_JOB_RUNNING || j->row.state == ENGINE_JOB_WAITING)
        return err_set(ERR_USAGE, "job '%s' is %s already", j->row.name, engine_job_state_name(j->row.state));
    if (j->row.state == ENGINE_JOB_DONE) return err_set(ERR_USAGE, "job '%s' is done", j->row.name);
    j->row.state = ENGINE_JOB_WAITING;
    j->row.why[0] = 0;
    j->row.need = 0; /* asked anew: the person may have made room */
    j->starts = 0;
    j->not_before_ns = 0;
    return engine_job_store(j);
}

static err remove_job(struct engine_job *j)
{
    if (j->row.state == ENGINE_JOB_RUNNING || j == j->jobs->running) return err_set(ERR_BUSY, "job '%s' runs: 'brim job stop %s' first", j->row.name, j->row.name);
    err e = engine_job_forget(j);
    j->remove = !e; /* the manager frees it */
    return e;
}

static err with_job(struct engine *e, const char *name, err (*act)(struct engine_job *j))
{
    err x = there_are_jobs(e);
    if (x) return x;
    pthread_mutex_lock(&e->jobs->lock);
    struct engine_job *j = find(e->jobs, name);
    x = j ? act(j) : unknown(e->jobs, name);
    pthread_mutex_unlock(&e->jobs->lock);
    thread_event_set(&e->jobs->wake);
    return x;
}

static void clear_problem(struct engine *e, const char *name)
{
    char *what = xasprintf("job %s", name);
    engine_set_problem(e, what, "");
    free(what);
}

err engine_job_stop(struct engine *e, const char *name)
{
    return with_job(e, name, stop_job);
}

err engine_job_start(struct engine *e, const char *name)
{
    err x = with_job(e, name, start_job);
    if (!x) clear_problem(e, name);
    return x;
}

err engine_job_remove(struct engine *e, const char *name)
{
    err x = with_job(e, name, remove_job);
    if (!x) clear_problem(e, name);
    return x;
}

/* ---- snapshots */

size_t engine_jobs(struct engine *e, struct engine_job_row **ret)
{
    size_t n = 0;
    *ret = xnewn(struct engine_job_row, ENGINE_MAX_JOBS + 1);
    if (!e->jobs) return 0;
    pthread_mutex_lock(&e->jobs->lock);
    for (const struct engine_job *j = e->jobs->list; j && n < ENGINE_MAX_JOBS; j = j->next) {
        if (j->remove) continue;
        struct engine_job_row *r = &(*ret)[n++];
        *r = j->row;
        r->bytes = j->payer ? mem_payer_used(j->payer, MEM_TRAINING) : 0;
        r->need = MAX(r->need, r->bytes);
        if (j->row.state == ENGINE_JOB_RUNNING) r->seconds = (double)(clock_ns() - j->begun_ns) / 1e9;
    }
    pthread_mutex_unlock(&e->jobs->lock);
    return n;
}

json_t *engine_jobs_json(struct engine *e)
{
    struct engine_job_row *rows;
    size_t n = engine_jobs(e, &rows);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        const struct engine_job_row *r = &rows[i];
        json_t *numbers = json_object();
        for (int k = 0; k < r->n; k++) json_object_set_new(numbers, r->numbers[k].name, json_real(r->numbers[k].value));
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:o, s:s, s:f, s:f, s:f, s:I, s:I, s:i, s:o}", "name", r->name, "kind", r->kind, "state",
                                              engine_job_state_name(r->state), "why", text_json(r->why), "publish", r->publish, "done", r->done, "eta_s", r->eta_s,
                                              "seconds", r->seconds, "bytes", (json_int_t)r->bytes, "need_bytes", (json_int_t)r->need, "pauses", r->pauses,
                                              "numbers", numbers));
    }
    free(rows);
    return list;
}

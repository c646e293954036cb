/* Jobs that the site file names: made when the box starts and when the file is read again, and gone when the file no longer has them. What a job is made of (kind, words,
 * folder, model) is compared; one that is as before is left alone, whatever has become of it: done stays done, stopped stays stopped. `between` may change at any time.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/job_inside.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool engine_job_in_hours(int from, int to, int minute)
{
    if (from < 0 || to < 0) return true;
    return from < to ? minute >= from && minute < to : minute >= from || minute < to;
}

bool engine_job_may_run(const struct engine_job *j, char *why, size_t size)
{
    struct tm t;
    time_t now = time(NULL);
    if (!localtime_r(&now, &t) || engine_job_in_hours(j->from, j->to, 60 * t.tm_hour + t.tm_min)) return true;
    snprintf(why, size, "it runs from %02d:%02d to %02d:%02d", j->from / 60 % 24, j->from % 60, j->to / 60 % 24, j->to % 60);
    return false;
}

static bool as_before(const struct engine_job *j, const struct site *s, const struct site_job *w, const char *folder)
{
    const char *publish = w->publish >= 0 ? s->models[w->publish].name : "";
    bool same = !strcmp(j->row.kind, w->kind) && !strcmp(j->folder, folder) && !strcmp(j->row.publish, publish) && (size_t)j->n_words == w->word_count;
    for (size_t i = 0; i < w->word_count && same; i++) same = !strcmp(j->words[i], w->words[i]);
    return same;
}

static const struct site_job *wanted(const struct site *s, const char *name)
{
    for (size_t i = 0; i < s->job_count; i++)
        if (!strcmp(s->jobs[i].name, name)) return &s->jobs[i];
    return NULL;
}

/* Lock held. One that runs ends first: its entry goes then. */
static void drop(struct engine_job *j)
{
    log_info("engine", "job '%s': the site file no longer has it so; what it wrote stays", j->row.name);
    if (j->row.state == ENGINE_JOB_RUNNING) {
        j->reason = ENGINE_JOB_USER;
        atomic_store(&j->stop, true);
    }
    (void)engine_job_forget(j); /* what is left is of the site file, and goes at the next start */
    j->remove = true; /* the manager frees it */
}

/* What became of those that are in the list. Lock held. */
static void follow(struct engine_jobs *js, const struct site *s, const char *folder)
{
    for (struct engine_job *j = js->list; j; j = j->next) {
        const struct site_job *w = j->remove || !j->of_site ? NULL : wanted(s, j->row.name);
        if (w && as_before(j, s, w, folder)) {
            j->from = w->from;
            j->to = w->to;
        } else if (j->of_site && !j->remove) {
            drop(j);
        }
    }
}

static bool lives(const struct engine_jobs *js, const char *name)
{
    for (const struct engine_job *j = js->list; j; j = j->next)
        if (!j->remove && !strcmp(j->row.name, name)) return true;
    return false;
}

/* What was wrong with jobs that are nowhere any more: in the list no longer, or never, and not in the file. Lock held. */
static void forget_problems(struct engine_jobs *js, const struct site *s)
{
    struct engine *e = js->engine;
    const char *what;
    json_t *sentence;
    void *next;
    pthread_mutex_lock(&e->problems_lock);
    json_object_foreach_safe(e->problems, next, what, sentence)
        if (str_starts(what, "job ") && !lives(js, what + 4) && !wanted(s, what + 4)) json_object_del(e->problems, what);
    pthread_mutex_unlock(&e->problems_lock);
}

static bool is_there(struct engine_jobs *js, const char *name, bool *ret_of_site)
{
    bool found = false;
    pthread_mutex_lock(&js->lock);
    for (const struct engine_job *j = js->list; j && !found; j = j->next)
        if (!j->remove && !strcmp(j->row.name, name)) found = true, *ret_of_site = j->of_site;
    pthread_mutex_unlock(&js->lock);
    return found;
}

static void make(struct engine *e, const struct site *s, const struct site_job *w, const char *folder)
{
    bool of_site = true;
    char name[72], *what = xasprintf("job %s", w->name);
    struct engine_job_options o = {.name = w->name, .kind = w->kind, .folder = folder, .words = w->words, .n_words = (int)w->word_count,
                                   .publish = w->publish >= 0 ? s->models[w->publish].name : NULL, .of_site = true, .from = w->from, .to = w->to};
    err x = ERR_OK;
    bool there = is_there(e->jobs, w->name, &of_site);
    if (there && !of_site) x = err_set(ERR_BUSY, "job '%s' of the site file: one of that name was given to the box by hand; 'brim job remove %s', or rename it", w->name, w->name);
    if (!there) x = engine_job_add(e, &o, name);
    if (x) log_error("engine", "job '%s': %s", w->name, err_text());
    if (x || !there) engine_set_problem(e, what, x ? err_text() : "");
    free(what);
}

void engine_jobs_follow_site(struct engine *e)
{
    struct engine_jobs *js = e->jobs;
    if (!js || !js->started) return;
    struct engine_site *hold = engine_site_hold(e);
    const struct site *s = engine_site_get(hold);
    char *folder = realpath(s->folder, NULL);
    if (folder) {
        pthread_mutex_lock(&js->lock);
        follow(js, s, folder);
        forget_problems(js, s);
        pthread_mutex_unlock(&js->lock);
        for (size_t i = 0; i < s->job_count; i++) make(e, s, &s->jobs[i], folder);
    }
    thread_event_set(&js->wake);
    free(folder);
    engine_site_unref(&hold);
}

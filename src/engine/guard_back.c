/* Going back: the original takes the place of the merged model, and the search that merged it hears of it.
 *
 * Order: STORE/guard.json, the model (engine_publish), then the search: its job is stopped if it runs, merge.json is told, the job goes on. A death in between
 * leaves a model that is what it was, or its original; the next start compares the two, and goes on with what is not told yet. SPDX-License-Identifier: Apache-2.0 */
#include "engine/guard_inside.h"

#include "base/log.h"
#include "engine/job_inside.h"
#include "methods/merge_guard.h"
#include "weights/fs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char SEARCH[] = "merge"; /* the kind of job */

/* ---- what went back, for the next start */

void engine_guard_load(struct engine_guards *gs)
{
    json_decref(gs->record);
    gs->record = json_load_file(gs->record_path, 0, NULL);
    if (json_is_object(gs->record)) return;
    json_decref(gs->record);
    gs->record = json_object();
}

static void store(struct engine_guards *gs)
{
    char *text = json_dumps(gs->record, JSON_INDENT(1));
    const void *part = text;
    size_t n = strlen(text);
    if (weights_fs_put(&weights_fs_system, gs->engine->store, gs->engine->store, "guard.json", &part, &n, 1, false))
        log_warn("engine", "%s could not be written, and the next start will not know what went back: %s", gs->record_path, err_text());
    free(text);
}

const json_t *engine_guard_record(struct engine_guard *g)
{
    const json_t *r = json_object_get(g->guards->record, g->row.model);
    const char *file = json_string_value(json_object_get(r, "file"));
    return file && !strcmp(file, g->file) ? r : NULL;
}

void engine_guard_forget(struct engine_guard *g)
{
    if (json_object_del(g->guards->record, g->row.model)) return; /* there was nothing */
    store(g->guards);
}

/* ---- is it its original? */

static err same_bytes(const char *a, const char *b, bool *ret)
{
    static const size_t SIZE = 1 << 16;
    FILE *f = fopen(a, "rbe"), *g = f ? fopen(b, "rbe") : NULL;
    if (!f || !g) {
        err e = err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open %s: %s", f ? b : a, strerror(errno));
        if (f) fclose(f);
        return e;
    }
    char *x = xnewn(char, 2 * SIZE), *y = x + SIZE;
    bool same = true, end = false;
    while (same && !end) {
        size_t n = fread(x, 1, SIZE, f), m = fread(y, 1, SIZE, g);
        same = n == m && !memcmp(x, y, n);
        end = n < SIZE;
    }
    bool failed = ferror(f) || ferror(g);
    fclose(f);
    fclose(g);
    free(x);
    if (failed) return err_set(ERR_IO, "%s or %s cannot be read", a, b);
    *ret = same;
    return ERR_OK;
}

/* The content that a name of the store has now. */
static err content_of(const struct engine_guard *g, char text[65])
{
    struct weights_store *s = NULL;
    struct weights_manifest m;
    const char *slash = strrchr(g->file, '/');
    err e = weights_store_open(g->guards->engine->store, NULL, &s);
    if (!e) e = weights_manifest_current(s, slash ? slash + 1 : g->file, &m);
    if (!e) {
        weights_id_text(&m.id, text);
        weights_manifest_done(&m);
    }
    weights_store_close(&s);
    return e;
}

err engine_guard_equal(struct engine_guard *g, bool *ret)
{
    if (!g->stored) return same_bytes(g->file, g->original, ret);
    char now[65];
    const char *then = json_string_value(json_object_get(engine_guard_record(g), "content"));
    struct stat there;
    if (stat(g->original, &there)) return err_set(ERR_NOT_FOUND, "cannot open %s: %s", g->original, strerror(errno));
    err e = content_of(g, now);
    if (!e) *ret = then && !strcmp(then, now);
    return e;
}

/* ---- back */

/* Written before the model is replaced, so that a box that dies then knows why it is its original. */
static void note(struct engine_guard *g, const struct merge_drift_verdict *v, double now)
{
    json_t *r = json_pack("{s:s, s:s, s:f, s:f, s:f, s:i, s:b}", "file", g->file, "content", "", "time", now, "score", v->score, "target", g->o.target, "frames", v->pictures,
                          "told", g->out == NULL);
    json_object_set_new(g->guards->record, g->row.model, r);
    store(g->guards);
}

static void note_content(struct engine_guard *g)
{
    char content[65];
    if (content_of(g, content)) {
        log_warn("engine", "%s", err_text());
        return;
    }
    json_object_set_new(json_object_get(g->guards->record, g->row.model), "content", json_string(content));
    store(g->guards);
}

err engine_guard_go_back(struct engine_guard *g, const struct merge_drift_verdict *v)
{
    struct engine *e = g->guards->engine;
    char what[80], text[256];
    double now = clock_wall();
    snprintf(what, sizeof what, "guard %.64s", g->row.model);
    note(g, v, now);
    err x = engine_publish(e, g->row.model, g->original);
    if (x) {
        x = err_wrap(x, "it is %.1f %% like its original (at least %.1f), and cannot go back", 100 * v->score, 100 * g->o.target);
        engine_set_problem(e, what, err_text());
        engine_guard_forget(g);
        return x;
    }
    if (g->stored) note_content(g);
    snprintf(text, sizeof text, "merged, it was %.1f %% like its original on the last %d frames (at least %.1f): it runs with its original weights again, the others keep sharing",
             100 * v->score, v->pictures, 100 * g->o.target);
    engine_set_problem(e, what, text);
    pthread_mutex_lock(&g->guards->lock);
    g->row.state = ENGINE_GUARD_REVERTED;
    g->row.reverted_at = now;
    g->row.reverted_score = v->score;
    g->row.why[0] = 0;
    pthread_mutex_unlock(&g->guards->lock);
    return ERR_OK;
}

/* ---- the search */

/* Of the words of a job of the kind "merge", those that name a folder (absolute, or of its own folder) are offered to `fits`, until it says yes: then *ret_folder is the
 * folder, and the job's row is copied. Jobs are looked at from the newest. */
static bool find_search(struct engine_guards *gs, bool (*fits)(const char *folder, const char *what), const char *what, struct engine_job_row *row, char **ret_folder)
{
    struct engine_jobs *js = gs->engine->jobs;
    char *found = NULL;
    if (!js) return false;
    pthread_mutex_lock(&js->lock);
    for (const struct engine_job *j = js->list; j; j = j->next) {
        if (strcmp(j->row.kind, SEARCH) != 0 || j->remove) continue;
        for (int i = 0; i < j->n_words; i++) {
            const char *word = str_starts(j->words[i], "--out=") ? j->words[i] + 6 : j->words[i];
            char *folder = word[0] == '/' ? xstrdup(word) : xasprintf("%s/%s", j->folder, word);
            if (!fits(folder, what)) {
                free(folder);
                continue;
            }
            free(found);
            found = folder;
            *row = j->row;
        }
    }
    pthread_mutex_unlock(&js->lock);
    if (ret_folder && found) *ret_folder = found;
    else free(found);
    return found != NULL;
}

static bool holds_original(const char *folder, const char *member)
{
    char *report = xasprintf("%s/merge.json", folder), *original = xasprintf("%s/models/%s.onnx", folder, member);
    bool yes = !access(report, F_OK) && !access(original, F_OK);
    free(report);
    free(original);
    return yes;
}

static bool same_folder(const char *folder, const char *out)
{
    struct stat a, b;
    return !stat(folder, &a) && !stat(out, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

char *engine_guard_search_of(struct engine_guards *gs, const char *member)
{
    struct engine_job_row row;
    char *out = NULL;
    if (!find_search(gs, holds_original, member, &row, &out)) return NULL;
    char *original = xasprintf("%s/models/%s.onnx", out, member);
    free(out);
    return original;
}

/* One that is done has something to do again. One that a person stopped stays so. */
static void go_on(struct engine_guards *gs, const struct engine_job_row *job)
{
    struct engine_jobs *js = gs->engine->jobs;
    pthread_mutex_lock(&js->lock);
    for (struct engine_job *j = js->list; j; j = j->next)
        if (!strcmp(j->row.name, job->name) && j->row.state == ENGINE_JOB_DONE) j->row.state = ENGINE_JOB_STOPPED;
    pthread_mutex_unlock(&js->lock);
    if (engine_job_start(gs->engine, job->name)) log_warn("engine", "the search does not go on: %s", err_text());
    else log_info("engine", "the search of job '%s' goes on from here", job->name);
}

/* Before it is told anything its job must not run, nor begin: it would write over it. Noted first, so that a box that dies or ends now starts it again the next time. */
static bool stands_still(struct engine_guard *g, json_t *record, const struct engine_job_row *job)
{
    const char *stopped = json_string_value(json_object_get(record, "stopped"));
    if (job->state != ENGINE_JOB_RUNNING && job->state != ENGINE_JOB_WAITING) return true;
    if (!stopped || strcmp(stopped, job->name) != 0) {
        json_object_set_new(record, "stopped", json_string(job->name));
        store(g->guards);
    }
    (void)engine_job_stop(g->guards->engine, job->name); /* it may have ended just now */
    return false;
}

/* A search that is not told would bring the merged one back, so it waits until it is. One whose report is gone has nothing to hear. */
static bool tell(struct engine_guard *g, json_t *record)
{
    struct engine *e = g->guards->engine;
    char what[80], text[512];
    if (clock_ns() < g->tell_ns) return false;
    err x = merge_guard_note(g->out, g->member);
    snprintf(text, sizeof text, x ? "it could not be told that the model went back, and stands still until it is: %.400s" : "", x ? err_text() : "");
    snprintf(what, sizeof what, "search of %.64s", g->row.model);
    engine_set_problem(e, what, x == ERR_NOT_FOUND ? "" : text);
    g->tell_ns = x ? clock_ns() + ENGINE_GUARD_RETRY * g->o.every_ms * 1000000 : 0;
    if (x && x != ERR_NOT_FOUND) return false;
    json_object_set_new(record, "told", json_true());
    store(g->guards);
    return true;
}

void engine_guard_settle(struct engine_guard *g)
{
    struct engine_guards *gs = g->guards;
    struct engine_job_row job;
    json_t *r = json_object_get(gs->record, g->row.model);
    bool told = !r || json_is_true(json_object_get(r, "told"));
    if (!g->out || (told && !json_object_get(r, "stopped"))) return;
    bool is_job = find_search(gs, same_folder, g->out, &job, NULL);
    if (!told && ((is_job && !stands_still(g, r, &job)) || !tell(g, r))) return;
    const char *stopped = json_string_value(json_object_get(r, "stopped"));
    bool ours = is_job && stopped && !strcmp(stopped, job.name) && (job.state == ENGINE_JOB_STOPPED || job.state == ENGINE_JOB_FAILED);
    if (is_job && (ours || job.state == ENGINE_JOB_DONE)) go_on(gs, &job);
    if (stopped && !json_object_del(r, "stopped")) store(gs);
}

void engine_guard_clear(struct engine_guard *g)
{
    static const char *const of[] = {"guard", "search of"};
    char what[80];
    for (size_t i = 0; i < ARRAY_LEN(of); i++) {
        snprintf(what, sizeof what, "%s %.64s", of[i], g->row.model);
        engine_set_problem(g->guards->engine, what, "");
    }
}

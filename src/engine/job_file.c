/* What is known of a job on disk: STORE/jobs/NAME.json, replaced as a whole at every change of its state; so after a crash the box knows what to go on with.
 * A job that was running or waiting waits when it is read. SPDX-License-Identifier: Apache-2.0 */
#include "engine/job_inside.h"

#include "base/log.h"
#include "base/text.h"
#include "weights/fs.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES = 1 << 20 };
static const int64_t MOST_NUMBER = INT64_MAX / 2; /* so that there is always a next one */
static const char *const states[] = {"", "waiting", "running", "done", "stopped", "failed"};

const char *engine_job_state_name(enum engine_job_state s)
{
    return states[s];
}

struct engine_job *engine_job_make(struct engine_jobs *js, const struct engine_job_options *o, const struct engine_job_kind *kind, int64_t number)
{
    struct engine_job *j = xnew(struct engine_job);
    j->jobs = js;
    j->kind = kind;
    j->number = number;
    j->folder = xstrdup(o->folder);
    j->words = xnewn(char *, o->n_words + 1);
    j->n_words = o->n_words;
    for (int i = 0; i < o->n_words; i++) j->words[i] = xstrdup(o->words[i]);
    snprintf(j->row.name, sizeof j->row.name, "%s", o->name);
    snprintf(j->row.kind, sizeof j->row.kind, "%s", kind->name);
    snprintf(j->row.publish, sizeof j->row.publish, "%s", o->publish ? o->publish : "");
    j->row.state = ENGINE_JOB_WAITING;
    j->row.eta_s = -1;
    j->of_site = o->of_site;
    j->from = o->of_site ? o->from : -1;
    j->to = o->of_site ? o->to : -1;
    return j;
}

void engine_job_free(struct engine_job **jp)
{
    struct engine_job *j = *jp;
    if (!j) return;
    for (int i = 0; i < j->n_words; i++) free(j->words[i]);
    free(j->words);
    free(j->folder);
    free(j);
    *jp = NULL;
}

err engine_job_store(struct engine_job *j)
{
    json_t *words = json_array();
    for (int i = 0; i < j->n_words; i++) json_array_append_new(words, text_json(j->words[i]));
    json_t *o = json_pack("{s:i, s:s, s:s, s:o, s:o, s:s, s:s, s:o, s:b, s:b, s:i, s:I, s:I, s:f, s:b}", "version", 1, "name", j->row.name, "do", j->row.kind, "words", words, "folder",
                          text_json(j->folder), "publish", j->row.publish, "state", states[j->row.state], "why", text_json(j->row.why), "began", j->began, "worked", j->worked, "starts",
                          j->starts, "number", (json_int_t)j->number, "need", (json_int_t)j->row.need, "done", j->row.done, "site", j->of_site);
    char *text = json_dumps(o, JSON_INDENT(1) | JSON_PRESERVE_ORDER), *file = xasprintf("%s.json", j->row.name);
    const void *part = text;
    size_t n = text ? strlen(text) : 0;
    err e = text ? weights_fs_put(&weights_fs_system, j->jobs->dir, j->jobs->dir, file, &part, &n, 1, false) : err_set(ERR_INTERNAL, "job '%s' cannot be written", j->row.name);
    json_decref(o);
    free(text);
    free(file);
    return e;
}

err engine_job_forget(struct engine_job *j)
{
    char *path = xasprintf("%s/%s.json", j->jobs->dir, j->row.name);
    err e = unlink(path) && errno != ENOENT ? err_set(ERR_IO, "%s cannot be removed, and the job would be there again at the next start: %s", path, strerror(errno)) : ERR_OK;
    free(path);
    return e;
}

static const struct engine_job_kind *kind_of(const struct engine_jobs *js, const char *name)
{
    for (int i = 0; name && i < js->n_kinds; i++)
        if (!strcmp(js->kinds[i].name, name)) return &js->kinds[i];
    return NULL;
}

static enum engine_job_state state_of(const char *word)
{
    for (size_t i = 1; word && i < ARRAY_LEN(states); i++)
        if (!strcmp(word, states[i])) return i == ENGINE_JOB_RUNNING ? ENGINE_JOB_WAITING : (enum engine_job_state)i;
    return ENGINE_JOB_FAILED;
}

static const char *string_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static err from_json(struct engine_jobs *js, const json_t *o, const char *file, struct engine_job **ret)
{
    const char *words[ENGINE_JOB_WORDS], *name = string_of(o, "name");
    const json_t *list = json_object_get(o, "words");
    const struct engine_job_kind *kind = kind_of(js, json_string_value(json_object_get(o, "do")));
    json_int_t number = json_integer_value(json_object_get(o, "number"));
    if (json_integer_value(json_object_get(o, "version")) != 1 || strlen(name) + 5 != strlen(file) || strncmp(name, file, strlen(name)) != 0 || !engine_job_good_name(name) ||
        string_of(o, "folder")[0] != '/' || number < 0 || number > MOST_NUMBER)
        return err_set(ERR_FORMAT, "%s/%s: not a job of this program", js->dir, file);
    if (!kind) return err_set(ERR_UNSUPPORTED, "%s/%s: jobs of the kind '%s' are not known", js->dir, file, string_of(o, "do"));
    if (json_array_size(list) > ENGINE_JOB_WORDS) return err_set(ERR_LIMIT, "%s/%s: more than %d words", js->dir, file, ENGINE_JOB_WORDS);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!(words[i] = json_string_value(json_array_get(list, i)))) return err_set(ERR_FORMAT, "%s/%s: a word that is no text", js->dir, file);
    struct engine_job_options made = {.name = name, .folder = string_of(o, "folder"), .words = words, .n_words = (int)json_array_size(list), .publish = string_of(o, "publish"), .of_site = json_is_true(json_object_get(o, "site")), .from = -1, .to = -1};
    struct engine_job *j = engine_job_make(js, &made, kind, number);
    j->row.state = state_of(json_string_value(json_object_get(o, "state")));
    snprintf(j->row.why, sizeof j->row.why, "%s", string_of(o, "why"));
    j->began = json_is_true(json_object_get(o, "began"));
    j->worked = json_is_true(json_object_get(o, "worked"));
    j->starts = (int)MIN(MAX(json_integer_value(json_object_get(o, "starts")), 0), INT32_MAX / 2);
    j->row.done = fmin(fmax(json_number_value(json_object_get(o, "done")), 0), 1);
    *ret = j;
    return ERR_OK;
}

static err read_one(struct engine_jobs *js, const char *file, struct engine_job **ret)
{
    char *path = xasprintf("%s/%s", js->dir, file);
    unsigned char *p = NULL;
    size_t n = 0;
    json_error_t problem;
    err e = weights_fs_get(&weights_fs_system, path, FILE_BYTES, &p, &n);
    json_t *o = e ? NULL : json_loadb((const char *)p, n, JSON_REJECT_DUPLICATES, &problem);
    if (!e && !o) e = err_set(ERR_FORMAT, "%s: %s at line %d", path, problem.text, problem.line);
    if (!e) e = from_json(js, o, file, ret);
    if (o) json_decref(o);
    free(p);
    free(path);
    return e;
}

static void insert(struct engine_jobs *js, struct engine_job *j)
{
    struct engine_job **at = &js->list;
    while (*at && (*at)->number <= j->number) at = &(*at)->next;
    j->next = *at;
    *at = j;
    js->last_number = MAX(js->last_number, j->number);
}

void engine_jobs_load(struct engine_jobs *js)
{
    DIR *d = opendir(js->dir);
    struct dirent *entry;
    size_t n = 0;
    while (d && n < ENGINE_MAX_JOBS && (entry = readdir(d))) {
        struct engine_job *j;
        if (!str_ends(entry->d_name, ".json") || entry->d_name[0] == '.') continue;
        if (entry->d_name[0] <= '9') { /* what a writer that was killed left: names of jobs begin with a letter */
            unlinkat(dirfd(d), entry->d_name, 0);
            continue;
        }
        if (read_one(js, entry->d_name, &j)) {
            log_warn("engine", "%s; it is left alone", err_text());
            continue;
        }
        pthread_mutex_lock(&js->lock); /* the box may be asked what it has by now */
        insert(js, j);
        pthread_mutex_unlock(&js->lock);
        n++;
    }
    if (d) closedir(d);
}

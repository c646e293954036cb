/* Opens and closes what leaves the box, in one place.
 *
 * An event goes: engine's sink -> rows (queue, disk) -> feed (told) -> files, HTTP streams, MQTT. Without a database it goes to the feed at
 * once. The control socket answers `brim mem`, `why`, `budget`, `reload`, `job`. Invariant: the feed is put to by one thread only: the
 * rows' writer, or the executor if there is no database. SPDX-License-Identifier: Apache-2.0 */
#include "serve/serve.h"

#include "base/control.h"
#include "base/log.h"
#include "engine/job.h"
#include "serve/files.h"
#include "serve/http.h"
#include "serve/lines.h"
#include "serve/mqtt.h"
#include "serve/pictures.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct serve {
    struct engine *engine;
    struct engine_site *hold;
    const struct site_outputs *outputs;
    char *site_path;
    bool own_store;
    uint64_t budget;
    struct serve_feed *feed;
    struct rows *rows;
    struct serve_files *files;
    struct mem_payer *payer;
    struct serve_pictures *pictures; /* NULL: none */
    struct serve_http *http;
    struct serve_mqtt *mqtt;
    struct control *control;
};

static void fill_event(struct rows_event *to, const struct engine_record *r)
{
    *to = (struct rows_event){.time = r->time, .track = r->track.id, .frame = r->frame, .score = (double)r->track.score, .seconds = r->seconds,
                              .direction = r->direction, .box = {r->track.box.x1, r->track.box.y1, r->track.box.x2, r->track.box.y2},
                              .width = r->width, .height = r->height};
    memcpy(to->uid, r->uid, sizeof to->uid);
    snprintf(to->camera, sizeof to->camera, "%s", r->camera);
    snprintf(to->query, sizeof to->query, "%s", r->query);
    snprintf(to->event, sizeof to->event, "%s", r->event);
    snprintf(to->zone, sizeof to->zone, "%s", r->zone);
    snprintf(to->label, sizeof to->label, "%s", r->track.label);
    snprintf(to->attributes, sizeof to->attributes, "%s", r->track.attributes);
}

static void on_record(void *user, const struct engine_record *r)
{
    struct serve *s = user;
    struct rows_event e;
    if (r->kind != ENGINE_EVENT) return;
    fill_event(&e, r);
    if (s->pictures) serve_pictures_put(s->pictures, r);
    if (s->rows)
        rows_add(s->rows, &e);
    else
        serve_feed_put(s->feed, &e);
}

static void committed(void *user, const struct rows_event *events, int n)
{
    struct serve *s = user;
    for (int i = 0; i < n; i++) serve_feed_put(s->feed, &events[i]);
}

/* ---- control */

static err need_string(const json_t *request, const char *key, const char **ret)
{
    *ret = json_string_value(json_object_get(request, key));
    return *ret ? ERR_OK : err_set(ERR_USAGE, "the request lacks \"%s\"", key);
}

static err do_why(struct serve *s, const json_t *request, json_t **ret)
{
    const char *camera;
    err e = need_string(request, "camera", &camera);
    if (e) return e;
    *ret = engine_why(s->engine, camera);
    if (*ret) return ERR_OK;
    struct strbuf names = {0};
    struct engine_camera_row *rows;
    size_t n = engine_cameras(s->engine, &rows);
    for (size_t i = 0; i < n; i++) strbuf_addf(&names, "%s%s", i ? ", " : "", rows[i].name);
    free(rows);
    e = err_set(ERR_NOT_FOUND, "no camera '%s'; there are: %s", camera, names.s ? names.s : "none");
    strbuf_done(&names);
    return e;
}

static err do_budget(struct serve *s, const json_t *request, json_t **ret)
{
    json_int_t bytes = json_integer_value(json_object_get(request, "bytes"));
    if (bytes <= 0) return err_set(ERR_USAGE, "the request lacks \"bytes\"");
    err e = engine_set_budget(s->engine, (uint64_t)bytes);
    if (!e) *ret = json_pack("{s:I}", "limit_bytes", bytes);
    return e;
}

static err do_job_add(struct serve *s, const json_t *request, json_t **ret)
{
    const char *words[ENGINE_JOB_WORDS], *publish = json_string_value(json_object_get(request, "publish"));
    const json_t *list = json_object_get(request, "words");
    size_t n = json_array_size(list);
    char name[72];
    struct engine_job_options o = {.name = json_string_value(json_object_get(request, "name")), .words = words, .n_words = (int)n, .publish = publish};
    err e = need_string(request, "kind", &o.kind);
    if (!e) e = need_string(request, "folder", &o.folder);
    if (!e && n > ENGINE_JOB_WORDS) e = err_set(ERR_LIMIT, "a job has at most %d words", ENGINE_JOB_WORDS);
    for (size_t i = 0; i < n && !e; i++)
        if (!(words[i] = json_string_value(json_array_get(list, i)))) e = err_set(ERR_USAGE, "\"words\" are texts");
    if (!e) e = engine_job_add(s->engine, &o, name);
    if (!e) *ret = json_pack("{s:s}", "name", name);
    return e;
}

static err do_job(struct serve *s, const json_t *request, err (*act)(struct engine *e, const char *name))
{
    const char *name;
    err e = need_string(request, "name", &name);
    return e ? e : act(s->engine, name);
}

static err on_control(void *arg, const json_t *request, json_t **ret)
{
    struct serve *s = arg;
    const char *what;
    err e = need_string(request, "do", &what);
    if (e) return e;
    if (!strcmp(what, "mem")) *ret = engine_memory(s->engine);
    else if (!strcmp(what, "why")) e = do_why(s, request, ret);
    else if (!strcmp(what, "budget")) e = do_budget(s, request, ret);
    else if (!strcmp(what, "problems")) *ret = engine_problems(s->engine);
    else if (!strcmp(what, "jobs")) *ret = engine_jobs_json(s->engine);
    else if (!strcmp(what, "job-add")) e = do_job_add(s, request, ret);
    else if (!strcmp(what, "job-stop")) e = do_job(s, request, engine_job_stop);
    else if (!strcmp(what, "job-start")) e = do_job(s, request, engine_job_start);
    else if (!strcmp(what, "job-remove")) e = do_job(s, request, engine_job_remove);
    else if (!strcmp(what, "reload")) e = serve_reload(s);
    else e = err_set(ERR_USAGE, "a box does not know how to do '%s'", what);
    return e;
}

static err open_control(struct serve *s)
{
    char *store = engine_store_path(engine_site_get(s->hold)), *path = xasprintf("%s/control", store);
    err e = control_open(path, on_control, s, &s->control);
    free(path);
    free(store);
    return e;
}

/* ---- */

static void pictures_problem(void *user, const char *sentence)
{
    engine_set_problem(((struct serve *)user)->engine, "pictures", sentence);
}

static err open_pictures(struct serve *s, const char *database)
{
    s->payer = mem_payer_new(engine_budget(s->engine), "pictures");
    return serve_pictures_open(&(struct serve_pictures_options){.database = database, .keep = s->outputs->pictures_keep, .side = s->outputs->pictures_side, .payer = s->payer,
                                                                .count = &serve_feed_counts(s->feed)->pictures, .problem = pictures_problem, .user = s}, &s->pictures);
}

static err open_rows(struct serve *s)
{
    if (s->outputs->database_off) return ERR_OK;
    char *store = engine_store_path(engine_site_get(s->hold));
    char *path = s->outputs->database ? xstrdup(s->outputs->database) : xasprintf("%s/events.db", store);
    err e = rows_open(&(struct rows_options){.path = path, .budget = engine_budget(s->engine), .committed = committed, .user = s,
                                             .outbox = s->outputs->mqtt_host != NULL}, &s->rows);
    if (e && e != ERR_BUSY && e != ERR_NOMEM) { /* the box goes on without it, and says so */
        engine_set_problem(s->engine, "database", err_text());
        e = ERR_OK;
    }
    if (!e && s->rows && s->outputs->pictures_keep) e = open_pictures(s, path);
    free(path);
    free(store);
    return e;
}

uint64_t serve_bytes(const struct site *s)
{
    const struct site_outputs *o = &s->outputs;
    uint64_t bytes = o->jsonl ? SERVE_LINES_BYTES : 0;
    if (o->database_off) return bytes;
    return bytes + ROWS_BYTES + (o->pictures_keep ? SERVE_PICTURES_BYTES : 0);
}

err serve_open(struct engine *e, const struct serve_options *o, struct serve **ret)
{
    struct serve *s = xnew(struct serve);
    s->engine = e;
    s->hold = engine_site_hold(e);
    s->outputs = &engine_site_get(s->hold)->outputs;
    s->site_path = o->site_path ? xstrdup(o->site_path) : NULL;
    s->own_store = o->own_store;
    s->budget = o->budget;
    s->feed = serve_feed_new();
    err x = open_control(s); /* first: it owns the store */
    if (!x) x = serve_files_open(e, s->feed, &s->files);
    if (!x) x = open_rows(s);
    if (!x && s->outputs->mqtt_host) x = serve_mqtt_open(e, s->rows, s->feed, s->outputs, &s->mqtt);
    if (!x && !s->outputs->http_off && !o->no_http) x = serve_http_open(e, s->rows, s->feed, s->outputs, &s->http);
    if (x) {
        serve_close(&s);
        return x;
    }
    engine_add_sink(e, on_record, s);
    *ret = s;
    return ERR_OK;
}

void serve_close(struct serve **sp)
{
    struct serve *s = *sp;
    if (!s) return;
    control_close(&s->control);
    if (s->rows) (void)rows_flush(s->rows, 5000); /* tells what waited; what a disk refuses now is lost with the process anyway */
    serve_feed_close(s->feed);
    serve_http_close(&s->http); /* both read the database until they are closed */
    serve_mqtt_close(&s->mqtt);
    rows_close(&s->rows);
    serve_pictures_close(&s->pictures);
    mem_payer_free(&s->payer);
    serve_files_close(&s->files);
    serve_feed_free(&s->feed);
    engine_site_unref(&s->hold);
    free(s->site_path);
    free(s);
    *sp = NULL;
}

int serve_port(const struct serve *s)
{
    return s->http ? serve_http_port(s->http) : 0;
}

bool serve_say(struct serve *s, const char *text)
{
    if (s->rows && s->outputs->jsonl) (void)rows_flush(s->rows, 2000);
    return serve_files_say(s->files, text, strlen(text));
}

void serve_tick(struct serve *s)
{
    struct rows_stats r;
    if (!s->rows) return;
    rows_stats(s->rows, &r);
    engine_set_problem(s->engine, "database", r.problem);
    if (s->outputs->mqtt_host) /* about 500 bytes a message */
        rows_outbox_trim(s->rows, MAX((int64_t)(s->outputs->mqtt_outbox_max / 500), (int64_t)1));
}

err serve_reload(struct serve *s)
{
    struct site *site;
    err e = site_load(s->site_path, &site);
    if (!e) {
        if (s->own_store) site->store = NULL; /* what the command line said stays said */
        if (s->budget) site->budget = s->budget;
        e = engine_reload(s->engine, site);
    }
    engine_set_problem(s->engine, "reload", e ? err_text() : "");
    if (!e) log_info("serve", "%s: reloaded", s->site_path);
    return e;
}

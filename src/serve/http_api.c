/* The JSON API: snapshots of the engine, events of the database, one switch (the budget).
 *
 * Numbers carry their unit in the name. Texts that came from outside (a stream's error, a card's label) may not be
 * UTF-8; text() mends them, because one bad byte must not cost a whole answer. SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "engine/guard.h"
#include "engine/job.h"
#include "serve/http_inside.h"

#include "base/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVENTS_DEFAULT = 100, EVENTS_MOST = 1000 };

static json_t *text(const char *s)
{
    return text_json(s);
}

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)MIN(n, (uint64_t)INT64_MAX));
}

static double ms(int64_t ns)
{
    return (double)ns / 1e6;
}

static http_result send_list(struct http_request *r, const char *key, json_t *list)
{
    return http_send_json(r, 200, json_pack("{s:o}", key, list));
}

/* ---- cameras, queries, models */

static json_t *camera_json(const struct engine_camera_row *c)
{
    const struct video_stats *v = &c->video;
    double age = v->last_frame_ns ? (double)(clock_ns() - v->last_frame_ns) / 1e9 : -1;
    json_t *j =
        json_pack("{s:o, s:s, s:o, s:o, s:o, s:i, s:i, s:f, s:f}", "name", text(c->name), "state",
                  video_state_name(v->state), "error", text(v->error), "url", text(v->url), "codec", text(v->codec),
                  "width", v->width, "height", v->height, "fps", v->fps_in, "stream_fps", v->stream_fps);
    json_t *more =
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:f, s:i}", "decoded", number(v->decoded), "published",
                  number(v->published), "dropped", number(v->dropped), "skipped", number(v->skipped), "corrupt",
                  number(v->corrupt), "no_memory", number(v->no_memory), "reconnects", number(v->reconnects), "bytes",
                  number(v->bytes), "retry_in_s", v->wait_s, "queries", c->queries);
    json_object_update(j, more);
    json_decref(more);
    json_object_set_new(j, "last_frame_age_s", age < 0 ? json_null() : json_real(age));
    return j;
}

http_result http_api_cameras(struct http_request *r)
{
    struct engine_camera_row *rows;
    json_t *list = json_array();
    size_t n = engine_cameras(r->http->engine, &rows);
    for (size_t i = 0; i < n; i++) json_array_append_new(list, camera_json(&rows[i]));
    free(rows);
    return send_list(r, "cameras", list);
}

static json_t *query_json(const struct engine_query_row *q)
{
    json_t *drops = json_object();
    for (int k = 1; k < SCHED_DROP_COUNT; k++)
        json_object_set_new(drops, sched_drop_text((enum sched_drop)k), number(q->stats.dropped[k]));
    json_t *j = json_pack("{s:o, s:o, s:o, s:f, s:f, s:i, s:f, s:o}", "query", text(q->query), "camera",
                          text(q->camera), "model", text(q->model), "fps_asked", q->fps_asked, "fps_run", q->fps_run,
                          "priority", q->priority, "deadline_ms", ms(q->deadline_ns), "problem", text(q->problem));
    json_t *more =
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:f, s:f, s:f}", "offered", number(q->stats.offered),
                  "run", number(q->stats.run), "late", number(q->stats.late), "dropped", drops, "motion_saved",
                  number(q->motion_saved), "detections", number(q->detections), "tracks", number(q->tracks), "events",
                  number(q->events), "waiting", q->stats.waiting, "p50_ms", ms(q->stats.p50_ns), "p95_ms",
                  ms(q->stats.p95_ns), "max_ms", ms(q->stats.max_ns));
    json_object_update(j, more);
    json_decref(more);
    return j;
}

http_result http_api_queries(struct http_request *r)
{
    struct engine_query_row *rows;
    json_t *list = json_array();
    pthread_mutex_lock(&r->http->build);
    size_t n = engine_queries(r->http->engine, &rows);
    for (size_t i = 0; i < n; i++) json_array_append_new(list, query_json(&rows[i]));
    free(rows);
    http_result x = send_list(r, "queries", list);
    pthread_mutex_unlock(&r->http->build);
    return x;
}

static json_t *model_json(const struct engine_model_row *m)
{
    const struct sched_model_stats *s = &m->stats;
    json_t *j = json_pack("{s:o, s:b, s:b, s:b, s:o, s:o, s:o, s:o, s:o}", "name", text(m->name), "resident",
                          s->resident, "pinned", s->pinned, "impossible", s->impossible, "weight_bytes",
                          number(s->weight_bytes), "activation_bytes", number(m->sizes.activations), "scratch_bytes",
                          number(m->sizes.scratch), "code_bytes", number(m->sizes.code), "problem", text(m->problem));
    json_t *blocks = json_pack("{s:o, s:o, s:o, s:o, s:f}", "resident_bytes", number(s->resident_bytes), "shared_bytes",
                               number(s->shared_bytes), "streamed_bytes", number(s->streamed_bytes), "read_bytes",
                               number(s->read_bytes), "wait_ms", s->runs ? ms(s->waited_ns) / (double)s->runs : 0);
    json_object_update(j, blocks);
    json_decref(blocks);
    json_t *more = json_pack("{s:o, s:o, s:o, s:o, s:f, s:f, s:I}", "loads", number(s->loads), "evictions",
                             number(s->evictions), "runs", number(s->runs), "batched", number(s->batched), "run_ms",
                             ms(s->run_ns), "load_ms", ms(s->load_ns), "flops", (json_int_t)m->sizes.flops);
    json_object_update(j, more);
    json_decref(more);
    return j;
}

http_result http_api_models(struct http_request *r)
{
    struct engine_model_row *rows;
    json_t *list = json_array();
    size_t n = engine_models(r->http->engine, &rows);
    for (size_t i = 0; i < n; i++) json_array_append_new(list, model_json(&rows[i]));
    free(rows);
    return send_list(r, "models", list);
}

/* ---- the box */

static json_t *rows_json(struct rows *rows)
{
    struct rows_stats s;
    rows_stats(rows, &s);
    return json_pack("{s:o, s:o, s:i, s:I, s:o}", "written", number(s.written), "lost", number(s.lost), "waiting",
                     s.waiting, "outbox", (json_int_t)MAX(rows_outbox_count(rows), (int64_t)0), "problem",
                     text(s.problem));
}

http_result http_api_status(struct http_request *r)
{
    struct serve_http *h = r->http;
    struct mem_budget *b = engine_budget(h->engine);
    struct engine_camera_row *c;
    json_t *reasons = json_array();
    bool ready = http_ready(h, reasons);
    size_t n = engine_cameras(h->engine, &c), live = 0;
    for (size_t i = 0; i < n; i++) live += c[i].video.state == VIDEO_LIVE;
    free(c);
    json_t *j = json_pack("{s:s, s:f, s:b, s:o, s:o, s:I, s:I}", "version", BRIM_VERSION, "uptime_s",
                          engine_uptime_s(h->engine), "ready", ready, "reasons", reasons, "problems",
                          engine_problems(h->engine), "cameras", (json_int_t)n, "cameras_live", (json_int_t)live);
    json_object_set_new(j, "memory",
                        json_pack("{s:o, s:o, s:o}", "limit_bytes", number(mem_budget_limit(b)), "used_bytes",
                                  number(mem_budget_used(b)), "peak_bytes", number(mem_budget_peak(b))));
    json_object_set_new(j, "database", h->rows ? rows_json(h->rows) : json_null());
    return http_send_json(r, 200, j);
}

http_result http_api_jobs(struct http_request *r)
{
    return http_send_json(r, 200, json_pack("{s:o}", "jobs", engine_jobs_json(r->http->engine)));
}

http_result http_api_guards(struct http_request *r)
{
    return http_send_json(r, 200, json_pack("{s:o}", "guards", engine_guards_json(r->http->engine)));
}

http_result http_api_memory(struct http_request *r)
{
    return http_send_json(r, 200, engine_memory(r->http->engine));
}

http_result http_api_why(struct http_request *r)
{
    static const char prefix[] = "/api/v1/why/";
    const char *camera = str_starts(r->path, prefix) ? r->path + sizeof prefix - 1 : http_argument(r, "camera");
    if (!camera || !http_guard_name(camera, strlen(camera)))
        return http_send_error(r, 400, "expected /api/v1/why/CAMERA");
    json_t *j = engine_why(r->http->engine, camera);
    return j ? http_send_json(r, 200, j) : http_send_error(r, 404, "no camera '%s'", camera);
}

http_result http_api_budget(struct http_request *r)
{
    json_t *j = json_loadb(r->body, r->body_size, JSON_REJECT_DUPLICATES, NULL);
    json_t *bytes = json_object_get(j, "bytes");
    json_int_t n = json_integer_value(bytes);
    bool good = json_is_integer(bytes) && n > 0 && json_object_size(j) == 1;
    json_decref(j);
    if (!good) return http_send_error(r, 400, "expected {\"bytes\": N}, N over 0");
    err e = engine_set_budget(r->http->engine, (uint64_t)n);
    return e ? http_send_err(r, e) : http_send_json(r, 200, json_pack("{s:I}", "limit_bytes", n));
}

/* ---- events */

static bool read_name(struct http_request *r, const char *key, const char **ret)
{
    const char *s = http_argument(r, key);
    if (s && !http_guard_name(s, strlen(s))) return false;
    *ret = s;
    return true;
}

static bool read_int(struct http_request *r, const char *key, int64_t max, int64_t *ret)
{
    const char *s = http_argument(r, key);
    return !s || http_guard_int(s, 1, max, ret);
}

static bool read_seconds(struct http_request *r, const char *key, double *ret)
{
    const char *s = http_argument(r, key);
    return !s || http_guard_seconds(s, ret);
}

static bool read_filter(struct http_request *r, struct rows_filter *f)
{
    int64_t limit = EVENTS_DEFAULT, after = 0;
    const char *a = http_argument(r, "after");
    if (a && !http_guard_int(a, 0, INT64_MAX, &after)) return false;
    bool good = read_name(r, "camera", &f->camera) && read_name(r, "query", &f->query) &&
                read_name(r, "event", &f->event) && read_seconds(r, "since", &f->since) &&
                read_seconds(r, "until", &f->until) && read_int(r, "before", INT64_MAX, &f->before_id) &&
                read_int(r, "limit", EVENTS_MOST, &limit);
    f->after_id = after;
    f->oldest_first = a != NULL; /* who pages forward wants the next ones */
    f->limit = (int)limit;
    return good;
}

static http_result send_events(struct http_request *r, const struct rows_filter *f)
{
    struct rows_event *events;
    struct strbuf b = {0};
    int n;
    err e = rows_events(r->http->rows, f, &events, &n);
    if (e) return http_send_err(r, e);
    strbuf_add(&b, "{\"events\":[");
    for (int i = 0; i < n; i++) { /* one by one: a tree of all would be ten times as large */
        json_t *j = serve_event_json(&events[i]);
        char *s = json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(13));
        json_decref(j);
        if (!s) continue;
        strbuf_addf(&b, "%s%s", i ? "," : "", s);
        free(s);
    }
    strbuf_add(&b, "]}\n");
    free(events);
    size_t len = b.len;
    return http_send(r, 200, "application/json", strbuf_take(&b), len);
}

http_result http_api_events(struct http_request *r)
{
    struct rows_filter f = {0};
    if (!r->http->rows)
        return http_send_error(r, 404, "this box keeps no events; /events/stream tells them as they happen");
    if (!read_filter(r, &f))
        return http_send_error(
            r, 400,
            "camera, query, event: names; since, until: seconds since 1970; before, after: ids; limit: 1 to %d",
            EVENTS_MOST);
    pthread_mutex_lock(&r->http->build);
    http_result x = send_events(r, &f);
    pthread_mutex_unlock(&r->http->build);
    return x;
}

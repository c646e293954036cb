/* Snapshots: what `serve`, `brim mem` and `brim why` show. Copies only. SPDX-License-Identifier: Apache-2.0 */
#include "engine/inside.h"

#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t engine_cameras(struct engine *e, struct engine_camera_row **ret)
{
    pthread_mutex_lock(&e->lock);
    struct engine_camera_row *rows = xnewn(struct engine_camera_row, e->n_cameras);
    size_t n = e->n_cameras;
    for (size_t i = 0; i < n; i++) {
        snprintf(rows[i].name, sizeof rows[i].name, "%s", e->cameras[i]->name);
        video_camera_stats(e->cameras[i]->cam, &rows[i].video);
        for (const struct engine_stream *s = e->streams; s; s = s->next) rows[i].queries += s->camera == e->cameras[i] && !s->cascade;
    }
    pthread_mutex_unlock(&e->lock);
    *ret = rows;
    return n;
}

static double fps_run(struct engine_stream *s)
{
    long long now = clock_ns() / 1000000000, last = atomic_load(&s->window_second);
    unsigned long long n = 0;
    for (long long k = now - 5; k < now; k++) /* five whole seconds */
        if (k <= last && k > last - 8) n += atomic_load(&s->runs_window[k % 8]);
    return (double)n / 5;
}

static void query_row(struct engine *e, struct engine_stream *s, struct engine_query_row *r)
{
    const char *model = s->model ? s->model->name : "motion";
    if (s->cascade)
        snprintf(r->query, sizeof r->query, "%.64s>%.64s", s->q->name, model);
    else
        snprintf(r->query, sizeof r->query, "%s", s->q->name);
    snprintf(r->camera, sizeof r->camera, "%s", s->camera->name);
    snprintf(r->model, sizeof r->model, "%s", model);
    r->fps_asked = s->cascade ? 0 : s->q->fps;
    r->fps_run = fps_run(s);
    r->priority = s->q->priority;
    r->deadline_ns = s->camera->max_pace ? 0 : (int64_t)s->q->deadline_ms * 1000000;
    r->motion_saved = atomic_load(&s->motion_saved);
    r->detections = atomic_load(&s->detections);
    r->events = atomic_load(&s->events);
    r->tracks = atomic_load(&s->tracks);
    if (s->sched) sched_stream_get_stats(e->sched, s->sched, &r->stats);
    pthread_mutex_lock(&s->camera->lock);
    snprintf(r->problem, sizeof r->problem, "%s", s->problem);
    pthread_mutex_unlock(&s->camera->lock);
    struct sched_model_stats m = {0};
    if (s->model && s->model->sched) sched_model_get_stats(e->sched, s->model->sched, &m);
    char text[2][16];
    if (!r->problem[0] && m.impossible)
        snprintf(r->problem, sizeof r->problem, "model '%s' needs %s for its weights, more than the budget of %s leaves; raise the budget or drop the query",
                 model, size_text(m.weight_bytes, text[0]), size_text(mem_budget_limit(e->budget), text[1]));
}

size_t engine_queries(struct engine *e, struct engine_query_row **ret)
{
    size_t n = 0;
    pthread_mutex_lock(&e->lock);
    for (const struct engine_stream *s = e->streams; s; s = s->next) n++;
    struct engine_query_row *rows = xnewn(struct engine_query_row, n), *r = rows;
    for (struct engine_stream *s = e->streams; s; s = s->next) query_row(e, s, r++);
    pthread_mutex_unlock(&e->lock);
    *ret = rows;
    return n;
}

size_t engine_models(struct engine *e, struct engine_model_row **ret)
{
    pthread_mutex_lock(&e->lock);
    size_t n = e->n_models;
    struct engine_model_row *rows = xnewn(struct engine_model_row, n);
    for (size_t i = 0; i < n; i++) {
        const struct engine_model *m = e->models[i];
        snprintf(rows[i].name, sizeof rows[i].name, "%s", m->name);
        snprintf(rows[i].path, sizeof rows[i].path, "%s", m->path);
        snprintf(rows[i].problem, sizeof rows[i].problem, "%s", m->problem);
        if (m->one.plan) rows[i].sizes = model_plan_sizes(m->one.plan);
        if (m->sched) sched_model_get_stats(e->sched, m->sched, &rows[i].stats);
    }
    pthread_mutex_unlock(&e->lock);
    *ret = rows;
    return n;
}

json_t *engine_problems(struct engine *e)
{
    json_t *list = json_array();
    const char *what;
    json_t *sentence;
    pthread_mutex_lock(&e->problems_lock);
    json_object_foreach(e->problems, what, sentence)
        json_array_append_new(list, json_sprintf("%s: %s", what, json_string_value(sentence)));
    pthread_mutex_unlock(&e->problems_lock);
    pthread_mutex_lock(&e->lock);
    for (size_t i = 0; i < e->n_models; i++)
        if (e->models[i]->problem[0]) json_array_append_new(list, text_json(e->models[i]->problem));
    pthread_mutex_unlock(&e->lock);
    return list;
}

static bool find_camera(struct engine *e, const char *name, struct video_stats *ret)
{
    bool found = false;
    pthread_mutex_lock(&e->lock);
    for (size_t i = 0; i < e->n_cameras && !found; i++)
        if ((found = !strcmp(e->cameras[i]->name, name))) video_camera_stats(e->cameras[i]->cam, ret);
    pthread_mutex_unlock(&e->lock);
    return found;
}

static json_t *decisions_json(struct engine *e, const char *camera)
{
    struct sched_decision *d = xnewn(struct sched_decision, 64);
    char *part = xasprintf("@%s", camera);
    int n = sched_decisions(e->sched, part, d, 64);
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        const char *end = strstr(d[i].stream, part) + strlen(part);
        if (*end && *end != '>') continue; /* another camera whose name begins alike */
        json_array_append_new(list, json_pack("{s:f, s:s, s:I, s:s, s:s, s:f, s:f, s:b}", "time_ago_s", (double)(clock_ns() - d[i].at_ns) / 1e9,
                                              "query", d[i].stream, "frame", (json_int_t)d[i].seq, "outcome", d[i].outcome ? "dropped" : "ran",
                                              "reason", sched_drop_text(d[i].outcome), "wait_ms", (double)d[i].wait_ns / 1e6, "run_ms",
                                              (double)d[i].run_ns / 1e6, "loaded", d[i].loaded));
    }
    free(part);
    free(d);
    return list;
}

json_t *engine_why(struct engine *e, const char *camera)
{
    struct video_stats v;
    if (!find_camera(e, camera, &v)) return NULL;
    struct engine_query_row *rows;
    size_t n = engine_queries(e, &rows);
    json_t *queries = json_array();
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].camera, camera) != 0) continue;
        json_t *drops = json_object();
        for (int k = 1; k < SCHED_DROP_COUNT; k++)
            if (rows[i].stats.dropped[k]) json_object_set_new(drops, sched_drop_text((enum sched_drop)k), json_integer((json_int_t)rows[i].stats.dropped[k]));
        json_array_append_new(queries, json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:I, s:f, s:f, s:o}", "query", rows[i].query, "model", rows[i].model,
                                                 "offered", (json_int_t)rows[i].stats.offered, "ran", (json_int_t)rows[i].stats.run, "late",
                                                 (json_int_t)rows[i].stats.late, "dropped", drops, "saved_by_motion",
                                                 (json_int_t)rows[i].motion_saved, "p50_ms", (double)rows[i].stats.p50_ns / 1e6, "p95_ms",
                                                 (double)rows[i].stats.p95_ns / 1e6, "problem", text_json(rows[i].problem)));
    }
    free(rows);
    return json_pack("{s:s, s:s, s:o, s:I, s:I, s:I, s:o, s:o}", "camera", camera, "state", video_state_name(v.state), "error", text_json(v.error), "decoded",
                     (json_int_t)v.decoded, "dropped", (json_int_t)v.dropped, "corrupt", (json_int_t)v.corrupt, "queries", queries, "decisions",
                     decisions_json(e, camera));
}

static json_t *purposes_json(const uint64_t *bytes)
{
    json_t *o = json_object();
    for (int k = 0; k < MEM_PURPOSE_COUNT; k++)
        if (bytes[k]) json_object_set_new(o, mem_purpose_name((enum mem_purpose)k), json_integer((json_int_t)bytes[k]));
    return o;
}

/* The weight sets of all models that can run; free(). The lock is held. */
static struct weights_set **sets_of(struct engine *e, size_t *ret_n)
{
    struct weights_set **sets = xnewn(struct weights_set *, e->n_models + 1);
    *ret_n = 0;
    for (size_t i = 0; i < e->n_models; i++)
        if (e->models[i]->sched) sets[(*ret_n)++] = model_weights(e->models[i]->model);
    return sets;
}

/* Bytes of weights in memory that serve several models, once for each beyond the first. */
static uint64_t shared_now(struct engine *e)
{
    size_t n, resident = 0;
    pthread_mutex_lock(&e->lock);
    struct weights_set **sets = sets_of(e, &n);
    for (size_t i = 0; i < n; i++) resident += weights_resident_bytes(sets[i]);
    size_t once = weights_union_bytes(sets, n);
    pthread_mutex_unlock(&e->lock);
    free(sets);
    return resident - MIN(once, resident);
}

json_t *engine_memory(struct engine *e)
{
    struct mem_row *rows;
    size_t n = mem_snapshot(e->budget, &rows);
    struct mem_rss rss = mem_process_rss();
    json_t *payers = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(payers, json_pack("{s:s, s:o, s:o}", "payer", rows[i].payer, "used", purposes_json(rows[i].used), "peak",
                                                purposes_json(rows[i].peak)));
    free(rows);
    return json_pack("{s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I}, s:o}", "limit_bytes", (json_int_t)mem_budget_limit(e->budget), "used_bytes",
                     (json_int_t)mem_budget_used(e->budget), "peak_bytes", (json_int_t)mem_budget_peak(e->budget), "shared_bytes", (json_int_t)shared_now(e), "rss", "anon",
                     (json_int_t)rss.anon, "file", (json_int_t)rss.file, "total", (json_int_t)rss.total, "peak", (json_int_t)rss.peak, "payers", payers);
}

err engine_picture(struct engine *e, const char *camera, struct engine_picture *ret)
{
    err x = err_set(ERR_NOT_FOUND, "no camera '%s'", camera);
    pthread_mutex_lock(&e->lock);
    for (size_t i = 0; i < e->n_cameras; i++) {
        struct engine_camera *c = e->cameras[i];
        if (strcmp(c->name, camera) != 0) continue;
        pthread_mutex_lock(&c->lock);
        c->asked_ns = clock_ns();
        x = c->picture ? ERR_OK : err_set(ERR_AGAIN, "camera '%s' has no picture yet", camera);
        if (!x) {
            ret->frame = video_frame_ref(c->picture);
            ret->n_tracks = c->n_tracks;
            memcpy(ret->tracks, c->tracks, sizeof c->tracks);
            ret->result_frame = c->result_frame;
        }
        pthread_mutex_unlock(&c->lock);
    }
    pthread_mutex_unlock(&e->lock);
    return x;
}

err engine_spare(struct engine *e, uint64_t bytes)
{
    char s[16];
    if (sched_spare(e->sched, bytes, engine_floor(e).least_weights)) return ERR_OK;
    return err_set(ERR_NOMEM, "the models leave no room for %s", size_text(bytes, s));
}

struct engine_floor engine_floor_locked(struct engine *e)
{
    struct engine_floor f = {.arena = e->arena_bytes, .scratch = e->scratch_bytes};
    struct mem_row *rows;
    size_t n = mem_snapshot(e->budget, &rows);
    for (size_t i = 0; i < n; i++) {
        f.code += rows[i].used[MEM_CODE];
        f.frames += rows[i].peak[MEM_FRAMES]; /* what comes and goes must fit at its most */
        f.decoders += rows[i].peak[MEM_DECODER];
        f.other += rows[i].used[MEM_QUEUE] + rows[i].used[MEM_OTHER]; /* not MEM_TRAINING: jobs give way */
        f.heads += rows[i].used[MEM_ACTIVATIONS] + rows[i].used[MEM_SCRATCH];
    }
    free(rows);
    f.heads -= MIN(f.heads, f.arena + f.scratch); /* flat copies and converters; the arena is counted on its own */
    uint64_t fixed = 0, window = 0;
    for (size_t i = 0; i < e->n_models; i++) {
        if (!e->models[i]->one.plan) continue;
        fixed += e->models[i]->fixed;
        window = MAX(window, e->models[i]->largest_step);
        uint64_t w = model_weight_bytes(e->models[i]->model);
        f.largest_model = MAX(f.largest_model, w);
        f.all_models += w;
    }
    size_t n_sets;
    struct weights_set **sets = sets_of(e, &n_sets);
    uint64_t twice = weights_twice_bytes(sets, n_sets, true);
    f.all_models -= weights_twice_bytes(sets, n_sets, false);
    fixed -= MIN(twice, fixed); /* what several models share is in memory once */
    free(sets);
    f.least_weights = e->blocks ? fixed + window : f.largest_model;
    return f;
}

uint64_t engine_floor_before_weights(const struct engine_floor *f)
{
    return f->arena + f->scratch + f->code + f->frames + f->decoders + f->heads + f->other;
}

struct engine_floor engine_floor(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    struct engine_floor f = engine_floor_locked(e);
    pthread_mutex_unlock(&e->lock);
    return f;
}

json_t *engine_blocks(struct engine *e)
{
    struct sched_blocks_stats b = sched_blocks_get_stats(e->sched);
    struct weights_reader_stats r = weights_reader_stats(e->reader);
    if (!b.on) return json_null();
    return json_pack("{s:I, s:I, s:f, s:f, s:f, s:i, s:I, s:b}", "window", (json_int_t)b.window, "kept", (json_int_t)b.kept, "disk_share",
                     b.disk_share, "stall", b.stall, "bandwidth", b.bandwidth, "divisions", b.divisions, "read_bytes", (json_int_t)r.bytes, "io_uring",
                     (int)r.uring);
}

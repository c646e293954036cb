/* What a reload has to touch.
 *
 * Each camera, model and query is written out as a canonical text, with names in the place of indices, and texts
 * are compared: a field that is forgotten in the text shows in the test that changes every key of the schema, while
 * a memberwise comparison of nested structs would have two places to forget it in. The texts hold passwords (in
 * URLs) and are freed at once.
 *
 * Invariant: query.same implies that all its cameras and models are the same. SPDX-License-Identifier: Apache-2.0
 */
#include "engine/site_diff.h"

#include <stdlib.h>
#include <string.h>

static void add_names(struct strbuf *b, const struct site_names *n)
{
    strbuf_add(b, n->all ? "|all" : "|");
    for (size_t i = 0; i < n->count; i++) strbuf_addf(b, "%zu:%s,", strlen(n->items[i]), n->items[i]);
}

static void add_text(struct strbuf *b, const char *s)
{
    strbuf_addf(b, "|%zd:%s", s ? (ssize_t)strlen(s) : -1, s ? s : "");
}

static void camera_text(const struct site *s, size_t i, struct strbuf *b)
{
    const struct video_options *o = &s->cameras[i].video;
    add_text(b, o->url);
    strbuf_addf(b, "|%d %d %d %d %d %d %a %d %d", o->pace, o->loop, o->decode, o->transport, o->timeout_ms,
                o->stall_ms, o->max_fps, o->hint_w, o->hint_h);
}

static void model_text(const struct site *s, size_t i, struct strbuf *b)
{
    const struct site_model *m = &s->models[i];
    add_text(b, m->onnx);
    add_text(b, m->card);
    add_text(b, m->guard.original);
    strbuf_addf(b, "|%d %d %d %d %d %lld %a %d", m->pin, m->priority, m->precision, m->batch, m->guard.when, (long long)m->guard.every_ms, m->guard.target,
                m->guard.window);
}

static const char *model_name(const struct site *s, int model)
{
    return model == SITE_MOTION ? "motion" : s->models[model].name;
}

static void shapes_text(const struct site *s, const struct site_shape *shapes, size_t n, struct strbuf *b)
{
    for (size_t i = 0; i < n; i++) {
        const struct site_shape *z = &shapes[i];
        add_text(b, z->name);
        add_text(b, z->camera < 0 ? NULL : s->cameras[z->camera].name);
        strbuf_addf(b, "|%lld", (long long)z->stay_ms);
        for (int k = 0; k < z->point_count; k++)
            strbuf_addf(b, " %a %a", (double)z->points[k][0], (double)z->points[k][1]);
    }
}

static void query_text(const struct site *s, size_t i, struct strbuf *b)
{
    const struct site_query *q = &s->queries[i];
    const struct site_motion *m = &q->motion;
    for (size_t k = 0; k < q->camera_count; k++) add_text(b, s->cameras[q->cameras[k]].name);
    add_text(b, model_name(s, q->model));
    add_names(b, &q->objects);
    strbuf_addf(b, "|%a %d %d %a %d %u %d %lld %lld", q->fps, q->deadline_ms, q->priority, q->min_score, q->track,
                q->events, q->anchor_centre, (long long)q->stay_ms, (long long)q->settle_ms);
    strbuf_addf(b, "|%d %a %a %d %d %lld %lld", m->gate, m->threshold, m->deviations, m->min_pixels, m->width,
                (long long)m->hold_ms, (long long)m->adapt_ms);
    strbuf_add(b, "|zones");
    shapes_text(s, q->zones, q->zone_count, b);
    strbuf_add(b, "|lines");
    shapes_text(s, q->lines, q->line_count, b);
    for (size_t k = 0; k < q->cascade_count; k++) {
        const struct site_cascade *c = &q->cascade[k];
        add_text(b, model_name(s, c->model));
        add_names(b, &c->objects);
        strbuf_addf(b, "|%d %d %lld %a %a", c->min_size, c->max_per_frame, (long long)c->every_ms, c->min_score,
                    c->margin);
    }
}

static void outputs_text(const struct site *s, size_t i, struct strbuf *b)
{
    const struct site_outputs *o = &s->outputs;
    const char *texts[] = {o->database,    o->jsonl,     o->mot,           o->video,    o->mqtt_host,
                           o->mqtt_prefix, o->mqtt_user, o->mqtt_password, o->http_host};
    (void)i;
    for (size_t k = 0; k < ARRAY_LEN(texts); k++) add_text(b, texts[k]);
    add_names(b, &o->video_cameras);
    add_names(b, &o->http_hosts);
    strbuf_addf(b, "|%llu %d", (unsigned long long)o->pictures_keep, o->pictures_side);
    strbuf_addf(b, "|%d %d %d %llu %d %d", o->database_off, o->mqtt_port, o->mqtt_discovery,
                (unsigned long long)o->mqtt_outbox_max, o->http_off, o->http_port);
}

static void settings_text(const struct site *s, size_t i, struct strbuf *b)
{
    (void)i;
    add_text(b, s->store);
    strbuf_addf(b, "|%d %d %d %d", s->precision, s->threads, s->whole_models, s->blind);
}

typedef void text_fn(const struct site *s, size_t i, struct strbuf *b);

static bool equal(text_fn *text, const struct site *a, size_t i, const struct site *b, size_t k)
{
    struct strbuf x = {0}, y = {0};
    text(a, i, &x);
    text(b, k, &y);
    bool same = x.len == y.len && (!x.len || !memcmp(x.s, y.s, x.len));
    strbuf_done(&x);
    strbuf_done(&y);
    return same;
}

/* The three kinds of named things, seen alike. */
struct kind {
    size_t (*count)(const struct site *s);
    const char *(*name)(const struct site *s, size_t i);
    text_fn *text;
};

static size_t count_cameras(const struct site *s)
{
    return s->camera_count;
}

static size_t count_models(const struct site *s)
{
    return s->model_count;
}

static size_t count_queries(const struct site *s)
{
    return s->query_count;
}

static const char *name_camera(const struct site *s, size_t i)
{
    return s->cameras[i].name;
}

static const char *name_model(const struct site *s, size_t i)
{
    return s->models[i].name;
}

static const char *name_query(const struct site *s, size_t i)
{
    return s->queries[i].name;
}

static int find(const struct kind *k, const struct site *s, const char *name)
{
    for (size_t i = 0; i < k->count(s); i++)
        if (!strcmp(k->name(s, i), name)) return (int)i;
    return -1;
}

static struct site_change *compare(const struct kind *k, const struct site *a, const struct site *b, size_t *ret_n)
{
    struct site_change *all = xnewn(struct site_change, k->count(a) + k->count(b)), *c = all;
    for (size_t i = 0; i < k->count(b); i++, c++) {
        *c = (struct site_change){.name = k->name(b, i), .old_index = find(k, a, k->name(b, i)), .new_index = (int)i};
        c->same = c->old_index >= 0 && equal(k->text, a, (size_t)c->old_index, b, i);
    }
    for (size_t i = 0; i < k->count(a); i++)
        if (find(k, b, k->name(a, i)) < 0)
            *c++ = (struct site_change){.name = k->name(a, i), .old_index = (int)i, .new_index = -1};
    *ret_n = (size_t)(c - all);
    return all;
}

/* Entries 0 .. count of the new site are in its order, so an index of the new site is an index of the list. */
static void follow_parts(struct site_diff *d, const struct site *s)
{
    for (size_t i = 0; i < s->query_count; i++) {
        const struct site_query *q = &s->queries[i];
        bool same = d->queries[i].same && (q->model == SITE_MOTION || d->models[q->model].same);
        for (size_t k = 0; k < q->camera_count; k++) same = same && d->cameras[q->cameras[k]].same;
        for (size_t k = 0; k < q->cascade_count; k++) same = same && d->models[q->cascade[k].model].same;
        d->queries[i].same = same;
    }
}

struct site_diff *site_diff(const struct site *old_site, const struct site *new_site)
{
    static const struct kind cameras = {count_cameras, name_camera, camera_text},
                             models = {count_models, name_model, model_text},
                             queries = {count_queries, name_query, query_text};
    struct site_diff *d = xnew(struct site_diff);
    d->cameras = compare(&cameras, old_site, new_site, &d->camera_count);
    d->models = compare(&models, old_site, new_site, &d->model_count);
    d->queries = compare(&queries, old_site, new_site, &d->query_count);
    follow_parts(d, new_site);
    d->settings_same = equal(settings_text, old_site, 0, new_site, 0);
    d->outputs_same = equal(outputs_text, old_site, 0, new_site, 0);
    d->budget_same = old_site->budget == new_site->budget;
    return d;
}

void site_diff_free(struct site_diff **d)
{
    if (!*d) return;
    free((*d)->cameras);
    free((*d)->models);
    free((*d)->queries);
    free(*d);
    *d = NULL;
}

/* What Home Assistant is told.
 *
 * A list of entities is made from the site and made anew when the engine runs another one; those that are no more stay in it as `gone` until
 * they were removed at the broker. Messages have QoS 0: they are retained, and everything is told again after each connect. What an earlier run
 * left at the broker comes back through a subscription to our own configs. Topics and ids of Home Assistant allow [A-Za-z0-9_-] only, so
 * other names are changed and get a hash (slug).
 *
 * Invariant: the list is changed by the client's thread only, under `lock`; the executor reads it and sets `seen` and `high_ns` under `lock`.
 * SPDX-License-Identifier: Apache-2.0 */
#include "serve/discovery.h"

#include "base/text.h"
#include "base/thread.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PER_TICK = 16, LOOK_MS = 1000, SLUG = 96 };

struct entity {
    struct entity *next;
    char camera[72], query[72], label[32]; /* label "": all of the query's objects */
    char object[3 * SLUG + 16], slug[SLUG];     /* of topics: the whole, the label */
    bool tracked, motion, gone, found;     /* found: in the new site */
    bool told;                             /* its configs are at the broker */
    int shown, seen;                       /* objects; -1: never told */
    int64_t high_ns;                       /* when at least `shown` were last seen */
};

struct camera {
    struct camera *next;
    char name[72];
    int shown; /* -1: never told, 0: offline, 1: online */
    bool live, found;
};

struct serve_discovery {
    struct engine *engine;
    const struct site_outputs *o;
    char box[SLUG + 8];
    struct engine_site *site; /* held, so that a new one never has its address */
    int64_t looked_ns;
    struct camera *cameras;
    pthread_mutex_t lock; /* guards the list; see above */
    struct entity *entities;
};

static void slug(const char *s, char ret[SLUG])
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    bool same = true;
    size_t n = 0;
    for (; *s; s++) {
        bool good = isalnum((unsigned char)*s) || *s == '_' || *s == '-';
        same &= good && n < SLUG - 10;
        if (n < SLUG - 10) ret[n++] = good ? *s : '_';
        hash = (hash ^ (unsigned char)*s) * 16777619u;
    }
    ret[n] = 0;
    if (!same) snprintf(ret + n, SLUG - n, "_%08x", hash);
}

/* ---- the list */

static void add_entity(struct serve_discovery *d, const char *camera, const struct site_query *q, const char *label, int *count)
{
    char a[SLUG], b[SLUG];
    struct entity *e = d->entities;
    while (e && (strcmp(e->camera, camera) || strcmp(e->query, q->name) || strcmp(e->label, label))) e = e->next;
    if (++*count > SERVE_DISCOVERY_MAX) return;
    if (!e) {
        e = xnew(struct entity);
        snprintf(e->camera, sizeof e->camera, "%s", camera);
        snprintf(e->query, sizeof e->query, "%s", q->name);
        snprintf(e->label, sizeof e->label, "%s", label);
        slug(camera, a), slug(q->name, b), slug(*label ? label : "objects", e->slug);
        int n = snprintf(e->object, sizeof e->object, "%s_%s_%s", a, b, e->slug);
        if (strchr(a, '_') || strchr(b, '_') || strchr(e->slug, '_')) /* a_b, c and a, b_c are two things */
            snprintf(e->object + n, sizeof e->object - (size_t)n, "_%08x", (unsigned)(hash64(a, strlen(a), hash64(b, strlen(b), 0)) >> 32));
        e->shown = -1;
        e->next = d->entities;
        d->entities = e;
    }
    e->tracked = q->track;
    e->motion = q->model == SITE_MOTION;
    e->found = true;
}

static void add_query(struct serve_discovery *d, const struct site *s, const struct site_query *q, int *count)
{
    for (size_t c = 0; c < q->camera_count; c++) {
        const char *camera = s->cameras[q->cameras[c]].name;
        if (q->objects.all || q->model == SITE_MOTION) add_entity(d, camera, q, q->model == SITE_MOTION ? "motion" : "", count);
        for (size_t i = 0; i < q->objects.count && q->model != SITE_MOTION; i++) add_entity(d, camera, q, q->objects.items[i], count);
    }
}

static void read_site(struct serve_discovery *d, const struct site *s)
{
    int count = 0;
    char text[96] = "";
    pthread_mutex_lock(&d->lock);
    for (struct entity *e = d->entities; e; e = e->next) e->found = false;
    for (size_t i = 0; i < s->query_count; i++) add_query(d, s, &s->queries[i], &count);
    for (struct entity *e = d->entities; e; e = e->next) e->gone = !e->found;
    pthread_mutex_unlock(&d->lock);
    if (count > SERVE_DISCOVERY_MAX)
        snprintf(text, sizeof text, "%d objects; Home Assistant is told of %d of them", count, SERVE_DISCOVERY_MAX);
    engine_set_problem(d->engine, "mqtt discovery", text);
}

static void read_cameras(struct serve_discovery *d)
{
    struct engine_camera_row *rows;
    size_t n = engine_cameras(d->engine, &rows);
    for (struct camera *c = d->cameras; c; c = c->next) c->found = c->live = false;
    for (size_t i = 0; i < n; i++) {
        struct camera *c = d->cameras;
        while (c && strcmp(c->name, rows[i].name)) c = c->next;
        if (!c) {
            c = xnew(struct camera);
            snprintf(c->name, sizeof c->name, "%s", rows[i].name);
            c->shown = -1;
            c->next = d->cameras;
            d->cameras = c;
        }
        c->found = true;
        c->live = rows[i].video.state == VIDEO_LIVE;
    }
    free(rows);
}

static void look(struct serve_discovery *d)
{
    int64_t now = clock_ns();
    if (d->looked_ns && now - d->looked_ns < (int64_t)LOOK_MS * 1000000) return;
    d->looked_ns = now;
    struct engine_site *site = engine_site_hold(d->engine);
    if (!d->site || engine_site_get(site) != engine_site_get(d->site)) read_site(d, engine_site_get(site));
    engine_site_unref(&d->site);
    d->site = site;
    read_cameras(d);
}

/* ---- counting, on the executor's thread */

static void on_record(void *user, const struct engine_record *r)
{
    struct serve_discovery *d = user;
    if (r->kind != ENGINE_RESULT) return;
    pthread_mutex_lock(&d->lock);
    for (struct entity *e = d->entities; e; e = e->next) {
        if (strcmp(e->query, r->query) || strcmp(e->camera, r->camera)) continue;
        e->seen = 0;
        for (int i = 0; i < r->n_tracks; i++)
            e->seen += (!e->tracked || r->tracks[i].id) && (!e->label[0] || !strcmp(e->label, r->tracks[i].label));
        if (e->seen >= e->shown) e->high_ns = clock_ns();
    }
    pthread_mutex_unlock(&d->lock);
}

/* ---- messages */

/* An empty text removes what is retained there. */
static bool retain(struct mosquitto *m, const char *text, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool retain(struct mosquitto *m, const char *text, const char *fmt, ...)
{
    char topic[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(topic, sizeof topic, fmt, ap);
    va_end(ap);
    return mosquitto_publish(m, NULL, topic, (int)strlen(text), text, 0, true) == MOSQ_ERR_SUCCESS;
}

static json_t *available_json(const char *fmt, const char *prefix, const char *camera)
{
    return json_pack("{s:o}", "topic", json_sprintf(fmt, prefix, camera));
}

static char *config_text(const struct serve_discovery *d, const struct entity *e, bool binary)
{
    const char *prefix = d->o->mqtt_prefix, *what = binary ? "occupancy" : "count";
    json_t *j = json_pack(
        "{s:o, s:o, s:o, s:o, s:[o,o], s:s, s:{s:[o], s:o, s:s, s:s}, s:{s:s}}", "name",
        json_sprintf("%s %s%s", e->query, e->label[0] ? e->label : "objects", binary ? "" : " count"), "unique_id",
        json_sprintf("%s_%s_%s", d->box, e->object, what), "object_id", json_sprintf("%s_%s_%s", d->box, e->object, what), "state_topic",
        json_sprintf("%s/%s/%s/%s/%s", prefix, e->camera, e->query, e->slug, what), "availability",
        available_json("%s/available", prefix, e->camera), available_json("%s/%s/available", prefix, e->camera), "availability_mode", "all",
        "device", "identifiers", json_sprintf("%s_%s", d->box, e->camera), "name", json_sprintf("%s %s", prefix, e->camera), "manufacturer", "brim",
        "model", "camera", "origin", "name", "brim");
    if (j && binary) json_object_set_new(j, "device_class", json_string(e->motion ? "motion" : "occupancy"));
    if (j && !binary) json_object_set_new(j, "state_class", json_string("measurement"));
    char *text = j ? json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(j);
    return text;
}

/* `on`: the two configs; else they and the states are removed. */
static bool tell_config(struct serve_discovery *d, struct mosquitto *m, const struct entity *e, bool on)
{
    char *binary = on ? config_text(d, e, true) : NULL, *number = on ? config_text(d, e, false) : NULL;
    bool good = retain(m, binary ? binary : "", "homeassistant/binary_sensor/%s/%s/config", d->box, e->object);
    good = good && retain(m, number ? number : "", "homeassistant/sensor/%s/%s/config", d->box, e->object);
    if (!on) {
        good = good && retain(m, "", "%s/%s/%s/%s/occupancy", d->o->mqtt_prefix, e->camera, e->query, e->slug);
        good = good && retain(m, "", "%s/%s/%s/%s/count", d->o->mqtt_prefix, e->camera, e->query, e->slug);
    }
    free(binary);
    free(number);
    return good;
}

/* The count to show now, or what is shown. */
static int wanted(struct serve_discovery *d, const struct entity *e)
{
    pthread_mutex_lock(&d->lock);
    bool fallen = e->seen < e->shown && clock_ns() - e->high_ns > (int64_t)SERVE_DISCOVERY_HOLD_MS * 1000000;
    int n = e->seen > e->shown || fallen ? e->seen : e->shown;
    pthread_mutex_unlock(&d->lock);
    return n;
}

static bool tell_state(struct serve_discovery *d, struct mosquitto *m, struct entity *e, int n)
{
    char text[16];
    snprintf(text, sizeof text, "%d", n);
    if (!retain(m, n ? "ON" : "OFF", "%s/%s/%s/%s/occupancy", d->o->mqtt_prefix, e->camera, e->query, e->slug) ||
        !retain(m, text, "%s/%s/%s/%s/count", d->o->mqtt_prefix, e->camera, e->query, e->slug))
        return false;
    pthread_mutex_lock(&d->lock);
    e->shown = n;
    pthread_mutex_unlock(&d->lock);
    return true;
}

static void tell_cameras(struct serve_discovery *d, struct mosquitto *m)
{
    for (struct camera **at = &d->cameras; *at;) {
        struct camera *c = *at;
        const char *text = !c->found ? "" : c->live ? "online" : "offline";
        if ((!c->found || c->shown != c->live) && retain(m, text, "%s/%s/available", d->o->mqtt_prefix, c->name)) {
            c->shown = c->live;
            if (!c->found) {
                *at = c->next;
                free(c);
                continue;
            }
        }
        at = &c->next;
    }
}

static void drop_entity(struct serve_discovery *d, struct entity **at)
{
    struct entity *e = *at;
    pthread_mutex_lock(&d->lock);
    *at = e->next;
    pthread_mutex_unlock(&d->lock);
    free(e);
}

void serve_discovery_tick(struct serve_discovery *d, struct mosquitto *m)
{
    int told = 0;
    look(d);
    if (mosquitto_want_write(m)) return; /* what the broker does not take would pile up in the client */
    tell_cameras(d, m);
    for (struct entity **at = &d->entities; *at && told < PER_TICK;) {
        struct entity *e = *at;
        int n = wanted(d, e);
        if (e->gone) {
            told++;
            if (!tell_config(d, m, e, false)) return;
            drop_entity(d, at);
            continue;
        }
        if (!e->told) told++, e->told = tell_config(d, m, e, true);
        if (e->told && n != e->shown) told++, (void)tell_state(d, m, e, n);
        at = &e->next;
    }
}

/* ---- what an earlier run left */

void serve_discovery_connected(struct serve_discovery *d, struct mosquitto *m)
{
    char *topic = xasprintf("homeassistant/+/%s/+/config", d->box);
    mosquitto_subscribe(m, NULL, topic, 0);
    free(topic);
    d->looked_ns = 0;
    look(d); /* before the first message comes */
    for (struct camera *c = d->cameras; c; c = c->next) c->shown = -1;
    pthread_mutex_lock(&d->lock);
    for (struct entity *e = d->entities; e; e = e->next) e->told = false, e->shown = -1;
    pthread_mutex_unlock(&d->lock);
}

void serve_discovery_message(struct serve_discovery *d, struct mosquitto *m, const struct mosquitto_message *msg)
{
    char binary[512], number[512];
    if (!msg->retain || msg->payloadlen <= 0) return; /* our own, just told; or its removal */
    for (struct entity *e = d->entities; e; e = e->next) {
        snprintf(binary, sizeof binary, "homeassistant/binary_sensor/%s/%s/config", d->box, e->object);
        snprintf(number, sizeof number, "homeassistant/sensor/%s/%s/config", d->box, e->object);
        if (!e->gone && (!strcmp(msg->topic, binary) || !strcmp(msg->topic, number))) return;
    }
    char *text = xstrndup(msg->payload, (size_t)msg->payloadlen);
    json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    const char *state = json_string_value(json_object_get(j, "state_topic"));
    size_t n = strlen(d->o->mqtt_prefix);
    if (state && !strncmp(state, d->o->mqtt_prefix, n) && state[n] == '/' && !strpbrk(state, "+#")) retain(m, "", "%s", state);
    retain(m, "", "%s", msg->topic);
    json_decref(j);
    free(text);
}

/* ---- */

struct serve_discovery *serve_discovery_new(struct engine *e, const struct site_outputs *o)
{
    struct serve_discovery *d = xnew(struct serve_discovery);
    char prefix[SLUG];
    d->engine = e;
    d->o = o;
    slug(o->mqtt_prefix, prefix);
    if (strcmp(prefix, "brim")) snprintf(d->box, sizeof d->box, "brim_%s", prefix);
    else snprintf(d->box, sizeof d->box, "brim");
    pthread_mutex_init(&d->lock, NULL);
    engine_add_sink(e, on_record, d);
    return d;
}

void serve_discovery_free(struct serve_discovery **dp)
{
    struct serve_discovery *d = *dp;
    if (!d) return;
    while (d->entities) drop_entity(d, &d->entities);
    while (d->cameras) {
        struct camera *c = d->cameras;
        d->cameras = c->next;
        free(c);
    }
    engine_site_unref(&d->site);
    pthread_mutex_destroy(&d->lock);
    free(d);
    *dp = NULL;
}

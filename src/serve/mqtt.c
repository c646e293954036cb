/* MQTT through libmosquitto, from one thread of ours.
 *
 * The thread reads the outbox (SQLite) and publishes with QoS 1; the acknowledgement removes the message. At most IN_FLIGHT messages are
 * unacknowledged, so memory is bounded however long the broker is away. Each connection begins with a client without memory
 * (the library would keep, and send again, what we publish again ourselves: a flapping broker would make it grow), and everything
 * unacknowledged is published again.
 * The broker's answers are handled in mosquitto_loop on the same thread, so nothing here needs a lock but the numbers.
 *
 * Invariant: a message leaves the outbox only in on_publish. SPDX-License-Identifier: Apache-2.0 */
#include "serve/mqtt.h"

#include "base/log.h"
#include "serve/discovery.h"

#include <errno.h>
#include <mosquitto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IN_FLIGHT = 32, STATS_SECONDS = 30 };

struct flight {
    int mid;       /* of the broker's protocol */
    int64_t id;    /* of the outbox; 0: free */
};

struct serve_mqtt {
    struct engine *engine;
    struct rows *rows;
    struct serve_feed *feed;
    const struct site_outputs *o;
    struct mosquitto *m;
    struct serve_discovery *discovery; /* NULL: off */
    pthread_t thread;
    bool started;
    struct thread_event wake; /* an event was told, or stop */
    atomic_bool stop;
    struct flight flights[IN_FLIGHT]; /* the thread only */
    int64_t after;                    /* outbox ids up to here are published or in flight; the thread only */
    uint64_t feed_after;              /* without a database: the feed's number */
    int64_t stats_at;
    bool greeted;                     /* the broker of this connection has answered; the thread only */
    atomic_bool connected;
    atomic_ullong published, acknowledged;
};

/* ---- callbacks, all on our thread, inside mosquitto_loop */

static void on_connect(struct mosquitto *m, void *user, int rc)
{
    struct serve_mqtt *x = user;
    if (rc) return;
    char *topic = xasprintf("%s/available", x->o->mqtt_prefix);
    mosquitto_publish(m, NULL, topic, 6, "online", 1, true);
    free(topic);
    memset(x->flights, 0, sizeof x->flights); /* what was not acknowledged is published again */
    x->after = 0;
    x->greeted = true;
    if (x->discovery) serve_discovery_connected(x->discovery, m);
    atomic_store(&x->connected, true);
    log_info("mqtt", "connected to %s:%d", x->o->mqtt_host, x->o->mqtt_port);
}

static void on_disconnect(struct mosquitto *m, void *user, int rc)
{
    struct serve_mqtt *x = user;
    (void)m;
    if (atomic_exchange(&x->connected, false) && rc) log_warn("mqtt", "lost %s:%d", x->o->mqtt_host, x->o->mqtt_port);
}

static void on_message(struct mosquitto *m, void *user, const struct mosquitto_message *msg)
{
    struct serve_mqtt *x = user;
    if (x->discovery) serve_discovery_message(x->discovery, m, msg);
}

static void on_publish(struct mosquitto *m, void *user, int mid)
{
    struct serve_mqtt *x = user;
    (void)m;
    for (int i = 0; i < IN_FLIGHT; i++) {
        if (!x->flights[i].id || x->flights[i].mid != mid) continue;
        if (x->rows && rows_outbox_done(x->rows, x->flights[i].id)) return; /* published again later: twice is better than never */
        x->flights[i].id = 0;
        atomic_fetch_add(&x->acknowledged, 1);
        return;
    }
}

/* ---- publishing */

static int publish_event(struct serve_mqtt *x, const struct rows_event *e)
{
    json_t *j = serve_event_json(e);
    char *text = json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(10));
    char *topic = xasprintf("%s/events", x->o->mqtt_prefix), *fine = xasprintf("%s/%s/%s/%s", x->o->mqtt_prefix, e->camera, e->query, e->event);
    int mid = -1;
    json_decref(j);
    mosquitto_publish(x->m, NULL, fine, (int)strlen(text), text, 0, false);
    if (mosquitto_publish(x->m, &mid, topic, (int)strlen(text), text, 1, false) != MOSQ_ERR_SUCCESS) mid = -1;
    if (mid >= 0) atomic_fetch_add(&x->published, 1);
    free(topic);
    free(fine);
    free(text);
    return mid;
}

static int free_flights(const struct serve_mqtt *x)
{
    int n = 0;
    for (int i = 0; i < IN_FLIGHT; i++) n += x->flights[i].id == 0;
    return n;
}

static void remember(struct serve_mqtt *x, int mid, int64_t id)
{
    for (int i = 0; i < IN_FLIGHT; i++)
        if (!x->flights[i].id) {
            x->flights[i] = (struct flight){mid, id};
            return;
        }
}

static void publish_outbox(struct serve_mqtt *x)
{
    struct rows_event *events;
    int64_t *ids;
    int n, room = free_flights(x);
    if (!room || rows_outbox(x->rows, x->after, &events, &ids, &n, room)) return;
    for (int i = 0; i < n; i++) {
        int mid = publish_event(x, &events[i]);
        if (mid < 0) break;
        remember(x, mid, ids[i]);
        x->after = ids[i];
    }
    free(events);
    free(ids);
}

/* Without a database nothing waits: what the broker does not hear is gone. */
static void publish_feed(struct serve_mqtt *x)
{
    struct rows_event events[8];
    uint64_t last = x->feed_after;
    int n = serve_feed_read(x->feed, x->feed_after, events, 8, 0, &last);
    for (int i = 0; i < n; i++) publish_event(x, &events[i]);
    x->feed_after = last;
}

static void publish_stats(struct serve_mqtt *x)
{
    int64_t now = clock_ns();
    if (x->stats_at && now - x->stats_at < (int64_t)STATS_SECONDS * 1000000000) return;
    x->stats_at = now;
    struct engine_query_row *q;
    size_t n = engine_queries(x->engine, &q);
    json_t *queries = json_object();
    for (size_t i = 0; i < n; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s@%s", q[i].query, q[i].camera);
        json_object_set_new(queries, name, json_pack("{s:f, s:f}", "fps", q[i].fps_run, "p95_ms", (double)q[i].stats.p95_ns / 1e6));
    }
    free(q);
    json_t *j = json_pack("{s:f, s:I, s:I, s:o}", "uptime_s", engine_uptime_s(x->engine), "memory_bytes",
                          (json_int_t)mem_budget_used(engine_budget(x->engine)), "memory_limit_bytes",
                          (json_int_t)mem_budget_limit(engine_budget(x->engine)), "queries", queries);
    char *text = json_dumps(j, JSON_COMPACT), *topic = xasprintf("%s/stats", x->o->mqtt_prefix);
    mosquitto_publish(x->m, NULL, topic, (int)strlen(text), text, 0, false);
    json_decref(j);
    free(text);
    free(topic);
}

/* ---- the thread */

/* What a client forgets when it is made new. */
static void prepare(struct serve_mqtt *x)
{
    char *topic = xasprintf("%s/available", x->o->mqtt_prefix);
    mosquitto_will_set(x->m, topic, 7, "offline", 1, true);
    free(topic);
    if (x->o->mqtt_user) mosquitto_username_pw_set(x->m, x->o->mqtt_user, x->o->mqtt_password);
    mosquitto_connect_callback_set(x->m, on_connect);
    mosquitto_disconnect_callback_set(x->m, on_disconnect);
    mosquitto_publish_callback_set(x->m, on_publish);
    mosquitto_message_callback_set(x->m, on_message);
    mosquitto_max_inflight_messages_set(x->m, IN_FLIGHT);
}

static int connect_anew(struct serve_mqtt *x)
{
    int rc = mosquitto_reinitialise(x->m, NULL, true, x);
    if (rc) return rc;
    prepare(x);
    x->greeted = false;
    return mosquitto_connect(x->m, x->o->mqtt_host, x->o->mqtt_port, 30);
}

static void show_problem(struct serve_mqtt *x, int rc)
{
    if (atomic_load(&x->connected)) {
        engine_set_problem(x->engine, "mqtt", "");
        return;
    }
    char text[256];
    const char *why = rc == MOSQ_ERR_ERRNO ? strerror(errno) : rc ? mosquitto_strerror(rc) : "not connected yet";
    if (rc == MOSQ_ERR_CONN_LOST && !x->greeted) /* accepted, then closed: often another program has that port */
        why = "what listens there closed the connection without an answer; is it an MQTT broker?";
    snprintf(text, sizeof text, "%s:%d: %s; events wait in the database", x->o->mqtt_host, x->o->mqtt_port, why);
    engine_set_problem(x->engine, "mqtt", text);
}

static void *run(void *arg)
{
    struct serve_mqtt *x = arg;
    int backoff_ms = 500;
    int rc = mosquitto_connect(x->m, x->o->mqtt_host, x->o->mqtt_port, 30);
    while (!atomic_load(&x->stop)) {
        if (!rc) rc = mosquitto_loop(x->m, 50, 1);
        show_problem(x, rc);
        if (rc) {
            atomic_store(&x->connected, false);
            thread_event_reset(&x->wake);
            for (int waited = 0; waited < backoff_ms && !atomic_load(&x->stop); waited += 100) thread_event_wait(&x->wake, 100), thread_event_reset(&x->wake);
            backoff_ms = MIN(backoff_ms * 2, 30000);
            rc = connect_anew(x);
            continue;
        }
        if (!atomic_load(&x->connected)) continue;
        backoff_ms = 500;
        if (x->rows) publish_outbox(x);
        else publish_feed(x);
        publish_stats(x);
        if (x->discovery) serve_discovery_tick(x->discovery, x->m);
    }
    return NULL;
}

static void on_event(void *user, const struct rows_event *e)
{
    struct serve_mqtt *x = user;
    (void)e;
    thread_event_set(&x->wake);
}

err serve_mqtt_open(struct engine *e, struct rows *rows, struct serve_feed *feed, const struct site_outputs *o, struct serve_mqtt **ret)
{
    struct serve_mqtt *x = xnew(struct serve_mqtt);
    x->engine = e;
    x->rows = rows;
    x->feed = feed;
    x->o = o;
    if (o->mqtt_discovery) x->discovery = serve_discovery_new(e, o);
    mosquitto_lib_init();
    err er = thread_event_init(&x->wake);
    x->m = er ? NULL : mosquitto_new(NULL, true, x);
    if (!er && !x->m) er = err_set(ERR_IO, "mqtt: %s", strerror(errno));
    if (!er) {
        prepare(x);
        serve_feed_listen(feed, on_event, x);
        er = thread_start("brim-mqtt", run, x, &x->thread);
        x->started = !er;
    }
    if (er)
        serve_mqtt_close(&x);
    else
        *ret = x;
    return er;
}

/* Gives what is in flight a moment, then says goodbye itself: the last will is for deaths only. */
static void say_goodbye(struct serve_mqtt *x)
{
    char *topic = xasprintf("%s/available", x->o->mqtt_prefix);
    mosquitto_publish(x->m, NULL, topic, 7, "offline", 1, true);
    free(topic);
    for (int i = 0; i < 10; i++) {
        if (x->rows) publish_outbox(x);
        if (mosquitto_loop(x->m, 50, 1)) break;
    }
    mosquitto_disconnect(x->m);
    mosquitto_loop(x->m, 50, 1);
}

void serve_mqtt_close(struct serve_mqtt **xp)
{
    struct serve_mqtt *x = *xp;
    if (!x) return;
    if (x->started) {
        atomic_store(&x->stop, true);
        thread_event_set(&x->wake);
        pthread_join(x->thread, NULL);
        if (atomic_load(&x->connected)) say_goodbye(x);
    }
    if (x->m) mosquitto_destroy(x->m);
    serve_discovery_free(&x->discovery);
    thread_event_done(&x->wake);
    mosquitto_lib_cleanup();
    free(x);
    *xp = NULL;
}

void serve_mqtt_get_stats(struct serve_mqtt *x, struct serve_mqtt_stats *ret)
{
    *ret = (struct serve_mqtt_stats){.connected = atomic_load(&x->connected), .published = atomic_load(&x->published),
                                     .acknowledged = atomic_load(&x->acknowledged), .waiting = x->rows ? rows_outbox_count(x->rows) : 0};
}

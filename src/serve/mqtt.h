/* Events to an MQTT broker. PREFIX/available is retained ("online", last will "offline"); PREFIX/events and PREFIX/CAMERA/QUERY/EVENT get JSON
 * with QoS 1; PREFIX/stats every 30 s; what Home Assistant is told is in discovery.h. Events wait in the database's outbox while the broker is away, and leave it only when the broker has
 * acknowledged them; so a message may come twice (same uid), but none is lost. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/engine.h"
#include "serve/feed.h"

struct serve_mqtt;

/* Returns at once and connects in its own thread, again and again with back-off. `rows` with an outbox, or NULL: then nothing waits for a broker. */
err serve_mqtt_open(struct engine *e, struct rows *rows, struct serve_feed *feed, const struct site_outputs *o, struct serve_mqtt **ret);
void serve_mqtt_close(struct serve_mqtt **m);
struct serve_mqtt_stats {
    bool connected;
    uint64_t published, acknowledged;
    int64_t waiting;
};
void serve_mqtt_get_stats(struct serve_mqtt *m, struct serve_mqtt_stats *ret);

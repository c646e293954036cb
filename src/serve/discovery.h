/* Home Assistant's MQTT discovery: each camera of each query becomes, for each label that the query names (or for all together), an occupancy
 * and a count, grouped by camera (https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery).
 *
 *     homeassistant/binary_sensor/BOX/OBJECT/config   homeassistant/sensor/BOX/OBJECT/config   retained; empty: removed
 *     PREFIX/CAMERA/QUERY/LABEL/occupancy             ON, OFF; retained
 *     PREFIX/CAMERA/QUERY/LABEL/count                 a number; retained
 *     PREFIX/CAMERA/available                         online while frames come, offline; retained
 *
 * All on the thread that owns the client, but the counting. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/engine.h"

#include <mosquitto.h>

/* Entities beyond so many are not told, and a problem says so. A count that falls is told when it has held for SERVE_DISCOVERY_HOLD_MS, so that an
 * object that is missed in one frame does not switch a light. */
enum { SERVE_DISCOVERY_MAX = 1024, SERVE_DISCOVERY_HOLD_MS = 1000 };

struct serve_discovery;

/* Before the engine starts: listens to its results. `o` is borrowed. */
struct serve_discovery *serve_discovery_new(struct engine *e, const struct site_outputs *o);
void serve_discovery_free(struct serve_discovery **d);
/* A new connection: everything is told again, and what an earlier run told and is no more is removed. */
void serve_discovery_connected(struct serve_discovery *d, struct mosquitto *m);
void serve_discovery_message(struct serve_discovery *d, struct mosquitto *m, const struct mosquitto_message *msg);
/* Often: tells what changed, the site (after a reload) included; a few at a time, and none while the client has bytes to send. */
void serve_discovery_tick(struct serve_discovery *d, struct mosquitto *m);

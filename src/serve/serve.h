/* Everything that leaves the box: database, files, HTTP, MQTT, the control socket; opened before the engine starts.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/engine.h"

struct serve;

struct serve_options {
    const char *site_path; /* for reload */
    bool no_http;
    bool own_store;        /* the store is not the site's: its `store` is not looked at when the site is read again */
    uint64_t budget;       /* instead of the site's; 0: the site's */
};

/* Bytes of the queues that outputs of this site take when they open, for as long as it runs. Page, streams and video files come on top, as far as there is room. */
uint64_t serve_bytes(const struct site *s);
/* ERR_BUSY: port, database or store in use. What can fail later (a disk, a broker) is a problem that is shown and tried again. */
err serve_open(struct engine *e, const struct serve_options *o, struct serve **ret);
/* Tells what waits, then closes everything. The engine must have been stopped from producing (it may still exist). */
void serve_close(struct serve **s);
/* 0 if there is no HTTP. */
int serve_port(const struct serve *s);
/* Where JSON lines go to standard output, what else is printed must not tear one: `text` (lines, each ended) becomes the last of them, after all
 * events. False: they do not go there. */
bool serve_say(struct serve *s, const char *text);
/* About once a second: problems of the outputs are looked at and shown. */
void serve_tick(struct serve *s);
/* Reads the site file again; on a broken file the old one runs on, the sentence is logged and shown as a problem. */
err serve_reload(struct serve *s);

/* Results into files: JSON lines, MOT CSV per camera, annotated MP4. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/engine.h"
#include "serve/feed.h"

struct serve_files;

/* Opens what the site's outputs name; results come through engine's sink, events through the feed. ERR_IO for what cannot be written. */
err serve_files_open(struct engine *e, struct serve_feed *feed, struct serve_files **ret);
/* If JSON lines go to standard output: one more of them, or it is dropped like any other. False: they do not, print it yourself. */
bool serve_files_say(struct serve_files *f, const char *line, size_t n);
void serve_files_close(struct serve_files **f);

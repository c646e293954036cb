/* Tracks in MOT format, one file per camera and query. What cannot be opened or written is tried again every second or five, and told
 * meanwhile; a file has whole lines at any time. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/engine.h"
#include "serve/counts.h"

struct serve_mots;

/* `problem` is called with what is wrong with the first file that has something wrong, or "". `folder` is borrowed. */
struct serve_mots *serve_mots_new(const char *folder, struct serve_count *count, void (*problem)(void *user, const char *sentence), void *user);
/* From one thread at a time. */
void serve_mots_write(struct serve_mots *m, const struct engine_record *r);
void serve_mots_free(struct serve_mots **m);

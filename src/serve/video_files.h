/* Annotated video, one file per camera: what the first query that has a result there sees. A file that cannot be opened or written is told
 * and followed by a new one ten seconds later; nothing that is on disk is written over: CAMERA.mp4, CAMERA-2.mp4 ... SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/engine.h"

struct serve_videos;

/* `problem` is called with what is wrong with the first video that has something wrong, or "". `s` and `payer` are borrowed. */
struct serve_videos *serve_videos_new(const struct site *s, struct mem_payer *payer, void (*problem)(void *user, const char *sentence), void *user);
/* From one thread at a time; a record without a picture is no frame. */
void serve_videos_write(struct serve_videos *v, const struct engine_record *r);
void serve_videos_free(struct serve_videos **v);

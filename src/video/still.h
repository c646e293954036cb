/* Pictures one by one, in the caller's thread: an image's bytes or file into a frame, and a video's frames in their order. For what reads whole
 * sets of pictures (training); cameras are video.h's. Bytes: a payer NAME of the budget, MEM_FRAMES and MEM_DECODER. One thread per object;
 * frames may outlive it. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "video/video.h"

struct video_still;
struct video_still *video_still_new(struct mem_budget *b, const char *name);
void video_still_free(struct video_still **s);
/* JPEG or PNG. ERR_CORRUPT: it is neither, is cut off or damaged; ERR_LIMIT: sides over VIDEO_MAX_SIDE; ERR_NOMEM: the budget. `what` names it in
 * the sentence. */
err video_still_decode(struct video_still *s, const uint8_t *bytes, size_t size, const char *what, struct video_frame **ret);
/* The same of a file of at most 64 MiB. */
err video_still_read(struct video_still *s, const char *path, struct video_frame **ret);

struct video_reader;
/* A video file, an image or a folder of images. */
err video_reader_open(struct mem_budget *b, const char *name, const char *path, struct video_reader **ret);
/* Every frame in order; ERR_CLOSED at the end. What cannot be decoded is left out; ERR_NOMEM: the budget. */
err video_reader_next(struct video_reader *r, struct video_frame **ret);
void video_reader_close(struct video_reader **r);

/* Inside the room: where frames come from. A pool belongs to one camera (or child) and outlives it while frames of it
 * are held; it owns the payer. Sizes follow the stream: buffers of another size are given back at once.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "video/video.h"

/* How a frame of `format` lies in one block: strides and offsets of its planes, all multiples of 64; `bytes` in all.
 * False for a format or size that is not allowed. Parent and child compute it each for themselves. */
struct video_layout {
    int planes, stride[3], rows[3];
    size_t offset[3], bytes;
};
bool video_layout(enum video_format format, int w, int h, struct video_layout *ret);

struct video_pool;
/* At most `most` buffers are out at a time. */
struct video_pool *video_pool_new(struct mem_budget *b, const char *payer, int most);
struct video_pool *video_pool_ref(struct video_pool *p);
void video_pool_unref(struct video_pool **p);
/* Gives free buffers back, and from now on every buffer as it returns. */
void video_pool_close(struct video_pool *p);
/* Buffers that are out now. */
int video_pool_out(struct video_pool *p);
struct mem_payer *video_pool_payer(const struct video_pool *p);

/* Makes one charge of `*charged` bytes (0: none) one of `now`, asking only for the difference; on failure the old one
 * stays. */
err video_recharge(struct mem_payer *payer, enum mem_purpose purpose, size_t *charged, size_t now);

struct video_buffer {
    uint8_t *data; /* page-aligned or 64-byte aligned */
    size_t size;
    struct video_pool *pool;
    struct video_buffer *next;
};
/* ERR_NOMEM: the budget; ERR_LIMIT: too many are out. Contents are undefined. */
err video_pool_get(struct video_pool *p, size_t size, struct video_buffer **ret);
void video_pool_put(struct video_buffer *buf);

/* A frame with one reference; when the last goes, drop(owner, index) is called. The caller fills in the rest. */
typedef void video_drop_fn(void *owner, int index);
struct video_frame *video_frame_wrap(video_drop_fn *drop, void *owner, int index);
/* A frame in a buffer of the pool, laid out by video_layout; contents are undefined. */
err video_frame_from_pool(struct video_pool *pool, enum video_format format, int w, int h, struct video_frame **ret);

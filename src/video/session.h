/* Inside the room: one connection, from opening to its first error. `source.c` is the thing itself; `remote.c` is the
 * same thing in a child process. `camera.c` drives either through this table and owns everything that outlives a
 * connection. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdatomic.h>

#include "video/frame.h"

/* Written by the session's thread, read by anybody. */
struct video_counters {
    _Atomic uint64_t pictures; /* that arrived, decoded or knowingly skipped */
    _Atomic uint64_t decoded, skipped, corrupt, no_memory, bytes;
    _Atomic int64_t progress_ns; /* clock_ns() of the last picture, decoded or knowingly skipped */
    _Atomic double need;         /* as video_camera_set_need */
};

/* What the session's owner gives it. All pointers are borrowed for the session's life. */
struct video_env {
    const struct video_options *o;
    struct video_pool *pool;
    struct video_counters *c;
    bool (*tick)(void *user); /* called at least every 100 ms, also while blocked; true: stop at once */
    void *user;
};

struct video_info {
    char codec[32];
    double fps; /* of the stream, as it says; 0: unknown */
    bool file;  /* it has an end, and is paced by its own clock */
    int child_pid;
};

struct video_session_ops {
    err (*open)(const struct video_env *env, void **ret);
    /* The next wanted frame, seq not set. ERR_CLOSED: end of file. ERR_CANCELLED: tick said stop. ERR_UNSUPPORTED: no
     * waiting can mend it. Anything else: this connection is over. */
    err (*next)(void *session, struct video_frame **ret);
    void (*info)(const void *session, struct video_info *ret);
    void (*close)(void **session);
};
extern const struct video_session_ops video_source_ops, video_remote_ops;

/* The URL without user and password, at most `size` bytes with the end. */
void video_url_redact(const char *url, char *buf, size_t size);

enum video_kind { VIDEO_FILE, VIDEO_IMAGES, VIDEO_RTSP, VIDEO_HTTP, VIDEO_V4L2 };
/* What a URL is, and the path or URL to hand on (a pointer into `url`). ERR_UNSUPPORTED for other schemes. Looks at
 * the disk. */
err video_url_kind(const char *url, enum video_kind *ret, const char **ret_path);
/* Waits until the host of `url` has an address; interruptible, which getaddrinfo is not. */
err video_url_resolve(const char *url, int timeout_ms, bool (*tick)(void *), void *user);

/* A folder of images, or one, in the order of their names. */
struct video_images;
err video_images_open(const char *path, struct video_images **ret);
void video_images_close(struct video_images **v);
size_t video_images_count(const struct video_images *v);
/* Path of image i. */
const char *video_images_path(const struct video_images *v, size_t i);
bool video_is_image(const char *path);

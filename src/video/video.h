/* Cameras: files, RTSP, HTTP, V4L2 and images become frames in memory that is counted.
 *
 * A camera is one connection and one thread (or one child process) that decodes all the time and keeps only the
 * newest frame; whoever wants it takes a reference. Nothing here blocks the caller, and nothing queues: a frame that
 * nobody took is replaced and counted as dropped. A dead, slow, flapping or lying camera costs a bounded number of
 * bytes for ever, and recovers by itself.
 *
 *     struct video_options o = VIDEO_OPTIONS_DEFAULT;
 *     o.name = "door", o.url = "rtsp://10.0.0.7/stream1";
 *     err e = video_camera_open(&o, budget, wake_me, me, &cam);      // returns at once
 *     ... woken: if (video_camera_latest(cam, &f) == ERR_OK) { use(f); video_frame_unref(&f); }
 *     video_camera_close(&cam);                                      // within a second, whatever the network does
 *
 *     CONNECTING --first frame--> LIVE --nothing for stall_ms--> STALLED --frame--> LIVE
 *     CONNECTING, LIVE, STALLED --error, or nothing for timeout_ms--> WAITING --0.5 s to 30 s--> CONNECTING
 *     LIVE --end of a file without `loop`--> ENDED         any --no waiting can mend it--> FAILED
 *
 * Frames are as decoded; `video/convert.h` makes tensors and pictures of them, and only when asked.
 * Bytes: payer "camera NAME", MEM_FRAMES for pictures, MEM_DECODER for the decoder's own tables (a stated bound, see
 * source.c). All functions are safe to call from any thread, except open and close of the same camera.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"
#include "mem/mem.h"

/* Live: a file plays at its own speed, as a camera would; frames that nobody takes are dropped. Max: the decoder
 * waits until the frame was taken, so none is dropped (files, for evaluation; a network stream is always live). */
enum video_pace { VIDEO_PACE_LIVE, VIDEO_PACE_MAX };
enum video_decode { VIDEO_DECODE_THREAD, VIDEO_DECODE_PROCESS };
enum video_transport { VIDEO_TCP, VIDEO_UDP };

struct video_options {
    const char *name; /* in messages and the payer's name */
    const char *url;  /* path of a file, folder of images or image; rtsp(s)://, http(s)://, file:, v4l2:/dev/video0 */
    enum video_pace pace;
    bool loop; /* files and images: from the start again, without reopening; pts go on rising */
    enum video_decode decode;
    enum video_transport transport; /* RTSP only */
    int timeout_ms;                 /* connecting, or without a byte: give up and reconnect */
    int stall_ms;                   /* without a frame: STALLED */
    double max_fps; /* frames above this rate are not published; 0: all. Images: their rate (else 5) */
    int hint_w, hint_h;             /* V4L2: the size to ask for; 0: the device's own */
};
#define VIDEO_OPTIONS_DEFAULT {.timeout_ms = 10000, .stall_ms = 3000}

enum { VIDEO_MAX_SIDE = 8192 }; /* larger pictures are refused */

/* How planes hold pixels. Anything else that a decoder gives (10 bits, palettes, alpha) is converted to I420 or
 * RGB24. */
enum video_format {
    VIDEO_I420, /* planes Y, U, V; U and V half as wide and high (rounded up) */
    VIDEO_I422, /* U and V half as wide */
    VIDEO_I444,
    VIDEO_NV12, /* planes Y, UV interleaved, half as wide and high */
    VIDEO_GREY, /* plane Y */
    VIDEO_RGB24 /* one plane, R G B */
};
enum video_matrix { VIDEO_BT601, VIDEO_BT709, VIDEO_BT2020 };

/* Read-only and shared; alive until the last unref, which may come after the camera was closed (but must come before
 * the budget is freed). A camera in its own process has 3 frames in all: hold them briefly. */
struct video_frame {
    enum video_format format;
    int width, height; /* pixels */
    const uint8_t *plane[3];
    int stride[3]; /* bytes from row to row */
    enum video_matrix matrix;
    bool full_range;  /* luma 0-255 rather than 16-235 */
    bool chroma_left; /* chroma samples lie on even luma columns (H.264's default) rather than between two (JPEG) */
    double pts;       /* seconds of the stream's own clock, rising even when a file loops; 0 for the first frame */
    int64_t captured_ns; /* clock_ns() when its packet had been read */
    uint64_t seq;        /* 1, 2, 3...: published frames of this camera; never starts again */
};
struct video_frame *video_frame_ref(const struct video_frame *f);
/* Accepts a pointer to NULL. */
void video_frame_unref(struct video_frame **f);
/* A frame of one's own, zeroed, for tests and drawn scenes: planes are writable through the cast. Payer "NAME". */
err video_frame_new(struct mem_budget *b, const char *name, enum video_format format, int w, int h,
                    struct video_frame **ret);

struct video_camera;

/* Called from the camera's thread when there is a new frame or a new state; must only unblock somebody. May be NULL.
 */
typedef void video_wakeup_fn(void *user);

/* Starts the camera's thread and returns; ERR_USAGE for options that cannot be meant. Strings are copied. */
err video_camera_open(const struct video_options *o, struct mem_budget *b, video_wakeup_fn *wakeup, void *user,
                      struct video_camera **ret);
/* Stops, joins, frees. No wakeup comes afterwards. Accepts a pointer to NULL. */
void video_camera_close(struct video_camera **cam);

/* The newest frame that nobody has taken yet: ERR_OK and a reference; ERR_AGAIN: none since last time; ERR_CLOSED:
 * ENDED or FAILED, and the last frame was taken. The slot is emptied: one taker per camera, who fans out with ref. */
err video_camera_latest(struct video_camera *cam, struct video_frame **ret);

/* How many frames a second are wanted by all queries together; < 0 (at first): all; 0: none for now. Frames that are
 * not wanted are not published, and where the codec allows it not even decoded. A file at pace max goes on
 * regardless. */
void video_camera_set_need(struct video_camera *cam, double fps);

enum video_state {
    VIDEO_CONNECTING,
    VIDEO_LIVE,
    VIDEO_STALLED,
    VIDEO_WAITING,
    VIDEO_ENDED,
    VIDEO_FAILED
};
const char *video_state_name(enum video_state s); /* "connecting" ... */

struct video_stats {
    enum video_state state;
    char error[256];             /* last error's sentence, without passwords; "" if there never was one */
    char url[256];               /* without user and password */
    char codec[32];              /* "h264"; "" until known */
    int width, height;           /* of the last frame; 0: none yet */
    double fps_in;               /* decoded frames a second, over the last few seconds */
    double stream_fps;           /* what the stream says of itself; 0: nothing */
    uint64_t decoded, published; /* frames */
    uint64_t dropped;            /* published, but replaced before anybody took them */
    uint64_t skipped;            /* not published: nobody needs that many, or a child's 3 slots were all held */
    uint64_t corrupt;            /* packets or frames with errors: not published */
    uint64_t no_memory;          /* frames lost because the budget refused a buffer */
    uint64_t reconnects, bytes;  /* since open */
    int64_t last_frame_ns;       /* clock_ns() of the last published frame; 0: none yet */
    double wait_s;               /* WAITING: seconds until the next attempt */
    int child_pid;               /* decode: process; else 0 */
};
void video_camera_stats(struct video_camera *cam, struct video_stats *ret);

/* The program's hidden first argument of a decoding child, and its main function: argv[1] equal to this must be
 * handed over before anything else is done. Returns the exit status. */
#define VIDEO_DECODE_ARG "__decode"
int video_decode_main(int argc, char **argv);

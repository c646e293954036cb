/* Inside the room: what a camera and its decoding child say to each other, in packets of one size over a socket pair.
 * What comes from the child is foreign: it decodes what strangers send. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "video/session.h"

enum { VIDEO_WIRE_MAGIC = 0x6272696d, VIDEO_SLOTS = 3, VIDEO_WIRE_URL = 2048 };

enum video_wire_type {
    WIRE_OPEN = 1, /* to the child: options */
    WIRE_NEED,     /* to the child: need */
    WIRE_SLOTS,    /* to the child: with a file descriptor: three slots of `bytes`; or without: refused */
    WIRE_FREE,     /* to the child: slot of generation may be written again */
    WIRE_INFO,     /* from the child: opened */
    WIRE_WANT,     /* from the child: slots of at least `bytes`, please */
    WIRE_FRAME,    /* from the child: slot holds a frame */
    WIRE_BEAT,     /* from the child: alive */
    WIRE_END       /* from the child: code and text */
};

/* A sanitizer's shadow and what it keeps of freed memory are no business of the budget. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define VIDEO_SANITIZED 1
#else
#define VIDEO_SANITIZED 0
#endif

struct video_wire {
    uint32_t magic, type;
    uint64_t pictures, decoded, skipped, corrupt, no_memory,
        bytes_read; /* from the child, in every packet: since its start */
    uint32_t generation, slot;
    uint64_t bytes;
    int32_t code, file;
    double need, fps;
    struct {
        int32_t format, width, height, matrix, full_range, chroma_left;
        double pts;
        int64_t captured_ns;
    } frame;
    struct {
        int32_t pace, loop, transport, timeout_ms, stall_ms, hint_w, hint_h;
        double max_fps;
    } open;
    char text[VIDEO_WIRE_URL]; /* url, error or codec; always terminated */
};

/* What the parent knows when a packet comes. */
struct video_wire_state {
    uint32_t generation; /* of the slots now; 0: none yet */
    uint64_t slot_bytes;
    bool busy[VIDEO_SLOTS]; /* somebody holds it */
};
/* Is this packet one that a child may send now? ERR_CORRUPT and why otherwise. Reads nothing beyond n bytes. */
err video_wire_check(const void *packet, size_t n, const struct video_wire_state *state);

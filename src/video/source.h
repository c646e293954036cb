/* Inside the room: the state of one connection, shared by source.c (reading) and decode.c (decoding).
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>

#include "video/session.h"

struct video_source {
    const struct video_env *env;
    enum video_kind kind;
    bool live;      /* a network or device: its own pace, no end */
    bool wallclock; /* the stream has no times of its own (JPEGs one after another): the time of arrival counts */
    double fps;
    char doing[32];

    AVFormatContext *fmt; /* NULL for images */
    struct video_images *images;
    size_t next_image, image_charged;
    int stream;
    AVPacket *packet;
    int64_t deadline_ns;          /* 0: none */
    int64_t bytes_mark, packet_max; /* limit of what is read for one packet */
    err why;                      /* we interrupted FFmpeg, for this reason */

    AVCodecContext *codec;
    AVRational time_base;
    AVFrame *frame;
    struct SwsContext *sws; /* only for exotic formats */
    size_t charged;         /* MEM_DECODER */
    int charged_w, charged_h, charged_pictures;
    bool intra_only, drained;
    bool lost_memory, refused; /* the budget refused a picture: ever; since the last look */
    uint64_t pictures_this_pass;

    /* Time: raw stamps of the stream become a clock that only rises. */
    bool have_raw;
    double last_raw, now;
    bool have_now, clocked; /* the clock was already moved for this picture, by its packet */
    double next_wanted;
};

/* A bound on what FFmpeg allocates for a decoder and demuxer of this picture size that holds so many pictures, which
 * are not included. */
uint64_t video_decoder_bytes(int w, int h, int pictures);
/* Charges (again) for this size and the pictures that are out now; ERR_NOMEM leaves the old charge. */
err video_source_charge(struct video_source *s, int w, int h);
/* Opens the decoder (closing an older one). `par` may be NULL. */
err video_source_codec(struct video_source *s, enum AVCodecID id, const AVCodecParameters *par, AVRational time_base);
/* Hands s->packet to the decoder (or skips it) and empties it; errors are counted. */
void video_source_send(struct video_source *s);
/* ERR_OK: a wanted frame; ERR_AGAIN: needs a packet; ERR_CLOSED: drained. */
err video_source_receive(struct video_source *s, struct video_frame **ret);

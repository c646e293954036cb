/* Frames into network inputs, pictures and thumbnails.
 *
 * One separable resampler reads the planes as decoded and writes floats straight into the input tensor: colour, size,
 * letterbox, mean and scale in one pass, and any rectangle of the frame (fractions and odd offsets included) without
 * a copy. Filter: bilinear when it enlarges, its widened form (antialiased, as Pillow's) when it shrinks. Bytes: the
 * `struct video_conv`'s row buffers (MEM_SCRATCH), kept between calls. One thread per video_conv.
 *
 *     struct video_conv *c = video_conv_new(payer);
 *     struct video_tensor_spec s = {.w = 416, .h = 416, .resize = VIDEO_LETTERBOX_TOPLEFT, .pad_value = 114,
 *                                   .scale = {1, 1, 1}};                 // BGR 0-255, NCHW
 *     err e = video_to_tensor(c, frame, NULL, &s, dst, &map);            // dst: 3 * 416 * 416 floats
 *     struct video_rect box = video_map_rect(&map, box_in_network_pixels);
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "video/video.h"

struct video_rect {
    double x, y, w, h; /* pixels; x, y is the top left corner, edges not centres */
};

enum video_resize {
    VIDEO_STRETCH,
    VIDEO_LETTERBOX_TOPLEFT, /* keeps the aspect; padding right and below */
    VIDEO_LETTERBOX_CENTRE,  /* padding on both sides */
    VIDEO_CROP_CENTRE        /* fills the input; what sticks out is cut on both sides */
};

struct video_tensor_spec {
    int w, h; /* of the network's input */
    enum video_resize resize;
    float pad_value;         /* of a pixel, before mean and scale; e.g. 114 */
    float mean[3],
        scale[3]; /* value = (pixel - mean) * scale, pixel 0-255, in the order of the destination's channels */
    bool rgb;                /* channel order of the destination; else BGR */
    bool nhwc;               /* layout of the destination: [h][w][3]; else [3][h][w] */
};

/* Network pixels into frame pixels: frame = network * s + o. */
struct video_mapping {
    double sx, sy, ox, oy;
    int frame_w, frame_h;
};

struct video_conv;
/* `payer` is borrowed until the free. */
struct video_conv *video_conv_new(struct mem_payer *payer);
void video_conv_free(struct video_conv **c);

/* `roi` (NULL: all) is in frame pixels and is cut to the frame; ERR_SHAPE if nothing is left. `dst` is 3 * w * h
 * floats, wholly written. `ret` may be NULL. ERR_NOMEM: the row buffers did not fit. */
err video_to_tensor(struct video_conv *c, const struct video_frame *f, const struct video_rect *roi,
                    const struct video_tensor_spec *spec, float *dst, struct video_mapping *ret);

/* The frame (or its rectangle), stretched to w x h, as R G B bytes; `stride` is bytes from row to row of dst. */
err video_to_rgb24(struct video_conv *c, const struct video_frame *f, const struct video_rect *roi, int w, int h,
                   uint8_t *dst, int stride);

/* A small grey picture, w x h bytes (at most the frame's size), by averaging luma over boxes; no scratch. For motion
 * gates. */
err video_grey_small(const struct video_frame *f, int w, int h, uint8_t *dst);

/* A network box in frame pixels, cut to the frame; and the way back (for tests and drawing). */
struct video_rect video_map_rect(const struct video_mapping *m, struct video_rect network);
struct video_rect video_unmap_rect(const struct video_mapping *m, struct video_rect frame);

/* Pictures out: R G B bytes into JPEG, and into an MP4 file.
 *
 * The file is written in fragments of about a second, each complete when it is on disk, so that whatever was
 * written plays after a kill -9 or a full disk. H.264 by libx264, one thread; MPEG-4 part 2 where FFmpeg lacks it.
 * Bytes: charged to the payer (MEM_OTHER) by a bound of the size; see encode.c. One thread per object.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"
#include "mem/mem.h"

struct video_jpeg;
/* `quality` 1 to 100, as is customary. Sizes may change from call to call. `payer` is borrowed. */
/* What encoding a picture of this size is charged for. */
size_t video_jpeg_bytes(int w, int h);
struct video_jpeg *video_jpeg_new(struct mem_payer *payer, int quality);
void video_jpeg_free(struct video_jpeg **j);
/* The bytes belong to `j` and are valid until the next call. Each side 1 to 8192. */
err video_jpeg_encode(struct video_jpeg *j, const uint8_t *rgb, int stride, int w, int h, const uint8_t **ret,
                      size_t *ret_size);

struct video_writer_options {
    const char *path; /* *.mp4 is overwritten; *.avi: MJPEG, *.mkv too */
    int w, h;         /* even */
    double fps;
    int quality;     /* 1 to 100; 0: 70 */
    int keyframes;   /* frames from key to key; 0: two seconds' worth */
    int b_frames;    /* 0: none */
    bool mpeg4;      /* MPEG-4 part 2 even where libx264 exists */
};
struct video_writer;
err video_writer_open(const struct video_writer_options *o, struct mem_payer *payer, struct video_writer **ret);
/* The next frame. After an error (a full disk) the writer refuses further frames with it; what is on disk stays
 * playable. */
err video_writer_add(struct video_writer *w, const uint8_t *rgb, int stride);
/* Writes what is left and closes; always frees. */
err video_writer_close(struct video_writer **w);

/* JPEG pictures and MP4 files, with FFmpeg's encoders, one thread each.
 *
 * What an encoder allocates is charged by a bound measured at sizes up to 3840x2160 (encode_test.c measures again up
 * to 1920x1080): MJPEG and MPEG-4 2 MiB + 16 bytes a pixel; x264 `veryfast` 6 MiB + 36, or with B-frames, which look
 * ahead, 120. Files are fragmented MP4: an empty index first, then every second a piece that stands alone, written
 * through at once. SPDX-License-Identifier: Apache-2.0 */
#include "video/encode.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_SIDE = 8192,
    OVER_READ = 64,
    BASE_BYTES = 2 << 20,
    JPEG_BYTES = 16,
    X264_BASE = 6 << 20,
    X264_BYTES = 36,
    X264_B_BYTES = 120
};

/* What both have: an encoder of one size and the way from RGB to it. */
struct encoder {
    struct mem_payer *payer;
    AVCodecContext *codec;
    struct SwsContext *sws;
    AVFrame *frame;
    AVPacket *packet;
    uint8_t *tail; /* the last rows and OVER_READ bytes, see fill */
    size_t charged;
};

static void encoder_done(struct encoder *e)
{
    avcodec_free_context(&e->codec);
    sws_freeContext(e->sws);
    e->sws = NULL;
    av_frame_free(&e->frame);
    av_packet_free(&e->packet);
    free(e->tail);
    e->tail = NULL;
    if (e->charged) mem_release(e->payer, MEM_OTHER, e->charged);
    e->charged = 0;
}

/* The picture buffer, the packet and the conversion, for the codec context that the caller has filled in. */
static err encoder_init(struct encoder *e, int w, int h, enum AVPixelFormat format)
{
    e->frame = av_frame_alloc();
    e->packet = av_packet_alloc();
    e->sws = sws_getContext(w, h, AV_PIX_FMT_RGB24, w, h, format, SWS_BILINEAR, NULL, NULL, NULL);
    if (!e->frame || !e->packet || !e->sws)
        return err_set(ERR_NOMEM, "FFmpeg got no memory for a %d x %d encoder", w, h);
    e->frame->format = format;
    e->frame->width = w;
    e->frame->height = h;
    return av_frame_get_buffer(e->frame, 0) < 0 ? err_set(ERR_NOMEM, "FFmpeg got no memory for a picture") : ERR_OK;
}

static err encoder_charge(struct encoder *e, size_t bytes)
{
    err x = mem_charge(e->payer, MEM_OTHER, bytes);
    if (!x) e->charged = bytes;
    return x;
}

/* libswscale reads up to OVER_READ bytes past the last row, where the caller's memory may end; so the rows from which it could get
 * there are handed over as a slice of their own, copied to where that does no harm. Slices begin at even rows. */
static err fill(struct encoder *e, const uint8_t *rgb, int stride)
{
    int h = e->frame->height, row = 3 * e->frame->width, rows = (OVER_READ / row + 3) & ~1, y0 = h > rows ? (h - rows) & ~1 : 0;
    if (av_frame_make_writable(e->frame) < 0) return err_set(ERR_NOMEM, "FFmpeg got no memory for a picture");
    if (!e->tail) e->tail = xcalloc(1, (size_t)(rows + 1) * (size_t)row + OVER_READ);
    for (int y = y0; y < h; y++) memcpy(e->tail + (size_t)(y - y0) * (size_t)row, rgb + (size_t)y * (size_t)stride, (size_t)row);
    if (y0) sws_scale(e->sws, (const uint8_t *const[4]){rgb}, (const int[4]){stride}, 0, y0, e->frame->data, e->frame->linesize);
    sws_scale(e->sws, (const uint8_t *const[4]){e->tail}, (const int[4]){row}, y0, h - y0, e->frame->data, e->frame->linesize);
    return ERR_OK;
}

struct video_jpeg {
    struct encoder e;
    int lambda;
};

size_t video_jpeg_bytes(int w, int h)
{
    return (size_t)BASE_BYTES + (size_t)w * (size_t)h * JPEG_BYTES;
}

struct video_jpeg *video_jpeg_new(struct mem_payer *payer, int quality)
{
    struct video_jpeg *j = xnew(struct video_jpeg);
    j->e.payer = payer;
    quality = MAX(1, MIN(quality, 100));
    j->lambda = (int)lround(2 + (100 - quality) * 29 / 99.0) * FF_QP2LAMBDA; /* 2 is mjpeg's best, 31 its worst */
    av_log_set_level(AV_LOG_QUIET);
    return j;
}

void video_jpeg_free(struct video_jpeg **j)
{
    if (!*j) return;
    encoder_done(&(*j)->e);
    free(*j);
    *j = NULL;
}

static err jpeg_open(struct video_jpeg *j, int w, int h)
{
    const AVCodec *codec = avcodec_find_encoder(AV_CODEC_ID_MJPEG);
    encoder_done(&j->e);
    if (!codec) return err_set(ERR_UNSUPPORTED, "this FFmpeg has no JPEG encoder");
    err x = encoder_charge(&j->e, video_jpeg_bytes(w, h));
    if (x) return x;
    AVCodecContext *c = j->e.codec = avcodec_alloc_context3(codec);
    if (!c) return err_set(ERR_NOMEM, "FFmpeg got no memory");
    c->width = w;
    c->height = h;
    c->pix_fmt = AV_PIX_FMT_YUVJ420P;
    c->time_base = (AVRational){1, 25};
    c->thread_count = 1;
    c->flags |= AV_CODEC_FLAG_QSCALE;
    c->global_quality = j->lambda;
    if (avcodec_open2(c, codec, NULL) < 0) return err_set(ERR_UNSUPPORTED, "no JPEG of %d x %d pixels", w, h);
    return encoder_init(&j->e, w, h, AV_PIX_FMT_YUVJ420P);
}

err video_jpeg_encode(struct video_jpeg *j, const uint8_t *rgb, int stride, int w, int h, const uint8_t **ret,
                      size_t *ret_size)
{
    struct encoder *e = &j->e;
    if (w < 1 || h < 1 || w > MAX_SIDE || h > MAX_SIDE) return err_set(ERR_SHAPE, "a JPEG of %d x %d pixels", w, h);
    err x = ERR_OK;
    if (!e->frame || e->frame->width != w || e->frame->height != h) x = jpeg_open(j, w, h);
    if (!x) x = fill(e, rgb, stride);
    if (!x) {
        av_packet_unref(e->packet);
        e->frame->quality = j->lambda;
        e->frame->pts++;
        if (avcodec_send_frame(e->codec, e->frame) < 0 || avcodec_receive_packet(e->codec, e->packet) < 0)
            x = err_set(ERR_INTERNAL, "the JPEG encoder refused a picture of %d x %d pixels", w, h);
    }
    if (x) {
        encoder_done(e);
        return x;
    }
    *ret = e->packet->data;
    *ret_size = (size_t)e->packet->size;
    return ERR_OK;
}

struct video_writer {
    struct encoder e;
    AVFormatContext *fmt;
    AVStream *stream;
    char *path;
    int64_t frames;
    bool header;
    err failed;
};

static err av_fail(struct video_writer *w, int r, const char *doing)
{
    char t[AV_ERROR_MAX_STRING_SIZE];
    av_strerror(r, t, sizeof t);
    return w->failed = err_set(ERR_IO, "%s: %s: %s", w->path, doing, t);
}

static const AVCodec *choose_codec(const struct video_writer_options *o)
{
    if (str_ends(o->path, ".avi")) return avcodec_find_encoder(AV_CODEC_ID_MJPEG);
    const AVCodec *c = o->mpeg4 ? NULL : avcodec_find_encoder_by_name("libx264");
    return c ? c : avcodec_find_encoder(AV_CODEC_ID_MPEG4);
}

static err writer_codec(struct video_writer *w, const struct video_writer_options *o)
{
    const AVCodec *codec = choose_codec(o);
    if (!codec) return err_set(ERR_UNSUPPORTED, "this FFmpeg has no video encoder");
    int quality = o->quality ? MAX(1, MIN(o->quality, 100)) : 70;
    bool x264 = codec->id == AV_CODEC_ID_H264, jpeg = codec->id == AV_CODEC_ID_MJPEG;
    size_t per_pixel = o->b_frames ? X264_B_BYTES : X264_BYTES;
    err e = encoder_charge(&w->e, x264 ? X264_BASE + (size_t)o->w * (size_t)o->h * per_pixel : video_jpeg_bytes(o->w, o->h));
    if (e) return e;
    AVCodecContext *c = w->e.codec = avcodec_alloc_context3(codec);
    if (!c) return err_set(ERR_NOMEM, "FFmpeg got no memory");
    c->width = o->w;
    c->height = o->h;
    c->pix_fmt = jpeg ? AV_PIX_FMT_YUVJ420P : AV_PIX_FMT_YUV420P;
    c->framerate = av_d2q(o->fps, 100000);
    c->time_base = av_inv_q(c->framerate);
    c->thread_count = 1;
    c->gop_size = o->keyframes > 0 ? o->keyframes : MAX(1, (int)lround(2 * o->fps));
    c->max_b_frames = jpeg ? 0 : o->b_frames;
    if (!jpeg) {
        c->color_range = AVCOL_RANGE_MPEG;
        c->colorspace = AVCOL_SPC_SMPTE170M; /* what the conversion makes; said, so that nobody has to guess */
    }
    if (x264) {
        av_opt_set(c->priv_data, "preset", "veryfast", 0);
        if (!o->b_frames) av_opt_set(c->priv_data, "tune", "zerolatency", 0);
        av_opt_set_double(c->priv_data, "crf", 51 - 0.4 * quality, 0);
        av_opt_set(c->priv_data, "x264-params", "rc-lookahead=8:sync-lookahead=0", 0);
    } else {
        c->flags |= AV_CODEC_FLAG_QSCALE;
        c->global_quality = (int)lround(2 + (100 - quality) * 29 / 99.0) * FF_QP2LAMBDA;
    }
    if (w->fmt->oformat->flags & AVFMT_GLOBALHEADER) c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    int r = avcodec_open2(c, codec, NULL);
    if (r < 0) return av_fail(w, r, "opening the encoder");
    return encoder_init(&w->e, o->w, o->h, c->pix_fmt);
}

static err writer_file(struct video_writer *w)
{
    w->stream = avformat_new_stream(w->fmt, NULL);
    if (!w->stream || avcodec_parameters_from_context(w->stream->codecpar, w->e.codec) < 0)
        return err_set(ERR_NOMEM, "FFmpeg got no memory");
    w->stream->time_base = w->e.codec->time_base;
    w->stream->avg_frame_rate = w->e.codec->framerate;
    int r = avio_open(&w->fmt->pb, w->path, AVIO_FLAG_WRITE);
    if (r < 0) return av_fail(w, r, "creating");
    AVDictionary *d = NULL;
    if (str_ends(w->path, ".mp4") || str_ends(w->path, ".mov")) {
        av_dict_set(&d, "movflags", "frag_keyframe+empty_moov+default_base_moof", 0);
        av_dict_set(&d, "frag_duration", "1000000", 0);
    }
    w->fmt->flags |= AVFMT_FLAG_FLUSH_PACKETS;
    r = avformat_write_header(w->fmt, &d);
    av_dict_free(&d);
    if (r < 0) return av_fail(w, r, "writing its beginning");
    w->header = true;
    return ERR_OK;
}

static void writer_free(struct video_writer **w)
{
    encoder_done(&(*w)->e);
    if ((*w)->fmt) avio_closep(&(*w)->fmt->pb);
    avformat_free_context((*w)->fmt);
    free((*w)->path);
    free(*w);
    *w = NULL;
}

err video_writer_open(const struct video_writer_options *o, struct mem_payer *payer, struct video_writer **ret)
{
    if (o->w < 2 || o->h < 2 || o->w % 2 || o->h % 2 || o->w > MAX_SIDE || o->h > MAX_SIDE)
        return err_set(ERR_SHAPE, "%s: a video of %d x %d pixels; sides must be even", o->path, o->w, o->h);
    if (!(o->fps > 0 && o->fps <= 1000)) return err_set(ERR_USAGE, "%s: %g frames a second", o->path, o->fps);
    if (o->b_frames < 0 || o->b_frames > 16) return err_set(ERR_USAGE, "%s: %d b-frames", o->path, o->b_frames);
    struct video_writer *w = xnew(struct video_writer);
    w->e.payer = payer;
    w->path = xstrdup(o->path);
    av_log_set_level(AV_LOG_QUIET);
    err e = ERR_OK;
    if (avformat_alloc_output_context2(&w->fmt, NULL, NULL, w->path) < 0 || !w->fmt)
        e = err_set(ERR_USAGE, "%s: name it .mp4, .mkv or .avi", w->path);
    if (!e) e = writer_codec(w, o);
    if (!e) e = writer_file(w);
    if (e) {
        writer_free(&w);
        return e;
    }
    *ret = w;
    return ERR_OK;
}

/* Moves finished packets into the file. */
static err drain(struct video_writer *w)
{
    for (;;) {
        int r = avcodec_receive_packet(w->e.codec, w->e.packet);
        if (r == AVERROR(EAGAIN) || r == AVERROR_EOF) return ERR_OK;
        if (r < 0) return av_fail(w, r, "encoding");
        av_packet_rescale_ts(w->e.packet, w->e.codec->time_base, w->stream->time_base);
        w->e.packet->duration = av_rescale_q(1, w->e.codec->time_base, w->stream->time_base);
        w->e.packet->stream_index = w->stream->index;
        r = av_interleaved_write_frame(w->fmt, w->e.packet);
        if (r >= 0 && w->fmt->pb->error < 0) r = w->fmt->pb->error;
        if (r < 0) return av_fail(w, r, "writing");
    }
}

err video_writer_add(struct video_writer *w, const uint8_t *rgb, int stride)
{
    if (w->failed) return err_set(w->failed, "%s: an earlier frame could not be written", w->path);
    err e = fill(&w->e, rgb, stride);
    if (e) return w->failed = e;
    w->e.frame->pts = w->frames++;
    w->e.frame->quality = w->e.codec->global_quality;
    int r = avcodec_send_frame(w->e.codec, w->e.frame);
    return r < 0 ? av_fail(w, r, "encoding") : drain(w);
}

err video_writer_close(struct video_writer **pw)
{
    struct video_writer *w = *pw;
    if (!w) return ERR_OK;
    err e = w->failed;
    if (!e) {
        avcodec_send_frame(w->e.codec, NULL);
        e = drain(w);
    }
    int r = w->header ? av_write_trailer(w->fmt) : 0; /* frees the muxer's memory, so also after an error */
    if (!e && r < 0) e = av_fail(w, r, "writing its end");
    if (e) e = err_set(e, "%s: not complete; what was written before plays", w->path);
    writer_free(pw);
    return e;
}

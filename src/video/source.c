/* One connection: a URL into decoded frames, with FFmpeg, in the calling thread.
 *
 * Everything that could take for ever has a deadline (FFmpeg's interrupt callback asks us many times a second), and
 * everything that could grow has a bound: the bytes read before the next packet (a lying Content-Length), the
 * streams, the probe, the picture's sides. Pictures are decoded straight into the camera's pool (get_buffer2), so
 * they are counted and may be refused: then the picture is lost and counted, and decoding goes on.
 *
 * What FFmpeg allocates for itself cannot be counted where it happens; it is charged as MEM_DECODER by
 * `video_decoder_bytes`, a bound over what was measured (encode_test.c measures again). It is charged before the
 * codec is opened, so that a camera that cannot fit is refused rather than killed.
 *
 * Pictures are decoded in order even when few are wanted, because the wanted ones refer to the others; but where
 * every picture stands alone (MJPEG, PNG) the unwanted are not decoded, and where few are wanted those that no other
 * refers to are not.
 *
 * Unspecified colour is BT.601, as FFmpeg and OpenCV take it. SPDX-License-Identifier: Apache-2.0 */
#include "video/source.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    NET_PACKET_MAX = 32 << 20, /* bytes read from a network without a packet coming out */
    FILE_PACKET_MAX = 256 << 20,
    IMAGE_MAX = 64 << 20,
    NET_PROBE = 1 << 20,
    MAX_STREAMS = 64,
};

static const char *av_text(int r, char buf[AV_ERROR_MAX_STRING_SIZE])
{
    av_strerror(r, buf, AV_ERROR_MAX_STRING_SIZE);
    return buf;
}

/* Called by FFmpeg from inside every wait and between reads. */
static int interrupted(void *p)
{
    struct video_source *s = p;
    if (s->why) return 1;
    if (s->env->tick(s->env->user))
        s->why = ERR_CANCELLED;
    else if (s->deadline_ns && clock_ns() > s->deadline_ns)
        s->why = ERR_TIMEOUT;
    else if (s->fmt && s->fmt->pb && s->fmt->pb->bytes_read - s->bytes_mark > s->packet_max)
        s->why = ERR_LIMIT;
    return s->why != 0;
}

/* The sentence of a failed call of FFmpeg: our own reason when we interrupted it. */
static err av_fail(struct video_source *s, int r, const char *doing)
{
    char t[AV_ERROR_MAX_STRING_SIZE], url[256];
    video_url_redact(s->env->o->url, url, sizeof url);
    if (s->why == ERR_CANCELLED) return err_set(ERR_CANCELLED, "stopped");
    if (s->why == ERR_TIMEOUT)
        return err_set(ERR_TIMEOUT, "%s: nothing came within %d ms while %s", url, s->env->o->timeout_ms, doing);
    if (s->why == ERR_LIMIT)
        return err_set(ERR_LIMIT, "%s: %d MiB were read without a picture; it is not a video stream", url,
                       (int)(s->packet_max >> 20));
    err code = r == AVERROR(ENOMEM)          ? ERR_NOMEM
               : r == AVERROR_INVALIDDATA    ? ERR_CORRUPT
               : r == AVERROR(ENOENT)        ? ERR_NOT_FOUND
               : r == AVERROR_HTTP_NOT_FOUND ? ERR_NOT_FOUND
                                             : ERR_IO;
    return err_set(code, "%s: %s: %s", url, doing, av_text(r, t));
}

/* libavdevice costs 15 MB of memory once loaded, so it is not linked: only the first V4L2 camera brings it in, for
 * good. */
static err load_v4l2(const AVInputFormat **ret)
{
    void *lib = dlopen("libavdevice.so." AV_STRINGIFY(59), RTLD_NOW | RTLD_LOCAL);
    void (*reg)(void) = lib ? (void (*)(void))(uintptr_t)dlsym(lib, "avdevice_register_all") : NULL;
    if (!reg)
        return err_set(ERR_UNSUPPORTED, "a V4L2 camera needs libavdevice (package libavdevice59): %s", dlerror());
    reg();
    *ret = av_find_input_format("video4linux2");
    return *ret ? ERR_OK : err_set(ERR_UNSUPPORTED, "this libavdevice has no V4L2");
}

static void container_options(struct video_source *s, AVDictionary **d)
{
    const struct video_options *o = s->env->o;
    char us[32], text[64];
    snprintf(us, sizeof us, "%lld", o->timeout_ms * 1000LL);
    switch (s->kind) {
    case VIDEO_RTSP:
        av_dict_set(d, "protocol_whitelist", "rtp,rtsp,rtsps,tcp,udp,tls,crypto", 0);
        av_dict_set(d, "rtsp_transport", o->transport == VIDEO_UDP ? "udp" : "tcp", 0);
        av_dict_set(d, "allowed_media_types", "video", 0);
        av_dict_set(d, "timeout", us, 0);
        av_dict_set(d, "reorder_queue_size", "64", 0);
        av_dict_set(d, "buffer_size", "524288", 0);
        break;
    case VIDEO_HTTP:
        av_dict_set(d, "protocol_whitelist", "http,https,httpproxy,tcp,tls,crypto", 0);
        av_dict_set(d, "rw_timeout", us, 0);
        av_dict_set(d, "user_agent", "brim", 0);
        break;
    case VIDEO_V4L2:
        if (o->hint_w > 0 && o->hint_h > 0) {
            snprintf(text, sizeof text, "%dx%d", o->hint_w, o->hint_h);
            av_dict_set(d, "video_size", text, 0);
        }
        if (o->max_fps > 0) {
            snprintf(text, sizeof text, "%g", o->max_fps);
            av_dict_set(d, "framerate", text, 0);
        }
        break;
    default: av_dict_set(d, "protocol_whitelist", "file", 0);
    }
}

static err find_streams(struct video_source *s)
{
    snprintf(s->doing, sizeof s->doing, "looking for a video stream");
    unsigned n = s->fmt->nb_streams;
    AVDictionary **opts = xnewn(AVDictionary *, n + 1); /* decoders that only probe are bounded, too */
    for (unsigned i = 0; i < n; i++) {
        av_dict_set(&opts[i], "threads", "1", 0);
        av_dict_set_int(&opts[i], "max_pixels", (int64_t)VIDEO_MAX_SIDE * VIDEO_MAX_SIDE, 0);
    }
    int r = avformat_find_stream_info(s->fmt, n ? opts : NULL);
    for (unsigned i = 0; i < n; i++) av_dict_free(&opts[i]);
    free(opts);
    if (r < 0 || s->why) return av_fail(s, r, s->doing);
    const AVCodec *codec = NULL;
    s->stream = av_find_best_stream(s->fmt, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    char url[256];
    video_url_redact(s->env->o->url, url, sizeof url);
    if (s->stream < 0 || !codec)
        return err_set(ERR_FORMAT, "%s: %s", url,
                       s->stream == AVERROR_DECODER_NOT_FOUND ? "FFmpeg has no decoder for its video"
                                                              : "no video in it");
    for (unsigned i = 0; i < s->fmt->nb_streams; i++)
        if ((int)i != s->stream) s->fmt->streams[i]->discard = AVDISCARD_ALL;
    AVStream *st = s->fmt->streams[s->stream];
    AVRational fps = st->avg_frame_rate.num > 0 ? st->avg_frame_rate : st->r_frame_rate;
    s->fps = fps.num > 0 && fps.den > 0 ? av_q2d(fps) : 0;
    s->wallclock = s->live && strstr(s->fmt->iformat->name, "jpeg");
    if (s->fps > 1000 || s->wallclock) s->fps = 0; /* a clock, or FFmpeg's guess, not a rate */
    return video_source_codec(s, st->codecpar->codec_id, st->codecpar, st->time_base);
}

static err open_container(struct video_source *s, const char *path)
{
    const AVInputFormat *format = NULL;
    bool net = s->kind == VIDEO_RTSP || s->kind == VIDEO_HTTP;
    if (s->kind == VIDEO_V4L2) {
        err e = load_v4l2(&format);
        if (e) return e;
    }
    if (net) {
        err e = video_url_resolve(path, s->env->o->timeout_ms, s->env->tick, s->env->user);
        if (e) return e;
    }
    s->packet_max = net ? NET_PACKET_MAX : FILE_PACKET_MAX;
    if (s->kind != VIDEO_FILE) s->deadline_ns = clock_ns() + s->env->o->timeout_ms * 1000000LL;
    s->fmt = avformat_alloc_context();
    if (!s->fmt) return err_set(ERR_NOMEM, "FFmpeg got no memory");
    s->fmt->interrupt_callback = (AVIOInterruptCB){interrupted, s};
    s->fmt->max_streams = MAX_STREAMS;
    if (net) {
        s->fmt->probesize = NET_PROBE;
        s->fmt->max_analyze_duration = 2 * AV_TIME_BASE;
        s->fmt->max_delay = 300000;
        s->fmt->flags |= AVFMT_FLAG_NOBUFFER;
    }
    AVDictionary *d = NULL;
    container_options(s, &d);
    snprintf(s->doing, sizeof s->doing, "connecting");
    int r = avformat_open_input(&s->fmt, path, format, &d); /* frees s->fmt when it fails */
    av_dict_free(&d);
    if (r < 0) return av_fail(s, r, s->kind == VIDEO_FILE ? "opening" : "connecting");
    s->live = s->kind != VIDEO_FILE;
    if (!s->live) return find_streams(s);
    s->deadline_ns = clock_ns() + s->env->o->timeout_ms * 1000000LL;
    return find_streams(s);
}

static err source_open(const struct video_env *env, void **ret)
{
    struct video_source *s = xnew(struct video_source);
    s->env = env;
    s->stream = -1;
    av_log_set_level(AV_LOG_QUIET); /* its lines name URLs with passwords; errors come back as codes */
    const char *path;
    err e = video_url_kind(env->o->url, &s->kind, &path);
    s->packet = av_packet_alloc();
    s->frame = av_frame_alloc();
    if (!e && (!s->packet || !s->frame)) e = err_set(ERR_NOMEM, "FFmpeg got no memory");
    /* Before FFmpeg allocates anything: the smallest decoder there is must fit. */
    if (!e) e = video_source_charge(s, 16, 16);
    if (!e && s->kind == VIDEO_IMAGES) {
        e = video_images_open(path, &s->images);
        s->fps = env->o->max_fps > 0 ? env->o->max_fps : 5;
        s->packet_max = IMAGE_MAX;
    } else if (!e) {
        e = open_container(s, path);
    }
    if (e) {
        void *p = s;
        video_source_ops.close(&p);
        return e;
    }
    *ret = s;
    return ERR_OK;
}

static void source_close(void **p)
{
    struct video_source *s = *p;
    if (!s) return;
    *p = NULL;
    if (!s->why) s->deadline_ns = clock_ns() + 500000000; /* RTSP says goodbye, but not for long */
    avcodec_free_context(&s->codec);
    av_frame_free(&s->frame);
    av_packet_free(&s->packet);
    avformat_close_input(&s->fmt);
    sws_freeContext(s->sws);
    video_images_close(&s->images);
    struct mem_payer *payer = video_pool_payer(s->env->pool);
    if (s->image_charged) mem_release(payer, MEM_QUEUE, s->image_charged);
    if (s->charged) mem_release(payer, MEM_DECODER, s->charged);
    free(s);
}

static void source_info(const void *p, struct video_info *ret)
{
    const struct video_source *s = p;
    memset(ret, 0, sizeof *ret);
    snprintf(ret->codec, sizeof ret->codec, "%s", s->codec && s->codec->codec ? s->codec->codec->name : "");
    ret->fps = s->fps;
    ret->file = !s->live;
}

/* The next image as a packet; AVERROR_EOF after the last. The decoder is chosen by the first bytes. */
static int read_image(struct video_source *s, err *ret)
{
    struct mem_payer *payer = video_pool_payer(s->env->pool);
    if (s->image_charged) mem_release(payer, MEM_QUEUE, s->image_charged);
    s->image_charged = 0;
    if (s->next_image >= video_images_count(s->images)) return AVERROR_EOF;
    const char *path = video_images_path(s->images, s->next_image);
    int64_t index = (int64_t)s->next_image++;
    struct stat st;
    FILE *f = fopen(path, "rb");
    bool fits = f && fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 8 && st.st_size <= IMAGE_MAX;
    if (fits && mem_charge(payer, MEM_QUEUE, (size_t)st.st_size) == ERR_OK) {
        s->image_charged = (size_t)st.st_size;
        if (av_new_packet(s->packet, (int)st.st_size) == 0 &&
            fread(s->packet->data, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
            av_packet_unref(s->packet);
    } else if (fits) {
        atomic_fetch_add(&s->env->c->no_memory, 1);
    }
    if (f) fclose(f);
    const uint8_t *d = s->packet->data;
    enum AVCodecID id = !d                                        ? AV_CODEC_ID_NONE
                        : d[0] == 0xff && d[1] == 0xd8            ? AV_CODEC_ID_MJPEG
                        : !memcmp(d, "\x89PNG\r\n\x1a\n", 8)      ? AV_CODEC_ID_PNG
                                                                  : AV_CODEC_ID_NONE;
    if (id == AV_CODEC_ID_NONE) {
        atomic_fetch_add(&s->env->c->corrupt, 1);
        av_packet_unref(s->packet);
        return AVERROR(EAGAIN);
    }
    s->packet->pts = s->packet->dts = index;
    atomic_fetch_add(&s->env->c->bytes, (uint64_t)s->packet->size);
    if (!s->codec || s->codec->codec_id != id) {
        *ret = video_source_codec(s, id, NULL, av_d2q(1 / s->fps, 1000000));
        if (*ret) av_packet_unref(s->packet);
    }
    return 0;
}

/* Reads the next packet of our stream into s->packet: ERR_OK, ERR_AGAIN (none this time), ERR_CLOSED (end), or the
 * end of the connection. */
static err read_packet(struct video_source *s)
{
    err e = ERR_OK;
    int r;
    if (s->env->tick(s->env->user)) return err_set(ERR_CANCELLED, "stopped");
    if (s->images) {
        r = read_image(s, &e);
    } else {
        s->bytes_mark = s->fmt->pb ? s->fmt->pb->bytes_read : 0;
        s->deadline_ns = s->live ? clock_ns() + s->env->o->timeout_ms * 1000000LL : 0;
        r = av_read_frame(s->fmt, s->packet);
        if (r >= 0) atomic_fetch_add(&s->env->c->bytes, (uint64_t)s->packet->size);
        if (r >= 0 && s->packet->stream_index != s->stream) r = AVERROR(EAGAIN);
        if (r == AVERROR(EAGAIN)) av_packet_unref(s->packet);
    }
    if (e) return e;
    if (r == AVERROR(EAGAIN)) return ERR_AGAIN;
    if (r == AVERROR_EOF && s->live) return err_set(ERR_IO, "the camera ended the connection");
    if (r == AVERROR_EOF) return ERR_CLOSED;
    /* A file that is cut off or broken ends there; only a network is worth an error and another try. */
    if (r < 0 && !s->live && !s->why) {
        atomic_fetch_add(&s->env->c->corrupt, 1);
        return ERR_CLOSED;
    }
    return r < 0 ? av_fail(s, r, "reading") : ERR_OK;
}

/* To the start of a file, without reopening. */
static err rewind_source(struct video_source *s)
{
    if (s->pictures_this_pass == 0)
        return s->lost_memory ? err_set(ERR_NOMEM, "the budget has no room for its pictures")
                              : err_set(ERR_CORRUPT, "no picture of it could be decoded");
    s->pictures_this_pass = 0;
    s->drained = false;
    s->have_raw = false;
    s->next_image = 0;
    if (s->codec) avcodec_flush_buffers(s->codec);
    if (s->images) return ERR_OK;
    AVStream *st = s->fmt->streams[s->stream];
    int64_t start = st->start_time != AV_NOPTS_VALUE ? st->start_time : 0;
    int r = av_seek_frame(s->fmt, s->stream, start, AVSEEK_FLAG_BACKWARD);
    if (r < 0) r = av_seek_frame(s->fmt, -1, 0, AVSEEK_FLAG_BYTE);
    return r < 0 ? av_fail(s, r, "going back to its start") : ERR_OK;
}

/* End of the packets and of the decoder: around again, or ERR_CLOSED. */
static err at_end(struct video_source *s)
{
    if (!s->env->o->loop) {
        if (s->pictures_this_pass) return err_set(ERR_CLOSED, "end of file");
        return rewind_source(s); /* says why there was no picture */
    }
    return rewind_source(s);
}

static err source_next(void *p, struct video_frame **ret)
{
    struct video_source *s = p;
    for (;;) {
        err e = s->codec ? video_source_receive(s, ret) : ERR_AGAIN;
        if (e == ERR_OK) return ERR_OK;
        if (e == ERR_CLOSED && (e = at_end(s))) return e;
        if (e != ERR_AGAIN && e != ERR_OK) return e;
        if (s->live) {
            int64_t quiet = clock_ns() - atomic_load(&s->env->c->progress_ns);
            if (quiet > s->env->o->timeout_ms * 1000000LL) {
                if (s->lost_memory) return err_set(ERR_NOMEM, "the budget has no room for its pictures");
                return err_set(ERR_TIMEOUT, "data, but no picture within %d ms", s->env->o->timeout_ms);
            }
        }
        e = read_packet(s);
        if (e == ERR_AGAIN) continue;
        if (e == ERR_CLOSED && !s->live) {
            if (s->codec && !s->drained) {
                s->drained = true;
                avcodec_send_packet(s->codec, NULL);
            } else if ((e = at_end(s))) {
                return e;
            }
            continue;
        }
        if (e) return e;
        video_source_send(s);
    }
}

const struct video_session_ops video_source_ops = {source_open, source_next, source_info, source_close};

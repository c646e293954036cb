/* The decoding half of a connection: packets into counted pictures, and the choice of which of them anybody wants.
 *
 * `decoder_bytes`: measured on this FFmpeg (H.264, MPEG-4, MJPEG; 96x64 to 3840x2160), what a decoder and its
 * demuxer add to the process beside the pictures is under 2 MiB + 512 bytes per macroblock + 160 per macroblock and
 * picture that it holds (H.264's motion vectors and types of each reference); encode_test.c prints and checks it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "video/source.h"

#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BASE_BYTES = 2 << 20, BLOCK_BYTES = 512, REFERENCE_BYTES = 160, FEW = 4, ROW_ALIGN = 64, PLANE_SLACK = 128 };

uint64_t video_decoder_bytes(int w, int h, int pictures)
{
    uint64_t blocks = (uint64_t)((w + 15) / 16) * (uint64_t)((h + 15) / 16);
    return BASE_BYTES + blocks * (BLOCK_BYTES + REFERENCE_BYTES * (uint64_t)MAX(pictures, FEW));
}

err video_source_charge(struct video_source *s, int w, int h)
{
    bool same = w == s->charged_w && h == s->charged_h;
    int pictures = video_pool_out(s->env->pool) + 1;
    if (same && pictures <= s->charged_pictures) return ERR_OK;
    if (w > VIDEO_MAX_SIDE || h > VIDEO_MAX_SIDE)
        return err_set(ERR_LIMIT, "pictures of %d x %d pixels; sides up to %d are accepted", w, h, VIDEO_MAX_SIDE);
    struct mem_payer *payer = video_pool_payer(s->env->pool);
    size_t bytes = video_decoder_bytes(w, h, pictures);
    err e = video_recharge(payer, MEM_DECODER, &s->charged, bytes);
    if (e) return e;
    s->charged_w = w;
    s->charged_h = h;
    s->charged_pictures = MAX(pictures, FEW);
    return ERR_OK;
}

static void buffer_done(void *opaque, uint8_t *data)
{
    (void)data;
    video_pool_put(opaque);
}

/* The picture's planes, as the codec wants them aligned, in one block of the pool. After avcodec_default_get_buffer2.
 */
static int get_buffer(AVCodecContext *c, AVFrame *f, int flags)
{
    struct video_source *s = c->opaque;
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(f->format);
    if (!d || (d->flags & AV_PIX_FMT_FLAG_HWACCEL) || !(c->codec->capabilities & AV_CODEC_CAP_DR1))
        return avcodec_default_get_buffer2(c, f, flags);
    int w = f->width, h = f->height, align[AV_NUM_DATA_POINTERS], line[4], unaligned;
    if (video_source_charge(s, w, h)) goto refused;
    avcodec_align_dimensions2(c, &w, &h, align);
    do {
        if (av_image_fill_linesizes(line, f->format, w) < 0) return AVERROR(EINVAL);
        w += w & ~(w - 1); /* the lowest set bit, until every row starts aligned */
        unaligned = 0;
        for (int i = 0; i < 4; i++) unaligned |= line[i] % ROW_ALIGN;
    } while (unaligned && w < 4 * VIDEO_MAX_SIDE);
    ptrdiff_t lines[4] = {line[0], line[1], line[2], line[3]};
    size_t size[4], at[4], total = 0;
    if (av_image_fill_plane_sizes(size, f->format, h, lines) < 0) return AVERROR(EINVAL);
    for (int i = 0; i < 4; i++) {
        at[i] = total;
        if (size[i]) total += (size[i] + PLANE_SLACK + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN;
    }
    struct video_buffer *b;
    if (video_pool_get(s->env->pool, total, &b)) goto refused;
    f->buf[0] = av_buffer_create(b->data, total, buffer_done, b, 0);
    if (!f->buf[0]) {
        video_pool_put(b);
        return AVERROR(ENOMEM);
    }
    for (int i = 0; i < 4; i++) {
        f->data[i] = size[i] ? b->data + at[i] : NULL;
        f->linesize[i] = size[i] ? line[i] : 0;
    }
    f->extended_data = f->data;
    return 0;
refused:
    s->refused = s->lost_memory = true;
    atomic_fetch_add(&s->env->c->no_memory, 1);
    return AVERROR(ENOMEM);
}

err video_source_codec(struct video_source *s, enum AVCodecID id, const AVCodecParameters *par, AVRational time_base)
{
    const AVCodec *codec = avcodec_find_decoder(id);
    avcodec_free_context(&s->codec);
    if (!codec) return err_set(ERR_UNSUPPORTED, "this FFmpeg has no decoder for %s", avcodec_get_name(id));
    if (par && par->width > 0 && par->height > 0) {
        err e = video_source_charge(s, par->width, par->height);
        if (e) return e;
    }
    AVCodecContext *c = s->codec = avcodec_alloc_context3(codec);
    if (!c || (par && avcodec_parameters_to_context(c, par) < 0)) return err_set(ERR_NOMEM, "FFmpeg got no memory");
    c->thread_count = 1;
    c->opaque = s;
    c->get_buffer2 = get_buffer;
    c->max_pixels = (int64_t)VIDEO_MAX_SIDE * VIDEO_MAX_SIDE;
    c->flags |= AV_CODEC_FLAG_UNALIGNED; /* crop exactly */
    if (s->live)
        c->flags |= AV_CODEC_FLAG_LOW_DELAY; /* not for files: it would lose reordered pictures at the start */
    c->pkt_timebase = time_base;
    s->time_base = time_base;
    const AVCodecDescriptor *d = avcodec_descriptor_get(id);
    s->intra_only = d && (d->props & AV_CODEC_PROP_INTRA_ONLY);
    int r = avcodec_open2(c, codec, NULL);
    return r < 0 ? err_set(ERR_UNSUPPORTED, "the %s decoder does not open: error %d", codec->name, r) : ERR_OK;
}

/* Moves the clock to a picture whose stamp is `stamp`: stamps may be missing, stand still, jump or start again. */
static void clock_to(struct video_source *s, int64_t stamp)
{
    double raw = s->wallclock                ? (double)clock_ns() / 1e9
                 : stamp == AV_NOPTS_VALUE ? NAN
                                             : (double)stamp * av_q2d(s->time_base);
    double usual = s->fps > 0 ? 1 / s->fps : 0.04, step = raw - s->last_raw;
    if (!s->have_raw || !(step > 0 && step < (s->live ? 10 : 3600))) step = usual; /* also when NaN */
    s->now = s->have_now ? s->now + step : 0;
    s->have_now = true;
    if (!isnan(raw)) {
        s->last_raw = raw;
        s->have_raw = true;
    }
}

/* How many pictures a second somebody wants; INFINITY: all. */
static double wanted_rate(const struct video_source *s)
{
    const struct video_options *o = s->env->o;
    double rate = o->max_fps > 0 && s->kind != VIDEO_IMAGES ? o->max_fps : INFINITY;
    double need = atomic_load(&s->env->c->need);
    if (need < 0 || (!s->live && o->pace == VIDEO_PACE_MAX)) return rate;
    /* A file is slowed down by the pictures that leave here, so one a second does even if nobody looks: or it would race through its loop. */
    return s->live ? MIN(rate, need) : MIN(rate, MAX(need, 1));
}

/* Is the picture at s->now one of them? Half a frame of slack, so that 25 thinned to 5 gives every fifth. */
static bool wanted(struct video_source *s)
{
    double rate = wanted_rate(s);
    if (rate <= 0) return false;
    if (isinf(rate)) return true;
    double period = 1 / rate, slack = MIN(s->fps > 0 ? 0.5 / s->fps : 0.02, period / 2);
    if (s->next_wanted > s->now + period) s->next_wanted = s->now; /* the rate has risen */
    if (s->now + slack < s->next_wanted) return false;
    s->next_wanted = MAX(s->next_wanted, s->now - period) + period;
    return true;
}

static void progress(struct video_source *s)
{
    atomic_fetch_add(&s->env->c->pictures, 1);
    atomic_store(&s->env->c->progress_ns, clock_ns());
}

void video_source_send(struct video_source *s)
{
    struct video_counters *c = s->env->c;
    s->clocked = false;
    if (s->packet->flags & AV_PKT_FLAG_CORRUPT) atomic_fetch_add(&c->corrupt, 1);
    if (s->intra_only) {
        clock_to(s, s->packet->pts != AV_NOPTS_VALUE ? s->packet->pts : s->packet->dts);
        s->clocked = true;
        if (!wanted(s)) {
            atomic_fetch_add(&c->skipped, 1);
            s->pictures_this_pass++;
            progress(s);
            av_packet_unref(s->packet);
            return;
        }
    }
    /* Only when so few are wanted that those left over surely suffice (one in four is a reference in the usual
     * patterns). */
    double rate = wanted_rate(s);
    s->codec->skip_frame = s->fps > 0 && rate * 4 <= s->fps ? AVDISCARD_NONREF : AVDISCARD_DEFAULT;
    s->codec->reordered_opaque = clock_ns();
    s->refused = false;
    int r = avcodec_send_packet(s->codec, s->packet);
    av_packet_unref(s->packet);
    if (r < 0 && !s->refused) atomic_fetch_add(&c->corrupt, 1);
}

static enum video_matrix matrix_of(const AVFrame *f)
{
    switch (f->colorspace) {
    case AVCOL_SPC_BT709: return VIDEO_BT709;
    case AVCOL_SPC_BT2020_NCL:
    case AVCOL_SPC_BT2020_CL: return VIDEO_BT2020;
    default: return VIDEO_BT601;
    }
}

static bool direct_format(int av, enum video_format *ret, bool *full)
{
    switch (av) {
    case AV_PIX_FMT_YUVJ420P: *full = true; /* fall through */
    case AV_PIX_FMT_YUV420P: return *ret = VIDEO_I420, true;
    case AV_PIX_FMT_YUVJ422P: *full = true; /* fall through */
    case AV_PIX_FMT_YUV422P: return *ret = VIDEO_I422, true;
    case AV_PIX_FMT_YUVJ444P: *full = true; /* fall through */
    case AV_PIX_FMT_YUV444P: return *ret = VIDEO_I444, true;
    case AV_PIX_FMT_NV12: return *ret = VIDEO_NV12, true;
    case AV_PIX_FMT_GRAY8: return *full = true, *ret = VIDEO_GREY, true;
    case AV_PIX_FMT_RGB24: return *full = true, *ret = VIDEO_RGB24, true;
    default: return false;
    }
}

static void drop_av(void *owner, int index)
{
    (void)index;
    AVFrame *f = owner;
    av_frame_free(&f);
}

/* Ten bits, palettes, alpha: once per picture, into a buffer of the pool. */
static err convert_exotic(struct video_source *s, const AVFrame *f, struct video_frame **ret)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(f->format);
    bool rgb = d && (d->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL));
    struct video_frame *out;
    err e = video_frame_from_pool(s->env->pool, rgb ? VIDEO_RGB24 : VIDEO_I420, f->width, f->height, &out);
    if (e) return e;
    s->sws = sws_getCachedContext(s->sws, f->width, f->height, f->format, f->width, f->height,
                                  rgb ? AV_PIX_FMT_RGB24 : AV_PIX_FMT_YUV420P, SWS_BILINEAR, NULL, NULL, NULL);
    uint8_t *dst[4] = {(uint8_t *)out->plane[0], (uint8_t *)out->plane[1], (uint8_t *)out->plane[2]};
    int stride[4] = {out->stride[0], out->stride[1], out->stride[2]};
    if (!s->sws || sws_scale(s->sws, (const uint8_t *const *)f->data, f->linesize, 0, f->height, dst, stride) < 0) {
        video_frame_unref(&out);
        return err_set(ERR_UNSUPPORTED, "pictures of format %s cannot be converted", d ? d->name : "?");
    }
    out->full_range = rgb;
    *ret = out;
    return ERR_OK;
}

/* s->frame, decoded and wanted, as a frame of ours. */
static err wrap(struct video_source *s, struct video_frame **ret)
{
    const AVFrame *f = s->frame;
    enum video_format format;
    bool full = f->color_range == AVCOL_RANGE_JPEG;
    bool left = f->chroma_location == AVCHROMA_LOC_LEFT ||
                (f->chroma_location == AVCHROMA_LOC_UNSPECIFIED && s->codec->codec_id != AV_CODEC_ID_MJPEG);
    struct video_frame *out = NULL;
    if (f->width < 1 || f->height < 1 || f->width > VIDEO_MAX_SIDE || f->height > VIDEO_MAX_SIDE)
        return err_set(ERR_LIMIT, "pictures of %d x %d pixels", f->width, f->height);
    if (direct_format(f->format, &format, &full)) {
        AVFrame *own = av_frame_clone(f);
        if (!own) return err_set(ERR_NOMEM, "FFmpeg got no memory");
        out = video_frame_wrap(drop_av, own, 0);
        out->format = format;
        out->width = own->width;
        out->height = own->height;
        out->full_range = full;
        for (int i = 0; i < 3; i++) {
            out->plane[i] = own->data[i];
            out->stride[i] = own->linesize[i];
        }
    } else {
        err e = convert_exotic(s, f, &out);
        if (e) return e;
    }
    out->matrix = matrix_of(f);
    out->chroma_left = left;
    out->pts = s->now;
    out->captured_ns = f->reordered_opaque;
    *ret = out;
    return ERR_OK;
}

err video_source_receive(struct video_source *s, struct video_frame **ret)
{
    struct video_counters *c = s->env->c;
    for (;;) {
        s->refused = false;
        int r = avcodec_receive_frame(s->codec, s->frame);
        if (r == AVERROR(EAGAIN)) return ERR_AGAIN;
        if (r == AVERROR_EOF) return ERR_CLOSED;
        if (r < 0) {
            if (!s->refused) atomic_fetch_add(&c->corrupt, 1);
            return ERR_AGAIN;
        }
        atomic_fetch_add(&c->decoded, 1);
        progress(s);
        if (!s->clocked) clock_to(s, s->frame->best_effort_timestamp);
        err e = ERR_AGAIN;
        if (s->frame->decode_error_flags || (s->frame->flags & AV_FRAME_FLAG_CORRUPT)) {
            atomic_fetch_add(&c->corrupt, 1);
        } else {
            s->pictures_this_pass++;
            if (!s->clocked && !wanted(s)) {
                atomic_fetch_add(&c->skipped, 1);
            } else if ((e = wrap(s, ret)) != ERR_OK) {
                atomic_fetch_add(e == ERR_NOMEM || e == ERR_LIMIT ? &c->no_memory : &c->corrupt, 1);
                s->lost_memory |= e == ERR_NOMEM;
            }
        }
        av_frame_unref(s->frame);
        if (e == ERR_OK) return ERR_OK;
    }
}

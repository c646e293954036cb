/* Single pictures and whole videos without a camera around them: a connection's decoder, driven by the caller's thread.
 *
 * The decoder of an image stays open for the next one of its kind: opening costs as much as decoding a small picture. Each picture is drained
 * at once, so nothing of one can come out as another's; whether it is whole is the decoder's word (a JPEG that is cut off gives half a
 * picture and says so). SPDX-License-Identifier: Apache-2.0 */
#include "video/still.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "video/source.h"

enum { STILL_MAX = 64 << 20, STILL_FRAMES = 16 };

struct video_still {
    struct video_options o;
    struct video_counters c;
    struct video_env env;
    struct video_source s;
};

struct video_reader {
    struct video_options o;
    struct video_counters c;
    struct video_env env;
    void *session;
};

static bool never(void *user)
{
    (void)user;
    return false;
}

static void env_init(struct video_env *env, struct video_options *o, struct video_counters *c, struct mem_budget *b, const char *name)
{
    *o = (struct video_options)VIDEO_OPTIONS_DEFAULT;
    o->pace = VIDEO_PACE_MAX;
    atomic_store(&c->need, -1);
    *env = (struct video_env){.o = o, .pool = video_pool_new(b, name, STILL_FRAMES), .c = c, .tick = never};
}

static void env_done(struct video_env *env)
{
    video_pool_close(env->pool);
    video_pool_unref(&env->pool);
}

struct video_still *video_still_new(struct mem_budget *b, const char *name)
{
    struct video_still *s = xnew(struct video_still);
    env_init(&s->env, &s->o, &s->c, b, name);
    s->s.env = &s->env;
    s->s.kind = VIDEO_IMAGES;
    s->s.fps = 1;
    av_log_set_level(AV_LOG_QUIET);
    return s;
}

void video_still_free(struct video_still **p)
{
    struct video_still *s = *p;
    if (!s) return;
    *p = NULL;
    avcodec_free_context(&s->s.codec);
    av_frame_free(&s->s.frame);
    av_packet_free(&s->s.packet);
    sws_freeContext(s->s.sws);
    if (s->s.charged) mem_release(video_pool_payer(s->env.pool), MEM_DECODER, s->s.charged);
    env_done(&s->env);
    free(s);
}

/* Does the picture's data come to an end? FFmpeg fills up what is missing of a JPEG and says nothing. A thumbnail inside has ends of its own, so
 * only what follows the picture's own scan counts. */
static bool ends(const uint8_t *p, size_t n, enum AVCodecID id)
{
    if (id == AV_CODEC_ID_PNG) return memmem(p, n, "IEND", 4) != NULL;
    for (size_t at = 2; at + 4 <= n && p[at] == 0xff;) {
        if (p[at + 1] == 0xff) at++; /* a filler */
        else if (p[at + 1] == 0xda) return memmem(p + at, n - at, "\xff\xd9", 2) != NULL;
        else at += 2 + ((size_t)p[at + 2] << 8 | p[at + 3]);
    }
    return false;
}

/* What the file says of its size, 0 x 0 if it says nothing: FFmpeg refuses what is too large as it refuses what is damaged. */
static void said_size(const uint8_t *p, size_t n, enum AVCodecID id, uint32_t *ret_w, uint32_t *ret_h)
{
    *ret_w = *ret_h = 0;
    if (id == AV_CODEC_ID_PNG && n >= 24) {
        *ret_w = (uint32_t)p[16] << 24 | (uint32_t)p[17] << 16 | (uint32_t)p[18] << 8 | p[19];
        *ret_h = (uint32_t)p[20] << 24 | (uint32_t)p[21] << 16 | (uint32_t)p[22] << 8 | p[23];
    }
    for (size_t at = 2; id == AV_CODEC_ID_MJPEG && at + 9 <= n && p[at] == 0xff && p[at + 1] != 0xda;) {
        uint8_t marker = p[at + 1];
        if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc) { /* a frame header (ITU T.81, B.2.2) */
            *ret_h = (uint32_t)p[at + 5] << 8 | p[at + 6];
            *ret_w = (uint32_t)p[at + 7] << 8 | p[at + 8];
            return;
        }
        at += marker == 0xff ? 1 : 2 + (size_t)(p[at + 2] << 8 | p[at + 3]);
    }
}

static err too_large(const char *what, uint32_t w, uint32_t h)
{
    return err_set(ERR_LIMIT, "%s: %u x %u pixels; sides up to %d are read", what, w, h, VIDEO_MAX_SIDE);
}

/* The packet's picture, whole, or why not. The decoder is left ready for another. */
static err decode_packet(struct video_still *s, const char *what, struct video_frame **ret)
{
    struct video_source *src = &s->s;
    uint64_t corrupt = atomic_load(&s->c.corrupt), no_memory = atomic_load(&s->c.no_memory);
    struct video_frame *f = NULL;
    video_source_send(src);
    avcodec_send_packet(src->codec, NULL);
    err e;
    while ((e = video_source_receive(src, &f)) == ERR_AGAIN && atomic_load(&s->c.corrupt) == corrupt && atomic_load(&s->c.no_memory) == no_memory) {
    }
    bool whole = e == ERR_OK && atomic_load(&s->c.corrupt) == corrupt;
    avcodec_flush_buffers(src->codec);
    if (whole) return *ret = f, ERR_OK;
    video_frame_unref(&f);
    if (atomic_load(&s->c.no_memory) != no_memory) {
        int w = src->codec->width, h = src->codec->height;
        if (w > VIDEO_MAX_SIDE || h > VIDEO_MAX_SIDE) return too_large(what, (uint32_t)w, (uint32_t)h);
        return err_set(ERR_NOMEM, "%s: the budget has no room for a picture of %d x %d pixels", what, w, h);
    }
    return err_set(ERR_CORRUPT, "%s: the picture is damaged or cut off", what);
}

err video_still_decode(struct video_still *s, const uint8_t *bytes, size_t size, const char *what, struct video_frame **ret)
{
    struct video_source *src = &s->s;
    struct mem_payer *payer = video_pool_payer(s->env.pool);
    enum AVCodecID id = size > 8 && bytes[0] == 0xff && bytes[1] == 0xd8       ? AV_CODEC_ID_MJPEG
                        : size > 8 && !memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) ? AV_CODEC_ID_PNG
                                                                             : AV_CODEC_ID_NONE;
    if (id == AV_CODEC_ID_NONE || size > STILL_MAX)
        return err_set(ERR_CORRUPT, "%s: %s", what, size == 0 ? "an empty file" : size > STILL_MAX ? "over 64 MiB" : "neither JPEG nor PNG");
    uint32_t w, h;
    said_size(bytes, size, id, &w, &h);
    if (w > VIDEO_MAX_SIDE || h > VIDEO_MAX_SIDE) return too_large(what, w, h);
    if (!ends(bytes, size, id)) return err_set(ERR_CORRUPT, "%s: the picture is cut off", what);
    if (!src->packet) src->packet = av_packet_alloc();
    if (!src->frame) src->frame = av_frame_alloc();
    if (!src->packet || !src->frame) return err_set(ERR_NOMEM, "FFmpeg got no memory");
    err e = ERR_OK;
    if (!src->codec || src->codec->codec_id != id) {
        e = video_source_charge(src, 16, 16); /* before FFmpeg allocates anything */
        if (!e) e = video_source_codec(src, id, NULL, (AVRational){1, 1});
    }
    if (!e) e = mem_charge(payer, MEM_QUEUE, size);
    if (e) return e;
    if (av_new_packet(src->packet, (int)size) == 0) {
        memcpy(src->packet->data, bytes, size);
        src->packet->pts = src->packet->dts = 0;
        src->packet->flags |= AV_PKT_FLAG_KEY; /* without it FFmpeg takes a PNG for the difference to the one before (MPNG) */
        src->have_now = src->have_raw = false;
        src->next_wanted = 0;
        e = decode_packet(s, what, ret);
    } else {
        e = err_set(ERR_NOMEM, "FFmpeg got no memory");
    }
    mem_release(payer, MEM_QUEUE, size);
    return e;
}

err video_still_read(struct video_still *s, const char *path, struct video_frame **ret)
{
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    void *bytes = NULL;
    err e = ERR_OK;
    if (fstat(fileno(f), &st) || !S_ISREG(st.st_mode)) e = err_set(ERR_IO, "%s: not a file", path);
    else if (st.st_size == 0 || st.st_size > STILL_MAX) e = err_set(ERR_CORRUPT, "%s: %s", path, st.st_size ? "over 64 MiB" : "an empty file");
    size_t size = e ? 0 : (size_t)st.st_size;
    struct mem_payer *payer = video_pool_payer(s->env.pool);
    if (!e) e = mem_alloc(payer, MEM_QUEUE, size, &bytes);
    if (!e && fread(bytes, 1, size, f) != size) e = err_set(ERR_IO, "%s: cannot be read", path);
    fclose(f);
    if (!e) e = video_still_decode(s, bytes, size, path, ret);
    mem_free(payer, MEM_QUEUE, bytes, size);
    return e;
}

err video_reader_open(struct mem_budget *b, const char *name, const char *path, struct video_reader **ret)
{
    struct video_reader *r = xnew(struct video_reader);
    env_init(&r->env, &r->o, &r->c, b, name);
    r->o.name = name;
    r->o.url = path;
    err e = video_source_ops.open(&r->env, &r->session);
    if (e) {
        env_done(&r->env);
        free(r);
        return e;
    }
    r->o.url = "the file"; /* only for sentences: the caller's string may go */
    *ret = r;
    return ERR_OK;
}

err video_reader_next(struct video_reader *r, struct video_frame **ret)
{
    struct video_frame *f = NULL;
    err e = video_source_ops.next(r->session, &f);
    if (atomic_load(&r->c.no_memory)) { /* a camera may lose a frame; whoever counts frames may not */
        video_frame_unref(&f);
        return err_set(ERR_NOMEM, "the budget has no room for a frame of the video");
    }
    if (!e) *ret = f;
    return e;
}

void video_reader_close(struct video_reader **p)
{
    struct video_reader *r = *p;
    if (!r) return;
    *p = NULL;
    video_source_ops.close(&r->session);
    env_done(&r->env);
    free(r);
}

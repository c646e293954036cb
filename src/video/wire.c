/* Checking what a decoding child says. SPDX-License-Identifier: Apache-2.0 */
#include "video/wire.h"

#include <math.h>
#include <string.h>

static err check_frame(const struct video_wire *m, const struct video_wire_state *state)
{
    struct video_layout l;
    if (m->generation != state->generation || state->generation == 0)
        return err_set(ERR_CORRUPT, "the decoder named slots of another time");
    if (m->slot >= VIDEO_SLOTS || state->busy[m->slot])
        return err_set(ERR_CORRUPT, "the decoder wrote to a slot that is in use, or is none");
    if (m->frame.format < VIDEO_I420 || m->frame.format > VIDEO_RGB24 ||
        !video_layout((enum video_format)m->frame.format, m->frame.width, m->frame.height, &l) ||
        l.bytes > state->slot_bytes)
        return err_set(ERR_CORRUPT, "the decoder sent a frame that does not fit its slot");
    if (m->frame.matrix < VIDEO_BT601 || m->frame.matrix > VIDEO_BT2020)
        return err_set(ERR_CORRUPT, "the decoder sent a frame of unknown colours");
    if (!isfinite(m->frame.pts) || m->frame.pts < 0 || m->frame.pts > 1e12)
        return err_set(ERR_CORRUPT, "the decoder sent a frame of an impossible time");
    return ERR_OK;
}

err video_wire_check(const void *packet, size_t n, const struct video_wire_state *state)
{
    struct video_wire m;
    struct video_layout biggest;
    if (n != sizeof m) return err_set(ERR_CORRUPT, "the decoder sent %zu bytes instead of %zu", n, sizeof m);
    memcpy(&m, packet, sizeof m);
    if (m.magic != VIDEO_WIRE_MAGIC) return err_set(ERR_CORRUPT, "the decoder sent something else than a packet");
    if (!memchr(m.text, 0, sizeof m.text)) return err_set(ERR_CORRUPT, "the decoder sent an endless text");
    switch (m.type) {
    case WIRE_BEAT: return ERR_OK;
    case WIRE_INFO:
        return isfinite(m.fps) && m.fps >= 0 && m.fps <= 1000
                   ? ERR_OK
                   : err_set(ERR_CORRUPT, "the decoder sent an impossible rate");
    case WIRE_WANT:
        video_layout(VIDEO_I444, VIDEO_MAX_SIDE, VIDEO_MAX_SIDE, &biggest);
        return m.bytes > 0 && m.bytes <= biggest.bytes
                   ? ERR_OK
                   : err_set(ERR_CORRUPT, "the decoder asked for impossible slots");
    case WIRE_FRAME: return check_frame(&m, state);
    case WIRE_END:
        return m.code < 0 && m.code > ERR_BASE && m.code < ERR_END
                   ? ERR_OK
                   : err_set(ERR_CORRUPT, "the decoder ended with an unknown code");
    default: return err_set(ERR_CORRUPT, "the decoder sent a packet of unknown kind");
    }
}

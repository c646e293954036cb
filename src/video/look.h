/* What an object looks like, in a few numbers: enough to tell apart two that pass each other, for as long as the light stays. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "video/convert.h"

enum { VIDEO_LOOK_STRIPES = 6, VIDEO_LOOK = 3 * VIDEO_LOOK_STRIPES };

/* Means of Y, U and V (as the frame has them; U and V 128 where it is grey) over stripes of `r` (frame pixels; what lies outside counts as the frame's edge), the topmost
 * first. Of its width the middle 60 % count, as the rest is mostly background. At most 192 pixels are looked at, whatever the size. */
void video_look(const struct video_frame *f, const struct video_rect *r, uint8_t ret[VIDEO_LOOK]);

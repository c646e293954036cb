/* Boxes, names and zones drawn on a picture. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/engine.h"
#include "video/draw.h"

/* Tracks are in frame pixels; the picture may be smaller (scale = picture / frame). */
void serve_paint_tracks(const struct video_picture *p, double scale, const struct engine_track *t, int n);
/* Zones and lines that the site's queries have on this camera. */
void serve_paint_zones(const struct video_picture *p, const struct site *s, const char *camera);

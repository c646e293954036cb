/* Drawing what was found. Invariant: any coordinates are allowed, drawing cuts. SPDX-License-Identifier: Apache-2.0 */
#include "serve/paint.h"

#include <stdio.h>
#include <string.h>

void serve_paint_tracks(const struct video_picture *p, double scale, const struct engine_track *t, int n)
{
    int size = p->w >= 900 ? 2 : 1;
    for (int i = 0; i < n; i++) {
        char text[128];
        video_colour c = video_palette((unsigned)(t[i].id ? (uint64_t)t[i].id : hash64(t[i].label, strlen(t[i].label), 0)));
        int x = (int)(t[i].box.x1 * scale), y = (int)(t[i].box.y1 * scale);
        int w = (int)((t[i].box.x2 - t[i].box.x1) * scale), h = (int)((t[i].box.y2 - t[i].box.y1) * scale);
        video_draw_rect(p, x, y, MAX(w, 2), MAX(h, 2), size + 1, c);
        if (t[i].id)
            snprintf(text, sizeof text, "%s %lld", t[i].label, (long long)t[i].id);
        else
            snprintf(text, sizeof text, "%s %.0f%%", t[i].label, (double)t[i].score * 100);
        video_draw_label(p, x, y, size, 0xffffff, c, text);
        if (t[i].attributes[0]) {
            snprintf(text, sizeof text, "%.60s", t[i].attributes);
            video_draw_label(p, x, y + h + 10 * size, 1, 0xffffff, 0x303030, text);
        }
    }
}

static bool on_camera(const struct site *s, const struct site_query *q, const struct site_shape *z, const char *camera)
{
    if (z->camera >= 0) return !strcmp(s->cameras[z->camera].name, camera);
    for (size_t i = 0; i < q->camera_count; i++)
        if (!strcmp(s->cameras[q->cameras[i]].name, camera)) return true;
    return false;
}

static void paint_shape(const struct video_picture *p, const struct site_shape *z, bool closed)
{
    double xy[2 * SITE_MAX_POINTS];
    for (int i = 0; i < z->point_count; i++) {
        xy[2 * i] = (double)z->points[i][0] * p->w;
        xy[2 * i + 1] = (double)z->points[i][1] * p->h;
    }
    if (closed)
        video_draw_polygon(p, xy, z->point_count, 1, 0xffd24d);
    else
        video_draw_line(p, xy[0], xy[1], xy[2], xy[3], 2, 0x4dd2ff);
    video_draw_label(p, (int)xy[0], (int)xy[1], 1, 0x202020, closed ? 0xffd24d : 0x4dd2ff, z->name);
}

void serve_paint_zones(const struct video_picture *p, const struct site *s, const char *camera)
{
    for (size_t i = 0; i < s->query_count; i++) {
        const struct site_query *q = &s->queries[i];
        for (size_t k = 0; k < q->zone_count; k++)
            if (on_camera(s, q, &q->zones[k], camera)) paint_shape(p, &q->zones[k], true);
        for (size_t k = 0; k < q->line_count; k++)
            if (on_camera(s, q, &q->lines[k], camera)) paint_shape(p, &q->lines[k], false);
    }
}

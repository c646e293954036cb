/* How a frame lies in a network's input. Letterboxes put the picture on whole pixels, so that the border
 * between picture and pad is sharp. SPDX-License-Identifier: Apache-2.0 */
#include "task/card.h"

#include <math.h>

struct task_fit task_fit_of(const struct task_input *in, int frame_width, int frame_height)
{
    struct task_fit f = {.frame_width = MAX(frame_width, 1), .frame_height = MAX(frame_height, 1)};
    float fw = (float)f.frame_width, fh = (float)f.frame_height, w = (float)in->width, h = (float)in->height;
    f.scale_x = w / fw;
    f.scale_y = h / fh;
    if (in->resize == TASK_STRETCH) return f;
    bool cover = in->resize == TASK_CROP;
    f.scale_x = f.scale_y = cover ? fmaxf(w / fw, h / fh) : fminf(w / fw, h / fh);
    if (in->resize == TASK_LETTERBOX) return f;
    f.offset_x = floorf((w - fw * f.scale_x) / 2 + 0.01f);
    f.offset_y = floorf((h - fh * f.scale_y) / 2 + 0.01f);
    return f;
}

struct task_point task_fit_point(const struct task_fit *f, struct task_point p)
{
    float x = (p.x - f->offset_x) / f->scale_x, y = (p.y - f->offset_y) / f->scale_y;
    return (struct task_point){fminf(fmaxf(x, 0), (float)f->frame_width),
                               fminf(fmaxf(y, 0), (float)f->frame_height)};
}

struct task_box task_fit_box(const struct task_fit *f, struct task_box b)
{
    struct task_point p = task_fit_point(f, (struct task_point){b.x1, b.y1}),
                      q = task_fit_point(f, (struct task_point){b.x2, b.y2});
    return (struct task_box){p.x, p.y, q.x, q.y};
}

void task_fit_detection(const struct task_fit *f, struct task_detection *d)
{
    d->box = task_fit_box(f, d->box);
    for (int i = 0; i < d->landmark_count; i++)
        d->landmarks[i] = task_fit_point(f, d->landmarks[i]);
}

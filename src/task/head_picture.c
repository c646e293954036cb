/* Segmentation and image: outputs that are themselves pictures, NCHW or NHWC as the card says.
 *
 * `segmentation`: the class with the largest score per pixel, and each class's share of the picture. `image`:
 * value * out_scale + out_offset, rounded and cut to a byte, RGB interleaved whatever the model's order.
 * SPDX-License-Identifier: Apache-2.0 */
#include "task/head_impl.h"

enum { MAX_SEGMENTS = 256 };

struct planes {
    int width, height, channels;
    size_t pixel, channel; /* steps */
};

static struct planes planes_of(const struct task_card *c, const struct task_output *o)
{
    int row = c->out_nhwc ? 1 : 2, channel = c->out_nhwc ? 3 : 1;
    struct planes p = {(int)o->dims[row + 1], (int)o->dims[row], (int)o->dims[channel], 1, 1};
    p.pixel = c->out_nhwc ? (size_t)p.channels : 1;
    p.channel = c->out_nhwc ? 1 : (size_t)p.width * (size_t)p.height;
    return p;
}

static err check_picture(const struct task_card *c, const struct task_output *o, const char *what,
                         int channels, struct head_needs *ret)
{
    int64_t dims[4] = {-1, -1, -1, -1};
    dims[c->out_nhwc ? 3 : 1] = channels;
    err e = head_expect(c, o, what, 4, dims);
    if (e) return e;
    struct planes p = planes_of(c, o);
    *ret = (struct head_needs){
        .batched = true, .width = p.width, .height = p.height, .bytes = (size_t)p.width * (size_t)p.height};
    return ERR_OK;
}

static err segmentation_check(const struct task_card *c, const struct task_output *o, int n,
                              struct head_needs *ret)
{
    (void)n;
    if (c->class_count > MAX_SEGMENTS)
        return err_set(ERR_SHAPE, "%s: %d classes, a segmentation may have at most %d", c->path,
                       c->class_count, MAX_SEGMENTS);
    err e = check_picture(c, &o[0], "one map per class", c->class_count, ret);
    if (!e) ret->floats = (size_t)c->class_count;
    return e;
}

static void segmentation_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    (void)n;
    struct planes p = planes_of(h->card, &o[0]);
    size_t pixels = (size_t)p.width * (size_t)p.height;
    uint32_t counts[MAX_SEGMENTS] = {0};
    for (size_t i = 0; i < pixels; i++) {
        int best = head_argmax(o[0].data + i * p.pixel, p.channels, p.channel);
        h->bytes[i] = (uint8_t)best;
        counts[best]++;
    }
    for (int i = 0; i < p.channels; i++)
        h->floats[i] = (float)counts[i] / (float)pixels;
    r->width = p.width;
    r->height = p.height;
    r->map = h->bytes;
    r->shares = h->floats;
    r->class_count = p.channels;
}

static err image_check(const struct task_card *c, const struct task_output *o, int n, struct head_needs *ret)
{
    (void)n;
    err e = check_picture(c, &o[0], "a picture", 3, ret);
    if (!e) ret->bytes *= 3;
    return e;
}

static uint8_t to_byte(float v)
{
    return v > 0 ? (uint8_t)(fminf(v, 255) + 0.5f) : 0;
}

static void image_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    (void)n;
    const struct task_card *c = h->card;
    struct planes p = planes_of(c, &o[0]);
    for (size_t i = 0; i < (size_t)p.width * (size_t)p.height; i++) {
        for (size_t k = 0; k < 3; k++) {
            float v = o[0].data[i * p.pixel + (c->out_bgr ? 2 - k : k) * p.channel];
            h->bytes[3 * i + k] = to_byte(v * c->out_scale + c->out_offset);
        }
    }
    r->width = p.width;
    r->height = p.height;
    r->pixels = h->bytes;
}

const struct head_ops head_segmentation = {1, 1, segmentation_check, segmentation_run};
const struct head_ops head_image = {1, 1, image_check, image_run};

/* A row of a batch: which sample, which view of it, and the boxes that follow.
 *
 * Each decision is drawn from (seed, epoch, position) in a fixed order, whether it is used or not. A sample that cannot be decoded is replaced by
 * one drawn from the same numbers and the count of attempts, so two machines that meet the same damaged file train on the same rows.
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/data_sample.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ATTEMPTS = 32, PURPOSE_ROW = 1, PURPOSE_MIXUP, PURPOSE_AGAIN };

err data_maker_init(struct data_maker *m, const struct train_set *set, const struct train_data_options *o, struct mem_payer *payer, struct data_counts *counts)
{
    size_t canvas = (size_t)o->width * (size_t)o->height * 3;
    *m = (struct data_maker){.set = set, .o = o, .counts = counts, .payer = payer};
    m->still = video_still_new(mem_payer_budget(payer), "stills");
    m->conv = video_conv_new(payer);
    m->canvas = (struct data_canvas){.w = o->width, .h = o->height};
    m->other = m->canvas;
    m->target = (struct data_canvas){.w = o->target_width, .h = o->target_height};
    for (size_t i = 0; i < set->n_records; i++) m->pixel_bytes = MAX(m->pixel_bytes, 2 * (size_t)set->records[i].bytes);
    err e = mem_alloc(payer, MEM_TRAINING, canvas, (void **)&m->canvas.rgb);
    if (!e) e = mem_alloc(payer, MEM_TRAINING, canvas, (void **)&m->other.rgb);
    if (!e && set->kind == TRAIN_SET_PAIRS) e = mem_alloc(payer, MEM_TRAINING, (size_t)m->target.w * (size_t)m->target.h * 3, (void **)&m->target.rgb);
    if (!e && m->pixel_bytes) e = mem_alloc(payer, MEM_TRAINING, m->pixel_bytes, (void **)&m->pixels);
    if (e) data_maker_done(m);
    return e;
}

void data_maker_done(struct data_maker *m)
{
    size_t canvas = (size_t)m->canvas.w * (size_t)m->canvas.h * 3;
    mem_free(m->payer, MEM_TRAINING, m->canvas.rgb, canvas);
    mem_free(m->payer, MEM_TRAINING, m->other.rgb, canvas);
    mem_free(m->payer, MEM_TRAINING, m->pixels, m->pixel_bytes);
    if (m->target.rgb) mem_free(m->payer, MEM_TRAINING, m->target.rgb, (size_t)m->target.w * (size_t)m->target.h * 3);
    m->target.rgb = NULL;
    m->canvas.rgb = m->other.rgb = m->pixels = NULL;
    video_still_free(&m->still);
    video_conv_free(&m->conv);
}

/* ---- the stored picture */

struct picture {
    const struct video_frame *f;
    struct video_frame *owned, local;
};

static err read_record(struct data_maker *m, const struct data_sample *d, struct picture *ret)
{
    const struct data_record *r = &m->set->records[d->file];
    size_t plane = (size_t)r->w * (size_t)r->h, n = plane * (size_t)r->channels;
    if (pread(r->fd, m->pixels, n, r->header + d->at * r->bytes + r->skip) != (ssize_t)n)
        return err_set(ERR_CORRUPT, "%s#%lld: cannot be read: it is shorter than it was", r->path, (long long)d->at);
    uint8_t *p = m->pixels;
    if (r->planes) {
        p += m->pixel_bytes / 2;
        for (size_t i = 0; i < plane; i++)
            for (size_t k = 0; k < 3; k++) p[3 * i + k] = m->pixels[k * plane + i];
    }
    ret->local = (struct video_frame){.format = r->channels == 3 ? VIDEO_RGB24 : VIDEO_GREY, .width = r->w, .height = r->h, .plane = {p},
                                      .stride = {r->w * r->channels}, .full_range = true};
    ret->f = &ret->local;
    return ERR_OK;
}

static err picture_open(struct data_maker *m, int64_t sample, struct picture *ret)
{
    const struct data_sample *d = &data_samples(m->set)[sample];
    char name[512];
    err e;
    *ret = (struct picture){0};
    if (m->set->n_records) return read_record(m, d, ret);
    if (m->set->kind == TRAIN_SET_VIDEO || m->set->kind == TRAIN_SET_CROPS || m->set->kind == TRAIN_SET_ROWS)
        e = video_still_decode(m->still, (const uint8_t *)m->set->jpegs.items + d->at, (size_t)d->size, train_set_name(m->set, sample, name, sizeof name), &ret->owned);
    else e = video_still_read(m->still, (const char *)m->set->text.items + d->at, &ret->owned);
    ret->f = ret->owned;
    return e;
}

static void picture_close(struct picture *p)
{
    video_frame_unref(&p->owned);
}

/* ---- views */

static void fit_view(const struct train_data_options *o, const struct video_frame *f, struct data_view *v)
{
    double sx = (double)o->width / f->width, sy = (double)o->height / f->height;
    *v = (struct data_view){.sx = sx, .sy = sy};
    if (o->fit == TRAIN_STRETCH) return;
    v->sx = v->sy = o->fit == TRAIN_LETTERBOX ? MIN(sx, sy) : MAX(sx, sy);
    if (o->fit == TRAIN_CROP) {
        v->ox = (o->width - f->width * v->sx) / 2;
        v->oy = (o->height - f->height * v->sy) / 2;
    }
}

/* GoogLeNet's crop (Szegedy et al., 2015): a share of the area, sides 3:4 to 4:3; what does not fit in ten tries is the middle. */
static void crop_view(struct data_random *r, const struct train_data_options *o, const struct video_frame *f, struct data_view *v)
{
    double w = f->width, h = f->height, least = o->augment.crop_area[0], most = o->augment.crop_area[1];
    if (most <= 0) least = 0.3, most = 1;
    for (int i = 0; i < 10; i++) {
        double area = data_uniform(r, least, most) * w * h, ratio = exp(data_uniform(r, log(0.75), log(4.0 / 3)));
        double cw = sqrt(area * ratio), ch = sqrt(area / ratio), x = data_uniform(r, 0, 1), y = data_uniform(r, 0, 1);
        if (cw > w || ch > h) continue;
        *v = (struct data_view){.sx = o->width / cw, .sy = o->height / ch};
        v->ox = -x * (w - cw) * v->sx;
        v->oy = -y * (h - ch) * v->sy;
        return;
    }
}

/* Zoomed, anywhere between touching the near and the far side. */
static void zoom_view(struct data_random *r, const struct train_data_options *o, const struct video_frame *f, struct data_view *v)
{
    double z = data_uniform(r, o->augment.scale[0], o->augment.scale[1]), x = data_uniform(r, 0, 1), y = data_uniform(r, 0, 1);
    v->sx *= z;
    v->sy *= z;
    v->ox = x * (o->width - f->width * v->sx);
    v->oy = y * (o->height - f->height * v->sy);
}

static struct data_view choose_view(struct data_random *r, const struct train_data_options *o, const struct video_frame *f)
{
    const struct train_augment *a = &o->augment;
    struct data_view v;
    fit_view(o, f, &v);
    if (o->evaluate) return v;
    if (data_chance(r, a->crop)) crop_view(r, o, f, &v);
    else if (a->scale[1] > 0) zoom_view(r, o, f, &v);
    if (a->shift > 0) {
        v.ox += (double)data_below(r, 2 * a->shift + 1) - a->shift;
        v.oy += (double)data_below(r, 2 * a->shift + 1) - a->shift;
    }
    return v;
}

/* ---- boxes */

struct boxes {
    struct train_box *items;
    int n, most;
};

static void add_boxes(struct data_maker *m, int64_t sample, const struct video_frame *f, const struct data_view *v, const struct data_rect *clip, struct boxes *to)
{
    int n;
    const struct train_box *from = train_set_boxes(m->set, sample, &n);
    double visible = m->o->augment.visible > 0 ? m->o->augment.visible : 0.25, w = m->set->relative ? f->width : 1, h = m->set->relative ? f->height : 1;
    for (int i = 0; i < n; i++) {
        double x1 = from[i].x1 * w * v->sx + v->ox, x2 = from[i].x2 * w * v->sx + v->ox, y1 = from[i].y1 * h * v->sy + v->oy, y2 = from[i].y2 * h * v->sy + v->oy;
        double area = (x2 - x1) * (y2 - y1);
        x1 = MIN(MAX(x1, clip->x0), clip->x1), x2 = MIN(MAX(x2, clip->x0), clip->x1);
        y1 = MIN(MAX(y1, clip->y0), clip->y1), y2 = MIN(MAX(y2, clip->y0), clip->y1);
        bool seen = m->o->evaluate ? x2 > x1 && y2 > y1 : x2 - x1 >= 2 && y2 - y1 >= 2 && (x2 - x1) * (y2 - y1) >= visible * area;
        if (!seen) atomic_fetch_add(&m->counts->dropped, 1);
        else if (to->n >= to->most) atomic_fetch_add(&m->counts->cut, 1);
        else to->items[to->n++] = (struct train_box){(float)x1, (float)y1, (float)x2, (float)y2, from[i].class_id};
    }
}

/* ---- one picture, or four, on a canvas */

static int64_t sample_at(const struct data_maker *m, int64_t i)
{
    return m->o->samples ? m->o->samples[i] : i;
}

static int64_t sample_count(const struct data_maker *m)
{
    return m->o->samples ? m->o->n_samples : train_set_count(m->set);
}

/* The second picture of a pair, seen as the first is: both show the same part, whatever their sizes are. */
static err place_target(struct data_maker *m, int64_t sample, const struct video_frame *first, const struct data_view *v)
{
    const struct data_sample *d = &data_samples(m->set)[sample];
    const char *path = (const char *)m->set->text.items + d->at;
    struct data_rect all = {0, 0, m->target.w, m->target.h};
    struct video_frame *f;
    err e = video_still_read(m->still, path + strlen(path) + 1, &f);
    if (e) return e;
    double tx = (double)m->target.w / m->canvas.w, ty = (double)m->target.h / m->canvas.h;
    struct data_view w = {.sx = v->sx * tx * first->width / f->width, .sy = v->sy * ty * first->height / f->height, .ox = v->ox * tx, .oy = v->oy * ty};
    data_fill(&m->target, m->o->pad);
    e = data_place(m->conv, f, &w, &all, &m->target);
    video_frame_unref(&f);
    return e;
}

static void tell_view(const struct data_view *v, const struct video_frame *f, float geometry[TRAIN_GEOMETRY])
{
    memcpy(geometry, (float[]){(float)v->sx, (float)v->sy, (float)v->ox, (float)v->oy, (float)f->width, (float)f->height}, TRAIN_GEOMETRY * sizeof *geometry);
}

static err one(struct data_maker *m, struct data_random *r, int64_t sample, const struct data_canvas *c, struct boxes *boxes, float geometry[TRAIN_GEOMETRY])
{
    struct picture p;
    struct data_rect all = {0, 0, c->w, c->h};
    err e = picture_open(m, sample, &p);
    if (e) return e;
    struct data_view v = choose_view(r, m->o, p.f);
    e = data_place(m->conv, p.f, &v, &all, c);
    if (!e && m->target.rgb) e = place_target(m, sample, p.f, &v);
    if (!e) add_boxes(m, sample, p.f, &v, &all, boxes);
    if (!e) tell_view(&v, p.f, geometry);
    picture_close(&p);
    return e;
}

/* Four pictures that meet in a point (Bochkovskiy et al., 2020): each fitted to the canvas, zoomed, with its corner at the point. */
static err mosaic(struct data_maker *m, struct data_random *r, int64_t sample, const struct data_canvas *c, struct boxes *boxes, float geometry[TRAIN_GEOMETRY])
{
    const struct train_augment *a = &m->o->augment;
    int cx = (int)data_uniform(r, 0.3 * c->w, 0.7 * c->w), cy = (int)data_uniform(r, 0.3 * c->h, 0.7 * c->h);
    for (int t = 0; t < 4; t++) {
        int64_t other = sample_at(m, data_below(r, sample_count(m)));
        double z = a->scale[1] > 0 ? data_uniform(r, a->scale[0], a->scale[1]) : 0.7;
        struct data_rect tile = {t % 2 ? cx : 0, t / 2 ? cy : 0, t % 2 ? c->w : cx, t / 2 ? c->h : cy};
        struct picture p;
        err e = picture_open(m, t == 0 ? sample : other, &p);
        if (e) return e;
        struct data_view v;
        v.sx = v.sy = z * MIN((double)c->w / p.f->width, (double)c->h / p.f->height);
        v.ox = t % 2 ? cx : cx - p.f->width * v.sx;
        v.oy = t / 2 ? cy : cy - p.f->height * v.sy;
        e = data_place(m->conv, p.f, &v, &tile, c);
        if (!e) add_boxes(m, t == 0 ? sample : other, p.f, &v, &tile, boxes);
        if (t == 0) tell_view(&v, p.f, geometry);
        picture_close(&p);
        if (e) return e;
    }
    return ERR_OK;
}

/* Pixels, boxes and label of one sample with its augmentation, mixup apart. */
static err compose(struct data_maker *m, struct data_random *r, int64_t sample, const struct data_canvas *c, struct boxes *boxes, float geometry[TRAIN_GEOMETRY])
{
    const struct train_augment *a = &m->o->augment;
    int first = boxes->n;
    data_fill(c, m->o->pad);
    bool four = data_chance(r, m->o->evaluate ? 0 : a->mosaic);
    err e = four ? mosaic(m, r, sample, c, boxes, geometry) : one(m, r, sample, c, boxes, geometry);
    if (e || m->o->evaluate) return e;
    if (data_chance(r, a->flip)) {
        data_flip(c);
        if (m->target.rgb) data_flip(&m->target);
        for (int i = first; i < boxes->n; i++) {
            struct train_box *b = &boxes->items[i];
            float x1 = b->x1;
            b->x1 = (float)c->w - b->x2;
            b->x2 = (float)c->w - x1;
        }
    }
    double brightness = data_uniform(r, 1 - a->brightness, 1 + a->brightness), contrast = data_uniform(r, 1 - a->contrast, 1 + a->contrast);
    double saturation = data_uniform(r, 1 - a->saturation, 1 + a->saturation), hue = data_uniform(r, -a->hue, a->hue);
    if (a->brightness > 0 || a->contrast > 0 || a->saturation > 0 || a->hue > 0) data_colour(c, brightness, contrast, saturation, hue);
    return ERR_OK;
}

static err mixup(struct data_maker *m, int64_t epoch, int64_t position, int attempt, struct boxes *boxes, const struct data_row *row)
{
    struct data_random r = data_random_of(m->o->seed, epoch, position, PURPOSE_MIXUP + ((uint64_t)attempt << 8));
    float geometry[TRAIN_GEOMETRY];
    if (!data_chance(&r, m->o->augment.mixup)) return ERR_OK;
    double weight = floor(data_uniform(&r, 0, 1) * 256) / 256; /* what the pixels are mixed by, exactly */
    if (m->set->has_boxes) weight = 0.25 + weight / 2;         /* neither picture may vanish: its boxes stay */
    int64_t other = sample_at(m, data_below(&r, sample_count(m)));
    err e = compose(m, &r, other, &m->other, boxes, geometry);
    if (e) return e;
    data_blend(&m->canvas, &m->other, weight);
    *row->label2 = train_set_label(m->set, other);
    *row->mix = (float)weight;
    return ERR_OK;
}

static void remember(struct data_maker *m)
{
    atomic_fetch_add(&m->counts->corrupt, 1);
    pthread_mutex_lock(&m->counts->lock);
    if (!m->counts->problem[0]) snprintf(m->counts->problem, sizeof m->counts->problem, "%s", err_text());
    pthread_mutex_unlock(&m->counts->lock);
}

static void empty_row(const struct data_maker *m, const struct data_row *row)
{
    memset(row->image, 0, data_image_bytes(m->o));
    memset(row->geometry, 0, TRAIN_GEOMETRY * sizeof(float));
    for (size_t i = 0; m->target.rgb && i < (size_t)m->target.w * (size_t)m->target.h * (size_t)m->o->channels; i++) row->target[i] = 0;
    for (int c = 0; row->attributes && c < train_set_classes(m->set); c++) row->attributes[c] = -1;
    *row->sample = *row->label = *row->label2 = -1;
    *row->n_boxes = 0;
    *row->mix = 1;
}

/* Does the failure say that the file is no good, rather than that there is no memory for it? */
static bool damaged(err e)
{
    return e == ERR_CORRUPT || e == ERR_IO || e == ERR_NOT_FOUND || e == ERR_LIMIT || e == ERR_UNSUPPORTED;
}

static void finish_row(struct data_maker *m, int64_t sample, const struct data_row *row)
{
    struct data_canvas *t = &m->target;
    data_store(&m->canvas, m->o, row->image);
    if (t->rgb) data_store(t, m->o, row->target);
    for (int c = 0; row->attributes && c < train_set_classes(m->set); c++)
        row->attributes[c] = (float)((const int8_t *)m->set->attributes.items)[sample * train_set_classes(m->set) + c];
}

static err text_row(const struct data_maker *m, int64_t sample, const struct data_row *row)
{
    *row->sample = sample;
    *row->label = *row->label2 = -1;
    *row->n_boxes = 0;
    *row->mix = 1;
    return data_tokens(m->set, sample, row->image);
}

err data_make(struct data_maker *m, int64_t epoch, int64_t position, const struct data_row *row)
{
    int64_t n = sample_count(m);
    err e = ERR_OK;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        struct data_random again = data_random_of(m->o->seed, epoch, position, PURPOSE_AGAIN + ((uint64_t)attempt << 8));
        struct data_random r = data_random_of(m->o->seed, epoch, position, PURPOSE_ROW + ((uint64_t)attempt << 8));
        int64_t i = m->o->evaluate ? position
                    : m->groups    ? data_groups_place(m->groups, m->o, epoch, position, attempt ? &again : NULL)
                    : attempt      ? data_below(&again, n)
                                   : data_order(m->o->seed ^ (uint64_t)(position / n), epoch, position % n, n);
        struct boxes boxes = {.items = row->boxes, .most = m->o->max_boxes};
        int64_t sample = sample_at(m, i);
        if (m->set->kind == TRAIN_SET_TEXT) return text_row(m, sample, row);
        e = compose(m, &r, sample, &m->canvas, &boxes, row->geometry);
        *row->sample = sample;
        *row->label = *row->label2 = train_set_label(m->set, sample);
        *row->mix = 1;
        if (!e && !m->o->evaluate && m->o->augment.mixup > 0) e = mixup(m, epoch, position, attempt, &boxes, row);
        *row->n_boxes = boxes.n;
        if (!e) return finish_row(m, sample, row), ERR_OK;
        if (!damaged(e)) return e;
        remember(m);
        if (m->o->evaluate) return empty_row(m, row), ERR_OK;
    }
    return err_set(ERR_CORRUPT, "%d pictures one after another cannot be decoded; the first: %s", ATTEMPTS, m->counts->problem);
}

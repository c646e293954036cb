/* A video with labels as a set: its frames are decoded once, in order, made small and kept as JPEG in memory.
 *
 * Training wants frames in any order, and to reach one in the middle of a video means decoding all since the last key frame: hundreds of times
 * the work. As JPEG of network-like size a frame is some 50 KB, all of them are paid for, and a budget that is too small says so at once.
 * Labels: MOT rows (class numbers from 1; names in classes.txt beside the labels, else the numbers) or COCO JSON whose image ids are frame numbers
 * from 1. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "task/mot.h"
#include "video/convert.h"
#include "video/encode.h"
#include "video/still.h"

enum { QUALITY = 92, DEFAULT_SIDE = 640, MAX_SIDE = 4096 };

struct labels {
    struct task_mot mot;
    struct data_coco coco;
    const char *path;
    bool is_coco;
};

static err mot_classes(struct train_set *s, struct labels *l)
{
    int most = 0;
    for (size_t i = 0; i < l->mot.count; i++) most = MAX(most, MIN(l->mot.rows[i].class_id, DATA_MAX_CLASSES));
    const char *slash = strrchr(l->path, '/');
    char *file = xasprintf("%.*sclasses.txt", (int)(slash ? slash - l->path + 1 : 0), l->path);
    err e = data_read_names(s, file);
    free(file);
    if (e != ERR_NOT_FOUND) return e;
    e = ERR_OK;
    for (int c = 1; !e && c <= MAX(most, 1); c++) {
        char name[16];
        snprintf(name, sizeof name, "%d", c);
        e = data_add_class(s, name, strlen(name));
    }
    return e;
}

static err read_labels(struct train_set *s, struct labels *l)
{
    l->is_coco = str_ends(l->path, ".json");
    if (!l->is_coco) {
        err e = task_mot_load(s->payer, l->path, &l->mot);
        if (!e && (e = mot_classes(s, l))) task_mot_done(&l->mot);
        return e;
    }
    FILE *f = fopen(l->path, "rb");
    if (!f) return err_set(ERR_NOT_FOUND, "%s: %s", l->path, strerror(errno));
    err e = data_coco_parse(s, f, l->path, &l->coco);
    fclose(f);
    return e;
}

/* MOT rows without a class (-1) are of the first one. */
static err mot_boxes(struct train_set *s, const struct labels *l, int frame, const struct video_frame *f)
{
    err e = ERR_OK;
    for (size_t i = 0; !e && i < l->mot.count; i++) {
        const struct task_mot_row *r = &l->mot.rows[i];
        if (r->frame != frame) continue;
        if (r->lost || r->score == 0 || r->visible < s->seen) {
            s->report.left_out++;
            continue;
        }
        struct train_box b = {r->box.x1, r->box.y1, r->box.x2, r->box.y2, r->class_id < 0 ? 0 : r->class_id - 1};
        e = data_add_box(s, l->path, (int64_t)r->order + 1, b, f->width, f->height);
    }
    return e;
}

static err coco_boxes(struct train_set *s, const struct labels *l, int frame, const struct video_frame *f)
{
    const struct data_coco_box *b = l->coco.boxes.items;
    err e = ERR_OK;
    for (size_t i = 0; !e && i < l->coco.boxes.len; i++) {
        if (b[i].image != frame) continue;
        if (b[i].crowd) {
            s->report.left_out++;
            continue;
        }
        struct train_box box = {(float)b[i].box[0], (float)b[i].box[1], (float)(b[i].box[0] + b[i].box[2]), (float)(b[i].box[1] + b[i].box[3]), -1};
        for (size_t c = 0; c < s->n_classes; c++)
            if (l->coco.categories[c] == b[i].category) box.class_id = (int)c;
        e = data_add_box(s, l->path, b[i].line, box, f->width, f->height);
    }
    return e;
}

struct shrink {
    struct video_conv *conv;
    struct video_jpeg *jpeg;
    uint8_t *rgb;
    size_t size;
    int side;
};

/* The frame as a small JPEG, and its boxes in pixels of that. */
static err add_frame(struct train_set *s, const struct labels *l, struct shrink *k, int number, const struct video_frame *f)
{
    double scale = MIN(1.0, (double)k->side / MAX(f->width, f->height));
    int w = MAX(1, (int)(f->width * scale + 0.5)), h = MAX(1, (int)(f->height * scale + 0.5));
    size_t size = (size_t)w * (size_t)h * 3, jpeg_size;
    const uint8_t *jpeg;
    err e = ERR_OK;
    if (size > k->size) {
        mem_free(s->payer, MEM_TRAINING, k->rgb, k->size);
        k->rgb = NULL;
        k->size = 0;
        if ((e = mem_alloc(s->payer, MEM_TRAINING, size, (void **)&k->rgb))) return e;
        k->size = size;
    }
    e = video_to_rgb24(k->conv, f, NULL, w, h, k->rgb, 3 * w);
    if (!e) e = video_jpeg_encode(k->jpeg, k->rgb, 3 * w, w, h, &jpeg, &jpeg_size);
    if (e) return e;
    struct data_sample d = {.at = (int64_t)s->jpegs.len, .size = (int32_t)jpeg_size, .label = -1, .file = number, .first_box = (int64_t)s->boxes.len};
    e = data_append(s, &s->jpegs, 1, jpeg, jpeg_size);
    if (!e) e = data_append(s, &s->samples, sizeof d, &d, 1);
    if (!e) e = l->is_coco ? coco_boxes(s, l, number, f) : mot_boxes(s, l, number, f);
    if (e) return e;
    double sx = (double)w / f->width, sy = (double)h / f->height;
    for (size_t i = (size_t)d.first_box; i < s->boxes.len; i++) {
        struct train_box *b = &data_boxes(s)[i];
        b->x1 = (float)(b->x1 * sx), b->x2 = (float)(b->x2 * sx), b->y1 = (float)(b->y1 * sy), b->y2 = (float)(b->y2 * sy);
    }
    return ERR_OK;
}

static err read_frames(struct train_set *s, const char *path, const struct labels *l, const struct train_set_options *o)
{
    struct video_reader *r;
    struct video_frame *f;
    err e = video_reader_open(mem_payer_budget(s->payer), "stills", path, &r);
    if (e) return e;
    struct shrink k = {.conv = video_conv_new(s->payer), .jpeg = video_jpeg_new(s->payer, QUALITY), .side = o->side > 0 ? MIN(o->side, MAX_SIDE) : DEFAULT_SIDE};
    int every = MAX(o->every, 1);
    for (int number = 1; !e && (e = video_reader_next(r, &f)) == ERR_OK; number++) {
        if ((number - 1) % every == 0) e = add_frame(s, l, &k, number, f);
        video_frame_unref(&f);
    }
    if (e == ERR_CLOSED) e = ERR_OK;
    if (e == ERR_NOMEM) err_wrap(e, "%s: its frames are kept in memory as small pictures; take fewer (every), or smaller ones (side)", path);
    mem_free(s->payer, MEM_TRAINING, k.rgb, k.size);
    video_conv_free(&k.conv);
    video_jpeg_free(&k.jpeg);
    video_reader_close(&r);
    return e;
}

/* Beside the video: MOT rows, or COCO JSON; malloced, NULL if there is neither. */
static char *find_labels(const char *path)
{
    char *rows = data_labels_of(NULL, path);
    if (access(rows, R_OK) == 0) return rows;
    free(rows);
    char *json = xasprintf("%.*s.json", (int)(strrchr(path, '.') - path), path);
    if (access(json, R_OK) == 0) return json;
    free(json);
    return NULL;
}

err data_read_video(struct train_set *s, const char *path, const struct train_set_options *o)
{
    char *found = o->labels || o->unlabelled || !data_is_video(path) ? NULL : find_labels(path);
    struct labels l = {.path = o->labels ? o->labels : found};
    s->seen = o->seen;
    s->has_boxes = l.path;
    err e = ERR_OK;
    if (!l.path && !o->unlabelled)
        e = err_set(ERR_USAGE, "%s: a video needs labels: MOT rows in NAME.txt, truth/NAME.txt or gt/NAME.txt beside it, or COCO JSON in NAME.json; or a --teacher", path);
    if (!e && l.path) e = read_labels(s, &l);
    if (e) {
        free(found);
        return e;
    }
    s->text.len = 0; /* names of COCO's images: the frames are called by the video */
    e = data_append(s, &s->text, 1, path, strlen(path) + 1);
    if (!e) e = read_frames(s, path, &l, o);
    if (l.is_coco) data_coco_done(s, &l.coco);
    else if (l.path) task_mot_done(&l.mot);
    free(found);
    return e;
}

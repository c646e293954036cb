/* Objects of videos with MOT labels as a set of identities: every n-th frame is decoded once, each labelled box in it is cut out, made small and kept as JPEG in
 * memory; its class is its identity, its camera the video it came from.
 *
 * One video, or a folder: DIR/NAME.mp4 with DIR/NAME.txt, DIR/truth/NAME.txt or DIR/gt/NAME.txt. The same number in two videos of one folder is the same object,
 * as in a site whose truth is known; folders inside the folder are sites of their own ("site/17"). With `named` the class is a word that objects.json beside
 * the labels has for the object, the same in all sites. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_objects.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "task/mot.h"
#include "video/convert.h"
#include "video/encode.h"
#include "video/still.h"

enum { QUALITY = 95, EVERY = 10, SIDE = 256, LEAST = 12 /* pixels a side: less shows nothing */, MAX_CAMERAS = 4096 };

struct cutter {
    struct train_set *s;
    const struct train_set_options *o;
    struct video_conv *conv;
    struct video_jpeg *jpeg;
    uint8_t *rgb;
    size_t size;
    int side, camera;
    const char *site; /* "" or "site/" */
    struct data_list objects;
};

/* The class of an identity; classes are few thousand, so they are looked through from the newest on: rows of one video repeat the same ones. */
static err class_of(struct cutter *k, int64_t id, int *ret)
{
    char name[256];
    struct train_set *s = k->s;
    if (k->o->named) snprintf(name, sizeof name, "%s", data_objects_find(&k->objects, id));
    else snprintf(name, sizeof name, "%s%lld", k->site, (long long)id);
    for (size_t c = s->n_classes; c-- > 0;)
        if (!strcmp(s->classes[c], name)) return *ret = (int)c, ERR_OK;
    *ret = (int)s->n_classes;
    return data_add_class(s, name, strlen(name));
}

static err cut(struct cutter *k, const struct video_frame *f, const struct task_mot_row *row, int64_t line, const char *labels)
{
    struct train_set *s = k->s;
    struct task_box b = task_box_clip(row->box, (float)f->width, (float)f->height);
    struct video_rect roi = {(double)b.x1, (double)b.y1, (double)(b.x2 - b.x1), (double)(b.y2 - b.y1)};
    if (!(roi.w >= LEAST && roi.h >= LEAST)) {
        s->report.bad_boxes++;
        data_problem(s, "%s:%lld: a box of less than %d pixels a side; it is left out", labels, (long long)line, LEAST);
        return ERR_OK;
    }
    double scale = MIN(1.0, k->side / MAX(roi.w, roi.h));
    int w = MAX(1, (int)(roi.w * scale + 0.5)), h = MAX(1, (int)(roi.h * scale + 0.5)), class;
    const uint8_t *jpeg;
    size_t n;
    err e = video_to_rgb24(k->conv, f, &roi, w, h, k->rgb, 3 * w);
    if (!e) e = video_jpeg_encode(k->jpeg, k->rgb, 3 * w, w, h, &jpeg, &n);
    if (!e) e = class_of(k, row->id, &class);
    if (e) return e;
    if (s->samples.len >= DATA_MAX_SAMPLES) return err_set(ERR_LIMIT, "%s: more than %d crops", labels, DATA_MAX_SAMPLES);
    struct data_sample d = {.at = (int64_t)s->jpegs.len, .size = (int32_t)n, .label = class, .file = k->camera, .first_box = (int64_t)s->boxes.len};
    e = data_append(s, &s->jpegs, 1, jpeg, n);
    return e ? e : data_append(s, &s->samples, sizeof d, &d, 1);
}

static err cut_frames(struct cutter *k, const char *path, const struct task_mot *mot, const char *labels)
{
    struct video_reader *r;
    struct video_frame *f;
    int every = k->o->every > 0 ? k->o->every : EVERY;
    size_t at = 0;
    err e = video_reader_open(mem_payer_budget(k->s->payer), "stills", path, &r);
    if (e) return e;
    for (int number = 1; !e && (e = video_reader_next(r, &f)) == ERR_OK; number++) {
        for (; at < mot->count && mot->rows[at].frame <= number; at++) {
            const struct task_mot_row *row = &mot->rows[at];
            if (row->frame != number || (number - 1) % every) continue;
            bool wanted = !row->lost && row->score != 0 && row->id >= 0 && (!k->o->category || row->class_id == k->o->category) && row->visible >= k->o->seen &&
                          (!k->o->named || data_objects_find(&k->objects, row->id));
            if (!wanted) k->s->report.left_out++;
            else if ((e = cut(k, f, row, (int64_t)row->order + 1, labels))) break;
        }
        video_frame_unref(&f);
    }
    if (e == ERR_CLOSED) e = ERR_OK;
    if (e == ERR_NOMEM) err_wrap(e, "%s: its crops are kept in memory as small pictures; take fewer (every), or smaller ones (side)", path);
    video_reader_close(&r);
    return e;
}

static err one_video(struct cutter *k, const char *path, const char *labels)
{
    struct task_mot mot;
    if (k->camera >= MAX_CAMERAS) return err_set(ERR_LIMIT, "%s: more than %d videos", path, MAX_CAMERAS);
    err e = task_mot_load(k->s->payer, labels, &mot);
    if (e) return e;
    if (k->o->named) {
        const char *slash = strrchr(labels, '/');
        char *file = xasprintf("%.*sobjects.json", (int)(slash ? slash - labels + 1 : 0), labels);
        e = data_objects_read(k->s, file, k->o->named, &k->objects);
        free(file);
    }
    if (!e) e = cut_frames(k, path, &mot, labels);
    data_list_done(k->s->payer, &k->objects, sizeof(struct data_object));
    k->objects = (struct data_list){0};
    task_mot_done(&mot);
    k->camera++;
    return e;
}

bool data_is_video(const char *name)
{
    return str_ends(name, ".mp4") || str_ends(name, ".avi") || str_ends(name, ".mkv");
}

char *data_labels_of(const char *dir, const char *name)
{
    static const char *const places[] = {"", "truth/", "gt/"};
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name, *dot = strrchr(base, '.');
    char *own = dir ? xasprintf("%s/", dir) : xasprintf("%.*s", (int)(base - name), name), *file = NULL;
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        free(file);
        file = xasprintf("%s%s%.*s.txt", own, places[i], (int)(dot - base), base);
        if (access(file, R_OK) == 0) break;
    }
    free(own);
    return file;
}

static err one_folder(struct cutter *k, const char *dir, bool deeper)
{
    char **names;
    size_t n;
    struct stat st;
    err e = data_list_folder(dir, &names, &n);
    if (e) return e;
    for (size_t i = 0; i < n && !e; i++) {
        char *path = xasprintf("%s/%s", dir, names[i]);
        if (data_is_video(names[i])) {
            char *labels = data_labels_of(dir, names[i]);
            e = one_video(k, path, labels);
            free(labels);
        } else if (deeper && stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
            char *site = xasprintf("%.200s/", names[i]);
            k->site = site;
            e = one_folder(k, path, false);
            k->site = "";
            free(site);
        }
        free(path);
    }
    data_free_names(&names, n);
    return e;
}

/* Is there a video in the folder, or in one of its folders? */
bool data_has_videos(const char *dir, bool deeper)
{
    char **names;
    size_t n;
    bool found = false;
    if (data_list_folder(dir, &names, &n)) return false;
    for (size_t i = 0; i < n && !found; i++) {
        char *path = xasprintf("%s/%s", dir, names[i]);
        struct stat st;
        found = data_is_video(names[i]) || (deeper && stat(path, &st) == 0 && S_ISDIR(st.st_mode) && data_has_videos(path, false));
        free(path);
    }
    data_free_names(&names, n);
    return found;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Words of objects.json come in the order in which they were met; by name they are the same ones for all sites that have all of them. */
static void sort_classes(struct train_set *s)
{
    char **old = xnewn(char *, s->n_classes + 1);
    int *map = xnewn(int, s->n_classes + 1);
    for (size_t c = 0; c < s->n_classes; c++) old[c] = s->classes[c];
    qsort(s->classes, s->n_classes, sizeof *s->classes, by_name);
    for (size_t c = 0; c < s->n_classes; c++)
        for (size_t i = 0; i < s->n_classes; i++)
            if (s->classes[i] == old[c]) map[c] = (int)i;
    for (size_t i = 0; i < s->samples.len; i++) data_samples(s)[i].label = map[data_samples(s)[i].label];
    free(old);
    free(map);
}

err data_read_crops(struct train_set *s, const char *path, const struct train_set_options *o)
{
    struct cutter k = {.s = s, .o = o, .side = o->side > 0 ? MIN(o->side, 1024) : SIDE, .site = "", .conv = video_conv_new(s->payer), .jpeg = video_jpeg_new(s->payer, QUALITY)};
    k.size = (size_t)(k.side + 1) * (size_t)(k.side + 1) * 3;
    err e = mem_alloc(s->payer, MEM_TRAINING, k.size, (void **)&k.rgb);
    if (!e) e = data_append(s, &s->text, 1, path, strlen(path) + 1);
    if (!e && !data_is_video(path)) e = one_folder(&k, path, true);
    else if (!e && o->labels) e = one_video(&k, path, o->labels);
    else if (!e) {
        char *labels = data_labels_of(NULL, path);
        e = one_video(&k, path, labels);
        free(labels);
    }
    if (!e && o->named && s->n_classes) sort_classes(s);
    if (k.rgb) mem_free(s->payer, MEM_TRAINING, k.rgb, k.size);
    video_conv_free(&k.conv);
    video_jpeg_free(&k.jpeg);
    return e;
}

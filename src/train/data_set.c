/* The index of a data set: what every reader shares. Which reader it is follows from the path; what it found is checked, put into the
 * order of the classes that were asked for, and counted.
 *
 * Invariant: every box of an open set has finite edges inside its picture and a class of the set; every label is -1 or a class of the set.
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/data_set.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- lists that somebody pays for */

err data_append(struct train_set *s, struct data_list *l, size_t item, const void *items, size_t n)
{
    if (l->len + n > l->cap) {
        size_t cap = MAX(MAX(l->cap * 2, l->len + n), 4096 / item);
        void *p;
        err e = mem_alloc(s->payer, MEM_TRAINING, cap * item, &p);
        if (e) return e;
        if (l->len) memcpy(p, l->items, l->len * item);
        mem_free(s->payer, MEM_TRAINING, l->items, l->cap * item);
        l->items = p;
        l->cap = cap;
    }
    if (n) memcpy((char *)l->items + l->len * item, items, n * item);
    l->len += n;
    return ERR_OK;
}

void data_list_done(struct mem_payer *payer, struct data_list *l, size_t item)
{
    mem_free(payer, MEM_TRAINING, l->items, l->cap * item);
    *l = (struct data_list){0};
}

void data_problem(struct train_set *s, const char *fmt, ...)
{
    va_list ap;
    if (s->report.problem[0]) return;
    va_start(ap, fmt);
    vsnprintf(s->report.problem, sizeof s->report.problem, fmt, ap);
    va_end(ap);
}

/* ---- what readers add */

err data_add_class(struct train_set *s, const char *name, size_t length)
{
    if (s->n_classes >= DATA_MAX_CLASSES) return err_set(ERR_LIMIT, "more than %d classes", DATA_MAX_CLASSES);
    if (length == 0 || length > 200) return err_set(ERR_FORMAT, "class %zu has a name of %zu bytes", s->n_classes, length);
    vec_grow(&s->classes, &s->cap_classes, s->n_classes);
    s->classes[s->n_classes++] = xstrndup(name, length);
    return ERR_OK;
}

err data_add_picture(struct train_set *s, const char *path, int label)
{
    if (s->samples.len >= DATA_MAX_SAMPLES) return err_set(ERR_LIMIT, "%s: more than %d pictures", path, DATA_MAX_SAMPLES);
    struct data_sample sample = {.at = (int64_t)s->text.len, .label = label, .first_box = (int64_t)s->boxes.len};
    err e = data_append(s, &s->text, 1, path, strlen(path) + 1);
    return e ? e : data_append(s, &s->samples, sizeof sample, &sample, 1);
}

err data_add_box(struct train_set *s, const char *file, int64_t line, struct train_box box, double w, double h)
{
    struct train_box b = box;
    const char *why = NULL;
    if (!isfinite(b.x1) || !isfinite(b.y1) || !isfinite(b.x2) || !isfinite(b.y2)) why = "a box with a number that is not finite";
    else if (b.class_id < 0 || (size_t)b.class_id >= s->n_classes) why = "a class that the set does not have";
    if (!why && w > 0) b.x1 = (float)MIN(MAX(b.x1, 0), w), b.x2 = (float)MIN(MAX(b.x2, 0), w);
    if (!why && h > 0) b.y1 = (float)MIN(MAX(b.y1, 0), h), b.y2 = (float)MIN(MAX(b.y2, 0), h);
    if (!why && !(box.x2 > box.x1 && box.y2 > box.y1)) why = "a box without area";
    else if (!why && !(b.x2 > b.x1 && b.y2 > b.y1)) why = "a box outside the picture";
    if (why) {
        s->report.bad_boxes++;
        data_problem(s, "%s:%lld: %s; it is left out", file, (long long)line, why);
        return ERR_OK;
    }
    if (s->boxes.len >= DATA_MAX_BOXES) return err_set(ERR_LIMIT, "%s:%lld: more than %d boxes", file, (long long)line, DATA_MAX_BOXES);
    err e = data_append(s, &s->boxes, sizeof b, &b, 1);
    if (!e) data_samples(s)[s->samples.len - 1].n_boxes++;
    return e;
}

bool data_line(FILE *f, const char *name, int64_t *line, char buf[DATA_MAX_LINE], err *e)
{
    size_t n = 0;
    int c;
    while ((c = getc_unlocked(f)) != EOF && c != '\n') {
        if (c == 0 || n + 1 >= DATA_MAX_LINE) {
            *e = err_set(ERR_FORMAT, "%s:%lld: %s; this is not a text file of labels", name, (long long)*line + 1, c ? "a line over 4,095 bytes" : "a zero byte");
            return false;
        }
        buf[n++] = (char)c;
    }
    if (ferror(f)) *e = err_set(ERR_IO, "%s: cannot be read: %s", name, strerror(errno));
    if (*e || (c == EOF && n == 0)) return false;
    while (n && (buf[n - 1] == '\r' || buf[n - 1] == ' ' || buf[n - 1] == '\t')) n--;
    buf[n] = 0;
    ++*line;
    return true;
}

err data_read_names(struct train_set *s, const char *path)
{
    char buf[DATA_MAX_LINE];
    int64_t line = 0;
    err e = ERR_OK;
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(ERR_NOT_FOUND, "%s: %s", path, strerror(errno));
    while (!e && data_line(f, path, &line, buf, &e))
        if (buf[0] && (e = data_add_class(s, buf, strlen(buf)))) err_wrap(e, "%s:%lld", path, (long long)line);
    fclose(f);
    return e;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

err data_list_folder(const char *path, char ***ret, size_t *ret_n)
{
    char **names = NULL;
    size_t n = 0, cap = 0;
    DIR *d = opendir(path);
    if (!d) return err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    for (struct dirent *de; (de = readdir(d)) && n < DATA_MAX_SAMPLES;) {
        if (de->d_name[0] == '.') continue;
        vec_grow(&names, &cap, n);
        names[n++] = xstrdup(de->d_name);
    }
    closedir(d);
    if (n) qsort(names, n, sizeof *names, by_name);
    *ret = names;
    *ret_n = n;
    return ERR_OK;
}

void data_free_names(char ***names, size_t n)
{
    for (size_t i = 0; i < n; i++) free((*names)[i]);
    free(*names);
    *names = NULL;
}

/* ---- opening */

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool folder_has(const char *path, const char *what)
{
    char *p = xasprintf("%s/%s", path, what);
    bool yes = access(p, R_OK) == 0;
    free(p);
    return yes;
}

static err guess(const char *path, const struct train_set_options *o, enum train_set_kind *ret)
{
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    if (access(path, R_OK)) return err_set(ERR_NOT_FOUND, "%s: %s", path, strerror(errno));
    if (is_folder(path) ? folder_has(path, "events.db") : data_is_rows(path)) return *ret = TRAIN_SET_ROWS, ERR_OK;
    if ((o->identities || o->named) && (is_folder(path) ? data_has_videos(path, true) : data_is_video(path))) return *ret = TRAIN_SET_CROPS, ERR_OK;
    if (o->unlabelled && is_folder(path) && data_has_pictures(path)) return *ret = TRAIN_SET_PLAIN, ERR_OK;
    if (is_folder(path)) {
        *ret = folder_has(path, "input") && folder_has(path, "target")                   ? TRAIN_SET_PAIRS
               : folder_has(path, "attributes.csv")                                      ? TRAIN_SET_ATTRIBUTES
               : folder_has(path, "images") && folder_has(path, "labels")                  ? TRAIN_SET_YOLO
               : folder_has(path, "data_batch_1.bin") || folder_has(path, "train.bin")   ? TRAIN_SET_CIFAR
                                                                                         : TRAIN_SET_FOLDER;
        return ERR_OK;
    }
    *ret = str_ends(path, ".json")                                                         ? TRAIN_SET_COCO
           : str_ends(path, ".bin")                                                        ? TRAIN_SET_CIFAR
           : strstr(base, "idx3") || strstr(base, "-ubyte")                                ? TRAIN_SET_IDX
           : str_ends(path, ".txt") || str_ends(path, ".u16") || str_ends(path, ".u32")    ? TRAIN_SET_TEXT
           : str_ends(path, ".csv")                                                        ? TRAIN_SET_ATTRIBUTES
           : data_is_video(path)                                                           ? TRAIN_SET_VIDEO
                                                                                           : TRAIN_SET_AUTO;
    if (str_ends(path, ".xz") || str_ends(path, ".gz"))
        return err_set(ERR_UNSUPPORTED, "%s: compressed; unpack it first (xz -d, gunzip)", path);
    if (*ret == TRAIN_SET_AUTO)
        return err_set(ERR_UNSUPPORTED, "%s: no data set that is known: a folder of classes or with images/ and labels/, COCO .json, CIFAR .bin, "
                                        "*-ubyte, a video with labels, input/ and target/, attributes.csv, a box's store or database (.db), or a text (.txt, .u16, .u32)", path);
    return ERR_OK;
}

/* The place of a class of the network that nobody named: "car=2" leaves #0 and #1. */
static bool unnamed(const char *class)
{
    return class[0] == '#';
}

/* The classes that were asked for, in that order; boxes and samples of others go. */
static err choose_classes(struct train_set *s, const char *path, const struct train_set_options *o)
{
    int *map = xnewn(int, s->n_classes + 1), known = 0;
    for (size_t c = 0; c < s->n_classes; c++) {
        map[c] = -1;
        for (int i = 0; i < o->n_classes; i++)
            if (!strcmp(s->classes[c], o->classes[i])) map[c] = i;
        known += map[c] >= 0;
    }
    if (!known) {
        const char *first = NULL;
        int wanted = 0;
        for (int i = o->n_classes; i-- > 0;)
            if (!unnamed(o->classes[i])) first = o->classes[i], wanted++;
        free(map);
        return err_set(ERR_FORMAT, "%s: none of its %zu classes ('%s' ...) is one of the %d that are wanted ('%s' ...)", path, s->n_classes, s->classes[0], wanted, first ? first : "");
    }
    size_t boxes = 0, samples = 0;
    for (size_t i = 0; i < s->samples.len; i++) {
        struct data_sample d = data_samples(s)[i];
        int64_t first = (int64_t)boxes;
        for (int b = 0; b < d.n_boxes; b++) {
            struct train_box box = data_boxes(s)[d.first_box + b];
            box.class_id = map[box.class_id];
            if (box.class_id < 0) s->report.left_out++;
            else data_boxes(s)[boxes++] = box;
        }
        d.first_box = first;
        d.n_boxes = (int32_t)((int64_t)boxes - first);
        if (d.label >= 0 && (d.label = map[d.label]) < 0) s->report.left_out++;
        else data_samples(s)[samples++] = d;
    }
    s->boxes.len = boxes;
    s->samples.len = samples;
    free(map);
    data_free_names(&s->classes, s->n_classes);
    s->n_classes = s->cap_classes = 0;
    err e = ERR_OK;
    for (int i = 0; !e && i < o->n_classes; i++) e = data_add_class(s, o->classes[i], strlen(o->classes[i]));
    return e;
}

static err finish(struct train_set *s, const char *path, bool chosen)
{
    int64_t *count = xnewn(int64_t, s->n_classes + 1);
    for (size_t i = 0; i < s->samples.len; i++) {
        const struct data_sample *d = &data_samples(s)[i];
        if (d->label >= 0) count[d->label]++;
        else if (d->n_boxes == 0 && s->has_boxes) s->report.empty_images++;
    }
    for (size_t i = 0; i < s->boxes.len; i++) count[data_boxes(s)[i].class_id]++;
    for (size_t i = 0; i < s->attributes.len; i++) count[i % s->n_classes] += ((const int8_t *)s->attributes.items)[i] >= 0;
    for (size_t c = 0; c < s->n_classes; c++) {
        if (count[c] || (chosen && unnamed(s->classes[c]))) continue;
        s->report.empty_classes++;
        data_problem(s, "%s: class '%s' has no sample", path, s->classes[c]);
    }
    free(count);
    s->report.samples = (int64_t)s->samples.len;
    s->report.boxes = (int64_t)s->boxes.len;
    const char *why = s->report.problem[0] ? s->report.problem : "it is empty";
    if (s->n_classes == 0 && !s->unlabelled && s->kind != TRAIN_SET_PAIRS && s->kind != TRAIN_SET_TEXT) return err_set(ERR_FORMAT, "%s: no classes in it: %s", path, why);
    if (s->samples.len == 0) return err_set(ERR_FORMAT, "%s: no sample in it can be used: %s", path, why);
    if (s->has_boxes && s->boxes.len == 0) return err_set(ERR_FORMAT, "%s: no box in it can be used: %s", path, why);
    return ERR_OK;
}

err train_set_open(const char *path, const struct train_set_options *o, struct mem_payer *payer, struct train_set **ret)
{
    struct train_set *s = xnew(struct train_set);
    s->payer = payer;
    s->kind = o->kind;
    err e = o->kind == TRAIN_SET_AUTO ? guess(path, o, &s->kind) : ERR_OK;
    if (!e) {
        switch (s->kind) {
        case TRAIN_SET_FOLDER: e = data_read_folder(s, path); break;
        case TRAIN_SET_COCO: e = data_read_coco(s, path, o->images); break;
        case TRAIN_SET_YOLO: e = data_read_yolo(s, path); break;
        case TRAIN_SET_CIFAR: e = data_read_cifar(s, path); break;
        case TRAIN_SET_IDX: e = data_read_idx(s, path, o->labels); break;
        case TRAIN_SET_VIDEO: e = data_read_video(s, path, o); break;
        case TRAIN_SET_PAIRS: e = data_read_pairs(s, path); break;
        case TRAIN_SET_ATTRIBUTES: e = data_read_attributes(s, path); break;
        case TRAIN_SET_TEXT: e = data_read_text(s, path, o->length); break;
        case TRAIN_SET_PLAIN: e = data_read_plain(s, path); break;
        case TRAIN_SET_CROPS: e = data_read_crops(s, path, o); break;
        case TRAIN_SET_ROWS: e = data_read_rows(s, path, o); break;
        default: e = err_set(ERR_USAGE, "%d is no kind of data set", (int)s->kind);
        }
    }
    s->unlabelled = s->kind == TRAIN_SET_PLAIN || (s->kind == TRAIN_SET_VIDEO && !s->has_boxes);
    if (!e && o->classes && s->kind == TRAIN_SET_ATTRIBUTES) e = err_set(ERR_USAGE, "%s: attributes are taken as they are; --classes is for classes", path);
    if (!e && o->classes && s->n_classes && !s->unlabelled && !s->attributes.len) e = choose_classes(s, path, o);
    if (!e) e = finish(s, path, o->n_classes > 0);
    if (e) {
        train_set_free(&s);
        return e;
    }
    *ret = s;
    return ERR_OK;
}

void train_set_free(struct train_set **p)
{
    struct train_set *s = *p;
    if (!s) return;
    *p = NULL;
    data_free_names(&s->classes, s->n_classes);
    for (size_t i = 0; i < s->n_records; i++) {
        close(s->records[i].fd);
        free(s->records[i].path);
    }
    free(s->records);
    data_list_done(s->payer, &s->samples, sizeof(struct data_sample));
    data_list_done(s->payer, &s->boxes, sizeof(struct train_box));
    data_list_done(s->payer, &s->text, 1);
    data_list_done(s->payer, &s->jpegs, 1);
    data_list_done(s->payer, &s->attributes, 1);
    free(s);
}

/* ---- labels from elsewhere */

bool train_set_unlabelled(const struct train_set *s)
{
    return s->unlabelled;
}

err train_set_name_classes(struct train_set *s, const char *const *names, int n, bool boxes)
{
    err e = ERR_OK;
    for (int i = 0; i < n && !e; i++) e = data_add_class(s, names[i], strlen(names[i]));
    s->has_boxes = boxes;
    s->unlabelled = false;
    return e;
}

void train_set_label_class(struct train_set *s, int64_t sample, int class_id)
{
    data_samples(s)[sample].label = class_id;
}

err train_set_label_boxes(struct train_set *s, int64_t sample, const struct train_box *boxes, int n)
{
    struct data_sample *d = &data_samples(s)[sample];
    d->first_box = (int64_t)s->boxes.len;
    d->n_boxes = 0;
    for (int i = 0; i < n; i++) {
        struct train_box b = boxes[i];
        if (!(b.x2 > b.x1 && b.y2 > b.y1) || b.class_id < 0 || (size_t)b.class_id >= s->n_classes) continue;
        err e = data_append(s, &s->boxes, sizeof b, &b, 1);
        if (e) return e;
        d->n_boxes++;
    }
    s->report.boxes = (int64_t)s->boxes.len;
    s->report.empty_images += d->n_boxes == 0;
    return ERR_OK;
}

/* ---- questions */

enum train_set_kind train_set_kind(const struct train_set *s)
{
    return s->kind;
}

const struct train_set_report *train_set_report(const struct train_set *s)
{
    return &s->report;
}

int64_t train_set_count(const struct train_set *s)
{
    return (int64_t)s->samples.len;
}

int train_set_vocabulary(const struct train_set *s)
{
    return s->vocabulary;
}

int train_set_classes(const struct train_set *s)
{
    return (int)s->n_classes;
}

const char *train_set_class(const struct train_set *s, int class_id)
{
    return s->classes[class_id];
}

bool train_set_has_attributes(const struct train_set *s)
{
    return s->attributes.len > 0;
}

bool train_set_has_boxes(const struct train_set *s)
{
    return s->has_boxes;
}

int train_set_label(const struct train_set *s, int64_t sample)
{
    return data_samples(s)[sample].label;
}

int train_set_camera(const struct train_set *s, int64_t sample)
{
    const struct data_sample *d = &data_samples(s)[sample];
    if (s->kind == TRAIN_SET_CROPS) return d->file;
    if (s->kind != TRAIN_SET_FOLDER) return -1;
    const char *path = (const char *)s->text.items + d->at, *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    name += *name == '-';
    size_t digits = strspn(name, "0123456789");
    name += digits;
    return digits && name[0] == '_' && name[1] == 'c' && name[2] >= '0' && name[2] <= '9' ? (int)MIN(strtol(name + 2, NULL, 10), INT32_MAX) : -1;
}

const struct train_box *train_set_boxes(const struct train_set *s, int64_t sample, int *ret_n)
{
    const struct data_sample *d = &data_samples(s)[sample];
    *ret_n = d->n_boxes;
    return d->n_boxes ? data_boxes(s) + d->first_box : NULL;
}

const char *train_set_name(const struct train_set *s, int64_t sample, char *buf, size_t size)
{
    const struct data_sample *d = &data_samples(s)[sample];
    if (s->n_records) snprintf(buf, size, "%s#%lld", s->records[d->file].path, (long long)d->at);
    else if (s->kind == TRAIN_SET_CROPS) snprintf(buf, size, "%s#%s@%d", (const char *)s->text.items, s->classes[d->label], d->file + 1);
    else if (s->kind == TRAIN_SET_ROWS) snprintf(buf, size, "%s#event %d", (const char *)s->text.items, d->file);
    else if (s->kind == TRAIN_SET_VIDEO) snprintf(buf, size, "%s#%d", (const char *)s->text.items, d->file);
    else snprintf(buf, size, "%s", (const char *)s->text.items + d->at);
    return buf;
}

static bool falls_out(uint64_t h, double held_out)
{
    h = (h ^ (h >> 31)) * 0x9e3779b97f4a7c15u;
    return (double)(h >> 11) / 9007199254740992.0 < held_out;
}

/* By the sample's number alone, or its class's name, so that a set that grows keeps its split. */
static void split(const struct train_set *set, bool by_class, double held_out, uint64_t seed, int64_t **ret_train, int64_t *ret_n_train, int64_t **ret_held,
                  int64_t *ret_n_held)
{
    int64_t n = train_set_count(set), train = 0, held = 0;
    int64_t *a = xnewn(int64_t, (size_t)n + 1), *b = xnewn(int64_t, (size_t)n + 1);
    int64_t end = train_set_kind(set) == TRAIN_SET_VIDEO || train_set_kind(set) == TRAIN_SET_ROWS ? n - (int64_t)((double)n * held_out) : INT64_MAX;
    for (int64_t i = 0; i < n; i++) {
        if (end < INT64_MAX) {
            if (i < end) a[train++] = i;
            else b[held++] = i;
            continue;
        }
        const char *name = by_class ? set->classes[train_set_label(set, i)] : NULL;
        uint64_t h = name ? hash64(name, strlen(name), seed ^ 0x5eed) : hash64(&i, sizeof i, seed ^ 0x5eed);
        if (falls_out(h, held_out)) b[held++] = i;
        else a[train++] = i;
    }
    *ret_train = a;
    *ret_n_train = train;
    *ret_held = b;
    *ret_n_held = held;
}

void train_data_split(const struct train_set *set, double held_out, uint64_t seed, int64_t **ret_train, int64_t *ret_n_train, int64_t **ret_held,
                      int64_t *ret_n_held)
{
    split(set, false, held_out, seed, ret_train, ret_n_train, ret_held, ret_n_held);
}

void train_data_split_classes(const struct train_set *set, double held_out, uint64_t seed, int64_t **ret_train, int64_t *ret_n_train, int64_t **ret_held,
                              int64_t *ret_n_held)
{
    split(set, true, held_out, seed, ret_train, ret_n_train, ret_held, ret_n_held);
}

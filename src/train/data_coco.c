/* COCO's instances JSON (Lin et al., 2014): `images`, `annotations` and `categories`, in any order, everything else skipped.
 *
 * Classes are the categories in the order of their ids, as the usual tools number them. An annotation points to its picture by an id, so both
 * are kept in small rows until the file has ended and then sorted: memory is some 60 bytes a box, whatever the file holds besides.
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/data_set.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "train/data_json.h"

struct category {
    int64_t id;
    char *name;
    int64_t line;
};

struct categories {
    struct category *items;
    size_t n, cap;
};

/* An id: a whole number. */
static int64_t integer(struct train_json *j)
{
    double v = train_json_number(j);
    if (!j->e && !(fabs(v) < 9e15 && v == floor(v))) train_json_fail(j, "expected a whole number");
    return j->e ? 0 : (int64_t)v;
}

static int32_t side(struct train_json *j)
{
    double v = train_json_number(j);
    return v >= 1 && v <= 1e6 ? (int32_t)v : 0; /* 0: not known */
}

static void read_image(struct train_set *s, struct train_json *j, struct data_coco *c)
{
    struct data_coco_image im = {.id = INT64_MIN, .name = -1};
    train_json_begin(j, '{');
    im.line = (int32_t)j->line;
    while (train_json_more(j, '}')) {
        train_json_key(j);
        if (!strcmp(j->text, "id")) im.id = integer(j);
        else if (!strcmp(j->text, "width")) im.w = side(j);
        else if (!strcmp(j->text, "height")) im.h = side(j);
        else if (!strcmp(j->text, "file_name")) {
            train_json_string(j);
            if (!j->e && (j->text[0] == '/' || !strncmp(j->text, "../", 3) || strstr(j->text, "/../")))
                train_json_fail(j, "a file_name that leaves the folder of pictures");
            im.name = (int64_t)s->text.len;
            if (!j->e) j->e = data_append(s, &s->text, 1, j->text, j->length + 1);
        } else train_json_skip(j);
    }
    if (!j->e && (im.id == INT64_MIN || im.name < 0)) train_json_fail(j, "an image without id or file_name");
    if (!j->e && c->images.len >= DATA_MAX_SAMPLES) train_json_fail(j, "too many images");
    if (!j->e) j->e = data_append(s, &c->images, sizeof im, &im, 1);
}

static void read_box(struct train_set *s, struct train_json *j, struct data_coco *c)
{
    struct data_coco_box b = {.image = INT64_MIN, .category = INT64_MIN, .order = (int32_t)c->boxes.len};
    int n = -1;
    train_json_begin(j, '{');
    b.line = (int32_t)j->line;
    while (train_json_more(j, '}')) {
        train_json_key(j);
        if (!strcmp(j->text, "image_id")) b.image = integer(j);
        else if (!strcmp(j->text, "category_id")) b.category = integer(j);
        else if (!strcmp(j->text, "iscrowd")) b.crowd = train_json_flag(j);
        else if (!strcmp(j->text, "bbox")) {
            train_json_begin(j, '[');
            for (n = 0; train_json_more(j, ']'); n++) {
                double v = train_json_number(j);
                if (n < 4) b.box[n] = v;
            }
        } else train_json_skip(j);
    }
    if (!j->e && (b.image == INT64_MIN || b.category == INT64_MIN)) train_json_fail(j, "an annotation without image_id or category_id");
    if (!j->e && n != 4 && n != -1) train_json_fail(j, "a bbox of other than 4 numbers");
    if (n == -1) b.box[0] = NAN;
    if (!j->e && c->boxes.len >= DATA_MAX_BOXES) train_json_fail(j, "too many annotations");
    if (!j->e) j->e = data_append(s, &c->boxes, sizeof b, &b, 1);
}

static void read_category(struct train_json *j, struct categories *cs)
{
    struct category c = {0};
    bool id = false;
    train_json_begin(j, '{');
    c.line = j->line;
    while (train_json_more(j, '}')) {
        train_json_key(j);
        if (!strcmp(j->text, "id")) id = true, c.id = integer(j);
        else if (!strcmp(j->text, "name")) {
            train_json_string(j);
            free(c.name);
            c.name = xstrdup(j->text);
        } else train_json_skip(j);
    }
    if (!j->e && (!id || !c.name)) train_json_fail(j, "a category without id or name");
    if (!j->e && cs->n >= DATA_MAX_CLASSES) train_json_fail(j, "too many categories");
    if (j->e) {
        free(c.name);
        return;
    }
    vec_grow(&cs->items, &cs->cap, cs->n);
    cs->items[cs->n++] = c;
}

static int by_category(const void *a, const void *b)
{
    const struct category *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int by_image(const void *a, const void *b)
{
    const struct data_coco_box *x = a, *y = b;
    if (x->image != y->image) return x->image < y->image ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* Classes of the set, and their ids in the same order. */
static err take_categories(struct train_set *s, const char *name, struct categories *cs, struct data_coco *c)
{
    err e = ERR_OK;
    if (cs->n) qsort(cs->items, cs->n, sizeof *cs->items, by_category);
    c->categories = xnewn(int64_t, cs->n + 1);
    for (size_t i = 0; !e && i < cs->n; i++) {
        c->categories[i] = cs->items[i].id;
        if (i && cs->items[i].id == cs->items[i - 1].id)
            e = err_set(ERR_FORMAT, "%s:%lld: category id %lld is used twice", name, (long long)cs->items[i].line, (long long)cs->items[i].id);
        else if ((e = data_add_class(s, cs->items[i].name, strlen(cs->items[i].name))))
            err_wrap(e, "%s:%lld", name, (long long)cs->items[i].line);
    }
    for (size_t i = 0; i < cs->n; i++) free(cs->items[i].name);
    free(cs->items);
    return e;
}

err data_coco_parse(struct train_set *s, FILE *f, const char *name, struct data_coco *ret)
{
    struct train_json *j = xnew(struct train_json);
    struct categories cs = {0};
    bool images = false;
    *ret = (struct data_coco){0};
    train_json_init(j, f, name);
    train_json_begin(j, '{');
    while (train_json_more(j, '}')) {
        train_json_key(j);
        int what = !strcmp(j->text, "images") ? 1 : !strcmp(j->text, "annotations") ? 2 : !strcmp(j->text, "categories") ? 3 : 0;
        images |= what == 1;
        if (!what) {
            train_json_skip(j);
            continue;
        }
        train_json_begin(j, '[');
        while (train_json_more(j, ']')) {
            if (what == 1) read_image(s, j, ret);
            else if (what == 2) read_box(s, j, ret);
            else read_category(j, &cs);
        }
    }
    train_json_end(j);
    if (!j->e && !images) train_json_fail(j, "no list of images; is this COCO's 'instances' JSON?");
    err e = j->e;
    free(j);
    err e2 = take_categories(s, name, &cs, ret);
    if (!e) e = e2;
    if (!e && ret->boxes.len) qsort(ret->boxes.items, ret->boxes.len, sizeof(struct data_coco_box), by_image);
    if (e) data_coco_done(s, ret);
    return e;
}

void data_coco_done(struct train_set *s, struct data_coco *c)
{
    data_list_done(s->payer, &c->images, sizeof(struct data_coco_image));
    data_list_done(s->payer, &c->boxes, sizeof(struct data_coco_box));
    free(c->categories);
    c->categories = NULL;
}

/* ---- as a set of pictures in files */

static bool has_file(const char *dir, const char *name)
{
    char *p = xasprintf("%s/%s", dir, name);
    bool yes = access(p, R_OK) == 0;
    free(p);
    return yes;
}

/* The folder where the first picture lies: what was said, or one of the usual places. */
static err find_folder(const char *path, const char *images, const char *first, char **ret)
{
    const char *slash = strrchr(path, '/');
    int n = slash ? (int)(slash - path) : 1;
    const char *dir = slash ? path : ".";
    if (images) return *ret = xstrdup(images), ERR_OK;
    static const char *const places[] = {"", "/images", "/../images", "/.."};
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        char *p = xasprintf("%.*s%s", n, dir, places[i]);
        if (has_file(p, first)) return *ret = p, ERR_OK;
        free(p);
    }
    return err_set(ERR_NOT_FOUND, "%s: '%s' is neither beside it nor in images/ or ../images/; say where the pictures are", path, first);
}

static int class_of(const struct data_coco *c, size_t n, int64_t category)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (c->categories[mid] < category) lo = mid + 1;
        else hi = mid;
    }
    return lo < n && c->categories[lo] == category ? (int)lo : -1;
}

static size_t first_of(const struct data_coco_box *b, size_t n, int64_t image)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (b[mid].image < image) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static err add_image(struct train_set *s, const char *path, const char *dir, const struct data_coco *c, const struct data_coco_image *im, int64_t *ret_used)
{
    struct stat st;
    char *file = xasprintf("%s/%s", dir, (const char *)s->text.items + im->name);
    const struct data_coco_box *b = c->boxes.items;
    size_t i = first_of(b, c->boxes.len, im->id);
    bool there = stat(file, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;
    err e = ERR_OK;
    if (there) e = data_add_picture(s, file, -1);
    for (; !e && i < c->boxes.len && b[i].image == im->id; i++) {
        ++*ret_used;
        if (b[i].crowd) s->report.left_out++;
        if (!there || b[i].crowd) continue;
        struct train_box box = {(float)b[i].box[0], (float)b[i].box[1], (float)(b[i].box[0] + b[i].box[2]), (float)(b[i].box[1] + b[i].box[3]),
                                class_of(c, s->n_classes, b[i].category)};
        e = data_add_box(s, path, b[i].line, box, im->w, im->h);
    }
    if (!there) {
        s->report.bad_images++;
        data_problem(s, "%s:%d: '%s' is an empty file or not there", path, im->line, file);
    }
    free(file);
    return e;
}

err data_read_coco(struct train_set *s, const char *path, const char *images)
{
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    struct data_coco c;
    s->has_boxes = true;
    err e = data_coco_parse(s, f, path, &c);
    fclose(f);
    if (e) return e;
    const struct data_coco_image *im = c.images.items;
    char *dir = NULL;
    int64_t used = 0;
    if (c.images.len == 0) e = err_set(ERR_FORMAT, "%s: its list of images is empty", path);
    else e = find_folder(path, images, (const char *)s->text.items + im[0].name, &dir);
    for (size_t i = 0; !e && i < c.images.len; i++) e = add_image(s, path, dir, &c, &im[i], &used);
    if (!e && used < (int64_t)c.boxes.len) {
        s->report.bad_boxes += (int64_t)c.boxes.len - used;
        data_problem(s, "%s: %lld annotations of pictures that it does not list", path, (long long)((int64_t)c.boxes.len - used));
    }
    free(dir);
    data_coco_done(s, &c);
    return e;
}

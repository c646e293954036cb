/* Sets that are folders: one folder per class, or images/ with one text file of boxes per picture (YOLO).
 *
 * Only names and sizes are looked at: a picture is opened when it is wanted. In YOLO's way a picture without a text file, or with an empty one,
 * is a picture of nothing, which a detector needs too. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_set.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

bool data_is_picture(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && (!strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg") || !strcasecmp(dot, ".png"));
}

/* Adds it unless there is nothing in it; *ret_added says which. */
static err add_file(struct train_set *s, const char *path, int label, bool *ret_added)
{
    struct stat st;
    *ret_added = false;
    if (stat(path, &st) || !S_ISREG(st.st_mode) || st.st_size == 0) {
        s->report.bad_images++;
        data_problem(s, "%s: an empty file or none", path);
        return ERR_OK;
    }
    *ret_added = true;
    return data_add_picture(s, path, label);
}

err data_read_folder(struct train_set *s, const char *path)
{
    char **classes = NULL, **names;
    size_t n_classes = 0, n;
    err e = data_list_folder(path, &classes, &n_classes);
    for (size_t c = 0; !e && c < n_classes; c++) {
        struct stat st;
        char *dir = xasprintf("%s/%s", path, classes[c]);
        if (stat(dir, &st) == 0 && S_ISDIR(st.st_mode)) {
            int label = (int)s->n_classes;
            e = data_add_class(s, classes[c], strlen(classes[c]));
            if (!e && !(e = data_list_folder(dir, &names, &n))) {
                for (size_t i = 0; !e && i < n; i++) {
                    bool added;
                    char *file = xasprintf("%s/%s", dir, names[i]);
                    if (data_is_picture(names[i])) e = add_file(s, file, label, &added);
                    free(file);
                }
                data_free_names(&names, n);
            }
        }
        free(dir);
    }
    data_free_names(&classes, n_classes);
    if (!e && !s->n_classes)
        e = err_set(ERR_FORMAT, "%s: no folders in it; pictures are expected in one folder per class: %s/CLASS/PICTURE.jpg", path, path);
    return e;
}

err data_read_plain(struct train_set *s, const char *path)
{
    char **names;
    size_t n;
    err e = data_list_folder(path, &names, &n);
    if (e) return e;
    for (size_t i = 0; !e && i < n; i++) {
        bool added;
        char *file = xasprintf("%s/%s", path, names[i]);
        if (data_is_picture(names[i])) e = add_file(s, file, -1, &added);
        free(file);
    }
    data_free_names(&names, n);
    return e;
}

bool data_has_pictures(const char *path)
{
    char **names;
    size_t n;
    bool found = false;
    if (data_list_folder(path, &names, &n)) return false;
    for (size_t i = 0; i < n && !found; i++) found = data_is_picture(names[i]);
    data_free_names(&names, n);
    return found;
}

/* `class cx cy w h`; more columns (polygons, key points) are another format. */
static err yolo_line(struct train_set *s, const char *file, int64_t line, const char *text)
{
    double v[5];
    const char *p = text;
    for (int i = 0; i < 5; i++) {
        char *end;
        v[i] = strtod(p, &end);
        if (end == p) return err_set(ERR_FORMAT, "%s:%lld: expected `class cx cy w h`", file, (long long)line);
        p = end;
    }
    if (p[strspn(p, " \t")]) return err_set(ERR_FORMAT, "%s:%lld: more than the five columns `class cx cy w h`", file, (long long)line);
    if (!(v[0] >= 0 && v[0] < INT_MAX && v[0] == floor(v[0]))) v[0] = -1;
    struct train_box b = {(float)(v[1] - v[3] / 2), (float)(v[2] - v[4] / 2), (float)(v[1] + v[3] / 2), (float)(v[2] + v[4] / 2), (int)v[0]};
    return data_add_box(s, file, line, b, 1, 1);
}

static err yolo_labels(struct train_set *s, const char *path, const char *name)
{
    char buf[DATA_MAX_LINE];
    int64_t line = 0;
    err e = ERR_OK;
    char *file = xasprintf("%s/labels/%.*s.txt", path, (int)(strrchr(name, '.') - name), name);
    FILE *f = fopen(file, "rb");
    while (f && !e && data_line(f, file, &line, buf, &e))
        if (buf[strspn(buf, " \t")]) e = yolo_line(s, file, line, buf);
    if (f) fclose(f);
    free(file);
    return e;
}

err data_read_yolo(struct train_set *s, const char *path)
{
    char *own = xasprintf("%s/classes.txt", path), *above = xasprintf("%s/../classes.txt", path), *dir = xasprintf("%s/images", path);
    char **names = NULL;
    size_t n = 0;
    s->has_boxes = s->relative = true;
    err e = data_read_names(s, own);
    if (e == ERR_NOT_FOUND) e = data_read_names(s, above);
    if (e == ERR_NOT_FOUND) e = err_set(ERR_NOT_FOUND, "%s: expected the names of the classes, one a line, in %s", path, own);
    if (!e) e = data_list_folder(dir, &names, &n);
    for (size_t i = 0; !e && i < n; i++) {
        if (!data_is_picture(names[i])) continue;
        bool added;
        char *file = xasprintf("%s/%s", dir, names[i]);
        e = add_file(s, file, -1, &added);
        if (!e && added) e = yolo_labels(s, path, names[i]);
        free(file);
    }
    data_free_names(&names, n);
    free(own);
    free(above);
    free(dir);
    return e;
}

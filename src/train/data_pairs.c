/* Pictures and what they should become: DIR/input/NAME with DIR/target/NAME, of the same name (the ending may differ). The path of the second follows the first's in
 * the set's text. And pictures with yes-or-no attributes: attributes.csv, whose first line names the columns (`file,hat,bag`), then a line per picture: 1, 0, or
 * nothing where it is not known. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool full(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;
}

/* DIR/target/NAME with one of the endings of pictures; malloced, NULL if there is none. */
static char *partner(const char *path, const char *name)
{
    static const char *const endings[] = {".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG"};
    char *same = xasprintf("%s/target/%s", path, name);
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; !full(same) && i < ARRAY_LEN(endings); i++) {
        free(same);
        same = xasprintf("%s/target/%.*s%s", path, (int)(dot - name), name, endings[i]);
    }
    if (full(same)) return same;
    free(same);
    return NULL;
}

err data_read_pairs(struct train_set *s, const char *path)
{
    char *dir = xasprintf("%s/input", path), **names = NULL;
    size_t n = 0;
    err e = data_list_folder(dir, &names, &n);
    for (size_t i = 0; !e && i < n; i++) {
        if (!data_is_picture(names[i])) continue;
        char *file = xasprintf("%s/%s", dir, names[i]), *other = partner(path, names[i]);
        if (!full(file) || !other) {
            s->report.bad_images++;
            data_problem(s, "%s: %s", file, other ? "an empty file or none" : "no picture of this name in target/");
        } else {
            e = data_add_picture(s, file, -1);
            if (!e) e = data_append(s, &s->text, 1, other, strlen(other) + 1);
        }
        free(file);
        free(other);
    }
    data_free_names(&names, n);
    free(dir);
    return e;
}

/* ---- attributes */

/* The next field of a line, in place; NULL after the last. No quotes: names of files with commas are none of ours. */
static char *field(char **at)
{
    char *p = *at, *comma = p ? strchr(p, ',') : NULL;
    if (!p) return NULL;
    if (comma) *comma = 0;
    *at = comma ? comma + 1 : NULL;
    while (*p == ' ') p++;
    for (size_t n = strlen(p); n && p[n - 1] == ' ';) p[--n] = 0;
    return p;
}

static err values(struct train_set *s, const char *file, int64_t line, char *rest, int8_t *to)
{
    for (size_t c = 0; c < s->n_classes; c++) {
        const char *v = field(&rest);
        if (!v) return err_set(ERR_FORMAT, "%s:%lld: %zu values; the first line names %zu", file, (long long)line, c, s->n_classes);
        if (strcmp(v, "0") && strcmp(v, "1") && *v && strcmp(v, "-1"))
            return err_set(ERR_FORMAT, "%s:%lld: '%s' for %s: 1, 0, or nothing where it is not known", file, (long long)line, v, s->classes[c]);
        to[c] = !*v || *v == '-' ? -1 : (int8_t)(*v - '0');
    }
    return rest ? err_set(ERR_FORMAT, "%s:%lld: more than %zu values", file, (long long)line, s->n_classes) : ERR_OK;
}

static err attribute_line(struct train_set *s, const char *dir, const char *file, int64_t line, char *text, int8_t *row)
{
    char *rest = text, *name = field(&rest);
    if (line == 1) {
        err e = rest ? ERR_OK : err_set(ERR_FORMAT, "%s:1: expected `file,ATTRIBUTE,...`", file);
        for (char *p; !e && (p = field(&rest));) e = data_add_class(s, p, strlen(p));
        return e;
    }
    err e = values(s, file, line, rest, row);
    if (e) return e;
    char *path = xasprintf("%s/%s", dir, name);
    if (!full(path)) {
        free(path);
        path = xasprintf("%s/images/%s", dir, name);
    }
    if (full(path)) {
        e = data_add_picture(s, path, -1);
        if (!e) e = data_append(s, &s->attributes, 1, row, s->n_classes);
    } else {
        s->report.bad_images++;
        data_problem(s, "%s:%lld: %s: an empty file or none", file, (long long)line, name);
    }
    free(path);
    return e;
}

err data_read_attributes(struct train_set *s, const char *path)
{
    char buf[DATA_MAX_LINE], *file = str_ends(path, ".csv") ? xstrdup(path) : xasprintf("%s/attributes.csv", path);
    char *slash = strrchr(file, '/'), *dir = slash ? xasprintf("%.*s", (int)(slash - file), file) : xstrdup(".");
    int8_t row[DATA_MAX_LINE / 2 + 1];
    int64_t line = 0;
    err e = ERR_OK;
    FILE *f = fopen(file, "rb");
    if (!f) e = err_set(ERR_NOT_FOUND, "%s: %s", file, strerror(errno));
    while (!e && data_line(f, file, &line, buf, &e))
        if (buf[0]) e = attribute_line(s, dir, file, line, buf, row);
    if (f) fclose(f);
    free(file);
    free(dir);
    return e;
}

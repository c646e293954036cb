/* Events of a box as a set: rows of its database, and the pictures that it kept of them (rows/picture.h). The path is the database, or the store that has it as
 * events.db; it is only read, and the box may be writing it.
 *
 * For a task without boxes a sample is the event's object, cut out of its picture and kept as small JPEG; its class is a word of the row. For one with boxes a sample is
 * a whole picture, met once whatever events it belongs to, with all that was seen in it, or with the event's object where the picture does not say. For attributes a
 * sample is the object, with a yes for each word that its row's attributes say, and a no for each that only others say: a box tells those that it is sure of.
 * All pictures are read now: the box deletes old ones while the training runs. An event whose picture is gone is counted.
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/data_set.h"

#include "rows/picture.h"
#include "task/box.h"
#include "video/convert.h"
#include "video/encode.h"
#include "video/still.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { QUALITY = 95, SIDE = 256, LEAST = 12 /* pixels a side: less shows nothing */, MAX_BYTES = 16 << 20, ATTRIBUTES = sizeof(((struct rows_event *)0)->attributes) };

struct reading {
    struct train_set *s;
    const struct train_set_options *o;
    const char *path;
    char *folder;
    struct video_still *still;
    struct video_conv *conv;
    struct video_jpeg *jpeg;
    uint8_t *rgb, *bytes; /* of one crop; of one file */
    size_t rgb_size;
    int side;
    struct data_list said; /* the attributes of each sample, ATTRIBUTES bytes each */
    int64_t events;
    struct stat last;
};

/* ---- which class */

/* "dark blue 0.93, old 0.50" begins with "dark blue": a word and how sure its model was. "" where that is not so ("embedding[128]"). */
static const char *attribute(const char *said, char buf[ATTRIBUTES])
{
    snprintf(buf, ATTRIBUTES, "%.*s", (int)strcspn(said, ","), said + strspn(said, " "));
    buf[strcspn(buf, ",")] = 0;
    char *number = strrchr(buf, ' ');
    if (!number || number == buf || number[1 + strspn(number + 1, "0123456789.%")]) return "";
    *number = 0;
    return buf;
}

/* The one behind it, NULL after the last. */
static const char *next_attribute(const char *said)
{
    const char *comma = strchr(said, ',');
    return comma ? comma + 1 : NULL;
}

/* As long as a row can say, so its last one may be cut. */
static bool is_full(const char *said)
{
    return strlen(said) == ATTRIBUTES - 1;
}

static bool known_word(const char *named)
{
    static const char *const words[] = {"label", "attributes", "zone", "event", "query", "camera"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (!strcmp(words[i], named)) return true;
    return false;
}

static const char *word_of(const struct rows_event *e, const char *named, char buf[ATTRIBUTES])
{
    if (!strcmp(named, "attributes")) return attribute(e->attributes, buf);
    return !strcmp(named, "zone") ? e->zone : !strcmp(named, "event") ? e->event : !strcmp(named, "query") ? e->query : !strcmp(named, "camera") ? e->camera : e->label;
}

static err class_of(struct train_set *s, const char *name, int *ret)
{
    for (size_t c = s->n_classes; c-- > 0;)
        if (!strcmp(s->classes[c], name)) return *ret = (int)c, ERR_OK;
    *ret = (int)s->n_classes;
    return data_add_class(s, name, strlen(name));
}

/* ---- pictures */

/* The file's bytes; *ret_n 0: it is gone, or no file of sensible size. */
static err read_file(struct reading *k, const struct rows_event *e, size_t *ret_n, struct stat *st)
{
    char *path = rows_picture_path(k->folder, e->uid);
    FILE *f = fopen(path, "rb");
    *ret_n = 0;
    if (f && fstat(fileno(f), st) == 0 && S_ISREG(st->st_mode) && st->st_size > 0 && st->st_size <= MAX_BYTES) *ret_n = fread(k->bytes, 1, MAX_BYTES, f);
    if (!f && errno != ENOENT) data_problem(k->s, "%s: %s", path, strerror(errno));
    if (f) fclose(f);
    free(path);
    return ERR_OK;
}

static void no_picture(struct reading *k, const struct rows_event *e)
{
    k->s->report.no_pictures++;
    data_problem(k->s, "%s: event %lld has no picture any more", k->path, (long long)e->id);
}

static err add_sample(struct reading *k, const struct rows_event *e, const uint8_t *jpeg, size_t n, int label)
{
    struct train_set *s = k->s;
    if (s->samples.len >= DATA_MAX_SAMPLES) return err_set(ERR_LIMIT, "%s: more than %d pictures", k->path, DATA_MAX_SAMPLES);
    struct data_sample d = {.at = (int64_t)s->jpegs.len, .size = (int32_t)n, .label = label, .file = (int32_t)MIN(e->id, INT32_MAX), .first_box = (int64_t)s->boxes.len};
    err x = data_append(s, &s->jpegs, 1, jpeg, n);
    return x ? x : data_append(s, &s->samples, sizeof d, &d, 1);
}

/* ---- boxes */

static err add_boxes(struct reading *k, const struct rows_event *e, size_t n)
{
    struct rows_seen seen[ROWS_PICTURE_SEEN];
    int count = rows_picture_seen(k->bytes, n, seen), class;
    if (count < 0) { /* the picture does not say: at least the event's own object is known */
        float w = (float)MAX(e->width, 1), h = (float)MAX(e->height, 1);
        seen[0] = (struct rows_seen){.box = {e->box[0] / w, e->box[1] / h, e->box[2] / w, e->box[3] / h}};
        snprintf(seen[0].label, sizeof seen[0].label, "%s", e->label);
        count = 1;
    }
    err x = add_sample(k, e, k->bytes, n, -1);
    for (int i = 0; i < count && !x; i++) {
        const float *b = seen[i].box;
        if (!seen[i].label[0]) continue;
        x = class_of(k->s, seen[i].label, &class);
        if (!x) x = data_add_box(k->s, k->path, e->id, (struct train_box){b[0], b[1], b[2], b[3], class}, 1, 1);
    }
    return x;
}

/* ---- objects */

static err cut(struct reading *k, const struct rows_event *e, const struct video_frame *f, int class)
{
    struct train_set *s = k->s;
    float sx = (float)f->width / (float)MAX(e->width, 1), sy = (float)f->height / (float)MAX(e->height, 1);
    struct task_box b = {e->box[0] * sx, e->box[1] * sy, e->box[2] * sx, e->box[3] * sy};
    if (task_box_valid(&b)) b = task_box_clip(b, (float)f->width, (float)f->height);
    struct video_rect roi = {(double)b.x1, (double)b.y1, (double)(b.x2 - b.x1), (double)(b.y2 - b.y1)};
    if (!(roi.w >= LEAST && roi.h >= LEAST)) {
        s->report.bad_boxes++;
        data_problem(s, "%s: event %lld: less than %d pixels a side; it is left out", k->path, (long long)e->id, LEAST);
        return ERR_OK;
    }
    double scale = MIN(1.0, k->side / MAX(roi.w, roi.h));
    int w = MAX(1, (int)(roi.w * scale + 0.5)), h = MAX(1, (int)(roi.h * scale + 0.5));
    const uint8_t *jpeg;
    size_t n;
    err x = video_to_rgb24(k->conv, f, &roi, w, h, k->rgb, 3 * w);
    if (!x) x = video_jpeg_encode(k->jpeg, k->rgb, 3 * w, w, h, &jpeg, &n);
    return x ? x : add_sample(k, e, jpeg, n, class);
}

static err add_object(struct reading *k, const struct rows_event *e, size_t n)
{
    char buf[ATTRIBUTES], name[64];
    const char *word = word_of(e, k->o->attributes ? "attributes" : k->o->named ? k->o->named : "label", buf);
    struct video_frame *f;
    int class = -1;
    size_t before = k->s->samples.len;
    if (!*word) {
        k->s->report.left_out++;
        return ERR_OK;
    }
    snprintf(name, sizeof name, "the picture of event %lld", (long long)e->id);
    err x = video_still_decode(k->still, k->bytes, n, name, &f);
    if (x == ERR_CORRUPT || x == ERR_LIMIT) {
        k->s->report.bad_images++;
        data_problem(k->s, "%s", err_text());
        return ERR_OK;
    }
    if (x) return x;
    if (!k->o->attributes) x = class_of(k->s, word, &class);
    if (!x) x = cut(k, e, f, class);
    video_frame_unref(&f);
    if (x || !k->o->attributes || k->s->samples.len == before) return x;
    return data_append(k->s, &k->said, ATTRIBUTES, e->attributes, 1);
}

static err on_event(void *user, const struct rows_event *e)
{
    struct reading *k = user;
    struct stat st;
    size_t n;
    k->events++;
    err x = read_file(k, e, &n, &st);
    if (x) return x;
    if (!n) {
        no_picture(k, e);
        return ERR_OK;
    }
    bool again = st.st_ino == k->last.st_ino && st.st_dev == k->last.st_dev;
    k->last = st;
    if (!k->o->boxes) return add_object(k, e, n);
    return again ? ERR_OK : add_boxes(k, e, n); /* another event of the same frame */
}

/* ---- */

/* Words come in the order in which they were met; by name they are the same ones next week, where the same things are seen. */
static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort_classes(struct train_set *s)
{
    char **old = xnewn(char *, s->n_classes + 1);
    int *map = xnewn(int, s->n_classes + 1);
    for (size_t c = 0; c < s->n_classes; c++) old[c] = s->classes[c];
    if (s->n_classes) qsort(s->classes, s->n_classes, sizeof *s->classes, by_name);
    for (size_t c = 0; c < s->n_classes; c++)
        for (size_t i = 0; i < s->n_classes; i++)
            if (s->classes[i] == old[c]) map[c] = (int)i;
    for (size_t i = 0; i < s->samples.len; i++)
        if (data_samples(s)[i].label >= 0) data_samples(s)[i].label = map[data_samples(s)[i].label];
    for (size_t i = 0; i < s->boxes.len; i++) data_boxes(s)[i].class_id = map[data_boxes(s)[i].class_id];
    free(old);
    free(map);
}

/* Every word of theirs, or those asked for. */
static err name_attributes(struct reading *k)
{
    char buf[ATTRIBUTES];
    err e = ERR_OK;
    int class;
    for (int i = 0; i < k->o->n_classes && !e; i++) e = data_add_class(k->s, k->o->classes[i], strlen(k->o->classes[i]));
    if (e || k->o->n_classes) return e;
    for (size_t i = 0; i < k->said.len && !e; i++)
        for (const char *at = (const char *)k->said.items + ATTRIBUTES * i, *next; at && !e; at = next) {
            const char *word = attribute(at, buf);
            next = next_attribute(at);
            if (*word && (next || !is_full((const char *)k->said.items + ATTRIBUTES * i))) e = class_of(k->s, word, &class);
        }
    if (!e) sort_classes(k->s);
    return e;
}

/* After a row that may be cut nothing more is known. */
static err fill_attributes(struct reading *k)
{
    struct train_set *s = k->s;
    char buf[ATTRIBUTES];
    err e = name_attributes(k);
    int8_t *row = xnewn(int8_t, s->n_classes + 1);
    for (size_t i = 0; i < k->said.len && !e; i++) {
        const char *said = (const char *)k->said.items + ATTRIBUTES * i;
        memset(row, is_full(said) ? -1 : 0, s->n_classes);
        for (const char *at = said; at; at = next_attribute(at)) {
            const char *word = attribute(at, buf);
            if (!next_attribute(at) && is_full(said)) break;
            for (size_t c = 0; c < s->n_classes; c++)
                if (!strcmp(s->classes[c], word)) row[c] = 1;
        }
        e = data_append(s, &s->attributes, 1, row, s->n_classes);
    }
    free(row);
    return e;
}

static err read_all(struct reading *k, const char *database)
{
    const struct train_set_options *o = k->o;
    struct rows_filter f = {.query = o->query, .camera = o->camera, .since = o->since, .oldest_first = true};
    k->folder = rows_picture_folder(database);
    k->side = o->side > 0 ? MIN(o->side, 1024) : SIDE;
    k->rgb_size = (size_t)(k->side + 1) * (size_t)(k->side + 1) * 3;
    k->still = video_still_new(mem_payer_budget(k->s->payer), "stills");
    k->conv = video_conv_new(k->s->payer);
    k->jpeg = video_jpeg_new(k->s->payer, QUALITY);
    err e = mem_alloc(k->s->payer, MEM_TRAINING, k->rgb_size, (void **)&k->rgb);
    if (!e) e = mem_alloc(k->s->payer, MEM_TRAINING, MAX_BYTES, (void **)&k->bytes);
    if (!e) e = rows_read(database, &f, on_event, k);
    if (!e && o->attributes) e = fill_attributes(k);
    if (e == ERR_NOMEM) err_wrap(e, "%s: its pictures are kept in memory; take fewer (--query, --camera, --since)", k->path);
    mem_free(k->s->payer, MEM_TRAINING, k->rgb, k->rgb_size);
    mem_free(k->s->payer, MEM_TRAINING, k->bytes, MAX_BYTES);
    data_list_done(k->s->payer, &k->said, ATTRIBUTES);
    video_still_free(&k->still);
    video_conv_free(&k->conv);
    video_jpeg_free(&k->jpeg);
    free(k->folder);
    return e;
}

bool data_is_rows(const char *path)
{
    return str_ends(path, ".db");
}

err data_read_rows(struct train_set *s, const char *path, const struct train_set_options *o)
{
    struct stat st;
    struct reading k = {.s = s, .o = o, .path = path};
    if (o->identities) return err_set(ERR_USAGE, "%s: a box's own events are for --task classify, detect and attributes", path);
    if (o->attributes && o->named && strcmp(o->named, "attributes")) return err_set(ERR_USAGE, "%s: --label is for --task classify; --task attributes takes all that the rows' attributes say", path);
    if (o->named && !known_word(o->named))
        return err_set(ERR_USAGE, "%s: --label of events is label, attributes, zone, event, query or camera, not '%s'", path, o->named);
    char *database = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? xasprintf("%s/events.db", path) : xstrdup(path);
    s->has_boxes = s->relative = o->boxes;
    err e = data_append(s, &s->text, 1, path, strlen(path) + 1);
    if (!e) e = read_all(&k, database);
    free(database);
    if (e) return e;
    if (!k.events) return err_set(ERR_FORMAT, "%s: no events%s", path, o->query || o->camera || o->since > 0 ? " that --query, --camera and --since let through" : " in it yet");
    const char *word = o->attributes ? "attributes" : o->named ? o->named : "label";
    if (!o->boxes && !s->samples.len && s->report.left_out)
        return err_set(ERR_FORMAT, "%s: of its %lld events none with a picture says anything as %s%s", path, (long long)k.events, word,
                       strcmp(word, "attributes") ? "" : "; a cascade in the site file does");
    if (!s->samples.len && s->report.no_pictures)
        return err_set(ERR_FORMAT, "%s: none of its %lld events has a picture; a box keeps them with 'pictures: 256M' among the outputs of its site file", path, (long long)k.events);
    if (!o->attributes) sort_classes(s);
    return ERR_OK;
}

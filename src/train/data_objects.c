/* What is known of the objects of a rendered site: truth/objects.json of `brim scene`, {"objects": [{"id": 1, "colour": "red", ...}]}. A list of (id, text) under
 * one key, sorted by id; objects without the key are not in it. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_objects.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/data_json.h"

static int by_id(const void *a, const void *b)
{
    const struct data_object *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void read_object(struct train_set *s, struct train_json *j, const char *key, struct data_list *to)
{
    struct data_object o = {.id = INT64_MIN};
    train_json_begin(j, '{');
    while (train_json_more(j, '}')) {
        train_json_key(j);
        if (!strcmp(j->text, "id")) {
            double v = train_json_number(j);
            if (!j->e && !(fabs(v) < 9e15 && v == floor(v))) train_json_fail(j, "expected a whole number");
            if (!j->e) o.id = (int64_t)v;
        } else if (!strcmp(j->text, key)) {
            if (train_json_peek(j) != '"') {
                train_json_fail(j, "a class has to be a text");
                return;
            }
            train_json_string(j);
            if (!j->e && (!j->length || j->length >= sizeof o.text)) train_json_fail(j, "a text of 1 to 63 bytes was expected");
            if (!j->e) memcpy(o.text, j->text, j->length + 1);
        } else train_json_skip(j);
    }
    if (!j->e && o.id == INT64_MIN) train_json_fail(j, "an object without id");
    if (!j->e && to->len >= DATA_MAX_SAMPLES) train_json_fail(j, "too many objects");
    if (!j->e && o.text[0]) j->e = data_append(s, to, sizeof o, &o, 1);
}

err data_objects_read(struct train_set *s, const char *path, const char *key, struct data_list *ret)
{
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(ERR_NOT_FOUND, "%s: %s; it says what the objects are like, as brim scene writes it", path, strerror(errno));
    struct train_json *j = xnew(struct train_json);
    struct data_list list = {0};
    train_json_init(j, f, path);
    train_json_begin(j, '{');
    while (train_json_more(j, '}')) {
        train_json_key(j);
        if (strcmp(j->text, "objects")) {
            train_json_skip(j);
            continue;
        }
        train_json_begin(j, '[');
        while (train_json_more(j, ']')) read_object(s, j, key, &list);
    }
    train_json_end(j);
    err e = j->e;
    if (!e && !list.len) e = err_set(ERR_FORMAT, "%s: no object has a '%s'", path, key);
    free(j);
    fclose(f);
    if (e) {
        data_list_done(s->payer, &list, sizeof(struct data_object));
        return e;
    }
    qsort(list.items, list.len, sizeof(struct data_object), by_id);
    *ret = list;
    return ERR_OK;
}

const char *data_objects_find(const struct data_list *l, int64_t id)
{
    struct data_object key = {.id = id};
    const struct data_object *found = l->len ? bsearch(&key, l->items, l->len, sizeof key, by_id) : NULL;
    return found ? found->text : NULL;
}

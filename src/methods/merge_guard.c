/* See merge_guard.h. Order of a reversal: the model first, by a rename, then merge.json. A death in between leaves a model that is its original and is still
 * listed as sharing: it scores 1 the next time, and nothing is wrong but the count of bytes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_guard.h"
#include "weights/fs.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_REPORT = 64 << 20 };

static err read_report(const char *out, json_t **ret)
{
    char *path = xasprintf("%s/merge.json", out);
    unsigned char *text;
    size_t n;
    json_error_t where;
    err e = weights_fs_get(&weights_fs_system, path, MOST_REPORT, &text, &n);
    if (e == ERR_NOT_FOUND) e = err_set(ERR_NOT_FOUND, "%s: no merge in it (brim merge MODEL... --out %s makes one)", out, out);
    if (!e) {
        *ret = json_loadb((const char *)text, n, 0, &where);
        free(text);
        if (!*ret) e = err_set(ERR_FORMAT, "%s:%d: %s", path, where.line, where.text);
        else if (!json_is_array(json_object_get(*ret, "members")) || !json_is_array(json_object_get(*ret, "layers"))) {
            json_decref(*ret);
            e = err_set(ERR_FORMAT, "%s: not a report of a merge", path);
        }
    }
    free(path);
    return e;
}

static err write_report(const char *out, const json_t *report)
{
    char *text = json_dumps(report, JSON_INDENT(1));
    size_t n = strlen(text);
    err e = weights_fs_put(&weights_fs_system, out, out, "merge.json", (const void *const[]){text}, &n, 1, false);
    free(text);
    return e;
}

static const struct merge_source *source_of(const struct merge_guard_options *o, const char *name)
{
    for (int i = 0; i < o->n; i++)
        if (!strcmp(o->sources[i].name, name)) return &o->sources[i];
    return NULL;
}

/* ---- one model */

struct look {
    const struct merge_guard_options *o;
    const struct merge_source *source;
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct train_set *set;
    struct graph *original, *merged;
    struct task_card card;
    int64_t *samples, n;
};

static err load(struct look *l, const char *below, struct graph **ret)
{
    char *path = xasprintf("%s/%s%s.onnx", l->o->out, below, l->source->name);
    err e = merge_source_load(path, l->o->size, l->payer, ret);
    free(path);
    return e;
}

static void choose_samples(struct look *l)
{
    int64_t all = train_set_count(l->set), most = l->o->most > 0 ? l->o->most : 200;
    l->n = MIN(all, most);
    l->samples = xnewn(int64_t, l->n + 1);
    for (int64_t i = 0; i < l->n; i++) l->samples[i] = i * all / l->n;
}

static err measure(struct look *l, double *ret)
{
    int64_t classes = 0;
    err e = load(l, "models/", &l->original);
    if (!e) e = load(l, "", &l->merged);
    if (!e) e = merge_source_open(l->source, l->source->data, false, l->payer, &l->set);
    if (!e) e = merge_score_classes(l->original, l->payer, &classes);
    if (e) return e;
    choose_samples(l);
    if (l->source->card) l->card = *l->source->card;
    if (l->o->size) l->card.inputs[0].width = l->card.inputs[0].height = l->o->size;
    struct merge_score s = {.classes = classes, .original = l->original, .card = l->source->card ? &l->card : NULL, .set = l->set,
                            .o = {.budget = l->budget, .batch = 8, .threads = l->o->threads, .feed = l->source->feed, .samples = l->samples, .n_samples = l->n}};
    s.measure = merge_score_measure(classes, s.card, l->set, false);
    return merge_score_run(&s, l->merged, ret, NULL);
}

static err put_back(const struct look *l)
{
    struct graph *g;
    char *path = xasprintf("%s/models/%s.onnx", l->o->out, l->source->name), *to = xasprintf("%s/%s.onnx", l->o->out, l->source->name);
    err e = graph_load(path, l->payer, &g);
    if (!e) {
        e = graph_save(g, to);
        graph_free(&g);
    }
    free(path);
    free(to);
    return e;
}

static err look_at(const struct merge_guard_options *o, const struct merge_source *source, struct merge_guard_result *r)
{
    struct look l = {.o = o, .source = source, .budget = mem_budget_new("guard", o->budget ? o->budget : UINT64_MAX)};
    l.payer = mem_payer_new(l.budget, "guard");
    err e = measure(&l, &r->score);
    r->reverted = !e && r->score < r->target;
    if (r->reverted) e = put_back(&l);
    graph_free(&l.original);
    graph_free(&l.merged);
    train_set_free(&l.set);
    free(l.samples);
    mem_payer_free(&l.payer);
    mem_budget_free(&l.budget);
    return e ? err_wrap(e, "model '%s'", source->name) : ERR_OK;
}

/* ---- the report */

static void forget_user(json_t *users, const char *name)
{
    for (size_t i = json_array_size(users); i-- > 0;) {
        const char *user = json_string_value(json_array_get(users, i));
        if (user && !strcmp(user, name)) json_array_remove(users, i);
    }
    if (json_array_size(users) == 1) json_array_clear(users);
}

/* Takes the model out of every layer, and counts anew. */
static void note_reversal(json_t *report, const char *name)
{
    json_t *layer, *list = json_object_get(report, "reverted");
    json_int_t saved = 0;
    size_t i;
    json_array_foreach(json_object_get(report, "layers"), i, layer) {
        json_t *users = json_object_get(layer, "users");
        forget_user(users, name);
        size_t n = json_array_size(users);
        saved += n > 1 ? (json_int_t)(n - 1) * json_integer_value(json_object_get(layer, "bytes")) : 0;
    }
    if (!list) json_object_set_new(report, "reverted", list = json_array());
    json_array_append_new(list, json_string(name));
    json_object_set_new(report, "saved_bytes", json_integer(saved));
    json_int_t bytes = json_integer_value(json_object_get(report, "bytes"));
    json_object_set_new(report, "saved_share", json_real(bytes > 0 ? (double)saved / (double)bytes : 0));
}

static bool shares(const json_t *report, const char *name)
{
    json_t *layer, *user;
    size_t i, k;
    json_array_foreach(json_object_get(report, "layers"), i, layer) {
        json_array_foreach(json_object_get(layer, "users"), k, user)
            if (json_string_value(user) && !strcmp(json_string_value(user), name)) return true;
    }
    return false;
}

err merge_guard_shares(const char *out, const char *name, bool *ret)
{
    json_t *report;
    err e = read_report(out, &report);
    if (e) return e;
    *ret = shares(report, name);
    json_decref(report);
    return ERR_OK;
}

static err copy_back(const char *out, const char *name)
{
    unsigned char *p;
    size_t n;
    char *from = xasprintf("%s/models/%s.onnx", out, name), *file = xasprintf("%s.onnx", name);
    err e = weights_fs_get(&weights_fs_system, from, INT32_MAX, &p, &n);
    if (!e) {
        e = weights_fs_put(&weights_fs_system, out, out, file, (const void *const[]){p}, &n, 1, false);
        free(p);
    }
    free(from);
    free(file);
    return e;
}

err merge_guard_note(const char *out, const char *name)
{
    json_t *report;
    err e = read_report(out, &report);
    if (e) return e;
    if (shares(report, name)) {
        e = copy_back(out, name);
        note_reversal(report, name);
        if (!e) e = write_report(out, report);
    }
    json_decref(report);
    return e;
}

err merge_guard(const struct merge_guard_options *o, struct merge_guard_result **ret, int *ret_n)
{
    json_t *report, *member;
    size_t i;
    err e = read_report(o->out, &report);
    if (e) return e;
    json_t *members = json_object_get(report, "members");
    int n = 0;
    struct merge_guard_result *r = xnewn(struct merge_guard_result, json_array_size(members) + 1);
    json_array_foreach(members, i, member) {
        const char *name = json_string_value(json_object_get(member, "name"));
        if (!name || e) continue;
        struct merge_guard_result *one = &r[n++];
        *one = (struct merge_guard_result){.name = xstrdup(name), .score = 1, .target = o->target > 0 ? o->target : 0.95, .shares = shares(report, name)};
        if (!one->shares) continue;
        const struct merge_source *source = source_of(o, name);
        if (!source || !source->data) e = err_set(ERR_USAGE, "model '%s' is merged, and there are no pictures to look at it with: --data %s=PATH", name, name);
        if (!e) e = look_at(o, source, one);
        if (!e && one->reverted) {
            note_reversal(report, name);
            e = write_report(o->out, report);
        }
    }
    json_decref(report);
    if (e) merge_guard_free(&r, n);
    if (e) return e;
    *ret = r;
    *ret_n = n;
    return ERR_OK;
}

void merge_guard_free(struct merge_guard_result **r, int n)
{
    for (int i = 0; i < n; i++) free((*r)[i].name);
    free(*r);
    *r = NULL;
}

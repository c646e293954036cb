/* Checks a site against its models' cards.
 *
 * Cards are small, so all are read at once. A card that is missing or wrong is one problem at its model; queries of
 * that model are then not checked further. SPDX-License-Identifier: Apache-2.0 */
#include "engine/site_check.h"
#include "engine/site_inside.h"
#include "task/card.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct checked {
    struct task_card *card; /* NULL: none that is right */
    const char **labels;    /* NULL-terminated; NULL: none known */
};

static void check_onnx(struct site_reader *r, const struct site_model *m)
{
    if (access(m->onnx, R_OK))
        site_note(r, yaml_err(yaml_get(m->at, "onnx"), errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                              "cannot open %.200s: %s", m->onnx, strerror(errno)));
}

/* What `guard: on` needs: an original. */
static void check_guard(struct site_reader *r, const struct site_model *m)
{
    const struct yaml_node *n = yaml_get(m->at, "guard");
    if (m->guard.when != SITE_GUARD_ON) return;
    if (m->guard.original) {
        if (access(m->guard.original, R_OK))
            site_note(r, yaml_err(yaml_get(n, "original"), errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open %.200s: %s", m->guard.original, strerror(errno)));
        return;
    }
    const char *slash = strrchr(m->onnx, '/'), *name = slash ? slash + 1 : m->onnx;
    int dir = slash ? (int)(slash - m->onnx) : 1;
    char *report = xasprintf("%.*s/merge.json", dir, slash ? m->onnx : "."), *original = xasprintf("%.*s/models/%s", dir, slash ? m->onnx : ".", name);
    if (access(report, F_OK) || access(original, R_OK))
        site_note(r, yaml_err(n, ERR_NOT_FOUND, "%.200s did not come out of 'brim merge': there is no %.200s with a merge.json; name the network as it was before, with guard: {original: FILE}",
                              m->onnx, original));
    free(report);
    free(original);
}

static void read_card(struct site_reader *r, const struct site_model *m, struct checked *c)
{
    const struct yaml_node *key = yaml_get(m->at, "card");
    err e = access(m->card, F_OK) ? ERR_NOT_FOUND : ERR_OK;
    if (e && key)
        e = yaml_err(key, e, "cannot open %.200s: %s", m->card, strerror(errno));
    else if (e)
        e = yaml_err_key(m->at, e, "there is no card at %.200s; write one (docs/cards.md), or name it with 'card:'",
                         m->card);
    else
        e = task_card_load(m->card, &c->card);
    if (site_note(r, e) || !c->card->class_count) return;
    c->labels = xnewn(const char *, (size_t)c->card->class_count + 1);
    for (int i = 0; i < c->card->class_count; i++) c->labels[i] = c->card->labels[i];
}

static const char *const *labels_of(void *arg, int model)
{
    return ((struct checked *)arg)[model].labels;
}

/* Zones, lines and cascades need boxes. */
static void check_boxes(struct site_reader *r, const struct site *s, const struct site_query *q,
                        const struct checked *all) {
    static const char *const keys[] = {"zones", "lines", "cascade"};
    const struct task_card *card = q->model == SITE_MOTION ? NULL : all[q->model].card;
    for (size_t i = 0; card && !task_head_detects(card->head) && i < ARRAY_LEN(keys); i++)
        if (yaml_get(q->at, keys[i]))
            site_note(
                r, yaml_err_key(yaml_get(q->at, keys[i]), ERR_FORMAT,
                                "needs a model that finds boxes, but '%s' has the head '%s'; use it in a cascade",
                                s->models[q->model].name, task_head_name(card->head)));
}

err site_check_models(const struct site *s, struct site_problems *problems)
{
    struct site_problems own = {0};
    struct site_reader r = {.problems = problems ? problems : &own};
    struct checked *all = xnewn(struct checked, s->model_count);
    for (size_t i = 0; i < s->model_count; i++) {
        check_onnx(&r, &s->models[i]);
        read_card(&r, &s->models[i], &all[i]);
        check_guard(&r, &s->models[i]);
    }
    for (size_t i = 0; i < s->query_count; i++) check_boxes(&r, s, &s->queries[i], all);
    err e = site_check_labels(s, labels_of, all, r.problems);
    for (size_t i = 0; i < s->model_count; i++) {
        if (all[i].card) task_card_free(&all[i].card);
        free(all[i].labels);
    }
    free(all);
    site_problems_done(&own);
    return r.first ? r.first : e;
}

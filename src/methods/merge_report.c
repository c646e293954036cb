/* What is told of a search: JSON and a picture. The JSON is written through a temporary name, so whoever reads it finds a whole one.
 * SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_report.h"
#include "methods/merge_chance.h"
#include "base/text.h"
#include "weights/fs.h"

#include <stdlib.h>
#include <string.h>

void merge_report_point(struct merge_search *s, const struct merge_progress *p)
{
    json_t *scores = json_array();
    for (int i = 0; i < s->o->n; i++) json_array_append_new(scores, json_real(p->score[i]));
    json_array_append_new(s->points, json_pack("{s:f, s:i, s:I, s:o}", "seconds", p->seconds, "trial", p->trial, "saved_bytes", (json_int_t)p->saved, "scores", scores));
}

static json_t *members_json(const struct merge_search *s)
{
    json_t *a = json_array();
    const struct merge_config *best = merge_joint_best(s->joint);
    for (int i = 0; i < s->o->n; i++) {
        const struct merge_member *m = s->members[i];
        int shared = 0;
        uint64_t bytes = 0;
        for (int k = 0; k < s->problem->n_slots; k++) {
            if (!merge_config_on(best, k, i)) continue;
            shared++;
            bytes += s->problem->slots[k].bytes;
        }
        json_array_append_new(a, json_pack("{s:o, s:s, s:f, s:f, s:o, s:f, s:f, s:s, s:I, s:I, s:i, s:I}", "name", text_json(m->name), "measure", merge_measure_name(m->score.measure),
                                           "before", m->original, "after", merge_joint_best_scores(s->joint)[i], "after_error", m->best_error < 0 ? json_null() : json_real(m->best_error), "target", m->target, "chance", m->chance, "chance_is", merge_chance_name(m->score.measure),
                                           "pictures_trained", (json_int_t)m->n_train, "pictures_measured", (json_int_t)m->n_held, "shared_layers", shared,
                                           "shared_bytes", (json_int_t)bytes));
    }
    return a;
}

static json_t *layers_json(const struct merge_search *s)
{
    json_t *a = json_array();
    const struct merge_config *best = merge_joint_best(s->joint);
    for (int k = 0; k < s->problem->n_slots; k++) {
        const struct merge_slot *slot = &s->problem->slots[k];
        json_t *users = json_array();
        for (int i = 0; i < s->o->n; i++)
            if (merge_config_on(best, k, i)) json_array_append_new(users, text_json(s->members[i]->name));
        json_array_append_new(a, json_pack("{s:o, s:i, s:I, s:i, s:o}", "layer", text_json(slot->what), "nth", slot->nth, "bytes", (json_int_t)slot->bytes, "could", slot->n,
                                           "users", users));
    }
    return a;
}

/* The log without what only the search needs. */
static json_t *trials_json(const struct merge_search *s)
{
    json_t *a = json_array(), *j;
    size_t i;
    json_array_foreach(s->log, i, j) {
        json_t *one = json_copy(j);
        json_object_del(one, "gain");
        json_object_del(one, "rise");
        json_array_append_new(a, one);
    }
    return a;
}

static err put(const struct merge_search *s, const char *name, const char *text)
{
    size_t size = strlen(text);
    return weights_fs_put(&weights_fs_system, s->o->out, s->o->out, name, (const void *const[]){text}, &size, 1, false);
}

static err write_json(struct merge_search *s)
{
    const struct merge_problem *p = s->problem;
    uint64_t saved = merge_config_saved(merge_joint_best(s->joint), p);
    json_t *j = json_pack("{s:s, s:b, s:f, s:f, s:f, s:i, s:I, s:I, s:I, s:I, s:f, s:I, s:o, s:o, s:o, s:O}", "policy", s->policy->name, "share_norm", s->o->share_norm,
                          "seconds", merge_joint_seconds(s->joint), "minutes", merge_joint_seconds(s->joint) / 60, "seconds_allowed", s->o->seconds, "trials", s->trials, "bytes",
                          (json_int_t)p->bytes, "bytes_after", (json_int_t)(p->bytes - saved), "most_bytes", (json_int_t)p->most_bytes,
                          "saved_bytes", (json_int_t)saved, "saved_share", p->bytes ? (double)saved / (double)p->bytes : 0, "equal_bytes_before",
                          (json_int_t)p->equal_bytes, "members", members_json(s), "layers", layers_json(s), "tried", trials_json(s), "points", s->points);
    char *text = json_dumps(j, JSON_INDENT(1));
    err e = put(s, "merge.json", text);
    free(text);
    json_decref(j);
    return e;
}

static bool is_shared(void *user, int member, int value)
{
    const struct merge_search *s = user;
    const struct merge_config *best = merge_joint_best(s->joint);
    for (int k = 0; k < s->problem->n_slots; k++)
        if (s->problem->slots[k].value[member] == value) return merge_config_on(best, k, member);
    return false;
}

static err write_picture(struct merge_search *s)
{
    struct merge_estimate *m = merge_estimate_new();
    for (int i = 0; i < s->o->n; i++) merge_estimate_add(m, s->members[i]->name, s->members[i]->source);
    merge_estimate_finish(m);
    char *svg = merge_draw_svg(m, &(struct merge_drawing){is_shared, s, merge_config_saved(merge_joint_best(s->joint), s->problem)});
    err e = put(s, "merge.svg", svg);
    free(svg);
    merge_estimate_free(&m);
    return e;
}

err merge_report_write(struct merge_search *s)
{
    err e = write_picture(s);
    return e ? e : write_json(s);
}

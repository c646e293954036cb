/* The loop: policy, trial, outcome, log. A search that is gone on with plays its log back to a fresh policy, which then stands where the old one stood;
 * weights come from the checkpoint.
 *
 * Invariant: `log` holds exactly the outcomes that the policy has seen. SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_report.h"
#include "train/checkpoint.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const double SEARCH = 0.85; /* of the time for the policy, once something is saved; the rest makes it firm */

/* ---- members */

static err copy_model(struct merge_search *s, const struct merge_source *from, const char *to)
{
    struct stat st;
    struct graph *g;
    if (s->o->resume && stat(to, &st) == 0) return ERR_OK;
    struct mem_payer *payer = mem_payer_new(s->budget, "copy");
    err e = merge_source_load(from->onnx, s->o->size, payer, &g); /* of other pictures: then that is what the search begins with */
    if (!e) {
        e = graph_save(g, to);
        graph_free(&g);
    }
    mem_payer_free(&payer);
    return e ? err_wrap(e, "model '%s'", from->name) : ERR_OK;
}

static err open_members(struct merge_search *s)
{
    const struct merge_search_options *o = s->o;
    struct merge_member_options m = {.budget = s->budget, .batch = o->batch > 0 ? o->batch : 32, .threads = o->threads, .seed = o->seed, .held_out = o->held_out,
                                     .most_val = o->most_val, .weight_decay = 1e-4, .size = o->size, .only_labels = o->only_labels, .stop = o->stop};
    err e = ERR_OK;
    for (int i = 0; i < o->n && !e; i++) {
        struct merge_source source = o->sources[i];
        char *path = xasprintf("%s/models/%s.onnx", o->out, source.name);
        e = copy_model(s, &source, path);
        source.onnx = path;
        if (!e) e = merge_member_open(&source, &m, o->target > 0 ? o->target : 0.95, &s->members[i]);
        free(path);
    }
    return e;
}

static err find_problem(struct merge_search *s)
{
    const struct graph **graphs = xnewn(const struct graph *, s->o->n);
    const char **names = xnewn(const char *, s->o->n);
    for (int i = 0; i < s->o->n; i++) {
        graphs[i] = s->members[i]->source;
        names[i] = s->members[i]->name;
    }
    err e = merge_problem_new(graphs, names, s->o->n, &s->problem);
    free(graphs);
    free(names);
    return e;
}

/* What the search begins with, or began with: a source may have been replaced since, by its own results for one. */
static char *original_path(const struct merge_search *s, int member)
{
    const struct merge_source *from = &s->o->sources[member];
    char *kept = xasprintf("%s/models/%s.onnx", s->o->out, from->name);
    if (s->o->resume && !access(kept, F_OK)) return kept;
    free(kept);
    return xstrdup(from->onnx);
}

/* Before anything is measured: what has nothing in common costs nobody a minute. */
static err check_common(struct merge_search *s)
{
    struct merge_estimate *m = merge_estimate_new();
    struct mem_payer *payer = mem_payer_new(s->budget, "look");
    err e = s->o->n < 2 ? err_set(ERR_USAGE, "merging takes two models or more") : ERR_OK;
    for (int i = 0; i < s->o->n && !e; i++) {
        struct graph *g;
        for (int k = 0; k < i && !e; k++)
            if (!strcmp(s->o->sources[i].name, s->o->sources[k].name)) e = err_set(ERR_USAGE, "two models are called '%s': their results would be one file", s->o->sources[i].name);
        char *path = original_path(s, i);
        if (!e) e = graph_load(path, payer, &g);
        free(path);
        if (e) break;
        merge_estimate_add(m, s->o->sources[i].name, g);
        graph_free(&g);
    }
    mem_payer_free(&payer);
    if (!e) {
        merge_estimate_finish(m);
        if (!m->saved_bytes) e = err_set(ERR_NOT_FOUND, "nothing to merge: no layer of one model has the operator, sizes and attributes of a layer of another");
    }
    merge_estimate_free(&m);
    return e;
}

/* ---- publishing */

static err publish(struct merge_search *s)
{
    err e = ERR_OK;
    for (int i = 0; i < s->o->n && !e; i++) {
        struct graph *g;
        char *path = xasprintf("%s/%s.onnx", s->o->out, s->o->sources[i].name);
        if (!(e = merge_joint_graph(s->joint, i, &g))) {
            e = graph_save(g, path);
            graph_free(&g);
        }
        free(path);
    }
    return e ? e : merge_report_write(s);
}

/* ---- the log */

static json_t *config_json(const struct merge_config *c)
{
    char *text = xcalloc((size_t)c->n_slots * (size_t)c->n_members + 1, 1);
    for (int i = 0; i < c->n_slots * c->n_members; i++) text[i] = c->on[i] ? '1' : '0';
    json_t *j = json_string(text);
    free(text);
    return j;
}

static err config_read(const json_t *j, struct merge_config *c)
{
    const char *text = json_string_value(j);
    size_t n = (size_t)c->n_slots * (size_t)c->n_members;
    if (!text || strlen(text) != n || strspn(text, "01") != n) return err_set(ERR_FORMAT, "a configuration of %d slots and %d models was expected", c->n_slots, c->n_members);
    for (size_t i = 0; i < n; i++) c->on[i] = text[i] == '1';
    return ERR_OK;
}

static json_t *numbers_json(const double *v, int n)
{
    json_t *a = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(a, json_real(v[i]));
    return a;
}

static err numbers_read(const json_t *j, double *v, int n)
{
    if ((int)json_array_size(j) != n) return err_set(ERR_FORMAT, "%d numbers were expected", n);
    for (int i = 0; i < n; i++) v[i] = json_number_value(json_array_get(j, (size_t)i));
    return ERR_OK;
}

static void log_outcome(struct merge_search *s, const struct merge_outcome *o, double began)
{
    int n = s->problem->n_members;
    json_t *met = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(met, json_boolean(o->met[i]));
    json_array_append_new(s->log, json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:f, s:f}", "tried", config_json(o->tried), "best", config_json(o->best), "met", met,
                                            "score", numbers_json(o->score, n), "rise", numbers_json(o->rise, n),
                                            "gain", numbers_json(o->gain, n * s->problem->n_slots), "accepted", o->accepted, "began", began,
                                            "ended", merge_joint_seconds(s->joint)));
}

static err save(struct merge_search *s)
{
    struct train_section *sections = xnewn(struct train_section, 2 * s->o->n);
    int n = merge_joint_sections(s->joint, sections);
    json_t *job = json_pack("{s:s, s:s, s:O, s:O, s:o, s:o, s:f}", "what", "merge", "policy", s->policy->name, "log", s->log, "points", s->points,
                            "best", config_json(merge_joint_best(s->joint)), "best_scores", numbers_json(merge_joint_best_scores(s->joint), s->o->n), "seconds",
                            merge_joint_seconds(s->joint));
    char *text = json_dumps(job, JSON_COMPACT);
    err e = train_checkpoint_write(&weights_fs_system, s->o->out, "state.brim", text, sections, n);
    free(text);
    json_decref(job);
    free(sections);
    return e;
}

static err looked(void *user, const struct merge_joint *j, bool changed)
{
    struct merge_search *s = user;
    err e = changed ? save(s) : ERR_OK; /* first: what was published is never lost by a kill */
    if (changed && !e) e = publish(s);
    struct merge_progress p = {.problem = s->problem, .best = merge_joint_best(j), .score = merge_joint_scores(j), .target = s->targets, .best_score = merge_joint_best_scores(j),
                               .trial = s->trials, .seconds = merge_joint_seconds(j), .seconds_total = s->o->seconds,
                               .saved = merge_config_saved(merge_joint_best(j), s->problem), .changed = changed};
    merge_report_point(s, &p);
    return !e && s->fn ? s->fn(s->user, &p) : e;
}

/* Room for an outcome that is read back. */
struct played {
    struct merge_config tried, best;
    double *score, *rise, *gain;
    bool *met;
};

static err read_outcome(const struct merge_search *s, const json_t *j, struct played *p, struct merge_outcome *ret)
{
    int n = s->o->n;
    err e = config_read(json_object_get(j, "tried"), &p->tried);
    if (!e) e = config_read(json_object_get(j, "best"), &p->best);
    if (!e) e = numbers_read(json_object_get(j, "score"), p->score, n);
    if (!e) e = numbers_read(json_object_get(j, "rise"), p->rise, n);
    if (!e) e = numbers_read(json_object_get(j, "gain"), p->gain, n * s->problem->n_slots);
    for (int i = 0; i < n; i++) p->met[i] = json_is_true(json_array_get(json_object_get(j, "met"), (size_t)i));
    *ret = (struct merge_outcome){.tried = &p->tried, .best = &p->best, .met = p->met, .score = p->score, .target = s->targets, .rise = p->rise, .gain = p->gain,
                                  .accepted = json_is_true(json_object_get(j, "accepted"))};
    return e;
}

/* Plays the log to the policy; `trial` is then the next one. *ret_more: there is one. */
static err play(struct merge_search *s, struct merge_trial *trial, bool *ret_more)
{
    int n = s->o->n;
    struct played p = {.score = xnewn(double, n), .rise = xnewn(double, n), .gain = xnewn(double, n * s->problem->n_slots), .met = xnewn(bool, n)};
    struct merge_outcome o;
    err e = ERR_OK;
    merge_config_init(&p.tried, s->problem);
    merge_config_init(&p.best, s->problem);
    *ret_more = s->policy->next(s->state, NULL, s->o->seconds, trial);
    for (size_t i = 0; i < json_array_size(s->log) && *ret_more && !e; i++) {
        const json_t *j = json_array_get(s->log, i);
        if (!(e = read_outcome(s, j, &p, &o))) *ret_more = merge_search_next(s, &o, json_number_value(json_object_get(j, "ended")), trial);
    }
    merge_config_done(&p.tried);
    merge_config_done(&p.best);
    free(p.score);
    free(p.rise);
    free(p.gain);
    free(p.met);
    return e;
}

bool merge_search_next(struct merge_search *s, const struct merge_outcome *last, double now, struct merge_trial *trial)
{
    memset(trial->config.on, 0, (size_t)trial->config.n_slots * (size_t)trial->config.n_members);
    trial->seconds = 0;
    trial->most_epochs = 0;
    trial->go_on = trial->gentle = trial->firm = false;
    double left = (last && merge_config_saved(last->best, s->problem) ? SEARCH : 1) * s->o->seconds - now;
    return left > 0 && s->policy->next(s->state, last, left, trial);
}

/* ---- going on */

static err take_back(struct merge_search *s, const struct train_checkpoint *c, const json_t *job)
{
    struct merge_config best, now;
    double *scores = xnewn(double, s->o->n);
    struct train_section *sections = xnewn(struct train_section, 2 * s->o->n);
    merge_config_init(&best, s->problem);
    merge_config_init(&now, s->problem);
    err e = config_read(json_object_get(job, "best"), &best);
    if (!e) e = numbers_read(json_object_get(job, "best_scores"), scores, s->o->n);
    size_t n = json_array_size(json_object_get(job, "log"));
    if (!e && n) e = config_read(json_object_get(json_array_get(json_object_get(job, "log"), n - 1), "tried"), &now);
    if (!e) e = train_checkpoint_verify(c);
    int k = merge_joint_sections(s->joint, sections);
    for (int i = 0; i < k && !e; i++) e = train_checkpoint_read(c, sections[i].name, sections[i].p, sections[i].bytes);
    if (!e) {
        merge_joint_restored(s->joint, &now, &best, scores, json_number_value(json_object_get(job, "seconds")));
        json_decref(s->log);
        s->log = json_incref(json_object_get(job, "log"));
        json_decref(s->points);
        s->points = json_incref(json_object_get(job, "points"));
    }
    merge_config_done(&best);
    merge_config_done(&now);
    free(scores);
    free(sections);
    return e;
}

/* For the policy the member missed its target in the last trial: there is something to do again. */
static void note_missed(struct merge_search *s, int member)
{
    size_t n = json_array_size(s->log);
    json_t *last = n ? json_array_get(s->log, n - 1) : NULL;
    json_array_set_new(json_object_get(last, "met"), (size_t)member, json_false());
    json_array_set_new(json_object_get(last, "score"), (size_t)member, json_real(0));
    json_array_set_new(json_object_get(last, "rise"), (size_t)member, json_real(0));
}

/* What the guard took back since (merge_guard.h) stays so. */
static void take_back_reverted(struct merge_search *s)
{
    char *path = xasprintf("%s/merge.json", s->o->out);
    json_t *report = json_load_file(path, 0, NULL), *name;
    size_t i;
    json_array_foreach(json_object_get(report, "reverted"), i, name)
        for (int k = 0; k < s->o->n; k++)
            if (json_is_string(name) && !strcmp(json_string_value(name), s->o->sources[k].name)) {
                merge_joint_revert(s->joint, k);
                note_missed(s, k);
            }
    json_decref(report);
    free(path);
}

static err resume(struct merge_search *s)
{
    char *path = xasprintf("%s/state.brim", s->o->out);
    struct train_checkpoint c;
    err e = train_checkpoint_open(path, &c);
    if (e == ERR_NOT_FOUND) { /* killed before the first trial ended: from the beginning */
        e = ERR_OK;
    } else if (!e) {
        json_t *job = json_loads(c.job, 0, NULL);
        const char *policy = json_string_value(json_object_get(job, "policy"));
        if (!job || !policy || strcmp(policy, s->policy->name)) e = err_set(ERR_USAGE, "%s: of a search with policy '%s', not '%s'", path, policy ? policy : "?", s->policy->name);
        if (!e && (!json_is_array(json_object_get(job, "log")) || !json_is_array(json_object_get(job, "points")))) e = err_set(ERR_FORMAT, "%s: no log", path);
        if (!e) e = take_back(s, &c, job);
        if (!e) take_back_reverted(s);
        s->found = !e;
        if (e) e = err_wrap(e, "%s", path);
        json_decref(job);
        train_checkpoint_close(&c);
    }
    free(path);
    return e;
}

/* ---- the loop */

/* Scores are measured again and again on the same pictures, and the first that meets the target is kept: a lucky one. The rest of the time, at most as long as the
 * search took, goes into making it so. */
static err make_firm(struct merge_search *s)
{
    struct merge_trial t = {.go_on = false, .gentle = true, .firm = true};
    struct merge_outcome o;
    double now = merge_joint_seconds(s->joint), slack = merge_joint_slack(s->joint);
    t.seconds = fmin(s->o->seconds - now, fmax(now, (1 - SEARCH) * s->o->seconds));
    if (t.seconds <= 0 || !merge_config_saved(merge_joint_best(s->joint), s->problem) || slack >= MERGE_JOINT_FIRM) return ERR_OK;
    merge_config_init(&t.config, s->problem);
    merge_config_copy(&t.config, merge_joint_best(s->joint));
    s->trials++;
    err e = merge_joint_run(s->joint, &t, &o);
    merge_config_done(&t.config);
    if ((e && e != ERR_CANCELLED) || merge_joint_slack(s->joint) <= slack) return e;
    err x = looked(s, s->joint, true);
    return e ? e : x;
}

static err run_trials(struct merge_search *s)
{
    struct merge_trial trial = {0};
    struct merge_outcome o;
    bool more;
    merge_config_init(&trial.config, s->problem);
    s->state = s->policy->start(s->problem, s->o->seconds);
    err e = play(s, &trial, &more);
    s->trials = (int)json_array_size(s->log);
    if (!e) e = s->found ? looked(s, s->joint, true) : publish(s); /* the originals: OUT is whole from the first second */
    while (!e && more && merge_joint_seconds(s->joint) < s->o->seconds) {
        double began = merge_joint_seconds(s->joint);
        trial.seconds = MIN(trial.seconds, s->o->seconds - began);
        s->trials++;
        if ((e = merge_joint_run(s->joint, &trial, &o))) break;
        log_outcome(s, &o, began);
        if ((e = save(s))) break;
        more = merge_search_next(s, &o, merge_joint_seconds(s->joint), &trial);
    }
    if (!e) e = make_firm(s);
    s->policy->end(s->state);
    merge_config_done(&trial.config);
    return e;
}

static void fill_result(const struct merge_search *s, struct merge_result *ret)
{
    *ret = (struct merge_result){.n = s->o->n, .trials = s->trials, .seconds = merge_joint_seconds(s->joint), .bytes = s->problem->bytes, .most = s->problem->most_bytes,
                                 .saved = merge_config_saved(merge_joint_best(s->joint), s->problem), .equal = s->problem->equal_bytes, .all_met = true};
    for (int i = 0; i < s->o->n; i++) ret->all_met &= merge_joint_best_scores(s->joint)[i] >= s->targets[i];
}

static err make_folders(const struct merge_search_options *o)
{
    char *models = xasprintf("%s/models", o->out), *state = xasprintf("%s/state.brim", o->out);
    struct stat st;
    err e = ERR_OK;
    if ((mkdir(o->out, 0777) && errno != EEXIST) || (mkdir(models, 0777) && errno != EEXIST))
        e = err_set(ERR_IO, "%s: cannot make the folder: %s", o->out, strerror(errno));
    if (!e && !o->resume && stat(state, &st) == 0)
        e = err_set(ERR_USAGE, "%s holds a search already: --resume goes on with it, or give another --out", o->out);
    free(models);
    free(state);
    return e;
}

err merge_search(const struct merge_search_options *o, merge_progress_fn *fn, void *user, struct merge_result *ret)
{
    struct merge_search s = {.o = o, .fn = fn, .user = user, .policy = merge_policy_find(o->policy ? o->policy : "grow"), .log = json_array(), .points = json_array(),
                             .members = xnewn(struct merge_member *, o->n + 1), .targets = xnewn(double, o->n + 1)};
    err e = s.policy ? ERR_OK : err_set(ERR_USAGE, "--policy: '%s' is none of %s", o->policy, merge_policy_names);
    *ret = (struct merge_result){0};
    s.budget = o->host ? o->host : mem_budget_new("merge", o->budget ? o->budget : UINT64_MAX);
    if (o->host) mem_budget_set_limit(o->host, o->budget ? o->budget : UINT64_MAX);
    if (!e) e = check_common(&s);
    if (!e) e = make_folders(o);
    if (!e) e = open_members(&s);
    if (!e) e = find_problem(&s);
    for (int i = 0; i < o->n && !e; i++) s.targets[i] = s.members[i]->target;
    struct merge_joint_options j = {.lr = o->lr, .share_norm = o->share_norm, .stop = o->stop, .look = looked, .user = &s};
    if (!e) e = merge_joint_new(s.members, s.problem, &j, &s.joint);
    for (int i = 0; !e && i < s.problem->n_slots; i++) s.problem->slots[i].foreign = merge_joint_foreign(s.joint, i);
    if (!e && o->resume) e = resume(&s);
    if (!e) e = run_trials(&s);
    if (s.joint && (!e || e == ERR_CANCELLED)) {
        fill_result(&s, ret);
        err written = merge_report_write(&s);
        if (!e) e = written;
    }
    ret->stopped = e == ERR_CANCELLED;
    merge_joint_free(&s.joint);
    merge_problem_free(&s.problem);
    for (int i = 0; i < o->n; i++) merge_member_free(&s.members[i]);
    if (!o->host) mem_budget_free(&s.budget);
    json_decref(s.log);
    json_decref(s.points);
    free(s.members);
    free(s.targets);
    return e;
}

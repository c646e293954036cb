/* `brim merge SITE|MODEL... --out DIR`: joint retraining until layers are shared, or the time is over.
 *
 * What a model is taught with: --data NAME=PATH (or --data PATH for all), else, for models of a site, the recording of the first camera that a query gives
 * it. How it is fed: its card. Results go to DIR, and with --store into a weight store, where equal weights lie and are held once.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"
#include "cli/merge_inside.h"
#include "engine/engine.h"
#include "methods/merge_guard.h"
#include "model/import.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_bool stop; /* the one thing a signal can reach */

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stop, true);
}

/* ---- members */

/* The value for NAME in a list of NAME=VALUE, or a VALUE without a name for all. */
static const char *chosen(const struct args_list *l, const char *name)
{
    const char *all = NULL;
    size_t n = strlen(name);
    for (size_t i = 0; i < l->n; i++) {
        const char *equal = strchr(l->items[i], '=');
        if (!equal) all = l->items[i];
        else if ((size_t)(equal - l->items[i]) == n && !strncmp(l->items[i], name, n)) return equal + 1;
    }
    return all;
}

static err check_names(const struct merge_run *r, const struct args_list *l, const char *option)
{
    for (size_t i = 0; i < l->n; i++) {
        const char *equal = strchr(l->items[i], '=');
        bool found = !equal;
        for (int k = 0; k < r->n && !found; k++) found = strlen(r->models[k].name) == (size_t)(equal - l->items[i]) && !strncmp(l->items[i], r->models[k].name, strlen(r->models[k].name));
        if (!found) return err_set(ERR_USAGE, "--%s %s: no model of this merge is called '%.*s'", option, l->items[i], (int)(equal - l->items[i]), l->items[i]);
    }
    return ERR_OK;
}

static err load_card(struct merge_run *r, struct merge_model *m, const char *given)
{
    const char *path = chosen(&r->o->cards, m->name);
    char *own = path || given ? NULL : task_card_default_path(m->onnx);
    err e = ERR_OK;
    if (path || given || !access(own, F_OK)) e = task_card_load(path ? path : given ? given : own, &m->card);
    free(own);
    return e;
}

/* `N` or `N:KEY`. */
static err read_crops(struct merge_model *m, const char *text)
{
    char *end;
    if (!text) return ERR_OK;
    long n = strtol(text, &end, 10);
    if (end == text || n < 0 || n > 1000000 || (*end && *end != ':') || (*end == ':' && !end[1]))
        return err_set(ERR_USAGE, "--crops %s=%s: a class of the MOT rows (0: all), then perhaps ':' and a word of objects.json, as in car=2:colour", m->name, text);
    m->crops = true;
    m->category = (int)n;
    if (*end) m->label = xstrdup(end + 1);
    return ERR_OK;
}

static err add_member(struct merge_run *r, const char *name, const char *onnx, const char *card, const char *data)
{
    r->models = xrealloc(r->models, (size_t)(r->n + 1) * sizeof *r->models);
    struct merge_model *m = &r->models[r->n++];
    *m = (struct merge_model){.name = xstrdup(name), .onnx = xstrdup(onnx)};
    const char *given = chosen(&r->o->data, name), *val = chosen(&r->o->val, name);
    if (given || data) m->data = xstrdup(given ? given : data);
    if (val) m->val = xstrdup(val);
    err e = read_crops(m, chosen(&r->o->crops, name));
    return e ? e : load_card(r, m, card);
}

/* A stored model as a file of the output folder. */
static err take_stored(struct merge_run *r, struct weights_store *store, const char *name, char **ret)
{
    struct weights_manifest found;
    struct graph *g = NULL;
    err e = weights_manifest_current(store, name, &found);
    if (e) return e;
    e = model_import_graph(store, &found, false, r->payer, &g);
    weights_manifest_done(&found);
    if (e) return e;
    char *path = xasprintf("%s/.stored-%s.onnx", r->o->out, name);
    e = mkdir(r->o->out, 0777) && errno != EEXIST ? err_set(ERR_IO, "%s: cannot make the folder: %s", r->o->out, strerror(errno)) : graph_save(g, path);
    graph_free(&g);
    if (e) free(path);
    else *ret = path;
    return e;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The file to begin with: of a search that goes on what it began with, for the store may hold its results by now. */
static err stored_file(struct merge_run *r, const struct site *site, const char *label, const char *stored, char **ret)
{
    char *kept = xasprintf("%s/models/%s.onnx", r->o->out, label);
    if (r->o->search.resume && !access(kept, F_OK)) return *ret = kept, ERR_OK;
    free(kept);
    char *folder = r->store ? xstrdup(r->store) : engine_store_path(site);
    struct weights_store *store = NULL;
    err e = weights_store_open(folder, NULL, &store);
    if (!e) e = take_stored(r, store, stored, ret);
    weights_store_close(&store);
    free(folder);
    return e;
}

/* `label`: what the member is called; `stored`: what a store would call it. */
static err add_model(struct merge_run *r, const struct site *site, const char *label, const char *path, const char *stored, const char *card, const char *data)
{
    char *file = NULL;
    bool is_stored = access(path, F_OK) && !str_ends(stored, ".onnx") && !weights_name_check(stored);
    if (!is_stored && site && r->o->job)
        return err_set(ERR_USAGE, "%s is a file, and the box holds equal weights once only for models of the store: 'brim models import %s --name %s', then 'onnx: %s' in the site; "
                                  "or do without --on-box", path, path, label, label);
    for (int i = 0; is_stored && i < r->n; i++)
        if (r->models[i].stored && !strcmp(r->models[i].stored, stored)) return err_set(ERR_USAGE, "models '%s' and '%s' are one model of the store, '%s': they share it already", r->models[i].name, label, stored);
    err e = is_stored && !r->o->only_check ? stored_file(r, site, label, stored, &file) : ERR_OK;
    if (!e) e = add_member(r, label, file ? file : path, card, data);
    if (!e && is_stored) r->models[r->n - 1].stored = xstrdup(stored);
    if (!e) r->models[r->n - 1].of_site = site != NULL;
    free(file);
    return e;
}

/* The recording of the first camera that a query gives the model: a file, or a folder of pictures; NULL: there is none. */
static const char *recording(const struct site *s, int model)
{
    struct stat st;
    for (size_t q = 0; q < s->query_count; q++) {
        if (s->queries[q].model != model || !s->queries[q].camera_count) continue;
        const char *url = s->cameras[s->queries[q].cameras[0]].video.url;
        if (url && !stat(url, &st) && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) return url;
    }
    return NULL;
}

static err add_site(struct merge_run *r, const char *path)
{
    struct site *site = NULL;
    err e = site_load(path, &site);
    if (e) return e;
    for (size_t i = 0; i < site->model_count && !e; i++) {
        const struct site_model *m = &site->models[i];
        e = add_model(r, site, m->name, m->onnx, last_part(m->onnx), m->card, recording(site, (int)i));
        if (e) e = err_wrap(e, "model '%s'", m->name);
    }
    site_free(&site);
    return e;
}

static err add_path(struct merge_run *r, const char *path)
{
    if (str_ends(path, ".yaml") || str_ends(path, ".yml")) return add_site(r, path);
    const char *base = last_part(path);
    char *name = xstrndup(base, strlen(base) - (str_ends(base, ".onnx") && base[5] ? 5 : 0));
    err e = add_model(r, NULL, name, path, path, NULL, NULL);
    free(name);
    return e;
}

struct merge_source merge_run_source(const struct merge_model *m)
{
    struct merge_source s = {.name = m->name, .onnx = m->onnx, .card = m->card, .data = m->data, .val = m->val, .crops = m->crops, .category = m->category, .label = m->label};
    if (!m->card) return s;
    const struct task_input *in = &m->card->inputs[0];
    memcpy(s.feed.mean, in->mean, sizeof in->mean);
    memcpy(s.feed.scale, in->scale, sizeof in->scale);
    s.feed.bgr = in->bgr;
    s.feed.fit = in->resize == TASK_STRETCH ? TRAIN_STRETCH : in->resize == TASK_CROP ? TRAIN_CROP : TRAIN_LETTERBOX;
    return s;
}

/* ---- showing */

static err show(void *user, const struct merge_progress *p)
{
    struct merge_run *r = user;
    char a[16], b[16];
    if (r->o->json) {
        printf("{\"seconds\": %.1f, \"trial\": %d, \"saved_bytes\": %llu, \"changed\": %s, \"scores\": [", p->seconds, p->trial, (unsigned long long)p->saved,
               p->changed ? "true" : "false");
        for (int i = 0; i < p->problem->n_members; i++) printf("%s%.5f", i ? ", " : "", p->score[i]);
        puts("]}");
    } else {
        if (r->terminal) fputs("\r\033[K", stdout);
        printf("%5.1f of %.1f min, trial %d: %s of %s saved;", p->seconds / 60, p->seconds_total / 60, p->trial, size_text(p->saved, a), size_text(p->problem->most_bytes, b));
        for (int i = 0; i < p->problem->n_members; i++) printf(" %.1f%s", 100 * p->score[i], p->score[i] >= p->target[i] ? "" : "*");
        printf("%s%s", p->changed ? "  kept" : "", r->terminal && !p->changed ? "" : "\n");
    }
    fflush(stdout);
    return p->changed ? merge_publish(r) : ERR_OK;
}

/* A job: its progress in the box's own words. */
static err tell(void *user, const struct merge_progress *p)
{
    struct merge_run *r = user;
    struct engine_job_progress t = {.done = fmin(p->seconds / fmax(p->seconds_total, 1e-3), 1), .eta_s = fmax(p->seconds_total - p->seconds, 0)};
    double least = INFINITY;
    err e = p->changed ? merge_publish(r) : ERR_OK;
    for (int i = 0; i < r->n; i++) least = fmin(least, p->target[i] > 0 ? p->best_score[i] / p->target[i] : 1);
#define NUMBER(what, v) (t.numbers[t.n].name = (what), t.numbers[t.n++].value = (double)(v))
    NUMBER("models", r->n);
    NUMBER("trial", p->trial);
    NUMBER("saved_bytes", p->saved);
    NUMBER("most_bytes", p->problem->most_bytes);
    NUMBER("least_of_target", least);
    NUMBER("published", r->times);
#undef NUMBER
    r->o->job->tell(r->o->job, &t);
    return e;
}

/* Of merge.json: what each model kept of its own score, and what knowing nothing would get. */
static void print_models(const struct merge_run *r)
{
    char *path = xasprintf("%s/merge.json", r->o->out);
    json_t *report = json_load_file(path, 0, NULL), *m;
    size_t i;
    printf("%-24s %-28s %7s %7s %5s %7s %7s\n", "model", "measure", "before", "after", "+-", "needs", "chance");
    json_array_foreach(json_object_get(report, "members"), i, m) {
        const json_t *known = json_object_get(m, "after_error");
        char error[16] = "?"; /* of a state that an earlier run kept */
        if (json_is_number(known)) snprintf(error, sizeof error, "%.1f", 100 * json_number_value(known));
        const char *name = json_string_value(json_object_get(m, "name")), *measure = json_string_value(json_object_get(m, "measure")), *is = json_string_value(json_object_get(m, "chance_is"));
        printf("%-24s %-28s %7.1f %7.1f %5s %7.1f %7.1f  %s\n", name ? name : "", measure ? measure : "", 100 * json_number_value(json_object_get(m, "before")),
               100 * json_number_value(json_object_get(m, "after")), error, 100 * json_number_value(json_object_get(m, "target")), 100 * json_number_value(json_object_get(m, "chance")), is ? is : "");
    }
    json_decref(report);
    free(path);
}

static void finish(const struct merge_run *r, const struct merge_result *m)
{
    char a[16], b[16], c[16], d[16];
    if (r->o->json) {
        printf("{\"done\": %s, \"seconds\": %.1f, \"trials\": %d, \"bytes\": %llu, \"saved_bytes\": %llu, \"most_bytes\": %llu, \"equal_bytes\": %llu}\n", m->stopped ? "false" : "true",
               m->seconds, m->trials, (unsigned long long)m->bytes, (unsigned long long)m->saved, (unsigned long long)m->most, (unsigned long long)m->equal);
        return;
    }
    if (r->terminal) fputs("\r\033[K", stdout);
    if (!m->n) {
        puts("stopped before anything was tried: say the same command again");
        return;
    }
    print_models(r);
    printf("%s of %s saved (%.1f %%; at most %s; %s were equal before) in %.1f min and %d trials: %s/merge.json, merge.svg and one ONNX file per model\n", size_text(m->saved, a),
           size_text(m->bytes, b), m->bytes ? 100 * (double)m->saved / (double)m->bytes : 0, size_text(m->most, c), size_text(m->equal, d), m->seconds / 60, m->trials, r->o->out);
    if (m->saved && r->o->search.size) printf("they are networks for pictures of %d x %d now: their cards need 'size: [%d, %d]'\n", r->o->search.size, r->o->search.size, r->o->search.size, r->o->search.size);
    if (!m->saved && !m->stopped) printf("no sharing kept every model at its target: the originals are left as they were\n");
    if (m->stopped) printf("stopped; the same command with --resume goes on\n");
}

static void show_guard(const struct merge_run *r, const struct merge_guard_result *g, int n)
{
    for (int i = 0; i < n; i++) {
        if (r->o->json)
            printf("{\"model\": \"%s\", \"shares\": %s, \"score\": %.5f, \"target\": %.5f, \"reverted\": %s}\n", g[i].name, g[i].shares ? "true" : "false", g[i].score, g[i].target,
                   g[i].reverted ? "true" : "false");
        else if (g[i].shares)
            printf("%-32s %5.1f %% like its original (at least %.1f)%s\n", g[i].name, 100 * g[i].score, 100 * g[i].target, g[i].reverted ? ": back to its original" : "");
        else
            printf("%-32s shares nothing\n", g[i].name);
    }
}

static err guard(struct merge_run *r, const struct merge_source *sources)
{
    const struct merge_search_options *o = &r->o->search;
    struct merge_guard_options g = {.out = r->o->out, .sources = sources, .n = r->n, .target = o->target, .threads = o->threads, .size = o->size, .most = o->most_val,
                                    .budget = o->budget};
    struct merge_guard_result *results;
    int n, reverted = 0;
    err e = merge_guard(&g, &results, &n);
    if (e) return e;
    show_guard(r, results, n);
    for (int i = 0; i < n; i++) reverted += results[i].reverted;
    merge_guard_free(&results, n);
    return reverted ? merge_publish(r) : ERR_OK;
}

static err search(struct merge_run *r)
{
    struct merge_source *sources = xnewn(struct merge_source, r->n + 1);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    struct merge_result result;
    struct engine_job_run *job = r->o->job;
    for (int i = 0; i < r->n; i++) sources[i] = merge_run_source(&r->models[i]);
    if (r->o->guard) {
        err guarded = guard(r, sources);
        free(sources);
        return guarded;
    }
    if (!job) {
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
        signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error of a write, after which OUT is whole */
    }
    struct merge_search_options o = r->o->search;
    o.sources = sources;
    o.n = r->n;
    o.out = r->o->out;
    o.stop = job ? job->stop : &stop;
    o.host = job ? job->budget : NULL;
    if (job) o.budget = MIN(o.budget ? o.budget : UINT64_MAX, MAX(job->room, (uint64_t)16 << 20) - ((uint64_t)8 << 20)); /* what does not fit is computed again, as far as that helps */
    err e = merge_search(&o, job ? tell : show, r, &result);
    if (!job && (!e || e == ERR_CANCELLED)) finish(r, &result);
    free(sources);
    return e;
}

err merge_run_open(struct merge_run *r, const struct args_list *paths)
{
    const struct merge_run_options *o = r->o;
    err e = ERR_OK;
    r->payer = mem_payer_new(r->budget, "models");
    for (size_t i = 0; i < paths->n && !e; i++) e = add_path(r, paths->items[i]);
    if (!e) e = check_names(r, &o->data, "data");
    if (!e) e = check_names(r, &o->val, "val");
    if (!e) e = check_names(r, &o->cards, "card");
    if (!e) e = check_names(r, &o->crops, "crops");
    if (!e && o->search.size && merge_publishes(r))
        e = err_set(ERR_USAGE, "--size makes networks for other pictures than the site's cards feed them with, so they cannot take the place of stored ones: merge without --size, or into --out alone");
    return e;
}

void merge_run_close(struct merge_run *r)
{
    for (int i = 0; i < r->n; i++) {
        struct merge_model *m = &r->models[i];
        if (str_starts(last_part(m->onnx), ".stored-")) unlink(m->onnx);
        task_card_free(&m->card);
        free(m->name);
        free(m->onnx);
        free(m->data);
        free(m->val);
        free(m->stored);
        free(m->label);
    }
    free(r->models);
    mem_payer_free(&r->payer);
}

err cli_merge_run(const struct merge_run_options *o, const struct args_list *paths)
{
    struct merge_run r = {.o = o, .budget = o->job ? o->job->budget : mem_budget_new("merge", UINT64_MAX), .terminal = isatty(1), .store = o->job ? o->job->store : o->store};
    err e = merge_run_open(&r, paths);
    if (!e && !o->only_check && merge_publishes(&r)) e = merge_publish_begin(&r);
    if (!e && !o->only_check) e = search(&r);
    merge_run_close(&r);
    if (!o->job) mem_budget_free(&r.budget);
    return e;
}

/* The guard's thread: which models there are to guard, when their originals come, what the comparisons say. SPDX-License-Identifier: Apache-2.0 */
#include "engine/guard_inside.h"

#include "base/log.h"
#include "base/text.h"
#include "methods/merge_guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOOK_MS = 250 };

/* What came back from an eye. */
struct sample {
    bool failed;
    char why[256];
    double wrong;
    int n_truth, n_found;
    struct task_ap_box truth[TASK_ALIKE_MOST], found[TASK_ALIKE_MOST];
};

const char *engine_guard_state_name(enum engine_guard_state s)
{
    static const char *const names[] = {"", "starting", "guarding", "equal", "reverted", "cannot"};
    return names[s];
}

void engine_guard_enable(struct engine *e)
{
    if (e->guards) return;
    struct engine_guards *gs = xnew(struct engine_guards);
    gs->engine = e;
    pthread_mutex_init(&gs->lock, NULL);
    if (thread_event_init(&gs->wake)) {
        log_error("engine", "nothing is guarded: %s", err_text());
        pthread_mutex_destroy(&gs->lock);
        free(gs);
        return;
    }
    e->guards = gs;
}

/* ---- the list */

static struct engine_guard *find_guard(const struct engine_guards *gs, const char *model)
{
    for (struct engine_guard *g = gs->list; g; g = g->next)
        if (!strcmp(g->row.model, model)) return g;
    return NULL;
}

static void forget_files(struct engine_guard *g)
{
    free(g->file);
    free(g->original);
    free(g->out);
    free(g->member);
    g->file = g->original = g->out = g->member = NULL;
}

static void free_guard(struct engine_guard **gp)
{
    struct engine_guard *g = *gp;
    merge_drift_free(&g->drift);
    mem_payer_free(&g->payer);
    forget_files(g);
    free(g);
    *gp = NULL;
}

static struct engine_guard *add_guard(struct engine_guards *gs, const char *model)
{
    struct engine_guard *g = xnew(struct engine_guard), **at = &gs->list;
    char payer[80];
    g->guards = gs;
    snprintf(g->row.model, sizeof g->row.model, "%s", model);
    snprintf(payer, sizeof payer, "guard %.64s", model);
    g->payer = mem_payer_new(gs->engine->budget, payer);
    pthread_mutex_lock(&gs->lock);
    while (*at) at = &(*at)->next;
    *at = g;
    pthread_mutex_unlock(&gs->lock);
    return g;
}

static const struct site_model *find_model(const struct site *s, const char *name)
{
    for (size_t i = 0; i < s->model_count; i++)
        if (!strcmp(s->models[i].name, name) && s->models[i].guard.when != SITE_GUARD_OFF) return &s->models[i];
    return NULL;
}

static void remove_gone(struct engine_guards *gs, const struct site *s)
{
    for (struct engine_guard **at = &gs->list; *at;) {
        struct engine_guard *g = *at;
        if (find_model(s, g->row.model)) {
            at = &g->next;
            continue;
        }
        pthread_mutex_lock(&gs->lock);
        *at = g->next;
        pthread_mutex_unlock(&gs->lock);
        engine_guard_clear(g);
        free_guard(&g);
    }
}

static void set_state(struct engine_guard *g, enum engine_guard_state state, const char *why)
{
    pthread_mutex_lock(&g->guards->lock);
    bool news = state == ENGINE_GUARD_CANNOT && g->row.state != ENGINE_GUARD_CANNOT; /* it is tried again and again */
    g->row.state = state;
    snprintf(g->row.why, sizeof g->row.why, "%s", why);
    pthread_mutex_unlock(&g->guards->lock);
    if (state != ENGINE_GUARD_REVERTED) engine_guard_clear(g);
    if (news) log_warn("engine", "model '%s' is not guarded: %s", g->row.model, why);
}

/* ---- what there is to guard */

static bool there(char *path)
{
    bool yes = !access(path, F_OK);
    free(path);
    return yes;
}

/* What `brim merge` kept of DIR/NAME.onnx, if it worked there. */
static char *kept_beside(const char *onnx)
{
    const char *slash = strrchr(onnx, '/'), *name = slash ? slash + 1 : onnx;
    char *dir = slash ? xasprintf("%.*s", (int)MAX(slash - onnx, 1), onnx) : xstrdup("."), *original = xasprintf("%s/models/%s", dir, name);
    bool found = there(xasprintf("%s/merge.json", dir)) && !access(original, F_OK);
    free(dir);
    if (found) return original;
    free(original);
    return NULL;
}

/* Of OUT/models/MEMBER.onnx: OUT and MEMBER. */
static void name_search(struct engine_guard *g)
{
    static const char FOLDER[] = "/models";
    const char *slash = strrchr(g->original, '/'), *dot = strrchr(g->original, '.');
    size_t n = slash ? (size_t)(slash - g->original) : 0, k = sizeof FOLDER - 1;
    if (n <= k || memcmp(g->original + n - k, FOLDER, k) != 0 || !dot || dot < slash) return;
    char *out = xstrndup(g->original, n - k);
    if (!there(xasprintf("%s/merge.json", out))) {
        free(out);
        return;
    }
    g->out = out;
    g->member = xstrndup(slash + 1, (size_t)(dot - slash - 1));
}

/* A model was opened: is there anything to compare it with? */
static void examine(struct engine_guard *g, const struct site_model *o, bool stored)
{
    bool equal = false;
    bool shares = true;
    forget_files(g);
    g->o = o->guard;
    g->stored = stored;
    g->file = xstrdup(o->onnx);
    g->original = o->guard.original ? xstrdup(o->guard.original) : stored ? engine_guard_search_of(g->guards, o->name) : kept_beside(o->onnx);
    if (g->original) name_search(g);
    g->attach_ns = g->examine_ns = INT64_MAX;
    if (g->drift) merge_drift_clear(g->drift);
    pthread_mutex_lock(&g->guards->lock);
    g->row.target = g->o.target;
    g->row.window = g->o.window;
    snprintf(g->row.original, sizeof g->row.original, "%s", g->original ? g->original : "");
    pthread_mutex_unlock(&g->guards->lock);
    if (!g->original && g->o.when == SITE_GUARD_AUTO) { /* not merged: nothing is said of it */
        set_state(g, 0, "");
        return;
    }
    if (!g->original) {
        set_state(g, ENGINE_GUARD_CANNOT, "there is no original of it (models/NAME.onnx and merge.json beside it, as brim merge leaves them); name it with guard: {original: FILE}");
        return;
    }
    if (engine_guard_equal(g, &equal) || (g->out && !g->o.original && merge_guard_shares(g->out, g->member, &shares))) {
        set_state(g, ENGINE_GUARD_CANNOT, err_text());
        g->examine_ns = clock_ns() + ENGINE_GUARD_RETRY * g->o.every_ms * 1000000;
        return;
    }
    const json_t *was = engine_guard_record(g);
    if (!equal && shares) {
        engine_guard_forget(g); /* merged anew */
        g->attach_ns = clock_ns() + g->o.every_ms * 1000000;
        set_state(g, ENGINE_GUARD_STARTING, "");
        return;
    }
    pthread_mutex_lock(&g->guards->lock);
    g->row.reverted_at = json_number_value(json_object_get(was, "time"));
    g->row.reverted_score = json_number_value(json_object_get(was, "score"));
    pthread_mutex_unlock(&g->guards->lock);
    set_state(g, was ? ENGINE_GUARD_REVERTED : ENGINE_GUARD_EQUAL, "");
}

/* ---- its original comes */

/* engine->lock is held. */
static struct engine_model *running(const struct engine *e, const char *name)
{
    for (size_t i = 0; i < e->n_models; i++)
        if (!strcmp(e->models[i]->name, name)) return e->models[i]->sched ? e->models[i] : NULL;
    return NULL;
}

static err new_window(struct engine_guard *g)
{
    if (g->drift) return ERR_OK;
    return merge_drift_new(g->payer, &(struct merge_drift_options){.measure = g->measure, .classes = g->classes, .window = g->o.window, .target = g->o.target}, &g->drift);
}

static err join(struct engine_guard *g, struct engine_site *hold, struct engine_eye **y)
{
    struct engine *e = g->guards->engine;
    pthread_mutex_lock(&e->lock);
    struct engine_model *m = running(e, g->row.model);
    err x = !m || m->serial != g->serial || e->site != hold ? err_set(ERR_AGAIN, "the site changed") : engine_eye_join(*y, m);
    if (!x) {
        g->measure = (*y)->measure;
        g->classes = m->card->class_count;
        *y = NULL; /* the model's now */
    }
    pthread_mutex_unlock(&e->lock);
    return x;
}

/* Its original is beside it already: only the window was missing. */
static bool joined(struct engine_guard *g)
{
    struct engine *e = g->guards->engine;
    pthread_mutex_lock(&e->lock);
    struct engine_model *m = running(e, g->row.model);
    bool yes = m && m->serial == g->serial && atomic_load(&m->eye);
    pthread_mutex_unlock(&e->lock);
    return yes;
}

static void attach(struct engine_guard *g, struct engine_site *hold, const struct site_model *o)
{
    struct engine_eye *y = NULL;
    bool there = joined(g);
    err x = there ? ERR_OK : engine_eye_new(g->guards, hold, o, g->original, &y);
    if (!x && !there) x = join(g, hold, &y);
    engine_eye_close(&y);
    merge_drift_free(&g->drift); /* of another measure or window, perhaps */
    if (!x) x = new_window(g);
    g->attach_ns = x ? clock_ns() + ENGINE_GUARD_RETRY * g->o.every_ms * 1000000 : INT64_MAX;
    if (x == ERR_AGAIN) return;
    if (x) {
        set_state(g, ENGINE_GUARD_CANNOT, err_text());
        return;
    }
    pthread_mutex_lock(&g->guards->lock);
    snprintf(g->row.measure, sizeof g->row.measure, "%s", merge_measure_name(g->measure));
    g->row.score = 1;
    g->row.error = 0;
    g->row.pictures = 0;
    pthread_mutex_unlock(&g->guards->lock);
    set_state(g, ENGINE_GUARD_ON, "");
    log_info("engine", "model '%s' is guarded: a frame every %.3g s is compared with %s", g->row.model, (double)g->o.every_ms / 1e3, g->original);
}

/* ---- comparisons */

static bool take(struct engine_guard *g, struct sample *s)
{
    struct engine *e = g->guards->engine;
    bool there = false;
    pthread_mutex_lock(&e->lock);
    struct engine_model *m = running(e, g->row.model);
    struct engine_eye *y = m && m->serial == g->serial ? atomic_load(&m->eye) : NULL;
    if (!y && m && g->row.state == ENGINE_GUARD_ON && g->attach_ns == INT64_MAX) g->attach_ns = clock_ns() + g->o.every_ms * 1000000; /* it had to leave */
    if (y) engine_eye_count(m);
    int state = y ? atomic_load(&y->state) : ENGINE_EYE_IDLE;
    if (state == ENGINE_EYE_DONE || state == ENGINE_EYE_FAILED) {
        there = true;
        s->failed = state == ENGINE_EYE_FAILED;
        s->wrong = y->wrong;
        s->n_truth = y->n_truth;
        s->n_found = y->n_found;
        memcpy(s->truth, y->truth, sizeof s->truth);
        memcpy(s->found, y->found, sizeof s->found);
        snprintf(s->why, sizeof s->why, "%s", y->why);
        atomic_store(&y->state, ENGINE_EYE_IDLE);
    }
    pthread_mutex_unlock(&e->lock);
    return there;
}

static void skipped(struct engine_guard *g, const char *why)
{
    pthread_mutex_lock(&g->guards->lock);
    g->row.skipped++;
    snprintf(g->row.why, sizeof g->row.why, "%s", why);
    pthread_mutex_unlock(&g->guards->lock);
}

static void weigh(struct engine_guard *g, const struct sample *s)
{
    struct merge_drift_verdict v;
    if (s->failed) {
        skipped(g, s->why);
        return;
    }
    bool kept = merge_drift_add(g->drift, &(struct merge_drift_picture){.wrong = s->wrong, .n_truth = s->n_truth, .n_found = s->n_found, .truth = s->truth, .found = s->found});
    if (merge_drift_look(g->drift, &v)) {
        skipped(g, err_text());
        return;
    }
    pthread_mutex_lock(&g->guards->lock);
    g->row.last_ns = clock_ns();
    g->row.compared++;
    g->row.empty += !kept;
    g->row.score = v.score;
    g->row.error = v.error;
    g->row.pictures = v.pictures;
    g->row.why[0] = 0;
    pthread_mutex_unlock(&g->guards->lock);
    if (!v.below) engine_guard_clear(g);
    else if (engine_guard_go_back(g, &v)) skipped(g, err_text()); /* tried again after the next frame */
}

static void tend(struct engine_guard *g, struct engine_site *hold, const struct site_model *o)
{
    struct engine *e = g->guards->engine;
    struct sample s;
    pthread_mutex_lock(&e->lock);
    struct engine_model *m = e->site == hold ? running(e, o->name) : NULL;
    uint64_t serial = m ? m->serial : 0;
    bool stored = m && m->stored;
    pthread_mutex_unlock(&e->lock);
    if (!serial) return;
    if (g->serial != serial || clock_ns() >= g->examine_ns) {
        g->serial = serial;
        examine(g, o, stored);
    }
    if (clock_ns() >= g->attach_ns) attach(g, hold, o);
    if (g->drift && take(g, &s)) weigh(g, &s);
    engine_guard_settle(g);
}

static void *watch(void *arg)
{
    struct engine_guards *gs = arg;
    while (!atomic_load(&gs->stop)) {
        thread_event_wait(&gs->wake, LOOK_MS);
        thread_event_reset(&gs->wake);
        struct engine_site *hold = engine_site_hold(gs->engine);
        const struct site *s = engine_site_get(hold);
        remove_gone(gs, s);
        for (size_t i = 0; i < s->model_count && !atomic_load(&gs->stop); i++) {
            const struct site_model *o = &s->models[i];
            struct engine_guard *g = find_guard(gs, o->name);
            if (o->guard.when != SITE_GUARD_OFF) tend(g ? g : add_guard(gs, o->name), hold, o);
        }
        engine_site_unref(&hold);
    }
    return NULL;
}

/* ---- beside the engine's life */

err engine_guards_open(struct engine *e)
{
    struct engine_guards *gs = e->guards;
    if (!gs || gs->started) return ERR_OK;
    gs->record_path = xasprintf("%s/guard.json", e->store);
    engine_guard_load(gs);
    err x = thread_start("brim-guard", watch, gs, &gs->thread);
    gs->started = !x;
    return x;
}

void engine_guards_close(struct engine *e)
{
    struct engine_guards *gs = e->guards;
    if (!gs || !gs->started) return;
    atomic_store(&gs->stop, true);
    thread_event_set(&gs->wake);
    pthread_join(gs->thread, NULL);
    gs->started = false;
}

void engine_guards_free(struct engine *e)
{
    struct engine_guards *gs = e->guards;
    if (!gs) return;
    engine_guards_close(e);
    while (gs->list) {
        struct engine_guard *g = gs->list;
        gs->list = g->next;
        free_guard(&g);
    }
    thread_event_done(&gs->wake);
    pthread_mutex_destroy(&gs->lock);
    json_decref(gs->record);
    free(gs->record_path);
    free(gs);
    e->guards = NULL;
}

/* ---- snapshots */

size_t engine_guards(struct engine *e, struct engine_guard_row **ret)
{
    struct engine_guards *gs = e->guards;
    size_t n = 0;
    *ret = NULL;
    if (!gs) return 0;
    int64_t now = clock_ns();
    pthread_mutex_lock(&gs->lock);
    for (const struct engine_guard *g = gs->list; g; g = g->next) n++;
    *ret = xnewn(struct engine_guard_row, n + 1);
    n = 0;
    for (const struct engine_guard *g = gs->list; g; g = g->next) {
        if (!g->row.state) continue;
        (*ret)[n] = g->row;
        (*ret)[n++].ago_s = g->row.last_ns ? (double)(now - g->row.last_ns) / 1e9 : -1;
    }
    pthread_mutex_unlock(&gs->lock);
    return n;
}

json_t *engine_guards_json(struct engine *e)
{
    struct engine_guard_row *rows;
    size_t n = engine_guards(e, &rows);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        const struct engine_guard_row *r = &rows[i];
        json_t *j = json_pack("{s:s, s:s, s:o, s:s, s:o, s:f, s:f, s:f}", "model", r->model, "state", engine_guard_state_name(r->state), "why", text_json(r->why), "measure",
                              r->measure, "original", text_json(r->original), "score", r->score, "error", r->error, "target", r->target);
        json_t *more = json_pack("{s:i, s:i, s:I, s:I, s:I, s:f, s:f, s:f}", "frames", r->pictures, "window", r->window, "compared", (json_int_t)r->compared, "empty",
                                 (json_int_t)r->empty, "skipped", (json_int_t)r->skipped, "last_ago_s", r->ago_s, "reverted_at", r->reverted_at, "reverted_score",
                                 r->reverted_score);
        json_object_update(j, more);
        json_decref(more);
        json_array_append_new(list, j);
    }
    free(rows);
    return list;
}

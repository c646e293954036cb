/* One run of a job: its thread, its memory, and what becomes of it.
 *
 * Memory: the worker's budget lies in the box's (mem_budget_within). When it grows, the box is asked first what it can do without: the
 * job never takes what cameras, plans and the least part of the weights need, also where that happens to be free just now. Then weights give
 * way (a reserve, which the executor divides anew for between two items), and the bytes are charged.
 *
 * The thread is SCHED_IDLE, and so is every thread that it makes (teams, readers). A kind must not change that.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/job_inside.h"

#include "base/log.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PATIENCE_MS = 5000, LOOK_MS = 10, MOST_STARTS = 5 };

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000}, NULL);
}

uint64_t engine_job_room(struct engine *e)
{
    uint64_t limit = mem_budget_limit(e->budget), least = engine_beside_weights(e, 0) + engine_floor(e).least_weights;
    return limit > least ? limit - least : 0;
}

static err too_much(struct engine_job *j, uint64_t total, uint64_t room)
{
    char s[3][16];
    uint64_t limit = mem_budget_limit(j->jobs->engine->budget);
    j->refused = true;
    pthread_mutex_lock(&j->jobs->lock);
    j->row.need = total;
    pthread_mutex_unlock(&j->jobs->lock);
    err x = err_set(ERR_NOMEM, "job '%s' needs %s at least, and the box can do without %s of its %s: raise its budget, or give the job less to do (a smaller --batch)", j->row.name,
                    size_text(total, s[0]), size_text(room, s[1]), size_text(limit, s[2]));
    snprintf(j->refusal, sizeof j->refusal, "%s", err_text()); /* without the names of all that it went through */
    return x;
}

/* On a thread of the job, with its budget locked. */
static err grow(void *user, struct mem_payer *outer, uint64_t bytes)
{
    struct engine_job *j = user;
    struct engine *e = j->jobs->engine;
    uint64_t total = mem_payer_used(outer, MEM_TRAINING) + bytes, room = engine_job_room(e);
    if (total > room) return too_much(j, total, room);
    err x = mem_charge(outer, MEM_TRAINING, bytes);
    if (x != ERR_NOMEM) return x;
    sched_set_reserve(e->sched, bytes);
    for (int waited = 0; x == ERR_NOMEM && waited < PATIENCE_MS && !atomic_load(&j->stop); waited += LOOK_MS) {
        nap();
        x = mem_charge(outer, MEM_TRAINING, bytes);
    }
    sched_set_reserve(e->sched, 0);
    return x && atomic_load(&j->stop) ? err_set(ERR_CANCELLED, "stopped while it waited for memory") : x;
}

static void tell(struct engine_job_run *r, const struct engine_job_progress *p)
{
    struct engine_job *j = (struct engine_job *)((char *)r - offsetof(struct engine_job, run));
    pthread_mutex_lock(&j->jobs->lock);
    bool news = j->starts > 0 && p->done > j->row.done;
    j->worked = true;
    j->row.done = p->done;
    j->row.eta_s = p->eta_s;
    j->row.n = MIN(p->n, ENGINE_JOB_NUMBERS);
    for (int i = 0; i < j->row.n; i++) {
        snprintf(j->row.numbers[i].name, sizeof j->row.numbers[i].name, "%s", p->numbers[i].name);
        j->row.numbers[i].value = p->numbers[i].value;
    }
    if (news && !j->remove && (clock_ns() - j->begun_ns) / 1000000000 >= 60) { /* it does not kill the box at once */
        j->starts = 0;
        (void)engine_job_store(j);
    }
    pthread_mutex_unlock(&j->jobs->lock);
}

/* The manager carries it out: this thread may get no processor for a long time, and must not hold the engine's lock then. */
static err ask_to_publish(struct engine_job_run *r, const char *const *models, const char *const *onnx, int n)
{
    struct engine_job *j = (struct engine_job *)((char *)r - offsetof(struct engine_job, run));
    pthread_mutex_lock(&j->jobs->lock);
    j->wish = (struct engine_job_wish){.state = ENGINE_WISH_WAITS, .models = models, .onnx = onnx, .n = n};
    for (bool withdrawn = false; j->wish.state != ENGINE_WISH_DONE && !withdrawn;) {
        pthread_mutex_unlock(&j->jobs->lock);
        thread_event_set(&j->jobs->wake);
        nap();
        pthread_mutex_lock(&j->jobs->lock);
        withdrawn = j->wish.state == ENGINE_WISH_WAITS && atomic_load(&j->stop);
    }
    bool done = j->wish.state == ENGINE_WISH_DONE;
    j->wish.state = ENGINE_WISH_NONE;
    pthread_mutex_unlock(&j->jobs->lock);
    if (!done) return err_set(ERR_CANCELLED, "stopped before its models were published");
    return j->wish.result ? err_set(j->wish.result, "%s", j->wish.sentence) : ERR_OK;
}

static void grant(struct engine_job *j)
{
    pthread_mutex_lock(&j->jobs->lock);
    struct engine_job_wish w = j->wish;
    if (w.state == ENGINE_WISH_WAITS) j->wish.state = ENGINE_WISH_TAKEN;
    pthread_mutex_unlock(&j->jobs->lock);
    if (w.state != ENGINE_WISH_WAITS) return;
    w.result = engine_publish_all(j->jobs->engine, w.models, w.onnx, w.n);
    snprintf(w.sentence, sizeof w.sentence, "%s", w.result ? err_text() : "");
    w.state = ENGINE_WISH_DONE;
    pthread_mutex_lock(&j->jobs->lock);
    j->wish = w;
    pthread_mutex_unlock(&j->jobs->lock);
}

static void *worker(void *arg)
{
    struct engine_job *j = arg;
    struct sched_param none = {0};
    if (!j->kind->normal) pthread_setschedparam(pthread_self(), SCHED_IDLE, &none); /* where it is refused, the job runs as others do */
    j->result = j->kind->run(&j->run);
    snprintf(j->sentence, sizeof j->sentence, "%s", j->result ? j->refused && j->result == ERR_NOMEM ? j->refusal : err_text() : "");
    atomic_store(&j->ended, true);
    thread_event_set(&j->jobs->wake);
    return NULL;
}

void engine_job_begin(struct engine_job *j)
{
    struct engine_jobs *js = j->jobs;
    char *name = xasprintf("job %s", j->row.name);
    uint64_t room = engine_job_room(js->engine);
    pthread_mutex_lock(&js->lock);
    if (j->row.state != ENGINE_JOB_WAITING || j->remove || js->given_way) { /* somebody was faster */
        pthread_mutex_unlock(&js->lock);
        free(name);
        return;
    }
    j->payer = mem_payer_new(js->engine->budget, name);
    free(name);
    j->budget = mem_budget_within(j->payer, "job", grow, j);
    j->refused = false;
    j->begun_ns = clock_ns();
    atomic_store(&j->stop, false);
    atomic_store(&j->ended, false);
    j->run = (struct engine_job_run){.name = j->row.name, .folder = j->folder, .words = (const char *const *)j->words, .n_words = j->n_words, .again = j->began, .room = room,
                                     .budget = j->budget, .stop = &j->stop, .tell = tell, .publish = ask_to_publish, .store = js->engine->store};
    j->reason = ENGINE_JOB_GOES_ON;
    j->row.state = ENGINE_JOB_RUNNING;
    j->row.why[0] = 0;
    j->row.n = 0;
    j->began = true;
    j->starts++;
    err x = engine_job_store(j);
    js->running = j;
    pthread_mutex_unlock(&js->lock);
    if (!x) x = thread_start("brim-job", worker, j, &j->thread);
    if (!x) {
        log_info("engine", "job '%s' %s", j->row.name, j->run.again ? "goes on" : "begins");
        return;
    }
    j->result = x;
    snprintf(j->sentence, sizeof j->sentence, "%s", err_text());
    atomic_store(&j->ended, true);
    j->thread = 0;
    engine_job_end(j);
}

/* Lock held: what the worker's answer makes of the job. */
static void settle(struct engine_job *j)
{
    struct engine_job_row *r = &j->row;
    const char *why = j->sentence;
    if (!j->result) {
        r->state = ENGINE_JOB_DONE;
        r->done = 1;
        r->eta_s = 0;
    } else if (j->result == ERR_CANCELLED && j->reason == ENGINE_JOB_USER) {
        r->state = ENGINE_JOB_STOPPED;
    } else if (j->result == ERR_CANCELLED && j->reason != ENGINE_JOB_GOES_ON) {
        r->state = ENGINE_JOB_WAITING;
        why = r->why; /* said when it was told to pause */
        r->pauses += j->reason == ENGINE_JOB_BUDGET;
    } else if (j->result == ERR_NOMEM && j->refused && j->worked) {
        r->state = ENGINE_JOB_WAITING; /* it ran before: the box has less to give than then, and may have more again */
    } else {
        r->state = ENGINE_JOB_FAILED;
    }
    if (why != r->why) snprintf(r->why, sizeof r->why, "%s", why);
    if (r->state != ENGINE_JOB_WAITING || j->result == ERR_CANCELLED) j->starts = 0;
}

static void say(const struct engine_job_row *r, struct engine *e)
{
    char *what = xasprintf("job %s", r->name);
    engine_set_problem(e, what, r->state == ENGINE_JOB_FAILED ? r->why : "");
    free(what);
    if (r->state != ENGINE_JOB_FAILED) log_info("engine", "job '%s': %s%s%s", r->name, engine_job_state_name(r->state), *r->why ? ": " : "", r->why);
}

static void publish(struct engine_job *j)
{
    if (j->result || !j->row.publish[0]) return;
    err x = j->run.result ? engine_publish(j->jobs->engine, j->row.publish, j->run.result) : err_set(ERR_UNSUPPORTED, "this kind of job makes no network");
    if (!x) return;
    j->result = x;
    snprintf(j->sentence, sizeof j->sentence, "the work is done, but model '%.64s' could not be replaced: %.380s", j->row.publish, err_text());
}

void engine_job_end(struct engine_job *j)
{
    struct engine_jobs *js = j->jobs;
    if (j->thread) pthread_join(j->thread, NULL);
    j->thread = 0;
    uint64_t held = mem_payer_used(j->payer, MEM_TRAINING), peak = mem_budget_peak(j->budget);
    pthread_mutex_lock(&js->lock);
    j->row.need = MAX(j->row.need, MAX(held, peak));
    js->running = NULL;
    struct mem_payer *payer = j->payer;
    j->payer = NULL;
    pthread_mutex_unlock(&js->lock);
    mem_budget_free(&j->budget);
    mem_payer_free(&payer);
    sched_given_back(js->engine->sched, MAX(held, peak));
    publish(j);
    pthread_mutex_lock(&js->lock);
    free(j->run.result);
    j->run.result = NULL;
    settle(j);
    j->row.seconds = (double)(clock_ns() - j->begun_ns) / 1e9;
    if (!j->remove && engine_job_store(j)) log_error("engine", "job '%s': %s", j->row.name, err_text()); /* else its file may be another's already */
    if (!j->remove) say(&j->row, js->engine);
    pthread_mutex_unlock(&js->lock);
}

/* ---- the manager */

/* Lock held. */
static void pause_for_cameras(struct engine_job *j, const char *why)
{
    if (j->reason != ENGINE_JOB_GOES_ON) return;
    j->reason = ENGINE_JOB_BUDGET;
    snprintf(j->row.why, sizeof j->row.why, "%s", why);
    atomic_store(&j->stop, true);
}

/* Cameras go first: is there a model that finds no room while the job holds memory? */
static bool pressed(struct engine *e, char *why, size_t size)
{
    struct engine_model_row *rows;
    size_t n = engine_models(e, &rows);
    bool found = false;
    for (size_t i = 0; i < n && !found; i++)
        if ((found = rows[i].stats.impossible)) snprintf(why, size, "model '%s' did not fit beside it; it goes on when there is room", rows[i].name);
    free(rows);
    return found;
}

static void look_after(struct engine_jobs *js, struct engine_job *j)
{
    char why[256];
    pthread_mutex_lock(&js->lock);
    if (!engine_job_may_run(j, why, sizeof why) && j->reason == ENGINE_JOB_GOES_ON) {
        j->reason = ENGINE_JOB_HOURS;
        snprintf(j->row.why, sizeof j->row.why, "%s", why);
        atomic_store(&j->stop, true);
    }
    pthread_mutex_unlock(&js->lock);
    if (!pressed(js->engine, why, sizeof why)) return;
    pthread_mutex_lock(&js->lock);
    pause_for_cameras(j, why);
    j->not_before_ns = clock_ns() + (30000000000LL << MIN(j->row.pauses, 5)); /* it may be so again */
    pthread_mutex_unlock(&js->lock);
}

/* The first that may begin; NULL: none. */
static struct engine_job *next_job(struct engine_jobs *js)
{
    uint64_t room = engine_job_room(js->engine);
    struct engine_job *found = NULL;
    char s[2][16];
    pthread_mutex_lock(&js->lock);
    for (struct engine_job *j = js->list; j && !found && !js->given_way; j = j->next) {
        if (j->row.state != ENGINE_JOB_WAITING || j->remove || clock_ns() < j->not_before_ns || !engine_job_may_run(j, j->row.why, sizeof j->row.why)) continue;
        if (j->row.need <= room) found = j;
        else snprintf(j->row.why, sizeof j->row.why, "it needs %s, and the box can do without %s; it goes on when there is room", size_text(j->row.need, s[0]), size_text(room, s[1]));
    }
    if (found && found->starts >= MOST_STARTS) {
        found->row.state = ENGINE_JOB_FAILED;
        found->starts = 0;
        snprintf(found->row.why, sizeof found->row.why, "the box ended %d times while it ran; 'brim job start %s' tries again", MOST_STARTS, found->row.name);
        (void)engine_job_store(found);
        say(&found->row, js->engine);
        found = NULL;
    }
    pthread_mutex_unlock(&js->lock);
    return found;
}

static void remove_marked(struct engine_jobs *js)
{
    struct engine_job *gone = NULL;
    pthread_mutex_lock(&js->lock);
    for (struct engine_job **at = &js->list; *at;) {
        struct engine_job *j = *at;
        if (!j->remove || j == js->running) {
            at = &j->next;
            continue;
        }
        *at = j->next;
        j->next = gone;
        gone = j;
    }
    pthread_mutex_unlock(&js->lock);
    while (gone) {
        struct engine_job *j = gone;
        gone = j->next;
        engine_job_free(&j);
    }
}

static void *manage(void *arg)
{
    struct engine_jobs *js = arg;
    while (!atomic_load(&js->closing)) {
        struct engine_job *j = js->running; /* written by this thread alone */
        if (j && atomic_load(&j->ended)) engine_job_end(j);
        else if (j) look_after(js, j), grant(j);
        remove_marked(js);
        if (!js->running && (j = next_job(js))) engine_job_begin(j);
        if (!js->running || !atomic_load(&js->running->ended)) thread_event_wait(&js->wake, 1000);
        thread_event_reset(&js->wake);
    }
    if (!js->running) return NULL;
    pthread_mutex_lock(&js->lock);
    struct engine_job *last = js->running;
    if (!last->reason) last->reason = ENGINE_JOB_CLOSING;
    atomic_store(&last->stop, true);
    pthread_mutex_unlock(&js->lock);
    engine_job_end(last);
    return NULL;
}

/* ---- beside the engine's life */

static bool too_large(struct engine_jobs *js, uint64_t room)
{
    pthread_mutex_lock(&js->lock);
    bool over = js->running && mem_payer_used(js->running->payer, MEM_TRAINING) > room;
    pthread_mutex_unlock(&js->lock);
    return over;
}

void engine_jobs_give_way(struct engine *e, uint64_t budget)
{
    struct engine_jobs *js = e->jobs;
    if (!js || !js->started || budget == UINT64_MAX) return;
    char s[16], why[256];
    uint64_t least = engine_beside_weights(e, 0) + engine_floor(e).least_weights, room = budget > least ? budget - least : 0;
    pthread_mutex_lock(&js->lock);
    js->given_way = true;
    pthread_mutex_unlock(&js->lock);
    if (!too_large(js, room)) return;
    snprintf(why, sizeof why, "the budget is %s now, cameras and models go first; it goes on when there is room", size_text(budget, s));
    if (!budget) snprintf(why, sizeof why, "the site changes; it goes on when there is room");
    pthread_mutex_lock(&js->lock);
    if (js->running) pause_for_cameras(js->running, why);
    pthread_mutex_unlock(&js->lock);
    for (int waited = 0; too_large(js, room) && waited < 4000; waited += LOOK_MS) nap();
}

void engine_jobs_go_on(struct engine *e)
{
    struct engine_jobs *js = e->jobs;
    if (!js || !js->started) return;
    pthread_mutex_lock(&js->lock);
    js->given_way = false;
    pthread_mutex_unlock(&js->lock);
    thread_event_set(&js->wake);
}

err engine_jobs_open(struct engine *e)
{
    struct engine_jobs *js = e->jobs;
    if (!js || js->started) return ERR_OK;
    js->dir = xasprintf("%s/jobs", e->store);
    err x = engine_make_folders(js->dir);
    if (x) return x;
    engine_jobs_load(js);
    js->started = true;
    engine_jobs_follow_site(e); /* before anything runs: a job's hours are in the site file alone */
    x = thread_start("brim-jobs", manage, js, &js->manager);
    js->started = !x;
    return x;
}

void engine_jobs_close(struct engine *e)
{
    struct engine_jobs *js = e->jobs;
    if (!js || !js->started) return;
    atomic_store(&js->closing, true);
    thread_event_set(&js->wake);
    pthread_join(js->manager, NULL);
    js->started = false;
}

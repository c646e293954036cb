/* A serving workload on the scheduler: live, or rehearsed. Both take the same models, budget, streams and frames, and count the same.
 *
 * Live: this thread hands the frames over at their times, the scheduler's thread runs the models, a reader thread reads from the disk, no faster than the
 * pace. Rehearsed (sched/rehearse.h): a run takes one of the times that were measured, drawn from a fixed seed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench_serving.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct stream {
    struct show *show;
    struct serving_query *q;
    struct sched_model *model;
    struct sched_stream *st;
    struct serving_counts counts;
    uint64_t runs;
    int64_t first_ns;
};

struct show {
    struct serving *w;
    struct sched_rehearsal *rehearsal; /* NULL: live */
    struct sched *sched;
    int64_t from_ns, to_ns;  /* frames that came in between count */
    pthread_mutex_t lock;    /* guards the counts */
    struct stream streams[SERVING_MOST];
    uint64_t loads, peak;
};

static int64_t now_of(const struct show *s)
{
    return s->rehearsal ? sched_rehearsal_now(s->rehearsal) : clock_ns();
}

err serving_compute(struct serving_query *q, int64_t *step_ns)
{
    for (int i = 0; i < model_input_count(q->model); i++) {
        struct tensor t = model_plan_input(q->plan, i);
        float *x = t.data;
        for (int64_t k = 0; k < tensor_count(&t.shape); k++) x[k] = (float)((k * 7919) & 1023) / 1024.0f;
    }
    return model_plan_run(q->plan, step_ns);
}

/* A measured time, and each step's share of it. Reading costs the processor and the memory something too. */
static err pretend(struct stream *s)
{
    const struct serving_query *q = s->q;
    bool reading = weights_reader_next(s->show->w->reader) != INT64_MAX;
    uint64_t key[2] = {(uint64_t)(s - s->show->streams), s->runs};
    double time = q->run_ns[hash64(key, sizeof key, 2 * s->show->w->seed) % SERVING_ROUNDS] * (reading ? q->slower : 1), sum = 0;
    int steps = model_plan_sizes(q->plan).steps;
    int64_t *ns = xnewn(int64_t, steps + 1);
    for (int i = 0; i < steps; i++) sum += (double)q->step_ns[i];
    for (int i = 0; i < steps; i++) ns[i] = (int64_t)((double)q->step_ns[i] / sum * time);
    err e = model_plan_rehearse(q->plan, ns, sched_rehearsal_clock(s->show->rehearsal));
    free(ns);
    return e;
}

static bool counts(const struct show *s, const struct sched_item *item)
{
    return item->arrived_ns >= s->from_ns && item->arrived_ns < s->to_ns;
}

static err run(void *user, struct sched_item *item)
{
    struct stream *s = user;
    err e = s->show->rehearsal ? pretend(s) : serving_compute(s->q, NULL);
    double latency = (double)(now_of(s->show) - item->arrived_ns);
    s->runs++;
    pthread_mutex_lock(&s->show->lock);
    if (counts(s->show, item)) {
        s->counts.offered++;
        if (e) s->counts.dropped[SCHED_DROP_ERROR]++;
        else if (latency <= s->show->w->deadline_ns) s->counts.in_time++;
        else s->counts.late++;
    }
    s->show->peak = MAX(s->show->peak, mem_budget_used(s->show->w->budget));
    pthread_mutex_unlock(&s->show->lock);
    return e;
}

static void drop(void *user, struct sched_item *item, enum sched_drop why)
{
    struct stream *s = user;
    pthread_mutex_lock(&s->show->lock);
    if (counts(s->show, item)) {
        s->counts.offered++;
        s->counts.dropped[why]++;
    }
    pthread_mutex_unlock(&s->show->lock);
}

static void sleep_until(int64_t ns)
{
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) continue;
}

static int64_t length_ns(const struct serving *w)
{
    return (int64_t)((w->warm + w->seconds) * 1e9);
}

/* Cameras do not know of each other, and their frames come up to 0.3 periods early or late: else all would go on for ever in the order in which they
 * happened to begin. */
static void set_frames(struct serving *w)
{
    for (int i = 0; i < w->n; i++) {
        struct serving_query *q = &w->q[i];
        double phase = (i + 1) * 0.6180339887498949;
        size_t most = (size_t)((double)length_ns(w) / q->period_ns) + 2;
        free(q->at_ns);
        q->at_ns = xnewn(int64_t, most);
        for (q->frames = 0; q->frames < most; q->frames++) {
            uint64_t key[2] = {(uint64_t)i, q->frames};
            double jitter = (double)(hash64(key, sizeof key, 2 * w->seed + 1) >> 11) / 9007199254740992.0;
            int64_t at = (int64_t)((phase - floor(phase) + (double)q->frames + 0.6 * jitter) * q->period_ns);
            if (at >= length_ns(w)) break;
            q->at_ns[q->frames] = at;
        }
    }
}

static void live_frames(struct show *s, int64_t begin)
{
    size_t done[SERVING_MOST] = {0};
    for (;;) {
        int best = -1;
        int64_t at = INT64_MAX;
        for (int i = 0; i < s->w->n; i++) {
            const struct serving_query *q = &s->w->q[i];
            if (done[i] < q->frames && begin + q->at_ns[done[i]] < at) at = begin + q->at_ns[done[i]], best = i;
        }
        if (best < 0) break;
        sleep_until(at);
        sched_offer(s->sched, s->streams[best].st, &(struct sched_item){.arrived_ns = at, .seq = ++done[best]});
    }
    sleep_until(begin + length_ns(s->w) + (int64_t)s->w->deadline_ns); /* what came last has its time as well */
}

static uint64_t limit_of(const struct serving *w, double setting)
{
    if (setting < 0) return UINT64_MAX;
    return w->base + w->least + (uint64_t)(setting * (double)(w->all - w->least));
}

static void add_streams(struct show *s, const struct serving_run *r)
{
    static const struct sched_stream_ops ops = {run, drop};
    struct serving *w = s->w;
    for (int i = 0; i < w->n; i++) {
        struct stream *x = &s->streams[i];
        *x = (struct stream){.show = s, .q = &w->q[i]};
        x->model = sched_model_add(s->sched, x->q->model, false, 0);
        sched_model_set_run_ns(s->sched, x->model, (int64_t)x->q->run_ns[SERVING_ROUNDS / 2]);
        model_plan_set_step_ns(x->q->plan, x->q->step_ns);
        if (r->blocks) sched_model_set_plans(s->sched, x->model, x->q->plan, NULL);
        x->st = sched_stream_add(s->sched, &(struct sched_stream_options){.name = x->q->name, .model = x->model, .period_ns = (int64_t)x->q->period_ns,
                                                                          .deadline_ns = (int64_t)w->deadline_ns, .capacity = 1, .ops = &ops, .user = x});
        if (s->rehearsal) sched_rehearsal_feed(s->rehearsal, x->st, x->q->at_ns, x->q->frames);
    }
    if (r->blocks) sched_set_blocks(s->sched, w->window, w->reader, 0);
}

static err perform(struct show *s)
{
    int64_t begin = now_of(s);
    s->from_ns = begin + (int64_t)(s->w->warm * 1e9);
    s->to_ns = begin + length_ns(s->w);
    if (s->rehearsal) {
        sched_rehearse(s->rehearsal, s->sched, length_ns(s->w) + (int64_t)s->w->deadline_ns);
        return ERR_OK;
    }
    err e = sched_start(s->sched);
    if (!e) live_frames(s, begin);
    sched_stop(s->sched);
    return e;
}

static uint64_t loads(const struct serving *w)
{
    uint64_t sum = 0, n, bytes;
    int64_t ns;
    for (int i = 0; i < w->n; i++) {
        weights_counts(model_weights(w->q[i].model), &n, &bytes, &ns);
        sum += n;
    }
    return sum;
}

/* Everything as it was before. */
static err clear(struct show *s)
{
    struct serving *w = s->w;
    err e = ERR_OK;
    for (int i = 0; i < w->n; i++) {
        sched_stream_remove(s->sched, &s->streams[i].st);
        sched_model_remove(s->sched, &s->streams[i].model);
    }
    sched_free(&s->sched);
    for (int i = 0; i < w->n && !e; i++) {
        model_set_ring(w->q[i].model, NULL);
        e = model_evict(w->q[i].model);
        if (!e) e = weights_set_keep(model_weights(w->q[i].model), NULL);
    }
    sched_rehearsal_free(&s->rehearsal);
    mem_budget_set_limit(w->budget, UINT64_MAX);
    return e;
}

err serving_run(struct serving *w, const struct serving_run *r, bool rehearsed, struct serving_outcome *ret)
{
    struct show *s = xnew(struct show);
    struct serving_outcome x = {.limit = limit_of(w, r->setting)};
    int64_t run_ns, load_ns;
    *s = (struct show){.w = w};
    set_frames(w);
    pthread_mutex_init(&s->lock, NULL);
    if (rehearsed) s->rehearsal = sched_rehearsal_new(w->reader, w->pace);
    if (rehearsed) sched_rehearsal_clock(s->rehearsal)->evict_ns = w->evict_ns;
    else weights_reader_set_pace(w->reader, w->pace);
    err e = sched_new(w->budget, s->rehearsal ? sched_rehearsal_now : NULL, s->rehearsal, &s->sched);
    if (!e) {
        uint64_t bytes = weights_reader_stats(w->reader).bytes, n = loads(w);
        sched_set_sharing(s->sched, !r->blind);
        mem_budget_set_limit(w->budget, x.limit);
        add_streams(s, r);
        e = perform(s);
        x.bytes = weights_reader_stats(w->reader).bytes - bytes;
        x.loads = loads(w) - n;
        x.peak = s->peak - MIN(s->peak, w->base);
        sched_times(s->sched, &run_ns, &load_ns);
        x.blocks = sched_blocks_get_stats(s->sched);
        x.run_s = (double)run_ns / 1e9;
        x.load_s = (double)load_ns / 1e9;
        for (int i = 0; i < w->n; i++) x.streams[i] = s->streams[i].counts;
        err c = clear(s);
        if (!e) e = c;
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
    if (!e) *ret = x;
    return e;
}

/* Track scores: CLEAR MOT (Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance",
 * EURASIP JIVP 2008, section 2.1.3) and identity scores (Ristani et al., "Performance Measures and a Data Set
 * for Multi-Target, Multi-Camera Tracking", 2016, section 3).
 *
 * CLEAR MOT walks the frames: a pair that was matched last time (even if not seen since) is kept while it
 * overlaps enough; the rest is assigned exactly by 1 - IoU. A switch is counted when a truth is matched to
 * another identity than the last time it was matched; a fragmentation when it is matched again after frames
 * in which it was there but missed.
 *
 * IDF1 needs one assignment of identities for the whole file that maximises the frames on which both agree
 * (IDTP); the usual square formulation with dummy rows for IDFN and IDFP has the same optimum, because a pair
 * without agreement costs as much as two dummies. The count of agreeing frames is a truth ids x found ids
 * matrix, paid for like everything else. SPDX-License-Identifier: Apache-2.0 */
#include "task/metric.h"

#include "task/assign.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PER_FRAME = 1000, MAX_IDS = 20000 };

/* One side: its countable rows, with identities numbered from 0. */
struct side {
    const struct task_mot *mot;
    const char *what;
    int64_t *ids; /* sorted, distinct */
    size_t id_count, id_bytes;
    int widest; /* most rows in one frame */
};

struct truth_state {
    int last_match; /* found identity it was last matched to, -1 never */
    bool tracked;   /* matched in the last frame in which it was there */
    bool ever;
    int64_t frames, matched;
};

struct work {
    struct mem_payer *payer;
    struct side truth, found;
    struct truth_state *states;
    float *agree;      /* truth ids x found ids: frames in which they overlap */
    float *cost, *iou; /* rows of this frame */
    int *t_rows, *f_rows, *t_ids, *f_ids, *match, *pick;
    bool *taken;
    void *scratch;
    char *block;
    size_t bytes;
};

static bool counts(const struct task_mot_row *r)
{
    return !r->lost && r->id >= 0;
}

static int by_value(const void *a, const void *b)
{
    int64_t p = *(const int64_t *)a, q = *(const int64_t *)b;
    return (p > q) - (p < q);
}

static int id_number(const struct side *s, int64_t id)
{
    const int64_t *p = bsearch(&id, s->ids, s->id_count, sizeof id, by_value);
    return (int)(p - s->ids);
}

static err side_init(struct mem_payer *payer, const struct task_mot *mot, const char *what, struct side *s)
{
    *s = (struct side){.mot = mot, .what = what, .id_bytes = mot->count * sizeof(int64_t)};
    int in_frame = 0;
    err e = mem_alloc(payer, MEM_OTHER, s->id_bytes, (void **)&s->ids);
    if (e) return e;
    size_t n = 0;
    for (size_t i = 0; i < mot->count; i++) {
        if (i && mot->rows[i].frame != mot->rows[i - 1].frame) in_frame = 0;
        if (!counts(&mot->rows[i])) continue;
        s->ids[n++] = mot->rows[i].id;
        s->widest = MAX(s->widest, ++in_frame);
    }
    qsort(s->ids, n, sizeof *s->ids, by_value);
    for (size_t i = 0; i < n; i++)
        if (!i || s->ids[i] != s->ids[i - 1]) s->ids[s->id_count++] = s->ids[i];
    if (s->widest > MAX_PER_FRAME)
        return err_set(ERR_LIMIT, "%s: %d boxes in one frame, at most %d can be scored", what, s->widest,
                       MAX_PER_FRAME);
    if (s->id_count > MAX_IDS)
        return err_set(ERR_LIMIT, "%s: %zu identities, at most %d can be scored", what, s->id_count, MAX_IDS);
    return ERR_OK;
}

static void work_done(struct work *w)
{
    mem_free(w->payer, MEM_OTHER, w->block, w->bytes);
    mem_free(w->payer, MEM_OTHER, w->truth.ids, w->truth.id_bytes);
    mem_free(w->payer, MEM_OTHER, w->found.ids, w->found.id_bytes);
}

static size_t lay_out(struct work *w)
{
    size_t t = w->truth.id_count, f = w->found.id_count, a = (size_t)w->truth.widest,
           b = (size_t)w->found.widest;
    size_t at = 0;
#define PLACE(field, size)                                                                                   \
    do {                                                                                                     \
        at = (at + 15) / 16 * 16;                                                                            \
        if (w->block) w->field = (void *)(w->block + at);                                                    \
        at += (size);                                                                                        \
    } while (0)
    PLACE(states, t * sizeof(struct truth_state));
    PLACE(agree, t * f * sizeof(float));
    PLACE(cost, a * b * sizeof(float));
    PLACE(iou, a * b * sizeof(float));
    PLACE(t_rows, a * sizeof(int));
    PLACE(t_ids, a * sizeof(int));
    PLACE(f_rows, b * sizeof(int));
    PLACE(f_ids, b * sizeof(int));
    PLACE(match, a * sizeof(int));
    PLACE(pick, MAX(t, a) * sizeof(int));
    PLACE(taken, b * sizeof(bool));
    PLACE(scratch, MAX(task_assign_bytes((int)t, (int)f), task_assign_bytes((int)a, (int)b)));
#undef PLACE
    return at;
}

/* The countable rows of `frame`, from *at on. */
static int gather(const struct side *s, size_t *at, int frame, int rows[], int ids[])
{
    int n = 0;
    for (; *at < s->mot->count && s->mot->rows[*at].frame == frame; (*at)++) {
        if (!counts(&s->mot->rows[*at])) continue;
        rows[n] = (int)*at;
        ids[n++] = id_number(s, s->mot->rows[*at].id);
    }
    return n;
}

/* One identity at two places at once would make every score meaningless. */
static err check_twins(const struct side *s, const int ids[], int n, int frame)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if (ids[i] == ids[j])
                return err_set(ERR_FORMAT, "%s: identity %lld is there twice in frame %d", s->what,
                               (long long)s->ids[ids[i]], frame);
    return ERR_OK;
}

/* Fills match[]: old pairs first, the rest exactly. */
static void match_frame(struct work *w, int a, int b, float least)
{
    memset(w->taken, 0, (size_t)b * sizeof *w->taken);
    for (int i = 0; i < a; i++) {
        w->match[i] = -1;
        for (int j = 0; j < b; j++) {
            bool old = w->states[w->t_ids[i]].last_match == w->f_ids[j];
            if (!old || w->taken[j] || w->iou[i * b + j] < least) continue;
            w->match[i] = j;
            w->taken[j] = true;
            break;
        }
    }
    for (int i = 0; i < a; i++) {
        for (int j = 0; j < b; j++) {
            bool may = w->match[i] < 0 && !w->taken[j] && w->iou[i * b + j] >= least;
            w->cost[i * b + j] = may ? 1 - w->iou[i * b + j] : TASK_NO_PAIR;
        }
    }
    task_assign(w->cost, a, b, w->scratch, w->pick);
    for (int i = 0; i < a; i++)
        if (w->match[i] < 0) w->match[i] = w->pick[i];
}

static void score_frame(struct work *w, int a, int b, float least, double *iou_sum, struct task_mota *r)
{
    for (int i = 0; i < a; i++) {
        for (int j = 0; j < b; j++) {
            const struct task_box *t = &w->truth.mot->rows[w->t_rows[i]].box,
                                  *f = &w->found.mot->rows[w->f_rows[j]].box;
            w->iou[i * b + j] = task_box_iou(t, f);
            if (w->iou[i * b + j] >= least)
                w->agree[(size_t)w->t_ids[i] * w->found.id_count + (size_t)w->f_ids[j]]++;
        }
    }
    match_frame(w, a, b, least);
    int matches = 0;
    for (int i = 0; i < a; i++) {
        struct truth_state *s = &w->states[w->t_ids[i]];
        int j = w->match[i];
        s->frames++;
        if (j < 0) {
            s->tracked = false;
            continue;
        }
        if (s->ever && s->last_match != w->f_ids[j]) r->switches++;
        if (s->ever && !s->tracked) r->fragmentations++;
        s->last_match = w->f_ids[j];
        s->tracked = s->ever = true;
        s->matched++;
        *iou_sum += w->iou[i * b + j];
        matches++;
    }
    r->truths += a;
    r->found += b;
    r->matches += matches;
    r->misses += a - matches;
    r->false_positives += b - matches;
}

static double ratio(int64_t a, int64_t b)
{
    return b > 0 ? (double)a / (double)b : 0;
}

static void sum_up(struct work *w, double iou_sum, struct task_mota *r)
{
    size_t t = w->truth.id_count, f = w->found.id_count;
    r->truth_ids = (int64_t)t;
    r->found_ids = (int64_t)f;
    for (size_t i = 0; i < t; i++) {
        const struct truth_state *s = &w->states[i];
        r->mostly_tracked += 5 * s->matched >= 4 * s->frames;
        r->mostly_lost += 5 * s->matched <= s->frames;
    }
    for (size_t i = 0; i < t * f; i++)
        w->agree[i] = -w->agree[i];
    task_assign(w->agree, (int)t, (int)f, w->scratch, w->pick);
    for (size_t i = 0; i < t; i++)
        if (w->pick[i] >= 0) r->idtp -= (int64_t)w->agree[i * f + (size_t)w->pick[i]];
    r->idfn = r->truths - r->idtp;
    r->idfp = r->found - r->idtp;
    r->mota = r->truths ? 1 - ratio(r->misses + r->false_positives + r->switches, r->truths) : 0;
    r->motp = r->matches ? iou_sum / (double)r->matches : 0;
    r->idf1 = ratio(2 * r->idtp, r->truths + r->found);
    r->id_precision = ratio(r->idtp, r->found);
    r->id_recall = ratio(r->idtp, r->truths);
    r->precision = ratio(r->matches, r->found);
    r->recall = ratio(r->matches, r->truths);
}

err task_mota_compute(struct mem_payer *payer, const struct task_mot *truth, const struct task_mot *found,
                      float iou, struct task_mota *ret)
{
    if (!(iou > 0 && iou <= 1))
        return err_set(ERR_USAGE, "the least overlap must be above 0 and at most 1, not %g", iou);
    struct work w = {.payer = payer};
    struct task_mota r = {0};
    err e = side_init(payer, truth, "truth", &w.truth);
    if (!e) e = side_init(payer, found, "tracks", &w.found);
    if (!e) {
        w.bytes = lay_out(&w);
        e = mem_alloc(payer, MEM_OTHER, w.bytes, (void **)&w.block);
    }
    if (e) {
        work_done(&w);
        return e;
    }
    lay_out(&w);
    for (size_t i = 0; i < w.truth.id_count; i++)
        w.states[i].last_match = -1;
    double iou_sum = 0;
    for (size_t t = 0, f = 0; !e && (t < truth->count || f < found->count);) {
        int frame = t < truth->count ? truth->rows[t].frame : found->rows[f].frame;
        if (f < found->count) frame = MIN(frame, found->rows[f].frame);
        int a = gather(&w.truth, &t, frame, w.t_rows, w.t_ids),
            b = gather(&w.found, &f, frame, w.f_rows, w.f_ids);
        if (a || b) r.frames++;
        e = check_twins(&w.truth, w.t_ids, a, frame);
        if (!e) e = check_twins(&w.found, w.f_ids, b, frame);
        if (!e) score_frame(&w, a, b, iou, &iou_sum, &r);
    }
    sum_up(&w, iou_sum, &r);
    work_done(&w);
    if (!e) *ret = r;
    return e;
}

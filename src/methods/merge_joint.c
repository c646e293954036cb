/* See merge_joint.h. Time is the budget, so the learning rate follows the clock: a warm-up over the first twentieth of a trial, then a cosine to 2 %.
 *
 * When members are measured follows GEMEL: after the part of an epoch in which the member nearest to its target would reach it at its last pace; never so
 * often that measuring takes more than a quarter of the time. A member that could not reach its target by the end at its pace, twice in a row over two
 * epochs, is given up: the others go on without it.
 *
 * Invariant: after `common_step` all users of a shared slot hold the same bits. SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_joint.h"
#include "methods/merge_norm.h"
#include "train/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SETTLE = 20 }; /* batches: running statistics keep 0.9 of themselves at each */

struct place {
    int64_t at, count;
};
struct pace { /* of one member in a trial */
    bool met, given_up;
    int bad;               /* intervals in a row in which the pace was too slow */
    double before, lift;   /* score at the last measurement; gain since the one before */
    double half, half_at;  /* score and time at the middle of the trial */
};
struct merge_joint {
    const struct merge_problem *p;
    struct merge_joint_options o;
    int n;
    struct merge_member **members;
    struct place *places;          /* [slot][member] */
    struct merge_norms *norms;     /* NULL: each member's own */
    struct merge_config now, best;
    float **good, *sum;            /* [member]: weights of the best state; room for one slot */
    size_t sum_bytes;
    struct mem_payer *payer;
    double *scores, *best_scores, *targets, *rise, *gain, *losses, *weights;
    bool *met, *active, *users;    /* users: of the slot being looked at */
    bool *foreign;                 /* [slot]: its members' own filters had nothing in common */
    struct pace *pace;
    double seconds;
    bool running;
    int64_t trial_ns, measured_ns;
    int64_t steps, measured_at, epoch;   /* of this trial */
    bool accepted;
};

static struct place *place_of(const struct merge_joint *j, int slot, int member)
{
    return &j->places[slot * j->n + member];
}

/* ---- making */

static err find_places(struct merge_joint *j)
{
    int64_t most = 0;
    for (int s = 0; s < j->p->n_slots; s++) {
        for (int i = 0; i < j->n; i++) {
            struct place *at = place_of(j, s, i);
            if (j->p->slots[s].value[i] < 0) continue;
            if (!merge_member_place(j->members[i], j->p->slots[s].value[i], &at->at, &at->count))
                return err_set(ERR_UNSUPPORTED, "model '%s': the weight of %s cannot be trained", j->members[i]->name, j->p->slots[s].what);
            most = MAX(most, at->count);
        }
    }
    j->sum_bytes = (size_t)MAX(most, 1) * sizeof(float);
    return mem_alloc(j->payer, MEM_TRAINING, j->sum_bytes, (void **)&j->sum);
}

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Mean cosine between the filters (rows of the weight) of each user and the mean of all of them. */
static double likeness(struct merge_joint *j, const struct merge_config *c, int slot)
{
    const struct graph_value *v = NULL;
    double sum = 0;
    int64_t count = 0, rows = 0;
    int users = 0;
    for (int i = 0; i < j->n; i++) {
        if (!merge_config_on(c, slot, i)) continue;
        const struct place *at = place_of(j, slot, i);
        const float *w = j->members[i]->values + at->at;
        v = &j->members[i]->source->values[j->p->slots[slot].value[i]];
        count = at->count;
        for (int64_t k = 0; k < count; k++) j->sum[k] = (users ? j->sum[k] : 0) + w[k];
        users++;
    }
    rows = v ? MAX(v->shape.dims[0], 1) : 1;
    for (int i = 0; i < j->n; i++) {
        if (!merge_config_on(c, slot, i)) continue;
        const float *w = j->members[i]->values + place_of(j, slot, i)->at;
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = r * (count / rows), n = count / rows;
            double a = dot(w + at, w + at, n), b = dot(j->sum + at, j->sum + at, n);
            sum += a > 0 && b > 0 ? dot(w + at, j->sum + at, n) / sqrt(a * b) : 0;
        }
    }
    return sum / (double)MAX(users * rows, 1);
}

/* n filters that have nothing to do with each other have a cosine of 1 / sqrt(n) with their mean. */
static bool alike(struct merge_joint *j, const struct merge_config *c, int slot)
{
    return likeness(j, c, slot) >= 1 / sqrt(merge_config_users(c, slot)) + 0.1;
}

/* Before any training: the members' own filters. */
static void find_foreign(struct merge_joint *j)
{
    struct merge_config c;
    merge_config_init(&c, j->p);
    for (int s = 0; s < j->p->n_slots; s++) {
        merge_config_share(&c, j->p, s);
        j->foreign[s] = !alike(j, &c, s);
    }
    merge_config_done(&c);
}

/* Of what is left, an equal part for each that is still to come, and of that some for teachers and copies of weights. */
static uint64_t share_of_memory(const struct merge_member *m, int to_come)
{
    uint64_t all = mem_budget_limit(m->o.budget), used = mem_budget_used(m->o.budget);
    return all == UINT64_MAX ? UINT64_MAX : (all > used ? (all - used) / (uint64_t)to_come : 0) / 4 * 3;
}

err merge_joint_new(struct merge_member **members, const struct merge_problem *p, const struct merge_joint_options *o, struct merge_joint **ret)
{
    struct merge_joint *j = xnew(struct merge_joint);
    int n = p->n_members;
    *j = (struct merge_joint){.p = p, .o = *o, .n = n, .members = members, .places = xnewn(struct place, p->n_slots * n), .good = xnewn(float *, n), .pace = xnewn(struct pace, n),
                              .scores = xnewn(double, n), .best_scores = xnewn(double, n), .targets = xnewn(double, n), .rise = xnewn(double, n), .losses = xnewn(double, n),
                              .weights = xnewn(double, n), .gain = xnewn(double, p->n_slots * n), .met = xnewn(bool, n), .active = xnewn(bool, n), .users = xnewn(bool, n), .foreign = xnewn(bool, p->n_slots)};
    merge_config_init(&j->now, p);
    merge_config_init(&j->best, p);
    j->payer = mem_payer_new(members[0]->o.budget, "merge");
    err e = ERR_OK;
    for (int i = 0; i < n && !e; i++) e = merge_member_begin(members[i], share_of_memory(members[i], n - i));
    if (!e) e = find_places(j);
    if (!e && o->share_norm) j->norms = merge_norms_new(members, p);
    for (int i = 0; i < n && !e; i++) {
        j->scores[i] = j->best_scores[i] = members[i]->original;
        j->targets[i] = members[i]->target;
        size_t bytes = (size_t)members[i]->n_values * sizeof(float);
        if (!(e = mem_alloc(j->payer, MEM_TRAINING, bytes, (void **)&j->good[i]))) memcpy(j->good[i], members[i]->values, bytes);
    }
    if (e) {
        merge_joint_free(&j);
        return e;
    }
    find_foreign(j);
    *ret = j;
    return ERR_OK;
}

void merge_joint_free(struct merge_joint **at)
{
    struct merge_joint *j = *at;
    if (!j) return;
    for (int i = 0; i < j->n; i++) mem_free(j->payer, MEM_TRAINING, j->good[i], (size_t)j->members[i]->n_values * sizeof(float));
    mem_free(j->payer, MEM_TRAINING, j->sum, j->sum_bytes);
    mem_payer_free(&j->payer);
    merge_norms_free(&j->norms);
    merge_config_done(&j->now);
    merge_config_done(&j->best);
    void *all[] = {j->places, j->good, j->pace, j->scores, j->best_scores, j->targets, j->rise, j->losses, j->weights, j->gain, j->met, j->active, j->users, j->foreign};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) free(all[i]);
    free(j);
    *at = NULL;
}

/* ---- configurations */

static bool shares(const struct merge_config *c, int member)
{
    for (int s = 0; s < c->n_slots; s++)
        if (merge_config_on(c, s, member) && merge_config_users(c, s) > 1) return true;
    return false;
}

static void give_weight(struct merge_joint *j, int slot, int from, int to)
{
    const struct place *a = place_of(j, slot, from), *b = place_of(j, slot, to);
    if (from != to) memcpy(j->members[to]->values + b->at, j->members[from]->values + a->at, (size_t)a->count * sizeof(float));
}

/* Networks with a common ancestor agree filter by filter: then all begin with the mean, each filter as long as the first member's. Of filters that have
 * nothing to do with each other the mean would be none: then the first member's (GEMEL, step 4). */
static int begin_with(struct merge_joint *j, const struct merge_config *c, int slot)
{
    int first = -1;
    for (int i = 0; i < j->n && first < 0; i++)
        if (merge_config_on(c, slot, i)) first = i;
    if (!alike(j, c, slot)) return first;
    float *w = j->members[first]->values + place_of(j, slot, first)->at;
    int64_t count = place_of(j, slot, first)->count, rows = MAX(j->members[first]->source->values[j->p->slots[slot].value[first]].shape.dims[0], 1), n = count / rows;
    for (int64_t r = 0; r < rows; r++) {
        double a = dot(w + r * n, w + r * n, n), b = dot(j->sum + r * n, j->sum + r * n, n), scale = b > 0 ? sqrt(a / b) : 0;
        for (int64_t k = 0; k < n; k++) w[r * n + k] = (float)(scale * (double)j->sum[r * n + k]);
    }
    return first;
}

/* Who uses the slot's common norm; false: it has none, or nobody shares it. */
static bool norm_users(struct merge_joint *j, const struct merge_config *c, int slot, bool all)
{
    int n = 0;
    if (!j->norms || !merge_norms_has(j->norms, slot)) return false;
    for (int i = 0; i < j->n; i++) n += j->users[i] = merge_config_on(c, slot, i) && (all || j->active[i]);
    return n > 1;
}

/* Users of a slot begin with the copy that is common already, if there is one. */
static void make_common(struct merge_joint *j, const struct merge_config *c, const struct merge_config *before)
{
    for (int s = 0; s < c->n_slots; s++) {
        int from = -1;
        if (merge_config_users(c, s) < 2) continue;
        for (int i = 0; i < j->n && from < 0; i++)
            if (merge_config_on(c, s, i) && before && merge_config_on(before, s, i) && merge_config_users(before, s) > 1) from = i;
        if (norm_users(j, c, s, true)) merge_norms_begin(j->norms, s, j->users, from);
        if (from < 0) from = begin_with(j, c, s);
        for (int i = 0; i < j->n; i++)
            if (merge_config_on(c, s, i)) give_weight(j, s, from, i);
    }
}

static void restore(struct merge_joint *j)
{
    for (int i = 0; i < j->n; i++) memcpy(j->members[i]->values, j->good[i], (size_t)j->members[i]->n_values * sizeof(float));
    merge_config_copy(&j->now, &j->best);
}

/* What a member still computes in its own terms, its original can be asked for. */
static void trust(struct merge_joint *j, int member)
{
    const struct merge_member *m = j->members[member];
    bool *foreign = xcalloc(m->source->n_values + 1, sizeof *foreign);
    for (int s = 0; s < j->p->n_slots; s++)
        if (j->foreign[s] && merge_config_on(&j->now, s, member) && merge_config_users(&j->now, s) > 1) foreign[j->p->slots[s].value[member]] = true;
    merge_teacher_trust(&m->teacher, m->net, foreign);
    free(foreign);
}

static void begin(struct merge_joint *j, const struct merge_trial *t)
{
    if (!t->go_on) restore(j);
    make_common(j, &t->config, &j->now);
    merge_config_copy(&j->now, &t->config);
    j->accepted = false;
    j->steps = j->measured_at = 0;
    j->epoch = 1;
    memset(j->gain, 0, (size_t)j->p->n_slots * (size_t)j->n * sizeof *j->gain);
    for (int i = 0; i < j->n; i++) {
        j->active[i] = shares(&j->now, i);
        j->pace[i] = (struct pace){.lift = 0.1};
        j->rise[i] = j->losses[i] = 0;
        if (!j->active[i]) continue;
        merge_member_forget(j->members[i]);
        trust(j, i);
        j->epoch = MAX(j->epoch, j->members[i]->steps);
    }
    j->trial_ns = j->measured_ns = clock_ns();
}

/* ---- a step */

static double seconds_since(int64_t ns)
{
    return (double)(clock_ns() - ns) * 1e-9;
}

/* One slot: the weighted sum of its users' gradients becomes the gradient of each. What a step of its own would gain a member, to first order, is
 * |g|^2 - g . mean(g): large where it pulls another way than the others, or alone. */
static void add_up(struct merge_joint *j, int slot)
{
    int users = 0;
    int64_t count = 0;
    for (int i = 0; i < j->n; i++) {
        if (!j->active[i] || !merge_config_on(&j->now, slot, i)) continue;
        const struct place *at = place_of(j, slot, i);
        const float *g = j->members[i]->grads + at->at, w = (float)j->weights[i];
        count = at->count;
        for (int64_t k = 0; k < count; k++) j->sum[k] = (users ? j->sum[k] : 0) + w * g[k];
        users++;
    }
    for (int i = 0; i < j->n && users > 1; i++) {
        if (!j->active[i] || !merge_config_on(&j->now, slot, i)) continue;
        float *g = j->members[i]->grads + place_of(j, slot, i)->at;
        double w = j->weights[i], gain = w * (w * dot(g, g, count) - dot(g, j->sum, count) / users), *mean = &j->gain[slot * j->n + i];
        *mean = *mean == 0 ? gain : 0.98 * *mean + 0.02 * gain;
        memcpy(g, j->sum, (size_t)count * sizeof *g);
    }
}

/* Networks with a common ancestor are nearly there; others have to learn most of it anew. Half of the shared bytes decide. */
static double highest_rate(const struct merge_joint *j)
{
    double bytes = 0, foreign = 0;
    if (j->o.lr > 0) return j->o.lr;
    for (int s = 0; s < j->p->n_slots; s++) {
        int users = merge_config_users(&j->now, s);
        if (users > 1) bytes += (double)j->p->slots[s].bytes * users;
        if (users > 1 && j->foreign[s]) foreign += (double)j->p->slots[s].bytes * users;
    }
    return foreign > bytes / 2 ? 0.003 : 0.001;
}

static double rate(const struct merge_joint *j, const struct merge_trial *t)
{
    double at = (double)(clock_ns() - j->trial_ns) * 1e-9 / fmax(t->seconds, 1e-3), by_epochs = t->most_epochs ? (double)j->steps / ((double)j->epoch * t->most_epochs) : 0;
    at = fmin(fmax(at, by_epochs), 1);
    double up = fmin(1, (at + 0.002) / 0.05);
    return highest_rate(j) * (t->gentle ? 0.3 : 1) * up * (0.02 + 0.98 * 0.5 * (1 + cos(M_PI * at)));
}

static void common_norms(struct merge_joint *j)
{
    for (int s = 0; s < j->p->n_slots && j->norms; s++)
        if (norm_users(j, &j->now, s, false)) merge_norms_common(j->norms, s, j->users);
}

static err common_step(struct merge_joint *j, const struct merge_trial *t)
{
    double lr = rate(j, t);
    for (int i = 0; i < j->n; i++) {
        float loss;
        if (!j->active[i]) continue;
        err e = merge_member_step(j->members[i], &loss);
        if (e) return e;
        j->losses[i] = j->steps ? 0.95 * j->losses[i] + 0.05 * (double)loss : (double)loss;
        j->weights[i] = j->scores[i] > 0 ? fmin(10, pow(j->targets[i] / j->scores[i], 0.75)) : 10;
    }
    for (int s = 0; s < j->p->n_slots; s++)
        if (merge_config_users(&j->now, s) > 1) {
            add_up(j, s);
            if (norm_users(j, &j->now, s, false)) merge_norms_gradients(j->norms, s, j->users, j->weights);
        }
    for (int i = 0; i < j->n; i++)
        if (j->active[i]) merge_member_update(j->members[i], lr);
    for (int s = 0; s < j->p->n_slots; s++) { /* the optimisers agree to the last bit unless one has run longer; this makes sure */
        int from = -1;
        for (int i = 0; i < j->n; i++) {
            if (!j->active[i] || !merge_config_on(&j->now, s, i)) continue;
            if (from < 0) from = i;
            give_weight(j, s, from, i);
        }
    }
    common_norms(j);
    j->steps++;
    return ERR_OK;
}

/* ---- measuring */

/* Of the members that share in `c` the least part of original - target that a score lies above its target. */
static double slack(const struct merge_joint *j, const struct merge_config *c, const double *scores)
{
    double least = 1;
    for (int i = 0; i < j->n; i++) {
        double room = j->members[i]->original - j->targets[i];
        if (shares(c, i) && room > 1e-9) least = fmin(least, (scores[i] - j->targets[i]) / room); /* a target of 100 % leaves no room: met is met */
    }
    return least;
}

/* The state that the members in it would leave: who missed its target goes back to what it was. */
static void offer_state(struct merge_joint *j, const struct merge_trial *t)
{
    struct merge_config c;
    merge_config_init(&c, j->p);
    merge_config_copy(&c, &j->now);
    for (int s = 0; s < c.n_slots; s++) {
        for (int i = 0; i < j->n; i++)
            if (j->active[i] ? !j->pace[i].met : shares(&j->now, i)) merge_config_set(&c, s, i, false);
        for (int i = 0; i < j->n && merge_config_users(&c, s) == 1; i++) merge_config_set(&c, s, i, false);
    }
    bool firmer = t->firm && merge_config_equal(&c, &j->best) && slack(j, &c, j->scores) > slack(j, &c, j->best_scores);
    if (firmer || merge_config_saved(&c, j->p) > merge_config_saved(&j->best, j->p)) {
        for (int i = 0; i < j->n; i++) {
            struct merge_member *m = j->members[i];
            if (shares(&c, i)) {
                memcpy(j->good[i], m->values, (size_t)m->n_values * sizeof(float));
                j->best_scores[i] = j->scores[i];
                m->best_error = m->error;
            } else {
                merge_member_original(m, j->good[i]);
                j->best_scores[i] = m->original;
                m->best_error = 0;
            }
        }
        merge_config_copy(&j->best, &c);
        j->accepted = true;
    }
    merge_config_done(&c);
}

/* Too slow twice in a row, over two epochs: given up. */
static void judge_pace(struct merge_joint *j, const struct merge_trial *t, int i, double epochs, double epochs_left)
{
    struct pace *p = &j->pace[i];
    bool slow = !p->met && p->lift / fmax(epochs, 1e-6) * epochs_left < 1 - j->scores[i] / j->targets[i];
    p->bad = slow ? p->bad + 1 : 0;
    if (p->bad >= 2 && (double)j->steps >= 2 * (double)j->epoch && t->most_epochs) p->given_up = true;
}

static err measure(struct merge_joint *j, const struct merge_trial *t)
{
    int64_t begun = clock_ns();
    bool was = j->accepted;
    double epochs = (double)(j->steps - j->measured_at) / (double)j->epoch, passed = seconds_since(j->trial_ns);
    double left = fmin(t->most_epochs ? t->most_epochs - (double)j->steps / (double)j->epoch : 1e9,
                       (t->seconds - passed) / fmax(passed, 1e-3) * (double)j->steps / (double)j->epoch);
    for (int i = 0; i < j->n; i++) {
        struct pace *p = &j->pace[i];
        if (!j->active[i]) continue;
        err e = merge_member_score(j->members[i], &j->scores[i]);
        if (e) return e;
        p->met = j->scores[i] >= j->targets[i];
        if (j->steps) {
            p->lift = j->scores[i] - p->before;
            judge_pace(j, t, i, epochs, left);
        }
        p->before = j->scores[i];
        if (passed < t->seconds * 0.6) {
            p->half = j->scores[i];
            p->half_at = passed;
        } else {
            j->rise[i] = (j->scores[i] - p->half) / fmax(passed - p->half_at, 1e-3);
        }
    }
    j->measured_at = j->steps;
    j->measured_ns = clock_ns() - begun;
    struct merge_config before;
    merge_config_init(&before, j->p);
    merge_config_copy(&before, &j->best);
    offer_state(j, t);
    bool changed = !t->firm && (!merge_config_equal(&before, &j->best) || (j->accepted && !was));
    merge_config_done(&before);
    for (int i = 0; i < j->n; i++)
        if (j->pace[i].given_up) j->active[i] = false;
    return j->o.look ? j->o.look(j->o.user, j, changed) : ERR_OK;
}

/* Steps until the member nearest to its target would be there. */
static int64_t next_measure(const struct merge_joint *j)
{
    double fraction = 1;
    for (int i = 0; i < j->n; i++) {
        const struct pace *p = &j->pace[i];
        if (!j->active[i] || p->met) continue;
        double gap = 1 - j->scores[i] / j->targets[i];
        if (p->lift > 0) fraction = fmin(fraction, fmax(gap / p->lift, 0.1));
    }
    double step = seconds_since(j->trial_ns) / fmax((double)j->steps, 1), cost = (double)j->measured_ns * 1e-9;
    double least = j->steps ? 3 * cost / fmax(step, 1e-6) : 1;
    return j->steps + (int64_t)fmax(fmax(1, fraction * (double)j->epoch), least);
}

static int count_active(const struct merge_joint *j, bool unmet)
{
    int n = 0;
    for (int i = 0; i < j->n; i++) n += j->active[i] && !(unmet && j->pace[i].met);
    return n;
}

static bool is_over(const struct merge_joint *j, const struct merge_trial *t)
{
    if (t->firm && merge_joint_slack(j) >= MERGE_JOINT_FIRM) return true;
    return seconds_since(j->trial_ns) >= t->seconds || (t->most_epochs && j->steps >= t->most_epochs * j->epoch) || count_active(j, false) < 2;
}

/* Weights have moved under the running statistics: some batches bring those to where the activations are now, before anything is measured (Jordan et al.
 * 2022, REPAIR). Nothing else changes. */
static err settle(struct merge_joint *j, const struct merge_trial *t)
{
    float loss;
    err e = ERR_OK;
    for (int k = 0; k < SETTLE && !e && (k == 0 || seconds_since(j->trial_ns) < 0.15 * t->seconds); k++) {
        for (int i = 0; i < j->n && !e; i++)
            if (j->active[i]) e = merge_member_settle(j->members[i], &loss);
        common_norms(j);
    }
    return e;
}

static err train(struct merge_joint *j, const struct merge_trial *t)
{
    err e = t->go_on ? ERR_OK : settle(j, t);
    if (!e) e = measure(j, t);
    int64_t next = next_measure(j);
    while (!e && (count_active(j, true) || t->firm) && !is_over(j, t)) {
        if (j->o.stop && atomic_load(j->o.stop)) return err_set(ERR_CANCELLED, "stopped");
        e = common_step(j, t);
        if (e || (j->steps < next && !is_over(j, t))) continue;
        e = measure(j, t);
        next = next_measure(j);
    }
    return e;
}

err merge_joint_run(struct merge_joint *j, const struct merge_trial *t, struct merge_outcome *ret)
{
    begin(j, t);
    j->running = true;
    err e = train(j, t);
    j->running = false;
    j->seconds += seconds_since(j->trial_ns);
    for (int i = 0; i < j->n; i++) j->met[i] = !shares(&j->now, i) || j->pace[i].met;
    if (e) return e;
    *ret = (struct merge_outcome){.tried = &j->now, .best = &j->best, .met = j->met, .score = j->scores, .target = j->targets, .rise = j->rise, .gain = j->gain,
                                  .accepted = j->accepted};
    return ERR_OK;
}

/* ---- looking at it */

bool merge_joint_foreign(const struct merge_joint *j, int slot)
{
    return j->foreign[slot];
}

const struct merge_config *merge_joint_best(const struct merge_joint *j)
{
    return &j->best;
}

const double *merge_joint_scores(const struct merge_joint *j)
{
    return j->scores;
}

const double *merge_joint_best_scores(const struct merge_joint *j)
{
    return j->best_scores;
}

double merge_joint_slack(const struct merge_joint *j)
{
    return slack(j, &j->best, j->best_scores);
}

double merge_joint_seconds(const struct merge_joint *j)
{
    return j->seconds + (j->running ? seconds_since(j->trial_ns) : 0);
}

double merge_joint_loss(const struct merge_joint *j, int member)
{
    return j->losses[member];
}

err merge_joint_graph(struct merge_joint *j, int member, struct graph **ret)
{
    return merge_member_graph(j->members[member], j->good[member], ret);
}

int merge_joint_sections(struct merge_joint *j, struct train_section *ret)
{
    int k = 0;
    for (int i = 0; i < j->n; i++) {
        uint64_t bytes = (uint64_t)j->members[i]->n_values * sizeof(float);
        ret[k] = (struct train_section){.p = j->members[i]->values, .bytes = bytes};
        snprintf(ret[k++].name, sizeof ret->name, "now %d", i);
        ret[k] = (struct train_section){.p = j->good[i], .bytes = bytes};
        snprintf(ret[k++].name, sizeof ret->name, "best %d", i);
    }
    return k;
}

void merge_joint_restored(struct merge_joint *j, const struct merge_config *now, const struct merge_config *best, const double *best_scores, double seconds)
{
    merge_config_copy(&j->now, now);
    merge_config_copy(&j->best, best);
    memcpy(j->best_scores, best_scores, (size_t)j->n * sizeof *best_scores);
    memcpy(j->scores, best_scores, (size_t)j->n * sizeof *best_scores);
    for (int i = 0; i < j->n; i++) j->members[i]->best_error = shares(best, i) ? -1 : 0;
    j->seconds = seconds;
}

void merge_joint_revert(struct merge_joint *j, int member)
{
    for (int s = 0; s < j->best.n_slots; s++) {
        merge_config_set(&j->best, s, member, false);
        for (int i = 0; i < j->n && merge_config_users(&j->best, s) == 1; i++) merge_config_set(&j->best, s, i, false);
    }
    merge_member_original(j->members[member], j->good[member]);
    j->best_scores[member] = j->members[member]->original;
    j->members[member]->best_error = 0;
}

/* The policies. A group's slots stay in the problem's order, heaviest first, as `halving` needs. SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_policy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char merge_policy_names[] = "groups, grow, split";

const struct merge_policy *merge_policy_find(const char *name)
{
    const struct merge_policy *all[] = {&merge_policy_groups, &merge_policy_grow, &merge_policy_split};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (!strcmp(all[i]->name, name)) return all[i];
    return NULL;
}

/* ---- groups */

enum { EPOCHS = 10 };

struct group {
    int n, *slots;
    uint64_t bytes; /* that it saves */
};
struct groups {
    const struct merge_problem *p;
    int n, cursor;
    struct group *items;
    struct merge_config trial; /* of the slots tried now, nothing else */
    int n_trial, *slots;
};

static bool same_users(const struct merge_problem *p, int a, int b)
{
    for (int i = 0; i < p->n_members; i++)
        if ((p->slots[a].value[i] >= 0) != (p->slots[b].value[i] >= 0)) return false;
    return true;
}

static int by_bytes(const void *a, const void *b)
{
    const struct group *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
    return (x->slots[0] > y->slots[0]) - (x->slots[0] < y->slots[0]);
}

static void *groups_start(const struct merge_problem *p, double seconds)
{
    (void)seconds;
    struct groups *g = xnew(struct groups);
    g->p = p;
    g->items = xnewn(struct group, p->n_slots);
    g->slots = xnewn(int, p->n_slots);
    merge_config_init(&g->trial, p);
    for (int s = 0; s < p->n_slots; s++) {
        int k = 0;
        while (k < g->n && (p->slots[g->items[k].slots[0]].group != p->slots[s].group || !same_users(p, g->items[k].slots[0], s))) k++;
        if (k == g->n) g->items[g->n++].slots = xnewn(int, p->n_slots);
        g->items[k].slots[g->items[k].n++] = s;
        g->items[k].bytes += p->slots[s].bytes * (uint64_t)(p->slots[s].n - 1);
    }
    qsort(g->items, (size_t)g->n, sizeof *g->items, by_bytes);
    return g;
}

static void groups_end(void *state)
{
    struct groups *g = state;
    for (int i = 0; i < g->n; i++) free(g->items[i].slots);
    free(g->items);
    free(g->slots);
    merge_config_done(&g->trial);
    free(g);
}

static void take_group(struct groups *g)
{
    const struct group *group = &g->items[g->cursor++];
    memset(g->trial.on, 0, (size_t)g->p->n_slots * (size_t)g->p->n_members);
    g->n_trial = group->n;
    for (int i = 0; i < group->n; i++) {
        g->slots[i] = group->slots[i];
        merge_config_share(&g->trial, g->p, group->slots[i]);
    }
}

/* What failed, cut to its heavier half, if that outweighs the next group. Where some members met their target their sharing is kept, and only the others are
 * tried again. */
static bool halve(struct groups *g, const struct merge_outcome *last)
{
    int n = 0;
    for (int i = 0; i < g->n_trial; i++) {
        int slot = g->slots[i], users = 0;
        for (int m = 0; m < g->p->n_members; m++) {
            bool failed = merge_config_on(&g->trial, slot, m) && (!last->accepted || !last->met[m]);
            merge_config_set(&g->trial, slot, m, failed);
            users += failed;
        }
        if (users > 1) g->slots[n++] = slot;
    }
    uint64_t kept = 0, next = g->cursor < g->n ? g->items[g->cursor].bytes : 0;
    g->n_trial = n / 2;
    for (int i = 0; i < g->n_trial; i++) kept += g->p->slots[g->slots[i]].bytes * (uint64_t)(merge_config_users(&g->trial, g->slots[i]) - 1);
    return g->n_trial > 0 && kept >= next;
}

static bool all_met(const struct merge_problem *p, const struct merge_outcome *last)
{
    for (int i = 0; i < p->n_members; i++)
        if (!last->met[i]) return false;
    return true;
}

static bool groups_next(void *state, const struct merge_outcome *last, double seconds_left, struct merge_trial *ret)
{
    struct groups *g = state;
    if (!last || all_met(g->p, last) || !halve(g, last)) {
        if (g->cursor == g->n) return false;
        take_group(g);
    }
    if (last) merge_config_copy(&ret->config, last->best);
    for (int i = 0; i < g->n_trial; i++)
        for (int m = 0; m < g->p->n_members; m++)
            if (merge_config_on(&g->trial, g->slots[i], m)) merge_config_set(&ret->config, g->slots[i], m, true);
    ret->seconds = seconds_left;
    ret->most_epochs = EPOCHS;
    ret->go_on = false;
    return true;
}

const struct merge_policy merge_policy_groups = {"groups", groups_start, groups_end, groups_next};

/* ---- split */

static const double FIRST = 0.45, LATER = 0.4, LEAST_SHARE = 0.04; /* of all the time; of what is left; below which nothing more is begun */

struct split {
    const struct merge_problem *p;
    double seconds, release; /* share of a member's common bytes that it gets back next */
    int rounds;
};

static void *split_start(const struct merge_problem *p, double seconds)
{
    struct split *s = xnew(struct split);
    *s = (struct split){.p = p, .seconds = seconds, .release = 0.1};
    return s;
}

struct offer {
    int slot;
    double gain; /* per byte */
};

static int by_gain(const void *a, const void *b)
{
    const struct offer *x = a, *y = b;
    if (x->gain != y->gain) return x->gain > y->gain ? -1 : 1;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

/* Gives a member back what it gains most by, per byte: `share` of its common bytes, one slot at least. */
static void release(const struct split *s, const struct merge_outcome *last, int member, struct merge_config *c)
{
    struct offer *offers = xnewn(struct offer, s->p->n_slots);
    double bytes = 0, given = 0;
    int n = 0;
    for (int k = 0; k < s->p->n_slots; k++) {
        if (!merge_config_on(c, k, member)) continue;
        double size = (double)s->p->slots[k].bytes;
        offers[n++] = (struct offer){k, last->gain[k * s->p->n_members + member] / size};
        bytes += size;
    }
    qsort(offers, (size_t)n, sizeof *offers, by_gain);
    for (int i = 0; i < n && (i == 0 || given < s->release * bytes); i++) {
        merge_config_set(c, offers[i].slot, member, false);
        given += (double)s->p->slots[offers[i].slot].bytes;
    }
    free(offers);
}

static void drop_lonely(const struct split *s, struct merge_config *c)
{
    for (int k = 0; k < s->p->n_slots; k++)
        for (int i = 0; i < s->p->n_members && merge_config_users(c, k) == 1; i++) merge_config_set(c, k, i, false);
}

/* Does it get there by itself, at the pace it had, in half of the time that is left? */
static bool will_do(const struct split *s, const struct merge_outcome *last, double seconds_left)
{
    for (int i = 0; i < s->p->n_members; i++)
        if (!last->met[i] && last->score[i] + last->rise[i] * seconds_left / 2 < last->target[i]) return false;
    return true;
}

static bool any_shared(const struct merge_config *c)
{
    for (int k = 0; k < c->n_slots; k++)
        if (merge_config_users(c, k) > 1) return true;
    return false;
}

static bool split_next(void *state, const struct merge_outcome *last, double seconds_left, struct merge_trial *ret)
{
    struct split *s = state;
    if (!last) {
        for (int k = 0; k < s->p->n_slots; k++) merge_config_share(&ret->config, s->p, k);
        ret->seconds = FIRST * s->seconds;
        return true;
    }
    if (all_met(s->p, last) || seconds_left < LEAST_SHARE * s->seconds) return false;
    merge_config_copy(&ret->config, last->tried);
    if (!will_do(s, last, seconds_left)) {
        for (int i = 0; i < s->p->n_members; i++)
            if (!last->met[i]) release(s, last, i, &ret->config);
        drop_lonely(s, &ret->config);
        s->release = fmin(0.5, s->release * 1.5);
    }
    if (!any_shared(&ret->config)) return false;
    ret->seconds = fmax(LATER * seconds_left, fmin(seconds_left, LEAST_SHARE * s->seconds));
    ret->go_on = true;
    s->rounds++;
    return true;
}

const struct merge_policy merge_policy_split = {"split", split_start, free, split_next};

/* ---- grow */

static const double LEVELS[] = {0.6, 0.8, 0.95, 1}, FIRST_STEP = 0.45, STEP = 0.4; /* of all that could be saved; of all the time; of what is left */

struct grow {
    const struct merge_problem *p;
    double seconds;
    size_t level;
    bool waited;                /* this trial has had its second chance */
    struct merge_config floor;  /* what worked last */
};

static void *grow_start(const struct merge_problem *p, double seconds)
{
    struct grow *g = xnew(struct grow);
    *g = (struct grow){.p = p, .seconds = seconds};
    merge_config_init(&g->floor, p);
    return g;
}

static void grow_end(void *state)
{
    struct grow *g = state;
    merge_config_done(&g->floor);
    free(g);
}

/* Layers that were alike from the start, and of the others the heaviest (in the problem's order) until so much is saved. False: nothing new. */
static bool reach(const struct grow *g, double share, struct merge_config *c)
{
    bool more = false;
    for (int pass = 0; pass < 2; pass++)
        for (int s = 0; s < g->p->n_slots; s++) {
            if (merge_config_users(c, s) > 1 || (pass == 0 ? g->p->slots[s].foreign : (double)merge_config_saved(c, g->p) >= share * (double)g->p->most_bytes)) continue;
            merge_config_share(c, g->p, s);
            more = true;
        }
    return more;
}

/* A member that missed its target gets its layers nearest to the picture back, a quarter of its bytes: there it can learn to speak to the common ones. */
static void give_back_shallow(const struct grow *g, int member, struct merge_config *c)
{
    double bytes = 0, given = 0;
    for (int s = 0; s < g->p->n_slots; s++)
        if (merge_config_on(c, s, member) && !merge_config_on(&g->floor, s, member)) bytes += (double)g->p->slots[s].bytes;
    while (given < bytes / 4) {
        int first = -1;
        for (int s = 0; s < g->p->n_slots; s++)
            if (merge_config_on(c, s, member) && !merge_config_on(&g->floor, s, member) && (first < 0 || g->p->slots[s].depth < g->p->slots[first].depth)) first = s;
        if (first < 0) return;
        merge_config_set(c, first, member, false);
        given += (double)g->p->slots[first].bytes;
    }
}

static void without_lonely(const struct merge_problem *p, struct merge_config *c)
{
    for (int k = 0; k < p->n_slots; k++)
        for (int i = 0; i < p->n_members && merge_config_users(c, k) == 1; i++) merge_config_set(c, k, i, false);
}

static bool grow_next(void *state, const struct merge_outcome *last, double seconds_left, struct merge_trial *ret)
{
    struct grow *g = state;
    ret->gentle = last && !all_met(g->p, last);
    if (last && seconds_left < LEAST_SHARE * g->seconds) return false;
    if (last) merge_config_copy(&ret->config, last->tried);
    if (!last || all_met(g->p, last)) { /* it worked: more of it, from where it stands */
        if (last) merge_config_copy(&g->floor, last->tried);
        g->waited = false;
        do {
            if (g->level == ARRAY_LEN(LEVELS)) return false;
        } while (!reach(g, LEVELS[g->level++], &ret->config));
    } else if (!g->waited) { /* more time first */
        g->waited = true;
    } else {
        for (int i = 0; i < g->p->n_members; i++)
            if (!last->met[i]) give_back_shallow(g, i, &ret->config);
        without_lonely(g->p, &ret->config);
        if (merge_config_equal(&ret->config, last->tried) || merge_config_equal(&ret->config, &g->floor) || !any_shared(&ret->config)) return false;
    }
    ret->go_on = last != NULL;
    ret->seconds = last ? fmax(STEP * seconds_left, fmin(seconds_left, LEAST_SHARE * g->seconds)) : FIRST_STEP * g->seconds;
    return true;
}

const struct merge_policy merge_policy_grow = {"grow", grow_start, grow_end, grow_next};

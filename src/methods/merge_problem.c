/* Slots from groups: the k-th layer of a group in one member goes with the k-th in the others.
 *
 * Invariant: a slot has at least two members; a value of a member is in one slot at most. SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_problem.h"
#include "weights/store.h"

#include <stdlib.h>
#include <string.h>

/* ---- slots */

static int by_weight(const void *a, const void *b)
{
    const struct merge_slot *x = a, *y = b;
    uint64_t p = x->bytes * (uint64_t)(x->n - 1), q = y->bytes * (uint64_t)(y->n - 1);
    if (p != q) return p > q ? -1 : 1;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    return (x->nth < y->nth) - (x->nth > y->nth); /* later layers first: they are the heavy ones in most networks */
}

static void add_slot(struct merge_problem *p, size_t *cap, const struct merge_estimate *m, int group, int nth)
{
    struct merge_slot s = {.what = xstrdup(m->groups[group].what), .group = group, .nth = nth, .value = xnewn(int, m->n_members)};
    for (size_t i = 0; i < m->n_members; i++) {
        const struct merge_estimated *member = &m->members[i];
        s.value[i] = -1;
        for (size_t k = 0; k < member->n_layers; k++) {
            const struct merge_layer *l = &member->layers[k];
            if (l->group != group || l->nth != nth) continue;
            s.value[i] = l->value;
            s.bytes = l->weight_bytes;
            s.depth += (double)k / (double)MAX(member->n_layers - 1, 1);
            s.n++;
        }
    }
    s.depth /= MAX(s.n, 1);
    vec_grow(&p->slots, cap, (size_t)p->n_slots);
    p->slots[p->n_slots++] = s;
}

struct content {
    struct weights_id id;
    uint64_t bytes;
};

static int by_id(const void *a, const void *b)
{
    return memcmp(&((const struct content *)a)->id, &((const struct content *)b)->id, sizeof(struct weights_id));
}

/* Copies that the slots' weights hold twice already. */
static uint64_t equal_now(const struct merge_problem *p, const struct graph *const *graphs)
{
    struct content *c = xnewn(struct content, (size_t)p->n_slots * (size_t)p->n_members + 1);
    size_t n = 0;
    uint64_t bytes = 0;
    for (int s = 0; s < p->n_slots; s++) {
        for (int i = 0; i < p->n_members; i++) {
            if (p->slots[s].value[i] < 0) continue;
            const struct graph_value *v = &graphs[i]->values[p->slots[s].value[i]];
            c[n++] = (struct content){weights_blob_id(v->dtype, &v->shape, v->constant, v->constant_bytes), v->constant_bytes};
        }
    }
    qsort(c, n, sizeof *c, by_id);
    for (size_t i = 1; i < n; i++)
        if (weights_id_equal(&c[i].id, &c[i - 1].id)) bytes += c[i].bytes;
    free(c);
    return bytes;
}

err merge_problem_new(const struct graph *const *graphs, const char *const *names, int n, struct merge_problem **ret)
{
    if (n < 2) return err_set(ERR_USAGE, "%s: merging takes two models or more", n ? names[0] : "no model");
    struct merge_estimate *m = merge_estimate_new();
    for (int i = 0; i < n; i++) merge_estimate_add(m, names[i], graphs[i]);
    merge_estimate_finish(m);
    struct merge_problem *p = xnew(struct merge_problem);
    size_t cap = 0;
    p->n_members = n;
    p->names = xnewn(char *, n);
    p->bytes = m->bytes;
    for (int i = 0; i < n; i++) p->names[i] = xstrdup(names[i]);
    for (size_t g = 0; g < m->n_groups && m->groups[g].saved_bytes; g++)
        for (int k = 0; k < m->groups[g].second; k++) add_slot(p, &cap, m, (int)g, k);
    merge_estimate_free(&m);
    if (!p->n_slots) {
        merge_problem_free(&p);
        return err_set(ERR_NOT_FOUND, "nothing to merge: no layer of one model has the operator, sizes and attributes of a layer of another");
    }
    qsort(p->slots, (size_t)p->n_slots, sizeof *p->slots, by_weight);
    for (int s = 0; s < p->n_slots; s++) p->most_bytes += p->slots[s].bytes * (uint64_t)(p->slots[s].n - 1);
    p->equal_bytes = equal_now(p, graphs);
    *ret = p;
    return ERR_OK;
}

void merge_problem_free(struct merge_problem **at)
{
    struct merge_problem *p = *at;
    if (!p) return;
    for (int i = 0; i < p->n_members; i++) free(p->names[i]);
    for (int i = 0; i < p->n_slots; i++) {
        free(p->slots[i].what);
        free(p->slots[i].value);
    }
    free(p->names);
    free(p->slots);
    free(p);
    *at = NULL;
}

/* ---- configurations */

void merge_config_init(struct merge_config *c, const struct merge_problem *p)
{
    *c = (struct merge_config){p->n_slots, p->n_members, xcalloc((size_t)p->n_slots * (size_t)p->n_members, 1)};
}

void merge_config_done(struct merge_config *c)
{
    free(c->on);
    c->on = NULL;
}

void merge_config_copy(struct merge_config *to, const struct merge_config *from)
{
    memcpy(to->on, from->on, (size_t)from->n_slots * (size_t)from->n_members);
}

bool merge_config_equal(const struct merge_config *a, const struct merge_config *b)
{
    return memcmp(a->on, b->on, (size_t)a->n_slots * (size_t)a->n_members) == 0;
}

bool merge_config_on(const struct merge_config *c, int slot, int member)
{
    return c->on[slot * c->n_members + member];
}

void merge_config_set(struct merge_config *c, int slot, int member, bool on)
{
    c->on[slot * c->n_members + member] = on;
}

void merge_config_share(struct merge_config *c, const struct merge_problem *p, int slot)
{
    for (int i = 0; i < p->n_members; i++) merge_config_set(c, slot, i, p->slots[slot].value[i] >= 0);
}

int merge_config_users(const struct merge_config *c, int slot)
{
    int n = 0;
    for (int i = 0; i < c->n_members; i++) n += merge_config_on(c, slot, i);
    return n;
}

uint64_t merge_config_saved(const struct merge_config *c, const struct merge_problem *p)
{
    uint64_t bytes = 0;
    for (int s = 0; s < c->n_slots; s++) bytes += p->slots[s].bytes * (uint64_t)(MAX(merge_config_users(c, s), 1) - 1);
    return bytes;
}

void merge_config_close(const struct merge_config *c, bool *with)
{
    for (bool more = true; more;) {
        more = false;
        for (int s = 0; s < c->n_slots; s++) {
            bool any = false;
            if (merge_config_users(c, s) < 2) continue;
            for (int i = 0; i < c->n_members; i++) any |= with[i] && merge_config_on(c, s, i);
            for (int i = 0; any && i < c->n_members; i++) {
                if (!merge_config_on(c, s, i) || with[i]) continue;
                with[i] = more = true;
            }
        }
    }
}

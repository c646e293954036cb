/* See merge_norm.h. Invariant: after merge_norms_begin or _common all users of a slot hold the same bits of its norm.
 * SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_norm.h"

#include <stdlib.h>
#include <string.h>

enum { SCALE, SHIFT, MEAN, VAR, PARTS };

struct merge_norms {
    int n_slots, n_members;
    struct merge_member *const *members;
    int64_t *at;     /* [slot][member][part]: where it lies in the member's flat arrays */
    int64_t *count;  /* [slot]: channels; 0: no norm to share */
};

static int64_t *place(const struct merge_norms *n, int slot, int member)
{
    return &n->at[((int64_t)slot * n->n_members + member) * PARTS];
}

static const struct op_node *reader(const struct graph *g, int value, enum op_kind kind)
{
    const struct op_node *found = NULL;
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].op.n_in; k++) {
            if (g->nodes[i].dead || g->nodes[i].op.in[k] != value) continue;
            if (found || g->nodes[i].op.kind != kind) return NULL; /* somebody else reads it, too */
            found = &g->nodes[i].op;
        }
    return found;
}

static bool find(const struct merge_member *m, int weight, int64_t *ret_at, int64_t *ret_count)
{
    const struct op_node *conv = reader(m->source, weight, OP_CONV), *norm = conv ? reader(m->source, conv->out[0], OP_BATCH_NORM) : NULL;
    int64_t count[PARTS];
    if (!norm || norm->n_in < 1 + PARTS) return false;
    for (int i = 0; i < PARTS; i++)
        if (!merge_member_numbers(m, norm->in[1 + i], &ret_at[i], &count[i]) || count[i] != count[0]) return false;
    *ret_count = count[0];
    return true;
}

struct merge_norms *merge_norms_new(struct merge_member *const *members, const struct merge_problem *p)
{
    struct merge_norms *n = xnew(struct merge_norms);
    *n = (struct merge_norms){.n_slots = p->n_slots, .n_members = p->n_members, .members = members, .at = xnewn(int64_t, (size_t)p->n_slots * (size_t)p->n_members * PARTS),
                              .count = xnewn(int64_t, p->n_slots)};
    for (int s = 0; s < p->n_slots; s++) {
        int64_t count = 0, one = 0;
        bool all = true;
        for (int i = 0; i < p->n_members && all; i++) {
            if (p->slots[s].value[i] < 0) continue;
            all = find(members[i], p->slots[s].value[i], place(n, s, i), &one) && (!count || one == count);
            count = one;
        }
        n->count[s] = all ? count : 0;
    }
    return n;
}

void merge_norms_free(struct merge_norms **at)
{
    struct merge_norms *n = *at;
    if (!n) return;
    free(n->at);
    free(n->count);
    free(n);
    *at = NULL;
}

bool merge_norms_has(const struct merge_norms *n, int slot)
{
    return n->count[slot] > 0;
}

/* Of one number of one part: the mean over the users, or one user's, for all. */
static void level(struct merge_norms *n, int slot, const bool *users, int part, int from)
{
    for (int64_t c = 0; c < n->count[slot]; c++) {
        double sum = 0;
        int k = 0;
        for (int i = 0; i < n->n_members; i++) {
            if (from >= 0 ? i != from : !users[i]) continue;
            sum += (double)n->members[i]->values[place(n, slot, i)[part] + c];
            k++;
        }
        for (int i = 0; i < n->n_members; i++)
            if (users[i]) n->members[i]->values[place(n, slot, i)[part] + c] = (float)(sum / MAX(k, 1));
    }
}

static int first_of(const struct merge_norms *n, const bool *users)
{
    int i = 0;
    while (i < n->n_members && !users[i]) i++;
    return i < n->n_members ? i : -1;
}

void merge_norms_begin(struct merge_norms *n, int slot, const bool *users, int from)
{
    for (int part = 0; part < PARTS; part++) level(n, slot, users, part, from);
}

void merge_norms_gradients(struct merge_norms *n, int slot, const bool *users, const double *weights)
{
    for (int part = SCALE; part <= SHIFT; part++)
        for (int64_t c = 0; c < n->count[slot]; c++) {
            float sum = 0;
            for (int i = 0; i < n->n_members; i++)
                if (users[i]) sum += (float)weights[i] * n->members[i]->grads[place(n, slot, i)[part] + c];
            for (int i = 0; i < n->n_members; i++)
                if (users[i]) n->members[i]->grads[place(n, slot, i)[part] + c] = sum;
        }
}

void merge_norms_common(struct merge_norms *n, int slot, const bool *users)
{
    for (int part = 0; part < PARTS; part++) level(n, slot, users, part, part <= SHIFT ? first_of(n, users) : -1);
}

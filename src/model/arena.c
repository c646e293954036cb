/* Offsets in the arena from lifetimes.
 *
 * Slots are placed from the largest to the smallest, each at the lowest offset where it overlaps no placed slot that lives
 * at the same time (greedy by size: Pisarchyk and Lee, 'Efficient Memory Management for Deep Neural Net Inference', 2020, section 5).
 * The lower bound is the largest sum of slots alive at one step. Quadratic in the number of slots; a network has hundreds.
 *
 * Invariant: two slots whose lifetimes [first, last] meet do not share a byte. SPDX-License-Identifier: Apache-2.0 */
#include "model/plan.h"

#include <stdlib.h>

enum { ALIGN = 64 };

static int larger_first(const void *a, const void *b)
{
    const struct model_slot *x = *(struct model_slot *const *)a, *y = *(struct model_slot *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return x < y ? -1 : x > y;
}

static bool meet(const struct model_slot *a, const struct model_slot *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static int by_offset(const void *a, const void *b)
{
    const struct model_slot *x = *(struct model_slot *const *)a, *y = *(struct model_slot *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* `placed` is sorted by offset. */
static size_t lowest_gap(struct model_slot *const *placed, size_t n, const struct model_slot *s)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (!meet(placed[i], s)) continue;
        if (at + s->bytes <= placed[i]->offset) break;
        at = MAX(at, placed[i]->offset + placed[i]->bytes);
    }
    return at;
}

err model_arena_layout(struct model_plan *p)
{
    struct model_slot **order = xnewn(struct model_slot *, p->n_slots), **placed = xnewn(struct model_slot *, p->n_slots);
    size_t total = 0;
    for (size_t i = 0; i < p->n_slots; i++) {
        if (p->slots[i].external) p->slots[i].bytes = 0;
        p->slots[i].bytes = (p->slots[i].bytes + ALIGN - 1) / ALIGN * ALIGN;
        order[i] = &p->slots[i];
    }
    qsort(order, p->n_slots, sizeof *order, larger_first);
    for (size_t i = 0; i < p->n_slots; i++) {
        order[i]->offset = lowest_gap(placed, i, order[i]);
        total = MAX(total, order[i]->offset + order[i]->bytes);
        placed[i] = order[i];
        qsort(placed, i + 1, sizeof *placed, by_offset);
    }
    size_t most = 0;
    for (int step = -1; step <= (int)p->n_steps; step++) {
        size_t live = 0;
        for (size_t i = 0; i < p->n_slots; i++)
            if (p->slots[i].first <= step && step <= p->slots[i].last) live += p->slots[i].bytes;
        most = MAX(most, live);
    }
    free(order);
    free(placed);
    p->sizes.activations = total;
    p->sizes.activations_lower_bound = most;
    return ERR_OK;
}

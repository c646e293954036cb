/* See names.h. Invariant: at most half of the slots are taken, so a search ends. SPDX-License-Identifier:
 * Apache-2.0 */
#include "graph/names.h"

#include <stdlib.h>
#include <string.h>

static struct graph_name *slot(const struct graph_names *t, const char *s)
{
    size_t i = hash64(s, strlen(s), t->seed) & (t->cap - 1);
    while (t->slots[i].s && strcmp(t->slots[i].s, s) != 0) i = (i + 1) & (t->cap - 1);
    return &t->slots[i];
}

static void grow(struct graph_names *t)
{
    struct graph_names old = *t;
    if (!t->cap) t->seed = (uint64_t)clock_ns() ^ (uint64_t)(uintptr_t)t;
    t->cap = t->cap ? t->cap * 2 : 64;
    t->slots = xnewn(struct graph_name, t->cap);
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].s) *slot(t, old.slots[i].s) = old.slots[i];
    free(old.slots);
}

bool graph_names_add(struct graph_names *t, const char *s, int value)
{
    if (t->n * 2 >= t->cap) grow(t);
    struct graph_name *p = slot(t, s);
    if (p->s) return false;
    *p = (struct graph_name){s, value};
    t->n++;
    return true;
}

int graph_names_find(const struct graph_names *t, const char *s)
{
    if (!t->cap) return -1;
    const struct graph_name *p = slot(t, s);
    return p->s ? p->value : -1;
}

void graph_names_done(struct graph_names *t)
{
    free(t->slots);
    *t = (struct graph_names){0};
}

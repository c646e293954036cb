/* Batches of P classes with K samples each, which losses over pairs need. Classes come in a drawn order, all (but what fills no batch) once before one comes again;
 * so do the samples of a class. A function of (seed, epoch, position), like every order here. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_sample.h"

#include <stdlib.h>

static int64_t sample_at(const struct train_data_options *o, int64_t i)
{
    return o->samples ? o->samples[i] : i;
}

err data_groups_make(const struct train_set *set, const struct train_data_options *o, struct mem_payer *payer, struct data_groups *ret)
{
    int64_t n = o->samples ? o->n_samples : train_set_count(set), at = 0;
    int classes = train_set_classes(set);
    struct data_groups g = {0};
    int64_t *count = xnewn(int64_t, (size_t)classes + 1);
    err e = mem_alloc(payer, MEM_TRAINING, ((size_t)n + 1) * sizeof *g.first, (void **)&g.first);
    if (!e) e = mem_alloc(payer, MEM_TRAINING, ((size_t)n + 1) * sizeof *g.members, (void **)&g.members);
    if (e) {
        data_groups_done(payer, &g, n);
        free(count);
        return e;
    }
    for (int64_t i = 0; i < n; i++) count[train_set_label(set, sample_at(o, i))]++;
    for (int c = 0; c < classes; c++) {
        int64_t here = count[c];
        if (here) g.first[g.n++] = at;
        count[c] = at;
        at += here;
    }
    g.first[g.n] = at;
    for (int64_t i = 0; i < n; i++) g.members[count[train_set_label(set, sample_at(o, i))]++] = i;
    free(count);
    *ret = g;
    return ERR_OK;
}

void data_groups_done(struct mem_payer *payer, struct data_groups *g, int64_t samples)
{
    if (g->first) mem_free(payer, MEM_TRAINING, g->first, ((size_t)samples + 1) * sizeof *g->first);
    if (g->members) mem_free(payer, MEM_TRAINING, g->members, ((size_t)samples + 1) * sizeof *g->members);
    *g = (struct data_groups){0};
}

int64_t data_groups_place(const struct data_groups *g, const struct train_data_options *o, int64_t epoch, int64_t position, struct data_random *again)
{
    int64_t each = o->batch / o->per_class, in_round = g->n >= each ? g->n / each * each : g->n; /* no class twice in a batch, if there are as many */
    int64_t slot = position / o->per_class, round = slot / in_round;
    int64_t group = data_order(o->seed ^ ((uint64_t)round << 20) ^ 0x9a0, epoch, slot % in_round, g->n);
    int64_t k = o->per_class, count = g->first[group + 1] - g->first[group], in_turn = count >= k ? count / k * k : count, at = round * k + position % k;
    uint64_t key = o->seed ^ ((uint64_t)group << 24) ^ (uint64_t)(at / in_turn) ^ 0x9a1;
    int64_t member = again ? data_below(again, count) : data_order(key, epoch, at % in_turn, count);
    return g->members[g->first[group] + member];
}

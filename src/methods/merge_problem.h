/* What a merge may share, and what it shares: slots and configurations.
 *
 * A *slot* is one layer of equal architecture in several members: the k-th layer of a group (merge_estimate.h) in member A goes with the k-th in member B,
 * as in GEMEL (Padmanabhan et al., NSDI 2023, section 5.1). What is shared is the weight; biases and normalisations stay private, because they cost
 * nothing and are what lets one weight serve several tasks. A *configuration* says for each slot which members use one copy.
 *
 *     merge_problem_new(graphs...)  ->  slots, heaviest first      merge_config_new, merge_config_on, merge_config_saved
 *
 * Weights that are equal already cost nothing and save nothing: they are counted apart (`equal_bytes`).
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "methods/merge_estimate.h"

struct merge_slot {
    char *what;       /* the layer's architecture, as in merge_estimate.h */
    int group, nth;
    uint64_t bytes;   /* of the weight */
    int n;            /* members that have it: 2 or more */
    int *value;       /* [member]: the weight's number in the member's graph; -1: it has none */
    double depth;     /* mean over its members: 0 the input, 1 the output */
    bool foreign;     /* set by merge_search: its members' own filters have nothing in common */
};
struct merge_problem {
    int n_members, n_slots;
    char **names;
    struct merge_slot *slots; /* by bytes * (n - 1), heaviest first; equal ones by depth, deepest first */
    uint64_t bytes;           /* of all weights and biases of layers, in all members */
    uint64_t most_bytes;      /* what sharing every slot would save */
    uint64_t equal_bytes;     /* of weights: copies that were equal before */
};
/* Graphs as read from their files, not needed afterwards. ERR_USAGE: fewer than two members; ERR_NOT_FOUND: no layer in common. */
err merge_problem_new(const struct graph *const *graphs, const char *const *names, int n, struct merge_problem **ret);
void merge_problem_free(struct merge_problem **p);

/* [slot * n_members + member]: does it use the slot's common copy? A slot with one user is as good as none. */
struct merge_config {
    int n_slots, n_members;
    unsigned char *on;
};
void merge_config_init(struct merge_config *c, const struct merge_problem *p);
void merge_config_done(struct merge_config *c);
void merge_config_copy(struct merge_config *to, const struct merge_config *from);
bool merge_config_equal(const struct merge_config *a, const struct merge_config *b);
/* All members that have the slot. */
void merge_config_share(struct merge_config *c, const struct merge_problem *p, int slot);
bool merge_config_on(const struct merge_config *c, int slot, int member);
void merge_config_set(struct merge_config *c, int slot, int member, bool on);
/* How many members use it. */
int merge_config_users(const struct merge_config *c, int slot);
/* Bytes that it saves, by weights alone. */
uint64_t merge_config_saved(const struct merge_config *c, const struct merge_problem *p);
/* Members that share, through any chain of slots, with a member of `with` (which is changed). */
void merge_config_close(const struct merge_config *c, bool *with);

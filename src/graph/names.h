/* From names to numbers: an open-addressing table over strings that somebody else keeps. The seed is different in
 * every process, so that a file cannot be made whose names all collide. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"

struct graph_names {
    size_t n, cap; /* cap is a power of two, or 0 */
    struct graph_name {
        const char *s;
        int value;
    } *slots;
    uint64_t seed;
};
/* False (and no change) if the name is there already. `s` must outlive the table. */
bool graph_names_add(struct graph_names *t, const char *s, int value);
/* The number, or -1. */
int graph_names_find(const struct graph_names *t, const char *s);
void graph_names_done(struct graph_names *t);

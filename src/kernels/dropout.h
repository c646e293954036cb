/* What a DropoutBy drops (op/gradient.c): a pure function of the draw (seed, update, run), the node and the number of the element. So nothing is kept from the
 * forward pass to the gradient, which asks again; threads may share the work in any way; and a job that goes on, or computes something again, gets the same bits.
 *
 * Random numbers are Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011): key = seed, counter = (block, update, node, run). A block gives
 * four words of 32 bits. Elements are taken in groups of 64: element i has word i / 16 % 4 of block i / 64 * 16 + i % 16, so that 16 blocks side by side in
 * vectors give their words in the order of the elements. It is dropped if its word is below ratio * 2^32. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/kernel.h"

enum { KERNEL_DROPOUT_GROUP = 64, KERNEL_DROPOUT_BLOCKS = 16, KERNEL_PHILOX_ROUNDS = 10 };
#define KERNEL_PHILOX_M0 0xD2511F53u
#define KERNEL_PHILOX_M1 0xCD9E8D57u
#define KERNEL_PHILOX_W0 0x9E3779B9u
#define KERNEL_PHILOX_W1 0xBB67AE85u

struct kernel_dropout {
    uint32_t key[2], update, node, run;
    uint32_t below;  /* words below are dropped */
    bool all;        /* ratio 1: nothing is kept */
    double scale;
};

/* `draw`: the operator's second input, its numbers side by side. */
static inline struct kernel_dropout kernel_dropout_of(const struct op_node *n, const int64_t *draw)
{
    double ratio = (double)op_attr_float(n, "ratio", 0);
    bool all = !(ratio < 1);
    return (struct kernel_dropout){.key = {(uint32_t)draw[0], (uint32_t)((uint64_t)draw[0] >> 32)}, .update = (uint32_t)draw[1], .run = (uint32_t)draw[2],
                                   .node = (uint32_t)op_attr_int(n, "node", 0), .below = all ? 0 : (uint32_t)(ratio * 4294967296.0), .all = all,
                                   .scale = all ? 0 : 1 / (1 - ratio)};
}

static inline void kernel_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t ret[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < KERNEL_PHILOX_ROUNDS; round++, k0 += KERNEL_PHILOX_W0, k1 += KERNEL_PHILOX_W1) {
        uint64_t a = (uint64_t)KERNEL_PHILOX_M0 * c0, b = (uint64_t)KERNEL_PHILOX_M1 * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
    }
    ret[0] = c0;
    ret[1] = c1;
    ret[2] = c2;
    ret[3] = c3;
}

/* The words of elements 64 group .. 64 group + 63. */
static inline void kernel_dropout_words(const struct kernel_dropout *d, int64_t group, uint32_t ret[KERNEL_DROPOUT_GROUP])
{
    for (int k = 0; k < KERNEL_DROPOUT_BLOCKS; k++) {
        uint32_t counter[4] = {(uint32_t)(group * KERNEL_DROPOUT_BLOCKS + k), d->update, d->node, d->run}, words[4];
        kernel_philox(counter, d->key, words);
        for (int w = 0; w < 4; w++) ret[w * KERNEL_DROPOUT_BLOCKS + k] = words[w];
    }
}

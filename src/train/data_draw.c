/* Chance without a state: every number is a hash of (seed, epoch, position, purpose, how many were drawn before), so it does not matter which
 * thread draws it or when. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_sample.h"

/* SplitMix64's finaliser (Steele, Lea, Flood, 2014). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

struct data_random data_random_of(uint64_t seed, int64_t epoch, int64_t position, uint64_t purpose)
{
    uint64_t s = mix(seed + 0x9e3779b97f4a7c15u);
    s = mix(s ^ mix((uint64_t)epoch + 0x632be59bd9b4e019u));
    s = mix(s ^ mix((uint64_t)position + 0xd1342543de82ef95u));
    return (struct data_random){mix(s ^ mix(purpose + 1))};
}

uint64_t data_bits(struct data_random *r)
{
    return mix(r->state += 0x9e3779b97f4a7c15u);
}

double data_uniform(struct data_random *r, double low, double high)
{
    return low + (high - low) * ((double)(data_bits(r) >> 11) / 9007199254740992.0);
}

/* Draws in any case, so that what follows does not depend on the chance. */
bool data_chance(struct data_random *r, double chance)
{
    return data_uniform(r, 0, 1) < chance;
}

int64_t data_below(struct data_random *r, int64_t n)
{
    return (int64_t)((unsigned __int128)data_bits(r) * (uint64_t)n >> 64);
}

/* A Feistel network over the smallest even number of bits that holds n, walked until it lands below n (Black and Rogaway, 2002). */
int64_t data_order(uint64_t seed, int64_t epoch, int64_t position, int64_t n)
{
    int half = 1;
    while (((uint64_t)1 << (2 * half)) < (uint64_t)n) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1, x = (uint64_t)position, key = mix(seed ^ mix((uint64_t)epoch + 0xa0761d6478bd642fu));
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < 6; round++) {
            uint64_t next = left ^ (mix(key + right * 0x9e3779b97f4a7c15u + (round << 56)) & mask);
            left = right;
            right = next;
        }
        x = left << half | right;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}

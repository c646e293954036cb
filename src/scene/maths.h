/* Inside the room: vectors, own sine, own generator, value noise. Only + - * / sqrt floor, in a fixed order, so that
 * every machine gets the same bits. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <math.h>
#include <stdint.h>

#define SCENE_PI 3.14159265f

struct v3 {
    float x, y, z;
};
#define V3(x, y, z) ((struct v3){(x), (y), (z)})

static inline struct v3 v3_add(struct v3 a, struct v3 b)
{
    return V3(a.x + b.x, a.y + b.y, a.z + b.z);
}
static inline struct v3 v3_sub(struct v3 a, struct v3 b)
{
    return V3(a.x - b.x, a.y - b.y, a.z - b.z);
}
static inline struct v3 v3_scale(struct v3 a, float k)
{
    return V3(a.x * k, a.y * k, a.z * k);
}
static inline struct v3 v3_mul(struct v3 a, struct v3 b)
{
    return V3(a.x * b.x, a.y * b.y, a.z * b.z);
}
static inline struct v3 v3_madd(struct v3 a, struct v3 b, float k) /* a + k b */
{
    return V3(a.x + b.x * k, a.y + b.y * k, a.z + b.z * k);
}
static inline float v3_dot(struct v3 a, struct v3 b)
{
    return a.x * b.x + a.y * b.y + a.z * b.z;
}
static inline struct v3 v3_cross(struct v3 a, struct v3 b)
{
    return V3(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x);
}
static inline float v3_length(struct v3 a)
{
    return sqrtf(v3_dot(a, a));
}
static inline struct v3 v3_unit(struct v3 a)
{
    float n = v3_length(a);
    return n > 1e-12f ? v3_scale(a, 1 / n) : V3(0, 0, 1);
}
static inline struct v3 v3_mix(struct v3 a, struct v3 b, float t)
{
    return v3_madd(a, v3_sub(b, a), t);
}
static inline float mixf(float a, float b, float t)
{
    return a + (b - a) * t;
}
static inline float clampf(float x, float lo, float hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}
static inline float smooth(float lo, float hi, float x) /* 0 below lo, 1 above hi */
{
    float t = clampf((x - lo) / (hi - lo), 0, 1);
    return t * t * (3 - 2 * t);
}

/* To 2e-4, from additions and products only. */
static inline float sin_of(float x)
{
    x = x * (1 / (2 * SCENE_PI));
    x = x - floorf(x + 0.5f); /* -0.5 to 0.5 of a turn */
    float y = 8 * x - 16 * x * (x < 0 ? -x : x);
    return y + 0.224f * (y * (y < 0 ? -y : y) - y);
}
static inline float cos_of(float x)
{
    return sin_of(x + SCENE_PI / 2);
}
/* To 0.01 radians. */
static inline float angle_of(float y, float x)
{
    float ax = x < 0 ? -x : x, ay = y < 0 ? -y : y;
    if (ax + ay < 1e-9f) return 0;
    float z = ax > ay ? ay / ax : ax / ay;
    float a = z * (SCENE_PI / 4 + 0.273f * (1 - z));
    if (ay > ax) a = SCENE_PI / 2 - a;
    if (x < 0) a = SCENE_PI - a;
    return y < 0 ? -a : a;
}

struct rng {
    uint64_t state;
};
static inline uint32_t rng_next(struct rng *r) /* SplitMix64 (Steele, Lea, Flood 2014), the upper half */
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}
static inline float rng_unit(struct rng *r)
{
    return (float)(rng_next(r) >> 8) * (1.0f / 16777216);
}
static inline float rng_range(struct rng *r, float lo, float hi)
{
    return lo + (hi - lo) * rng_unit(r);
}
static inline int rng_below(struct rng *r, int n)
{
    return (int)(((uint64_t)rng_next(r) * (uint64_t)n) >> 32);
}

static inline float hash_unit(int x, int y, int seed) /* 0 to 1 for a grid point */
{
    uint32_t h = (uint32_t)x * 0x8da6b343u ^ (uint32_t)y * 0xd8163841u ^ (uint32_t)seed * 0xcb1ab31fu;
    h = (h ^ (h >> 15)) * 0x2c1b3c6du;
    h = (h ^ (h >> 12)) * 0x297a2d39u;
    return (float)((h ^ (h >> 15)) >> 8) * (1.0f / 16777216);
}
static inline float noise2(float x, float y, int seed) /* value noise, 0 to 1, one cell per unit */
{
    float fx = floorf(x), fy = floorf(y);
    int ix = (int)fx, iy = (int)fy;
    float tx = x - fx, ty = y - fy;
    tx = tx * tx * (3 - 2 * tx), ty = ty * ty * (3 - 2 * ty);
    return mixf(mixf(hash_unit(ix, iy, seed), hash_unit(ix + 1, iy, seed), tx),
                mixf(hash_unit(ix, iy + 1, seed), hash_unit(ix + 1, iy + 1, seed), tx), ty);
}
static inline float fbm2(float x, float y, int octaves, int seed) /* 0 to 1 */
{
    float sum = 0, amp = 0.5f, all = 0;
    for (int i = 0; i < octaves; i++) {
        sum += amp * noise2(x, y, seed + i);
        all += amp;
        amp *= 0.5f, x = x * 2.03f + 17.1f, y = y * 2.03f + 5.7f;
    }
    return sum / all;
}

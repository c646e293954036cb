/* People and bicycles.
 *
 * A figure is a pelvis, a torso of elliptic rings, a head, and four limbs of two bones that swing in the walker's
 * plane. The gait follows the usual curves (hip a sine, the knee bends while its leg swings forwards), the pelvis
 * bobs twice a step and arms go against legs. Sizes are for 1.75 m and scale with the height.
 * SPDX-License-Identifier: Apache-2.0 */
#include "scene/mesh.h"

#include "base/base.h"

const struct named_colour scene_clothes[CLOTHES_COLOURS] = {
    {"black", {0.018f, 0.018f, 0.02f}}, {"white", {0.62f, 0.62f, 0.6f}},      {"grey", {0.16f, 0.165f, 0.17f}},
    {"red", {0.46f, 0.03f, 0.03f}},     {"dark blue", {0.02f, 0.04f, 0.14f}}, {"blue", {0.06f, 0.2f, 0.52f}},
    {"green", {0.04f, 0.24f, 0.08f}},   {"yellow", {0.68f, 0.5f, 0.04f}},     {"brown", {0.15f, 0.075f, 0.035f}},
    {"pink", {0.6f, 0.2f, 0.3f}},       {"purple", {0.17f, 0.05f, 0.27f}},    {"beige", {0.44f, 0.36f, 0.24f}}};
const struct named_colour scene_hairs[HAIR_COLOURS] = {{"black", {0.012f, 0.011f, 0.011f}},
                                                       {"brown", {0.06f, 0.03f, 0.016f}},
                                                       {"blond", {0.38f, 0.26f, 0.1f}},
                                                       {"grey", {0.32f, 0.32f, 0.32f}},
                                                       {"red", {0.24f, 0.07f, 0.02f}}};
static const struct v3 skins[SKINS] = {
    {0.62f, 0.4f, 0.3f}, {0.52f, 0.31f, 0.21f}, {0.36f, 0.2f, 0.12f}, {0.2f, 0.1f, 0.06f}, {0.1f, 0.052f, 0.034f}};

struct body {
    struct mesh *m;
    const struct scene_looks *l;
    float k;       /* scale */
    struct v3 hip; /* the pelvis' middle */
    float lean;
};

static struct v3 down(float angle)
{
    return V3(sin_of(angle), 0, -cos_of(angle));
}

static void leg(const struct body *b, float side, float hip, float knee)
{
    const struct scene_looks *l = b->l;
    float k = b->k, w = k * l->build;
    struct v3 p = V3(b->hip.x, side * 0.088f * w, b->hip.z), q = v3_madd(p, down(hip), 0.43f * k),
              r = v3_madd(q, down(hip - knee), 0.42f * k);
    struct v3 cloth = scene_clothes[l->bottom].c, skin = skins[l->skin];
    scene_mesh_limb(b->m, v3_madd(p, down(hip), -0.03f * k), v3_madd(q, down(hip), 0.02f * k), 0.088f * w, 0.062f * w,
                    8, l->skirt ? skin : cloth);
    bool bare = l->shorts || l->skirt;
    scene_mesh_limb(b->m, q, r, 0.06f * w * (bare ? 0.9f : 1.05f), bare ? 0.037f * w : 0.052f * w, 8,
                    bare ? skin : cloth);
    struct v3 fwd = v3_unit(V3(cos_of(hip - knee), 0, 0.55f * sin_of(hip - knee))), up = V3(-fwd.z, 0, fwd.x);
    struct v3 heel = v3_madd(v3_madd(r, fwd, -0.06f * k), up, -0.03f * k),
              shoe = l->paint & 1 ? V3(0.035f, 0.03f, 0.03f) : V3(0.42f, 0.42f, 0.42f);
    if (l->paint & 2) shoe = V3(0.09f, 0.05f, 0.03f);
    struct mesh_ring foot[4];
    static const float at[] = {0, 0.07f, 0.19f, 0.265f}, high[] = {0.045f, 0.055f, 0.035f, 0.02f},
                       wide[] = {0.036f, 0.042f, 0.047f, 0.03f};
    for (int i = 0; i < 4; i++)
        foot[i] = (struct mesh_ring){v3_madd(v3_madd(heel, fwd, at[i] * k), up, (high[i] - 0.05f) * k),
                                     v3_scale(up, high[i] * k), V3(0, wide[i] * k, 0), shoe};
    scene_mesh_tube(b->m, foot, 4, 8, MESH_MATT);
}

static void arm(const struct body *b, float side, float shoulder, float elbow)
{
    const struct scene_looks *l = b->l;
    float k = b->k, w = k * l->build, up = 0.5f * k, s = sin_of(b->lean), c = cos_of(b->lean);
    struct v3 p = V3(b->hip.x + s * up, side * 0.2f * w, b->hip.z + c * up);
    struct v3 out = V3(0, side * 0.12f, 0), d1 = v3_unit(v3_add(down(shoulder), out)),
              d2 = v3_unit(v3_add(down(shoulder + elbow), v3_scale(out, 0.2f)));
    struct v3 q = v3_madd(p, d1, 0.29f * k), r = v3_madd(q, d2, 0.25f * k);
    struct v3 cloth = scene_clothes[l->top].c, skin = skins[l->skin];
    scene_mesh_ball(b->m, p, V3(0.055f * w, 0.055f * w, 0.05f * w), -1, 0, cloth);
    if (l->jacket) {
        scene_mesh_limb(b->m, p, q, 0.055f * w, 0.05f * w, 8, cloth);
        scene_mesh_limb(b->m, v3_madd(q, d1, -0.02f * k), r, 0.05f * w, 0.042f * w, 8, cloth);
    } else {
        struct v3 mid = v3_mix(p, q, 0.62f);
        scene_mesh_limb(b->m, p, mid, 0.054f * w, 0.053f * w, 8, cloth);
        scene_mesh_limb(b->m, mid, q, 0.044f * w, 0.038f * w, 8, skin);
        scene_mesh_limb(b->m, v3_madd(q, d1, -0.015f * k), r, 0.039f * w, 0.028f * w, 8, skin);
    }
    scene_mesh_ball(b->m, v3_madd(r, d2, 0.06f * k), V3(0.035f * k, 0.022f * k, 0.07f * k), -1, 0, skin);
}

static struct mesh_ring slice(const struct body *b, float up, float deep, float wide, struct v3 colour, float forward)
{
    float s = sin_of(b->lean), c = cos_of(b->lean), k = b->k, w = k * b->l->build;
    return (struct mesh_ring){V3(b->hip.x + s * up * k + c * forward * k, 0, b->hip.z + c * up * k - s * forward * k),
                              V3(c * deep * w, 0, -s * deep * w), V3(0, wide * w, 0), colour};
}

static void torso(const struct body *b)
{
    const struct scene_looks *l = b->l;
    struct v3 top = scene_clothes[l->top].c, low = scene_clothes[l->bottom].c, skin = skins[l->skin];
    struct mesh_ring hips[4] = {slice(b, -0.1f, 0.095f, 0.14f, low, 0), slice(b, 0, 0.118f, 0.168f, low, -0.01f),
                                slice(b, 0.08f, 0.11f, 0.158f, low, 0), slice(b, 0.14f, 0.1f, 0.145f, low, 0)};
    if (!l->skirt)
        scene_mesh_tube(b->m, hips, 4, 12, MESH_MATT);
    else {
        struct mesh_ring skirt[4] = {slice(b, -0.42f, 0.175f, 0.215f, low, 0.02f),
                                     slice(b, -0.2f, 0.15f, 0.195f, low, 0.01f), hips[1], hips[3]};
        scene_mesh_tube(b->m, skirt, 4, 12, MESH_MATT);
    }
    float hem = l->jacket ? -0.04f : 0.05f, thick = l->jacket ? 1.1f : 1;
    struct mesh_ring up[7] = {slice(b, hem, 0.122f * thick, 0.172f * thick, top, 0),
                              slice(b, 0.16f, 0.104f * thick, 0.15f * thick, top, 0),
                              slice(b, 0.3f, 0.118f * thick, 0.17f * thick, top, 0.005f),
                              slice(b, 0.43f, 0.12f * thick, 0.188f, top, 0),
                              slice(b, 0.51f, 0.1f, 0.19f, top, 0),
                              slice(b, 0.555f, 0.075f, 0.14f, top, 0),
                              slice(b, 0.585f, 0.055f, 0.07f, top, 0.005f)};
    scene_mesh_tube(b->m, up, 7, 12, MESH_MATT);
    struct mesh_ring neck[2] = {slice(b, 0.56f, 0.05f, 0.052f, skin, 0.01f),
                                slice(b, 0.68f, 0.047f, 0.047f, skin, 0.02f)};
    scene_mesh_tube(b->m, neck, 2, 8, MESH_MATT);
    if (l->backpack) {
        struct v3 bag = scene_clothes[(l->top + 4 + l->hair) % CLOTHES_COLOURS].c;
        struct mesh_ring pack[4] = {
            slice(b, 0.1f, 0.06f, 0.12f, bag, -0.2f), slice(b, 0.18f, 0.085f, 0.14f, bag, -0.2f),
            slice(b, 0.42f, 0.075f, 0.13f, bag, -0.19f), slice(b, 0.5f, 0.04f, 0.09f, bag, -0.17f)};
        scene_mesh_tube(b->m, pack, 4, 10, MESH_MATT);
    }
}

static void head(const struct body *b)
{
    const struct scene_looks *l = b->l;
    float k = b->k;
    struct mesh_ring at = slice(b, 0.775f, 0.1f, 0.1f, V3(0, 0, 0), 0.03f);
    struct v3 c = at.centre, hair = scene_hairs[l->hair].c, skin = skins[l->skin];
    scene_mesh_ball(b->m, c, V3(0.092f * k, 0.074f * k, 0.118f * k), -1, 0.06f, skin);
    scene_mesh_ball(b->m, V3(c.x + 0.09f * k, c.y, c.z - 0.015f * k), V3(0.018f * k, 0.014f * k, 0.025f * k), -1, 0,
                    v3_scale(skin, 0.9f)); /* nose */
    for (int e = -1; e <= 1; e += 2)
        scene_mesh_ball(b->m, V3(c.x + 0.078f * k, 0.032f * k * (float)e, c.z + 0.018f * k),
                        V3(0.014f * k, 0.016f * k, 0.009f * k), -1, 0, V3(0.03f, 0.025f, 0.02f));
    if (l->cap) {
        struct v3 cap = scene_clothes[(l->top + 3) % CLOTHES_COLOURS].c;
        scene_mesh_ball(b->m, V3(c.x, 0, c.z + 0.02f * k), V3(0.1f * k, 0.083f * k, 0.11f * k), 0.25f, 0, cap);
        scene_mesh_ball(b->m, V3(c.x + 0.1f * k, 0, c.z + 0.05f * k), V3(0.075f * k, 0.065f * k, 0.012f * k), -1, 0,
                        cap);
    } else if (!l->bald) {
        scene_mesh_ball(b->m, V3(c.x - 0.016f * k, 0, c.z + 0.016f * k), V3(0.1f * k, 0.085f * k, 0.122f * k), 0.3f,
                        -0.35f, hair);
        scene_mesh_ball(b->m, V3(c.x - 0.04f * k, 0, c.z + 0.01f * k), V3(0.072f * k, 0.08f * k, 0.105f * k), -0.9f,
                        0, hair);
    }
    if (l->long_hair && !l->bald)
        scene_mesh_ball(b->m, V3(c.x - 0.065f * k, 0, c.z - 0.09f * k), V3(0.05f * k, 0.078f * k, 0.16f * k), -1,
                        0.1f, hair);
}

void scene_figure(struct mesh *m, const struct scene_looks *l, enum figure_pose pose, float phase, float sway)
{
    int first = m->nv;
    struct body b = {m, l, l->height / 1.75f, {0, 0, 0}, 0.03f};
    float s = sin_of(phase), c = cos_of(phase);
    if (pose == FIGURE_RIDE) {
        b.hip = V3(-0.2f, 0, 0.97f);
        b.lean = 0.5f;
        for (int e = -1; e <= 1; e += 2) {
            float hip = 0.95f + 0.36f * s * (float)e, knee = 1.12f + 0.42f * (s * (float)e) + 0.25f * c * (float)e;
            leg(&b, (float)e, hip, knee);
            arm(&b, (float)e, 0.78f, 0.3f);
        }
    } else if (pose == FIGURE_WALK) {
        b.hip = V3(0, 0, (0.905f + 0.02f * cos_of(2 * phase)) * b.k);
        for (int e = -1; e <= 1; e += 2) {
            float f = (float)e, swing = 0.46f * s * f, lift = c * f; /* the leg that moves forwards bends */
            leg(&b, f, swing + 0.04f, 0.1f + 0.85f * (lift > 0 ? lift * lift : 0) + 0.1f * (s * f < 0 ? -s * f : 0));
            arm(&b, f, -0.42f * s * f, 0.22f + 0.2f * (s * f < 0 ? -s * f : 0));
        }
    } else {
        b.hip = V3(0, 0.012f * sway, 0.92f * b.k);
        leg(&b, 1, 0.03f, 0.06f), leg(&b, -1, -0.02f, 0.03f);
        arm(&b, 1, 0.06f + 0.04f * sway, 0.18f);
        arm(&b, -1, l->hair & 1 ? 0.35f : 0.02f, l->hair & 1 ? 1.9f : 0.15f); /* some look at a phone */
    }
    torso(&b);
    head(&b);
    for (int i = first; i < m->nv; i++) /* whoever is low on the figure sees less sky: a cheap contact shade */
        m->v[i].colour = v3_scale(m->v[i].colour, 0.8f + 0.2f * smooth(0, 1.1f, m->v[i].p.z));
}

void scene_bicycle(struct mesh *m, const struct scene_looks *l, float phase)
{
    struct v3 paint = scene_paints[l->paint].c, dark = V3(0.02f, 0.02f, 0.022f);
    for (int e = -1; e <= 1; e += 2) {
        enum { N = 16 };
        struct v3 c = V3(0.53f * (float)e, 0, 0.34f), last = V3(c.x + 0.325f, 0, c.z);
        for (int i = 1; i <= N; i++) {
            float a = (float)i * (2 * SCENE_PI / N);
            struct v3 p = V3(c.x + 0.325f * cos_of(a), 0, c.z + 0.325f * sin_of(a));
            struct v3 mid = v3_mix(last, p, 0.5f), r = v3_scale(v3_unit(v3_sub(mid, c)), 0.02f);
            struct mesh_ring ring[2] = {{last, r, V3(0, 0.018f, 0), dark}, {p, r, V3(0, 0.018f, 0), dark}};
            scene_mesh_tube(m, ring, 2, 4, MESH_MATT);
            last = p;
        }
        for (int i = 0; i < 4; i++) {
            float a = phase * 1.6f + (float)i * (SCENE_PI / 4);
            struct v3 d = V3(0.31f * cos_of(a), 0, 0.31f * sin_of(a));
            scene_mesh_limb(m, v3_sub(c, d), v3_add(c, d), 0.005f, 0.005f, 3, V3(0.3f, 0.3f, 0.3f));
        }
    }
    struct v3 rear = V3(-0.53f, 0, 0.34f), front = V3(0.53f, 0, 0.34f), crank = V3(-0.08f, 0, 0.3f),
              seat = V3(-0.22f, 0, 0.84f), stem = V3(0.36f, 0, 0.82f);
    scene_mesh_limb(m, crank, seat, 0.022f, 0.02f, 6, paint);
    scene_mesh_limb(m, crank, stem, 0.024f, 0.024f, 6, paint);
    scene_mesh_limb(m, v3_mix(crank, seat, 0.85f), v3_mix(stem, front, 0.1f), 0.022f, 0.022f, 6, paint);
    scene_mesh_limb(m, rear, crank, 0.014f, 0.016f, 5, paint);
    scene_mesh_limb(m, rear, v3_mix(crank, seat, 0.85f), 0.012f, 0.014f, 5, paint);
    scene_mesh_limb(m, stem, front, 0.02f, 0.016f, 5, paint);
    scene_mesh_limb(m, stem, V3(0.33f, 0, 1.0f), 0.017f, 0.017f, 5, dark);
    scene_mesh_limb(m, V3(0.33f, -0.27f, 1.0f), V3(0.33f, 0.27f, 1.0f), 0.016f, 0.016f, 5, dark);
    scene_mesh_limb(m, V3(-0.36f, 0, 0.89f), V3(-0.1f, 0, 0.88f), 0.06f, 0.03f, 6, dark);
    for (int e = -1; e <= 1; e += 2) {
        float s = sin_of(phase) * (float)e, c = cos_of(phase) * (float)e;
        struct v3 pedal = V3(crank.x + 0.16f * c, 0.11f * (float)e, crank.z - 0.16f * s);
        scene_mesh_limb(m, V3(crank.x, 0.06f * (float)e, crank.z), pedal, 0.013f, 0.013f, 4, dark);
    }
}

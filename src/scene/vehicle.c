/* Cars and lorries.
 *
 * A car is a sheet over cross sections along its length (sill, flank, shoulder, deck), a greenhouse of flat panes
 * with pillars between them, wheels, lamps, a grille and plates. The table says how hatchbacks, saloons and estates
 * differ. Metres; the origin is the middle on the ground, x forwards. SPDX-License-Identifier: Apache-2.0 */
#include "scene/mesh.h"

#include "base/base.h"

const struct named_colour scene_paints[PAINT_COLOURS] = {
    {"white", {0.62f, 0.62f, 0.61f}},       {"silver", {0.34f, 0.35f, 0.36f}}, {"grey", {0.1f, 0.105f, 0.11f}},
    {"black", {0.015f, 0.015f, 0.017f}},    {"red", {0.42f, 0.02f, 0.02f}},    {"blue", {0.02f, 0.09f, 0.36f}},
    {"dark green", {0.015f, 0.09f, 0.05f}}, {"yellow", {0.68f, 0.45f, 0.02f}}, {"brown", {0.13f, 0.07f, 0.035f}},
    {"light blue", {0.2f, 0.38f, 0.52f}}};
const char *const scene_vehicle_names[VEHICLE_KINDS] = {"hatchback", "saloon", "estate", "box lorry"};

static const struct shape {
    float length, half, height, belt, nose, boot;         /* heights of shoulder, bonnet's front, boot's end */
    float glass_front, roof_front, roof_rear, glass_rear; /* x */
} shapes[] = {
    [VEHICLE_HATCHBACK] = {3.9f, 0.84f, 1.48f, 0.93f, 0.72f, 0.86f, 1.02f, 0.38f, -1.38f, -1.84f},
    [VEHICLE_SALOON] = {4.6f, 0.89f, 1.45f, 0.93f, 0.70f, 0.92f, 0.98f, 0.28f, -0.92f, -1.58f},
    [VEHICLE_ESTATE] = {4.6f, 0.91f, 1.62f, 1.0f, 0.80f, 0.93f, 1.15f, 0.55f, -1.8f, -2.18f},
};

float scene_vehicle_length(enum vehicle_kind kind)
{
    return kind == VEHICLE_LORRY ? 7.2f : shapes[kind].length;
}

static void lower_body(struct mesh *m, const struct shape *s, struct v3 paint)
{
    enum { ROWS = 9, COLS = 13 };
    float e = s->length / 2;
    const float x[ROWS] = {-e,       -e + 0.08f, -e + 0.45f, s->glass_rear + 0.35f, 0, s->glass_front,
                           e - 0.5f, e - 0.1f,   e};
    const float top[ROWS] = {s->boot - 0.14f,
                             s->boot - 0.03f,
                             s->boot + 0.01f,
                             s->belt + 0.01f,
                             s->belt,
                             s->belt,
                             mixf(s->nose, s->belt, 0.45f),
                             s->nose - 0.02f,
                             s->nose - 0.13f};
    const float in[ROWS] = {0.86f, 0.93f, 0.98f, 1, 1, 1, 0.975f, 0.9f, 0.8f},
                low[ROWS] = {0.32f, 0.26f, 0.22f, 0.2f, 0.2f, 0.2f, 0.2f, 0.23f, 0.28f};
    struct v3 p[ROWS * COLS];
    for (int i = 0; i < ROWS; i++) {
        float h = s->half * in[i], t = top[i], l = low[i];
        const float y[7] = {0.9f * h, 0.975f * h, h, h, 0.975f * h, 0.88f * h, 0},
                    z[7] = {l, l + 0.1f, mixf(l, t, 0.45f), mixf(l, t, 0.72f), t - 0.06f, t, t + 0.03f};
        for (int k = 0; k < COLS; k++) {
            int j = k < 7 ? k : COLS - 1 - k;
            p[i * COLS + k] = V3(x[i], k < 7 ? y[j] : -y[j], z[j]);
        }
    }
    scene_mesh_sheet(m, p, ROWS, COLS, V3(0, 0, 0.3f), paint, MESH_PAINT);
    for (int f = -1; f <= 1; f += 2) { /* both ends, from the outline to the middle */
        const struct v3 *row = f < 0 ? p : p + (ROWS - 1) * COLS;
        for (int k = 0; k < COLS / 2; k++) {
            struct v3 q[4] = {row[k], row[k + 1], row[COLS - 2 - k], row[COLS - 1 - k]};
            scene_mesh_quad(m, q, V3((float)f, 0, 0), k == 0 ? V3(0.03f, 0.03f, 0.032f) : paint,
                            k == 0 ? MESH_MATT : MESH_PAINT);
        }
    }
}

/* The pane of a wall of the greenhouse: corners drawn in by the pillars' share and set out a little. */
static void pane(struct mesh *m, const struct v3 c[4], float from, float to, struct v3 out)
{
    struct v3 q[4];
    const float u[4] = {from, to, to, from}, v[4] = {0.06f, 0.06f, 0.9f, 0.9f};
    for (int i = 0; i < 4; i++)
        q[i] = v3_madd(v3_mix(v3_mix(c[0], c[1], u[i]), v3_mix(c[3], c[2], u[i]), v[i]), out, 0.012f);
    scene_mesh_quad(m, q, out, V3(0.012f, 0.014f, 0.017f), MESH_GLASS);
}

static void greenhouse(struct mesh *m, const struct shape *s, struct v3 paint)
{
    float b = s->half * 0.93f, r = s->half * 0.74f, z0 = s->belt - 0.02f, z1 = s->height - 0.07f;
    struct v3 fl = V3(s->glass_front, b, z0), fr = V3(s->glass_front, -b, z0), rl = V3(s->glass_rear, b * 0.96f, z0),
              rr = V3(s->glass_rear, -b * 0.96f, z0);
    struct v3 tfl = V3(s->roof_front, r, z1), tfr = V3(s->roof_front, -r, z1), trl = V3(s->roof_rear, r * 0.96f, z1),
              trr = V3(s->roof_rear, -r * 0.96f, z1);
    const struct v3 front[4] = {fr, fl, tfl, tfr}, rear[4] = {rl, rr, trr, trl}, left[4] = {rl, fl, tfl, trl},
                    right[4] = {rr, fr, tfr, trr};
    const struct v3 *walls[] = {front, rear, left, right};
    static const struct v3 out[] = {{0.8f, 0, 0.6f}, {-0.8f, 0, 0.6f}, {0, 0.95f, 0.3f}, {0, -0.95f, 0.3f}};
    for (int i = 0; i < 4; i++) {
        scene_mesh_quad(m, walls[i], out[i], paint, MESH_PAINT);
        if (i < 2)
            pane(m, walls[i], 0.06f, 0.94f, out[i]);
        else
            pane(m, walls[i], 0.08f, 0.44f, out[i]), pane(m, walls[i], 0.485f, 0.93f, out[i]);
    }
    enum { N = 5 };
    struct v3 roof[4 * N];
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < N; k++) {
            float t = (float)i / 3, y = 1 - 0.5f * (float)k, edge = (i == 0 || i == 3) ? 0.0f : 0.055f;
            roof[i * N + k] = V3(mixf(s->roof_rear, s->roof_front, t), r * y * (i == 0 ? 0.96f : 1),
                                 z1 + edge * (1 - y * y) + (i == 0 || i == 3 ? 0.02f * (1 - y * y) : 0.01f));
        }
    scene_mesh_sheet(m, roof, 4, N, V3((s->roof_front + s->roof_rear) / 2, 0, 0), paint, MESH_PAINT);
}

static void plate(struct mesh *m, float x, float y0, float y1, float z0, float z1, float out, struct v3 colour,
                  enum mesh_surface s)
{
    struct v3 q[4] = {{x, y0, z0}, {x, y1, z0}, {x, y1, z1}, {x, y0, z1}};
    scene_mesh_quad(m, q, V3(out, 0, 0), colour, s);
}

static void car(struct mesh *m, const struct scene_looks *l)
{
    const struct shape *s = &shapes[l->kind];
    struct v3 paint = scene_paints[l->paint].c, dark = V3(0.02f, 0.02f, 0.022f), hub = V3(0.3f, 0.3f, 0.31f);
    float e = s->length / 2, w = s->half;
    lower_body(m, s, paint);
    greenhouse(m, s, paint);
    for (int k = -1; k <= 1; k += 2) {
        float f = (float)k;
        for (int a = -1; a <= 1; a += 2) {
            float x = (float)a * (s->length * 0.295f);
            scene_mesh_disc(m, V3(x, f * (w + 0.006f), 0.33f), 0.375f, f, V3(0.012f, 0.012f, 0.012f));
            scene_mesh_wheel(m, V3(x, f * (w - 0.09f), 0.315f), 0.315f, 0.115f, hub);
        }
        plate(m, e + 0.012f, f * 0.36f * w / 0.85f, f * 0.76f * w, s->nose - 0.24f, s->nose - 0.1f, 1,
              V3(0.75f, 0.76f, 0.78f), MESH_HEAD_LAMP);
        plate(m, -e - 0.012f, f * 0.52f * w, f * 0.85f * w, s->boot - 0.32f, s->boot - 0.13f, -1,
              V3(0.36f, 0.01f, 0.01f), MESH_TAIL_LAMP);
        scene_mesh_block(m, V3(s->glass_front - 0.32f, f > 0 ? w * 0.96f : -w * 0.96f - 0.16f, s->belt),
                         V3(s->glass_front - 0.2f, f > 0 ? w * 0.96f + 0.16f : -w * 0.96f, s->belt + 0.12f), paint,
                         MESH_PAINT);
        for (int d = 0; d < 2; d++) { /* handles and door gaps */
            float x = d ? -0.52f : 0.42f;
            struct v3 q[4] = {{x, f * (w + 0.008f), s->belt - 0.16f},
                              {x + 0.16f, f * (w + 0.008f), s->belt - 0.16f},
                              {x + 0.16f, f * (w + 0.008f), s->belt - 0.12f},
                              {x, f * (w + 0.008f), s->belt - 0.12f}};
            scene_mesh_quad(m, q, V3(0, f, 0), v3_scale(paint, 0.35f), MESH_MATT);
            float g = d ? -0.7f : 0.2f;
            struct v3 gap[4] = {{g, f * (w + 0.005f), 0.34f},
                                {g + 0.02f, f * (w + 0.005f), 0.34f},
                                {g + 0.02f, f * (w + 0.004f), s->belt - 0.08f},
                                {g, f * (w + 0.004f), s->belt - 0.08f}};
            scene_mesh_quad(m, gap, V3(0, f, 0), v3_scale(paint, 0.25f), MESH_MATT);
        }
        struct v3 sill[4] = {{-e + 0.5f, f * (w + 0.003f), 0.2f},
                             {e - 0.6f, f * (w + 0.003f), 0.2f},
                             {e - 0.6f, f * (w + 0.003f), 0.3f},
                             {-e + 0.5f, f * (w + 0.003f), 0.3f}};
        scene_mesh_quad(m, sill, V3(0, f, 0), dark, MESH_MATT);
    }
    plate(m, e + 0.01f, -0.42f, 0.42f, s->nose - 0.38f, s->nose - 0.26f, 1, dark, MESH_MATT);
    plate(m, e + 0.016f, -0.26f, 0.26f, 0.4f - 0.06f, 0.4f + 0.05f, 1, V3(0.6f, 0.6f, 0.58f), MESH_MATT);
    plate(m, -e - 0.014f, -0.26f, 0.26f, 0.5f, 0.61f, -1, V3(0.6f, 0.6f, 0.58f), MESH_MATT);
    scene_mesh_block(m, V3(-e + 0.3f, -w + 0.25f, 0.16f), V3(e - 0.3f, w - 0.25f, 0.34f), dark, MESH_MATT);
}

static void lorry(struct mesh *m, const struct scene_looks *l)
{
    struct v3 paint = scene_paints[l->paint].c,
              box = l->skin & 1 ? V3(0.55f, 0.55f, 0.53f) : v3_mix(paint, V3(0.5f, 0.5f, 0.5f), 0.55f);
    struct v3 dark = V3(0.022f, 0.022f, 0.024f), glass = V3(0.012f, 0.014f, 0.017f);
    float w = 1.1f, fx = 3.6f, bx = 1.75f;
    scene_mesh_block(m, V3(-3.5f, -0.95f, 0.5f), V3(3.3f, 0.95f, 0.85f), dark, MESH_MATT);
    scene_mesh_block(m, V3(-3.6f, -w - 0.05f, 0.86f), V3(1.5f, w + 0.05f, 3.05f), box, MESH_PAINT);
    for (int k = -1; k <= 1; k += 2) { /* a stripe along the load */
        float y = (float)k * (w + 0.056f);
        struct v3 q[4] = {{-3.4f, y, 1.5f}, {1.3f, y, 1.5f}, {1.3f, y, 2.0f}, {-3.4f, y, 2.0f}};
        scene_mesh_quad(m, q, V3(0, (float)k, 0), paint, MESH_PAINT);
    }
    const float x[] = {bx, 3.0f, fx - 0.12f, fx, fx},
                z[] = {2.35f, 2.42f, 1.62f, 1.4f, 0.48f}; /* the cab's outline from the back over the roof */
    struct v3 p[5 * 4];
    for (int i = 0; i < 5; i++) {
        float in = i < 2 ? 0.9f : 1;
        const float y[4] = {w, w * in, -w * in, -w};
        for (int j = 0; j < 4; j++)
            p[i * 4 + j] = V3(x[i], y[j] * in, z[i] - ((j == 0 || j == 3) && i < 2 ? 0.08f : 0));
    }
    for (int i = 0; i < 4; i++) {
        struct v3 q[4] = {p[i * 4], p[i * 4 + 3], p[i * 4 + 7], p[i * 4 + 4]};
        scene_mesh_quad(m, q, V3(i ? 1 : 0, 0, i ? 0.2f : 1), paint, MESH_PAINT);
        if (i == 1) pane(m, q, 0.05f, 0.95f, V3(0.8f, 0, 0.5f));
    }
    for (int k = -1; k <= 1; k += 2) {
        float f = (float)k;
        struct v3 a[4] = {{bx, f * w, 0.5f}, {fx, f * w, 0.48f}, {fx, f * w, 1.4f}, {bx, f * w, 1.4f}};
        struct v3 b[4] = {
            {bx, f * w, 1.4f}, {fx, f * w, 1.4f}, {3.0f, f * w * 0.86f, 2.36f}, {bx, f * w * 0.86f, 2.3f}};
        scene_mesh_quad(m, a, V3(0, f, 0), paint, MESH_PAINT);
        scene_mesh_quad(m, b, V3(0, f, 0.2f), paint, MESH_PAINT);
        struct v3 g[4] = {{2.25f, f * (w + 0.012f), 1.44f},
                          {fx - 0.2f, f * (w + 0.012f), 1.44f},
                          {3.05f, f * (w * 0.88f + 0.012f), 2.2f},
                          {2.25f, f * (w * 0.88f + 0.012f), 2.2f}};
        scene_mesh_quad(m, g, V3(0, f, 0.2f), glass, MESH_GLASS);
        plate(m, fx + 0.012f, f * 0.62f, f * 1.0f, 0.62f, 0.84f, 1, V3(0.75f, 0.76f, 0.78f), MESH_HEAD_LAMP);
        plate(m, -3.62f, f * 0.7f, f * 1.05f, 0.62f, 0.8f, -1, V3(0.36f, 0.01f, 0.01f), MESH_TAIL_LAMP);
        static const float axle[] = {2.65f, -1.7f, -2.7f};
        for (int i = 0; i < 3; i++)
            scene_mesh_wheel(m, V3(axle[i], f * 0.95f, 0.47f), 0.47f, 0.16f, V3(0.25f, 0.25f, 0.26f));
        scene_mesh_block(m, V3(fx - 0.35f, f > 0 ? w : -w - 0.2f, 1.6f), V3(fx - 0.25f, f > 0 ? w + 0.2f : -w, 2.05f),
                         dark, MESH_MATT);
    }
    plate(m, fx + 0.01f, -0.55f, 0.55f, 0.9f, 1.2f, 1, dark, MESH_MATT);
    plate(m, -3.61f, -0.02f, 0.02f, 0.9f, 3.0f, -1, dark, MESH_MATT);
    struct v3 back[4] = {{bx, -w, 0.5f}, {bx, w, 0.5f}, {bx, w * 0.86f, 2.3f}, {bx, -w * 0.86f, 2.3f}};
    scene_mesh_quad(m, back, V3(-1, 0, 0), v3_scale(paint, 0.7f), MESH_MATT);
}

void scene_vehicle(struct mesh *m, const struct scene_looks *l)
{
    if (l->kind == VEHICLE_LORRY)
        lorry(m, l);
    else
        car(m, l);
}

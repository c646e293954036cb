/* Skins over rings, balls, sheets and blocks: all that figures and vehicles are made of.
 *
 * Triangles are turned so that they run counter-clockwise seen from where their vertices' normals point; the
 * rasteriser then drops back faces by the sign of the area. A mesh that would overflow drops the part: the limits are
 * far above what is built. SPDX-License-Identifier: Apache-2.0 */
#include "scene/mesh.h"

#include "base/base.h"

static bool room(const struct mesh *m, int nv, int nt)
{
    return m->nv + nv <= MESH_VERTICES && m->nt + nt <= MESH_TRIANGLES;
}

static int vertex(struct mesh *m, struct v3 p, struct v3 n, struct v3 colour, enum mesh_surface s)
{
    m->v[m->nv] = (struct mesh_vertex){p, n, colour, (uint8_t)s};
    return m->nv++;
}

static void triangle(struct mesh *m, int a, int b, int c)
{
    const struct mesh_vertex *v = m->v;
    struct v3 face = v3_cross(v3_sub(v[b].p, v[a].p), v3_sub(v[c].p, v[a].p));
    if (v3_dot(face, face) < 1e-16f) return;
    bool turn = v3_dot(face, v3_add(v[a].n, v3_add(v[b].n, v[c].n))) < 0;
    uint16_t *t = m->t[m->nt++];
    t[0] = (uint16_t)a, t[1] = (uint16_t)(turn ? c : b), t[2] = (uint16_t)(turn ? b : c);
}

void scene_mesh_tube(struct mesh *m, const struct mesh_ring *r, int n, int sides, enum mesh_surface s)
{
    if (!room(m, n * sides + 2, 2 * n * sides)) return;
    int first = m->nv;
    for (int i = 0; i < n; i++) {
        const struct mesh_ring *lo = &r[MAX(i - 1, 0)], *hi = &r[MIN(i + 1, n - 1)];
        struct v3 along = v3_unit(v3_sub(hi->centre, lo->centre));
        for (int k = 0; k < sides; k++) {
            float a = (float)k * (2 * SCENE_PI / (float)sides), c = cos_of(a), d = sin_of(a);
            struct v3 out = v3_madd(v3_scale(r[i].a, c), r[i].b, d);
            float la = v3_dot(r[i].a, r[i].a) + 1e-9f, lb = v3_dot(r[i].b, r[i].b) + 1e-9f;
            struct v3 nn = v3_unit(v3_madd(v3_scale(r[i].a, c / la), r[i].b, d / lb));
            struct v3 at_lo = v3_madd(v3_scale(lo->a, c), lo->b, d), at_hi = v3_madd(v3_scale(hi->a, c), hi->b, d);
            float len = v3_length(v3_sub(hi->centre, lo->centre)) + 1e-6f;
            float slope = (v3_dot(at_lo, nn) - v3_dot(at_hi, nn)) / len; /* narrowing turns the normal along */
            vertex(m, v3_add(r[i].centre, out), v3_unit(v3_madd(nn, along, slope)), r[i].colour, s);
        }
    }
    for (int i = 0; i + 1 < n; i++)
        for (int k = 0; k < sides; k++) {
            int a = first + i * sides + k, b = first + i * sides + (k + 1) % sides;
            triangle(m, a, b, b + sides);
            triangle(m, a, b + sides, a + sides);
        }
    struct v3 axis = v3_unit(v3_sub(r[n - 1].centre, r[0].centre));
    int c0 = vertex(m, r[0].centre, v3_scale(axis, -1), r[0].colour, s),
        c1 = vertex(m, r[n - 1].centre, axis, r[n - 1].colour, s);
    for (int k = 0; k < sides; k++) {
        int l = first + (n - 1) * sides;
        triangle(m, c0, first + k, first + (k + 1) % sides);
        triangle(m, c1, l + k, l + (k + 1) % sides);
    }
}

void scene_mesh_limb(struct mesh *m, struct v3 p, struct v3 q, float rp, float rq, int sides, struct v3 colour)
{
    struct v3 d = v3_unit(v3_sub(q, p)), side = d.y * d.y > 0.8f ? V3(1, 0, 0) : V3(0, 1, 0);
    struct v3 a = v3_unit(v3_cross(d, side)), b = v3_cross(d, a);
    struct mesh_ring r[3];
    for (int i = 0; i < 3; i++) {
        float t = 0.5f * (float)i, k = mixf(rp, rq, t) * (i == 1 ? 1.06f : 1);
        r[i] = (struct mesh_ring){v3_mix(p, q, t), v3_scale(a, k), v3_scale(b, k), colour};
    }
    scene_mesh_tube(m, r, 3, sides, MESH_MATT);
}

void scene_mesh_ball(struct mesh *m, struct v3 c, struct v3 half, float z_from, float tilt, struct v3 colour)
{
    struct mesh_ring r[7];
    float ct = cos_of(tilt), st = sin_of(tilt);
    for (int i = 0; i < 7; i++) {
        float z = mixf(z_from, 1, (float)i / 6);
        if (z < -0.98f) z = -0.98f;
        if (z > 0.97f) z = 0.97f;
        float k = sqrtf(1 - z * z);
        r[i] = (struct mesh_ring){V3(c.x + st * z * half.z, c.y, c.z + ct * z * half.z),
                                  V3(k * half.x * ct, 0, -k * half.x * st), V3(0, k * half.y, 0), colour};
    }
    scene_mesh_tube(m, r, 7, 10, MESH_MATT);
}

void scene_mesh_quad(struct mesh *m, const struct v3 c[4], struct v3 out, struct v3 colour, enum mesh_surface s)
{
    if (!room(m, 4, 2)) return;
    struct v3 n = v3_unit(v3_cross(v3_sub(c[1], c[0]), v3_sub(c[2], c[0])));
    if (v3_dot(n, out) < 0) n = v3_scale(n, -1);
    int f = m->nv;
    for (int i = 0; i < 4; i++) vertex(m, c[i], n, colour, s);
    triangle(m, f, f + 1, f + 2);
    triangle(m, f, f + 2, f + 3);
}

void scene_mesh_block(struct mesh *m, struct v3 a, struct v3 b, struct v3 colour, enum mesh_surface s)
{
    const struct v3 faces[6][4] = {{{a.x, a.y, a.z}, {a.x, b.y, a.z}, {a.x, b.y, b.z}, {a.x, a.y, b.z}},
                                   {{b.x, a.y, a.z}, {b.x, b.y, a.z}, {b.x, b.y, b.z}, {b.x, a.y, b.z}},
                                   {{a.x, a.y, a.z}, {b.x, a.y, a.z}, {b.x, a.y, b.z}, {a.x, a.y, b.z}},
                                   {{a.x, b.y, a.z}, {b.x, b.y, a.z}, {b.x, b.y, b.z}, {a.x, b.y, b.z}},
                                   {{a.x, a.y, a.z}, {b.x, a.y, a.z}, {b.x, b.y, a.z}, {a.x, b.y, a.z}},
                                   {{a.x, a.y, b.z}, {b.x, a.y, b.z}, {b.x, b.y, b.z}, {a.x, b.y, b.z}}};
    static const struct v3 out[6] = {{-1, 0, 0}, {1, 0, 0}, {0, -1, 0}, {0, 1, 0}, {0, 0, -1}, {0, 0, 1}};
    for (int i = 0; i < 6; i++) scene_mesh_quad(m, faces[i], out[i], colour, s);
}

void scene_mesh_sheet(struct mesh *m, const struct v3 *p, int rows, int cols, struct v3 inside, struct v3 colour,
                      enum mesh_surface s)
{
    if (!room(m, rows * cols, 2 * rows * cols)) return;
    int first = m->nv;
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < cols; k++) {
            struct v3 du = v3_sub(p[MIN(i + 1, rows - 1) * cols + k], p[MAX(i - 1, 0) * cols + k]);
            struct v3 dv = v3_sub(p[i * cols + MIN(k + 1, cols - 1)], p[i * cols + MAX(k - 1, 0)]);
            struct v3 n = v3_unit(v3_cross(du, dv)), c = p[i * cols + k];
            if (v3_dot(n, v3_sub(c, inside)) < 0) n = v3_scale(n, -1);
            vertex(m, c, n, colour, s);
        }
    for (int i = 0; i + 1 < rows; i++)
        for (int k = 0; k + 1 < cols; k++) {
            int a = first + i * cols + k;
            triangle(m, a, a + 1, a + cols + 1);
            triangle(m, a, a + cols + 1, a + cols);
        }
}

void scene_mesh_disc(struct mesh *m, struct v3 c, float r, float side, struct v3 colour)
{
    enum { N = 14 };
    if (!room(m, N + 1, N)) return;
    struct v3 n = V3(0, side, 0);
    int f = vertex(m, c, n, colour, MESH_MATT);
    for (int i = 0; i < N; i++) {
        float a = (float)i * (2 * SCENE_PI / N);
        vertex(m, V3(c.x + r * cos_of(a), c.y, c.z + r * sin_of(a)), n, colour, MESH_MATT);
    }
    for (int i = 0; i < N; i++) triangle(m, f, f + 1 + i, f + 1 + (i + 1) % N);
}

void scene_mesh_wheel(struct mesh *m, struct v3 c, float r, float hw, struct v3 hub)
{
    struct v3 tyre = V3(0.018f, 0.018f, 0.02f), ax = V3(r, 0, 0), az = V3(0, 0, r);
    struct mesh_ring rings[2] = {{V3(c.x, c.y - hw, c.z), ax, az, tyre}, {V3(c.x, c.y + hw, c.z), ax, az, tyre}};
    scene_mesh_tube(m, rings, 2, 14, MESH_MATT);
    for (int k = -1; k <= 1; k += 2) {
        float e = (float)k;
        scene_mesh_disc(m, V3(c.x, c.y + e * (hw + 0.004f), c.z), r * 0.64f, e, hub);
        scene_mesh_disc(m, V3(c.x, c.y + e * (hw + 0.008f), c.z), r * 0.2f, e, v3_scale(hub, 0.35f));
    }
}

void scene_mesh_place(struct mesh *m, int first, struct v3 at, float heading)
{
    float c = cos_of(heading), s = sin_of(heading);
    for (int i = first; i < m->nv; i++) {
        struct v3 p = m->v[i].p, n = m->v[i].n;
        m->v[i].p = V3(at.x + c * p.x - s * p.y, at.y + s * p.x + c * p.y, at.z + p.z);
        m->v[i].n = V3(c * n.x - s * n.y, s * n.x + c * n.y, n.z);
    }
}

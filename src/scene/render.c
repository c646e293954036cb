/* A picture.
 *
 *     still world in the light of now -> shade and contact shadows -> beams of head lamps -> figures and vehicles ->
 * glow -> sensor
 *
 * Only spans that something touched are worked on: their samples are cleaned at the start of the next picture.
 * Shadows of moving things are their triangles thrown on the ground along the sun; they take the baked part of the
 * sun away, so what already lies in a house's shadow does not get darker. Contact shadows and beams are functions of
 * the ground point under a pixel.
 *
 * Truth is counted, not computed: every triangle stamps the samples it covers (the whole), and after all are drawn
 * the samples whose nearest is an object are counted (the seen). SPDX-License-Identifier: Apache-2.0 */
#ifndef __clang__
#pragma GCC optimize("O3") /* clang vectorises at -O2 already */
#endif
#include "scene/view.h"

#include <string.h>

static const float NEAREST = 0.3f; /* metres before the camera */

static void relight(struct scene *s, struct scene_view *v)
{
    if (v->ready && memcmp(&v->lit, &s->lit, sizeof v->lit) == 0) return;
    const struct scene_lighting *l = &s->lit;
    const float k[4][3] = {{l->sky.x, l->sky.y, l->sky.z},
                           {l->sun.x, l->sun.y, l->sun.z},
                           {l->lamp.x, l->lamp.y, l->lamp.z},
                           {l->window.x, l->window.y, l->window.z}};
    const float gain[3] = {v->gain.x, v->gain.y, v->gain.z};
    size_t n = (size_t)s->o.width * (size_t)s->o.height;
    for (int c = 0; c < 3; c++) {
        const uint16_t *a = v->baked[0][c], *b = v->baked[1][c], *d = v->baked[2][c], *e = v->baked[3][c];
        uint16_t *to = v->still[c];
        float ka = k[0][c] * gain[c], kb = k[1][c] * gain[c], kd = k[2][c] * gain[c], ke = k[3][c] * gain[c];
        for (size_t i = 0; i < n; i++) {
            float x = (float)a[i] * ka + (float)b[i] * kb + (float)d[i] * kd + (float)e[i] * ke;
            to[i] = (uint16_t)(int)(x < 65535 ? x : 65535);
        }
    }
    v->lit = *l;
    v->ready = true;
}

static void clean(struct scene *s)
{
    size_t w = (size_t)s->o.width;
    for (int y = 0; y < s->o.height; y++) {
        struct scene_span *p = &s->spans[y];
        if (p->lo >= p->hi) continue;
        size_t lo = (size_t)p->lo, n = (size_t)(p->hi - p->lo);
        for (size_t r = 0; r < 2; r++)
            memset(s->samples + (2 * (size_t)y + r) * 2 * w + 2 * lo, 0, 2 * n * sizeof *s->samples);
        for (size_t i = 0; i < n; i++) s->ao[(size_t)y * w + lo + i] = 1, s->beam[(size_t)y * w + lo + i] = 0;
        *p = (struct scene_span){0, 0};
    }
}

/* Into samples; false if it is too near. */
static bool project(const struct scene_camera *c, struct v3 p, struct raster_vertex *ret)
{
    float dx = p.x - c->position[0], dy = p.y - c->position[1], dz = p.z - c->position[2];
    const float *r = c->r;
    float z = r[6] * dx + r[7] * dy + r[8] * dz;
    ret->near_ = 0;
    if (z < NEAREST) return false;
    float n = 1 / z;
    ret->x = 2 * (c->f * (r[0] * dx + r[1] * dy + r[2] * dz) * n + c->cx);
    ret->y = 2 * (c->f * (r[3] * dx + r[4] * dy + r[5] * dz) * n + c->cy);
    ret->near_ = n;
    return true;
}

bool scene_project(const struct scene_camera *c, const float world[3], float *ret_u, float *ret_v)
{
    struct raster_vertex v;
    if (!project(c, V3(world[0], world[1], world[2]), &v)) return false;
    *ret_u = v.x * 0.5f, *ret_v = v.y * 0.5f;
    return true;
}

static bool in_reach(const struct scene *s, const struct scene_camera *c, struct v3 centre, float r)
{
    struct raster_vertex v = {0};
    struct v3 forward = V3(c->r[6], c->r[7], c->r[8]);
    float z = v3_dot(forward, v3_sub(centre, V3(c->position[0], c->position[1], c->position[2])));
    if (z < -r) return false;
    if (z < r + 0.5f) return true;
    project(c, centre, &v);
    float px = 2 * c->f * r * v.near_ * 1.4f;
    return v.x > -px && v.y > -px && v.x < (float)(2 * s->o.width) + px && v.y < (float)(2 * s->o.height) + px;
}

/* The light that a vertex sends to the camera. */
static struct v3 shade(const struct scene *s, const struct scene_object *ob, const struct mesh_vertex *v,
                       struct v3 eye, struct v3 gain)
{
    const struct scene_lighting *l = &s->lit;
    struct v3 n = v->n;
    float open = 0.66f + 0.34f * n.z, sun = MAX(v3_dot(n, s->world.sun), 0) * ob->sun;
    struct v3 light = v3_madd(v3_scale(l->sky, open), l->sun, sun + 0.05f * (1 - n.z));
    float lamp = 0;
    for (int i = 0; i < ob->lamp_n; i++) {
        struct v3 d = v3_sub(ob->lamp_at[i], v->p);
        float r2 = v3_dot(d, d), r = sqrtf(r2), lit = v3_dot(d, n) / r;
        lamp += (MAX(lit, 0) * 0.85f + 0.15f) * (0.25f + 0.75f * MAX(d.z, 0) / r) * 17 / (r2 + 2);
    }
    light = v3_madd(light, l->lamp, lamp);
    struct v3 out = v3_mul(v->colour, light);
    if (v->surface == MESH_PAINT || v->surface == MESH_GLASS) {
        struct v3 d = v3_unit(v3_sub(v->p, eye)), m = v3_madd(d, n, -2 * v3_dot(d, n));
        float c = 1 + v3_dot(d, n), f = c > 0 ? c * c * c * c * (c < 1 ? c : 1) : 0;
        f = v->surface == MESH_GLASS ? 0.06f + 0.6f * f : 0.045f + 0.55f * f;
        struct v3 env = v3_scale(l->sky, m.z > 0 ? 1.1f + 0.3f * m.z : 0.3f + 0.8f * smooth(-0.3f, 0, m.z));
        env = v3_madd(env, l->lamp, 0.5f * lamp);
        float spec = MAX(v3_dot(m, s->world.sun), 0);
        spec *= spec, spec *= spec, spec *= spec, spec *= spec, spec *= spec;
        env =
            v3_madd(env, l->sun, ob->sun * (1.2f * smooth(-0.2f, 0.5f, v3_dot(m, s->world.sun)) * 0.3f + 14 * spec));
        out = v3_add(v3_scale(out, 1 - f), v3_scale(env, f));
    } else if (v->surface == MESH_HEAD_LAMP && ob->lamps_on) {
        out = v3_add(out, v3_scale(V3(3.2f, 3, 2.6f), l->beams));
    } else if (v->surface == MESH_TAIL_LAMP) {
        out = v3_add(
            out, v3_scale(V3(1.1f, 0.03f, 0.02f), (ob->lamps_on ? l->beams * 0.6f : 0) + (ob->brakes ? 1.1f : 0)));
    }
    return v3_mul(out, gain);
}

static void draw_object(struct scene *s, const struct scene_view *v, struct scene_object *ob)
{
    struct raster_vertex p[MESH_VERTICES];
    const struct mesh *m = &ob->mesh;
    struct v3 eye = V3(v->camera.position[0], v->camera.position[1], v->camera.position[2]);
    float x0 = 1e9f, y0 = 1e9f, x1 = -1e9f, y1 = -1e9f;
    for (int i = 0; i < m->nv; i++) {
        if (!project(&v->camera, m->v[i].p, &p[i])) continue;
        x0 = MIN(x0, p[i].x), x1 = MAX(x1, p[i].x), y0 = MIN(y0, p[i].y), y1 = MAX(y1, p[i].y);
    }
    float w = (float)(2 * s->o.width), h = (float)(2 * s->o.height);
    if (!(x1 > 0 && y1 > 0 && x0 < w && y0 < h)) return;
    scene_dirty(s, (int)MAX(x0, 0) / 2, (int)MAX(y0, 0) / 2, (int)MIN(x1, w) / 2 + 1, (int)MIN(y1, h) / 2 + 1);
    for (int i = 0; i < m->nv; i++) p[i].c = shade(s, ob, &m->v[i], eye, v->gain);
    for (int i = 0; i < m->nt; i++) {
        const struct raster_vertex t[3] = {p[m->t[i][0]], p[m->t[i][1]], p[m->t[i][2]]};
        if (t[0].near_ > 0 && t[1].near_ > 0 && t[2].near_ > 0) scene_raster_solid(s, v, ob, t);
    }
}

static void throw_shade(struct scene *s, const struct scene_view *v, const struct scene_object *ob)
{
    struct raster_vertex p[MESH_VERTICES];
    const struct mesh *m = &ob->mesh;
    struct v3 sun = s->world.sun;
    for (int i = 0; i < m->nv; i++) {
        struct v3 q = v3_madd(m->v[i].p, sun, -(m->v[i].p.z - ob->at.z) / sun.z);
        project(&v->camera, V3(q.x, q.y, ob->at.z + 0.004f), &p[i]);
    }
    for (int i = 0; i < m->nt; i++) {
        const uint16_t *k = m->t[i];
        if (v3_dot(sun, v3_add(m->v[k[0]].n, v3_add(m->v[k[1]].n, m->v[k[2]].n))) < -0.3f)
            continue; /* the other side throws it */
        const struct raster_vertex t[3] = {p[k[0]], p[k[1]], p[k[2]]};
        if (t[0].near_ > 0 && t[1].near_ > 0 && t[2].near_ > 0) scene_raster_shade(s, v, t);
    }
}

/* Calls back for every pixel whose ground point at height z lies in a rectangle around an object: u forwards, v left
 * of it. */
typedef void ground_fn(struct scene *s, const struct scene_object *ob, size_t pixel, float u, float v);

static void over_ground(struct scene *s, const struct scene_view *view, const struct scene_object *ob,
                        const float rect[4], ground_fn *f)
{
    const struct scene_camera *c = &view->camera;
    float ch = cos_of(ob->heading), sh = sin_of(ob->heading), x0 = 1e9f, y0 = 1e9f, x1 = -1e9f, y1 = -1e9f;
    for (int i = 0; i < 4; i++) {
        float u = rect[i & 1], v = rect[2 + (i >> 1)];
        struct raster_vertex p;
        if (!project(c, V3(ob->at.x + ch * u - sh * v, ob->at.y + sh * u + ch * v, ob->at.z), &p)) return;
        x0 = MIN(x0, p.x), x1 = MAX(x1, p.x), y0 = MIN(y0, p.y), y1 = MAX(y1, p.y);
    }
    int ix0 = (int)(MAX(x0, 0) * 0.5f), iy0 = (int)(MAX(y0, 0) * 0.5f), w = s->o.width;
    int ix1 = (int)(MIN(x1 * 0.5f, (float)w - 1)), iy1 = (int)(MIN(y1 * 0.5f, (float)s->o.height - 1));
    if (x1 < 0 || y1 < 0) return;
    scene_dirty(s, ix0, iy0, ix1 + 1, iy1 + 1);
    const float *r = c->r;
    for (int y = iy0; y <= iy1; y++) {
        float b = ((float)y + 0.5f - c->cy) / c->f;
        for (int x = ix0; x <= ix1; x++) {
            float a = ((float)x + 0.5f - c->cx) / c->f, dz = r[2] * a + r[5] * b + r[8];
            if (dz > -1e-3f) continue;
            float z = (ob->at.z - c->position[2]) / dz, near_ = 1 / z,
                  still = view->near_[(size_t)(2 * y) * (size_t)(2 * w) + (size_t)(2 * x)];
            if (near_ < still * 0.96f || near_ > still * 1.05f) continue; /* something else than the ground */
            float gx = c->position[0] + z * (r[0] * a + r[3] * b + r[6]) - ob->at.x,
                  gy = c->position[1] + z * (r[1] * a + r[4] * b + r[7]) - ob->at.y;
            f(s, ob, (size_t)y * (size_t)w + (size_t)x, ch * gx + sh * gy, ch * gy - sh * gx);
        }
    }
}

static void contact(struct scene *s, const struct scene_object *ob, size_t i, float u, float v)
{
    float soft = ob->class_id == SCENE_PERSON ? 0.35f : ob->class_id == SCENE_BICYCLE ? 0.25f : 0.55f;
    float du = MAX((u < 0 ? -u : u) - ob->half_length, 0), dv = MAX((v < 0 ? -v : v) - ob->half_width, 0),
          d = sqrtf(du * du + dv * dv) / soft;
    if (d < 1)
        s->ao[i] *=
            1 - (ob->class_id == SCENE_PERSON || ob->class_id == SCENE_BICYCLE ? 0.38f : 0.72f) * (1 - d) * (1 - d);
}

static void beam(struct scene *s, const struct scene_object *ob, size_t i, float u, float v)
{
    float ahead = u - ob->half_length;
    if (ahead < 0.1f) return;
    float wide = 0.75f + 0.24f * ahead, across = v / wide, near_ = smooth(0.1f, 1.8f, ahead),
          far_ = 1 / (1 + 0.035f * ahead * ahead);
    float k = 1 - across * across;
    if (k > 0) s->beam[i] += 1.5f * k * k * near_ * far_ * smooth(14, 9, ahead);
}

/* Pixels of dirty spans anew, where shade, contact or beams changed them. */
static void apply_ground(struct scene *s, const struct scene_view *v)
{
    const struct scene_lighting *l = &s->lit;
    const float sky[3] = {l->sky.x, l->sky.y, l->sky.z}, sun[3] = {l->sun.x, l->sun.y, l->sun.z},
                lamp[3] = {l->lamp.x, l->lamp.y, l->lamp.z}, own[3] = {l->window.x, l->window.y, l->window.z},
                gain[3] = {v->gain.x, v->gain.y, v->gain.z}, head[3] = {1, 0.95f, 0.84f};
    size_t w = (size_t)s->o.width;
    for (size_t y = 0; y < (size_t)s->o.height; y++)
        for (size_t x = (size_t)s->spans[y].lo; x < (size_t)s->spans[y].hi; x++) {
            size_t i = y * w + x;
            const struct scene_sample *p = s->samples + 4 * y * w + 2 * x, *q = p + 2 * w;
            int shaded = p[0].shaded + p[1].shaded + q[0].shaded + q[1].shaded;
            float ao = s->ao[i], extra = s->beam[i] * l->beams;
            if (!shaded && ao == 1 && extra == 0) continue;
            float lit = (1 - 0.22f * (float)shaded) * (0.4f + 0.6f * ao);
            for (int c = 0; c < 3; c++) {
                float a = (float)v->baked[0][c][i];
                float sum = a * (sky[c] * ao + extra * head[c] * 0.4f) + (float)v->baked[1][c][i] * sun[c] * lit +
                            (float)v->baked[2][c][i] * lamp[c] * ao + (float)v->baked[3][c][i] * own[c];
                sum *= gain[c];
                s->lin[c][i] = (uint16_t)(int)(sum < 65535 ? sum : 65535);
            }
        }
}

/* Samples into pixels, and what is seen of each object. */
static void resolve(struct scene *s)
{
    size_t w = (size_t)s->o.width;
    for (int y = 0; y < s->o.height; y++)
        for (int x = s->spans[y].lo; x < s->spans[y].hi; x++) {
            size_t i = (size_t)y * w + (size_t)x;
            const struct scene_sample *p = s->samples + 4 * (size_t)y * w + 2 * (size_t)x, *q = p + 2 * w;
            const struct scene_sample *of[4] = {&p[0], &p[1], &q[0], &q[1]};
            if (!(p[0].object | p[1].object | q[0].object | q[1].object)) continue;
            uint32_t sum[3] = {0, 0, 0};
            for (int k = 0; k < 4; k++) {
                int id = of[k]->object;
                if (!id) {
                    for (int c = 0; c < 3; c++) sum[c] += s->lin[c][i];
                    continue;
                }
                for (int c = 0; c < 3; c++) sum[c] += of[k]->rgb[c];
                struct scene_object *ob = &s->objects[id - 1];
                int sx = 2 * x + (k & 1), sy = 2 * y + (k >> 1);
                ob->seen++;
                ob->x0 = MIN(ob->x0, sx), ob->x1 = MAX(ob->x1, sx + 1), ob->y0 = MIN(ob->y0, sy),
                ob->y1 = MAX(ob->y1, sy + 1);
            }
            for (int c = 0; c < 3; c++) s->lin[c][i] = (uint16_t)(sum[c] / 4);
        }
}

static void glow(struct scene *s, const struct scene_view *v, struct v3 at, float radius, struct v3 colour)
{
    struct raster_vertex p;
    int w = s->o.width, h = s->o.height;
    if (!project(&v->camera, at, &p) || p.x < 0 || p.y < 0 || p.x >= (float)(2 * w) || p.y >= (float)(2 * h)) return;
    size_t k = (size_t)p.y * (size_t)(2 * w) + (size_t)p.x;
    if (p.near_ < v->near_[k] * 0.97f || p.near_ < s->samples[k].near_ * 0.97f) return; /* hidden */
    float r = MAX(v->camera.f * radius * p.near_, 2.0f), cx = p.x * 0.5f, cy = p.y * 0.5f,
          e[3] = {colour.x, colour.y, colour.z};
    for (int y = (int)MAX(cy - r, 0); y < (int)MIN(cy + r + 1, (float)h); y++)
        for (int x = (int)MAX(cx - r, 0); x < (int)MIN(cx + r + 1, (float)w); x++) {
            float dx = (float)x + 0.5f - cx, dy = (float)y + 0.5f - cy, d = (dx * dx + dy * dy) / (r * r);
            if (d >= 1) continue;
            float f = (1 - d) * (1 - d) * (0.25f + 0.75f * (1 - d) * (1 - d) * (1 - d)) * VIEW_ONE;
            size_t i = (size_t)y * (size_t)w + (size_t)x;
            for (int c = 0; c < 3; c++) s->lin[c][i] = (uint16_t)(int)MIN((float)s->lin[c][i] + f * e[c], 65535.0f);
        }
}

static void all_glows(struct scene *s, const struct scene_view *v)
{
    float b = s->lit.beams;
    if (b < 0.05f) return;
    for (int i = 0; i < s->world.lamps_n; i++)
        glow(s, v, v3_add(s->world.lamps[i], V3(0, 0, 0.04f)), 0.9f, v3_scale(V3(0.55f, 0.42f, 0.25f), b));
    for (int i = 0; i < s->objects_n; i++) {
        const struct scene_object *ob = &s->objects[i];
        if (!ob->lamps_on || (s->only && s->only != ob->id)) continue;
        float c = cos_of(ob->heading), sn = sin_of(ob->heading), u = ob->half_length + 0.12f;
        struct v3 to = V3(v->camera.position[0] - ob->at.x, v->camera.position[1] - ob->at.y, 0);
        float facing = v3_dot(v3_unit(to), V3(c, sn, 0));
        if (facing < 0.1f) continue;
        for (int k = -1; k <= 1; k += 2) {
            float side = (ob->class_id == SCENE_BICYCLE ? 0 : 0.6f) * (float)k;
            if (ob->class_id == SCENE_BICYCLE && k > 0) break;
            glow(s, v, V3(ob->at.x + c * u - sn * side, ob->at.y + sn * u + c * side, ob->at.z + 0.65f), 0.5f,
                 v3_scale(V3(1.0f, 0.93f, 0.8f), b * facing));
        }
    }
}

/* Linear light to bytes, with the sensor's grain. */
static void develop(const struct scene *s, int camera, uint8_t *rgb, int stride)
{
    int w = s->o.width, amp = (int)(s->o.noise * (double)s->lit.noise * 8.5 + 0.5);
    struct rng r = {s->o.seed * 1000003 + (uint64_t)s->frame * 64 + (uint64_t)camera};
    for (int y = 0; y < s->o.height; y++) {
        const uint16_t *in[3] = {s->lin[0] + (size_t)y * (size_t)w, s->lin[1] + (size_t)y * (size_t)w,
                                 s->lin[2] + (size_t)y * (size_t)w};
        uint8_t *out = rgb + (ptrdiff_t)y * stride;
        uint32_t at = rng_next(&r);
        for (int x = 0; x < w; x++) {
            for (int c = 0; c < 3; c++) {
                int value = s->curve[in[c][x]] + ((s->grain[(uint16_t)(at++)] * amp + 128) >> 8);
                out[3 * x + c] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
            }
        }
    }
}

static int list_boxes(const struct scene *s, struct scene_box *boxes, int cap)
{
    int n = 0;
    for (int i = 0; i < s->objects_n; i++) {
        const struct scene_object *ob = &s->objects[i];
        if (!ob->whole || n == cap) continue;
        struct scene_box b = {.id = ob->id,
                              .class_id = ob->class_id,
                              .visibility = (float)ob->seen / (float)ob->whole,
                              .samples = ob->seen};
        b.whole_x = 0.5f * (float)ob->wx0, b.whole_y = 0.5f * (float)ob->wy0;
        b.whole_w = 0.5f * (float)(ob->wx1 - ob->wx0), b.whole_h = 0.5f * (float)(ob->wy1 - ob->wy0);
        if (ob->seen)
            b.x = 0.5f * (float)ob->x0, b.y = 0.5f * (float)ob->y0, b.w = 0.5f * (float)(ob->x1 - ob->x0),
            b.h = 0.5f * (float)(ob->y1 - ob->y0);
        int at = n++;
        for (; at > 0 && boxes[at - 1].id > b.id; at--) boxes[at] = boxes[at - 1];
        boxes[at] = b;
    }
    return n;
}

void scene_render(struct scene *s, int camera, uint8_t *rgb, int stride, struct scene_box *boxes, int cap, int *ret_n)
{
    struct scene_view *v = &s->views[camera];
    size_t n = (size_t)s->o.width * (size_t)s->o.height;
    if (s->moved) scene_build_objects(s);
    clean(s);
    relight(s, v);
    for (int c = 0; c < 3; c++) memcpy(s->lin[c], v->still[c], n * sizeof *s->lin[c]);
    for (int i = 0; i < s->objects_n; i++) {
        struct scene_object *ob = &s->objects[i];
        ob->seen = ob->whole = 0;
        ob->x0 = ob->y0 = ob->wx0 = ob->wy0 = 1 << 20;
        ob->x1 = ob->y1 = ob->wx1 = ob->wy1 = 0;
        if (s->only && s->only != ob->id) continue;
        float r = ob->height + ob->half_length;
        if (!in_reach(s, &v->camera, v3_add(ob->at, V3(0, 0, 1)), r * 1.6f)) {
            if (!ob->lamps_on || !in_reach(s, &v->camera, ob->at, 18)) continue;
        }
        float soft = 0.6f;
        const float foot[4] = {-ob->half_length - soft, ob->half_length + soft, -ob->half_width - soft,
                               ob->half_width + soft};
        over_ground(s, v, ob, foot, contact);
        if (ob->lamps_on && s->lit.beams > 0.02f && ob->class_id != SCENE_BICYCLE) {
            const float lit[4] = {ob->half_length, ob->half_length + 14, -4, 4};
            over_ground(s, v, ob, lit, beam);
        }
        if (ob->sun > 0.2f && s->lit.sun.x > 0.03f) throw_shade(s, v, ob);
        draw_object(s, v, ob);
    }
    apply_ground(s, v);
    resolve(s);
    all_glows(s, v);
    develop(s, camera, rgb, stride);
    int count = list_boxes(s, boxes, cap);
    if (ret_n) *ret_n = count;
}

int scene_sample(const struct scene *s, int x, int y, float *ret_near)
{
    const struct scene_sample *p = &s->samples[(size_t)y * (size_t)(2 * s->o.width) + (size_t)x];
    if (ret_near) *ret_near = p->near_;
    return p->object ? s->objects[p->object - 1].id : 0;
}

/* A scene from its options: memory, cameras, light over time, and the moving things as meshes.
 *
 * All memory is taken in scene_new and none later but for the small list of identities. A scene that failed half way
 * is freed by the same function as a whole one. SPDX-License-Identifier: Apache-2.0 */
#include "scene/view.h"

#include <stdlib.h>
#include <string.h>

static err check(const struct scene_options *o)
{
    if (o->cameras < 1 || o->cameras > SCENE_MAX_CAMERAS)
        return err_set(ERR_USAGE, "scene: %d cameras; 1 to %d are possible", o->cameras, SCENE_MAX_CAMERAS);
    if (!(o->seconds >= 0.1 && o->seconds <= 86400))
        return err_set(ERR_USAGE, "scene: %g seconds; give 0.1 to 86400", o->seconds);
    if (!(o->fps >= 0.5 && o->fps <= 60))
        return err_set(ERR_USAGE, "scene: %g frames a second; give 0.5 to 60", o->fps);
    if (o->width < 64 || o->width > 1920 || o->height < 64 || o->height > 1080 || o->width % 2 || o->height % 2)
        return err_set(ERR_USAGE, "scene: pictures of %dx%d; give even sizes from 64x64 to 1920x1080", o->width,
                       o->height);
    if (o->people < 0 || o->people > SCENE_MAX_PEOPLE)
        return err_set(ERR_USAGE, "scene: %d people; give 0 to %d", o->people, SCENE_MAX_PEOPLE);
    if (o->vehicles < 0 || o->vehicles > SCENE_MAX_VEHICLES)
        return err_set(ERR_USAGE, "scene: %d vehicles; give 0 to %d", o->vehicles, SCENE_MAX_VEHICLES);
    if (!(o->noise >= 0 && o->noise <= 10)) return err_set(ERR_USAGE, "scene: noise %g; give 0 to 10", o->noise);
    if ((int)o->light < SCENE_DAY || o->light > SCENE_NIGHT)
        return err_set(ERR_USAGE, "scene: there is no light number %d", (int)o->light);
    return ERR_OK;
}

static err take(struct scene *s, size_t count, size_t size, void *ret)
{
    struct block *b = &s->blocks[s->blocks_n];
    err e = mem_alloc(s->payer, MEM_FRAMES, count * size, &b->p);
    if (e) return e;
    b->size = count * size;
    s->blocks_n++;
    memcpy(ret, &b->p, sizeof b->p); /* into a pointer of any type */
    return ERR_OK;
}

static err take_view(struct scene *s, struct scene_view *v)
{
    size_t n = (size_t)s->o.width * (size_t)s->o.height;
    err e = take(s, 4 * n, sizeof(float), &v->near_);
    for (int c = 0; c < 3 && !e; c++) {
        e = take(s, n, sizeof(uint16_t), &v->still[c]);
        for (int k = 0; k < 4 && !e; k++) e = take(s, n, sizeof(uint16_t), &v->baked[k][c]);
    }
    return e;
}

static err take_all(struct scene *s)
{
    size_t n = (size_t)s->o.width * (size_t)s->o.height;
    s->objects_cap = s->o.people + 2 * s->o.vehicles;
    err e = take(s, 4 * n, sizeof *s->samples, &s->samples);
    if (!e) e = take(s, n, sizeof(float), &s->ao);
    if (!e) e = take(s, n, sizeof(float), &s->beam);
    if (!e) e = take(s, (size_t)s->o.height, sizeof *s->spans, &s->spans);
    if (!e) e = take(s, 65536, 1, &s->curve);
    if (!e) e = take(s, 65536, 1, &s->grain);
    for (int c = 0; c < 3 && !e; c++) e = take(s, n, sizeof(uint16_t), &s->lin[c]);
    if (!e) e = take(s, (size_t)s->o.people, sizeof *s->traffic.people, &s->traffic.people);
    if (!e) e = take(s, (size_t)s->o.vehicles, sizeof *s->traffic.cars, &s->traffic.cars);
    if (!e) e = take(s, (size_t)s->objects_cap, sizeof *s->objects, &s->objects);
    struct mesh_vertex *v = NULL;
    uint16_t(*t)[3] = NULL;
    if (!e) e = take(s, (size_t)s->objects_cap * MESH_VERTICES, sizeof *v, &v);
    if (!e) e = take(s, (size_t)s->objects_cap * MESH_TRIANGLES, sizeof *t, &t);
    for (int i = 0; i < s->objects_cap && !e; i++)
        s->objects[i].mesh.v = v + (size_t)i * MESH_VERTICES, s->objects[i].mesh.t = t + (size_t)i * MESH_TRIANGLES;
    for (int i = 0; i < s->o.cameras && !e; i++) e = take_view(s, &s->views[i]);
    return e;
}

/* A film-like curve (Narkowicz 2015) and a gamma of 2: both made of products and roots, the same everywhere. */
static void make_tables(struct scene *s)
{
    for (int i = 0; i < 65536; i++) {
        float x = (float)i / VIEW_ONE * 0.92f, y = x * (2.51f * x + 0.03f) / (x * (2.43f * x + 0.59f) + 0.14f);
        s->curve[i] = (uint8_t)(sqrtf(clampf(y, 0, 1)) * 255 + 0.5f);
    }
    struct rng r = {s->o.seed + 99};
    for (int i = 0; i < 65536; i++) {
        float sum = rng_unit(&r) + rng_unit(&r) + rng_unit(&r) + rng_unit(&r) - 2; /* deviation 0.577 */
        s->grain[i] = (int8_t)(int)floorf(clampf(sum * 55, -120, 120) + 0.5f);
    }
    for (size_t i = 0, n = (size_t)s->o.width * (size_t)s->o.height; i < n; i++) s->ao[i] = 1;
}

static void set_light(struct scene *s)
{
    static const float fixed[] = {[SCENE_DAY] = 0, [SCENE_DUSK] = 1, [SCENE_DAY_TO_DUSK] = 0, [SCENE_NIGHT] = 2};
    float hour = fixed[s->o.light];
    if (s->o.light == SCENE_DAY_TO_DUSK) {
        int n = scene_frames(s);
        hour = n > 1 ? (float)MIN(s->frame, n - 1) / (float)(n - 1) * 1.15f : 0;
    }
    scene_lighting(hour, &s->lit);
}

err scene_new(const struct scene_options *o, struct mem_budget *b, struct scene **ret)
{
    err e = check(o);
    if (e) return e;
    struct scene *s = xnew(struct scene);
    s->o = *o;
    s->payer = mem_payer_new(b, "scene");
    e = take_all(s);
    if (e) {
        scene_free(&s);
        return e;
    }
    make_tables(s);
    scene_world_init(&s->world, o->seed);
    for (int i = 0; i < o->cameras; i++) {
        scene_camera_setup(&s->views[i], i, o->width, o->height);
        scene_bake(s, &s->views[i]);
    }
    scene_traffic_init(&s->traffic, o->seed, o->people, o->vehicles);
    set_light(s);
    s->moved = true;
    *ret = s;
    return ERR_OK;
}

void scene_free(struct scene **sp)
{
    struct scene *s = *sp;
    if (!s) return;
    scene_traffic_done(&s->traffic);
    for (int i = 0; i < s->blocks_n; i++) mem_free(s->payer, MEM_FRAMES, s->blocks[i].p, s->blocks[i].size);
    mem_payer_free(&s->payer);
    free(s);
    *sp = NULL;
}

void scene_step(struct scene *s)
{
    s->traffic.frame = ++s->frame;
    scene_traffic_step(&s->traffic, (float)(1 / s->o.fps));
    set_light(s);
    s->moved = true;
}

static struct scene_object *add(struct scene *s, int id, enum scene_class c, struct v3 at, float heading)
{
    struct scene_object *ob = &s->objects[s->objects_n++];
    struct mesh m = ob->mesh;
    m.nv = m.nt = 0;
    *ob = (struct scene_object){.id = id, .class_id = c, .mesh = m, .at = at, .heading = heading};
    return ob;
}

/* Sun and lamps that reach it. */
static void finish(struct scene *s, struct scene_object *ob)
{
    scene_mesh_place(&ob->mesh, 0, ob->at, ob->heading);
    ob->sun = 0.5f * (scene_world_sun(&s->world, v3_add(ob->at, V3(0, 0, 0.5f * ob->height))) +
                      scene_world_sun(&s->world, v3_add(ob->at, V3(0, 0, 0.92f * ob->height))));
    float best[2] = {30 * 30, 30 * 30};
    if (s->lit.lamp.x <= 0) return;
    for (int i = 0; i < s->world.lamps_n; i++) {
        struct v3 d = v3_sub(s->world.lamps[i], ob->at);
        float r2 = v3_dot(d, d);
        if (r2 < best[0])
            best[1] = best[0], ob->lamp_at[1] = ob->lamp_at[0], best[0] = r2, ob->lamp_at[0] = s->world.lamps[i];
        else if (r2 < best[1])
            best[1] = r2, ob->lamp_at[1] = s->world.lamps[i];
    }
    ob->lamp_n = (best[0] < 900) + (best[1] < 900);
}

void scene_build_objects(struct scene *s)
{
    s->objects_n = 0;
    for (int i = 0; i < s->traffic.people_n; i++) {
        const struct scene_person *p = &s->traffic.people[i];
        struct scene_object *ob = add(s, p->id, SCENE_PERSON, V3(p->x, p->y, p->z), p->heading);
        ob->half_length = 0.1f, ob->half_width = 0.14f, ob->height = p->looks.height;
        scene_figure(&ob->mesh, &p->looks, p->standing ? FIGURE_STAND : FIGURE_WALK, p->phase, sin_of(p->phase));
        finish(s, ob);
    }
    for (int i = 0; i < s->traffic.cars_n; i++) {
        const struct scene_car *c = &s->traffic.cars[i];
        struct scene_object *ob = add(s, c->id, c->class_id, V3(c->x, c->y, 0), c->heading);
        bool bicycle = c->class_id == SCENE_BICYCLE;
        ob->half_length = bicycle ? 0.75f : c->length / 2 - 0.1f, ob->half_width = bicycle ? 0.05f
                                                                                   : c->class_id == SCENE_TRUCK
                                                                                       ? 1.05f
                                                                                       : 0.78f;
        ob->height = bicycle ? 1 : c->class_id == SCENE_TRUCK ? 3 : 1.45f;
        ob->lamps_on = c->path >= 0 && s->lit.beams > 0.02f, ob->brakes = c->brakes && c->path >= 0;
        if (bicycle)
            scene_bicycle(&ob->mesh, &c->looks, c->phase * 1.1f);
        else
            scene_vehicle(&ob->mesh, &c->looks);
        finish(s, ob);
        if (!bicycle) continue;
        ob = add(s, c->rider, SCENE_PERSON, V3(c->x, c->y, 0), c->heading);
        ob->half_length = 0.3f, ob->half_width = 0.1f, ob->height = 1.7f;
        scene_figure(&ob->mesh, &c->rider_looks, FIGURE_RIDE, c->phase * 1.1f, 0);
        finish(s, ob);
    }
    s->moved = false;
}

int scene_frame(const struct scene *s)
{
    return s->frame;
}

int scene_frames(const struct scene *s)
{
    int n = (int)(s->o.seconds * s->o.fps + 0.5);
    return MAX(n, 1);
}

const struct scene_camera *scene_camera(const struct scene *s, int camera)
{
    return &s->views[camera].camera;
}

int scene_identity_count(const struct scene *s)
{
    return (int)s->traffic.ids_n;
}

const struct scene_identity *scene_identity(const struct scene *s, int index)
{
    return &s->traffic.ids[index];
}

void scene_only(struct scene *s, int id)
{
    s->only = id;
}

const char *scene_class_name(enum scene_class c)
{
    static const char *const names[] = {"?", "person", "car", "truck", "bicycle"};
    return (unsigned)c < ARRAY_LEN(names) ? names[c] : names[0];
}

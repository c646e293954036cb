/* A scene into videos and truth. Everything is written frame by frame, so memory does not grow with the length (but
 * for the list of identities). Each text file is checked when it is closed: a full disk is an error and not a short
 * truth. SPDX-License-Identifier: Apache-2.0 */
#include "scene/files.h"

#include "video/encode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const light_names[] = {"day", "dusk", "day-to-dusk", "night"};

struct job {
    const struct scene_options *o;
    const struct scene_files_options *f;
    struct scene *scene;
    struct mem_payer *payer;
    struct video_writer *video[SCENE_MAX_CAMERAS];
    FILE *truth[SCENE_MAX_CAMERAS], *world, *coco;
    struct video_jpeg *jpeg;
    uint8_t *rgb;
    size_t rgb_size;
    struct scene_box *boxes;
    long rows, images, annotations;
    struct strbuf annotated; /* COCO wants images and annotations in two lists */
};

const char *scene_light_name(enum scene_light l)
{
    return (unsigned)l < ARRAY_LEN(light_names) ? light_names[l] : "?";
}

err scene_light_parse(const char *name, enum scene_light *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(light_names); i++)
        if (strcmp(name, light_names[i]) == 0) {
            *ret = (enum scene_light)i;
            return ERR_OK;
        }
    return err_set(ERR_USAGE, "there is no light '%s'; choose day, dusk, day-to-dusk or night", name);
}

static err make_dir(const char *dir, const char *sub)
{
    char *path = *sub ? xasprintf("%s/%s", dir, sub) : xstrdup(dir);
    err e = mkdir(path, 0777) && errno != EEXIST
                ? err_set(ERR_IO, "%s: cannot make the folder: %s", path, strerror(errno))
                : ERR_OK;
    free(path);
    return e;
}

static err open_text(const char *dir, const char *name, FILE **ret)
{
    char *path = xasprintf("%s/%s", dir, name);
    FILE *f = fopen(path, "we");
    err e = f ? ERR_OK : err_set(ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    free(path);
    if (f) *ret = f;
    return e;
}

static err close_text(FILE **f, const char *what, err before)
{
    if (!*f) return before;
    bool bad = ferror(*f) != 0;
    bad = fclose(*f) != 0 || bad;
    *f = NULL;
    if (before || !bad) return before;
    return err_set(ERR_IO, "scene: %s was not written completely: %s", what, strerror(errno));
}

static err write_calibration(const struct job *j)
{
    FILE *f = NULL;
    err e = open_text(j->f->dir, "calibration.json", &f);
    if (e) return e;
    fprintf(f, "{\"convention\": \"X_cam = R X + t, x right, y down, z forwards; u = f X/Z + cx, v = f Y/Z + cy; "
               "pixel (0, 0) covers "
               "0 to 1; world: x east, y north, z up, metres\",\n \"cameras\": [");
    for (int i = 0; i < j->o->cameras; i++) {
        const struct scene_camera *c = scene_camera(j->scene, i);
        const float *r = c->r, *p = c->position;
        fprintf(f,
                "%s\n  {\"name\": \"cam%d\", \"view\": \"%s\", \"width\": %d, \"height\": %d,\n   \"K\": [[%.6f, 0, "
                "%.6f], [0, %.6f, %.6f], [0, 0, 1]],\n",
                i ? "," : "", i + 1, c->name, j->o->width, j->o->height, c->f, c->cx, c->f, c->cy);
        fprintf(f, "   \"R\": [[%.9f, %.9f, %.9f], [%.9f, %.9f, %.9f], [%.9f, %.9f, %.9f]],\n", r[0], r[1], r[2],
                r[3], r[4], r[5], r[6], r[7], r[8]);
        fprintf(f, "   \"t\": [%.9f, %.9f, %.9f], \"position\": [%.6f, %.6f, %.6f]}",
                -(r[0] * p[0] + r[1] * p[1] + r[2] * p[2]), -(r[3] * p[0] + r[4] * p[1] + r[5] * p[2]),
                -(r[6] * p[0] + r[7] * p[1] + r[8] * p[2]), p[0], p[1], p[2]);
    }
    fprintf(f, "\n ]}\n");
    return close_text(&f, "calibration.json", ERR_OK);
}

static err write_parameters(const struct job *j)
{
    const struct scene_options *o = j->o;
    FILE *f = NULL;
    err e = open_text(j->f->dir, "scene.json", &f);
    if (e) return e;
    fprintf(f,
            "{\"seed\": %llu, \"cameras\": %d, \"seconds\": %.6g, \"fps\": %.6g, \"frames\": %d, \"width\": %d, "
            "\"height\": %d,\n",
            (unsigned long long)o->seed, o->cameras, o->seconds, o->fps, scene_frames(j->scene), o->width, o->height);
    fprintf(f, " \"light\": \"%s\", \"people\": %d, \"vehicles\": %d, \"noise\": %.6g,\n \"classes\": {",
            scene_light_name(o->light), o->people, o->vehicles, o->noise);
    for (int c = SCENE_PERSON; c <= SCENE_BICYCLE; c++)
        fprintf(f, "%s\"%s\": %d", c > 1 ? ", " : "", scene_class_name((enum scene_class)c), c);
    fprintf(f, "}}\n");
    return close_text(&f, "scene.json", ERR_OK);
}

static void text_field(FILE *f, const char *key, const char *value)
{
    if (value)
        fprintf(f, ", \"%s\": \"%s\"", key, value); /* all names are of scene's own tables: nothing to escape */
}

static err write_identities(const struct job *j)
{
    FILE *f = NULL;
    err e = open_text(j->f->dir, "truth/objects.json", &f);
    if (e) return e;
    fprintf(f, "{\"objects\": [");
    for (int i = 0; i < scene_identity_count(j->scene); i++) {
        const struct scene_identity *d = scene_identity(j->scene, i);
        fprintf(f, "%s\n  {\"id\": %d, \"class\": \"%s\"", i ? "," : "", d->id, scene_class_name(d->class_id));
        text_field(f, "kind", d->kind);
        text_field(f, "colour", d->colour);
        text_field(f, "top", d->top);
        text_field(f, "top_kind", d->top_kind);
        text_field(f, "bottom", d->bottom);
        text_field(f, "bottom_kind", d->bottom_kind);
        text_field(f, "hair", d->hair);
        if (d->class_id == SCENE_PERSON)
            fprintf(f, ", \"height\": %.2f, \"backpack\": %s", d->height, d->backpack ? "true" : "false");
        else
            fprintf(f, ", \"parked\": %s", d->parked ? "true" : "false");
        if (d->partner) fprintf(f, ", \"partner\": %d", d->partner);
        fprintf(f, ", \"first_frame\": %d, \"last_frame\": %d}", d->first_frame + 1, d->last_frame + 1);
    }
    fprintf(f, "\n ]}\n");
    return close_text(&f, "truth/objects.json", ERR_OK);
}

static void add_coco_boxes(struct job *j, int n)
{
    for (int i = 0; i < n; i++) {
        const struct scene_box *b = &j->boxes[i];
        if (!b->samples) continue;
        strbuf_addf(&j->annotated,
                    "%s\n  {\"id\": %ld, \"image_id\": %ld, \"category_id\": %d, \"bbox\": [%.1f, %.1f, %.1f, %.1f], "
                    "\"area\": %.2f, \"iscrowd\": 0, "
                    "\"visibility\": %.3f, \"track_id\": %d}",
                    j->annotations ? "," : "", j->annotations + 1, j->images, (int)b->class_id, b->x, b->y, b->w,
                    b->h, 0.25 * b->samples, b->visibility, b->id);
        j->annotations++;
    }
}

static err add_coco_image(struct job *j, int camera, int frame, int n)
{
    const uint8_t *jpeg;
    size_t size;
    char name[64];
    snprintf(name, sizeof name, "images/cam%d_%06d.jpg", camera + 1, frame + 1);
    err e = video_jpeg_encode(j->jpeg, j->rgb, 3 * j->o->width, j->o->width, j->o->height, &jpeg, &size);
    FILE *f = NULL;
    if (!e) e = open_text(j->f->dir, name, &f);
    if (e) return e;
    fwrite(jpeg, 1, size, f);
    j->images++;
    fprintf(
        j->coco,
        "%s\n  {\"id\": %ld, \"file_name\": \"%s\", \"width\": %d, \"height\": %d, \"camera\": %d, \"frame\": %d}",
        j->images > 1 ? "," : "", j->images, name + 7, j->o->width, j->o->height, camera + 1, frame + 1);
    add_coco_boxes(j, n);
    return close_text(&f, name, ERR_OK);
}

static err finish_coco(struct job *j)
{
    if (!j->coco) return ERR_OK;
    fprintf(j->coco, "\n ], \"annotations\": [%s\n ], \"categories\": [", j->annotated.s ? j->annotated.s : "");
    for (int c = SCENE_PERSON; c <= SCENE_BICYCLE; c++)
        fprintf(j->coco, "%s{\"id\": %d, \"name\": \"%s\"}", c > 1 ? ", " : "", c,
                scene_class_name((enum scene_class)c));
    fprintf(j->coco, "]}\n");
    return close_text(&j->coco, "truth/coco.json", ERR_OK);
}

static err open_all(struct job *j)
{
    const char *dir = j->f->dir;
    err e = make_dir(dir, "");
    if (!e) e = make_dir(dir, "truth");
    if (!e && j->f->coco_every) e = make_dir(dir, "images");
    if (!e) e = write_calibration(j);
    if (!e) e = write_parameters(j);
    if (!e) e = open_text(dir, "truth/world.csv", &j->world);
    if (!e && j->f->coco_every) e = open_text(dir, "truth/coco.json", &j->coco);
    if (!e && j->coco) fprintf(j->coco, "{\"images\": [");
    for (int i = 0; i < j->o->cameras && !e; i++) {
        char name[32];
        snprintf(name, sizeof name, "truth/cam%d.txt", i + 1);
        e = open_text(dir, name, &j->truth[i]);
        if (e) break;
        char *path = xasprintf("%s/cam%d.mp4", dir, i + 1);
        struct video_writer_options v = {.path = path,
                                         .w = j->o->width,
                                         .h = j->o->height,
                                         .fps = j->o->fps,
                                         .quality = j->f->quality ? j->f->quality : 75};
        e = video_writer_open(&v, j->payer, &j->video[i]);
        free(path);
    }
    return e;
}

static err one_frame(struct job *j, int frame)
{
    for (int i = 0; i < scene_identity_count(j->scene); i++) {
        const struct scene_identity *d = scene_identity(j->scene, i);
        if (d->last_frame == frame)
            fprintf(j->world, "%d,%d,%.3f,%.3f,%.3f,%.4f\n", frame + 1, d->id, d->position[0], d->position[1],
                    d->position[2], d->heading);
    }
    for (int c = 0; c < j->o->cameras; c++) {
        int n;
        scene_render(j->scene, c, j->rgb, 3 * j->o->width, j->boxes, SCENE_MAX_BOXES, &n);
        err e = video_writer_add(j->video[c], j->rgb, 3 * j->o->width);
        if (e) return err_wrap(e, "cam%d", c + 1);
        for (int i = 0; i < n; i++) {
            const struct scene_box *b = &j->boxes[i];
            if (!b->samples) continue;
            fprintf(j->truth[c], "%d,%d,%.1f,%.1f,%.1f,%.1f,1,%d,%.3f\n", frame + 1, b->id, b->x, b->y, b->w, b->h,
                    (int)b->class_id, b->visibility);
            j->rows++;
        }
        if (j->coco && frame % j->f->coco_every == 0) e = add_coco_image(j, c, frame, n);
        if (e) return e;
    }
    return ERR_OK;
}

static err close_all(struct job *j, err e)
{
    for (int i = 0; i < SCENE_MAX_CAMERAS; i++) {
        if (j->video[i]) {
            err x = video_writer_close(&j->video[i]);
            if (!e) e = x;
        }
        e = close_text(&j->truth[i], "truth/cam*.txt", e);
    }
    e = close_text(&j->world, "truth/world.csv", e);
    if (!e) e = finish_coco(j);
    return close_text(&j->coco, "truth/coco.json", e);
}

static err draw_all(struct job *j, struct scene_files_result *r)
{
    int total = scene_frames(j->scene);
    for (int t = 0; t < total; t++) {
        err e = one_frame(j, t);
        if (e) return e;
        if (j->f->progress) j->f->progress(j->f->user, t + 1, total);
        if (t + 1 < total) scene_step(j->scene);
    }
    r->frames = total;
    r->identities = scene_identity_count(j->scene);
    return write_identities(j);
}

err scene_files_write(const struct scene_options *o, const struct scene_files_options *f, struct mem_budget *b,
                      struct scene_files_result *ret)
{
    struct job j = {.o = o, .f = f};
    struct scene_files_result r = {0};
    int64_t start = clock_ns();
    if (f->coco_every < 0 || f->quality < 0 || f->quality > 100)
        return err_set(ERR_USAGE, "scene: quality is 1 to 100, and every n-th frame at least 1");
    err e = scene_new(o, b, &j.scene);
    if (e) return e;
    r.bake_seconds = (double)(clock_ns() - start) * 1e-9;
    j.payer = mem_payer_new(b, "scene files");
    j.rgb_size = (size_t)o->width * (size_t)o->height * 3;
    void *p = NULL;
    e = mem_alloc(j.payer, MEM_FRAMES, j.rgb_size, &p);
    j.rgb = p;
    j.boxes = xnewn(struct scene_box, SCENE_MAX_BOXES);
    if (!e && f->coco_every) j.jpeg = video_jpeg_new(j.payer, 95);
    if (!e) e = open_all(&j);
    if (!e) e = draw_all(&j, &r);
    e = close_all(&j, e);
    video_jpeg_free(&j.jpeg);
    free(j.boxes);
    strbuf_done(&j.annotated);
    mem_free(j.payer, MEM_FRAMES, j.rgb, j.rgb_size);
    mem_payer_free(&j.payer);
    scene_free(&j.scene);
    if (e) return e;
    r.boxes = j.rows;
    r.seconds = (double)(clock_ns() - start) * 1e-9;
    *ret = r;
    return ERR_OK;
}

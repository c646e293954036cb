/* Files that results go to.
 *
 * JSON lines and MOT files are tried again when a disk fills or a folder goes away (lines.c, mot_files.c); an annotated video that fails
 * ends, with a problem that people see. The video is written at the rate at which results come (stated in the file as the query's fps).
 * Results come on the executor's thread, events on the thread that tells them. SPDX-License-Identifier: Apache-2.0 */
#include "serve/files.h"

#include "base/log.h"
#include "base/text.h"
#include "serve/lines.h"
#include "serve/mot_files.h"
#include "serve/paint.h"
#include "video/convert.h"
#include "video/encode.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct video_file {
    struct video_file *next;
    char camera[72], query[72];
    struct video_writer *w;
    uint8_t *rgb;
    int width, height;
};
struct serve_files {
    struct engine *engine;
    struct engine_site *hold;
    const struct site *site;
    struct serve_lines *lines; /* NULL: none */
    struct serve_mots *mots;   /* NULL: none; the executor only */
    struct mem_payer *payer;
    struct video_file *videos; /* this and what follows: the executor only */
    struct video_conv *conv;
};

/* ---- JSON lines */

static void write_line(struct serve_files *f, json_t *j)
{
    char *text = json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(13));
    json_decref(j);
    if (!text) return;
    size_t n = strlen(text);
    text[n++] = '\n';
    serve_lines_put(f->lines, text, n);
    free(text);
}

/* Rounded, so that the digits that a float does not have are not written. */
static double rounded(double v, double steps)
{
    return round(v * steps) / steps;
}

static json_t *track_json(const struct engine_track *t)
{
    json_t *j = json_pack("{s:I, s:o, s:f, s:[f,f,f,f]}", "track", (json_int_t)t->id, "label", text_json(t->label), "score",
                          rounded((double)t->score, 1e4), "box", rounded((double)t->box.x1, 100), rounded((double)t->box.y1, 100),
                          rounded((double)t->box.x2, 100), rounded((double)t->box.y2, 100));
    if (t->attributes[0]) json_object_set_new(j, "attributes", text_json(t->attributes));
    return j;
}

static json_t *result_json(const struct engine_record *r)
{
    json_t *tracks = json_array();
    for (int i = 0; i < r->n_tracks; i++) json_array_append_new(tracks, track_json(&r->tracks[i]));
    return json_pack("{s:s, s:f, s:f, s:s, s:s, s:I, s:f, s:o}", "type", "result", "time", r->time, "pts", r->pts, "camera", r->camera, "query",
                     r->query, "frame", (json_int_t)r->frame, "latency_ms", rounded(r->latency_ms, 1000), "tracks", tracks);
}

/* ---- annotated MP4 */

static bool wants_video(const struct serve_files *f, const char *camera)
{
    const struct site_names *names = &f->site->outputs.video_cameras;
    for (size_t i = 0; !names->all && i < names->count; i++)
        if (!strcmp(names->items[i], camera)) return true;
    return names->all;
}

static double fps_of(const struct serve_files *f, const char *query)
{
    for (size_t i = 0; i < f->site->query_count; i++)
        if (!strcmp(f->site->queries[i].name, query) && f->site->queries[i].fps > 0) return f->site->queries[i].fps;
    return 10;
}

/* The first query that has a result on a camera gives its video. */
static struct video_file *video_of(struct serve_files *f, const struct engine_record *r)
{
    for (struct video_file *v = f->videos; v; v = v->next)
        if (!strcmp(v->camera, r->camera)) return strcmp(v->query, r->query) == 0 ? v : NULL;
    struct video_file *v = xnew(struct video_file);
    snprintf(v->camera, sizeof v->camera, "%s", r->camera);
    snprintf(v->query, sizeof v->query, "%s", r->query);
    v->width = r->width & ~1;
    v->height = r->height & ~1;
    v->next = f->videos;
    f->videos = v;
    char *path = xasprintf("%s/%s.mp4", f->site->outputs.video, r->camera);
    err e = mem_alloc(f->payer, MEM_OTHER, (size_t)v->width * (size_t)v->height * 3, (void **)&v->rgb);
    if (!e) e = video_writer_open(&(struct video_writer_options){.path = path, .w = v->width, .h = v->height, .fps = fps_of(f, r->query)}, f->payer, &v->w);
    if (e) engine_set_problem(f->engine, "video", err_text());
    free(path);
    return v;
}

static void write_video(struct serve_files *f, const struct engine_record *r)
{
    struct video_file *v = video_of(f, r);
    if (!v || !v->w || !r->picture) return;
    struct video_picture p = {v->rgb, v->width, v->height, v->width * 3};
    err e = video_to_rgb24(f->conv, r->picture, NULL, v->width, v->height, v->rgb, v->width * 3);
    if (!e) {
        serve_paint_zones(&p, f->site, r->camera);
        serve_paint_tracks(&p, (double)v->width / MAX(r->width, 1), r->tracks, r->n_tracks);
        e = video_writer_add(v->w, v->rgb, v->width * 3);
    }
    if (!e) return;
    engine_set_problem(f->engine, "video", err_text());
    video_writer_close(&v->w);
}

/* ---- */

static void on_record(void *user, const struct engine_record *r)
{
    struct serve_files *f = user;
    if (r->kind != ENGINE_RESULT) return;
    if (f->lines) write_line(f, result_json(r));
    if (f->mots) serve_mots_write(f->mots, r);
    if (f->site->outputs.video && wants_video(f, r->camera)) write_video(f, r);
}

static void on_event(void *user, const struct rows_event *e)
{
    struct serve_files *f = user;
    if (!f->lines) return;
    json_t *j = serve_event_json(e);
    json_object_set_new(j, "type", json_string("event"));
    write_line(f, j);
}

static void lines_problem(void *user, const char *sentence)
{
    engine_set_problem(((struct serve_files *)user)->engine, "jsonl", sentence);
}

static void mot_problem(void *user, const char *sentence)
{
    engine_set_problem(((struct serve_files *)user)->engine, "mot", sentence);
}

bool serve_files_say(struct serve_files *f, const char *line, size_t n)
{
    bool ours = f->lines && !strcmp(f->site->outputs.jsonl, "-");
    if (ours && n) serve_lines_put(f->lines, line, n);
    return ours;
}

static err open_lines(struct serve_files *f, struct serve_counts *counts)
{
    const struct serve_lines_options o = {
        .path = f->site->outputs.jsonl, .payer = f->payer, .count = &counts->jsonl, .problem = lines_problem, .user = f};
    return o.path ? serve_lines_open(&o, &f->lines) : ERR_OK;
}

static err open_folder(const char *path)
{
    if (!path || mkdir(path, 0755) == 0 || errno == EEXIST) return ERR_OK;
    return err_set(ERR_IO, "%s: cannot make the folder: %s", path, strerror(errno));
}

err serve_files_open(struct engine *e, struct serve_feed *feed, struct serve_files **ret)
{
    struct serve_files *f = xnew(struct serve_files);
    f->engine = e;
    f->hold = engine_site_hold(e);
    f->site = engine_site_get(f->hold);
    f->payer = mem_payer_new(engine_budget(e), "files");
    f->conv = video_conv_new(f->payer);
    err x = open_lines(f, serve_feed_counts(feed));
    if (!x) x = open_folder(f->site->outputs.mot);
    if (!x) x = open_folder(f->site->outputs.video);
    if (x) {
        serve_files_close(&f);
        return x;
    }
    if (f->site->outputs.mot) f->mots = serve_mots_new(f->site->outputs.mot, &serve_feed_counts(feed)->mot, mot_problem, f);
    engine_add_sink(e, on_record, f);
    serve_feed_listen(feed, on_event, f);
    *ret = f;
    return ERR_OK;
}

void serve_files_close(struct serve_files **fp)
{
    struct serve_files *f = *fp;
    if (!f) return;
    serve_lines_close(&f->lines);
    serve_mots_free(&f->mots);
    while (f->videos) {
        struct video_file *v = f->videos;
        f->videos = v->next;
        if (v->w && video_writer_close(&v->w)) log_warn("serve", "%s", err_text());
        mem_free(f->payer, MEM_OTHER, v->rgb, (size_t)v->width * (size_t)v->height * 3);
        free(v);
    }
    video_conv_free(&f->conv);
    mem_payer_free(&f->payer);
    engine_site_unref(&f->hold);
    free(f);
    *fp = NULL;
}

/* Files that results go to: JSON lines (lines.c), MOT files (mot_files.c), annotated videos (video_files.c). Each is tried again when a disk
 * fills or a folder goes away, with a problem that people see meanwhile. Results come on the executor's thread, events on the thread that tells them. SPDX-License-Identifier: Apache-2.0 */
#include "serve/files.h"

#include "base/text.h"
#include "serve/lines.h"
#include "serve/mot_files.h"
#include "serve/video_files.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct serve_files {
    struct engine *engine;
    struct engine_site *hold;
    const struct site *site;
    struct serve_lines *lines; /* NULL: none */
    struct serve_mots *mots;   /* NULL: none; the executor only */
    struct serve_videos *videos; /* NULL: none; the executor only */
    struct mem_payer *payer;
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

/* ---- */

static void on_record(void *user, const struct engine_record *r)
{
    struct serve_files *f = user;
    if (r->kind != ENGINE_RESULT) return;
    if (f->lines) write_line(f, result_json(r));
    if (f->mots) serve_mots_write(f->mots, r);
    if (f->videos) serve_videos_write(f->videos, r);
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

static void video_problem(void *user, const char *sentence)
{
    engine_set_problem(((struct serve_files *)user)->engine, "video", sentence);
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
    err x = open_lines(f, serve_feed_counts(feed));
    if (!x) x = open_folder(f->site->outputs.mot);
    if (!x) x = open_folder(f->site->outputs.video);
    if (x) {
        serve_files_close(&f);
        return x;
    }
    if (f->site->outputs.mot) f->mots = serve_mots_new(f->site->outputs.mot, &serve_feed_counts(feed)->mot, mot_problem, f);
    if (f->site->outputs.video) f->videos = serve_videos_new(f->site, f->payer, video_problem, f);
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
    serve_videos_free(&f->videos);
    mem_payer_free(&f->payer);
    engine_site_unref(&f->hold);
    free(f);
    *fp = NULL;
}

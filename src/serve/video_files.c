/* Annotated video files. The rate in a file is the query's fps, because results come at that rate.
 *
 * A writer that failed is closed at once: what it wrote plays (encode.h), and its bytes are free for others. A camera whose picture changes
 * its size goes on in the same file, scaled. Invariant: a video with a writer has its picture too. SPDX-License-Identifier: Apache-2.0 */
#include "serve/video_files.h"

#include "serve/paint.h"
#include "video/convert.h"
#include "video/encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { AGAIN_S = 10, MAX_FILES = 9999 };

struct video_file {
    struct video_file *next;
    char camera[72], query[72];
    struct video_writer *w; /* NULL: waits for its next try */
    uint8_t *rgb;
    int width, height;
    char *error;            /* NULL: it works */
    int64_t again_ns;
};

struct serve_videos {
    const struct site *site;
    struct mem_payer *payer;
    void (*problem)(void *user, const char *sentence);
    void *user;
    struct video_conv *conv;
    struct video_file *files;
};

struct serve_videos *serve_videos_new(const struct site *s, struct mem_payer *payer, void (*problem)(void *user, const char *sentence), void *user)
{
    struct serve_videos *v = xnew(struct serve_videos);
    *v = (struct serve_videos){.site = s, .payer = payer, .problem = problem, .user = user, .conv = video_conv_new(payer)};
    return v;
}

static bool wanted(const struct serve_videos *v, const char *camera)
{
    const struct site_names *names = &v->site->outputs.video_cameras;
    for (size_t i = 0; !names->all && i < names->count; i++)
        if (!strcmp(names->items[i], camera)) return true;
    return names->all;
}

static double fps_of(const struct serve_videos *v, const char *query)
{
    for (size_t i = 0; i < v->site->query_count; i++)
        if (!strcmp(v->site->queries[i].name, query) && v->site->queries[i].fps > 0) return v->site->queries[i].fps;
    return 10;
}

/* The file of the record's camera; NULL if another query gives its video. */
static struct video_file *file_of(struct serve_videos *v, const struct engine_record *r)
{
    for (struct video_file *f = v->files; f; f = f->next)
        if (!strcmp(f->camera, r->camera)) return strcmp(f->query, r->query) == 0 ? f : NULL;
    struct video_file *f = xnew(struct video_file);
    snprintf(f->camera, sizeof f->camera, "%s", r->camera);
    snprintf(f->query, sizeof f->query, "%s", r->query);
    f->width = r->width & ~1;
    f->height = r->height & ~1;
    f->next = v->files;
    v->files = f;
    return f;
}

/* The first name that is not taken; the last one if all are, which then is an error of its own. free() it. */
static char *free_path(const struct serve_videos *v, const struct video_file *f)
{
    struct stat st;
    char *path = xasprintf("%s/%s.mp4", v->site->outputs.video, f->camera);
    for (int i = 2; i <= MAX_FILES && lstat(path, &st) == 0; i++) {
        free(path);
        path = xasprintf("%s/%s-%d.mp4", v->site->outputs.video, f->camera, i);
    }
    return path;
}

static err open_file(struct serve_videos *v, struct video_file *f)
{
    struct stat st;
    char *path = free_path(v, f);
    err e = lstat(path, &st) == 0 ? err_set(ERR_LIMIT, "%s: all names up to this one are taken; move old videos away", path) : ERR_OK;
    if (!e && !f->rgb) e = mem_alloc(v->payer, MEM_OTHER, (size_t)f->width * (size_t)f->height * 3, (void **)&f->rgb);
    if (!e) {
        e = video_writer_open(&(struct video_writer_options){.path = path, .w = f->width, .h = f->height, .fps = fps_of(v, f->query)}, v->payer, &f->w);
        if (e && lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0) unlink(path); /* else a full disk leaves one at each try */
    }
    free(path);
    return e;
}

static err add_frame(struct serve_videos *v, struct video_file *f, const struct engine_record *r)
{
    struct video_picture p = {f->rgb, f->width, f->height, f->width * 3};
    err e = video_to_rgb24(v->conv, r->picture, NULL, f->width, f->height, f->rgb, f->width * 3);
    if (e) return e;
    serve_paint_zones(&p, v->site, r->camera);
    serve_paint_tracks(&p, (double)f->width / MAX(r->width, 1), r->tracks, r->n_tracks);
    return video_writer_add(f->w, f->rgb, f->width * 3);
}

static void tell(const struct serve_videos *v)
{
    const struct video_file *f = v->files;
    while (f && !f->error) f = f->next;
    char *text = f ? xasprintf("%s; a new file is begun in %d s", f->error, AGAIN_S) : xstrdup("");
    v->problem(v->user, text);
    free(text);
}

static void drop_picture(struct serve_videos *v, struct video_file *f)
{
    mem_free(v->payer, MEM_OTHER, f->rgb, (size_t)f->width * (size_t)f->height * 3);
    f->rgb = NULL;
}

void serve_videos_write(struct serve_videos *v, const struct engine_record *r)
{
    struct video_file *f = r->picture && wanted(v, r->camera) ? file_of(v, r) : NULL;
    if (!f || (!f->w && clock_ns() < f->again_ns)) return;
    err e = f->w ? ERR_OK : open_file(v, f);
    if (!e) e = add_frame(v, f, r);
    bool changed = (e != ERR_OK) != (f->error != NULL);
    free(f->error);
    f->error = e ? xstrdup(err_text()) : NULL;
    if (e) {
        video_writer_close(&f->w);
        drop_picture(v, f);
        f->again_ns = clock_ns() + (int64_t)AGAIN_S * 1000000000;
    }
    if (changed) tell(v);
}

void serve_videos_free(struct serve_videos **vp)
{
    struct serve_videos *v = *vp;
    if (!v) return;
    while (v->files) {
        struct video_file *f = v->files;
        v->files = f->next;
        if (f->w && video_writer_close(&f->w)) v->problem(v->user, err_text());
        drop_picture(v, f);
        free(f->error);
        free(f);
    }
    video_conv_free(&v->conv);
    free(v);
    *vp = NULL;
}

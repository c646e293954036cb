/* MOT files. The lines of one frame are one write; a disk that took a part of it gets that part cut off again.
 * Invariant: a file's first `size` bytes are whole lines. SPDX-License-Identifier: Apache-2.0 */
#include "serve/mot_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPEN_AGAIN_S = 5, WRITE_AGAIN_S = 1 };

struct mot_file {
    struct mot_file *next;
    char name[160]; /* "camera.query" */
    int fd;         /* -1: not open */
    off_t size;
    int error;      /* errno of the last try; 0: it works */
    int64_t again_ns;
};

struct serve_mots {
    const char *folder;
    struct serve_count *count;
    void (*problem)(void *user, const char *sentence);
    void *user;
    struct mot_file *files;
};

struct serve_mots *serve_mots_new(const char *folder, struct serve_count *count, void (*problem)(void *user, const char *sentence), void *user)
{
    struct serve_mots *m = xnew(struct serve_mots);
    *m = (struct serve_mots){.folder = folder, .count = count, .problem = problem, .user = user};
    return m;
}

static struct mot_file *file_of(struct serve_mots *m, const struct engine_record *r)
{
    char name[160];
    snprintf(name, sizeof name, "%s.%s", r->camera, r->query);
    for (struct mot_file *f = m->files; f; f = f->next)
        if (!strcmp(f->name, name)) return f;
    struct mot_file *f = xnew(struct mot_file);
    snprintf(f->name, sizeof f->name, "%s", name);
    f->fd = -1;
    f->next = m->files;
    m->files = f;
    return f;
}

/* O_NONBLOCK: a FIFO in that place does not hold us. */
static int open_file(const struct serve_mots *m, struct mot_file *f)
{
    char *path = xasprintf("%s/%s.txt", m->folder, f->name);
    f->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_CLOEXEC, 0644);
    int error = f->fd < 0 ? errno : 0;
    free(path);
    return error;
}

static int write_whole(struct mot_file *f, const char *text, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = pwrite(f->fd, text + at, n - at, f->size + (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            int error = got < 0 ? errno : EIO;
            (void)!ftruncate(f->fd, f->size); /* else the next try writes over it */
            return error;
        }
        at += (size_t)got;
    }
    f->size += (off_t)n;
    return 0;
}

static void tell(const struct serve_mots *m)
{
    const struct mot_file *f = m->files;
    while (f && !f->error) f = f->next;
    char *text = f ? xasprintf("%s/%s.txt: %s; it is tried again", m->folder, f->name, strerror(f->error)) : xstrdup("");
    m->problem(m->user, text);
    free(text);
}

static uint64_t lines_of(const struct engine_record *r, struct strbuf *b)
{
    uint64_t lines = 0;
    for (int i = 0; i < r->n_tracks; i++) {
        const struct engine_track *t = &r->tracks[i];
        if (!t->id) continue;
        strbuf_addf(b, "%llu,%lld,%.2f,%.2f,%.2f,%.2f,%.4f,-1,-1,-1\n", (unsigned long long)r->frame, (long long)t->id, (double)t->box.x1,
                    (double)t->box.y1, (double)(t->box.x2 - t->box.x1), (double)(t->box.y2 - t->box.y1), (double)t->score);
        lines++;
    }
    return lines;
}

void serve_mots_write(struct serve_mots *m, const struct engine_record *r)
{
    struct strbuf b = {0};
    struct mot_file *f = file_of(m, r);
    uint64_t lines = lines_of(r, &b);
    int before = f->error;
    if ((!before || clock_ns() >= f->again_ns) && (lines || f->fd < 0)) {
        f->error = f->fd < 0 ? open_file(m, f) : 0;
        if (!f->error && lines) f->error = write_whole(f, b.s, b.len);
        f->again_ns = clock_ns() + (int64_t)(f->fd < 0 ? OPEN_AGAIN_S : WRITE_AGAIN_S) * 1000000000;
    }
    if (f->error) atomic_fetch_add(&m->count->failed, lines);
    else atomic_fetch_add(&m->count->written, lines);
    if (f->error != before) tell(m);
    strbuf_done(&b);
}

void serve_mots_free(struct serve_mots **mp)
{
    struct serve_mots *m = *mp;
    if (!m) return;
    while (m->files) {
        struct mot_file *f = m->files;
        m->files = f->next;
        if (f->fd >= 0) close(f->fd);
        free(f);
    }
    free(m);
    *mp = NULL;
}

/* The queue is a ring of bytes that holds whole records: a header, then the JPEG. A record without bytes is another event of the frame before it: its picture becomes
 * a second name of the same file (link), which costs nothing and keeps readers from meeting a frame twice; where a file system has no such names, that event goes without.
 *
 * A file is written as `new`, then renamed: whoever reads sees whole pictures. Sizes are kept as a sum; when it is over the limit the folder is looked through
 * once and the oldest files go until it is a tenth under it, so that this is rare. Names of one file count as one each: the limit is never passed for that.
 * SPDX-License-Identifier: Apache-2.0 */
#include "serve/pictures.h"

#include "base/log.h"
#include "base/thread.h"
#include "rows/picture.h"
#include "video/convert.h"
#include "video/encode.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { QUALITY = 88, MOST_FILES = 1 << 20 };

struct header {
    uint8_t uid[ROWS_UID];
    size_t size; /* 0: the picture before it once more */
};

struct serve_pictures {
    struct serve_pictures_options o;
    char *folder;
    /* the executor's */
    struct video_conv *conv;
    struct video_jpeg *jpeg;
    uint8_t *rgb, *comment;
    size_t rgb_size;
    char camera[72], query[72];
    uint64_t frame;
    bool queued; /* the frame's picture is in the queue, or written */
    /* the writer's */
    uint64_t total;
    uint8_t before[ROWS_UID];
    bool has_before;
    char said[256];

    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards what follows; the writer alone moves head, and reads the ring's bytes without it */
    pthread_cond_t more;
    uint8_t *ring;
    size_t head, used;
    bool stop;
};

/* ---- the queue */

static void copy_in(struct serve_pictures *p, size_t at, const void *from, size_t n)
{
    at %= SERVE_PICTURES_BYTES;
    size_t first = MIN(n, SERVE_PICTURES_BYTES - at);
    memcpy(p->ring + at, from, first);
    memcpy(p->ring, (const uint8_t *)from + first, n - first);
}

static void copy_out(const struct serve_pictures *p, size_t at, void *to, size_t n)
{
    at %= SERVE_PICTURES_BYTES;
    size_t first = MIN(n, SERVE_PICTURES_BYTES - at);
    memcpy(to, p->ring + at, first);
    memcpy((uint8_t *)to + first, p->ring, n - first);
}

/* Parts one after the other; false if there is no room. */
static bool enqueue(struct serve_pictures *p, const uint8_t uid[ROWS_UID], const void *const parts[3], const size_t sizes[3])
{
    struct header h = {.size = sizes[0] + sizes[1] + sizes[2]};
    memcpy(h.uid, uid, ROWS_UID);
    pthread_mutex_lock(&p->lock);
    bool fits = sizeof h + h.size <= SERVE_PICTURES_BYTES - p->used;
    if (fits) {
        size_t at = p->head + p->used;
        copy_in(p, at, &h, sizeof h);
        at += sizeof h;
        for (int i = 0; i < 3; at += sizes[i++])
            if (sizes[i]) copy_in(p, at, parts[i], sizes[i]);
        p->used += sizeof h + h.size;
        pthread_cond_signal(&p->more);
    }
    pthread_mutex_unlock(&p->lock);
    return fits;
}

/* ---- pictures of frames */

static err make_room(struct serve_pictures *p, size_t size)
{
    if (size <= p->rgb_size) return ERR_OK;
    mem_free(p->o.payer, MEM_OTHER, p->rgb, p->rgb_size);
    p->rgb = NULL;
    p->rgb_size = 0;
    err e = mem_alloc(p->o.payer, MEM_OTHER, size, (void **)&p->rgb);
    if (!e) p->rgb_size = size;
    return e;
}

static float share(float v, int of)
{
    v /= (float)MAX(of, 1);
    return v > 0 ? (v < 1 ? v : 1) : 0;
}

static size_t comment_of(struct serve_pictures *p, const struct engine_record *r)
{
    struct rows_seen seen[ROWS_PICTURE_SEEN];
    int n = 0;
    for (int i = 0; i < r->n_tracks && n < ROWS_PICTURE_SEEN; i++) {
        const struct engine_track *t = &r->tracks[i];
        struct rows_seen *s = &seen[n++];
        *s = (struct rows_seen){.box = {share(t->box.x1, r->width), share(t->box.y1, r->height), share(t->box.x2, r->width), share(t->box.y2, r->height)},
                                .score = t->score > 0 ? MIN(t->score, 1) : 0};
        snprintf(s->label, sizeof s->label, "%s", t->label);
    }
    return rows_picture_comment(seen, n, p->comment);
}

static err make(struct serve_pictures *p, const struct engine_record *r)
{
    const struct video_frame *f = r->picture;
    const uint8_t *jpeg;
    size_t size;
    double scale = MIN(1.0, (double)p->o.side / MAX(f->width, f->height));
    int w = MAX(1, (int)(f->width * scale + 0.5)), h = MAX(1, (int)(f->height * scale + 0.5));
    err e = make_room(p, (size_t)w * (size_t)h * 3);
    if (!e) e = video_to_rgb24(p->conv, f, NULL, w, h, p->rgb, 3 * w);
    if (!e) e = video_jpeg_encode(p->jpeg, p->rgb, 3 * w, w, h, &jpeg, &size);
    if (!e && size < 2) e = err_set(ERR_INTERNAL, "a JPEG of %zu bytes", size);
    if (e) return e;
    size_t comment = comment_of(p, r);
    const void *const parts[] = {jpeg, p->comment, jpeg + 2};
    const size_t sizes[] = {2, comment, size - 2};
    return enqueue(p, r->uid, parts, sizes) ? ERR_OK : err_set(ERR_LIMIT, "the queue is full");
}

void serve_pictures_put(struct serve_pictures *p, const struct engine_record *r)
{
    static const size_t nothing[3];
    if (r->kind != ENGINE_EVENT || !r->picture) return;
    bool same = r->frame == p->frame && !strcmp(r->camera, p->camera) && !strcmp(r->query, p->query);
    bool done = same && p->queued ? enqueue(p, r->uid, NULL, nothing) : make(p, r) == ERR_OK;
    if (!same) {
        snprintf(p->camera, sizeof p->camera, "%s", r->camera);
        snprintf(p->query, sizeof p->query, "%s", r->query);
        p->frame = r->frame;
    }
    p->queued = done || (same && p->queued);
    if (!done && p->o.count) atomic_fetch_add(&p->o.count->slow, 1);
}

/* ---- the folder */

struct file {
    struct timespec time;
    uint64_t size;
    uint8_t uid[ROWS_UID];
};

static int by_age(const void *a, const void *b)
{
    const struct file *x = a, *y = b;
    if (x->time.tv_sec != y->time.tv_sec) return x->time.tv_sec < y->time.tv_sec ? -1 : 1;
    if (x->time.tv_nsec != y->time.tv_nsec) return x->time.tv_nsec < y->time.tv_nsec ? -1 : 1;
    return memcmp(x->uid, y->uid, ROWS_UID);
}

static uint8_t digit(char c)
{
    return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* Up to `cap` pictures of the folder; returns how many there are in all. */
static size_t list(DIR *d, struct file *ret, size_t cap, uint64_t *ret_total)
{
    size_t n = 0;
    *ret_total = 0;
    rewinddir(d);
    for (const struct dirent *entry; (entry = readdir(d));) {
        struct stat st;
        if (!rows_picture_named(entry->d_name) || fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
        if (n < cap) {
            ret[n] = (struct file){.time = st.st_mtim, .size = (uint64_t)st.st_size};
            for (int i = 0; i < ROWS_UID; i++) ret[n].uid[i] = (uint8_t)(digit(entry->d_name[2 * i]) << 4 | digit(entry->d_name[2 * i + 1]));
        }
        *ret_total += (uint64_t)st.st_size;
        n++;
    }
    return n;
}

/* The oldest go until the folder is a tenth under the limit. */
static void prune(struct serve_pictures *p)
{
    DIR *d = opendir(p->folder);
    struct file *files = NULL;
    if (!d) return;
    size_t n = MIN(list(d, NULL, 0, &p->total), (size_t)MOST_FILES);
    if (p->total > p->o.keep && mem_alloc(p->o.payer, MEM_OTHER, n * sizeof *files, (void **)&files) == ERR_OK) {
        size_t found = MIN(list(d, files, n, &p->total), n);
        qsort(files, found, sizeof *files, by_age);
        for (size_t i = 0; i < found && p->total > p->o.keep - p->o.keep / 10; i++) {
            char *path = rows_picture_path(p->folder, files[i].uid);
            if (unlink(path) == 0) p->total -= files[i].size;
            free(path);
        }
        mem_free(p->o.payer, MEM_OTHER, files, n * sizeof *files);
    }
    closedir(d);
}

static bool write_all(int fd, const uint8_t *bytes, size_t n)
{
    while (n) {
        ssize_t got = write(fd, bytes, n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        bytes += got;
        n -= (size_t)got;
    }
    return true;
}

/* The record at the ring's head. False and errno. */
static bool write_picture(struct serve_pictures *p, const struct header *h, size_t at, const char *path)
{
    char *fresh = xasprintf("%s/new", p->folder);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    size_t begin = at % SERVE_PICTURES_BYTES, first = MIN(h->size, SERVE_PICTURES_BYTES - begin);
    bool good = fd >= 0 && write_all(fd, p->ring + begin, first) && write_all(fd, p->ring, h->size - first);
    int error = errno;
    if (fd >= 0) good = close(fd) == 0 && good;
    if (good) good = rename(fresh, path) == 0;
    if (!good) {
        if (!error) error = errno;
        unlink(fresh);
        errno = error;
    }
    free(fresh);
    return good;
}

static bool link_picture(const struct serve_pictures *p, const char *path)
{
    if (!p->has_before) return errno = ENOENT, false;
    char *before = rows_picture_path(p->folder, p->before);
    bool good = link(before, path) == 0;
    free(before);
    return good;
}

static void tell(struct serve_pictures *p, const char *sentence)
{
    if (!strcmp(p->said, sentence)) return;
    snprintf(p->said, sizeof p->said, "%s", sentence);
    if (p->o.problem) p->o.problem(p->o.user, p->said);
}

static void write_one(struct serve_pictures *p, const struct header *h, size_t at)
{
    char *path = rows_picture_path(p->folder, h->uid);
    struct stat st;
    errno = 0;
    bool good = h->size ? write_picture(p, h, at, path) : link_picture(p, path);
    int error = errno;
    if (h->size) {
        p->has_before = good;
        memcpy(p->before, h->uid, ROWS_UID);
    }
    if (p->o.count) atomic_fetch_add(good ? &p->o.count->written : &p->o.count->failed, 1);
    if (good) {
        p->total += h->size ? h->size : stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
        if (p->total > p->o.keep) prune(p);
    }
    char text[256] = "";
    if (!good && h->size) snprintf(text, sizeof text, "%s: %s", p->folder, strerror(error));
    if (good || text[0]) tell(p, text);
    free(path);
}

static void *run(void *arg)
{
    struct serve_pictures *p = arg;
    prune(p);
    pthread_mutex_lock(&p->lock);
    while (p->used || !p->stop) {
        struct header h;
        if (!p->used) {
            pthread_cond_wait(&p->more, &p->lock);
            continue;
        }
        copy_out(p, p->head, &h, sizeof h);
        pthread_mutex_unlock(&p->lock);
        write_one(p, &h, p->head + sizeof h);
        pthread_mutex_lock(&p->lock);
        p->head = (p->head + sizeof h + h.size) % SERVE_PICTURES_BYTES;
        p->used -= sizeof h + h.size;
        if (!p->used) p->head = 0; /* an idle queue does not wander through, and touch, all of its memory */
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- lifetimes */

err serve_pictures_open(const struct serve_pictures_options *o, struct serve_pictures **ret)
{
    struct serve_pictures *p = xnew(struct serve_pictures);
    p->o = *o;
    p->folder = rows_picture_folder(o->database);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->more, NULL);
    p->conv = video_conv_new(o->payer);
    p->jpeg = video_jpeg_new(o->payer, QUALITY);
    p->comment = xnewn(uint8_t, ROWS_PICTURE_COMMENT);
    err e = mkdir(p->folder, 0755) && errno != EEXIST ? err_set(ERR_IO, "%s: cannot make the folder: %s", p->folder, strerror(errno)) : ERR_OK;
    if (!e) e = mem_alloc(o->payer, MEM_QUEUE, SERVE_PICTURES_BYTES, (void **)&p->ring);
    if (!e) e = thread_start("brim-pictures", run, p, &p->thread);
    p->started = !e;
    if (e) serve_pictures_close(&p);
    else *ret = p;
    return e;
}

void serve_pictures_close(struct serve_pictures **pp)
{
    struct serve_pictures *p = *pp;
    if (!p) return;
    if (p->started) {
        pthread_mutex_lock(&p->lock);
        p->stop = true;
        pthread_cond_signal(&p->more);
        pthread_mutex_unlock(&p->lock);
        pthread_join(p->thread, NULL);
    }
    video_conv_free(&p->conv);
    video_jpeg_free(&p->jpeg);
    mem_free(p->o.payer, MEM_OTHER, p->rgb, p->rgb_size);
    mem_free(p->o.payer, MEM_QUEUE, p->ring, SERVE_PICTURES_BYTES);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->more);
    free(p->comment);
    free(p->folder);
    free(p);
    *pp = NULL;
}

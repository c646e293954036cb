/* What a camera's URL means; hiding its password; finding its host without hanging; listing images.
 *
 * getaddrinfo cannot be interrupted and may take half a minute when the name server is dead, but a camera must close
 * within a second. So a detached thread that owns nothing but its own little struct resolves first, and is left
 * behind when we are told to stop; FFmpeg asks again when the answer is known to come at once.
 * SPDX-License-Identifier: Apache-2.0 */
#include "video/session.h"

#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

enum { MAX_IMAGES = 1000000, RESOLVER_STACK = 256 << 10 };

/* Where the authority ("user:pw@host:port") of a URL begins and ends; false if there is none. The last '@' before the
 * path ends the password, because passwords with an unescaped '@' exist. */
static bool authority(const char *url, const char **start, const char **host, const char **end)
{
    const char *p = strstr(url, "://");
    if (!p) return false;
    *start = *host = p + 3;
    *end = *start + strcspn(*start, "/?#");
    for (const char *q = *start; q < *end; q++)
        if (*q == '@') *host = q + 1;
    return true;
}

void video_url_redact(const char *url, char *buf, size_t size)
{
    const char *start, *host, *end;
    if (!authority(url, &start, &host, &end))
        snprintf(buf, size, "%s", url);
    else /* queries carry tokens as often as not */
        snprintf(buf, size, "%.*s%.*s%s", (int)(start - url), url, (int)(strcspn(host, "?#")), host,
                 strpbrk(host, "?#") ? "?..." : "");
}

bool video_is_image(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot && (!strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg") || !strcasecmp(dot, ".png"));
}

err video_url_kind(const char *url, enum video_kind *ret, const char **ret_path)
{
    *ret_path = url;
    if (str_starts(url, "rtsp://") || str_starts(url, "rtsps://")) return *ret = VIDEO_RTSP, ERR_OK;
    if (str_starts(url, "http://") || str_starts(url, "https://")) return *ret = VIDEO_HTTP, ERR_OK;
    if (str_starts(url, "v4l2:")) return *ret = VIDEO_V4L2, *ret_path = url + 5, ERR_OK;
    if (str_starts(url, "file://"))
        *ret_path = url + 7;
    else if (str_starts(url, "file:"))
        *ret_path = url + 5;
    else if (strstr(url, "://"))
        return err_set(
            ERR_UNSUPPORTED,
            "a camera's url begins with rtsp://, rtsps://, http://, https://, v4l2: or is a file or folder");
    struct stat st;
    if (str_starts(*ret_path, "/dev/video")) return *ret = VIDEO_V4L2, ERR_OK;
    bool dir = stat(*ret_path, &st) == 0 && S_ISDIR(st.st_mode);
    *ret = dir || video_is_image(*ret_path) ? VIDEO_IMAGES : VIDEO_FILE;
    return ERR_OK;
}

struct lookup {
    pthread_mutex_t lock; /* guards done, left, result */
    pthread_cond_t changed;
    bool done, left;
    int result;
    char host[256];
};

static void lookup_free(struct lookup *l)
{
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->changed);
    free(l);
}

static void *lookup_main(void *arg)
{
    struct lookup *l = arg;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int r = getaddrinfo(l->host, NULL, &hints, &list);
    if (r == 0) freeaddrinfo(list);
    pthread_mutex_lock(&l->lock);
    l->result = r;
    l->done = true;
    bool left = l->left;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
    if (left) lookup_free(l);
    return NULL;
}

/* Waits for the lookup thread; true when it was left behind (and now owns the struct). */
static bool lookup_wait(struct lookup *l, int timeout_ms, bool (*tick)(void *), void *user, err *ret)
{
    int64_t end = clock_ns() + timeout_ms * 1000000LL;
    pthread_mutex_lock(&l->lock);
    while (!l->done && !l->left) {
        int64_t until = clock_ns() + 50000000;
        struct timespec ts = {until / 1000000000, until % 1000000000};
        pthread_cond_timedwait(&l->changed, &l->lock, &ts);
        if (l->done) break;
        pthread_mutex_unlock(&l->lock);
        bool stop = tick(user), late = clock_ns() > end;
        pthread_mutex_lock(&l->lock);
        if (!l->done && (stop || late)) {
            l->left = true;
            *ret = stop ? err_set(ERR_CANCELLED, "stopped")
                        : err_set(ERR_TIMEOUT, "no answer from the name server for '%s' within %d ms", l->host,
                                  timeout_ms);
        }
    }
    bool left = l->left;
    pthread_mutex_unlock(&l->lock);
    return left;
}

err video_url_resolve(const char *url, int timeout_ms, bool (*tick)(void *), void *user)
{
    const char *start, *host, *end;
    if (!authority(url, &start, &host, &end)) return ERR_OK;
    size_t n = *host == '[' ? strcspn(++host, "]") : strcspn(host, ":/?#");
    if (n == 0 || n > 255) return err_set(ERR_USAGE, "the url has no host name (or one of more than 255 bytes)");
    struct lookup *l = xnew(struct lookup);
    memcpy(l->host, host, n);
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_t ca;
    pthread_condattr_init(&ca);
    pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
    pthread_cond_init(&l->changed, &ca);
    pthread_condattr_destroy(&ca);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, RESOLVER_STACK);
    pthread_t t;
    int r = pthread_create(&t, &attr, lookup_main, l);
    pthread_attr_destroy(&attr);
    if (r) {
        lookup_free(l);
        return err_set(ERR_IO, "cannot start a thread: %s", strerror(r));
    }
    err e = ERR_OK;
    if (lookup_wait(l, timeout_ms, tick, user, &e)) return e;
    if (l->result) e = err_set(ERR_NOT_FOUND, "host '%s': %s", l->host, gai_strerror(l->result));
    lookup_free(l);
    return e;
}

struct video_images {
    char **paths;
    size_t n, cap;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

err video_images_open(const char *path, struct video_images **ret)
{
    struct video_images *v = xnew(struct video_images);
    struct stat st;
    err e = ERR_OK;
    if (stat(path, &st)) {
        e = err_set(ERR_NOT_FOUND, "%s: %s", path, strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
        DIR *d = opendir(path);
        if (!d) e = err_set(ERR_IO, "%s: cannot list: %s", path, strerror(errno));
        for (struct dirent *de; d && (de = readdir(d)) && v->n < MAX_IMAGES;) {
            if (!video_is_image(de->d_name) || de->d_name[0] == '.') continue;
            vec_grow(&v->paths, &v->cap, v->n);
            v->paths[v->n++] = xasprintf("%s/%s", path, de->d_name);
        }
        if (d) closedir(d);
        if (v->n) qsort(v->paths, v->n, sizeof *v->paths, by_name);
        if (!e && !v->n) e = err_set(ERR_NOT_FOUND, "%s: a folder without .jpg, .jpeg or .png files", path);
    } else {
        vec_grow(&v->paths, &v->cap, v->n);
        v->paths[v->n++] = xstrdup(path);
    }
    if (e) {
        video_images_close(&v);
        return e;
    }
    *ret = v;
    return ERR_OK;
}

void video_images_close(struct video_images **v)
{
    if (!*v) return;
    for (size_t i = 0; i < (*v)->n; i++) free((*v)->paths[i]);
    free((*v)->paths);
    free(*v);
    *v = NULL;
}

size_t video_images_count(const struct video_images *v)
{
    return v->n;
}

const char *video_images_path(const struct video_images *v, size_t i)
{
    return v->paths[i];
}

/* Mappings and decoded blocks: see file.h.
 *
 * Invariant: mappings and blocks only grow until the last reference is gone, so pointers into them stay good.
 * SPDX-License-Identifier: Apache-2.0 */
#include "graph/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_EXTERNAL = 4096 };

struct graph_file *graph_file_new(const char *dir, struct mem_payer *payer)
{
    struct graph_file *f = xnew(struct graph_file);
    f->refs = 1;
    f->dir = dir ? xstrdup(dir) : NULL;
    f->payer = payer;
    return f;
}

struct graph_file *graph_file_ref(struct graph_file *f)
{
    if (f) __atomic_add_fetch(&f->refs, 1, __ATOMIC_RELAXED);
    return f;
}

void graph_file_unref(struct graph_file **fp)
{
    struct graph_file *f = *fp;
    *fp = NULL;
    if (!f || __atomic_sub_fetch(&f->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
    for (size_t i = 0; i < f->n_mappings; i++) {
        munmap((void *)(uintptr_t)f->mappings[i].base, f->mappings[i].size);
        free(f->mappings[i].location);
    }
    for (size_t i = 0; i < f->n_blocks; i++) mem_free(f->payer, MEM_OTHER, f->blocks[i].p, f->blocks[i].n);
    if (f->booked) mem_release(f->payer, MEM_OTHER, f->booked);
    free(f->mappings);
    free(f->blocks);
    free(f->dir);
    free(f->solid);
    free(f);
}

static err map(const char *path, const uint8_t **ret, size_t *ret_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    err e = ERR_OK;
    void *p = MAP_FAILED;
    if (fstat(fd, &st)) {
        e = err_set(ERR_IO, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        e = err_set(ERR_USAGE, "%s: not a regular file", path);
    } else if (st.st_size == 0) {
        e = err_set(ERR_FORMAT, "%s: byte 0: the file is empty", path);
    } else {
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) e = err_set(ERR_IO, "%s: cannot map: %s", path, strerror(errno));
    }
    close(fd);
    if (e) return e;
    *ret = p;
    *ret_size = (size_t)st.st_size;
    return ERR_OK;
}

err graph_file_map(struct graph_file *f, const char *path, const char *location, const struct graph_mapping **ret)
{
    struct graph_mapping m = {0};
    err e = map(path, &m.base, &m.size);
    if (e) return e;
    m.location = location ? xstrdup(location) : NULL;
    vec_grow(&f->mappings, &f->cap_mappings, f->n_mappings);
    f->mappings[f->n_mappings] = m;
    *ret = &f->mappings[f->n_mappings++];
    return ERR_OK;
}

/* Refuses "/x", "a/../../x" and the like before anything is opened. */
static bool stays_inside(const char *location)
{
    if (!*location || *location == '/') return false;
    for (const char *p = location; p; p = strchr(p, '/')) {
        if (*p == '/') p++;
        if (str_starts(p, "..") && (p[2] == '/' || !p[2])) return false;
    }
    return true;
}

/* As long as the file, without reading it: pages that nobody touches cost nothing. */
static err map_zeros(struct graph_file *f, const char *path, const char *location, const struct graph_mapping **ret)
{
    struct stat st;
    if (stat(path, &st) || !S_ISREG(st.st_mode) || !st.st_size) return err_set(ERR_IO, "%s: cannot be read", path);
    struct graph_mapping m = {.location = xstrdup(location), .size = (size_t)st.st_size};
    void *p = mmap(NULL, m.size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        free(m.location);
        return err_set(ERR_IO, "%s: cannot map: %s", path, strerror(errno));
    }
    m.base = p;
    vec_grow(&f->mappings, &f->cap_mappings, f->n_mappings);
    f->mappings[f->n_mappings] = m;
    *ret = &f->mappings[f->n_mappings++];
    return ERR_OK;
}

err graph_file_external(struct graph_file *f, const char *location, const struct graph_mapping **ret)
{
    for (size_t i = 0; i < f->n_mappings; i++)
        if (f->mappings[i].location && strcmp(f->mappings[i].location, location) == 0) {
            *ret = &f->mappings[i];
            return ERR_OK;
        }
    if (!f->dir)
        return err_set(ERR_UNSUPPORTED, "external data '%s', but the model was not read from a folder", location);
    if (!stays_inside(location))
        return err_set(ERR_FORMAT, "external data '%s' would be outside the model's folder: refused", location);
    if (f->n_mappings > MOST_EXTERNAL)
        return err_set(ERR_LIMIT, "more than %d files of external data", MOST_EXTERNAL);
    char *joined = xasprintf("%s/%s", f->dir, location), dir[PATH_MAX], path[PATH_MAX];
    err e = ERR_OK;
    if (!realpath(f->dir, dir))
        e = err_set(ERR_IO, "%s: %s", f->dir, strerror(errno));
    else if (!realpath(joined, path))
        e = err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "external data %s: %s (it belongs beside the model)",
                    joined, strerror(errno));
    else if (strcmp(dir, "/") != 0 && (!str_starts(path, dir) || path[strlen(dir)] != '/'))
        e = err_set(ERR_FORMAT, "external data '%s' is a link out of the model's folder: refused", location);
    free(joined);
    if (!e && f->solid && strcmp(f->solid, location) != 0) return map_zeros(f, path, location, ret);
    return e ? e : graph_file_map(f, path, location, ret);
}

void graph_file_forget(const struct graph_file *f)
{
    for (size_t i = 0; i < f->n_mappings; i++)
        if (f->mappings[i].size) madvise((void *)(uintptr_t)f->mappings[i].base, f->mappings[i].size, MADV_DONTNEED); /* a hint */
}

err graph_file_block(struct graph_file *f, size_t n, void **ret)
{
    void *p = NULL;
    err e = mem_alloc(f->payer, MEM_OTHER, n, &p);
    if (e) return e;
    vec_grow(&f->blocks, &f->cap_blocks, f->n_blocks);
    f->blocks[f->n_blocks++] = (struct graph_block){p, n};
    *ret = p;
    return ERR_OK;
}

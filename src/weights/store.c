/* The store as a folder: opening, locks, names, pins, uses.
 *
 * Two locks, both flock on files that are never removed, so that the kernel drops them with a dying process. `lock`: one writer. `gate`:
 * shared while somebody goes from a name to open files, exclusive while files are taken away; after that open files live on by themselves, which is
 * what makes immutable files pleasant. A *use* is a file whose lock its process holds: no lock, no use.
 *
 * Invariant: whatever `current` names is complete. SPDX-License-Identifier: Apache-2.0 */
#include "weights/store_inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_MS = 60000, STEP_MS = 10 };
static const char FORMAT[] = "brim store 1\n";

/* ---- ids and names */

char *weights_id_text(const struct weights_id *id, char buf[65])
{
    for (int i = 0; i < 32; i++) snprintf(buf + 2 * i, 3, "%02x", id->b[i]);
    return buf;
}

bool weights_id_equal(const struct weights_id *a, const struct weights_id *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

bool weights_id_parse(const char *text, struct weights_id *ret)
{
    if (strlen(text) != 64) return false;
    for (int i = 0; i < 64; i++) {
        if (!strchr("0123456789abcdef", text[i])) return false;
        int v = text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10;
        ret->b[i / 2] = (unsigned char)(i % 2 ? ret->b[i / 2] | v : v << 4);
    }
    return true;
}

struct weights_id weights_hash(const void *p, size_t n)
{
    struct weights_id id;
    crypto_generichash(id.b, sizeof id.b, p, n, NULL, 0);
    return id;
}

err weights_name_check(const char *name)
{
    size_t n = strlen(name);
    bool ok = n >= 1 && n <= 100 && *name != '.' &&
              strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
    return ok ? ERR_OK
              : err_set(ERR_USAGE, "'%.120s' cannot be a model's name: letters, digits, '.', '_' and '-', no '.' in front, at most 100; give one with --name",
                        name);
}

bool weights_version_parse(const char *text, uint32_t *ret)
{
    char *end;
    if (*text < '1' || *text > '9' || strlen(text) > 9) return false;
    unsigned long v = strtoul(text, &end, 10);
    *ret = (uint32_t)v;
    return !*end;
}

/* ---- folders */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

err weights_entries(const char *dir, char ***ret, size_t *ret_n)
{
    DIR *d = opendir(dir);
    *ret = NULL;
    *ret_n = 0;
    if (!d && errno == ENOENT) return ERR_OK;
    if (!d) return err_set(ERR_IO, "%s: cannot read the folder: %s", dir, strerror(errno));
    size_t cap = 0;
    const struct dirent *x;
    while ((x = readdir(d))) {
        if (!strcmp(x->d_name, ".") || !strcmp(x->d_name, "..")) continue;
        vec_grow(ret, &cap, *ret_n);
        (*ret)[(*ret_n)++] = xstrdup(x->d_name);
    }
    closedir(d);
    if (*ret_n) qsort(*ret, *ret_n, sizeof **ret, by_name);
    return ERR_OK;
}

void weights_entries_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names);
}

err weights_sync_dir(struct weights_store *s, const char *dir)
{
    if (!s->fs.sync_dir(s->fs.self, dir)) return ERR_OK;
    return err_set(ERR_IO, "%s: cannot write the folder: %s", dir, strerror(errno));
}

static err make_dir(struct weights_store *s, const char *path)
{
    struct stat st;
    if (!stat(path, &st) && S_ISDIR(st.st_mode)) return ERR_OK;
    if (s->fs.mkdir(s->fs.self, path))
        return err_set(ERR_IO, "%s: cannot make the store: %s; give another with --store or $BRIM_STORE", path, strerror(errno));
    return ERR_OK;
}

static err make_dirs(struct weights_store *s)
{
    char *copy = xstrdup(s->path);
    err e = ERR_OK;
    for (char *c = copy + 1; *c && !e; c++) {
        if (*c != '/') continue;
        *c = 0;
        e = make_dir(s, copy);
        *c = '/';
    }
    free(copy);
    const char *const dirs[] = {s->path, s->blobs, s->models, s->packed, s->uses, s->tmp};
    for (size_t i = 0; i < ARRAY_LEN(dirs) && !e; i++) e = make_dir(s, dirs[i]);
    return e;
}

/* ---- opening */

static err check_format(struct weights_store *s)
{
    char *path = xasprintf("%s/store", s->path);
    unsigned char *text;
    size_t n;
    err e = weights_fs_get(&s->fs, path, 64, &text, &n);
    if (e == ERR_NOT_FOUND) {
        const void *part = FORMAT;
        size_t size = sizeof FORMAT - 1;
        if (!(e = weights_store_begin(s))) {
            e = weights_fs_put(&s->fs, s->tmp, s->path, "store", &part, &size, 1, false);
            weights_store_end(s);
        }
    } else if (!e) {
        if (n != sizeof FORMAT - 1 || memcmp(text, FORMAT, n))
            e = err_set(ERR_UNSUPPORTED, "%s: this is no weight store of format 1 that this brim (format 1) knows; use the brim that made it, or "
                        "another store (--store), and import the models there", path);
        free(text);
    }
    free(path);
    return e;
}

static int open_lock(const struct weights_store *s, const char *name)
{
    char *path = xasprintf("%s/%s", s->path, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) fd = open(path, O_RDONLY | O_CLOEXEC); /* a store that we may only read */
    free(path);
    return fd;
}

err weights_store_open(const char *path, const struct weights_fs *fs, struct weights_store **ret)
{
    struct weights_store *s = xnew(struct weights_store);
    if (sodium_init() < 0) abort(); /* no randomness device: nothing would be right */
    s->fs = fs ? *fs : weights_fs_system;
    s->path = xstrdup(path);
    s->blobs = xasprintf("%s/blobs", path);
    s->models = xasprintf("%s/models", path);
    s->packed = xasprintf("%s/packed", path);
    s->uses = xasprintf("%s/uses", path);
    s->tmp = xasprintf("%s/tmp", path);
    s->lock = s->gate = -1;
    err e = make_dirs(s);
    if (!e) {
        s->lock = open_lock(s, "lock");
        s->gate = open_lock(s, "gate");
        if (s->lock < 0 || s->gate < 0) e = err_set(ERR_IO, "%s: cannot make the store's locks: %s", path, strerror(errno));
    }
    if (!e) e = check_format(s);
    if (e) weights_store_close(&s);
    else *ret = s;
    return e;
}

void weights_store_close(struct weights_store **sp)
{
    struct weights_store *s = *sp;
    if (!s) return;
    if (s->lock >= 0) close(s->lock);
    if (s->gate >= 0) close(s->gate);
    free(s->path);
    free(s->blobs);
    free(s->models);
    free(s->packed);
    free(s->uses);
    free(s->tmp);
    free(s);
    *sp = NULL;
}

const char *weights_store_path(const struct weights_store *s)
{
    return s->path;
}

const char *weights_store_blobs(const struct weights_store *s)
{
    return s->blobs;
}

/* ---- locks */

static err take(const struct weights_store *s, int fd, int how, const char *what)
{
    for (int ms = 0;; ms += STEP_MS) {
        if (!flock(fd, how | LOCK_NB)) return ERR_OK;
        if (errno != EWOULDBLOCK && errno != EINTR) return err_set(ERR_IO, "%s: cannot lock: %s", s->path, strerror(errno));
        if (ms >= WAIT_MS) return err_set(ERR_BUSY, "%s: another brim %s this store; try again when it has ended", s->path, what);
        nanosleep(&(struct timespec){0, STEP_MS * 1000000L}, NULL);
    }
}

err weights_store_begin(struct weights_store *s)
{
    err e = s->depth ? ERR_OK : take(s, s->lock, LOCK_EX, "writes to");
    if (!e) s->depth++;
    return e;
}

void weights_store_end(struct weights_store *s)
{
    if (--s->depth == 0) flock(s->lock, LOCK_UN);
}

err weights_gate(struct weights_store *s, bool exclusive)
{
    return take(s, s->gate, exclusive ? LOCK_EX : LOCK_SH, exclusive ? "opens models of" : "collects");
}

void weights_gate_open(struct weights_store *s)
{
    flock(s->gate, LOCK_UN);
}

bool weights_held(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool held = flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    close(fd);
    return held;
}

/* ---- lists */

err weights_store_list(struct weights_store *s, char ***ret, size_t *ret_n)
{
    char **names;
    size_t n, kept = 0;
    err e = weights_entries(s->models, &names, &n);
    if (e) return e;
    for (size_t i = 0; i < n; i++) {
        char *path = xasprintf("%s/%s/current", s->models, names[i]);
        bool there = access(path, F_OK) == 0;
        free(path);
        if (there) names[kept++] = names[i];
        else free(names[i]);
    }
    *ret = names;
    *ret_n = kept;
    return ERR_OK;
}

/* ---- pins and uses */

struct weights_use {
    int fd;
    char *path;
};

err weights_pin(struct weights_store *s, const char *name, bool on)
{
    struct weights_manifest m;
    char *dir = xasprintf("%s/%s", s->models, name), *path = xasprintf("%s/pinned", dir);
    const void *part = "";
    size_t size = 0;
    err e = weights_name_check(name);
    if (!e) e = weights_store_begin(s);
    if (!e) {
        if (!(e = weights_manifest_current(s, name, &m))) weights_manifest_done(&m);
        if (!e && on) e = weights_fs_put(&s->fs, s->tmp, dir, "pinned", &part, &size, 1, false);
        if (!e && !on && s->fs.unlink(s->fs.self, path) && errno != ENOENT) e = err_set(ERR_IO, "%s: %s", path, strerror(errno));
        if (!e && !on) e = weights_sync_dir(s, dir);
        weights_store_end(s);
    }
    free(path);
    free(dir);
    return e;
}

bool weights_pinned(struct weights_store *s, const char *name)
{
    char *path = xasprintf("%s/%s/pinned", s->models, name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

/* A mark is locked before it can be seen. A store that we may only read takes none: who may not write may not be waited for either. */
static err mark(struct weights_store *s, const struct weights_manifest *m, struct weights_use **ret)
{
    char *name = xasprintf("%s@%u~%ld~%llx", m->name, m->version, (long)getpid(), (unsigned long long)clock_ns());
    char *tmp = xasprintf("%s/use-%s", s->tmp, name), *path = xasprintf("%s/%s", s->uses, name);
    struct weights_use *u = xnew(struct weights_use);
    u->fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    err e = ERR_OK;
    if (u->fd < 0 && errno != EROFS && errno != EACCES) e = err_set(ERR_IO, "%s: cannot make the file: %s", tmp, strerror(errno));
    if (u->fd >= 0 && (flock(u->fd, LOCK_EX | LOCK_NB) || rename(tmp, path))) {
        e = err_set(ERR_IO, "%s: %s", path, strerror(errno));
        unlink(tmp);
    }
    free(tmp);
    free(name);
    u->path = path;
    if (e) weights_use_close(&u);
    else *ret = u;
    return e;
}

err weights_use_open(struct weights_store *s, const char *name, struct weights_manifest *ret, struct weights_use **ret_use)
{
    struct weights_manifest m;
    err e = weights_gate(s, false);
    if (e) return e;
    if (!(e = weights_manifest_current(s, name, &m))) {
        if ((e = mark(s, &m, ret_use))) weights_manifest_done(&m);
        else *ret = m;
    }
    weights_gate_open(s);
    return e;
}

void weights_use_close(struct weights_use **up)
{
    struct weights_use *u = *up;
    if (!u) return;
    if (u->fd >= 0) {
        unlink(u->path);
        close(u->fd);
    }
    free(u->path);
    free(u);
    *up = NULL;
}

static err count_uses(struct weights_store *s, const char *prefix, int *ret)
{
    char **names;
    size_t n;
    err e = weights_entries(s->uses, &names, &n);
    if (e) return e;
    *ret = 0;
    for (size_t i = 0; i < n; i++) {
        char *path = xasprintf("%s/%s", s->uses, names[i]);
        *ret += str_starts(names[i], prefix) && weights_held(path);
        free(path);
    }
    weights_entries_free(names, n);
    return ERR_OK;
}

err weights_use_count(struct weights_store *s, const char *name, int *ret)
{
    char *prefix = xasprintf("%s@", name);
    err e = count_uses(s, prefix, ret);
    free(prefix);
    return e;
}

bool weights_version_used(struct weights_store *s, const char *name, uint32_t version)
{
    int n = 1;
    char *prefix = xasprintf("%s@%u~", name, version);
    err e = count_uses(s, prefix, &n);
    free(prefix);
    return e || n > 0; /* who cannot be counted is there */
}

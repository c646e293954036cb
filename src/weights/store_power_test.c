/* Power lost between any two operations: what was not synced is there, lost, or there in part, in any combination.
 *
 * The store's operations run on a real folder through a layer that writes them down. For each moment, and for many subsets of what was not yet durable
 * then, the disk as it could be found is built in another folder: writes of a file are durable after its fsync, names in a folder after the folder's. The
 * store must open there, every byte must verify, the old state or the new one must be there, and the collector must leave a clean store.
 * SPDX-License-Identifier: Apache-2.0 */
#include "weights/store_testing.h"

#include <errno.h>

enum kind { CREATE, WRITE, SYNC, RENAME, UNLINK, MKDIR, RMDIR, SYNC_DIR };

struct op {
    enum kind kind;
    int file;      /* number of a file made in this run, -1: one that was there before */
    char *a, *b;   /* paths */
    unsigned char *bytes;
    size_t n;
    off_t at;
};

enum { MOST_FDS = 1024 };
struct journal {
    struct op *ops;
    size_t n, cap;
    int n_files, file_of_fd[MOST_FDS];
    size_t n_paths, cap_paths;
    struct path {
        char *path;
        int file;
    } *paths; /* of files made in this run, now */
};

static struct op *note(struct journal *j, enum kind kind, const char *a, const char *b)
{
    vec_grow(&j->ops, &j->cap, j->n);
    struct op *o = &j->ops[j->n++];
    *o = (struct op){.kind = kind, .file = -1, .a = a ? xstrdup(a) : NULL, .b = b ? xstrdup(b) : NULL};
    return o;
}

static int file_at(struct journal *j, const char *path)
{
    for (size_t i = j->n_paths; i-- > 0;)
        if (!strcmp(j->paths[i].path, path)) return j->paths[i].file;
    return -1;
}

static void set_path(struct journal *j, const char *path, int file)
{
    vec_grow(&j->paths, &j->cap_paths, j->n_paths);
    j->paths[j->n_paths++] = (struct path){xstrdup(path), file};
}

static int s_create(void *self, const char *path)
{
    struct journal *j = self;
    int fd = weights_fs_system.create(NULL, path);
    if (fd < 0) return fd;
    assert_true(fd < MOST_FDS);
    j->file_of_fd[fd] = j->n_files;
    set_path(j, path, j->n_files);
    note(j, CREATE, path, NULL)->file = j->n_files++;
    return fd;
}

static ssize_t s_pwrite(void *self, int fd, const void *p, size_t n, off_t at)
{
    struct journal *j = self;
    ssize_t k = weights_fs_system.pwrite(NULL, fd, p, n, at);
    if (k <= 0) return k;
    struct op *o = note(j, WRITE, NULL, NULL);
    o->file = j->file_of_fd[fd];
    o->bytes = xcalloc(1, (size_t)k);
    memcpy(o->bytes, p, (size_t)k);
    o->n = (size_t)k;
    o->at = at;
    return k;
}

static int s_sync(void *self, int fd)
{
    struct journal *j = self;
    note(j, SYNC, NULL, NULL)->file = j->file_of_fd[fd];
    return 0;
}

static int s_rename(void *self, const char *a, const char *b)
{
    struct journal *j = self;
    int rc = weights_fs_system.rename(NULL, a, b);
    if (rc) return rc;
    int file = file_at(j, a);
    note(j, RENAME, a, b)->file = file;
    set_path(j, b, file);
    return 0;
}

static int s_unlink(void *self, const char *path)
{
    int rc = weights_fs_system.unlink(NULL, path);
    if (!rc) note(self, UNLINK, path, NULL);
    return rc;
}

static int s_mkdir(void *self, const char *path)
{
    if (access(path, F_OK)) note(self, MKDIR, path, NULL);
    return weights_fs_system.mkdir(NULL, path);
}

static int s_rmdir(void *self, const char *path)
{
    int rc = weights_fs_system.rmdir(NULL, path);
    if (!rc) note(self, RMDIR, path, NULL);
    return rc;
}

static int s_sync_dir(void *self, const char *path)
{
    note(self, SYNC_DIR, path, NULL);
    return 0;
}

static struct weights_fs layer(struct journal *j)
{
    return (struct weights_fs){j, s_create, s_pwrite, s_sync, s_rename, s_unlink, s_mkdir, s_rmdir, s_sync_dir, weights_fs_system.pread};
}

static void journal_done(struct journal *j)
{
    for (size_t i = 0; i < j->n; i++) {
        free(j->ops[i].a);
        free(j->ops[i].b);
        free(j->ops[i].bytes);
    }
    for (size_t i = 0; i < j->n_paths; i++) free(j->paths[i].path);
    free(j->ops);
    free(j->paths);
}

/* ---- the disk as it could be found */

static bool in_folder(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    return path && !strncmp(path, folder, n) && path[n] == '/' && !strchr(path + n + 1, '/');
}

/* Is operation i durable at the moment `end`? */
static bool durable(const struct journal *j, size_t i, size_t end)
{
    const struct op *o = &j->ops[i];
    for (size_t k = i + 1; k < end; k++) {
        const struct op *s = &j->ops[k];
        if (o->kind == WRITE ? s->kind == SYNC && s->file == o->file
                             : s->kind == SYNC_DIR && in_folder(o->kind == RENAME ? o->b : o->a, s->a))
            return true;
    }
    return false;
}

struct disk {
    const struct journal *j;
    const char *work, *to; /* paths in the journal begin with `work` */
    unsigned char *fate;   /* per operation: 0 lost, 1 there, 2 half (writes) */
};

static char *moved(const struct disk *d, const char *path)
{
    return xasprintf("%s%s", d->to, path + strlen(d->work));
}

static void write_file(const struct disk *d, int file, const char *path, size_t end)
{
    FILE *f = fopen(path, "wb");
    if (!f) return; /* its folder was lost */
    for (size_t i = 0; i < end; i++) {
        const struct op *o = &d->j->ops[i];
        if (o->kind != WRITE || o->file != file || !d->fate[i]) continue;
        size_t n = d->fate[i] == 2 ? o->n / 2 : o->n;
        assert_int_equal(fseek(f, o->at, SEEK_SET), 0);
        assert_int_equal(fwrite(o->bytes, 1, n, f), n);
    }
    fclose(f);
}

static void build(const struct disk *d, const char *base, size_t end)
{
    char *command = xasprintf("rm -rf '%s' && cp -a '%s' '%s'", d->to, base, d->to);
    assert_int_equal(system(command), 0);
    free(command);
    for (size_t i = 0; i < end; i++) {
        const struct op *o = &d->j->ops[i];
        if (!d->fate[i] || !o->a) continue;
        char *a = moved(d, o->a), *b = o->b ? moved(d, o->b) : NULL;
        switch (o->kind) {
        case CREATE: write_file(d, o->file, a, end); break;
        case RENAME:
            unlink(a);
            write_file(d, o->file, b, end);
            break;
        case UNLINK: unlink(a); break;
        case MKDIR: mkdir(a, 0755); break;
        case RMDIR: rmdir(a); break;
        case WRITE: case SYNC: case SYNC_DIR: break;
        }
        free(a);
        free(b);
    }
}

/* ---- scenarios */

typedef err writer(struct weights_store *s);
struct scenario {
    const char *name;
    writer *run;
    const char *model; /* whose version is one of these afterwards; once new, it stays new */
    uint32_t old_version, new_version;
};

static err import_again(struct weights_store *s)
{
    bool is_new;
    return testing_import(s, "a", (int[]){2, 3}, 2, &is_new);
}

static err import_new(struct weights_store *s)
{
    bool is_new;
    return testing_import(s, "b", (int[]){2, 3}, 2, &is_new);
}

static err pack(struct weights_store *s)
{
    struct weights_manifest m;
    int written;
    err e = weights_manifest_current(s, "a", &m);
    if (!e) e = testing_pack(s, "kb", &m.id, (int[]){4, 1}, 2, &written);
    weights_manifest_done(&m);
    return e;
}

static err remove_it(struct weights_store *s)
{
    struct weights_gc_report gc;
    return weights_store_remove(s, "a", &gc);
}

static err collect(struct weights_store *s)
{
    struct weights_gc_report gc;
    return weights_store_gc(s, &gc);
}

static void keep_sentence(void *user, const char *sentence)
{
    snprintf(user, 600, "%s", sentence);
}

static void check(const char *dir, const struct scenario *c, size_t moment, bool over)
{
    struct weights_store *s;
    struct weights_verify_report r;
    struct weights_gc_report gc;
    struct weights_manifest m;
    char sentence[600];
    if (weights_store_open(dir, NULL, &s)) fail_msg("%s, moment %zu: %s", c->name, moment, err_text());
    for (int again = 0; again < 2; again++) {
        assert_int_equal(weights_store_verify(s, keep_sentence, sentence, &r), ERR_OK);
        if (r.damaged + r.missing) fail_msg("%s, moment %zu: %s", c->name, moment, sentence);
        err e = weights_manifest_current(s, c->model, &m);
        if (e && e != ERR_NOT_FOUND) fail_msg("%s, moment %zu: %s", c->name, moment, err_text());
        uint32_t v = e ? 0 : m.version;
        if (!e) weights_manifest_done(&m);
        if (v != c->new_version && (over || v != c->old_version)) fail_msg("%s, moment %zu: version %u", c->name, moment, v);
        if (!again && weights_store_gc(s, &gc)) fail_msg("%s, moment %zu: %s", c->name, moment, err_text());
    }
    weights_store_close(&s);
}

static void run(const struct scenario *c)
{
    char *root = testing_folder(), *base = xasprintf("%s/base", root), *work = xasprintf("%s/work", root), *to = xasprintf("%s/to", root);
    struct weights_store *s;
    struct weights_manifest m;
    struct journal j = {0};
    struct weights_fs fs = layer(&j);
    bool is_new;
    int written;
    assert_int_equal(weights_store_open(base, NULL, &s), ERR_OK);
    assert_int_equal(testing_import(s, "a", (int[]){7, 8}, 2, &is_new), ERR_OK);
    assert_int_equal(testing_import(s, "a", (int[]){1, 2}, 2, &is_new), ERR_OK);
    assert_int_equal(weights_manifest_current(s, "a", &m), ERR_OK);
    assert_int_equal(testing_pack(s, "ka", &m.id, (int[]){1, 2}, 2, &written), ERR_OK);
    weights_manifest_done(&m);
    weights_store_close(&s);
    char *command = xasprintf("cp -a '%s' '%s'", base, work);
    assert_int_equal(system(command), 0);
    assert_int_equal(weights_store_open(work, &fs, &s), ERR_OK);
    if (c->run(s)) fail_msg("%s: %s", c->name, err_text());
    weights_store_close(&s);
    struct disk d = {&j, work, to, xcalloc(j.n + 1, 1)};
    uint32_t x = 1;
    size_t states = 0;
    for (size_t end = 0; end <= j.n; end++)
        for (int kind = 0; kind < 14; kind++) { /* nothing of what is open, all of it, and 12 throws of the dice */
            bool open = false;
            for (size_t i = 0; i < end; i++) {
                x = x * 1664525u + 1013904223u;
                bool sure = durable(&j, i, end);
                open |= !sure;
                d.fate[i] = sure || kind == 1 ? 1 : kind == 0 ? 0 : (unsigned char)(x >> 24) % 5 % 3;
            }
            if (!open && kind) break;
            build(&d, base, end);
            check(to, c, end, false);
            states++;
        }
    /* the writer said that it is done: now the new state is there even if all that was not synced is lost */
    for (size_t i = 0; i < j.n; i++) d.fate[i] = durable(&j, i, j.n);
    build(&d, base, j.n);
    check(to, c, j.n, true);
    print_message("%s: %zu operations, %zu disks\n", c->name, j.n, states);
    assert_true(states > 50);
    free(d.fate);
    journal_done(&j);
    testing_remove(root);
    free(command);
    free(root);
    free(base);
    free(work);
    free(to);
}

static void importing_again(void **state)
{
    (void)state;
    run(&(struct scenario){"import again", import_again, "a", 2, 3});
}

static void importing(void **state)
{
    (void)state;
    run(&(struct scenario){"import", import_new, "b", 0, 1});
}

static void packing(void **state)
{
    (void)state;
    run(&(struct scenario){"pack", pack, "a", 2, 2});
}

static void removing(void **state)
{
    (void)state;
    run(&(struct scenario){"remove", remove_it, "a", 2, 0});
}

static void collecting(void **state)
{
    (void)state;
    run(&(struct scenario){"gc", collect, "a", 2, 2});
}

int main(void)
{
    if (!access("/dev/shm", W_OK | X_OK)) setenv("TMPDIR", "/dev/shm", 0); /* thousands of stores: in memory where that can be */
    const struct CMUnitTest tests[] = {cmocka_unit_test(importing_again), cmocka_unit_test(importing), cmocka_unit_test(packing),
                                       cmocka_unit_test(removing), cmocka_unit_test(collecting)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

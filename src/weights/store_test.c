/* The store from outside: what it promises, damage to every kind of file, full and failing disks. SPDX-License-Identifier: Apache-2.0 */
#include "weights/store_inside.h"
#include "weights/store_testing.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

struct fixture {
    char *dir;
    struct weights_store *s;
};

static int setup(void **state)
{
    struct fixture *f = xnew(struct fixture);
    f->dir = testing_folder();
    assert_int_equal(weights_store_open(f->dir, NULL, &f->s), ERR_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char *save = xasprintf("%s.save", f->dir);
    weights_store_close(&f->s);
    testing_remove(f->dir);
    unlink(save);
    free(save);
    free(f->dir);
    free(f);
    return 0;
}

static size_t files_in(const struct fixture *f, const char *folder)
{
    char *path = xasprintf("%s/%s", f->dir, folder), **names;
    size_t n;
    assert_int_equal(weights_entries(path, &names, &n), ERR_OK);
    weights_entries_free(names, n);
    free(path);
    return n;
}

static void keep_sentence(void *user, const char *sentence)
{
    snprintf(user, 600, "%s", sentence);
}

static struct weights_verify_report verify(struct fixture *f, char sentence[600])
{
    struct weights_verify_report r;
    *sentence = 0;
    assert_int_equal(weights_store_verify(f->s, keep_sentence, sentence, &r), ERR_OK);
    return r;
}

static void imports(void **state)
{
    struct fixture *f = *state;
    bool is_new;
    char sentence[600];
    struct weights_manifest m;
    struct weights_gc_report gc;
    assert_int_equal(testing_import(f->s, "a", (int[]){1, 2}, 2, &is_new), ERR_OK);
    assert_true(is_new);
    assert_int_equal(files_in(f, "blobs"), 4);
    assert_int_equal(testing_import(f->s, "a", (int[]){1, 2}, 2, &is_new), ERR_OK);
    assert_false(is_new);
    assert_int_equal(testing_import(f->s, "b", (int[]){2, 3}, 2, &is_new), ERR_OK);
    assert_int_equal(files_in(f, "blobs"), 5); /* tail, graph and one tensor are in common */
    assert_int_equal(verify(f, sentence).damaged, 0);
    assert_int_equal(testing_import(f->s, "a", (int[]){4, 2}, 2, &is_new), ERR_OK);
    assert_int_equal(weights_manifest_current(f->s, "a", &m), ERR_OK);
    assert_int_equal(m.version, 2);
    assert_int_equal(m.n_tensors, 3);
    weights_manifest_done(&m);
    assert_int_equal(weights_store_gc(f->s, &gc), ERR_OK);
    assert_int_equal(gc.files, 2); /* version 1, and its blob 1 */
    assert_int_equal(weights_store_remove(f->s, "a", &gc), ERR_OK);
    assert_int_equal(files_in(f, "blobs"), 4);
    assert_int_equal(files_in(f, "models"), 1);
    assert_int_equal(weights_manifest_current(f->s, "a", &m), ERR_NOT_FOUND);
    assert_int_equal(verify(f, sentence).damaged, 0);
}

static void names(void **state)
{
    struct fixture *f = *state;
    bool is_new;
    const char *const bad[] = {"", ".", "..", ".hidden", "a/b", "a b", "a\n", "a@1", "\xc3\xa9"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) assert_int_equal(testing_import(f->s, bad[i], (int[]){1}, 1, &is_new), ERR_USAGE);
    assert_int_equal(testing_import(f->s, "A-z_0.9", (int[]){1}, 1, &is_new), ERR_OK);
}

static void pins(void **state)
{
    struct fixture *f = *state;
    bool is_new;
    struct weights_gc_report gc;
    struct weights_manifest m;
    struct weights_use *use;
    int n;
    assert_int_equal(testing_import(f->s, "a", (int[]){1}, 1, &is_new), ERR_OK);
    assert_int_equal(weights_pin(f->s, "none", true), ERR_NOT_FOUND);
    assert_int_equal(weights_pin(f->s, "a", true), ERR_OK);
    assert_true(weights_pinned(f->s, "a"));
    assert_int_equal(weights_store_remove(f->s, "a", &gc), ERR_BUSY);
    assert_int_equal(weights_pin(f->s, "a", false), ERR_OK);
    assert_int_equal(weights_use_open(f->s, "a", &m, &use), ERR_OK);
    weights_manifest_done(&m);
    assert_int_equal(weights_use_count(f->s, "a", &n), ERR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(weights_store_remove(f->s, "a", &gc), ERR_BUSY);
    /* version 1 is in use: a new version does not take it away */
    assert_int_equal(testing_import(f->s, "a", (int[]){2}, 1, &is_new), ERR_OK);
    assert_int_equal(weights_store_gc(f->s, &gc), ERR_OK);
    assert_int_equal(gc.files, 0);
    weights_use_close(&use);
    assert_int_equal(weights_store_gc(f->s, &gc), ERR_OK);
    assert_int_equal(gc.files, 2);
    assert_int_equal(weights_store_remove(f->s, "a", &gc), ERR_OK);
    assert_int_equal(files_in(f, "blobs"), 0);
}

/* A use of another process counts, and is gone when that process is, however it died. */
static void other_process(void **state)
{
    struct fixture *f = *state;
    bool is_new;
    int n, to[2], status;
    struct weights_gc_report gc;
    assert_int_equal(testing_import(f->s, "a", (int[]){1}, 1, &is_new), ERR_OK);
    assert_int_equal(pipe(to), 0);
    pid_t child = fork();
    if (child == 0) {
        struct weights_store *s;
        struct weights_manifest m;
        struct weights_use *use;
        bool ok = !weights_store_open(f->dir, NULL, &s) && !weights_use_open(s, "a", &m, &use);
        if (write(to[1], ok ? "y" : "n", 1) != 1) _exit(1);
        pause();
        _exit(0);
    }
    char c = 0;
    assert_int_equal(read(to[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    assert_int_equal(weights_use_count(f->s, "a", &n), ERR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(weights_store_remove(f->s, "a", &gc), ERR_BUSY);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    close(to[0]);
    close(to[1]);
    assert_int_equal(weights_use_count(f->s, "a", &n), ERR_OK);
    assert_int_equal(n, 0);
    assert_int_equal(files_in(f, "uses"), 1);
    assert_int_equal(weights_store_remove(f->s, "a", &gc), ERR_OK);
    assert_int_equal(files_in(f, "uses"), 0);
}

static struct weights_id current_id(struct fixture *f, const char *name)
{
    struct weights_manifest m;
    assert_int_equal(weights_manifest_current(f->s, name, &m), ERR_OK);
    struct weights_id id = m.id;
    weights_manifest_done(&m);
    return id;
}

static void packs(void **state)
{
    struct fixture *f = *state;
    bool is_new;
    int written;
    char sentence[600];
    struct weights_packed p;
    struct weights_gc_report gc;
    assert_int_equal(testing_import(f->s, "a", (int[]){1, 2}, 2, &is_new), ERR_OK);
    assert_int_equal(testing_import(f->s, "b", (int[]){2, 3}, 2, &is_new), ERR_OK);
    struct weights_id a = current_id(f, "a"), b = current_id(f, "b");
    assert_int_equal(weights_packed_open(f->s, "ka", &p), ERR_NOT_FOUND);
    assert_int_equal(testing_pack(f->s, "ka", &a, (int[]){1, 2, 1}, 3, &written), ERR_OK);
    assert_int_equal(written, 2); /* the third is the first */
    assert_int_equal(testing_pack(f->s, "kb", &b, (int[]){3, 2}, 2, &written), ERR_OK);
    assert_int_equal(written, 1); /* the other lies in the file of `a` */
    assert_int_equal(weights_packed_open(f->s, "kb", &p), ERR_OK);
    assert_int_equal(p.n_files, 2);
    assert_int_equal(p.blocks[1].file, 1);
    assert_int_equal(p.stamp, 5);
    weights_packed_done(&p);
    assert_int_equal(verify(f, sentence).damaged, 0);
    /* `a` goes, but the file with the block of `b` stays as long as `b` needs it */
    assert_int_equal(weights_store_remove(f->s, "a", &gc), ERR_OK);
    assert_int_equal(files_in(f, "packed"), 2);
    assert_int_equal(verify(f, sentence).damaged, 0);
    /* one that was made again with another content is not believed */
    assert_int_equal(testing_pack(f->s, "ka", &a, (int[]){7}, 1, &written), ERR_OK);
    assert_int_equal(weights_packed_open(f->s, "kb", &p), ERR_CORRUPT);
    assert_int_equal(testing_pack(f->s, "kb", &b, (int[]){3, 2}, 2, &written), ERR_OK);
    assert_int_equal(written, 2);
    assert_int_equal(weights_store_gc(f->s, &gc), ERR_OK);
    assert_int_equal(files_in(f, "packed"), 1);
    assert_int_equal(weights_store_remove(f->s, "b", &gc), ERR_OK);
    assert_int_equal(files_in(f, "packed"), 0);
}

static void flip(const char *path, long at, int how)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    if (how == 0) { /* one bit */
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        int c = fgetc(file);
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_true(fputc(c ^ 1 << at % 8, file) != EOF);
    }
    fclose(file);
    if (how == 1) assert_int_equal(truncate(path, at), 0);
    if (how == 2) {
        file = fopen(path, "ab");
        assert_true(fputc(0, file) != EOF);
        fclose(file);
    }
}

/* Any altered byte of any file is found, and the sentence names the file. */
static void altered(void **state)
{
    struct fixture *f = *state;
    const char *const folders[] = {"blobs", "models/a", "packed"};
    bool is_new;
    int written;
    for (size_t k = 0; k < ARRAY_LEN(folders); k++)
        for (int how = 0; how < 3; how++) {
            char *folder = xasprintf("%s/%s", f->dir, folders[k]), **list, sentence[600];
            size_t n;
            assert_int_equal(testing_import(f->s, "a", (int[]){1}, 1, &is_new), ERR_OK);
            struct weights_id a = current_id(f, "a");
            assert_int_equal(testing_pack(f->s, "ka", &a, (int[]){1, 2}, 2, &written), ERR_OK);
            assert_int_equal(weights_entries(folder, &list, &n), ERR_OK);
            for (size_t i = 0; i < n; i++) {
                char *path = xasprintf("%s/%s", folder, list[i]), *copy = xasprintf("cp '%s' '%s.save'", path, f->dir),
                     *back = xasprintf("cp '%s.save' '%s'", f->dir, path);
                struct stat st;
                assert_int_equal(stat(path, &st), 0);
                assert_int_equal(system(copy), 0);
                long step = how == 2 ? st.st_size : MAX(st.st_size / 40, 1L);
                for (long at = 0; at < st.st_size; at += step) {
                    /* the padding of a packed file's first page means nothing */
                    if (k == 2 && how == 0 && at >= 96 && at < 4096) continue;
                    flip(path, at, how);
                    struct weights_verify_report r = verify(f, sentence);
                    if (!(r.damaged + r.missing)) fail_msg("%s: byte %ld of %ld altered (%d) and nobody saw it", path, at, (long)st.st_size, how);
                    if (!strstr(sentence, list[i])) fail_msg("%s: '%s' does not name it", path, sentence);
                    assert_int_equal(system(back), 0);
                }
                assert_int_equal(verify(f, sentence).damaged, 0);
                free(path);
                free(copy);
                free(back);
            }
            weights_entries_free(list, n);
            free(folder);
        }
}

/* What import says it can repair, it repairs. */
static void repaired(void **state)
{
    struct fixture *f = *state;
    bool is_new;
    char sentence[600], **list, *folder = xasprintf("%s/blobs", f->dir);
    size_t n;
    assert_int_equal(testing_import(f->s, "a", (int[]){1}, 1, &is_new), ERR_OK);
    assert_int_equal(weights_entries(folder, &list, &n), ERR_OK);
    for (size_t i = 0; i < n; i++) {
        char *path = xasprintf("%s/%s", folder, list[i]);
        if (i) flip(path, 200, 0);
        else assert_int_equal(unlink(path), 0);
        assert_int_equal(verify(f, sentence).damaged + verify(f, sentence).missing, 1);
        assert_int_equal(testing_import(f->s, "a", (int[]){1}, 1, &is_new), ERR_OK);
        assert_false(is_new);
        assert_int_equal(verify(f, sentence).damaged + verify(f, sentence).missing, 0);
        free(path);
    }
    weights_entries_free(list, n);
    free(folder);
}

static void other_formats(void **state)
{
    struct fixture *f = *state;
    struct weights_store *s = NULL;
    char *path = xasprintf("%s/store", f->dir);
    FILE *file = fopen(path, "w");
    assert_true(file && fputs("brim store 2\n", file) != EOF);
    fclose(file);
    assert_int_equal(weights_store_open(f->dir, NULL, &s), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "--store"));
    free(path);
    bool is_new;
    unsigned char *bytes;
    size_t n;
    struct weights_manifest m;
    assert_int_equal(testing_import(f->s, "a", (int[]){1}, 1, &is_new), ERR_OK);
    path = xasprintf("%s/models/a/1", f->dir);
    assert_int_equal(weights_fs_get(&weights_fs_system, path, 1 << 20, &bytes, &n), ERR_OK);
    bytes[8] = 3;
    assert_int_equal(weights_manifest_parse("x", bytes, n, &m), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "format 3"));
    free(bytes);
    free(path);
}

/* With shared tensors it is format 2, and only then; a list that is not ascending, or of tensors that are not there, is refused. */
static void shared_tensors(void **state)
{
    struct fixture *f = *state;
    struct weights_manifest m, back;
    bool is_new;
    void *p;
    size_t n;
    assert_int_equal(testing_import(f->s, "a", (int[]){1, 2, 3}, 3, &is_new), ERR_OK);
    assert_int_equal(weights_manifest_current(f->s, "a", &m), ERR_OK);
    assert_int_equal(m.n_tensors, 4);
    m.tensors[1].shared = m.tensors[3].shared = true;
    assert_int_equal(weights_manifest_commit(f->s, &m, &is_new), ERR_OK);
    assert_true(is_new);
    assert_int_equal(weights_manifest_current(f->s, "a", &back), ERR_OK);
    assert_int_equal(back.version, 2);
    for (int i = 0; i < 4; i++) assert_int_equal(back.tensors[i].shared, i % 2);
    weights_manifest_done(&back);
    weights_manifest_write(&m, &p, &n);
    unsigned char *b = p, *list = b + n - 32 - 8; /* the two numbers */
    assert_int_equal(b[8], 2);
    const unsigned char wrong[][2] = {{3, 1}, {1, 1}, {1, 4}, {4, 5}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        list[0] = wrong[i][0];
        list[4] = wrong[i][1];
        struct weights_id id = weights_hash(b, n - 32);
        memcpy(b + n - 32, id.b, 32);
        assert_int_equal(weights_manifest_parse("x", b, n, &back), ERR_CORRUPT);
    }
    free(p);
    weights_manifest_done(&m);
}

/* ---- disks that fail: the n-th call of a kind does, for every n */

struct failing {
    int call, at; /* counts all calls; the one numbered `at` fails */
    int error;
    bool short_io;
};

static bool fails(struct failing *x)
{
    bool now = ++x->call == x->at && !x->short_io;
    if (now) errno = x->error;
    return now;
}

static int f_create(void *self, const char *path)
{
    return fails(self) ? -1 : weights_fs_system.create(NULL, path);
}

static ssize_t f_pwrite(void *self, int fd, const void *p, size_t n, off_t at)
{
    struct failing *x = self;
    if (fails(x)) {
        if (x->error == ENOSPC && n > 1) return weights_fs_system.pwrite(NULL, fd, p, n / 2, at) == (ssize_t)(n / 2) ? -1 : -1;
        return -1;
    }
    return weights_fs_system.pwrite(NULL, fd, p, x->short_io ? MIN(n, (size_t)1000) : n, at);
}

static int f_sync(void *self, int fd)
{
    return fails(self) ? -1 : weights_fs_system.sync(NULL, fd);
}

static int f_rename(void *self, const char *a, const char *b)
{
    return fails(self) ? -1 : weights_fs_system.rename(NULL, a, b);
}

static int f_unlink(void *self, const char *path)
{
    (void)self;
    return weights_fs_system.unlink(NULL, path);
}

static int f_mkdir(void *self, const char *path)
{
    return fails(self) ? -1 : weights_fs_system.mkdir(NULL, path);
}

static int f_rmdir(void *self, const char *path)
{
    (void)self;
    return weights_fs_system.rmdir(NULL, path);
}

static int f_sync_dir(void *self, const char *path)
{
    return fails(self) ? -1 : weights_fs_system.sync_dir(NULL, path);
}

static ssize_t f_pread(void *self, int fd, void *p, size_t n, off_t at)
{
    struct failing *x = self;
    if (fails(x)) return -1;
    return weights_fs_system.pread(NULL, fd, p, x->short_io ? MIN(n, (size_t)777) : n, at);
}

static struct weights_fs failing_fs(struct failing *x)
{
    return (struct weights_fs){x, f_create, f_pwrite, f_sync, f_rename, f_unlink, f_mkdir, f_rmdir, f_sync_dir, f_pread};
}

static err import_and_pack(struct weights_store *s)
{
    struct weights_manifest m;
    bool is_new;
    int written;
    err e = testing_import(s, "a", (int[]){1, 2}, 2, &is_new);
    if (!e) e = weights_manifest_current(s, "a", &m);
    if (e) return e;
    e = testing_pack(s, "ka", &m.id, (int[]){1, 2}, 2, &written);
    weights_manifest_done(&m);
    return e;
}

static void failing_disk(void **state)
{
    struct fixture *f = *state;
    const int errors[] = {ENOSPC, EIO};
    char sentence[600];
    for (size_t k = 0; k < ARRAY_LEN(errors); k++)
        for (int at = 1;; at++) {
            struct failing x = {.at = at, .error = errors[k]};
            struct weights_fs fs = failing_fs(&x);
            struct weights_gc_report gc;
            struct weights_store *s = NULL;
            err e = weights_store_open(f->dir, &fs, &s);
            if (!e) e = import_and_pack(s);
            if (e && e != ERR_IO) fail_msg("call %d: %s", at, err_text());
            struct weights_verify_report r = verify(f, sentence);
            if (r.damaged || r.missing) fail_msg("call %d: %s", at, sentence);
            bool over = x.call < at;
            if (over) assert_int_equal(e, ERR_OK);
            weights_store_close(&s);
            assert_int_equal(weights_store_gc(f->s, &gc), ERR_OK);
            assert_int_equal(files_in(f, "tmp"), 0);
            err removed = weights_store_remove(f->s, "a", &gc);
            assert_true(!removed || removed == ERR_NOT_FOUND);
            assert_int_equal(files_in(f, "blobs") + files_in(f, "packed") + files_in(f, "models"), 0);
            if (over) {
                assert_true(at > 20);
                break;
            }
        }
}

static void short_calls(void **state)
{
    struct fixture *f = *state;
    struct failing x = {.short_io = true};
    struct weights_fs fs = failing_fs(&x);
    struct weights_store *s;
    char sentence[600];
    struct weights_verify_report r;
    assert_int_equal(weights_store_open(f->dir, &fs, &s), ERR_OK);
    assert_int_equal(import_and_pack(s), ERR_OK);
    assert_int_equal(weights_store_verify(s, keep_sentence, sentence, &r), ERR_OK);
    assert_int_equal(r.damaged + r.missing, 0);
    assert_int_equal(r.blobs, 4);
    assert_int_equal(r.packed, 1);
    assert_int_equal(verify(f, sentence).damaged, 0);
    weights_store_close(&s);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {TEST(imports), TEST(names),         TEST(pins),         TEST(other_process), TEST(packs),
                                       TEST(altered), TEST(repaired),      TEST(other_formats), TEST(failing_disk),  TEST(short_calls), TEST(shared_tensors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

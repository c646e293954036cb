/* Sets of small pictures in one file: CIFAR's binary files and IDX (MNIST and its family).
 *
 * CIFAR (Krizhevsky, 2009): records of 1 label byte (CIFAR-100: 2, the coarse one first) and 3 x 32 x 32 bytes in planes. IDX (LeCun): the bytes
 * 0 0 8 RANK, sizes of 4 bytes each, highest byte first, then the numbers. Labels are read at once, pixels when they are wanted: a set costs
 * its index only. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_set.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CIFAR_PIXELS = 3072, IDX_MAX_SIDE = 1024, CHUNK = 64 << 10 };

static err open_file(const char *path, int *ret_fd, int64_t *ret_size)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(ERR_IO, "%s: not a file", path);
    }
    *ret_fd = fd;
    *ret_size = st.st_size;
    return ERR_OK;
}

static err add_record_file(struct train_set *s, struct data_record r)
{
    if (s->n_records >= DATA_MAX_FILES) return close(r.fd), err_set(ERR_LIMIT, "more than %d files", DATA_MAX_FILES);
    vec_grow(&s->records, &s->cap_records, s->n_records);
    r.path = xstrdup(r.path);
    s->records[s->n_records++] = r;
    return ERR_OK;
}

static err add_record(struct train_set *s, int64_t number, int label)
{
    struct data_sample d = {.at = number, .label = label, .file = (int32_t)s->n_records - 1};
    if (s->samples.len >= DATA_MAX_SAMPLES) return err_set(ERR_LIMIT, "more than %d pictures", DATA_MAX_SAMPLES);
    return data_append(s, &s->samples, sizeof d, &d, 1);
}

/* Names beside the file: fine labels for CIFAR-100. Without such a file they are called by their numbers. */
static err cifar_names(struct train_set *s, const char *path, bool hundred)
{
    static const char *const ten[] = {"batches.meta.txt", NULL}, *const fine[] = {"fine_label_names.txt", NULL};
    const char *slash = strrchr(path, '/');
    int n = hundred ? 100 : 10;
    err e = ERR_NOT_FOUND;
    for (const char *const *name = hundred ? fine : ten; e == ERR_NOT_FOUND && *name; name++) {
        char *file = xasprintf("%.*s%s", (int)(slash ? slash - path + 1 : 0), path, *name);
        e = data_read_names(s, file);
        free(file);
    }
    bool named = !e; /* a part of the classes has a shorter list */
    if (e == ERR_NOT_FOUND) e = ERR_OK;
    if (!e && s->n_classes > (size_t)n)
        e = err_set(ERR_FORMAT, "%s: %zu names of classes lie beside it; it has at most %d", path, s->n_classes, n);
    for (int i = 0; !e && !named && s->n_classes < (size_t)n; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        e = data_add_class(s, name, strlen(name));
    }
    return e;
}

static err cifar_labels(struct train_set *s, const struct data_record *r, int64_t n)
{
    uint8_t label;
    for (int64_t i = 0; i < n; i++) {
        err e = ERR_OK;
        if (pread(r->fd, &label, 1, i * r->bytes + r->skip - 1) != 1) return err_set(ERR_IO, "%s: cannot be read: %s", r->path, strerror(errno));
        if (label >= s->n_classes) {
            s->report.bad_images++;
            data_problem(s, "%s:record %lld: label %d; the set has %zu classes", r->path, (long long)i, label, s->n_classes);
        } else {
            e = add_record(s, i, label);
        }
        if (e) return e;
    }
    return ERR_OK;
}

static err cifar_file(struct train_set *s, const char *path)
{
    struct data_record r = {.path = (char *)(uintptr_t)path, .w = 32, .h = 32, .channels = 3, .planes = true};
    int64_t size = 0;
    err e = open_file(path, &r.fd, &size);
    if (e) return e;
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    bool fits10 = size % (CIFAR_PIXELS + 1) == 0, fits100 = size % (CIFAR_PIXELS + 2) == 0;
    bool hundred = fits100 && (!fits10 || !strcmp(base, "train.bin") || !strcmp(base, "test.bin"));
    if (size == 0 || (!fits10 && !fits100)) {
        close(r.fd);
        return err_set(ERR_FORMAT, "%s: %lld bytes are no whole number of CIFAR records (3073 or 3074 bytes each)%s", path, (long long)size,
                       size ? "; is it cut off, or still compressed?" : "");
    }
    r.skip = hundred ? 2 : 1;
    r.bytes = CIFAR_PIXELS + r.skip;
    if (s->n_records && s->records[0].bytes != r.bytes) return close(r.fd), err_set(ERR_FORMAT, "%s: CIFAR-10 and CIFAR-100 in one set", path);
    if (!s->n_records && (e = cifar_names(s, path, hundred))) return close(r.fd), e;
    e = add_record_file(s, r);
    return e ? e : cifar_labels(s, &s->records[s->n_records - 1], size / r.bytes);
}

err data_read_cifar(struct train_set *s, const char *path)
{
    struct stat st;
    if (stat(path, &st) || !S_ISDIR(st.st_mode)) return cifar_file(s, path);
    char **names;
    size_t n;
    err e = data_list_folder(path, &names, &n);
    if (e) return e;
    for (size_t i = 0; !e && i < n; i++) {
        if (!(str_starts(names[i], "data_batch") && str_ends(names[i], ".bin")) && strcmp(names[i], "train.bin")) continue;
        char *file = xasprintf("%s/%s", path, names[i]);
        e = cifar_file(s, file);
        free(file);
    }
    data_free_names(&names, n);
    if (!e && !s->n_records) e = err_set(ERR_NOT_FOUND, "%s: no data_batch_*.bin or train.bin in it", path);
    return e;
}

/* ---- IDX */

/* The header: sizes of a file of unsigned bytes with so many dimensions. */
static err idx_header(int fd, const char *path, int64_t size, int rank, int64_t dims[3])
{
    uint8_t h[16];
    size_t n = 4 + 4 * (size_t)rank;
    if (pread(fd, h, n, 0) != (ssize_t)n) return err_set(ERR_FORMAT, "%s: too short for an IDX file", path);
    if (h[0] == 0x1f && h[1] == 0x8b) return err_set(ERR_UNSUPPORTED, "%s: compressed; unpack it first (gunzip)", path);
    if (h[0] || h[1] || h[2] != 8 || h[3] != rank)
        return err_set(ERR_FORMAT, "%s: expected an IDX file of bytes with %d dimensions (it begins %02x %02x %02x %02x)", path, rank, h[0], h[1], h[2], h[3]);
    int64_t bytes = 1;
    for (int i = 0; i < rank; i++) {
        dims[i] = (int64_t)h[4 + 4 * i] << 24 | h[5 + 4 * i] << 16 | h[6 + 4 * i] << 8 | h[7 + 4 * i];
        if (i && (dims[i] < 1 || dims[i] > IDX_MAX_SIDE)) return err_set(ERR_LIMIT, "%s: pictures with a side of %lld; 1 to %d are read", path, (long long)dims[i], IDX_MAX_SIDE);
        bytes *= dims[i];
    }
    if (dims[0] > DATA_MAX_SAMPLES || size - (int64_t)n != bytes)
        return err_set(ERR_FORMAT, "%s: its header tells of %lld bytes, it has %lld", path, (long long)bytes + (long long)n, (long long)size);
    return ERR_OK;
}

/* "train-images-idx3-ubyte" has its labels in "train-labels-idx1-ubyte". */
static char *idx_labels_path(const char *path)
{
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path, *at = strstr(base, "images");
    if (!at) return NULL;
    char *p = xasprintf("%.*slabels%s", (int)(at - path), path, at + 6), *three = strstr(p, "idx3");
    if (three) three[3] = '1';
    return p;
}

static err idx_labels(struct train_set *s, int fd, const char *path, int64_t n)
{
    uint8_t buf[4096];
    int most = 0;
    err e = ERR_OK;
    for (int64_t i = 0; !e && i < n; i += (int64_t)sizeof buf) {
        int64_t part = MIN((int64_t)sizeof buf, n - i);
        if (pread(fd, buf, (size_t)part, 8 + i) != part) return err_set(ERR_IO, "%s: cannot be read", path);
        for (int64_t k = 0; !e && k < part; k++) {
            e = add_record(s, i + k, buf[k]);
            most = MAX(most, buf[k]);
        }
    }
    for (int c = 0; !e && c <= MAX(most, 9); c++) { /* the family has ten or more; which class is missing shows as empty */
        char name[16];
        snprintf(name, sizeof name, "%d", c);
        e = data_add_class(s, name, strlen(name));
    }
    return e;
}

err data_read_idx(struct train_set *s, const char *path, const char *labels)
{
    char *beside = labels ? xstrdup(labels) : idx_labels_path(path);
    if (!beside) return err_set(ERR_USAGE, "%s: where are its labels? (its name has no 'images' in it; say so by name)", path);
    struct data_record r = {.path = (char *)(uintptr_t)path, .fd = -1, .channels = 1, .header = 16};
    int64_t size = 0, label_size = 0, dims[3] = {0}, n[3] = {0};
    int fd = -1;
    err e = open_file(path, &r.fd, &size);
    if (!e) e = open_file(beside, &fd, &label_size);
    if (!e) e = idx_header(r.fd, path, size, 3, dims);
    if (!e) e = idx_header(fd, beside, label_size, 1, n);
    if (!e && n[0] != dims[0]) e = err_set(ERR_FORMAT, "%s: %lld labels for %lld pictures", beside, (long long)n[0], (long long)dims[0]);
    if (e && r.fd >= 0) close(r.fd);
    if (!e) {
        r.h = (int)dims[1];
        r.w = (int)dims[2];
        r.bytes = dims[1] * dims[2];
        e = add_record_file(s, r);
    }
    if (!e) e = idx_labels(s, fd, beside, n[0]);
    if (fd >= 0) close(fd);
    free(beside);
    return e;
}

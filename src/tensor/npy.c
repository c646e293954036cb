/* .npy: a strict reader of the three keys that NumPy writes, in any order, and a writer of version 1.0.
 *
 * The header is foreign: every number is bounded before it is used, and only the literal forms that numpy.save writes are accepted
 * ('descr': '<f4', 'fortran_order': False, 'shape': (1, 3,)). bfloat16 has no NumPy name; it is written as '<u2'.
 * Invariant: a parsed view lies wholly inside the given bytes. SPDX-License-Identifier: Apache-2.0 */
#include "tensor/npy.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *descr;
    enum tensor_dtype dtype;
} types[] = {{"<f4", TENSOR_F32}, {"<f8", TENSOR_F64}, {"<f2", TENSOR_F16}, {"|u1", TENSOR_U8},  {"|i1", TENSOR_I8},
             {"<u2", TENSOR_U16}, {"<i2", TENSOR_I16}, {"<u4", TENSOR_U32}, {"<i4", TENSOR_I32}, {"<u8", TENSOR_U64},
             {"<i8", TENSOR_I64}, {"|b1", TENSOR_BOOL}, {"<u2", TENSOR_BF16}};

struct header {
    const char *name, *at, *end;
};

static void skip(struct header *h)
{
    while (h->at < h->end && isspace((unsigned char)*h->at)) h->at++;
}

static bool take(struct header *h, const char *word)
{
    size_t n = strlen(word);
    skip(h);
    if ((size_t)(h->end - h->at) < n || memcmp(h->at, word, n) != 0) return false;
    h->at += n;
    return true;
}

static err malformed(const struct header *h, const char *what)
{
    return err_set(ERR_FORMAT, "%s: not a .npy file that NumPy wrote: %s", h->name, what);
}

static err read_descr(struct header *h, enum tensor_dtype *ret)
{
    for (size_t i = 0; i + 1 < ARRAY_LEN(types); i++) {
        char quoted[8];
        snprintf(quoted, sizeof quoted, "'%s'", types[i].descr);
        if (take(h, quoted)) {
            *ret = types[i].dtype;
            return ERR_OK;
        }
    }
    return err_set(ERR_UNSUPPORTED, "%s: its element type is not one of the little-endian numbers that brim reads; save it with astype('<f4')", h->name);
}

static err read_shape(struct header *h, struct tensor_shape *ret)
{
    struct tensor_shape s = {0};
    if (!take(h, "(")) return malformed(h, "'shape' is no tuple");
    while (!take(h, ")")) {
        int64_t d = 0;
        int digits = 0;
        skip(h);
        for (; h->at < h->end && isdigit((unsigned char)*h->at) && digits < 16; h->at++, digits++) d = d * 10 + (*h->at - '0');
        if (!digits || digits == 16) return malformed(h, "a size in 'shape' is no number");
        if (s.rank == TENSOR_MAX_RANK) return err_set(ERR_LIMIT, "%s: more than %d dimensions", h->name, TENSOR_MAX_RANK);
        s.dims[s.rank++] = d;
        if (take(h, ",")) continue;
        if (take(h, ")")) break;
        return malformed(h, "'shape' is not closed");
    }
    *ret = s;
    return ERR_OK;
}

static err read_header(struct header *h, enum tensor_dtype *dtype, struct tensor_shape *shape)
{
    unsigned seen = 0;
    err e = ERR_OK;
    if (!take(h, "{")) return malformed(h, "the header is no dictionary");
    while (!take(h, "}")) {
        if (take(h, "'descr':")) {
            seen |= 1;
            e = read_descr(h, dtype);
        } else if (take(h, "'fortran_order':")) {
            seen |= 2;
            if (take(h, "True")) e = err_set(ERR_UNSUPPORTED, "%s is in Fortran order; save numpy.ascontiguousarray(x)", h->name);
            else if (!take(h, "False")) e = malformed(h, "'fortran_order' is neither True nor False");
        } else if (take(h, "'shape':")) {
            seen |= 4;
            e = read_shape(h, shape);
        } else {
            e = malformed(h, "an unknown key in the header");
        }
        if (e) return e;
        if (!take(h, ",") && (skip(h), h->at >= h->end || *h->at != '}')) return malformed(h, "the header is not closed");
    }
    return seen == 7 ? ERR_OK : malformed(h, "the header lacks descr, fortran_order or shape");
}

err npy_parse(const char *name, const void *bytes, size_t n, struct tensor *ret)
{
    const unsigned char *b = bytes;
    struct header h = {.name = name};
    if (n < 12 || memcmp(b, "\x93NUMPY", 6) != 0) return malformed(&h, "the first bytes are not \\x93NUMPY");
    if (b[6] != 1 && b[6] != 2) return err_set(ERR_UNSUPPORTED, "%s: .npy version %d; brim reads 1 and 2", name, b[6]);
    size_t start = b[6] == 1 ? 10 : 12;
    size_t length = b[8] | (size_t)b[9] << 8;
    if (b[6] == 2) length |= (size_t)b[10] << 16 | (size_t)b[11] << 24;
    if (length > n - start) return malformed(&h, "the header is longer than the file");
    h.at = (const char *)b + start;
    h.end = h.at + length;
    enum tensor_dtype dtype = TENSOR_NONE;
    struct tensor_shape shape = {0};
    int64_t count;
    err e = read_header(&h, &dtype, &shape);
    if (!e) e = tensor_shape_count(&shape, &count);
    if (e) return e;
    size_t need = (size_t)count * tensor_dtype_size(dtype), have = n - start - length;
    if (need > have) return err_set(ERR_FORMAT, "%s is truncated: its shape needs %zu bytes and %zu are there", name, need, have);
    *ret = tensor_view(dtype, &shape, b + start + length);
    return ERR_OK;
}

err npy_load(const char *path, size_t max_bytes, struct tensor *ret, void **ret_owned)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        err e = err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        return e;
    }
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > max_bytes) {
        close(fd);
        return err_set(ERR_LIMIT, "%s is not a regular file of at most %zu bytes", path, max_bytes);
    }
    size_t n = (size_t)st.st_size, at = 0;
    unsigned char *bytes = malloc(n ? n : 1);
    if (!bytes) {
        close(fd);
        return err_set(ERR_NOMEM, "%s: no memory for its %zu bytes", path, n);
    }
    while (at < n) {
        ssize_t got = read(fd, bytes + at, n - at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        at += (size_t)got;
    }
    close(fd);
    err e = npy_parse(path, bytes, at, ret);
    if (e)
        free(bytes);
    else
        *ret_owned = bytes;
    return e;
}

static const char *descr_of(enum tensor_dtype t)
{
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (types[i].dtype == t) return types[i].descr;
    return NULL;
}

static int header_text(const struct tensor *t, char *buf, size_t size)
{
    size_t n = (size_t)snprintf(buf, size, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr_of(t->dtype));
    for (int i = 0; i < t->shape.rank; i++)
        n += (size_t)snprintf(buf + n, size - n, "%lld,%s", (long long)t->shape.dims[i], i + 1 < t->shape.rank ? " " : "");
    n += (size_t)snprintf(buf + n, size - n, "), }");
    while ((10 + n + 1) % 64) buf[n++] = ' ';
    buf[n++] = '\n';
    return (int)n;
}

err npy_save(const char *path, const struct tensor *t)
{
    char header[512] = "\x93NUMPY\x01";
    if (!descr_of(t->dtype)) return err_set(ERR_UNSUPPORTED, "%s: .npy has no type %s", path, tensor_dtype_name(t->dtype));
    int n = header_text(t, header + 10, sizeof header - 80);
    header[7] = 0;
    header[8] = (char)(n & 255);
    header[9] = (char)(n >> 8);
    bool through = path_is_special(path);
    char *temporary = through ? xstrdup(path) : xasprintf("%s.tmp.%d", path, (int)getpid());
    FILE *f = fopen(temporary, "wbe");
    size_t bytes = (size_t)tensor_count(&t->shape) * tensor_dtype_size(t->dtype);
    bool ok = f && fwrite(header, 1, 10 + (size_t)n, f) == 10 + (size_t)n && fwrite(t->data, 1, bytes, f) == bytes && fflush(f) == 0 &&
              (fsync(fileno(f)) == 0 || errno == EINVAL); /* a pipe has nothing to wait for */
    int saved = errno;
    if (f && fclose(f) && ok) ok = false, saved = errno;
    if (ok && !through && rename(temporary, path)) ok = false, saved = errno;
    if (!ok && !through) unlink(temporary);
    free(temporary);
    return ok ? ERR_OK : err_set(ERR_IO, "%s: cannot write: %s", path, strerror(saved));
}

/* Blobs: one immutable file each, named by the hash of what it holds.
 *
 *     0  "BRIMBLOB"   8  u32 format   12 u32 dtype   16 u32 rank   20 u32 0   24 u64 bytes   32 u64 dims[8]   96 zeros to 128   then bytes
 *
 * The hash covers dtype, rank, dims and bytes, so a header that was altered is found as well as a number. Numbers begin at 128, so a mapping of the
 * file gives them aligned. SPDX-License-Identifier: Apache-2.0 */
#include "weights/store_inside.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char MAGIC[8] = "BRIMBLOB";
enum { CHUNK = 256 << 10, IDENTITY = 8 + 8 * TENSOR_MAX_RANK };

static void identity(enum tensor_dtype dtype, const struct tensor_shape *shape, unsigned char p[IDENTITY])
{
    memset(p, 0, IDENTITY);
    weights_put(p, (uint64_t)dtype, 4);
    weights_put(p + 4, (uint64_t)shape->rank, 4);
    for (int i = 0; i < shape->rank; i++) weights_put(p + 8 + 8 * i, (uint64_t)shape->dims[i], 8);
}

struct weights_id weights_blob_id(enum tensor_dtype dtype, const struct tensor_shape *shape, const void *p, size_t n)
{
    unsigned char head[IDENTITY];
    crypto_generichash_state state;
    struct weights_id id;
    identity(dtype, shape, head);
    crypto_generichash_init(&state, NULL, 0, sizeof id.b);
    crypto_generichash_update(&state, head, sizeof head);
    crypto_generichash_update(&state, p, n);
    crypto_generichash_final(&state, id.b, sizeof id.b);
    return id;
}

static void header(enum tensor_dtype dtype, const struct tensor_shape *shape, size_t n, unsigned char p[WEIGHTS_BLOB_HEADER])
{
    memset(p, 0, WEIGHTS_BLOB_HEADER);
    memcpy(p, MAGIC, sizeof MAGIC);
    weights_put(p + 8, WEIGHTS_FORMAT, 4);
    weights_put(p + 12, (uint64_t)dtype, 4);
    weights_put(p + 16, (uint64_t)shape->rank, 4);
    weights_put(p + 24, n, 8);
    for (int i = 0; i < shape->rank; i++) weights_put(p + 32 + 8 * i, (uint64_t)shape->dims[i], 8);
}

/* Does the file hold exactly these bytes? */
static bool same(struct weights_store *s, const char *path, const unsigned char *head, const void *p, size_t n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0) return false;
    unsigned char *buffer = xcalloc(1, CHUNK);
    bool ok = !fstat(fd, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == WEIGHTS_BLOB_HEADER + n &&
              !weights_fs_read(&s->fs, fd, path, buffer, WEIGHTS_BLOB_HEADER, 0) && !memcmp(buffer, head, WEIGHTS_BLOB_HEADER);
    for (size_t at = 0; ok && at < n; at += CHUNK) {
        size_t k = MIN(n - at, (size_t)CHUNK);
        ok = !weights_fs_read(&s->fs, fd, path, buffer, k, (off_t)(WEIGHTS_BLOB_HEADER + at)) &&
             !memcmp(buffer, (const char *)p + at, k);
    }
    free(buffer);
    close(fd);
    return ok;
}

err weights_blob_put(struct weights_store *s, enum tensor_dtype dtype, const struct tensor_shape *shape, const void *p, size_t n,
                     struct weights_id *ret, bool *ret_new)
{
    unsigned char head[WEIGHTS_BLOB_HEADER];
    struct weights_id id = weights_blob_id(dtype, shape, p, n);
    char name[65], *path = xasprintf("%s/%s", s->blobs, weights_id_text(&id, name));
    err e = ERR_OK;
    header(dtype, shape, n, head);
    bool there = same(s, path, head, p, n);
    if (!there) {
        const void *parts[] = {head, p};
        const size_t sizes[] = {sizeof head, n};
        e = weights_fs_put(&s->fs, s->tmp, s->blobs, name, parts, sizes, 2, true);
    }
    free(path);
    if (e) return e;
    *ret = id;
    *ret_new = !there;
    return ERR_OK;
}

static err damaged(const char *path, const char *why)
{
    return err_set(ERR_CORRUPT, "%s: damaged (%s); import the model again to repair it", path, why);
}

static err read_header(const unsigned char *p, const char *path, struct weights_blob_info *ret)
{
    int64_t count;
    if (memcmp(p, MAGIC, sizeof MAGIC)) return damaged(path, "not a blob");
    if (weights_get(p + 8, 4) != WEIGHTS_FORMAT)
        return err_set(ERR_UNSUPPORTED, "%s: format %u, and this brim knows 1; use the brim that wrote it, or import the model into another store",
                       path, (unsigned)weights_get(p + 8, 4));
    uint64_t dtype = weights_get(p + 12, 4), rank = weights_get(p + 16, 4);
    if (dtype > TENSOR_DTYPE_LAST || !tensor_dtype_size((enum tensor_dtype)dtype) || rank > TENSOR_MAX_RANK) return damaged(path, "its header");
    ret->dtype = (enum tensor_dtype)dtype;
    ret->shape = (struct tensor_shape){.rank = (int)rank};
    for (int i = 0; i < ret->shape.rank; i++) {
        ret->shape.dims[i] = (int64_t)weights_get(p + 32 + 8 * i, 8);
        if (ret->shape.dims[i] < 0) return damaged(path, "its header");
    }
    ret->bytes = weights_get(p + 24, 8);
    if (tensor_shape_count(&ret->shape, &count) || (uint64_t)count * tensor_dtype_size(ret->dtype) != ret->bytes)
        return damaged(path, "its header");
    return ERR_OK;
}

static err hash_rest(struct weights_store *s, int fd, const char *path, const struct weights_blob_info *info)
{
    unsigned char head[IDENTITY], *buffer = xcalloc(1, CHUNK);
    crypto_generichash_state state;
    struct weights_id id;
    err e = ERR_OK;
    identity(info->dtype, &info->shape, head);
    crypto_generichash_init(&state, NULL, 0, sizeof id.b);
    crypto_generichash_update(&state, head, sizeof head);
    for (uint64_t at = 0; at < info->bytes && !e; at += CHUNK) {
        size_t k = (size_t)MIN(info->bytes - at, (uint64_t)CHUNK);
        if (!(e = weights_fs_read(&s->fs, fd, path, buffer, k, (off_t)(WEIGHTS_BLOB_HEADER + at))))
            crypto_generichash_update(&state, buffer, k);
    }
    crypto_generichash_final(&state, id.b, sizeof id.b);
    free(buffer);
    return e ? e : weights_id_equal(&id, &info->id) ? ERR_OK : damaged(path, "its hash is another");
}

err weights_blob_check(struct weights_store *s, const struct weights_id *id, bool whole, struct weights_blob_info *ret)
{
    char name[65], *path = xasprintf("%s/%s", s->blobs, weights_id_text(id, name));
    unsigned char head[WEIGHTS_BLOB_HEADER];
    struct weights_blob_info info = {.id = *id};
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    err e = ERR_OK;
    if (fd < 0)
        e = err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s; import the model again to repair it", path, strerror(errno));
    if (!e && fstat(fd, &st)) e = err_set(ERR_IO, "%s: %s", path, strerror(errno));
    if (!e && (!S_ISREG(st.st_mode) || st.st_size < WEIGHTS_BLOB_HEADER)) e = damaged(path, "too short");
    if (!e) e = weights_fs_read(&s->fs, fd, path, head, sizeof head, 0);
    if (!e) e = read_header(head, path, &info);
    if (!e && (uint64_t)st.st_size != WEIGHTS_BLOB_HEADER + info.bytes) e = damaged(path, "not as long as its header says");
    if (!e && whole) {
        for (int i = 20; i < 24; i++)
            if (head[i] && !e) e = damaged(path, "its header");
        for (int i = 32 + 8 * info.shape.rank; i < WEIGHTS_BLOB_HEADER; i++)
            if (head[i] && !e) e = damaged(path, "its header");
    }
    if (!e && whole) e = hash_rest(s, fd, path, &info);
    if (fd >= 0) close(fd);
    free(path);
    if (!e) *ret = info;
    return e;
}

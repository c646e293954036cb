/* Reading is for foreign bytes: every number of the table is held against the size of the file before it is used, sections lie in the file in the
 * order of the table and do not overlap. Layout of a table entry: name[32] (terminated), u64 at, u64 bytes, u32 crc, u32 zero: 56 bytes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/checkpoint.h"

#include "base/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD = 32, ENTRY = 56, ALIGN = 64, CHUNK = 1 << 18 };
static const char magic[8] = "brimtrn";

static void put32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(v >> 8 * i);
}

static void put64(unsigned char *p, uint64_t v)
{
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)(v >> 8 * i);
}

static uint32_t get32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get64(const unsigned char *p)
{
    return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}

static uint64_t up(uint64_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

err train_checkpoint_write(const struct weights_fs *fs, const char *dir, const char *name, const char *job, const struct train_section *sections, int n)
{
    static const unsigned char zeros[ALIGN];
    unsigned char head[HEAD + ENTRY * TRAIN_CHECKPOINT_SECTIONS + ALIGN] = {0};
    const void *parts[2 * TRAIN_CHECKPOINT_SECTIONS + 1];
    size_t sizes[2 * TRAIN_CHECKPOINT_SECTIONS + 1];
    if (strlen(job) > TRAIN_CHECKPOINT_JOB) return err_set(ERR_LIMIT, "%s/%s: what is to be remembered takes %zu bytes; at most %d can be read back", dir, name, strlen(job), TRAIN_CHECKPOINT_JOB);
    if (n + 1 > TRAIN_CHECKPOINT_SECTIONS) return err_set(ERR_INTERNAL, "a checkpoint of %d sections", n + 1);
    uint64_t at = up(HEAD + ENTRY * (uint64_t)(n + 1));
    int n_parts = 0;
    parts[n_parts] = head;
    sizes[n_parts++] = (size_t)at;
    for (int i = 0; i <= n; i++) {
        struct train_section s = {.name = "job", .p = (void *)(uintptr_t)job, .bytes = strlen(job)};
        if (i) s = sections[i - 1];
        unsigned char *entry = head + HEAD + ENTRY * i;
        memcpy(entry, s.name, sizeof s.name - 1);
        put64(entry + 32, at);
        put64(entry + 40, s.bytes);
        put32(entry + 48, crc32c(0, s.p, (size_t)s.bytes));
        parts[n_parts] = s.p;
        sizes[n_parts++] = (size_t)s.bytes;
        parts[n_parts] = zeros;
        sizes[n_parts++] = (size_t)(up(at + s.bytes) - at - s.bytes);
        at = up(at + s.bytes);
    }
    memcpy(head, magic, sizeof magic);
    put32(head + 8, TRAIN_CHECKPOINT_VERSION);
    put32(head + 12, (uint32_t)n + 1);
    put64(head + 16, at);
    put32(head + 24, crc32c(0, head + HEAD, ENTRY * ((size_t)n + 1)));
    put32(head + 28, crc32c(0, head, 28));
    return weights_fs_put(fs, dir, dir, name, parts, sizes, n_parts, false);
}

/* ---- reading */

static err read_at(const struct train_checkpoint *c, void *to, size_t n, uint64_t at)
{
    return weights_fs_read(&weights_fs_system, c->fd, c->path, to, n, (off_t)at);
}

static err take_table(struct train_checkpoint *c, const unsigned char *table, uint64_t file_bytes)
{
    uint64_t from = up(HEAD + ENTRY * (uint64_t)c->n);
    for (int i = 0; i < c->n; i++) {
        const unsigned char *entry = table + ENTRY * i;
        uint64_t at = get64(entry + 32), bytes = get64(entry + 40);
        if (entry[31] || at != from || bytes > file_bytes || up(at + bytes) > file_bytes)
            return err_set(ERR_CORRUPT, "%s: section %d does not fit into the file", c->path, i);
        memcpy(c->section[i].name, entry, sizeof c->section[i].name);
        c->section[i].at = at;
        c->section[i].bytes = bytes;
        c->section[i].crc = get32(entry + 48);
        from = up(at + bytes);
    }
    return ERR_OK;
}

static err read_head(struct train_checkpoint *c)
{
    unsigned char head[HEAD], table[ENTRY * TRAIN_CHECKPOINT_SECTIONS];
    struct stat st;
    if (fstat(c->fd, &st)) return err_set(ERR_IO, "%s: %s", c->path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return err_set(ERR_FORMAT, "%s: no file", c->path);
    if (st.st_size < HEAD) return err_set(ERR_FORMAT, "%s: too short for a checkpoint", c->path);
    err e = read_at(c, head, HEAD, 0);
    if (e) return e;
    if (memcmp(head, magic, sizeof magic)) return err_set(ERR_FORMAT, "%s: no checkpoint of brim train", c->path);
    if (get32(head + 28) != crc32c(0, head, 28)) return err_set(ERR_CORRUPT, "%s: the first bytes were altered", c->path);
    if (get32(head + 8) != TRAIN_CHECKPOINT_VERSION)
        return err_set(ERR_UNSUPPORTED, "%s: a checkpoint of version %u; this program reads version %d", c->path, get32(head + 8), TRAIN_CHECKPOINT_VERSION);
    if (get64(head + 16) != (uint64_t)st.st_size)
        return err_set(ERR_CORRUPT, "%s: %lld bytes long, but it was written with %llu: cut off or copied in part", c->path, (long long)st.st_size,
                       (unsigned long long)get64(head + 16));
    uint32_t n = get32(head + 12);
    if (n < 1 || n > TRAIN_CHECKPOINT_SECTIONS || up(HEAD + ENTRY * (uint64_t)n) > (uint64_t)st.st_size)
        return err_set(ERR_CORRUPT, "%s: a table of %u sections", c->path, n);
    c->n = (int)n;
    if ((e = read_at(c, table, ENTRY * (size_t)n, HEAD))) return e;
    if (get32(head + 24) != crc32c(0, table, ENTRY * (size_t)n)) return err_set(ERR_CORRUPT, "%s: the table was altered", c->path);
    return take_table(c, table, (uint64_t)st.st_size);
}

err train_checkpoint_open(const char *path, struct train_checkpoint *ret)
{
    struct train_checkpoint c = {.path = xstrdup(path), .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    err e = ERR_OK;
    if (c.fd < 0) e = err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    if (!e) e = read_head(&c);
    int64_t n = e ? 0 : train_checkpoint_bytes(&c, "job");
    if (!e && (n < 0 || n > TRAIN_CHECKPOINT_JOB)) e = err_set(ERR_CORRUPT, "%s: no job in it", path);
    if (!e) {
        c.job = xcalloc((size_t)n + 1, 1);
        e = train_checkpoint_read(&c, "job", c.job, (uint64_t)n);
    }
    if (e)
        train_checkpoint_close(&c);
    else
        *ret = c;
    return e;
}

void train_checkpoint_close(struct train_checkpoint *c)
{
    if (c->path && c->fd >= 0) close(c->fd);
    free(c->job);
    free(c->path);
    *c = (struct train_checkpoint){.fd = -1};
}

static int find(const struct train_checkpoint *c, const char *name)
{
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->section[i].name, name)) return i;
    return -1;
}

int64_t train_checkpoint_bytes(const struct train_checkpoint *c, const char *name)
{
    int i = find(c, name);
    return i < 0 ? -1 : (int64_t)c->section[i].bytes;
}

static err altered(const struct train_checkpoint *c, int i)
{
    return err_set(ERR_CORRUPT, "%s: the bytes of '%s' were altered; use an older checkpoint", c->path, c->section[i].name);
}

err train_checkpoint_verify(const struct train_checkpoint *c)
{
    unsigned char *buffer = xcalloc(CHUNK, 1);
    err e = ERR_OK;
    for (int i = 0; i < c->n && !e; i++) {
        uint32_t crc = 0;
        for (uint64_t done = 0; done < c->section[i].bytes && !e; done += CHUNK) {
            size_t n = (size_t)MIN(c->section[i].bytes - done, (uint64_t)CHUNK);
            e = read_at(c, buffer, n, c->section[i].at + done);
            if (!e) crc = crc32c(crc, buffer, n);
        }
        if (!e && crc != c->section[i].crc) e = altered(c, i);
    }
    free(buffer);
    return e;
}

err train_checkpoint_read(const struct train_checkpoint *c, const char *name, void *to, uint64_t bytes)
{
    int i = find(c, name);
    if (i < 0) return err_set(ERR_FORMAT, "%s: it has no '%s'", c->path, name);
    if (c->section[i].bytes != bytes)
        return err_set(ERR_FORMAT, "%s: '%s' has %llu bytes, this network needs %llu: another network's checkpoint?", c->path, name,
                       (unsigned long long)c->section[i].bytes, (unsigned long long)bytes);
    err e = read_at(c, to, (size_t)bytes, c->section[i].at);
    if (!e && crc32c(0, to, (size_t)bytes) != c->section[i].crc) e = altered(c, i);
    return e;
}

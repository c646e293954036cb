/* Writing and reading packed files: see packed.h for the layout.
 *
 * A packer writes blocks as they come to a file under tmp/ that it keeps locked, so that a collector leaves it alone; the index is written at the end and
 * the file renamed under the writer's lock. A process that dies in between leaves an unlocked file in tmp/, which `gc` removes.
 *
 * Invariant: a packed file refers only to files that hold the block themselves, never along a chain; the collector keeps those.
 * SPDX-License-Identifier: Apache-2.0 */
#include "weights/packed.h"
#include "weights/inside.h"
#include "weights/wire.h"

#include "base/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char MAGIC[8] = "BRIMPACK", ADVICE[] = "remove it, it will be made again";
enum { ID = 32, HEAD = 64, HEADER = HEAD + ID, MOST_INDEX = 512 << 20, MOST_COUNT = 1 << 20, MOST_TEXT = 1 << 14 };

/* ---- the index, read */

static size_t crc_count(uint64_t bytes)
{
    return (size_t)((bytes + WEIGHTS_CRC_BLOCK - 1) / WEIGHTS_CRC_BLOCK);
}

static void block(struct weights_in *in, const struct weights_packed *p, uint64_t data_end, struct weights_packed_block *b)
{
    b->file = (uint32_t)weights_in_number(in, 4);
    b->offset = weights_in_number(in, 8);
    b->bytes = weights_in_number(in, 8);
    b->tail = weights_in_number(in, 4) != 0;
    weights_in_id(in, &b->id);
    if (in->e) return;
    if (b->file >= p->n_files || b->offset % WEIGHTS_PAGE || b->bytes % WEIGHTS_PAGE || !b->bytes || b->offset < WEIGHTS_PAGE ||
        b->bytes > (uint64_t)1 << 47 || b->offset > (uint64_t)1 << 47 || (!b->file && (b->bytes > data_end || b->offset > data_end - b->bytes)) ||
        crc_count(b->bytes) > (size_t)(in->end - in->p) / 4) {
        weights_in_fail(in, "a block outside of its file");
        return;
    }
    b->crc = xnewn(uint32_t, crc_count(b->bytes));
    for (size_t i = 0; i < crc_count(b->bytes); i++) b->crc[i] = (uint32_t)weights_in_number(in, 4);
}

static void extent(struct weights_in *in, const struct weights_packed *p, struct weights_packed_extent *x)
{
    x->block = (uint32_t)weights_in_number(in, 4);
    x->offset = weights_in_number(in, 8);
    x->bytes = weights_in_number(in, 8);
    x->hash = weights_in_number(in, 8);
    x->format = weights_in_string(in, MOST_TEXT);
    if (in->e) return;
    if (x->block >= p->n_blocks || x->bytes > p->blocks[x->block].bytes || x->offset > p->blocks[x->block].bytes - x->bytes || x->offset % 64)
        weights_in_fail(in, "an extent outside of its block");
}

err weights_packed_parse(const char *where, const void *bytes, size_t n, uint64_t data_end, struct weights_packed *ret)
{
    struct weights_packed p = {0};
    struct weights_in in = {where, ADVICE, bytes, (const unsigned char *)bytes + n, ERR_OK};
    p.key = weights_in_string(&in, MOST_TEXT);
    weights_in_id(&in, &p.manifest);
    p.stamp = weights_in_number(&in, 8);
    size_t files = weights_in_count(&in, MOST_COUNT, 4);
    p.files = xnewn(char *, files + 1);
    for (p.n_files = 1; p.n_files <= files && !in.e; p.n_files++) {
        struct weights_id unused;
        p.files[p.n_files] = weights_in_string(&in, MOST_TEXT);
        if (!in.e && !weights_id_parse(p.files[p.n_files], &unused)) weights_in_fail(&in, "a name that is none");
    }
    size_t blocks = weights_in_count(&in, MOST_COUNT, 24 + ID);
    p.blocks = xnewn(struct weights_packed_block, blocks + 1);
    while (p.n_blocks < blocks && !in.e) block(&in, &p, data_end, &p.blocks[p.n_blocks++]);
    size_t extents = weights_in_count(&in, MOST_COUNT, 32);
    p.extents = xnewn(struct weights_packed_extent, extents + 1);
    while (p.n_extents < extents && !in.e) extent(&in, &p, &p.extents[p.n_extents++]);
    size_t places = weights_in_count(&in, MOST_COUNT, 4);
    p.places = xnewn(uint32_t, places + 1);
    for (; p.n_places < places && !in.e; p.n_places++) {
        p.places[p.n_places] = (uint32_t)weights_in_number(&in, 4);
        if (!in.e && p.places[p.n_places] >= p.n_extents) weights_in_fail(&in, "a place without an extent");
    }
    if (!in.e && in.p != in.end) weights_in_fail(&in, "more bytes than it needs");
    if (in.e) weights_packed_done(&p);
    else *ret = p;
    return in.e;
}

void weights_packed_done(struct weights_packed *p)
{
    for (size_t i = 0; p->fds && i < p->n_files; i++)
        if (p->fds[i] >= 0) close(p->fds[i]);
    for (size_t i = 0; p->files && i < p->n_files; i++) free(p->files[i]);
    for (size_t i = 0; i < p->n_blocks; i++) free(p->blocks[i].crc);
    for (size_t i = 0; i < p->n_extents; i++) free(p->extents[i].format);
    free(p->files);
    free(p->fds);
    free(p->blocks);
    free(p->extents);
    free(p->places);
    free(p->key);
    *p = (struct weights_packed){0};
}

/* ---- files, read */

static void name_of_key(const char *key, char buf[65])
{
    struct weights_id h = weights_hash(key, strlen(key));
    weights_id_text(&h, buf);
}

/* Header and index of packed/NAME; only `files[0]` and `fds[0]` are opened. */
static err read_file(struct weights_store *s, const char *name, struct weights_packed *ret)
{
    char *path = xasprintf("%s/%s", s->packed, name);
    unsigned char head[HEADER], *index = NULL;
    struct weights_in in = {path, ADVICE, head, head, ERR_OK};
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    err e = ERR_OK;
    uint64_t at = 0, n = 0;
    if (fd < 0) e = err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    if (!e && (fstat(fd, &st) || !S_ISREG(st.st_mode))) e = weights_in_fail(&in, "no regular file");
    if (!e) e = weights_fs_read(&s->fs, fd, path, head, sizeof head, 0);
    if (!e && memcmp(head, MAGIC, sizeof MAGIC)) e = weights_in_fail(&in, "not a packed file");
    if (!e && weights_get(head + 8, 4) != WEIGHTS_FORMAT)
        e = err_set(ERR_UNSUPPORTED, "%s: format %u, and this brim knows 1; remove it, it will be made again", path, (unsigned)weights_get(head + 8, 4));
    if (!e) {
        struct weights_id h = weights_hash(head, HEAD);
        at = weights_get(head + 16, 8);
        n = weights_get(head + 24, 8);
        if (memcmp(h.b, head + HEAD, ID) || n > MOST_INDEX || n > (uint64_t)st.st_size || at != (uint64_t)st.st_size - n) e = weights_in_fail(&in, "its header");
    }
    if (!e) {
        index = xcalloc((size_t)n + 1, 1);
        e = weights_fs_read(&s->fs, fd, path, index, (size_t)n, (off_t)at);
    }
    if (!e) {
        struct weights_id h = weights_hash(index, (size_t)n);
        if (memcmp(h.b, head + 32, ID)) e = weights_in_fail(&in, "its index");
    }
    if (!e) e = weights_packed_parse(path, index, (size_t)n, at, ret);
    if (!e) {
        ret->files[0] = xstrdup(name);
        ret->fds = xnewn(int, ret->n_files);
        for (size_t i = 1; i < ret->n_files; i++) ret->fds[i] = -1;
        ret->fds[0] = fd;
    } else if (fd >= 0) {
        close(fd);
    }
    free(index);
    free(path);
    return e;
}

/* Is block `b` still in the file `q`? It may have been made again with another content. */
static bool holds(const struct weights_packed *q, const struct weights_packed_block *b)
{
    for (size_t i = 0; i < q->n_blocks; i++)
        if (!q->blocks[i].file && q->blocks[i].offset == b->offset && q->blocks[i].bytes == b->bytes && weights_id_equal(&q->blocks[i].id, &b->id))
            return true;
    return false;
}

static err open_others(struct weights_store *s, struct weights_packed *p)
{
    struct weights_packed q;
    for (size_t i = 1; i < p->n_files; i++) {
        err e = read_file(s, p->files[i], &q);
        if (e) return err_set(ERR_CORRUPT, "%s/%s: damaged (it refers to %s, which is not there or damaged); remove it, it will be made again", s->packed,
                              p->files[0], p->files[i]);
        for (size_t k = 0; k < p->n_blocks && !e; k++)
            if (p->blocks[k].file == i && !holds(&q, &p->blocks[k]))
                e = err_set(ERR_CORRUPT, "%s/%s: damaged (%s, to which it refers, is another file now); remove it, it will be made again", s->packed,
                            p->files[0], p->files[i]);
        p->fds[i] = q.fds[0];
        q.fds[0] = -1;
        weights_packed_done(&q);
        if (e) return e;
    }
    return ERR_OK;
}

err weights_packed_open(struct weights_store *s, const char *key, struct weights_packed *ret)
{
    char name[65];
    struct weights_packed p;
    err e = weights_gate(s, false);
    if (e) return e;
    name_of_key(key, name);
    if (!(e = read_file(s, name, &p))) {
        if (strcmp(p.key, key)) e = err_set(ERR_CORRUPT, "%s/%s: it belongs to another key; remove it", s->packed, name);
        if (!e) e = open_others(s, &p);
        for (size_t i = 0; !e && i < p.n_files; i++)
            if (fcntl(p.fds[i], F_SETFL, fcntl(p.fds[i], F_GETFL) | O_DIRECT)) continue; /* buffered then */
        if (e) weights_packed_done(&p);
        else *ret = p;
    }
    weights_gate_open(s);
    return e;
}

/* ---- writing */

struct known {
    struct weights_id id;
    uint32_t file; /* index into names */
    uint64_t offset, bytes;
    uint32_t *crc;
};

struct weights_packer {
    struct weights_store *s;
    char *key, name[65], *tmp;
    struct weights_id manifest;
    int fd;
    uint64_t end;
    size_t n_names, cap_names, n_fds, cap_fds;
    char **names; /* of other files with blocks that we may refer to; fds beside them */
    int *fds;
    size_t n_known, cap_known;
    struct known *known; /* sorted by id, up to n_sorted; what we wrote ourselves follows (file UINT32_MAX) */
    size_t n_sorted;
    bool committed;
};

static int by_known(const void *a, const void *b)
{
    return memcmp(&((const struct known *)a)->id, &((const struct known *)b)->id, ID);
}

static void learn(struct weights_packer *w, struct weights_packed *p)
{
    vec_grow(&w->names, &w->cap_names, w->n_names);
    vec_grow(&w->fds, &w->cap_fds, w->n_fds);
    w->names[w->n_names++] = xstrdup(p->files[0]);
    w->fds[w->n_fds++] = p->fds[0];
    p->fds[0] = -1;
    for (size_t i = 0; i < p->n_blocks; i++) {
        struct weights_packed_block *b = &p->blocks[i];
        if (b->file) continue;
        vec_grow(&w->known, &w->cap_known, w->n_known);
        w->known[w->n_known++] = (struct known){b->id, (uint32_t)(w->n_names - 1), b->offset, b->bytes, b->crc};
        b->crc = NULL;
    }
}

/* What the other packed files hold. One that cannot be read is not referred to. */
static err learn_others(struct weights_packer *w)
{
    char **names;
    size_t n;
    struct weights_packed p;
    err e = weights_gate(w->s, false);
    if (e) return e;
    if (!(e = weights_entries(w->s->packed, &names, &n))) {
        for (size_t i = 0; i < n; i++) {
            if (!strcmp(names[i], w->name) || read_file(w->s, names[i], &p)) continue;
            learn(w, &p);
            weights_packed_done(&p);
        }
        weights_entries_free(names, n);
    }
    weights_gate_open(w->s);
    if (w->n_known) qsort(w->known, w->n_known, sizeof *w->known, by_known);
    w->n_sorted = w->n_known;
    return e;
}

err weights_packer_new(struct weights_store *s, const char *key, const struct weights_id *manifest, struct weights_packer **ret)
{
    struct weights_packer *w = xnew(struct weights_packer);
    w->s = s;
    w->key = xstrdup(key);
    w->manifest = *manifest;
    w->end = WEIGHTS_PAGE;
    name_of_key(key, w->name);
    w->tmp = xasprintf("%s/pack-%ld-%llx", s->tmp, (long)getpid(), (unsigned long long)clock_ns());
    err e = learn_others(w);
    if (!e) e = weights_gate(s, false); /* a collector must not see it unlocked */
    w->fd = -1;
    if (!e) {
        w->fd = s->fs.create(s->fs.self, w->tmp);
        if (w->fd < 0 || flock(w->fd, LOCK_EX | LOCK_NB)) e = err_set(ERR_IO, "%s: cannot make the file: %s", w->tmp, strerror(errno));
        weights_gate_open(s);
    }
    if (e) weights_packer_free(&w);
    else *ret = w;
    return e;
}

void weights_packer_free(struct weights_packer **wp)
{
    struct weights_packer *w = *wp;
    if (!w) return;
    if (!w->committed && w->fd >= 0) w->s->fs.unlink(w->s->fs.self, w->tmp);
    if (w->fd >= 0) close(w->fd);
    for (size_t i = 0; i < w->n_names; i++) free(w->names[i]);
    for (size_t i = 0; i < w->n_fds; i++) close(w->fds[i]);
    for (size_t i = 0; i < w->n_known; i++) free(w->known[i].crc);
    free(w->names);
    free(w->fds);
    free(w->known);
    free(w->tmp);
    free(w->key);
    free(w);
    *wp = NULL;
}

const char *weights_packer_name(const struct weights_packer *w)
{
    return w->name;
}

static const struct known *find(const struct weights_packer *w, const struct weights_id *h, size_t bytes)
{
    struct known key = {.id = *h};
    const struct known *k = w->n_sorted ? bsearch(&key, w->known, w->n_sorted, sizeof key, by_known) : NULL;
    for (size_t i = w->n_sorted; !k && i < w->n_known; i++)
        if (weights_id_equal(&w->known[i].id, h)) k = &w->known[i];
    return k && k->bytes == bytes ? k : NULL;
}

err weights_packer_add(struct weights_packer *w, const void *p, size_t bytes, bool tail, struct weights_packed_block *ret, int *ret_fd,
                       char **ret_name, bool *ret_new)
{
    struct weights_id h = weights_hash(p, bytes);
    const struct known *k = find(w, &h, bytes);
    *ret_new = !k;
    if (!k) {
        err e = weights_fs_write(&w->s->fs, w->fd, w->tmp, p, bytes, (off_t)w->end);
        if (e) return e;
        uint32_t *crc = xnewn(uint32_t, crc_count(bytes));
        for (size_t i = 0; i < crc_count(bytes); i++)
            crc[i] = crc32c(0, (const char *)p + i * WEIGHTS_CRC_BLOCK, MIN(bytes - i * WEIGHTS_CRC_BLOCK, (size_t)WEIGHTS_CRC_BLOCK));
        vec_grow(&w->known, &w->cap_known, w->n_known);
        w->known[w->n_known] = (struct known){h, UINT32_MAX, w->end, bytes, crc};
        k = &w->known[w->n_known++];
        w->end += bytes;
    }
    bool own = k->file == UINT32_MAX;
    *ret = (struct weights_packed_block){.offset = k->offset, .bytes = bytes, .tail = tail, .id = h, .crc = xnewn(uint32_t, crc_count(bytes))};
    memcpy(ret->crc, k->crc, crc_count(bytes) * sizeof *k->crc);
    *ret_fd = own ? w->fd : w->fds[k->file];
    *ret_name = xstrdup(own ? w->name : w->names[k->file]);
    return ERR_OK;
}

static void write_index(const struct weights_packer *w, const struct weights_packed *p, struct strbuf *b)
{
    weights_out_string(b, w->key, MOST_TEXT);
    weights_out_id(b, &w->manifest);
    weights_out_number(b, p->stamp, 8);
    weights_out_number(b, p->n_files - 1, 4);
    for (size_t i = 1; i < p->n_files; i++) weights_out_string(b, p->files[i], MOST_TEXT);
    weights_out_number(b, p->n_blocks, 4);
    for (size_t i = 0; i < p->n_blocks; i++) {
        const struct weights_packed_block *x = &p->blocks[i];
        weights_out_number(b, x->file, 4);
        weights_out_number(b, x->offset, 8);
        weights_out_number(b, x->bytes, 8);
        weights_out_number(b, x->tail, 4);
        weights_out_id(b, &x->id);
        for (size_t k = 0; k < crc_count(x->bytes); k++) weights_out_number(b, x->crc[k], 4);
    }
    weights_out_number(b, p->n_extents, 4);
    for (size_t i = 0; i < p->n_extents; i++) {
        const struct weights_packed_extent *x = &p->extents[i];
        weights_out_number(b, x->block, 4);
        weights_out_number(b, x->offset, 8);
        weights_out_number(b, x->bytes, 8);
        weights_out_number(b, x->hash, 8);
        weights_out_string(b, x->format, MOST_TEXT);
    }
    weights_out_number(b, p->n_places, 4);
    for (size_t i = 0; i < p->n_places; i++) weights_out_number(b, p->places[i], 4);
}

static err publish(struct weights_packer *w, const struct weights_packed *p)
{
    struct weights_store *s = w->s;
    char *path = xasprintf("%s/%s", s->packed, w->name);
    err e = weights_store_begin(s);
    if (!e) {
        for (size_t i = 1; i < p->n_files && !e; i++) { /* collected meanwhile? */
            char *other = xasprintf("%s/%s", s->packed, p->files[i]);
            if (access(other, R_OK)) e = err_set(ERR_BUSY, "%s: was removed while a copy that refers to it was made", other);
            free(other);
        }
        if (!e && s->fs.rename(s->fs.self, w->tmp, path)) e = err_set(ERR_IO, "%s: cannot rename: %s", path, strerror(errno));
        if (!e) {
            w->committed = true;
            flock(w->fd, LOCK_UN);
            e = weights_sync_dir(s, s->packed);
        }
        weights_store_end(s);
    }
    free(path);
    return e;
}

/* Whoever reads the blocks already has turned O_DIRECT on for the descriptor that he shares with us; an index is of any length. */
static err write_end(struct weights_packer *w, const struct strbuf *index, const unsigned char *head)
{
    int flags = fcntl(w->fd, F_GETFL);
    if (flags & O_DIRECT) fcntl(w->fd, F_SETFL, flags & ~O_DIRECT);
    err e = weights_fs_write(&w->s->fs, w->fd, w->tmp, index->s, index->len, (off_t)w->end);
    if (!e) e = weights_fs_write(&w->s->fs, w->fd, w->tmp, head, HEADER, 0);
    if (!e && w->s->fs.sync(w->s->fs.self, w->fd)) e = err_set(ERR_IO, "%s: cannot write: %s", w->tmp, strerror(errno));
    posix_fadvise(w->fd, 0, 0, POSIX_FADV_DONTNEED);
    if (flags & O_DIRECT) fcntl(w->fd, F_SETFL, flags);
    return e;
}

err weights_packer_commit(struct weights_packer *w, const struct weights_packed *p)
{
    struct strbuf b = {0};
    unsigned char head[HEADER] = {0};
    write_index(w, p, &b);
    memcpy(head, MAGIC, sizeof MAGIC);
    weights_put(head + 8, WEIGHTS_FORMAT, 4);
    weights_put(head + 16, w->end, 8);
    weights_put(head + 24, b.len, 8);
    struct weights_id h = weights_hash(b.s, b.len);
    memcpy(head + 32, h.b, ID);
    h = weights_hash(head, HEAD);
    memcpy(head + HEAD, h.b, ID);
    err e = b.len > MOST_INDEX ? err_set(ERR_LIMIT, "%s: an index of %zu bytes", w->tmp, b.len) : ERR_OK;
    if (!e) e = write_end(w, &b, head);
    strbuf_done(&b);
    return e ? e : publish(w, p);
}

/* ---- collecting, checking */

static bool wanted(const struct weights_id *keep, size_t n, const struct weights_id *manifest)
{
    for (size_t i = 0; i < n; i++)
        if (weights_id_equal(&keep[i], manifest)) return true;
    return false;
}

err weights_packed_collect(struct weights_store *s, const struct weights_id *keep, size_t n_keep, struct weights_gc_report *r)
{
    char **names;
    size_t n;
    struct weights_packed p;
    err e = weights_entries(s->packed, &names, &n);
    if (e) return e;
    bool *stays = xnewn(bool, n + 1);
    for (size_t i = 0; i < n; i++) {
        if (read_file(s, names[i], &p)) continue; /* damaged: it will be made again */
        bool mine = wanted(keep, n_keep, &p.manifest);
        stays[i] |= mine;
        for (size_t f = 1; mine && f < p.n_files; f++)
            for (size_t k = 0; k < n; k++) stays[k] |= !strcmp(names[k], p.files[f]);
        weights_packed_done(&p);
    }
    for (size_t i = 0; i < n && !e; i++)
        if (!stays[i]) e = weights_remove_file(s, s->packed, names[i], r);
    weights_entries_free(names, n);
    free(stays);
    return e ? e : weights_sync_dir(s, s->packed);
}

static err verify_block(struct weights_store *s, const struct weights_packed *p, const struct weights_packed_block *b, const char *path,
                        unsigned char *buffer)
{
    for (uint64_t at = 0; at < b->bytes; at += WEIGHTS_CRC_BLOCK) {
        size_t n = (size_t)MIN(b->bytes - at, (uint64_t)WEIGHTS_CRC_BLOCK);
        err e = weights_fs_read(&s->fs, p->fds[0], path, buffer, n, (off_t)(b->offset + at));
        if (e) return e;
        if (crc32c(0, buffer, n) != b->crc[at / WEIGHTS_CRC_BLOCK])
            return err_set(ERR_CORRUPT, "%s: damaged at byte %llu; remove it, it will be made again", path, (unsigned long long)(b->offset + at));
    }
    return ERR_OK;
}

err weights_packed_verify(struct weights_store *s, const char *name, uint64_t *ret_bytes)
{
    struct weights_packed p;
    err e = read_file(s, name, &p);
    if (e) return e == ERR_NOT_FOUND ? ERR_OK : e; /* collected meanwhile */
    char *path = xasprintf("%s/%s", s->packed, name);
    unsigned char *buffer = xcalloc(1, WEIGHTS_CRC_BLOCK);
    e = open_others(s, &p);
    for (size_t i = 0; i < p.n_blocks && !e; i++) {
        if (p.blocks[i].file) continue; /* checked where it lies */
        e = verify_block(s, &p, &p.blocks[i], path, buffer);
        *ret_bytes += p.blocks[i].bytes;
    }
    free(buffer);
    free(path);
    weights_packed_done(&p);
    return e;
}

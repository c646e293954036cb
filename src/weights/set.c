/* Sets of packed weights: blocks that are in memory or on disk.
 *
 * An extent of 64 KiB or more is a *block* of its own; smaller ones lie together in tail blocks, which are in memory whenever the set
 * is (block alignment would waste more than it saves). Of what several models share, everything from half a page on is a block of its own: a page that
 * two hold is no more than half a page for each. A block is the unit of residency and of reading. Which blocks are
 * *kept* is the block plan's decision (weights_set_keep); the others stream through a ring (ring.c) when a run comes to them.
 *
 * One mutex per set guards its state, pins and the memory of its blocks. Memory is allocated when a set is asked for (so that ERR_NOMEM comes
 * at once, to the one who can evict something else) and filled by the reader thread. No lock is held over a read.
 *
 * A set of a stored model has its blocks in packed files of the store instead (stored.h); then each block knows its file, its checksums and
 * its name, by which sets that keep an equal block hold it once (pool.c).
 *
 * Invariant: RESIDENT exactly if every kept block has its bytes; `loading` reads are under way in LOADING and none else; pins > 0 in LOADING.
 * SPDX-License-Identifier: Apache-2.0 */
#include "weights/inside.h"
#include "weights/stored.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALIGN = 64, SMALL = 64 << 10, TAIL = 256 << 10, LEAST_SHARED = WEIGHTS_PAGE / 2 };

struct block {
    size_t offset, bytes;  /* in the file, of a set that has one: multiples of a page; else `bytes` as asked for */
    unsigned char *memory; /* NULL: not in memory */
    bool kept, tail;
    struct weights_file *file;
    struct weights_packed_block stored; /* crc NULL: in the spill file */
    struct weights_shared *shared; /* memory belongs to the pool: others may hold it too */
    struct weights_read read;
};

struct extent {
    int block;
    size_t offset, bytes; /* in the block */
};

/* A packed file that blocks of the set lie in. */
struct stored_file {
    struct weights_file file;
    char *name;
};

struct weights_set {
    struct mem_payer *payer;
    struct weights_packer *packer; /* borrowed; where blocks go while FILLING, NULL: the spill file */
    size_t n_files, cap_files;
    struct stored_file **files;
    struct weights_reader *reader;
    struct weights_file file;   /* fd -1: memory only */
    size_t n, cap, n_blocks, cap_blocks, total; /* total: bytes of all blocks */
    size_t end;                 /* of the file; a tail block that is being filled has room for TAIL bytes there */
    struct extent *extents;
    struct block **blocks;      /* each its own allocation: reads point to them */
    unsigned char *fill;        /* what the last large extent is written to before it goes to the file */
    int fill_block;             /* -1: none */
    unsigned char *tail;        /* the tail block that is being filled, TAIL bytes */
    size_t tail_used;
    int tail_block;             /* -1: none */

    pthread_mutex_t lock;       /* guards what follows, and the blocks' memory and kept */
    pthread_cond_t changed;
    enum weights_state state;
    int pins, loading;
    err failure;                /* of the last load, with its sentence */
    char sentence[WEIGHTS_SENTENCE];
    uint64_t loads, bytes_read;
    int64_t read_ns, load_began;
};

static size_t align(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static bool on_disk(const struct weights_set *s)
{
    return s->file.fd >= 0;
}

/* ---- filling */

static err open_spill(struct weights_set *s, const char *dir)
{
    s->file.fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (s->file.fd < 0) { /* a file system without O_TMPFILE */
        char *name = xasprintf("%s/brim-spill-XXXXXX", dir);
        s->file.fd = mkostemp(name, O_CLOEXEC);
        if (s->file.fd >= 0) unlink(name);
        free(name);
    }
    if (s->file.fd < 0)
        return err_set(ERR_IO, "%s: cannot make a file for packed weights there: %s; give another directory with --store", dir,
                       strerror(errno));
    return ERR_OK;
}

err weights_set_new(struct mem_payer *payer, struct weights_reader *reader, const char *spill_dir, struct weights_set **ret)
{
    struct weights_set *s = xnew(struct weights_set);
    s->payer = payer;
    s->reader = reader;
    s->file.fd = s->fill_block = s->tail_block = -1;
    s->state = WEIGHTS_FILLING;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    if (spill_dir) {
        assert(reader);
        err e = open_spill(s, spill_dir);
        if (e) {
            weights_set_free(&s);
            return e;
        }
    }
    *ret = s;
    return ERR_OK;
}

static int block_new(struct weights_set *s, size_t bytes, bool tail)
{
    struct block *b = xnew(struct block);
    *b = (struct block){.offset = s->end, .bytes = bytes, .kept = true, .tail = tail, .file = &s->file};
    vec_grow(&s->blocks, &s->cap_blocks, s->n_blocks);
    s->blocks[s->n_blocks] = b;
    return (int)s->n_blocks++;
}

static err write_all(const struct weights_set *s, const unsigned char *from, size_t bytes, size_t offset)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t n = pwrite(s->file.fd, from + at, bytes - at, (off_t)(offset + at));
        if (n < 0 && errno != EINTR)
            return err_set(ERR_IO, "%s: writing packed weights: %s; free space or give another directory with --store",
                           mem_payer_name(s->payer), strerror(errno));
        if (n > 0) at += (size_t)n;
    }
    return ERR_OK;
}

/* The file of that name among the set's; takes a descriptor over. */
static struct stored_file *stored_file(struct weights_set *s, const char *name, int fd)
{
    for (size_t i = 0; i < s->n_files; i++)
        if (!strcmp(s->files[i]->name, name)) {
            close(fd);
            return s->files[i];
        }
    vec_grow(&s->files, &s->cap_files, s->n_files);
    struct stored_file *f = s->files[s->n_files++] = xnew(struct stored_file);
    f->name = xstrdup(name);
    f->file.fd = fd;
    return f;
}

/* A block that is full goes to the spill file, or to the packer, which says where it lies. */
static err write_block(struct weights_set *s, struct block *b, const unsigned char *memory)
{
    if (!s->packer) return write_all(s, memory, b->bytes, b->offset);
    struct weights_packed_block where;
    char *name;
    bool is_new;
    int fd;
    err e = weights_packer_add(s->packer, memory, b->bytes, b->tail, &where, &fd, &name, &is_new);
    if (e) return e;
    if ((fd = dup(fd)) < 0) {
        e = err_set(ERR_IO, "%s: %s", mem_payer_name(s->payer), strerror(errno));
        free(where.crc);
    } else {
        b->file = &stored_file(s, name, fd)->file;
        b->offset = where.offset;
        b->stored = where;
    }
    free(name);
    return e;
}

/* The last large extent goes to the file. */
static err flush_fill(struct weights_set *s)
{
    if (s->fill_block < 0) return ERR_OK;
    struct block *b = s->blocks[s->fill_block];
    err e = write_block(s, b, s->fill);
    mem_free(s->payer, MEM_WEIGHTS, s->fill, b->bytes);
    s->fill = NULL;
    s->fill_block = -1;
    return e;
}

/* The tail so far goes to the file. */
static err flush_tail(struct weights_set *s)
{
    if (s->tail_block < 0) return ERR_OK;
    struct block *b = s->blocks[s->tail_block];
    err e = write_block(s, b, s->tail);
    mem_free(s->payer, MEM_WEIGHTS, s->tail, TAIL);
    s->tail = NULL;
    s->tail_block = -1;
    return e;
}

static int extent_new(struct weights_set *s, int block, size_t offset, size_t bytes)
{
    vec_grow(&s->extents, &s->cap, s->n);
    s->extents[s->n] = (struct extent){block, offset, bytes};
    return (int)s->n++;
}

static err add_small(struct weights_set *s, size_t bytes, int *ret_extent, void **ret_fill)
{
    err e;
    if (s->tail_block >= 0 && s->tail_used + bytes > TAIL && (e = flush_tail(s))) return e;
    if (s->tail_block < 0) {
        if ((e = mem_alloc(s->payer, MEM_WEIGHTS, TAIL, (void **)&s->tail))) return e;
        s->tail_block = block_new(s, 0, true); /* always kept, and so are small blocks of their own */
        s->end += TAIL;
        s->tail_used = 0;
    }
    struct block *b = s->blocks[s->tail_block];
    *ret_extent = extent_new(s, s->tail_block, s->tail_used, bytes);
    *ret_fill = s->tail + s->tail_used;
    s->tail_used = align(s->tail_used + MAX(bytes, (size_t)1));
    s->total += weights_round(s->tail_used) - b->bytes;
    b->bytes = weights_round(s->tail_used);
    return ERR_OK;
}

static err add_alone(struct weights_set *s, size_t bytes, int *ret_extent, void **ret_fill)
{
    size_t size = weights_round(bytes);
    err e = mem_alloc(s->payer, MEM_WEIGHTS, size, (void **)&s->fill);
    if (e) return e;
    s->fill_block = block_new(s, size, bytes < SMALL);
    s->end += size;
    s->total += size;
    *ret_extent = extent_new(s, s->fill_block, 0, bytes);
    *ret_fill = s->fill;
    return ERR_OK;
}

static err add_in_memory(struct weights_set *s, size_t bytes, int *ret_extent, void **ret_fill)
{
    void *memory;
    err e = mem_alloc(s->payer, MEM_WEIGHTS, bytes, &memory);
    if (e) return e;
    int block = block_new(s, bytes, false);
    s->blocks[block]->memory = memory;
    s->total += bytes;
    *ret_extent = extent_new(s, block, 0, bytes);
    *ret_fill = memory;
    return ERR_OK;
}

err weights_set_add(struct weights_set *s, size_t bytes, int *ret_extent, void **ret_fill)
{
    assert(s->state == WEIGHTS_FILLING);
    if (!on_disk(s)) return add_in_memory(s, bytes, ret_extent, ret_fill);
    err e = flush_fill(s);
    if (e) return e;
    return bytes >= SMALL ? add_alone(s, bytes, ret_extent, ret_fill) : add_small(s, bytes, ret_extent, ret_fill);
}

err weights_set_add_shared(struct weights_set *s, size_t bytes, int *ret_extent, void **ret_fill)
{
    assert(s->state == WEIGHTS_FILLING);
    if (!on_disk(s) || bytes < LEAST_SHARED) return weights_set_add(s, bytes, ret_extent, ret_fill);
    err e = flush_fill(s);
    return e ? e : add_alone(s, bytes, ret_extent, ret_fill);
}

/* Once more for files that were sealed before does no harm. */
static void read_directly(struct weights_file *f)
{
    posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
    atomic_store(&f->direct, fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) | O_DIRECT) == 0);
}

err weights_set_seal(struct weights_set *s)
{
    if (!on_disk(s)) {
        s->state = WEIGHTS_RESIDENT;
        return ERR_OK;
    }
    err e = flush_fill(s);
    if (!e) e = flush_tail(s);
    if (e) return e;
    /* Written pages leave the cache, and reads go around it from now on. A disk that lost what was written would give wrong weights
     * later, and silently. The file may be shorter than its last tail's room: reads never go there. */
    if (fdatasync(s->file.fd))
        return err_set(ERR_IO, "%s: writing packed weights: %s; free space or give another directory with --store",
                       mem_payer_name(s->payer), strerror(errno));
    read_directly(&s->file);
    for (size_t i = 0; i < s->n_files; i++) read_directly(&s->files[i]->file);
    s->state = WEIGHTS_ON_DISK;
    return ERR_OK;
}

err weights_set_reopen(struct weights_set *s)
{
    err e = on_disk(s) ? weights_evict(s) : ERR_OK;
    if (e) return e;
    if (on_disk(s) && atomic_exchange(&s->file.direct, false)) fcntl(s->file.fd, F_SETFL, fcntl(s->file.fd, F_GETFL) & ~O_DIRECT);
    s->state = WEIGHTS_FILLING;
    return ERR_OK;
}

static void drop_block(struct weights_set *s, struct block *b);

void weights_set_free(struct weights_set **sp)
{
    struct weights_set *s = *sp;
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    while (s->loading) weights_reader_sleep(s->reader, &s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    if (s->fill) mem_free(s->payer, MEM_WEIGHTS, s->fill, s->blocks[s->fill_block]->bytes);
    if (s->tail) mem_free(s->payer, MEM_WEIGHTS, s->tail, TAIL);
    for (size_t i = 0; i < s->n_blocks; i++) {
        drop_block(s, s->blocks[i]);
        free(s->blocks[i]->stored.crc);
        free(s->blocks[i]);
    }
    for (size_t i = 0; i < s->n_files; i++) {
        close(s->files[i]->file.fd);
        free(s->files[i]->name);
        free(s->files[i]);
    }
    free(s->files);
    if (on_disk(s)) close(s->file.fd);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s->blocks);
    free(s->extents);
    free(s);
    *sp = NULL;
}

/* ---- residency; the lock is held */

static void drop_block(struct weights_set *s, struct block *b)
{
    if (b->shared)
        weights_pool_drop(weights_reader_pool(s->reader), b->shared, s->payer);
    else
        mem_free(s->payer, MEM_WEIGHTS, b->memory, b->bytes);
    b->shared = NULL;
    b->memory = NULL;
}

static bool missing(const struct weights_set *s)
{
    for (size_t i = 0; i < s->n_blocks; i++)
        if (s->blocks[i]->kept && !s->blocks[i]->memory) return true;
    return false;
}

/* The reader's: a block has landed, or failed. */
static void block_landed(struct weights_read *r)
{
    struct weights_set *s = r->owner;
    struct block *b = (struct block *)((char *)r - offsetof(struct block, read));
    pthread_mutex_lock(&s->lock);
    if (r->failure) {
        s->failure = r->failure;
        memcpy(s->sentence, r->sentence, sizeof s->sentence);
        drop_block(s, b);
    } else {
        s->bytes_read += r->bytes;
        if (b->stored.crc) b->shared = weights_pool_publish(weights_reader_pool(s->reader), &b->stored.id, b->bytes, s->payer, b->memory);
    }
    if (--s->loading == 0) {
        s->read_ns += clock_ns() - s->load_began;
        s->loads++;
        s->state = missing(s) ? WEIGHTS_ON_DISK : WEIGHTS_RESIDENT;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
}

static bool take_shared(struct weights_set *s, struct block *b)
{
    if (b->stored.crc) b->shared = weights_pool_take(weights_reader_pool(s->reader), &b->stored.id, b->bytes, s->payer, &b->memory);
    return b->shared != NULL;
}

/* Memory for all that is missing, or for nothing. */
static err allocate(struct weights_set *s)
{
    for (size_t i = 0; i < s->n_blocks; i++) {
        struct block *b = s->blocks[i];
        b->read.owner = NULL;
        if (!b->kept || b->memory) continue;
        if (take_shared(s, b)) continue;
        err e = mem_alloc(s->payer, MEM_WEIGHTS, b->bytes, (void **)&b->memory);
        if (!e) {
            b->read.owner = s; /* marks it as new */
            continue;
        }
        for (size_t k = 0; k < i; k++)
            if (s->blocks[k]->read.owner) drop_block(s, s->blocks[k]);
        return e;
    }
    return ERR_OK;
}

static err start_load(struct weights_set *s)
{
    err e = allocate(s);
    if (e) return e;
    s->failure = ERR_OK;
    s->load_began = clock_ns();
    s->state = WEIGHTS_LOADING;
    for (size_t i = 0; i < s->n_blocks; i++) s->loading += s->blocks[i]->read.owner != NULL;
    for (size_t i = 0; i < s->n_blocks; i++) {
        struct block *b = s->blocks[i];
        if (!b->read.owner) continue;
        b->read = (struct weights_read){.file = b->file, .who = mem_payer_name(s->payer), .offset = b->offset, .bytes = b->bytes,
                                        .crc = b->stored.crc, .to = b->memory, .when = s->load_began, .done = block_landed, .owner = s};
        weights_reader_submit(s->reader, &b->read);
    }
    if (!s->loading) s->state = WEIGHTS_RESIDENT; /* a set of nothing */
    return ERR_OK;
}

/* ---- using */

err weights_request(struct weights_set *s)
{
    err e = ERR_OK;
    pthread_mutex_lock(&s->lock);
    assert(s->state != WEIGHTS_FILLING);
    if (s->state == WEIGHTS_ON_DISK) e = start_load(s);
    if (!e) s->pins++;
    pthread_mutex_unlock(&s->lock);
    return e;
}

err weights_wait(struct weights_set *s)
{
    err e = ERR_OK;
    pthread_mutex_lock(&s->lock);
    while (s->state == WEIGHTS_LOADING) weights_reader_sleep(s->reader, &s->changed, &s->lock);
    if (s->state != WEIGHTS_RESIDENT) e = err_set(s->failure ? s->failure : ERR_INTERNAL, "%s", s->sentence);
    pthread_mutex_unlock(&s->lock);
    return e;
}

void weights_release(struct weights_set *s)
{
    pthread_mutex_lock(&s->lock);
    assert(s->pins > 0);
    s->pins--;
    pthread_mutex_unlock(&s->lock);
}

static err busy(const struct weights_set *s)
{
    if (on_disk(s) && !s->pins && s->state != WEIGHTS_LOADING) return ERR_OK;
    return err_set(ERR_BUSY, "%s: the weights are in use", mem_payer_name(s->payer));
}

err weights_evict(struct weights_set *s)
{
    pthread_mutex_lock(&s->lock);
    err e = busy(s);
    uint64_t before = mem_payer_used(s->payer, MEM_WEIGHTS);
    if (!e) {
        for (size_t i = 0; i < s->n_blocks; i++) drop_block(s, s->blocks[i]);
        if (s->state == WEIGHTS_RESIDENT) s->state = WEIGHTS_ON_DISK;
    }
    pthread_mutex_unlock(&s->lock);
    if (!e) weights_reader_spend(s->reader, (size_t)(before - mem_payer_used(s->payer, MEM_WEIGHTS)));
    return e;
}

err weights_set_keep(struct weights_set *s, const bool *keep)
{
    pthread_mutex_lock(&s->lock);
    err e = busy(s);
    if (!e) {
        assert(s->state != WEIGHTS_FILLING);
        for (size_t i = 0; i < s->n_blocks; i++) s->blocks[i]->kept = !keep || s->blocks[i]->tail;
        for (size_t i = 0; keep && i < s->n; i++)
            if (keep[i]) s->blocks[s->extents[i].block]->kept = true;
        bool any = false;
        for (size_t i = 0; i < s->n_blocks; i++) {
            if (!s->blocks[i]->kept) drop_block(s, s->blocks[i]);
            any |= s->blocks[i]->memory != NULL;
        }
        s->state = !any || missing(s) ? WEIGHTS_ON_DISK : WEIGHTS_RESIDENT;
    }
    pthread_mutex_unlock(&s->lock);
    return e;
}

enum weights_state weights_state(const struct weights_set *s)
{
    struct weights_set *m = (struct weights_set *)(uintptr_t)s;
    pthread_mutex_lock(&m->lock);
    enum weights_state state = m->state;
    pthread_mutex_unlock(&m->lock);
    return state;
}

size_t weights_bytes(const struct weights_set *s)
{
    return s->total;
}

static size_t sum(const struct weights_set *s, bool in_memory)
{
    struct weights_set *m = (struct weights_set *)(uintptr_t)s;
    size_t bytes = 0;
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < s->n_blocks; i++)
        if (in_memory ? s->blocks[i]->memory != NULL : s->blocks[i]->kept) bytes += s->blocks[i]->bytes;
    pthread_mutex_unlock(&m->lock);
    return bytes;
}

size_t weights_kept_bytes(const struct weights_set *s)
{
    return sum(s, false);
}

size_t weights_resident_bytes(const struct weights_set *s)
{
    return sum(s, true);
}

size_t weights_missing_bytes(const struct weights_set *s)
{
    struct weights_set *m = (struct weights_set *)(uintptr_t)s;
    size_t bytes = 0;
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < s->n_blocks; i++) {
        const struct block *b = s->blocks[i];
        if (!b->kept || b->memory) continue;
        if (!b->stored.crc || !weights_pool_has(weights_reader_pool(s->reader), &b->stored.id, b->bytes, s->payer)) bytes += b->bytes;
    }
    pthread_mutex_unlock(&m->lock);
    return bytes;
}

struct place {
    const unsigned char *memory;
    size_t bytes;
};

static int by_memory(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return x->memory < y->memory ? -1 : x->memory > y->memory;
}

size_t weights_union_bytes(struct weights_set *const *sets, size_t n)
{
    size_t count = 0, bytes = 0;
    for (size_t i = 0; i < n; i++) count += sets[i]->n_blocks;
    struct place *all = xnewn(struct place, count + 1);
    count = 0;
    for (size_t i = 0; i < n; i++) {
        pthread_mutex_lock(&sets[i]->lock);
        for (size_t k = 0; k < sets[i]->n_blocks; k++)
            if (sets[i]->blocks[k]->memory) all[count++] = (struct place){sets[i]->blocks[k]->memory, sets[i]->blocks[k]->bytes};
        pthread_mutex_unlock(&sets[i]->lock);
    }
    if (count) qsort(all, count, sizeof *all, by_memory);
    for (size_t i = 0; i < count; i++) bytes += i && all[i].memory == all[i - 1].memory ? 0 : all[i].bytes;
    free(all);
    return bytes;
}

void weights_hold_shared(struct weights_set *s)
{
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->n_blocks && s->state == WEIGHTS_ON_DISK; i++)
        if (s->blocks[i]->kept && !s->blocks[i]->memory) take_shared(s, s->blocks[i]);
    if (s->state == WEIGHTS_ON_DISK && s->n_blocks && !missing(s)) s->state = WEIGHTS_RESIDENT;
    pthread_mutex_unlock(&s->lock);
}

static int by_name(const void *a, const void *b)
{
    const struct block *x = *(struct block *const *)a, *y = *(struct block *const *)b;
    return memcmp(&x->stored.id, &y->stored.id, sizeof x->stored.id);
}

size_t weights_twice_bytes(struct weights_set *const *sets, size_t n, bool always_kept)
{
    size_t count = 0, bytes = 0;
    for (size_t i = 0; i < n; i++) count += sets[i]->n_blocks;
    const struct block **all = xnewn(const struct block *, count + 1);
    count = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sets[i]->n_blocks; k++) {
            const struct block *b = sets[i]->blocks[k];
            if (b->stored.crc && (b->tail || !always_kept)) all[count++] = b;
        }
    if (count) qsort(all, count, sizeof *all, by_name);
    for (size_t i = 1; i < count; i++)
        if (!by_name(&all[i - 1], &all[i])) bytes += all[i]->bytes;
    free(all);
    return bytes;
}

size_t weights_paid_bytes(const struct weights_set *s)
{
    return (size_t)mem_payer_used(s->payer, MEM_WEIGHTS);
}

bool weights_extent_streams(const struct weights_set *s, int extent)
{
    return !s->blocks[s->extents[extent].block]->kept;
}

size_t weights_extent_block_bytes(const struct weights_set *s, int extent)
{
    const struct block *b = s->blocks[s->extents[extent].block];
    return on_disk(s) && !b->tail ? b->bytes : 0;
}

const uint8_t *weights_extent_id(const struct weights_set *s, int extent)
{
    const struct block *b = s->blocks[s->extents[extent].block];
    return b->stored.crc && !b->tail ? b->stored.id.b : NULL;
}

const void *weights_extent(const struct weights_set *s, int extent)
{
    const struct extent *x = &s->extents[extent];
    return s->blocks[x->block]->memory + x->offset;
}

void weights_counts(const struct weights_set *s, uint64_t *ret_loads, uint64_t *ret_bytes, int64_t *ret_ns)
{
    struct weights_set *m = (struct weights_set *)(uintptr_t)s;
    pthread_mutex_lock(&m->lock);
    *ret_loads = s->loads;
    *ret_bytes = s->bytes_read;
    *ret_ns = s->read_ns;
    pthread_mutex_unlock(&m->lock);
}

/* ---- for rings */

void weights_set_locate(struct weights_set *s, int extent, struct weights_read *ret)
{
    const struct block *b = s->blocks[s->extents[extent].block];
    ret->file = b->file;
    ret->crc = b->stored.crc;
    ret->who = mem_payer_name(s->payer);
    ret->offset = b->offset;
    ret->bytes = b->bytes;
}

struct weights_reader *weights_set_reader(const struct weights_set *s)
{
    return s->reader;
}

void weights_set_count(struct weights_set *s, size_t bytes)
{
    pthread_mutex_lock(&s->lock);
    s->bytes_read += bytes;
    pthread_mutex_unlock(&s->lock);
}

/* ---- for stored models */

void weights_set_pack_into(struct weights_set *s, struct weights_packer *w)
{
    assert(on_disk(s));
    s->packer = w;
}

/* One of the blocks that the set had before, and that nobody of this file took. */
static int find_stored(const struct weights_set *s, size_t n_before, const bool *taken, const struct weights_packed_block *b)
{
    for (size_t i = 0; i < n_before; i++) {
        const struct block *x = s->blocks[i];
        if (!taken[i] && x->stored.crc && x->bytes == b->bytes && x->tail == b->tail && weights_id_equal(&x->stored.id, &b->id)) return (int)i;
    }
    return -1;
}

static int adopt_block(struct weights_set *s, struct weights_packed *k, struct weights_packed_block *b)
{
    int block = block_new(s, (size_t)b->bytes, b->tail), fd = dup(k->fds[b->file]);
    if (fd < 0) return -1;
    struct block *x = s->blocks[block];
    x->file = &stored_file(s, k->files[b->file], fd)->file;
    x->offset = (size_t)b->offset;
    x->stored = *b;
    b->crc = NULL;
    s->total += x->bytes;
    return block;
}

err weights_set_adopt(struct weights_set *s, struct weights_packed *k, int *ret_extents)
{
    assert(s->state == WEIGHTS_FILLING && on_disk(s));
    size_t before = s->n_blocks, n_extents = s->n;
    bool *taken = xnewn(bool, before + 1);
    int *map = xnewn(int, k->n_blocks + 1);
    err e = ERR_OK;
    for (size_t i = 0; i < k->n_blocks && !e; i++) {
        map[i] = find_stored(s, before, taken, &k->blocks[i]);
        if (map[i] >= 0) taken[map[i]] = true;
        else if ((map[i] = adopt_block(s, k, &k->blocks[i])) < 0) e = err_set(ERR_IO, "%s: %s", mem_payer_name(s->payer), strerror(errno));
    }
    for (size_t i = 0; i < k->n_extents && !e; i++) {
        const struct weights_packed_extent *x = &k->extents[i];
        int block = map[x->block], found = -1;
        for (size_t j = 0; j < n_extents && found < 0; j++)
            if (s->extents[j].block == block && s->extents[j].offset == x->offset && s->extents[j].bytes == x->bytes) found = (int)j;
        ret_extents[i] = found >= 0 ? found : extent_new(s, block, (size_t)x->offset, (size_t)x->bytes);
    }
    free(taken);
    free(map);
    return e;
}

static uint32_t file_number(const struct weights_set *s, const struct block *b, const char *own, struct weights_packed *p)
{
    const char *name = NULL;
    for (size_t i = 0; i < s->n_files; i++)
        if (&s->files[i]->file == b->file) name = s->files[i]->name;
    if (!strcmp(name, own)) return 0;
    for (size_t i = 1; i < p->n_files; i++)
        if (!strcmp(p->files[i], name)) return (uint32_t)i;
    p->files[p->n_files] = xstrdup(name);
    return (uint32_t)p->n_files++;
}

static void describe_block(const struct weights_set *s, const struct block *b, const char *own, struct weights_packed *p)
{
    struct weights_packed_block *x = &p->blocks[p->n_blocks++];
    size_t n = (b->bytes + WEIGHTS_CRC_BLOCK - 1) / WEIGHTS_CRC_BLOCK * sizeof *x->crc;
    *x = b->stored;
    x->crc = xcalloc(1, n);
    memcpy(x->crc, b->stored.crc, n);
    x->file = file_number(s, b, own, p);
}

/* Blocks and extents are numbered anew, in the set's order, without those that no place needs. */
err weights_set_describe(const struct weights_set *s, const char *own, const int *places, size_t n, struct weights_packed *ret, int *ret_extents)
{
    struct weights_packed p = {.n_files = 1, .files = xnewn(char *, s->n_files + 2), .blocks = xnewn(struct weights_packed_block, s->n_blocks + 1),
                               .extents = xnewn(struct weights_packed_extent, s->n + 1), .places = xnewn(uint32_t, n + 1)};
    int *block = xnewn(int, s->n_blocks + 1);
    err e = ERR_OK;
    for (size_t i = 0; i < s->n; i++) ret_extents[i] = -1;
    for (size_t i = 0; i < n; i++) ret_extents[places[i]] = 0;
    for (size_t i = 0; i < s->n; i++)
        if (ret_extents[i] == 0) block[s->extents[i].block] = 1;
    for (size_t i = 0; i < s->n_blocks && !e; i++) {
        if (!block[i]) continue;
        block[i] = (int)p.n_blocks;
        if (s->blocks[i]->stored.crc) describe_block(s, s->blocks[i], own, &p);
        else e = err_set(ERR_UNSUPPORTED, "%s: some weights are in no packed file", mem_payer_name(s->payer));
    }
    for (size_t i = 0; i < s->n && !e; i++) {
        if (ret_extents[i] < 0) continue;
        ret_extents[i] = (int)p.n_extents;
        p.extents[p.n_extents++] = (struct weights_packed_extent){.block = (uint32_t)block[s->extents[i].block], .offset = s->extents[i].offset,
                                                                  .bytes = s->extents[i].bytes};
    }
    for (size_t i = 0; i < n && !e; i++) p.places[p.n_places++] = (uint32_t)ret_extents[places[i]];
    free(block);
    if (e) weights_packed_done(&p);
    else *ret = p;
    return e;
}

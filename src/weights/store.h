/* The weight store: models on disk as blobs, manifests, pins.
 *
 *     STORE/store            format of the store
 *     STORE/blobs/ID         one file per blob: a header of 128 bytes, then the numbers as ONNX has them. ID = BLAKE2b-256(dtype, dims, bytes)
 *     STORE/models/NAME/N    the manifest of version N: graph (a blob), list of blobs, where each tensor is
 *     STORE/models/NAME/current   which version the name means: replacing this file is the switch
 *     STORE/models/NAME/pinned    there: somebody said `brim models pin`
 *     STORE/packed/KEY       what the kernels want (weights/packed.h); deleting it loses nothing
 *     STORE/uses/, tmp/, lock, gate   who uses what now; half-written files; the writer's lock; open versus collect
 *
 * Every file is immutable and whole: written under tmp/, synced, renamed, its folder synced. So any kind of death leaves the old state or the
 * new one, and things that nobody refers to, which `gc` takes away. One writer at a time (flock on `lock`); readers never wait for a
 * writer, only for a collector (flock on `gate`). Integers are little-endian. A format of another version is refused with what to do.
 *
 * All calls on one store come from one thread at a time; other processes may do what they like. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "tensor/tensor.h"
#include "weights/fs.h"

/* A manifest with shared tensors is of format 2. */
enum { WEIGHTS_FORMAT_SHARED = 2 };
enum { WEIGHTS_BLOB_HEADER = 128, WEIGHTS_BLOB_SMALL = 64 << 10, WEIGHTS_FORMAT = 1 };

struct weights_store;
struct weights_id {
    uint8_t b[32];
};
char *weights_id_text(const struct weights_id *id, char buf[65]);
bool weights_id_equal(const struct weights_id *a, const struct weights_id *b);

/* fs NULL: the system's. Makes what is missing. */
err weights_store_open(const char *path, const struct weights_fs *fs, struct weights_store **ret);
void weights_store_close(struct weights_store **s);
const char *weights_store_path(const struct weights_store *s);
const char *weights_store_blobs(const struct weights_store *s); /* the folder; a blob's file is its ID's text */

/* ---- writing: between begin and end. begin waits for another writer (ERR_BUSY after a minute). Calls nest. */
err weights_store_begin(struct weights_store *s);
void weights_store_end(struct weights_store *s);
/* An equal blob that is there is compared byte by byte, and written anew if it is damaged. *ret_new: it was written. */
err weights_blob_put(struct weights_store *s, enum tensor_dtype dtype, const struct tensor_shape *shape, const void *p, size_t n,
                     struct weights_id *ret, bool *ret_new);
struct weights_id weights_blob_id(enum tensor_dtype dtype, const struct tensor_shape *shape, const void *p, size_t n);

/* ---- reading */
struct weights_blob_info {
    struct weights_id id;
    enum tensor_dtype dtype;
    struct tensor_shape shape;
    uint64_t bytes;
};
/* Header and size; with `whole` every byte is hashed too. ERR_NOT_FOUND, ERR_CORRUPT names the blob. */
err weights_blob_check(struct weights_store *s, const struct weights_id *id, bool whole, struct weights_blob_info *ret);

struct weights_tensor {
    char *name;
    enum tensor_dtype dtype;
    struct tensor_shape shape;
    uint32_t blob;          /* index into blobs */
    uint64_t offset, bytes; /* in the blob's numbers */
    bool shared;            /* other models have it as well: kept as it is, and apart, in what is packed */
};
struct weights_manifest {
    char *name, *source;    /* source: the file's name at import */
    uint32_t version;
    uint64_t created, source_bytes; /* seconds since 1970 */
    struct weights_id id;   /* the manifest's own checksum, set by read and commit: names this content for ever */
    uint32_t graph, tail;   /* indices into blobs; tail == n_blobs: none */
    size_t n_blobs, n_tensors;
    struct weights_id *blobs;
    uint64_t *blob_bytes;
    struct weights_tensor *tensors;
};
void weights_manifest_done(struct weights_manifest *m);
/* Pure functions of the bytes (fuzzed): ERR_CORRUPT, ERR_UNSUPPORTED (another format). Only weights_manifest_done frees; `where` is for sentences. */
err weights_manifest_parse(const char *where, const void *p, size_t n, struct weights_manifest *ret);
void weights_manifest_write(const struct weights_manifest *m, void **ret, size_t *ret_n); /* free() */
/* Writes the next version of m->name and makes it current; sets m->version and m->id. Equal to the current one: nothing is written. */
err weights_manifest_commit(struct weights_store *s, struct weights_manifest *m, bool *ret_new);
/* The current version; ERR_NOT_FOUND. */
err weights_manifest_current(struct weights_store *s, const char *name, struct weights_manifest *ret);
/* Names that can be: letters, digits, '.', '_', '-'; at most 100; no leading '.'. ERR_USAGE. */
err weights_name_check(const char *name);
/* Names with a current version, sorted. Free each and the array. */
err weights_store_list(struct weights_store *s, char ***ret, size_t *ret_n);

/* ---- pins and uses */
struct weights_use;
/* The current version, and a mark that this process uses it, which vanishes with the process. */
err weights_use_open(struct weights_store *s, const char *name, struct weights_manifest *ret, struct weights_use **ret_use);
void weights_use_close(struct weights_use **u);
/* How many processes use the model now (any version). */
err weights_use_count(struct weights_store *s, const char *name, int *ret);
err weights_pin(struct weights_store *s, const char *name, bool on);
bool weights_pinned(struct weights_store *s, const char *name);

/* ---- taking away, checking */
struct weights_gc_report {
    uint64_t files, bytes;
};
/* ERR_BUSY while pinned or used. Its blobs go as far as nobody else has them. */
err weights_store_remove(struct weights_store *s, const char *name, struct weights_gc_report *ret);
/* Old versions that nobody uses, blobs and packed files that no version needs, half-written files, marks of dead processes. */
err weights_store_gc(struct weights_store *s, struct weights_gc_report *ret);
struct weights_verify_report {
    uint64_t manifests, blobs, packed, bytes, damaged, missing;
};
/* Every byte of every file; `bad` is called with a sentence for each that is damaged or missing. ERR_OK also then: see the report. */
err weights_store_verify(struct weights_store *s, void (*bad)(void *user, const char *sentence), void *user, struct weights_verify_report *ret);

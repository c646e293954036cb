/* Packed copies: what the kernels of one plan want, in execution order, in one file of the store that can always be made again.
 *
 *     page 0    "BRIMPACK"  u32 format  u32 0  u64 index offset  u64 index bytes  id[32] of the index  id[32] of the 64 bytes before
 *     blocks    each at a multiple of 4096
 *     index     string key  id[32] manifest  u64 stamp  u32 n_files {string name}
 *               u32 n_blocks {u32 file  u64 offset  u64 bytes  u32 tail  id[32]  u32 crc[ceil(bytes / 64 KiB)]}
 *               u32 n_extents {u32 block  u64 offset  u64 bytes  u64 hash  string format}  u32 n_places {u32 extent}
 *
 * A block is known by the hash of its packed bytes: one that another packed file holds already is not written again but referred to (file: 0 is
 * this file, k the k-th name). The file of a key is named by the key's hash. *Places* say which extent each constant of the plan has, in the order in
 * which planning asks; `stamp` is the planner's own fingerprint. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "weights/store.h"

enum { WEIGHTS_CRC_BLOCK = 64 << 10 };

struct weights_packed_block {
    uint32_t file;
    uint64_t offset, bytes;
    bool tail;
    struct weights_id id;
    uint32_t *crc;
};
struct weights_packed_extent {
    uint32_t block;
    uint64_t offset, bytes, hash; /* hash: of the constant, for the planner */
    char *format;
};
struct weights_packed {
    char *key;
    struct weights_id manifest;
    uint64_t stamp;
    size_t n_files, n_blocks, n_extents, n_places;
    char **files;   /* [0]: this one; set by open, NULL after parse */
    int *fds;       /* of open: with O_DIRECT where that works; -1 once taken over */
    struct weights_packed_block *blocks;
    struct weights_packed_extent *extents;
    uint32_t *places;
};

/* The index alone, a pure function of the bytes (fuzzed). `data_end`: no block of this file reaches beyond. */
err weights_packed_parse(const char *where, const void *p, size_t n, uint64_t data_end, struct weights_packed *ret);
void weights_packed_done(struct weights_packed *p); /* closes descriptors that were not taken over */
/* ERR_NOT_FOUND: not packed yet; ERR_CORRUPT, ERR_UNSUPPORTED: pack again, which replaces it. Blocks themselves are checked at each read. */
err weights_packed_open(struct weights_store *s, const char *key, struct weights_packed *ret);

struct weights_packer;
err weights_packer_new(struct weights_store *s, const char *key, const struct weights_id *manifest, struct weights_packer **ret);
/* Not committed: nothing is left behind. */
void weights_packer_free(struct weights_packer **w);
/* `bytes` is a multiple of 4096. *ret_fd is borrowed until the packer is freed (dup it); *ret_name is the file the block lies in, and ret->crc is
 * the caller's to free. *ret_new: it was written. */
err weights_packer_add(struct weights_packer *w, const void *p, size_t bytes, bool tail, struct weights_packed_block *ret, int *ret_fd,
                       char **ret_name, bool *ret_new);
/* `p`: key, manifest are set by the packer; files[k] for k >= 1 are names; a block with the name of this packer's file must have file 0. */
err weights_packer_commit(struct weights_packer *w, const struct weights_packed *p);
const char *weights_packer_name(const struct weights_packer *w);

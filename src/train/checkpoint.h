/* Checkpoints: one file that is there whole or not at all, with everything a job needs to go on with the same bits.
 *
 *     offset 0   magic "brimtrn\0", u32 version, u32 sections, u64 bytes of the file, u32 CRC32C of the table, u32 CRC32C of these 28 bytes
 *           32   table: per section 56 bytes: name (32, zero-padded), u64 offset, u64 bytes, u32 CRC32C, u32 0
 *                sections, each at a multiple of 64: "job" (JSON), then arrays of f32
 *
 * Little-endian throughout. Written under a temporary name in the same folder, synced, renamed (weights/fs.h), so a crash leaves the old file or the
 * new one. Every section carries a CRC32C, checked before a number of it is used. A reader refuses an unknown version, sizes that do not fit the file,
 * and altered bytes: nothing is half loaded (all is checked first, then copied). SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"
#include "weights/fs.h"

enum { TRAIN_CHECKPOINT_VERSION = 1, TRAIN_CHECKPOINT_SECTIONS = 128, TRAIN_CHECKPOINT_JOB = 64 << 20 /* most bytes of the JSON; the log of a merge grows with every trial */ };

struct train_section {
    char name[32];
    void *p;          /* written: borrowed. read: where it goes */
    uint64_t bytes;
};

/* Writes DIR/NAME. `job` is a JSON text. ERR_IO names the file. */
err train_checkpoint_write(const struct weights_fs *fs, const char *dir, const char *name, const char *job, const struct train_section *sections, int n);

struct train_checkpoint {
    char *path;
    int fd, n;
    struct {
        char name[32];
        uint64_t at, bytes;
        uint32_t crc;
    } section[TRAIN_CHECKPOINT_SECTIONS];
    char *job;        /* checked, terminated */
};
/* Reads and checks the table and the job. ERR_NOT_FOUND, ERR_FORMAT (no checkpoint), ERR_UNSUPPORTED (another version), ERR_CORRUPT. */
err train_checkpoint_open(const char *path, struct train_checkpoint *ret);
void train_checkpoint_close(struct train_checkpoint *c);
/* Bytes of a section; -1: it has none of this name. */
int64_t train_checkpoint_bytes(const struct train_checkpoint *c, const char *name);
/* Checks the bytes of every section against its CRC32C (a pass over the file). */
err train_checkpoint_verify(const struct train_checkpoint *c);
/* One section into `to`, checked while it is read; ERR_FORMAT if it is not there or not of `bytes`. On failure `to` holds rubbish. */
err train_checkpoint_read(const struct train_checkpoint *c, const char *name, void *to, uint64_t bytes);

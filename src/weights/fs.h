/* The few file operations that change a store, behind a table, so that tests can lose power between any two of them.
 *
 * Each returns what the system call of its name returns, with errno. Reading is done directly. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

#include <sys/types.h>

struct weights_fs {
    void *self;
    int (*create)(void *self, const char *path); /* must not exist; a descriptor to read and write */
    ssize_t (*pwrite)(void *self, int fd, const void *p, size_t n, off_t at);
    int (*sync)(void *self, int fd);
    int (*rename)(void *self, const char *from, const char *to);
    int (*unlink)(void *self, const char *path);
    int (*mkdir)(void *self, const char *path); /* an existing one is fine */
    int (*rmdir)(void *self, const char *path);
    int (*sync_dir)(void *self, const char *path);
    ssize_t (*pread)(void *self, int fd, void *p, size_t n, off_t at);
};
extern const struct weights_fs weights_fs_system;

/* Whole buffers; short and interrupted calls are continued. ERR_IO names `path`. */
err weights_fs_write(const struct weights_fs *fs, int fd, const char *path, const void *p, size_t n, off_t at);
/* ERR_CORRUPT if the file ends before. */
err weights_fs_read(const struct weights_fs *fs, int fd, const char *path, void *p, size_t n, off_t at);
/* A file that is there whole or not at all: temporary name in tmp_dir, written, synced, renamed. The folder is synced unless `later`. */
err weights_fs_put(const struct weights_fs *fs, const char *tmp_dir, const char *dir, const char *name, const void *const *parts,
                   const size_t *sizes, int n_parts, bool later);
/* A whole file of at most `most` bytes; free() it. ERR_NOT_FOUND. */
err weights_fs_get(const struct weights_fs *fs, const char *path, size_t most, unsigned char **ret, size_t *ret_n);

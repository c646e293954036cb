/* File operations of the store on a real file system.
 *
 * What makes a file durable is always the same: bytes, fsync, rename, fsync of the folder. weights_fs_put is the only place that does it
 * for small files; packed copies, which are written piece by piece, follow the same order in packed.c.
 *
 * Invariant: no file under its final name was ever open for writing. SPDX-License-Identifier: Apache-2.0 */
#include "weights/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int sys_create(void *self, const char *path)
{
    (void)self;
    return open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644);
}

static ssize_t sys_pwrite(void *self, int fd, const void *p, size_t n, off_t at)
{
    (void)self;
    return pwrite(fd, p, n, at);
}

static ssize_t sys_pread(void *self, int fd, void *p, size_t n, off_t at)
{
    (void)self;
    return pread(fd, p, n, at);
}

static int sys_sync(void *self, int fd)
{
    (void)self;
    return fsync(fd);
}

static int sys_rename(void *self, const char *from, const char *to)
{
    (void)self;
    return rename(from, to);
}

static int sys_unlink(void *self, const char *path)
{
    (void)self;
    return unlink(path);
}

static int sys_mkdir(void *self, const char *path)
{
    (void)self;
    return mkdir(path, 0755) && errno != EEXIST ? -1 : 0;
}

static int sys_rmdir(void *self, const char *path)
{
    (void)self;
    return rmdir(path);
}

static int sys_sync_dir(void *self, const char *path)
{
    (void)self;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    int rc = fsync(fd), keep = errno;
    close(fd);
    errno = keep;
    return rc && keep != EINVAL ? -1 : 0; /* some file systems have nothing to sync there */
}

const struct weights_fs weights_fs_system = {NULL,      sys_create, sys_pwrite, sys_sync,     sys_rename,
                                             sys_unlink, sys_mkdir,  sys_rmdir,  sys_sync_dir, sys_pread};

err weights_fs_write(const struct weights_fs *fs, int fd, const char *path, const void *p, size_t n, off_t at)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = fs->pwrite(fs->self, fd, (const char *)p + done, n - done, at + (off_t)done);
        if (k < 0 && errno == EINTR) continue;
        if (k == 0) errno = ENOSPC;
        if (k <= 0) return err_set(ERR_IO, "%s: cannot write: %s; free space there, or take another folder", path, strerror(errno));
        done += (size_t)k;
    }
    return ERR_OK;
}

err weights_fs_read(const struct weights_fs *fs, int fd, const char *path, void *p, size_t n, off_t at)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = fs->pread(fs->self, fd, (char *)p + done, n - done, at + (off_t)done);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return err_set(ERR_IO, "%s: cannot read: %s", path, strerror(errno));
        if (k == 0) return err_set(ERR_CORRUPT, "%s: the file ends at byte %zu", path, (size_t)at + done);
        done += (size_t)k;
    }
    return ERR_OK;
}

err weights_fs_put(const struct weights_fs *fs, const char *tmp_dir, const char *dir, const char *name, const void *const *parts,
                   const size_t *sizes, int n_parts, bool later)
{
    char *tmp = xasprintf("%s/%ld-%s", tmp_dir, (long)getpid(), name), *path = xasprintf("%s/%s", dir, name);
    err e = ERR_OK;
    fs->unlink(fs->self, tmp); /* of a process with our number that died */
    int fd = fs->create(fs->self, tmp);
    if (fd < 0) e = err_set(ERR_IO, "%s: cannot make the file: %s", tmp, strerror(errno));
    off_t at = 0;
    for (int i = 0; i < n_parts && !e; at += (off_t)sizes[i++]) e = weights_fs_write(fs, fd, tmp, parts[i], sizes[i], at);
    if (!e && fs->sync(fs->self, fd)) e = err_set(ERR_IO, "%s: cannot write: %s", tmp, strerror(errno));
    if (fd >= 0) close(fd);
    if (!e && fs->rename(fs->self, tmp, path)) e = err_set(ERR_IO, "%s: cannot rename: %s", path, strerror(errno));
    if (e && fd >= 0) fs->unlink(fs->self, tmp);
    if (!e && !later && fs->sync_dir(fs->self, dir)) e = err_set(ERR_IO, "%s: cannot write the folder: %s", dir, strerror(errno));
    free(tmp);
    free(path);
    return e;
}

err weights_fs_get(const struct weights_fs *fs, const char *path, size_t most, unsigned char **ret, size_t *ret_n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) return err_set(errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    err e = ERR_OK;
    if (fstat(fd, &st)) e = err_set(ERR_IO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode)) e = err_set(ERR_CORRUPT, "%s: not a regular file", path);
    else if ((uint64_t)st.st_size > most) e = err_set(ERR_LIMIT, "%s: %lld bytes, more than it can have", path, (long long)st.st_size);
    unsigned char *p = NULL;
    if (!e) {
        p = xcalloc((size_t)st.st_size + 1, 1);
        e = weights_fs_read(fs, fd, path, p, (size_t)st.st_size, 0);
    }
    close(fd);
    if (e) {
        free(p);
        return e;
    }
    *ret = p;
    *ret_n = (size_t)st.st_size;
    return ERR_OK;
}

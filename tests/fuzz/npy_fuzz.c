/* Fuzzes the reader of .npy: a parsed view must lie inside the bytes. Some inputs also go through files: what
 * is loaded from one is what was parsed, and what was saved is read back the same. SPDX-License-Identifier:
 * Apache-2.0 */
#include "tensor/npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n);

static void same(const struct tensor *a, const struct tensor *b) {
    size_t size = (size_t)tensor_count(&a->shape) * tensor_dtype_size(a->dtype);
    if (a->dtype != b->dtype || !tensor_shape_equal(&a->shape, &b->shape)) abort();
    if (size && memcmp(a->data, b->data, size) != 0) abort();
}

/* Files cost a thousand times what parsing does, so only some inputs take this way. */
static void through_files(const unsigned char *bytes, size_t n, const struct tensor *parsed, err parsed_err) {
    char path[64];
    struct tensor t;
    void *owned = NULL;
    int fd = memfd_create("npy", MFD_CLOEXEC);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    err e = npy_load(path, 1 << 20, &t, &owned);
    if (e != parsed_err) abort();
    if (!e) same(parsed, &t);
    free(owned);
    close(fd);
    if (e) return;
    snprintf(path, sizeof path, "/tmp/brim-npy-fuzz-%d", (int)getpid());
    if (npy_save(path, parsed) || npy_load(path, 1 << 20, &t, &owned)) abort();
    same(parsed, &t);
    free(owned);
    unlink(path);
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n) {
    struct tensor t = {0};
    err e = npy_parse("fuzz.npy", bytes, n, &t);
    if (n % 64 == 0 && n < 4096) through_files(bytes, n, &t, e);
    if (!e) {
        size_t size = (size_t)tensor_count(&t.shape) * tensor_dtype_size(t.dtype);
        const unsigned char *p = t.data;
        unsigned sum = 0;
        for (size_t i = 0; i < size; i++)
            sum += p[i];
        return sum == 0xffffffff; /* so that the reads stay */
    }
    return 0;
}

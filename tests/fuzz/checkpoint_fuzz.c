/* Fuzz target: the reader of training checkpoints. The two checksums of head and table, and the size in the head, are put right first, since damage
 * behind wrong ones is never looked at. Whatever is accepted can be read to its end. SPDX-License-Identifier: Apache-2.0 */
#include "base/crc32c.h"
#include "train/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(uint8_t *p, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct train_checkpoint c;
    char path[64];
    uint8_t *copy = malloc(size + 1);
    if (!copy) return 0;
    if (size) memcpy(copy, data, size);
    if (size >= 32) {
        put(copy + 16, size, 8);
        size_t n = MIN((size_t)copy[12], (size - 32) / 56);
        put(copy + 24, crc32c(0, copy + 32, 56 * n), 4);
        put(copy + 28, crc32c(0, copy, 28), 4);
    }
    int fd = memfd_create("checkpoint", MFD_CLOEXEC);
    if (fd < 0 || write(fd, copy, size) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (!train_checkpoint_open(path, &c)) {
        (void)train_checkpoint_verify(&c);
        for (int i = 0; i < c.n; i++) {
            if (c.section[i].at + c.section[i].bytes > size) abort();
            void *to = malloc((size_t)c.section[i].bytes + 1);
            if (to) (void)train_checkpoint_read(&c, c.section[i].name, to, c.section[i].bytes);
            free(to);
        }
        train_checkpoint_close(&c);
    }
    close(fd);
    free(copy);
    return 0;
}

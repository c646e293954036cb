/* Fuzz target: any bytes as a data set. The first byte says which kind; the rest is the file (IDX: the labels follow the last byte 0xfe). What opens
 * must keep its promises: boxes finite and of the set's classes, and a batch of it can be made. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "train/data_set.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file in memory that has a path. */
static int file_of(const uint8_t *data, size_t size, char path[32])
{
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

static void check(const struct train_set *s, struct mem_payer *p)
{
    for (int64_t i = 0; i < train_set_count(s); i++) {
        int n;
        const struct train_box *b = train_set_boxes(s, i, &n);
        for (int k = 0; k < n; k++)
            if (!isfinite(b[k].x1) || !(b[k].x2 > b[k].x1) || b[k].class_id < 0 || b[k].class_id >= train_set_classes(s)) abort();
        if (train_set_label(s, i) >= train_set_classes(s)) abort();
    }
    struct train_data_options o = {.width = 8, .height = 6, .batch = 3, .epochs = 1, .augment = {.flip = 0.5f, .crop = 0.5f, .mixup = 0.5f, .shift = 2}};
    struct train_data *d;
    const struct train_batch *t;
    if (train_data_open(s, &o, p, &d)) return;
    for (int i = 0; i < 3 && train_data_next(d, &t) == ERR_OK; i++) continue;
    train_data_close(&d);
}

/* COCO apart from its pictures, which are files. */
static void parse_coco(const uint8_t *data, size_t size, struct mem_payer *p)
{
    struct train_set *s = xnew(struct train_set);
    struct data_coco c;
    FILE *f = fmemopen((void *)(uintptr_t)data, size, "rb");
    s->payer = p;
    if (f && data_coco_parse(s, f, "fuzz", &c) == ERR_OK) data_coco_done(s, &c);
    if (f) fclose(f);
    train_set_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mem_budget *b = mem_budget_new("host", 64 << 20);
    struct mem_payer *p = mem_payer_new(b, "fuzz");
    if (size > 1) {
        const uint8_t *mid = memrchr(data + 1, 0xfe, size - 1);
        size_t first = mid ? (size_t)(mid - data - 1) : size - 1;
        char path[32], labels[32];
        int kind = data[0] % 3 == 0 ? TRAIN_SET_COCO : data[0] % 3 == 1 ? TRAIN_SET_CIFAR : TRAIN_SET_IDX;
        int a = file_of(data + 1, kind == TRAIN_SET_IDX ? first : size - 1, path), c = file_of(mid ? mid + 1 : data, mid ? size - first - 2 : 0, labels);
        struct train_set *s;
        if (kind == TRAIN_SET_COCO) parse_coco(data + 1, size - 1, p);
        if (train_set_open(path, &(struct train_set_options){.kind = kind, .labels = labels}, p, &s) == ERR_OK) {
            check(s, p);
            train_set_free(&s);
        }
        close(a);
        close(c);
    }
    if (mem_budget_used(b)) abort();
    mem_payer_free(&p);
    mem_budget_free(&b);
    return 0;
}

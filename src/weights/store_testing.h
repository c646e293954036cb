/* For the tests of the store: a folder of their own, a small model, files altered on purpose. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "weights/packed.h"
#include "weights/store_inside.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static inline char *testing_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    char *dir = xasprintf("%s/brim-store-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    return dir;
}

static inline void testing_remove(const char *dir)
{
    char *command = xasprintf("rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
    free(command);
}

/* A model of one graph, `n` blobs of 80 KB and a tail; blob i holds the number seed[i]. */
static inline err testing_import(struct weights_store *s, const char *name, const int *seed, int n, bool *ret_new)
{
    enum { COUNT = 20000 };
    struct weights_id ids[10];
    uint64_t bytes[10];
    struct weights_tensor tensors[10] = {{0}};
    struct weights_manifest m = {.name = (char *)(uintptr_t)name, .source = (char *)(uintptr_t)"x.onnx", .source_bytes = 7, .graph = 0,
                                 .tail = 1, .blobs = ids, .blob_bytes = bytes, .tensors = tensors};
    float *p = xnewn(float, COUNT);
    bool is_new;
    err e = weights_store_begin(s);
    for (int i = 0; i < n + 2 && !e; i++) {
        struct tensor_shape shape = {.rank = i < 2 ? 1 : 2, .dims = {i < 2 ? 100 : 100, 200}};
        size_t count = i < 2 ? 100 : COUNT;
        for (size_t k = 0; k < count; k++) p[k] = (float)(i < 2 ? i : seed[i - 2]) + (float)k;
        e = weights_blob_put(s, TENSOR_F32, &shape, p, count * 4, &ids[i], &is_new);
        bytes[i] = count * 4;
        if (i) tensors[m.n_tensors++] = (struct weights_tensor){(char *)(uintptr_t)"w", TENSOR_F32, shape, (uint32_t)i, 0, count * 4, false};
        m.n_blobs++;
    }
    if (!e) e = weights_manifest_commit(s, &m, ret_new);
    if (s->depth) weights_store_end(s);
    free(p);
    return e;
}

static inline err testing_pack(struct weights_store *s, const char *key, const struct weights_id *manifest, const int *seed, int n, int *ret_written)
{
    struct weights_packer *w = NULL;
    struct weights_packed_block blocks[10];
    char *names[11] = {NULL};
    struct weights_packed p = {.n_files = 1, .files = names, .blocks = blocks, .stamp = 5};
    struct weights_packed_extent extents[10];
    uint32_t places[10];
    unsigned char *bytes = xcalloc(1, 81920);
    *ret_written = 0;
    err e = weights_packer_new(s, key, manifest, &w);
    for (int i = 0; i < n && !e; i++) {
        int fd;
        char *name;
        bool is_new;
        memset(bytes, seed[i], 81920);
        if ((e = weights_packer_add(w, bytes, 81920, false, &blocks[i], &fd, &name, &is_new))) break;
        *ret_written += is_new;
        p.n_blocks++;
        size_t f = 1;
        while (f < p.n_files && strcmp(names[f], name)) f++;
        blocks[i].file = strcmp(name, weights_packer_name(w)) ? (uint32_t)f : 0;
        if (blocks[i].file && f == p.n_files) names[p.n_files++] = name;
        else free(name);
        extents[i] = (struct weights_packed_extent){(uint32_t)i, 0, 81000, 9, (char *)(uintptr_t)"raw"};
        places[i] = (uint32_t)i;
    }
    p.extents = extents;
    p.places = places;
    p.n_extents = p.n_places = p.n_blocks;
    if (!e) e = weights_packer_commit(w, &p);
    for (size_t i = 0; i < p.n_blocks; i++) free(blocks[i].crc);
    for (size_t f = 1; f < p.n_files; f++) free(names[f]);
    free(bytes);
    weights_packer_free(&w);
    return e;
}

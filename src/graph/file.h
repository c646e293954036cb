/* The bytes that graphs borrow from: the mapping of an ONNX file, its external data, and what had to be decoded.
 *
 * Reference counted: each graph made from the file holds one. Blocks (constants that were not in the file in a form
 * that can be read in place: packed integers, or misaligned bytes) are paid by the payer of the reader, who must
 * outlive the file.
 *
 * The mapping is private and read-only, and the descriptor is closed at once. A file that is *replaced* (written
 * beside and renamed, as every careful program does) stays as it was; one that is cut shorter in place while mapped
 * ends the process with SIGBUS on the next read, as with any mapping. That is why the weight store keeps its own
 * copy of what is imported. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"

struct graph_block {
    void *p;
    size_t n;
};
struct graph_mapping {
    char *location; /* as the model says it; NULL: the model itself */
    const uint8_t *base;
    size_t size;
};
struct graph_file {
    int refs;
    char *dir; /* of external data; NULL: refused */
    char *solid; /* not NULL: of external data only this location is mapped; of others only the size is asked, and they read as zeros */
    struct mem_payer *payer;
    size_t n_mappings, cap_mappings;
    struct graph_mapping *mappings;
    size_t n_blocks, cap_blocks;
    struct graph_block *blocks;
    size_t booked; /* bytes of bookkeeping charged to the payer */
};

struct graph_file *graph_file_new(const char *dir, struct mem_payer *payer);
struct graph_file *graph_file_ref(struct graph_file *f);
void graph_file_unref(struct graph_file **f);
/* Maps a whole regular file. */
err graph_file_map(struct graph_file *f, const char *path, const char *location, const struct graph_mapping **ret);
/* The external file of this name: mapped once; it must lie inside the model's folder, symbolic links followed. */
err graph_file_external(struct graph_file *f, const char *location, const struct graph_mapping **ret);
/* Gives the pages of all mappings back to the kernel, which reads them again when somebody looks: for when the weights are packed, and
 * the file's own bytes would only stand in memory a second time. Any thread may be reading. */
void graph_file_forget(const struct graph_file *f);
/* Bytes that live as long as the file. */
err graph_file_block(struct graph_file *f, size_t n, void **ret);

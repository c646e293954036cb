/* Inside the weights room: what the files of the store share. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "weights/store.h"

struct weights_store {
    struct weights_fs fs;
    char *path, *blobs, *models, *packed, *uses, *tmp;
    int lock, gate; /* descriptors for flock */
    int depth;      /* of begin */
};

/* Little-endian integers, whatever the machine. */
static inline void weights_put(unsigned char *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) p[i] = (unsigned char)(v >> 8 * i);
}

static inline uint64_t weights_get(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

struct weights_id weights_hash(const void *p, size_t n);
bool weights_id_parse(const char *text, struct weights_id *ret);

/* Entries of a folder but "." and "..", sorted; a folder that is not there has none. Free each and the array. */
err weights_entries(const char *dir, char ***ret, size_t *ret_n);
void weights_entries_free(char **names, size_t n);
/* The collector's side of the gate. */
err weights_gate(struct weights_store *s, bool exclusive);
void weights_gate_open(struct weights_store *s);
/* Does a living process hold this file's lock? */
bool weights_held(const char *path);
/* Version numbers in models/NAME, sorted as text; `current` of NAME: ERR_NOT_FOUND, ERR_CORRUPT. */
bool weights_version_parse(const char *text, uint32_t *ret);
err weights_current(struct weights_store *s, const char *name, uint32_t *ret);
err weights_manifest_read(struct weights_store *s, const char *name, uint32_t version, struct weights_manifest *ret);
bool weights_version_used(struct weights_store *s, const char *name, uint32_t version);
err weights_remove_file(struct weights_store *s, const char *dir, const char *name, struct weights_gc_report *r);
err weights_sync_dir(struct weights_store *s, const char *dir);

/* packed.c: takes away what no manifest of `keep` needs; checks one file. */
err weights_packed_collect(struct weights_store *s, const struct weights_id *keep, size_t n, struct weights_gc_report *r);
err weights_packed_verify(struct weights_store *s, const char *name, uint64_t *ret_bytes);

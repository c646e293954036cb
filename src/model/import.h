/* ONNX files into the weight store and out again. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"
#include "weights/store.h"

struct model_import_report {
    uint32_t version;
    bool is_new;                         /* false: this content was current already */
    uint64_t bytes;                      /* of numbers in the model */
    uint64_t new_bytes;                  /* of them written; the rest the store had */
    uint64_t shared_bytes;               /* of them also in other models */
    size_t tensors, blobs;
};
/* The file must be one that brim can read (graph_load). `name`: see weights_name_check. What brim decodes on the way is paid by `payer`. */
err model_import(struct weights_store *s, const char *path, const char *name, struct mem_payer *payer, struct model_import_report *ret);
/* Its numbers alone become blobs: model_import of the same file then has only small files to write. What is not imported afterwards `gc` takes away. */
err model_import_numbers(struct weights_store *s, const char *path, struct mem_payer *payer);
/* Its name without folders and ".onnx", other characters as '_'; free(). */
char *model_import_name(const char *path);

/* The graph of a manifest, reading its weights from the store; `hollow`: tensors that are blobs of their own read as zeros, and are not read. Else
 * every byte was checked against its hash. */
err model_import_graph(struct weights_store *s, const struct weights_manifest *m, bool hollow, struct mem_payer *payer, struct graph **ret);

/* How many bytes of `m` other current models of the store have as well. `ret_with`: per blob, a list "b, c" of their names or NULL (free each and
 * the array); may be NULL. */
err model_import_shared(struct weights_store *s, const struct weights_manifest *m, uint64_t *ret_bytes, char ***ret_with);

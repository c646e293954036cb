/* Fuzz target: the store's readers of manifests and of indices of packed files. The last byte chooses. A manifest's checksum is put right first, since
 * damage behind a wrong one is never looked at. What is accepted must be the same when written and read again. SPDX-License-Identifier: Apache-2.0 */
#include "weights/packed.h"
#include "weights/store_inside.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void manifest(uint8_t *p, size_t n)
{
    struct weights_manifest m, again;
    if (n >= 44) {
        struct weights_id id = weights_hash(p, n - 32);
        memcpy(p + n - 32, id.b, 32);
    }
    if (weights_manifest_parse("fuzz", p, n, &m)) return;
    void *q;
    size_t k;
    weights_manifest_write(&m, &q, &k);
    if (k != n || memcmp(p, q, n)) abort();
    if (weights_manifest_parse("fuzz", q, k, &again)) abort();
    weights_manifest_done(&again);
    weights_manifest_done(&m);
    free(q);
}

static void packed(const uint8_t *p, size_t n)
{
    struct weights_packed k;
    if (weights_packed_parse("fuzz", p, n, 1 << 20, &k)) return;
    for (size_t i = 0; i < k.n_extents; i++)
        if (k.extents[i].block >= k.n_blocks) abort();
    weights_packed_done(&k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    uint8_t *copy = malloc(size);
    if (!copy) return 0;
    memcpy(copy, data, size);
    if (data[size - 1] & 1) packed(copy, size - 1);
    else manifest(copy, size - 1);
    free(copy);
    return 0;
}

/* Sets of stored models: their blocks lie in packed files of the store, are written there once and checked by CRC32C at every read.
 *
 *     not packed yet: weights_set_pack_into, weights_set_add ..., weights_set_seal, weights_set_describe, weights_packer_commit
 *     packed:         weights_packed_open, weights_set_adopt, weights_set_seal; nothing else is read
 *
 * Only for sets with a spill directory. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "weights/packed.h"
#include "weights/weights.h"

/* Blocks that are filled from now on go to the packer (borrowed); NULL: to the spill file. */
void weights_set_pack_into(struct weights_set *s, struct weights_packer *w);
/* While FILLING: adds what a packed file holds, without reading it; what the set has already is not added again. ret_extents: the set's number for each
 * extent of `k`; new ones are numbered in that order. The checksums are taken out of `k`. */
err weights_set_adopt(struct weights_set *s, struct weights_packed *k, int *ret_extents);
/* What a sealed set holds for `n` places (its extents, in the order in which they are asked for), for weights_packer_commit; formats, hashes and stamp are
 * the caller's to add; weights_packed_done frees. `own`: the packer's name. ret_extents: one number per extent of the set, its number in *ret or -1.
 * ERR_UNSUPPORTED if some of it lies in the spill file. */
err weights_set_describe(const struct weights_set *s, const char *own, const int *places, size_t n, struct weights_packed *ret, int *ret_extents);

/* CRC32C (Castagnoli; RFC 3720): finds altered bytes at the speed of memory. Not an identity: that is BLAKE2b in `weights`.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* crc: 0, or what an earlier part of the same bytes gave. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);
/* The same by table alone, as on a processor without the instruction. */
uint32_t crc32c_plain(uint32_t crc, const void *p, size_t n);

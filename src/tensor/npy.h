/* .npy files (NumPy's format, versions 1 and 2): a magic, a header that is a Python dictionary literal, the bytes.
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Little-endian, C order only.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "tensor/tensor.h"

/* Reads a header; *ret_offset is where the bytes of the tensor begin. The tensor's bytes are inside n (checked), ret->data points to them.
 * ERR_FORMAT, ERR_UNSUPPORTED (Fortran order, big-endian, other types), ERR_LIMIT. */
err npy_parse(const char *name, const void *bytes, size_t n, struct tensor *ret);
/* Maps or reads a file into *ret_owned (free() it); at most `max_bytes`. */
err npy_load(const char *path, size_t max_bytes, struct tensor *ret, void **ret_owned);
/* Writes a row-major tensor; the file appears whole or not at all (temporary name, fsync, rename). */
err npy_save(const char *path, const struct tensor *t);

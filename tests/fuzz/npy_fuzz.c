/* Fuzzes the reader of .npy: a parsed view must lie inside the bytes. SPDX-License-Identifier: Apache-2.0 */
#include "tensor/npy.h"

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n);

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n)
{
    struct tensor t;
    if (npy_parse("fuzz.npy", bytes, n, &t) == ERR_OK) {
        size_t size = (size_t)tensor_count(&t.shape) * tensor_dtype_size(t.dtype);
        const unsigned char *p = t.data;
        unsigned sum = 0;
        for (size_t i = 0; i < size; i++) sum += p[i];
        return sum == 0xffffffff; /* so that the reads stay */
    }
    return 0;
}

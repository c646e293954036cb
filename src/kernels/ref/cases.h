/* Reads tests/data/op_cases.bin (its format is in tests/tools/make_op_cases.py). For tests only.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "op/op.h"

enum { CASE_MAX = 16 };

struct op_case {
    struct op_node node; /* its strings and lists belong to the reader */
    char label[64];
    float tolerance;
    int n_in, n_out;
    struct tensor in[CASE_MAX], want[CASE_MAX]; /* row-major views into the file */
};

struct case_reader {
    unsigned char *data;
    size_t size, at;
    uint32_t count;
    struct tensor *seen; /* tensors in the order in which they appear in full */
    size_t n_seen, cap_seen;
    void **owned;
    size_t n_owned, cap_owned;
};
/* Aborts on a malformed file: it is the project's own. False if there is none. */
bool case_open(struct case_reader *r, const char *path);
bool case_next(struct case_reader *r, struct op_case *ret);
void case_close(struct case_reader *r);

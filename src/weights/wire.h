/* Inside the weights room: numbers and names of manifests and packed indexes, read with every bound checked, and written.
 *
 * A `weights_in` stops at its first error: after it every number is 0 and every name "", so a reader checks once, at the end. All integers are
 * little-endian. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "weights/store_inside.h"

struct weights_in {
    const char *where, *advice; /* the file, and what to do about it if it is damaged */
    const unsigned char *p, *end;
    err e;
};
/* "WHERE: damaged (WHAT); ADVICE", unless there is an error already; returns the first one. */
err weights_in_fail(struct weights_in *in, const char *what);
uint64_t weights_in_number(struct weights_in *in, int bytes);
/* u32: of things that take at least `least` bytes each. */
size_t weights_in_count(struct weights_in *in, size_t most, size_t least);
/* u32 length, bytes without control characters; malloced. */
char *weights_in_string(struct weights_in *in, size_t most);
void weights_in_id(struct weights_in *in, struct weights_id *ret);

void weights_out_number(struct strbuf *b, uint64_t v, int bytes);
/* Cut at `most` bytes; control characters become '?', for no reader takes them. */
void weights_out_string(struct strbuf *b, const char *s, size_t most);
void weights_out_id(struct strbuf *b, const struct weights_id *id);

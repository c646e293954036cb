/* Protobuf's wire format, read in place: https://protobuf.dev/programming-guides/encoding/
 *
 * A message is a list of fields (number, wire type, value). Nothing is copied: a field of bytes points into the
 * message. Reading is a loop of graph_wire_next(); whoever loops switches on the number and lets unknown ones pass.
 *
 * Every length is checked against the message around it, so no field reaches past the file, and a reader that only
 * descends through graph_wire_sub() needs no check of its own. Groups (deprecated since 2010, and unbounded in
 * depth) are refused. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

enum graph_wire_type { GRAPH_WIRE_VARINT = 0, GRAPH_WIRE_FIXED64 = 1, GRAPH_WIRE_BYTES = 2, GRAPH_WIRE_FIXED32 = 5 };

struct graph_wire {
    const char *name;    /* of the file, for messages */
    const uint8_t *base; /* of the file, for byte offsets in messages */
    const uint8_t *at, *end;
};
struct graph_field {
    uint32_t number;
    enum graph_wire_type type;
    uint64_t u;       /* VARINT, FIXED32, FIXED64: the bits */
    const uint8_t *p; /* BYTES */
    size_t n;
    const uint8_t *start; /* of the field's tag, for messages */
};

/* 1 and the next field, 0 at the end of the message, or ERR_FORMAT. */
int graph_wire_next(struct graph_wire *w, struct graph_field *ret);
/* ERR_FORMAT unless the field has this wire type. */
err graph_wire_want(const struct graph_wire *w, const struct graph_field *f, enum graph_wire_type type);
/* The message inside a field of bytes. */
err graph_wire_sub(const struct graph_wire *w, const struct graph_field *f, struct graph_wire *ret);
/* Numbers of a repeated field, packed or not: calls with the same field until it returns 0. *pos starts as NULL.
 * `type` is that of one number. 1 and the bits, 0 at the end, or ERR_FORMAT. */
int graph_wire_number(const struct graph_wire *w, const struct graph_field *f, enum graph_wire_type type,
                      const uint8_t **pos, uint64_t *ret);
/* "FILE: byte N: SENTENCE". */
err graph_wire_fail(const struct graph_wire *w, err code, const uint8_t *where, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The small things that C does not give us: checked small allocations, strings, arrays, clock, hash.
 *
 * Small bookkeeping (structs, names, lists) aborts with a clear line when the machine has no memory left: those
 * paths are never tested in real programs and never right. Everything that grows with the input's size in
 * earnest (tensors, weights, frames, queues) is allocated through `mem` instead and may fail.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)    ((a) < (b) ? (a) : (b))
#define MAX(a, b)    ((a) > (b) ? (a) : (b))

/* Zeroed memory or abort. Free with free(). */
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Is something there that is no regular file (a device, a pipe)? What is written goes into it, then: a rename would put a file in its place. */
bool path_is_special(const char *path);
#define xnew(T)     ((T *)xcalloc(1, sizeof(T)))
#define xnewn(T, n) ((T *)xcalloc((n), sizeof(T)))

/* Makes room for one more element in a growing array: vec_grow(&v->items, &v->cap, v->len). Doubles. */
void vec_grow_(void **items, size_t *cap, size_t len, size_t item_size);
#define vec_grow(items, cap, len) vec_grow_((void **)(items), (cap), (len), sizeof **(items))

/* A growing string. Zero-initialised is empty and valid; `s` is always terminated once anything was added. */
struct strbuf {
    char *s;
    size_t len, cap;
};
void strbuf_add(struct strbuf *b, const char *s);
void strbuf_addn(struct strbuf *b, const char *s, size_t n);
void strbuf_addf(struct strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Gives the string to the caller (never NULL; free()) and empties the buffer. */
char *strbuf_take(struct strbuf *b);
void strbuf_done(struct strbuf *b);

bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);

/* Nanoseconds of CLOCK_MONOTONIC; seconds since 1970 of CLOCK_REALTIME. */
int64_t clock_ns(void);
double clock_wall(void);

/* FNV-1a up to 127 bytes, then faster; 64 bits: for hash tables and deterministic seeds, not for identity (that is BLAKE2b in `weights`). */
uint64_t hash64(const void *p, size_t n, uint64_t seed);

/* "300M", "1.5G", "64K", "4096" in bytes (K, M, G of 1024; an optional final B or iB is accepted).
 * False if it is none of these, negative, or over 2^62. */
bool size_parse(const char *s, uint64_t *ret);
/* "1.5 MiB" into buf (at least 16 bytes); returns buf. */
const char *size_text(uint64_t bytes, char buf[16]);

/* Small things: see base.h. Nothing here knows what brim is. SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static void *or_abort(void *p, size_t size)
{
    if (!p) {
        fprintf(stderr, "brim: the system has no memory left for %zu bytes of bookkeeping; stopping\n", size);
        abort();
    }
    return p;
}

void *xcalloc(size_t count, size_t size)
{
    return or_abort(calloc(count ? count : 1, size ? size : 1), count * size);
}

void *xrealloc(void *p, size_t size)
{
    return or_abort(realloc(p, size ? size : 1), size);
}

char *xstrdup(const char *s)
{
    return or_abort(strdup(s), strlen(s));
}

char *xstrndup(const char *s, size_t n)
{
    return or_abort(strndup(s, n), n);
}

char *xasprintf(const char *fmt, ...)
{
    va_list ap;
    char *s = NULL;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    return or_abort(n < 0 ? NULL : s, 0);
}

void vec_grow_(void **items, size_t *cap, size_t len, size_t item_size)
{
    if (len < *cap) return;
    *cap = *cap ? *cap * 2 : 8;
    *items = xrealloc(*items, *cap * item_size);
}

void strbuf_addn(struct strbuf *b, const char *s, size_t n)
{
    if (b->len + n + 1 > b->cap) {
        b->cap = MAX(b->cap * 2, b->len + n + 64);
        b->s = xrealloc(b->s, b->cap);
    }
    memcpy(b->s + b->len, s, n);
    b->len += n;
    b->s[b->len] = 0;
}

void strbuf_add(struct strbuf *b, const char *s)
{
    strbuf_addn(b, s, strlen(s));
}

void strbuf_addf(struct strbuf *b, const char *fmt, ...)
{
    char small[256];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < 0) return;
    if ((size_t)n < sizeof small) {
        strbuf_addn(b, small, (size_t)n);
        return;
    }
    char *large = xcalloc((size_t)n + 1, 1);
    va_start(ap, fmt);
    vsnprintf(large, (size_t)n + 1, fmt, ap);
    va_end(ap);
    strbuf_addn(b, large, (size_t)n);
    free(large);
}

char *strbuf_take(struct strbuf *b)
{
    char *s = b->s ? b->s : xstrdup("");
    *b = (struct strbuf){0};
    return s;
}

void strbuf_done(struct strbuf *b)
{
    free(b->s);
    *b = (struct strbuf){0};
}

bool str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

int64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

double clock_wall(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* 32 bytes at a time in four chains, each step a multiplication and a rotation (the rounds of XXH64): weights are hashed when a model is loaded. */
static uint64_t hash_long(const unsigned char *s, size_t n, uint64_t seed)
{
    const uint64_t a = 0x9e3779b185ebca87u, b = 0xc2b2ae3d27d4eb4fu, c = 0x85ebca77c2b2ae63u;
    uint64_t v[4] = {seed + a + b, seed + b, seed, seed - a}, w[4];
    for (size_t i = 0; i + 32 <= n; i += 32) {
        memcpy(w, s + i, sizeof w);
        for (int k = 0; k < 4; k++) {
            v[k] += w[k] * b;
            v[k] = (v[k] << 31 | v[k] >> 33) * a;
        }
    }
    uint64_t h = n;
    for (int k = 0; k < 4; k++) h = (h ^ ((v[k] * b) << 31 | (v[k] * b) >> 33) * a) * a + c;
    h = (h ^ h >> 33) * b;
    return h ^ h >> 29;
}

/* Short ones byte by byte (FNV-1a). */
uint64_t hash64(const void *p, size_t n, uint64_t seed)
{
    const unsigned char *s = p;
    uint64_t h = 0xcbf29ce484222325u ^ seed;
    size_t i = 0;
    if (n >= 128) {
        h ^= hash_long(s, n, seed);
        i = n / 32 * 32;
    }
    for (; i < n; i++) h = (h ^ s[i]) * 0x100000001b3u;
    return h;
}

bool size_parse(const char *s, uint64_t *ret)
{
    char *end;
    if (!s || !isdigit((unsigned char)s[0])) return false;
    for (const char *p = s; *p; p++) /* no hexadecimal, exponents, inf or nan */
        if (!isdigit((unsigned char)*p) && *p != '.' && !strchr("KMGTBikmgtb", *p)) return false;
    double v = strtod(s, &end);
    uint64_t unit = 1;
    switch (toupper((unsigned char)*end)) {
    case 'K': unit = 1u << 10, end++; break;
    case 'M': unit = 1u << 20, end++; break;
    case 'G': unit = 1u << 30, end++; break;
    case 'T': unit = (uint64_t)1 << 40, end++; break;
    }
    if (unit > 1 && end[0] == 'i') end++;
    if (toupper((unsigned char)end[0]) == 'B') end++;
    if (*end || v * (double)unit > 4.6e18) return false;
    *ret = (uint64_t)(v * (double)unit);
    return true;
}

const char *size_text(uint64_t bytes, char buf[16])
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1024 && u < 4) v /= 1024, u++;
    snprintf(buf, 16, u ? "%.1f %s" : "%.0f %s", v, unit[u]);
    return buf;
}

bool path_is_special(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

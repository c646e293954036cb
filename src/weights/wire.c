/* See wire.h. Invariant: p <= end; nothing behind `end` is read. SPDX-License-Identifier: Apache-2.0 */
#include "weights/wire.h"

#include <string.h>

err weights_in_fail(struct weights_in *in, const char *what)
{
    if (!in->e) in->e = err_set(ERR_CORRUPT, "%s: damaged (%s); %s", in->where, what, in->advice);
    return in->e;
}

/* The next n bytes; NULL: there are none. */
static const unsigned char *take(struct weights_in *in, size_t n)
{
    const unsigned char *p = in->p;
    if (in->e || (size_t)(in->end - p) < n) {
        weights_in_fail(in, "it ends too early");
        return NULL;
    }
    in->p += n;
    return p;
}

uint64_t weights_in_number(struct weights_in *in, int bytes)
{
    const unsigned char *p = take(in, (size_t)bytes);
    return p ? weights_get(p, bytes) : 0;
}

size_t weights_in_count(struct weights_in *in, size_t most, size_t least)
{
    uint64_t n = weights_in_number(in, 4);
    if (!in->e && (n > most || n > (uint64_t)(in->end - in->p) / least)) weights_in_fail(in, "a count that cannot be");
    return in->e ? 0 : (size_t)n;
}

char *weights_in_string(struct weights_in *in, size_t most)
{
    size_t n = weights_in_count(in, most, 1);
    const unsigned char *p = take(in, n);
    for (size_t i = 0; i < n && !in->e; i++)
        if (p[i] < 32 || p[i] == 127) weights_in_fail(in, "a name with control characters");
    return in->e ? xstrdup("") : xstrndup((const char *)p, n);
}

void weights_in_id(struct weights_in *in, struct weights_id *ret)
{
    const unsigned char *p = take(in, sizeof ret->b);
    if (p) memcpy(ret->b, p, sizeof ret->b);
}

void weights_out_number(struct strbuf *b, uint64_t v, int bytes)
{
    unsigned char p[8];
    weights_put(p, v, bytes);
    strbuf_addn(b, (const char *)p, (size_t)bytes);
}

void weights_out_string(struct strbuf *b, const char *s, size_t most)
{
    size_t n = MIN(strlen(s), most);
    weights_out_number(b, n, 4);
    for (size_t i = 0; i < n; i++) {
        char c = (unsigned char)s[i] < 32 || s[i] == 127 ? '?' : s[i];
        strbuf_addn(b, &c, 1);
    }
}

void weights_out_id(struct strbuf *b, const struct weights_id *id)
{
    strbuf_addn(b, (const char *)id->b, sizeof id->b);
}

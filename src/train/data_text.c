/* A text as tokens: bytes (F.txt), or numbers of two or four bytes, little-endian (F.u16, F.u32), as a tokeniser leaves them. A sample is a window of so many tokens
 * and the one after it; windows do not overlap. Nothing but the place is kept; windows are read when they are wanted. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_sample.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_TOKEN = 1 << 24 };

static int64_t token(const uint8_t *p, int64_t bytes)
{
    int64_t v = 0;
    for (int64_t i = bytes; i-- > 0;) v = v << 8 | p[i];
    return v;
}

/* The largest token, by a pass over the file. */
static err largest(int fd, const char *path, int64_t size, int64_t bytes, int64_t *ret)
{
    enum { BLOCK = 1 << 16 };
    uint8_t *buf = xnewn(uint8_t, BLOCK);
    int64_t most = 0;
    err e = ERR_OK;
    for (int64_t at = 0; at < size && !e; at += BLOCK) {
        int64_t n = MIN(BLOCK, size - at);
        if (pread(fd, buf, (size_t)n, at) != n) e = err_set(ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
        for (int64_t i = 0; i < n && !e; i += bytes) most = MAX(most, token(buf + i, bytes));
        if (!e && most >= MOST_TOKEN) e = err_set(ERR_LIMIT, "%s: token %lld; up to %d are read", path, (long long)most, MOST_TOKEN - 1);
    }
    free(buf);
    *ret = most;
    return e;
}

err data_read_text(struct train_set *s, const char *path, int length)
{
    int64_t bytes = str_ends(path, ".u16") ? 2 : str_ends(path, ".u32") ? 4 : 1, most = 255;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_set(ERR_NOT_FOUND, "%s: %s", path, strerror(errno));
    int64_t size = lseek(fd, 0, SEEK_END), tokens = size / bytes;
    vec_grow(&s->records, &s->cap_records, s->n_records);
    s->records[s->n_records++] = (struct data_record){.fd = fd, .path = xstrdup(path), .bytes = bytes, .w = length};
    if (length < 1) return err_set(ERR_USAGE, "%s: how long are its windows? A text is for --task text", path);
    if (size % bytes) return err_set(ERR_FORMAT, "%s: %lld bytes are no whole number of tokens of %lld bytes", path, (long long)size, (long long)bytes);
    if (tokens <= length) return err_set(ERR_FORMAT, "%s: %lld tokens; a window of %d and the one after it are needed", path, (long long)tokens, length);
    err e = bytes == 1 ? ERR_OK : largest(fd, path, size, bytes, &most);
    s->vocabulary = (int)most + 1;
    for (int64_t i = 0; !e && (i + 1) * length < tokens; i++) {
        struct data_sample d = {.at = i, .label = -1};
        if (i >= DATA_MAX_SAMPLES) return err_set(ERR_LIMIT, "%s: more than %d windows", path, DATA_MAX_SAMPLES);
        e = data_append(s, &s->samples, sizeof d, &d, 1);
    }
    return e;
}

err data_tokens(const struct train_set *s, int64_t sample, int64_t *to)
{
    const struct data_record *r = &s->records[0];
    size_t n = ((size_t)r->w + 1) * (size_t)r->bytes;
    uint8_t *raw = (uint8_t *)(to + r->w + 1) - n; /* at the end of the room, so that it can be widened in place from the front */
    if (pread(r->fd, raw, n, data_samples(s)[sample].at * r->w * r->bytes) != (ssize_t)n)
        return err_set(ERR_IO, "%s#%lld: cannot be read: it is shorter than it was", r->path, (long long)sample);
    for (int i = 0; i <= r->w; i++) {
        int64_t v = token(raw + (size_t)i * (size_t)r->bytes, r->bytes);
        to[i] = v;
    }
    return ERR_OK;
}

/* The comment of an event's picture, written and read. What is read is foreign: a line that is not as it should be is left out. SPDX-License-Identifier: Apache-2.0 */
#include "rows/picture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char head[] = "brim 1\n";

char *rows_picture_folder(const char *database)
{
    return xasprintf("%s.pictures", database);
}

char *rows_picture_path(const char *folder, const uint8_t uid[ROWS_UID])
{
    char hex[2 * ROWS_UID + 1];
    for (int i = 0; i < ROWS_UID; i++) snprintf(hex + 2 * i, 3, "%02x", uid[i]);
    return xasprintf("%s/%s.jpg", folder, hex);
}

bool rows_picture_named(const char *name)
{
    return strspn(name, "0123456789abcdef") == 2 * ROWS_UID && !strcmp(name + 2 * ROWS_UID, ".jpg");
}

size_t rows_picture_comment(const struct rows_seen *seen, int n, uint8_t buf[ROWS_PICTURE_COMMENT])
{
    size_t at = 4;
    memcpy(buf + at, head, sizeof head - 1);
    at += sizeof head - 1;
    for (int i = 0; i < n; i++) {
        char line[160];
        const struct rows_seen *s = &seen[i];
        int len = snprintf(line, sizeof line, "%.5f %.5f %.5f %.5f %.4f %s\n", (double)s->box[0], (double)s->box[1], (double)s->box[2], (double)s->box[3], (double)s->score, s->label);
        if (len < 0 || (size_t)len >= sizeof line || at + (size_t)len > ROWS_PICTURE_COMMENT) continue;
        memcpy(buf + at, line, (size_t)len);
        at += (size_t)len;
    }
    size_t length = at - 2; /* the marker does not count, the two bytes of the length do */
    memcpy(buf, (uint8_t[]){0xff, 0xfe, (uint8_t)(length >> 8), (uint8_t)length}, 4);
    return at;
}

static bool read_line(const char *line, struct rows_seen *ret)
{
    int used = 0;
    struct rows_seen s = {0};
    if (sscanf(line, "%f %f %f %f %f %n", &s.box[0], &s.box[1], &s.box[2], &s.box[3], &s.score, &used) != 5 || !used) return false;
    size_t n = strlen(line + used);
    for (int i = 0; i < 4; i++)
        if (!(s.box[i] >= 0 && s.box[i] <= 1)) return false;
    if (!(s.box[2] > s.box[0] && s.box[3] > s.box[1] && s.score >= 0 && s.score <= 1) || !n || n >= sizeof s.label) return false;
    memcpy(s.label, line + used, n);
    *ret = s;
    return true;
}

int rows_picture_seen(const uint8_t *jpeg, size_t n, struct rows_seen ret[ROWS_PICTURE_SEEN])
{
    size_t begin = 6, skip = sizeof head - 1;
    if (n < begin || memcmp(jpeg, (uint8_t[]){0xff, 0xd8, 0xff, 0xfe}, 4)) return -1;
    size_t end = 4 + ((size_t)jpeg[4] << 8 | jpeg[5]);
    if (end > n || end < begin + skip || memcmp(jpeg + begin, head, skip)) return -1;
    int count = 0;
    for (size_t at = begin + skip; at < end && count < ROWS_PICTURE_SEEN;) {
        char line[160];
        const uint8_t *stop = memchr(jpeg + at, '\n', end - at);
        size_t len = (stop ? (size_t)(stop - jpeg) : end) - at;
        if (len < sizeof line && !memchr(jpeg + at, 0, len)) {
            memcpy(line, jpeg + at, len);
            line[len] = 0;
            count += read_line(line, &ret[count]);
        }
        at += len + 1;
    }
    return count;
}

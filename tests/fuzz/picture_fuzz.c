/* Fuzz target: any bytes as the picture of an event: what it says was seen makes sense, and is the same when it is written and read again.
 * SPDX-License-Identifier: Apache-2.0 */
#include "rows/picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t copy[2 + ROWS_PICTURE_COMMENT];
    struct rows_seen seen[ROWS_PICTURE_SEEN], again[ROWS_PICTURE_SEEN];
    int n = rows_picture_seen(data, size, seen);
    for (int i = 0; i < n; i++) {
        const struct rows_seen *s = &seen[i];
        if (!(s->box[0] >= 0 && s->box[2] > s->box[0] && s->box[2] <= 1 && s->box[1] >= 0 && s->box[3] > s->box[1] && s->box[3] <= 1 && s->score >= 0 && s->score <= 1)) abort();
        if (!s->label[0] || strlen(s->label) >= sizeof s->label || strchr(s->label, '\n')) abort();
    }
    if (n < 0) return 0;
    memcpy(copy, "\xff\xd8", 2);
    size_t length = 2 + rows_picture_comment(seen, n, copy + 2);
    int m = rows_picture_seen(copy, length, again), k = 0;
    for (int i = 0; i < m; i++) { /* five digits are kept: a box that is thinner than that is none any more */
        while (k < n && (strcmp(seen[k].label, again[i].label) || fabsf(seen[k].box[0] - again[i].box[0]) > 2e-5f || fabsf(seen[k].box[3] - again[i].box[3]) > 2e-5f)) k++;
        if (k++ >= n) abort();
    }
    return 0;
}

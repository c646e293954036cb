/* Pictures of events: files in a folder beside the database, DATABASE.pictures/UID.jpg, where UID is the event's as 32 hexadecimal digits.
 *
 * Each is a JPEG of the whole frame, maybe made smaller. Its first comment (JPEG, ITU-T T.81, section B.2.4.5) says what was seen in it, since an event tells
 * of one object and the frame may show more:
 *     brim 1
 *     X1 Y1 X2 Y2 SCORE LABEL          edges of 0 to 1 of the picture's sides; a line per object
 * Whoever does not know that sees a JPEG. Several events of one frame are several names of one file. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "rows/rows.h"

enum { ROWS_PICTURE_SEEN = 256, ROWS_PICTURE_COMMENT = 32768 };

struct rows_seen {
    float box[4], score;
    char label[32];
};
/* malloced */
char *rows_picture_folder(const char *database);
char *rows_picture_path(const char *folder, const uint8_t uid[ROWS_UID]);
/* Is it the name of such a picture? */
bool rows_picture_named(const char *name);
/* The comment's segment, to be put behind the first two bytes of a JPEG; what does not fit into `buf` is left out. Returns its bytes. */
size_t rows_picture_comment(const struct rows_seen *seen, int n, uint8_t buf[ROWS_PICTURE_COMMENT]);
/* What a JPEG says of itself: how many objects (those that make sense, ROWS_PICTURE_SEEN at most), -1: nothing. */
int rows_picture_seen(const uint8_t *jpeg, size_t n, struct rows_seen ret[ROWS_PICTURE_SEEN]);

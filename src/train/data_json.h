/* Inside train/data: JSON read as it streams by. A file of labels can be larger than memory, so nothing of it is kept but what the caller takes:
 *
 *     json_begin(j, '{');  while (json_more(j, '}')) { json_key(j); if (!strcmp(j->text, "id")) id = json_number(j); else json_skip(j); }
 *
 * The first error stays in j->e and ends every loop. Depth, strings and numbers are bounded. NaN and Infinity (which Python writes) are numbers.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdio.h>

#include "base/base.h"
#include "base/err.h"

enum { JSON_MAX_TEXT = 4096, JSON_MAX_DEPTH = 64 };

struct json {
    FILE *f;
    const char *name;
    int64_t line;
    err e;
    int depth;
    bool first[JSON_MAX_DEPTH + 1]; /* nothing has been read yet in the object or array of this depth */
    char text[JSON_MAX_TEXT];       /* of the last key or string */
    size_t length;
};

void json_init(struct json *j, FILE *f, const char *name);
err json_fail(struct json *j, const char *what); /* returns j->e: the first error */
char json_peek(struct json *j);                  /* first character of the next value; 0 at the end */
void json_begin(struct json *j, char open);      /* '{' or '[' */
bool json_more(struct json *j, char close);      /* is there another member? Takes the comma, or the end */
void json_key(struct json *j);
void json_string(struct json *j);
double json_number(struct json *j);
bool json_flag(struct json *j); /* true, false, 0 or 1 */
void json_skip(struct json *j);
void json_end(struct json *j); /* nothing but blanks may follow */

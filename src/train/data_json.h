/* Inside train/data: JSON read as it streams by. A file of labels can be larger than memory, so nothing of it is kept but what the caller takes:
 *
 *     train_json_begin(j, '{');  while (train_json_more(j, '}')) { train_json_key(j); if (!strcmp(j->text, "id")) id = train_json_number(j); else train_json_skip(j); }
 *
 * The first error stays in j->e and ends every loop. Depth, strings and numbers are bounded. NaN and Infinity (which Python writes) are numbers.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdio.h>

#include "base/base.h"
#include "base/err.h"

enum { JSON_MAX_TEXT = 4096, JSON_MAX_DEPTH = 64 };

struct train_json {
    FILE *f;
    const char *name;
    int64_t line;
    err e;
    int depth;
    bool first[JSON_MAX_DEPTH + 1]; /* nothing has been read yet in the object or array of this depth */
    char text[JSON_MAX_TEXT];       /* of the last key or string */
    size_t length;
};

void train_json_init(struct train_json *j, FILE *f, const char *name);
err train_json_fail(struct train_json *j, const char *what); /* returns j->e: the first error */
char train_json_peek(struct train_json *j);                  /* first character of the next value; 0 at the end */
void train_json_begin(struct train_json *j, char open);      /* '{' or '[' */
bool train_json_more(struct train_json *j, char close);      /* is there another member? Takes the comma, or the end */
void train_json_key(struct train_json *j);
void train_json_string(struct train_json *j);
double train_json_number(struct train_json *j);
bool train_json_flag(struct train_json *j); /* true, false, 0 or 1 */
void train_json_skip(struct train_json *j);
void train_json_end(struct train_json *j); /* nothing but blanks may follow */

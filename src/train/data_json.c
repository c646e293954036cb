/* JSON as a stream of characters with one of look-ahead (RFC 8259). SPDX-License-Identifier: Apache-2.0 */
#include "train/data_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void train_json_init(struct train_json *j, FILE *f, const char *name)
{
    memset(j, 0, sizeof *j);
    j->f = f;
    j->name = name;
    j->line = 1;
}

err train_json_fail(struct train_json *j, const char *what)
{
    if (!j->e) j->e = err_set(ERR_FORMAT, "%s:%lld: %s", j->name, (long long)j->line, what);
    return j->e;
}

static int take(struct train_json *j)
{
    int c = getc_unlocked(j->f);
    if (c == '\n') j->line++;
    return c;
}

static void give_back(struct train_json *j, int c)
{
    if (c == EOF) return;
    if (c == '\n') j->line--;
    ungetc(c, j->f);
}

static int next(struct train_json *j)
{
    int c;
    do c = take(j);
    while (c == ' ' || c == '\t' || c == '\r' || c == '\n');
    return c;
}

char train_json_peek(struct train_json *j)
{
    if (j->e) return 0;
    int c = next(j);
    give_back(j, c);
    return c == EOF ? 0 : (char)c;
}

void train_json_begin(struct train_json *j, char open)
{
    if (j->e) return;
    if (next(j) != open) train_json_fail(j, open == '{' ? "expected an object" : "expected a list");
    else if (j->depth >= JSON_MAX_DEPTH) train_json_fail(j, "nested deeper than 64");
    else j->first[++j->depth] = true;
}

bool train_json_more(struct train_json *j, char close)
{
    if (j->e) return false;
    int c = next(j);
    if (c == close) {
        j->depth--;
        return false;
    }
    bool first = j->first[j->depth];
    j->first[j->depth] = false;
    if (first) give_back(j, c);
    else if (c != ',') train_json_fail(j, c == EOF ? "the file is cut off" : close == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
    if (c == EOF) train_json_fail(j, "the file is cut off");
    return !j->e;
}

static int hex4(struct train_json *j)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int c = take(j), d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (d < 0) return train_json_fail(j, "expected four hexadecimal digits after \\u"), 0;
        v = v * 16 + d;
    }
    return v;
}

static void put(struct train_json *j, int c)
{
    if (j->length + 1 >= JSON_MAX_TEXT) train_json_fail(j, "a string of more than 4,095 bytes");
    else j->text[j->length++] = (char)c;
}

static void put_code(struct train_json *j, int u)
{
    if (u >= 0xd800 && u < 0xdc00) { /* half of a pair */
        int low = take(j) == '\\' && take(j) == 'u' ? hex4(j) : 0;
        if (low < 0xdc00 || low > 0xdfff) {
            train_json_fail(j, "half of a surrogate pair");
            return;
        }
        u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
    }
    if (u == 0 || (u >= 0xdc00 && u <= 0xdfff)) train_json_fail(j, "a string with \\u0000 or half of a surrogate pair");
    else if (u < 0x80) put(j, u);
    else if (u < 0x800) put(j, 0xc0 | u >> 6), put(j, 0x80 | (u & 63));
    else if (u < 0x10000) put(j, 0xe0 | u >> 12), put(j, 0x80 | (u >> 6 & 63)), put(j, 0x80 | (u & 63));
    else put(j, 0xf0 | u >> 18), put(j, 0x80 | (u >> 12 & 63)), put(j, 0x80 | (u >> 6 & 63)), put(j, 0x80 | (u & 63));
}

void train_json_string(struct train_json *j)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (j->e) return;
    j->length = 0;
    if (next(j) != '"') train_json_fail(j, "expected a string");
    while (!j->e) {
        int c = take(j);
        if (c == '"') break;
        if (c == EOF || c < 32) {
            train_json_fail(j, c == EOF ? "the file is cut off in a string" : "a control character in a string");
        } else if (c != '\\') {
            put(j, c);
        } else {
            c = take(j);
            const char *p = c > 0 ? strchr(from, c) : NULL;
            if (c == 'u') put_code(j, hex4(j));
            else if (p) put(j, to[p - from]);
            else train_json_fail(j, "an unknown escape in a string");
        }
    }
    j->text[j->length] = 0;
}

void train_json_key(struct train_json *j)
{
    train_json_string(j);
    if (!j->e && next(j) != ':') train_json_fail(j, "expected ':'");
}

/* A word of letters, digits and signs into buf of 64. */
static void word(struct train_json *j, char buf[64])
{
    size_t n = 0;
    int c = next(j);
    while (c != EOF && strchr("+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", c) && c && n < 63) {
        buf[n++] = (char)c;
        c = take(j);
    }
    buf[n] = 0;
    give_back(j, c);
}

double train_json_number(struct train_json *j)
{
    char buf[64], *end = buf;
    if (j->e) return 0;
    word(j, buf);
    if (!strcmp(buf, "NaN") || !strcmp(buf, "null")) return NAN;
    if (!strcmp(buf, "Infinity") || !strcmp(buf, "-Infinity")) return INFINITY;
    double v = buf[strspn(buf, "+-.0123456789eE")] ? 0 : strtod(buf, &end);
    if (end == buf || *end) train_json_fail(j, "expected a number");
    return v;
}

bool train_json_flag(struct train_json *j)
{
    char buf[64];
    if (j->e) return false;
    word(j, buf);
    if (!strcmp(buf, "true") || !strcmp(buf, "1")) return true;
    if (strcmp(buf, "false") && strcmp(buf, "0") && strcmp(buf, "null")) train_json_fail(j, "expected true, false, 0 or 1");
    return false;
}

/* A string of any length, without keeping it. */
static void skip_string(struct train_json *j)
{
    next(j);
    for (int c; !j->e && (c = take(j)) != '"';) {
        if (c == '\\') c = take(j);
        if (c == EOF || c < 32) train_json_fail(j, "a string that does not end");
    }
}

/* Depth is bounded by train_json_begin, so this may call itself. */
void train_json_skip(struct train_json *j)
{
    char c = train_json_peek(j), buf[64];
    if (j->e) return;
    if (c == '{') {
        train_json_begin(j, '{');
        while (train_json_more(j, '}')) {
            skip_string(j);
            if (!j->e && next(j) != ':') train_json_fail(j, "expected ':'");
            train_json_skip(j);
        }
    } else if (c == '[') {
        train_json_begin(j, '[');
        while (train_json_more(j, ']')) train_json_skip(j);
    } else if (c == '"') {
        skip_string(j);
    } else {
        word(j, buf);
        if (!buf[0]) train_json_fail(j, c ? "expected a value" : "the file is cut off");
    }
}

void train_json_end(struct train_json *j)
{
    if (!j->e && next(j) != EOF) train_json_fail(j, "something after the end of the JSON value");
}

/* Reading values out of a YAML tree: lookups, typed readers, and the sentences when they do not fit.
 *
 * A sentence names the file, the position, the path from the root ("queries.door.zones.porch[2]"), what was
 * expected and what is there. Foreign text is shown cut to 40 bytes and without control characters, so a file
 * cannot write escape codes to a terminal or fill a log. A value made from ${VARIABLES} is shown as written.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/yaml_node.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct yaml_node *yaml_root(const struct yaml *doc)
{
    return doc->root;
}

const char *yaml_name(const struct yaml *doc)
{
    return doc->name;
}

enum yaml_kind yaml_kind(const struct yaml_node *n)
{
    return n ? n->kind : YAML_NULL;
}

size_t yaml_count(const struct yaml_node *n)
{
    return n ? n->count : 0;
}

const struct yaml_node *yaml_first(const struct yaml_node *n)
{
    return n ? n->first : NULL;
}

const struct yaml_node *yaml_next(const struct yaml_node *n)
{
    return n ? n->next : NULL;
}

const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key)
{
    if (yaml_kind(map) != YAML_MAP) return NULL;
    for (const struct yaml_node *c = map->first; c; c = c->next)
        if (!strcmp(c->key, key)) return c;
    return NULL;
}

const char *yaml_key(const struct yaml_node *n)
{
    return n ? n->key : NULL;
}

const char *yaml_text(const struct yaml_node *n)
{
    return n ? n->text : NULL;
}

int yaml_line(const struct yaml_node *n)
{
    return n ? n->line : 0;
}

int yaml_column(const struct yaml_node *n)
{
    return n ? n->column : 0;
}

/* At most 40 bytes of s, whole characters only, control characters as '?'. */
static void add_shown(struct strbuf *b, const char *s)
{
    size_t n = strlen(s), cut = n > 40 ? 40 : n;
    while (cut < n && cut > 0 && ((unsigned char)s[cut] & 0xc0) == 0x80) cut--;
    for (size_t i = 0; i < cut; i++) {
        unsigned char c = (unsigned char)s[i];
        bool c1 = c == 0xc2 && ((unsigned char)s[i + 1] & 0xe0) == 0x80; /* U+0080..U+009F are controls too */
        strbuf_addn(b, c < 32 || c == 127 || c1 ? "?" : &s[i], 1);
        if (c1) i++;
    }
    if (cut < n) strbuf_add(b, "...");
}

static void add_path(struct strbuf *b, const struct yaml_node *n)
{
    if (!n->parent) return;
    add_path(b, n->parent);
    if (!n->key) {
        strbuf_addf(b, "[%zu]", n->index);
        return;
    }
    if (b->len) strbuf_add(b, ".");
    add_shown(b, n->key);
}

static err fail(const struct yaml_node *n, int line, int column, err code, const char *fmt, va_list ap)
{
    char what[512];
    vsnprintf(what, sizeof what, fmt, ap);
    struct strbuf path = {0};
    add_path(&path, n);
    if (path.len) strbuf_add(&path, ": ");
    char *p = strbuf_take(&path);
    err_set(code, "%s:%d:%d: %s%s", n->doc->name, line, column, p, what);
    free(p);
    return code;
}

err yaml_err(const struct yaml_node *n, err code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail(n, n->line, n->column, code, fmt, ap);
    va_end(ap);
    return code;
}

err yaml_err_key(const struct yaml_node *n, err code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail(n, n->key ? n->key_line : n->line, n->key ? n->key_column : n->column, code, fmt, ap);
    va_end(ap);
    return code;
}

/* "expected WANTED, found 'x'" */
static err expected(const struct yaml_node *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static err expected(const struct yaml_node *n, const char *fmt, ...)
{
    char wanted[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(wanted, sizeof wanted, fmt, ap);
    va_end(ap);
    struct strbuf found = {0};
    switch (n->kind) {
    case YAML_NULL: strbuf_add(&found, "nothing"); break;
    case YAML_LIST: strbuf_add(&found, "a list"); break;
    case YAML_MAP: strbuf_add(&found, "a map"); break;
    case YAML_SCALAR:
        strbuf_add(&found, "'");
        add_shown(&found, n->written ? n->written : n->text);
        strbuf_add(&found, "'");
        break;
    }
    err e = yaml_err(n, ERR_FORMAT, "expected %s, found %s", wanted, found.s);
    strbuf_done(&found);
    return e;
}

err yaml_str(const struct yaml_node *n, const char **ret)
{
    if (!n) return ERR_OK;
    if (n->kind != YAML_SCALAR || !n->text[0]) return expected(n, "text");
    *ret = n->text;
    return ERR_OK;
}

/* Decimal notation only: strtod alone would also take hexadecimal, inf, nan and leading blanks. */
static bool parse_number(const char *s, double *ret)
{
    if (!s || !s[0] || s[strspn(s, "0123456789+-.eE")]) return false;
    char *end;
    double v = strtod(s, &end);
    if (*end || !isfinite(v)) return false;
    *ret = v;
    return true;
}

err yaml_int(const struct yaml_node *n, int64_t min, int64_t max, int64_t *ret)
{
    if (!n) return ERR_OK;
    const char *s = n->text;
    char *end = NULL;
    errno = 0;
    long long v = s && s[0] && !s[strspn(s, "0123456789+-")] ? strtoll(s, &end, 10) : 0;
    if (!end || *end || errno || v < min || v > max) {
        if (max == INT64_MAX) return expected(n, "a whole number of at least %lld", (long long)min);
        return expected(n, "a whole number from %lld to %lld", (long long)min, (long long)max);
    }
    *ret = v;
    return ERR_OK;
}

static err expected_number(const struct yaml_node *n, double min, double max)
{
    if (max > 1e30 && min < -1e30) return expected(n, "a number");
    if (max > 1e30) return expected(n, "a number of at least %.10g", min);
    return expected(n, "a number from %.10g to %.10g", min, max);
}

err yaml_float(const struct yaml_node *n, double min, double max, double *ret)
{
    if (!n) return ERR_OK;
    double v;
    if (!parse_number(n->text, &v) || v < min || v > max) return expected_number(n, min, max);
    *ret = v;
    return ERR_OK;
}

err yaml_bool(const struct yaml_node *n, bool *ret)
{
    if (!n) return ERR_OK;
    bool t = n->text && !strcmp(n->text, "true"), f = n->text && !strcmp(n->text, "false");
    if (!t && !f) return expected(n, "true or false");
    *ret = t;
    return ERR_OK;
}

err yaml_size(const struct yaml_node *n, uint64_t min, uint64_t max, uint64_t *ret)
{
    if (!n) return ERR_OK;
    uint64_t v;
    char a[16], b[16];
    if (!n->text || !size_parse(n->text, &v)) return expected(n, "a size such as 300M, 1.5G or 64K");
    if (v < min && max > (uint64_t)1 << 60) return expected(n, "a size of at least %s", size_text(min, a));
    if (v < min || v > max) return expected(n, "a size from %s to %s", size_text(min, a), size_text(max, b));
    *ret = v;
    return ERR_OK;
}

static void duration_text(int64_t ms, char buf[32])
{
    if (ms && ms % 3600000 == 0)
        snprintf(buf, 32, "%lldh", (long long)(ms / 3600000));
    else if (ms && ms % 60000 == 0)
        snprintf(buf, 32, "%lldm", (long long)(ms / 60000));
    else if (ms && ms % 1000 == 0)
        snprintf(buf, 32, "%llds", (long long)(ms / 1000));
    else
        snprintf(buf, 32, "%lldms", (long long)ms);
}

err yaml_duration_ms(const struct yaml_node *n, int64_t min, int64_t max, int64_t *ret)
{
    if (!n) return ERR_OK;
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    const char *s = n->text ? n->text : "";
    size_t digits = strspn(s, "0123456789.");
    double v = -1, unit = 0;
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (!strcmp(s + digits, units[i].unit)) unit = units[i].ms;
    if (!strcmp(s, "0")) unit = 1;
    if (unit > 0 && digits && digits < 32) {
        char number[32];
        memcpy(number, s, digits);
        number[digits] = 0;
        if (!parse_number(number, &v)) v = -1;
    }
    if (v < 0) return expected(n, "a duration such as 500ms, 2s, 5m or 1h");
    v = v * unit + 0.5;
    if (v >= (double)max + 1 || v < (double)min) {
        char a[32], b[32];
        duration_text(min, a);
        duration_text(max, b);
        return expected(n, "a duration from %s to %s", a, b);
    }
    *ret = (int64_t)v;
    return ERR_OK;
}

err yaml_enum(const struct yaml_node *n, const char *const *words, int *ret)
{
    if (!n) return ERR_OK;
    struct strbuf all = {0};
    for (int i = 0; words[i]; i++) {
        if (n->text && !strcmp(n->text, words[i])) {
            strbuf_done(&all);
            *ret = i;
            return ERR_OK;
        }
        strbuf_addf(&all, "%s%s", !i ? "" : words[i + 1] ? ", " : " or ", words[i]);
    }
    err e = expected(n, "%s", all.s ? all.s : "nothing");
    strbuf_done(&all);
    return e;
}

err yaml_floats(const struct yaml_node *n, double min, double max, size_t at_least, size_t at_most, float *ret,
                size_t *ret_n)
{
    if (!n) return ERR_OK;
    if (n->kind != YAML_LIST || n->count < at_least || n->count > at_most) {
        char count[64];
        if (n->kind == YAML_LIST) snprintf(count, sizeof count, "; this one has %zu", n->count);
        if (at_least == at_most) {
            if (n->kind == YAML_LIST)
                return yaml_err(n, ERR_FORMAT, "expected a list of %zu numbers%s", at_least, count);
            return expected(n, "a list of %zu numbers", at_least);
        }
        if (n->kind == YAML_LIST)
            return yaml_err(n, ERR_FORMAT, "expected a list of %zu to %zu numbers%s", at_least, at_most, count);
        return expected(n, "a list of %zu to %zu numbers", at_least, at_most);
    }
    double v;
    for (const struct yaml_node *c = n->first; c; c = c->next) /* check all first: ret is untouched on failure */
        if (!parse_number(c->text, &v) || v < min || v > max || fabs(v) > 3e38) return expected_number(c, min, max);
    for (const struct yaml_node *c = n->first; c; c = c->next)
        if (parse_number(c->text, &v)) ret[c->index] = (float)v;
    if (ret_n) *ret_n = n->count;
    return ERR_OK;
}

err yaml_is_map(const struct yaml_node *n)
{
    return !n || n->kind == YAML_MAP ? ERR_OK : expected(n, "a map (lines of 'key: value')");
}

err yaml_is_list(const struct yaml_node *n)
{
    return !n || n->kind == YAML_LIST ? ERR_OK : expected(n, "a list");
}

err yaml_need(const struct yaml_node *map, const char *key, const struct yaml_node **ret)
{
    err e = yaml_is_map(map);
    if (e) return e;
    const struct yaml_node *n = yaml_get(map, key);
    if (!map) return err_set(ERR_FORMAT, "the key '%s' is missing; add it", key);
    if (!n) return yaml_err_key(map, ERR_FORMAT, "the key '%s' is missing; add it", key);
    *ret = n;
    return ERR_OK;
}

/* Distance with swaps of neighbours (optimal string alignment), for words of up to 63 bytes. */
static size_t distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    size_t n = strlen(a), m = strlen(b), row[3][LONGEST];
    if (n >= LONGEST || m >= LONGEST) return LONGEST;
    for (size_t j = 0; j <= m; j++) row[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *now = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t v = MIN(MIN(up[j], now[j - 1]) + 1, up[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) v = MIN(v, up2[j - 2] + 1);
            now[j] = v;
        }
    }
    return row[n % 3][m];
}

const char *yaml_nearest(const char *word, const char *const *words)
{
    const char *best = NULL;
    size_t best_distance =
        strlen(word) / 3 + 1; /* one mistake in three letters is a mistyping; more is another word */
    for (; *words; words++) {
        size_t d = distance(word, *words);
        if (d < best_distance + !best && d < strlen(*words)) best = *words, best_distance = d;
    }
    return best;
}

err yaml_check_keys(const struct yaml_node *map, const char *const *keys)
{
    err e = yaml_is_map(map);
    if (e) return e;
    for (const struct yaml_node *c = yaml_first(map); c; c = c->next) {
        bool known = false;
        for (size_t i = 0; keys[i] && !known; i++) known = !strcmp(keys[i], c->key);
        if (known) continue;
        const char *near = yaml_nearest(c->key, keys);
        if (near) return yaml_err_key(c, ERR_FORMAT, "unknown key; did you mean '%s'?", near);
        struct strbuf all = {0};
        for (size_t i = 0; keys[i]; i++) strbuf_addf(&all, "%s%s", i ? ", " : "", keys[i]);
        e = yaml_err_key(c, ERR_FORMAT, "unknown key; known here: %s", all.s ? all.s : "none");
        strbuf_done(&all);
        return e;
    }
    return ERR_OK;
}

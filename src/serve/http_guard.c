/* Host, Origin and numbers. The rule for Host is what ends DNS rebinding: a page of another site that made its own
 * name lead to this box still sends that name. The rule for Origin ends cross-site posts; together a browser cannot
 * be made to act for its user.
 *
 * Invariant: every loop is bounded by the text's end or a constant. SPDX-License-Identifier: Apache-2.0 */
#include "serve/http_guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
    return is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* ":PORT" or nothing. */
static bool read_port(const char *s, int *ret)
{
    int port = 0;
    if (!*s) {
        *ret = 0;
        return true;
    }
    if (*s++ != ':' || !is_digit(*s)) return false;
    for (int i = 0; is_digit(*s); i++, s++) {
        if (i == 5) return false;
        port = port * 10 + (*s - '0');
    }
    if (*s || port < 1 || port > 65535) return false;
    *ret = port;
    return true;
}

bool http_guard_host(const char *text, char ret[HTTP_GUARD_HOST], int *ret_port)
{
    char name[HTTP_GUARD_HOST];
    bool bracket = text[0] == '[';
    const char *s = text + bracket;
    size_t n = 0;
    int port;
    for (; *s && *s != ']' && (bracket || *s != ':'); s++) {
        bool good = bracket ? is_digit(*s) || (lower(*s) >= 'a' && lower(*s) <= 'f') || *s == ':' || *s == '.'
                            : is_alnum(*s) || *s == '-' || *s == '.' || *s == '_';
        if (!good || n == sizeof name - 1) return false;
        name[n++] = lower(*s);
    }
    if (bracket && *s++ != ']') return false;
    if (!bracket && n > 1 && name[n - 1] == '.') n--;
    if (!n || !read_port(s, &port)) return false;
    name[n] = 0;
    if (bracket && inet_pton(AF_INET6, name, &(struct in6_addr){0}) != 1) return false;
    memcpy(ret, name, n + 1);
    *ret_port = port;
    return true;
}

static bool is_address(const char *name)
{
    struct in6_addr a;
    return inet_pton(AF_INET, name, &a) == 1 || inet_pton(AF_INET6, name, &a) == 1;
}

bool http_guard_is_ours(const struct http_guard *g, const char *host)
{
    char name[HTTP_GUARD_HOST];
    int port;
    if (!host || !http_guard_host(host, name, &port)) return false;
    if (!strcmp(name, "127.0.0.1") || !strcmp(name, "localhost") || !strcmp(name, "::1")) return true;
    if (g->any_address ? is_address(name) : strcasecmp(name, g->listen) == 0) return true;
    for (size_t i = 0; i < g->n_names; i++)
        if (!strcasecmp(name, g->names[i])) return true;
    return false;
}

bool http_guard_same_origin(const char *origin, const char *host)
{
    if (!origin) return true;
    if (!host || strnlen(origin, HTTP_GUARD_ORIGIN) == HTTP_GUARD_ORIGIN) return false;
    if (!strncasecmp(origin, "http://", 7)) return strcasecmp(origin + 7, host) == 0;
    if (!strncasecmp(origin, "https://", 8)) return strcasecmp(origin + 8, host) == 0;
    return false;
}

bool http_guard_fetch(const char *site, const char *mode, const char *dest)
{
    if (!site || !strcasecmp(site, "same-origin") || !strcasecmp(site, "none")) return true;
    return mode && dest && !strcasecmp(mode, "navigate") && !strcasecmp(dest, "document");
}

bool http_guard_is_json(const char *type)
{
    static const char json[] = "application/json";
    if (!type || strncasecmp(type, json, sizeof json - 1) != 0) return false;
    type += sizeof json - 1;
    return !*type || *type == ';' || *type == ' ';
}

bool http_guard_int(const char *text, int64_t min, int64_t max, int64_t *ret)
{
    char *end;
    if (!is_digit(text[text[0] == '-'])) return false;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (*end || errno || n < min || n > max) return false;
    *ret = n;
    return true;
}

bool http_guard_seconds(const char *text, double *ret)
{
    size_t n = strnlen(text, 33);
    if (n > 32 || !n || strspn(text, "0123456789.") != n || !is_digit(text[0])) return false;
    char *end;
    double x = strtod(text, &end);
    if (*end || !isfinite(x) || x > 1e11) return false;
    *ret = x;
    return true;
}

bool http_guard_name(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_alnum(text[i]) && (!text[i] || !strchr("_-.", text[i]))) return false; /* strchr finds 0 too */
    return n >= 1 && n <= 64 && text[0] != '.';
}

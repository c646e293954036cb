/* Who may ask: Host, Origin and Sec-Fetch-Site of a request, and the numbers in its address. Pure functions on
 * foreign text. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HTTP_GUARD_HOST = 256, HTTP_GUARD_ORIGIN = 512 };

/* Names by which this box may be called. */
struct http_guard {
    const char *listen;       /* the address listened on, as text without brackets */
    bool any_address;         /* it is 0.0.0.0 or :: */
    const char *const *names; /* `http.hosts` of the site; without port */
    size_t n_names;
};

/* "NAME", "1.2.3.4", "[::1]", each with or without ":PORT". The name comes back lower-case, without brackets and
 * without a final dot; *ret_port is 0 if there was none. False: not a host; the outputs are untouched. */
bool http_guard_host(const char *text, char ret[HTTP_GUARD_HOST], int *ret_port);
/* Is the Host header one of ours? NULL is not. Any port goes, because a tunnel may change it; a page that wants to
 * trick a browser needs a *name* of its own that leads here, so where every address is listened on, every numeric
 * address goes as well. */
bool http_guard_is_ours(const struct http_guard *g, const char *host);
/* No Origin, or exactly http:// or https:// and the Host header's text. "null" is foreign. */
bool http_guard_same_origin(const char *origin, const char *host);
/* Sec-Fetch-Site and -Mode (NULL: an older browser, or no browser): foreign pages may link here, but not embed, frame
 * or fetch. */
bool http_guard_fetch(const char *site, const char *mode, const char *dest);
/* "application/json", with or without parameters. */
bool http_guard_is_json(const char *content_type);
/* A whole number from min to max and nothing else; a number of seconds from 0 to 1e11. Outputs are untouched on
 * failure. */
bool http_guard_int(const char *text, int64_t min, int64_t max, int64_t *ret);
bool http_guard_seconds(const char *text, double *ret);
/* A name as site files allow it: 1 to 64 letters, digits, '_', '-', '.'. */
bool http_guard_name(const char *text, size_t n);

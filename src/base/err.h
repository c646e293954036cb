/* Errors: one list of codes, and the sentence that goes with the last one.
 *
 * Every function that can fail returns `err`: 0, or a negative code. The code is for programs; the sentence
 * (what went wrong, where, what to do) is for people and lives in a per-thread buffer, as errno does, so that
 * signatures stay small and nothing has to be freed. Rooms below `engine` set the sentence and never log it;
 * whoever decides what to do about the error logs it once.
 *
 *     if (fd < 0) return err_set(ERR_IO, "%s: cannot open: %s", path, strerror(errno));
 *     err e = card_load(path, &card);
 *     if (e) return err_wrap(e, "query '%s'", name);      // "query 'door': x.yaml:3:5: ..."
 *
 * Outputs are `ret_` parameters, untouched on failure. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdarg.h>
#include <stddef.h>

typedef int err;

/* code, name on screen, does it mean that the user's input was wrong (exit status 2) rather than that the
 * work failed (exit status 1)? */
#define ERR_LIST(X)                                                                                          \
    X(ERR_NOMEM, "out of budget", 0)                                                                         \
    X(ERR_IO, "input/output error", 0)                                                                       \
    X(ERR_USAGE, "wrong usage", 1)                                                                           \
    X(ERR_FORMAT, "malformed input", 1)                                                                      \
    X(ERR_UNSUPPORTED, "unsupported", 1)                                                                     \
    X(ERR_LIMIT, "limit exceeded", 1)                                                                        \
    X(ERR_NOT_FOUND, "not found", 1)                                                                         \
    X(ERR_SHAPE, "shapes do not fit", 1)                                                                     \
    X(ERR_BUSY, "busy", 0)                                                                                   \
    X(ERR_TIMEOUT, "timed out", 0)                                                                           \
    X(ERR_CLOSED, "closed", 0)                                                                               \
    X(ERR_AGAIN, "nothing yet", 0)                                                                           \
    X(ERR_CANCELLED, "cancelled", 0)                                                                         \
    X(ERR_CORRUPT, "corrupt data", 0)                                                                        \
    X(ERR_INTERNAL, "internal error (a bug in brim)", 0)

enum {
    ERR_OK = 0,
    ERR_BASE = -1000,
#define X(code, text, input) code,
    ERR_LIST(X)
#undef X
        ERR_END
};

/* Sets this thread's sentence and returns `code`. The sentence is cut at 1,023 bytes. */
err err_set(err code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
err err_setv(err code, const char *fmt, va_list ap);

/* Puts "CONTEXT: " before the sentence and returns `code` unchanged. */
err err_wrap(err code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The sentence of the last err_set on this thread; valid until the next one. Never NULL. */
const char *err_text(void);

/* The short name of a code ("out of budget"); never NULL. */
const char *err_name(err code);

/* The exit status that goes with a code: 0, 1 (the work failed) or 2 (wrong usage or input). */
int err_exit_status(err code);

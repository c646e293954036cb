/* Errors: the sentence buffer is the one piece of per-thread state in brim; it behaves as errno does.
 * Invariant: the buffer always holds a terminated string. SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <stdio.h>
#include <string.h>

static _Thread_local char sentence[1024];

err err_setv(err code, const char *fmt, va_list ap)
{
    char text[sizeof sentence]; /* an argument may be err_text() itself */
    vsnprintf(text, sizeof text, fmt, ap);
    memcpy(sentence, text, sizeof sentence);
    return code;
}

err err_set(err code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err_setv(code, fmt, ap);
    va_end(ap);
    return code;
}

err err_wrap(err code, const char *fmt, ...)
{
    char context[512], text[sizeof sentence];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(context, sizeof context, fmt, ap);
    va_end(ap);
    snprintf(text, sizeof text, "%s: %.*s", context, (int)(sizeof text - sizeof context - 3), sentence);
    memcpy(sentence, text, strlen(text) + 1);
    return code;
}

const char *err_text(void)
{
    return sentence;
}

const char *err_name(err code)
{
    switch (code) {
    case ERR_OK: return "ok";
#define X(c, text, input)                                                                                    \
    case c: return text;
        ERR_LIST(X)
#undef X
    }
    return "unknown error";
}

int err_exit_status(err code)
{
    switch (code) {
    case ERR_OK: return 0;
#define X(c, text, input)                                                                                    \
    case c: return (input) ? 2 : 1;
        ERR_LIST(X)
#undef X
    }
    return 1;
}

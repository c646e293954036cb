/* See text.h. jansson refuses strings that are no UTF-8. SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include "base/base.h"

#include <stdlib.h>

json_t *text_json(const char *s)
{
    json_t *j = json_string(s);
    if (j) return j;
    char *copy = xstrdup(s);
    for (char *c = copy; *c; c++)
        if ((unsigned char)*c >= 0x80) *c = '?';
    j = json_string(copy);
    free(copy);
    return j;
}

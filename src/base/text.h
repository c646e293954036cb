/* Foreign text on its way into JSON. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <jansson.h>

/* A JSON string of any bytes: what is no UTF-8 (a name cut in the middle of a letter, a foreign program's error) becomes '?', because one
 * bad byte must not cost a whole answer. Never NULL for a string that is not. */
json_t *text_json(const char *s);

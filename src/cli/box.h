/* Questions to a running box. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/err.h"

#include <jansson.h>

/* Asks the box that owns the store (NULL: $BRIM_STORE, else the usual place); takes the request over. ERR_NOT_FOUND: none runs. */
err cli_box_ask(const char *store, json_t *request, json_t **ret);

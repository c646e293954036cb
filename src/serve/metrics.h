/* The box's numbers as Prometheus text 0.0.4. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/engine.h"
#include "rows/rows.h"
#include "serve/counts.h"

enum { METRICS_TEXT = 600 };

/* `rows` may be NULL. */
void metrics_write(struct strbuf *b, struct engine *e, struct rows *rows);
void metrics_write_outputs(struct strbuf *b, struct serve_counts *c);
/* A label's value: backslash, quote and newline escaped, other control characters as '?'. Cut at METRICS_TEXT;
 * returns ret. */
const char *metrics_escape(const char *s, char ret[METRICS_TEXT]);

/* Inside rows: what the owner of a database and its readers share. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "rows/rows.h"

#include <sqlite3.h>

enum { ROWS_SCHEMA = 1 };

#define ROWS_COLUMNS                                                                                         \
    "e.id, e.uid, e.time, e.camera, e.query, e.event, e.zone, e.label, e.attributes, e.track, e.frame, e.score, e.seconds, e.direction,"     \
    " e.x1, e.y1, e.x2, e.y2, e.width, e.height"
/* Events that a filter lets through, ordered by id: ASC or DESC, and a LIMIT, follow. */
extern const char rows_select[];
void rows_bind_filter(sqlite3_stmt *s, const struct rows_filter *f);
void rows_column_event(sqlite3_stmt *s, struct rows_event *e);
/* The sentence of SQLite's last error. */
err rows_sql_error(const char *path, sqlite3 *db, const char *doing);
err rows_user_version(const char *path, sqlite3 *db, int *ret);
err rows_newer(const char *path, int version);

/* Reading events: for the owner, and for another process while the owner writes.
 *
 * The other process has a connection that cannot write; in WAL mode it sees what was committed when it began and blocks nobody
 * (https://www.sqlite.org/wal.html#concurrency). Where even the index of the log cannot be made (a folder that may not be written, after the owner has
 * closed and the log is gone) the file cannot change and is read as it is. Text of any length is cut to the event's fields. SPDX-License-Identifier: Apache-2.0 */
#include "rows/inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char rows_select[] =
    "SELECT " ROWS_COLUMNS " FROM events e WHERE (?1 IS NULL OR camera = ?1) AND (?2 IS NULL OR query = ?2) AND (?3 IS NULL OR event = ?3)"
    " AND (?4 = 0 OR time >= ?4) AND (?5 = 0 OR time <= ?5) AND (?6 = 0 OR id < ?6) AND (?7 = 0 OR id > ?7) ORDER BY id ";

err rows_sql_error(const char *path, sqlite3 *db, const char *doing)
{
    int code = db ? sqlite3_errcode(db) : SQLITE_NOMEM;
    err e = code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? ERR_CORRUPT
            : code == SQLITE_BUSY || code == SQLITE_LOCKED  ? ERR_BUSY
                                                            : ERR_IO;
    const char *advice = e == ERR_CORRUPT ? "; move it away, a new one is made" : code == SQLITE_FULL ? "; free space on its disk" : "";
    return err_set(e, "%s: %s: %s%s", path, doing, db ? sqlite3_errmsg(db) : "no memory", advice);
}

err rows_user_version(const char *path, sqlite3 *db, int *ret)
{
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &s, NULL) != SQLITE_OK) return rows_sql_error(path, db, "preparing a statement");
    int v = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int(s, 0) : -1;
    err e = v < 0 ? rows_sql_error(path, db, "reading the schema's version") : ERR_OK;
    sqlite3_finalize(s);
    if (!e) *ret = v;
    return e;
}

err rows_newer(const char *path, int version)
{
    return err_set(ERR_UNSUPPORTED, "%s has schema %d, this brim knows %d; use the newer brim, or give another database", path, version, ROWS_SCHEMA);
}

void rows_bind_filter(sqlite3_stmt *s, const struct rows_filter *f)
{
    sqlite3_bind_text(s, 1, f->camera, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, f->query, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 3, f->event, -1, SQLITE_STATIC);
    sqlite3_bind_double(s, 4, f->since);
    sqlite3_bind_double(s, 5, f->until);
    sqlite3_bind_int64(s, 6, f->before_id);
    sqlite3_bind_int64(s, 7, f->after_id);
}

static void column_text(sqlite3_stmt *s, int i, char *to, size_t size)
{
    const unsigned char *text = sqlite3_column_text(s, i);
    snprintf(to, size, "%s", text ? (const char *)text : "");
}

void rows_column_event(sqlite3_stmt *s, struct rows_event *e)
{
    *e = (struct rows_event){.id = sqlite3_column_int64(s, 0), .time = sqlite3_column_double(s, 2)};
    const void *uid = sqlite3_column_blob(s, 1);
    if (uid && sqlite3_column_bytes(s, 1) == ROWS_UID) memcpy(e->uid, uid, ROWS_UID);
    column_text(s, 3, e->camera, sizeof e->camera);
    column_text(s, 4, e->query, sizeof e->query);
    column_text(s, 5, e->event, sizeof e->event);
    column_text(s, 6, e->zone, sizeof e->zone);
    column_text(s, 7, e->label, sizeof e->label);
    column_text(s, 8, e->attributes, sizeof e->attributes);
    e->track = sqlite3_column_int64(s, 9);
    e->frame = (uint64_t)sqlite3_column_int64(s, 10);
    e->score = sqlite3_column_double(s, 11);
    e->seconds = sqlite3_column_double(s, 12);
    e->direction = sqlite3_column_int(s, 13);
    for (int k = 0; k < 4; k++) e->box[k] = (float)sqlite3_column_double(s, 14 + k);
    e->width = sqlite3_column_int(s, 18);
    e->height = sqlite3_column_int(s, 19);
}

/* ---- another process's database */

/* The path as a file: URI: what URIs give a meaning to is escaped. */
static char *uri_of(const char *path, bool immutable)
{
    struct strbuf b = {0};
    strbuf_addf(&b, "file:");
    for (const char *c = path; *c; c++) strbuf_addf(&b, strchr("%?#", *c) ? "%%%02X" : "%c", (unsigned char)*c);
    strbuf_addf(&b, immutable ? "?immutable=1" : "?mode=ro");
    return b.s;
}

static err connect_reader(const char *path, bool immutable, sqlite3 **ret, int *ret_version)
{
    sqlite3 *db = NULL;
    char *uri = uri_of(path, immutable);
    int rc = sqlite3_open_v2(uri, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, NULL);
    free(uri);
    err e = rc == SQLITE_OK ? ERR_OK : rows_sql_error(path, db, "cannot open the database");
    if (!e) {
        sqlite3_busy_timeout(db, 5000);
        sqlite3_limit(db, SQLITE_LIMIT_LENGTH, 1 << 20);
        e = rows_user_version(path, db, ret_version);
    }
    if (e) sqlite3_close(db);
    else *ret = db;
    return e;
}

static err open_reader(const char *path, sqlite3 **ret)
{
    int version = 0;
    if (access(path, R_OK)) return err_set(ERR_NOT_FOUND, "%s: %s", path, strerror(errno));
    err e = connect_reader(path, false, ret, &version);
    char *log = xasprintf("%s-wal", path);
    if (e == ERR_IO && access(log, F_OK)) e = connect_reader(path, true, ret, &version);
    free(log);
    if (e) return e;
    if (version > ROWS_SCHEMA) e = rows_newer(path, version);
    else if (version < 1) e = err_set(ERR_FORMAT, "%s: no database of events of brim serve", path);
    if (e) sqlite3_close(*ret);
    return e;
}

err rows_read(const char *path, const struct rows_filter *f, rows_read_fn *fn, void *user)
{
    sqlite3 *db;
    sqlite3_stmt *s = NULL;
    struct rows_event event;
    int rc = SQLITE_DONE;
    err e = open_reader(path, &db);
    if (e) return e;
    char *sql = xasprintf("%s%s LIMIT ?8", rows_select, f->oldest_first ? "ASC" : "DESC");
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK) e = rows_sql_error(path, db, "preparing a statement");
    free(sql);
    if (!e) {
        rows_bind_filter(s, f);
        sqlite3_bind_int(s, 8, f->limit > 0 ? f->limit : -1);
        while (!e && (rc = sqlite3_step(s)) == SQLITE_ROW) {
            rows_column_event(s, &event);
            e = fn(user, &event);
        }
        if (!e && rc != SQLITE_DONE) e = rows_sql_error(path, db, "reading events");
    }
    sqlite3_finalize(s);
    sqlite3_close(db);
    return e;
}

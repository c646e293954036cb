/* Events in SQLite.
 *
 * Two connections: the writer's (its thread only) and one for readers and the outbox (behind `read_lock`). SQLite's own lock
 * arbitrates between them; WAL lets reads go on during a commit. The writer takes everything that waits as one transaction, so a burst of
 * events costs one fsync.
 *
 * Invariant: an event is in exactly one place: the queue, the batch being written, or the database (or counted as lost).
 * https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_synchronous. SPDX-License-Identifier: Apache-2.0 */
#include "rows/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { SCHEMA = ROWS_SCHEMA, BATCH = 256 };

struct rows {
    struct rows_options o;
    char *path;
    int owner_fd;              /* flock: one owner */
    sqlite3 *write, *read;
    pthread_mutex_t read_lock; /* guards `read` */
    struct mem_payer *payer;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock;      /* guards what follows */
    pthread_cond_t wake, idle;
    struct rows_event *queue;  /* ring of ROWS_QUEUE */
    int head, waiting, writing;
    bool stop;
    uint64_t written, lost;
    char problem[256];
};

static const char schema_sql[] =
    "CREATE TABLE events(id INTEGER PRIMARY KEY AUTOINCREMENT, uid BLOB NOT NULL UNIQUE, time REAL NOT NULL, camera TEXT NOT NULL,"
    " query TEXT NOT NULL, event TEXT NOT NULL, zone TEXT NOT NULL, label TEXT NOT NULL, attributes TEXT NOT NULL, track INTEGER NOT NULL,"
    " frame INTEGER NOT NULL, score REAL NOT NULL, seconds REAL NOT NULL, direction INTEGER NOT NULL, x1 REAL NOT NULL, y1 REAL NOT NULL,"
    " x2 REAL NOT NULL, y2 REAL NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL);"
    "CREATE INDEX events_time ON events(time);"
    "CREATE INDEX events_camera ON events(camera, id);"
    "CREATE TABLE outbox(id INTEGER PRIMARY KEY AUTOINCREMENT, event INTEGER NOT NULL);";

static err sql_error(const struct rows *r, sqlite3 *db, const char *doing)
{
    return rows_sql_error(r->path, db, doing);
}

static err execute(const struct rows *r, sqlite3 *db, const char *sql, const char *doing)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? ERR_OK : sql_error(r, db, doing);
}

static err prepare(const struct rows *r, sqlite3 *db, const char *sql, sqlite3_stmt **ret)
{
    return sqlite3_prepare_v2(db, sql, -1, ret, NULL) == SQLITE_OK ? ERR_OK : sql_error(r, db, "preparing a statement");
}

/* ---- opening */

static err connect_db(struct rows *r, sqlite3 **ret)
{
    if (sqlite3_open_v2(r->path, ret, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return sql_error(r, *ret, "cannot open the database");
    sqlite3_busy_timeout(*ret, 5000);
    sqlite3_extended_result_codes(*ret, 0);
    sqlite3_limit(*ret, SQLITE_LIMIT_LENGTH, 1 << 20);
    /* cache: 256 KiB a connection: bounded, and full after minutes, so that it does not look like a leak for hours */
    return execute(r, *ret, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-256; PRAGMA temp_store=MEMORY;"
                            "PRAGMA journal_size_limit=4194304;", "cannot set the database up");
}

static err migrate(struct rows *r)
{
    int version;
    err e = rows_user_version(r->path, r->write, &version);
    if (e) return e;
    if (version > SCHEMA) return rows_newer(r->path, version);
    if (version == SCHEMA) return ERR_OK;
    char *sql = xasprintf("BEGIN IMMEDIATE; %s PRAGMA user_version=%d; COMMIT;", schema_sql, SCHEMA);
    e = execute(r, r->write, sql, "making the tables");
    if (e) sqlite3_exec(r->write, "ROLLBACK", NULL, NULL, NULL);
    free(sql);
    return e;
}

static err own(struct rows *r)
{
    char *lock = xasprintf("%s.lock", r->path);
    r->owner_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    err e = ERR_OK;
    if (r->owner_fd < 0)
        e = err_set(ERR_IO, "%s: %s", lock, strerror(errno));
    else if (flock(r->owner_fd, LOCK_EX | LOCK_NB))
        e = err_set(ERR_BUSY, "%s is in use by another brim serve; stop it, or give this site another database", r->path);
    free(lock);
    return e;
}

/* ---- the writer */

static void bind_event(sqlite3_stmt *s, const struct rows_event *e)
{
    int i = 1;
    sqlite3_bind_blob(s, i++, e->uid, ROWS_UID, SQLITE_STATIC);
    sqlite3_bind_double(s, i++, e->time);
    sqlite3_bind_text(s, i++, e->camera, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, i++, e->query, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, i++, e->event, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, i++, e->zone, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, i++, e->label, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, i++, e->attributes, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, i++, e->track);
    sqlite3_bind_int64(s, i++, (sqlite3_int64)e->frame);
    sqlite3_bind_double(s, i++, e->score);
    sqlite3_bind_double(s, i++, e->seconds);
    sqlite3_bind_int(s, i++, e->direction);
    for (int k = 0; k < 4; k++) sqlite3_bind_double(s, i++, e->box[k]);
    sqlite3_bind_int(s, i++, e->width);
    sqlite3_bind_int(s, i++, e->height);
}

static err insert(struct rows *r, sqlite3_stmt *event, sqlite3_stmt *outbox, struct rows_event *e)
{
    bind_event(event, e);
    int rc = sqlite3_step(event);
    sqlite3_reset(event);
    if (rc != SQLITE_DONE) return sql_error(r, r->write, "writing an event");
    e->id = sqlite3_last_insert_rowid(r->write);
    if (!r->o.outbox) return ERR_OK;
    sqlite3_bind_int64(outbox, 1, e->id);
    rc = sqlite3_step(outbox);
    sqlite3_reset(outbox);
    return rc == SQLITE_DONE ? ERR_OK : sql_error(r, r->write, "writing to the outbox");
}

static err insert_all(struct rows *r, struct rows_event *batch, int n)
{
    sqlite3_stmt *event = NULL, *outbox = NULL;
    err e = prepare(r, r->write, "INSERT INTO events(uid, time, camera, query, event, zone, label, attributes, track, frame, score, seconds,"
                                 " direction, x1, y1, x2, y2, width, height) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", &event);
    if (!e) e = prepare(r, r->write, "INSERT INTO outbox(event) VALUES(?)", &outbox);
    for (int i = 0; i < n && !e; i++) e = insert(r, event, outbox, &batch[i]);
    sqlite3_finalize(event);
    sqlite3_finalize(outbox);
    return e;
}

static err write_batch(struct rows *r, struct rows_event *batch, int n)
{
    char prune[160];
    int64_t keep = r->o.keep_rows > 0 ? r->o.keep_rows : 1000000;
    err e = execute(r, r->write, "BEGIN IMMEDIATE", "beginning a transaction");
    if (e) return e;
    e = insert_all(r, batch, n);
    snprintf(prune, sizeof prune, "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - %lld", (long long)keep);
    if (!e) e = execute(r, r->write, prune, "deleting old events");
    if (!e) e = execute(r, r->write, "COMMIT", "committing");
    if (e) sqlite3_exec(r->write, "ROLLBACK", NULL, NULL, NULL); /* the sentence stays the first one */
    return e;
}

/* Lock held on entry and exit. */
static void write_some(struct rows *r, struct rows_event *batch)
{
    int n = MIN(r->waiting, (int)BATCH);
    for (int i = 0; i < n; i++) batch[i] = r->queue[(r->head + i) % ROWS_QUEUE];
    r->head = (r->head + n) % ROWS_QUEUE;
    r->waiting -= n;
    if (!r->waiting) r->head = 0; /* so that an idle queue does not wander through, and touch, all of its memory */
    r->writing = n;
    for (;;) {
        pthread_mutex_unlock(&r->lock);
        err e = write_batch(r, batch, n);
        if (!e && r->o.committed) r->o.committed(r->o.user, batch, n);
        pthread_mutex_lock(&r->lock);
        if (!e) {
            r->written += (uint64_t)n;
            r->problem[0] = 0;
            break;
        }
        snprintf(r->problem, sizeof r->problem, "%s", err_text());
        if (r->stop) {
            r->lost += (uint64_t)n;
            break;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&r->wake, &r->lock, &until);
    }
    r->writing = 0;
    pthread_cond_broadcast(&r->idle);
}

static void *writer(void *arg)
{
    struct rows *r = arg;
    struct rows_event *batch = xnewn(struct rows_event, BATCH);
    pthread_setname_np(pthread_self(), "brim-rows");
    pthread_mutex_lock(&r->lock);
    while (!r->stop || r->waiting) {
        if (r->waiting)
            write_some(r, batch);
        else
            pthread_cond_wait(&r->wake, &r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    free(batch);
    return NULL;
}

/* ---- lifetimes */

static void init_locks(struct rows *r)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&r->lock, NULL);
    pthread_mutex_init(&r->read_lock, NULL);
    pthread_cond_init(&r->wake, &monotonic);
    pthread_cond_init(&r->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

err rows_open(const struct rows_options *o, struct rows **ret)
{
    struct rows *r = xnew(struct rows);
    r->o = *o;
    r->path = xstrdup(o->path);
    r->owner_fd = -1;
    init_locks(r);
    r->payer = mem_payer_new(o->budget, "rows");
    err e = own(r);
    if (!e) e = connect_db(r, &r->write);
    if (!e) e = migrate(r);
    if (!e) e = connect_db(r, &r->read);
    if (!e) e = mem_alloc(r->payer, MEM_QUEUE, ROWS_BYTES, (void **)&r->queue);
    if (!e) {
        int rc = pthread_create(&r->thread, NULL, writer, r);
        r->started = rc == 0;
        if (rc) e = err_set(ERR_IO, "cannot start the thread that writes rows: %s", strerror(rc));
    }
    if (e)
        rows_close(&r);
    else
        *ret = r;
    return e;
}

void rows_close(struct rows **rp)
{
    struct rows *r = *rp;
    if (!r) return;
    if (r->started) {
        pthread_mutex_lock(&r->lock);
        r->stop = true;
        pthread_cond_broadcast(&r->wake);
        pthread_mutex_unlock(&r->lock);
        pthread_join(r->thread, NULL);
    }
    sqlite3_close(r->read);
    sqlite3_close(r->write);
    if (r->owner_fd >= 0) close(r->owner_fd);
    mem_free(r->payer, MEM_QUEUE, r->queue, ROWS_BYTES);
    mem_payer_free(&r->payer);
    pthread_mutex_destroy(&r->lock);
    pthread_mutex_destroy(&r->read_lock);
    pthread_cond_destroy(&r->wake);
    pthread_cond_destroy(&r->idle);
    free(r->path);
    free(r);
    *rp = NULL;
}

void rows_add(struct rows *r, const struct rows_event *e)
{
    pthread_mutex_lock(&r->lock);
    if (r->waiting == ROWS_QUEUE) {
        r->head = (r->head + 1) % ROWS_QUEUE;
        r->waiting--;
        r->lost++;
    }
    r->queue[(r->head + r->waiting++) % ROWS_QUEUE] = *e;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

err rows_flush(struct rows *r, int timeout_ms)
{
    struct timespec until;
    int rc = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&r->lock);
    while ((r->waiting || r->writing) && !rc) rc = pthread_cond_timedwait(&r->idle, &r->lock, &until);
    bool done = !r->waiting && !r->writing;
    err e = done ? ERR_OK : err_set(ERR_TIMEOUT, "%s: %d events still wait: %s", r->path, r->waiting + r->writing, r->problem);
    pthread_mutex_unlock(&r->lock);
    return e;
}

void rows_stats(struct rows *r, struct rows_stats *ret)
{
    pthread_mutex_lock(&r->lock);
    *ret = (struct rows_stats){.written = r->written, .lost = r->lost, .waiting = r->waiting + r->writing};
    memcpy(ret->problem, r->problem, sizeof ret->problem);
    pthread_mutex_unlock(&r->lock);
}

/* ---- reading */

err rows_events(struct rows *r, const struct rows_filter *f, struct rows_event **ret, int *ret_n)
{
    int limit = f->limit < 1 ? 1 : MIN(f->limit, 1000), n = 0, rc;
    char *sql = xasprintf("%s%s LIMIT ?8", rows_select, f->oldest_first ? "ASC" : "DESC");
    sqlite3_stmt *s;
    pthread_mutex_lock(&r->read_lock);
    err e = prepare(r, r->read, sql, &s);
    free(sql);
    if (!e) {
        struct rows_event *events = xnewn(struct rows_event, limit);
        rows_bind_filter(s, f);
        sqlite3_bind_int(s, 8, limit);
        while ((rc = sqlite3_step(s)) == SQLITE_ROW && n < limit) rows_column_event(s, &events[n++]);
        if (rc != SQLITE_DONE && rc != SQLITE_ROW) e = sql_error(r, r->read, "reading events");
        sqlite3_finalize(s);
        if (e) free(events);
        else *ret = events, *ret_n = n;
    }
    pthread_mutex_unlock(&r->read_lock);
    return e;
}

err rows_outbox(struct rows *r, int64_t after, struct rows_event **ret, int64_t **ret_ids, int *ret_n, int max)
{
    sqlite3_stmt *s;
    int n = 0, rc;
    pthread_mutex_lock(&r->read_lock);
    err e = prepare(r, r->read, "SELECT " ROWS_COLUMNS ", o.id FROM outbox o JOIN events e ON e.id = o.event WHERE o.id > ? ORDER BY o.id LIMIT ?", &s);
    if (!e) {
        struct rows_event *events = xnewn(struct rows_event, max);
        int64_t *ids = xnewn(int64_t, max);
        sqlite3_bind_int64(s, 1, after);
        sqlite3_bind_int(s, 2, max);
        while (n < max && (rc = sqlite3_step(s)) == SQLITE_ROW) {
            rows_column_event(s, &events[n]);
            ids[n++] = sqlite3_column_int64(s, 20);
        }
        sqlite3_finalize(s);
        *ret = events, *ret_ids = ids, *ret_n = n;
    }
    pthread_mutex_unlock(&r->read_lock);
    return e;
}

err rows_outbox_done(struct rows *r, int64_t id)
{
    char sql[80];
    snprintf(sql, sizeof sql, "DELETE FROM outbox WHERE id = %lld", (long long)id);
    pthread_mutex_lock(&r->read_lock);
    err e = execute(r, r->read, sql, "emptying the outbox");
    pthread_mutex_unlock(&r->read_lock);
    return e;
}

static int64_t one_number(struct rows *r, const char *sql)
{
    sqlite3_stmt *s;
    int64_t v = 0;
    if (prepare(r, r->read, sql, &s) == ERR_OK) {
        if (sqlite3_step(s) == SQLITE_ROW) v = sqlite3_column_int64(s, 0);
        sqlite3_finalize(s);
    }
    return v;
}

int64_t rows_outbox_count(struct rows *r)
{
    pthread_mutex_lock(&r->read_lock);
    int64_t n = one_number(r, "SELECT count(*) FROM outbox");
    pthread_mutex_unlock(&r->read_lock);
    return n;
}

int64_t rows_outbox_trim(struct rows *r, int64_t max)
{
    char sql[128];
    snprintf(sql, sizeof sql, "DELETE FROM outbox WHERE id <= (SELECT max(id) FROM outbox) - %lld", (long long)max);
    pthread_mutex_lock(&r->read_lock);
    int64_t n = execute(r, r->read, sql, "trimming the outbox") == ERR_OK ? sqlite3_changes(r->read) : 0;
    pthread_mutex_unlock(&r->read_lock);
    return n;
}

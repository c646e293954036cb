/* Track files: two formats, one table.
 *
 * The text is walked twice: once to count the lines that are not blank (so that the table can be paid for in
 * one piece) and once to read them. A line with a comma before any space is MOT CSV, else CAMPUS; the first
 * line decides for the file. Numbers are read by strtod on a bounded copy of the line, so a file without a
 * final newline or with a NUL in it cannot lead it astray. SPDX-License-Identifier: Apache-2.0 */
#include "task/mot.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE = 512, MAX_FIELDS = 10 };
static const double MAX_COORD = 1e6, MAX_FRAME = 1e8, MAX_ID = 1e15;

struct reader {
    const char *name, *text;
    size_t size, at;
    int line;
    bool csv, known;
};

/* The next line that is not blank, into buf; false at the end. A line that is too long ends reading with an
 * error in *e. */
static bool next_line(struct reader *r, char buf[MAX_LINE], err *e)
{
    while (r->at < r->size) {
        const char *start = r->text + r->at, *end = memchr(start, '\n', r->size - r->at);
        size_t n = end ? (size_t)(end - start) : r->size - r->at;
        r->at += n + 1;
        r->line++;
        if (n >= MAX_LINE) {
            *e = err_set(ERR_FORMAT, "%s:%d: a line of %zu bytes; this is not a file of tracks", r->name,
                         r->line, n);
            return false;
        }
        memcpy(buf, start, n);
        buf[n] = 0;
        if (strlen(buf) != n) {
            *e = err_set(ERR_FORMAT, "%s:%d: a zero byte; this is not a file of tracks", r->name, r->line);
            return false;
        }
        if (buf[strspn(buf, " \t\r")] != 0) return true;
    }
    return false;
}

/* Reads up to `most` numbers; returns how many, and where the reading stopped. */
static int read_numbers(const char *s, char separator, int most, double v[], const char **ret_rest)
{
    int n = 0;
    while (n < most) {
        s += strspn(s, " \t");
        char *end;
        v[n] = strtod(s, &end);
        if (end == s) break;
        s = end + strspn(end, " \t");
        n++;
        if (separator == ' ') continue;
        if (*s != separator) break;
        s++;
    }
    *ret_rest = s;
    return n;
}

static bool in_range(double v, double low, double high)
{
    return v >= low && v <= high; /* false for NaN */
}

static err bad(const struct reader *r, const char *what)
{
    return err_set(ERR_FORMAT, "%s:%d: %s; expected %s", r->name, r->line, what,
                   r->csv ? "frame,id,x,y,w,h[,score[,class]]"
                          : "id xmin ymin xmax ymax frame lost occluded generated \"label\"");
}

static err read_csv(const struct reader *r, const char *line, struct task_mot_row *ret)
{
    double v[MAX_FIELDS] = {0};
    const char *rest;
    int n = read_numbers(line, ',', MAX_FIELDS, v, &rest);
    if (n < 6) return bad(r, "fewer than 6 numbers");
    if (!in_range(v[0], 0, MAX_FRAME) || v[0] != floor(v[0]))
        return bad(r, "the frame is not a whole number from 0");
    if (!in_range(v[1], -1, MAX_ID) || v[1] != floor(v[1]))
        return bad(r, "the id is not a whole number from -1");
    for (int i = 2; i < 6; i++)
        if (!in_range(v[i], i < 4 ? -MAX_COORD : 0, MAX_COORD))
            return bad(r, "a box beyond 1,000,000 pixels");
    struct task_mot_row row = {.frame = (int)v[0],
                               .id = (int64_t)v[1],
                               .score = 1,
                               .box = {(float)v[2], (float)v[3], (float)(v[2] + v[4]), (float)(v[3] + v[5])}};
    if (n > 6 && isfinite((float)v[6])) row.score = (float)v[6];
    if (n > 7 && in_range(v[7], 0, 4095)) row.class_id = (int)v[7];
    row.visible = n > 8 && in_range(v[8], 0, 1) ? (float)v[8] : 1;
    *ret = row;
    return ERR_OK;
}

static err read_campus(const struct reader *r, const char *line, struct task_mot_row *ret)
{
    double v[9] = {0};
    const char *rest;
    int n = read_numbers(line, ' ', 9, v, &rest);
    if (n < 9) return bad(r, "fewer than 9 numbers");
    if (!in_range(v[0], 0, MAX_ID) || v[0] != floor(v[0]))
        return bad(r, "the id is not a whole number from 0");
    for (int i = 1; i < 5; i++)
        if (!in_range(v[i], -MAX_COORD, MAX_COORD)) return bad(r, "a box beyond 1,000,000 pixels");
    if (!in_range(v[5], 0, MAX_FRAME) || v[5] != floor(v[5]))
        return bad(r, "the frame is not a whole number from 0");
    if (v[3] < v[1] || v[4] < v[2]) return bad(r, "a box whose right or lower edge comes first");
    *ret = (struct task_mot_row){.frame = (int)v[5], .visible = 1,
                                 .id = (int64_t)v[0],
                                 .score = 1,
                                 .box = {(float)v[1], (float)v[2], (float)v[3], (float)v[4]},
                                 .lost = v[6] != 0,
                                 .occluded = v[7] != 0,
                                 .generated = v[8] != 0};
    return ERR_OK;
}

static err read_row(struct reader *r, const char *line, struct task_mot_row *ret)
{
    if (!r->known) {
        const char *s = line + strspn(line, " \t");
        r->csv = s[strcspn(s, ", \t")] == ',';
        r->known = true;
    }
    return r->csv ? read_csv(r, line, ret) : read_campus(r, line, ret);
}

/* By frame, then by place in the file. */
static int by_frame(const void *a, const void *b)
{
    const struct task_mot_row *p = a, *q = b;
    if (p->frame != q->frame) return p->frame < q->frame ? -1 : 1;
    return (p->order > q->order) - (p->order < q->order);
}

err task_mot_parse(struct mem_payer *payer, const char *text, size_t size, const char *name,
                   struct task_mot *ret)
{
    struct reader r = {.name = name, .text = text, .size = size};
    char line[MAX_LINE];
    err e = ERR_OK;
    size_t count = 0;
    while (next_line(&r, line, &e))
        count++;
    if (e) return e;
    if (count > TASK_MOT_MAX_ROWS)
        return err_set(ERR_LIMIT, "%s: %zu rows, but at most %d are read", name, count, TASK_MOT_MAX_ROWS);
    struct task_mot m = {.payer = payer, .bytes = count * sizeof(struct task_mot_row), .last_frame = -1};
    e = mem_alloc(payer, MEM_OTHER, m.bytes, (void **)&m.rows);
    if (e) return err_wrap(e, "%s", name);
    r.at = 0;
    r.line = 0;
    while (!e && m.count < count && next_line(&r, line, &e)) {
        struct task_mot_row *row = &m.rows[m.count];
        e = read_row(&r, line, row);
        row->order = (uint32_t)m.count;
        if (!e) m.count++;
    }
    if (e) {
        task_mot_done(&m);
        return e;
    }
    if (count) {
        qsort(m.rows, count, sizeof *m.rows, by_frame);
        m.first_frame = m.rows[0].frame;
        m.last_frame = m.rows[count - 1].frame;
    }
    *ret = m;
    return ERR_OK;
}

err task_mot_load(struct mem_payer *payer, const char *path, struct task_mot *ret)
{
    FILE *f = fopen(path, "rbe");
    if (!f)
        return err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: cannot open: %s", path,
                       strerror(errno));
    err e = ERR_OK;
    char *text = NULL;
    long size = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    if (size < 0)
        e = err_set(ERR_IO, "%s: cannot find its size: %s", path, strerror(errno));
    else if (size > TASK_MOT_MAX_BYTES)
        e = err_set(ERR_LIMIT, "%s: %ld bytes, but at most %d are read", path, size, TASK_MOT_MAX_BYTES);
    else
        e = mem_alloc(payer, MEM_OTHER, (size_t)size, (void **)&text);
    if (!e) {
        rewind(f);
        if (fread(text, 1, (size_t)size, f) != (size_t)size)
            e = err_set(ERR_IO, "%s: cannot read: %s", path,
                        ferror(f) ? strerror(errno) : "it became shorter");
        else
            e = task_mot_parse(payer, text, (size_t)size, path, ret);
        mem_free(payer, MEM_OTHER, text, (size_t)size);
    }
    fclose(f);
    return e;
}

void task_mot_done(struct task_mot *m)
{
    if (m->rows) mem_free(m->payer, MEM_OTHER, m->rows, m->bytes);
    *m = (struct task_mot){.last_frame = -1};
}

void task_mot_write_row(FILE *f, const struct task_mot_row *r)
{
    fprintf(f, "%d,%lld,%.2f,%.2f,%.2f,%.2f,%.4f,%d,-1,-1\n", r->frame, (long long)r->id, r->box.x1,
            r->box.y1, r->box.x2 - r->box.x1, r->box.y2 - r->box.y1, r->score, r->class_id);
}

/* Building the tree from libyaml's events.
 *
 * The event interface is used, not libyaml's document: events carry positions, and depth, count and aliases are
 * refused before anything is built for them. Nodes are single allocations linked as first child / next sibling: an
 * immutable tree needs no index, maps of people's files are short, and the number of nodes is bounded. Duplicate
 * keys are found by sorting a map's keys when it closes, so that 100,000 keys cost no quadratic time.
 *
 * Invariants: every node's text is terminated and has no byte 0 inside; depth <= YAML_MAX_DEPTH, so recursion is
 * safe; the sum of expanded text is at most YAML_MAX_EXPANDED. The typed readers are in yaml_read.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/yaml_node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>

enum { YAML_MAX_EXPANDED = 4 << 20, YAML_MAX_KEY = 256 };

struct builder {
    yaml_parser_t parser;
    struct yaml *doc;
    unsigned flags;
    size_t nodes, expanded;
};

static err fail_at(const struct builder *b, err code, yaml_mark_t at, const char *what)
{
    return err_set(code, "%s:%zu:%zu: %s", b->doc->name, at.line + 1, at.column + 1, what);
}

static err next_event(struct builder *b, yaml_event_t *ret)
{
    yaml_parser_t *p = &b->parser;
    if (yaml_parser_parse(p, ret)) return ERR_OK;
    if (p->error == YAML_MEMORY_ERROR) return err_set(ERR_NOMEM, "%s: the system has no memory left", b->doc->name);
    if (p->error == YAML_READER_ERROR)
        return err_set(ERR_FORMAT, "%s: byte %zu: not readable as text: %s", b->doc->name, p->problem_offset + 1,
                       p->problem ? p->problem : "bad encoding");
    return err_set(ERR_FORMAT, "%s:%zu:%zu: not valid YAML: %s%s%s", b->doc->name, p->problem_mark.line + 1,
                   p->problem_mark.column + 1, p->problem ? p->problem : "syntax error", p->context ? " " : "",
                   p->context ? p->context : "");
}

static void node_free(struct yaml_node *n)
{
    while (n) {
        struct yaml_node *next = n->next;
        node_free(n->first);
        free(n->key);
        free(n->text);
        free(n->written);
        free(n);
        n = next;
    }
}

static bool is_name_char(char c, bool first)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || (!first && c >= '0' && c <= '9');
}

/* One "${NAME}" at *at (which points at its '$'); adds the value and moves *at behind the brace. */
static err expand_one(struct builder *b, const struct yaml_node *n, const char **at, struct strbuf *out)
{
    const char *name = *at + 2, *end = name;
    while (is_name_char(*end, end == name)) end++;
    if (*end != '}' || end == name)
        return yaml_err(n, ERR_FORMAT,
                        "'${' must be followed by a variable's name and '}'; write $${ for a literal ${");
    char *var = xstrndup(name, (size_t)(end - name));
    const char *value = getenv(var);
    err e = ERR_OK;
    if (!value)
        e = yaml_err(n, ERR_NOT_FOUND, "the environment has no variable %s; set it, or write the value here", var);
    else if ((b->expanded += strlen(value)) > YAML_MAX_EXPANDED)
        e = yaml_err(n, ERR_LIMIT, "the file with its variables is larger than %d bytes", YAML_MAX_EXPANDED);
    else
        strbuf_add(out, value);
    free(var);
    *at = end + 1;
    return e;
}

static err expand(struct builder *b, struct yaml_node *n)
{
    if (!(b->flags & YAML_ENV) || !strchr(n->text, '$')) return ERR_OK;
    struct strbuf out = {0};
    err e = ERR_OK;
    for (const char *s = n->text; *s && !e;) {
        if (s[0] == '$' && s[1] == '{') {
            e = expand_one(b, n, &s, &out);
            continue;
        }
        if (s[0] == '$' && s[1] == '$') s++;
        strbuf_addn(&out, s++, 1);
    }
    if (e) {
        strbuf_done(&out);
        return e;
    }
    n->written = n->text;
    n->text = strbuf_take(&out);
    return ERR_OK;
}

static err check_properties(const struct builder *b, const yaml_event_t *ev)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (ev->type) {
    case YAML_ALIAS_EVENT: anchor = ev->data.alias.anchor; break;
    case YAML_SCALAR_EVENT: anchor = ev->data.scalar.anchor, tag = ev->data.scalar.tag; break;
    case YAML_SEQUENCE_START_EVENT: anchor = ev->data.sequence_start.anchor, tag = ev->data.sequence_start.tag; break;
    case YAML_MAPPING_START_EVENT: anchor = ev->data.mapping_start.anchor, tag = ev->data.mapping_start.tag; break;
    default: break;
    }
    if (anchor)
        return fail_at(b, ERR_FORMAT, ev->start_mark,
                       "anchors (&name) and aliases (*name) are not supported; repeat the value");
    if (tag) return fail_at(b, ERR_FORMAT, ev->start_mark, "tags (!name) are not supported; remove it");
    return ERR_OK;
}

/* The text of a scalar event, or an error if it has a byte 0 inside. */
static err scalar_text(const struct builder *b, const yaml_event_t *ev, char **ret)
{
    const char *s = (const char *)ev->data.scalar.value;
    if (memchr(s, 0, ev->data.scalar.length))
        return fail_at(b, ERR_FORMAT, ev->start_mark, "text must not contain a byte 0");
    *ret = xstrndup(s, ev->data.scalar.length);
    return ERR_OK;
}

static err build(struct builder *b, const yaml_event_t *ev, struct yaml_node *n, int depth);

static struct yaml_node *node_new(struct builder *b, struct yaml_node *parent, const yaml_event_t *ev)
{
    struct yaml_node *n = xnew(struct yaml_node);
    n->doc = b->doc;
    n->parent = parent;
    n->line = (int)ev->start_mark.line + 1;
    n->column = (int)ev->start_mark.column + 1;
    return n;
}

/* Reads one key event of `n` and hangs an empty child with that key into the list. */
static err build_key(struct builder *b, const yaml_event_t *ev, struct yaml_node *n, struct yaml_node **ret)
{
    err e = check_properties(b, ev);
    if (e) return e;
    if (ev->type != YAML_SCALAR_EVENT)
        return fail_at(b, ERR_FORMAT, ev->start_mark, "a key must be a word, not a map or a list");
    if (!ev->data.scalar.length) return fail_at(b, ERR_FORMAT, ev->start_mark, "a key must not be empty");
    if (ev->data.scalar.length > YAML_MAX_KEY)
        return fail_at(b, ERR_LIMIT, ev->start_mark, "a key may have at most 256 bytes");
    struct yaml_node *child = node_new(b, n, ev);
    child->key_line = child->line, child->key_column = child->column;
    e = scalar_text(b, ev, &child->key);
    if (e) {
        free(child);
        return e;
    }
    *ret = child;
    return ERR_OK;
}

static int by_key(const void *a, const void *b)
{
    const struct yaml_node *x = *(struct yaml_node *const *)a, *y = *(struct yaml_node *const *)b;
    int c = strcmp(x->key, y->key);
    return c ? c : (x->index > y->index) - (x->index < y->index);
}

static err refuse_duplicates(const struct yaml_node *map)
{
    if (map->count < 2) return ERR_OK;
    const struct yaml_node **all = xnewn(const struct yaml_node *, map->count), *twice = NULL;
    size_t i = 0;
    for (const struct yaml_node *c = map->first; c; c = c->next) all[i++] = c;
    qsort(all, map->count, sizeof *all, by_key);
    int first_line = 0;
    for (i = 1; i < map->count; i++) /* report the one that comes first in the file */
        if (!strcmp(all[i - 1]->key, all[i]->key) && (!twice || all[i]->index < twice->index))
            twice = all[i], first_line = all[i - 1]->key_line;
    free(all);
    if (!twice) return ERR_OK;
    return yaml_err_key(twice, ERR_FORMAT, "this key is already in line %d; keep one of them", first_line);
}

/* Hangs children under `n` until `end`. A child is linked before it is built, so that errors can name its path. */
static err build_children(struct builder *b, struct yaml_node *n, yaml_event_type_t end, int depth)
{
    for (struct yaml_node **tail = &n->first;; tail = &(*tail)->next) {
        yaml_event_t ev;
        err e = next_event(b, &ev);
        if (e) return e;
        bool done = ev.type == end;
        if (!done) {
            if (n->kind == YAML_MAP)
                e = build_key(b, &ev, n, tail);
            else
                *tail = node_new(b, n, &ev);
            if (!e) (*tail)->index = n->count++;
        }
        if (!done && !e && n->kind == YAML_MAP) {
            yaml_event_delete(&ev);
            e = next_event(b, &ev);
            if (e) return e;
        }
        if (!done && !e) e = build(b, &ev, *tail, depth + 1);
        yaml_event_delete(&ev);
        if (e) return e;
        if (done) return n->kind == YAML_MAP ? refuse_duplicates(n) : ERR_OK;
    }
}

static err build_scalar(struct builder *b, const yaml_event_t *ev, struct yaml_node *n)
{
    err e = scalar_text(b, ev, &n->text);
    if (e) return e;
    bool plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (plain && (!n->text[0] || !strcmp(n->text, "~") || !strcmp(n->text, "null"))) {
        free(n->text);
        n->text = NULL;
        return ERR_OK;
    }
    n->kind = YAML_SCALAR;
    return expand(b, n);
}

/* Fills `n` from the event that opens it and, for maps and lists, from all events up to its end. */
static err build(struct builder *b, const yaml_event_t *ev, struct yaml_node *n, int depth)
{
    err e = check_properties(b, ev);
    if (e) return e;
    n->line = (int)ev->start_mark.line + 1;
    n->column = (int)ev->start_mark.column + 1;
    if (++b->nodes > YAML_MAX_NODES) return fail_at(b, ERR_LIMIT, ev->start_mark, "more than 100000 values");
    if (depth > YAML_MAX_DEPTH) return fail_at(b, ERR_LIMIT, ev->start_mark, "nested more than 32 deep");
    switch (ev->type) {
    case YAML_SCALAR_EVENT: return build_scalar(b, ev, n);
    case YAML_SEQUENCE_START_EVENT: n->kind = YAML_LIST; return build_children(b, n, YAML_SEQUENCE_END_EVENT, depth);
    case YAML_MAPPING_START_EVENT: n->kind = YAML_MAP; return build_children(b, n, YAML_MAPPING_END_EVENT, depth);
    default: return fail_at(b, ERR_INTERNAL, ev->start_mark, "unexpected YAML event");
    }
}

/* The stream: at most one document. */
static err build_document(struct builder *b)
{
    bool seen = false;
    for (;;) {
        yaml_event_t ev;
        err e = next_event(b, &ev);
        if (e) return e;
        yaml_event_type_t type = ev.type;
        if (type == YAML_DOCUMENT_START_EVENT && seen)
            e = fail_at(b, ERR_FORMAT, ev.start_mark, "a second document ('---'); only one per file is read");
        else if (type != YAML_STREAM_START_EVENT && type != YAML_STREAM_END_EVENT &&
                 type != YAML_DOCUMENT_START_EVENT && type != YAML_DOCUMENT_END_EVENT)
            seen = true, e = build(b, &ev, b->doc->root, 1);
        yaml_event_delete(&ev);
        if (e || type == YAML_STREAM_END_EVENT) return e;
    }
}

err yaml_parse(const char *name, const char *text, size_t n, unsigned flags, struct yaml **ret)
{
    if (n > YAML_MAX_BYTES)
        return err_set(ERR_LIMIT, "%s: larger than the %d bytes that are read", name, YAML_MAX_BYTES);
    struct builder b = {.flags = flags, .expanded = n};
    b.doc = xnew(struct yaml);
    b.doc->name = xstrdup(name);
    b.doc->root = xnew(struct yaml_node);
    *b.doc->root = (struct yaml_node){.doc = b.doc, .line = 1, .column = 1};
    if (!yaml_parser_initialize(&b.parser)) {
        yaml_doc_free(&b.doc);
        return err_set(ERR_NOMEM, "%s: the system has no memory left", name);
    }
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)text, n);
    err e = build_document(&b);
    yaml_parser_delete(&b.parser);
    if (e)
        yaml_doc_free(&b.doc);
    else
        *ret = b.doc;
    return e;
}

err yaml_load_file(const char *path, unsigned flags, struct yaml **ret)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    char *text = xcalloc(YAML_MAX_BYTES + 1, 1);
    size_t n = 0;
    ssize_t got;
    do {
        got = read(fd, text + n, YAML_MAX_BYTES + 1 - n);
        if (got > 0) n += (size_t)got;
    } while (got > 0 || (got < 0 && errno == EINTR));
    err e = got < 0 ? err_set(ERR_IO, "%s: cannot read: %s", path, strerror(errno)) : ERR_OK;
    close(fd);
    if (!e) e = yaml_parse(path, text, n, flags, ret);
    free(text);
    return e;
}

void yaml_doc_free(struct yaml **doc)
{
    if (!*doc) return;
    node_free((*doc)->root);
    free((*doc)->name);
    free(*doc);
    *doc = NULL;
}

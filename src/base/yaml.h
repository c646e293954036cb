/* YAML as an immutable tree in which every value knows where it was written.
 *
 * Site files and model cards are written by hand, so the point of this reader is its errors:
 *
 *     site.yaml:12:16: queries.door.min_score: expected a number from 0 to 1, found 'high'
 *
 * It reads one document of maps, lists and scalars. Anchors, aliases, tags and merge keys are refused (they hide
 * where a value comes from), and so is a key that is there twice. Everything is bounded: text (1 MiB), depth (32),
 * values (100,000), so no file can hurt the process. Lines and columns count from 1; columns are characters.
 *
 *     struct yaml *doc;
 *     err e = yaml_load_file("card.yaml", YAML_ENV, &doc);
 *     const struct yaml_node *m = yaml_root(doc);
 *     static const char *const keys[] = {"name", "score", NULL};
 *     if (!e) e = yaml_check_keys(m, keys);
 *     double score = 0.3;                                               // the default
 *     if (!e) e = yaml_float(yaml_get(m, "score"), 0, 1, &score);       // no such key: left alone, no error
 *     if (!e) e = yaml_need(m, "name", &node);                          // must be there
 *     for (const struct yaml_node *n = yaml_first(m); n; n = yaml_next(n)) use(yaml_key(n), n);
 *     yaml_doc_free(&doc);
 *
 * Nodes and strings belong to the document and die with it. A finished tree may be read by many threads.
 * (Not called yaml_free: libyaml exports that name.) SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

enum { YAML_MAX_BYTES = 1 << 20, YAML_MAX_DEPTH = 32, YAML_MAX_NODES = 100000 };

/* YAML_NULL is a value that was left empty, or a plain ~ or null. */
enum yaml_kind { YAML_NULL, YAML_SCALAR, YAML_LIST, YAML_MAP };

/* YAML_ENV: in scalar values (not keys) ${NAME} becomes the environment's value; a variable that is not set is
 * an error; $$ is a literal $. Errors quote such a value as it was written, so secrets stay secret. */
enum yaml_flags { YAML_PLAIN = 0, YAML_ENV = 1 };

struct yaml;
struct yaml_node;

/* `name` is what errors call the file (copied). An empty document is YAML_NULL.
 * ERR_FORMAT: not YAML, or refused as above; ERR_LIMIT: too large; ERR_NOT_FOUND, ERR_IO: the file. */
err yaml_parse(const char *name, const char *text, size_t n, unsigned flags, struct yaml **ret);
err yaml_load_file(const char *path, unsigned flags, struct yaml **ret);
void yaml_doc_free(struct yaml **doc);

const struct yaml_node *yaml_root(const struct yaml *doc);
const char *yaml_name(const struct yaml *doc);

/* All of these accept NULL (kind YAML_NULL, no children), so lookups can be chained. */
enum yaml_kind yaml_kind(const struct yaml_node *n);
size_t yaml_count(const struct yaml_node *n);                                     /* children of a map or list */
const struct yaml_node *yaml_first(const struct yaml_node *n);                    /* in the order of the file */
const struct yaml_node *yaml_next(const struct yaml_node *n);                     /* the next sibling */
const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key);   /* NULL: no such key */
const char *yaml_key(const struct yaml_node *n);   /* its key if it is in a map, else NULL */
const char *yaml_text(const struct yaml_node *n);  /* a scalar's text; NULL for anything else */
int yaml_line(const struct yaml_node *n);
int yaml_column(const struct yaml_node *n);

/* Sets "FILE:LINE:COL: PATH: ..." with the position of the value, or of its key. For errors of the caller's own. */
err yaml_err(const struct yaml_node *n, err code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
err yaml_err_key(const struct yaml_node *n, err code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Typed readers. NULL node: returns ERR_OK and leaves *ret alone (the default stays). A value of another kind, out of
 * [min, max], or empty is ERR_FORMAT with a sentence that says what was expected. */
err yaml_str(const struct yaml_node *n, const char **ret);                         /* borrowed; never empty */
err yaml_int(const struct yaml_node *n, int64_t min, int64_t max, int64_t *ret);
err yaml_float(const struct yaml_node *n, double min, double max, double *ret);
err yaml_bool(const struct yaml_node *n, bool *ret);                               /* true, false */
err yaml_size(const struct yaml_node *n, uint64_t min, uint64_t max, uint64_t *ret);        /* "300M" */
/* "500ms" "2s" "5m" "1h" */
err yaml_duration_ms(const struct yaml_node *n, int64_t min, int64_t max, int64_t *ret);
/* One of a NULL-terminated list of words; *ret is its index. */
err yaml_enum(const struct yaml_node *n, const char *const *words, int *ret);
/* A list of at_least..at_most finite numbers in [min, max] into ret[at_most]. *ret_n may be NULL. */
err yaml_floats(const struct yaml_node *n, double min, double max, size_t at_least, size_t at_most, float *ret,
                size_t *ret_n);

/* Fails unless the node is NULL or a map (or list): a key that is there with nothing behind it fails. */
err yaml_is_map(const struct yaml_node *n);
err yaml_is_list(const struct yaml_node *n);
/* The child `key`, which must be there. */
err yaml_need(const struct yaml_node *map, const char *key, const struct yaml_node **ret);
/* Is a map, and every key is one of the NULL-terminated `keys`: "a.fsp: unknown key; did you mean 'fps'?". NULL is
 * fine. */
err yaml_check_keys(const struct yaml_node *map, const char *const *keys);

/* The word of a NULL-terminated list that `word` is most likely a mistyping of, or NULL if none is near. */
const char *yaml_nearest(const char *word, const char *const *words);

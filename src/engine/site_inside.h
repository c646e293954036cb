/* What the files of the site reader share: the site being built, and its problems. SPDX-License-Identifier:
 * Apache-2.0 */
#pragma once

#include "engine/site.h"

struct site_inside { /* what the site owns */
    struct yaml *doc;
    void **owned;
    size_t owned_count, owned_cap;
};

struct site_reader {
    struct site *site;
    struct site_problems *problems;
    size_t count; /* problems, also those over the limit */
    err first;    /* code of the first */
    const char **camera_names, **model_names; /* NULL-terminated, for suggestions */
};

/* Notes the thread's sentence as a problem if e is one. Returns e, so that callers can skip what depends on it. */
err site_note(struct site_reader *r, err e);
/* Memory that lives as long as the site. */
void *site_own(struct site *s, void *p);
/* `path` joined to the site file's folder, unless absolute. Owned by the site. */
const char *site_path(struct site *s, const char *path);
/* Names become parts of topics, files and addresses: letters, digits, '_', '-', '.', at most 64. */
err site_name_check(const struct yaml_node *n);
/* "all", one word, or a list of words, each at most once. */
void site_names_read(struct site_reader *r, const struct yaml_node *n, struct site_names *ret);
/* The index of the word in a NULL-terminated list, or -1 and a problem at n with a suggestion. */
int site_find(struct site_reader *r, const struct yaml_node *n, const char *word, const char *const *names,
              const char *kind);

void site_int(struct site_reader *r, const struct yaml_node *map, const char *key, int min, int max, int *ret);
void site_ms(struct site_reader *r, const struct yaml_node *map, const char *key, int64_t max, int64_t *ret);

void site_read_queries(struct site_reader *r, const struct yaml_node *defaults, const struct yaml_node *map);
void site_read_outputs(struct site_reader *r, const struct yaml_node *map);
void site_read_jobs(struct site_reader *r, const struct yaml_node *map);
/* Is it a map of at most `max` well-named things? Makes the list of their names. */
size_t site_count_named(struct site_reader *r, const struct yaml_node *map, size_t max, const char ***ret_names);

/* The keys that a part of the file may have ("site", "camera", "mqtt"...), NULL-terminated; NULL for another word. */
const char *const *site_keys(const char *part);

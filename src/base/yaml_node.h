/* What yaml.c builds and yaml_read.c reads: private to these two files. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/yaml.h"

struct yaml_node {
    const struct yaml *doc;
    const struct yaml_node *parent; /* NULL: the root */
    struct yaml_node *first, *next; /* children in order; the next sibling */
    size_t count, index;            /* children; its place among its siblings, from 0 */
    char *key;                      /* NULL outside maps */
    char *text;                     /* scalars */
    char *written;                  /* the scalar before ${} was expanded; NULL: the same */
    enum yaml_kind kind;
    int line, column, key_line, key_column;
};

struct yaml {
    char *name;
    struct yaml_node *root;
};

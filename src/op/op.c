/* Names of operators and the attributes of nodes.
 *
 * Names are looked up once per node when a file is read, so the search is a plain walk over the list. An
 * attribute of another type than asked for counts as absent: exporters write what they like, and a rule then
 * takes the default or says what is missing.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "op/op.h"

#include <string.h>

static const struct {
    const char *name, *domain;
} NAMES[OP_KIND_COUNT] = {[OP_NONE] = {"none", ""},
#define X(kind, name, domain) [OP_##kind] = {name, domain},
                          OP_LIST(X)
#undef X
};

const char *op_name(enum op_kind kind)
{
    return (unsigned)kind < OP_KIND_COUNT ? NAMES[kind].name : "none";
}

enum op_kind op_find(const char *domain, const char *name)
{
    if (!domain || strcmp(domain, "ai.onnx") == 0) domain = "";
    for (int k = OP_NONE + 1; k < OP_KIND_COUNT; k++)
        if (strcmp(NAMES[k].name, name) == 0 && strcmp(NAMES[k].domain, domain) == 0) return (enum op_kind)k;
    return OP_NONE;
}

const struct op_attr *op_attr(const struct op_node *n, const char *name)
{
    for (int i = 0; i < n->n_attrs; i++)
        if (strcmp(n->attrs[i].name, name) == 0) return &n->attrs[i];
    return NULL;
}

int64_t op_attr_int(const struct op_node *n, const char *name, int64_t otherwise)
{
    const struct op_attr *a = op_attr(n, name);
    return a && a->type == OP_ATTR_INT ? a->i : otherwise;
}

float op_attr_float(const struct op_node *n, const char *name, float otherwise)
{
    const struct op_attr *a = op_attr(n, name);
    return a && a->type == OP_ATTR_FLOAT ? a->f : otherwise;
}

const char *op_attr_string(const struct op_node *n, const char *name, const char *otherwise)
{
    const struct op_attr *a = op_attr(n, name);
    return a && a->type == OP_ATTR_STRING && a->s ? a->s : otherwise;
}

size_t op_attr_ints(const struct op_node *n, const char *name, const int64_t **ret)
{
    const struct op_attr *a = op_attr(n, name);
    if (!a || a->type != OP_ATTR_INTS) return 0;
    *ret = a->ints;
    return a->n;
}

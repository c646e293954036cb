/* Layers of equal architecture over several models, and the bytes that sharing all of them would save (the upper bound of GEMEL).
 *
 * A group's name is its key: a sentence with the operator, the sizes and every attribute, defaults filled in, so that a file that writes
 * `group = 1` and one that leaves it out meet. A weight that two nodes of one model use is one layer: it is stored once already.
 *
 * Invariant: equal_bytes <= saved_bytes <= bytes. For a content that occurs c[i] times in member i, sum(c[i]) - max(c[i]) copies are equal
 * already; the sum of max(c[i]) over the contents of a group is at least max(n[i]). SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_estimate.h"
#include "base/text.h"
#include "weights/store.h"

#include <stdlib.h>
#include <string.h>

/* One tensor of one layer. */
struct merge_numbers {
    struct weights_id id;
    int group, member;
    uint64_t bytes;
};

struct merge_estimate *merge_estimate_new(void)
{
    return xnew(struct merge_estimate);
}

void merge_estimate_free(struct merge_estimate **at)
{
    struct merge_estimate *m = *at;
    if (!m) return;
    for (size_t i = 0; i < m->n_members; i++) {
        free(m->members[i].name);
        free(m->members[i].layers);
    }
    for (size_t i = 0; i < m->n_groups; i++) {
        free(m->groups[i].what);
        free(m->groups[i].counts);
    }
    free(m->members);
    free(m->groups);
    free(m->numbers);
    free(m);
    *at = NULL;
}

/* ---- the key of a layer */

static void add_dims(struct strbuf *b, const struct tensor_shape *s)
{
    for (int i = 0; i < s->rank; i++) strbuf_addf(b, "%s%lld", i ? "x" : "", (long long)s->dims[i]);
}

/* A list of which the default is `n` times `otherwise`; nothing is written for the default. */
static void add_ints(struct strbuf *b, const struct op_node *n, const char *name, int64_t otherwise)
{
    const int64_t *v;
    size_t count = op_attr_ints(n, name, &v), same = 0;
    while (same < count && v[same] == otherwise) same++;
    if (same == count) return;
    strbuf_addf(b, ", %s", name);
    for (size_t i = 0; i < count; i++) strbuf_addf(b, " %lld", (long long)v[i]);
}

static void add_attributes(struct strbuf *b, const struct op_node *n)
{
    if (n->kind == OP_MATMUL) return;
    if (n->kind == OP_GEMM) {
        strbuf_addf(b, "%s%s", op_attr_int(n, "transA", 0) ? ", transA" : "", op_attr_int(n, "transB", 0) ? ", transB" : "");
        if (op_attr_float(n, "alpha", 1) != 1) strbuf_addf(b, ", alpha %.9g", (double)op_attr_float(n, "alpha", 1));
        if (op_attr_float(n, "beta", 1) != 1) strbuf_addf(b, ", beta %.9g", (double)op_attr_float(n, "beta", 1));
        return;
    }
    const char *padding = op_attr_string(n, "auto_pad", "NOTSET");
    add_ints(b, n, "strides", 1);
    if (strcmp(padding, "NOTSET")) strbuf_addf(b, ", auto_pad %s", padding);
    add_ints(b, n, "pads", 0);
    add_ints(b, n, "dilations", 1);
    if (op_attr_int(n, "group", 1) != 1) strbuf_addf(b, ", group %lld", (long long)op_attr_int(n, "group", 1));
    if (n->kind != OP_CONV_TRANSPOSE) return;
    add_ints(b, n, "output_padding", 0);
    const int64_t *v;
    size_t count = op_attr_ints(n, "output_shape", &v);
    for (size_t i = 0; i < count; i++) strbuf_addf(b, "%s %lld", i ? "" : ", output_shape", (long long)v[i]);
}

static char *key_of(const struct op_node *n, const struct graph_value *w, const struct graph_value *bias)
{
    struct strbuf b = {0};
    strbuf_addf(&b, "%s ", op_name(n->kind));
    add_dims(&b, &w->shape);
    if (w->dtype != TENSOR_F32) strbuf_addf(&b, " %s", tensor_dtype_name(w->dtype));
    if (bias && bias->constant) {
        strbuf_add(&b, " + bias");
        if (bias->shape.rank != 1) add_dims(&b, &bias->shape);
        else if (n->kind == OP_GEMM) strbuf_addf(&b, " %lld", (long long)bias->shape.dims[0]);
    } else if (bias) {
        strbuf_add(&b, " + computed bias");
    }
    add_attributes(&b, n);
    return strbuf_take(&b);
}

/* ---- members */

static int group_of(struct merge_estimate *m, char *what, uint64_t bytes)
{
    for (size_t i = 0; i < m->n_groups; i++)
        if (m->groups[i].bytes == bytes && !strcmp(m->groups[i].what, what)) return free(what), (int)i;
    vec_grow(&m->groups, &m->cap_groups, m->n_groups);
    m->groups[m->n_groups] = (struct merge_group){.what = what, .bytes = bytes};
    return (int)m->n_groups++;
}

static void add_numbers(struct merge_estimate *m, int group, const struct graph_value *v)
{
    vec_grow(&m->numbers, &m->cap_numbers, m->n_numbers);
    m->numbers[m->n_numbers++] = (struct merge_numbers){.id = weights_blob_id(v->dtype, &v->shape, v->constant, v->constant_bytes),
                                                        .group = group, .member = (int)m->n_members - 1, .bytes = v->constant_bytes};
}

static bool is_layer(const struct graph *g, const struct op_node *n)
{
    bool kind = n->kind == OP_CONV || n->kind == OP_CONV_TRANSPOSE || n->kind == OP_GEMM || n->kind == OP_MATMUL;
    return kind && n->n_in > 1 && n->in[1] >= 0 && g->values[n->in[1]].constant && g->values[n->in[1]].shape.rank > 1;
}

void merge_estimate_add(struct merge_estimate *m, const char *name, const struct graph *g)
{
    char *seen = xcalloc(g->n_values + 1, 1);
    vec_grow(&m->members, &m->cap_members, m->n_members);
    struct merge_estimated *member = &m->members[m->n_members++];
    *member = (struct merge_estimated){.name = xstrdup(name)};
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct op_node *n = &g->nodes[i].op;
        if (g->nodes[i].dead || !is_layer(g, n) || seen[n->in[1]]++) continue;
        const struct graph_value *w = &g->values[n->in[1]], *bias = n->n_in > 2 && n->in[2] >= 0 ? &g->values[n->in[2]] : NULL;
        bool own_bias = bias && bias->constant;
        struct merge_layer layer = {.value = n->in[1], .weight_bytes = w->constant_bytes, .bytes = w->constant_bytes + (own_bias ? bias->constant_bytes : 0)};
        layer.group = group_of(m, key_of(n, w, bias), layer.bytes);
        add_numbers(m, layer.group, w);
        if (own_bias) add_numbers(m, layer.group, bias);
        vec_grow(&member->layers, &member->cap_layers, member->n_layers);
        member->layers[member->n_layers++] = layer;
        member->bytes += layer.bytes;
    }
    free(seen);
}

/* ---- sums */

static int by_content(const void *a, const void *b)
{
    const struct merge_numbers *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    int order = memcmp(&x->id, &y->id, sizeof x->id);
    return order ? order : (x->member > y->member) - (x->member < y->member);
}

static void count_equal(struct merge_estimate *m)
{
    if (m->n_numbers) qsort(m->numbers, m->n_numbers, sizeof *m->numbers, by_content);
    for (size_t i = 0, end; i < m->n_numbers; i = end) {
        const struct merge_numbers *first = &m->numbers[i];
        size_t most = 0, here = 0;
        for (end = i; end < m->n_numbers && m->numbers[end].group == first->group && weights_id_equal(&m->numbers[end].id, &first->id); end++) {
            here = end > i && m->numbers[end].member == m->numbers[end - 1].member ? here + 1 : 1;
            most = MAX(most, here);
        }
        m->groups[first->group].equal_bytes += (end - i - most) * first->bytes;
    }
}

struct ranked {
    struct merge_group group;
    int was;
};

static int by_saving(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->group.saved_bytes != y->group.saved_bytes) return x->group.saved_bytes > y->group.saved_bytes ? -1 : 1;
    if (x->group.bytes != y->group.bytes) return x->group.bytes > y->group.bytes ? -1 : 1;
    return strcmp(x->group.what, y->group.what);
}

static void rank_groups(struct merge_estimate *m)
{
    struct ranked *r = xnewn(struct ranked, m->n_groups + 1);
    int *now = xnewn(int, m->n_groups + 1);
    for (size_t i = 0; i < m->n_groups; i++) r[i] = (struct ranked){m->groups[i], (int)i};
    qsort(r, m->n_groups, sizeof *r, by_saving);
    for (size_t i = 0; i < m->n_groups; i++) {
        m->groups[i] = r[i].group;
        now[r[i].was] = (int)i;
    }
    for (size_t i = 0; i < m->n_members; i++)
        for (size_t k = 0; k < m->members[i].n_layers; k++) m->members[i].layers[k].group = now[m->members[i].layers[k].group];
    free(r);
    free(now);
}

void merge_estimate_finish(struct merge_estimate *m)
{
    for (size_t g = 0; g < m->n_groups; g++) m->groups[g].counts = xnewn(int, m->n_members);
    for (size_t i = 0; i < m->n_members; i++) {
        struct merge_estimated *member = &m->members[i];
        for (size_t k = 0; k < member->n_layers; k++) member->layers[k].nth = m->groups[member->layers[k].group].counts[i]++;
        m->bytes += member->bytes;
    }
    count_equal(m);
    for (size_t g = 0; g < m->n_groups; g++) {
        struct merge_group *group = &m->groups[g];
        uint64_t sum = 0;
        for (size_t i = 0; i < m->n_members; i++) {
            int n = group->counts[i];
            sum += (uint64_t)n;
            group->second = MAX(group->second, MIN(n, group->most));
            group->most = MAX(group->most, n);
        }
        group->saved_bytes = (sum - (uint64_t)group->most) * group->bytes;
        m->saved_bytes += group->saved_bytes;
        m->equal_bytes += group->equal_bytes;
    }
    rank_groups(m);
}

double merge_estimate_share(const struct merge_estimate *m)
{
    return m->bytes ? (double)m->saved_bytes / (double)m->bytes : 0;
}

json_t *merge_estimate_json(const struct merge_estimate *m)
{
    json_t *members = json_array(), *layers = json_array();
    for (size_t i = 0; i < m->n_members; i++)
        json_array_append_new(members, json_pack("{s:o, s:I, s:I}", "name", text_json(m->members[i].name), "layers",
                                                 (json_int_t)m->members[i].n_layers, "bytes", (json_int_t)m->members[i].bytes));
    for (size_t g = 0; g < m->n_groups && m->groups[g].saved_bytes; g++) {
        const struct merge_group *group = &m->groups[g];
        json_t *counts = json_array();
        for (size_t i = 0; i < m->n_members; i++) json_array_append_new(counts, json_integer(group->counts[i]));
        json_array_append_new(layers, json_pack("{s:o, s:I, s:o, s:I, s:I}", "layer", text_json(group->what), "bytes", (json_int_t)group->bytes,
                                                "counts", counts, "saved_bytes", (json_int_t)group->saved_bytes, "equal_bytes",
                                                (json_int_t)group->equal_bytes));
    }
    return json_pack("{s:o, s:I, s:I, s:f, s:I, s:o}", "members", members, "bytes", (json_int_t)m->bytes, "saved_bytes",
                     (json_int_t)m->saved_bytes, "saved_share", merge_estimate_share(m), "equal_bytes", (json_int_t)m->equal_bytes,
                     "layers", layers);
}

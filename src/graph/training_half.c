/* Images between the operators of a training graph as bf16: half of the bytes, in memory and over the bus, and products need not round what they read.
 *
 * A value of four axes becomes bf16 if what makes it and all that read it work on either type: convolutions and their gradients, batch normalisation and its
 * gradient, sums, activations and their gradients. So no casts are needed, and values are decided one by one; only Clip, which gives what it takes, ties two
 * together; and a value with what recomputation made of it again (recompute.h), which has its name, so that both have the same bits. Weights, their gradients, statistics, losses and the optimiser stay f32 (Micikevicius et al., Mixed Precision Training, 2018; bf16: Kalamkar et
 * al., 2019). SPDX-License-Identifier: Apache-2.0 */
#include "graph/training.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST_NUMBERS = 4096 }; /* less is not worth a rounding */

static bool is_function(enum op_kind k)
{
    switch (k) {
    case OP_RELU: case OP_LEAKY_RELU: case OP_SIGMOID: case OP_SILU: case OP_HARD_SIGMOID: case OP_HARD_SWISH: case OP_CLIP: return true;
    default: return false;
    }
}

/* Kinds whose first output is an image like those of their inputs that reads_either() names. */
static bool makes_either(const struct graph_node *n)
{
    switch (n->op.kind) {
    case OP_CONV: case OP_CONV_TRANSPOSE: case OP_BATCH_NORM_TRAIN: case OP_BATCH_NORM_GRAD: case OP_ADD: case OP_UNARY_GRAD: case OP_DROPOUT_BY: return true;
    default: return is_function(n->op.kind);
    }
}

static bool reads_either(const struct graph_node *n, int k)
{
    if (k >= n->n_own_in) return n->op.kind == OP_CONV_TRANSPOSE; /* what it adds at its end */
    switch (n->op.kind) {
    case OP_CONV: case OP_CONV_TRANSPOSE: case OP_BATCH_NORM_TRAIN: case OP_DROPOUT_BY: return k == 0;
    case OP_CONV_GRAD_WEIGHT: case OP_BATCH_NORM_GRAD: case OP_ADD: case OP_UNARY_GRAD: return k < 2;
    default: return is_function(n->op.kind) && k == 0;
    }
}

static bool adds(const struct graph_node *n)
{
    for (int i = 0; i < n->n_post; i++)
        if (n->post[i].kind == KERNEL_POST_ADD) return true;
    return false;
}

static bool is_image(const struct graph *g, int v)
{
    const struct graph_value *x = &g->values[v];
    return x->dtype == TENSOR_F32 && x->shape.rank == 4 && !x->constant && !x->is_input && !x->is_output && !x->loose && !x->shape.bounded &&
           tensor_count(&x->shape) >= LEAST_NUMBERS;
}

/* What no reader refuses, and somebody makes as bf16. */
static void choose(const struct graph *g, bool *half)
{
    bool *refused = xcalloc(g->n_values + 1, sizeof *refused);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct graph_node *n = &g->nodes[i];
        if (n->dead) continue;
        bool sum_at_end = adds(n) && n->op.kind != OP_CONV_TRANSPOSE;
        for (int k = 0; k < n->op.n_in; k++)
            if (n->op.in[k] >= 0 && !reads_either(n, k)) refused[n->op.in[k]] = true;
        for (int k = 0; k < n->op.n_out; k++)
            if (n->op.out[k] >= 0) half[n->op.out[k]] = k == 0 && makes_either(n) && !sum_at_end && is_image(g, n->op.out[k]);
    }
    for (size_t v = 0; v < g->n_values; v++) half[v] = half[v] && !refused[v];
    free(refused);
}

static bool tie(bool *half, int a, int b)
{
    bool changed = half[a] != half[b];
    half[a] = half[b] = half[a] && half[b];
    return changed;
}

static bool tie_clips(const struct graph *g, bool *half)
{
    bool changed = false;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct graph_node *n = &g->nodes[i];
        if (!n->dead && n->op.kind == OP_CLIP) changed |= tie(half, n->op.in[0], n->op.out[0]);
    }
    return changed;
}

struct named {
    const char *name;
    int value;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

/* Images that have a name, in the order of names: those made again stand beside each other. */
static struct named *list_names(const struct graph *g, size_t *ret_n)
{
    struct named *list = xnewn(struct named, g->n_values + 1);
    *ret_n = 0;
    for (size_t v = 0; v < g->n_values; v++)
        if (is_image(g, (int)v) && g->values[v].name && *g->values[v].name) list[(*ret_n)++] = (struct named){g->values[v].name, (int)v};
    qsort(list, *ret_n, sizeof *list, by_name);
    return list;
}

static bool tie_copies(const struct named *list, size_t n, bool *half)
{
    bool changed = false;
    for (size_t i = 1; i < n; i++)
        if (!strcmp(list[i - 1].name, list[i].name)) changed |= tie(half, list[i - 1].value, list[i].value);
    return changed;
}

void graph_training_to_bf16(struct graph *g)
{
    bool *half = xcalloc(g->n_values + 1, sizeof *half);
    size_t n;
    struct named *names = list_names(g, &n);
    choose(g, half);
    for (bool changed = true; changed;) {
        changed = tie_clips(g, half);
        changed |= tie_copies(names, n, half);
    }
    free(names);
    for (size_t v = 0; v < g->n_values; v++)
        if (half[v]) g->values[v].dtype = TENSOR_BF16;
    free(half);
}

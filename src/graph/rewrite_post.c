/* Post-ops: what follows Conv, ConvTranspose, Gemm or MatMul element by element is done while its result is still
 * at hand.
 *
 * Condition for all: float32, and the value between has one reader and is no output. SPDX-License-Identifier:
 * Apache-2.0 */
#include <math.h>

#include "graph/rewrite.h"

/* The operator that can take one more post-op and whose result only this reader sees, or -1. */
static int host(const struct graph_rewriter *r, int value)
{
    int p = graph_rw_producer(r, value);
    if (p < 0 || !graph_rw_single(r, value) || !graph_rw_is_f32(r->g, value)) return -1;
    const struct graph_node *n = &r->g->nodes[p];
    enum op_kind k = n->op.kind;
    if (k != OP_CONV && k != OP_CONV_TRANSPOSE && k != OP_GEMM && k != OP_MATMUL) return -1;
    return !n->apart && n->n_post < KERNEL_MAX_POST && n->op.n_out == 1 && !r->g->values[value].shape.bounded ? p : -1;
}

static bool number_or_absent(const struct graph *g, const struct graph_node *n, int i, float *ret)
{
    return i >= n->op.n_in || n->op.in[i] < 0 || graph_rw_scalar(g, n->op.in[i], ret);
}

/* The post-op that does what node `n` does; false if there is none. */
static bool as_post(const struct graph *g, const struct graph_node *n, struct kernel_post *ret)
{
    struct kernel_post p = {.kind = (enum kernel_post_kind)0};
    switch (n->op.kind) {
    case OP_RELU: p.kind = KERNEL_POST_RELU; break;
    case OP_LEAKY_RELU:
        p.kind = KERNEL_POST_LEAKY_RELU;
        p.alpha = op_attr_float(&n->op, "alpha", 0.01f);
        break;
    case OP_CLIP:
        p.kind = KERNEL_POST_CLIP;
        p.alpha = op_attr_float(&n->op, "min", -INFINITY);
        p.beta = op_attr_float(&n->op, "max", INFINITY);
        if (!number_or_absent(g, n, 1, &p.alpha) || !number_or_absent(g, n, 2, &p.beta)) return false;
        break;
    case OP_SIGMOID: p.kind = KERNEL_POST_SIGMOID; break;
    case OP_SILU: p.kind = KERNEL_POST_SILU; break;
    case OP_HARD_SIGMOID:
        p.kind = KERNEL_POST_HARD_SIGMOID;
        p.alpha = op_attr_float(&n->op, "alpha", 0.2f);
        p.beta = op_attr_float(&n->op, "beta", 0.5f);
        break;
    case OP_HARD_SWISH: p.kind = KERNEL_POST_HARD_SWISH; break;
    case OP_TANH: p.kind = KERNEL_POST_TANH; break;
    case OP_ELU:
        p.kind = KERNEL_POST_ELU;
        p.alpha = op_attr_float(&n->op, "alpha", 1.0f);
        break;
    default: return false;
    }
    *ret = p;
    return true;
}

/* activation(linear) -> linear with a post-op. Clip: its bounds are constants. */
int graph_rule_post_activation(struct graph_rewriter *r, int node)
{
    const struct graph_node *n = &r->g->nodes[node];
    struct kernel_post post;
    if (n->n_post || n->op.n_in < 1 || !as_post(r->g, n, &post)) return 0;
    int p = host(r, n->op.in[0]);
    if (p < 0) return 0;
    struct graph_node *h = &r->g->nodes[p];
    h->post[h->n_post++] = post;
    graph_rw_take_over(r, p, node);
    return 1;
}

static bool adds_already(const struct graph_node *n)
{
    for (int i = 0; i < n->n_post; i++)
        if (n->post[i].kind == KERNEL_POST_ADD) return true;
    return false;
}

/* Own inputs first, absent ones as -1, so that a post-op's input is never taken for a bias. */
void graph_rw_add_post(struct graph_node *n, enum kernel_post_kind kind, int value)
{
    int own = n->op.kind == OP_MATMUL ? 2 : 3, posts = n->op.n_in - n->n_own_in; /* of other post-ops */
    if (!posts && n->op.n_in < own) graph_rw_set_input(n, own - 1, -1);
    int at = n->op.n_in, keep = n->n_own_in;
    graph_rw_set_input(n, at, value);
    n->n_own_in = keep;
    n->post[n->n_post++] = (struct kernel_post){.kind = kind, .input = at};
}

/* linear + y -> linear with the post-op Add, one per operator. Condition: equal shapes, y not constant. Of two
 * candidates the later one is taken: the other's result is there by then. No cycle can come of it, for the linear
 * operator's only reader was the Add. */
int graph_rule_post_add(struct graph_rewriter *r, int node)
{
    struct graph *g = r->g;
    const struct graph_node *n = &g->nodes[node];
    if ((n->op.kind != OP_ADD && n->op.kind != OP_SUM) || n->op.n_in != 2 || n->n_post) return 0;
    int best = -1, other = -1;
    for (int i = 0; i < 2; i++) {
        int x = n->op.in[i], y = n->op.in[1 - i], p = host(r, x);
        if (p < 0 || p < best || adds_already(&g->nodes[p]) || !graph_rw_is_f32(g, y) || g->values[y].constant)
            continue;
        if (!tensor_shape_equal(&g->values[x].shape, &g->values[y].shape) || g->values[y].shape.bounded) continue;
        if (g->nodes[p].op.n_in + 2 > KERNEL_MAX_IN) continue;
        best = p;
        other = y;
    }
    if (best < 0) return 0;
    graph_rw_add_post(&g->nodes[best], KERNEL_POST_ADD, other);
    graph_rw_take_over(r, best, node);
    if (r->producer[other] > best) { /* it runs where the Add was: in its own place it would draw all that y is made of before it */
        struct graph_node moved = g->nodes[best];
        g->nodes[best] = g->nodes[node];
        g->nodes[node] = moved;
    }
    return 1;
}

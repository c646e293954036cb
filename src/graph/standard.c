/* Operators that the ONNX standard defines by a body of others and that brim has no kernel for: the body is put in their place while
 * the file is read. https://onnx.ai/onnx/operators/ (NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss, MeanVarianceNormalization).
 *
 * Types are not known yet, so constants are cast like the value they meet. The loss of a sample is gathered with ignored labels set to
 * 0 and weighted with 0, as the standard's own body does it. SPDX-License-Identifier: Apache-2.0 */
#include "graph/standard.h"

/* log_prob [N, C, d...], labels [N, d...], weights [C] or -1. */
static void nll(struct maker *m, const struct op_node *n, int log_prob, int labels, int weights, int to)
{
    const char *reduction = op_attr_string(n, "reduction", "mean");
    bool ignores = op_attr(n, "ignore_index") != NULL;
    int one = integer(m, 1, 1), ignored = -1, w = -1;
    int label = node(m, OP_UNSQUEEZE, labels, one, -1, -1);
    if (ignores) {
        int which = node(m, OP_CAST_LIKE, integer(m, 0, op_attr_int(n, "ignore_index", 0)), label, -1, -1);
        ignored = node(m, OP_EQUAL, label, which, -1, -1);
        label = node(m, OP_WHERE, ignored, node(m, OP_CAST_LIKE, integer(m, 0, 0), label, -1, -1), label, -1);
    }
    int loss = node(m, OP_NEG, node(m, OP_GATHER_ELEMENTS, log_prob, label, -1, -1), -1, -1, -1);
    graph_set_int(&m->g->nodes[m->g->n_nodes - 2], "axis", 1);
    if (weights >= 0) w = node(m, OP_GATHER, weights, label, -1, -1);
    if (ignores) {
        int zero = node(m, OP_CAST_LIKE, real(m, 0), log_prob, -1, -1);
        if (w < 0) w = node(m, OP_CAST_LIKE, real(m, 1), log_prob, -1, -1);
        w = node(m, OP_WHERE, ignored, zero, w, -1);
    }
    if (w >= 0) loss = node(m, OP_MUL, loss, w, -1, -1);
    if (strcmp(reduction, "none") == 0) {
        node(m, OP_SQUEEZE, loss, one, -1, to);
        return;
    }
    bool mean = strcmp(reduction, "mean") == 0;
    int sum = node(m, mean && w < 0 ? OP_REDUCE_MEAN : OP_REDUCE_SUM, loss, -1, -1, mean && w >= 0 ? -1 : to);
    graph_set_int(last(m), "keepdims", 0);
    if (!mean || w < 0) return;
    int total = node(m, OP_REDUCE_SUM, w, -1, -1, -1);
    graph_set_int(last(m), "keepdims", 0);
    node(m, OP_DIV, sum, total, -1, to);
}

static void mvn(struct maker *m, const struct op_node *n)
{
    static const int64_t usual[] = {0, 2, 3};
    const int64_t *axes = usual;
    size_t n_axes = op_attr(n, "axes") ? op_attr_ints(n, "axes", &axes) : ARRAY_LEN(usual);
    int mean = node(m, OP_REDUCE_MEAN, n->in[0], -1, -1, -1);
    graph_set_ints(last(m), "axes", axes, n_axes);
    int off = node(m, OP_SUB, n->in[0], mean, -1, -1);
    int square = node(m, OP_MUL, off, off, -1, -1);
    int variance = node(m, OP_REDUCE_MEAN, square, -1, -1, -1);
    graph_set_ints(last(m), "axes", axes, n_axes);
    int deviation = node(m, OP_SQRT, variance, -1, -1, -1);
    int least = node(m, OP_CAST_LIKE, real(m, 1e-9f), deviation, -1, -1);
    node(m, OP_DIV, off, node(m, OP_ADD, deviation, least, -1, -1), -1, n->out[0]);
}

bool graph_standard_has(const char *domain, const char *name)
{
    if (graph_standard_more_has(domain, name)) return true;
    if (*domain && strcmp(domain, "ai.onnx") != 0) return false;
    return strcmp(name, "NegativeLogLikelihoodLoss") == 0 || strcmp(name, "SoftmaxCrossEntropyLoss") == 0 ||
           strcmp(name, "MeanVarianceNormalization") == 0;
}

err graph_standard_expand(struct graph_reader *r, struct graph *g, const char *domain, const char *name, size_t at)
{
    struct op_node n = g->nodes[at].op; /* its arrays stay where they are; the list of nodes may move */
    struct maker m = {.r = r, .g = g, .name = *n.name ? n.name : name};
    if (graph_standard_more_has(domain, name)) {
        graph_standard_more(&m, domain, name, at, &n);
        return m.e;
    }
    bool loss = strcmp(name, "MeanVarianceNormalization") != 0;
    for (int i = 0; i < 1 + loss; i++)
        if (n.n_in < 1 + loss || n.in[i] < 0) return err_set(ERR_FORMAT, "%s needs %d inputs", name, 1 + loss);
    if (n.out[0] < 0 && n.n_out < 2) return err_set(ERR_FORMAT, "%s makes nothing", name);
    g->nodes[at].dead = true;
    int weights = n.n_in > 2 ? n.in[2] : -1;
    if (!loss) {
        mvn(&m, &n);
    } else if (strcmp(name, "SoftmaxCrossEntropyLoss") == 0) {
        int log_prob = node(&m, OP_LOG_SOFTMAX, n.in[0], -1, -1, n.n_out > 1 ? n.out[1] : -1);
        graph_set_int(last(&m), "axis", 1);
        nll(&m, &n, log_prob, n.in[1], weights, n.out[0]);
    } else {
        nll(&m, &n, n.in[0], n.in[1], weights, n.out[0]);
    }
    return m.e;
}

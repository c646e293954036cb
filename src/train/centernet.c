/* Heat: with p the output and y the target, -(1 - p)^2 log p at centres (y = 1) and -(1 - y)^4 p^2 log(1 - p) elsewhere. Logarithms are made of the logits, the
 * input of the sigmoid: -log p = softplus(-x), -log(1 - p) = softplus(x), which need no bound and never lose their slope.
 *
 * The target of a class is the largest of its boxes' bells, exp(-d^2 / 2 s^2) around the cell of the centre, s a sixth of 2 r + 1, within r cells of it each way.
 * r is CornerNet's (Law and Deng 2018): the least of three cases, a box inside the true one, around it, or moved. Their code and CenterNet's divide the roots by 2
 * where the quadratic formula says 2 a, and ask for an IoU of 0.7; solved rightly that would make bells of one cell of most things, so here the roots are right and
 * the IoU is 0.3, which gives bells as wide as theirs.
 * Of two objects of a class whose centres share a cell, the later one's size and offset are learnt. SPDX-License-Identifier: Apache-2.0 */
#include "train/centernet.h"

#include <math.h>
#include <string.h>

static const double LEAST_OVERLAP = 0.3, SIZE_WEIGHT = 0.1;

bool train_centernet_is(const struct graph *g)
{
    return g->n_outputs > 0 && g->values[g->outputs[0]].shape.rank == 4;
}

static const struct tensor_shape *shape_of(const struct graph *g, int output)
{
    return &g->values[g->outputs[output]].shape;
}

err train_centernet_of(const struct graph *g, int width, int height, struct train_centernet *ret)
{
    char text[96];
    struct tensor_shape two;
    int bad = g->n_outputs < 3 || !train_centernet_is(g) ? 0 : -1;
    if (g->n_outputs < 1) return err_set(ERR_SHAPE, "%s: no output", g->name);
    if (bad < 0) {
        two = *shape_of(g, 0);
        if (two.dims[1] < 1 || two.dims[2] < 1 || two.dims[3] < 1 || height % two.dims[2] || width % two.dims[3] || height / two.dims[2] != width / two.dims[3]) bad = 0;
        two.dims[1] = 2;
    }
    for (int i = 1; i < 3 && bad < 0; i++)
        if (!tensor_shape_equal(&two, shape_of(g, i))) bad = i;
    if (bad >= 0)
        return err_set(ERR_SHAPE, "%s: %d outputs, number %d is %s; a detector with heat maps gives [N, classes, h, w], sizes [N, 2, h, w] and offsets [N, 2, h, w], and h and w "
                       "divide the picture's %d and %d by the same number", g->name, g->n_outputs, bad,
                       tensor_shape_text(shape_of(g, bad), (const char *const *)g->symbols, text, sizeof text), height, width);
    const struct tensor_shape *heat = shape_of(g, 0);
    *ret = (struct train_centernet){.width = width, .height = height, .classes = (int)heat->dims[1], .rows = (int)heat->dims[2], .columns = (int)heat->dims[3]};
    return ERR_OK;
}

/* ---- the loss */

/* What makes a value, past a Clip (the authors keep p from 0 and 1); NULL: an input or a constant. */
static const struct graph_node *made_by(const struct graph *g, int value)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct graph_node *n = &g->nodes[i];
        if (n->dead || n->op.out[0] != value) continue;
        return n->op.kind == OP_CLIP || n->op.kind == OP_IDENTITY ? made_by(g, n->op.in[0]) : n;
    }
    return NULL;
}

static int number(struct graph_builder *b, double v)
{
    return graph_b_number(b, TENSOR_F32, v);
}

static int product(struct graph_builder *b, int x, int y, int z)
{
    return graph_b2(b, OP_MUL, graph_b2(b, OP_MUL, x, y), z);
}

static int sum(struct graph_builder *b, int x)
{
    return graph_b_reduce(b, OP_REDUCE_SUM, x, NULL, -1, false);
}

/* 1 where y is 1, else 0. */
static int centres(struct graph_builder *b, int y)
{
    struct graph_node *n = graph_b_open(b, OP_CAST, (int[]){graph_b2(b, OP_EQUAL, y, number(b, 1))}, 1, 1);
    graph_set_int(n, "to", TENSOR_F32);
    return graph_b_close(b, n);
}

static int heat_loss(struct graph_builder *b, int x, int p, int y, int at)
{
    int one = number(b, 1), less = graph_b2(b, OP_SUB, one, y), no = graph_b2(b, OP_SUB, one, p);
    int yes = graph_b1(b, OP_SOFTPLUS, graph_b_scale(b, x, -1)), not = graph_b1(b, OP_SOFTPLUS, x);
    int square = graph_b2(b, OP_MUL, less, less);
    int there = graph_b2(b, OP_MUL, at, product(b, no, no, yes));
    int elsewhere = graph_b2(b, OP_MUL, graph_b2(b, OP_MUL, square, square), product(b, p, p, not));
    return graph_b2(b, OP_ADD, sum(b, there), sum(b, elsewhere));
}

err train_loss_centernet(struct graph_builder *b, const struct graph_training *t, void *context, int *ret_loss)
{
    struct train_centernet *c = context;
    err e = train_centernet_of(t->g, c->width, c->height, c);
    if (e) return e;
    const struct graph_node *sigmoid = made_by(t->g, t->g->outputs[0]);
    if (!sigmoid || sigmoid->op.kind != OP_SIGMOID)
        return err_set(ERR_UNSUPPORTED, "%s: output '%s', the heat map, comes out of %s; to be trained it comes out of a Sigmoid", t->g->name,
                       t->g->values[t->g->outputs[0]].name, sigmoid ? op_name(sigmoid->op.kind) : "nothing");
    int x = sigmoid->op.in[0], p = sigmoid->op.out[0], target[3], part[2];
    static const char *const names[] = {"train_heat", "train_size", "train_offset"};
    for (int i = 0; i < 3; i++) {
        struct tensor_shape s = t->g->values[t->g->outputs[i]].shape;
        target[i] = graph_add_input(b->g, names[i], TENSOR_F32, &s);
    }
    int64_t classes = 1;
    int at = centres(b, target[0]), cells = graph_b_reduce(b, OP_REDUCE_MAX, at, &classes, 1, true);
    for (int i = 0; i < 2; i++) {
        int away = graph_b1(b, OP_ABS, graph_b2(b, OP_SUB, t->g->outputs[1 + i], target[1 + i]));
        part[i] = sum(b, graph_b2(b, OP_MUL, cells, away));
    }
    int all = graph_b2(b, OP_ADD, heat_loss(b, x, p, target[0], at), graph_b2(b, OP_ADD, graph_b_scale(b, part[0], SIZE_WEIGHT), part[1]));
    *ret_loss = graph_b2(b, OP_DIV, all, graph_b2(b, OP_MAX, sum(b, at), number(b, 1)));
    return b->e;
}

/* ---- what it aims at */

/* A smaller root of a r^2 - b r + c = 0, or the positive one where c is below 0. */
static double root(double a, double b, double c)
{
    double d = sqrt(fmax(b * b - 4 * a * c, 0));
    return c < 0 ? (b + d) / (2 * a) : (b - d) / (2 * a);
}

double train_centernet_radius(double w, double h)
{
    double o = LEAST_OVERLAP;
    double moved = root(1, w + h, w * h * (1 - o) / (1 + o)), inside = root(4, 2 * (w + h), (1 - o) * w * h), around = root(4 * o, -2 * o * (w + h), (o - 1) * w * h);
    return fmin(moved, fmin(inside, around));
}

static void bell(const struct train_centernet *c, float *map, int row, int column, int radius)
{
    double s = (2 * radius + 1) / 6.0;
    for (int r = MAX(row - radius, 0); r <= MIN(row + radius, c->rows - 1); r++)
        for (int k = MAX(column - radius, 0); k <= MIN(column + radius, c->columns - 1); k++) {
            float *to = &map[(size_t)r * (size_t)c->columns + (size_t)k], v = (float)exp(-((r - row) * (r - row) + (k - column) * (k - column)) / (2 * s * s));
            *to = fmaxf(*to, v);
        }
}

void train_centernet_aim(const struct train_centernet *c, const struct train_box *boxes, int n, float *heat, float *size, float *offset)
{
    size_t plane = (size_t)c->rows * (size_t)c->columns;
    float stride = (float)c->width / (float)c->columns;
    memset(heat, 0, (size_t)c->classes * plane * sizeof *heat);
    memset(size, 0, 2 * plane * sizeof *size);
    memset(offset, 0, 2 * plane * sizeof *offset);
    for (int i = 0; i < n; i++) {
        const struct train_box *b = &boxes[i];
        float w = (b->x2 - b->x1) / stride, h = (b->y2 - b->y1) / stride, x = (b->x1 + b->x2) / 2 / stride, y = (b->y1 + b->y2) / 2 / stride;
        if (!(w > 0 && h > 0) || b->class_id < 0 || b->class_id >= c->classes) continue;
        int column = MAX(MIN((int)x, c->columns - 1), 0), row = MAX(MIN((int)y, c->rows - 1), 0);
        size_t at = (size_t)row * (size_t)c->columns + (size_t)column;
        bell(c, heat + (size_t)b->class_id * plane, row, column, (int)train_centernet_radius((double)w, (double)h));
        size[at] = w;
        size[plane + at] = h;
        offset[at] = x - (float)column;
        offset[plane + at] = y - (float)row;
    }
}

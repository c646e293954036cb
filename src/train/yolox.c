/* SimOTA (YOLOX, section 2.2; OTA: Ge et al. 2021): a cell is a candidate if its centre lies in a true box or within 2.5 strides of one's centre. The cost of
 * (box, cell) is the cross entropy of sqrt(objectness class) plus 3 times -log IoU, plus 1e5 unless the cell is both in the box and near its centre. A box takes
 * k = sum of its ten best IoUs (at least 1) of the cheapest cells; a cell wanted by several goes to the cheapest.
 * Ties are broken by the cell's number, so that equal inputs give equal targets. SPDX-License-Identifier: Apache-2.0 */
#include "train/yolox.h"

#include <math.h>
#include <string.h>

static const int STRIDES[TRAIN_YOLOX_STRIDES] = {8, 16, 32};

err train_yolox_of(const struct graph *g, int width, int height, struct train_yolox *ret)
{
    int64_t cells = 0;
    char text[96];
    for (int s = 0; s < TRAIN_YOLOX_STRIDES; s++) cells += (int64_t)(width / STRIDES[s]) * (height / STRIDES[s]);
    if (g->n_outputs < 1) return err_set(ERR_SHAPE, "%s: no output", g->name);
    const struct graph_value *v = &g->values[g->outputs[0]];
    tensor_shape_text(&v->shape, (const char *const *)g->symbols, text, sizeof text);
    if (v->shape.rank != 3 || v->shape.dims[1] != cells || v->shape.dims[2] < 6)
        return err_set(ERR_SHAPE, "%s: output '%s' is %s; a detector to be trained gives [N, %lld, 5 + classes], as YOLOX does for strides 8, 16, 32 without its decoder",
                       g->name, v->name, text, (long long)cells);
    *ret = (struct train_yolox){.width = width, .height = height, .classes = (int)v->shape.dims[2] - 5, .cells = cells};
    return ERR_OK;
}

void train_yolox_cell(const struct train_yolox *y, int64_t i, int *ret_x, int *ret_y, int *ret_stride)
{
    int s = 0;
    for (; s < TRAIN_YOLOX_STRIDES - 1; s++) {
        int64_t here = (int64_t)(y->width / STRIDES[s]) * (y->height / STRIDES[s]);
        if (i < here) break;
        i -= here;
    }
    int across = MAX(y->width / STRIDES[s], 1);
    *ret_x = (int)(i % across);
    *ret_y = (int)(i / across);
    *ret_stride = STRIDES[s];
}

/* ---- the loss */

static int number(struct graph_builder *b, double v)
{
    return graph_b_number(b, TENSOR_F32, v);
}

static int part(struct graph_builder *b, int x, int64_t from, int64_t to)
{
    int64_t axis = 2;
    int in[] = {x, graph_b_ints(b, &from, 1), graph_b_ints(b, &to, 1), graph_b_ints(b, &axis, 1)};
    if (b->e) return -1;
    struct graph_node *n = graph_b_open(b, OP_SLICE, in, 4, 1);
    return graph_b_close(b, n);
}

static int sum(struct graph_builder *b, int x)
{
    return graph_b_reduce(b, OP_REDUCE_SUM, x, NULL, -1, false);
}

/* -(t log p + (1 - t) log(1 - p)), p kept between 1e-7 and 1 - 1e-6. */
static int cross_entropy(struct graph_builder *b, int p, int t)
{
    int one = number(b, 1);
    int bounds[] = {p, number(b, 1e-7), number(b, 1 - 1e-6)};
    if (b->e) return -1;
    p = graph_b_close(b, graph_b_open(b, OP_CLIP, bounds, 3, 1)); /* its gradient is one operator; that of Min and Max shares ties */
    int yes = graph_b2(b, OP_MUL, t, graph_b1(b, OP_LOG, p));
    int no = graph_b2(b, OP_MUL, graph_b2(b, OP_SUB, one, t), graph_b1(b, OP_LOG, graph_b2(b, OP_SUB, one, p)));
    return graph_b_scale(b, graph_b2(b, OP_ADD, yes, no), -1);
}

/* Columns x, y of the cells and their strides, as [1, cells, 2] and [1, cells, 1]. */
static err cells(struct graph_builder *b, const struct train_yolox *y, int *ret_grid, int *ret_stride)
{
    struct tensor_shape two = {.rank = 3, .dims = {1, y->cells, 2}}, one = {.rank = 3, .dims = {1, y->cells, 1}};
    float *grid, *stride;
    err e = graph_add_constant(b->g, "train_grid", TENSOR_F32, &two, ret_grid, (void **)&grid);
    if (!e) e = graph_add_constant(b->g, "train_stride", TENSOR_F32, &one, ret_stride, (void **)&stride);
    for (int64_t i = 0; i < y->cells && !e; i++) {
        int column, row, s;
        train_yolox_cell(y, i, &column, &row, &s);
        grid[2 * i] = (float)column;
        grid[2 * i + 1] = (float)row;
        stride[i] = (float)s;
    }
    return e;
}

static int overlap(struct graph_builder *b, int xy, int wh, int box)
{
    int half = graph_b_scale(b, wh, 0.5), from = part(b, box, 0, 2), to = part(b, box, 2, 4), side = graph_b2(b, OP_SUB, to, from);
    int inner = graph_b2(b, OP_SUB, graph_b2(b, OP_MIN, graph_b2(b, OP_ADD, xy, half), to), graph_b2(b, OP_MAX, graph_b2(b, OP_SUB, xy, half), from));
    inner = graph_b1(b, OP_RELU, inner);
    int common = graph_b2(b, OP_MUL, part(b, inner, 0, 1), part(b, inner, 1, 2));
    int ours = graph_b2(b, OP_MUL, part(b, wh, 0, 1), part(b, wh, 1, 2)), theirs = graph_b2(b, OP_MUL, part(b, side, 0, 1), part(b, side, 1, 2));
    int all = graph_b2(b, OP_ADD, graph_b2(b, OP_SUB, graph_b2(b, OP_ADD, ours, theirs), common), number(b, 1e-9));
    return graph_b2(b, OP_DIV, common, all);
}

err train_loss_yolox(struct graph_builder *b, const struct graph_training *t, void *context, int *ret_loss)
{
    struct train_yolox *y = context;
    err e = train_yolox_of(t->g, y->width, y->height, y);
    if (e) return e;
    int out = t->g->outputs[0], grid, stride;
    int64_t batch = t->g->values[out].shape.dims[0];
    struct tensor_shape s1 = {.rank = 3, .dims = {batch, y->cells, 1}}, s4 = {.rank = 3, .dims = {batch, y->cells, 4}};
    struct tensor_shape sc = {.rank = 3, .dims = {batch, y->cells, y->classes}}, single = {.rank = 1, .dims = {1}};
    int assigned = graph_add_input(b->g, "train_assigned", TENSOR_F32, &s1), box = graph_add_input(b->g, "train_box", TENSOR_F32, &s4);
    int class = graph_add_input(b->g, "train_class", TENSOR_F32, &sc), share = graph_add_input(b->g, "train_share", TENSOR_F32, &single);
    if ((e = cells(b, y, &grid, &stride))) return e;
    /* what is not assigned is 0 before exp, so that it cannot overflow */
    int xy = graph_b2(b, OP_MUL, graph_b2(b, OP_ADD, graph_b2(b, OP_MUL, part(b, out, 0, 2), assigned), grid), stride);
    int wh = graph_b2(b, OP_MUL, graph_b1(b, OP_EXP, graph_b2(b, OP_MUL, part(b, out, 2, 4), assigned)), stride);
    int iou = overlap(b, xy, wh, box);
    int of_box = sum(b, graph_b2(b, OP_MUL, assigned, graph_b2(b, OP_SUB, number(b, 1), graph_b2(b, OP_MUL, iou, iou))));
    int of_object = sum(b, cross_entropy(b, part(b, out, 4, 5), assigned));
    int of_class = sum(b, graph_b2(b, OP_MUL, assigned, cross_entropy(b, part(b, out, 5, 5 + y->classes), class)));
    int all = graph_b2(b, OP_ADD, graph_b_scale(b, of_box, 5), graph_b2(b, OP_ADD, of_object, of_class));
    *ret_loss = sum(b, graph_b2(b, OP_MUL, all, share));
    return b->e;
}

/* ---- SimOTA */

struct scratch {
    float *iou, *cost;  /* [boxes][cells] */
    float *cheapest;    /* [cells] */
    int *owner;         /* [cells]: box, -1: none */
};

size_t train_yolox_scratch(const struct train_yolox *y, int max_boxes)
{
    return (size_t)y->cells * (2 * sizeof(float) * (size_t)max_boxes + sizeof(float) + sizeof(int));
}

static float iou_of(const struct train_box *a, float x1, float y1, float x2, float y2)
{
    float w = fminf(a->x2, x2) - fmaxf(a->x1, x1), h = fminf(a->y2, y2) - fmaxf(a->y1, y1);
    if (!(w > 0 && h > 0)) return 0;
    return w * h / ((a->x2 - a->x1) * (a->y2 - a->y1) + (x2 - x1) * (y2 - y1) - w * h + 1e-9f);
}

static float bounded_log(float p)
{
    return logf(fmaxf(p, 1e-12f));
}

/* Cross entropy of sqrt(objectness class) against "this class and no other". */
static float class_cost(const float *row, int classes, int class)
{
    float cost = 0;
    for (int c = 0; c < classes; c++) {
        float p = sqrtf(fmaxf(row[4], 0) * fmaxf(row[5 + c], 0));
        cost -= c == class ? bounded_log(p) : bounded_log(1 - p);
    }
    return cost;
}

static void cell_costs(const struct train_yolox *y, const float *row, int64_t i, const struct train_box *boxes, int n, struct scratch *s)
{
    int column, line, stride;
    bool candidate = false;
    train_yolox_cell(y, i, &column, &line, &stride);
    float step = (float)stride, cx = ((float)column + 0.5f) * step, cy = ((float)line + 0.5f) * step;
    float px = (row[0] + (float)column) * step, py = (row[1] + (float)line) * step;
    float pw = expf(fminf(row[2], 20)) * step / 2, ph = expf(fminf(row[3], 20)) * step / 2;
    for (int k = 0; k < n; k++) {
        const struct train_box *b = &boxes[k];
        float mx = (b->x1 + b->x2) / 2, my = (b->y1 + b->y2) / 2;
        bool in = cx > b->x1 && cx < b->x2 && cy > b->y1 && cy < b->y2;
        bool near = fabsf(cx - mx) < 2.5f * step && fabsf(cy - my) < 2.5f * step;
        candidate |= in || near;
        s->iou[k * y->cells + i] = 0;
        s->cost[k * y->cells + i] = in && near ? 0 : 1e5f;
    }
    for (int k = 0; k < n; k++) {
        float *cost = &s->cost[k * y->cells + i];
        if (!candidate) {
            *cost = INFINITY;
            continue;
        }
        float iou = iou_of(&boxes[k], px - pw, py - ph, px + pw, py + ph);
        s->iou[k * y->cells + i] = iou;
        *cost += class_cost(row, y->classes, boxes[k].class_id) - 3 * logf(iou + 1e-8f);
    }
}

/* The sum of the ten largest, as a whole number of at least 1. */
static int how_many(const float *iou, int64_t n)
{
    float best[10] = {0}, total = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!(iou[i] > best[9])) continue;
        int k = 9;
        for (; k > 0 && best[k - 1] < iou[i]; k--) best[k] = best[k - 1];
        best[k] = iou[i];
    }
    for (int k = 0; k < 10; k++) total += best[k];
    return MAX((int)total, 1);
}

/* The k cheapest cells of a box (k is at most 10). */
static void claim(const float *cost, int64_t n, int box, int k, struct scratch *s)
{
    int64_t best[10];
    int have = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(cost[i]) || (have == k && !(cost[i] < cost[best[have - 1]]))) continue;
        int at = have < k ? have++ : k - 1;
        for (; at > 0 && cost[i] < cost[best[at - 1]]; at--) best[at] = best[at - 1];
        best[at] = i;
    }
    for (int j = 0; j < have; j++) {
        int64_t i = best[j];
        if (s->owner[i] >= 0 && !(cost[i] < s->cheapest[i])) continue;
        s->owner[i] = box;
        s->cheapest[i] = cost[i];
    }
}

int64_t train_yolox_assign(const struct train_yolox *y, const float *rows, const struct train_box *boxes, int n_boxes, void *memory, float *assigned,
                           float *box, float *class)
{
    struct scratch s = {.iou = memory};
    int64_t found = 0;
    s.cost = s.iou + (size_t)n_boxes * (size_t)y->cells;
    s.cheapest = s.cost + (size_t)n_boxes * (size_t)y->cells;
    s.owner = (int *)(void *)(s.cheapest + y->cells);
    for (int64_t i = 0; i < y->cells; i++) {
        s.owner[i] = -1;
        cell_costs(y, rows + i * (5 + y->classes), i, boxes, n_boxes, &s);
    }
    for (int k = 0; k < n_boxes; k++) {
        const float *iou = s.iou + k * y->cells, *cost = s.cost + k * y->cells;
        claim(cost, y->cells, k, MIN(how_many(iou, y->cells), 10), &s);
    }
    memset(class, 0, (size_t)y->cells * (size_t)y->classes * sizeof *class);
    for (int64_t i = 0; i < y->cells; i++) {
        int k = s.owner[i];
        assigned[i] = k >= 0;
        float to[4] = {0, 0, 1, 1};
        if (k >= 0) {
            memcpy(to, (float[]){boxes[k].x1, boxes[k].y1, boxes[k].x2, boxes[k].y2}, sizeof to);
            class[i * y->classes + boxes[k].class_id] = s.iou[k * y->cells + i];
            found++;
        }
        memcpy(box + 4 * i, to, sizeof to);
    }
    return found;
}

/* If, Loop and Scan as the data says, and the bodies that they run.
 *
 * A body is run node by node over cells; a cell goes when its last reader has run. Scan outputs are stacked in one buffer that doubles, since
 * the number of rounds may be known only at the end. https://onnx.ai/onnx/operators/onnx__Loop.html, __Scan.html (8 and 9), __If.html.
 *
 * Bounded: bodies in bodies by the reader of the file, everything else by the budget; a loop without an end is the model's own.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/dynamic.h"

#include <stdlib.h>
#include <string.h>

/* ---- bodies */

static err take_outside(const struct model_eval *e, const struct model_body *b, const struct model_cell *around, struct model_cell *cells)
{
    for (size_t v = 0; v < b->g->n_values; v++) {
        const struct graph_value *value = &b->g->values[v];
        if (b->capture[v] >= 0) {
            cells[v] = model_cell_ref(&around[b->capture[v]]);
        } else if (value->constant) {
            const void *bytes = b->constant[v] ? e->constants[b->constant[v] - 1] : value->constant;
            cells[v].t = tensor_view(value->dtype, &value->shape, bytes);
        }
    }
    return ERR_OK;
}

static err run_one(struct model_eval *e, const struct model_body *b, size_t i, struct model_cell *cells)
{
    const struct op_node *n = &b->g->nodes[i].op;
    struct model_cell *in = xnewn(struct model_cell, (size_t)n->n_in + 1), out[KERNEL_MAX_OUT];
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k] >= 0) in[k] = cells[n->in[k]]; /* borrowed: no reference is taken */
    err r = model_eval_node(e, n, b->subs + b->first_sub[i], in, n->n_in, cells, out);
    free(in);
    if (r) return err_wrap(r, "'%s' (%s)", n->name, op_name(n->kind));
    for (int o = 0; o < n->n_out; o++) {
        if (n->out[o] < 0 || b->last[n->out[o]] < 0)
            model_cell_done(&out[o]);
        else
            cells[n->out[o]] = out[o];
    }
    return ERR_OK;
}

err model_body_run(struct model_eval *e, const struct model_body *b, const struct model_cell *in, int n_in, const struct model_cell *around,
                   struct model_cell *ret)
{
    const struct graph *g = b->g;
    if (n_in != g->n_inputs)
        return err_set(ERR_FORMAT, "a subgraph of %d inputs is given %d", g->n_inputs, n_in);
    struct model_cell *cells = xnewn(struct model_cell, g->n_values + 1);
    err r = take_outside(e, b, around, cells);
    for (int i = 0; i < n_in; i++) cells[g->inputs[i]] = model_cell_ref(&in[i]);
    for (size_t i = 0; i < g->n_nodes && !r; i++) {
        r = run_one(e, b, i, cells);
        const struct op_node *n = &g->nodes[i].op;
        for (int k = 0; k < n->n_in && !r; k++)
            if (n->in[k] >= 0 && b->last[n->in[k]] == (int)i && cells[n->in[k]].own) model_cell_done(&cells[n->in[k]]);
    }
    for (int o = 0; o < g->n_outputs && !r; o++) {
        ret[o] = model_cell_ref(&cells[g->outputs[o]]);
        if (!ret[o].t.dtype) r = err_set(ERR_FORMAT, "output '%s' of a subgraph is absent", g->values[g->outputs[o]].name);
        for (int k = 0; k <= o && r; k++) model_cell_done(&ret[k]);
    }
    for (size_t v = 0; v < g->n_values; v++) model_cell_done(&cells[v]);
    free(cells);
    return r;
}

void model_body_free(struct model_body **bp)
{
    struct model_body *b = *bp;
    *bp = NULL;
    if (!b) return;
    for (int i = 0; i < b->n_subs; i++) model_body_free(&b->subs[i]);
    free(b->subs);
    free(b->first_sub);
    free(b->capture);
    free(b->last);
    free(b->constant);
    free(b);
}

/* ---- helpers */

static const struct model_body *body_of(const struct op_node *n, struct model_body *const *subs, const char *name)
{
    for (int a = 0, k = 0; a < n->n_attrs; a++) {
        if (!n->attrs[a].graph) continue;
        if (strcmp(n->attrs[a].name, name) == 0) return subs[k];
        k++;
    }
    return NULL;
}

static err one_bool(const struct model_cell *c, bool *ret)
{
    if (c->t.dtype != TENSOR_BOOL || tensor_count(&c->t.shape) != 1) return err_set(ERR_FORMAT, "the condition is not one boolean");
    *ret = *(const uint8_t *)c->t.data != 0;
    return ERR_OK;
}

static void done_all(struct model_cell *c, int n)
{
    for (int i = 0; i < n; i++) model_cell_done(&c[i]);
}

/* Rows of equal shape one after the other. */
struct stack {
    struct model_cell cells; /* [cap, ...row] */
    int64_t n, cap;
};

static err stack_add(struct model_eval *e, struct stack *s, const struct model_cell *row, int64_t expected)
{
    const struct tensor_shape *r = &row->t.shape;
    if (r->rank >= TENSOR_MAX_RANK) return err_set(ERR_LIMIT, "a scan output of more than %d axes", TENSOR_MAX_RANK);
    if (s->n) {
        struct tensor_shape had = {.rank = r->rank};
        memcpy(had.dims, s->cells.t.shape.dims + 1, sizeof had.dims[0] * (size_t)r->rank);
        if (s->cells.t.shape.rank != r->rank + 1 || !tensor_shape_equal(&had, r) || s->cells.t.dtype != row->t.dtype)
            return err_set(ERR_SHAPE, "a scan output changes its shape or type from round to round");
    }
    if (s->n == s->cap) {
        struct tensor_shape shape = {.rank = r->rank + 1};
        int64_t cap = s->cap ? s->cap * 2 : MIN(MAX(expected, 1), 64);
        struct model_cell more;
        shape.dims[0] = cap;
        memcpy(shape.dims + 1, r->dims, sizeof shape.dims[0] * (size_t)r->rank);
        err x = model_cell_new(e->payer, row->t.dtype, &shape, &more);
        if (x) return x;
        size_t bytes = (size_t)tensor_count(r) * (size_t)s->n * tensor_dtype_size(row->t.dtype);
        if (bytes) memcpy(more.t.data, s->cells.t.data, bytes);
        model_cell_done(&s->cells);
        s->cells = more;
        s->cap = cap;
    }
    size_t bytes = (size_t)tensor_count(r) * tensor_dtype_size(row->t.dtype);
    if (bytes) memcpy((char *)s->cells.t.data + bytes * (size_t)s->n, row->t.data, bytes);
    s->n++;
    return ERR_OK;
}

/* Takes what was stacked; without a round: no rows of the declared shape. */
static err stack_end(struct model_eval *e, struct stack *s, const struct graph_value *declared, struct model_cell *ret)
{
    if (s->n) {
        s->cells.t.shape.dims[0] = s->n;
        *ret = s->cells;
        *s = (struct stack){0};
        return ERR_OK;
    }
    struct tensor_shape shape = {.rank = 1};
    if (declared->has_shape && declared->shape.rank < TENSOR_MAX_RANK) {
        shape.rank = declared->shape.rank + 1;
        for (int i = 0; i < declared->shape.rank; i++) shape.dims[i + 1] = MAX(declared->shape.dims[i], 0);
    }
    return model_cell_new(e->payer, declared->dtype ? declared->dtype : TENSOR_F32, &shape, ret);
}

/* ---- If */

static err run_if(struct model_eval *e, const struct op_node *n, struct model_body *const *subs, const struct model_cell *in,
                  const struct model_cell *around, struct model_cell *ret)
{
    bool yes = false;
    err r = n->n_in == 1 ? one_bool(&in[0], &yes) : err_set(ERR_FORMAT, "an If of %d inputs", n->n_in);
    if (r) return r;
    const struct model_body *b = body_of(n, subs, yes ? "then_branch" : "else_branch");
    if (!b || b->g->n_outputs < n->n_out) return err_set(ERR_FORMAT, "the branch is missing, or its outputs do not fit");
    struct model_cell *out = xnewn(struct model_cell, b->g->n_outputs);
    r = model_body_run(e, b, NULL, 0, around, out);
    for (int o = 0; o < b->g->n_outputs && !r; o++)
        if (o < n->n_out)
            ret[o] = out[o];
        else
            model_cell_done(&out[o]);
    free(out);
    return r;
}

/* ---- Loop */

struct loop {
    const struct model_body *body;
    int carried, scans;
    int64_t most;
    bool on;
    struct model_cell *state; /* [iteration, condition, carried ...]: the body's inputs */
    struct stack *stacks;
};

static err loop_rounds(struct model_eval *e, struct loop *l, const struct model_cell *around)
{
    int n_out = 1 + l->carried + l->scans;
    struct model_cell *out = xnewn(struct model_cell, n_out);
    struct tensor_shape scalar = {0};
    err r = ERR_OK;
    for (int64_t i = 0; (l->most < 0 || i < l->most) && l->on && !r; i++) {
        uint8_t on = 1;
        l->state[0] = (struct model_cell){tensor_view(TENSOR_I64, &scalar, &i), NULL};
        if (!l->state[1].own) l->state[1] = (struct model_cell){tensor_view(TENSOR_BOOL, &scalar, &on), NULL};
        r = model_body_run(e, l->body, l->state, 2 + l->carried, around, out);
        if (r) break;
        /* the counter is ours and gone with this round */
        for (int o = 0; o < n_out && !r; o++) r = model_cell_own(e->payer, &out[o]);
        if (!r) r = one_bool(&out[0], &l->on);
        for (int k = 0; k < l->scans && !r; k++) r = stack_add(e, &l->stacks[k], &out[1 + l->carried + k], l->most);
        done_all(l->state + 1, 1 + l->carried);
        for (int k = 0; k < 1 + l->carried; k++) l->state[1 + k] = out[k];
        done_all(out + 1 + l->carried, l->scans);
    }
    l->state[0] = (struct model_cell){0};
    free(out);
    return r;
}

static err run_loop(struct model_eval *e, const struct op_node *n, struct model_body *const *subs, const struct model_cell *in,
                    const struct model_cell *around, struct model_cell *ret)
{
    struct loop l = {.body = body_of(n, subs, "body"), .carried = n->n_in - 2, .most = -1, .on = true};
    if (!l.body || n->n_in < 2 || l.body->g->n_inputs != n->n_in || l.body->g->n_outputs < n->n_in - 1 ||
        n->n_out > l.body->g->n_outputs - 1)
        return err_set(ERR_FORMAT, "the loop's body does not fit: its inputs are counter, condition and what is carried");
    l.scans = l.body->g->n_outputs - 1 - l.carried;
    if (in[0].t.dtype) {
        if (in[0].t.dtype != TENSOR_I64 || tensor_count(&in[0].t.shape) != 1) return err_set(ERR_FORMAT, "the trip count is not one int64");
        l.most = MAX(*(const int64_t *)in[0].t.data, (int64_t)0);
    }
    err r = in[1].t.dtype ? one_bool(&in[1], &l.on) : ERR_OK;
    if (r) return r;
    l.state = xnewn(struct model_cell, (size_t)n->n_in + 1);
    l.stacks = xnewn(struct stack, (size_t)l.scans + 1);
    for (int k = 0; k < l.carried; k++) l.state[2 + k] = model_cell_ref(&in[2 + k]);
    r = loop_rounds(e, &l, around);
    for (int k = 0; k < l.carried && !r; k++)
        if (k < n->n_out) ret[k] = model_cell_ref(&l.state[2 + k]);
    for (int k = 0; k < l.scans && !r && l.carried + k < n->n_out; k++)
        r = stack_end(e, &l.stacks[k], &l.body->g->values[l.body->g->outputs[1 + l.carried + k]], &ret[l.carried + k]);
    done_all(l.state, n->n_in);
    for (int k = 0; k < l.scans; k++) model_cell_done(&l.stacks[k].cells);
    free(l.state);
    free(l.stacks);
    return r;
}

/* ---- Scan */

struct scan {
    const struct model_body *body;
    int states, inputs, outputs;
    const int64_t *in_axes, *in_back, *out_axes, *out_back;
    size_t n_in_axes, n_in_back, n_out_axes, n_out_back;
};

/* Slice number i along an axis, as a cell of its own. */
static err slice(struct model_eval *e, const struct model_cell *c, int axis, int64_t i, struct model_cell *ret)
{
    struct tensor t = c->t;
    t.data = (char *)t.data + (size_t)(i * t.strides[axis]) * tensor_dtype_size(t.dtype);
    for (int a = axis; a + 1 < t.shape.rank; a++) {
        t.shape.dims[a] = t.shape.dims[a + 1];
        t.strides[a] = t.strides[a + 1];
    }
    t.shape.rank--;
    err r = model_cell_new(e->payer, t.dtype, &t.shape, ret);
    if (!r && tensor_count(&t.shape)) r = model_copy(&t, &ret->t);
    return r;
}

static err axis_of(const int64_t *list, size_t n, int k, int rank, int *ret)
{
    int64_t axis = (size_t)k < n ? list[k] : 0;
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank) return err_set(ERR_SHAPE, "scan axis %d is outside of rank %d", k, rank);
    *ret = (int)axis;
    return ERR_OK;
}

/* Moves the first axis to `axis`. */
static err move_axis(struct model_eval *e, struct model_cell *c, int axis)
{
    if (axis == 0) return ERR_OK;
    struct tensor t = c->t;
    struct model_cell moved;
    for (int a = 0; a < axis; a++) {
        t.shape.dims[a] = c->t.shape.dims[a + 1];
        t.strides[a] = c->t.strides[a + 1];
    }
    t.shape.dims[axis] = c->t.shape.dims[0];
    t.strides[axis] = c->t.strides[0];
    err r = model_cell_new(e->payer, t.dtype, &t.shape, &moved);
    if (r) return r;
    if (tensor_count(&t.shape)) r = model_copy(&t, &moved.t);
    model_cell_done(c);
    *c = moved;
    return r;
}

static void reverse_rows(struct model_cell *c)
{
    int64_t n = c->t.shape.rank ? c->t.shape.dims[0] : 0;
    size_t row = n ? (size_t)(tensor_count(&c->t.shape) / n) * tensor_dtype_size(c->t.dtype) : 0;
    char *p = c->t.data;
    for (int64_t i = 0; i < n / 2 && row; i++)
        for (size_t k = 0; k < row; k++) {
            char *a = p + (size_t)i * row + k, *b = p + (size_t)(n - 1 - i) * row + k, t = *a;
            *a = *b;
            *b = t;
        }
}

/* `rounds` rounds over in (states, then sequences); ret: final states, then stacks in the order of rounds. */
static err scan_rounds(struct model_eval *e, const struct scan *s, const struct model_cell *in, int64_t rounds,
                       const struct model_cell *around, struct model_cell *ret)
{
    int n_in = s->states + s->inputs, n_out = s->states + s->outputs;
    struct model_cell *feed = xnewn(struct model_cell, (size_t)n_in + 1), *out = xnewn(struct model_cell, (size_t)n_out + 1);
    struct stack *stacks = xnewn(struct stack, (size_t)s->outputs + 1);
    err r = ERR_OK;
    for (int k = 0; k < s->states; k++) feed[k] = model_cell_ref(&in[k]);
    for (int64_t i = 0; i < rounds && !r; i++) {
        for (int k = 0; k < s->inputs && !r; k++) {
            const struct model_cell *c = &in[s->states + k];
            int axis = 0;
            r = axis_of(s->in_axes, s->n_in_axes, k, c->t.shape.rank, &axis);
            bool back = (size_t)k < s->n_in_back && s->in_back[k];
            if (!r) r = slice(e, c, axis, back ? c->t.shape.dims[axis] - 1 - i : i, &feed[s->states + k]);
        }
        if (!r) r = model_body_run(e, s->body, feed, n_in, around, out);
        done_all(feed + s->states, s->inputs);
        if (r) break;
        for (int k = 0; k < n_out && !r; k++) r = model_cell_own(e->payer, &out[k]);
        for (int k = 0; k < s->outputs && !r; k++) r = stack_add(e, &stacks[k], &out[s->states + k], rounds);
        done_all(feed, s->states);
        for (int k = 0; k < s->states; k++) feed[k] = out[k];
        done_all(out + s->states, s->outputs);
    }
    for (int k = 0; k < s->states && !r; k++) ret[k] = model_cell_ref(&feed[k]);
    for (int k = 0; k < s->outputs && !r; k++)
        r = stack_end(e, &stacks[k], &s->body->g->values[s->body->g->outputs[s->states + k]], &ret[s->states + k]);
    for (int k = 0; k < s->outputs && !r; k++)
        if ((size_t)k < s->n_out_back && s->out_back[k]) reverse_rows(&ret[s->states + k]);
    if (r) done_all(ret, n_out);
    done_all(feed, n_in);
    for (int k = 0; k < s->outputs; k++) model_cell_done(&stacks[k].cells);
    free(feed);
    free(out);
    free(stacks);
    return r;
}

/* One number of rounds for all sequences. */
static err scan_length(const struct scan *s, const struct model_cell *in, int64_t *ret)
{
    int64_t rounds = -1;
    for (int k = 0; k < s->inputs; k++) {
        const struct tensor_shape *shape = &in[s->states + k].t.shape;
        int axis = 0;
        err r = axis_of(s->in_axes, s->n_in_axes, k, shape->rank, &axis);
        if (r) return r;
        if (rounds >= 0 && shape->dims[axis] != rounds) return err_set(ERR_SHAPE, "sequences of different lengths");
        rounds = shape->dims[axis];
    }
    *ret = MAX(rounds, (int64_t)0);
    return ERR_OK;
}

static err scan_9(struct model_eval *e, const struct scan *s, const struct model_cell *in, const struct model_cell *around,
                  struct model_cell *ret)
{
    int64_t rounds = 0;
    err r = scan_length(s, in, &rounds);
    if (!r) r = scan_rounds(e, s, in, rounds, around, ret);
    for (int k = 0; k < s->outputs && !r; k++) {
        int axis = 0;
        r = axis_of(s->out_axes, s->n_out_axes, k, ret[s->states + k].t.shape.rank, &axis);
        if (!r) r = move_axis(e, &ret[s->states + k], axis);
    }
    return r;
}

/* Opset 8 has a batch in front of everything, and lengths per sample; what is past a sample's end is 0. */
static err scan_8(struct model_eval *e, const struct scan *s, const struct model_cell *lens, const struct model_cell *in,
                  const struct model_cell *around, struct model_cell *ret)
{
    int n_in = s->states + s->inputs, n_out = s->states + s->outputs;
    int64_t batch = n_in && in[0].t.shape.rank ? in[0].t.shape.dims[0] : 0, longest = 0;
    for (int k = 0; k < n_in; k++)
        if (in[k].t.shape.rank < (k < s->states ? 1 : 2) || in[k].t.shape.dims[0] != batch)
            return err_set(ERR_SHAPE, "input %d has another batch", k + 1);
    if (s->inputs) longest = in[s->states].t.shape.dims[1];
    if (lens->t.dtype && (lens->t.dtype != TENSOR_I64 || tensor_count(&lens->t.shape) != batch))
        return err_set(ERR_SHAPE, "the sequence lengths are not one int64 per sample");
    struct stack *all = xnewn(struct stack, (size_t)n_out + 1);
    struct model_cell *one = xnewn(struct model_cell, (size_t)n_in + 1), *out = xnewn(struct model_cell, (size_t)n_out + 1);
    err r = batch ? ERR_OK : err_set(ERR_SHAPE, "a batch of no samples");
    for (int64_t b = 0; b < batch && !r; b++) {
        int64_t rounds = lens->t.dtype ? ((const int64_t *)lens->t.data)[b] : longest;
        if (rounds < 0 || rounds > longest) r = err_set(ERR_SHAPE, "a sequence of %lld of %lld", (long long)rounds, (long long)longest);
        for (int k = 0; k < n_in && !r; k++) r = slice(e, &in[k], 0, b, &one[k]);
        if (!r) r = scan_rounds(e, s, one, rounds, around, out);
        done_all(one, n_in);
        for (int k = 0; k < s->outputs && !r; k++) { /* all samples as long as the longest */
            struct model_cell *c = &out[s->states + k], full;
            struct tensor_shape shape = c->t.shape;
            size_t bytes = (size_t)tensor_count(&shape) * tensor_dtype_size(c->t.dtype);
            shape.dims[0] = longest;
            r = model_cell_new(e->payer, c->t.dtype, &shape, &full);
            if (r) break;
            memcpy(full.t.data, c->t.data, bytes);
            model_cell_done(c);
            *c = full;
        }
        for (int k = 0; k < n_out && !r; k++) r = stack_add(e, &all[k], &out[k], batch);
        done_all(out, n_out);
    }
    for (int k = 0; k < n_out; k++) {
        if (!r) r = stack_end(e, &all[k], &s->body->g->values[s->body->g->outputs[k]], &ret[k]);
        model_cell_done(&all[k].cells);
    }
    free(all);
    free(one);
    free(out);
    return r;
}

static err run_scan(struct model_eval *e, const struct op_node *n, struct model_body *const *subs, const struct model_cell *in,
                    const struct model_cell *around, struct model_cell *ret)
{
    struct scan s = {.body = body_of(n, subs, "body")};
    bool old = n->opset < 9;
    int64_t inputs = op_attr_int(n, "num_scan_inputs", 0), total = n->n_in - old;
    if (!s.body || inputs < 1 || inputs > total || s.body->g->n_inputs != total || s.body->g->n_outputs < total - inputs ||
        n->n_out > s.body->g->n_outputs)
        return err_set(ERR_FORMAT, "the scan's body does not fit its inputs");
    for (int i = old; i < n->n_in; i++)
        if (!in[i].t.dtype) return err_set(ERR_FORMAT, "input %d is absent", i);
    s.inputs = (int)inputs;
    s.states = (int)(total - inputs);
    s.outputs = s.body->g->n_outputs - s.states;
    s.n_in_axes = op_attr_ints(n, "scan_input_axes", &s.in_axes);
    s.n_in_back = op_attr_ints(n, old ? "directions" : "scan_input_directions", &s.in_back);
    s.n_out_axes = op_attr_ints(n, "scan_output_axes", &s.out_axes);
    s.n_out_back = op_attr_ints(n, "scan_output_directions", &s.out_back);
    struct model_cell *out = xnewn(struct model_cell, (size_t)s.body->g->n_outputs + 1);
    err r = old ? scan_8(e, &s, &in[0], in + 1, around, out) : scan_9(e, &s, in, around, out);
    for (int o = 0; o < s.body->g->n_outputs; o++)
        if (!r && o < n->n_out)
            ret[o] = out[o];
        else
            model_cell_done(&out[o]);
    free(out);
    return r;
}

err model_eval_control(struct model_eval *e, const struct op_node *n, struct model_body *const *subs, const struct model_cell *in,
                       int n_own, const struct model_cell *around, struct model_cell *ret)
{
    (void)n_own;
    if (n->kind == OP_IF) return run_if(e, n, subs, in, around, ret);
    return n->kind == OP_LOOP ? run_loop(e, n, subs, in, around, ret) : run_scan(e, n, subs, in, around, ret);
}

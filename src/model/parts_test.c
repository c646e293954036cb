/* Long operators in parts: a batch that is split gives the bits of its halves, gradients by the weight add up, and a stop is heard between parts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "graph/backward.h"
#include "model/parts.h"
#include "model/training.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { CHANNELS = 32, SIDE = 64, WHOLE = 32, HALF = WHOLE / 2, KERNEL = CHANNELS * CHANNELS * 9, PICTURE = CHANNELS * SIDE * SIDE };
/* A picture takes 2 * 32 * 9 * 32 * 64 * 64 = 75 MFLOP, so 32 of them are split in two and 16 are not. */

struct step {
    struct mem_budget *b;
    struct mem_payer *payer;
    struct model *model;
    struct model_plan *plan;
    float *x, *w, *dy, *y, *dx, *dw;
};

/* y = conv(x, w), dx and dw from dy; all outside the arena. */
static struct graph *net(struct mem_payer *payer, int batch)
{
    struct graph *g = graph_new("net", 13, payer);
    struct tensor_shape image = {.rank = 4, .dims = {batch, CHANNELS, SIDE, SIDE}}, kernel = {.rank = 4, .dims = {CHANNELS, CHANNELS, 3, 3}};
    int in[2] = {graph_add_input(g, "x", TENSOR_F32, &image), graph_add_input(g, "w", TENSOR_F32, &kernel)}, grads[2];
    int dy = graph_add_input(g, "dy", TENSOR_F32, &image);
    struct graph_builder b = {.g = g, .name = "conv"};
    struct graph_node *n = graph_b_open(&b, OP_CONV, in, 2, 1);
    assert_non_null(n);
    graph_set_ints(n, "pads", (int64_t[]){1, 1, 1, 1}, 4);
    int y = graph_b_close(&b, n);
    assert_int_equal(b.e, ERR_OK);
    graph_add_output(g, y);
    assert_int_equal(graph_backward_from(g, &y, &dy, 1, in, 2, grads), ERR_OK);
    graph_add_output(g, grads[0]);
    graph_add_output(g, grads[1]);
    return g;
}

static void take(struct step *s, size_t count, float **ret)
{
    assert_int_equal(mem_alloc(s->payer, MEM_TRAINING, count * sizeof **ret, (void **)ret), ERR_OK);
}

static void open_step(struct step *s, int batch)
{
    *s = (struct step){.b = mem_budget_new("host", UINT64_MAX)};
    s->payer = mem_payer_new(s->b, "step");
    struct model_options o = {.budget = s->b, .threads = 2};
    assert_int_equal(model_from_graph(net(s->payer, batch), "net", &o, &s->model), ERR_OK);
    model_external(s->model, 0, 0);
    assert_int_equal(model_plan_new(s->model, NULL, &s->plan), ERR_OK);
    assert_int_equal(model_plan_reserve(s->plan), ERR_OK);
    assert_int_equal(model_request(s->model), ERR_OK);
    assert_int_equal(model_wait(s->model), ERR_OK);
    size_t images = (size_t)batch * PICTURE;
    take(s, images, &s->x);
    take(s, KERNEL, &s->w);
    take(s, images, &s->dy);
    take(s, images, &s->y);
    take(s, images, &s->dx);
    take(s, KERNEL, &s->dw);
    float *in[] = {s->x, s->w, s->dy}, *out[] = {s->y, s->dx, s->dw};
    for (int i = 0; i < 3; i++) {
        model_plan_bind_input(s->plan, i, in[i]);
        model_plan_bind_output(s->plan, i, out[i]);
    }
}

static void close_step(struct step *s, int batch)
{
    size_t images = (size_t)batch * PICTURE * sizeof(float);
    model_release(s->model);
    model_plan_free(&s->plan);
    model_free(&s->model);
    mem_free(s->payer, MEM_TRAINING, s->x, images);
    mem_free(s->payer, MEM_TRAINING, s->w, KERNEL * sizeof(float));
    mem_free(s->payer, MEM_TRAINING, s->dy, images);
    mem_free(s->payer, MEM_TRAINING, s->y, images);
    mem_free(s->payer, MEM_TRAINING, s->dx, images);
    mem_free(s->payer, MEM_TRAINING, s->dw, KERNEL * sizeof(float));
    mem_payer_free(&s->payer);
    mem_budget_free(&s->b);
}

static float drawn(size_t i)
{
    return (float)((i * 2654435761u >> 7) % 2001) / 1000 - 1;
}

static int parts_of(const struct step *s, enum op_kind kind)
{
    for (size_t i = 0; i < s->plan->n_steps; i++)
        if (s->plan->steps[i].node->kind == kind) return s->plan->steps[i].split.parts;
    fail_msg("no %s", op_name(kind));
    return 0;
}

static void halves_make_the_whole(void **state)
{
    (void)state;
    static const enum op_kind kinds[] = {OP_CONV, OP_CONV_TRANSPOSE, OP_CONV_GRAD_WEIGHT};
    struct step whole, half;
    float *sum = calloc(KERNEL, sizeof *sum);
    open_step(&whole, WHOLE);
    open_step(&half, HALF);
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        assert_int_equal(parts_of(&whole, kinds[k]), 2);
        assert_int_equal(parts_of(&half, kinds[k]), 0);
    }
    for (size_t i = 0; i < (size_t)WHOLE * PICTURE; i++) whole.x[i] = drawn(i), whole.dy[i] = drawn(i + 12345);
    for (size_t i = 0; i < KERNEL; i++) whole.w[i] = half.w[i] = drawn(i + 777);
    assert_int_equal(model_plan_run(whole.plan, NULL), ERR_OK);
    for (size_t k = 0; k < 2; k++) {
        size_t at = k * HALF * PICTURE, bytes = (size_t)HALF * PICTURE * sizeof(float);
        memcpy(half.x, whole.x + at, bytes);
        memcpy(half.dy, whole.dy + at, bytes);
        assert_int_equal(model_plan_run(half.plan, NULL), ERR_OK);
        assert_memory_equal(half.y, whole.y + at, bytes);
        assert_memory_equal(half.dx, whole.dx + at, bytes);
        for (size_t i = 0; i < KERNEL; i++) sum[i] += half.dw[i];
    }
    assert_memory_equal(sum, whole.dw, KERNEL * sizeof *sum);
    close_step(&half, HALF);
    close_step(&whole, WHOLE);
    free(sum);
}

static void a_stop_is_heard_between_parts(void **state)
{
    (void)state;
    struct step s;
    atomic_bool stop = true;
    struct kernel_buffers b = {0};
    open_step(&s, WHOLE);
    model_plan_set_stop(s.plan, &stop);
    memset(s.y, 0, (size_t)WHOLE * PICTURE * sizeof(float));
    for (size_t i = 0; i < (size_t)WHOLE * PICTURE; i++) s.x[i] = 1;
    for (size_t i = 0; i < KERNEL; i++) s.w[i] = 1;
    for (size_t i = 0; i < s.plan->n_steps; i++) {
        struct model_step *step = &s.plan->steps[i];
        if (step->node->kind != OP_CONV) {
            if (step->node->kind == OP_COPY) assert_int_equal(model_run_step(s.plan, step), ERR_OK);
            continue;
        }
        for (int k = 0; k < step->n_in; k++) b.in[k] = model_operand_address(s.plan, &step->in[k]);
        b.out[0] = model_operand_address(s.plan, &step->out[0]);
        b.scratch = s.plan->scratch;
        assert_int_equal(model_parts_run(s.plan, step, &b), ERR_CANCELLED); /* the first part is done, the second is not begun */
        assert_true(((float *)b.out[0])[0] != 0);
        assert_true(((float *)b.out[0])[(size_t)HALF * PICTURE] == 0);
        break;
    }
    assert_int_equal(model_plan_run(s.plan, NULL), ERR_CANCELLED);
    close_step(&s, WHOLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(halves_make_the_whole), cmocka_unit_test(a_stop_is_heard_between_parts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Fuzz target: any bytes as a card; one that is read is tried on a few shapes. SPDX-License-Identifier:
 * Apache-2.0 */
#include "task/head.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct task_card *c = NULL;
    if (task_card_parse((const char *)data, size, NULL, &c)) return 0;
    if (!c->name || c->input_count < 1 || c->class_count > TASK_MAX_CLASSES || c->top_k > TASK_MAX_TOP_K)
        abort();
    struct task_output in = {.name = "x", .rank = 4, .dims = {1, 3, 416, 416}};
    struct task_output out[] = {{.name = "a", .rank = 3, .dims = {1, 100, 4 + c->class_count}},
                                {.name = "b", .rank = 3, .dims = {1, 100, 4}},
                                {.name = "c", .rank = 2, .dims = {1, c->class_count}}};
    for (int n = 0; n <= 3; n++) {
        task_card_check(c, &in, 1, out, n);
        task_head_bytes(c, out + 3 - n, n);
    }
    struct task_fit f = task_fit_of(&c->inputs[0], 640, 480);
    struct task_box b = task_fit_box(&f, (struct task_box){0, 0, 10, 10});
    if (!task_box_valid(&b)) abort();
    task_card_free(&c);
    return 0;
}

/* Fuzz target: any bytes as a file of tracks; what is read is scored against itself. SPDX-License-Identifier:
 * Apache-2.0 */
#include "task/metric.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mem_budget *b = mem_budget_new("host", 64 << 20);
    struct mem_payer *p = mem_payer_new(b, "fuzz");
    struct task_mot m = {0};
    if (task_mot_parse(p, (const char *)data, size, "fuzz", &m) == ERR_OK) {
        struct task_mota r;
        for (size_t i = 1; i < m.count; i++)
            if (m.rows[i].frame < m.rows[i - 1].frame) abort();
        if (task_mota_compute(p, &m, &m, 0.5f, &r) == ERR_OK && (r.idtp > r.truths || r.matches > r.truths))
            abort();
        task_mot_done(&m);
    }
    if (mem_budget_used(b)) abort();
    mem_payer_free(&p);
    mem_budget_free(&b);
    return 0;
}

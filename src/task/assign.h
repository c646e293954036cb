/* Exact assignment: who belongs to whom, at the least total cost.
 *
 * Shortest augmenting paths with potentials (Jonker and Volgenant 1987; the Hungarian method's fast form),
 * O(rows^2 * cols). A pair that may not be is TASK_NO_PAIR. Of all matchings with the most allowed pairs, the
 * answer has the least cost. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"

#define TASK_NO_PAIR 1e30f

/* Bytes of scratch that task_assign needs. */
size_t task_assign_bytes(int rows, int cols);
/* cost: rows x cols, row-major; a number within +-TASK_NO_PAIR, or anything else (NaN too) for 'never'.
 * ret_row_to_col[rows] gets the column or -1. `scratch` is aligned for double. */
void task_assign(const float *cost, int rows, int cols, void *scratch, int *ret_row_to_col);

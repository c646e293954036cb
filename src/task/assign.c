/* Exact assignment by shortest augmenting paths: Jonker and Volgenant, "A shortest augmenting path algorithm
 * for dense and sparse linear assignment problems", Computing 38 (1987), without their initialisation
 * heuristics, which pay off only for hundreds of rows.
 *
 * Rows are added one by one; for each, Dijkstra on reduced costs finds the cheapest way to re-seat the
 * others. The smaller side plays the rows, so a matrix that is tall is read transposed. A forbidden pair
 * costs `big`, more than all allowed pairs together could differ, so that as many allowed pairs as possible
 * are made first, and the cheapest of those. Column 0 of the arrays is the path's root. Invariant after each
 * row: u[i] + v[j] <= cost(i, j), with equality for matched pairs. SPDX-License-Identifier: Apache-2.0 */
#include "task/assign.h"

#include <math.h>
#include <string.h>

struct solver {
    const float *cost;
    int n, m, cols; /* n <= m; cols: of the matrix as given */
    bool transposed;
    double big, *u, *v, *least;
    int *owner, *way; /* per column: its row (1-based, 0 free); the column before it on the path */
    bool *done;
};

static bool allowed(float c)
{
    return c < TASK_NO_PAIR && c > -TASK_NO_PAIR; /* false for NaN */
}

static double cost_at(const struct solver *s, int row, int col)
{
    float c = s->transposed ? s->cost[(size_t)col * (size_t)s->cols + (size_t)row]
                            : s->cost[(size_t)row * (size_t)s->cols + (size_t)col];
    return allowed(c) ? (double)c : s->big;
}

size_t task_assign_bytes(int rows, int cols)
{
    size_t n = (size_t)MIN(rows, cols) + 1, m = (size_t)MAX(rows, cols) + 1;
    return (n + 2 * m) * sizeof(double) + 2 * m * sizeof(int) + m * sizeof(bool);
}

static void add_row(struct solver *s, int row)
{
    for (int j = 0; j <= s->m; j++) {
        s->least[j] = INFINITY;
        s->done[j] = false;
    }
    int at = 0;
    s->owner[0] = row;
    do { /* grow the tree of cheapest ways by one column, until that column is free */
        s->done[at] = true;
        int r = s->owner[at], next = 0;
        double step = INFINITY;
        for (int j = 1; j <= s->m; j++) {
            if (s->done[j]) continue;
            double c = cost_at(s, r - 1, j - 1) - s->u[r] - s->v[j];
            if (c < s->least[j]) {
                s->least[j] = c;
                s->way[j] = at;
            }
            if (s->least[j] < step) {
                step = s->least[j];
                next = j;
            }
        }
        for (int j = 0; j <= s->m; j++) {
            if (s->done[j]) {
                s->u[s->owner[j]] += step;
                s->v[j] -= step;
            } else {
                s->least[j] -= step;
            }
        }
        at = next;
    } while (s->owner[at] != 0);
    for (; at != 0; at = s->way[at])
        s->owner[at] = s->owner[s->way[at]];
}

void task_assign(const float *cost, int rows, int cols, void *scratch, int *ret_row_to_col)
{
    for (int i = 0; i < rows; i++)
        ret_row_to_col[i] = -1;
    if (rows <= 0 || cols <= 0) return;
    struct solver s = {
        .cost = cost, .n = MIN(rows, cols), .m = MAX(rows, cols), .cols = cols, .transposed = rows > cols};
    size_t m = (size_t)s.m + 1;
    memset(scratch, 0, task_assign_bytes(rows, cols));
    s.u = scratch;
    s.v = s.u + s.n + 1;
    s.least = s.v + m;
    s.owner = (int *)(s.least + m);
    s.way = s.owner + m;
    s.done = (bool *)(s.way + m);
    double most = 0;
    for (size_t i = 0; i < (size_t)rows * (size_t)cols; i++)
        if (allowed(cost[i])) most = fmax(most, fabs((double)cost[i]));
    s.big = (2.0 * s.n + 1) * most + 1;
    for (int i = 1; i <= s.n; i++)
        add_row(&s, i);
    for (int j = 1; j <= s.m; j++) {
        int row = s.transposed ? j - 1 : s.owner[j] - 1, col = s.transposed ? s.owner[j] - 1 : j - 1;
        if (s.owner[j] > 0 && allowed(cost[(size_t)row * (size_t)cols + (size_t)col]))
            ret_row_to_col[row] = col;
    }
}

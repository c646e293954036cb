/* What a job leaves to look at: a line per epoch in CSV, and a plot in SVG made from them. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

struct train_point {
    int epoch;
    double updates, loss, lr, val_loss, score, seconds; /* val_loss, score: NaN where there is none */
};
struct train_curves {
    struct train_point *points;
    size_t n, cap;
};
void train_curves_add(struct train_curves *c, const struct train_point *p);
void train_curves_done(struct train_curves *c);
/* DIR/curves.csv and DIR/curves.svg, each written whole and renamed. `score`: what the score is called. */
err train_curves_write(const struct train_curves *c, const char *dir, const char *score);
/* Points of the epochs up to `epochs` of DIR/curves.csv, for a job that goes on; a file that is not there or was altered gives none. */
void train_curves_read(struct train_curves *c, const char *dir, int epochs);

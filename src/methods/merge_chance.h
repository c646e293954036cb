/* What an answer that knows nothing would score, by a model's own measure: the figure that scores are read against.
 *
 *     top-1, same class as the original   always saying the class that is most frequent in the pictures it is measured with (of the labels, of the original's answers)
 *     boxes                               0: finding nothing
 *     likeness to the original            0: always giving the mean
 *
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "methods/merge_score.h"

/* May run the original over the pictures. */
err merge_chance(const struct merge_score *s, double *ret);
const char *merge_chance_name(enum merge_measure m); /* "always the most frequent class" */

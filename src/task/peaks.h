/* Boxes out of maps, as CenterNet has them (Zhou et al., "Objects as Points", 2019, section 4): an object is a peak of its class's heat map, a score that none of
 * the eight around it exceeds; two more maps say its sides and where in the cell its centre lies.
 *
 * Nothing is trusted: NaN is no peak, and a box that is not finite or has no area is dropped. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "task/nms.h"

struct task_peaks {
    const float *heat;   /* [classes][rows][columns] */
    const float *size;   /* [2][rows][columns]: width and height, in cells */
    const float *offset; /* [2][rows][columns]: of the centre from its cell's corner, in cells */
    int classes, rows, columns;
    float width, height; /* of the picture: boxes are in its pixels, not cut */
    bool sigmoid;        /* still to be done to the heat */
};
/* Offers every peak of at least `least`. */
void task_peaks_offer(const struct task_peaks *p, float least, struct task_candidates *to);

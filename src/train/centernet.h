/* Detection without assignment, as CenterNet trains it (Zhou et al., "Objects as Points", 2019): an object is a point of its class's heat map.
 *
 * The network's outputs: 0 heat [N, classes, rows, columns] after its sigmoid; 1 width and height [N, 2, rows, columns], in cells; 2 offset of the centre from
 * its cell's corner [N, 2, rows, columns]. rows and columns divide the picture's sides (stride 4 in the paper). task/peaks.h reads them.
 * What the outputs are compared with follows from the labels alone, so a run is not cut in two as YOLOX's is. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "train/data.h"
#include "train/net.h"

struct train_centernet {
    int width, height, classes, rows, columns;
};
/* Is output 0 a map? (Of YOLOX it is a list of cells.) */
bool train_centernet_is(const struct graph *g);
/* From the shapes of the outputs. ERR_SHAPE says what is expected. */
err train_centernet_of(const struct graph *g, int width, int height, struct train_centernet *ret);

/* focal loss of the heat + 0.1 |size - truth| + |offset - truth|, the latter two at centres alone, all over the number of centres in the batch (section 3 of the
 * paper). Targets: 0 heat, 1 size, 2 offset, shaped as the outputs. context: struct train_centernet, of which width and height are set; the rest is set here. */
train_loss_fn train_loss_centernet;

/* One picture: boxes in pixels of the network -> its part of targets 0, 1, 2. */
void train_centernet_aim(const struct train_centernet *c, const struct train_box *boxes, int n, float *heat, float *size, float *offset);
/* How far, in cells, both corners of a box of w x h cells may be moved so that it still overlaps the true one by an IoU of 0.3. */
double train_centernet_radius(double w, double h);

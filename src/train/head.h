/* Another number of classes: the last layer of a classifier, the three class layers of a YOLOX, or that of a heat map, are exchanged for new, untrained ones.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"

/* How many classes the network tells apart, found from the layers themselves. ERR_UNSUPPORTED says what stands in the way. */
err train_head_classes(const struct graph *g, bool detector, int *ret);
/* Exchanges them. `said` holds a sentence about what was made. The graph is the user's (not specialised); it is changed in place, and of no use after a failure. */
err train_head_replace(struct graph *g, bool detector, int classes, uint64_t seed, char *said, size_t size);

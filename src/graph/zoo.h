/* Networks by name, untrained: what `brim new` writes, and what benches measure where only bytes and work have to be right.
 *
 * Convolutions are followed by batch normalisation where the paper's network has it, as nodes of its own; parameter counts are those of
 * torchvision where it has the network (counted without running statistics), else of the paper's own code. Weights are drawn from the
 * seed: N(0, 2 / fan-in) for convolutions (He et al., 2015), U(-1, 1) / sqrt(fan-in) for linear layers. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"

struct graph_zoo_options {
    int classes;   /* 0: the network's own (1000, or 80) */
    int size;      /* of the input's sides; 0: the network's own */
    int height;    /* where the input is no square (detectors of YOLOX's form); then size is its width. 0: square */
    uint64_t seed;
};

/* ERR_NOT_FOUND lists the names. */
err graph_zoo(const char *arch, const struct graph_zoo_options *o, struct mem_payer *payer, struct graph **ret);
/* NULL-terminated. */
const char *const *graph_zoo_names(void);
/* Trainable numbers: constants of all nodes but running means and variances. */
int64_t graph_parameters(const struct graph *g);

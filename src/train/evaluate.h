/* How good is a network: runs it as inference would (folded, fused) over a set in the set's order. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"
#include "train/data.h"

#include <stdatomic.h>

/* How pictures are fed: value = (pixel - mean) * scale, pixels of 0 to 255. */
struct train_feed {
    float mean[3], scale[3]; /* scale 0, 0, 0: 1 */
    bool bgr;
    enum train_fit fit;
};
/* What a picture input wants: [N, C, H, W], or [N, H, W, C] with 1 or 3 channels. ERR_SHAPE says what is wrong. */
struct train_picture {
    int width, height, channels;
    bool nhwc;
};
err train_picture_input(const struct graph *g, struct train_picture *ret);
/* Copies `rows` rows of a batch (always NHWC float) into an input of the graph, wherever its layout puts them; rows behind are left. */
err train_fill_input(const struct train_picture *p, const float *images, int rows, const struct tensor *input);

struct train_scores {
    int64_t samples, skipped; /* skipped: pictures that cannot be decoded */
    double top1, top5;        /* classify */
    double loss;              /* mean cross entropy */
    double rank1, map;        /* embed: the nearest other picture is of the same identity; mean average precision. `samples` counts the questions */
    double psnr;              /* image: mean over pictures, in dB */
    double accuracy;          /* attributes: mean over attributes */
    double perplexity;        /* text: exp(loss) */
    double ap50, ap;          /* detect */
    double seconds;
};
struct train_evaluate_options {
    struct mem_budget *budget;
    int batch, threads;      /* 0: 32, all */
    struct train_feed feed;
    const int64_t *samples;  /* NULL: all */
    int64_t n_samples;
    const atomic_bool *stop;
    bool idle;
    bool unscored;           /* only what it takes is of interest: there need be nothing to score by */
};
/* Detect: average precision as COCO defines it (task/metric.h), boxes in pixels of the network's input, outputs as YOLOX's or CenterNet's (detector.h), suppression at IoU 0.65.
 * The graph is borrowed. ERR_USAGE: the set's classes are not the network's outputs. ERR_CANCELLED. */
err train_evaluate_detect(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret);
/* Embed: evaluate_embed.c says how it is counted. `gallery`: who answers; NULL: the other pictures of the same set. */
err train_evaluate_embed(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret);
err train_evaluate_gallery(const struct graph *g, const struct train_set *query, const struct train_set *gallery, const struct train_evaluate_options *o,
                           struct train_scores *ret);
/* evaluate_rows.c says how these are counted. */
err train_evaluate_image(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret);
err train_evaluate_attributes(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret);
err train_evaluate_text(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret);
/* Tokens that a language model reads at once, from its input [N, tokens]. ERR_SHAPE. */
err train_text_length(const struct graph *g, int *ret);
err train_evaluate_classify(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret);

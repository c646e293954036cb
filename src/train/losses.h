/* Losses as graph builders: each appends nodes and gives the number of a value of one float (or -1, the error stays in the builder). Means are over everything
 * unless said otherwise. Formulas beside their functions in losses.c. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "train/net.h"

/* logits [N, C], target [N, C] of 0 to 1. Binary cross entropy, each class for itself. */
int train_b_bce(struct graph_builder *b, int logits, int target);
/* Focal loss (Lin et al. 2017) for one class of many: -sum target (1 - p)^gamma log p, mean over rows. gamma 0: cross entropy. */
int train_b_focal(struct graph_builder *b, int logits, int target, double gamma);
/* T^2 times the cross entropy between teacher's probabilities (already at temperature T) and logits / T, mean over rows (Hinton et al. 2015). Differs from the
 * Kullback-Leibler divergence by the teacher's entropy, which has no gradient. */
int train_b_distill(struct graph_builder *b, int logits, int teacher, double temperature);
/* Rows of length 1: x / max(|x|, 1e-12). */
int train_b_unit(struct graph_builder *b, int x);
int train_b_l1(struct graph_builder *b, int x, int y);
int train_b_mse(struct graph_builder *b, int x, int y);
/* 1 - SSIM (Wang et al. 2004): Gaussian window of 11, sigma 1.5, without padding; x, y [N, C, H, W] of 0 to `range`. */
int train_b_ssim(struct graph_builder *b, int x, int y, double range);
/* Triplet loss with the hardest positive and negative of the batch (Hermans et al. 2017): x [N, D]; same [N, N]: 1 where two rows are of one identity.
 * Mean over rows of max(0, margin + d(hardest positive) - d(hardest negative)), Euclidean distance. */
int train_b_triplet(struct graph_builder *b, int x, int same, double margin);

/* ---- whole losses, for train_net_options */

struct train_classify {
    double smoothing, focal;       /* focal: gamma, 0: cross entropy */
    double distill, temperature;   /* weight of the teacher's loss, 0: none; target 1 is then the teacher's probabilities */
};
/* Identities: the graph's output 0 is the embedding [N, D], an output called train_head... the logits of the identities. Cross entropy of those, and
 * `triplet` times the triplet loss of the embeddings brought to length 1 (they are compared by angle). Targets: 0 [N, identities], 1 same [N, N]. */
struct train_embed {
    double margin, triplet, smoothing;
};
train_loss_fn train_loss_embed;
/* Target 0: [N, classes], a distribution per row. The logits are output 0, or what its Softmax is made of. */
train_loss_fn train_loss_classify;
/* Pictures: target 0 as output 0. The sum of what has a weight; adversary: train_b_rival's, whose own loss is then `rival`. */
struct train_image {
    double l1, mse, ssim, adversary;
    double range;                  /* of the numbers of a picture, for SSIM: 255 * scale */
    int rival;                     /* set by the loss */
};
train_loss_fn train_loss_image;
/* A rival that tells answers (output 0) from true pictures: its layers are put behind output 0 and become output "train_head.rival"; b_rival gives what the answers
 * should make small, and in *ret_rival what the rival should (train_net_options.rival). */
err train_add_rival(struct graph *g, uint64_t seed);
int train_b_rival(struct graph_builder *b, const struct graph_training *t, int truth, int *ret_rival);
/* Attributes: targets 0 [N, attributes] of 0 and 1; 1: the same, 1 where it is known; 2 [1]: 1 / number of known ones. The logits as for classes. */
train_loss_fn train_loss_attributes;
/* Texts: output 0 is [N, tokens, words]; target 0 int64 [N * tokens], the token after each. context: struct train_classify, of which `smoothing` counts. */
train_loss_fn train_loss_text;
/* The value of the logits of output 0: past a Softmax or Sigmoid at the end; [N, C] (a trailing 1 x 1 is dropped). ERR_SHAPE if it is no list of classes. */
err train_logits(struct graph_builder *b, const struct graph_training *t, int *ret);

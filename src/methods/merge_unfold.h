/* Batch normalisation where an exporter folded it away.
 *
 * Exporters multiply a convolution's batch normalisation into its weight. Such weights cannot serve two tasks: their scales are each network's own. This puts
 * a BatchNormalization behind every convolution that has none and feeds another layer, with the statistics that the network's own pictures give there:
 *
 *     y = conv(x, w) + b   ->   batch_norm(conv(x, w)), mean = E[y] - b, var = Var[y], scale = sqrt(var + eps), bias = E[y]
 *
 * which computes the same, and is folded again (or is a scale and shift after a shared weight) when it runs. Then every filter whose result is normalised
 * is brought to length 1 (mean and var follow), so that weights of two networks can be compared and averaged: networks with a common ancestor, or that
 * differ by their folded scales alone, turn out to be alike. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "train/evaluate.h"

/* Rewrites the file in place (by a rename) if there is anything to do: *ret_changed convolutions got a norm. `o`: the pictures, how they are fed, budget, threads. */
err merge_unfold(const char *path, int size, const struct train_set *set, const struct train_evaluate_options *o, int *ret_changed);


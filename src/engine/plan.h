/* Will this site fit into a budget, and how well will it run? Answered without running it.
 *
 * The site is built with an unlimited budget (file cameras are opened for up to three seconds, so that frames and
 * decoders are known), every model runs a few times on a constant picture, and the block division (model/blocks.h)
 * says what other budgets would give. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/site.h"

#include <jansson.h>

struct engine_plan_options {
    uint64_t budget;  /* bytes; 0: the site's, or the automatic one */
    uint64_t outputs; /* bytes that queues of outputs will take (serve_bytes) */
    double bandwidth; /* of the disk, bytes a second; 0: measured on the packed weights */
};

/* The site is borrowed. *ret, one object: {budget_bytes, least_bytes, deadline_bytes (null: none does),
 * beside_weights_bytes, weights_bytes, shared_bytes (of these, in memory once for several models), fits, in_time, disk_bytes_per_s (null: nothing to read), disk_given,
 * at_budget: null or {kept_bytes, window_bytes, executor_share, disk_share}, queries: [{query, camera, model (null:
 * motion), fps, deadline_ms (null: none), compute_ms, latency_ms, behind_ms, in_time, problem (null)}], assumed:
 * [sentence]}. latency_ms: of a run alone; behind_ms: if it must wait for the longest other run first; null: it does
 * not fit, or needs no model. */
err engine_plan_site(struct site *site, const struct engine_plan_options *o, json_t **ret);

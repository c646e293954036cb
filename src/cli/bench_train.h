/* Inside `brim bench train`: see bench_turns.c. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "train/net.h"
#include "train/yolox.h"

/* Targets of train_loss_yolox: eight cells a picture. */
void bench_boxes(struct train_net *net, const struct train_yolox *y);
/* A line of /proc/self/status ("VmHWM:") in bytes; 0: it is not there. */
uint64_t bench_own_bytes(const char *key);
/* Steps as lines on stdin ask for, until it ends. `job`: the network's budget; anon_before: RssAnon before the network was there. */
err bench_turns(struct train_net *net, const struct mem_budget *job, uint64_t anon_before, uint64_t rss_before);

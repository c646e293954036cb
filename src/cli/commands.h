/* What main.c lists besides run, verify and explain: one line per verb. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/version.h"
#include "cli/bench.h"
#include "cli/check.h"
#include "cli/eval.h"
#include "cli/merge.h"
#include "cli/model_cmd.h"
#include "cli/models.h"
#include "cli/on_box.h"
#include "cli/plan.h"
#include "cli/scene.h"
#include "cli/serve_cmd.h"
#include "cli/train.h"
#include "video/video.h"

/* clang-format off */
#define CLI_MORE_COMMANDS \
    {"serve", cli_serve, "the main job: cameras, models, queries, one budget"}, \
    {"mem", cli_mem, "of a running box: bytes by payer and purpose"}, \
    {"why", cli_why, "of a running box: the last decisions about a camera, and their reasons"}, \
    {"budget", cli_budget, "of a running box: change the budget"}, \
    {"models", cli_models, "the weight store: import, list, show, pin, remove, verify, gc"}, \
    {"new", cli_new, "write an untrained network by name"}, \
    {"scene", cli_scene, "draw a synthetic site with ground truth"}, \
    {"bench", cli_bench, "honest figures: the site at several budgets"}, \
    {"check", cli_check, "is a site file right"}, \
    {"plan", cli_plan, "will a site fit into a budget, and how well will it run"}, \
    {"merge", cli_merge, "what models could share, and retraining until they do"}, \
    {"train", cli_train, "train a network on pictures"}, \
    {"job", cli_job, "of a running box: what it trains or merges beside its cameras; stop, start, remove"}, \
    {"export", cli_export, "a training checkpoint as ONNX"}, \
    {"eval", cli_eval, "score tracks against truth, or a network on a set of pictures"},

/* What main.c lists besides run, verify and explain: one line per verb. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "cli/check.h"
#include "cli/eval.h"
#include "cli/model_cmd.h"

#define BRIM_VERSION "0.1.0"

/* clang-format off */
#define CLI_MORE_COMMANDS \
    {"check", cli_check, "is a site file right"}, \
    {"eval", cli_eval, "score tracks against truth"},

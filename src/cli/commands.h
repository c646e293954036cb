/* What main.c lists besides run, verify and explain: one line per verb. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "cli/model_cmd.h"

#define BRIM_VERSION "0.1.0"

#define CLI_MORE_COMMANDS

/* Commands as jobs of a running box (engine/job.h). SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"

bool cli_wants_box(int argc, char **argv);
/* The command's words without --on-box, --name, --store (and --publish of a training), to the box as a job of this kind. The exit status. */
int cli_on_box(const char *kind, int argc, char **argv);
int cli_job(int argc, char **argv);

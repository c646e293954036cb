/* `brim check SITE [--json]`: is the site file right? Returns the exit status: 0, or 2 if there are problems.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

int cli_check(int argc, char **argv);

/* `brim plan SITE [--budget SIZE] [--disk SIZE] [--json]`: fits or not, how small a budget may be, expected
 * latencies. Returns the exit status: 0 all in time, 1 not, 2 wrong usage or input. SPDX-License-Identifier:
 * Apache-2.0 */
#pragma once

int cli_plan(int argc, char **argv);

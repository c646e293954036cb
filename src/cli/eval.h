/* `brim eval`: scores files of tracks against the truth.
 *
 *     brim eval tracks --truth F --tracks F [--iou 0.5] [--json]
 *     brim eval tracks --truth F --degrade miss=0.1,jitter=0.05,fp=0.1 [--seed N] [--fps 30] [--every N]
 * [--out F]
 *
 * argv[0] is "eval". Returns the exit status: 0, 1 (the work failed) or 2 (wrong usage or input).
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

int cli_eval(int argc, char **argv);

/* `brim bench NAME`: figures that anyone can make again. Returns the exit status. SPDX-License-Identifier:
 * Apache-2.0 */
#pragma once

int cli_bench(int argc, char **argv);

/* The option --precision. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/kernel.h"

/* NULL: f32. ERR_USAGE for anything but f32, bf16, auto. Says on stderr if bf16 was asked for and the processor has none (f32 is what runs then). */
err cli_precision(const char *command, const char *text, enum kernel_precision *ret);
const char *cli_precision_name(enum kernel_precision p);

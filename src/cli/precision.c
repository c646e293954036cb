/* See precision.h. SPDX-License-Identifier: Apache-2.0 */
#include "cli/precision.h"

#include <stdio.h>
#include <string.h>

static const char *const NAMES[] = {[KERNEL_F32] = "f32", [KERNEL_BF16] = "bf16", [KERNEL_AUTO] = "auto"};

const char *cli_precision_name(enum kernel_precision p)
{
    return NAMES[p];
}

err cli_precision(const char *command, const char *text, enum kernel_precision *ret)
{
    enum kernel_precision p = KERNEL_F32;
    if (text)
        for (p = KERNEL_F32; p <= KERNEL_AUTO && strcmp(text, NAMES[p]) != 0;) p++;
    if (p > KERNEL_AUTO) return err_set(ERR_USAGE, "--precision: expected f32, bf16 or auto, found '%s'", text);
    if (p == KERNEL_BF16 && !kernels_have_bf16()) fprintf(stderr, "brim %s: this processor has no bf16 (AVX-512 BF16 or AMX): running in f32\n", command);
    *ret = p;
    return ERR_OK;
}

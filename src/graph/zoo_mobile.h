/* Inside the zoo: MobileNetV3's blocks, which SSDlite stands on. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/zoo_build.h"

struct zoo_mobile_row {
    int kernel, expand, out;
    bool squeeze, swish;
    int stride;
};
extern const struct zoo_mobile_row zoo_mobile_large[15];
/* ret_expanded (may be NULL): the value after the expansion. */
int zoo_mobile_block(struct zoo *z, int x, const struct zoo_mobile_row *r, int *ret_expanded);

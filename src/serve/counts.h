/* What the outputs that are not HTTP have told and what they had to drop; shown in /metrics. The feed holds them, because every output knows
 * it and it lives longest. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdatomic.h>

struct serve_count {
    atomic_ullong written; /* lines, pictures */
    atomic_ullong slow;    /* dropped: nobody took them in time */
    atomic_ullong failed;  /* dropped: they could not be written */
};

struct serve_counts {
    struct serve_count jsonl, mot, pictures;
};

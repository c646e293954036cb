/* oneDNN's kernel classes (version 2.6, C interface, OpenMP threads), strongest first: all calls of that library
 * live in this folder.
 *
 * What flows may be f32 or bf16, as the graph says (graph/precision.h); sums are f32 always. They want and give images
 * in channels-last (dense: a view into a wider tensor is refused), read weights in a layout that oneDNN chose, and
 * refuse (ERR_UNSUPPORTED from prepare) whatever oneDNN could only run on its plain reference code, which is up to
 * a thousand times slower than ours.
 *
 * Threads: at most query.threads of OpenMP; one where waking the others would take longer than they save. The
 * number is set for the calling thread in prepare, pack and run, and stays set. Two calling threads have two teams.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/kernel.h"

/* NULL-terminated. */
extern const struct kernel_class *const kernels_onednn_classes[];

/* For tests and `brim mem`: live primitives of the process and the bytes that were charged for them. */
struct kernels_onednn_usage {
    size_t primitives, bytes;
};
struct kernels_onednn_usage kernels_onednn_usage(void);

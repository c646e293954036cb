/* The one oneDNN engine of the process, and the words for its answers. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <dnnl.h>

#include "base/err.h"

/* Never NULL; made at the first call. */
dnnl_engine_t onednn_engine(void);

/* From now on, oneDNN calls of this thread use `n` threads. Cheap if that is so already. */
void onednn_threads(int n);
/* What oneDNN may use of this processor (dnnl_cpu_isa_t), so that DNNL_MAX_CPU_ISA holds for our own kernels, too. */
int onednn_isa(void);
/* How many of `threads` for work of `ns` nanoseconds on one. */
int onednn_threads_for(double ns, int threads);

/* ERR_OK, ERR_NOMEM, or `otherwise` with the sentence "oneDNN: WHAT: ...". */
err onednn_check(dnnl_status_t status, err otherwise, const char *what);

/* The one oneDNN engine of the process, and the words for its answers. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <dnnl.h>

#include "base/err.h"

/* Never NULL; made at the first call. */
dnnl_engine_t onednn_engine(void);

/* From now on, oneDNN calls of this thread use `n` threads. Cheap if that is so already. */
void onednn_threads(int n);

/* ERR_OK, ERR_NOMEM, or `otherwise` with the sentence "oneDNN: WHAT: ...". */
err onednn_check(dnnl_status_t status, err otherwise, const char *what);

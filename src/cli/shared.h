/* With whom a stored model shares which weights. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "cli/one_model.h"

struct cli_shared {
    struct weights_manifest manifest;
    char **with; /* per tensor; NULL: no stored model */
};
/* Of a file: nothing is known, and nothing is shared. */
err cli_shared_open(const struct one_model *o, struct cli_shared *ret);
void cli_shared_done(struct cli_shared *s);
/* "b, c" for the tensor of that name; "nobody now" if those who had it as well have left. */
const char *cli_shared_with(const struct cli_shared *s, const char *tensor);
/* Of the packed weights of a plan. */
size_t cli_shared_bytes(const struct model_plan *p);

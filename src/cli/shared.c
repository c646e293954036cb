/* Lists of sharers for `brim explain`. SPDX-License-Identifier: Apache-2.0 */
#include "cli/shared.h"

#include "model/share.h"

#include <stdlib.h>
#include <string.h>

err cli_shared_open(const struct one_model *o, struct cli_shared *ret)
{
    struct cli_shared s = {0};
    if (!o->models) return ERR_OK;
    err e = weights_manifest_current(o->models, o->path, &s.manifest);
    if (!e && (e = model_share_names(o->models, &s.manifest, &s.with))) weights_manifest_done(&s.manifest);
    if (!e) *ret = s;
    return e;
}

void cli_shared_done(struct cli_shared *s)
{
    for (size_t i = 0; s->with && i < s->manifest.n_tensors; i++) free(s->with[i]);
    if (s->with) weights_manifest_done(&s->manifest);
    free(s->with);
    *s = (struct cli_shared){0};
}

const char *cli_shared_with(const struct cli_shared *s, const char *tensor)
{
    for (size_t i = 0; s->with && i < s->manifest.n_tensors; i++)
        if (s->with[i] && !strcmp(s->manifest.tensors[i].name, tensor)) return s->with[i];
    return "nobody now";
}

size_t cli_shared_bytes(const struct model_plan *p)
{
    size_t bytes = 0;
    for (int i = 0; i < model_plan_sizes(p).steps; i++) bytes += model_plan_step(p, i).shared_bytes;
    return bytes;
}

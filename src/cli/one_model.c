/* Opening one model for a command. What is no file but could be the name of a stored model is looked for in the store.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/one_model.h"

#include "cli/precision.h"
#include "engine/engine.h"

#include <stdlib.h>
#include <unistd.h>

static err open_folder(struct one_model *o, bool stored, char **ret)
{
    err e = ERR_OK;
    *ret = NULL;
    if (!o->limited) return ERR_OK;
    *ret = o->store ? xstrdup(o->store) : engine_store_path(NULL);
    e = engine_make_folders(*ret);
    if (!e && stored) e = weights_store_open(*ret, NULL, &o->models);
    if (!e) e = weights_reader_new_with(o->kind, &o->reader);
    if (!e) weights_reader_set_pace(o->reader, (double)o->pace);
    return e;
}

err one_model_open(struct one_model *o)
{
    struct model_options m = {.threads = (int)o->threads, .only_ref = o->only_ref, .no_rewrites = o->no_rewrites, .slice_bytes = (size_t)o->slice};
    if (o->threads < 0 || o->threads > 1024) return err_set(ERR_USAGE, "--threads: from 1 to 1024");
    err e = cli_precision(o->command, o->precision, &m.precision);
    if (e) return e;
    bool stored = access(o->path, F_OK) != 0 && !str_ends(o->path, ".onnx") && !weights_name_check(o->path);
    char *folder;
    o->limited |= stored || o->budget_bytes != UINT64_MAX;
    m.budget = o->budget = mem_budget_new("host", o->budget_bytes);
    e = open_folder(o, stored, &folder);
    m.reader = o->reader;
    m.spill_dir = folder;
    char *verdicts = folder ? NULL : model_cache_dir();
    m.verdict_dir = verdicts;
    if (!e) e = stored ? model_open_stored(o->models, o->path, o->path, &m, &o->model) : model_open(o->path, o->path, &m, &o->model);
    free(verdicts);
    free(folder);
    return e;
}

/* Inside a budget: packed into the store's folder, then as much stays as fits and the rest streams. */
static err plan_within(struct one_model *o, const struct tensor_shape *shapes)
{
    struct model *m = o->model;
    o->model = NULL; /* taken over */
    err e = model_within_open(m, shapes, (double)o->disk, &o->within);
    o->model = o->within.model;
    o->plan = o->within.plan;
    return e;
}

err one_model_plan(struct one_model *o, const struct tensor_shape *shapes)
{
    if (o->limited) return plan_within(o, shapes);
    err e = model_plan_new(o->model, shapes, &o->plan);
    return e ? e : model_plan_reserve(o->plan);
}

void one_model_close(struct one_model *o)
{
    if (o->within.payer) {
        model_within_close(&o->within);
    } else {
        model_plan_free(&o->plan);
        model_free(&o->model);
    }
    weights_reader_free(&o->reader);
    weights_store_close(&o->models);
    mem_budget_free(&o->budget);
}

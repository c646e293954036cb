/* One model as `run` and `explain` open it: an ONNX file, or the name of a model in the store; with a budget or without.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model/within.h"
#include "weights/store.h"

struct one_model {
    /* set before one_model_open */
    const char *command, *path, *store, *precision; /* command: for messages. store: NULL: the usual place. precision: NULL: f32 */
    uint64_t budget_bytes;                /* UINT64_MAX: none */
    uint64_t disk, pace, slice;
    int64_t threads;
    bool only_ref, no_rewrites;
    bool limited;                         /* weights come from packed files; implied by a budget and by a stored model */
    enum weights_reader_kind kind;
    /* set by it */
    struct mem_budget *budget;
    struct weights_reader *reader;        /* NULL: weights are in memory for good */
    struct weights_store *models;         /* of a model that is named, not a file */
    struct model *model;
    struct model_plan *plan;
    struct model_within within;           /* limited: owns model and plan */
};

#define ONE_MODEL_OPTIONS(o)                                                                                                    \
    {"budget", ARGS_SIZE, &(o).budget_bytes, "bytes it must not exceed; weights that do not fit stream from packed files"},     \
        {"store", ARGS_STRING, &(o).store, "folder of packed files and named models (default: $BRIM_STORE, or the usual place)"}, \
        {"disk", ARGS_SIZE, &(o).disk, "bytes a second of the disk, for the block plan (default: measured)"},                   \
        {"precision", ARGS_STRING, &(o).precision, "f32 (default), bf16, or auto: what keeps outputs within 0.03 of f32's"},     \
        {"threads", ARGS_INT, &(o).threads, "default: all processors"},                                                         \
        {"only-ref", ARGS_FLAG, &(o).only_ref, "plain C kernels only"},                                                         \
        {"no-rewrites", ARGS_FLAG, &(o).no_rewrites, "the graph as the file has it"}

/* Opens the model; plans nothing. */
err one_model_open(struct one_model *o);
/* shapes: as model_plan_new. */
err one_model_plan(struct one_model *o, const struct tensor_shape *shapes);
/* Accepts one whose opening failed. */
void one_model_close(struct one_model *o);

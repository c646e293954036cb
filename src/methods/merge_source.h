/* A member as it is given to a merge: its file, how it is fed, its pictures. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"
#include "task/card.h"
#include "train/data.h"
#include "train/evaluate.h"

struct merge_source {
    const char *name;
    const char *onnx;             /* the member's own file: batch norms may be put back into it (merge_unfold.h), then it stays as it is */
    const struct task_card *card; /* borrowed; NULL: none */
    struct train_feed feed;
    const char *data, *val;       /* paths for train_set_open; val NULL: a part of data is held out */
    bool unlabelled;              /* whatever the data says, the original is the truth */
    bool crops;                   /* data are objects cut out of videos with MOT rows, as a cascade's model sees them */
    int category;                 /* crops: of objects of this class alone; 0: all */
    const char *label;            /* crops: their class is what truth/objects.json says under this key; NULL: they have none that the model knows */
};
/* Its data, or `path` in the same way: with its labels in the head's order, or (`labels` false) only pictures. As train_set_open. */
err merge_source_open(const struct merge_source *s, const char *path, bool labels, struct mem_payer *payer, struct train_set **ret);
/* A file's graph for pictures of size x size (0: as the file has it). */
err merge_source_load(const char *path, int size, struct mem_payer *payer, struct graph **ret);

/* Inside the job: what differs from one task to the next. The loop knows none of it. A task is a constant of its own file (task_*.c); its state lies in
 * struct train_job. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "train/job_inside.h"
#include "train/runner.h"

struct train_task_kind {
    const char *name;  /* as the command line says it */
    const char *score; /* what the best epoch is chosen by, as the curves call it */
    bool boxes;        /* of the data: boxes, not a class per picture */
    bool falls;        /* the less of it the better */
    bool text;         /* no pictures: the network is known before the data, whose windows it has the length of */
    bool identities;   /* what is held out are whole classes, and batches are some pictures of some classes */
    err (*adapt)(struct train_job *j, struct graph *g);            /* NULL, or: a new job's network before it is written as model.onnx: heads */
    err (*loss)(struct train_job *j, struct train_net_options *n); /* sets the loss and its context */
    err (*ready)(struct train_job *j);                             /* NULL, or: the net is there; last checks, memory of the task's own */
    err (*data)(struct train_job *j, struct train_data_options *d); /* NULL, or: what the task wants of the data, once the net is there */
    err (*batch)(struct train_job *j, const struct train_batch *b, float *ret_loss); /* pictures are filled in already */
    err (*evaluate)(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret);
    double (*scored)(const struct train_scores *s);
};
extern const struct train_task_kind train_task_classify, train_task_detect, train_task_embed, train_task_image, train_task_attributes, train_task_text;

/* Outputs whose names begin with this are for training alone: what is exported and scored has none of them. */
#define TRAIN_HEAD "train_head"
/* Takes them off, with all that only they need. */
err train_strip_heads(struct graph *g);

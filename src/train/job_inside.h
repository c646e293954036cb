/* Inside the job: its parts, and where it stands. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "train/curves.h"
#include "train/detector.h"
#include "train/job.h"

struct train_task_kind; /* task.h */

enum { TRAIN_JOB_BOXES = 120 };  /* of a picture */

struct train_job_state {
    int64_t batches;    /* done as of the last update, since the start of epoch 0 */
    int64_t steps;      /* batches of an epoch, when that was counted; 0: not known */
    int64_t updates;
    double loss_sum;    /* of this epoch's batches so far */
    double best;        /* of the best epoch: its score, below 0 where less is better; -loss without scores */
    int best_epoch, epochs_done;
    double seconds;
};
struct train_job {
    const struct train_job_options *o;
    const struct train_task_kind *kind;
    void *user;                    /* of the callbacks */
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct graph *source;          /* OUT/model.onnx */
    uint32_t model_crc;
    struct train_picture picture;
    struct train_set *set, *val;   /* val: NULL, the same as set, or its own */
    int64_t *train_samples, *val_samples, n_train, n_val;
    int classes;
    struct train_classify classify;
    struct train_teacher *teacher; /* classify; NULL: none */
    struct train_embed embed;
    struct train_image image;
    int length;                    /* text: tokens of a window */
    int *numbers, n_numbers;       /* embed: of each class of the set among the identities of the training part, or -1; how many those are */
    struct train_detector detector; /* detect */
    void *scratch;                 /* detect, of YOLOX: of the assignment */
    float *rows;                   /* detect, of YOLOX: the network's answers */
    size_t scratch_bytes, row_bytes;
    uint64_t need;                 /* bytes of everything, with an evaluation and the batches that are made ahead */
    struct train_net *net;
    struct train_data *data;
    struct train_schedule schedule;
    struct train_job_state state;
    struct train_curves curves;
    char **trained;                /* names that may be trained, n_trained of them; NULL: all usual ones */
    int n_trained;
    bool *freezes;                 /* of o->freeze: has it frozen anything? */
    int lock;                      /* OUT, open; -1: not yet */
    int64_t begun_ns, saved_ns;
    double seconds_before;
};

/* job_files.c */
err train_job_bring_model(struct train_job *j);             /* makes OUT, copies or draws the network, loads it */
err train_job_save(struct train_job *j, const char *name);  /* OUT/NAME.brim */
err train_job_restore(struct train_job *j);
/* The classes of OUT/last.brim: *ret is malloced, with its strings. */
err train_job_classes(const char *out, char ***ret, int *ret_n);
err train_job_write_onnx(struct train_job *j, const char *name);
/* The source with the numbers as they are now; free with graph_free. `payer` pays for the numbers. */
void train_job_say(const struct train_job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
err train_job_graph(struct train_job *j, struct mem_payer *payer, struct graph **ret);

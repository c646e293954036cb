/* A training job: data in, checkpoints and ONNX out. What `brim train` runs.
 *
 *     OUT/model.onnx   the network as it was given (copied once): what checkpoints refer to
 *     OUT/last.brim    checkpoint after each epoch, every few minutes, and when stopped; OUT/best.brim: of the best epoch
 *     OUT/last.onnx, OUT/best.onnx   the user's graph with new numbers (of the running mean, if there is one)
 *     OUT/curves.csv, OUT/curves.svg, OUT/job.jsonl
 *
 * The same options, seed and thread count give the same bits, also through any number of stops and resumes: what batch comes next is a function of
 * (seed, number), and checkpoints are written between updates only. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "train/evaluate.h"
#include "train/losses.h"
#include "train/yolox.h"

#include <jansson.h>

enum train_task { TRAIN_CLASSIFY = 1, TRAIN_DETECT, TRAIN_EMBED, TRAIN_IMAGE, TRAIN_ATTRIBUTES, TRAIN_TEXT };

struct train_job_options {
    enum train_task task;
    const char *model;          /* an ONNX file, or a name of graph/zoo.h */
    int size;                   /* of a network by name; 0: its own */
    const char *data, *val;     /* val NULL: `held_out` of data, none if that is 0 */
    double held_out;
    const char *const *classes; /* detect: the head's classes by name; NULL: the data's own */
    int n_classes;
    const char *out;
    int epochs, batch, threads, data_threads, accumulate;
    uint64_t seed, budget;      /* budget 0: what the machine has */
    struct mem_budget *host;    /* (borrowed) all bytes come out of this one, up to `budget` (0: what it gives); NULL: the job makes its own */
    double lr, lr_last, warmup; /* warmup in epochs */
    enum train_schedule_kind schedule;
    double gamma;               /* STEP: at 50 % and 75 % of the epochs, unless `every` epochs is given */
    int every;
    struct train_optimiser_options optimiser;
    struct train_classify classify;
    struct {
        int per_class;          /* pictures of one identity in a batch; the batch is a multiple. 0: 4 */
        double margin, triplet; /* of the triplet loss, and its weight beside the cross entropy; 0: 0.3, 1 */
        int width;              /* of the embedding of a network by name: numbers of its last layer; 0: its own */
        const char *named;      /* classify, of videos: see train_set_options */
        double seen;
        int category, every;    /* of videos: objects of this class alone (0: all), of each n-th frame (0: 10) */
    } embed;
    struct {
        const char *query, *camera; /* of a box's events only these; NULL: all */
        double since;           /* seconds since 1970; 0: all */
    } rows;
    struct train_image image;   /* weights of its losses */
    struct train_feed feed;
    struct train_augment augment;
    int freeze_but;             /* train only the last so many parameter tensors; 0: all */
    const char *const *freeze;  /* prefixes of names that stay as they are */
    int n_freeze;
    bool frozen_statistics;
    double dropout;             /* the ratio of every Dropout, below 1; 0: its own; below 0: none drops */
    bool score_first;           /* tell the scores before anything is learnt, as epoch 0 */
    int patience;               /* epochs without a better score before it ends; 0: never */
    int64_t save_ms;            /* between checkpoints inside an epoch; 0: 5 minutes */
    int64_t max_steps;          /* ends after so many updates in all, as if it were stopped; 0: never. For tests */
    enum kernel_precision precision; /* 0: f32 (train/net.h) */
    bool dry_run;               /* ends when it is known what the job needs: `sizes` and `need` of the result */
    train_trade_fn *trade;      /* as in train/net.h, with the user of train_job */
    bool idle;                  /* everything runs only where nobody else wants to (SCHED_IDLE) */
    bool resume;
    const char *const *arguments; /* kept in the checkpoint, so that --resume needs no options */
    int n_arguments;
    const char *folder;         /* kept with them: what their relative paths are seen from; NULL: not known */
    const char *teacher;        /* ONNX: classify learns its answers (classify.distill, temperature), pictures without labels get them from it; NULL: none */
    const char *const *teacher_classes; /* its classes by name (train/teacher.h); NULL: all */
    int n_teacher_classes;
    double teacher_score;
    void (*say)(void *user, const char *sentence); /* what a person should know before it begins (a head was exchanged); NULL: nobody. `user` is train_job's */
    const atomic_bool *stop;    /* set: checkpoint and end with ERR_CANCELLED */
};

struct train_progress {
    int epoch, epochs;          /* from 1; 0: before the first (score_first) */
    int64_t step, steps;        /* batches of this epoch */
    double loss, lr;            /* loss: mean of this epoch so far */
    double images_per_s, eta_s;
    bool epoch_done, best;      /* then `scores` hold (if there is validation data) */
    bool scored;
    struct train_scores scores;
    uint64_t peak;              /* bytes */
};
typedef void train_progress_fn(void *user, const struct train_progress *p);

struct train_result {
    int epochs;
    int64_t updates;
    double loss, best_top1, last_top1; /* best_top1: the score of the best epoch, whatever the task's is; NaN: none was scored */
    int best_epoch;             /* 0: none */
    bool stopped_early;
    uint64_t peak;
    double seconds;
    struct train_net_sizes sizes;
    uint64_t need;              /* bytes of all of it, scores and batches made ahead included */
    int64_t corrupt;            /* how often a picture was met that cannot be decoded; another took its place */
    char problem[256];          /* the first */
};
err train_job(const struct train_job_options *o, train_progress_fn *fn, void *user, struct train_result *ret);

/* The arguments kept in OUT/last.brim: *ret is malloced, with its strings, and so is *ret_folder (NULL: none was kept). ERR_NOT_FOUND with what to do. */
err train_job_arguments(const char *out, char ***ret, int *ret_n, char **ret_folder);

/* Writes the graph of the folder's model.onnx with the numbers of a checkpoint (`mean`: of the running mean, where there is one). */
err train_export(const char *checkpoint, const char *output, bool mean);

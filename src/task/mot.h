/* Track files: boxes with identities, frame by frame.
 *
 * Two formats are read and told apart by themselves: MOT Challenge CSV (`frame,id,x,y,w,h,score,class,...`,
 * frames from 1) and the CAMPUS annotation (`id xmin ymin xmax ymax frame lost occluded generated "label"`,
 * frames from 0). MOT CSV is written. Files are foreign bytes: lines, rows and numbers are bounded, an error
 * names file:line. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"
#include "task/box.h"

#include <stdio.h>

enum { TASK_MOT_MAX_ROWS = 4 << 20, TASK_MOT_MAX_BYTES = 256 << 20 };

struct task_mot_row {
    int frame;
    int64_t id; /* -1: none */
    struct task_box box;
    float score;
    int class_id;
    float visible;                  /* MOT16's ninth column, 0 to 1; 1 where it is not said */
    uint32_t order;                 /* place in the file */
    bool lost, occluded, generated; /* CAMPUS; `lost` is outside the picture and is not a truth box */
};

struct task_mot {
    struct mem_payer *payer;
    size_t count, bytes;
    struct task_mot_row *rows;   /* ordered by frame, then by place in the file */
    int first_frame, last_frame; /* 0 and -1 if empty */
};
/* ERR_IO, ERR_FORMAT, ERR_LIMIT, ERR_NOMEM. In MOT files rows whose score column is 0 are kept: the caller
 * decides. */
err task_mot_load(struct mem_payer *payer, const char *path, struct task_mot *ret);
err task_mot_parse(struct mem_payer *payer, const char *text, size_t size, const char *name,
                   struct task_mot *ret);
void task_mot_done(struct task_mot *m);
/* One line of MOT CSV: frame,id,x,y,w,h,score,class,-1,-1; frames as given. Reading gives the class back. */
void task_mot_write_row(FILE *f, const struct task_mot_row *r);

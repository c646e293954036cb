/* Inside the job: a network that teaches. Of classes its probabilities, batch by batch, of the very pictures that the student sees (Hinton et al. 2015); for pictures
 * without labels its class, or its boxes, once before the job begins. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "train/runner.h"

struct train_teacher;
/* `picture`: what the student is fed with; a teacher of another size sees it resized. `o`: budget, threads, stop. */
err train_teacher_open(const char *path, const struct train_picture *picture, int batch, const struct train_evaluate_options *o, struct train_teacher **ret);
void train_teacher_close(struct train_teacher **t);
int train_teacher_classes(const struct train_teacher *t);
/* softmax(logits / temperature) of a batch, [rows][classes]. */
err train_teacher_answer(struct train_teacher *t, const struct train_batch *b, double temperature, float *to);

struct train_teacher_labels {
    const char *path;
    bool boxes;                /* a YOLOX's boxes; else the class of the largest output */
    const char *const *names;  /* of the teacher's classes in their order; those called "#NUMBER" are left out. NULL: all, called by their numbers */
    int n_names;
    double score;              /* boxes: at least so sure; 0: 0.4 */
};
/* Labels every sample of an unlabelled set; a picture that cannot be read stays without. `o`: also how pictures are fed. ERR_USAGE: it saw nothing. */
err train_teacher_label(const struct train_teacher_labels *l, struct train_set *set, const struct train_evaluate_options *o);

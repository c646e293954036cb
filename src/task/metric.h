/* Scores: how right are detections and tracks?
 *
 * Average precision as COCO defines it (greedy matching by falling score, precision made monotone, mean of
 * 101 recall points; IoU 0.5, and the mean over 0.5 to 0.95). MOTA as CLEAR MOT defines it (Bernardin and
 * Stiefelhagen 2008): matches of the frame before are kept while they overlap, the rest is assigned exactly.
 * IDF1 as Ristani et al. 2016 define it: one exact assignment of identities over the whole sequence. Offline
 * tools: they allocate through a payer and may be slow. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"
#include "task/box.h"
#include "task/mot.h"

/* A detection or truth box of one picture. */
struct task_ap_box {
    int image;
    int class_id;
    float score; /* ignored for truth */
    bool
        ignore; /* truth only: a match with it counts neither way (COCO's iscrowd without its overlap rule) */
    struct task_box box;
};
struct task_ap {
    double ap50, ap;              /* mean over classes that have truth; -1 if none has */
    double precision, recall, f1; /* at IoU 0.5 and score >= `score_at`, over all classes */
    int64_t truths, detections;
    int classes;
};
/* At most 100 detections per picture and class count (the best), as in COCO. `score_at` only moves precision
 * and recall. ret_class_ap50, if not NULL, takes class_count numbers (-1: no truth). Class ids outside 0 ..
 * class_count-1: ERR_USAGE. */
err task_ap_compute(struct mem_payer *payer, const struct task_ap_box *truth, size_t truth_count,
                    const struct task_ap_box *found, size_t found_count, int class_count, float score_at,
                    double *ret_class_ap50, struct task_ap *ret);

struct task_mota {
    int64_t frames, truths, found; /* boxes */
    int64_t matches, misses, false_positives, switches, fragmentations;
    int64_t idtp, idfp, idfn;
    int64_t truth_ids, found_ids, mostly_tracked, mostly_lost; /* at least 80 %, at most 20 % of its frames */
    double mota, motp;                                         /* motp: mean IoU of matches */
    double idf1, id_precision, id_recall, precision, recall;
};
/* Frames are compared by number. Rows with lost or id < 0 are left out. iou: least overlap of a match (0.5).
 * A frame may have at most 1,000 rows on a side and a file 20,000 identities: ERR_LIMIT. Ratios without a
 * denominator are 0. */
err task_mota_compute(struct mem_payer *payer, const struct task_mot *truth, const struct task_mot *found,
                      float iou, struct task_mota *ret);

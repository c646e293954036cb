/* Inside `brim merge`: a run, its models, and where results go besides --out. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "cli/merge.h"
#include "weights/store.h"

struct merge_model {
    char *name, *onnx, *data, *val;
    char *stored;             /* its name in the store that it was taken from; NULL: it was a file */
    bool of_site, crops;
    int category;             /* crops: of objects of this class; 0: all */
    char *label;              /* crops: what their class is called in truth/objects.json; NULL: they have none */
    struct task_card *card;
    /* merge_publish.c: what it was when the search began, what the store had under its name (0: nothing), what of ours is there or is about to be */
    uint64_t source, target, ours[2];
    bool published;
};
struct merge_run {
    const struct merge_run_options *o;
    int n, times;             /* times: how often results were published */
    struct merge_model *models;
    struct mem_budget *budget;
    struct mem_payer *payer;
    bool terminal;
    const char *store;        /* where stored models are; NULL: each site's, or the usual place */
};

/* merge_run.c: the models of files, stored names and sites, with cards and data; `o`, `budget` and `store` are set. */
err merge_run_open(struct merge_run *r, const struct args_list *paths);
void merge_run_close(struct merge_run *r);
struct merge_source merge_run_source(const struct merge_model *m); /* borrowed */

/* merge_estimate.c. look: with pictures of the site's recordings; with --data too. */
err merge_show_estimate(const struct merge_run_options *o, const struct args_list *paths, const char *svg, bool look);

/* Are results wanted outside of OUT: in a store, in the box? */
bool merge_publishes(const struct merge_run *r);
/* What models and store are now, or were when the search that goes on began (OUT/sources.json). */
err merge_publish_begin(struct merge_run *r);
/* OUT/NAME.onnx into the store or the box, if nobody else changed a model meanwhile: then ERR_BUSY, nothing is published, and the box is as it was. */
err merge_publish(struct merge_run *r);

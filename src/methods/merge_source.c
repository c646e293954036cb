/* See merge_source.h. SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_source.h"

enum { VIDEO_EVERY = 5, VIDEO_ENOUGH = 400 }; /* frames that stand next to each other teach little; of a short video they are better than nothing */
#define CROPS_SEEN 0.5 /* what is less visible is left out */

err merge_source_load(const char *path, int size, struct mem_payer *payer, struct graph **ret)
{
    struct graph *g;
    struct train_picture p;
    err e = graph_load(path, payer, &g);
    if (e) return e;
    if (size && !(e = train_picture_input(g, &p))) {
        struct tensor_shape *s = &g->values[g->inputs[0]].shape;
        s->dims[p.nhwc ? 1 : 2] = s->dims[p.nhwc ? 2 : 3] = size;
        for (size_t i = 0; i < g->n_values; i++) /* what the file says of others is of its own size */
            if (!g->values[i].is_input && !g->values[i].constant) g->values[i].has_shape = false;
    }
    if (e) graph_free(&g);
    else *ret = g;
    return e;
}

static err open_densely(const char *path, struct train_set_options *o, struct mem_payer *payer, struct train_set **ret)
{
    o->every = VIDEO_EVERY;
    err e = train_set_open(path, o, payer, ret);
    if (e || train_set_kind(*ret) != TRAIN_SET_VIDEO || train_set_count(*ret) >= VIDEO_ENOUGH) return e;
    o->every = (int)MAX(1, VIDEO_EVERY * train_set_count(*ret) / VIDEO_ENOUGH);
    train_set_free(ret);
    return train_set_open(path, o, payer, ret);
}

/* Boxes come in the head's order; a set of other names keeps its own. What has no labels will do: then the original is the truth. */
err merge_source_open(const struct merge_source *s, const char *path, bool labels, struct mem_payer *payer, struct train_set **ret)
{
    struct train_set_options o = {.unlabelled = !s->crops};
    if (s->crops) {
        o.identities = !s->label;
        o.named = s->label;
        o.category = s->category;
        o.seen = CROPS_SEEN;
    }
    bool named = labels && s->card && s->card->class_count > 0 && (s->crops ? s->label != NULL : task_head_detects(s->card->head));
    if (named) {
        o.classes = (const char *const *)s->card->labels;
        o.n_classes = s->card->class_count;
    }
    err e = open_densely(path, &o, payer, ret);
    if (!e || !named || s->crops) return e;
    o.classes = NULL;
    o.n_classes = 0;
    return open_densely(path, &o, payer, ret);
}

/* Training data: a set of pictures with labels, and batch after batch of it.
 *
 * A `train_set` is the index: which pictures, which class, which boxes; no pixels. It is read once, with every number checked: what cannot
 * be used is skipped and counted, with the first reason kept (file:line), and a set with nothing left is refused. `train_data` draws batches
 * from it on its own threads. What sample stands at position i of epoch e, and how it is flipped, cropped, coloured or mixed, depends on
 * (seed, e, i) alone: not on threads, speed or what was asked before, so a resumed job goes on with the same bits.
 *
 *     err e = train_set_open("photos/train", &(struct train_set_options){0}, payer, &set);
 *     struct train_data_options o = {.width = 224, .height = 224, .batch = 32, .seed = 1, .threads = 1, .scale = {1 / 255.f, 1 / 255.f, 1 / 255.f},
 *                                    .augment = {.flip = 0.5f, .crop = 0.5f}};
 *     e = train_data_open(set, &o, payer, &data);
 *     while (!(e = train_data_next(data, &batch))) use(batch);            // ERR_CLOSED: after the last epoch
 *
 * A picture that cannot be decoded (0 bytes, cut off, more than 8192 pixels a side) is counted when it is met; in training another one takes its
 * place (again by (seed, e, i) alone), in evaluation its row says so. Bytes: MEM_TRAINING of the payer, pictures in flight of a payer "stills".
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"

enum train_set_kind {
    TRAIN_SET_AUTO,   /* by the path */
    TRAIN_SET_FOLDER, /* DIR/CLASS/PICTURE.jpg|png: classes in the order of their names */
    TRAIN_SET_COCO,   /* F.json: boxes; classes in the order of their ids; iscrowd is left out */
    TRAIN_SET_YOLO,   /* DIR/images, DIR/labels (`class cx cy w h` of 0 to 1), names in DIR/classes.txt or DIR/../classes.txt */
    TRAIN_SET_CIFAR,  /* F.bin, or DIR/data_batch_*.bin; names in batches.meta.txt beside it */
    TRAIN_SET_IDX,    /* *images*-ubyte with the *labels*-ubyte beside it (MNIST and its family) */
    TRAIN_SET_VIDEO,  /* a video with labels in MOT rows (class in the 8th column) or COCO JSON whose ids are frame numbers, from 1 */
    TRAIN_SET_PAIRS,  /* DIR/input and DIR/target: pictures, and what they should become */
    TRAIN_SET_ATTRIBUTES, /* attributes.csv, or DIR with it: pictures with a yes, a no or nothing for each class */
    TRAIN_SET_TEXT,   /* F.txt (bytes), F.u16, F.u32 (tokens): windows of `length` and the token after it */
    TRAIN_SET_PLAIN,  /* with `unlabelled`: a folder of pictures */
    TRAIN_SET_CROPS,  /* with `identities` or `named`: objects cut out of a video, or a folder of them, with MOT rows; classes are identities (data_crops.c) */
    TRAIN_SET_ROWS,   /* F.db, or a box's store with events.db: its events with the pictures kept of them (data_rows.c) */
};
struct train_set_options {
    enum train_set_kind kind;
    const char *images;         /* COCO: folder of the pictures (NULL: the JSON's, or images/ there, or ../images) */
    const char *labels;         /* VIDEO: the file of labels; IDX: where the name does not tell */
    const char *const *classes; /* the head's order, by name; others are left out and counted. NULL: the set's own */
    int n_classes;
    int every, side;            /* VIDEO: keep each n-th frame (0: all), at most so many pixels a side (0: 640). CROPS: 0: each 10th, 256 */
    bool identities;            /* classes are identities: videos are read as CROPS */
    int length;                 /* TEXT: tokens of a window */
    bool unlabelled;            /* pictures without labels will do (PLAIN, or a video alone): a teacher makes them (train_set_label_...) */
    int category;               /* CROPS: objects of this class alone (8th column); 0: all */
    const char *named;          /* CROPS of rendered sites: classes are what truth/objects.json says under this key ("colour"), not identities */
    bool boxes;                 /* ROWS: whole pictures with boxes, not a class per object */
    bool attributes;            /* ROWS: a yes or no for each word that the rows' attributes say, not a class per object */
    const char *query, *camera; /* ROWS: events of these alone; NULL: all. `named`: what of the row is the class; NULL: its label */
    double since;               /* ROWS: seconds since 1970; 0: all */
    double seen;                /* CROPS, VIDEO with MOT rows: what is less visible (9th column, 0 to 1) is left out; 0: nothing */
};

struct train_box {
    float x1, y1, x2, y2; /* pixels; edges */
    int class_id;
};
struct train_set_report {
    int64_t samples, boxes;
    int64_t empty_images;       /* detection: pictures without a box; they are kept */
    int64_t bad_images;         /* of 0 bytes or not there */
    int64_t bad_boxes;          /* NaN, no area, outside the picture, class out of range */
    int64_t left_out;           /* of classes not asked for, iscrowd, ignored rows */
    int64_t no_pictures;        /* ROWS: events whose picture is gone */
    int empty_classes;          /* classes without a sample or box */
    char problem[256];          /* the first bad picture or box, "file:line: ..."; "" */
};

struct train_set;
/* ERR_NOT_FOUND, ERR_FORMAT (with file:line), ERR_LIMIT, ERR_NOMEM. `payer` is borrowed until the free. */
err train_set_open(const char *path, const struct train_set_options *o, struct mem_payer *payer, struct train_set **ret);
void train_set_free(struct train_set **s);
enum train_set_kind train_set_kind(const struct train_set *s);
const struct train_set_report *train_set_report(const struct train_set *s);
int64_t train_set_count(const struct train_set *s);
int train_set_vocabulary(const struct train_set *s); /* TEXT: one more than the largest token; else 0 */
/* Labels for a set that has none (train_set_unlabelled): the names of the classes first, then every sample from the first to the last, with a class or with
 * boxes (class ids in range; in pixels of the picture as stored, inside it; those without area are left out). ERR_NOMEM. */
bool train_set_unlabelled(const struct train_set *s);
err train_set_name_classes(struct train_set *s, const char *const *names, int n, bool boxes);
void train_set_label_class(struct train_set *s, int64_t sample, int class_id);
err train_set_label_boxes(struct train_set *s, int64_t sample, const struct train_box *boxes, int n);
int train_set_classes(const struct train_set *s);
const char *train_set_class(const struct train_set *s, int class_id);
bool train_set_has_boxes(const struct train_set *s);
bool train_set_has_attributes(const struct train_set *s);
/* Class of a sample (-1: it has boxes instead), and its boxes in pixels of the picture as stored; those of sets that say them relative to the
 * picture (YOLO) are of 0 to 1. The name is a path, or "file#number". */
int train_set_label(const struct train_set *s, int64_t sample);
/* Which camera took it: the video of CROPS; of folders what a name like 0002_c1s1_000451_03.jpg says (Market-1501's way). -1: not known. */
int train_set_camera(const struct train_set *s, int64_t sample);
const struct train_box *train_set_boxes(const struct train_set *s, int64_t sample, int *ret_n);
const char *train_set_name(const struct train_set *s, int64_t sample, char *buf, size_t size);

/* Chances are of 0 to 1 per sample, 0: never. Boxes follow; one of which less than `visible` of its area is left, or under 2 pixels, is dropped. */
struct train_augment {
    float flip;            /* left and right */
    float crop;            /* chance of a crop: `crop_area` of the picture's area, sides 3:4 to 4:3 (GoogLeNet's) */
    float crop_area[2];    /* 0, 0: 0.3 to 1 */
    int shift;             /* pixels: CIFAR's pad-and-crop by -shift to shift each way */
    float scale[2];        /* zoom, drawn between the two; 0, 0: none. Detection: 0.5 to 1.5 */
    float brightness, contrast, saturation, hue; /* gains of 1 - x to 1 + x; hue: turns of -x to x */
    float mosaic;          /* four pictures around a drawn centre (YOLOv4) */
    float mixup;           /* with another sample, weight from Beta(1, 1): classes get two labels, boxes of both are kept */
    float visible;         /* 0: 0.25 */
};
enum train_fit { TRAIN_STRETCH, TRAIN_LETTERBOX /* top left, padded with `pad` */, TRAIN_CROP /* the middle */ };
struct train_data_options {
    int width, height, channels, batch; /* channels 0: 3 */
    uint64_t seed;
    int threads;             /* 0: in train_data_next itself */
    bool idle;               /* the threads run only where nobody else wants to (SCHED_IDLE) */
    bool evaluate;           /* each sample once in the set's order, no augmentation, the last batch may be smaller */
    int epochs;              /* 0: no end (training), 1 (evaluation) */
    int64_t first_batch;     /* since the start of epoch 0: where a resumed job goes on */
    const int64_t *samples;  /* only these (a split); copied. NULL: all */
    int64_t n_samples;
    bool bytes;              /* images are uint8 0-255 without mean and scale; else f32 */
    bool nchw;               /* [n][c][h][w]; else [n][h][w][c] */
    bool bgr;
    float mean[3], scale[3]; /* value = (pixel - mean) * scale, in the order of the channels; scale 0, 0, 0: 1 */
    uint8_t pad;             /* of letterboxes; 0: 114 where the set has boxes, else 0 */
    enum train_fit fit;
    int max_boxes;           /* of a row; 0: 120. More are cut and counted */
    int per_class;           /* training: a batch is so many different samples each of batch / per_class classes, if they have as many; 0: any */
    int target_width, target_height; /* PAIRS: of the second picture; 0: as the first */
    struct train_augment augment;
};

enum { TRAIN_GEOMETRY = 6 };
struct train_batch {
    int64_t number, epoch, step; /* number = epoch * steps + step */
    int count;                   /* rows */
    void *images;                    /* TEXT: int64 [count][length + 1] */
    const float *targets;            /* PAIRS: as images, of the second picture; else NULL */
    const float *attributes;         /* of sets that have them: [count][classes]: 0, 1, or -1 where it is not known; else NULL */
    const int64_t *samples;      /* [count]; -1: it could not be decoded (evaluation): image of zeros, leave it out */
    const int32_t *labels, *labels2; /* [count]; the truth is mix of labels and 1 - mix of labels2 */
    const float *mix;            /* [count]; 1: labels alone */
    const struct train_box *boxes; /* [count][max_boxes], in pixels of width x height */
    const int32_t *n_boxes;      /* [count] */
    const float *geometry;       /* [count][TRAIN_GEOMETRY]: sx sy ox oy, network = stored pixel * s + o (of the first picture, before a flip); its width, height as stored */
};
struct train_data_stats {
    int64_t corrupt, boxes_cut, boxes_dropped; /* pictures met that cannot be decoded; over max_boxes; not visible enough */
    char problem[256];                         /* the first of the former */
};

struct train_data;
/* `set` and `payer` are borrowed. ERR_USAGE, ERR_NOMEM. */
err train_data_open(const struct train_set *set, const struct train_data_options *o, struct mem_payer *payer, struct train_data **ret);
void train_data_close(struct train_data **d);
/* Batches of one epoch: training leaves out what does not fill the last one (a set smaller than a batch is met more than once in it). */
int64_t train_data_steps(const struct train_data *d);
/* The next batch, valid until the next call. ERR_CLOSED: after the last epoch. ERR_CORRUPT: nothing could be decoded 32 times in a row. */
err train_data_next(struct train_data *d, const struct train_batch **ret);
void train_data_stats(struct train_data *d, struct train_data_stats *ret);
/* A split by the seed: each sample falls into the held-out part with this chance, whatever else is in the set; of a video, and of a box's events, it is
 * the end, since neighbours are nearly one picture. Both are malloced lists. */
void train_data_split(const struct train_set *set, double held_out, uint64_t seed, int64_t **ret_train, int64_t *ret_n_train, int64_t **ret_held,
                      int64_t *ret_n_held);
/* The same with whole classes, by their names: for identities. */
void train_data_split_classes(const struct train_set *set, double held_out, uint64_t seed, int64_t **ret_train, int64_t *ret_n_train, int64_t **ret_held,
                              int64_t *ret_n_held);

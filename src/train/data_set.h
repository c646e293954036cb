/* Inside train/data: the index under construction. A reader adds classes, samples and boxes; every sample's boxes follow one another.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdio.h>

#include "train/data.h"

enum {
    DATA_MAX_CLASSES = 10000,
    DATA_MAX_SAMPLES = 64 << 20,
    DATA_MAX_BOXES = 256 << 20,
    DATA_MAX_LINE = 4096,
    DATA_MAX_FILES = 1000
};

struct data_list {
    void *items;
    size_t len, cap;
};

struct data_sample {
    int64_t at;       /* pictures in files: place of the path in `text`; records: place in the file; frames of a video: place in `jpegs` */
    int32_t size;     /* frames of a video: bytes */
    int32_t label;    /* -1: none */
    int32_t file;     /* records: which file; frames of a video: their number; crops: the camera */
    int32_t n_boxes;
    int64_t first_box;
};

/* Pictures that lie in records of one size (CIFAR, IDX), read when they are needed. */
struct data_record {
    int fd;
    char *path;
    int64_t header, bytes; /* of the file; of a record */
    int skip;              /* label bytes before the pixels */
    int w, h, channels;
    bool planes;           /* RRR GGG BBB rather than RGB RGB */
};

struct train_set {
    struct mem_payer *payer;
    enum train_set_kind kind;
    struct train_set_report report;
    bool has_boxes, relative, unlabelled;
    char **classes;
    size_t n_classes, cap_classes;
    struct data_list samples, boxes, text, jpegs, attributes; /* data_sample, train_box, char, uint8_t, int8_t [samples][classes]; MEM_TRAINING */
    int vocabulary;
    double seen;
    struct data_record *records;
    size_t n_records, cap_records;
};

static inline struct data_sample *data_samples(const struct train_set *s)
{
    return s->samples.items;
}

static inline struct train_box *data_boxes(const struct train_set *s)
{
    return s->boxes.items;
}

/* Adds `n` items of `item` bytes each. */
err data_append(struct train_set *s, struct data_list *l, size_t item, const void *items, size_t n);
void data_list_done(struct mem_payer *payer, struct data_list *l, size_t item);
/* Keeps the first sentence. */
void data_problem(struct train_set *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
err data_add_class(struct train_set *s, const char *name, size_t length);
/* `path` is copied. */
err data_add_picture(struct train_set *s, const char *path, int label);
/* Belongs to the newest sample. `w`, `h`: the picture's sides (1, 1: relative; 0: not known). A box that cannot be used is counted, not an error. */
err data_add_box(struct train_set *s, const char *file, int64_t line, struct train_box box, double w, double h);
/* A file of names, one a line. ERR_NOT_FOUND: there is none. */
err data_read_names(struct train_set *s, const char *path);
/* Names of the entries of a folder, sorted, hidden ones left out; free each and the list. ERR_NOT_FOUND, ERR_LIMIT. */
err data_list_folder(const char *path, char ***ret, size_t *ret_n);
void data_free_names(char ***names, size_t n);
/* One line without its end into buf. False at the end, and with *e set for a line that is too long or has a zero byte. */
bool data_line(FILE *f, const char *name, int64_t *line, char buf[DATA_MAX_LINE], err *e);

err data_read_folder(struct train_set *s, const char *path);
err data_read_pairs(struct train_set *s, const char *path);
err data_read_attributes(struct train_set *s, const char *path);
err data_read_text(struct train_set *s, const char *path, int length);
bool data_is_picture(const char *name);
err data_read_plain(struct train_set *s, const char *path);
bool data_has_pictures(const char *path);
err data_read_yolo(struct train_set *s, const char *path);
err data_read_cifar(struct train_set *s, const char *path);
err data_read_idx(struct train_set *s, const char *path, const char *labels);
err data_read_coco(struct train_set *s, const char *path, const char *images);
err data_read_video(struct train_set *s, const char *path, const struct train_set_options *o);
err data_read_crops(struct train_set *s, const char *path, const struct train_set_options *o);
err data_read_rows(struct train_set *s, const char *path, const struct train_set_options *o);
bool data_is_rows(const char *path);
bool data_is_video(const char *name);
/* Where the MOT rows of the video NAME.mp4 in `dir` (NULL: where `name` says) lie: NAME.txt, truth/NAME.txt or gt/NAME.txt; malloced, the last one if none is there. */
char *data_labels_of(const char *dir, const char *name);
bool data_has_videos(const char *dir, bool deeper);

/* COCO JSON as it is written, before its parts have found each other. The file is foreign: memory for it is paid by `set`'s payer. */
struct data_coco_image {
    int64_t id, name; /* name: place in the set's text */
    int32_t w, h, line;
};
struct data_coco_box {
    int64_t image, category;
    double box[4];
    int32_t line, order;
    bool crowd;
};
struct data_coco {
    struct data_list images, boxes;
    int64_t *categories; /* ids in the order of the set's classes */
};
err data_coco_parse(struct train_set *s, FILE *f, const char *name, struct data_coco *ret);
void data_coco_done(struct train_set *s, struct data_coco *c);

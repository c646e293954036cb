/* Cards: how to feed a model and how to read it.
 *
 * An ONNX file does not say whether it wants RGB or BGR, nor what its numbers mean. A card is a small YAML
 * file that does: the input picture (size, resize, colour, mean and std), the head (what turns outputs into
 * meaning) with its parameters, labels and thresholds. docs/cards.md is the reference. Its default place is
 * beside the model, with the same stem: `yolox.onnx`, `yolox.yaml`. Errors are ERR_FORMAT with
 * "FILE:LINE:COLUMN: what, and what would be right".
 *
 * A card is immutable once loaded and small (labels included: at most 256 KiB), so it is bookkeeping and has
 * no payer. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "task/box.h"

enum {
    TASK_MAX_INPUTS = 2,
    TASK_MAX_OUTPUTS = 12,
    TASK_MAX_NAME = 128,
    TASK_MAX_CLASSES = 4096,
    TASK_MAX_STRIDES = 8,
    TASK_MAX_PRIORS = 16,
    TASK_MAX_TOP_K = 1000
};

enum task_resize {
    TASK_STRETCH,          /* to exactly width x height */
    TASK_LETTERBOX,        /* keep the aspect; picture at the top left, the rest is `pad` */
    TASK_LETTERBOX_CENTRE, /* keep the aspect; picture in the middle */
    TASK_CROP,             /* keep the aspect; cover, then cut the middle */
};
enum task_filter { TASK_BILINEAR, TASK_BICUBIC };

/* One input that takes the picture. value = (pixel - mean[c]) * scale[c], pixel 0 to 255, c in the order of
 * `bgr`. (The file says `std`, a divisor, as model authors do; scale = 1 / std.) */
struct task_input {
    char name[TASK_MAX_NAME]; /* of the ONNX input; "" is the first */
    int width, height;
    enum task_resize resize;
    enum task_filter filter;
    float pad; /* 0 to 255, before mean and scale */
    float mean[3], scale[3];
    bool bgr, nhwc;
};

/* clang-format off */
#define TASK_HEADS(X)                                                                                \
    X(TASK_YOLOX, "yolox")                                                                           \
    X(TASK_NANODET, "nanodet")                                                                       \
    X(TASK_FASTESTDET, "fastestdet")                                                                 \
    X(TASK_ULTRAFACE, "ultraface")                                                                   \
    X(TASK_SSD, "ssd")                                                                               \
    X(TASK_YOLO, "yolo")                                                                             \
    X(TASK_CENTERNET, "centernet")                                                                   \
    X(TASK_YUNET, "yunet")                                                                           \
    X(TASK_CLASSIFY, "classify")                                                                     \
    X(TASK_ATTRIBUTES, "attributes")                                                                 \
    X(TASK_EMBEDDING, "embedding")                                                                   \
    X(TASK_SEGMENTATION, "segmentation")                                                             \
    X(TASK_IMAGE, "image")
/* clang-format on */
enum task_head_kind {
#define X(id, name) id,
    TASK_HEADS(X)
#undef X
        TASK_HEAD_COUNT
};
const char *task_head_name(enum task_head_kind kind);
/* Does it answer with boxes? */
bool task_head_detects(enum task_head_kind kind);

/* What the head must still do to the class scores; TASK_RAW: nothing, the model did it. */
enum task_activation { TASK_RAW, TASK_SIGMOID, TASK_SOFTMAX };
enum task_yolo_layout { TASK_YOLO_AUTO, TASK_YOLO_V5, TASK_YOLO_V8, TASK_YOLO_END2END };

/* A grid of priors (ssd, yunet): cell (i, j) has `count` boxes of w x h input pixels, their centres at step
 * times (i + offset, j + offset). */
struct task_priors {
    int grid_w, grid_h, count;
    float step, offset;
    float w[TASK_MAX_PRIORS], h[TASK_MAX_PRIORS];
};

struct task_card {
    char *path, *name; /* name: the file's stem unless the card says another */
    int input_count;
    struct task_input inputs[TASK_MAX_INPUTS]; /* boxes are in pixels of inputs[0] */
    enum task_head_kind head;
    int output_count; /* names in the head's order; 0: the model's own order */
    char outputs[TASK_MAX_OUTPUTS][TASK_MAX_NAME];
    int class_count;  /* without background */
    char **labels;    /* class_count names; never NULL entries ("7" where the card names none) */
    float score, nms; /* thresholds */
    int top_k;        /* most detections, or classes reported */
    bool agnostic;    /* NMS across classes */
    enum task_activation activation;
    int stride_count, strides[TASK_MAX_STRIDES];
    int reg_max; /* nanodet: bins per side, less one */
    float variances[4];
    int prior_count;
    struct task_priors priors[TASK_MAX_STRIDES];
    enum task_yolo_layout layout;
    bool normalised;             /* yolo: boxes are 0 to 1 instead of input pixels */
    bool l2;                     /* embedding: normalise to length 1 */
    bool out_nhwc, out_bgr;      /* segmentation, image */
    float out_scale, out_offset; /* image: pixel = value * out_scale + out_offset */
};

/* "DIR/STEM.onnx" -> "DIR/STEM.yaml"; free(). */
char *task_card_default_path(const char *onnx_path);
/* ERR_IO, ERR_NOT_FOUND, ERR_FORMAT, ERR_LIMIT. Label files are read relative to the card. */
err task_card_load(const char *path, struct task_card **ret);
/* From memory; `path` is for messages and for finding a label file (NULL: label files are refused). */
err task_card_parse(const char *text, size_t size, const char *path, struct task_card **ret);
void task_card_free(struct task_card **c);
/* The label, or "?" out of range; never NULL. */
const char *task_card_label(const struct task_card *c, int class_id);

/* How a frame lies in the network's input: input = frame * scale + offset, per axis. The room that resizes
 * pixels uses it, and so does the one that moves boxes back; frame sizes below 1 count as 1. */
struct task_fit {
    float scale_x, scale_y, offset_x, offset_y;
    int frame_width, frame_height;
};
struct task_fit task_fit_of(const struct task_input *in, int frame_width, int frame_height);
/* From input pixels to frame pixels, cut at the frame's edges. */
struct task_box task_fit_box(const struct task_fit *f, struct task_box b);
struct task_point task_fit_point(const struct task_fit *f, struct task_point p);
/* Moves a detection (box and landmarks) in place. */
void task_fit_detection(const struct task_fit *f, struct task_detection *d);

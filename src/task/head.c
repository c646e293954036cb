/* The frame around the heads: which output is which, does it fit, memory, and what happens to boxes
 * afterwards.
 *
 * Boxes are kept unclipped until NMS is done (as the models' own code does) and then cut at the input's
 * edges. The table `ops` is the only place that knows all heads. SPDX-License-Identifier: Apache-2.0 */
#include "task/head_impl.h"

#include <stdio.h>
#include <string.h>

static const struct head_ops *const ops[TASK_HEAD_COUNT] = {
    [TASK_YOLOX] = &head_yolox,
    [TASK_NANODET] = &head_nanodet,
    [TASK_FASTESTDET] = &head_fastestdet,
    [TASK_ULTRAFACE] = &head_ultraface,
    [TASK_SSD] = &head_ssd,
    [TASK_YOLO] = &head_yolo,
    [TASK_CENTERNET] = &head_centernet,
    [TASK_YUNET] = &head_yunet,
    [TASK_CLASSIFY] = &head_classify,
    [TASK_ATTRIBUTES] = &head_attributes,
    [TASK_EMBEDDING] = &head_embedding,
    [TASK_SEGMENTATION] = &head_segmentation,
    [TASK_IMAGE] = &head_image,
};

const char *task_head_name(enum task_head_kind kind)
{
    static const char *const names[] = {
#define X(id, name) name,
        TASK_HEADS(X)
#undef X
    };
    return kind < TASK_HEAD_COUNT ? names[kind] : "?";
}

bool task_head_detects(enum task_head_kind kind)
{
    return kind <= TASK_YUNET;
}

/* --- what the heads use ------------------------------------------------------------------------------------
 */

static const char *dims_text(int rank, const int64_t *dims, char buf[96])
{
    size_t at = (size_t)snprintf(buf, 96, "[");
    for (int i = 0; i < rank && at < 70; i++) {
        const char *comma = i ? ", " : "";
        if (dims[i] > 0)
            at += (size_t)snprintf(buf + at, 96 - at, "%s%lld", comma, (long long)dims[i]);
        else
            at += (size_t)snprintf(buf + at, 96 - at, "%s%s", comma, i ? "any" : "N");
    }
    snprintf(buf + at, 96 - at, "]");
    return buf;
}

const char *head_dims_text(const struct task_output *o, char buf[96])
{
    return dims_text(o->rank, o->dims, buf);
}

err head_expect(const struct task_card *c, const struct task_output *o, const char *what, int rank,
                const int64_t *dims)
{
    bool fits = o->rank == rank;
    for (int i = 0; i < rank && fits; i++)
        fits = dims[i] < 0 || dims[i] == o->dims[i];
    if (fits) return ERR_OK;
    char want[96], have[96];
    return err_set(ERR_SHAPE,
                   "%s: head '%s' expects %s as %s, but output '%s' is %s: this card does not fit this model",
                   c->path, task_head_name(c->head), what, dims_text(rank, dims, want),
                   o->name ? o->name : "?", head_dims_text(o, have));
}

int64_t head_elements(const struct task_output *o, bool batched)
{
    int64_t n = 1;
    for (int i = batched; i < o->rank; i++)
        n *= o->dims[i];
    return n;
}

float head_bar(const struct task_head *h)
{
    return fmaxf(h->card->score, task_candidates_bar(&h->candidates));
}

void head_offer(struct task_head *h, float x1, float y1, float x2, float y2, float score, int class_id,
                const struct task_point *landmarks, int landmark_count)
{
    if (!(score >= h->card->score) || !(x2 > x1) || !(y2 > y1)) return;
    struct task_detection d = {.box = {x1, y1, x2, y2}, .score = score, .class_id = class_id};
    for (int i = 0; i < landmark_count; i++) {
        if (!isfinite(landmarks[i].x) || !isfinite(landmarks[i].y)) return;
        d.landmarks[i] = landmarks[i];
    }
    d.landmark_count = landmark_count;
    task_candidates_offer(&h->candidates, &d);
}

int head_argmax(const float *v, int n, size_t step)
{
    int best = 0;
    float most = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (!(v[(size_t)i * step] > most)) continue;
        most = v[(size_t)i * step];
        best = i;
    }
    return best;
}

void head_softmax(float *v, int n)
{
    if (n <= 0) return;
    float most = v[head_argmax(v, n, 1)], sum = 0;
    for (int i = 0; i < n; i++) {
        float d = v[i] - most; /* NaN for inf - inf: the infinite one itself, which takes all */
        v[i] = v[i] == most ? 1 : d <= 0 ? expf(d) : 0;
        sum += v[i];
    }
    for (int i = 0; i < n; i++)
        v[i] = sum > 0 ? v[i] / sum : 0;
}

/* --- binding and checking ----------------------------------------------------------------------------------
 */

static err bind_by_name(const struct task_card *c, const struct task_output *outputs, int count, int i,
                        int *ret)
{
    for (int k = 0; k < count; k++) {
        if (outputs[k].name && strcmp(outputs[k].name, c->outputs[i]) == 0) {
            *ret = k;
            return ERR_OK;
        }
    }
    return err_set(ERR_SHAPE, "%s: the model has no output '%s' (it has %d, the first is '%s')", c->path,
                   c->outputs[i], count, count > 0 && outputs[0].name ? outputs[0].name : "?");
}

/* Fills index[] and shapes[]; returns how many outputs the head takes through *ret_n. */
static err bind(const struct task_card *c, const struct task_output *outputs, int count,
                int index[TASK_MAX_OUTPUTS], struct task_output o[TASK_MAX_OUTPUTS], int *ret_n)
{
    const struct head_ops *op = ops[c->head];
    int n = c->output_count ? c->output_count : count;
    int least = c->head == TASK_NANODET ? 2 * c->stride_count : op->least;
    int most = c->head == TASK_NANODET ? least : op->most;
    if (n < least || n > most || n > TASK_MAX_OUTPUTS)
        return err_set(ERR_SHAPE,
                       "%s: head '%s' needs %d output%s, but %s %d; name the right ones under 'outputs:'",
                       c->path, task_head_name(c->head), least, least == 1 ? "" : "s",
                       c->output_count ? "the card names" : "the model has", n);
    for (int i = 0; i < n; i++) {
        index[i] = i;
        if (c->output_count) {
            err e = bind_by_name(c, outputs, count, i, &index[i]);
            if (e) return e;
        }
        o[i] = outputs[index[i]];
        if (o[i].rank < 1 || o[i].rank > 8)
            return err_set(ERR_SHAPE, "%s: output '%s' has %d dimensions, expected 1 to 8", c->path,
                           o[i].name ? o[i].name : "?", o[i].rank);
        int64_t elements = 1;
        for (int k = 1; k < o[i].rank; k++) {
            if (o[i].dims[k] < 1 || o[i].dims[k] > (1 << 28) || (elements *= o[i].dims[k]) > (1 << 28)) {
                char text[96];
                return err_set(ERR_SHAPE,
                               "%s: output '%s' is %s; all sizes but the batch must be known and sensible",
                               c->path, o[i].name ? o[i].name : "?", head_dims_text(&o[i], text));
            }
        }
    }
    *ret_n = n;
    return ERR_OK;
}

/* ONNX order of the picture's dims against the card. */
static err check_input(const struct task_card *c, const struct task_input *in,
                       const struct task_output *inputs, int count)
{
    const struct task_output *m = in->name[0] ? NULL : &inputs[0];
    for (int i = 0; i < count && !m; i++)
        if (inputs[i].name && strcmp(inputs[i].name, in->name) == 0) m = &inputs[i];
    if (!m)
        return err_set(ERR_SHAPE, "%s: the model has no input '%s' (its first is '%s')", c->path, in->name,
                       inputs[0].name ? inputs[0].name : "?");
    int64_t want[4] = {-1, 3, in->height, in->width};
    if (in->nhwc) {
        want[1] = in->height;
        want[2] = in->width;
        want[3] = 3;
    }
    bool fits = m->rank == 4;
    for (int i = 1; i < 4 && fits; i++)
        fits = m->dims[i] <= 0 || m->dims[i] == want[i];
    char a[96], b[96];
    if (fits) return ERR_OK;
    return err_set(ERR_SHAPE, "%s: the card feeds %s (%s), but input '%s' of the model is %s", c->path,
                   dims_text(4, want, a), in->nhwc ? "NHWC" : "NCHW", m->name ? m->name : "?",
                   head_dims_text(m, b));
}

static err check(const struct task_card *c, const struct task_output *outputs, int count, struct task_head *h)
{
    struct task_output o[TASK_MAX_OUTPUTS];
    err e = bind(c, outputs, count, h->index, o, &h->bound);
    if (!e) e = ops[c->head]->check(c, o, h->bound, &h->needs);
    if (e) return e;
    for (int i = 0; i < h->bound; i++) {
        h->shapes[i] = o[i];
        h->shapes[i].name = NULL;
        h->shapes[i].data = NULL;
    }
    return ERR_OK;
}

err task_card_check(const struct task_card *c, const struct task_output *inputs, int input_count,
                    const struct task_output *outputs, int output_count)
{
    for (int i = 0; i < c->input_count && inputs && input_count > 0; i++) {
        err e = check_input(c, &c->inputs[i], inputs, input_count);
        if (e) return e;
    }
    struct task_head h = {0};
    return check(c, outputs, output_count, &h);
}

/* --- life and run ------------------------------------------------------------------------------------------
 */

static size_t lay_out(struct task_head *h, char *base)
{
    const struct head_needs *n = &h->needs;
    size_t at = sizeof *h;
#define PLACE(field, length)                                                                                 \
    do {                                                                                                     \
        at = (at + 15) / 16 * 16;                                                                            \
        if (base) h->field = (void *)(base + at);                                                            \
        at += (length);                                                                                      \
    } while (0)
    PLACE(candidates.items, n->boxes ? TASK_MAX_CANDIDATES * sizeof(struct task_detection) : 0);
    PLACE(floats, n->floats * sizeof(float));
    PLACE(ints, n->ints * sizeof(int));
    PLACE(bytes, n->bytes);
#undef PLACE
    return at;
}

uint64_t task_head_bytes(const struct task_card *card, const struct task_output *outputs, int count)
{
    struct task_head h = {0};
    return check(card, outputs, count, &h) ? 0 : lay_out(&h, NULL);
}

err task_head_new(struct mem_payer *payer, const struct task_card *card, const struct task_output *outputs,
                  int count, struct task_head **ret)
{
    struct task_head plan = {.payer = payer, .card = card}, *h;
    err e = check(card, outputs, count, &plan);
    if (e) return e;
    plan.size = lay_out(&plan, NULL);
    e = mem_alloc(payer, MEM_OTHER, plan.size, (void **)&h);
    if (e) return e;
    *h = plan;
    lay_out(h, (char *)h);
    h->candidates.cap = h->needs.boxes ? TASK_MAX_CANDIDATES : 0;
    *ret = h;
    return ERR_OK;
}

void task_head_free(struct task_head **h)
{
    if (!*h) return;
    mem_free((*h)->payer, MEM_OTHER, *h, (*h)->size);
    *h = NULL;
}

static struct task_point clip_point(struct task_point p, float w, float h)
{
    return (struct task_point){fminf(fmaxf(p.x, 0), w), fminf(fmaxf(p.y, 0), h)};
}

static void finish_boxes(struct task_head *h, struct task_result *r)
{
    const struct task_card *c = h->card;
    float width = (float)c->inputs[0].width, height = (float)c->inputs[0].height;
    struct task_detection *d = h->candidates.items;
    int n = task_nms(d, h->candidates.count, c->score, c->nms, c->agnostic, c->top_k), kept = 0;
    for (int i = 0; i < n; i++) {
        d[i].box = task_box_clip(d[i].box, width, height);
        for (int k = 0; k < d[i].landmark_count; k++)
            d[i].landmarks[k] = clip_point(d[i].landmarks[k], width, height);
        if (d[i].box.x2 > d[i].box.x1 && d[i].box.y2 > d[i].box.y1) d[kept++] = d[i];
    }
    r->detections = d;
    r->detection_count = kept;
}

err task_head_run(struct task_head *h, const struct task_output *outputs, int count, int item,
                  struct task_result *ret)
{
    struct task_output o[TASK_MAX_OUTPUTS];
    for (int i = 0; i < h->bound; i++) {
        bool same = h->index[i] < count && outputs[h->index[i]].rank == h->shapes[i].rank;
        if (same) o[i] = outputs[h->index[i]];
        for (int k = h->needs.batched; same && k < o[i].rank; k++)
            same = o[i].dims[k] == h->shapes[i].dims[k];
        int64_t batch = same && h->needs.batched ? o[i].dims[0] : 1;
        if (!same || item < 0 || item >= batch || !o[i].data)
            return err_set(
                ERR_SHAPE,
                "%s: output %d is not what the head was made for, or picture %d is not in the batch",
                h->card->path, h->index[i], item);
        if (h->needs.batched) o[i].data += (int64_t)item * head_elements(&o[i], true);
    }
    h->candidates.count = 0;
    struct task_result r = {.head = h->card->head};
    ops[h->card->head]->run(h, o, h->bound, &r);
    if (h->needs.boxes) finish_boxes(h, &r);
    *ret = r;
    return ERR_OK;
}

float task_cosine(const float *a, const float *b, int n)
{
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < n; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    double c = ab / sqrt(aa * bb);
    return isfinite(c) ? (float)fmin(fmax(c, -1), 1) : 0;
}

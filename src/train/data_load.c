/* Batches, made ahead by threads.
 *
 * A ring of batches; a job is one row of one of them. Threads take the next row as long as its batch has a place in the ring, so several work on
 * one batch and the first is there soon. What a row holds does not depend on who makes it, so the threads need no order among themselves.
 * Invariant: batch number b lies in slot b % depth; rows of b are handed out only when b < released + depth.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "train/data_sample.h"

enum { MAX_THREADS = 64, MAX_SIDE = 4096, MAX_BATCH = 65536, MAX_ROW_BOXES = 10000, DEFAULT_BOXES = 120 };

struct slot {
    struct train_batch b;
    char *block; /* MEM_TRAINING, `slot_bytes`: everything the batch points to */
    int left;    /* rows not made yet */
    err e;
    char why[512];
};

struct train_data {
    struct train_data_options o;
    const struct train_set *set;
    struct mem_payer *payer;
    int64_t *samples; /* o.samples */
    int64_t steps, end;
    size_t slot_bytes, ring_bytes;
    struct slot *slots; /* MEM_TRAINING */
    int depth;
    struct data_groups groups;
    struct data_maker *makers;
    int n_makers, n_threads;
    pthread_t threads[MAX_THREADS];
    struct data_counts counts;
    pthread_mutex_t lock; /* guards all below, and left, e and why of each slot */
    pthread_cond_t changed;
    int64_t released, batch; /* the batch that the caller holds or gets next; the one whose rows are handed out */
    int row, started;        /* started: makers that have a thread */
    bool held, stop;
};

/* ---- memory */

static size_t part(size_t *at, size_t bytes)
{
    size_t p = *at;
    *at += (bytes + 63) / 64 * 64;
    return p;
}

/* Of one row: the image, or a window of a text. */
static size_t image_bytes(const struct train_data *d)
{
    return d->set->kind == TRAIN_SET_TEXT ? ((size_t)d->set->records[0].w + 1) * sizeof(int64_t) : data_image_bytes(&d->o);
}

static size_t target_floats(const struct train_data *d)
{
    return d->set->kind == TRAIN_SET_PAIRS ? (size_t)d->o.target_width * (size_t)d->o.target_height * (size_t)d->o.channels : 0;
}

static size_t attribute_floats(const struct train_data *d)
{
    return train_set_has_attributes(d->set) ? (size_t)train_set_classes(d->set) : 0;
}

/* Lays the arrays of a batch out in `block` (NULL: only counts). */
static size_t lay_out(const struct train_data *d, char *block, struct train_batch *b)
{
    const struct train_data_options *o = &d->o;
    size_t n = (size_t)o->batch, at = 0, images = part(&at, n * image_bytes(d)), samples = part(&at, n * sizeof *b->samples);
    size_t labels = part(&at, n * sizeof *b->labels), labels2 = part(&at, n * sizeof *b->labels2), mix = part(&at, n * sizeof *b->mix);
    size_t boxes = part(&at, n * (size_t)o->max_boxes * sizeof *b->boxes), n_boxes = part(&at, n * sizeof *b->n_boxes), geometry = part(&at, n * TRAIN_GEOMETRY * sizeof *b->geometry);
    size_t targets = part(&at, n * target_floats(d) * sizeof *b->targets), attributes = part(&at, n * attribute_floats(d) * sizeof *b->attributes);
    if (!block) return at;
    *b = (struct train_batch){.images = block + images,
                              .samples = (void *)(block + samples),
                              .labels = (void *)(block + labels),
                              .labels2 = (void *)(block + labels2),
                              .mix = (void *)(block + mix),
                              .boxes = (void *)(block + boxes),
                              .n_boxes = (void *)(block + n_boxes),
                              .geometry = (void *)(block + geometry),
                              .targets = target_floats(d) ? (void *)(block + targets) : NULL,
                              .attributes = attribute_floats(d) ? (void *)(block + attributes) : NULL};
    return at;
}

/* The batch's arrays are const for its reader, not for us. */
#define WRITABLE(T, p) ((T *)(uintptr_t)(p))

static struct data_row row_of(const struct train_data *d, const struct train_batch *b, int i)
{
    return (struct data_row){.image = (char *)b->images + (size_t)i * image_bytes(d),
                             .target = b->targets ? WRITABLE(float, b->targets) + (size_t)i * target_floats(d) : NULL,
                             .attributes = b->attributes ? WRITABLE(float, b->attributes) + (size_t)i * attribute_floats(d) : NULL,
                             .sample = WRITABLE(int64_t, b->samples) + i,
                             .label = WRITABLE(int32_t, b->labels) + i,
                             .label2 = WRITABLE(int32_t, b->labels2) + i,
                             .n_boxes = WRITABLE(int32_t, b->n_boxes) + i,
                             .mix = WRITABLE(float, b->mix) + i,
                             .geometry = WRITABLE(float, b->geometry) + TRAIN_GEOMETRY * i,
                             .boxes = WRITABLE(struct train_box, b->boxes) + (size_t)i * (size_t)d->o.max_boxes};
}

/* ---- making */

static int64_t sample_count(const struct train_data *d)
{
    return d->o.samples ? d->o.n_samples : train_set_count(d->set);
}

/* Prepares the slot for batch `number`. With the lock, or before the threads. */
static void slot_begin(struct train_data *d, int64_t number)
{
    struct slot *s = &d->slots[number % d->depth];
    s->b.number = number;
    s->b.epoch = number / d->steps;
    s->b.step = number % d->steps;
    int64_t from = s->b.step * d->o.batch;
    s->b.count = d->o.evaluate ? (int)MIN(d->o.batch, sample_count(d) - from) : d->o.batch;
    s->left = s->b.count;
    s->e = ERR_OK;
}

/* Is there a row to make? With the lock. */
static bool take_job(struct train_data *d, int64_t *ret_batch, int *ret_row)
{
    if (d->batch >= d->end || d->batch >= d->released + d->depth) return false;
    if (d->row == 0) slot_begin(d, d->batch);
    *ret_batch = d->batch;
    *ret_row = d->row++;
    if (d->row == d->slots[d->batch % d->depth].b.count) {
        d->batch++;
        d->row = 0;
    }
    return true;
}

static void do_job(struct train_data *d, struct data_maker *m, int64_t batch, int row)
{
    struct slot *s = &d->slots[batch % d->depth];
    struct data_row r = row_of(d, &s->b, row);
    err e = data_make(m, s->b.epoch, s->b.step * d->o.batch + row, &r);
    pthread_mutex_lock(&d->lock);
    if (e && !s->e) {
        s->e = e;
        snprintf(s->why, sizeof s->why, "%s", err_text());
    }
    if (--s->left == 0) pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
}

static void *work(void *arg)
{
    struct train_data *d = arg;
    int64_t batch;
    int row;
    if (d->o.idle) pthread_setschedparam(pthread_self(), SCHED_IDLE, &(struct sched_param){0}); /* refused: it runs as it is */
    pthread_mutex_lock(&d->lock);
    struct data_maker *m = &d->makers[d->started++];
    while (!d->stop) {
        if (!take_job(d, &batch, &row)) {
            pthread_cond_wait(&d->changed, &d->lock);
            continue;
        }
        pthread_mutex_unlock(&d->lock);
        do_job(d, m, batch, row);
        pthread_mutex_lock(&d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* ---- opening */

static bool is_chance(float v)
{
    return v >= 0 && v <= 1;
}

static err check(const struct train_set *set, struct train_data_options *o)
{
    const struct train_augment *a = &o->augment;
    if (!o->channels) o->channels = 3;
    if (!o->max_boxes) o->max_boxes = DEFAULT_BOXES;
    if (!o->pad && train_set_has_boxes(set)) o->pad = 114;
    if (o->scale[0] == 0 && o->scale[1] == 0 && o->scale[2] == 0) o->scale[0] = o->scale[1] = o->scale[2] = 1;
    if (o->width < 1 || o->height < 1 || o->width > MAX_SIDE || o->height > MAX_SIDE) return err_set(ERR_USAGE, "pictures of %d x %d: sides go from 1 to %d", o->width, o->height, MAX_SIDE);
    if (o->channels != 1 && o->channels != 3) return err_set(ERR_USAGE, "%d channels: pictures have 1 or 3", o->channels);
    if (o->batch < 1 || o->batch > MAX_BATCH) return err_set(ERR_USAGE, "a batch of %d: it goes from 1 to %d", o->batch, MAX_BATCH);
    if (o->threads < 0 || o->threads > MAX_THREADS) return err_set(ERR_USAGE, "%d threads: 0 to %d", o->threads, MAX_THREADS);
    if (o->max_boxes < 1 || o->max_boxes > MAX_ROW_BOXES) return err_set(ERR_USAGE, "%d boxes a picture: 1 to %d", o->max_boxes, MAX_ROW_BOXES);
    if (o->epochs < 0 || o->first_batch < 0) return err_set(ERR_USAGE, "epochs and batches are counted from 0");
    if (!is_chance(a->flip) || !is_chance(a->crop) || !is_chance(a->mosaic) || !is_chance(a->mixup) || !is_chance(a->visible) || !is_chance(a->brightness) ||
        !is_chance(a->contrast) || !is_chance(a->saturation) || !is_chance(a->hue))
        return err_set(ERR_USAGE, "augmentation: chances and gains go from 0 to 1");
    if (!(a->crop_area[0] >= 0 && a->crop_area[0] <= a->crop_area[1] && a->crop_area[1] <= 1) || (a->crop_area[1] > 0 && a->crop_area[0] <= 0))
        return err_set(ERR_USAGE, "augmentation: a crop's area goes from over 0 to 1, the smaller first");
    if (!(a->scale[0] >= 0 && a->scale[0] <= a->scale[1] && a->scale[1] <= 16) || (a->scale[1] > 0 && a->scale[0] < 0.01f))
        return err_set(ERR_USAGE, "augmentation: scale goes from 0.01 to 16, the smaller first");
    if (a->shift < 0 || a->shift >= MAX_SIDE) return err_set(ERR_USAGE, "augmentation: a shift of %d pixels", a->shift);
    for (int64_t i = 0; o->samples && i < o->n_samples; i++)
        if (o->samples[i] < 0 || o->samples[i] >= train_set_count(set)) return err_set(ERR_USAGE, "sample %lld is not in the set", (long long)o->samples[i]);
    if (o->evaluate) o->per_class = 0;
    if (o->target_width <= 0) o->target_width = o->width, o->target_height = o->height;
    if (o->target_width > MAX_SIDE || o->target_height > MAX_SIDE || o->target_height < 1) return err_set(ERR_USAGE, "targets of %d x %d: sides go from 1 to %d", o->target_width, o->target_height, MAX_SIDE);
    if (set->kind == TRAIN_SET_PAIRS && (a->mosaic > 0 || a->mixup > 0 || a->brightness > 0 || a->contrast > 0 || a->saturation > 0 || a->hue > 0 || o->bytes))
        return err_set(ERR_USAGE, "augmentation: pairs of pictures are flipped, cropped, shifted and zoomed together; colours, mosaic and mixup would change one without the other");
    if (train_set_has_attributes(set) && (a->mosaic > 0 || a->mixup > 0)) return err_set(ERR_USAGE, "augmentation: no mosaic and mixup of pictures with attributes");
    if (a->mosaic > 0 && !train_set_has_boxes(set)) return err_set(ERR_USAGE, "augmentation: a mosaic shows four pictures and has one label; it is for pictures with boxes");
    if (a->mixup > 0 && o->per_class) return err_set(ERR_USAGE, "augmentation: no mixup of identities; two at once are nobody");
    if (set->kind == TRAIN_SET_TEXT) o->width = o->height = 1;
    if (o->per_class < 0 || (o->per_class && (o->batch % o->per_class || train_set_has_boxes(set))))
        return err_set(ERR_USAGE, "a batch of %d is no multiple of %d pictures of a class", o->batch, o->per_class);
    if (o->samples && o->n_samples < 1) return err_set(ERR_USAGE, "no samples: the part of the set that was asked for is empty");
    return ERR_OK;
}

static err allocate(struct train_data *d)
{
    size_t list = d->o.samples ? (size_t)d->o.n_samples * sizeof *d->samples : 0;
    err e = ERR_OK;
    if (list && !(e = mem_alloc(d->payer, MEM_TRAINING, list, (void **)&d->samples))) {
        memcpy(d->samples, d->o.samples, list);
        d->o.samples = d->samples;
    }
    d->slot_bytes = lay_out(d, NULL, NULL);
    d->slots = xnewn(struct slot, (size_t)d->depth);
    for (int i = 0; !e && i < d->depth; i++) {
        e = mem_alloc(d->payer, MEM_TRAINING, d->slot_bytes, (void **)&d->slots[i].block);
        if (!e) lay_out(d, d->slots[i].block, &d->slots[i].b);
    }
    if (!e && d->o.per_class) e = data_groups_make(d->set, &d->o, d->payer, &d->groups);
    d->makers = xnewn(struct data_maker, (size_t)MAX(d->o.threads, 1));
    for (; !e && d->n_makers < MAX(d->o.threads, 1); d->n_makers += !e) e = data_maker_init(&d->makers[d->n_makers], d->set, &d->o, d->payer, &d->counts);
    for (int i = 0; i < d->n_makers; i++) d->makers[i].groups = d->o.per_class ? &d->groups : NULL;
    return e;
}

err train_data_open(const struct train_set *set, const struct train_data_options *o, struct mem_payer *payer, struct train_data **ret)
{
    struct train_data_options checked = *o;
    err e = check(set, &checked);
    if (e) return e;
    struct train_data *d = xnew(struct train_data);
    d->o = checked;
    d->set = set;
    d->payer = payer;
    pthread_mutex_init(&d->lock, NULL);
    pthread_mutex_init(&d->counts.lock, NULL);
    pthread_cond_init(&d->changed, NULL);
    int64_t n = sample_count(d);
    d->steps = o->evaluate ? (n + o->batch - 1) / o->batch : MAX(1, n / o->batch);
    int64_t epochs = o->epochs ? o->epochs : o->evaluate ? 1 : 0;
    d->end = epochs ? epochs * d->steps : INT64_MAX;
    d->depth = o->threads ? 2 + (o->threads - 1) / o->batch : 1; /* every thread has a row to make while the caller holds a batch */
    d->released = d->batch = o->first_batch;
    e = allocate(d);
    for (; !e && d->n_threads < o->threads; d->n_threads += !e) e = thread_start("train-data", work, d, &d->threads[d->n_threads]);
    if (e) {
        train_data_close(&d);
        return e;
    }
    *ret = d;
    return ERR_OK;
}

void train_data_close(struct train_data **p)
{
    struct train_data *d = *p;
    if (!d) return;
    *p = NULL;
    pthread_mutex_lock(&d->lock);
    d->stop = true;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    for (int i = 0; i < d->n_threads; i++) pthread_join(d->threads[i], NULL);
    for (int i = 0; i < d->n_makers; i++) data_maker_done(&d->makers[i]);
    data_groups_done(d->payer, &d->groups, sample_count(d));
    for (int i = 0; i < d->depth; i++) mem_free(d->payer, MEM_TRAINING, d->slots[i].block, d->slot_bytes);
    mem_free(d->payer, MEM_TRAINING, d->samples, (size_t)d->o.n_samples * sizeof *d->samples);
    free(d->slots);
    free(d->makers);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->counts.lock);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

/* ---- batches */

int64_t train_data_steps(const struct train_data *d)
{
    return d->steps;
}

err train_data_next(struct train_data *d, const struct train_batch **ret)
{
    int64_t batch;
    int row;
    pthread_mutex_lock(&d->lock);
    if (d->held) {
        d->released++;
        d->held = false;
        pthread_cond_broadcast(&d->changed);
    }
    if (d->released >= d->end) {
        pthread_mutex_unlock(&d->lock);
        return err_set(ERR_CLOSED, "the last epoch is over");
    }
    struct slot *s = &d->slots[d->released % d->depth];
    if (!d->n_threads) {
        while (take_job(d, &batch, &row)) {
            pthread_mutex_unlock(&d->lock);
            do_job(d, &d->makers[0], batch, row);
            pthread_mutex_lock(&d->lock);
        }
    }
    while (d->batch <= d->released || s->left > 0) pthread_cond_wait(&d->changed, &d->lock);
    d->held = true;
    err e = s->e;
    if (e) err_set(e, "%s", s->why);
    pthread_mutex_unlock(&d->lock);
    if (!e) *ret = &s->b;
    return e;
}

void train_data_stats(struct train_data *d, struct train_data_stats *ret)
{
    ret->corrupt = atomic_load(&d->counts.corrupt);
    ret->boxes_cut = atomic_load(&d->counts.cut);
    ret->boxes_dropped = atomic_load(&d->counts.dropped);
    pthread_mutex_lock(&d->counts.lock);
    memcpy(ret->problem, d->counts.problem, sizeof ret->problem);
    pthread_mutex_unlock(&d->counts.lock);
}

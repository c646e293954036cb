/* Regions of images: RoiAlign (Mask R-CNN, He et al. 2017, section 3) and MaxRoiPool (Fast R-CNN, Girshick 2015, section 2.1).
 *
 * RoiAlign reads every bin at a grid of points by bilinear interpolation; the points of a region are the same for all channels, so
 * they are found once per region and row of bins. The maximum is of the weighted corners of all points, as ONNX and ONNX Runtime
 * have it. Regions are foreign numbers: what does not lie on the image counts as 0. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

enum { MOST_POINTS = 1 << 12 }; /* per bin and axis */

struct roi {
    int64_t height, width, out_h, out_w;
    double x, y, bin_w, bin_h;
    int64_t grid_w, grid_h;
    bool most;
};

struct corner {
    int64_t at[4];
    double weight[4];
};

static void put(const struct tensor *t, int64_t i, double v)
{
    if (t->dtype == TENSOR_F64)
        ((double *)t->data)[i] = v;
    else
        ((float *)t->data)[i] = (float)v;
}

static double get(const struct tensor *t, int64_t i)
{
    return t->dtype == TENSOR_F64 ? ((const double *)t->data)[i] : (double)((const float *)t->data)[i];
}

static bool corners(const struct roi *r, double y, double x, struct corner *ret)
{
    double h = (double)r->height, w = (double)r->width;
    if (!(y >= -1 && y <= h && x >= -1 && x <= w) || r->height == 0 || r->width == 0) return false;
    y = fmin(fmax(y, 0), h - 1);
    x = fmin(fmax(x, 0), w - 1);
    int64_t top = (int64_t)y, left = (int64_t)x;
    int64_t bottom = MIN(top + 1, r->height - 1), right = MIN(left + 1, r->width - 1);
    double fy = y - (double)top, fx = x - (double)left;
    *ret = (struct corner){{top * r->width + left, top * r->width + right, bottom * r->width + left, bottom * r->width + right},
                           {(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx}};
    return true;
}

/* What the type of the regions can hold: how many points a bin has, and which lie on the image, must not hang on digits that ONNX Runtime does not see. */
static double held(const struct tensor *t, double v)
{
    return t->dtype == TENSOR_F64 ? v : (double)(float)v;
}

/* Point number i of `points` in a bin. */
static double point_of(const struct tensor *x, double start, double bin, int64_t number, int64_t i, int64_t points)
{
    double first = held(x, start + held(x, (double)number * bin));
    return held(x, first + held(x, held(x, ((double)i + 0.5) * bin) / (double)points));
}

/* One number of one channel: bin (row, column) of plane number `plane`. */
static double bin_of(const struct roi *r, const struct tensor *x, int64_t plane, int64_t row, int64_t column)
{
    double sum = 0, most = 0;
    bool any = false;
    plane *= r->height * r->width;
    for (int64_t i = 0; i < r->grid_h; i++)
        for (int64_t j = 0; j < r->grid_w; j++) {
            struct corner c = {{0}, {0}};
            double at_y = point_of(x, r->y, r->bin_h, row, i, r->grid_h), at_x = point_of(x, r->x, r->bin_w, column, j, r->grid_w);
            bool inside = corners(r, at_y, at_x, &c);
            for (int k = 0; k < 4; k++) {
                double v = inside ? c.weight[k] * get(x, plane + c.at[k]) : 0;
                sum += v;
                most = any && !(v > most) ? most : v;
                any = true;
            }
        }
    int64_t points = MAX(r->grid_h * r->grid_w, (int64_t)1);
    return r->most ? most : sum / (double)points;
}

static int64_t grid_of(int64_t given, double bin)
{
    double n = given > 0 ? (double)given : ceil(bin);
    return !(n > 0) ? 0 : n > MOST_POINTS ? MOST_POINTS : (int64_t)n;
}

static void region(const struct ref_call *c, struct roi *r, const struct tensor *rois, int64_t number)
{
    double scale = (double)op_attr_float(c->node, "spatial_scale", 1), side[4];
    const char *mode = op_attr_string(c->node, "coordinate_transformation_mode", "half_pixel");
    bool half = c->node->opset >= 16 && strcmp(mode, "half_pixel") == 0;
    for (int64_t k = 0; k < 4; k++)
        side[k] = held(rois, held(rois, get(rois, number * 4 + k) * scale) - (half ? 0.5 : 0));
    double w = held(rois, side[2] - side[0]), h = held(rois, side[3] - side[1]);
    if (!half) { /* a region that is none becomes one of 1 x 1 */
        w = fmax(w, 1);
        h = fmax(h, 1);
    }
    r->x = side[0];
    r->y = side[1];
    r->bin_w = held(rois, w / (double)r->out_w);
    r->bin_h = held(rois, h / (double)r->out_h);
    int64_t ratio = op_attr_int(c->node, "sampling_ratio", 0);
    r->grid_h = grid_of(ratio, r->bin_h);
    r->grid_w = grid_of(ratio, r->bin_w);
}

static err fits(const struct ref_call *c, int64_t row)
{
    const struct tensor_shape *x = &c->in[0].shape, *rois = &c->in[1].shape, *out = &c->out[0].shape;
    if (x->rank != 4 || rois->rank != 2 || rois->dims[1] != row || out->rank != 4 || out->dims[1] != x->dims[1] ||
        out->dims[0] != rois->dims[0])
        return err_set(ERR_SHAPE, "the regions do not fit to the images");
    return ERR_OK;
}

static err image_of(double index, int64_t images, int64_t *ret)
{
    if (!(index >= 0 && index < (double)images))
        return err_set(ERR_SHAPE, "a region of image %g, where there are %lld", index, (long long)images);
    *ret = (int64_t)index;
    return ERR_OK;
}

err ref_roi_align(struct ref_call *c)
{
    err e = fits(c, 4);
    if (!e && tensor_count(&c->in[2].shape) != c->in[1].shape.dims[0])
        e = err_set(ERR_SHAPE, "each region needs the number of its image");
    if (e) return e;
    struct tensor x = ref_dense_in(c, 0, false), rois = ref_dense_in(c, 1, false), y = ref_dense_out(c, 0, false);
    const struct tensor_shape *s = &y.shape;
    struct roi r = {.height = x.shape.dims[2], .width = x.shape.dims[3], .out_h = s->dims[2], .out_w = s->dims[3]};
    r.most = strcmp(op_attr_string(c->node, "mode", "avg"), "max") == 0;
    int64_t channels = s->dims[1], at = 0;
    for (int64_t n = 0; n < s->dims[0]; n++) {
        int64_t image = 0;
        if ((e = image_of((double)ref_int_at(&c->in[2], n), x.shape.dims[0], &image))) return e;
        region(c, &r, &rois, n);
        for (int64_t k = 0; k < channels; k++)
            for (int64_t i = 0; i < r.out_h; i++)
                for (int64_t j = 0; j < r.out_w; j++)
                    put(&y, at++, bin_of(&r, &x, image * channels + k, i, j));
    }
    ref_dense_done(c, 0, &y);
    return ERR_OK;
}

/* ---- MaxRoiPool */

struct span {
    int64_t from, to;
};

/* Bin number i of n over [start, start + length), cut at [0, size). */
static struct span part(int64_t i, int64_t n, double start, double length, int64_t size)
{
    double bin = length / (double)n, from = floor((double)i * bin) + start, to = ceil((double)(i + 1) * bin) + start;
    from = fmin(fmax(from, 0), (double)size);
    to = fmin(fmax(to, 0), (double)size);
    return (struct span){(int64_t)from, (int64_t)to};
}

static double largest(const struct tensor *x, int64_t plane, struct span rows, struct span columns)
{
    double most = 0;
    bool any = false;
    for (int64_t i = rows.from; i < rows.to; i++)
        for (int64_t j = columns.from; j < columns.to; j++) {
            double v = get(x, (plane * x->shape.dims[2] + i) * x->shape.dims[3] + j);
            most = any && !(v > most) ? most : v;
            any = true;
        }
    return most;
}

err ref_max_roi_pool(struct ref_call *c)
{
    err e = fits(c, 5);
    if (e) return e;
    struct tensor x = ref_dense_in(c, 0, false), rois = ref_dense_in(c, 1, false), y = ref_dense_out(c, 0, false);
    double scale = (double)op_attr_float(c->node, "spatial_scale", 1), side[4];
    int64_t channels = y.shape.dims[1], h = y.shape.dims[2], w = y.shape.dims[3], at = 0, image = 0;
    for (int64_t n = 0; n < y.shape.dims[0]; n++) {
        if ((e = image_of(get(&rois, n * 5), x.shape.dims[0], &image))) return e;
        for (int64_t k = 0; k < 4; k++) {
            side[k] = round(held(&rois, get(&rois, n * 5 + 1 + k) * scale));
            if (!isfinite(side[k])) return err_set(ERR_SHAPE, "region %lld is not finite", (long long)n);
        }
        double width = fmax(side[2] - side[0] + 1, 1), height = fmax(side[3] - side[1] + 1, 1);
        for (int64_t k = 0; k < channels; k++)
            for (int64_t i = 0; i < h; i++)
                for (int64_t j = 0; j < w; j++)
                    put(&y, at++, largest(&x, image * channels + k, part(i, h, side[1], height, x.shape.dims[2]),
                                          part(j, w, side[0], width, x.shape.dims[3])));
    }
    ref_dense_done(c, 0, &y);
    return ERR_OK;
}

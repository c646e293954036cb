/* The plot has the losses on a logarithmic axis on the left and the score on the right, one point per epoch; no script, so any viewer shows it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/curves.h"

#include "weights/fs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void train_curves_add(struct train_curves *c, const struct train_point *p)
{
    vec_grow(&c->points, &c->cap, c->n);
    c->points[c->n++] = *p;
}

void train_curves_done(struct train_curves *c)
{
    free(c->points);
    *c = (struct train_curves){0};
}

static err put(const char *dir, const char *name, struct strbuf *b)
{
    const void *part = b->s;
    return weights_fs_put(&weights_fs_system, dir, dir, name, &part, &b->len, 1, false);
}

static void number(struct strbuf *b, const char *before, double v)
{
    if (isfinite(v)) strbuf_addf(b, "%s%.9g", before, v);
    else strbuf_add(b, before);
}

static void csv(const struct train_curves *c, const char *score, struct strbuf *b)
{
    strbuf_addf(b, "epoch,updates,loss,lr,val_loss,%s,seconds\n", score);
    for (size_t i = 0; i < c->n; i++) {
        const struct train_point *p = &c->points[i];
        strbuf_addf(b, "%d", p->epoch);
        number(b, ",", p->updates);
        number(b, ",", p->loss);
        number(b, ",", p->lr);
        number(b, ",", p->val_loss);
        number(b, ",", p->score);
        number(b, ",", p->seconds);
        strbuf_add(b, "\n");
    }
}

enum { WIDTH = 720, HEIGHT = 360, LEFT = 60, RIGHT = 60, TOP = 30, BOTTOM = 40 };

static double x_of(const struct train_curves *c, size_t i)
{
    return LEFT + (WIDTH - LEFT - RIGHT) * (c->n > 1 ? (double)i / (double)(c->n - 1) : 0.5);
}

/* which: 0 loss, 1 val_loss, 2 score */
static double value(const struct train_point *p, int which)
{
    return which == 0 ? p->loss : which == 1 ? p->val_loss : p->score;
}

static void line(const struct train_curves *c, int which, double low, double high, const char *colour, struct strbuf *b)
{
    strbuf_addf(b, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour);
    for (size_t i = 0; i < c->n; i++) {
        double v = value(&c->points[i], which);
        if (!isfinite(v) || (which < 2 && v <= 0)) continue;
        double at = ((which < 2 ? log(v) : v) - low) / (high - low);
        strbuf_addf(b, "%.1f,%.1f ", x_of(c, i), TOP + (HEIGHT - TOP - BOTTOM) * (1 - at));
    }
    strbuf_add(b, "\"/>\n");
}

/* Of the right axis: 0 to 1, where scores are shares; else (dB, perplexity) from the least to the most. */
static void score_range(const struct train_curves *c, double *ret_low, double *ret_high)
{
    double low = 0, high = 1, least = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < c->n; i++)
        if (isfinite(c->points[i].score)) least = fmin(least, c->points[i].score), most = fmax(most, c->points[i].score);
    if (least < 0 || most > 1) low = least, high = most > least ? most : least + 1;
    *ret_low = low;
    *ret_high = high;
}

static void svg(const struct train_curves *c, const char *score, struct strbuf *b)
{
    double low = INFINITY, high = -INFINITY, score_low, score_high;
    score_range(c, &score_low, &score_high);
    for (size_t i = 0; i < c->n; i++)
        for (int which = 0; which < 2; which++) {
            double v = value(&c->points[i], which);
            if (!isfinite(v) || v <= 0) continue;
            low = fmin(low, log(v));
            high = fmax(high, log(v));
        }
    if (!(high > low)) low = (isfinite(low) ? low : 0) - 0.5, high = low + 1;
    strbuf_addf(b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n", WIDTH, HEIGHT);
    strbuf_addf(b, "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n", WIDTH, HEIGHT);
    for (int i = 0; i <= 4; i++) {
        double y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - i / 4.0);
        strbuf_addf(b, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>", LEFT, WIDTH - RIGHT, y, y);
        strbuf_addf(b, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>", LEFT - 6, y + 4, exp(low + (high - low) * i / 4));
        strbuf_addf(b, "<text x=\"%d\" y=\"%.1f\">%.2f</text>\n", WIDTH - RIGHT + 6, y + 4, score_low + (score_high - score_low) * i / 4);
    }
    line(c, 0, low, high, "#1f77b4", b);
    line(c, 1, low, high, "#ff7f0e", b);
    line(c, 2, score_low, score_high, "#2ca02c", b);
    strbuf_addf(b, "<text x=\"%d\" y=\"18\" fill=\"#1f77b4\">loss</text><text x=\"%d\" y=\"18\" fill=\"#ff7f0e\">loss on held-out data</text>", LEFT, LEFT + 60);
    strbuf_addf(b, "<text x=\"%d\" y=\"18\" fill=\"#2ca02c\" text-anchor=\"end\">%s</text>\n", WIDTH - RIGHT, score);
    if (c->n) strbuf_addf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">epochs %d to %d</text>\n", WIDTH / 2, HEIGHT - 12, c->points[0].epoch, c->points[c->n - 1].epoch);
    strbuf_add(b, "</svg>\n");
}

err train_curves_write(const struct train_curves *c, const char *dir, const char *score)
{
    struct strbuf b = {0};
    csv(c, score, &b);
    err e = put(dir, "curves.csv", &b);
    strbuf_done(&b);
    if (e) return e;
    svg(c, score, &b);
    e = put(dir, "curves.svg", &b);
    strbuf_done(&b);
    return e;
}

void train_curves_read(struct train_curves *c, const char *dir, int epochs)
{
    char text[512], *path = xasprintf("%s/curves.csv", dir);
    FILE *f = fopen(path, "re");
    free(path);
    while (f && fgets(text, sizeof text, f)) {
        double v[7];
        char *at = text, *end;
        int k = 0;
        while (k < 7) {
            v[k] = strtod(at, &end);
            if (end == at) v[k] = NAN;
            k++;
            if (*end != ',') break;
            at = end + 1;
        }
        if (k < 7 || !(v[0] >= 1 && v[0] <= epochs)) continue;
        train_curves_add(c, &(struct train_point){(int)v[0], v[1], v[2], v[3], v[4], v[5], v[6]});
    }
    if (f) fclose(f);
}

/* The plot has the losses on a logarithmic axis on the left and the score on the right, one point per epoch, and round numbers at both; no script, so any viewer shows it.
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

/* ---- the plot */

enum { WIDTH = 760, HEIGHT = 400, LEFT = 70, RIGHT = 70, TOP = 40, BOTTOM = 56, MOST_TICKS = 12, MOST_DOTS = 40 };
static const char *const colours[] = {"#1f77b4", "#ff7f0e", "#2ca02c"}; /* loss, val_loss, score */

struct axis {
    double low, high;
    bool logarithmic; /* low and high are logarithms, too */
};

static double value(const struct train_point *p, int which)
{
    return which == 0 ? p->loss : which == 1 ? p->val_loss : p->score;
}

static bool drawn(const struct train_point *p, int which)
{
    double v = value(p, which);
    return isfinite(v) && (which == 2 || v > 0);
}

/* Least and most of some of the three; false: there is nothing to draw. */
static bool range(const struct train_curves *c, int from, int to, double *ret_least, double *ret_most)
{
    double least = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < c->n; i++)
        for (int which = from; which <= to; which++)
            if (drawn(&c->points[i], which)) least = fmin(least, value(&c->points[i], which)), most = fmax(most, value(&c->points[i], which));
    *ret_least = least;
    *ret_most = most;
    return least <= most;
}

static bool has(const struct train_curves *c, int which)
{
    double least, most;
    return range(c, which, which, &least, &most);
}

/* 1, 2 or 5 times a power of ten, so that `span` has some `n` of it. */
static double tick_step(double span, int n)
{
    double power = pow(10, floor(log10(span / n))), times = span / n / power;
    return power * (times <= 1 ? 1 : times <= 2 ? 2 : times <= 5 ? 5 : 10);
}

static int ticks(double low, double high, int n, double *to)
{
    double step = tick_step(high - low, n), first = ceil(low / step - 1e-9);
    int count = 0;
    for (double k = first; k * step <= high + 1e-9 * step && count < MOST_TICKS; k++) to[count++] = k == 0 ? 0 : k * step; /* no -0 */
    return count;
}

/* Of a logarithmic axis: over more than a decade 1, 2, 5, 10 ... */
static int log_ticks(double low, double high, double *to)
{
    static const double in_decade[] = {1, 2, 5};
    double decades = (high - low) / log(10);
    int count = 0;
    if (decades < 1) return ticks(exp(low), exp(high), 5, to);
    for (double power = floor(low / log(10)); power * log(10) <= high; power++)
        for (size_t i = 0; i < (decades < 3 ? ARRAY_LEN(in_decade) : 1); i++) {
            double v = in_decade[i] * pow(10, power);
            if (log(v) >= low && log(v) <= high && count < MOST_TICKS) to[count++] = v;
        }
    return count;
}

static struct axis loss_axis(const struct train_curves *c)
{
    double least, most;
    if (!range(c, 0, 1, &least, &most)) least = 0.1, most = 1;
    double low = log(least), high = log(most), room = fmax(0.05 * (high - low), 0.02);
    return (struct axis){low - room, high + room, true};
}

/* Shares begin at 0; other scores (dB, perplexity) go from their least to their most. */
static struct axis score_axis(const struct train_curves *c)
{
    double least, most;
    if (!range(c, 2, 2, &least, &most)) least = 0, most = 1;
    if (least >= 0 && most <= 1) return (struct axis){0, most > 0.5 ? 1 : most > 0.2 ? 0.5 : most > 0.1 ? 0.2 : 0.1, false};
    double room = most > least ? 0.05 * (most - least) : 0.5;
    return (struct axis){least - room, most + room, false};
}

static double x_of(const struct train_curves *c, double epoch)
{
    double first = c->points[0].epoch, last = c->points[c->n - 1].epoch;
    return LEFT + (WIDTH - LEFT - RIGHT) * (last > first ? (epoch - first) / (last - first) : 0.5);
}

static double y_of(const struct axis *a, double v)
{
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - ((a->logarithmic ? log(v) : v) - a->low) / (a->high - a->low));
}

/* Lines, and dots where they do not run into each other: of one epoch there is no line. */
static void line(const struct train_curves *c, int which, const struct axis *a, struct strbuf *b)
{
    if (!has(c, which)) return;
    strbuf_addf(b, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-linejoin=\"round\" points=\"", colours[which]);
    for (size_t i = 0; i < c->n; i++)
        if (drawn(&c->points[i], which)) strbuf_addf(b, "%.1f,%.1f ", x_of(c, c->points[i].epoch), y_of(a, value(&c->points[i], which)));
    strbuf_add(b, "\"/>\n");
    for (size_t i = 0; i < c->n && c->n <= MOST_DOTS; i++)
        if (drawn(&c->points[i], which))
            strbuf_addf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>", x_of(c, c->points[i].epoch), y_of(a, value(&c->points[i], which)), colours[which]);
}

static void axes(const struct train_curves *c, const struct axis *loss, const struct axis *score, struct strbuf *b)
{
    double at[MOST_TICKS];
    int n = log_ticks(loss->low, loss->high, at);
    for (int i = 0; i < n; i++) {
        double y = y_of(loss, at[i]);
        strbuf_addf(b, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#e0e0e0\"/>", LEFT, WIDTH - RIGHT, y, y);
        strbuf_addf(b, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.6g</text>\n", LEFT - 8, y + 4, at[i]);
    }
    n = has(c, 2) ? ticks(score->low, score->high, 5, at) : 0;
    for (int i = 0; i < n; i++) {
        double y = y_of(score, at[i]);
        strbuf_addf(b, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#888\"/>", WIDTH - RIGHT, WIDTH - RIGHT + 5, y, y);
        strbuf_addf(b, "<text x=\"%d\" y=\"%.1f\">%.6g</text>\n", WIDTH - RIGHT + 9, y + 4, at[i]);
    }
    double first = c->n ? c->points[0].epoch : 1, last = c->n ? c->points[c->n - 1].epoch : 1;
    n = last > first ? ticks(first, last, (int)fmin(last - first, 10), at) : c->n ? (at[0] = first, 1) : 0;
    for (int i = 0; i < n; i++) {
        strbuf_addf(b, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"#888\"/>", x_of(c, at[i]), x_of(c, at[i]), HEIGHT - BOTTOM, HEIGHT - BOTTOM + 5);
        strbuf_addf(b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.6g</text>\n", x_of(c, at[i]), HEIGHT - BOTTOM + 20, at[i]);
    }
    strbuf_addf(b, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#888\"/>\n", LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
}

/* As people write what the column of curves.csv is called. */
static const char *title(const char *score)
{
    static const char *const words[][2] = {{"top1", "top-1"}, {"ap50", "AP50"}, {"map", "mAP"}, {"psnr", "PSNR, dB"}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (!strcmp(words[i][0], score)) return words[i][1];
    return score;
}

/* What the lines are called, above them, and the axes beside them. */
static void names(const struct train_curves *c, const char *score, struct strbuf *b)
{
    const char *const text[] = {"loss", "loss on held-out data", title(score)};
    int x = LEFT, middle = TOP + (HEIGHT - TOP - BOTTOM) / 2;
    for (int which = 0; which < 3; which++) {
        if (!has(c, which)) continue;
        strbuf_addf(b, "<line x1=\"%d\" x2=\"%d\" y1=\"20\" y2=\"20\" stroke=\"%s\" stroke-width=\"2\"/><text x=\"%d\" y=\"24\">%s%s</text>\n", x, x + 24, colours[which], x + 30,
                    text[which], which == 2 ? " (right)" : "");
        x += 60 + 6 * (int)strlen(text[which]);
    }
    strbuf_addf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">epoch</text>\n", WIDTH / 2, HEIGHT - 14);
    strbuf_addf(b, "<text transform=\"translate(18 %d) rotate(-90)\" text-anchor=\"middle\">loss (logarithmic)</text>\n", middle);
    if (has(c, 2)) strbuf_addf(b, "<text transform=\"translate(%d %d) rotate(-90)\" text-anchor=\"middle\">%s</text>\n", WIDTH - 10, middle, text[2]);
}

static void svg(const struct train_curves *c, const char *score, struct strbuf *b)
{
    struct axis left = loss_axis(c), right = score_axis(c);
    strbuf_addf(b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">\n", WIDTH, HEIGHT, WIDTH,
                HEIGHT);
    strbuf_addf(b, "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n", WIDTH, HEIGHT);
    axes(c, &left, &right, b);
    line(c, 0, &left, b);
    line(c, 1, &left, b);
    line(c, 2, &right, b);
    names(c, score, b);
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

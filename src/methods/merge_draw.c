/* The picture of an estimate: one column per member, one box per layer in the order of execution, as high as the logarithm of its bytes.
 *
 * A box is in its group's colour if the layer can be shared: if at least two members have that many of the group. Everything else is grey.
 * Colours go round the circle by the golden angle, so that any number of groups gets different ones and the heaviest, which come
 * first, the most different. With a result, what could be shared and is not is pale. SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_estimate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMN = 110, GAP = 30, LEFT = 20, TOP = 70, TALLEST = 900, LEGEND = 620, ROWS = 30, FITS = 16 };

static void escaped(struct strbuf *b, const char *s)
{
    for (; *s; s++) {
        if (*s == '&') strbuf_add(b, "&amp;");
        else if (*s == '<') strbuf_add(b, "&lt;");
        else if (*s == '>') strbuf_add(b, "&gt;");
        else if ((unsigned char)*s < ' ' || *s == 127) strbuf_add(b, "?");
        else strbuf_addn(b, s, 1);
    }
}

static void colour(struct strbuf *b, int group)
{
    strbuf_addf(b, "hsl(%d,%d%%,%d%%)", (int)(fmod(group * 137.508, 360)), group % 3 == 1 ? 45 : 70, 45 + group % 4 * 7);
}

static double height_of(const struct merge_layer *l)
{
    return 1 + log2(1 + (double)l->bytes / 1024);
}

static void column(const struct merge_estimate *m, const struct merge_drawing *d, size_t i, double scale, struct strbuf *b)
{
    const struct merge_estimated *member = &m->members[i];
    double y = TOP, x = LEFT + (double)i * (COLUMN + GAP);
    char size[16];
    strbuf_addf(b, "<text x=\"%.0f\" y=\"%d\" font-weight=\"bold\"", x, TOP - 24);
    if (strlen(member->name) > FITS) strbuf_addf(b, " textLength=\"%d\" lengthAdjust=\"spacingAndGlyphs\"", COLUMN + GAP - 8); /* squeezed, not over the next */
    strbuf_add(b, ">");
    escaped(b, member->name);
    strbuf_addf(b, "</text><text x=\"%.0f\" y=\"%d\">%zu layers, %s</text>\n", x, TOP - 8, member->n_layers, size_text(member->bytes, size));
    for (size_t k = 0; k < member->n_layers; k++) {
        const struct merge_layer *l = &member->layers[k];
        const struct merge_group *g = &m->groups[l->group];
        double h = height_of(l) * scale;
        strbuf_addf(b, "<rect x=\"%.0f\" y=\"%.2f\" width=\"%d\" height=\"%.2f\" stroke=\"white\" stroke-width=\"0.5\" fill=\"", x, y, COLUMN, h);
        bool could = l->nth < g->second, does = could && (!d || d->shared(d->user, (int)i, l->value));
        if (could) colour(b, l->group);
        else strbuf_add(b, "#ddd");
        strbuf_addf(b, "\"%s><title>", could && !does ? " fill-opacity=\"0.15\"" : "");
        escaped(b, g->what);
        strbuf_addf(b, ", %s</title></rect>\n", size_text(l->bytes, size));
        y += h;
    }
}

static void legend(const struct merge_estimate *m, const struct merge_drawing *d, double x, struct strbuf *b)
{
    double y = TOP + 10;
    char size[16];
    size_t shown = 0, more = 0;
    for (size_t g = 0; g < m->n_groups && m->groups[g].saved_bytes; g++) {
        if (shown == ROWS && ++more) continue;
        strbuf_addf(b, "<rect x=\"%.0f\" y=\"%.0f\" width=\"14\" height=\"12\" fill=\"", x, y - 10);
        colour(b, (int)g);
        strbuf_addf(b, "\"/><text x=\"%.0f\" y=\"%.0f\">", x + 20, y);
        escaped(b, m->groups[g].what);
        strbuf_addf(b, ": %s%s</text>\n", size_text(m->groups[g].saved_bytes, size), d ? " at most" : " saved");
        y += 18, shown++;
    }
    if (more) strbuf_addf(b, "<text x=\"%.0f\" y=\"%.0f\">and %zu more groups</text>\n", x + 20, y, more), y += 18;
    strbuf_addf(b, "<rect x=\"%.0f\" y=\"%.0f\" width=\"14\" height=\"12\" fill=\"#ddd\"/><text x=\"%.0f\" y=\"%.0f\">%s</text>\n", x, y - 10, x + 20, y,
                shown ? d ? "nothing like it elsewhere (pale: could be shared, is not)" : "not shared" : "nothing in common");
}

char *merge_draw_svg(const struct merge_estimate *m, const struct merge_drawing *d)
{
    struct strbuf b = {0};
    double most = 1;
    char a[16], c[16];
    for (size_t i = 0; i < m->n_members; i++) {
        double sum = 0;
        for (size_t k = 0; k < m->members[i].n_layers; k++) sum += height_of(&m->members[i].layers[k]);
        most = fmax(most, sum);
    }
    double scale = fmin(TALLEST / most, 12), x = LEFT + (double)m->n_members * (COLUMN + GAP);
    int width = (int)x + LEGEND, high = (int)fmax(most * scale, (ROWS + 2) * 18) + TOP + 20;
    strbuf_addf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n", width, high);
    strbuf_addf(&b, "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n", width, high);
    uint64_t saved = d ? d->saved_bytes : m->saved_bytes;
    strbuf_addf(&b, "<text x=\"%d\" y=\"22\" font-size=\"15\">%s of %s (%.1f %%) %s; a box is a layer, its height the logarithm of its bytes</text>\n", LEFT,
                size_text(saved, a), size_text(m->bytes, c), m->bytes ? 100 * (double)saved / (double)m->bytes : 0, d ? "saved by sharing" : "could be shared");
    for (size_t i = 0; i < m->n_members; i++) column(m, d, i, scale, &b);
    legend(m, d, x, &b);
    strbuf_add(&b, "</svg>\n");
    return strbuf_take(&b);
}

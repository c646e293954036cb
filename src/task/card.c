/* Reading a card. Every key is known by name and belongs to the card or to its head: a key of another head is
 * an error with its position, because a threshold that nobody reads is worse than none. Label files are named
 * relative to the card and may not leave its folder's tree: cards come from strangers, and a label is shown
 * to people. SPDX-License-Identifier: Apache-2.0 */
#include "task/card.h"

#include "base/yaml.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CARD_FORMAT = 1, MAX_LABEL = 64, MAX_LABEL_FILE = 256 << 10, MAX_SIDE = 8192, MAX_GRID = 512 };

/* Keys that are a head's own; those of every card are in `common`. */
static const char *const common[] = {"card", "name", "input", "head", "outputs", "labels", "classes", NULL};
static const char *const own_keys[TASK_HEAD_COUNT][10] = {
    [TASK_YOLOX] = {"score", "nms", "top_k", "agnostic", "activation", "strides"},
    [TASK_NANODET] = {"score", "nms", "top_k", "agnostic", "activation", "strides", "reg_max"},
    [TASK_FASTESTDET] = {"score", "nms", "top_k", "agnostic", "activation"},
    [TASK_ULTRAFACE] = {"score", "nms", "top_k", "agnostic", "activation"},
    [TASK_SSD] = {"score", "nms", "top_k", "agnostic", "activation", "variances", "priors"},
    [TASK_YOLO] = {"score", "nms", "top_k", "agnostic", "activation", "layout", "normalised"},
    [TASK_CENTERNET] = {"score", "nms", "top_k", "agnostic", "activation"},
    [TASK_YUNET] = {"score", "nms", "top_k", "activation", "variances", "priors"},
    [TASK_CLASSIFY] = {"score", "top_k", "activation"},
    [TASK_ATTRIBUTES] = {"score", "activation"},
    [TASK_EMBEDDING] = {"l2"},
    [TASK_SEGMENTATION] = {"output_layout"},
    [TASK_IMAGE] = {"output_layout", "output_colour", "output_scale", "output_offset"},
};

static err check_keys(const struct yaml_node *root, enum task_head_kind head)
{
    const char *keys[ARRAY_LEN(common) + ARRAY_LEN(own_keys[0])];
    size_t n = 0;
    for (size_t i = 0; common[i]; i++)
        keys[n++] = common[i];
    for (size_t i = 0; i < ARRAY_LEN(own_keys[0]) && own_keys[head][i]; i++)
        keys[n++] = own_keys[head][i];
    keys[n] = NULL;
    for (const struct yaml_node *k = yaml_first(root); k; k = yaml_next(k))
        for (int h = 0; h < TASK_HEAD_COUNT; h++)
            for (size_t i = 0; i < ARRAY_LEN(own_keys[0]) && own_keys[h][i]; i++) {
                if (!yaml_key(k) || strcmp(own_keys[h][i], yaml_key(k)) != 0) continue;
                bool ours = false;
                for (size_t m = 0; keys[m]; m++)
                    ours = ours || strcmp(keys[m], yaml_key(k)) == 0;
                if (!ours)
                    return yaml_err_key(k, ERR_FORMAT, "belongs to head '%s', but this card's head is '%s'",
                                        task_head_name((enum task_head_kind)h), task_head_name(head));
            }
    return yaml_check_keys(root, keys);
}

/* --- small readers -----------------------------------------------------------------------------------------
 */

static err get_int(const struct yaml_node *map, const char *key, int min, int max, int *ret)
{
    int64_t v = *ret;
    err e = yaml_int(yaml_get(map, key), min, max, &v);
    if (!e) *ret = (int)v;
    return e;
}

static err get_float(const struct yaml_node *map, const char *key, double min, double max, float *ret)
{
    double v = *ret;
    err e = yaml_float(yaml_get(map, key), min, max, &v);
    if (!e) *ret = (float)v;
    return e;
}

static err get_word(const struct yaml_node *map, const char *key, const char *const *words, int *ret)
{
    return yaml_enum(yaml_get(map, key), words, ret);
}

static err get_name(const struct yaml_node *node, char ret[TASK_MAX_NAME])
{
    const char *s = NULL;
    err e = yaml_str(node, &s);
    if (e || !s) return e;
    if (strlen(s) >= TASK_MAX_NAME)
        return yaml_err(node, ERR_FORMAT, "a name of %zu bytes, at most %d are possible", strlen(s),
                        TASK_MAX_NAME - 1);
    snprintf(ret, TASK_MAX_NAME, "%s", s);
    return ERR_OK;
}

/* One number for all channels, or three. */
static err get_channels(const struct yaml_node *n, double min, double max, float v[3])
{
    if (yaml_kind(n) == YAML_LIST) return yaml_floats(n, min, max, 3, 3, v, NULL);
    double one = 0;
    err e = yaml_float(n, min, max, &one);
    if (!e && n) v[0] = v[1] = v[2] = (float)one;
    return e;
}

/* [width, height], whole numbers from 1. */
static err get_pair(const struct yaml_node *n, int max, int *ret_w, int *ret_h)
{
    err e = yaml_is_list(n);
    if (e) return e;
    if (yaml_count(n) != 2) return yaml_err(n, ERR_FORMAT, "expected two numbers: [width, height]");
    int64_t w = 0, h = 0;
    e = yaml_int(yaml_first(n), 1, max, &w);
    if (!e) e = yaml_int(yaml_next(yaml_first(n)), 1, max, &h);
    if (e) return e;
    *ret_w = (int)w;
    *ret_h = (int)h;
    return ERR_OK;
}

/* --- parts -------------------------------------------------------------------------------------------------
 */

static err read_input(const struct yaml_node *n, struct task_input *in)
{
    static const char *const keys[] = {"name",   "size", "resize", "filter", "pad",
                                       "colour", "mean", "std",    "layout", NULL};
    static const char *const resizes[] = {"stretch", "letterbox", "letterbox-centre", "crop", NULL};
    static const char *const filters[] = {"bilinear", "bicubic", NULL};
    static const char *const colours[] = {"rgb", "bgr", NULL};
    static const char *const layouts[] = {"nchw", "nhwc", NULL};
    int resize = TASK_STRETCH, filter = TASK_BILINEAR, colour = 0, layout = 0;
    float std[3] = {1, 1, 1};
    const struct yaml_node *size = NULL;
    *in = (struct task_input){.pad = 114};
    if (yaml_kind(n) != YAML_MAP)
        return yaml_err(n, ERR_FORMAT, "expected a map with 'size', 'colour', 'mean', 'std', ...");
    err e = yaml_check_keys(n, keys);
    if (!e) e = yaml_need(n, "size", &size);
    if (!e) e = get_pair(size, MAX_SIDE, &in->width, &in->height);
    if (!e) e = get_name(yaml_get(n, "name"), in->name);
    if (!e) e = get_word(n, "resize", resizes, &resize);
    if (!e) e = get_word(n, "filter", filters, &filter);
    if (!e) e = get_word(n, "colour", colours, &colour);
    if (!e) e = get_word(n, "layout", layouts, &layout);
    if (!e) e = get_float(n, "pad", 0, 255, &in->pad);
    if (!e) e = get_channels(yaml_get(n, "mean"), -1e4, 1e4, in->mean);
    if (!e) e = get_channels(yaml_get(n, "std"), 1e-6, 1e6, std);
    if (e) return e;
    for (int i = 0; i < 3; i++)
        in->scale[i] = 1 / std[i];
    in->resize = (enum task_resize)resize;
    in->filter = (enum task_filter)filter;
    in->bgr = colour == 1;
    in->nhwc = layout == 1;
    return ERR_OK;
}

static err read_inputs(const struct yaml_node *root, struct task_card *c)
{
    const struct yaml_node *n = NULL;
    err e = yaml_need(root, "input", &n);
    if (e) return e;
    if (yaml_kind(n) != YAML_LIST) {
        c->input_count = 1;
        return read_input(n, &c->inputs[0]);
    }
    if (yaml_count(n) < 1 || yaml_count(n) > TASK_MAX_INPUTS)
        return yaml_err(n, ERR_FORMAT, "%zu inputs, expected 1 to %d", yaml_count(n), TASK_MAX_INPUTS);
    for (const struct yaml_node *i = yaml_first(n); i && !e; i = yaml_next(i)) {
        e = read_input(i, &c->inputs[c->input_count]);
        if (!e && yaml_count(n) > 1 && !c->inputs[c->input_count].name[0])
            e = yaml_err(i, ERR_FORMAT, "of several inputs each needs its 'name'");
        c->input_count++;
    }
    return e;
}

static err read_outputs(const struct yaml_node *n, struct task_card *c)
{
    err e = yaml_is_list(n);
    if (e || !n) return e;
    if (yaml_count(n) < 1 || yaml_count(n) > TASK_MAX_OUTPUTS)
        return yaml_err(n, ERR_FORMAT, "%zu outputs, expected 1 to %d", yaml_count(n), TASK_MAX_OUTPUTS);
    for (const struct yaml_node *i = yaml_first(n); i && !e; i = yaml_next(i)) {
        const char *s = NULL;
        e = yaml_str(i, &s);
        if (!e) e = get_name(i, c->outputs[c->output_count++]);
    }
    return e;
}

static err add_label(const struct yaml_node *n, struct task_card *c, const char *s, size_t length)
{
    if (c->class_count == TASK_MAX_CLASSES)
        return yaml_err(n, ERR_FORMAT, "more than %d labels", TASK_MAX_CLASSES);
    if (length > MAX_LABEL)
        return yaml_err(n, ERR_FORMAT, "label %d has %zu bytes, at most %d are possible", c->class_count + 1,
                        length, MAX_LABEL);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)s[i] < ' ')
            return yaml_err(n, ERR_FORMAT, "label %d has a control character", c->class_count + 1);
    c->labels[c->class_count++] = xstrndup(s, length);
    return ERR_OK;
}

static bool stays_below(const char *path)
{
    if (path[0] == '/') return false;
    for (const char *s = path; s; s = strchr(s, '/')) {
        s += *s == '/';
        if (strncmp(s, "..", 2) == 0 && (s[2] == '/' || s[2] == 0)) return false;
    }
    return true;
}

static err read_label_file(const struct yaml_node *n, const char *file, struct task_card *c, bool from_file)
{
    if (!from_file) return yaml_err(n, ERR_FORMAT, "a card that is not a file cannot name a file of labels");
    if (!stays_below(file))
        return yaml_err(n, ERR_FORMAT, "'%s': a file of labels must lie beside the card or below it", file);
    const char *slash = strrchr(c->path, '/');
    char *path = slash ? xasprintf("%.*s/%s", (int)(slash - c->path), c->path, file) : xstrdup(file);
    char *text = xcalloc(1, MAX_LABEL_FILE + 1);
    FILE *f = fopen(path, "re");
    size_t size = f ? fread(text, 1, MAX_LABEL_FILE + 1, f) : 0;
    err e = ERR_OK;
    if (!f || ferror(f))
        e = yaml_err(n, ERR_NOT_FOUND, "cannot read the labels in %s: %s", path, strerror(errno));
    else if (size > MAX_LABEL_FILE)
        e = yaml_err(n, ERR_LIMIT, "%s: more than %d bytes of labels", path, MAX_LABEL_FILE);
    if (f) fclose(f);
    for (size_t at = 0; at < size && !e;) {
        size_t end = at;
        while (end < size && text[end] != '\n')
            end++;
        size_t length = end - at;
        if (length && text[at + length - 1] == '\r') length--;
        if (length) e = add_label(n, c, text + at, length);
        at = end + 1;
    }
    free(text);
    free(path);
    return e;
}

static err read_labels(const struct yaml_node *root, struct task_card *c, bool from_file)
{
    const struct yaml_node *n = yaml_get(root, "labels"), *k = yaml_get(root, "classes");
    int classes = 0;
    err e = get_int(root, "classes", 1, TASK_MAX_CLASSES, &classes);
    if (e) return e;
    c->labels = xnewn(char *, TASK_MAX_CLASSES);
    if (yaml_kind(n) == YAML_LIST) {
        for (const struct yaml_node *i = yaml_first(n); i && !e; i = yaml_next(i)) {
            const char *s = NULL;
            e = yaml_str(i, &s);
            if (!e) e = add_label(i, c, s, strlen(s));
        }
    } else if (n) {
        const char *file = NULL;
        e = yaml_str(n, &file);
        if (!e) e = read_label_file(n, file, c, from_file);
    }
    if (e) return e;
    if (n && !c->class_count) return yaml_err(n, ERR_FORMAT, "no label in it");
    if (n && k && c->class_count != classes)
        return yaml_err(k, ERR_FORMAT, "%d classes, but %d labels", classes, c->class_count);
    bool needed = c->head != TASK_EMBEDDING && c->head != TASK_IMAGE;
    if (!n && !k && needed)
        return yaml_err(root, ERR_FORMAT, "head '%s' needs 'labels' (or 'classes')", task_head_name(c->head));
    while (c->class_count < classes) {
        c->labels[c->class_count] = xasprintf("%d", c->class_count);
        c->class_count++;
    }
    c->labels = xrealloc(c->labels, MAX((size_t)c->class_count, 1) * sizeof(char *));
    return ERR_OK;
}

static err read_strides(const struct yaml_node *n, struct task_card *c)
{
    static const int usual[] = {8, 16, 32};
    if (!n) {
        c->stride_count = 3;
        memcpy(c->strides, usual, sizeof usual);
        return ERR_OK;
    }
    int most = c->head == TASK_NANODET ? TASK_MAX_OUTPUTS / 2 : TASK_MAX_STRIDES;
    err e = yaml_is_list(n);
    if (!e && (yaml_count(n) < 1 || yaml_count(n) > (size_t)most))
        e = yaml_err(n, ERR_FORMAT, "%zu strides, expected 1 to %d", yaml_count(n), most);
    for (const struct yaml_node *i = yaml_first(n); i && !e; i = yaml_next(i)) {
        int64_t v = 0;
        e = yaml_int(i, 1, 1024, &v);
        if (!e) c->strides[c->stride_count++] = (int)v;
    }
    return e;
}

/* One grid of priors: sizes is a list of numbers (squares) or of [w, h]. */
static err read_prior(const struct yaml_node *n, struct task_priors *p)
{
    static const char *const keys[] = {"grid", "step", "offset", "sizes", NULL};
    const struct yaml_node *grid = NULL, *step = NULL, *sizes = NULL;
    *p = (struct task_priors){.offset = 0.5f};
    if (yaml_kind(n) != YAML_MAP)
        return yaml_err(n, ERR_FORMAT, "expected a map with 'grid', 'step' and 'sizes'");
    err e = yaml_check_keys(n, keys);
    if (!e) e = yaml_need(n, "grid", &grid);
    if (!e) e = yaml_need(n, "step", &step);
    if (!e) e = yaml_need(n, "sizes", &sizes);
    if (!e) e = get_pair(grid, MAX_GRID, &p->grid_w, &p->grid_h);
    if (!e) e = get_float(n, "step", 0.01, 4096, &p->step);
    if (!e) e = get_float(n, "offset", -8, 8, &p->offset);
    if (!e) e = yaml_is_list(sizes);
    if (!e && (yaml_count(sizes) < 1 || yaml_count(sizes) > TASK_MAX_PRIORS))
        e = yaml_err(sizes, ERR_FORMAT, "%zu sizes, expected 1 to %d", yaml_count(sizes), TASK_MAX_PRIORS);
    for (const struct yaml_node *i = yaml_first(sizes); i && !e; i = yaml_next(i)) {
        float wh[2];
        if (yaml_kind(i) == YAML_LIST) {
            e = yaml_floats(i, 0.01, MAX_SIDE, 2, 2, wh, NULL);
        } else {
            double side = 0;
            e = yaml_float(i, 0.01, MAX_SIDE, &side);
            wh[0] = wh[1] = (float)side;
        }
        if (e) break;
        p->w[p->count] = wh[0];
        p->h[p->count++] = wh[1];
    }
    return e;
}

static err read_priors(const struct yaml_node *root, struct task_card *c)
{
    const struct yaml_node *n = NULL;
    err e = yaml_need(root, "priors", &n);
    if (!e) e = yaml_is_list(n);
    if (!e && (yaml_count(n) < 1 || yaml_count(n) > TASK_MAX_STRIDES))
        e = yaml_err(n, ERR_FORMAT, "%zu grids, expected 1 to %d", yaml_count(n), TASK_MAX_STRIDES);
    for (const struct yaml_node *i = yaml_first(n); i && !e; i = yaml_next(i))
        e = read_prior(i, &c->priors[c->prior_count++]);
    return e;
}

static err read_head(const struct yaml_node *root, struct task_card *c)
{
    static const char *const activations[] = {"none", "sigmoid", "softmax", NULL};
    static const char *const layouts[] = {"auto", "v5", "v8", "end2end", NULL};
    static const char *const orders[] = {"nchw", "nhwc", NULL};
    static const char *const colours[] = {"rgb", "bgr", NULL};
    int activation = 0, layout = 0, order = 0, colour = 0;
    bool priors = c->head == TASK_SSD || c->head == TASK_YUNET;
    err e = get_float(root, "score", 0, 1, &c->score);
    if (!e) e = get_float(root, "nms", 0, 1, &c->nms);
    if (!e) e = get_int(root, "top_k", 1, TASK_MAX_TOP_K, &c->top_k);
    if (!e) e = yaml_bool(yaml_get(root, "agnostic"), &c->agnostic);
    if (!e) e = get_word(root, "activation", activations, &activation);
    if (!e) e = read_strides(yaml_get(root, "strides"), c);
    if (!e) e = get_int(root, "reg_max", 1, 63, &c->reg_max);
    if (!e) e = yaml_floats(yaml_get(root, "variances"), 1e-3, 10, 4, 4, c->variances, NULL);
    if (!e && priors) e = read_priors(root, c);
    if (!e) e = get_word(root, "layout", layouts, &layout);
    if (!e) e = yaml_bool(yaml_get(root, "normalised"), &c->normalised);
    if (!e) e = yaml_bool(yaml_get(root, "l2"), &c->l2);
    if (!e) e = get_word(root, "output_layout", orders, &order);
    if (!e) e = get_word(root, "output_colour", colours, &colour);
    if (!e) e = get_float(root, "output_scale", -1e6, 1e6, &c->out_scale);
    if (!e) e = get_float(root, "output_offset", -1e6, 1e6, &c->out_offset);
    if (e) return e;
    bool vector = c->head == TASK_CLASSIFY || c->head == TASK_SSD;
    if (activation == TASK_SOFTMAX && !vector)
        return yaml_err(yaml_get(root, "activation"), ERR_FORMAT, "head '%s' knows 'none' and 'sigmoid'",
                        task_head_name(c->head));
    c->activation = (enum task_activation)activation;
    c->layout = (enum task_yolo_layout)layout;
    c->out_nhwc = order == 1;
    c->out_bgr = colour == 1;
    return ERR_OK;
}

/* --- the card ----------------------------------------------------------------------------------------------
 */

static char *stem_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    return dot && dot > name ? xstrndup(name, (size_t)(dot - name)) : xstrdup(name);
}

static err read_card(const struct yaml_node *root, struct task_card *c, bool from_file)
{
    static const char *const heads[] = {
#define X(id, name) name,
        TASK_HEADS(X)
#undef X
            NULL};
    const struct yaml_node *version = NULL, *head = NULL;
    int64_t format = 0;
    int kind = 0;
    if (yaml_kind(root) != YAML_MAP)
        return yaml_err(root, ERR_FORMAT, "not a card: expected 'card: 1', 'head: ...', 'input: ...'");
    err e = yaml_need(root, "card", &version);
    if (!e) e = yaml_int(version, 1, INT32_MAX, &format);
    if (!e && format != CARD_FORMAT)
        e = yaml_err(version, ERR_UNSUPPORTED, "card format %lld; this brim reads format %d, use a newer one",
                     (long long)format, CARD_FORMAT);
    if (!e) e = yaml_need(root, "head", &head);
    if (!e) e = yaml_enum(head, heads, &kind);
    if (e) return e;
    c->head = (enum task_head_kind)kind;
    c->top_k = kind == TASK_CLASSIFY ? 5 : 100;
    c->score = kind == TASK_CLASSIFY ? 0 : kind == TASK_ATTRIBUTES ? 0.5f : 0.3f;
    const char *name = NULL;
    e = check_keys(root, c->head);
    if (!e) e = yaml_str(yaml_get(root, "name"), &name);
    if (!e) e = read_inputs(root, c);
    if (!e) e = read_outputs(yaml_get(root, "outputs"), c);
    if (!e) e = read_labels(root, c, from_file);
    if (!e) e = read_head(root, c);
    if (e) return e;
    if (c->head == TASK_YUNET && c->class_count != 1)
        return yaml_err(head, ERR_FORMAT, "yunet has one class, but there are %d", c->class_count);
    c->name = name ? xstrdup(name) : stem_of(c->path);
    return ERR_OK;
}

static err read_doc(struct yaml *doc, const char *path, bool from_file, struct task_card **ret)
{
    struct task_card *c = xnew(struct task_card);
    c->path = xstrdup(path);
    c->nms = 0.45f;
    c->reg_max = 7;
    c->l2 = true;
    c->out_scale = 1;
    static const float variances[4] = {0.1f, 0.1f, 0.2f, 0.2f};
    memcpy(c->variances, variances, sizeof variances);
    err e = read_card(yaml_root(doc), c, from_file);
    if (e)
        task_card_free(&c);
    else
        *ret = c;
    return e;
}

err task_card_load(const char *path, struct task_card **ret)
{
    struct yaml *doc = NULL;
    err e = yaml_load_file(path, YAML_PLAIN, &doc);
    if (e) return e;
    e = read_doc(doc, path, true, ret);
    yaml_doc_free(&doc);
    return e;
}

err task_card_parse(const char *text, size_t size, const char *path, struct task_card **ret)
{
    struct yaml *doc = NULL;
    const char *name = path ? path : "card";
    err e = yaml_parse(name, text, size, YAML_PLAIN, &doc);
    if (e) return e;
    e = read_doc(doc, name, path != NULL, ret);
    yaml_doc_free(&doc);
    return e;
}

void task_card_free(struct task_card **pc)
{
    struct task_card *c = *pc;
    if (!c) return;
    for (int i = 0; i < c->class_count; i++)
        free(c->labels[i]);
    free(c->labels);
    free(c->path);
    free(c->name);
    free(c);
    *pc = NULL;
}

char *task_card_default_path(const char *onnx_path)
{
    size_t n = strlen(onnx_path) - (str_ends(onnx_path, ".onnx") ? strlen(".onnx") : 0);
    return xasprintf("%.*s.yaml", (int)n, onnx_path);
}

const char *task_card_label(const struct task_card *c, int class_id)
{
    return class_id >= 0 && class_id < c->class_count ? c->labels[class_id] : "?";
}

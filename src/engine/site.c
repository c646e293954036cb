/* Reading the site file: settings, cameras, models; queries are in site_query.c, outputs in site_output.c, jobs in site_job.c.
 *
 * The reader goes on after a problem, so that `brim check` lists them all, and gives the site out only if there was
 * none. A struct starts as its defaults, then `defaults:` of the file is read into it, then its own map: each
 * reader leaves alone what is not there, so overriding is per value, also inside nested maps.
 *
 * Invariants of a site that was given out: every index is in range; every name is unique in its kind and harmless
 * in file names and topics; every number is within the bounds of docs/site.md. SPDX-License-Identifier: Apache-2.0
 */
#include "engine/site_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *part;
    const char *const keys[24]; /* ends with NULL, since none is full */
} known[] = {
    {"site",
     {"version", "budget", "store", "precision", "threads", "residency", "sharing", "defaults", "cameras", "models", "queries",
      "outputs", "jobs"}},
    {"defaults", {"cameras", "queries"}},
    {"camera", {"url", "pace", "loop", "decode", "fps", "transport", "timeout", "stall", "width", "height"}},
    {"model", {"onnx", "card", "pin", "priority", "precision", "batch", "guard"}},
    {"guard", {"original", "every", "target", "window"}},
    {"query",
     {"cameras", "model", "objects", "fps", "deadline_ms", "priority", "min_score", "zones", "lines", "motion",
      "track", "events", "cascade"}},
    {"zone", {"points", "camera", "stay_ms"}},
    {"line", {"points", "camera"}},
    {"cascade", {"model", "objects", "min_size", "max_per_frame", "every", "min_score", "margin"}},
    {"motion", {"gate", "threshold", "deviations", "min_pixels", "width", "hold_ms", "adapt_ms"}},
    {"events", {"kinds", "stay_ms", "settle_ms", "anchor"}},
    {"outputs", {"database", "pictures", "jsonl", "mot", "video", "mqtt", "http"}},
    {"pictures", {"keep", "side"}},
    {"job", {"do", "words", "publish", "between"}},
    {"video", {"folder", "cameras"}},
    {"mqtt", {"host", "port", "prefix", "user", "password", "discovery", "outbox_max"}},
    {"http", {"listen", "hosts"}},
};

const char *const *site_keys(const char *part)
{
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (!strcmp(known[i].part, part)) return known[i].keys;
    return NULL;
}

void site_problems_done(struct site_problems *p)
{
    for (size_t i = 0; i < p->count; i++) free(p->items[i]);
    free(p->items);
    *p = (struct site_problems){0};
}

err site_note(struct site_reader *r, err e)
{
    if (!e) return e;
    struct site_problems *p = r->problems;
    if (!r->count++) r->first = e;
    if (p->count < SITE_MAX_PROBLEMS) {
        vec_grow(&p->items, &p->cap, p->count);
        p->items[p->count++] = xstrdup(err_text());
    }
    return e;
}

void *site_own(struct site *s, void *p)
{
    struct site_inside *in = s->inside;
    vec_grow(&in->owned, &in->owned_cap, in->owned_count);
    in->owned[in->owned_count++] = p;
    return p;
}

const char *site_path(struct site *s, const char *path)
{
    if (path[0] == '/' || !strcmp(s->folder, ".")) return path;
    return site_own(s, xasprintf("%s/%s", s->folder, path));
}

err site_name_check(const struct yaml_node *n)
{
    const char *s = yaml_key(n);
    size_t len = strlen(s), good = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.");
    if (good < len || len > 64 || s[0] == '.')
        return yaml_err_key(n, ERR_FORMAT,
                            "a name has 1 to 64 letters (a-z, A-Z), digits, '_', '-' or '.', and does not begin "
                            "with '.'; rename it");
    if (!strcmp(s, "all") || !strcmp(s, "motion"))
        return yaml_err_key(n, ERR_FORMAT, "this name has a meaning of its own; choose another");
    return ERR_OK;
}

void site_names_read(struct site_reader *r, const struct yaml_node *n, struct site_names *ret)
{
    const char *word = NULL;
    if (!n) return;
    if (yaml_kind(n) == YAML_SCALAR) {
        if (site_note(r, yaml_str(n, &word))) return;
        *ret = (struct site_names){.all = !strcmp(word, "all")};
        if (ret->all) return;
        ret->items = site_own(r->site, xnewn(const char *, 2));
        ret->items[ret->count++] = word;
        return;
    }
    if (yaml_kind(n) != YAML_LIST || !yaml_count(n) || yaml_count(n) > SITE_MAX_OBJECTS) {
        site_note(r, yaml_err(n, ERR_FORMAT, "expected all, a name, or a list of 1 to %d names", SITE_MAX_OBJECTS));
        return;
    }
    *ret = (struct site_names){.items = site_own(r->site, xnewn(const char *, yaml_count(n) + 1))};
    for (const struct yaml_node *c = yaml_first(n); c; c = yaml_next(c)) {
        if (site_note(r, yaml_str(c, &word))) continue;
        bool twice = false;
        for (size_t i = 0; i < ret->count && !twice; i++) twice = !strcmp(ret->items[i], word);
        if (twice)
            site_note(r, yaml_err(c, ERR_FORMAT, "this name is in the list twice; remove one"));
        else
            ret->items[ret->count++] = word;
    }
}

int site_find(struct site_reader *r, const struct yaml_node *n, const char *word, const char *const *names,
              const char *kind) {
    for (int i = 0; names[i]; i++)
        if (!strcmp(names[i], word)) return i;
    const char *near = yaml_nearest(word, names);
    struct strbuf all = {0};
    for (int i = 0; names[i] && i < 20; i++) strbuf_addf(&all, "%s%s", i ? ", " : "", names[i]);
    if (near)
        site_note(r, yaml_err(n, ERR_FORMAT, "no %s has the name '%.40s'; did you mean '%s'?", kind, word, near));
    else
        site_note(r, yaml_err(n, ERR_FORMAT, "no %s has the name '%.40s'; there %s %s", kind, word,
                              names[0] ? "are" : "is", all.s ? all.s : "none"));
    strbuf_done(&all);
    return -1;
}

void site_int(struct site_reader *r, const struct yaml_node *map, const char *key, int min, int max, int *ret)
{
    int64_t v = *ret;
    if (!site_note(r, yaml_int(yaml_get(map, key), min, max, &v))) *ret = (int)v;
}

/* Keys that end in _ms are whole milliseconds. */
void site_ms(struct site_reader *r, const struct yaml_node *map, const char *key, int64_t max, int64_t *ret)
{
    site_note(r, yaml_int(yaml_get(map, key), 0, max, ret));
}

static void read_duration(struct site_reader *r, const struct yaml_node *map, const char *key, int *ret)
{
    int64_t v = *ret;
    if (!site_note(r, yaml_duration_ms(yaml_get(map, key), 100, 3600000, &v))) *ret = (int)v;
}

static int read_enum(struct site_reader *r, const struct yaml_node *map, const char *key, const char *const *words,
                     int v) {
    site_note(r, yaml_enum(yaml_get(map, key), words, &v));
    return v;
}

static const char *const precisions[] = {"f32", "auto", "bf16", NULL};

/* The address is never shown: it may hold a password. */
static void read_url(struct site_reader *r, const struct yaml_node *n, const char **ret)
{
    static const char *const schemes[] = {"rtsp", "rtsps", "http", "https", "file", NULL};
    const char *url = NULL, *sep;
    if (yaml_kind(n) != YAML_SCALAR) {
        site_note(r, yaml_str(n, &url));
        return;
    }
    if (site_note(r, yaml_str(n, &url))) return;
    sep = strstr(url, "://");
    bool scheme = sep && strspn(url, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-") ==
                             (size_t)(sep - url);
    if (!scheme) {
        *ret = str_starts(url, "file:") || str_starts(url, "v4l2:") ? url : site_path(r->site, url);
        return;
    }
    for (int i = 0; schemes[i]; i++)
        if (strlen(schemes[i]) == (size_t)(sep - url) && !strncmp(schemes[i], url, (size_t)(sep - url))) {
            *ret = url;
            return;
        }
    site_note(r, yaml_err(n, ERR_FORMAT,
                          "'%.*s://' is not a kind of address that cameras have; use rtsp://, rtsps://, http://, "
                          "https://, a file, a folder of images, or /dev/videoN",
                          (int)MIN(sep - url, 20), url));
}

static void read_camera(struct site_reader *r, const struct yaml_node *m, struct video_options *o)
{
    static const char *const paces[] = {"live", "max", NULL}, *const decodes[] = {"thread", "process", NULL},
                      *const transports[] = {"tcp", "udp", NULL};
    if (!m || site_note(r, yaml_is_map(m))) return;
    site_note(r, yaml_check_keys(m, site_keys("camera")));
    if (yaml_get(m, "url")) read_url(r, yaml_get(m, "url"), &o->url);
    o->pace = (enum video_pace)read_enum(r, m, "pace", paces, (int)o->pace);
    o->decode = (enum video_decode)read_enum(r, m, "decode", decodes, (int)o->decode);
    o->transport = (enum video_transport)read_enum(r, m, "transport", transports, (int)o->transport);
    site_note(r, yaml_bool(yaml_get(m, "loop"), &o->loop));
    site_note(r, yaml_float(yaml_get(m, "fps"), 0.01, 1000, &o->max_fps));
    read_duration(r, m, "timeout", &o->timeout_ms);
    read_duration(r, m, "stall", &o->stall_ms);
    site_int(r, m, "width", 1, VIDEO_MAX_SIDE, &o->hint_w);
    site_int(r, m, "height", 1, VIDEO_MAX_SIDE, &o->hint_h);
}

/* Is it a map of at most `max` well-named things? Makes the list of their names. */
size_t site_count_named(struct site_reader *r, const struct yaml_node *map, size_t max, const char ***ret_names)
{
    size_t n = 0, bad = !map || site_note(r, yaml_is_map(map)) ? 1 : 0;
    if (!bad && yaml_count(map) > max) {
        site_note(r, yaml_err(map, ERR_LIMIT, "%zu entries; at most %zu are possible", yaml_count(map), max));
        bad = 1;
    }
    *ret_names = site_own(r->site, xnewn(const char *, bad ? 1 : yaml_count(map) + 1));
    if (bad) return 0;
    for (const struct yaml_node *c = yaml_first(map); c; c = yaml_next(c)) {
        site_note(r, site_name_check(c));
        (*ret_names)[n++] = yaml_key(c);
    }
    return n;
}

static void read_cameras(struct site_reader *r, const struct yaml_node *defaults, const struct yaml_node *map)
{
    struct site *s = r->site;
    struct video_options base = VIDEO_OPTIONS_DEFAULT;
    read_camera(r, defaults, &base);
    if (yaml_get(defaults, "url"))
        site_note(r, yaml_err_key(yaml_get(defaults, "url"), ERR_FORMAT,
                                  "cameras cannot share an address; write it at each camera"));
    s->camera_count = site_count_named(r, map, SITE_MAX_CAMERAS, &r->camera_names);
    s->cameras = site_own(s, xnewn(struct site_camera, s->camera_count));
    if (!s->camera_count) return;
    struct site_camera *c = s->cameras;
    for (const struct yaml_node *n = yaml_first(map); n; n = yaml_next(n), c++) {
        *c = (struct site_camera){.name = yaml_key(n), .video = base, .at = n};
        const struct yaml_node *url = NULL;
        c->video.url = NULL;
        read_camera(r, n, &c->video);
        if (yaml_kind(n) == YAML_MAP) site_note(r, yaml_need(n, "url", &url));
        c->video.name = c->name;
    }
}

/* on, off (or true, false), or a map, which means on. */
static void read_guard(struct site_reader *r, const struct yaml_node *n, struct site_guard *g)
{
    const char *text = yaml_text(n), *path = NULL;
    int64_t window = g->window;
    if (!n) return;
    bool on = text && (!strcmp(text, "on") || !strcmp(text, "true")), off = text && (!strcmp(text, "off") || !strcmp(text, "false"));
    if (on || off) {
        g->when = on ? SITE_GUARD_ON : SITE_GUARD_OFF;
        return;
    }
    if (yaml_kind(n) != YAML_MAP) {
        site_note(r, yaml_err(n, ERR_FORMAT, "expected on, off, or a map such as {original: models/cars.onnx, every: 20s}"));
        return;
    }
    site_note(r, yaml_check_keys(n, site_keys("guard")));
    g->when = SITE_GUARD_ON;
    if (yaml_get(n, "original") && !site_note(r, yaml_str(yaml_get(n, "original"), &path))) g->original = site_path(r->site, path);
    site_note(r, yaml_duration_ms(yaml_get(n, "every"), 100, 86400000, &g->every_ms));
    site_note(r, yaml_float(yaml_get(n, "target"), 0.01, 1, &g->target));
    if (!site_note(r, yaml_int(yaml_get(n, "window"), 8, 200, &window))) g->window = (int)window;
}

static void read_model(struct site_reader *r, const struct yaml_node *n, struct site_model *m)
{
    const struct yaml_node *onnx = NULL;
    const char *path = NULL;
    *m = (struct site_model){.name = yaml_key(n), .priority = 5, .batch = 1, .precision = r->site->precision, .at = n,
                             .guard = {.every_ms = 20000, .target = 0.95, .window = 30}};
    if (site_note(r, yaml_is_map(n))) return;
    site_note(r, yaml_check_keys(n, site_keys("model")));
    if (!site_note(r, yaml_need(n, "onnx", &onnx)) && !site_note(r, yaml_str(onnx, &path))) {
        m->onnx = site_path(r->site, path);
        const char *dot = strrchr(m->onnx, '.'), *slash = strrchr(m->onnx, '/');
        size_t stem = dot && (!slash || dot > slash + 1) ? (size_t)(dot - m->onnx) : strlen(m->onnx);
        m->card = site_own(r->site, xasprintf("%.*s.yaml", (int)stem, m->onnx));
    }
    if (yaml_get(n, "card") && !site_note(r, yaml_str(yaml_get(n, "card"), &path)))
        m->card = site_path(r->site, path);
    site_note(r, yaml_bool(yaml_get(n, "pin"), &m->pin));
    site_int(r, n, "priority", 0, 9, &m->priority);
    site_int(r, n, "batch", 1, 8, &m->batch);
    m->precision = (enum site_precision)read_enum(r, n, "precision", precisions, (int)m->precision);
    read_guard(r, yaml_get(n, "guard"), &m->guard);
}

static void read_settings(struct site_reader *r, const struct yaml_node *root)
{
    static const char *const residencies[] = {"blocks", "model", NULL}, *const sharings[] = {"on", "blind", NULL};
    struct site *s = r->site;
    const struct yaml_node *n = NULL;
    int64_t version = 0;
    if (!site_note(r, yaml_need(root, "version", &n)) && !site_note(r, yaml_int(n, 1, INT64_MAX, &version)) &&
        version != 1)
        site_note(r, yaml_err(n, ERR_UNSUPPORTED, "this brim reads version 1; a newer brim is needed for this file"));
    n = yaml_get(root, "budget");
    if (n && (!yaml_text(n) || strcmp(yaml_text(n), "auto")))
        site_note(r, yaml_size(n, 1 << 20, (uint64_t)1 << 50, &s->budget));
    n = yaml_get(root, "threads");
    if (n && (!yaml_text(n) || strcmp(yaml_text(n), "auto"))) site_int(r, root, "threads", 1, 256, &s->threads);
    const char *store = NULL;
    if (yaml_get(root, "store") && !site_note(r, yaml_str(yaml_get(root, "store"), &store)))
        s->store = site_path(s, store);
    s->precision = (enum site_precision)read_enum(r, root, "precision", precisions, SITE_AUTO);
    s->whole_models = read_enum(r, root, "residency", residencies, 0) == 1;
    s->blind = read_enum(r, root, "sharing", sharings, 0) == 1;
}

static void read_site(struct site_reader *r, const struct yaml_node *root)
{
    struct site *s = r->site;
    if (yaml_kind(root) != YAML_MAP) {
        site_note(r,
                  yaml_err(root, ERR_FORMAT,
                           "expected a site file: 'version: 1', then cameras, models, queries; see docs/site.md"));
        return;
    }
    site_note(r, yaml_check_keys(root, site_keys("site")));
    read_settings(r, root);
    const struct yaml_node *defaults = yaml_get(root, "defaults"), *map = yaml_get(root, "models");
    site_note(r, yaml_check_keys(defaults, site_keys("defaults")));
    read_cameras(r, yaml_get(defaults, "cameras"), yaml_get(root, "cameras"));
    s->model_count = site_count_named(r, map, SITE_MAX_MODELS, &r->model_names);
    s->models = site_own(s, xnewn(struct site_model, s->model_count));
    const struct yaml_node *n = s->model_count ? yaml_first(map) : NULL;
    for (size_t i = 0; n; n = yaml_next(n), i++) read_model(r, n, &s->models[i]);
    site_read_queries(r, yaml_get(defaults, "queries"), yaml_get(root, "queries"));
    site_read_outputs(r, yaml_get(root, "outputs"));
    site_read_jobs(r, yaml_get(root, "jobs"));
}

static struct site *site_new(const char *path)
{
    struct site *s = xnew(struct site);
    s->inside = xnew(struct site_inside);
    s->path = site_own(s, xstrdup(path));
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    s->folder = site_own(s, slash == path ? xstrdup("/") : slash ? xstrndup(path, n) : xstrdup("."));
    return s;
}

err site_load_all(const char *path, const char *text, size_t n, struct site_problems *problems, struct site **ret)
{
    struct site_problems own = {0};
    struct site_reader r = {.site = site_new(path), .problems = problems ? problems : &own};
    size_t before = r.problems->count;
    struct yaml **doc = &r.site->inside->doc;
    err e = text ? yaml_parse(path, text, n, YAML_ENV, doc) : yaml_load_file(path, YAML_ENV, doc);
    if (!site_note(&r, e)) read_site(&r, yaml_root(*doc));
    if (!r.count) {
        *ret = r.site;
    } else {
        const char *first = r.problems->count > before ? r.problems->items[before] : err_text();
        err_set(r.first, "%s", first);
        if (r.count > 1) err_set(r.first, "%s (and %zu more; brim check lists them)", first, r.count - 1);
        site_free(&r.site);
    }
    site_problems_done(&own);
    return r.first;
}

err site_load(const char *path, struct site **ret)
{
    return site_load_all(path, NULL, 0, NULL, ret);
}

void site_free(struct site **sp)
{
    struct site *s = *sp;
    if (!s) return;
    yaml_doc_free(&s->inside->doc);
    for (size_t i = 0; i < s->inside->owned_count; i++) free(s->inside->owned[i]);
    free(s->inside->owned);
    free(s->inside);
    free(s);
    *sp = NULL;
}

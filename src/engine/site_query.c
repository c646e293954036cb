/* The queries of a site file: cameras x model x objects, with zones, lines, the motion gate, events and cascades.
 * See site.c for how overriding works. SPDX-License-Identifier: Apache-2.0 */
#include "engine/site_inside.h"

#include <stdlib.h>
#include <string.h>

static const char *text_or_empty(const struct yaml_node *n)
{
    return yaml_text(n) ? yaml_text(n) : "";
}

static void read_motion(struct site_reader *r, const struct yaml_node *m, struct site_motion *o)
{
    if (!m || site_note(r, yaml_check_keys(m, site_keys("motion")))) return;
    site_note(r, yaml_bool(yaml_get(m, "gate"), &o->gate));
    site_note(r, yaml_float(yaml_get(m, "threshold"), 1, 255, &o->threshold));
    site_note(r, yaml_float(yaml_get(m, "deviations"), 0, 50, &o->deviations));
    site_int(r, m, "min_pixels", 1, 10000, &o->min_pixels);
    site_int(r, m, "width", 16, 640, &o->width);
    site_ms(r, m, "hold_ms", 3600000, &o->hold_ms);
    site_ms(r, m, "adapt_ms", 3600000, &o->adapt_ms);
}

static void read_event_kinds(struct site_reader *r, const struct yaml_node *n, unsigned *ret)
{
    static const char *const kinds[] = {"appeared", "left", "entered", "exited", "crossed", "stayed", NULL};
    struct site_names names = {0};
    size_t before = r->count;
    site_names_read(r, n, &names);
    if (r->count > before) return;
    unsigned bits = names.all ? SITE_EVENT_ALL : 0;
    for (const struct yaml_node *c = yaml_kind(n) == YAML_LIST ? yaml_first(n) : NULL; c; c = yaml_next(c)) {
        int k = site_find(r, c, yaml_text(c), kinds, "event");
        if (k >= 0) bits |= 1u << k;
    }
    if (yaml_kind(n) == YAML_SCALAR && !names.all) {
        int k = site_find(r, n, yaml_text(n), kinds, "event");
        if (k >= 0) bits |= 1u << k;
    }
    *ret = bits;
}

static void read_events(struct site_reader *r, const struct yaml_node *m, struct site_query *q)
{
    static const char *const anchors[] = {"feet", "centre", NULL};
    int anchor = q->anchor_centre;
    if (!m || site_note(r, yaml_check_keys(m, site_keys("events")))) return;
    if (yaml_get(m, "kinds")) read_event_kinds(r, yaml_get(m, "kinds"), &q->events);
    site_ms(r, m, "stay_ms", 86400000, &q->stay_ms);
    site_ms(r, m, "settle_ms", 60000, &q->settle_ms);
    site_note(r, yaml_enum(yaml_get(m, "anchor"), anchors, &anchor));
    q->anchor_centre = anchor == 1;
}

static void read_points(struct site_reader *r, const struct yaml_node *n, bool zone, struct site_shape *s)
{
    size_t least = zone ? 3 : 2, most = zone ? SITE_MAX_POINTS : 2, count = yaml_count(n);
    if (yaml_kind(n) != YAML_LIST || count < least || count > most) {
        if (zone)
            site_note(r, yaml_err(n, ERR_FORMAT,
                                  "expected a list of 3 to %d points [x, y], each 0 to 1 of the picture",
                                  SITE_MAX_POINTS));
        else
            site_note(r, yaml_err(n, ERR_FORMAT,
                                  "expected the line's two points [[x, y], [x, y]], each 0 to 1 of the picture"));
        return;
    }
    size_t before = r->count;
    for (const struct yaml_node *c = yaml_first(n); c; c = yaml_next(c))
        if (yaml_kind(c) == YAML_NULL)
            site_note(r, yaml_err(c, ERR_FORMAT, "expected a point [x, y], found nothing"));
        else
            site_note(r, yaml_floats(c, 0, 1, 2, 2, s->points[s->point_count++], NULL));
    if (r->count > before) return;
    float area = 0, (*p)[2] = s->points; /* twice the signed area: only a test for "all on one line" */
    for (int i = 1; i + 1 < s->point_count; i++)
        area += (p[i][0] - p[0][0]) * (p[i + 1][1] - p[0][1]) - (p[i + 1][0] - p[0][0]) * (p[i][1] - p[0][1]);
    if (zone && area == 0 && s->point_count == 3)
        site_note(r, yaml_err(n, ERR_FORMAT, "the three points lie on one line; a zone needs an area"));
    if (!zone && p[0][0] == p[1][0] && p[0][1] == p[1][1])
        site_note(r, yaml_err(n, ERR_FORMAT, "the line's two points are the same"));
}

static bool uses_camera(const struct site_query *q, int camera)
{
    for (size_t i = 0; i < q->camera_count; i++)
        if (q->cameras[i] == camera) return true;
    return false;
}

/* ZONE: [[x, y], ...]   or   ZONE: {points: [[x, y], ...], camera: NAME, stay_ms: 5000} */
static void read_shape(struct site_reader *r, const struct yaml_node *n, bool zone, const struct site_query *q,
                       struct site_shape *s) {
    const struct yaml_node *points = n, *camera = NULL;
    const char *name = NULL;
    *s = (struct site_shape){.name = yaml_key(n), .camera = -1, .stay_ms = zone ? q->stay_ms : 0, .at = n};
    site_note(r, site_name_check(n));
    if (yaml_kind(n) == YAML_MAP) {
        site_note(r, yaml_check_keys(n, site_keys(zone ? "zone" : "line")));
        camera = yaml_get(n, "camera");
        if (zone) site_ms(r, n, "stay_ms", 86400000, &s->stay_ms);
        if (site_note(r, yaml_need(n, "points", &points))) return;
    }
    read_points(r, points, zone, s);
    if (!camera || site_note(r, yaml_str(camera, &name))) return;
    s->camera = site_find(r, camera, name, r->camera_names, "camera");
    if (s->camera >= 0 && !uses_camera(q, s->camera))
        site_note(r, yaml_err(camera, ERR_FORMAT,
                              "this query does not use the camera '%s'; add it to the query's cameras", name));
}

static struct site_shape *read_shapes(struct site_reader *r, const struct yaml_node *m, bool zone,
                                      const struct site_query *q, size_t *ret_n) {
    if (!m || site_note(r, yaml_is_map(m))) return NULL;
    if (yaml_count(m) > SITE_MAX_SHAPES) {
        site_note(r, yaml_err(m, ERR_LIMIT, "%zu entries; at most %d are possible", yaml_count(m), SITE_MAX_SHAPES));
        return NULL;
    }
    struct site_shape *all = site_own(r->site, xnewn(struct site_shape, yaml_count(m)));
    for (const struct yaml_node *n = yaml_first(m); n; n = yaml_next(n)) read_shape(r, n, zone, q, &all[(*ret_n)++]);
    return all;
}

static void read_step(struct site_reader *r, const struct yaml_node *n, struct site_cascade *c)
{
    const struct yaml_node *model = NULL;
    const char *name = NULL;
    *c = (struct site_cascade){.model = -1, .objects.all = true, .max_per_frame = 4, .every_ms = 2000, .at = n};
    if (yaml_kind(n) != YAML_MAP) {
        site_note(r, yaml_err(n, ERR_FORMAT, "expected a map such as {model: NAME, objects: [person]}"));
        return;
    }
    site_note(r, yaml_check_keys(n, site_keys("cascade")));
    if (!site_note(r, yaml_need(n, "model", &model)) && !site_note(r, yaml_str(model, &name)))
        c->model = site_find(r, model, name, r->model_names, "model");
    site_names_read(r, yaml_get(n, "objects"), &c->objects);
    site_int(r, n, "min_size", 0, VIDEO_MAX_SIDE, &c->min_size);
    site_int(r, n, "max_per_frame", 1, 64, &c->max_per_frame);
    site_note(r, yaml_duration_ms(yaml_get(n, "every"), 0, 86400000, &c->every_ms));
    site_note(r, yaml_float(yaml_get(n, "min_score"), 0, 1, &c->min_score));
    site_note(r, yaml_float(yaml_get(n, "margin"), 0, 1, &c->margin));
}

static void read_cascade(struct site_reader *r, const struct yaml_node *list, struct site_query *q)
{
    if (!list || site_note(r, yaml_is_list(list))) return;
    if (yaml_count(list) > SITE_MAX_CASCADE) {
        site_note(r, yaml_err(list, ERR_LIMIT, "%zu entries; at most %d are possible", yaml_count(list),
                              SITE_MAX_CASCADE));
        return;
    }
    q->cascade_count = 0;
    q->cascade = site_own(r->site, xnewn(struct site_cascade, yaml_count(list)));
    for (const struct yaml_node *n = yaml_first(list); n; n = yaml_next(n)) {
        struct site_cascade *c = &q->cascade[q->cascade_count++];
        read_step(r, n, c);
        for (size_t i = 0; !q->objects.all && i < c->objects.count; i++) {
            bool found = false;
            for (size_t k = 0; k < q->objects.count && !found; k++)
                found = !strcmp(q->objects.items[k], c->objects.items[i]);
            if (!found)
                site_note(r, yaml_err(yaml_get(n, "objects"), ERR_FORMAT,
                                      "'%.40s' is not among the query's objects, so it never "
                                      "gets here; add it there or remove it here",
                                      c->objects.items[i]));
        }
    }
}

/* Names to indices, in the order of the site's cameras. */
static void read_query_cameras(struct site_reader *r, const struct yaml_node *n, struct site_query *q)
{
    struct site *s = r->site;
    struct site_names names = {0};
    if (!n) return;
    site_names_read(r, n, &names);
    bool *used = xcalloc(s->camera_count, sizeof *used);
    for (size_t i = 0; i < s->camera_count && names.all; i++) used[i] = true;
    for (size_t i = 0; i < names.count; i++) {
        const struct yaml_node *at = n;
        for (const struct yaml_node *c = yaml_first(n); c; c = yaml_next(c))
            if (!strcmp(text_or_empty(c), names.items[i])) at = c;
        int k = site_find(r, at, names.items[i], r->camera_names, "camera");
        if (k >= 0) used[k] = true;
    }
    q->camera_count = 0;
    q->cameras = site_own(s, xnewn(int, s->camera_count));
    for (size_t i = 0; i < s->camera_count; i++)
        if (used[i]) q->cameras[q->camera_count++] = (int)i;
    free(used);
    if (names.all && !s->camera_count)
        site_note(r, yaml_err(n, ERR_FORMAT, "there are no cameras; add some under 'cameras:'"));
}

static void read_query_model(struct site_reader *r, const struct yaml_node *n, struct site_query *q)
{
    const char *name = NULL;
    if (!n || site_note(r, yaml_str(n, &name))) return;
    q->model = strcmp(name, "motion") ? site_find(r, n, name, r->model_names, "model") : SITE_MOTION;
}

static void read_query(struct site_reader *r, const struct yaml_node *m, struct site_query *q)
{
    site_note(r, yaml_check_keys(m, site_keys("query")));
    read_query_cameras(r, yaml_get(m, "cameras"), q);
    read_query_model(r, yaml_get(m, "model"), q);
    site_names_read(r, yaml_get(m, "objects"), &q->objects);
    site_note(r, yaml_float(yaml_get(m, "fps"), 0.001, 1000, &q->fps));
    site_int(r, m, "deadline_ms", 1, 600000, &q->deadline_ms);
    site_int(r, m, "priority", 0, 9, &q->priority);
    site_note(r, yaml_float(yaml_get(m, "min_score"), 0, 1, &q->min_score));
    read_motion(r, yaml_get(m, "motion"), &q->motion);
    site_note(r, yaml_bool(yaml_get(m, "track"), &q->track));
    read_events(r, yaml_get(m, "events"), q);
}

/* What only a query of its own can have, and what must fit together. */
static void finish_query(struct site_reader *r, const struct yaml_node *m, const struct yaml_node *defaults,
                         struct site_query *q) {
    static const char *const tracked[] = {"zones", "lines", "events"};
    if (!yaml_get(m, "cameras") && !yaml_get(defaults, "cameras"))
        site_note(r, yaml_err_key(m, ERR_FORMAT, "the key 'cameras' is missing; add it: all, or a list of names"));
    if (!yaml_get(m, "model") && !yaml_get(defaults, "model"))
        site_note(r, yaml_err_key(m, ERR_FORMAT, "the key 'model' is missing; add it: a model's name, or motion"));
    q->zones = read_shapes(r, yaml_get(m, "zones"), true, q, &q->zone_count);
    q->lines = read_shapes(r, yaml_get(m, "lines"), false, q, &q->line_count);
    read_cascade(r, yaml_get(m, "cascade"), q);
    for (size_t i = 0; i < ARRAY_LEN(tracked) && !q->track; i++)
        if (yaml_get(m, tracked[i]))
            site_note(r, yaml_err_key(yaml_get(m, tracked[i]), ERR_FORMAT,
                                      "needs tracks; write 'track: true' in this query"));
}

void site_read_queries(struct site_reader *r, const struct yaml_node *defaults, const struct yaml_node *map)
{
    static const char *const own[] = {"zones", "lines", "cascade"};
    struct site *s = r->site;
    struct site_query base = {
        .model = SITE_MOTION,
        .objects.all = true,
        .fps = 5,
        .deadline_ms = 1000,
        .priority = 5,
        .min_score = -1,
        .track = true,
        .events = SITE_EVENT_ALL,
        .settle_ms = 200,
        .motion = {
            .threshold = 10, .deviations = 4, .min_pixels = 4, .width = 80, .hold_ms = 1000, .adapt_ms = 10000}};
    if (defaults && !site_note(r, yaml_is_map(defaults))) read_query(r, defaults, &base);
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (yaml_get(defaults, own[i]))
            site_note(r, yaml_err_key(yaml_get(defaults, own[i]), ERR_FORMAT,
                                      "cannot be a default; write it at each query"));
    if (!map || site_note(r, yaml_is_map(map))) return;
    if (yaml_count(map) > SITE_MAX_QUERIES) {
        site_note(
            r, yaml_err(map, ERR_LIMIT, "%zu queries; at most %d are possible", yaml_count(map), SITE_MAX_QUERIES));
        return;
    }
    size_t streams = 0;
    s->queries = site_own(s, xnewn(struct site_query, yaml_count(map)));
    for (const struct yaml_node *n = yaml_first(map); n; n = yaml_next(n)) {
        struct site_query *q = &s->queries[s->query_count++];
        *q = base;
        q->name = yaml_key(n), q->at = n;
        site_note(r, site_name_check(n));
        if (site_note(r, yaml_is_map(n))) continue;
        read_query(r, n, q);
        finish_query(r, n, defaults, q);
        streams += q->camera_count * (1 + q->cascade_count);
    }
    if (streams > SITE_MAX_STREAMS)
        site_note(r, yaml_err(map, ERR_LIMIT, "queries times cameras make %zu streams; at most %d are possible",
                              streams, SITE_MAX_STREAMS));
}

static void check_names(struct site_reader *r, const struct yaml_node *n, const struct site_names *names,
                        const char *const *labels) {
    for (size_t i = 0; i < names->count; i++) {
        const struct yaml_node *at = n;
        for (const struct yaml_node *c = yaml_first(n); c; c = yaml_next(c))
            if (!strcmp(text_or_empty(c), names->items[i])) at = c;
        (void)site_find(r, at, names->items[i], labels, "label of this model");
    }
}

err site_check_labels(const struct site *s, site_labels_fn *labels, void *arg, struct site_problems *problems)
{
    static const char *const motion[] = {"motion", NULL};
    struct site_reader r = {.problems = problems};
    for (size_t i = 0; i < s->query_count; i++) {
        const struct site_query *q = &s->queries[i];
        const char *const *known = q->model == SITE_MOTION ? motion : labels(arg, q->model);
        if (!known) continue;
        const struct yaml_node *own = yaml_get(q->at, "objects");
        if (own) check_names(&r, own, &q->objects, known);
        for (size_t k = 0; k < q->cascade_count; k++)
            check_names(&r, yaml_get(q->cascade[k].at, "objects"), &q->cascade[k].objects, known);
    }
    return r.first;
}

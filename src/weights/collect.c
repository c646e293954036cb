/* Taking away what nobody needs, and checking every byte of what is there.
 *
 * Order: first a name goes, then manifests, then the blobs that no manifest that is left refers to, and a folder is synced before the next
 * kind: at no moment does a manifest refer to a blob that was taken away. A manifest that cannot be read stops the collector, since it may refer to
 * anything. The collector holds the writer's lock and the gate, so nobody is between a name and its files.
 * SPDX-License-Identifier: Apache-2.0 */
#include "weights/store_inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct collector {
    struct weights_store *s;
    struct weights_gc_report *report;
    struct weights_id *blobs, *manifests;
    size_t n_blobs, cap_blobs, n_manifests, cap_manifests;
};

err weights_remove_file(struct weights_store *s, const char *dir, const char *name, struct weights_gc_report *r)
{
    char *path = xasprintf("%s/%s", dir, name);
    struct stat st;
    uint64_t bytes = stat(path, &st) ? 0 : (uint64_t)st.st_size;
    err e = ERR_OK;
    if (s->fs.unlink(s->fs.self, path) && errno != ENOENT) e = err_set(ERR_IO, "%s: cannot remove: %s", path, strerror(errno));
    free(path);
    if (!e) {
        r->files++;
        r->bytes += bytes;
    }
    return e;
}

static int by_id(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct weights_id));
}

static err keep(struct collector *c, const char *name, uint32_t version)
{
    struct weights_manifest m;
    err e = weights_manifest_read(c->s, name, version, &m);
    if (e) return err_wrap(e, "nothing is collected");
    vec_grow(&c->manifests, &c->cap_manifests, c->n_manifests);
    c->manifests[c->n_manifests++] = m.id;
    for (size_t i = 0; i < m.n_blobs; i++) {
        vec_grow(&c->blobs, &c->cap_blobs, c->n_blobs);
        c->blobs[c->n_blobs++] = m.blobs[i];
    }
    weights_manifest_done(&m);
    return ERR_OK;
}

/* A folder without `current` is what is left of a removal, or of an import that never came so far. */
static err collect_model(struct collector *c, const char *name)
{
    struct weights_store *s = c->s;
    uint32_t current = 0, v;
    err e = weights_name_check(name) ? ERR_OK : weights_current(s, name, &current);
    if (e == ERR_NOT_FOUND) e = ERR_OK;
    if (e) return err_wrap(e, "nothing is collected");
    char *dir = xasprintf("%s/%s", s->models, name), **names = NULL;
    size_t n = 0, left = 0;
    e = weights_entries(dir, &names, &n);
    for (size_t i = 0; i < n && !e; i++) {
        bool version = weights_version_parse(names[i], &v);
        if (version && ((current && v == current) || weights_version_used(s, name, v))) {
            left++;
            e = keep(c, name, v);
        } else if (version || !current) {
            e = weights_remove_file(s, dir, names[i], c->report);
        }
    }
    if (!e) e = weights_sync_dir(s, dir);
    if (!e && !current && !left && s->fs.rmdir(s->fs.self, dir) && errno != ENOENT)
        e = err_set(ERR_IO, "%s: cannot remove: %s", dir, strerror(errno));
    weights_entries_free(names, n);
    free(dir);
    return e;
}

static err collect_models(struct collector *c)
{
    char **names;
    size_t n;
    err e = weights_entries(c->s->models, &names, &n);
    if (e) return e;
    for (size_t i = 0; i < n && !e; i++) e = collect_model(c, names[i]);
    weights_entries_free(names, n);
    return e ? e : weights_sync_dir(c->s, c->s->models);
}

static err collect_blobs(struct collector *c)
{
    struct weights_id id;
    char **names;
    size_t n;
    err e = weights_entries(c->s->blobs, &names, &n);
    if (e) return e;
    if (c->n_blobs) qsort(c->blobs, c->n_blobs, sizeof *c->blobs, by_id);
    for (size_t i = 0; i < n && !e; i++)
        if (!weights_id_parse(names[i], &id) || !c->n_blobs || !bsearch(&id, c->blobs, c->n_blobs, sizeof id, by_id))
            e = weights_remove_file(c->s, c->s->blobs, names[i], c->report);
    weights_entries_free(names, n);
    return e ? e : weights_sync_dir(c->s, c->s->blobs);
}

/* Half-written files and marks of the dead: what no living process has locked. */
static err collect_unheld(struct collector *c, const char *dir)
{
    char **names;
    size_t n;
    err e = weights_entries(dir, &names, &n);
    if (e) return e;
    for (size_t i = 0; i < n && !e; i++) {
        char *path = xasprintf("%s/%s", dir, names[i]);
        if (!weights_held(path)) e = weights_remove_file(c->s, dir, names[i], c->report);
        free(path);
    }
    weights_entries_free(names, n);
    return e;
}

err weights_store_gc(struct weights_store *s, struct weights_gc_report *ret)
{
    struct weights_gc_report report = {0};
    struct collector c = {.s = s, .report = &report};
    err e = weights_store_begin(s);
    if (e) return e;
    if (!(e = weights_gate(s, true))) {
        e = collect_models(&c);
        if (!e) e = weights_packed_collect(s, c.manifests, c.n_manifests, &report);
        if (!e) e = collect_blobs(&c);
        if (!e) e = collect_unheld(&c, s->tmp);
        if (!e) e = collect_unheld(&c, s->uses);
        weights_gate_open(s);
    }
    weights_store_end(s);
    free(c.blobs);
    free(c.manifests);
    if (!e) *ret = report;
    return e;
}

/* The name goes; after that moment it was removed, whatever happens. */
static err forget(struct weights_store *s, const char *name, struct weights_gc_report *r)
{
    char *dir = xasprintf("%s/%s", s->models, name);
    int uses = 0;
    err e = weights_gate(s, true);
    if (!e) {
        char *path = xasprintf("%s/current", dir);
        struct stat st;
        if (stat(path, &st)) e = err_set(ERR_NOT_FOUND, "no model '%s' in the store %s; brim models list says what is there", name, s->path);
        free(path);
        if (!e && weights_pinned(s, name)) e = err_set(ERR_BUSY, "'%s' is pinned; brim models unpin %s first", name, name);
        if (!e) e = weights_use_count(s, name, &uses);
        if (!e && uses) e = err_set(ERR_BUSY, "'%s' is in use by %d process%s; stop %s first", name, uses, uses > 1 ? "es" : "", uses > 1 ? "them" : "it");
        if (!e) e = weights_remove_file(s, dir, "current", r);
        if (!e) e = weights_sync_dir(s, dir);
        weights_gate_open(s);
    }
    free(dir);
    return e;
}

err weights_store_remove(struct weights_store *s, const char *name, struct weights_gc_report *ret)
{
    struct weights_gc_report first = {0}, rest = {0};
    err e = weights_name_check(name);
    if (!e) e = weights_store_begin(s);
    if (e) return e;
    if (!(e = forget(s, name, &first))) e = weights_store_gc(s, &rest);
    weights_store_end(s);
    if (!e) *ret = (struct weights_gc_report){first.files + rest.files, first.bytes + rest.bytes};
    return e;
}

/* ---- verify */

struct verifier {
    struct weights_store *s;
    struct weights_verify_report r;
    void (*bad)(void *user, const char *sentence);
    void *user;
    struct weights_id *blobs; /* that manifests refer to */
    size_t n_blobs, cap_blobs;
};

static void note(struct verifier *v, err e)
{
    if (!e) return;
    *(e == ERR_NOT_FOUND ? &v->r.missing : &v->r.damaged) += 1;
    if (v->bad) v->bad(v->user, err_text());
}

static void verify_model(struct verifier *v, const char *name)
{
    struct weights_manifest m;
    uint32_t version, current = 0;
    char *dir = xasprintf("%s/%s", v->s->models, name), **names = NULL;
    size_t n = 0;
    bool found = false;
    err e = weights_current(v->s, name, &current);
    if (e != ERR_NOT_FOUND) note(v, e);
    note(v, weights_entries(dir, &names, &n));
    for (size_t i = 0; i < n && e != ERR_NOT_FOUND; i++) {
        if (!weights_version_parse(names[i], &version)) continue;
        found |= version == current;
        v->r.manifests++;
        if ((e = weights_manifest_read(v->s, name, version, &m))) {
            note(v, e == ERR_NOT_FOUND ? ERR_CORRUPT : e);
            continue;
        }
        for (size_t k = 0; k < m.n_blobs; k++) {
            vec_grow(&v->blobs, &v->cap_blobs, v->n_blobs);
            v->blobs[v->n_blobs++] = m.blobs[k];
        }
        weights_manifest_done(&m);
    }
    if (current && !found) note(v, err_set(ERR_CORRUPT, "%s/%u: missing, and it is the current version; import the model again", dir, current));
    weights_entries_free(names, n);
    free(dir);
}

static void verify_blobs(struct verifier *v)
{
    struct weights_blob_info info;
    char **names = NULL;
    size_t n = 0;
    note(v, weights_entries(v->s->blobs, &names, &n));
    if (v->n_blobs) qsort(v->blobs, v->n_blobs, sizeof *v->blobs, by_id);
    for (size_t i = 0; i < v->n_blobs; i++) { /* the missing ones; those that are there come below */
        if (i && weights_id_equal(&v->blobs[i], &v->blobs[i - 1])) continue;
        if (weights_blob_check(v->s, &v->blobs[i], false, &info) == ERR_NOT_FOUND) note(v, ERR_NOT_FOUND);
    }
    for (size_t i = 0; i < n; i++) {
        struct weights_id id;
        if (!weights_id_parse(names[i], &id)) {
            note(v, err_set(ERR_CORRUPT, "%s/%s: no blob has such a name; brim models gc removes it", v->s->blobs, names[i]));
            continue;
        }
        v->r.blobs++;
        err e = weights_blob_check(v->s, &id, true, &info);
        note(v, e);
        v->r.bytes += e ? 0 : info.bytes;
    }
    weights_entries_free(names, n);
}

static void verify_packed(struct verifier *v)
{
    char **names = NULL;
    size_t n = 0;
    note(v, weights_entries(v->s->packed, &names, &n));
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = 0;
        v->r.packed++;
        note(v, weights_packed_verify(v->s, names[i], &bytes));
        v->r.bytes += bytes;
    }
    weights_entries_free(names, n);
}

err weights_store_verify(struct weights_store *s, void (*bad)(void *user, const char *sentence), void *user, struct weights_verify_report *ret)
{
    struct verifier v = {.s = s, .bad = bad, .user = user};
    char **names;
    size_t n;
    err e = weights_gate(s, false);
    if (e) return e;
    if (!(e = weights_entries(s->models, &names, &n))) {
        for (size_t i = 0; i < n; i++) verify_model(&v, names[i]);
        weights_entries_free(names, n);
        verify_blobs(&v);
        verify_packed(&v);
    }
    weights_gate_open(s);
    free(v.blobs);
    if (!e) *ret = v.r;
    return e;
}

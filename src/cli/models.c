/* `brim models import|share|list|show|pin|unpin|remove|verify|gc`: the weight store at a prompt.
 *
 * One table of verbs; each gets the open store and the arguments that are left, and prints a table for people or one JSON object.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/models.h"
#include "base/text.h"
#include "cli/args.h"
#include "engine/engine.h"
#include "model/import.h"
#include "model/share.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct models {
    struct weights_store *store;
    const char *path, *name;
    bool json, shared;
    struct args_list rest; /* without the verb */
    int status;            /* verify: 1 if something is damaged */
};

static void print(json_t *j)
{
    json_dumpf(j, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(j);
}

static const char *size(uint64_t n, char buf[16])
{
    return size_text(n, buf);
}

static double ms_since(int64_t begin)
{
    return (double)(clock_ns() - begin) / 1e6;
}

/* ---- import */

static err import_one(struct models *m, const char *path)
{
    struct mem_budget *budget = mem_budget_new("import", UINT64_MAX);
    char tmp[16], *name = m->name ? xstrdup(m->name) : model_import_name(path), *dir = xasprintf("%s/tmp", weights_store_path(m->store));
    struct model_import_report r;
    int64_t begin = clock_ns();
    err e = mem_budget_back_with_files(budget, dir);
    struct mem_payer *payer = mem_payer_new(budget, "import");
    if (!e) e = model_import(m->store, path, name, payer, &r);
    double ms = ms_since(begin);
    mem_payer_free(&payer);
    mem_budget_free(&budget);
    if (!e && m->json) {
        print(json_pack("{s:o, s:i, s:b, s:I, s:I, s:I, s:i, s:i, s:f}", "name", text_json(name), "version", (int)r.version, "new", r.is_new, "bytes",
                        (json_int_t)r.bytes, "new_bytes", (json_int_t)r.new_bytes, "shared_bytes", (json_int_t)r.shared_bytes, "tensors",
                        (int)r.tensors, "blobs", (int)r.blobs, "import_ms", ms));
    } else if (!e) {
        char a[16], b[16];
        printf("%s version %u%s: %s in %zu tensors, %s written, %s shared with other models; %.0f ms, %.0f MB/s\n", name, r.version,
               r.is_new ? "" : " (as it was)", size(r.bytes, tmp), r.tensors, size(r.new_bytes, a), size(r.shared_bytes, b), ms,
               (double)r.bytes / 1e3 / ms);
    }
    free(name);
    free(dir);
    return e;
}

static err share_among(struct models *m, const char *const *names, size_t n)
{
    struct model_share_report r;
    char a[16], b[16];
    err e = model_share(m->store, names, n, &r);
    if (e) return e;
    if (m->json)
        print(json_pack("{s:I, s:I, s:I, s:I, s:I}", "sharing_models", (json_int_t)r.models, "shared_tensors", (json_int_t)r.tensors, "shared_bytes",
                        (json_int_t)r.bytes, "saved_bytes", (json_int_t)r.saved_bytes, "changed_models", (json_int_t)r.changed));
    else if (!r.tensors)
        printf("nothing is shared: no two models have an equal tensor of %d bytes or more\n", MODEL_SHARE_LEAST);
    else
        printf("%zu models share %zu tensors of %s, held once: %s saved; %zu models marked anew\n", r.models, r.tensors, size(r.bytes, a),
               size(r.saved_bytes, b), r.changed);
    return ERR_OK;
}

static err import(struct models *m)
{
    if (m->rest.n < 1) return err_set(ERR_USAGE, "import: expected FILE.onnx...");
    if (m->name && m->rest.n > 1) return err_set(ERR_USAGE, "import: --name is for one file");
    err e = ERR_OK;
    for (size_t i = 0; i < m->rest.n && !e; i++) e = import_one(m, m->rest.items[i]);
    return e || !m->shared ? e : share_among(m, NULL, 0);
}

static err share(struct models *m)
{
    return share_among(m, m->rest.n ? m->rest.items : NULL, m->rest.n);
}

/* ---- list, show */

static uint64_t bytes_of(const struct weights_manifest *m)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < m->n_blobs; i++) sum += m->blob_bytes[i];
    return sum;
}

static json_t *row(struct models *m, const char *name)
{
    struct weights_manifest x;
    uint64_t shared = 0;
    int uses = 0;
    err e = weights_manifest_current(m->store, name, &x);
    if (e) return json_pack("{s:o, s:o}", "name", text_json(name), "error", text_json(err_text()));
    e = model_import_shared(m->store, &x, &shared, NULL);
    if (!e) e = weights_use_count(m->store, name, &uses);
    json_t *j = json_pack("{s:o, s:i, s:I, s:I, s:i, s:i, s:b, s:i, s:o, s:I}", "name", text_json(name), "version", (int)x.version, "bytes",
                          (json_int_t)bytes_of(&x), "shared_bytes", (json_int_t)shared, "tensors", (int)x.n_tensors, "blobs", (int)x.n_blobs, "pinned",
                          weights_pinned(m->store, name), "uses", uses, "source", text_json(x.source), "created", (json_int_t)x.created);
    weights_manifest_done(&x);
    return j;
}

static uint64_t get(const json_t *j, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(j, key));
}

static err list(struct models *m)
{
    char **names, a[16], b[16];
    size_t n;
    if (m->rest.n) return err_set(ERR_USAGE, "list: takes no names");
    err e = weights_store_list(m->store, &names, &n);
    if (e) return e;
    json_t *rows = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(rows, row(m, names[i]));
        free(names[i]);
    }
    free(names);
    if (m->json) {
        print(json_pack("{s:o, s:o}", "store", text_json(m->path), "models", rows));
        return ERR_OK;
    }
    printf("%-32s %7s %10s %10s %7s %s\n", "model", "version", "bytes", "shared", "tensors", "");
    for (size_t i = 0; i < n; i++) {
        const json_t *r = json_array_get(rows, i);
        const char *wrong = json_string_value(json_object_get(r, "error"));
        if (wrong) {
            printf("%-32s %s\n", json_string_value(json_object_get(r, "name")), wrong);
            continue;
        }
        printf("%-32s %7llu %10s %10s %7llu%s%s\n", json_string_value(json_object_get(r, "name")), (unsigned long long)get(r, "version"),
               size(get(r, "bytes"), a), size(get(r, "shared_bytes"), b), (unsigned long long)get(r, "tensors"),
               json_is_true(json_object_get(r, "pinned")) ? " pinned" : "", get(r, "uses") ? " in use" : "");
    }
    json_decref(rows);
    return ERR_OK;
}

static const char *one(const struct models *m, const char *verb, err *e)
{
    *e = m->rest.n == 1 ? ERR_OK : err_set(ERR_USAGE, "%s: expected one NAME; brim models list says which there are", verb);
    return *e ? "" : m->rest.items[0];
}

static json_t *tensor_json(const struct weights_manifest *x, const struct weights_tensor *t, char *const *with)
{
    char id[65], shape[160];
    return json_pack("{s:o, s:s, s:s, s:I, s:s, s:b, s:o}", "name", text_json(t->name), "dtype", tensor_dtype_name(t->dtype), "shape",
                     tensor_shape_text(&t->shape, NULL, shape, sizeof shape), "bytes", (json_int_t)t->bytes, "blob",
                     weights_id_text(&x->blobs[t->blob], id), "tail", t->blob == x->tail, "shared_with",
                     with[t->blob] ? text_json(with[t->blob]) : json_null());
}

static err show(struct models *m)
{
    err e;
    const char *name = one(m, "show", &e);
    struct weights_manifest x;
    char **with, id[65], a[16], b[16], shape[160];
    uint64_t shared;
    if (!e) e = weights_manifest_current(m->store, name, &x);
    if (e) return e;
    if ((e = model_import_shared(m->store, &x, &shared, &with))) {
        weights_manifest_done(&x);
        return e;
    }
    if (m->json) {
        json_t *j = row(m, name), *tensors = json_array();
        for (size_t i = 0; i < x.n_tensors; i++) json_array_append_new(tensors, tensor_json(&x, &x.tensors[i], with));
        json_object_set_new(j, "graph", json_string(weights_id_text(&x.blobs[x.graph], id)));
        json_object_set_new(j, "manifest", json_string(weights_id_text(&x.id, id)));
        json_object_set_new(j, "tensor_list", tensors);
        print(j);
    } else {
        printf("%s version %u, from %s: %s, %s of it shared\n", name, x.version, x.source, size(bytes_of(&x), a), size(shared, b));
        for (size_t i = 0; i < x.n_tensors; i++) {
            const struct weights_tensor *t = &x.tensors[i];
            printf("  %-40s %-8s %-20s %10s  %.16s%s%s%s\n", t->name, tensor_dtype_name(t->dtype), tensor_shape_text(&t->shape, NULL, shape, sizeof shape),
                   size(t->bytes, a), weights_id_text(&x.blobs[t->blob], id), t->blob == x.tail ? " (tail)" : "", with[t->blob] ? " also in " : "",
                   with[t->blob] ? with[t->blob] : "");
        }
    }
    for (size_t i = 0; i < x.n_blobs; i++) free(with[i]);
    free(with);
    weights_manifest_done(&x);
    return ERR_OK;
}

/* ---- pin, unpin, remove, gc */

static err set_pin(struct models *m, const char *verb, bool on)
{
    err e;
    const char *name = one(m, verb, &e);
    if (!e) e = weights_pin(m->store, name, on);
    if (e) return e;
    if (m->json) print(json_pack("{s:o, s:b}", "name", text_json(name), "pinned", on));
    else printf("%s is %s\n", name, on ? "pinned: it cannot be removed" : "not pinned");
    return ERR_OK;
}

static err pin(struct models *m)
{
    return set_pin(m, "pin", true);
}

static err unpin(struct models *m)
{
    return set_pin(m, "unpin", false);
}

static void print_gone(const struct models *m, const struct weights_gc_report *r)
{
    char a[16];
    if (m->json) print(json_pack("{s:I, s:I}", "files", (json_int_t)r->files, "bytes", (json_int_t)r->bytes));
    else printf("%llu files removed, %s\n", (unsigned long long)r->files, size(r->bytes, a));
}

static err remove_one(struct models *m)
{
    err e;
    struct weights_gc_report r;
    const char *name = one(m, "remove", &e);
    if (!e) e = weights_store_remove(m->store, name, &r);
    if (!e) print_gone(m, &r);
    return e;
}

static err collect(struct models *m)
{
    struct weights_gc_report r;
    if (m->rest.n) return err_set(ERR_USAGE, "gc: takes no names");
    err e = weights_store_gc(m->store, &r);
    if (!e) print_gone(m, &r);
    return e;
}

/* ---- verify */

static void bad(void *user, const char *sentence)
{
    json_array_append_new(user, text_json(sentence));
    fprintf(stderr, "brim models: %s\n", sentence);
}

static err verify(struct models *m)
{
    struct weights_verify_report r;
    if (m->rest.n) return err_set(ERR_USAGE, "verify: takes no names, it checks all");
    json_t *damage = json_array();
    int64_t begin = clock_ns();
    err e = weights_store_verify(m->store, bad, damage, &r);
    double ms = ms_since(begin);
    m->status = !e && json_array_size(damage) ? 1 : 0;
    if (!e && m->json) {
        print(json_pack("{s:I, s:I, s:I, s:I, s:f, s:O}", "manifests", (json_int_t)r.manifests, "blobs", (json_int_t)r.blobs, "packed",
                        (json_int_t)r.packed, "bytes", (json_int_t)r.bytes, "verify_ms", ms, "damage", damage));
    } else if (!e) {
        char a[16];
        printf("%llu manifests, %llu blobs, %llu packed files, %s: %zu damaged or missing; %.0f ms, %.0f MB/s\n", (unsigned long long)r.manifests,
               (unsigned long long)r.blobs, (unsigned long long)r.packed, size(r.bytes, a), json_array_size(damage), ms, (double)r.bytes / 1e3 / ms);
    }
    json_decref(damage);
    return e;
}

static const struct verb {
    const char *name;
    err (*run)(struct models *m);
} verbs[] = {{"import", import}, {"share", share}, {"list", list},         {"show", show},     {"pin", pin},
             {"unpin", unpin},   {"remove", remove_one}, {"verify", verify}, {"gc", collect}};

static err run(struct models *m)
{
    if (!m->rest.n) return err_set(ERR_USAGE, "expected import, share, list, show, pin, unpin, remove, verify or gc; --help says more");
    const char *verb = m->rest.items[0];
    memmove(m->rest.items, m->rest.items + 1, --m->rest.n * sizeof *m->rest.items);
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(verbs[i].name, verb) != 0) continue;
        err e = weights_store_open(m->path, NULL, &m->store);
        return e ? e : verbs[i].run(m);
    }
    return err_set(ERR_USAGE, "there is no '%s': import, share, list, show, pin, unpin, remove, verify or gc", verb);
}

int cli_models(int argc, char **argv)
{
    struct models m = {0};
    bool help = false;
    const struct args_option table[] = {
        {"store", ARGS_STRING, &m.path, "the store (default: $BRIM_STORE, else the usual place)"},
        {"name", ARGS_STRING, &m.name, "import: what the model is called (default: the file's name)"},
        {"shared", ARGS_FLAG, &m.shared, "import: then 'share' over the whole store"},
        {"json", ARGS_FLAG, &m.json, "one JSON object on stdout (import: one a file)"},
        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &m.rest, &help);
    if (help) args_help("models import FILE.onnx... | share [NAME...] | list | show NAME | pin NAME | unpin NAME | remove NAME | verify | gc", table);
    char *path = m.path ? xstrdup(m.path) : engine_store_path(NULL);
    m.path = path;
    if (!e && !help) e = run(&m);
    int status = e ? args_fail("models", e) : m.status;
    weights_store_close(&m.store);
    free(m.rest.items);
    free(path);
    return status;
}

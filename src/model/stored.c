/* Models of the weight store: planned once with their numbers, and from then on without.
 *
 * Planning asks for the place of each constant in an order that the graph and the options decide. The first time, constants are packed into a packed
 * file of the store, and the order of places is kept with it. Later, the graph is read *hollow* (large tensors read as zeros and cost nothing),
 * planning goes the same way, and each constant gets the place it had: nothing is packed, hashed or read. What planning decided is summed up in a
 * stamp; another stamp, another number of bytes or another format word, and the copy is not believed but made again.
 *
 * Zeros are harmless: their folded products are never used, since every constant of the run comes from the packed file, whose key names the
 * manifest and so every number.
 *
 * Invariant: the model's table has one row per extent of the set, in the set's order. SPDX-License-Identifier: Apache-2.0 */
#include "model/import.h"
#include "model/plan.h"
#include "weights/stored.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct model_stored {
    struct weights_store *store;
    struct weights_manifest manifest;
    struct weights_use *use;
    struct graph *whole;          /* with all its numbers; read when something has to be packed */
    struct weights_packed *from;  /* while a plan takes its places from it */
    size_t next;
    int *places;                  /* while a plan is packed: extents in the order of asking */
    size_t n_places, cap_places;
    char problem[256];            /* why what was packed last could not be kept, or "" */
};

err model_open_stored(struct weights_store *store, const char *stored, const char *name, const struct model_options *o, struct model **ret)
{
    struct model *m;
    assert(o->reader && o->spill_dir);
    err e = model_prepare(name, o, &m);
    if (e) return e;
    struct model_stored *s = m->stored = xnew(struct model_stored);
    s->store = store;
    e = weights_use_open(store, stored, &s->manifest, &s->use);
    if (!e) e = model_import_graph(store, &s->manifest, true, m->import_payer, &m->graph);
    if (e) model_free(&m);
    else *ret = m;
    return e;
}

void model_stored_free(struct model *m)
{
    struct model_stored *s = m->stored;
    if (!s) return;
    graph_free(&s->whole);
    weights_use_close(&s->use);
    weights_manifest_done(&s->manifest);
    free(s->places);
    free(s);
    m->stored = NULL;
}

const char *model_stored_problem(const struct model *m)
{
    return m->stored ? m->stored->problem : "";
}

/* ---- places */

err model_stored_place(struct model *m, size_t bytes, const char *format, bool *ret_known, int *ret_extent)
{
    struct model_stored *s = m->stored;
    if (!s->from) return ERR_OK;
    if (s->next >= s->from->n_places) return err_set(ERR_CORRUPT, "%s: more weights than its packed copy has", m->name);
    uint32_t extent = s->from->places[s->next++];
    const struct weights_packed_extent *x = &s->from->extents[extent];
    if (x->bytes != bytes || strcmp(x->format, format) != 0)
        return err_set(ERR_CORRUPT, "%s: weights of another form than its packed copy has", m->name);
    *ret_known = true;
    *ret_extent = (int)extent; /* the packed file's number until the plan is believed */
    return ERR_OK;
}

void model_stored_placed(struct model *m, int extent)
{
    struct model_stored *s = m->stored;
    vec_grow(&s->places, &s->cap_places, s->n_places);
    s->places[s->n_places++] = extent;
}

/* What planning decided. */
static uint64_t stamp_of(const struct model_plan *p)
{
    uint64_t h = hash64(&p->sizes.flops, sizeof p->sizes.flops, p->n_steps);
    for (size_t i = 0; i < p->n_steps; i++) {
        const struct model_step *s = &p->steps[i];
        const int64_t facts[] = {(int64_t)s->node->kind, s->n_in, s->n_out, s->n_post, s->flops, (int64_t)s->weight_bytes};
        h = hash64(facts, sizeof facts, hash64(s->class->name, strlen(s->class->name), h));
        for (int k = 0; k < s->n_in; k++) h = hash64(&s->in[k].slot, sizeof s->in[k].slot, hash64(&s->in[k].offset, sizeof s->in[k].offset, h));
    }
    for (size_t i = 0; i < p->n_slots; i++) h = hash64(&p->slots[i].bytes, sizeof p->slots[i].bytes, h);
    return h;
}

static char *key_of(const struct model *m, const struct tensor_shape *shapes)
{
    const struct model_options *o = &m->options;
    struct strbuf b = {0};
    char id[65];
    strbuf_addf(&b, "%s precision %d %d %d %x threads %d ref %d raw %d slice %zu shapes", weights_id_text(&m->stored->manifest.id, id), (int)o->precision, m->choice.half, m->choice.groups, m->choice.keep, o->threads,
                o->only_ref, o->no_rewrites, o->slice_bytes);
    for (int i = 0; shapes && i < m->graph->n_inputs; i++) {
        strbuf_add(&b, " ");
        for (int k = 0; k < shapes[i].rank; k++) strbuf_addf(&b, "%s%lld", k ? "x" : "", (long long)shapes[i].dims[k]);
    }
    return strbuf_take(&b);
}

/* ---- with a packed copy */

static err begin_filling(struct model *m)
{
    err e = m->filling ? ERR_OK : weights_set_reopen(m->weights);
    if (!e) m->filling = true;
    return e;
}

/* The plan is as it was when it was packed: its extents become the set's. */
static err believe(struct model_plan *p, struct weights_packed *k)
{
    struct model *m = p->model;
    int *map = xnewn(int, k->n_extents + 1);
    err e = begin_filling(m);
    if (!e) e = weights_set_adopt(m->weights, k, map);
    for (size_t i = 0; i < k->n_extents && !e; i++) {
        if (map[i] < (int)m->n_weights) continue;
        vec_grow(&m->table, &m->cap_weights, m->n_weights);
        m->table[m->n_weights++] = (struct model_weight){.hash = k->extents[i].hash, .bytes = (size_t)k->extents[i].bytes,
                                                         .format = xstrdup(k->extents[i].format), .extent = map[i]};
    }
    for (size_t i = 0; i < p->n_steps && !e; i++)
        for (int n = 0; n < p->steps[i].n_in; n++)
            if (p->steps[i].in[n].slot == -1) p->steps[i].in[n].extent = map[p->steps[i].in[n].extent];
    free(map);
    return e;
}

/* *ret_done: the plan stands. An error is the caller's, unless it says no more than that the copy is of no use. */
static err try_packed(struct model *m, const struct tensor_shape *shapes, const char *key, struct model_plan *p, bool *ret_done)
{
    struct weights_packed k;
    *ret_done = false;
    if (weights_packed_open(m->stored->store, key, &k)) return ERR_OK; /* not there, or damaged: made again */
    m->stored->from = &k;
    m->stored->next = 0;
    err e = model_plan_from(p, m->graph, shapes);
    m->stored->from = NULL;
    if (!e && (m->stored->next != k.n_places || stamp_of(p) != k.stamp)) e = ERR_CORRUPT;
    if (!e) e = believe(p, &k);
    weights_packed_done(&k);
    *ret_done = !e;
    if (e) model_plan_clear(p);
    return e == ERR_CORRUPT ? ERR_OK : e;
}

/* ---- without */

static err keep(struct model_plan *p, struct weights_packer *w)
{
    struct model *m = p->model;
    struct model_stored *s = m->stored;
    struct weights_packed k;
    int *number = xnewn(int, m->n_weights + 1);
    err e = weights_set_describe(m->weights, weights_packer_name(w), s->places, s->n_places, &k, number);
    if (!e) {
        k.stamp = stamp_of(p);
        for (size_t i = 0; i < m->n_weights; i++) {
            if (number[i] < 0) continue;
            k.extents[number[i]].hash = m->table[i].hash;
            k.extents[number[i]].format = xstrdup(m->table[i].format);
        }
        e = weights_packer_commit(w, &k);
        weights_packed_done(&k);
    }
    free(number);
    return e;
}

static err pack(struct model *m, const struct tensor_shape *shapes, const char *key, struct model_plan *p)
{
    struct model_stored *s = m->stored;
    struct weights_packer *w = NULL;
    err e = s->whole ? ERR_OK : model_import_graph(s->store, &s->manifest, false, m->import_payer, &s->whole);
    if (!e) e = weights_packer_new(s->store, key, &s->manifest.id, &w);
    if (!e) e = begin_filling(m);
    if (e) {
        weights_packer_free(&w);
        return e;
    }
    s->n_places = 0;
    weights_set_pack_into(m->weights, w);
    e = model_plan_from(p, s->whole, shapes);
    if (!e) e = weights_set_seal(m->weights);
    weights_set_pack_into(m->weights, NULL);
    if (!e) {
        m->filling = false;
        if (keep(p, w)) snprintf(s->problem, sizeof s->problem, "%s", err_text()); /* if it cannot be kept, the weights lie in a file without a name, and the next start packs again */
    }
    weights_packer_free(&w);
    return e;
}

uint64_t model_stored_hash(const struct model *m)
{
    char id[65];
    weights_id_text(&m->stored->manifest.id, id);
    return hash64(id, sizeof id - 1, 0);
}

static bool shares(const struct weights_manifest *m)
{
    for (size_t i = 0; i < m->n_tensors; i++)
        if (m->tensors[i].shared) return true;
    return false;
}

/* A model that shares weights with others is not measured on its own: another verdict than theirs would mean another packed form, held for it alone. f32
 * is what all can agree on without asking; bf16 is for a person to say, for all of them. */
static err choose(struct model *m, const struct tensor_shape *shapes)
{
    struct model_stored *s = m->stored;
    if (m->options.precision == KERNEL_AUTO && shares(&s->manifest)) m->choice = (struct model_choice){.known = true, .groups = 1};
    if (model_choice_known(m, m->graph)) return ERR_OK;
    err e = s->whole ? ERR_OK : model_import_graph(s->store, &s->manifest, false, m->import_payer, &s->whole);
    return e ? e : model_choose(m, s->whole, shapes);
}

err model_stored_plan(struct model *m, const struct tensor_shape *shapes, struct model_plan *p)
{
    err x = choose(m, shapes);
    if (x) return x;
    char *key = key_of(m, shapes);
    bool done;
    err e = try_packed(m, shapes, key, p, &done);
    if (!e && !done) e = pack(m, shapes, key, p);
    free(key);
    return e;
}

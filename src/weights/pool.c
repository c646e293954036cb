/* Blocks that several sets hold: once in memory.
 *
 * Stored models name their blocks by the hash of the packed bytes (weights/packed.h), so two models with an equal weight have blocks of one
 * name. The set that has read a block publishes it here; a set that needs one of that name holds the same memory. Whoever read it pays;
 * when he lets go while others hold it, one of them pays from then on, and the last one frees it. What two sets read at the
 * same moment is read twice and held twice until one of them lets go: rare, and not worth waiting for.
 *
 * Invariant: an entry's payer is one of its holders; its bytes are whole and never change. SPDX-License-Identifier: Apache-2.0 */
#include "weights/inside.h"
#include "weights/store.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct weights_shared {
    struct weights_shared *next;
    struct weights_id id;
    size_t bytes;
    unsigned char *memory;
    size_t n, cap;
    struct mem_payer **holders; /* [0] pays */
};

enum { LISTS = 256 };

struct weights_pool {
    pthread_mutex_t lock; /* guards the lists and their entries */
    struct weights_shared *first[LISTS]; /* by the first byte of the name, which is a hash */
};

struct weights_pool *weights_pool_new(void)
{
    struct weights_pool *p = xnew(struct weights_pool);
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

void weights_pool_free(struct weights_pool **pp)
{
    struct weights_pool *p = *pp;
    if (!p) return;
    for (int i = 0; i < LISTS; i++) assert(!p->first[i]);
    pthread_mutex_destroy(&p->lock);
    free(p);
    *pp = NULL;
}

static struct weights_shared *find(const struct weights_pool *p, const struct weights_id *id, size_t bytes)
{
    for (struct weights_shared *x = p->first[id->b[0]]; x; x = x->next)
        if (x->bytes == bytes && weights_id_equal(&x->id, id)) return x;
    return NULL;
}

static void hold(struct weights_shared *x, struct mem_payer *payer)
{
    vec_grow(&x->holders, &x->cap, x->n);
    x->holders[x->n++] = payer;
}

bool weights_pool_has(struct weights_pool *p, const struct weights_id *id, size_t bytes, const struct mem_payer *payer)
{
    pthread_mutex_lock(&p->lock);
    const struct weights_shared *x = find(p, id, bytes);
    bool has = x && mem_payer_budget(x->holders[0]) == mem_payer_budget(payer);
    pthread_mutex_unlock(&p->lock);
    return has;
}

struct weights_shared *weights_pool_take(struct weights_pool *p, const struct weights_id *id, size_t bytes, struct mem_payer *payer,
                                         unsigned char **ret_memory)
{
    pthread_mutex_lock(&p->lock);
    struct weights_shared *x = find(p, id, bytes);
    if (x && mem_payer_budget(x->holders[0]) != mem_payer_budget(payer)) x = NULL; /* nobody pays for another budget */
    if (x) {
        hold(x, payer);
        *ret_memory = x->memory;
    }
    pthread_mutex_unlock(&p->lock);
    return x;
}

struct weights_shared *weights_pool_publish(struct weights_pool *p, const struct weights_id *id, size_t bytes, struct mem_payer *payer,
                                            unsigned char *memory)
{
    struct weights_shared *x = NULL;
    pthread_mutex_lock(&p->lock);
    if (!find(p, id, bytes)) {
        x = xnew(struct weights_shared);
        *x = (struct weights_shared){.next = p->first[id->b[0]], .id = *id, .bytes = bytes, .memory = memory};
        hold(x, payer);
        p->first[id->b[0]] = x;
    }
    pthread_mutex_unlock(&p->lock);
    return x;
}

void weights_pool_drop(struct weights_pool *p, struct weights_shared *x, struct mem_payer *payer)
{
    size_t i = 0;
    pthread_mutex_lock(&p->lock);
    while (x->holders[i] != payer) i++;
    if (x->n == 1) {
        struct weights_shared **at = &p->first[x->id.b[0]];
        while (*at != x) at = &(*at)->next;
        *at = x->next;
        mem_free(payer, MEM_WEIGHTS, x->memory, x->bytes);
        free(x->holders);
        free(x);
    } else {
        if (i == 0) mem_move(payer, x->holders[1], MEM_WEIGHTS, x->bytes);
        memmove(&x->holders[i], &x->holders[i + 1], (x->n - i - 1) * sizeof *x->holders);
        x->n--;
    }
    pthread_mutex_unlock(&p->lock);
}

/* Tests with real models ($BRIM_DATA): each loads, specialises and rewrites, and the rewritten graph computes the
 * same with plain C. Prints what rewriting did, one line per file. SPDX-License-Identifier: Apache-2.0 */
#include "graph/testing.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Numbers are compared only where plain C is quick. */
static const int64_t MOST_FLOPS = 400 * 1000 * 1000;

static int64_t flops(const struct graph *g)
{
    int64_t sum = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        struct op_info in[KERNEL_MAX_IN], out[KERNEL_MAX_OUT] = {{0}};
        graph_node_infos(g, &g->nodes[i], in);
        for (int o = 0; o < g->nodes[i].op.n_out; o++) {
            if (g->nodes[i].op.out[o] < 0) continue;
            const struct graph_value *v = &g->values[g->nodes[i].op.out[o]];
            out[o] = (struct op_info){v->dtype, v->shape, NULL};
        }
        sum += op_flops(&g->nodes[i].op, in, out);
    }
    return sum;
}

static void one(const char *path, const char *shown)
{
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct graph *g = NULL, *s = NULL;
    if (graph_load(path, t.payer, &g)) fail_msg("%s", err_text());
    if (graph_specialise(g, NULL, t.payer, &s)) fail_msg("%s", err_text());
    size_t read = g->n_nodes, special = s->n_nodes, n = 0, m = 0;
    graph_free(&g);
    bool run = flops(s) < MOST_FLOPS;
    float *before = run ? testing_run(s, 1, &n) : NULL;
    if (graph_rewrite(s, GRAPH_REWRITE_ALL)) fail_msg("%s", err_text());
    float *after = run ? testing_run(s, 1, &m) : NULL;
    double d = run && before && after ? testing_distance(after, m, before, n) : run ? 1e9 : 0;
    print_message("# %s: %zu nodes read, %zu specialised, %zu rewritten; %s%.1e\n", shown, read, special, s->n_nodes,
                  run ? "distance " : "not run ", d);
    if (!(d < 1e-4)) fail_msg("%s: rewriting changed the result by %g", shown, d);
    free(before);
    free(after);
    graph_free(&s);
    testing_done(&t);
}

static int walk(const char *dir, size_t skip)
{
    int files = 0;
    struct dirent **list = NULL;
    int n = scandir(dir, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char *path = xasprintf("%s/%s", dir, list[i]->d_name);
        if (str_ends(path, ".onnx"))
            one(path, path + skip), files++;
        else if (list[i]->d_name[0] != '.')
            files += walk(path, skip);
        free(path);
        free(list[i]);
    }
    free(list);
    return files;
}

static void every_model(void **state)
{
    (void)state;
    const char *data = getenv("BRIM_DATA"), *source = getenv("BRIM_SOURCE");
    char *dir = data ? xasprintf("%s/models", data) : xasprintf("%s/../shared/data/models", source ? source : ".");
    int n_files = walk(dir, strlen(dir) + 1);
    free(dir);
    if (!n_files) {
        print_message("# skipped: no models under $BRIM_DATA\n");
        skip();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Whole searches on small networks and pictures made here (CIFAR's layout, a colour per class): what is shared is equal to the last bit, what is reported is
 * what the files give, an impossible target leaves the originals, a process killed at any moment leaves a whole folder and goes on, wrong input is refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_guard.h"
#include "methods/merge_report.h"
#include "methods/merge_search.h"
#include "methods/merge_testing.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>

enum { MEMBERS = 3 };

static struct task_card *card;

static int setup(void **state)
{
    static const char text[] = "card: 1\nhead: classify\ninput: {size: [32, 32], mean: 80, std: 100}\nlabels: [a, b, c, d, e, f, g, h, i, j]\n";
    (void)state;
    const char *tmp = getenv("TMPDIR");
    dir = xasprintf("%s/brim-merge-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir) || task_card_parse(text, sizeof text - 1, NULL, &card)) return -1;
    for (int k = 0; k < MEMBERS; k++) {
        write_data(k);
        train_net(k, 4);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char *command = xasprintf("rm -rf '%s'", dir);
    int r = system(command);
    free(command);
    free(dir);
    task_card_free(&card);
    return r;
}

struct asked {
    struct merge_search_options o;
    struct merge_source sources[MEMBERS];
    char *strings[2 * MEMBERS + 1], names[MEMBERS][8];
};

static struct asked *ask(const char *out)
{
    struct asked *a = xnew(struct asked);
    for (int k = 0; k < MEMBERS; k++) {
        char onnx[32], data[32];
        snprintf(a->names[k], sizeof a->names[k], "m%d", k);
        snprintf(onnx, sizeof onnx, "m%d.onnx", k);
        snprintf(data, sizeof data, "d%d.bin", k);
        a->strings[2 * k] = in_dir(onnx);
        a->strings[2 * k + 1] = in_dir(data);
        a->sources[k] = (struct merge_source){.name = a->names[k], .onnx = a->strings[2 * k], .data = a->strings[2 * k + 1], .card = card,
                                              .feed = {.mean = {80, 80, 80}, .scale = {0.01f, 0.01f, 0.01f}}};
    }
    a->strings[2 * MEMBERS] = in_dir(out);
    a->o = (struct merge_search_options){.sources = a->sources, .n = MEMBERS, .out = a->strings[2 * MEMBERS], .seconds = 1200, .target = 0.9, .batch = 8, .threads = 1, .lr = 0.02};
    return a;
}

static void asked_free(struct asked *a)
{
    for (size_t i = 0; i < ARRAY_LEN(a->strings); i++) free(a->strings[i]);
    free(a);
}

/* ---- looking at a folder */

struct looked {
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct graph *g[MEMBERS];
};

static struct looked look(const char *folder, const char *below)
{
    struct looked l = {.budget = mem_budget_new("look", UINT64_MAX)};
    l.payer = mem_payer_new(l.budget, "look");
    for (int k = 0; k < MEMBERS; k++) {
        char *path = xasprintf("%s/%sm%d.onnx", folder, below, k);
        if (graph_load(path, l.payer, &l.g[k])) fail_msg("%s", err_text());
        free(path);
    }
    return l;
}

static void looked_done(struct looked *l)
{
    for (int k = 0; k < MEMBERS; k++) graph_free(&l->g[k]);
    mem_payer_free(&l->payer);
    mem_budget_free(&l->budget);
}

static const struct graph_value *value(const struct graph *g, const char *name)
{
    for (size_t i = 0; i < g->n_values; i++)
        if (!strcmp(g->values[i].name, name)) return &g->values[i];
    fail_msg("no '%s'", name);
    return NULL;
}

static bool equal(const struct looked *l, int a, int b, const char *name)
{
    const struct graph_value *x = value(l->g[a], name), *y = value(l->g[b], name);
    return x->constant_bytes == y->constant_bytes && memcmp(x->constant, y->constant, x->constant_bytes) == 0;
}

static json_t *report(const char *folder)
{
    char *path = xasprintf("%s/merge.json", folder);
    json_error_t where;
    json_t *j = json_load_file(path, 0, &where);
    if (!j) fail_msg("%s: %s", path, where.text);
    free(path);
    return j;
}

/* The score of a file, measured apart from the search. */
static double score(const struct asked *a, int k, const struct graph *g)
{
    struct mem_budget *b = mem_budget_new("score", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "score");
    struct train_set *set;
    int64_t *train, *held, n_train, n_held;
    struct train_scores s;
    assert_int_equal(train_set_open(a->sources[k].data, &(struct train_set_options){0}, p, &set), ERR_OK);
    train_data_split(set, 0.2, a->o.seed, &train, &n_train, &held, &n_held);
    struct train_evaluate_options o = {.budget = b, .batch = 8, .threads = 1, .feed = a->sources[k].feed, .samples = held, .n_samples = n_held};
    assert_int_equal(train_evaluate_classify(g, set, &o, &s), ERR_OK);
    free(train);
    free(held);
    train_set_free(&set);
    mem_payer_free(&p);
    mem_budget_free(&b);
    return s.top1;
}

static void check_result(const struct asked *a, const struct merge_result *r)
{
    struct looked l = look(a->o.out, "");
    json_t *j = report(a->o.out), *members = json_object_get(j, "members");
    assert_int_equal(json_integer_value(json_object_get(j, "saved_bytes")), r->saved);
    for (int k = 0; k < MEMBERS; k++) {
        json_t *m = json_array_get(members, (size_t)k);
        double after = json_number_value(json_object_get(m, "after")), target = json_number_value(json_object_get(m, "target"));
        assert_true(after >= target);
        assert_float_equal(score(a, k, l.g[k]), after, 1e-9);
    }
    json_decref(j);
    looked_done(&l);
}

/* Model m1 says other classes than it did: as if the scene had changed under it. */
static void spoil(const char *folder)
{
    struct mem_budget *b = mem_budget_new("spoil", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "spoil");
    struct graph *g;
    char *path = xasprintf("%s/m1.onnx", folder);
    float bias[10] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 1000};
    assert_int_equal(graph_load(path, p, &g), ERR_OK);
    assert_int_equal(graph_set_constant(g, (int)(value(g, "fc.bias") - g->values), bias, 10), ERR_OK);
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    free(path);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

/* Of the best state, the least part of what it may lose that a member has left; and of what was first published with all that can be saved. */
struct slack {
    double first, now;
    int changes; /* since that */
};

static err watch(void *user, const struct merge_progress *p)
{
    struct slack *s = user;
    s->now = 1;
    for (int i = 0; i < MEMBERS; i++) s->now = fmin(s->now, (p->best_score[i] / p->target[i] - 1) / (1 / 0.9 - 1));
    if (!p->changed || p->saved < p->problem->most_bytes) return ERR_OK;
    if (!s->changes++) s->first = s->now;
    return ERR_OK;
}

/* ---- tests */

static void everything_is_shared(void **state)
{
    (void)state;
    struct asked *a = ask("all");
    struct merge_result r;
    struct slack slack = {0};
    if (merge_search(&a->o, watch, &slack, &r)) fail_msg("%s", err_text());
    assert_true(slack.first >= 0 && slack.now >= slack.first); /* the rest of the time made it firmer, or there was no need */
    assert_true(slack.changes == (slack.now > slack.first ? 2 : 1));
    uint64_t first = 8 * 3 * 4 * 4 * 4, second = 8 * 8 * 4, last = 8 * 10 * 4;
    assert_int_equal(r.most, 2 * (first + second + last));
    assert_int_equal(r.saved, r.most);
    assert_true(r.all_met);
    check_result(a, &r);
    struct looked l = look(a->o.out, ""), before = look(a->o.out, "models/");
    for (int k = 1; k < MEMBERS; k++) {
        assert_true(equal(&l, 0, k, "a.weight") && equal(&l, 0, k, "b.weight") && equal(&l, 0, k, "fc.weight"));
        assert_false(equal(&l, 0, k, "b.bias") || equal(&l, 0, k, "fc.bias"));
        assert_false(equal(&before, 0, k, "a.weight"));
    }
    looked_done(&l);
    looked_done(&before);
    asked_free(a);
}

static void group_after_group(void **state)
{
    (void)state;
    struct asked *a = ask("groups");
    struct merge_result r;
    a->o.policy = "groups";
    if (merge_search(&a->o, NULL, NULL, &r)) fail_msg("%s", err_text());
    assert_true(r.saved >= 2 * 8 * 3 * 4 * 4 * 4); /* the heaviest at least */
    assert_true(r.trials >= 2);
    check_result(a, &r);
    asked_free(a);
}

static err watch_saving(void *user, const struct merge_progress *p)
{
    uint64_t *saved = user;
    assert_true(p->saved >= *saved); /* the best state never gets worse */
    assert_int_equal(p->saved, merge_config_saved(p->best, p->problem));
    *saved = p->saved;
    return ERR_OK;
}

/* Nobody reaches 100 times its own score: the originals stay, to the last bit. */
static void a_target_out_of_reach_leaves_the_originals(void **state)
{
    (void)state;
    struct asked *a = ask("never");
    struct merge_result r;
    uint64_t saved = 0;
    a->o.target = 100;
    a->o.seconds = 1;
    assert_int_equal(merge_search(&a->o, watch_saving, &saved, &r), ERR_OK);
    assert_int_equal(r.saved, 0);
    struct looked l = look(a->o.out, ""), before = look(a->o.out, "models/");
    for (int k = 0; k < MEMBERS; k++)
        for (size_t i = 0; i < l.g[k]->n_values; i++) {
            const struct graph_value *v = &l.g[k]->values[i];
            if (v->constant) assert_memory_equal(v->constant, value(before.g[k], v->name)->constant, v->constant_bytes);
        }
    looked_done(&l);
    looked_done(&before);
    asked_free(a);
}

static void what_drifts_goes_back(void **state)
{
    (void)state;
    struct asked *a = ask("guarded");
    struct merge_result r;
    struct merge_guard_result *g;
    int n;
    assert_int_equal(merge_search(&a->o, NULL, NULL, &r), ERR_OK);
    struct merge_guard_options o = {.out = a->o.out, .sources = a->sources, .n = MEMBERS, .target = 0.9, .threads = 1};
    assert_int_equal(merge_guard(&o, &g, &n), ERR_OK);
    assert_int_equal(n, MEMBERS);
    for (int k = 0; k < MEMBERS; k++) assert_true(g[k].shares && !g[k].reverted && g[k].score >= 0.9);
    merge_guard_free(&g, n);
    spoil(a->o.out);
    assert_int_equal(merge_guard(&o, &g, &n), ERR_OK);
    assert_true(g[1].reverted && g[1].score < 0.9);
    assert_false(g[0].reverted || g[2].reverted);
    merge_guard_free(&g, n);
    struct looked l = look(a->o.out, ""), before = look(a->o.out, "models/");
    assert_true(equal(&l, 0, 2, "a.weight") && equal(&l, 0, 2, "fc.weight")); /* the others keep sharing */
    assert_memory_equal(value(l.g[1], "a.weight")->constant, value(before.g[1], "a.weight")->constant, value(l.g[1], "a.weight")->constant_bytes);
    looked_done(&l);
    looked_done(&before);
    json_t *j = report(a->o.out);
    assert_int_equal(json_integer_value(json_object_get(j, "saved_bytes")), r.saved / 2);
    assert_string_equal(json_string_value(json_array_get(json_object_get(j, "reverted"), 0)), "m1");
    json_decref(j);
    assert_int_equal(merge_guard(&o, &g, &n), ERR_OK); /* it shares nothing now, and is left alone */
    assert_false(g[1].shares || g[1].reverted);
    merge_guard_free(&g, n);
    a->o.resume = true; /* the search goes on from there, and merges it again */
    assert_int_equal(merge_search(&a->o, NULL, NULL, &r), ERR_OK);
    assert_true(r.all_met && r.saved > 2 * 8 * 3 * 4 * 4 * 4);
    check_result(a, &r);
    o.out = "/nowhere";
    assert_int_equal(merge_guard(&o, &g, &n), ERR_NOT_FOUND);
    asked_free(a);
}

static _Noreturn void child(struct asked *a)
{
    struct merge_result r;
    _exit(merge_search(&a->o, NULL, NULL, &r) ? 1 : 0);
}

/* Killed at growing times, gone on with each time: the folder is whole after each, and the search ends as if nothing had been. */
static void killed_at_any_moment_it_goes_on(void **state)
{
    (void)state;
    struct asked *a = ask("killed");
    struct merge_result r;
    a->o.policy = "groups"; /* more trials */
    a->o.seconds = 1200;
    int status = -1;
    for (int i = 0; i < 6 && status; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (!pid) child(a);
        usleep((useconds_t)(60000 << i));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        char *first = xasprintf("%s/merge.json", a->o.out);
        if (!access(first, F_OK)) { /* it had begun: everything is there */
            struct looked l = look(a->o.out, "");
            json_decref(report(a->o.out));
            looked_done(&l);
        }
        free(first);
        a->o.resume = true;
    }
    if (merge_search(&a->o, NULL, NULL, &r)) fail_msg("%s", err_text());
    assert_true(r.saved > 0);
    check_result(a, &r);
    asked_free(a);
}

/* --share-norm: the norms behind shared weights are one as well, and what is reported is what the files give. Only the last layer can be each member's own then. */
static void norms_are_shared_by_option(void **state)
{
    (void)state;
    static const char *const weights[] = {"a.weight", "b.weight"}, *const norms[][4] = {{"a.scale", "a.bias", "a.mean", "a.var"}, {"b.scale", "b.bias", "b.mean", "b.var"}};
    int shared = 0;
    struct asked *a = ask("norms");
    struct merge_result r;
    a->o.share_norm = true;
    a->o.policy = "groups"; /* ends by epochs */
    if (merge_search(&a->o, NULL, NULL, &r)) fail_msg("%s", err_text());
    assert_true(r.saved > 0 && r.saved < r.most);
    check_result(a, &r);
    struct looked l = look(a->o.out, ""), before = look(a->o.out, "models/");
    for (int k = 1; k < MEMBERS; k++)
        for (int w = 0; w < 2; w++) {
            bool one = equal(&l, 0, k, weights[w]);
            shared += one;
            for (int i = 0; i < 4; i++) assert_true(equal(&l, 0, k, norms[w][i]) == one && !equal(&before, 0, k, norms[w][i]));
        }
    assert_true(shared > 0);
    looked_done(&l);
    looked_done(&before);
    json_t *j = report(a->o.out);
    assert_true(json_is_true(json_object_get(j, "share_norm")));
    json_decref(j);
    asked_free(a);
}

/* What is told of chance: the most frequent class of what it is measured with. */
static void chance_is_the_most_frequent_class(void **state)
{
    (void)state;
    struct asked *a = ask("chance");
    struct mem_budget *b = mem_budget_new("look", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "look");
    struct train_set *set;
    struct merge_result r;
    int64_t *train, *held, n_train, n_held, of[10] = {0}, most = 0;
    assert_int_equal(train_set_open(a->sources[0].data, &(struct train_set_options){0}, p, &set), ERR_OK);
    train_data_split(set, 0.2, a->o.seed, &train, &n_train, &held, &n_held);
    for (int64_t i = 0; i < n_held; i++) of[train_set_label(set, held[i])]++;
    for (int k = 0; k < 10; k++) most = MAX(most, of[k]);
    a->o.seconds = 0.2;
    a->o.n = 2;
    if (merge_search(&a->o, NULL, NULL, &r)) fail_msg("%s", err_text());
    json_t *j = report(a->o.out), *m = json_array_get(json_object_get(j, "members"), 0);
    assert_float_equal(json_number_value(json_object_get(m, "chance")), (double)most / (double)n_held, 1e-12);
    assert_string_equal(json_string_value(json_object_get(m, "chance_is")), "always the most frequent class");
    assert_float_equal(json_number_value(json_object_get(j, "minutes")) * 60, json_number_value(json_object_get(j, "seconds")), 1e-9);
    assert_int_equal(json_integer_value(json_object_get(j, "bytes")), json_integer_value(json_object_get(j, "bytes_after")) + json_integer_value(json_object_get(j, "saved_bytes")));
    json_decref(j);
    free(train);
    free(held);
    train_set_free(&set);
    mem_payer_free(&p);
    mem_budget_free(&b);
    asked_free(a);
}

/* Pictures that are all alike measure nothing. */
static void one_class_measures_nothing(void **state)
{
    (void)state;
    struct asked *a = ask("alike");
    struct merge_result r;
    char *grey = in_dir("grey.bin");
    FILE *f = fopen(grey, "wbe");
    for (int i = 0; i < 40; i++) {
        fputc(i % 3, f);
        for (int c = 0; c < 3 * SIDE * SIDE; c++) fputc(90, f);
    }
    assert_int_equal(fclose(f), 0);
    a->sources[0].data = grey;
    a->sources[0].unlabelled = true;
    assert_int_equal(merge_search(&a->o, NULL, NULL, &r), ERR_USAGE);
    assert_non_null(strstr(err_text(), "model 'm0': it gives all 8 pictures to measure with the same class, so nothing can be measured: give it others (--data m0=PATH), or leave it out"));
    a->sources[0].unlabelled = false; /* with labels a third is right, which is what always saying one class gives */
    assert_int_equal(merge_search(&a->o, NULL, NULL, &r), ERR_USAGE);
    assert_non_null(strstr(err_text(), "no better than chance (always the most frequent class: "));
    free(grey);
    asked_free(a);
}

static err stop_soon(void *user, const struct merge_progress *p)
{
    (void)p;
    atomic_store((atomic_bool *)user, true);
    return ERR_OK;
}

static void wrong_input(void **state)
{
    (void)state;
    struct asked *a = ask("wrong");
    struct merge_result r;
    atomic_bool stop = false;
    a->o.n = 1;
    assert_int_equal(merge_search(&a->o, NULL, NULL, &r), ERR_USAGE);
    a->o.n = 2;
    a->o.policy = "luck";
    assert_int_equal(merge_search(&a->o, NULL, NULL, &r), ERR_USAGE);
    a->o.policy = NULL;
    a->sources[1].name = "m0";
    assert_int_equal(merge_search(&a->o, NULL, NULL, &r), ERR_USAGE);
    a->sources[1].name = "m1";
    const char *data = a->sources[0].data;
    a->sources[0].data = NULL;
    assert_int_equal(merge_search(&a->o, NULL, NULL, &r), ERR_USAGE);
    assert_non_null(strstr(err_text(), "--data m0=PATH"));
    a->sources[0].data = "/nowhere";
    assert_int_equal(merge_search(&a->o, NULL, NULL, &r), ERR_NOT_FOUND);
    a->sources[0].data = data;
    char *other = in_dir("other.onnx");
    write_net(other, 9, 8, 4);
    struct merge_source was = a->sources[1];
    a->sources[1].onnx = other;
    char *models = xasprintf("%s/models/m1.onnx", a->o.out);
    a->o.stop = &stop;
    a->o.target = 100;
    a->o.seconds = 1200;
    atomic_store(&stop, true);
    assert_int_equal(merge_search(&a->o, NULL, NULL, &r), ERR_CANCELLED); /* while the members are looked at */
    assert_true(r.stopped);
    assert_int_equal(r.n, 0);
    atomic_store(&stop, false);
    assert_int_equal(merge_search(&a->o, stop_soon, &stop, &r), ERR_CANCELLED); /* the 1x1 is in common */
    assert_true(r.stopped);
    unlink(models);
    a->sources[1] = was;
    a->o.budget = 100 << 10;
    atomic_store(&stop, false);
    assert_int_equal(merge_search(&a->o, NULL, NULL, &r), ERR_NOMEM);
    free(models);
    free(other);
    asked_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_shared),
        cmocka_unit_test(group_after_group),
        cmocka_unit_test(a_target_out_of_reach_leaves_the_originals),
        cmocka_unit_test(what_drifts_goes_back),
        cmocka_unit_test(killed_at_any_moment_it_goes_on),
        cmocka_unit_test(norms_are_shared_by_option),
        cmocka_unit_test(chance_is_the_most_frequent_class),
        cmocka_unit_test(one_class_measures_nothing),
        cmocka_unit_test(wrong_input),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

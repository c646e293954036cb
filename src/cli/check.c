/* `brim check SITE [--json]`: the site file, then its models' files and cards. Opens no network and no camera.
 *
 * People get one line per problem on stderr, in the form that editors jump to (file:line:column: ...); machines get
 * one JSON object on stdout. SPDX-License-Identifier: Apache-2.0 */
#include "cli/check.h"
#include "base/yaml.h"
#include "cli/args.h"
#include "cli/merge.h"
#include "cli/train.h"
#include "engine/job.h"
#include "engine/site_check.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_json(const char *path, const struct site *s, const struct site_problems *p)
{
    json_t *list = json_array(), *o = json_object();
    for (size_t i = 0; i < p->count; i++) {
        json_t *text = json_string(p->items[i]); /* NULL if it is not UTF-8 */
        json_array_append_new(list, text ? text : json_string("a sentence that is not UTF-8"));
    }
    json_t *name = json_string(path);
    json_object_set_new(o, "site", name ? name : json_null());
    json_object_set_new(o, "ok", json_boolean(!p->count));
    if (s) {
        json_object_set_new(o, "cameras", json_integer((json_int_t)s->camera_count));
        json_object_set_new(o, "models", json_integer((json_int_t)s->model_count));
        json_object_set_new(o, "queries", json_integer((json_int_t)s->query_count));
    }
    json_object_set_new(o, "problems", list);
    json_dumpf(o, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(o);
}

static void print_text(const char *path, const struct site *s, const struct site_problems *p)
{
    for (size_t i = 0; i < p->count; i++) fprintf(stderr, "%s\n", p->items[i]);
    if (p->count)
        fprintf(stderr, "brim check: %zu problem%s\n", p->count, p->count == 1 ? "" : "s");
    else
        printf("%s: right; %zu cameras, %zu models, %zu queries\n", path, s->camera_count, s->model_count,
               s->query_count);
}

/* Whether a job of that folder was begun before is the box's business. */
static err as_it_is(void *user, struct train_job_options *job)
{
    (void)user, (void)job;
    return ERR_OK;
}

static err merge_as_it_is(void *user, struct merge_run_options *o, const struct args_list *paths)
{
    (void)user, (void)o, (void)paths;
    return ERR_OK;
}

/* The words of the site's jobs, as the box would read them. */
static void check_jobs(const struct site *s, struct site_problems *p)
{
    for (size_t i = 0; i < s->job_count; i++) {
        const struct site_job *j = &s->jobs[i];
        err e;
        if (!strcmp(j->kind, cli_train_kind.name)) e = cli_train_words(s->folder, j->words, (int)j->word_count, as_it_is, NULL);
        else if (!strcmp(j->kind, cli_merge_kind.name)) e = cli_merge_words(s->folder, j->words, (int)j->word_count, merge_as_it_is, NULL);
        else e = err_set(ERR_USAGE, "'%s' is no kind of job; there are %s and %s", j->kind, cli_train_kind.name, cli_merge_kind.name);
        if (!e) continue;
        char *why = xstrdup(err_text());
        (void)yaml_err_key(j->at, ERR_FORMAT, "%s", why);
        vec_grow(&p->items, &p->cap, p->count);
        p->items[p->count++] = xstrdup(err_text());
        free(why);
    }
}

static int check(const char *path, bool json)
{
    struct site *s = NULL;
    struct site_problems p = {0};
    if (!site_load_all(path, NULL, 0, &p, &s)) {
        (void)site_check_models(s, &p);
        check_jobs(s, &p);
    }
    if (json)
        print_json(path, s, &p);
    else
        print_text(path, s, &p);
    int status = p.count ? 2 : 0;
    site_free(&s);
    site_problems_done(&p);
    return status;
}

int cli_check(int argc, char **argv)
{
    bool json = false, help = false;
    const struct args_option table[] = {{"json", ARGS_FLAG, &json, "one JSON object on stdout"}, {0}};
    struct args_list rest = {0};
    err e = args_parse(argc, argv, table, &rest, &help);
    int status = 0;
    if (!e && !help && rest.n != 1)
        e = err_set(ERR_USAGE, "give one site file: brim check SITE; docs/site.md says what is in it");
    if (help)
        args_help("check SITE [--json]", table);
    else
        status = e ? args_fail("check", e) : check(rest.items[0], json);
    free(rest.items);
    return status;
}

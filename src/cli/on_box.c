/* What a running box does beside its cameras: `brim train|merge ... --on-box` hands it the words of the command and the folder that they were said in, `brim job`
 * shows and steers what it has. SPDX-License-Identifier: Apache-2.0 */
#include "cli/on_box.h"
#include "cli/args.h"
#include "cli/box.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- brim train|merge ... --on-box */

bool cli_wants_box(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--on-box")) return true;
    return false;
}

/* Takes "--NAME VALUE" or "--NAME=VALUE" out of the words. */
static err take(const char *name, const char **ret, const char **words, int *n)
{
    size_t len = strlen(name);
    for (int i = 0; i < *n; i++) {
        if (strncmp(words[i], "--", 2) || strncmp(words[i] + 2, name, len)) continue;
        int gone = words[i][2 + len] == '=' ? 1 : words[i][2 + len] ? 0 : 2;
        if (!gone) continue;
        if (i + gone > *n) return err_set(ERR_USAGE, "--%s needs a value", name);
        *ret = gone == 1 ? words[i] + 3 + len : words[i + 1];
        memmove(words + i, words + i + gone, (size_t)(*n - i - gone) * sizeof *words);
        *n -= gone;
        return ERR_OK;
    }
    return ERR_OK;
}

static const json_t *job_in(const json_t *list, const char *name)
{
    size_t i;
    json_t *j;
    json_array_foreach(list, i, j)
        if (!strcmp(json_string_value(json_object_get(j, "name")), name)) return j;
    return NULL;
}

static const char *text_of(const json_t *job, const char *key)
{
    const char *s = json_string_value(json_object_get(job, key));
    return s ? s : "";
}

/* Until the box has taken the job up or refused it: what is wrong with data, network or memory shows within seconds. */
static err follow(const char *store, const char *name)
{
    for (int tries = 0; tries < 240; tries++) {
        json_t *list = NULL;
        err e = cli_box_ask(store, json_pack("{s:s}", "do", "jobs"), &list);
        if (e) return e;
        const json_t *j = job_in(list, name);
        const char *state = text_of(j, "state");
        bool over = !j || (strcmp(state, "running") && strcmp(state, "waiting")) || json_real_value(json_object_get(j, "done")) > 0;
        if (over && !strcmp(state, "failed")) e = err_set(ERR_NOMEM, "%s", text_of(j, "why"));
        if (over && !e) printf("job '%s' is %s%s%s; 'brim job' shows it\n", name, state, *text_of(j, "why") ? ": " : "", text_of(j, "why"));
        json_decref(list);
        if (over) return e;
        nanosleep(&(struct timespec){.tv_nsec = 250000000}, NULL);
    }
    printf("job '%s' is being prepared; 'brim job' shows it\n", name);
    return ERR_OK;
}

static err ask_for_job(const char *store, const char *kind, const char *name, const char *publish, const char **words, int n)
{
    char *folder = realpath(".", NULL);
    json_t *list = json_array(), *answer = NULL;
    bool text = folder != NULL;
    for (int i = 0; i < n; i++) text = !json_array_append_new(list, json_string(words[i])) && text;
    json_t *request = json_pack("{s:s, s:s, s:o, s:s}", "do", "job-add", "kind", kind, "words", list, "folder", text ? folder : "");
    if (name && request) json_object_set_new(request, "name", json_string(name));
    if (publish && request) json_object_set_new(request, "publish", json_string(publish));
    err e = text && request ? ERR_OK : err_set(ERR_USAGE, "a word or the name of this folder is no UTF-8");
    if (e) json_decref(request);
    else e = cli_box_ask(store, request, &answer);
    if (!e) e = follow(store, text_of(answer, "name"));
    json_decref(answer);
    free(folder);
    return e;
}

/* The store that the site of a merge names, so that its box is found. NULL: none of the words is a site. */
static char *store_of_site(const char *const *words, int n)
{
    char *store = NULL;
    for (int i = 0; i < n && !store; i++) {
        struct site *site;
        if (!str_ends(words[i], ".yaml") && !str_ends(words[i], ".yml")) continue;
        if (site_load(words[i], &site)) continue;
        if (site->store) store = xstrdup(site->store);
        site_free(&site);
    }
    return store;
}

int cli_on_box(const char *kind, int argc, char **argv)
{
    const char **words = xnewn(const char *, argc), *name = NULL, *publish = NULL, *store = NULL;
    int n = 0;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--on-box")) words[n++] = argv[i];
    bool train = !strcmp(kind, "train");
    err e = take("name", &name, words, &n);
    if (!e && train) e = take("publish", &publish, words, &n);
    if (!e) e = take("store", &store, words, &n);
    char *found = store || train ? NULL : store_of_site(words, n);
    if (!e) e = ask_for_job(store ? store : found, kind, name, publish, words, n);
    free(found);
    free(words);
    return e ? args_fail(kind, e) : 0;
}

/* ---- brim job */

static void print_jobs(const json_t *list)
{
    size_t i;
    json_t *j, *v;
    const char *key;
    if (!json_array_size(list)) puts("no jobs; 'brim train ... --on-box' or 'brim merge ... --on-box' starts one");
    json_array_foreach(list, i, j) {
        int eta = (int)json_real_value(json_object_get(j, "eta_s"));
        char a[16], b[16];
        printf("%-16s %-8s %5.1f %%", text_of(j, "name"), text_of(j, "state"), 100 * json_number_value(json_object_get(j, "done")));
        if (!strcmp(text_of(j, "state"), "running") && eta >= 0) printf("  ETA %d:%02d:%02d", eta / 3600, eta / 60 % 60, eta % 60);
        uint64_t bytes = (uint64_t)json_integer_value(json_object_get(j, "bytes")), need = (uint64_t)json_integer_value(json_object_get(j, "need_bytes"));
        printf("  %s of %s", size_text(bytes, a), size_text(MAX(bytes, need), b));
        json_object_foreach(json_object_get(j, "numbers"), key, v) printf("  %s %.4g", key, json_number_value(v));
        if (*text_of(j, "publish")) printf("  for model %s", text_of(j, "publish"));
        printf("%s%s\n", *text_of(j, "why") ? "\n    " : "", text_of(j, "why"));
    }
}

static err job_request(const struct args_list *rest, json_t **ret)
{
    static const struct {
        const char *word, *verb;
    } verbs[] = {{"stop", "job-stop"}, {"start", "job-start"}, {"remove", "job-remove"}};
    if (rest->n == 0 || (rest->n == 1 && !strcmp(rest->items[0], "list"))) {
        *ret = json_pack("{s:s}", "do", "jobs");
        return ERR_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(rest->items[0], verbs[i].word)) continue;
        if (rest->n != 2) return err_set(ERR_USAGE, "usage: brim job %s NAME", verbs[i].word);
        *ret = json_pack("{s:s, s:s}", "do", verbs[i].verb, "name", rest->items[1]);
        return *ret ? ERR_OK : err_set(ERR_USAGE, "'%s' is no UTF-8", rest->items[1]);
    }
    return err_set(ERR_USAGE, "'%s' is none of list, stop, start, remove", rest->items[0]);
}

int cli_job(int argc, char **argv)
{
    const char *store = NULL;
    bool json = false, help = false;
    struct args_list rest = {0};
    json_t *request = NULL, *answer = NULL;
    const struct args_option table[] = {{"store", ARGS_STRING, &store, "of the box (default: $BRIM_STORE, else the usual place)"},
                                        {"json", ARGS_FLAG, &json, "the list as JSON"},
                                        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &rest, &help);
    if (help) args_help("job [list | stop NAME | start NAME | remove NAME] [options]", table);
    if (!e && !help) e = job_request(&rest, &request);
    if (!e && !help) e = cli_box_ask(store, request, &answer);
    if (!e && !help && json_is_array(answer) && !json) print_jobs(answer);
    else if (!e && !help && json) {
        json_dumpf(answer, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY);
        putchar('\n');
    }
    json_decref(answer);
    free(rest.items);
    return e ? args_fail("job", e) : 0;
}

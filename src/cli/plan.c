/* `brim plan SITE`: what engine_plan_site found, as a table for people or one JSON object for machines.
 *
 * Latencies are of runs whose picture is there: converting a frame and reading heads is not in them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan.h"
#include "cli/args.h"
#include "engine/plan.h"
#include "serve/serve.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static const char *size_of(const json_t *o, const char *key, char *s)
{
    return size_text((uint64_t)json_integer_value(json_object_get(o, key)), s);
}

static const char *ms_of(const json_t *o, const char *key, char *s)
{
    const json_t *x = json_object_get(o, key);
    if (json_is_number(x))
        snprintf(s, 16, "%.1f", json_number_value(x));
    else
        snprintf(s, 16, "-");
    return s;
}

static void print_queries(const json_t *list)
{
    size_t i;
    json_t *q;
    char s[4][16];
    printf("\n%-20s %-12s %-16s %6s %9s %9s %9s %9s\n", "query", "camera", "model", "fps", "deadline", "in memory",
           "expected", "behind 1");
    json_array_foreach(list, i, q)
    {
        const char *model = json_string_value(json_object_get(q, "model")),
                   *problem = json_string_value(json_object_get(q, "problem"));
        printf("%-20s %-12s %-16s %6.1f %9s %9s %9s %9s  %s\n", json_string_value(json_object_get(q, "query")),
               json_string_value(json_object_get(q, "camera")), model ? model : "motion",
               json_number_value(json_object_get(q, "fps")), ms_of(q, "deadline_ms", s[0]),
               ms_of(q, "compute_ms", s[1]), ms_of(q, "latency_ms", s[2]), ms_of(q, "behind_ms", s[3]),
               problem                                       ? problem
               : json_is_true(json_object_get(q, "in_time")) ? ""
                                                             : "late");
    }
    printf("milliseconds; expected: a run alone; behind 1: if it waits for the longest other run first\n");
}

static void print_text(const char *path, const json_t *r)
{
    const json_t *at = json_object_get(r, "at_budget"), *disk = json_object_get(r, "disk_bytes_per_s"),
                 *enough = json_object_get(r, "deadline_bytes");
    bool fits = json_is_true(json_object_get(r, "fits")), in_time = json_is_true(json_object_get(r, "in_time"));
    size_t i;
    json_t *line;
    char s[4][16];
    printf("%s: in %s it %s\n", path, size_of(r, "budget_bytes", s[0]),
           !fits     ? "does not fit"
           : in_time ? "fits, and everything is in time"
                     : "fits, but not everything is in time");
    bool shared = json_integer_value(json_object_get(r, "shared_bytes")) > 0;
    printf("sure to do                    %10s  (%s beside weights; all weights are %s%s%s)\n",
           size_of(r, "least_bytes", s[0]), size_of(r, "beside_weights_bytes", s[1]),
           size_of(r, "weights_bytes", s[2]), shared ? ", less what models share: " : "", shared ? size_of(r, "shared_bytes", s[3]) : "");
    printf("sure to do, in time           %10s\n",
           json_is_integer(enough) ? size_of(r, "deadline_bytes", s[0]) : "none");
    if (json_is_number(disk))
        printf("disk                          %10s a second, %s\n",
               size_text((uint64_t)json_number_value(disk), s[0]),
               json_is_true(json_object_get(r, "disk_given")) ? "given" : "measured");
    if (json_is_object(at))
        printf("in the budget                 %10s of weights stay, a window of %s; processor %.0f %%, disk %.0f %% "
               "in use\n",
               size_of(at, "kept_bytes", s[0]), size_of(at, "window_bytes", s[1]),
               100 * json_number_value(json_object_get(at, "executor_share")),
               100 * json_number_value(json_object_get(at, "disk_share")));
    print_queries(json_object_get(r, "queries"));
    json_array_foreach(json_object_get(r, "assumed"), i, line) printf("assumed: %s\n", json_string_value(line));
}

static int plan(const char *path, struct engine_plan_options *o, bool json)
{
    struct site *site = NULL;
    json_t *r = NULL;
    err e = site_load(path, &site);
    if (e) return args_fail("plan", e), 2;
    o->outputs = serve_bytes(site);
    e = engine_plan_site(site, o, &r);
    if (!e && json) {
        json_dumpf(r, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
        putchar('\n');
    } else if (!e) {
        print_text(path, r);
    }
    int status = e ? args_fail("plan", e) : json_is_true(json_object_get(r, "in_time")) ? 0 : 1;
    json_decref(r);
    site_free(&site);
    return status;
}

int cli_plan(int argc, char **argv)
{
    uint64_t budget = 0, disk = UINT64_MAX;
    bool json = false, help = false;
    const struct args_option table[] = {
        {"budget", ARGS_SIZE, &budget, "instead of the site's"},
        {"disk", ARGS_SIZE, &disk, "bytes a second (default: measured on the packed weights)"},
        {"json", ARGS_FLAG, &json, "one JSON object on stdout"},
        {0}};
    struct args_list rest = {0};
    err e = args_parse(argc, argv, table, &rest, &help);
    int status = 0;
    if (!e && !help && rest.n != 1)
        e = err_set(ERR_USAGE, "give one site file: brim plan SITE; docs/site.md says what is in it");
    if (!e && !help && disk == 0)
        e = err_set(ERR_USAGE, "--disk 0: a disk that gives nothing; give bytes a second, such as --disk 300M");
    struct engine_plan_options o = {.budget = budget, .bandwidth = disk == UINT64_MAX ? 0 : (double)disk};
    if (help)
        args_help("plan SITE [--budget SIZE] [--disk SIZE] [--json]", table);
    else
        status = e ? args_fail("plan", e) : plan(rest.items[0], &o, json);
    free(rest.items);
    return status;
}

/* `brim mem`, `brim why CAMERA`, `brim budget BYTES`: questions to the box that owns the store, over its control socket.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/control.h"
#include "cli/args.h"
#include "cli/box.h"
#include "cli/serve_cmd.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

err cli_box_ask(const char *store, json_t *request, json_t **ret)
{
    char *folder = store ? xstrdup(store) : engine_store_path(NULL), *path = xasprintf("%s/control", folder);
    err e = control_call(path, request, 5000, ret);
    if (e == ERR_NOT_FOUND && !*err_text()) e = err_set(e, "no box runs on the store %s", folder);
    json_decref(request);
    free(path);
    free(folder);
    return e;
}

static double megabytes(const json_t *object)
{
    double sum = 0;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)object, key, v) sum += (double)json_integer_value(v);
    return sum / (1 << 20);
}

static void print_mem(const json_t *m)
{
    size_t i;
    json_t *p, *v;
    const char *key;
    printf("%-40s %10s %10s  %s\n", "payer", "now MiB", "peak MiB", "for");
    json_array_foreach(json_object_get(m, "payers"), i, p) {
        const json_t *used = json_object_get(p, "used");
        printf("%-40s %10.2f %10.2f  ", json_string_value(json_object_get(p, "payer")), megabytes(used), megabytes(json_object_get(p, "peak")));
        json_object_foreach((json_t *)(uintptr_t)used, key, v) printf("%s %.2f ", key, (double)json_integer_value(v) / (1 << 20));
        putchar('\n');
    }
    json_int_t shared = json_integer_value(json_object_get(m, "shared_bytes"));
    if (shared) printf("%.2f MiB of weights serve several models: without sharing they would be there once more for each\n", (double)shared / (1 << 20));
    const json_t *rss = json_object_get(m, "rss");
    printf("used %.1f of %.1f MiB, peak %.1f; the kernel says %.1f private, %.1f in all\n",
           (double)json_integer_value(json_object_get(m, "used_bytes")) / (1 << 20), (double)json_integer_value(json_object_get(m, "limit_bytes")) / (1 << 20),
           (double)json_integer_value(json_object_get(m, "peak_bytes")) / (1 << 20), (double)json_integer_value(json_object_get(rss, "anon")) / (1 << 20),
           (double)json_integer_value(json_object_get(rss, "total")) / (1 << 20));
}

static void print_why(const json_t *w)
{
    size_t i;
    json_t *d;
    const char *error = json_string_value(json_object_get(w, "error"));
    printf("%s: %s%s%s\n", json_string_value(json_object_get(w, "camera")), json_string_value(json_object_get(w, "state")), *error ? ": " : "", error);
    json_array_foreach(json_object_get(w, "queries"), i, d) {
        const char *problem = json_string_value(json_object_get(d, "problem"));
        printf("  %s: offered %lld, ran %lld, late %lld, still %lld%s%s\n", json_string_value(json_object_get(d, "query")),
               json_integer_value(json_object_get(d, "offered")), json_integer_value(json_object_get(d, "ran")),
               json_integer_value(json_object_get(d, "late")), json_integer_value(json_object_get(d, "saved_by_motion")), *problem ? ": " : "", problem);
        const char *reason;
        json_t *count;
        json_object_foreach(json_object_get(d, "dropped"), reason, count) printf("    dropped %lld: %s\n", json_integer_value(count), reason);
    }
    json_array_foreach(json_object_get(w, "decisions"), i, d) {
        if (i == 20) break;
        printf("  %6.2f s ago  frame %-8lld %-28s %s (waited %.1f ms%s)\n", json_real_value(json_object_get(d, "time_ago_s")),
               json_integer_value(json_object_get(d, "frame")), json_string_value(json_object_get(d, "query")),
               json_string_value(json_object_get(d, "reason")), json_real_value(json_object_get(d, "wait_ms")),
               json_is_true(json_object_get(d, "loaded")) ? ", weights were read first" : "");
    }
}

/* One verb with the options that all of them have. */
static int verb(int argc, char **argv, const char *name, const char *usage, size_t words, json_t *(*request)(const char *word),
                void (*print)(const json_t *))
{
    const char *store = NULL;
    bool json = false, help = false;
    struct args_list rest = {0};
    json_t *answer = NULL;
    const struct args_option table[] = {{"store", ARGS_STRING, &store, "of the box (default: $BRIM_STORE, else the usual place)"},
                                        {"json", ARGS_FLAG, &json, "one JSON object"},
                                        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && !help && rest.n != words) e = err_set(ERR_USAGE, "usage: brim %s", usage);
    if (help) args_help(usage, table);
    if (!e && !help) {
        json_t *r = request(words ? rest.items[0] : NULL);
        e = r ? cli_box_ask(store, r, &answer) : ERR_USAGE;
    }
    if (!e && !help) {
        if (json || !print) {
            json_dumpf(answer, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY);
            putchar('\n');
        } else {
            print(answer);
        }
    }
    json_decref(answer);
    free(rest.items);
    return e ? args_fail(name, e) : 0;
}

static json_t *mem_request(const char *word)
{
    (void)word;
    return json_pack("{s:s}", "do", "mem");
}

static json_t *why_request(const char *camera)
{
    return json_pack("{s:s, s:s}", "do", "why", "camera", camera);
}

static json_t *budget_request(const char *size)
{
    uint64_t bytes;
    if (size_parse(size, &bytes) && bytes) return json_pack("{s:s, s:I}", "do", "budget", "bytes", (json_int_t)bytes);
    err_set(ERR_USAGE, "expected a size such as 300M, found '%s'", size);
    return NULL;
}

int cli_mem(int argc, char **argv)
{
    return verb(argc, argv, "mem", "mem [options]", 0, mem_request, print_mem);
}

int cli_why(int argc, char **argv)
{
    return verb(argc, argv, "why", "why CAMERA [options]", 1, why_request, print_why);
}

int cli_budget(int argc, char **argv)
{
    return verb(argc, argv, "budget", "budget BYTES [options]", 1, budget_request, NULL);
}

/* Options from a table. Invariant: nothing is written through `to` for an option that was not given.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int distance(const char *a, const char *b)
{
    int row[64], n = (int)strlen(b);
    if (strlen(a) > 60 || n > 60) return 99;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int above = row[j];
            row[j] = MIN(MIN(row[j], row[j - 1]) + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[n];
}

static err unknown(const char *name, const struct args_option *table)
{
    const char *nearest = NULL;
    int best = 4;
    for (; table->name; table++)
        if (distance(name, table->name) < best) best = distance(name, table->name), nearest = table->name;
    if (nearest) return err_set(ERR_USAGE, "there is no option --%s; did you mean --%s?", name, nearest);
    return err_set(ERR_USAGE, "there is no option --%s; --help lists them", name);
}

static err put(const struct args_option *o, const char *value)
{
    char *end;
    errno = 0;
    switch (o->kind) {
    case ARGS_FLAG: *(bool *)o->to = true; return ERR_OK;
    case ARGS_STRING: *(const char **)o->to = value; return ERR_OK;
    case ARGS_STRINGS: {
        struct args_list *l = o->to;
        vec_grow(&l->items, &l->cap, l->n);
        l->items[l->n++] = value;
        return ERR_OK;
    }
    case ARGS_INT: {
        long long v = strtoll(value, &end, 10);
        if (!*value || *end || errno) return err_set(ERR_USAGE, "--%s: expected a whole number, found '%s'", o->name, value);
        *(int64_t *)o->to = v;
        return ERR_OK;
    }
    case ARGS_FLOAT: {
        double v = strtod(value, &end);
        if (!*value || *end || !isfinite(v)) return err_set(ERR_USAGE, "--%s: expected a number, found '%s'", o->name, value);
        *(double *)o->to = v;
        return ERR_OK;
    }
    case ARGS_SIZE:
        if (!size_parse(value, o->to)) return err_set(ERR_USAGE, "--%s: expected a size such as 300M or 2G, found '%s'", o->name, value);
        return ERR_OK;
    }
    return ERR_INTERNAL;
}

err args_parse(int argc, char **argv, const struct args_option *table, struct args_list *rest, bool *ret_help)
{
    bool options = true;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!options || a[0] != '-' || !a[1]) {
            vec_grow(&rest->items, &rest->cap, rest->n);
            rest->items[rest->n++] = a;
            continue;
        }
        if (strcmp(a, "--") == 0) {
            options = false;
            continue;
        }
        if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0) {
            *ret_help = true;
            return ERR_OK;
        }
        if (strcmp(a, "-o") == 0) a = "--output";
        if (a[1] != '-') return err_set(ERR_USAGE, "options begin with two dashes; found '%s'", a);
        const char *equals = strchr(a, '=');
        char *name = xstrndup(a + 2, equals ? (size_t)(equals - a - 2) : strlen(a + 2));
        const struct args_option *o = table;
        while (o->name && strcmp(o->name, name) != 0) o++;
        err e = ERR_OK;
        const char *value = equals ? equals + 1 : NULL;
        if (!o->name)
            e = unknown(name, table);
        else if (o->kind == ARGS_FLAG && value)
            e = err_set(ERR_USAGE, "--%s takes no value", name);
        else if (o->kind != ARGS_FLAG && !value && i + 1 >= argc)
            e = err_set(ERR_USAGE, "--%s needs a value", name);
        else
            e = put(o, o->kind == ARGS_FLAG ? "" : value ? value : argv[++i]);
        free(name);
        if (e) return e;
    }
    return ERR_OK;
}

void args_help(const char *usage, const struct args_option *table)
{
    static const char *const takes[] = {"", "", " TEXT", " TEXT (may be repeated)", " N", " NUMBER", " SIZE"};
    printf("usage: brim %s\n", usage);
    for (; table->name; table++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s", table->name, takes[table->kind]);
        printf("  %-26s %s\n", left, table->help);
    }
}

int args_fail(const char *command, err e)
{
    fprintf(stderr, "brim %s: %s\n", command, *err_text() ? err_text() : err_name(e));
    return err_exit_status(e);
}

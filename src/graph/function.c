/* Functions that an ONNX file brings along (FunctionProto): each call is replaced by the function's nodes while the file is read.
 *
 * The body is read into the caller's graph, once per call, with a scope of its own: the function's inputs name the caller's
 * values, its outputs name what the call makes, all else gets a name of its own. Nodes of the body use the opsets that the function
 * imports. An attribute of the body may refer to one of the call; what the call leaves out has the function's default, or is
 * absent.
 *
 * Bounded: calls in calls by GRAPH_MAX_CALLS, and a function that calls itself is refused; nodes and values count as all others do, so
 * a file cannot buy more of them by calling. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "graph/onnx.h"

enum { /* field numbers */
    F_NAME = 1, F_INPUT = 4, F_OUTPUT = 5, F_NODE = 7, F_OPSET = 9, F_DOMAIN = 10, F_DEFAULT = 11, F_OVERLOAD = 13,
    N_IN = 1, N_OUT = 2, N_ATTR = 5, A_NAME = 1,
};

struct graph_function {
    char *domain, *name, *overload;
    struct graph_wire body;
    bool active;
};
struct graph_call {
    struct graph_function *function;
    struct graph_wire node;    /* the call */
    struct graph_scope *scope; /* of the call */
    struct graph_call *outer;
    int n_domains;             /* the caller's, while the body is read */
    struct graph_domain domains[GRAPH_MAX_DOMAINS];
    struct graph_scope inner;
    struct graph_names outputs; /* the function's outputs that the caller wants: name -> its value */
    size_t n_strings, cap_strings;
    char **strings;            /* what the tables point to */
    size_t number;
    const char *label;
};

/* ---- the list */

struct graph_function *graph_function_find(const struct graph_reader *r, const char *domain, const char *name,
                                           const char *overload)
{
    if (strcmp(domain, "ai.onnx") == 0) domain = "";
    for (size_t i = 0; i < r->n_functions; i++) {
        struct graph_function *f = &r->functions[i];
        if (strcmp(f->name, name) == 0 && strcmp(f->domain, domain) == 0 &&
            strcmp(f->overload, overload ? overload : "") == 0)
            return f;
    }
    return NULL;
}

static err set_name(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *f, char **to)
{
    char *name = NULL;
    err e = graph_read_name(r, w, f, &name);
    if (e) return e;
    free(*to);
    *to = name;
    return ERR_OK;
}

static void function_done(struct graph_function *fn)
{
    free(fn->domain);
    free(fn->name);
    free(fn->overload);
}

err graph_function_add(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *field)
{
    struct graph_function fn = {.domain = xstrdup(""), .name = xstrdup(""), .overload = xstrdup("")};
    struct graph_field f;
    int more = 0;
    err e = graph_wire_sub(w, field, &fn.body);
    if (!e && r->n_functions >= GRAPH_MAX_FUNCTIONS)
        e = graph_wire_fail(w, ERR_LIMIT, field->start, "more than %d functions", GRAPH_MAX_FUNCTIONS);
    if (!e) e = graph_book(r, sizeof fn * 2);
    struct graph_wire body = fn.body;
    while (!e && (more = graph_wire_next(&body, &f)) > 0) {
        char **to = f.number == F_NAME       ? &fn.name
                    : f.number == F_DOMAIN   ? &fn.domain
                    : f.number == F_OVERLOAD ? &fn.overload
                                             : NULL;
        if (to) e = set_name(r, &body, &f, to);
    }
    if (!e) e = MIN(more, 0);
    if (!e && strcmp(fn.domain, "ai.onnx") == 0) fn.domain[0] = '\0';
    if (!e && !*fn.name) e = graph_wire_fail(w, ERR_FORMAT, field->start, "a function without a name");
    if (!e && graph_function_find(r, fn.domain, fn.name, fn.overload))
        e = graph_wire_fail(w, ERR_FORMAT, field->start, "two functions have the name '%s'", fn.name);
    if (e) {
        function_done(&fn);
        return e;
    }
    vec_grow(&r->functions, &r->cap_functions, r->n_functions);
    r->functions[r->n_functions++] = fn;
    return ERR_OK;
}

void graph_functions_done(struct graph_reader *r)
{
    for (size_t i = 0; i < r->n_functions; i++) function_done(&r->functions[i]);
    free(r->functions);
}

/* ---- a call */

static void swap_domains(struct graph_reader *r, struct graph_call *c)
{
    struct graph_domain keep[GRAPH_MAX_DOMAINS];
    int n = r->n_domains;
    memcpy(keep, r->domains, sizeof keep);
    memcpy(r->domains, c->domains, sizeof keep);
    memcpy(c->domains, keep, sizeof keep);
    r->n_domains = c->n_domains;
    c->n_domains = n;
}

static char *keep_string(struct graph_call *c, char *s)
{
    vec_grow(&c->strings, &c->cap_strings, c->n_strings);
    return c->strings[c->n_strings++] = s;
}

/* The next field of this number. */
static int next_of(struct graph_wire *w, uint32_t number, struct graph_field *ret)
{
    int more;
    while ((more = graph_wire_next(w, ret)) > 0)
        if (ret->number == number) return 1;
    return more;
}

static err bind_inputs(struct graph_reader *r, struct graph_call *c)
{
    struct graph_wire formal = c->function->body, actual = c->node;
    struct graph_field f, a;
    int given = 1, more;
    err e;
    while ((more = next_of(&formal, F_INPUT, &f)) > 0) {
        char *name = NULL;
        int v = -1;
        if ((e = graph_read_name(r, &formal, &f, &name))) return e;
        keep_string(c, name);
        if (given > 0) given = next_of(&actual, N_IN, &a);
        if (given < 0) return given;
        if (given && (e = graph_read_use(r, c->scope, &actual, &a, c->label, &v))) return e;
        if (!graph_names_add(&c->inner.names, name, v < 0 ? GRAPH_ABSENT : v))
            return graph_wire_fail(&formal, ERR_FORMAT, f.start, "two inputs of function '%s' have the name '%s'",
                                   c->function->name, name);
    }
    if (more < 0) return more;
    if (given > 0 && next_of(&actual, N_IN, &a) > 0)
        return graph_wire_fail(&c->node, ERR_FORMAT, c->node.at, "more inputs than the function '%s' has",
                               c->function->name);
    return ERR_OK;
}

static err bind_outputs(struct graph_reader *r, struct graph_call *c)
{
    struct graph_wire formal = c->function->body, actual = c->node;
    struct graph_field f, a;
    int given = 1, more;
    while ((more = next_of(&formal, F_OUTPUT, &f)) > 0) {
        char *name = NULL, *made = NULL;
        if (given > 0) given = next_of(&actual, N_OUT, &a);
        if (given < 0) return given;
        if (!given || !a.n) continue;
        err e = graph_read_name(r, &formal, &f, &name);
        if (e) return e;
        keep_string(c, name);
        if ((e = graph_read_name(r, &actual, &a, &made))) return e;
        int v = graph_names_find(&c->scope->names, made);
        free(made);
        if (v < 0 || !graph_names_add(&c->outputs, name, v))
            return graph_wire_fail(&formal, ERR_FORMAT, f.start, "two outputs of function '%s' have the name '%s'",
                                   c->function->name, name);
    }
    if (more < 0) return more;
    if (given > 0 && next_of(&actual, N_OUT, &a) > 0)
        return graph_wire_fail(&c->node, ERR_FORMAT, c->node.at, "more outputs than the function '%s' has",
                               c->function->name);
    return ERR_OK;
}

/* What one node of the body makes: the call's output, or a value of its own. */
static err declare_one(struct graph_reader *r, struct graph_call *c, const struct graph_wire *w,
                       const struct graph_field *f)
{
    char *name = NULL;
    err e = graph_read_name(r, w, f, &name);
    if (e) return e;
    keep_string(c, name);
    int v = graph_names_find(&c->outputs, name);
    if (v < 0) {
        if ((e = graph_count_value(r, strlen(name) + strlen(c->label) + 16))) return e;
        char *full = xasprintf("%s.%zu/%s", c->label, c->number, name);
        v = graph_add_value(c->inner.g, full, TENSOR_NONE, NULL);
        free(full);
    }
    if (!graph_names_add(&c->inner.names, name, v))
        return graph_wire_fail(w, ERR_FORMAT, f->start, "'%s' is made twice in function '%s'", name, c->function->name);
    return ERR_OK;
}

static err declare(struct graph_reader *r, struct graph_call *c)
{
    struct graph_wire w = c->function->body, node;
    struct graph_field f, o;
    int more, outs = 0;
    while ((more = next_of(&w, F_NODE, &f)) > 0) {
        err e = graph_wire_sub(&w, &f, &node);
        while (!e && (outs = next_of(&node, N_OUT, &o)) > 0)
            if (o.n) e = declare_one(r, c, &node, &o);
        if (e || outs < 0) return e ? e : outs;
    }
    return more;
}

static err read_body(struct graph_reader *r, struct graph_call *c)
{
    struct graph_wire w = c->function->body;
    struct graph_field f;
    int more = 0;
    err e = ERR_OK;
    while (!e && (more = next_of(&w, F_OPSET, &f)) > 0) e = graph_read_opset(r, &w, &f);
    if (!e) e = MIN(more, 0);
    if (!e) e = declare(r, c);
    w = c->function->body;
    while (!e && (more = next_of(&w, F_NODE, &f)) > 0) e = graph_read_node(r, &c->inner, &w, &f);
    return e ? e : MIN(more, 0);
}

/* Every output that is wanted was made, or is an input that is handed on. */
static err check_outputs(struct graph_call *c)
{
    for (size_t i = 0; i < c->outputs.cap; i++) {
        const struct graph_name *o = &c->outputs.slots[i];
        if (!o->s) continue;
        int v = graph_names_find(&c->inner.names, o->s);
        if (v < 0)
            return err_set(ERR_FORMAT, "nothing makes the output '%s' of function '%s'", o->s, c->function->name);
        if (v == o->value) continue;
        struct graph_node *n = graph_add_node(c->inner.g, OP_IDENTITY, c->label, 1, 1);
        n->op.in[0] = v;
        n->op.out[0] = o->value;
    }
    return ERR_OK;
}

err graph_function_expand(struct graph_reader *r, struct graph_scope *s, struct graph_function *fn,
                          const struct graph_wire *node, const char *label)
{
    int depth = 0;
    for (const struct graph_call *c = r->call; c; c = c->outer) depth++;
    if (fn->active)
        return graph_wire_fail(node, ERR_FORMAT, node->at, "the function '%s' calls itself", fn->name);
    if (depth >= GRAPH_MAX_CALLS)
        return graph_wire_fail(node, ERR_LIMIT, node->at, "functions in functions, more than %d deep", GRAPH_MAX_CALLS);
    struct graph_call *c = xnew(struct graph_call);
    *c = (struct graph_call){.function = fn, .node = *node, .scope = s, .outer = r->call, .label = label,
                             .number = ++r->n_calls, .inner = {.g = s->g, .depth = s->depth}};
    err e = bind_inputs(r, c);
    if (!e) e = bind_outputs(r, c);
    if (!e) {
        fn->active = true;
        r->call = c;
        swap_domains(r, c);
        e = read_body(r, c);
        swap_domains(r, c);
        r->call = c->outer;
        fn->active = false;
    }
    if (!e) e = check_outputs(c);
    for (int i = 0; i < c->n_domains; i++) free(c->domains[i].name);
    graph_names_done(&c->inner.names);
    graph_names_done(&c->outputs);
    for (size_t i = 0; i < c->n_strings; i++) free(c->strings[i]);
    free(c->strings);
    free(c);
    return e ? err_wrap(e, "function '%s'", fn->name) : ERR_OK;
}

/* ---- attributes */

static bool is_named(const struct graph_wire *attr, const struct graph_field *name)
{
    struct graph_wire w = *attr;
    struct graph_field f;
    while (graph_wire_next(&w, &f) > 0)
        if (f.number == A_NAME && f.type == GRAPH_WIRE_BYTES)
            return f.n == name->n && memcmp(f.p, name->p, f.n) == 0;
    return false;
}

static err find_attr(const struct graph_wire *in, uint32_t number, const struct graph_field *name,
                     struct graph_wire *ret, bool *ret_found)
{
    struct graph_wire w = *in;
    struct graph_field f;
    int more;
    while ((more = next_of(&w, number, &f)) > 0) {
        err e = graph_wire_sub(&w, &f, ret);
        if (e) return e;
        if (is_named(ret, name)) {
            *ret_found = true;
            return ERR_OK;
        }
    }
    return more;
}

static err own_name(struct graph_reader *r, const struct graph_wire *whole, char **ret)
{
    struct graph_wire w = *whole;
    struct graph_field f;
    int more = next_of(&w, A_NAME, &f);
    if (more > 0) return graph_read_name(r, &w, &f, ret);
    return more < 0 ? more : graph_wire_fail(whole, ERR_FORMAT, whole->at, "an attribute without a name");
}

err graph_function_attr(struct graph_reader *r, const struct graph_wire *whole, const struct graph_field *ref,
                        int depth, struct op_attr *ret)
{
    struct graph_call *c = r->call;
    struct graph_wire attr;
    bool found = false;
    if (!c || ref->type != GRAPH_WIRE_BYTES)
        return graph_wire_fail(whole, ERR_FORMAT, ref->start, "a reference to a function's attribute outside a function");
    err e = find_attr(&c->node, N_ATTR, ref, &attr, &found);
    if (!e && found) { /* it is the caller's: his scope, his opsets */
        r->call = c->outer;
        swap_domains(r, c);
        e = graph_read_attr(r, c->scope, &attr, depth, ret);
        swap_domains(r, c);
        r->call = c;
    }
    if (!e && !ret->type) {
        free(ret->name);
        *ret = (struct op_attr){0};
        found = false;
        e = find_attr(&c->function->body, F_DEFAULT, ref, &attr, &found);
        if (!e && found) e = graph_read_attr(r, &c->inner, &attr, depth, ret);
    }
    if (e) return e;
    free(ret->name);
    ret->name = NULL;
    return own_name(r, whole, &ret->name);
}

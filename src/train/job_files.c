/* The files of a job. A checkpoint's JSON: {"version": 1, "model_crc": N, "arguments": [...], "folder": "/...", "classes": [...], "tensors": [...], "state": {...}}; numbers that must come back with
 * the same bits are written with 17 digits. SPDX-License-Identifier: Apache-2.0 */
#include "base/crc32c.h"
#include "graph/zoo.h"
#include "train/checkpoint.h"
#include "train/task.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MODEL_BYTES = INT32_MAX };

static err file_crc(const char *path, uint32_t *ret)
{
    unsigned char *p;
    size_t n;
    err e = weights_fs_get(&weights_fs_system, path, MODEL_BYTES, &p, &n);
    if (e) return e;
    *ret = crc32c(0, p, n);
    free(p);
    return ERR_OK;
}

/* NAME.onnx.NUMBER.part of graph_save, for the three that a job writes. */
static bool is_part(const char *name)
{
    static const char *const own[] = {"model.onnx.", "best.onnx.", "last.onnx."};
    for (size_t i = 0; i < ARRAY_LEN(own); i++) {
        const char *number = name + strlen(own[i]);
        if (str_starts(name, own[i]) && *number >= '0' && *number <= '9' && !strcmp(number + strspn(number, "0123456789"), ".part")) return true;
    }
    return false;
}

/* What writers that were killed left behind: NUMBER-NAME, NAME.NUMBER.part. */
static void sweep(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    while (d && (entry = readdir(d))) {
        size_t digits = strspn(entry->d_name, "0123456789");
        const char *rest = entry->d_name + digits;
        bool checkpoint = digits && (!strcmp(rest, "-last.brim") || !strcmp(rest, "-best.brim") || !strcmp(rest, "-curves.csv") || !strcmp(rest, "-curves.svg"));
        if (!checkpoint && !is_part(entry->d_name)) continue;
        char *path = xasprintf("%s/%s", dir, entry->d_name);
        unlink(path);
        free(path);
    }
    if (d) closedir(d);
}

void train_job_say(const struct train_job *j, const char *fmt, ...)
{
    va_list ap;
    char text[512];
    if (!j->o->say) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    j->o->say(j->user, text);
}

static err make_folder(const char *path)
{
    if (mkdir(path, 0755) && errno != EEXIST) return err_set(ERR_IO, "%s: cannot make the folder: %s", path, strerror(errno));
    return ERR_OK;
}

/* One job in a folder at a time: two would write over each other. Kept until train_job ends, by the system if the process dies. */
static err lock_folder(struct train_job *j)
{
    j->lock = open(j->o->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (j->lock < 0) return err_set(ERR_IO, "%s: %s", j->o->out, strerror(errno));
    if (flock(j->lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) return err_set(ERR_BUSY, "%s: another job is at work in it; wait for its end, or take another --out", j->o->out);
    return ERR_OK; /* a file system without locks has none */
}

/* A name that the job is about to write over? */
static err not_own(const struct train_job_options *o)
{
    static const char *const own[] = {"model.onnx", "best.onnx", "last.onnx"};
    struct stat model, st;
    err e = ERR_OK;
    if (stat(o->model, &model)) return ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(own) && !e; i++) {
        char *path = xasprintf("%s/%s", o->out, own[i]);
        if (stat(path, &st) == 0 && st.st_ino == model.st_ino && st.st_dev == model.st_dev)
            e = err_set(ERR_USAGE, "%s: the job writes its own %s there; take another --out, or the model would be lost", o->model, own[i]);
        free(path);
    }
    return e;
}

/* A file says itself what it takes; --size may only repeat it. */
static err check_size(const struct graph *g, const struct train_job_options *o)
{
    char text[96];
    if (o->size < 1 || g->n_inputs < 1) return ERR_OK;
    const struct tensor_shape *s = &g->values[g->inputs[0]].shape;
    for (int i = 1; i < s->rank; i++)
        if (s->dims[i] == o->size) return ERR_OK;
    return err_set(ERR_USAGE, "%s: its input is %s; --size %d is for networks by name", o->model, tensor_shape_text(s, (const char *const *)g->symbols, text, sizeof text), o->size);
}

static err first_model(struct train_job *j, const char *to)
{
    const struct train_job_options *o = j->o;
    struct graph *g;
    err e;
    if (access(o->model, F_OK) && !strchr(o->model, '/') && !str_ends(o->model, ".onnx")) {
        struct graph_zoo_options zoo = {.classes = j->kind->identities ? j->o->embed.width : j->classes, .size = o->size, .seed = o->seed};
        e = graph_zoo(o->model, &zoo, j->payer, &g);
    } else {
        e = graph_load(o->model, j->payer, &g);
        if (!e && (e = check_size(g, o))) graph_free(&g);
    }
    if (e) return e;
    e = graph_inference_form(g);
    if (!e && j->kind->adapt) e = j->kind->adapt(j, g);
    if (!e) e = graph_save(g, to);
    graph_free(&g);
    return e;
}

err train_job_bring_model(struct train_job *j)
{
    const char *out = j->o->out;
    char *last = xasprintf("%s/last.brim", out), *model = xasprintf("%s/model.onnx", out);
    err e = make_folder(out);
    if (!e) e = lock_folder(j);
    if (!e) sweep(out);
    bool there = access(last, F_OK) == 0;
    if (!e && there && !j->o->resume) e = err_set(ERR_USAGE, "%s: a job's checkpoint is there; --resume goes on with it, or take another --out", last);
    if (!e && !there && j->o->resume) e = err_set(ERR_NOT_FOUND, "%s: no checkpoint to go on from", last);
    if (!e && !j->o->resume) e = not_own(j->o);
    if (!e && !j->o->resume) e = first_model(j, model);
    if (!e) e = graph_load(model, j->payer, &j->source);
    if (!e) e = file_crc(model, &j->model_crc);
    free(last);
    free(model);
    return e;
}

/* ---- checkpoints */

/* Names come from files and folders: what is no UTF-8 is kept as the numbers of its bytes. */
static json_t *text_json(const char *text)
{
    json_t *j = json_string(text);
    if (j) return j;
    j = json_array();
    for (; *text; text++) json_array_append_new(j, json_integer((unsigned char)*text));
    return j;
}

/* malloced */
static char *json_text(const json_t *j)
{
    if (!json_is_array(j)) return xstrdup(json_string_value(j) ? json_string_value(j) : "");
    char *text = xnewn(char, json_array_size(j) + 1);
    for (size_t i = 0; i < json_array_size(j); i++) text[i] = (char)json_integer_value(json_array_get(j, i));
    return text;
}

static json_t *tensors_json(const struct train_job *j)
{
    json_t *list = json_array();
    struct train_net_tensor t;
    for (int i = 0; i < train_net_tensors(j->net); i++)
        if (train_net_tensor(j->net, i, &t))
            json_array_append_new(list, json_pack("{s:o, s:i, s:b, s:I, s:I}", "name", text_json(t.name), "value", t.source_value, "state", t.state, "at", (json_int_t)t.at,
                                                  "count", (json_int_t)t.count));
    return list;
}

static json_t *job_json(const struct train_job *j)
{
    const struct train_job_state *s = &j->state;
    json_t *arguments = json_array(), *classes = json_array();
    for (int i = 0; i < j->o->n_arguments; i++) json_array_append_new(arguments, text_json(j->o->arguments[i]));
    for (int i = 0; i < j->classes; i++) json_array_append_new(classes, text_json(train_set_class(j->set, i)));
    return json_pack("{s:i, s:I, s:o, s:o*, s:o, s:o, s:{s:I, s:I, s:I, s:f, s:f, s:i, s:i, s:f}}", "version", 1, "model_crc", (json_int_t)j->model_crc, "arguments", arguments,
                     "folder", j->o->folder ? text_json(j->o->folder) : NULL, "classes", classes, "tensors", tensors_json(j), "state", "batches", (json_int_t)s->batches, "steps", (json_int_t)s->steps, "updates", (json_int_t)s->updates, "loss_sum", s->loss_sum,
                     "best", s->best, "best_epoch", s->best_epoch, "epochs_done", s->epochs_done, "seconds", s->seconds);
}

err train_job_save(struct train_job *j, const char *name)
{
    struct train_section sections[8];
    char *file = xasprintf("%s.brim", name);
    j->state.seconds = j->seconds_before + (double)(clock_ns() - j->begun_ns) * 1e-9;
    json_t *job = job_json(j);
    char *text = job ? json_dumps(job, JSON_REAL_PRECISION(17)) : NULL;
    int n = train_net_sections(j->net, sections);
    err e = text ? train_checkpoint_write(&weights_fs_system, j->o->out, file, text, sections, n) : err_set(ERR_INTERNAL, "%s/%s: where the job stands cannot be written as JSON", j->o->out, file);
    free(text);
    json_decref(job);
    free(file);
    j->saved_ns = clock_ns();
    return e;
}

static err open_job(const char *path, struct train_checkpoint *ret, json_t **ret_job)
{
    err e = train_checkpoint_open(path, ret);
    if (e) return e;
    *ret_job = json_loads(ret->job, 0, NULL);
    if (json_integer_value(json_object_get(*ret_job, "version")) == 1) return ERR_OK;
    e = err_set(ERR_FORMAT, "%s: a job that this program does not know", path);
    json_decref(*ret_job);
    train_checkpoint_close(ret);
    return e;
}

static err read_state(const json_t *job, const char *path, struct train_job_state *s)
{
    json_int_t batches, updates;
    int best_epoch, epochs_done;
    json_error_t problem;
    if (json_unpack_ex((json_t *)(uintptr_t)job, &problem, 0, "{s:{s:I, s:I, s:F, s:F, s:i, s:i, s:F}}", "state", "batches", &batches, "updates", &updates, "loss_sum",
                       &s->loss_sum, "best", &s->best, "best_epoch", &best_epoch, "epochs_done", &epochs_done, "seconds", &s->seconds) ||
        batches < 0 || updates < 0 || epochs_done < 0)
        return err_set(ERR_FORMAT, "%s: its state cannot be read", path);
    s->batches = batches;
    s->steps = json_integer_value(json_object_get(json_object_get(job, "state"), "steps"));
    s->updates = updates;
    s->best_epoch = best_epoch;
    s->epochs_done = epochs_done;
    return ERR_OK;
}

err train_job_restore(struct train_job *j)
{
    char *path = xasprintf("%s/last.brim", j->o->out);
    struct train_checkpoint c;
    json_t *job;
    err e = open_job(path, &c, &job);
    if (!e) {
        struct train_section sections[8];
        int n = train_net_sections(j->net, sections);
        e = read_state(job, path, &j->state);
        if (!e && json_integer_value(json_object_get(job, "model_crc")) != (json_int_t)j->model_crc)
            e = err_set(ERR_FORMAT, "%s: it belongs to another model.onnx than the one beside it", path);
        if (!e) e = train_checkpoint_verify(&c);
        for (int i = 0; i < n && !e; i++) e = train_checkpoint_read(&c, sections[i].name, sections[i].p, sections[i].bytes);
        if (!e) train_net_set_steps(j->net, j->state.updates);
        json_decref(job);
        train_checkpoint_close(&c);
    }
    free(path);
    return e;
}

static err read_list(const char *out, const char *key, char ***ret, int *ret_n, char **ret_folder)
{
    char *path = xasprintf("%s/last.brim", out);
    struct train_checkpoint c;
    json_t *job, *item;
    size_t i;
    err e = open_job(path, &c, &job);
    free(path);
    if (e) return e;
    const json_t *list = json_object_get(job, key);
    char **texts = xnewn(char *, json_array_size(list) + 1);
    json_array_foreach(list, i, item) texts[i] = json_text(item);
    *ret = texts;
    *ret_n = (int)json_array_size(list);
    if (ret_folder) *ret_folder = (item = json_object_get(job, "folder")) ? json_text(item) : NULL;
    json_decref(job);
    train_checkpoint_close(&c);
    return ERR_OK;
}

err train_job_arguments(const char *out, char ***ret, int *ret_n, char **ret_folder)
{
    return read_list(out, "arguments", ret, ret_n, ret_folder);
}

err train_job_classes(const char *out, char ***ret, int *ret_n)
{
    return read_list(out, "classes", ret, ret_n, NULL);
}

/* ---- ONNX */

err train_job_graph(struct train_job *j, struct mem_payer *payer, struct graph **ret)
{
    char *path = xasprintf("%s/model.onnx", j->o->out);
    struct graph *g = NULL;
    err e = graph_load(path, payer, &g);
    if (!e) e = train_net_store(j->net, g, true);
    if (!e) e = train_strip_heads(g);
    free(path);
    if (e)
        graph_free(&g);
    else
        *ret = g;
    return e;
}

err train_job_write_onnx(struct train_job *j, const char *name)
{
    char *path = xasprintf("%s/%s.onnx", j->o->out, name);
    struct mem_payer *payer = mem_payer_new(j->budget, "export");
    struct graph *g;
    err e = train_job_graph(j, payer, &g);
    if (!e) {
        e = graph_save(g, path);
        graph_free(&g);
    }
    mem_payer_free(&payer);
    free(path);
    return e;
}

static err put_tensor(const json_t *item, const char *path, const float *all, const float *mean, uint64_t floats, uint64_t mean_floats, struct graph *g)
{
    int value, state;
    json_int_t at, count;
    if (json_unpack((json_t *)(uintptr_t)item, "{s:i, s:b, s:I, s:I}", "value", &value, "state", &state, "at", &at, "count", &count) || at < 0 || count < 0 ||
        (uint64_t)count > floats || (uint64_t)at > floats - (uint64_t)count)
        return err_set(ERR_FORMAT, "%s: a tensor of its list does not fit", path);
    bool take_mean = mean && !state && (uint64_t)at + (uint64_t)count <= mean_floats;
    return graph_set_constant(g, value, (take_mean ? mean : all) + at, count);
}

static err read_floats(const struct train_checkpoint *c, const char *name, struct mem_payer *payer, float **ret, uint64_t *ret_n)
{
    int64_t bytes = train_checkpoint_bytes(c, name);
    *ret = NULL;
    *ret_n = 0;
    if (bytes < 0) return ERR_OK;
    err e = mem_alloc(payer, MEM_TRAINING, (size_t)bytes, (void **)ret);
    if (!e) *ret_n = (uint64_t)bytes / sizeof(float);
    return e ? e : train_checkpoint_read(c, name, *ret, (uint64_t)bytes);
}

static err export_graph(const struct train_checkpoint *c, const json_t *job, const char *model, bool mean, struct mem_payer *payer, const char *output)
{
    float *all = NULL, *means = NULL;
    uint64_t n = 0, n_means = 0;
    struct graph *g = NULL;
    const json_t *list = json_object_get(job, "tensors");
    json_t *item;
    size_t i;
    err e = read_floats(c, "parameters", payer, &all, &n);
    if (!e && mean) e = read_floats(c, "mean", payer, &means, &n_means);
    if (!e && (!all || !json_is_array(list))) e = err_set(ERR_FORMAT, "%s: it has no parameters", c->path);
    if (!e) e = graph_load(model, payer, &g);
    json_array_foreach(list, i, item) {
        if (e) break;
        e = put_tensor(item, c->path, all, means, n, n_means, g);
    }
    if (!e) e = train_strip_heads(g);
    if (!e) e = graph_save(g, output);
    graph_free(&g);
    mem_free(payer, MEM_TRAINING, all, n * sizeof(float));
    mem_free(payer, MEM_TRAINING, means, n_means * sizeof(float));
    return e;
}

err train_export(const char *checkpoint, const char *output, bool mean)
{
    struct train_checkpoint c;
    json_t *job;
    err e = open_job(checkpoint, &c, &job);
    if (e) return e;
    const char *slash = strrchr(checkpoint, '/');
    char *model = slash ? xasprintf("%.*s/model.onnx", (int)(slash - checkpoint), checkpoint) : xstrdup("model.onnx");
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(b, "export");
    uint32_t crc = 0;
    e = file_crc(model, &crc);
    if (e == ERR_NOT_FOUND) e = err_set(e, "%s: the network of the job must lie beside its checkpoint", model);
    if (!e && json_integer_value(json_object_get(job, "model_crc")) != (json_int_t)crc)
        e = err_set(ERR_FORMAT, "%s: it belongs to another model.onnx than the one beside it", checkpoint);
    if (!e) e = export_graph(&c, job, model, mean, payer, output);
    mem_payer_free(&payer);
    mem_budget_free(&b);
    free(model);
    json_decref(job);
    train_checkpoint_close(&c);
    return e;
}

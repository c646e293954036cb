/* `brim bench beside`: how much do cameras suffer from a training in the same box?
 *
 * One box, in this process, runs a site (the shared videos through yolox_nano and nanodet, or a site file) and a training on drawn pictures,
 * which is stopped and started again in turn: phases without and with it are interleaved, so that what else the machine does falls on
 * both. Compared is the time from a frame's arrival to its result, over all queries: p50 and p95 per phase, then the median over
 * the phases of a kind. The first seconds of a phase do not count (plans are made, checkpoints written).
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"
#include "cli/bench_inside.h"
#include "cli/train.h"
#include "engine/engine.h"
#include "engine/job.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_ROUNDS = 50, MAX_SAMPLES = 200000, SETTLE_MS = 1500, PATIENCE_MS = 120000, PICTURES = 2000, SIDE = 32 };

struct phase {
    double p50, p95, step_ms; /* ms; step_ms: of the training, per batch */
    int n;
};
struct beside {
    int64_t seconds, rounds, batch, size, threads;
    bool json;
    const char *model, *site_path;
    struct bench_place place;
    struct engine *engine;
    pthread_mutex_t lock; /* guards what follows */
    bool counts;
    int n;
    double *samples;
    struct phase with[MAX_ROUNDS], without[MAX_ROUNDS];
    uint64_t bytes;
};

static void on_record(void *user, const struct engine_record *r)
{
    struct beside *b = user;
    if (r->kind != ENGINE_RESULT) return;
    pthread_mutex_lock(&b->lock);
    if (b->counts && b->n < MAX_SAMPLES) b->samples[b->n++] = r->latency_ms;
    pthread_mutex_unlock(&b->lock);
}

static void nap(int64_t ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double part(const double *sorted, int n, double q)
{
    return n ? sorted[MIN((int)(q * n), n - 1)] : 0;
}

static struct engine_job_row job_row(struct beside *b)
{
    struct engine_job_row *rows, r = {0};
    if (engine_jobs(b->engine, &rows)) r = rows[0];
    free(rows);
    return r;
}

static double number(const struct engine_job_row *r, const char *name)
{
    for (int i = 0; i < r->n; i++)
        if (!strcmp(r->numbers[i].name, name)) return r->numbers[i].value;
    return 0;
}

static struct phase measure(struct beside *b, bool with)
{
    struct phase p;
    nap(SETTLE_MS);
    double done = job_row(b).done;
    int64_t begin = clock_ns();
    pthread_mutex_lock(&b->lock);
    b->n = 0;
    b->counts = true;
    pthread_mutex_unlock(&b->lock);
    nap(b->seconds * 1000);
    pthread_mutex_lock(&b->lock);
    b->counts = false;
    struct engine_job_row r = job_row(b);
    double batches = (r.done - done) * number(&r, "epochs") * (double)(PICTURES / b->batch);
    qsort(b->samples, (size_t)b->n, sizeof *b->samples, by_size);
    p = (struct phase){part(b->samples, b->n, 0.5), part(b->samples, b->n, 0.95), with && batches > 0 ? (double)(clock_ns() - begin) / 1e6 / batches : 0, b->n};
    if (with) b->bytes = r.bytes;
    pthread_mutex_unlock(&b->lock);
    if (!b->json) fprintf(stderr, "%s: %d results, p50 %.1f ms, p95 %.1f ms%s", with ? "with" : "without", p.n, p.p50, p.p95, with ? "" : "\n");
    if (!b->json && with) fprintf(stderr, "; a batch in %.0f ms\n", p.step_ms);
    return p;
}

/* ---- the job */

static err draw_pictures(struct beside *b)
{
    FILE *f;
    err e = bench_file(&b->place, "pictures.bin", &f);
    for (int i = 0; !e && i < PICTURES; i++) {
        fputc(i % 10, f);
        for (int k = 0; k < 3 * SIDE * SIDE; k++) fputc((int)(hash64(&(int[]){i, k}[0], 8, 1) % 100) + (k / (SIDE * SIDE) == i % 3 ? 120 : 20), f);
    }
    return e || !fclose(f) ? e : err_set(ERR_IO, "%s: cannot write", b->place.folder);
}

static err add_job(struct beside *b)
{
    char batch[24], size[24], threads[24], name[72];
    snprintf(batch, sizeof batch, "%lld", (long long)b->batch);
    snprintf(size, sizeof size, "%lld", (long long)b->size);
    snprintf(threads, sizeof threads, "%lld", (long long)b->threads);
    const char *words[] = {"--model", b->model, "--size", size, "--data", "pictures.bin", "--out", "out", "--epochs", "10000", "--batch", batch, "--threads", threads};
    return engine_job_add(b->engine, &(struct engine_job_options){.name = "beside", .kind = "train", .folder = b->place.folder, .words = words, .n_words = ARRAY_LEN(words)},
                          name);
}

/* Until it has told of progress since `done`. */
static err wait_running(struct beside *b)
{
    for (int64_t end = clock_ns() + (int64_t)PATIENCE_MS * 1000000; clock_ns() < end; nap(20)) {
        struct engine_job_row r = job_row(b);
        if (r.state == ENGINE_JOB_FAILED) return err_set(ERR_NOMEM, "%s", r.why);
        if (r.state == ENGINE_JOB_RUNNING && r.n) return ERR_OK;
    }
    return err_set(ERR_TIMEOUT, "the training did not begin within %d s", PATIENCE_MS / 1000);
}

static err wait_stopped(struct beside *b)
{
    for (int64_t end = clock_ns() + (int64_t)PATIENCE_MS * 1000000; clock_ns() < end; nap(5))
        if (job_row(b).state == ENGINE_JOB_STOPPED) return ERR_OK;
    return err_set(ERR_TIMEOUT, "the training did not stop within %d s", PATIENCE_MS / 1000);
}

static err rounds(struct beside *b)
{
    err e = ERR_OK;
    for (int64_t i = 0; i < b->rounds && !e; i++) {
        b->without[i] = measure(b, false);
        if (!b->without[i].n) return err_set(ERR_NOT_FOUND, "no result in %lld s: what is wrong with the site is said above", (long long)b->seconds);
        e = i ? engine_job_start(b->engine, "beside") : add_job(b);
        if (!e) e = wait_running(b);
        if (!e) b->with[i] = measure(b, true);
        if (!e) e = engine_job_stop(b->engine, "beside");
        if (!e) e = wait_stopped(b);
    }
    return e;
}

/* ---- */

static err write_site(struct beside *b, const char *data, const char *source)
{
    FILE *f;
    err e = bench_file(&b->place, "site.yaml", &f);
    if (e) return e;
    fprintf(f, "version: 1\nbudget: 1G\nprecision: f32\ndefaults:\n  cameras: {loop: true}\n  queries: {deadline_ms: 1000}\n"
               "cameras:\n  room: {url: \"%s/videos/multicam/four_cam/cam0.mp4\"}\n  cars: {url: \"%s/videos/intel/car-detection.mp4\"}\n"
               "models:\n  yolox_nano: {onnx: \"%s/models/yolox/yolox_nano_416x416.onnx\", card: \"%s/models/cards/yolox_nano_416x416.yaml\"}\n"
               "  nanodet: {onnx: \"%s/models/nanodet/nanodet_m_320.onnx\", card: \"%s/models/cards/nanodet_m_320.yaml\"}\n"
               "queries:\n  cars: {cameras: cars, model: yolox_nano, fps: 5}\n  people: {cameras: room, model: nanodet, fps: 5}\n"
               "outputs: {database: off, http: off}\n",
            data, data, data, source, data, source);
    return fclose(f) ? err_set(ERR_IO, "%s: cannot write the site", b->place.folder) : ERR_OK;
}

/* Paths in a site file are seen from its folder, which is a temporary one. */
static err default_site(struct beside *b, char *path)
{
    const char *data = getenv("BRIM_DATA"), *source = getenv("BRIM_SOURCE");
    if (!data) return err_set(ERR_USAGE, "BRIM_DATA is not set: where are the shared videos? Or give a site file");
    char *real_data = realpath(data, NULL), *real_source = realpath(source ? source : ".", NULL);
    err e = real_data && real_source ? write_site(b, real_data, real_source) : err_set(ERR_NOT_FOUND, "BRIM_DATA is %s, which is not there", data);
    sprintf(path, "%s/site.yaml", b->place.folder);
    free(real_data);
    free(real_source);
    return e;
}

static err open_box(struct beside *b)
{
    char path[96];
    struct site *site;
    err e = b->site_path ? ERR_OK : default_site(b, path);
    if (!e) e = site_load(b->site_path ? b->site_path : path, &site);
    if (e) return e;
    char *store = xasprintf("%s/store", b->place.folder);
    setenv("BRIM_STORE", store, 1);
    free(store);
    site->store = NULL;
    if ((e = engine_open(site, &(struct engine_options){0}, &b->engine))) {
        site_free(&site);
        return e;
    }
    engine_job_kinds(b->engine, &cli_train_kind, 1);
    engine_add_sink(b->engine, on_record, b);
    return engine_start(b->engine);
}

static double median(const struct phase *p, int64_t n, double (*of)(const struct phase *))
{
    double v[MAX_ROUNDS];
    for (int64_t i = 0; i < n; i++) v[i] = of(&p[i]);
    qsort(v, (size_t)n, sizeof *v, by_size);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static double p50_of(const struct phase *p)
{
    return p->p50;
}

static double p95_of(const struct phase *p)
{
    return p->p95;
}

static double step_of(const struct phase *p)
{
    return p->step_ms;
}

static void report(const struct beside *b)
{
    char s[16];
    double a50 = median(b->without, b->rounds, p50_of), a95 = median(b->without, b->rounds, p95_of), w50 = median(b->with, b->rounds, p50_of),
           w95 = median(b->with, b->rounds, p95_of), step = median(b->with, b->rounds, step_of);
    if (b->json)
        printf("{\"p50_ms\": %.3f, \"p95_ms\": %.3f, \"p50_beside_ms\": %.3f, \"p95_beside_ms\": %.3f, \"batch_ms\": %.1f, \"job_bytes\": %llu, \"rounds\": %lld, \"seconds\": %lld}\n",
               a50, a95, w50, w95, step, (unsigned long long)b->bytes, (long long)b->rounds, (long long)b->seconds);
    else
        printf("alone: p50 %.1f ms, p95 %.1f ms; beside %s (batch %lld, %s, a batch in %.0f ms): p50 %.1f ms (%.2fx), p95 %.1f ms (%.2fx); %lld x %lld s each\n", a50, a95,
               b->model, (long long)b->batch, size_text(b->bytes, s), step, w50, w50 / a50, w95, w95 / a95, (long long)b->rounds, (long long)b->seconds);
}

err bench_beside(int argc, char **argv)
{
    struct beside b = {.seconds = 15, .rounds = 4, .batch = 32, .size = 64, .model = "resnet18"};
    struct args_list rest = {0};
    bool help = false;
    const struct args_option table[] = {{"seconds", ARGS_INT, &b.seconds, "of a phase (15)"},
                                        {"rounds", ARGS_INT, &b.rounds, "phases of each kind (4)"},
                                        {"model", ARGS_STRING, &b.model, "trained: F.onnx or a network by name (resnet18)"},
                                        {"size", ARGS_INT, &b.size, "sides of its input, by name (64)"},
                                        {"batch", ARGS_INT, &b.batch, "(32)"},
                                        {"threads", ARGS_INT, &b.threads, "of the training (0: all)"},
                                        {"json", ARGS_FLAG, &b.json, "one JSON object"},
                                        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &rest, &help);
    if (help) args_help("bench beside [SITE.yaml] [options]", table);
    if (!e && !help && (b.rounds < 1 || b.rounds > MAX_ROUNDS || b.seconds < 1 || b.batch < 1 || b.batch > PICTURES)) e = err_set(ERR_USAGE, "--rounds goes from 1 to %d, --batch to %d", MAX_ROUNDS, PICTURES);
    if (e || help) {
        free(rest.items);
        return e;
    }
    b.site_path = rest.n ? rest.items[0] : NULL;
    b.samples = xnewn(double, MAX_SAMPLES);
    pthread_mutex_init(&b.lock, NULL);
    e = bench_place_open(&b.place);
    if (!e) e = draw_pictures(&b);
    if (!e) e = open_box(&b);
    if (!e) e = rounds(&b);
    if (!e) report(&b);
    engine_close(&b.engine);
    bench_place_close(&b.place, e != ERR_OK);
    pthread_mutex_destroy(&b.lock);
    free(b.samples);
    free(rest.items);
    return e;
}

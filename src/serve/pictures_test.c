/* Pictures of events: a box that watches squares jump about keeps them, and training learns from them; the folder stays within its limit, the oldest go first; a folder
 * that goes away costs pictures, never the box. SPDX-License-Identifier: Apache-2.0 */
#include "serve/pictures.h"
#include "serve/testing.h"

#include "rows/picture.h"
#include "train/job.h"

#include "video/still.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

struct place {
    char dir[64], database[96], folder[128];
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct serve_count count;
    pthread_mutex_t lock; /* guards said */
    char said[256];
};

static int begin(void **state)
{
    struct place *p = xnew(struct place);
    snprintf(p->dir, sizeof p->dir, "/tmp/brim-pictures-XXXXXX");
    if (!mkdtemp(p->dir)) return 1;
    snprintf(p->database, sizeof p->database, "%s/events.db", p->dir);
    snprintf(p->folder, sizeof p->folder, "%s/events.db.pictures", p->dir);
    p->budget = mem_budget_new("host", UINT64_MAX);
    p->payer = mem_payer_new(p->budget, "pictures");
    pthread_mutex_init(&p->lock, NULL);
    *state = p;
    return 0;
}

static int end(void **state)
{
    struct place *p = *state;
    char *command = xasprintf("rm -rf %s", p->dir);
    int rc = system(command);
    free(command);
    rc |= mem_budget_used(p->budget) != 0;
    mem_payer_free(&p->payer);
    mem_budget_free(&p->budget);
    pthread_mutex_destroy(&p->lock);
    free(p);
    return rc;
}

static void on_problem(void *user, const char *sentence)
{
    struct place *p = user;
    pthread_mutex_lock(&p->lock);
    snprintf(p->said, sizeof p->said, "%s", sentence);
    pthread_mutex_unlock(&p->lock);
}

static struct serve_pictures *open_pictures(struct place *p, uint64_t keep)
{
    struct serve_pictures *w;
    struct serve_pictures_options o = {.database = p->database, .keep = keep, .side = 160, .payer = p->payer, .count = &p->count, .problem = on_problem, .user = p};
    if (serve_pictures_open(&o, &w)) fail_msg("%s", err_text());
    return w;
}

/* A frame of noise, so that its JPEG has some size. */
static struct video_frame *noise(struct place *p, uint32_t seed)
{
    struct video_frame *f;
    assert_int_equal(video_frame_new(p->budget, "frame", VIDEO_GREY, 320, 160, &f), ERR_OK);
    uint8_t *to = (uint8_t *)(uintptr_t)f->plane[0];
    for (int y = 0; y < f->height; y++)
        for (int x = 0; x < f->width; x++) {
            seed = seed * 1664525u + 1013904223u;
            to[y * f->stride[0] + x] = (uint8_t)(seed >> 24);
        }
    f->seq = seed;
    return f;
}

static void put(struct place *p, struct serve_pictures *w, int number, int frame)
{
    struct video_frame *f = noise(p, (uint32_t)frame);
    struct engine_track t[2] = {{.id = 1, .box = {32, 16, 160, 80}, .score = 0.5f, .label = "car"}, {.id = 2, .box = {-5, 0, 320, 200}, .score = 1.5f, .label = "dark van"}};
    struct engine_record r = {.kind = ENGINE_EVENT, .camera = "yard", .query = "q", .frame = (uint64_t)frame, .width = 320, .height = 160, .n_tracks = 2, .tracks = t, .picture = f};
    r.uid[0] = (uint8_t)(number >> 8), r.uid[1] = (uint8_t)number;
    serve_pictures_put(w, &r);
    video_frame_unref(&f);
}

static void wait_written(struct place *p, unsigned n)
{
    for (int64_t end = testing_deadline(); clock_ns() < end && atomic_load(&p->count.written) + atomic_load(&p->count.failed) < n;) usleep(10000);
    assert_int_equal(atomic_load(&p->count.written) + atomic_load(&p->count.failed), n);
}

static char *path_of(const struct place *p, int number)
{
    return rows_picture_path(p->folder, (uint8_t[ROWS_UID]){(uint8_t)(number >> 8), (uint8_t)number});
}

static int64_t size_of(const struct place *p, int number, struct stat *st)
{
    char *path = path_of(p, number);
    int64_t n = stat(path, st) ? -1 : st->st_size;
    free(path);
    return n;
}

static void one_frame_is_one_file(void **state)
{
    struct place *p = *state;
    struct serve_pictures *w = open_pictures(p, 1 << 20);
    struct stat a, b, c;
    put(p, w, 1, 7);
    put(p, w, 2, 7);
    put(p, w, 3, 8);
    struct engine_record other = {.kind = ENGINE_RESULT, .camera = "yard", .query = "q", .frame = 9};
    serve_pictures_put(w, &other); /* no event, no picture */
    serve_pictures_close(&w);
    assert_int_equal(atomic_load(&p->count.written), 3);
    assert_true(size_of(p, 1, &a) > 1000 && size_of(p, 2, &b) > 0 && size_of(p, 3, &c) > 0);
    assert_true(a.st_ino == b.st_ino && a.st_ino != c.st_ino);
    /* half the size, what was seen in it, and a JPEG for whoever knows no more */
    char *path = path_of(p, 2);
    uint8_t *bytes = malloc((size_t)b.st_size);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(bytes, 1, (size_t)b.st_size, f), b.st_size);
    fclose(f);
    struct rows_seen seen[ROWS_PICTURE_SEEN];
    assert_int_equal(rows_picture_seen(bytes, (size_t)b.st_size, seen), 2);
    assert_float_equal(seen[0].box[0], 0.1, 1e-5);
    assert_float_equal(seen[0].box[3], 0.5, 1e-5);
    assert_string_equal(seen[1].label, "dark van");
    assert_true(seen[1].box[0] == 0 && seen[1].box[3] == 1 && seen[1].score == 1);
    struct video_still *still = video_still_new(p->budget, "stills");
    struct video_frame *frame;
    if (video_still_decode(still, bytes, (size_t)b.st_size, path, &frame)) fail_msg("%s", err_text());
    assert_true(frame->width == 160 && frame->height == 80);
    video_frame_unref(&frame);
    video_still_free(&still);
    free(bytes);
    free(path);
}

/* Seconds apart, whatever the clock of this file system. */
static void set_age(const struct place *p, int number)
{
    struct timespec then[2] = {{.tv_sec = 1000 + number}, {.tv_sec = 1000 + number}};
    char *path = path_of(p, number);
    assert_int_equal(utimensat(AT_FDCWD, path, then, 0), 0);
    free(path);
}

static void the_oldest_go(void **state)
{
    struct place *p = *state;
    struct stat st;
    enum { COUNT = 60 };
    struct serve_pictures *w = open_pictures(p, 1 << 20);
    put(p, w, 0, 1000);
    serve_pictures_close(&w);
    set_age(p, 0);
    uint64_t one = (uint64_t)size_of(p, 0, &st), keep = 10 * one, total = 0;
    w = open_pictures(p, keep);
    for (int i = 1; i < COUNT; i++) {
        put(p, w, i, 1000 + i);
        wait_written(p, (unsigned)i + 1);
        set_age(p, i);
    }
    serve_pictures_close(&w);
    assert_int_equal(atomic_load(&p->count.failed) + atomic_load(&p->count.slow), 0);
    DIR *d = opendir(p->folder);
    assert_non_null(d);
    int n = 0;
    for (const struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        assert_true(rows_picture_named(e->d_name)); /* nothing half-written is left */
        assert_int_equal(fstatat(dirfd(d), e->d_name, &st, 0), 0);
        total += (uint64_t)st.st_size;
        n++;
    }
    closedir(d);
    assert_true(total <= keep && total > keep / 2);
    for (int i = 0; i < COUNT; i++) assert_true((size_of(p, i, &st) > 0) == (i >= COUNT - n)); /* the newest ones */
    /* a smaller limit, or a folder that grew while the box was away: at the next start */
    w = open_pictures(p, 3 * one);
    serve_pictures_close(&w);
    assert_true(size_of(p, COUNT - 1, &st) > 0 && size_of(p, COUNT - 5, &st) < 0);
}

static void a_folder_that_goes_away(void **state)
{
    struct place *p = *state;
    struct stat st;
    struct serve_pictures *w = open_pictures(p, 1 << 20);
    assert_int_equal(rmdir(p->folder), 0);
    put(p, w, 1, 1);
    put(p, w, 2, 1); /* the same frame: nothing to link to */
    wait_written(p, 2);
    assert_int_equal(atomic_load(&p->count.failed), 2);
    pthread_mutex_lock(&p->lock);
    assert_non_null(strstr(p->said, "events.db.pictures: No such file or directory"));
    pthread_mutex_unlock(&p->lock);
    assert_int_equal(mkdir(p->folder, 0700), 0);
    put(p, w, 3, 3);
    wait_written(p, 3);
    serve_pictures_close(&w);
    assert_string_equal(p->said, "");
    assert_true(size_of(p, 3, &st) > 0 && size_of(p, 2, &st) < 0);
}

static void every_allocation_may_fail(void **state)
{
    struct place *p = *state;
    for (int n = 1, done = 0; !done; n++) {
        struct serve_pictures *w = NULL;
        struct serve_pictures_options o = {.database = p->database, .keep = 1 << 20, .side = 160, .payer = p->payer, .count = &p->count};
        mem_fault_at(p->budget, n);
        err e = serve_pictures_open(&o, &w);
        done = e == ERR_OK;
        if (e) assert_int_equal(e, ERR_NOMEM);
        mem_fault_at(p->budget, 0);
        serve_pictures_close(&w);
        assert_int_equal(mem_budget_used(p->budget), 0);
    }
    struct serve_pictures *w = open_pictures(p, 1 << 20);
    struct video_frame *f = noise(p, 1);
    struct engine_record r = {.kind = ENGINE_EVENT, .camera = "yard", .query = "q", .frame = 1, .width = 320, .height = 160, .picture = f};
    mem_fault_at(p->budget, 1);
    serve_pictures_put(w, &r); /* lost, and counted */
    mem_fault_at(p->budget, 0);
    assert_int_equal(atomic_load(&p->count.slow), 1);
    serve_pictures_put(w, &r);
    serve_pictures_close(&w);
    assert_int_equal(atomic_load(&p->count.written), 1);
    video_frame_unref(&f);
}

/* ---- a whole box, and what it learns */

static err write_clip(const char *dir, const char *name, int colour)
{
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "clip");
    struct video_writer *w;
    uint8_t *rgb = malloc(CLIP_W * CLIP_H * 3);
    char *path = xasprintf("%s/%s", dir, name);
    err e = video_writer_open(&(struct video_writer_options){.path = path, .w = CLIP_W, .h = CLIP_H, .fps = CLIP_FPS, .quality = 90}, p, &w);
    for (int i = 0; !e && i < 50 * CLIP_FPS; i++) { /* a square crosses the yard in the first two of each four seconds */
        int at = i % (4 * CLIP_FPS), y0 = 20 + i / (4 * CLIP_FPS) * 9;
        memset(rgb, 90, CLIP_W * CLIP_H * 3);
        for (int y = y0; at < 2 * CLIP_FPS && y < y0 + 50; y++)
            for (int x = 10 + 8 * at; x < 60 + 8 * at; x++)
                for (int c = 0; c < 3; c++) rgb[(y * CLIP_W + x) * 3 + c] = c == colour ? 240 : 20;
        e = video_writer_add(w, rgb, CLIP_W * 3);
    }
    if (!e) e = video_writer_close(&w);
    free(path);
    free(rgb);
    mem_payer_free(&p);
    mem_budget_free(&b);
    return e;
}

static void run_box(const struct place *p)
{
    struct site *site;
    struct engine *engine;
    struct serve *serve;
    char *path = xasprintf("%s/site.yaml", p->dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("version: 1\nbudget: 300M\nstore: store\ncameras:\n  red: {url: red.mp4, pace: max}\n  blue: {url: blue.mp4, pace: max}\n"
          "queries: {stir: {cameras: all, model: motion, fps: 15}}\noutputs: {http: off, pictures: {keep: 8M, side: 160}}\n", f);
    fclose(f);
    assert_int_equal(write_clip(p->dir, "red.mp4", 0), ERR_OK);
    assert_int_equal(write_clip(p->dir, "blue.mp4", 2), ERR_OK);
    if (site_load(path, &site) || engine_open(site, &(struct engine_options){.offline = true}, &engine)) fail_msg("%s", err_text());
    if (serve_open(engine, &(struct serve_options){.site_path = path}, &serve) || engine_start(engine)) fail_msg("%s", err_text());
    for (int64_t end = testing_deadline(); clock_ns() < end && !engine_finished(engine);) usleep(10000);
    assert_true(engine_finished(engine));
    engine_stop(engine);
    serve_close(&serve);
    engine_close(&engine);
    free(path);
}

struct counted {
    const char *folder;
    int events, pictures, named;
};

static err count(void *user, const struct rows_event *e)
{
    struct counted *c = user;
    char *path = rows_picture_path(c->folder, e->uid);
    c->events++;
    c->pictures += access(path, R_OK) == 0;
    c->named += !strcmp(e->event, "appeared");
    free(path);
    return ERR_OK;
}

/* Which camera took it is seen from the object's colour. */
static void a_box_learns_from_its_own_events(void **state)
{
    struct place *p = *state;
    run_box(p);
    char *store = xasprintf("%s/store", p->dir), *database = xasprintf("%s/events.db", store), *folder = rows_picture_folder(database), *out = xasprintf("%s/out", p->dir);
    struct counted c = {.folder = folder};
    if (rows_read(database, &(struct rows_filter){0}, count, &c)) fail_msg("%s", err_text());
    print_message("%d events, %d of them 'appeared', %d with a picture\n", c.events, c.named, c.pictures);
    assert_true(c.named >= 12 && c.pictures == c.events);
    struct train_set *s;
    if (train_set_open(store, &(struct train_set_options){.boxes = true}, p->payer, &s)) fail_msg("%s", err_text());
    assert_true(train_set_count(s) >= 12 && train_set_report(s)->boxes >= 12);
    assert_string_equal(train_set_class(s, 0), "motion");
    train_set_free(&s);
    struct train_job_options o = {.task = TRAIN_CLASSIFY, .model = "cifar-resnet20", .size = 32, .data = store, .out = out, .held_out = 0.25, .epochs = 12, .batch = 8, .threads = 1, .seed = 1, .lr = 0.02,
                                  .schedule = TRAIN_COSINE, .optimiser = {.rule = TRAIN_SGD, .momentum = 0.9f}, .embed = {.named = "camera"}, .feed = {.mean = {90, 90, 90}, .scale = {0.01f, 0.01f, 0.01f}}};
    struct train_result r;
    if (train_job(&o, NULL, NULL, &r)) fail_msg("%s", err_text());
    print_message("of the newest events %.2f are told right\n", r.last_top1);
    assert_true(r.last_top1 >= 0.9);
    free(store), free(database), free(folder), free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(one_frame_is_one_file, begin, end), cmocka_unit_test_setup_teardown(the_oldest_go, begin, end),
                                       cmocka_unit_test_setup_teardown(a_folder_that_goes_away, begin, end), cmocka_unit_test_setup_teardown(every_allocation_may_fail, begin, end),
                                       cmocka_unit_test_setup_teardown(a_box_learns_from_its_own_events, begin, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The scene against brute force: pictures by hash, truth by drawing every object alone, projection by the file that
 * describes it. SPDX-License-Identifier: Apache-2.0 */
#include "scene/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { W = 192, H = 108 };
static struct scene_options small(void)
{
    struct scene_options o = SCENE_OPTIONS_DEFAULT;
    o.width = W, o.height = H, o.cameras = 2, o.seconds = 4;
    return o;
}

static struct scene *must(const struct scene_options *o, struct mem_budget *b)
{
    struct scene *s = NULL;
    assert_int_equal(scene_new(o, b, &s), ERR_OK);
    return s;
}

static uint64_t hash_run(const struct scene_options *o, int frames, bool backwards)
{
    static uint8_t rgb[W * H * 3];
    static struct scene_box boxes[SCENE_MAX_BOXES];
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct scene *s = must(o, b);
    uint64_t h[2] = {1, 1};
    for (int t = 0; t < frames; t++) {
        for (int i = 0; i < 2; i++) {
            int n, c = backwards ? 1 - i : i;
            scene_render(s, c, rgb, 3 * W, boxes, SCENE_MAX_BOXES, &n);
            h[c] = hash64(rgb, sizeof rgb, h[c]);
            for (int k = 0; k < n; k++)
                h[c] = hash64(&boxes[k].id, sizeof(int), hash64(&boxes[k].x, 4 * sizeof(float), h[c]));
        }
        scene_step(s);
    }
    scene_free(&s);
    mem_budget_free(&b);
    return h[0] ^ (h[1] << 1);
}

static void test_same_seed_same_bytes(void **state)
{
    (void)state;
    struct scene_options o = small();
    uint64_t a = hash_run(&o, 6, false);
    assert_true(a == hash_run(&o, 6, false));
    assert_true(a == hash_run(&o, 6, true)); /* whatever the order of the cameras */
    o.seed = 2;
    assert_true(a != hash_run(&o, 6, false));
    o.seed = 1, o.light = SCENE_NIGHT;
    assert_true(a != hash_run(&o, 6, false));
}

/* What one object covers when it is drawn alone, and how near each of its samples is. */
struct alone {
    int id;
    float *near_;
    struct scene_box box;
};

static const struct scene_box *find(const struct scene_box *b, int n, int id)
{
    for (int i = 0; i < n; i++)
        if (b[i].id == id) return &b[i];
    return NULL;
}

static void compare_frame(struct scene *s, int camera)
{
    static uint8_t rgb[W * H * 3];
    static struct scene_box all[SCENE_MAX_BOXES], one[SCENE_MAX_BOXES];
    enum { SAMPLES = 4 * W * H };
    int n, m, k = 0;
    scene_render(s, camera, rgb, 3 * W, all, SCENE_MAX_BOXES, &n);
    struct alone *alone = xnewn(struct alone, (size_t)n + 1);
    for (int i = 0; i < scene_identity_count(s); i++) {
        int id = i + 1;
        if (scene_identity(s, i)->last_frame != scene_frame(s)) continue;
        scene_only(s, id);
        scene_render(s, camera, rgb, 3 * W, one, SCENE_MAX_BOXES, &m);
        assert_true(m <= 1);
        assert_int_equal(m, find(all, n, id) != NULL);
        if (!m) continue;
        alone[k] = (struct alone){id, xnewn(float, SAMPLES), one[0]};
        for (int p = 0; p < SAMPLES; p++)
            assert_true(scene_sample(s, p % (2 * W), p / (2 * W), &alone[k].near_[p]) ==
                        (alone[k].near_[p] > 0 ? id : 0));
        k++;
    }
    scene_only(s, 0);
    assert_int_equal(k, n);
    scene_render(s, camera, rgb, 3 * W, all, SCENE_MAX_BOXES, &n);
    int *seen = xnewn(int, (size_t)k + 1), *x0 = xnewn(int, (size_t)k + 1), *x1 = xnewn(int, (size_t)k + 1),
        *y0 = xnewn(int, (size_t)k + 1), *y1 = xnewn(int, (size_t)k + 1);
    for (int p = 0; p < SAMPLES; p++) {
        int who = -1, x = p % (2 * W), y = p / (2 * W), id = scene_sample(s, x, y, NULL);
        for (int i = 0; i < k; i++)
            if (alone[i].near_[p] > 0 && (who < 0 || alone[i].near_[p] > alone[who].near_[p] ||
                                          (alone[i].near_[p] == alone[who].near_[p] && alone[i].id == id)))
                who = i;
        assert_int_equal(id, who < 0 ? 0 : alone[who].id);
        if (who < 0) continue;
        if (!seen[who]++) x0[who] = x, y0[who] = y, x1[who] = x, y1[who] = y;
        x0[who] = MIN(x0[who], x), x1[who] = MAX(x1[who], x), y0[who] = MIN(y0[who], y), y1[who] = MAX(y1[who], y);
    }
    for (int i = 0; i < k; i++) {
        const struct scene_box *b = find(all, n, alone[i].id), *a = &alone[i].box;
        assert_int_equal(b->samples, seen[i]);
        assert_true(b->visibility >= 0 && b->visibility <= 1);
        assert_true(b->whole_x == a->whole_x && b->whole_y == a->whole_y && b->whole_w == a->whole_w &&
                    b->whole_h == a->whole_h);
        assert_true(b->samples <= a->samples);
        if (seen[i]) {
            assert_true(b->x == 0.5f * (float)x0[i] && b->y == 0.5f * (float)y0[i]);
            assert_true(b->w == 0.5f * (float)(x1[i] + 1 - x0[i]) && b->h == 0.5f * (float)(y1[i] + 1 - y0[i]));
            assert_true(b->x >= b->whole_x && b->x + b->w <= b->whole_x + b->whole_w && b->y >= b->whole_y &&
                        b->y + b->h <= b->whole_y + b->whole_h);
        } else {
            assert_true(b->w == 0 && b->visibility == 0);
        }
        free(alone[i].near_);
    }
    free(seen), free(x0), free(x1), free(y0), free(y1), free(alone);
}

static void test_truth_is_brute_force(void **state)
{
    (void)state;
    struct scene_options o = small();
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct scene *s = must(&o, b);
    for (int t = 0; t < 12; t++) {
        if (t % 6 == 5)
            for (int c = 0; c < 2; c++) compare_frame(s, c);
        scene_step(s);
    }
    scene_free(&s);
    mem_budget_free(&b);
}

/* Feet lie at the bottom of the box; whoever two cameras see has one id there, and one place. */
static void test_feet_and_identities(void **state)
{
    (void)state;
    static uint8_t rgb[W * H * 3];
    static struct scene_box boxes[2][SCENE_MAX_BOXES];
    struct scene_options o = small();
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct scene *s = must(&o, b);
    int feet = 0, shared = 0, hidden = 0, n[2];
    for (int t = 0; t < 30; t++, scene_step(s)) {
        for (int c = 0; c < 2; c++) {
            scene_render(s, c, rgb, 3 * W, boxes[c], SCENE_MAX_BOXES, &n[c]);
            for (int i = 0; i < n[c]; i++) {
                const struct scene_box *x = &boxes[c][i];
                const struct scene_identity *d = scene_identity(s, x->id - 1);
                float u, v;
                assert_int_equal(d->class_id, x->class_id);
                if (x->visibility < 0.15f) hidden++;
                if (!scene_project(scene_camera(s, c), d->position, &u, &v)) continue;
                bool cut = x->whole_x <= 0 || x->whole_y <= 0 || x->whole_x + x->whole_w >= W ||
                           x->whole_y + x->whole_h >= H;
                if (cut || d->class_id != SCENE_PERSON || d->partner) continue;
                assert_true(u > x->whole_x - 2 && u < x->whole_x + x->whole_w + 2);
                float bottom = x->whole_y + x->whole_h, d_v = v - bottom;
                assert_true(d_v > -0.2f * x->whole_h - 2 && d_v < 2);
                feet++;
            }
        }
        for (int i = 0; i < n[0]; i++) {
            const struct scene_box *x = find(boxes[1], n[1], boxes[0][i].id);
            if (!x) continue;
            assert_int_equal(x->class_id, boxes[0][i].class_id);
            shared++;
        }
    }
    assert_true(feet > 200);
    assert_true(shared > 100);
    assert_true(hidden > 0);
    scene_free(&s);
    mem_budget_free(&b);
}

static double brightness(enum scene_light light, int frame)
{
    static uint8_t rgb[W * H * 3];
    struct scene_options o = small();
    o.light = light, o.cameras = 1;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct scene *s = must(&o, b);
    while (scene_frame(s) < frame) scene_step(s);
    scene_render(s, 0, rgb, 3 * W, NULL, 0, NULL);
    double sum = 0;
    for (size_t i = 0; i < sizeof rgb; i++) sum += rgb[i];
    scene_free(&s);
    mem_budget_free(&b);
    return sum / sizeof rgb;
}

static void test_light_falls(void **state)
{
    (void)state;
    double day = brightness(SCENE_DAY, 0), dusk = brightness(SCENE_DUSK, 0), night = brightness(SCENE_NIGHT, 0);
    assert_true(day > 1.2 * dusk && dusk > 1.2 * night && night > 3);
    double last = 300;
    for (int t = 0; t < 40; t += 13) {
        double now = brightness(SCENE_DAY_TO_DUSK, t);
        assert_true(now < last);
        last = now;
    }
    assert_true(last < 0.8 * day);
}

/* Nobody walks through houses, leaves the world, or stands still for ever; ids are never used twice. */
static void test_long_run(void **state)
{
    (void)state;
    struct scene_options o = small();
    o.cameras = 1, o.seconds = 300;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct scene *s = must(&o, b);
    int before = scene_identity_count(s);
    for (int t = 0; t < 3000; t++) scene_step(s);
    assert_true(scene_identity_count(s) > before + 10);
    int alive = 0, moving = 0;
    for (int i = 0; i < scene_identity_count(s); i++) {
        const struct scene_identity *d = scene_identity(s, i);
        assert_int_equal(d->id, i + 1);
        assert_true(d->first_frame <= d->last_frame);
        if (d->last_frame != scene_frame(s)) continue;
        alive++;
        if (d->class_id != SCENE_PERSON && !d->parked) moving++;
        float x = d->position[0], y = d->position[1];
        if (x < -400) continue;
        assert_true(x > -80 && x < 80 && y > -50 && y < 70);
        assert_false(x > -14 && x < 26 && y > 17 && y < 29);
        assert_false(x > -62 && x < -27 && y > 7 && y < 20);
    }
    assert_true(alive >= o.people + o.vehicles);
    assert_true(moving >= o.vehicles / 2);
    scene_free(&s);
    mem_budget_free(&b);
}

static long size_of(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);
    struct stat st;
    long n = stat(path, &st) == 0 ? (long)st.st_size : -1;
    free(path);
    return n;
}

static char *read_text(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name), *text = xcalloc((size_t)size_of(dir, name) + 1, 1);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fread(text, 1, (size_t)size_of(dir, name), f), size_of(dir, name));
    fclose(f);
    free(path);
    return text;
}

static void remove_all(const char *dir)
{
    char *command = xasprintf("rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
    free(command);
}

/* A point through the K, R and t of calibration.json must land where scene_project says. */
static void check_calibration(const char *dir, const struct scene_options *o)
{
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct scene *s = must(o, b);
    char *text = read_text(dir, "calibration.json"), *at = text;
    for (int i = 0; i < o->cameras; i++) {
        double f, cx, f2, cy, r[9], t[3];
        assert_non_null(at = strstr(at, "\"K\": [["));
        assert_int_equal(sscanf(at, "\"K\": [[%lf, 0, %lf], [0, %lf, %lf]", &f, &cx, &f2, &cy), 4);
        assert_non_null(at = strstr(at, "\"R\": [["));
        assert_int_equal(sscanf(at, "\"R\": [[%lf, %lf, %lf], [%lf, %lf, %lf], [%lf, %lf, %lf]]", r, r + 1, r + 2,
                                r + 3, r + 4, r + 5, r + 6, r + 7, r + 8),
                         9);
        assert_non_null(at = strstr(at, "\"t\": ["));
        assert_int_equal(sscanf(at, "\"t\": [%lf, %lf, %lf]", t, t + 1, t + 2), 3);
        const float p[3] = {-2.5f, 1, 0.7f};
        double c[3];
        for (int k = 0; k < 3; k++) c[k] = r[3 * k] * p[0] + r[3 * k + 1] * p[1] + r[3 * k + 2] * p[2] + t[k];
        float u, v;
        assert_true(scene_project(scene_camera(s, i), p, &u, &v));
        assert_true(c[2] > 0);
        assert_float_equal(u, f * c[0] / c[2] + cx, 0.01);
        assert_float_equal(v, f2 * c[1] / c[2] + cy, 0.01);
    }
    free(text);
    scene_free(&s);
    mem_budget_free(&b);
}

static void test_files(void **state)
{
    (void)state;
    char dir[] = "/tmp/brim-scene-XXXXXX";
    assert_non_null(mkdtemp(dir));
    struct scene_options o = small();
    o.seconds = 1;
    struct scene_files_options f = {.dir = dir, .coco_every = 5};
    struct scene_files_result r;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    assert_int_equal(scene_files_write(&o, &f, b, &r), ERR_OK);
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
    assert_int_equal(r.frames, 10);
    static const char *const names[] = {"cam1.mp4",
                                        "cam2.mp4",
                                        "calibration.json",
                                        "scene.json",
                                        "truth/cam1.txt",
                                        "truth/cam2.txt",
                                        "truth/objects.json",
                                        "truth/world.csv",
                                        "truth/coco.json",
                                        "images/cam1_000001.jpg",
                                        "images/cam2_000006.jpg"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) assert_true(size_of(dir, names[i]) > 100);
    long rows = 0;
    for (int c = 1; c <= 2; c++) {
        char name[32];
        snprintf(name, sizeof name, "truth/cam%d.txt", c);
        char *text = read_text(dir, name), *save = NULL;
        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save), rows++) {
            int frame, id, one, class_id;
            float x, y, w, h, visible;
            assert_int_equal(
                sscanf(line, "%d,%d,%f,%f,%f,%f,%d,%d,%f", &frame, &id, &x, &y, &w, &h, &one, &class_id, &visible),
                9);
            assert_true(frame >= 1 && frame <= 10 && id >= 1 && id <= r.identities && one == 1 && class_id >= 1 &&
                        class_id <= 4);
            assert_true(x >= 0 && y >= 0 && w > 0 && h > 0 && x + w <= W && y + h <= H && visible >= 0 &&
                        visible <= 1);
        }
        free(text);
    }
    assert_int_equal(rows, r.boxes);
    check_calibration(dir, &o);
    remove_all(dir);
    f.dir = "/proc/brim/nothing";
    b = mem_budget_new("host", UINT64_MAX);
    assert_int_equal(scene_files_write(&o, &f, b, &r), ERR_IO);
    mem_budget_free(&b);
}

static void test_memory_faults(void **state)
{
    (void)state;
    char dir[] = "/tmp/brim-scene-XXXXXX";
    assert_non_null(mkdtemp(dir));
    struct scene_options o = small();
    o.width = 64, o.height = 64, o.seconds = 0.2, o.people = 3, o.vehicles = 3, o.cameras = 1;
    struct scene_files_options f = {.dir = dir, .coco_every = 1};
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct scene_files_result r = {0};
    err e = ERR_NOMEM;
    int n = 0;
    while (e) {
        mem_fault_at(b, (uint64_t)++n);
        e = scene_files_write(&o, &f, b, &r);
        if (e) assert_int_equal(e, ERR_NOMEM);
        assert_int_equal(mem_budget_used(b), 0);
        assert_true(n < 200);
    }
    assert_true(n > 20);
    assert_int_equal(r.frames, 2);
    mem_budget_free(&b);
    remove_all(dir);
}

static void test_options(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct scene *s = NULL;
    struct scene_options bad[8];
    for (int i = 0; i < 8; i++) bad[i] = small();
    bad[0].cameras = 9, bad[1].width = 63, bad[2].height = 2000, bad[3].people = -1, bad[4].vehicles = 61,
    bad[5].fps = 0, bad[6].seconds = 0;
    bad[7].noise = -1;
    for (int i = 0; i < 8; i++) assert_int_equal(scene_new(&bad[i], b, &s), ERR_USAGE);
    assert_null(s);
    struct scene_options none = small();
    none.people = none.vehicles = 0, none.cameras = 1;
    s = must(&none, b); /* an empty street */
    static uint8_t rgb[W * H * 3];
    int n = -1;
    scene_render(s, 0, rgb, 3 * W, NULL, 0, &n);
    assert_int_equal(n, 0);
    scene_step(s);
    scene_free(&s);
    struct scene_options full = small();
    full.people = SCENE_MAX_PEOPLE, full.vehicles = SCENE_MAX_VEHICLES, full.cameras = 1;
    s = must(&full, b);
    static struct scene_box boxes[SCENE_MAX_BOXES];
    for (int t = 0; t < 20; t++) scene_render(s, 0, rgb, 3 * W, boxes, SCENE_MAX_BOXES, &n), scene_step(s);
    assert_true(n > 10);
    scene_free(&s);
    mem_budget_free(&b);
    enum scene_light l;
    assert_int_equal(scene_light_parse("day-to-dusk", &l), ERR_OK);
    assert_int_equal(l, SCENE_DAY_TO_DUSK);
    assert_int_equal(scene_light_parse("noon", &l), ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed_same_bytes),
        cmocka_unit_test(test_truth_is_brute_force),
        cmocka_unit_test(test_feet_and_identities),
        cmocka_unit_test(test_light_falls),
        cmocka_unit_test(test_long_run),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_memory_faults),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

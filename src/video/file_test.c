/* Tests of cameras that are files and images, decoded in a thread: every frame, in order, of the right time and look;
 * loops; thinning; broken files; no memory. SPDX-License-Identifier: Apache-2.0 */
#include "video/testing.h"

#include "video/source.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <cmocka.h>

static char *dir;

static int setup(void **state)
{
    (void)state;
    dir = temp_dir();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove_dir(dir);
    return 0;
}

static char *in_dir(const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

static double mean_luma(const struct video_frame *f)
{
    double sum = 0; /* of the lowest quarter, where there is no box */
    for (int y = f->height * 3 / 4; y < f->height; y++)
        for (int x = 0; x < f->width; x++) sum += f->plane[0][y * f->stride[0] + x];
    double m = sum / ((double)f->width * (f->height - f->height * 3 / 4));
    return f->full_range ? m : (m - 16) * 255 / 219;
}

static void every_frame_in_order(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    static const struct {
        const char *name;
        int b_frames;
        bool mpeg4;
    } kinds[] = {
        {"a.mp4", 0, false}, {"b.mp4", 3, false}, {"c.mp4", 0, true}, {"d.avi", 0, false}, {"e.mkv", 2, false}};
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        char *path = in_dir(kinds[k].name);
        assert_int_equal(clip_make(path, 162, 122, 60, 12.5, kinds[k].b_frames, kinds[k].mpeg4), ERR_OK);
        struct waker w = WAKER_INIT;
        struct video_options o = VIDEO_OPTIONS_DEFAULT;
        o.name = "file";
        o.url = path;
        o.pace = VIDEO_PACE_MAX;
        struct video_camera *cam;
        struct video_frame *f, *kept = NULL;
        assert_int_equal(video_camera_open(&o, b, waker_wake, &w, &cam), ERR_OK);
        int n = 0;
        err e;
        while ((e = next_frame(cam, &w, &f)) == ERR_OK) {
            assert_int_equal(f->width, 162);
            assert_int_equal(f->height, 122);
            assert_int_equal(f->seq, n + 1);
            assert_true(fabs(f->pts - n / 12.5) < 1e-3);
            assert_true(fabs(mean_luma(f) - clip_grey(n)) < 4);
            if (n == 5) kept = video_frame_ref(f);
            video_frame_unref(&f);
            n++;
        }
        assert_int_equal(e, ERR_CLOSED);
        assert_int_equal(n, 60);
        struct video_stats s;
        video_camera_stats(cam, &s);
        assert_int_equal(s.state, VIDEO_ENDED);
        assert_int_equal(s.published, 60);
        assert_int_equal(s.dropped + s.corrupt + s.skipped + s.no_memory + s.reconnects, 0);
        assert_true(fabs(s.stream_fps - 12.5) < 0.01 && s.bytes > 0 && s.codec[0]);
        video_camera_close(&cam);
        assert_true(mem_budget_used(b) > 0); /* a frame may outlive its camera */
        assert_true(fabs(mean_luma(kept) - clip_grey(5)) < 4);
        video_frame_unref(&kept);
        assert_int_equal(mem_budget_used(b), 0);
        free(path);
    }
    mem_budget_free(&b);
}

static void loops_without_reopening(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    static const char *const names[] = {"loop.mp4", "loop.avi"};
    for (size_t k = 0; k < 2; k++) {
        char *path = in_dir(names[k]);
        assert_int_equal(clip_make(path, 64, 48, 20, 10, 2, false), ERR_OK);
        struct waker w = WAKER_INIT;
        struct video_options o = VIDEO_OPTIONS_DEFAULT;
        o.name = "loop", o.url = path, o.pace = VIDEO_PACE_MAX, o.loop = true;
        struct video_camera *cam;
        struct video_frame *f;
        assert_int_equal(video_camera_open(&o, b, waker_wake, &w, &cam), ERR_OK);
        for (int n = 0; n < 110; n++) {
            assert_int_equal(next_frame(cam, &w, &f), ERR_OK);
            assert_true(fabs(f->pts - n / 10.0) < 1e-3);
            assert_true(fabs(mean_luma(f) - clip_grey(n % 20)) < 4);
            video_frame_unref(&f);
        }
        struct video_stats s;
        video_camera_stats(cam, &s);
        assert_int_equal(s.reconnects + s.corrupt, 0);
        video_camera_close(&cam);
        assert_int_equal(mem_budget_used(b), 0);
        free(path);
    }
    mem_budget_free(&b);
}

static void thinned_to_what_is_wanted(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    static const char *const names[] = {"thin.mp4", "thin.avi"};
    static const double rates[] = {5, 10, 1, 25, 60};
    for (size_t k = 0; k < 2; k++) {
        char *path = in_dir(names[k]);
        assert_int_equal(clip_make(path, 64, 48, 100, 25, 0, false), ERR_OK);
        for (size_t r = 0; r < ARRAY_LEN(rates); r++) {
            struct waker w = WAKER_INIT;
            struct video_options o = VIDEO_OPTIONS_DEFAULT;
            o.name = "thin", o.url = path, o.pace = VIDEO_PACE_MAX, o.max_fps = rates[r];
            struct video_camera *cam;
            struct video_frame *f;
            assert_int_equal(video_camera_open(&o, b, waker_wake, &w, &cam), ERR_OK);
            int n = 0;
            while (next_frame(cam, &w, &f) == ERR_OK) {
                video_frame_unref(&f);
                n++;
            }
            assert_int_equal(n, (int)fmin(100, 4 * rates[r]));
            struct video_stats s;
            video_camera_stats(cam, &s);
            assert_int_equal(s.skipped, 100 - n);
            if (k == 1) assert_int_equal(s.decoded, n); /* MJPEG: not even decoded */
            video_camera_close(&cam);
        }
        free(path);
    }
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
}

/* At its own pace nobody waits for the taker: taken, dropped and skipped frames add up. */
static void live_drops_and_counts(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    char *path = in_dir("live.mp4");
    assert_int_equal(clip_make(path, 64, 48, 60, 100, 0, false), ERR_OK);
    struct waker w = WAKER_INIT;
    struct video_options o = VIDEO_OPTIONS_DEFAULT;
    o.name = "live", o.url = path;
    struct video_camera *cam;
    struct video_frame *f;
    assert_int_equal(video_camera_open(&o, b, waker_wake, &w, &cam), ERR_OK);
    assert_true(await_state(cam, VIDEO_ENDED)); /* nobody takes */
    struct video_stats s;
    video_camera_stats(cam, &s);
    assert_int_equal(s.published, 60);
    assert_int_equal(s.dropped, 59);
    assert_int_equal(video_camera_latest(cam, &f), ERR_OK);
    assert_int_equal(f->seq, 60);
    video_frame_unref(&f);
    assert_int_equal(video_camera_latest(cam, &f), ERR_CLOSED);
    video_camera_close(&cam);
    o.loop = true;
    int64_t begin = clock_ns();
    assert_int_equal(video_camera_open(&o, b, waker_wake, &w, &cam), ERR_OK);
    assert_int_equal(next_frame(cam, &w, &f), ERR_OK);
    video_frame_unref(&f);
    video_camera_set_need(cam, 0);
    uint64_t skipped = 0;
    for (int64_t end = testing_deadline(); clock_ns() < end && skipped < 150;) {
        usleep(5000);
        video_camera_stats(cam, &s);
        skipped = s.skipped;
    }
    assert_true(skipped >= 150);
    assert_int_equal(s.state, VIDEO_LIVE);
    while (video_camera_latest(cam, &f) == ERR_OK) video_frame_unref(&f);
    video_camera_set_need(cam, -1);
    assert_int_equal(next_frame(cam, &w, &f), ERR_OK);
    assert_true(f->pts <= (double)(clock_ns() - begin) / 1e9 + 1.1); /* it did not race ahead while nobody looked */
    video_frame_unref(&f);
    video_camera_close(&cam);
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
    free(path);
}

static void folder_of_images(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    char *folder = in_dir("pictures");
    mkdir(folder, 0755);
    for (int i = 0; i < 6; i++) {
        size_t n;
        uint8_t *jpeg = clip_jpeg(64 + 16 * i, 48, i, &n);
        char *path = xasprintf("%s/%02d.jpg", folder, i);
        file_write(path, jpeg, i == 3 ? n / 20 : n); /* one is cut off in its header */
        free(path);
        free(jpeg);
    }
    char *text = xasprintf("%s/04b.png", folder);
    file_write(text, "this is not a picture", 21);
    for (int loop = 0; loop < 2; loop++) {
        struct waker w = WAKER_INIT;
        struct video_options o = VIDEO_OPTIONS_DEFAULT;
        o.name = "pictures", o.url = folder, o.pace = VIDEO_PACE_MAX, o.loop = loop;
        struct video_camera *cam;
        struct video_frame *f;
        assert_int_equal(video_camera_open(&o, b, waker_wake, &w, &cam), ERR_OK);
        static const int order[] = {0, 1, 2, 4, 5};
        for (int n = 0; n < (loop ? 15 : 5); n++) {
            assert_int_equal(next_frame(cam, &w, &f), ERR_OK);
            int i = order[n % 5];
            assert_int_equal(f->width, 64 + 16 * i);
            assert_true(f->full_range && fabs(mean_luma(f) - clip_grey(i)) < 4);
            video_frame_unref(&f);
        }
        if (!loop) assert_int_equal(next_frame(cam, &w, &f), ERR_CLOSED);
        struct video_stats s;
        video_camera_stats(cam, &s);
        assert_true(s.corrupt >= 2);
        assert_string_equal(s.codec, "mjpeg");
        video_camera_close(&cam);
        assert_int_equal(mem_budget_used(b), 0);
    }
    free(text);
    free(folder);
    mem_budget_free(&b);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct video_camera *cam = NULL;
    struct video_options o = VIDEO_OPTIONS_DEFAULT;
    assert_int_equal(video_camera_open(&o, b, NULL, NULL, &cam), ERR_USAGE);
    o.name = "x";
    assert_int_equal(video_camera_open(&o, b, NULL, NULL, &cam), ERR_USAGE);
    o.url = "gopher://host/x";
    assert_int_equal(video_camera_open(&o, b, NULL, NULL, &cam), ERR_UNSUPPORTED);
    o.url = "/nowhere/at/all.mp4";
    o.max_fps = -1;
    assert_int_equal(video_camera_open(&o, b, NULL, NULL, &cam), ERR_USAGE);
    assert_null(cam);
    o.max_fps = 0;
    struct video_stats s;
    assert_int_equal(video_camera_open(&o, b, NULL, NULL, &cam), ERR_OK); /* it may yet appear */
    assert_true(await_state(cam, VIDEO_WAITING));
    video_camera_stats(cam, &s);
    assert_non_null(strstr(s.error, "/nowhere/at/all.mp4"));
    assert_true(s.wait_s >= 0 && s.wait_s <= 30); /* it may be at its second attempt already */
    video_camera_close(&cam);
    o.pace = VIDEO_PACE_MAX;
    assert_int_equal(video_camera_open(&o, b, NULL, NULL, &cam), ERR_OK);
    assert_true(await_state(cam, VIDEO_FAILED));
    struct video_frame *f;
    assert_int_equal(video_camera_latest(cam, &f), ERR_CLOSED);
    video_camera_close(&cam);
    video_camera_close(&cam);
    char text[64];
    video_url_redact("rtsp://user:p@ss@host:554/a?token=1", text, sizeof text);
    assert_string_equal(text, "rtsp://host:554/a?...");
    video_url_redact("rtsp://host/a@b", text, sizeof text);
    assert_string_equal(text, "rtsp://host/a@b");
    video_url_redact("/a/path?x.mp4", text, 8);
    assert_string_equal(text, "/a/path");
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
}

static uint64_t drain_file(struct mem_budget *b, const char *path, struct video_stats *s)
{
    struct waker w = WAKER_INIT;
    struct video_options o = VIDEO_OPTIONS_DEFAULT;
    o.name = "file", o.url = path, o.pace = VIDEO_PACE_MAX;
    struct video_camera *cam;
    struct video_frame *f;
    uint64_t n = 0;
    assert_int_equal(video_camera_open(&o, b, waker_wake, &w, &cam), ERR_OK);
    err e;
    while ((e = next_frame(cam, &w, &f)) == ERR_OK) {
        video_frame_unref(&f);
        n++;
    }
    assert_int_equal(e, ERR_CLOSED);
    video_camera_stats(cam, s);
    video_camera_close(&cam);
    return n;
}

static void broken_files_end(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", 64 << 20);
    static const char *const names[] = {"whole.mp4", "whole.avi", "whole.mkv"};
    uint64_t frames = 0, files = 0;
    for (size_t k = 0; k < 3; k++) {
        char *path = in_dir(names[k]), *broken = xasprintf("%s/broken%s", dir, strrchr(names[k], '.'));
        assert_int_equal(clip_make(path, 96, 64, 30, 10, 0, false), ERR_OK);
        size_t n;
        uint8_t *bytes = file_read(path, &n), *copy = malloc(n);
        struct video_stats s;
        for (int i = 0; i < 40; i++, files++) {
            size_t keep = n;
            memcpy(copy, bytes, n);
            if (i % 4 == 0)
                keep = n * (size_t)i / 40;
            else
                for (int j = 0; j < i; j++) copy[hash64(&j, sizeof j, (uint64_t)i) % n] ^= (uint8_t)(1 << (j % 8));
            file_write(broken, copy, keep);
            frames += drain_file(b, broken, &s);
            assert_int_equal(mem_budget_used(b), 0);
        }
        free(bytes);
        free(copy);
        free(path);
        free(broken);
    }
    print_message("# %llu frames out of %llu broken files, peak %llu bytes\n", (unsigned long long)frames,
                  (unsigned long long)files, (unsigned long long)mem_budget_peak(b));
    mem_budget_free(&b);
}

static void nth_allocation_fails(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    char *path = in_dir("fault.mp4");
    assert_int_equal(clip_make(path, 64, 48, 30, 10, 2, false), ERR_OK);
    uint64_t n = 1, calls;
    do {
        struct waker w = WAKER_INIT;
        struct video_options o = VIDEO_OPTIONS_DEFAULT;
        o.name = "fault", o.url = path, o.pace = VIDEO_PACE_MAX;
        struct video_camera *cam;
        mem_fault_at(b, n);
        assert_int_equal(video_camera_open(&o, b, waker_wake, &w, &cam), ERR_OK);
        int got = 0;
        struct video_frame *f;
        err e = ERR_OK;
        while (got < 10 && (e = next_frame(cam, &w, &f)) == ERR_OK) {
            video_frame_unref(&f);
            got++;
        }
        struct video_stats s;
        video_camera_stats(cam, &s);
        calls = mem_fault_calls(b);
        if (got < 10) assert_true(e == ERR_CLOSED && (s.state == VIDEO_FAILED || s.no_memory));
        if (s.state == VIDEO_FAILED) assert_true(s.error[0]);
        video_camera_close(&cam);
        assert_int_equal(mem_budget_used(b), 0);
    } while (n++ <= calls);
    print_message("# failed each of %llu allocations once\n", (unsigned long long)n - 1);
    mem_fault_at(b, 0);
    mem_budget_free(&b);
    free(path);
}

static void comes_back_when_there_is_room(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", 1 << 20);
    char *path = in_dir("room.mp4");
    assert_int_equal(clip_make(path, 320, 240, 30, 30, 0, false), ERR_OK);
    struct waker w = WAKER_INIT;
    struct video_options o = VIDEO_OPTIONS_DEFAULT;
    o.name = "room", o.url = path, o.loop = true;
    struct video_camera *cam;
    struct video_frame *f;
    struct video_stats s;
    assert_int_equal(video_camera_open(&o, b, waker_wake, &w, &cam), ERR_OK);
    assert_true(await_state(cam, VIDEO_WAITING));
    video_camera_stats(cam, &s);
    assert_non_null(strstr(s.error, "budget"));
    assert_true(mem_budget_peak(b) <= 1 << 20);
    mem_budget_set_limit(b, 5 << 20); /* room for the decoder, hardly for pictures: they are lost one by one */
    usleep(100000);
    mem_budget_set_limit(b, 64 << 20);
    assert_int_equal(next_frame(cam, &w, &f), ERR_OK);
    video_frame_unref(&f);
    video_camera_close(&cam);
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
    free(path);
}

/* Found by the fuzzer: a charge that shrinks twice must not count as two that are gone. */
static void charges_that_change_stay_one(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", 100);
    struct mem_payer *p = mem_payer_new(b, "x");
    size_t charged = 0;
    static const size_t sizes[] = {50, 40, 30, 60, 60, 20, 0, 10, 100, 5};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        assert_int_equal(video_recharge(p, MEM_DECODER, &charged, sizes[i]), ERR_OK);
        struct mem_row *row;
        assert_int_equal(mem_snapshot(b, &row), 1);
        assert_int_equal(row->used[MEM_DECODER], sizes[i]);
        assert_int_equal(row->count, sizes[i] ? 1 : 0);
        free(row);
    }
    assert_int_equal(video_recharge(p, MEM_DECODER, &charged, 101), ERR_NOMEM);
    assert_int_equal(charged, 5);
    mem_release(p, MEM_DECODER, charged);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

/* All shared videos: every frame, and what it costs. */
static void shared_videos(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        int w, h, frames;
    } videos[] = {{"videos/multicam/four_cam/cam0.mp4", 1288, 728, 268},
                  {"videos/multicam/four_cam/cam1.mp4", 1288, 728, 268},
                  {"videos/multicam/four_cam/cam2.mp4", 1288, 728, 268},
                  {"videos/multicam/four_cam/cam3.mp4", 1288, 728, 268},
                  {"videos/intel/car-detection.mp4", 768, 432, 377},
                  {"videos/intel/one-by-one-person-detection.mp4", 768, 432, 1394},
                  {"videos/traffic_it/nighttraffic.mp4", 0, 0, 375},
                  {"videos/traffic_it/salitona.mp4", 0, 0, 375},
                  {"videos/traffic_it/salitona_20190114_1605.mp4", 0, 0, 375},
                  {"videos/traffic_it/svincolo.mp4", 0, 0, 375},
                  {"videos/traffic_it/traffic.mp4", 0, 0, 375},
                  {"videos/bgslib/video.avi", 640, 360, 374}};
    for (size_t i = 0; i < ARRAY_LEN(videos); i++) {
        char *path = data_path(videos[i].path);
        if (!path) skip();
        struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
        struct video_stats s;
        struct rusage before, after;
        getrusage(RUSAGE_SELF, &before);
        uint64_t n = drain_file(b, path, &s);
        getrusage(RUSAGE_SELF, &after);
        double ms = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1e3 +
                    (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec) / 1e3 +
                    (double)(after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1e3 +
                    (double)(after.ru_stime.tv_usec - before.ru_stime.tv_usec) / 1e3;
        print_message(
            "# %s: %s %dx%d, %llu frames, %llu corrupt, %.2f ms CPU a frame, peak %.1f MiB (decoder from %.1f)\n",
            videos[i].path, s.codec, s.width, s.height, (unsigned long long)n, (unsigned long long)s.corrupt,
            ms / (double)n, (double)mem_budget_peak(b) / 1048576,
            (double)video_decoder_bytes(s.width, s.height, 4) / 1048576);
        assert_int_equal(n, videos[i].frames);
        if (videos[i].w) assert_true(s.width == videos[i].w && s.height == videos[i].h);
        assert_int_equal(s.corrupt, 0);
        assert_int_equal(mem_budget_used(b), 0);
        mem_budget_free(&b);
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_frame_in_order),          cmocka_unit_test(loops_without_reopening),
        cmocka_unit_test(thinned_to_what_is_wanted),     cmocka_unit_test(live_drops_and_counts),
        cmocka_unit_test(folder_of_images),              cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(broken_files_end),              cmocka_unit_test(nth_allocation_fails),
        cmocka_unit_test(comes_back_when_there_is_room), cmocka_unit_test(charges_that_change_stay_one),
        cmocka_unit_test(shared_videos)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

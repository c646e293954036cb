/* Tests of decoding in a child process: the same frames, and a child that is killed, stopped, or lies.
 * This program is its own child: with VIDEO_DECODE_ARG it decodes, or misbehaves as $BRIM_TEST_CHILD says.
 * SPDX-License-Identifier: Apache-2.0 */
#include "video/testing.h"

#include "video/wire.h"

#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <cmocka.h>

static char *dir, *clip;

static int setup(void **state)
{
    (void)state;
    dir = temp_dir();
    clip = xasprintf("%s/clip.mp4", dir);
    return clip_make(clip, 162, 122, 40, 20, 2, false);
}

static int teardown(void **state)
{
    (void)state;
    free(clip);
    remove_dir(dir);
    return 0;
}

/* `hurt`: its child will be silent, which it must notice; a child that is only slow to begin gets that time, too. Any other has all the time of a slow machine. */
static struct video_camera *open_camera(struct mem_budget *b, struct waker *w, enum video_pace pace, bool loop, bool hurt)
{
    struct video_options o = VIDEO_OPTIONS_DEFAULT;
    o.name = "child", o.url = clip, o.pace = pace, o.loop = loop, o.decode = VIDEO_DECODE_PROCESS;
    o.timeout_ms = hurt ? 8000 : TESTING_PATIENCE_MS;
    struct video_camera *cam = NULL;
    assert_int_equal(video_camera_open(&o, b, waker_wake, w, &cam), ERR_OK);
    return cam;
}

/* The next frame, which must come. */
static struct video_frame *take(struct video_camera *cam, struct waker *w)
{
    struct video_frame *f = NULL;
    struct video_stats s;
    err e = next_frame(cam, w, &f);
    video_camera_stats(cam, &s);
    if (e) fail_msg("%s; the camera is %s after %llu of %llu frames: %s", err_text(), video_state_name(s.state), (unsigned long long)s.published, (unsigned long long)s.decoded, s.error);
    return f;
}

static void same_frames_as_in_a_thread(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct waker w = WAKER_INIT, v = WAKER_INIT;
    struct video_options o = VIDEO_OPTIONS_DEFAULT;
    o.name = "thread", o.url = clip, o.pace = VIDEO_PACE_MAX;
    struct video_camera *cam = open_camera(b, &w, VIDEO_PACE_MAX, false, false), *ref;
    assert_int_equal(video_camera_open(&o, b, waker_wake, &v, &ref), ERR_OK);
    struct video_frame *f, *g;
    int n = 0;
    while (next_frame(ref, &v, &g) == ERR_OK) {
        f = take(cam, &w);
        assert_true(f->format == g->format && f->width == g->width && f->height == g->height);
        assert_true(fabs(f->pts - g->pts) < 1e-9 && f->full_range == g->full_range &&
                    f->chroma_left == g->chroma_left);
        for (int i = 0; i < 3; i++)
            for (int y = 0; y < (i ? 61 : 122); y++)
                assert_memory_equal(f->plane[i] + y * f->stride[i], g->plane[i] + y * g->stride[i], i ? 81 : 162);
        video_frame_unref(&f);
        video_frame_unref(&g);
        n++;
    }
    assert_int_equal(n, 40);
    assert_int_equal(next_frame(cam, &w, &f), ERR_CLOSED);
    struct video_stats s;
    video_camera_stats(cam, &s);
    assert_int_equal(s.state, VIDEO_ENDED);
    assert_int_equal(s.decoded, 40);
    assert_string_equal(s.codec, "h264");
    video_camera_close(&cam);
    video_camera_close(&ref);
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
}

static void killed_child_comes_back(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct waker w = WAKER_INIT;
    struct video_camera *cam = open_camera(b, &w, VIDEO_PACE_LIVE, true, true);
    struct video_frame *f, *kept = NULL;
    double pts = -1;
    int last = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 5; i++) {
            f = take(cam, &w);
            assert_true(f->pts > pts); /* also over the restart */
            pts = f->pts;
            if (!kept) kept = video_frame_ref(f);
            video_frame_unref(&f);
        }
        struct video_stats s;
        video_camera_stats(cam, &s);
        assert_true(s.child_pid > 0 && s.child_pid != last);
        assert_true(s.reconnects >= (uint64_t)round); /* more, if the machine was too slow for the child to answer */
        last = s.child_pid;
        assert_int_equal(kill(s.child_pid, round == 1 ? SIGSTOP : SIGKILL), 0);
    }
    assert_true(kept->plane[0][0] + 1 > 0); /* its memory outlives the child */
    assert_int_equal(next_frame(cam, &w, &f), ERR_OK);
    video_frame_unref(&f);
    video_camera_close(&cam);
    video_frame_unref(&kept);
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
}

static void lying_child_is_refused(void **state)
{
    (void)state;
    static const char *const lies[] = {"garbage", "slot", "size", "short", "mute", "end", "want"};
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
        struct mem_budget *b = mem_budget_new("host", 256 << 20);
        struct waker w = WAKER_INIT;
        setenv("BRIM_TEST_CHILD", lies[i], 1);
        struct video_camera *cam = open_camera(b, &w, VIDEO_PACE_LIVE, true, true);
        assert_true(await_state(cam, VIDEO_WAITING));
        unsetenv("BRIM_TEST_CHILD");
        struct video_stats s;
        video_camera_stats(cam, &s);
        print_message("# %s: %s\n", lies[i], s.error);
        assert_non_null(strstr(s.error, "decoder"));
        struct video_frame *f;
        assert_int_equal(next_frame(cam, &w, &f), ERR_OK); /* the next child is honest */
        video_frame_unref(&f);
        video_camera_close(&cam);
        assert_int_equal(mem_budget_used(b), 0);
        assert_true(mem_budget_peak(b) <= 256 << 20);
        mem_budget_free(&b);
    }
}

/* What the parent believes, packet by packet. */
static void packets_are_checked(void **state)
{
    (void)state;
    struct video_wire_state st = {.generation = 7, .slot_bytes = 1 << 16, .busy = {false, true, false}};
    struct video_wire good = {.magic = VIDEO_WIRE_MAGIC, .type = WIRE_FRAME, .generation = 7, .slot = 0,
                              .frame = {.format = VIDEO_I420, .width = 100, .height = 100, .pts = 1}},
                      m = good;
    assert_int_equal(video_wire_check(&m, sizeof m, &st), ERR_OK);
    assert_int_equal(video_wire_check(&m, sizeof m - 1, &st), ERR_CORRUPT);
    assert_int_equal(video_wire_check(&m, 0, &st), ERR_CORRUPT);
#define LIE(change)                                                                                          \
    m = good;                                                                                                \
    change;                                                                                                  \
    assert_int_equal(video_wire_check(&m, sizeof m, &st), ERR_CORRUPT)
    LIE(m.magic = 0);
    LIE(m.type = WIRE_OPEN);
    LIE(m.type = 99);
    LIE(m.generation = 6);
    LIE(m.slot = 1);
    LIE(m.slot = 3);
    LIE(m.frame.format = 6);
    LIE(m.frame.format = -1);
    LIE(m.frame.width = 0);
    LIE(m.frame.width = 8193);
    LIE(m.frame.width = 1000);
    LIE(m.frame.height = -100);
    LIE(m.frame.matrix = 3);
    LIE(m.frame.pts = NAN);
    LIE(m.frame.pts = -1);
    LIE(memset(m.text, 'x', sizeof m.text));
    LIE(m.type = WIRE_WANT; m.bytes = 0);
    LIE(m.type = WIRE_WANT; m.bytes = UINT64_MAX);
    LIE(m.type = WIRE_INFO; m.fps = INFINITY);
    LIE(m.type = WIRE_END; m.code = 0);
    LIE(m.type = WIRE_END; m.code = -1);
}

static void nth_allocation_fails(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    for (uint64_t n = 1; n <= 4; n++) {
        struct waker w = WAKER_INIT;
        mem_fault_at(b, n);
        struct video_camera *cam = open_camera(b, &w, VIDEO_PACE_LIVE, true, false);
        struct video_frame *f;
        for (int i = 0; i < 5; i++) {
            assert_int_equal(next_frame(cam, &w, &f), ERR_OK);
            video_frame_unref(&f);
        }
        video_camera_close(&cam);
        assert_int_equal(mem_budget_used(b), 0);
    }
    mem_fault_at(b, 0);
    mem_budget_free(&b);
}

static void closes_at_once(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    for (int i = 0; i < 12; i++) {
        struct waker w = WAKER_INIT;
        struct video_camera *cam = open_camera(b, &w, VIDEO_PACE_LIVE, true, false);
        usleep((useconds_t)i * 10000);
        video_camera_close(&cam);
        assert_int_equal(mem_budget_used(b), 0);
    }
    mem_budget_free(&b);
}

/* A child may end with a packet of ours unread (unix(7): ECONNRESET); what it had sent before counts. */
static void last_frames_of_a_file_are_not_lost(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", 256 << 20);
    struct waker w = WAKER_INIT;
    setenv("BRIM_TEST_CHILD", "hasty", 1);
    struct video_camera *cam = open_camera(b, &w, VIDEO_PACE_MAX, false, false);
    struct video_frame *f = take(cam, &w), *held[2];
    unsetenv("BRIM_TEST_CHILD");
    struct video_stats s;
    video_camera_stats(cam, &s);
    video_frame_unref(&f); /* the packet that the child does not read */
    assert_int_equal(waitid(P_PID, (id_t)s.child_pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
    for (int i = 0; i < 2; i++) held[i] = take(cam, &w); /* giving one back would send, and hear of the reset there */
    assert_int_equal(next_frame(cam, &w, &f), ERR_CLOSED);
    for (int i = 0; i < 2; i++) video_frame_unref(&held[i]);
    video_camera_stats(cam, &s);
    assert_int_equal(s.state, VIDEO_ENDED);
    video_camera_close(&cam);
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
}

/* Three frames of 64 x 64 and the end, sent while a packet lies unread. */
static int hasty(struct video_wire *m)
{
    m->type = WIRE_WANT;
    m->bytes = 64 * 64 * 2;
    send(3, m, sizeof *m, 0);
    recv(3, m, sizeof *m, 0); /* the slots */
    m->type = WIRE_FRAME;
    m->generation = 1;
    m->frame.width = m->frame.height = 64;
    for (m->slot = 0; m->slot < 3; m->slot++) {
        m->frame.pts = m->slot;
        send(3, m, sizeof *m, 0);
    }
    m->type = WIRE_END;
    m->code = ERR_CLOSED;
    send(3, m, sizeof *m, 0);
    struct pollfd p = {.fd = 3, .events = POLLIN};
    poll(&p, 1, -1);
    return 0;
}

/* The child that lies. */
static int misbehave(const char *how)
{
    struct video_wire m;
    if (recv(3, &m, sizeof m, 0) != sizeof m) return 2;
    memset(&m, 0, sizeof m);
    m.magic = VIDEO_WIRE_MAGIC;
    m.type = WIRE_INFO;
    snprintf(m.text, sizeof m.text, "liar");
    m.fps = 25;
    m.file = !strcmp(how, "hasty");
    if (!strcmp(how, "mute")) {
        for (;;) pause();
    }
    send(3, &m, sizeof m, 0);
    if (m.file) return hasty(&m);
    m.type = WIRE_FRAME;
    m.generation = 1;
    m.frame.width = m.frame.height = 64;
    if (!strcmp(how, "garbage")) memset(&m, 0xa5, sizeof m);
    if (!strcmp(how, "slot")) m.slot = 1000000;
    if (!strcmp(how, "end")) m.type = WIRE_END, m.code = 12345;
    if (!strcmp(how, "want")) m.type = WIRE_WANT, m.bytes = 1ULL << 40;
    if (!strcmp(how, "size")) {
        m.type = WIRE_WANT;
        m.bytes = 4096;
        send(3, &m, sizeof m, 0);
        recv(3, &m, sizeof m, 0); /* the slots */
        m.type = WIRE_FRAME;
        m.generation = 1;
        m.frame.width = m.frame.height = 8192;
    }
    send(3, &m, strcmp(how, "short") ? sizeof m : 100, 0);
    for (;;) pause();
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], VIDEO_DECODE_ARG)) {
        const char *how = getenv("BRIM_TEST_CHILD");
        return how ? misbehave(how) : video_decode_main(argc, argv);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_frames_as_in_a_thread), cmocka_unit_test(last_frames_of_a_file_are_not_lost), cmocka_unit_test(killed_child_comes_back),
        cmocka_unit_test(lying_child_is_refused),     cmocka_unit_test(packets_are_checked),
        cmocka_unit_test(nth_allocation_fails),       cmocka_unit_test(closes_at_once)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* Tests of cameras on a network, against servers in this process: MJPEG over HTTP that behaves, changes its size,
 * flaps, stalls, lies, floods, trickles or says nothing; and RTSP from gst-rtsp-server where it is installed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "video/testing.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <cmocka.h>

enum mode { GOOD, CHANGING, FLAPPING, STALLING, GARBAGE, TRICKLE, FLOOD, SILENT, REDIRECT, NOT_FOUND };

/* One connection at a time, until stop. */
struct server {
    enum mode mode;
    int fd, port;
    atomic_bool stop;
    atomic_int connections;
    pthread_t thread;
};

static bool put(struct server *s, int c, const void *bytes, size_t n)
{
    const char *p = bytes;
    while (n && !atomic_load(&s->stop)) {
        struct pollfd pf = {.fd = c, .events = POLLOUT};
        if (poll(&pf, 1, 50) < 0) return false;
        ssize_t k = send(c, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0 && errno != EAGAIN) return false;
        if (k > 0) p += k, n -= (size_t)k;
    }
    return !n;
}

static bool put_text(struct server *s, int c, const char *t)
{
    return put(s, c, t, strlen(t));
}

static void multipart(struct server *s, int c)
{
    if (!put_text(s, c, "HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")) return;
    for (int i = 0; !atomic_load(&s->stop); i++) {
        if (s->mode == FLAPPING && i == 4) return;
        if (s->mode == STALLING && i == 4) {
            while (!atomic_load(&s->stop)) {
                struct pollfd pf = {.fd = c, .events = POLLIN};
                char b;
                if (poll(&pf, 1, 20) > 0 && recv(c, &b, 1, MSG_DONTWAIT) == 0) return; /* the camera gave up */
            }
            return;
        }
        size_t n;
        int w = s->mode == CHANGING && i / 5 % 2 ? 320 : 160;
        uint8_t *jpeg = clip_jpeg(w, 120, i, &n);
        char head[128];
        snprintf(head, sizeof head, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %zu\r\n\r\n", n);
        bool ok = put_text(s, c, head) && put(s, c, jpeg, n) && put_text(s, c, "\r\n");
        free(jpeg);
        if (!ok) return;
        usleep(10000);
    }
}

static void serve_one(struct server *s, int c)
{
    char request[2048];
    struct pollfd pf = {.fd = c, .events = POLLIN};
    if (poll(&pf, 1, TESTING_PATIENCE_MS) <= 0 || recv(c, request, sizeof request, 0) <= 0) return;
    uint8_t noise[4096];
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)hash64(&i, sizeof i, 1);
    switch (s->mode) {
    case GARBAGE:
        put_text(s, c, "HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n");
        for (int i = 0; i < 2000 && put(s, c, noise, sizeof noise); i++) {}
        break;
    case TRICKLE:
        put_text(s, c, "HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n");
        while (put_text(s, c, "-")) usleep(20000);
        break;
    case FLOOD:
        put_text(s, c, "HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
                       "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 2000000000\r\n\r\n");
        while (put(s, c, noise, sizeof noise)) {}
        break;
    case SILENT:
        while (!atomic_load(&s->stop)) usleep(10000);
        break;
    case REDIRECT: put_text(s, c, "HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"); break;
    case NOT_FOUND: put_text(s, c, "HTTP/1.0 404 Not Found\r\n\r\n"); break;
    default: multipart(s, c);
    }
}

static void *server_main(void *arg)
{
    struct server *s = arg;
    while (!atomic_load(&s->stop)) {
        struct pollfd pf = {.fd = s->fd, .events = POLLIN};
        if (poll(&pf, 1, 20) <= 0) continue;
        int c = accept(s->fd, NULL, NULL);
        if (c < 0) continue;
        atomic_fetch_add(&s->connections, 1);
        serve_one(s, c);
        close(c);
    }
    return NULL;
}

static void server_start(struct server *s, enum mode mode)
{
    memset(s, 0, sizeof *s);
    s->mode = mode;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->fd, 8), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &n), 0);
    s->port = ntohs(a.sin_port);
    pthread_create(&s->thread, NULL, server_main, s);
}

static void server_stop(struct server *s)
{
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
    close(s->fd);
}

struct fixture {
    struct server server;
    struct mem_budget *budget;
    struct waker waker;
    struct video_camera *cam;
};

static void begin(struct fixture *x, enum mode mode, enum video_decode decode, int stall_ms, int timeout_ms)
{
    memset(x, 0, sizeof *x);
    pthread_mutex_init(&x->waker.lock, NULL);
    pthread_cond_init(&x->waker.cond, NULL);
    x->budget = mem_budget_new("host", 128 << 20);
    server_start(&x->server, mode);
    char url[96];
    snprintf(url, sizeof url, "http://me:secret@127.0.0.1:%d/video", x->server.port);
    struct video_options o = {
        .name = "http", .url = url, .stall_ms = stall_ms, .timeout_ms = timeout_ms ? timeout_ms : TESTING_PATIENCE_MS, .decode = decode};
    assert_int_equal(video_camera_open(&o, x->budget, waker_wake, &x->waker, &x->cam), ERR_OK);
}

static void finish(struct fixture *x)
{
    struct video_stats s;
    video_camera_stats(x->cam, &s);
    assert_null(strstr(s.error, "secret"));
    assert_null(strstr(s.url, "secret"));
    int64_t t = clock_ns();
    video_camera_close(&x->cam);
    double seconds = (double)(clock_ns() - t) / 1e9;
    print_message("# closed in %.0f ms; peak %.1f MiB; last error: %s\n", seconds * 1e3,
                  (double)mem_budget_peak(x->budget) / 1048576, s.error);
    assert_true(seconds < TESTING_PATIENCE_S / 4); /* the rule is 1, a loaded machine is forgiven; the network's own patience is longer */
    server_stop(&x->server);
    assert_int_equal(mem_budget_used(x->budget), 0);
    mem_budget_free(&x->budget);
}

static int take(struct fixture *x, int n)
{
    struct video_frame *f;
    int wide = 0;
    uint64_t seq = 0;
    for (int i = 0; i < n; i++) {
        assert_int_equal(next_frame(x->cam, &x->waker, &f), ERR_OK);
        assert_true(f->seq > seq);
        seq = f->seq;
        assert_true(f->height == 120 && (f->width == 160 || f->width == 320));
        wide += f->width == 320;
        video_frame_unref(&f);
    }
    return wide;
}

static void mjpeg_that_changes_its_size(void **state)
{
    (void)state;
    for (int decode = 0; decode < 2; decode++) {
        struct fixture x;
        begin(&x, CHANGING, (enum video_decode)decode, 0, 0);
        int wide = take(&x, 40);
        assert_true(wide > 0 && wide < 40);
        struct video_stats s;
        video_camera_stats(x.cam, &s);
        assert_string_equal(s.codec, "mjpeg");
        assert_int_equal(s.state, VIDEO_LIVE);
        finish(&x);
    }
}

static void flapping_recovers(void **state)
{
    (void)state;
    struct fixture x;
    begin(&x, FLAPPING, VIDEO_DECODE_THREAD, 0, 0);
    struct video_stats s;
    double pts = -1;
    do {
        struct video_frame *f;
        assert_int_equal(next_frame(x.cam, &x.waker, &f), ERR_OK);
        assert_true(f->pts > pts);
        pts = f->pts;
        video_frame_unref(&f);
        video_camera_stats(x.cam, &s);
    } while (s.reconnects < 3);
    assert_true(mem_budget_peak(x.budget) < 16 << 20);
    finish(&x);
}

static void stalled_is_seen_and_reconnected(void **state)
{
    (void)state;
    struct fixture x;
    begin(&x, STALLING, VIDEO_DECODE_THREAD, 200, 3000);
    take(&x, 1);
    assert_true(await_state(x.cam, VIDEO_STALLED));
    assert_true(await_state(x.cam, VIDEO_WAITING));
    take(&x, 2);
    finish(&x);
}

static void hopeless(enum mode mode, int timeout_ms, const char *says)
{
    struct fixture x;
    uint64_t before = mem_process_rss().anon;
    begin(&x, mode, VIDEO_DECODE_THREAD, 200, timeout_ms);
    assert_true(await_state(x.cam, VIDEO_WAITING));
    struct video_stats s;
    video_camera_stats(x.cam, &s);
    print_message("# anonymous memory grew by %.1f MiB\n",
                  ((double)mem_process_rss().anon - (double)before) / 1048576);
    if (!strstr(s.error, says)) print_message("# error is: %s\n", s.error);
    assert_non_null(strstr(s.error, says));
    assert_int_equal(s.published, 0);
    finish(&x);
}

static void liars_are_left(void **state)
{
    (void)state;
    hopeless(GARBAGE, 1000, "127.0.0.1");
    hopeless(TRICKLE, 500, "within 500 ms");
    hopeless(FLOOD, 0, "without a picture");
    hopeless(SILENT, 500, "within 500 ms");
    hopeless(REDIRECT, 1000, "127.0.0.1");
    hopeless(NOT_FOUND, 0, "404");
}

static void closes_while_connecting(void **state)
{
    (void)state;
    static const char *const urls[] = {"rtsp://10.255.255.1/x", "http://192.0.2.1:81/x",
                                       "rtsp://no.such.host.invalid/x"};
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    for (size_t i = 0; i < ARRAY_LEN(urls); i++)
        for (int wait = 0; wait < 2; wait++)
            for (int decode = 0; decode < 2; decode++) {
                struct video_options o = {.name = "dead", .url = urls[i], .timeout_ms = TESTING_PATIENCE_MS, .decode = (enum video_decode)decode};
                struct video_camera *cam;
                assert_int_equal(video_camera_open(&o, b, NULL, NULL, &cam), ERR_OK);
                usleep(wait ? 150000 : 0);
                int64_t t = clock_ns();
                video_camera_close(&cam);
                double seconds = (double)(clock_ns() - t) / 1e9;
                if (seconds > 0.5) print_message("# %s closed in %.2f s\n", urls[i], seconds);
                assert_true(seconds < TESTING_PATIENCE_S / 4);
                assert_int_equal(mem_budget_used(b), 0);
            }
    mem_budget_free(&b);
    struct fixture x; /* connected, and the other side says nothing */
    begin(&x, SILENT, VIDEO_DECODE_THREAD, 0, 0);
    usleep(200000);
    finish(&x);
}

static const char rtsp_script[] =
    "import sys, gi\n"
    "gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0')\n"
    "from gi.repository import Gst, GstRtspServer, GLib\n"
    "Gst.init(None)\n"
    "s = GstRtspServer.RTSPServer(); s.set_address('127.0.0.1'); s.set_service(sys.argv[1])\n"
    "f = GstRtspServer.RTSPMediaFactory(); f.set_shared(True)\n"
    "f.set_launch('( videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=25/1 ! '\n"
    "             'x264enc tune=zerolatency key-int-max=10 ! rtph264pay name=pay0 pt=96 config-interval=1 )')\n"
    "s.get_mount_points().add_factory('/cam', f)\n"
    "s.attach(None) or sys.exit(3)\n"
    "sys.stdout.write('%d\\n' % s.get_bound_port()); sys.stdout.flush()\n"
    "GLib.MainLoop().run()\n";

/* Starts the server on `port` (0: any); its port, or 0. */
static int rtsp_start(int port, pid_t *pid)
{
    int out[2];
    if (pipe(out)) return 0;
    char number[16], line[32] = "";
    snprintf(number, sizeof number, "%d", port);
    char *argv[] = {(char *)"python3", (char *)"-c", (char *)rtsp_script, number, NULL};
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, out[1], 1);
    posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&fa, 3);
    /* Debian's own first: another one in the path would not know Debian's packages. */
    int r = posix_spawn(pid, "/usr/bin/python3", &fa, NULL, argv, environ);
    if (r) r = posix_spawnp(pid, "python3", &fa, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    close(out[1]);
    size_t n = 0; /* to the end of the line: the server must not find the pipe closed */
    while (!r && n < sizeof line - 1 && !memchr(line, '\n', n) && read(out[0], line + n, 1) == 1) n++;
    if (!r && !n) {
        waitpid(*pid, NULL, 0);
        r = 1;
    }
    close(out[0]);
    return r ? 0 : atoi(line);
}

static void rtsp_flaps(void **state)
{
    (void)state;
    pid_t pid;
    int port = rtsp_start(0, &pid);
    if (!port) {
        print_message("# skipped: gst-rtsp-server is not installed (gir1.2-gst-rtsp-server-1.0, python3-gi, "
                      "gstreamer plugins)\n");
        skip();
    }
    for (int way = 0; way < 3; way++) { /* TCP, UDP, TCP in a child */
        struct mem_budget *b = mem_budget_new("host", 64 << 20);
        struct waker w = WAKER_INIT;
        char url[64];
        snprintf(url, sizeof url, "rtsp://127.0.0.1:%d/cam", port);
        struct video_options o = {.name = "rtsp", .url = url, .timeout_ms = 20000, .stall_ms = 500,
                                  .transport = way == 1 ? VIDEO_UDP : VIDEO_TCP,
                                  .decode = way == 2 ? VIDEO_DECODE_PROCESS : VIDEO_DECODE_THREAD};
        struct video_camera *cam;
        struct video_frame *f;
        struct video_stats s;
        assert_int_equal(video_camera_open(&o, b, waker_wake, &w, &cam), ERR_OK);
        uint64_t rss = 0;
        for (int round = 0; round < (way == 0 ? 3 : 1); round++) {
            for (int i = 0; i < 25; i++) {
                err e = next_frame(cam, &w, &f);
                video_camera_stats(cam, &s);
                if (e)
                    print_message("# way %d round %d frame %d: %s, %s\n", way, round, i, video_state_name(s.state),
                                  s.error);
                assert_int_equal(e, ERR_OK);
                assert_true(f->width == 320 && f->height == 240);
                video_frame_unref(&f);
            }
            if (round == 0) rss = mem_process_rss().anon;
            if (way) break;
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            assert_true(await_state(cam, VIDEO_WAITING));
            assert_int_equal(rtsp_start(port, &pid), port);
        }
        video_camera_stats(cam, &s);
        print_message("# way %d: %s, %.1f fps, %llu decoded, %llu corrupt, %llu reconnects, memory grew by %.1f MiB, "
                      "error: %s\n",
                      way, s.codec, s.fps_in, (unsigned long long)s.decoded, (unsigned long long)s.corrupt,
                      (unsigned long long)s.reconnects, ((double)mem_process_rss().anon - (double)rss) / 1048576,
                      s.error);
        if (!way) assert_true(s.reconnects >= 2);
        int64_t t = clock_ns();
        video_camera_close(&cam);
        print_message("# closed in %.0f ms\n", (double)(clock_ns() - t) / 1e6);
        assert_int_equal(mem_budget_used(b), 0);
        mem_budget_free(&b);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    if (argc > 1 && !strcmp(argv[1], VIDEO_DECODE_ARG)) return video_decode_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mjpeg_that_changes_its_size), cmocka_unit_test(flapping_recovers),
        cmocka_unit_test(stalled_is_seen_and_reconnected), cmocka_unit_test(liars_are_left),
        cmocka_unit_test(closes_while_connecting), cmocka_unit_test(rtsp_flaps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Tests of the control socket: calls, errors carried over, ownership, hostile and slow clients.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/control.h"
#include "base/thread.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/brim-control-XXXXXX";
static char path[64];

static err handle(void *arg, const json_t *request, json_t **ret)
{
    const char *what = json_string_value(json_object_get(request, "do"));
    int *calls = arg;
    ++*calls; /* only the server's thread writes; read after close */
    if (!what) return err_set(ERR_USAGE, "the key 'do' is missing");
    if (!strcmp(what, "echo")) *ret = json_incref(json_object_get(request, "value"));
    if (!strcmp(what, "big")) {
        *ret = json_array();
        for (int i = 0; i < 100000; i++) json_array_append_new(*ret, json_integer(i));
    }
    if (!strcmp(what, "why")) return err_set(ERR_NOT_FOUND, "no camera 'door'; there are yard, gate");
    return ERR_OK;
}

static err call(const char *text, json_t **ret)
{
    json_t *request = json_loads(text, 0, NULL);
    assert_non_null(request);
    err e = control_call(path, request, 20000, ret);
    json_decref(request);
    return e;
}

static void calls_and_errors(void **state)
{
    (void)state;
    struct control *c = NULL;
    json_t *r = NULL;
    int calls = 0;
    assert_int_equal(call("{}", &r), ERR_NOT_FOUND);
    assert_non_null(strstr(err_text(), "no brim serve is running on this store"));
    assert_int_equal(control_open(path, handle, &calls, &c), ERR_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(call("{\"do\":\"echo\",\"value\":[1,\"zwei\",null]}", &r), ERR_OK);
    assert_string_equal(json_string_value(json_array_get(r, 1)), "zwei");
    json_decref(r);
    assert_int_equal(call("{\"do\":\"nothing\"}", &r), ERR_OK);
    assert_true(json_is_null(r));
    assert_int_equal(call("{\"do\":\"why\"}", &r), ERR_NOT_FOUND);
    assert_string_equal(err_text(), "no camera 'door'; there are yard, gate");
    assert_int_equal(call("{}", &r), ERR_USAGE);
    assert_int_equal(call("{\"do\":\"big\"}", &r), ERR_OK);
    assert_int_equal(json_array_size(r), 100000);
    json_decref(r);
    control_close(&c);
    assert_null(c);
    assert_int_equal(calls, 5);
    assert_int_equal(call("{}", &r), ERR_NOT_FOUND);
    assert_int_equal(access(path, F_OK), -1);
    control_close(&c);
}

static void one_owner(void **state)
{
    (void)state;
    struct control *c = NULL, *d = NULL;
    int calls = 0;
    assert_int_equal(control_open(path, handle, &calls, &c), ERR_OK);
    assert_int_equal(control_open(path, handle, &calls, &d), ERR_BUSY);
    assert_null(d);
    char pid[32];
    snprintf(pid, sizeof pid, "(pid %d)", (int)getpid());
    assert_non_null(strstr(err_text(), "another brim serve uses this store"));
    assert_non_null(strstr(err_text(), pid));
    control_close(&c);
    assert_int_equal(control_open("/nonexistent/folder/control", handle, &calls, &c), ERR_IO);
    FILE *f = fopen(path, "w"); /* a file in its place is not removed */
    fclose(f);
    assert_int_equal(control_open(path, handle, &calls, &c), ERR_IO);
    assert_non_null(strstr(err_text(), "is not a socket"));
    unlink(path);
}

static void stale_socket_is_replaced(void **state)
{
    (void)state;
    int calls = 0, ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (!pid) { /* an owner that dies without a word */
        struct control *c = NULL;
        char ok = control_open(path, handle, &calls, &c) == ERR_OK;
        if (write(ready[1], &ok, 1) != 1) _exit(1);
        pause();
        _exit(0);
    }
    char ok = 0;
    assert_int_equal(read(ready[0], &ok, 1), 1);
    assert_int_equal(ok, 1);
    struct control *c = NULL;
    assert_int_equal(control_open(path, handle, &calls, &c), ERR_BUSY);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(control_open(path, handle, &calls, &c), ERR_OK);
    json_t *r;
    assert_int_equal(call("{\"do\":\"echo\",\"value\":1}", &r), ERR_OK);
    json_decref(r);
    control_close(&c);
    close(ready[0]);
    close(ready[1]);
}

static int raw_connect(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

/* Everything the server says until it closes the connection, or until `lines` line ends came. */
static void read_lines(int fd, int lines, struct strbuf *out)
{
    char ch;
    while (lines > 0 && read(fd, &ch, 1) == 1) {
        strbuf_addn(out, &ch, 1);
        lines -= ch == '\n';
    }
}

static void hostile_clients(void **state)
{
    (void)state;
    struct control *c = NULL;
    struct strbuf got = {0};
    int calls = 0;
    assert_int_equal(control_open(path, handle, &calls, &c), ERR_OK);
    int fd = raw_connect(); /* several requests in one packet, some of them wrong */
    static const char many[] =
        "{\"do\":\"echo\",\"value\":1}\nnot json\n[1]\n\n{\"a\":1,\"a\":2}\n{\"do\":\"echo\",\"value\":2}\n";
    assert_true(write(fd, many, sizeof many - 1) == sizeof many - 1);
    read_lines(fd, 6, &got);
    assert_non_null(strstr(got.s, "{\"ok\":true,\"result\":1}\n{\"ok\":false,\"code\":\"malformed input\""));
    assert_non_null(strstr(got.s, "must be a JSON object"));
    assert_non_null(strstr(got.s, "{\"ok\":true,\"result\":2}\n"));
    close(fd);
    strbuf_done(&got);

    fd = raw_connect(); /* a line without an end */
    char *big = xcalloc(CONTROL_MAX_REQUEST + 1, 1);
    memset(big, '[', CONTROL_MAX_REQUEST + 1);
    assert_true(send(fd, big, CONTROL_MAX_REQUEST + 1, MSG_NOSIGNAL) == CONTROL_MAX_REQUEST + 1);
    read_lines(fd, 2, &got);
    assert_non_null(strstr(got.s, "a request may have at most 65536 bytes"));
    free(big);
    close(fd);
    strbuf_done(&got);

    int silent[CONTROL_MAX_CLIENTS + 4]; /* too many silent clients do not lock anybody out */
    for (size_t i = 0; i < ARRAY_LEN(silent); i++) silent[i] = raw_connect();
    static const char ask[] = "{\"do\":\"big\"}\n";
    for (int i = 0; i < 5; i++) /* and this one asks and never listens */
        assert_true(send(silent[ARRAY_LEN(silent) - 1], ask, sizeof ask - 1, MSG_NOSIGNAL) > 0);
    json_t *r;
    assert_int_equal(call("{\"do\":\"echo\",\"value\":3}", &r), ERR_OK);
    json_decref(r);
    for (size_t i = 0; i < ARRAY_LEN(silent); i++) close(silent[i]);
    control_close(&c);
}

static void *hammer(void *arg)
{
    (void)arg;
    for (int i = 0; i < 50; i++) {
        json_t *r, *q = json_pack("{s:s,s:i}", "do", "echo", "value", i);
        err e = control_call(path, q, 60000, &r);
        json_decref(q);
        if (e) return (void *)1;
        if (json_integer_value(r) != i) return (void *)2;
        json_decref(r);
    }
    return NULL;
}

static void many_callers(void **state)
{
    (void)state;
    struct control *c = NULL;
    pthread_t t[4];
    int calls = 0;
    assert_int_equal(control_open(path, handle, &calls, &c), ERR_OK);
    for (int i = 0; i < 4; i++) assert_int_equal(thread_start("caller", hammer, NULL, &t[i]), ERR_OK);
    for (int i = 0; i < 4; i++) {
        void *ret;
        pthread_join(t[i], &ret);
        assert_null(ret);
    }
    control_close(&c);
    assert_int_equal(calls, 200);
}

static void long_paths(void **state)
{
    (void)state;
    struct control *c = NULL;
    int calls = 0;
    char deep[256], file[300];
    snprintf(deep, sizeof deep, "%s/%0120d", folder, 7);
    assert_int_equal(mkdir(deep, 0700), 0);
    snprintf(file, sizeof file, "%s/control", deep);
    assert_int_equal(control_open(file, handle, &calls, &c), ERR_OK);
    json_t *r = NULL, *q = json_pack("{s:s,s:i}", "do", "echo", "value", 5);
    assert_int_equal(control_call(file, q, 20000, &r), ERR_OK);
    assert_int_equal(json_integer_value(r), 5);
    json_decref(r);
    json_decref(q);
    control_close(&c);
    strcat(file, ".lock");
    unlink(file);
    rmdir(deep);
}

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "%s/control", mkdtemp(folder));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char lock[80];
    snprintf(lock, sizeof lock, "%s.lock", path);
    unlink(lock);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stale_socket_is_replaced), /* first: it forks, before there were threads */
        cmocka_unit_test(calls_and_errors), cmocka_unit_test(one_owner), cmocka_unit_test(hostile_clients),
        cmocka_unit_test(many_callers), cmocka_unit_test(long_paths)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

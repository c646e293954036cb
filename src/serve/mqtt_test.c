/* Tests of MQTT against a real broker: who is there is told and kept, death is told by the broker, and a broker that
 * goes away for a while costs no event. Skipped where there is no mosquitto. SPDX-License-Identifier: Apache-2.0 */
#include "serve/testing.h"

#include <mosquitto.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { MOST = 4096 };

struct broker {
    char dir[64], conf[96];
    int port, held; /* held: a socket that keeps the port ours, see hold_port */
    pid_t pid;
};

/* What a client of ours heard. */
struct ear {
    struct mosquitto *m;
    pthread_mutex_t lock;
    pthread_cond_t more;
    int n_ids, n_all;
    bool subscribed;
    int64_t ids[MOST]; /* of events, each once, sorted as they came */
    char available[16];
    bool retained;
    json_t *topics;
};

static const char *const BROKERS[] = {"/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"};

static const char *broker_program(void)
{
    for (size_t i = 0; i < ARRAY_LEN(BROKERS); i++)
        if (access(BROKERS[i], X_OK) == 0) return BROKERS[i];
    return NULL;
}

/* The port is ours until the test ends: a socket bound to it, that does not listen, keeps the kernel from giving it
 * to another program (an HTTP side of a box, say, that would then be taken for the broker), and lets the broker have
 * it, for both say SO_REUSEADDR. */
static int hold_port(int *ret_fd)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, (struct sockaddr *)&a, n) || getsockname(fd, (struct sockaddr *)&a, &n)) a.sin_port = 0;
    *ret_fd = fd;
    return ntohs(a.sin_port);
}

static void broker_start(struct broker *b)
{
    b->pid = fork();
    if (b->pid == 0) {
        execl(broker_program(), "mosquitto", "-c", b->conf, (char *)NULL);
        _exit(127);
    }
    for (int64_t end = testing_deadline(); clock_ns() < end;) { /* until it listens */
        struct sockaddr_in a = {
            .sin_family = AF_INET, .sin_port = htons((uint16_t)b->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM, 0), rc = connect(fd, (struct sockaddr *)&a, sizeof a);
        close(fd);
        if (waitpid(b->pid, NULL, WNOHANG)) {
            b->pid = 0;
            fail_msg("the broker ended at once; can it listen on port %d?", b->port);
        }
        if (!rc) return;
        usleep(100000);
    }
    fail_msg("the broker does not listen on port %d", b->port);
}

static void broker_stop(struct broker *b)
{
    if (b->pid <= 0) return;
    kill(b->pid, SIGKILL);
    waitpid(b->pid, NULL, 0);
    b->pid = 0;
}

static int begin(void **state)
{
    struct broker *b = xnew(struct broker);
    *state = b;
    b->held = -1;
    if (!broker_program()) return 0;
    snprintf(b->dir, sizeof b->dir, "/tmp/brim-mqtt-XXXXXX");
    if (!mkdtemp(b->dir)) return 1;
    snprintf(b->conf, sizeof b->conf, "%s/broker.conf", b->dir);
    b->port = hold_port(&b->held);
    if (!b->port) return 1;
    FILE *f = fopen(b->conf, "w");
    fprintf(f, "listener %d 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\n", b->port);
    fclose(f);
    return 0;
}

static int end(void **state)
{
    struct broker *b = *state;
    broker_stop(b);
    if (b->held >= 0) close(b->held);
    char *command = xasprintf("rm -rf %s", b->dir);
    int rc = b->dir[0] ? system(command) : 0;
    free(command);
    free(b);
    return rc;
}

/* ---- the ear */

/* The last text of each topic. */
static void remember(struct ear *x, const struct mosquitto_message *msg)
{
    char *text = xstrndup(msg->payload ? msg->payload : "", (size_t)msg->payloadlen);
    json_object_set_new(x->topics, msg->topic, json_string(text));
    free(text);
}

static void on_message(struct mosquitto *m, void *user, const struct mosquitto_message *msg)
{
    struct ear *x = user;
    (void)m;
    pthread_mutex_lock(&x->lock);
    remember(x, msg);
    if (!strcmp(msg->topic, "t/brim/available")) {
        snprintf(x->available, sizeof x->available, "%.*s", msg->payloadlen, (const char *)msg->payload);
        x->retained = msg->retain;
    } else if (!strcmp(msg->topic, "t/brim/events")) {
        json_t *j = json_loadb(msg->payload, (size_t)msg->payloadlen, 0, NULL);
        int64_t id = json_integer_value(json_object_get(j, "id"));
        bool known = false;
        for (int i = 0; i < x->n_ids; i++) known |= x->ids[i] == id;
        if (id > 0 && !known && x->n_ids < MOST) x->ids[x->n_ids++] = id;
        x->n_all++;
        json_decref(j);
    }
    pthread_cond_broadcast(&x->more);
    pthread_mutex_unlock(&x->lock);
}

static void on_subscribe(struct mosquitto *m, void *user, int mid, int n, const int *qos)
{
    struct ear *x = user;
    (void)m, (void)mid, (void)n, (void)qos;
    pthread_mutex_lock(&x->lock);
    x->subscribed = true;
    pthread_cond_broadcast(&x->more);
    pthread_mutex_unlock(&x->lock);
}

static bool is_subscribed(const struct ear *x, int64_t n)
{
    (void)n;
    return x->subscribed;
}

static void ear_wait(struct ear *x, bool (*done)(const struct ear *, int64_t), int64_t n, const char *what)
{
    struct timespec until;
    int rc = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += TESTING_PATIENCE_S;
    pthread_mutex_lock(&x->lock);
    while (!done(x, n) && !rc) rc = pthread_cond_timedwait(&x->more, &x->lock, &until);
    bool good = done(x, n);
    pthread_mutex_unlock(&x->lock);
    if (!good) fail_msg("waited in vain for %s", what);
}

static struct ear *ear_open(const struct broker *b)
{
    struct ear *x = xnew(struct ear);
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->more, NULL);
    x->topics = json_object();
    mosquitto_lib_init();
    x->m = mosquitto_new(NULL, true, x);
    mosquitto_message_callback_set(x->m, on_message);
    mosquitto_subscribe_callback_set(x->m, on_subscribe);
    assert_int_equal(mosquitto_connect(x->m, "127.0.0.1", b->port, 60), MOSQ_ERR_SUCCESS);
    assert_int_equal(mosquitto_subscribe(x->m, NULL, "t/brim/#", 1), MOSQ_ERR_SUCCESS);
    assert_int_equal(mosquitto_subscribe(x->m, NULL, "homeassistant/#", 1), MOSQ_ERR_SUCCESS);
    assert_int_equal(mosquitto_loop_start(x->m), MOSQ_ERR_SUCCESS);
    ear_wait(x, is_subscribed, 0, "the subscription");
    return x;
}

static void ear_close(struct ear **xp)
{
    struct ear *x = *xp;
    mosquitto_disconnect(x->m);
    mosquitto_loop_stop(x->m, false); /* not cancelled: the thread sanitizer dies of that */
    mosquitto_destroy(x->m);
    mosquitto_lib_cleanup();
    pthread_mutex_destroy(&x->lock);
    pthread_cond_destroy(&x->more);
    json_decref(x->topics);
    free(x);
    *xp = NULL;
}

static bool heard_events(const struct ear *x, int64_t n)
{
    return x->n_ids >= n;
}

static bool heard_online(const struct ear *x, int64_t n)
{
    (void)n;
    return !strcmp(x->available, "online");
}

static bool heard_offline(const struct ear *x, int64_t n)
{
    (void)n;
    return !strcmp(x->available, "offline");
}

/* All ids from x's first to `last`. */
static bool heard_all(const struct ear *x, int64_t last)
{
    int64_t least = INT64_MAX, found = 0;
    for (int i = 0; i < x->n_ids; i++) least = MIN(least, x->ids[i]);
    for (int i = 0; i < x->n_ids; i++) found += x->ids[i] <= last;
    return x->n_ids && found == last - least + 1;
}

/* ---- tests */

static char *mqtt_outputs(const struct broker *b)
{
    return xasprintf(", mqtt: {host: 127.0.0.1, port: %d, prefix: t/brim}", b->port);
}

static void need_broker(void)
{
    if (broker_program()) return;
    print_message("# no mosquitto here\n");
    skip();
}

static void presence_and_events_are_told(void **state)
{
    struct broker *b = *state;
    struct box box;
    need_broker();
    broker_start(b);
    struct ear *x = ear_open(b);
    char *outputs = mqtt_outputs(b);
    assert_int_equal(box_open(&box, outputs, ""), 0);
    ear_wait(x, heard_online, 0, "online");
    ear_wait(x, heard_events, 4, "four events");
    struct ear *late = ear_open(b); /* who comes later hears it as well */
    ear_wait(late, heard_online, 0, "online, retained");
    assert_true(late->retained);
    ear_close(&late);
    box_close(&box); /* an end in order */
    ear_wait(x, heard_offline, 0, "offline");
    ear_close(&x);
    free(outputs);
}

static int64_t last_on_disk(const struct box *box)
{
    json_t *j = get_json(box, "/api/v1/events?limit=1", 200);
    int64_t id = json_integer_value(json_object_get(json_array_get(json_object_get(j, "events"), 0), "id"));
    json_decref(j);
    return id;
}

static void a_broker_that_goes_away_costs_no_event(void **state)
{
    struct broker *b = *state;
    struct box box;
    need_broker();
    char *outputs = mqtt_outputs(b);
    assert_int_equal(box_open(&box, outputs, ""), 0); /* nobody listens yet */
    box_wait_events(&box, 3);
    struct reply r = get(&box, "/metrics");
    assert_non_null(strstr(r.body, "brim_problem{what=\"mqtt\"} 1\n"));
    reply_done(&r);
    broker_start(b);
    broker_stop(b); /* flaps */
    broker_start(b);
    struct ear *x =
        ear_open(b); /* may come after the first events were acknowledged: counts from the first it hears */
    ear_wait(x, heard_events, 2, "two events");
    bool from_the_front = false;
    for (int tries = 0; tries < 100 && !from_the_front; tries++) { /* the box may be back before our ear is: then once more */
        int64_t before = last_on_disk(&box);
        ear_close(&x);
        broker_stop(b);
        box_wait_events(&box, (size_t)before + 4); /* happens while there is no broker */
        int64_t last = last_on_disk(&box);
        broker_start(b);
        x = ear_open(b);
        ear_wait(x, heard_all, last, "every event");
        from_the_front = x->ids[0] <= before + 1; /* nothing that happened meanwhile is missing at the front */
    }
    assert_true(from_the_front);
    ear_close(&x);
    box_close(&box);
    free(outputs);
}

/* Whatever has the broker's port takes the connection and closes it: people are told what that means. */
static void a_program_that_is_no_broker_is_named(void **state)
{
    struct broker *b = *state;
    struct box box;
    need_broker();
    char *outputs = mqtt_outputs(b), *said = NULL;
    assert_int_equal(listen(b->held, 8), 0);
    assert_int_equal(box_open(&box, outputs, ""), 0);
    close(accept(b->held, NULL, NULL));
    for (int64_t end = testing_deadline(); clock_ns() < end && !said;) {
        json_t *j = engine_problems(box.engine);
        char *text = json_dumps(j, 0);
        if (strstr(text, "is it an MQTT broker?")) said = xstrdup(text);
        json_decref(j);
        free(text);
        usleep(100000);
    }
    assert_non_null(said);
    box_close(&box);
    free(outputs), free(said);
}

/* The box dies by kill -9: its broker says so. It is forked off before this process has threads, and starts when told to. */
static void the_last_will_is_told(void **state)
{
    struct broker *b = *state;
    need_broker();
    broker_start(b);
    char *outputs = mqtt_outputs(b), dir[64] = "";
    int pipes[2], go[2];
    assert_int_equal(pipe(pipes) | pipe(go), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct box box;
        close(go[1]);
        if (read(go[0], dir, 1) != 1) _exit(1); /* the test has ended */
        int rc = box_open(&box, outputs, "");
        if (write(pipes[1], box.dir, sizeof box.dir) < 0 || rc) _exit(1);
        for (;;) pause();
    }
    struct ear *x = ear_open(b);
    assert_int_equal(write(go[1], "", 1), 1);
    assert_int_equal(read(pipes[0], dir, sizeof dir), sizeof dir);
    ear_wait(x, heard_online, 0, "online");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    ear_wait(x, heard_offline, 0, "the last will");
    ear_close(&x);
    close(pipes[0]), close(pipes[1]), close(go[0]), close(go[1]);
    char *command = xasprintf("rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    free(command), free(outputs);
}

/* ---- Home Assistant */

/* Waits until the topic's text is (or has) this; "" waits for its removal. */
static void ear_topic(struct ear *x, const char *topic, const char *word)
{
    char last[512] = "nothing";
    for (int64_t end = testing_deadline(); clock_ns() < end;) {
        pthread_mutex_lock(&x->lock);
        const char *text = json_string_value(json_object_get(x->topics, topic));
        bool good = text && (*word ? strstr(text, word) != NULL : !*text);
        snprintf(last, sizeof last, "%s", text ? text : "nothing");
        pthread_mutex_unlock(&x->lock);
        if (good) return;
        usleep(10000);
    }
    fail_msg("%s: waited in vain for '%s'; it has '%s'", topic, word, last);
}

static json_t *ear_json(struct ear *x, const char *topic)
{
    pthread_mutex_lock(&x->lock);
    json_t *j = json_loads(json_string_value(json_object_get(x->topics, topic)), 0, NULL);
    pthread_mutex_unlock(&x->lock);
    assert_non_null(j);
    return j;
}

static void box_replace(const struct box *b, const char *from, const char *to)
{
    char *command = xasprintf("sed -i 's/%s/%s/' %s/site.yaml", from, to, b->dir);
    assert_int_equal(system(command), 0);
    free(command);
    assert_int_equal(serve_reload(b->serve), ERR_OK);
}

static bool same_text(const json_t *j, const char *key, const char *want)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s && !strcmp(s, want);
}

static void home_assistant_is_told(void **state)
{
    struct broker *b = *state;
    struct box box;
    char binary[256] = "", number[256];
    need_broker();
    broker_start(b);
    struct ear *x = ear_open(b);
    char *outputs = xasprintf(", mqtt: {host: 127.0.0.1, port: %d, prefix: t/brim, discovery: true}", b->port);
    assert_int_equal(box_open(&box, outputs, ""), 0);
    ear_topic(x, "t/brim/yard/stir/motion/occupancy", "ON"); /* comes after the configs */
    ear_topic(x, "t/brim/yard/available", "online");
    ear_topic(x, "t/brim/yard/stir/motion/count", "1");
    pthread_mutex_lock(&x->lock);
    const char *topic;
    json_t *text;
    json_object_foreach(x->topics, topic, text)
        if (strstr(topic, "binary_sensor/brim_t_brim")) snprintf(binary, sizeof binary, "%s", topic);
    pthread_mutex_unlock(&x->lock);
    assert_non_null(strstr(binary, "/yard_stir_motion/config"));
    snprintf(number, sizeof number, "homeassistant/sensor%s", strchr(binary + 14, '/'));
    json_t *j = ear_json(x, binary), *k = ear_json(x, number);
    assert_true(same_text(j, "state_topic", "t/brim/yard/stir/motion/occupancy") && same_text(j, "device_class", "motion"));
    assert_true(same_text(k, "state_topic", "t/brim/yard/stir/motion/count") && same_text(k, "state_class", "measurement"));
    assert_string_not_equal(json_string_value(json_object_get(j, "unique_id")), json_string_value(json_object_get(k, "unique_id")));
    json_t *av = json_object_get(j, "availability");
    assert_true(same_text(json_array_get(av, 0), "topic", "t/brim/available"));
    assert_true(same_text(json_array_get(av, 1), "topic", "t/brim/yard/available"));
    assert_true(json_equal(json_object_get(j, "device"), json_object_get(k, "device")));
    assert_non_null(json_array_get(json_object_get(json_object_get(j, "device"), "identifiers"), 0));
    json_decref(j), json_decref(k);
    ear_topic(x, "t/brim/yard/stir/motion/occupancy", "OFF"); /* the square is gone for two seconds of four */
    struct ear *late = ear_open(b);                           /* all is retained */
    ear_topic(late, binary, "unique_id"), ear_topic(late, number, "unique_id");
    ear_close(&late);
    box_replace(&box, "stir:", "calm:"); /* one query goes, another comes */
    ear_topic(x, "t/brim/yard/calm/motion/count", "1");
    ear_topic(x, binary, ""), ear_topic(x, number, ""), ear_topic(x, "t/brim/yard/stir/motion/count", "");
    box_close(&box);
    ear_wait(x, heard_offline, 0, "offline");
    assert_int_equal(box_open(&box, outputs, ""), 0); /* a new start, without `calm`: what the old one left goes */
    ear_topic(x, binary, "unique_id");
    ear_topic(x, "t/brim/yard/calm/motion/count", "");
    box_close(&box);
    ear_close(&x);
    free(outputs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_last_will_is_told, begin, end),
        cmocka_unit_test_setup_teardown(presence_and_events_are_told, begin, end),
        cmocka_unit_test_setup_teardown(a_broker_that_goes_away_costs_no_event, begin, end),
        cmocka_unit_test_setup_teardown(home_assistant_is_told, begin, end),
        cmocka_unit_test_setup_teardown(a_program_that_is_no_broker_is_named, begin, end),
    };
    return cmocka_run_group_tests_name("serve-mqtt", tests, NULL, NULL);
}

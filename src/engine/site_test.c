/* Tests of the site file: a full one, overriding, every error with its position, labels, the schema, and what a
 * reload sees. SPDX-License-Identifier: Apache-2.0 */
#include "engine/site_diff.h"
#include "engine/site_inside.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include <cmocka.h>

static struct site *load(const char *text)
{
    struct site *s = NULL;
    err e = site_load_all("dir/site.yaml", text, strlen(text), NULL, &s);
    if (e) print_message("%s\n", err_text());
    assert_int_equal(e, ERR_OK);
    return s;
}

static const char full[] =
    "version: 1\n"
    "budget: 300M\n"
    "store: state\n"
    "precision: f32\n"
    "threads: 2\n"
    "residency: model\n"
    "sharing: blind\n"
    "defaults:\n"
    "  cameras: {transport: udp, timeout: 5s, fps: 15}\n"
    "  queries: {fps: 2, priority: 3, motion: {gate: true, threshold: 20}, events: {stay_ms: 4000}}\n"
    "cameras:\n"
    "  door: {url: 'rtsp://u:secret@10.0.0.7/s', fps: 25, stall: 2s}\n"
    "  yard: {url: video/yard.mp4, loop: true, pace: max, decode: process}\n"
    "  usb: {url: /dev/video0, width: 640, height: 480, transport: tcp}\n"
    "models:\n"
    "  yolox: {onnx: models/yolox.onnx, pin: true, priority: 9}\n"
    "  faces: {onnx: /abs/faces.v2.onnx, card: cards/f.yaml, precision: auto, guard: {original: was/f.onnx, every: 90s, target: 0.8, window: 12}}\n"
    "queries:\n"
    "  people:\n"
    "    cameras: [yard, door]\n"
    "    model: yolox\n"
    "    objects: [person, car]\n"
    "    deadline_ms: 250\n"
    "    min_score: 0.4\n"
    "    motion: {threshold: 30}\n"
    "    zones:\n"
    "      porch: [[0, 0], [1, 0], [0.5, 1]]\n"
    "      path: {points: [[0, 0], [1, 0], [1, 1], [0, 1]], camera: door, stay_ms: 0}\n"
    "    lines: {gate: [[0, 0.5], [1, 0.5]]}\n"
    "    events: {kinds: [entered, crossed], anchor: centre}\n"
    "    cascade:\n"
    "      - {model: faces, objects: person, min_size: 40, max_per_frame: 2, every: 5s, margin: 0.1}\n"
    "  stir: {cameras: all, model: motion, fps: 10, priority: 0, track: false}\n"
    "outputs:\n"
    "  database: off\n"
    "  jsonl: '-'\n"
    "  mot: out/mot\n"
    "  video: {folder: out/video, cameras: [door]}\n"
    "  mqtt: {host: broker, user: u, password: hunter2, discovery: true, outbox_max: 1M}\n"
    "  http: {listen: '[::1]:9000', hosts: [box.local]}\n";

static void a_full_file(void **state)
{
    (void)state;
    struct site *s = load(full);
    assert_int_equal(s->budget, 300 << 20);
    assert_string_equal(s->store, "dir/state");
    assert_int_equal(s->precision, SITE_F32);
    assert_int_equal(s->threads, 2);
    assert_true(s->whole_models && s->blind);
    assert_int_equal(s->camera_count, 3);
    assert_string_equal(s->cameras[0].video.url, "rtsp://u:secret@10.0.0.7/s");
    assert_string_equal(s->cameras[1].video.url, "dir/video/yard.mp4");
    assert_string_equal(s->cameras[2].video.url, "/dev/video0");
    assert_true(s->cameras[1].video.loop && s->cameras[1].video.pace == VIDEO_PACE_MAX);
    assert_int_equal(s->cameras[1].video.decode, VIDEO_DECODE_PROCESS);
    assert_int_equal(s->cameras[2].video.hint_w, 640);
    assert_string_equal(s->models[0].card, "dir/models/yolox.yaml");
    assert_string_equal(s->models[1].onnx, "/abs/faces.v2.onnx");
    assert_string_equal(s->models[1].card, "dir/cards/f.yaml");
    assert_int_equal(s->models[0].precision, SITE_F32); /* the site's */
    assert_int_equal(s->models[1].precision, SITE_AUTO);
    assert_true(s->models[0].pin && s->models[0].priority == 9 && s->models[1].priority == 5);
    const struct site_guard *g = &s->models[1].guard;
    assert_true(g->when == SITE_GUARD_ON && g->every_ms == 90000 && g->target == 0.8 && g->window == 12);
    assert_string_equal(g->original, "dir/was/f.onnx");
    g = &s->models[0].guard;
    assert_true(g->when == SITE_GUARD_AUTO && !g->original && g->every_ms == 20000 && g->target == 0.95 && g->window == 30);
    const struct site_query *q = &s->queries[0];
    assert_int_equal(q->camera_count, 2);
    assert_true(q->cameras[0] == 0 && q->cameras[1] == 1); /* in the order of the cameras */
    assert_int_equal(q->objects.count, 2);
    assert_int_equal(q->zone_count, 2);
    assert_true(q->zones[0].camera == -1 && q->zones[0].stay_ms == 4000 && q->zones[0].point_count == 3);
    assert_true(q->zones[1].camera == 0 && q->zones[1].stay_ms == 0 && q->zones[1].points[2][1] == 1);
    assert_int_equal(q->lines[0].point_count, 2);
    assert_int_equal(q->events, SITE_EVENT_ENTERED | SITE_EVENT_CROSSED);
    assert_true(q->anchor_centre);
    assert_int_equal(q->cascade[0].model, 1);
    assert_string_equal(q->cascade[0].objects.items[0], "person");
    assert_int_equal(q->cascade[0].every_ms, 5000);
    assert_int_equal(s->queries[1].model, SITE_MOTION);
    assert_int_equal(s->queries[1].camera_count, 3);
    assert_int_equal(yaml_line(s->queries[1].at), 33);
    const struct site_outputs *o = &s->outputs;
    assert_true(o->database_off && !strcmp(o->jsonl, "-") && !strcmp(o->mot, "dir/out/mot"));
    assert_string_equal(o->video, "dir/out/video");
    assert_string_equal(o->mqtt_password, "hunter2");
    assert_int_equal(o->mqtt_outbox_max, 1 << 20);
    assert_int_equal(o->mqtt_port, 1883);
    assert_string_equal(o->http_host, "::1");
    assert_int_equal(o->http_port, 9000);
    assert_string_equal(o->http_hosts.items[0], "box.local");
    site_free(&s);
    assert_null(s);
    site_free(&s);
}

static void values_are_overridden_one_by_one(void **state)
{
    (void)state;
    struct site *s = load(full);
    assert_true(s->cameras[0].video.max_fps == 25 && s->cameras[1].video.max_fps == 15);
    assert_int_equal(s->cameras[0].video.transport, VIDEO_UDP);
    assert_int_equal(s->cameras[2].video.transport, VIDEO_TCP);
    assert_int_equal(s->cameras[0].video.timeout_ms, 5000);
    assert_true(s->cameras[0].video.stall_ms == 2000 && s->cameras[1].video.stall_ms == 3000);
    assert_true(s->queries[0].fps == 2 && s->queries[1].fps == 10);
    assert_true(s->queries[0].priority == 3 && s->queries[1].priority == 0);
    assert_true(s->queries[0].motion.gate && s->queries[0].motion.threshold == 30); /* also inside nested maps */
    assert_true(s->queries[1].motion.gate && s->queries[1].motion.threshold == 20 &&
                s->queries[1].motion.hold_ms == 1000);
    assert_true(s->queries[0].stay_ms == 4000 && s->queries[1].events == SITE_EVENT_ALL);
    site_free(&s);
    s = load("version: 1\n"); /* nothing is needed but the version */
    assert_true(s->budget == 0 && !s->store && s->precision == SITE_AUTO && s->threads == 0 && !s->blind);
    assert_string_equal(s->outputs.http_host, "127.0.0.1");
    assert_true(s->outputs.http_port == 8090 && !s->outputs.http_off && !s->outputs.database_off &&
                !s->outputs.mqtt_host);
    site_free(&s);
    s = load(
        "version: 1\nbudget: auto\nthreads: auto\noutputs: {http: off, video: v, database: false, jsonl: off}\n");
    assert_true(s->outputs.http_off && s->outputs.video_cameras.all && s->outputs.database_off && !s->outputs.jsonl);
    assert_true(s->outputs.pictures_keep == 0 && s->job_count == 0);
    site_free(&s);
    s = load("version: 1\nmodels: {a: {onnx: a.onnx}, b: {onnx: b.onnx}}\noutputs: {pictures: 3M}\njobs:\n  night: {do: train, words: [detect, --model, 'a b.onnx', --epochs, 3], publish: b, "
             "between: \"22:05-06:00\"}\n  day: {do: merge, words: ' x  y\tz '}\n");
    assert_true(s->outputs.pictures_keep == 3 << 20 && s->outputs.pictures_side == 640 && s->job_count == 2);
    assert_string_equal(s->jobs[0].words[2], "a b.onnx");
    assert_string_equal(s->jobs[0].words[4], "3");
    assert_true(s->jobs[0].word_count == 5 && s->jobs[0].publish == 1 && s->jobs[0].from == 22 * 60 + 5 && s->jobs[0].to == 360);
    assert_string_equal(s->jobs[1].words[2], "z");
    assert_true(s->jobs[1].word_count == 3 && s->jobs[1].publish == -1 && s->jobs[1].from == -1);
    site_free(&s);
}

static void environment_is_expanded(void **state)
{
    (void)state;
    setenv("BRIM_TEST_DIR", "/data", 1);
    struct site *s = load("version: 1\ncameras: {a: {url: '${BRIM_TEST_DIR}/a.mp4'}}\n");
    assert_string_equal(s->cameras[0].video.url, "/data/a.mp4");
    site_free(&s);
}

#define C                                                                                                          \
    "version: 1\ncameras: {door: {url: a}, yard: {url: b}}\nmodels: {yolox: {onnx: m.onnx}}\n" /* lines 1 to 3 */
#define Q C "queries:\n  q: {cameras: all, model: yolox, " /* the next key is in line 5, column 35 */

static const struct {
    const char *text, *sentence;
} wrong[] = {
    {"", "site.yaml:1:1: expected a site file"},
    {"- a", "site.yaml:1:1: expected a site file"},
    {"cameras: {}", "site.yaml:1:1: the key 'version' is missing; add it"},
    {"version: 2", "site.yaml:1:10: version: this brim reads version 1"},
    {"version: one", "site.yaml:1:10: version: expected a whole number of at least 1, found 'one'"},
    {"version: 1\nbudgt: auto", "site.yaml:2:1: budgt: unknown key; did you mean 'budget'?"},
    {"version: 1\nbudget: lots", "site.yaml:2:9: budget: expected a size such as 300M"},
    {"version: 1\nbudget: 10K", "budget: expected a size from 1.0 MiB"},
    {"version: 1\nthreads: 0", "threads: expected a whole number from 1 to 256, found '0'"},
    {"version: 1\nprecision: f16", "precision: expected f32, auto or bf16, found 'f16'"},
    {"version: 1\nsharing: off", "sharing: expected on or blind, found 'off'"},
    {"version: 1\nresidency: bloc", "residency: expected blocks or model, found 'bloc'"},
    {"version: 1\nstore: []", "store: expected text, found a list"},
    {"version: 1\nmodels: {a: {onnx: x, guard: yes}}", "site.yaml:2:30: models.a.guard: expected on, off, or a map such as {original: models/cars.onnx, every: 20s}"},
    {"version: 1\nmodels: {a: {onnx: x, guard: {evry: 5s}}}", "models.a.guard.evry: unknown key; did you mean 'every'?"},
    {"version: 1\nmodels: {a: {onnx: x, guard: {every: 5}}}", "models.a.guard.every: expected a duration"},
    {"version: 1\nmodels: {a: {onnx: x, guard: {target: 95}}}", "models.a.guard.target: expected a number from 0.01 to 1, found '95'"},
    {"version: 1\nmodels: {a: {onnx: x, guard: {window: 7}}}", "models.a.guard.window: expected a whole number from 8 to 200, found '7'"},
    {"version: 1\nmodels: {a: {onnx: x, guard: {original: []}}}", "models.a.guard.original: expected text, found a list"},
    {"version: 1\ncameras: [a]", "cameras: expected a map"},
    {"version: 1\ncameras:\n  a:\n", "cameras.a: expected a map (lines of 'key: value'), found nothing"},
    {"version: 1\ncameras:\n  a: {loop: true}", "site.yaml:3:3: cameras.a: the key 'url' is missing"},
    {"version: 1\ncameras: {'a b': {url: x}}", "site.yaml:2:11: cameras.a b: a name has 1 to 64 letters"},
    {"version: 1\ncameras: {all: {url: x}}", "cameras.all: this name has a meaning of its own"},
    {"version: 1\ncameras: {.a: {url: x}}", "does not begin with '.'"},
    {"version: 1\ncameras: {a: {url: 'ftp://u:hunter2@x/y'}}", "cameras.a.url: 'ftp://' is not a kind of address"},
    {"version: 1\ncameras: {a: {url: [x]}}", "cameras.a.url: expected text, found a list"},
    {"version: 1\ncameras: {a: {url: x, pace: fast}}", "cameras.a.pace: expected live or max, found 'fast'"},
    {"version: 1\ncameras: {a: {url: x, loop: 1}}", "cameras.a.loop: expected true or false"},
    {"version: 1\ncameras: {a: {url: x, decode: fork}}", "cameras.a.decode: expected thread or process"},
    {"version: 1\ncameras: {a: {url: x, transport: t}}", "cameras.a.transport: expected tcp or udp"},
    {"version: 1\ncameras: {a: {url: x, fps: 0}}", "cameras.a.fps: expected a number from 0.01 to 1000, found '0'"},
    {"version: 1\ncameras: {a: {url: x, timeout: 5}}", "cameras.a.timeout: expected a duration such as"},
    {"version: 1\ncameras: {a: {url: x, stall: 1ms}}", "cameras.a.stall: expected a duration from 100ms to 1h"},
    {"version: 1\ncameras: {a: {url: x, width: 9000}}", "cameras.a.width: expected a whole number from 1 to 8192"},
    {"version: 1\ndefaults: {cameras: {url: x}}", "defaults.cameras.url: cameras cannot share an address"},
    {"version: 1\ndefaults: {camera: {}}", "defaults.camera: unknown key; did you mean 'cameras'?"},
    {"version: 1\ndefaults: {queries: {zones: {}}}", "defaults.queries.zones: cannot be a default"},
    {"version: 1\nmodels: {m: {card: x}}", "models.m: the key 'onnx' is missing"},
    {"version: 1\nmodels: {m: {onnx: x, pin: on}}", "models.m.pin: expected true or false, found 'on'"},
    {"version: 1\nmodels: {m: {onnx: x, priority: 10}}",
     "models.m.priority: expected a whole number from 0 to 9, found '10'"},
    {"version: 1\nmodels: {motion: {onnx: x}}", "models.motion: this name has a meaning"},
    {"version: 1\nqueries: {q: {cameras: all, model: motion}}", "queries.q.cameras: there are no cameras"},
    {C "queries: {q: {model: yolox}}", "site.yaml:4:11: queries.q: the key 'cameras' is missing; add it: all, or"},
    {C "queries: {q: {cameras: all}}", "queries.q: the key 'model' is missing; add it: a model's name, or motion"},
    {C "queries: {q: {cameras: [yard, dor], model: yolox}}",
     "site.yaml:4:31: queries.q.cameras[1]: no camera has the name 'dor'; did you mean 'door'?"},
    {C "queries: {q: {cameras: zebra, model: yolox}}", "no camera has the name 'zebra'; there are door, yard"},
    {C "queries: {q: {cameras: [yard, yard], model: yolox}}",
     "queries.q.cameras[1]: this name is in the list twice"},
    {C "queries: {q: {cameras: [], model: yolox}}",
     "queries.q.cameras: expected all, a name, or a list of 1 to 256 names"},
    {C "queries: {q: {cameras: all, model: yolo}}",
     "queries.q.model: no model has the name 'yolo'; did you mean 'yolox'?"},
    {Q "fps: -1}", "site.yaml:5:40: queries.q.fps: expected a number from 0.001 to 1000, found '-1'"},
    {Q "deadline: 100}", "queries.q.deadline: unknown key; did you mean 'deadline_ms'?"},
    {Q "deadline_ms: 2s}", "queries.q.deadline_ms: expected a whole number from 1 to 600000, found '2s'"},
    {Q "priority: high}", "queries.q.priority: expected a whole number from 0 to 9, found 'high'"},
    {Q "min_score: 40}", "queries.q.min_score: expected a number from 0 to 1, found '40'"},
    {Q "objects: {}}", "queries.q.objects: expected all, a name, or a list"},
    {Q "zones: {z: [[0, 0], [1, 1]]}}", "queries.q.zones.z: expected a list of 3 to 64 points"},
    {Q "zones: {z: [[0, 0], [1, 1], [0, 300]]}}",
     "queries.q.zones.z[2][1]: expected a number from 0 to 1, found '300'"},
    {Q "zones: {z: [[0, 0], [1, 1], 5]}}", "queries.q.zones.z[2]: expected a list of 2 numbers, found '5'"},
    {Q "zones: {z: [[0, 0], [1, 1], ]}}", "expected a list of 3 to 64 points"},
    {Q "zones: {z: [[0, 0], [1, 1], ~]}}", "queries.q.zones.z[2]: expected a point [x, y], found nothing"},
    {Q "zones: {z: [[0, 0], [0.5, 0.5], [1, 1]]}}", "queries.q.zones.z: the three points lie on one line"},
    {Q "zones: {z: {camera: yard}}}", "queries.q.zones.z: the key 'points' is missing"},
    {Q "zones: {z: {points: [[0, 0], [1, 0], [1, 1]], camera: front}}}",
     "zones.z.camera: no camera has the name 'front'"},
    {Q "zones: 5}", "queries.q.zones: expected a map"},
    {Q "zones: {a/b: [[0, 0], [1, 0], [1, 1]]}}", "queries.q.zones.a/b: a name has 1 to 64 letters"},
    {C "queries: {q: {cameras: door, model: yolox, lines: {l: {points: [[0, 0], [1, 0]], camera: yard}}}}",
     "queries.q.lines.l.camera: this query does not use the camera 'yard'"},
    {Q "lines: {l: [[0, 0], [0, 0]]}}", "queries.q.lines.l: the line's two points are the same"},
    {Q "lines: {l: [[0, 0]]}}", "queries.q.lines.l: expected the line's two points"},
    {Q "lines: {l: {points: [[0, 0], [0, 1]], stay_ms: 1}}}",
     "queries.q.lines.l.stay_ms: unknown key; known here: points, camera"},
    {Q "track: false, lines: {l: [[0, 0], [0, 1]]}}",
     "queries.q.lines: needs tracks; write 'track: true' in this query"},
    {Q "motion: {threshold: 0}}", "queries.q.motion.threshold: expected a number from 1 to 255"},
    {Q "motion: true}", "queries.q.motion: expected a map"},
    {Q "events: {kinds: [enter]}}",
     "queries.q.events.kinds[0]: no event has the name 'enter'; did you mean 'entered'?"},
    {Q "events: {anchor: head}}", "queries.q.events.anchor: expected feet or centre"},
    {Q "events: {stay_ms: 5s}}", "queries.q.events.stay_ms: expected a whole number from 0 to 86400000"},
    {Q "cascade: {model: yolox}}", "queries.q.cascade: expected a list, found a map"},
    {Q "cascade: [yolox]}", "queries.q.cascade[0]: expected a map such as {model: NAME"},
    {Q "cascade: [{objects: all}]}", "queries.q.cascade[0]: the key 'model' is missing"},
    {Q "cascade: [{model: motion}]}", "queries.q.cascade[0].model: no model has the name 'motion'"},
    {Q "cascade: [{model: yolox, every: fast}]}", "queries.q.cascade[0].every: expected a duration such as"},
    {Q "objects: car, cascade: [{model: yolox, objects: person}]}", "'person' is not among the query's objects"},
    {Q "cascade: [{model: yolox, max_per_frame: 0}]}",
     "cascade[0].max_per_frame: expected a whole number from 1 to 64"},
    {"version: 1\noutputs: 3", "outputs: expected a map"},
    {"version: 1\noutputs: {databse: x}", "outputs.databse: unknown key; did you mean 'database'?"},
    {"version: 1\njobs: {night: {words: a}}", "jobs.night: the key 'do' is missing"},
    {"version: 1\njobs: {night: {do: train}}", "jobs.night: the key 'words' is missing"},
    {"version: 1\njobs: {night: {do: train, words: a, publish: m}}", "jobs.night.publish: no model has the name 'm'"},
    {"version: 1\njobs: {night: {do: train, words: a, between: 22-6}}", "jobs.night.between: expected hours of the day such as"},
    {"version: 1\njobs: {night: {do: train, words: a, between: '22:00-24:00'}}", "jobs.night.between: expected hours of the day such as"},
    {"version: 1\njobs: {night: {do: train, words: a, between: '22:00-22:00'}}", "jobs.night.between: expected hours of the day such as"},
    {"version: 1\njobs: {night: {do: train, words: a, every: day}}", "jobs.night.every: unknown key"},
    {"version: 1\njobs: {night: {do: train, words: {a: b}}}", "jobs.night.words: expected text"},
    {"version: 1\njobs: {9th: {do: train, words: a}}", "the name of a job begins with a letter"},
    {"version: 1\noutputs: {pictures: 1K}", "outputs.pictures: expected a size from 1.0 MiB"},
    {"version: 1\noutputs: {pictures: {side: 100}}", "outputs.pictures: the key 'keep' is missing"},
    {"version: 1\noutputs: {pictures: {keep: 1M, side: 10}}", "outputs.pictures.side: expected a whole number from 64 to 4096"},
    {"version: 1\noutputs: {pictures: {keep: 1M, folder: x}}", "outputs.pictures.folder: unknown key"},
    {"version: 1\noutputs: {pictures: 1M, database: off}", "outputs.pictures: pictures are of the database's events, but the database is off"},
    {"version: 1\noutputs: {video: {cameras: all}}", "outputs.video: the key 'folder' is missing"},
    {"version: 1\noutputs: {video: {folder: x, cameras: [front]}}",
     "outputs.video.cameras[0]: no camera has the name 'front'; there is none"},
    {"version: 1\noutputs: {mqtt: {port: 1}}", "outputs.mqtt: the key 'host' is missing"},
    {"version: 1\noutputs: {mqtt: {host: h, port: 0}}",
     "outputs.mqtt.port: expected a whole number from 1 to 65535"},
    {"version: 1\noutputs: {mqtt: {host: h, prefix: a/#}}",
     "outputs.mqtt.prefix: a topic has no '+', '#' or space"},
    {"version: 1\noutputs: {mqtt: {host: h, password: hunter2}}", "outputs.mqtt.password: a password needs a user"},
    {"version: 1\noutputs: {mqtt: {host: h, user: u, password: [hunter2]}}",
     "outputs.mqtt.password: expected text; write it in"},
    {"version: 1\noutputs: {mqtt: {host: h, discovery: maybe}}", "outputs.mqtt.discovery: expected true or false"},
    {"version: 1\noutputs: {mqtt: {host: h, outbox_max: 1}}",
     "outputs.mqtt.outbox_max: expected a size from 64.0 KiB"},
    {"version: 1\noutputs: {http: {listen: 8090}}",
     "outputs.http.listen: expected HOST:PORT such as 127.0.0.1:8090"},
    {"version: 1\noutputs: {http: {listen: '::1:80'}}", "outputs.http.listen: expected HOST:PORT"},
    {"version: 1\noutputs: {http: {listen: 'a:70000'}}", "outputs.http.listen: expected HOST:PORT"},
    {"version: 1\noutputs: {http: {hosts: all}}", "outputs.http.hosts: name the hosts"},
    {"version: 1\nversion: 1", "site.yaml:2:1: version: this key is already in line 1"},
    {"version: 1\nstore: ${BRIM_TEST_NOT_SET}",
     "site.yaml:2:8: store: the environment has no variable BRIM_TEST_NOT_SET"},
};

static void every_error_says_where_and_what(void **state)
{
    (void)state;
    size_t bad = 0;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct site *s = NULL;
        struct site_problems p = {0};
        err e = site_load_all("site.yaml", wrong[i].text, strlen(wrong[i].text), &p, &s);
        bool found = e && strstr(err_text(), wrong[i].sentence) && !strstr(err_text(), "hunter2");
        if (!found || p.count != 1) { /* one mistake, one sentence */
            bad++;
            print_message("case %zu, %zu problems: %s\n  got:    %s\n  wanted: %s\n", i, p.count, wrong[i].text,
                          e ? err_text() : "no error", wrong[i].sentence);
            for (size_t k = 0; k < p.count; k++) print_message("  %s\n", p.items[k]);
        }
        if (e) assert_int_equal(err_exit_status(e), 2);
        site_free(&s);
        site_problems_done(&p);
    }
    assert_int_equal(bad, 0);
}

static void all_problems_are_listed(void **state)
{
    (void)state;
    static const char text[] =
        "version: 1\nbudget: x\ncameras: {a: {pace: x, url: 5}}\nqueries: {q: {model: z, cameras: b}}\n";
    struct site *s = NULL;
    struct site_problems p = {0};
    assert_int_equal(site_load_all("site.yaml", text, strlen(text), &p, &s), ERR_FORMAT);
    assert_int_equal(p.count, 4);
    assert_non_null(strstr(err_text(), "budget: expected a size"));
    assert_non_null(strstr(err_text(), "(and 3 more; brim check lists them)"));
    site_problems_done(&p);
    struct strbuf b = {0};
    strbuf_add(&b, "version: 1\ncameras:\n");
    for (int i = 0; i < 300; i++) strbuf_addf(&b, "  c%d: {url: x}\n", i);
    assert_int_equal(site_load_all("site.yaml", b.s, b.len, NULL, &s), ERR_LIMIT);
    assert_non_null(strstr(err_text(), "cameras: 300 entries; at most 256 are possible"));
    b.len = 0;
    strbuf_add(&b, "version: 1\ncameras:\n");
    for (int i = 0; i < 200; i++) strbuf_addf(&b, "  c%d: {url: x, fps: bad}\n", i);
    assert_int_equal(site_load_all("site.yaml", b.s, b.len, &p, &s), ERR_FORMAT);
    assert_int_equal(p.count, SITE_MAX_PROBLEMS);
    assert_non_null(strstr(err_text(), "(and 199 more"));
    site_problems_done(&p);
    b.len = 0;
    strbuf_add(&b, "version: 1\ncameras:\n");
    for (int i = 0; i < 200; i++) strbuf_addf(&b, "  c%d: {url: x}\n", i);
    strbuf_add(&b, "queries:\n");
    for (int i = 0; i < 30; i++) strbuf_addf(&b, "  q%d: {cameras: all, model: motion}\n", i);
    assert_int_equal(site_load_all("site.yaml", b.s, b.len, NULL, &s), ERR_LIMIT);
    assert_non_null(strstr(err_text(), "queries times cameras make 6000 streams; at most 4096"));
    strbuf_done(&b);
    assert_int_equal(site_load("/nonexistent.yaml", &s), ERR_NOT_FOUND);
    assert_null(s);
}

static const char *const *labels(void *arg, int model)
{
    static const char *const coco[] = {"person", "car", "dog", NULL};
    (void)arg;
    return model == 0 ? coco : NULL;
}

static void labels_are_checked(void **state)
{
    (void)state;
    struct site *s = load(full);
    struct site_problems p = {0};
    assert_int_equal(site_check_labels(s, labels, NULL, &p), ERR_OK);
    site_free(&s);
    s = load(Q "objects: [dog, persn], cascade: [{model: yolox, objects: [dog]}]}\n  m: {cameras: all, model: "
               "motion, objects: cat}\n");
    assert_int_equal(site_check_labels(s, labels, NULL, &p), ERR_FORMAT);
    assert_int_equal(p.count, 2);
    assert_string_equal(p.items[0],
                        "dir/site.yaml:5:50: queries.q.objects[1]: no label of this model has the name 'persn'; "
                        "did you mean 'person'?");
    assert_non_null(
        strstr(p.items[1], "queries.m.objects: no label of this model has the name 'cat'; there are motion"));
    site_problems_done(&p);
    site_free(&s);
}

/* Replaces the first `from` in `full` by `to` and returns the diff against `full`. */
static struct site_diff *change(const char *from, const char *to, struct site **a, struct site **b)
{
    const char *at = strstr(full, from);
    assert_non_null(at);
    char *text = xasprintf("%.*s%s%s", (int)(at - full), full, to, at + strlen(from));
    *a = load(full), *b = load(text);
    free(text);
    return site_diff(*a, *b);
}

static void a_reload_touches_only_what_changed(void **state)
{
    (void)state;
    struct site *a, *b;
    struct site_diff *d = change("# nothing" + 9, "", &a, &b);
    for (size_t i = 0; i < 3; i++) assert_true(d->cameras[i].same);
    assert_true(d->models[0].same && d->models[1].same && d->queries[0].same && d->queries[1].same);
    assert_true(d->settings_same && d->budget_same && d->outputs_same);
    site_diff_free(&d), site_free(&a), site_free(&b);

    d = change("fps: 25", "fps: 24", &a, &b); /* a camera: its queries follow, the other cameras do not */
    assert_true(!d->cameras[0].same && d->cameras[1].same && d->cameras[2].same && d->models[0].same);
    assert_true(!d->queries[0].same && !d->queries[1].same && d->outputs_same);
    site_diff_free(&d), site_free(&a), site_free(&b);

    d = change("cards/f.yaml", "cards/g.yaml", &a, &b); /* the cascade's model */
    assert_true(d->models[0].same && !d->models[1].same && !d->queries[0].same && d->queries[1].same &&
                d->cameras[0].same);
    site_diff_free(&d), site_free(&a), site_free(&b);

    d = change("  usb: {url: /dev/video0, width: 640, height: 480, transport: tcp}\n", "  new: {url: n}\n", &a, &b);
    assert_int_equal(d->camera_count, 4);
    assert_true(d->cameras[2].old_index == -1 && d->cameras[2].new_index == 2 && !strcmp(d->cameras[2].name, "new"));
    assert_true(d->cameras[3].old_index == 2 && d->cameras[3].new_index == -1 && !strcmp(d->cameras[3].name, "usb"));
    assert_true(d->queries[0].same && !d->queries[1].same);
    site_diff_free(&d), site_free(&a), site_free(&b);

    d = change("  door: {url: 'rtsp://u:secret@10.0.0.7/s', fps: 25, stall: 2s}\n  yard: {url: video/yard.mp4, "
               "loop: true, "
               "pace: max, decode: process}\n",
               "  yard: {url: video/yard.mp4, loop: true, pace: max, decode: process}\n  door: {url: "
               "'rtsp://u:secret@10.0.0.7/s', "
               "fps: 25, stall: 2s}\n",
               &a, &b); /* only the order: still the same cameras */
    assert_true(d->cameras[0].same && d->cameras[1].same && d->cameras[0].old_index == 1);
    site_diff_free(&d), site_free(&a), site_free(&b);
    site_diff_free(&d);
}

/* Every value of the full file, changed alone, is seen by the diff in its part and only there. */
static const struct {
    const char *from, *to;
    char part; /* c(amera) m(odel) q(uery) o(utputs) s(ettings) b(udget) */
} changes[] = {
    {"300M", "301M", 'b'},
    {"store: state", "store: s", 's'},
    {"precision: f32", "precision: auto", 's'},
    {"threads: 2", "threads: 1", 's'},
    {"transport: udp", "transport: tcp", 'c'},
    {"timeout: 5s", "timeout: 6s", 'c'},
    {"secret", "other", 'c'},
    {"stall: 2s", "stall: 4s", 'c'},
    {"loop: true", "loop: false", 'c'},
    {"pace: max", "pace: live", 'c'},
    {"decode: process", "decode: thread", 'c'},
    {"width: 640", "width: 641", 'c'},
    {"height: 480", "height: 481", 'c'},
    {"models/yolox", "models/y", 'm'},
    {"pin: true", "pin: false", 'm'},
    {"priority: 9", "priority: 8", 'm'},
    {"precision: auto", "precision: f32", 'm'},
    {"was/f.onnx", "was/g.onnx", 'm'},
    {"every: 90s", "every: 91s", 'm'},
    {"target: 0.8", "target: 0.81", 'm'},
    {"window: 12", "window: 13", 'm'},
    {"guard: {original: was/f.onnx, every: 90s, target: 0.8, window: 12}", "guard: on", 'm'},
    {"[yard, door]", "[yard, usb, door]", 'q'},
    {"model: yolox", "model: faces", 'q'},
    {"[person, car]", "[person, dog]", 'q'},
    {"queries: {fps: 2", "queries: {fps: 3", 'q'},
    {"priority: 3", "priority: 4", 'q'},
    {"deadline_ms: 250", "deadline_ms: 251", 'q'},
    {"min_score: 0.4", "min_score: 0.5", 'q'},
    {"gate: true", "gate: false", 'q'},
    {"threshold: 30", "threshold: 30, deviations: 5", 'q'},
    {"threshold: 30", "threshold: 31", 'q'},
    {"threshold: 30", "min_pixels: 9, threshold: 30", 'q'},
    {"threshold: 30", "width: 99, threshold: 30", 'q'},
    {"threshold: 30", "hold_ms: 9, threshold: 30", 'q'},
    {"threshold: 30", "adapt_ms: 9, threshold: 30", 'q'},
    {"porch", "porsche", 'q'},
    {"[0.5, 1]", "[0.6, 1]", 'q'},
    {"camera: door, ", "", 'q'},
    {"stay_ms: 0", "stay_ms: 1", 'q'},
    {"{gate: [[0, 0.5]", "{gate: [[0, 0.6]", 'q'},
    {"[entered, crossed]", "[entered]", 'q'},
    {"anchor: centre", "anchor: feet", 'q'},
    {"stay_ms: 4000", "stay_ms: 4001", 'q'},
    {"{stay_ms", "{settle_ms: 1, stay_ms", 'q'},
    {"model: faces, objects", "model: yolox, objects", 'q'},
    {"objects: person,", "objects: car,", 'q'},
    {"min_size: 40", "min_size: 41", 'q'},
    {"max_per_frame: 2", "max_per_frame: 3", 'q'},
    {"every: 5s", "every: 6s", 'q'},
    {"margin: 0.1", "margin: 0.2", 'q'},
    {"margin: 0.1", "margin: 0.1, min_score: 0.1", 'q'},
    {"track: false", "track: true", 'q'},
    {"database: off", "database: d", 'o'},
    {"'-'", "j", 'o'},
    {"out/mot", "out/m", 'o'},
    {"out/video", "out/v", 'o'},
    {"cameras: [door]", "cameras: all", 'o'},
    {"host: broker", "host: b", 'o'},
    {"user: u", "user: v", 'o'},
    {"hunter2", "hunter3", 'o'},
    {"host: broker", "host: broker, port: 9", 'o'},
    {"host: broker", "host: broker, prefix: p", 'o'},
    {"discovery: true", "discovery: false", 'o'},
    {"outbox_max: 1M", "outbox_max: 2M", 'o'},
    {"9000", "9001", 'o'},
    {"::1", "::2", 'o'},
    {"box.local", "box.lan", 'o'},
    {"http: {listen: '[::1]:9000', hosts: [box.local]}", "http: off", 'o'},
};

static void no_value_is_forgotten(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
        struct site *a, *b;
        struct site_diff *d = change(changes[i].from, changes[i].to, &a, &b);
        bool c = true, m = true, q = true;
        for (size_t k = 0; k < d->camera_count; k++) c = c && d->cameras[k].same;
        for (size_t k = 0; k < d->model_count; k++) m = m && d->models[k].same;
        for (size_t k = 0; k < d->query_count; k++) q = q && d->queries[k].same;
        char part = changes[i].part;
        bool inherits = strstr(changes[i].from, "precision: f32") != NULL; /* the models take the site's */
        bool right = c == (part != 'c') && m == (part != 'm' && !inherits) &&
                     q == (part != 'c' && part != 'm' && part != 'q' && !inherits) &&
                     d->outputs_same == (part != 'o') && d->settings_same == (part != 's') &&
                     d->budget_same == (part != 'b');
        if (!right) print_message("change %zu: '%s' to '%s'\n", i, changes[i].from, changes[i].to);
        assert_true(right);
        site_diff_free(&d), site_free(&a), site_free(&b);
    }
}

/* The schema and the reader know the same keys, and the reference mentions each. */
static void schema_and_reference_have_the_same_keys(void **state)
{
    (void)state;
    static const char *const parts[][2] = {{"site", NULL},       {"defaults", "defaults"}, {"camera", "camera"},
                                           {"model", "model"},   {"guard", "guard"}, {"query", "query"},       {"cascade", "cascade"},
                                           {"motion", "motion"}, {"events", "events"},     {"outputs", "outputs"},
                                           {"pictures", "pictures"}, {"job", "job"}, {"video", "video"},   {"mqtt", "mqtt"},         {"http", "http"}};
    const char *source = getenv("BRIM_SOURCE");
    if (!source) {
        print_message("BRIM_SOURCE is not set; the schema is not compared\n");
        skip();
    }
    char *path = xasprintf("%s/src/engine/site.schema.json", source);
    json_t *schema = json_load_file(path, 0, NULL);
    free(path);
    assert_non_null(schema);
    path = xasprintf("%s/docs/site.md", source);
    char *reference = xcalloc(65536, 1);
    FILE *f = fopen(path, "r");
    free(path);
    assert_non_null(f);
    assert_true(fread(reference, 1, 65535, f) > 1000);
    fclose(f);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        json_t *part = parts[i][1] ? json_object_get(json_object_get(schema, "$defs"), parts[i][1]) : schema;
        json_t *keys = json_object_get(part, "properties");
        const char *const *known = site_keys(parts[i][0]);
        size_t n = 0;
        for (; known[n]; n++) {
            if (!json_object_get(keys, known[n])) fail_msg("the schema's %s lacks '%s'", parts[i][0], known[n]);
            if (!strstr(reference, known[n])) fail_msg("docs/site.md does not mention '%s'", known[n]);
        }
        assert_int_equal(json_object_size(keys), n);
    }
    free(reference);
    json_decref(schema);
    assert_null(site_keys("none"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_file), cmocka_unit_test(values_are_overridden_one_by_one),
        cmocka_unit_test(environment_is_expanded), cmocka_unit_test(every_error_says_where_and_what),
        cmocka_unit_test(all_problems_are_listed), cmocka_unit_test(labels_are_checked),
        cmocka_unit_test(a_reload_touches_only_what_changed), cmocka_unit_test(no_value_is_forgotten),
        cmocka_unit_test(schema_and_reference_have_the_same_keys)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

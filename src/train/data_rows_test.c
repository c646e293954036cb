/* A box's own events as data: what of them is a sample, its class and its boxes; pictures that are gone, damaged or shared by events; what cannot be read.
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/data_testing.h"

#include "rows/picture.h"
#include "train/data_sample.h"

#include <sqlite3.h>

enum { W = 64, H = 48 };

/* A picture of W x H, dark, with a square of a colour at 8 x `at`, 8; what it says of itself, NULL: nothing. */
static void write_picture(const struct bench *b, const uint8_t *uid, int at, int colour, const struct rows_seen *seen, int n)
{
    uint8_t comment[ROWS_PICTURE_COMMENT], rgb[W * H * 3];
    const uint8_t *jpeg;
    size_t size, said = seen ? rows_picture_comment(seen, n, comment) : 0;
    for (int i = 0; i < W * H * 3; i++) rgb[i] = i / 3 % W / 16 == at && i / 3 / W / 16 == 1 && i % 3 == colour ? 230 : 30;
    struct video_jpeg *j = video_jpeg_new(b->payer, 100);
    assert_int_equal(video_jpeg_encode(j, rgb, 3 * W, W, H, &jpeg, &size), ERR_OK);
    char *folder = xasprintf("%s/events.db.pictures", b->dir), *path = rows_picture_path(folder, uid);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(jpeg, 1, 2, f);
    fwrite(comment, 1, said, f);
    fwrite(jpeg + 2, 1, size - 2, f);
    fclose(f);
    free(folder);
    free(path);
    video_jpeg_free(&j);
}

/* Frames are twice as large as their pictures. Box in sixteenths of the picture: one of the squares of write_picture. */
static struct rows_event event_of(int number, int at, const char *label, const char *attributes)
{
    struct rows_event e = {.time = 1000 + number, .frame = (uint64_t)number, .track = number, .score = 0.9, .width = 2 * W, .height = 2 * H, .event = "appeared"};
    e.uid[0] = (uint8_t)(number >> 8), e.uid[1] = (uint8_t)number;
    memcpy(e.box, (float[]){(float)(32 * at), 32, (float)(32 * at + 32), 64}, sizeof e.box);
    snprintf(e.camera, sizeof e.camera, "cam%d", number % 2);
    snprintf(e.query, sizeof e.query, number < 6 ? "first" : "second");
    snprintf(e.label, sizeof e.label, "%s", label);
    snprintf(e.attributes, sizeof e.attributes, "%s", attributes);
    return e;
}

static void add_all(const struct bench *b, const struct rows_event *events, int n)
{
    struct rows *r;
    char *path = bench_path(b, "events.db");
    assert_int_equal(rows_open(&(struct rows_options){.path = path, .budget = b->budget}, &r), ERR_OK);
    for (int i = 0; i < n; i++) rows_add(r, &events[i]);
    rows_close(&r);
    free(path);
}

/* Twelve events: of even ones red cars, of odd ones blue vans; 3 has no picture, 4 a damaged one, 5 a box that is too small, 7 no attributes. */
static void write_store(const struct bench *b)
{
    struct rows_event events[12];
    bench_folder(b, "events.db.pictures");
    for (int i = 0; i < 12; i++) {
        bool van = i % 2;
        events[i] = event_of(i, i % 4, van ? "van" : "car", i == 7 ? "" : van ? "dark blue 0.93, old 0.50" : "red 0.88");
        struct rows_seen seen[2] = {{.box = {0, 0, 0.25f, 0.25f}, .score = 0.5f, .label = "person"}, {.box = {0.5f, 0.5f, 1, 1}, .score = 1, .label = "car"}};
        if (i == 5) events[i].box[2] = events[i].box[0] + 20;
        if (i != 3) write_picture(b, events[i].uid, i % 4, van ? 2 : 0, i % 3 == 0 ? seen : NULL, 2);
    }
    bench_text(b, "events.db.pictures/00040000000000000000000000000000.jpg", "");
    char *folder = xasprintf("%s/events.db.pictures", b->dir), *bad = rows_picture_path(folder, events[4].uid);
    FILE *f = fopen(bad, "r+b");
    assert_non_null(f);
    fputs("no JPEG any more", f);
    fclose(f);
    free(folder);
    free(bad);
    add_all(b, events, 12);
}

static struct train_set *must_open(const struct bench *b, const char *path, const struct train_set_options *o)
{
    struct train_set *s;
    if (train_set_open(path, o, b->payer, &s)) fail_msg("%s", err_text());
    return s;
}

static void objects(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char name[256], *database = bench_path(&b, "events.db");
    write_store(&b);
    struct train_set *s = must_open(&b, b.dir, &(struct train_set_options){0});
    const struct train_set_report *r = train_set_report(s);
    assert_int_equal(train_set_kind(s), TRAIN_SET_ROWS);
    assert_false(train_set_has_boxes(s));
    assert_int_equal(train_set_count(s), 9);
    assert_true(r->no_pictures == 1 && r->bad_images == 1 && r->bad_boxes == 1 && r->left_out == 0);
    snprintf(name, sizeof name, "%s: event 4 has no picture any more", b.dir);
    assert_string_equal(r->problem, name);
    assert_int_equal(train_set_classes(s), 2);
    assert_string_equal(train_set_class(s, 0), "car");
    /* crops show the square of the event's own colour and nothing else */
    struct train_data *d;
    const struct train_batch *batch;
    assert_int_equal(train_data_open(s, &(struct train_data_options){.width = 8, .height = 8, .batch = 9, .evaluate = true}, b.payer, &d), ERR_OK);
    assert_int_equal(train_data_next(d, &batch), ERR_OK);
    for (int i = 0; i < 9; i++) {
        const float *pixel = (const float *)batch->images + (i * 64 + 36) * 3;
        assert_true(pixel[batch->labels[i] ? 2 : 0] > 180 && pixel[batch->labels[i] ? 0 : 2] < 80);
    }
    train_data_close(&d);
    assert_non_null(strstr(train_set_name(s, 8, name, sizeof name), "#event 12"));
    int64_t *train, *held, n_train, n_held;
    train_data_split(s, 0.25, 1, &train, &n_train, &held, &n_held); /* the newest */
    assert_true(n_train == 7 && n_held == 2 && held[0] == 7 && held[1] == 8);
    free(train);
    free(held);
    train_set_free(&s);

    s = must_open(&b, database, &(struct train_set_options){.named = "attributes"});
    assert_int_equal(train_set_count(s), 8);
    assert_int_equal(train_set_report(s)->left_out, 1);
    assert_string_equal(train_set_class(s, 0), "dark blue");
    assert_string_equal(train_set_class(s, 1), "red");
    train_set_free(&s);
    s = must_open(&b, database, &(struct train_set_options){.named = "query", .camera = "cam0", .since = 1002});
    assert_int_equal(train_set_count(s), 4);
    assert_string_equal(train_set_class(s, 1), "second");
    train_set_free(&s);
    s = must_open(&b, database, &(struct train_set_options){.query = "second", .classes = (const char *const[]){"van"}, .n_classes = 1});
    assert_int_equal(train_set_count(s), 3);
    assert_int_equal(train_set_report(s)->left_out, 3);
    train_set_free(&s);
    free(database);
    bench_end(&b);
}

/* Whole pictures: three say what is in them, the others have their event's object; two more events share a file. */
static void boxes(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    write_store(&b);
    struct rows_event more[2] = {event_of(20, 0, "car", ""), event_of(21, 1, "car", "")};
    char *folder = xasprintf("%s/events.db.pictures", b.dir), *first = rows_picture_path(folder, more[0].uid), *second = rows_picture_path(folder, more[1].uid);
    write_picture(&b, more[0].uid, 0, 0, NULL, 0);
    assert_int_equal(link(first, second), 0);
    add_all(&b, more, 2);
    struct train_set *s = must_open(&b, b.dir, &(struct train_set_options){.boxes = true});
    int n;
    assert_true(train_set_has_boxes(s));
    assert_int_equal(train_set_count(s), 12); /* of 14 one has no picture, one the other's; the damaged one is met when it is read */
    assert_int_equal(train_set_report(s)->no_pictures, 1);
    assert_int_equal(train_set_classes(s), 3);
    assert_string_equal(train_set_class(s, 1), "person");
    const struct train_box *box = train_set_boxes(s, 0, &n);
    assert_int_equal(n, 2);
    assert_true(box[0].class_id == 1 && box[1].class_id == 0);
    assert_float_equal(box[1].x1, 0.5, 1e-5);
    box = train_set_boxes(s, 1, &n);
    assert_int_equal(n, 1);
    assert_int_equal(box[0].class_id, 2);
    assert_float_equal(box[0].x1, 0.25, 1e-5);
    assert_float_equal(box[0].y2, 64 / 96.0, 1e-5);
    /* as training gets them: in pixels */
    struct train_data *d;
    const struct train_batch *batch;
    assert_int_equal(train_data_open(s, &(struct train_data_options){.width = W, .height = H, .batch = 12, .evaluate = true}, b.payer, &d), ERR_OK);
    assert_int_equal(train_data_next(d, &batch), ERR_OK);
    assert_int_equal(batch->n_boxes[1], 1);
    assert_float_equal(batch->boxes[120].x1, 16, 1e-3);
    assert_float_equal(batch->boxes[120].y2, 32, 1e-3);
    assert_int_equal(batch->samples[3], -1); /* damaged */
    train_data_close(&d);
    train_set_free(&s);
    free(folder);
    free(first);
    free(second);
    bench_end(&b);
}

static void refused(const struct bench *b, const char *path, const struct train_set_options *o, err want, const char *says)
{
    struct train_set *s;
    assert_int_equal(train_set_open(path, o, b->payer, &s), want);
    if (!strstr(err_text(), says)) fail_msg("%s; expected: %s", err_text(), says);
}

static void what_cannot_be_read(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    struct train_set_options none = {0};
    char *database = bench_path(&b, "events.db");
    struct rows_event e = event_of(1, 0, "car", "");
    sqlite3 *db;
    refused(&b, database, &none, ERR_NOT_FOUND, "events.db: No such file");
    refused(&b, b.dir, &(struct train_set_options){.kind = TRAIN_SET_ROWS}, ERR_NOT_FOUND, "events.db: No such file");
    bench_text(&b, "events.db", "");
    refused(&b, b.dir, &none, ERR_FORMAT, "no database of events of brim serve");
    unlink(database);
    add_all(&b, NULL, 0);
    refused(&b, b.dir, &none, ERR_FORMAT, "no events in it yet");
    add_all(&b, &e, 1);
    refused(&b, b.dir, &none, ERR_FORMAT, "none of its 1 events has a picture; a box keeps them with 'pictures: 256M'");
    refused(&b, b.dir, &(struct train_set_options){.query = "other"}, ERR_FORMAT, "no events that --query, --camera and --since let through");
    refused(&b, b.dir, &(struct train_set_options){.named = "colour"}, ERR_USAGE, "--label of events is label, attributes, zone, event, query or camera, not 'colour'");
    refused(&b, b.dir, &(struct train_set_options){.identities = true}, ERR_USAGE, "a box's own events are for --task classify, detect and attributes");
    assert_int_equal(sqlite3_open(database, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=9", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    refused(&b, b.dir, &none, ERR_UNSUPPORTED, "has schema 9, this brim knows 1");
    unlink(database);
    bench_text(&b, "events.db", "SQLite format 3 is what this should be, but it is some other text that is longer than the header of a database would be..");
    refused(&b, b.dir, &none, ERR_CORRUPT, "file is not a database");
    free(database);
    bench_end(&b);
}

static void is_row(const struct train_batch *batch, int i, float a, float b, float c)
{
    const float *row = batch->attributes + 3 * i;
    if (row[0] != a || row[1] != b || row[2] != c) fail_msg("row %d: %g %g %g", i, (double)row[0], (double)row[1], (double)row[2]);
}

/* A yes for each word that a row says, a no for what only others say; events that say nothing are left out, and after a row that may have been cut nothing more is known. */
static void attributes(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    const struct train_set_options how = {.attributes = true};
    char full[200] = "old 0.70, ";
    while (strlen(full) < 159) strcat(full, "x");
    write_store(&b);
    struct rows_event more[2] = {event_of(12, 0, "car", full), event_of(13, 1, "van", "embedding[8]")};
    for (int i = 0; i < 2; i++) write_picture(&b, more[i].uid, i, 0, NULL, 0);
    add_all(&b, more, 2);
    struct train_set *s = must_open(&b, b.dir, &how);
    assert_true(train_set_has_attributes(s) && !train_set_has_boxes(s));
    assert_int_equal(train_set_kind(s), TRAIN_SET_ROWS);
    assert_int_equal(train_set_count(s), 9);
    assert_int_equal(train_set_report(s)->left_out, 2);
    assert_int_equal(train_set_classes(s), 3);
    assert_string_equal(train_set_class(s, 0), "dark blue");
    assert_string_equal(train_set_class(s, 1), "old");
    assert_string_equal(train_set_class(s, 2), "red");
    struct train_data *d;
    const struct train_batch *batch;
    assert_int_equal(train_data_open(s, &(struct train_data_options){.width = 8, .height = 8, .batch = 9, .evaluate = true}, b.payer, &d), ERR_OK);
    assert_int_equal(train_data_next(d, &batch), ERR_OK);
    for (int i = 0; i < 8; i++) {
        const float *pixel = (const float *)batch->images + (i * 64 + 36) * 3;
        bool blue = pixel[2] > 180;
        is_row(batch, i, blue, blue, !blue);
    }
    is_row(batch, 8, -1, 1, -1);
    train_data_close(&d);
    train_set_free(&s);
    s = must_open(&b, b.dir, &(struct train_set_options){.attributes = true, .classes = (const char *const[]){"red", "green", "old"}, .n_classes = 3}); /* as a job that goes on asks */
    assert_string_equal(train_set_class(s, 0), "red");
    assert_int_equal(train_set_report(s)->empty_classes, 0);
    assert_int_equal(train_data_open(s, &(struct train_data_options){.width = 8, .height = 8, .batch = 9, .evaluate = true}, b.payer, &d), ERR_OK);
    assert_int_equal(train_data_next(d, &batch), ERR_OK);
    is_row(batch, 0, 1, 0, 0);
    is_row(batch, 8, -1, -1, 1);
    train_data_close(&d);
    train_set_free(&s);
    refused(&b, b.dir, &(struct train_set_options){.attributes = true, .named = "zone"}, ERR_USAGE, "--label is for --task classify; --task attributes takes all that the rows' attributes say");
    refused(&b, b.dir, &(struct train_set_options){.attributes = true, .since = 1013}, ERR_FORMAT, "of its 1 events none with a picture says anything as attributes; a cascade in the site file does");
    refused(&b, b.dir, &(struct train_set_options){.named = "zone"}, ERR_FORMAT, "of its 14 events none with a picture says anything as zone");
    bench_end(&b);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    struct train_set *s;
    write_store(&b);
    for (int kind = 0; kind < 3; kind++)
        for (int n = 1, done = 0; !done; n++) {
            uint64_t used = mem_budget_used(b.budget);
            mem_fault_at(b.budget, n);
            err e = train_set_open(b.dir, &(struct train_set_options){.boxes = kind == 1, .attributes = kind == 2}, b.payer, &s);
            mem_fault_at(b.budget, 0);
            done = e == ERR_OK;
            if (done) train_set_free(&s);
            else assert_int_equal(e, ERR_NOMEM);
            assert_int_equal(mem_budget_used(b.budget), used);
            assert_true(n < 1000);
        }
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(objects), cmocka_unit_test(boxes), cmocka_unit_test(attributes), cmocka_unit_test(what_cannot_be_read), cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Fuzz target: any bytes as the labels of pictures that are there: YOLO's text, attributes.csv, a text of two-byte tokens, MOT rows of a video (as boxes and as
 * crops). The first byte says which. What opens must keep its promises: boxes finite and of the set's classes, attributes -1, 0 or 1, tokens of the vocabulary.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "train/data_sample.h"
#include "video/testing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static char dir[64]; /* made once: a folder with pictures and a video, where the labels are written anew each time */

static void put(const char *name, const void *bytes, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f)) abort();
}

static void sweep(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command)) return;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const folders[] = {"", "/yolo", "/yolo/images", "/yolo/labels", "/att"};
    char path[128];
    (void)argc;
    (void)argv;
    snprintf(dir, sizeof dir, "%s/brim-labels-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(dir)) abort();
    atexit(sweep);
    for (size_t i = 1; i < ARRAY_LEN(folders); i++) {
        snprintf(path, sizeof path, "%s%s", dir, folders[i]);
        if (mkdir(path, 0700)) abort();
    }
    put("yolo/images/a.jpg", "x", 1);
    put("yolo/classes.txt", "a\nb\n", 4);
    put("att/a.jpg", "x", 1);
    put("att/b.jpg", "x", 1);
    snprintf(path, sizeof path, "%s/clip.mp4", dir);
    if (clip_make(path, 64, 64, 2, 10, 0, false)) abort();
    return 0;
}

static void check(const struct train_set *s)
{
    int64_t tokens[17];
    for (int64_t i = 0; i < train_set_count(s); i++) {
        int n;
        const struct train_box *b = train_set_boxes(s, i, &n);
        for (int k = 0; k < n; k++)
            if (!isfinite(b[k].x1) || !isfinite(b[k].y2) || !(b[k].x2 > b[k].x1) || b[k].class_id < 0 || b[k].class_id >= train_set_classes(s)) abort();
        if (train_set_label(s, i) >= train_set_classes(s)) abort();
        if (train_set_kind(s) != TRAIN_SET_TEXT || s->records[0].w > 16) continue;
        if (data_tokens(s, i, tokens)) abort();
        for (int k = 0; k <= s->records[0].w; k++)
            if (tokens[k] < 0 || tokens[k] >= train_set_vocabulary(s)) abort();
    }
    if (s->attributes.len && s->attributes.len != s->samples.len * s->n_classes) abort();
    for (size_t i = 0; i < s->attributes.len; i++)
        if (((const int8_t *)s->attributes.items)[i] < -1 || ((const int8_t *)s->attributes.items)[i] > 1) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct { const char *file, *open; bool identities; } kinds[] = {{"yolo/labels/a.txt", "yolo", false}, {"att/attributes.csv", "att", false},
                                                                                {"t.u16", "t.u16", false}, {"clip.txt", "clip.mp4", false}, {"clip.txt", "clip.mp4", true}};
    if (size < 2) return 0;
    size_t k = data[0] % ARRAY_LEN(kinds);
    struct mem_budget *b = mem_budget_new("host", 64 << 20);
    struct mem_payer *p = mem_payer_new(b, "fuzz");
    struct train_set *s;
    char path[128], labels[128];
    put(kinds[k].file, data + 1, size - 1);
    snprintf(path, sizeof path, "%s/%s", dir, kinds[k].open);
    snprintf(labels, sizeof labels, "%s/clip.txt", dir);
    if (train_set_open(path, &(struct train_set_options){.labels = labels, .length = 1 + data[1] % 16, .identities = kinds[k].identities, .every = 1}, p, &s) == ERR_OK) {
        check(s);
        train_set_free(&s);
    }
    if (mem_budget_used(b)) abort();
    mem_payer_free(&p);
    mem_budget_free(&b);
    return 0;
}

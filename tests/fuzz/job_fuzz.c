/* Fuzz target: any bytes as what a box finds of a job in its store (STORE/jobs/NAME.json). What is taken has a name, a folder and a state as jobs have, and is the same
 * when it is written and read again. SPDX-License-Identifier: Apache-2.0 */
#include "engine/job_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static char dir[64]; /* made once */

static void sweep(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command)) return;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_set_level(LOG_ERROR);
    snprintf(dir, sizeof dir, "%s/brim-jobs-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(dir)) abort();
    atexit(sweep);
    return 0;
}

static void clear(struct engine_jobs *js)
{
    while (js->list) {
        struct engine_job *j = js->list;
        js->list = j->next;
        engine_job_free(&j);
    }
}

static void check(const struct engine_job *j)
{
    if (!engine_job_good_name(j->row.name) || j->folder[0] != '/' || j->n_words > ENGINE_JOB_WORDS) abort();
    if (!*engine_job_state_name(j->row.state) || j->row.state == ENGINE_JOB_RUNNING || !(j->row.done >= 0 && j->row.done <= 1) || j->starts < 0) abort();
}

static bool same(const struct engine_job *a, const struct engine_job *b)
{
    bool yes = !strcmp(a->row.name, b->row.name) && !strcmp(a->folder, b->folder) && !strcmp(a->row.publish, b->row.publish) && a->n_words == b->n_words && a->number == b->number &&
               a->row.state == b->row.state && a->began == b->began && a->worked == b->worked && a->starts == b->starts;
    for (int i = 0; yes && i < a->n_words; i++) yes = !strcmp(a->words[i], b->words[i]);
    return yes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct engine_job_kind kinds[] = {{.name = "train"}};
    struct engine_jobs js = {.kinds = kinds, .n_kinds = 1, .dir = dir}, again = js;
    char path[96];
    snprintf(path, sizeof path, "%s/night.json", dir);
    FILE *f = fopen(path, "wb");
    if (!f || (size && fwrite(data, 1, size, f) != size) || fclose(f)) abort();
    engine_jobs_load(&js);
    for (struct engine_job *j = js.list; j; j = j->next) {
        check(j);
        if (engine_job_store(j)) abort();
        engine_jobs_load(&again);
        if (!again.list || !same(j, again.list)) abort();
    }
    if (js.last_number == INT64_MAX) abort();
    clear(&js);
    clear(&again);
    return 0;
}

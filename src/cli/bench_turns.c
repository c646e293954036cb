/* Inside `brim bench train`: what a detector's loss compares with, and steps in turns. bench/train.py keeps one process per engine and lets them step one after the
 * other for a moment each, so that whatever else the machine does hits all of them alike.
 *
 * The protocol: a line that says what the network is and needs; then each line on stdin is a number of seconds to step for, answered by a line of JSON.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench_train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { BOXES = 8 }; /* assigned cells of a picture; bench/train.py has the same */

/* Cells spread over all strides, each with a box of four strides around it. SimOTA would be the host's work, and hang on the pictures. */
void bench_boxes(struct train_net *net, const struct train_yolox *y)
{
    struct tensor_shape shape = train_net_target(net, 0).shape;
    float *assigned = train_net_target(net, 0).data, *box = train_net_target(net, 1).data, *class = train_net_target(net, 2).data;
    memset(assigned, 0, (size_t)(shape.dims[0] * y->cells) * sizeof *assigned);
    memset(class, 0, (size_t)(shape.dims[0] * y->cells * y->classes) * sizeof *class);
    for (int64_t i = 0; i < shape.dims[0] * y->cells; i++) memcpy(box + 4 * i, (float[]){0, 0, 1, 1}, 4 * sizeof *box);
    for (int64_t n = 0; n < shape.dims[0]; n++)
        for (int k = 0; k < BOXES; k++) {
            int64_t cell = y->cells * k / BOXES + k, i = n * y->cells + cell;
            int column, row, stride;
            train_yolox_cell(y, cell, &column, &row, &stride);
            float at_x = (float)(column * stride), at_y = (float)(row * stride), side = (float)(2 * stride);
            assigned[i] = 1;
            memcpy(box + 4 * i, (float[]){at_x - side, at_y - side, at_x + side, at_y + side}, 4 * sizeof *box);
            class[i * y->classes + k % y->classes] = 0.8f;
        }
    *(float *)train_net_target(net, 3).data = 1.0f / (float)(shape.dims[0] * BOXES);
}

uint64_t bench_own_bytes(const char *key)
{
    FILE *f = fopen("/proc/self/status", "re");
    char line[128];
    unsigned long long kb = 0;
    while (f && fgets(line, sizeof line, f))
        if (str_starts(line, key)) sscanf(line + strlen(key), "%llu", &kb);
    if (f) fclose(f);
    return (uint64_t)kb * 1024;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static err turn(struct train_net *net, const struct mem_budget *job, uint64_t anon_before, double seconds)
{
    int64_t begin = clock_ns(), steps = 0;
    double cpu = cpu_seconds();
    float loss = 0;
    do {
        err e = train_net_run(net, &loss);
        if (e) return e;
        train_net_update(net, 1e-4, NULL);
        steps++;
    } while ((double)(clock_ns() - begin) * 1e-9 < seconds);
    printf("{\"steps\": %lld, \"seconds\": %.6f, \"cpu_s\": %.6f, \"loss\": %.6g, \"peak_rss\": %llu, \"counted_peak\": %llu, \"anon_growth\": %lld}\n", (long long)steps,
           (double)(clock_ns() - begin) * 1e-9, cpu_seconds() - cpu, (double)loss, (unsigned long long)bench_own_bytes("VmHWM:"), (unsigned long long)mem_budget_peak(job),
           (long long)(bench_own_bytes("RssAnon:") - anon_before));
    fflush(stdout);
    return ERR_OK;
}

err bench_turns(struct train_net *net, const struct mem_budget *job, uint64_t anon_before, uint64_t rss_before)
{
    struct train_net_sizes s = train_net_sizes(net);
    char line[64];
    err e = ERR_OK;
    printf("{\"parameters\": %lld, \"activations\": %zu, \"scratch\": %zu, \"fixed\": %llu, \"predicted\": %llu, \"rss_before\": %llu}\n", (long long)s.parameters, s.plan.activations, s.plan.scratch,
           (unsigned long long)s.fixed, (unsigned long long)mem_budget_used(job), (unsigned long long)rss_before);
    fflush(stdout);
    while (!e && fgets(line, sizeof line, stdin)) e = turn(net, job, anon_before, strtod(line, NULL));
    return e;
}

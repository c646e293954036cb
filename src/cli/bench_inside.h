/* Inside `brim bench`: the benches, and what they share: a folder of their own, this program's path, a drawn
 * site.
 *
 *     bench.c        which bench; `site`, the main job at several budgets
 *     bench_soak.c   memory over time while half of the cameras are dead      bench_flaky.c   those cameras
 *     bench_kill.c   kill -9, and is everything there that was told
 *     bench_start.c  an idle box's memory; time to the first detection
 *     bench_train.c  a training step
 *     bench_beside.c cameras beside a training in the same box
 *     bench_serving*.c frames in time when models do not all fit: time sharing, merging, blocks
 *     bench_models.c other engines on the same models, block swapping, training (Python scripts do the work)
 *
 * Benches measure a `brim serve` of its own from outside (child.h). SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "cli/child.h"

#include <stdio.h>

/* Each parses its own options (argv[0] is its name) and prints its figures. */
err bench_soak(int argc, char **argv);
err bench_kill(int argc, char **argv);
err bench_start(int argc, char **argv);
err bench_models(int argc, char **argv);
err bench_precision(int argc, char **argv);
err bench_swap(int argc, char **argv);
err bench_site_script(int argc, char **argv);
err bench_applications(int argc, char **argv);
err bench_train(int argc, char **argv);
err bench_train_script(int argc, char **argv);
err bench_merge_script(int argc, char **argv);
err bench_serving(int argc, char **argv);
err bench_serving_script(int argc, char **argv);
err bench_beside(int argc, char **argv);

struct bench_place {
    char folder[64], self[512]; /* a fresh folder in /tmp; the path of this program */
};
err bench_place_open(struct bench_place *p);
/* Removes the folder; with `keep` it stays and its name is printed on stderr (its logs are wanted after a
 * failure). */
void bench_place_close(struct bench_place *p, bool keep);
/* FOLDER/NAME for writing; ERR_IO. */
err bench_file(const struct bench_place *p, const char *name, FILE **ret);
/* Draws four cameras with moving people into FOLDER/scene: cam1.mp4 to cam4.mp4. */
err bench_draw(const struct bench_place *p, double seconds);
/* A port of 127.0.0.1 that nobody listens on now. 0: none. */
int bench_free_port(void);

/* Cameras that misbehave, each on a port of 127.0.0.1 with a thread of its own. */
enum bench_flaky_kind {
    BENCH_SILENT,  /* takes the connection and says nothing */
    BENCH_GARBAGE, /* MJPEG whose pictures are noise; every third connection is noise from its first byte */
    BENCH_FLAPPING /* good MJPEG for eight seconds, then nobody listens for four */
};
struct bench_flaky;
err bench_flaky_start(enum bench_flaky_kind kind, struct bench_flaky **ret);
/* Returns how many connections came. Accepts a pointer to NULL. */
int bench_flaky_stop(struct bench_flaky **f);
int bench_flaky_port(const struct bench_flaky *f);

/* `brim train`, `brim export`, and the parts of `brim eval` that score networks. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

int cli_train(int argc, char **argv);
/* The words of `brim train` (after "train") made into a job's options, relative paths seen from `folder`; borrowed until `use` returns. */
struct train_job_options;
typedef err cli_train_use_fn(void *user, struct train_job_options *job);
err cli_train_words(const char *folder, const char *const *words, int n, cli_train_use_fn *use, void *user);
/* train_box.c: as a job of a running box. */
struct engine_job_kind;
extern const struct engine_job_kind cli_train_kind;
int cli_export(int argc, char **argv);
/* "car=2,ambulance=7" or "car,ambulance": names in the order of a head's classes; free each and the list, also after a failure. */
err cli_train_classes(const char *text, char ***ret, size_t *ret_n);
/* "90m", "24h", "7d" before now, or "2026-11-20", "2026-11-20 18:30" of the clock here: seconds since 1970. */
err cli_train_since(const char *text, double *ret);
/* `, "NAME": V` on standard output, so many digits behind the point; null for what is not finite. */
void cli_train_number(const char *name, int digits, double v);
/* argv[0] is the name of a task of train/job.h. */
int cli_eval_network(int argc, char **argv);

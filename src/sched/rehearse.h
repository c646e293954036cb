/* What the scheduler would do: its very code, in a time of its own (weights/weights.h, rehearsals).
 *
 * Runs take what is given for them, reads what a disk of a given speed needs, items come when they are told to, and nothing is computed or read; so
 * minutes pass in milliseconds, and what would happen with other models, budgets or disks is known before it does. Same input, same outcome.
 *
 *     sched_rehearsal_new(reader, bytes_per_s)   sched_new(budget, sched_rehearsal_now, r, &s)   models and streams as ever
 *     sched_rehearsal_feed(r, stream, ...)       items come by themselves
 *     sched_rehearse(r, s, ns)                   a stream's `run` turns the clock: model_plan_rehearse(plan, step_ns, sched_rehearsal_clock(r))
 *     streams, models and s are freed, weights evicted; sched_rehearsal_free(&r)
 *
 * All on one thread, and never beside sched_start. What a rehearsal leaves out: the executor's own time (microseconds), page faults, and whatever else the
 * machine does. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "sched/sched.h"

struct sched_rehearsal;

/* The reader is the rehearsal's until sched_rehearsal_free. */
struct sched_rehearsal *sched_rehearsal_new(struct weights_reader *reader, double bytes_per_s);
void sched_rehearsal_free(struct sched_rehearsal **r);
int64_t sched_rehearsal_now(void *rehearsal);
struct weights_clock *sched_rehearsal_clock(struct sched_rehearsal *r);
/* `n` items for the stream, at_ns from now, ascending, borrowed: `what` NULL, seq from 1. */
void sched_rehearsal_feed(struct sched_rehearsal *r, struct sched_stream *st, const int64_t *at_ns, size_t n);
/* Until so much time has passed, or a little more: a run that was begun ends. */
void sched_rehearse(struct sched_rehearsal *r, struct sched *s, int64_t ns);

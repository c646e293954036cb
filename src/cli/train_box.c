/* Training as a job of a running box: the kind of job that `brim serve` gives its engine.
 *
 * The box gets the very words of `brim train` and the folder that they were said in; it makes the same options of them as the command does, so a
 * job gives the same bits in either. SPDX-License-Identifier: Apache-2.0 */
#include "cli/train.h"
#include "engine/job.h"
#include "train/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static err no_use(void *user, struct train_job_options *o)
{
    (void)user;
    char *last = xasprintf("%s/last.brim", o->out);
    bool there = access(last, F_OK) == 0;
    err e = ERR_OK;
    if (there && !o->resume) e = err_set(ERR_USAGE, "%s: a job's checkpoint is there; --resume goes on with it, or take another --out", last);
    free(last);
    return e;
}

static err check(const char *folder, const char *const *words, int n)
{
    return cli_train_words(folder, words, n, no_use, NULL);
}

static void tell(void *user, const struct train_progress *p)
{
    struct engine_job_run *r = user;
    double epochs = MAX(p->epochs, 1), steps = (double)MAX(p->steps, 1);
    struct engine_job_progress t = {.done = ((double)MAX(p->epoch - 1, 0) + (double)p->step / steps) / epochs, .eta_s = p->eta_s};
#define NUMBER(what, v) (t.numbers[t.n].name = (what), t.numbers[t.n++].value = (v))
    NUMBER("epoch", p->epoch);
    NUMBER("epochs", p->epochs);
    NUMBER("loss", p->loss);
    NUMBER("lr", p->lr);
    NUMBER("pictures_per_s", p->images_per_s);
    if (p->scored) {
        if (p->scores.top1 > 0) NUMBER("top1", p->scores.top1);
        if (p->scores.ap50 > 0) NUMBER("ap50", p->scores.ap50);
        if (p->scores.rank1 > 0) NUMBER("rank1", p->scores.rank1);
        if (p->scores.map > 0) NUMBER("map", p->scores.map);
        if (p->scores.psnr > 0) NUMBER("psnr", p->scores.psnr);
        if (p->scores.accuracy > 0) NUMBER("accuracy", p->scores.accuracy);
        if (p->scores.perplexity > 0) NUMBER("perplexity", p->scores.perplexity);
    }
#undef NUMBER
    r->tell(r, &t);
}

static err run(void *user, struct train_job_options *o)
{
    struct engine_job_run *r = user;
    struct train_result result;
    char *last = xasprintf("%s/last.brim", o->out), *best = xasprintf("%s/best.onnx", o->out);
    o->host = r->budget;
    o->stop = r->stop;
    o->idle = false; /* the thread is, and all that it makes inherit it */
    if (r->again && access(last, F_OK) == 0) o->resume = true;
    err e = train_job(o, tell, r, &result);
    if (!e) r->result = xstrdup(best);
    free(last);
    free(best);
    return e;
}

static err run_job(struct engine_job_run *r)
{
    return cli_train_words(r->folder, r->words, r->n_words, run, r);
}

const struct engine_job_kind cli_train_kind = {.name = "train", .check = check, .run = run_job};

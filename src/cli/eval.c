/* `brim eval tracks`: scores a file of tracks, or our own tracker on a truth that was made worse on purpose.
 *
 * Degrading is a stated model of a detector, so that figures can be repeated: each true box is missed with
 * probability `miss`; its centre and sides are moved by Gaussians of `jitter` times its sides; beside each,
 * with probability `fp`, a false box with the size of a random true box lies anywhere in the area that the
 * truth covers. Scores: a fifth of the true boxes are doubtful (0.2 to 0.6), the rest sure (0.6 to 1); false
 * ones are 0.1 to 0.7. The same seed gives the same detections. SPDX-License-Identifier: Apache-2.0 */
#include "cli/eval.h"

#include "cli/args.h"
#include "cli/train.h"
#include "mem/mem.h"
#include "task/metric.h"
#include "task/mot.h"
#include "task/tracker.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *truth, *tracks, *degrade, *out;
    double iou, miss, jitter, fp, fps;
    int64_t seed, every;
    bool json;
};

static const char usage[] =
    "eval classify|detect|embed|image|attributes|text --model F.onnx --data DATA [options]    (brim eval classify --help ...)\n"
    "       brim eval tracks --truth FILE --tracks FILE [--iou 0.5] [--json]\n"
    "       brim eval tracks --truth FILE --degrade miss=0.1,jitter=0.05,fp=0.1 [--seed N]\n"
    "                        [--fps 30] [--every N] [--out FILE] [--iou 0.5] [--json]";

/* --- arguments ---------------------------------------------------------------------------------------------
 */

static err parse_degrade(struct options *o)
{
    char text[256], *save = NULL;
    if (strlen(o->degrade) >= sizeof text) return err_set(ERR_USAGE, "--degrade: too long");
    snprintf(text, sizeof text, "%s", o->degrade);
    for (char *part = strtok_r(text, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
        char *eq = strchr(part, '='), *end;
        if (eq) *eq = 0;
        double *to = strcmp(part, "miss") == 0     ? &o->miss
                     : strcmp(part, "jitter") == 0 ? &o->jitter
                     : strcmp(part, "fp") == 0     ? &o->fp
                                                   : NULL;
        if (!eq || !to)
            return err_set(ERR_USAGE, "--degrade: expected miss=, jitter= and fp=, found '%s'", part);
        *to = strtod(eq + 1, &end);
        if (end == eq + 1 || *end || !(*to >= 0 && *to <= 1))
            return err_set(ERR_USAGE, "--degrade: %s must be a number from 0 to 1, not '%s'", part, eq + 1);
    }
    return ERR_OK;
}

static err check(struct options *o, const struct args_list *rest)
{
    if (rest->n != 1 || strcmp(rest->items[0], "tracks") != 0)
        return err_set(ERR_USAGE, "expected classify, detect, embed, image, attributes, text or tracks%s%s", rest->n ? ", found " : "",
                       rest->n ? rest->items[rest->n - 1] : "");
    if (!o->truth || !o->tracks == !o->degrade)
        return err_set(ERR_USAGE, "needs --truth, and either --tracks or --degrade");
    if (!(o->iou > 0 && o->iou <= 1))
        return err_set(ERR_USAGE, "--iou must be above 0 and at most 1, not %g", o->iou);
    if (!(o->fps > 0 && o->fps <= 1000))
        return err_set(ERR_USAGE, "--fps must be above 0 and at most 1000, not %g", o->fps);
    if (o->every < 1 || o->every > 10000)
        return err_set(ERR_USAGE, "--every must be 1 to 10000, not %lld", (long long)o->every);
    return o->degrade ? parse_degrade(o) : ERR_OK;
}

/* --- degrading ---------------------------------------------------------------------------------------------
 */

static double uniform(uint64_t *state) /* splitmix64 */
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

static double gauss(uint64_t *state)
{
    double u = 1 - uniform(state);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * uniform(state));
}

static struct task_box extent(const struct task_mot *truth)
{
    struct task_box b = {0};
    for (size_t i = 0; i < truth->count; i++) {
        if (truth->rows[i].lost) continue;
        b.x2 = MAX(b.x2, truth->rows[i].box.x2);
        b.y2 = MAX(b.y2, truth->rows[i].box.y2);
    }
    return b;
}

static struct task_detection jittered(const struct task_mot_row *row, double jitter, uint64_t *rng)
{
    double w = (double)row->box.x2 - row->box.x1, h = (double)row->box.y2 - row->box.y1;
    double cx = row->box.x1 + w / 2 + gauss(rng) * jitter * w,
           cy = row->box.y1 + h / 2 + gauss(rng) * jitter * h;
    w *= fmax(0.2, 1 + gauss(rng) * jitter);
    h *= fmax(0.2, 1 + gauss(rng) * jitter);
    bool doubtful = uniform(rng) < 0.2;
    return (struct task_detection){
        .box = {(float)(cx - w / 2), (float)(cy - h / 2), (float)(cx + w / 2), (float)(cy + h / 2)},
        .score = (float)((doubtful ? 0.2 : 0.6) + 0.4 * uniform(rng)),
        .class_id = row->class_id};
}

static struct task_detection invented(const struct task_mot *truth, struct task_box area, uint64_t *rng)
{
    const struct task_mot_row *like = &truth->rows[(size_t)(uniform(rng) * (double)truth->count)];
    float w = like->box.x2 - like->box.x1, h = like->box.y2 - like->box.y1;
    float x = (float)uniform(rng) * (area.x2 - w), y = (float)uniform(rng) * (area.y2 - h);
    return (struct task_detection){
        .box = {x, y, x + w, y + h}, .score = (float)(0.1 + 0.6 * uniform(rng)), .class_id = like->class_id};
}

enum { MOST = 1000, MOST_FRAMES = 10000000 };

/* The detections of one frame's truth rows. */
static int degrade(const struct options *o, const struct task_mot *truth, size_t from, size_t to,
                   struct task_box area, uint64_t *rng, struct task_detection d[MOST])
{
    int n = 0;
    for (size_t i = from; i < to && n + 2 <= MOST; i++) {
        if (truth->rows[i].lost) continue;
        struct task_detection real = jittered(&truth->rows[i], o->jitter, rng);
        bool missed = uniform(rng) < o->miss, extra = uniform(rng) < o->fp;
        if (!missed) d[n++] = real;
        if (extra) d[n++] = invented(truth, area, rng);
    }
    return n;
}

static void keep_tracks(const struct task_tracker *t, int frame, size_t cap, struct task_mot *found)
{
    const struct task_track *tracks;
    int n = task_tracker_tracks(t, &tracks);
    for (int i = 0; i < n && found->count < cap; i++) {
        if (tracks[i].state != TASK_CONFIRMED) continue;
        found->rows[found->count++] = (struct task_mot_row){.frame = frame,
                                                            .id = tracks[i].id,
                                                            .box = tracks[i].box,
                                                            .score = tracks[i].score,
                                                            .class_id = tracks[i].class_id};
    }
}

/* Leaves out of the truth what the tracker will not be shown. In place. */
static void thin(struct task_mot *truth, int every)
{
    size_t kept = 0;
    for (size_t i = 0; i < truth->count; i++)
        if ((truth->rows[i].frame - truth->first_frame) % every == 0) truth->rows[kept++] = truth->rows[i];
    truth->count = kept;
}

static err run_tracker(struct mem_payer *payer, const struct options *o, const struct task_mot *truth,
                       struct task_mot *found)
{
    size_t cap = 2 * truth->count; /* each row is a detection, and each true box makes two at most */
    uint64_t rng = (uint64_t)o->seed;
    struct task_tracker *t = NULL;
    if ((int64_t)truth->last_frame - truth->first_frame > MOST_FRAMES)
        return err_set(ERR_LIMIT, "%s: more than %d frames", o->truth, MOST_FRAMES);
    *found = (struct task_mot){.payer = payer, .bytes = cap * sizeof(struct task_mot_row)};
    err e = mem_alloc(payer, MEM_OTHER, found->bytes, (void **)&found->rows);
    if (!e) e = task_tracker_new(payer, NULL, &t);
    if (e) return e;
    struct task_box area = extent(truth);
    struct task_detection *d = xnewn(struct task_detection, MOST);
    size_t at = 0;
    for (int frame = truth->first_frame; frame <= truth->last_frame; frame += (int)o->every) {
        size_t from = at;
        while (at < truth->count && truth->rows[at].frame == frame)
            at++;
        int n = degrade(o, truth, from, at, area, &rng, d);
        task_tracker_update(t, frame / o->fps, d, NULL, n);
        keep_tracks(t, frame, cap, found);
    }
    free(d);
    task_tracker_free(&t);
    return ERR_OK;
}

static err write_tracks(const char *path, const struct task_mot *found)
{
    FILE *f = fopen(path, "we");
    if (!f) return err_set(ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    for (size_t i = 0; i < found->count; i++)
        task_mot_write_row(f, &found->rows[i]);
    bool bad = ferror(f);
    if (fclose(f) || bad) return err_set(ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    return ERR_OK;
}

/* --- report ------------------------------------------------------------------------------------------------
 */

static void print(const struct task_mota *r, bool json)
{
    const char *form =
        json
            ? "{\"mota\": %.4f, \"idf1\": %.4f, \"precision\": %.4f, \"recall\": %.4f, \"motp\": %.4f, "
              "\"id_precision\": %.4f, \"id_recall\": %.4f, \"id_switches\": %lld, \"fragmentations\": %lld, "
              "\"misses\": %lld, \"false_positives\": %lld, \"frames\": %lld, \"truths\": %lld, "
              "\"tracked\": %lld, \"truth_ids\": %lld, \"track_ids\": %lld, \"mostly_tracked\": %lld, "
              "\"mostly_lost\": %lld}\n"
            : "MOTA            %.4f\nIDF1            %.4f\nprecision       %.4f\nrecall          %.4f\n"
              "MOTP (mean IoU) %.4f\nID precision    %.4f\nID recall       %.4f\nid switches     %lld\n"
              "fragmentations  %lld\nmisses          %lld\nfalse positives %lld\nframes          %lld\n"
              "truth boxes     %lld\ntrack boxes     %lld\ntruth ids       %lld\ntrack ids       %lld\n"
              "mostly tracked  %lld\nmostly lost     %lld\n";
    printf(form, r->mota, r->idf1, r->precision, r->recall, r->motp, r->id_precision, r->id_recall,
           (long long)r->switches, (long long)r->fragmentations, (long long)r->misses,
           (long long)r->false_positives, (long long)r->frames, (long long)r->truths, (long long)r->found,
           (long long)r->truth_ids, (long long)r->found_ids, (long long)r->mostly_tracked,
           (long long)r->mostly_lost);
}

static err work(struct mem_payer *payer, const struct options *o)
{
    struct task_mot truth = {0}, found = {0};
    struct task_mota r;
    err e = task_mot_load(payer, o->truth, &truth);
    if (!e && o->tracks) e = task_mot_load(payer, o->tracks, &found);
    if (!e && o->every > 1) thin(&truth, (int)o->every);
    if (!e && o->degrade) e = run_tracker(payer, o, &truth, &found);
    if (!e && o->out && o->degrade) e = write_tracks(o->out, &found);
    if (!e) e = task_mota_compute(payer, &truth, &found, (float)o->iou, &r);
    task_mot_done(&truth);
    task_mot_done(&found);
    if (!e) print(&r, o->json);
    return e;
}

int cli_eval(int argc, char **argv)
{
    static const char *const tasks[] = {"classify", "detect", "embed", "image", "attributes", "text"};
    for (size_t i = 0; argc > 1 && i < ARRAY_LEN(tasks); i++)
        if (strcmp(argv[1], tasks[i]) == 0) return cli_eval_network(argc - 1, argv + 1);
    struct options o = {.iou = 0.5, .fps = 30, .seed = 1, .every = 1};
    const struct args_option table[] = {
        {"truth", ARGS_STRING, &o.truth, "FILE: the true boxes (MOT Challenge CSV, or CAMPUS annotation)"},
        {"tracks", ARGS_STRING, &o.tracks, "FILE: the tracks to score"},
        {"degrade", ARGS_STRING, &o.degrade,
         "miss=P,jitter=S,fp=P: make detections of the truth, and track them"},
        {"seed", ARGS_INT, &o.seed, "N: of --degrade (1)"},
        {"fps", ARGS_FLOAT, &o.fps, "frames per second of the truth (30)"},
        {"every", ARGS_INT, &o.every, "N: look at each N-th frame only (1)"},
        {"out", ARGS_STRING, &o.out, "FILE: write the tracks of --degrade as MOT CSV"},
        {"iou", ARGS_FLOAT, &o.iou, "least overlap of a match (0.5)"},
        {"json", ARGS_FLAG, &o.json, "one object on stdout"},
        {0}};
    struct args_list rest = {0};
    bool help = false;
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && help) {
        free(rest.items);
        args_help(usage, table);
        return 0;
    }
    if (!e) e = check(&o, &rest);
    free(rest.items);
    if (!e) {
        struct mem_budget *b = mem_budget_new("host", mem_budget_auto());
        struct mem_payer *payer = mem_payer_new(b, "eval");
        e = work(payer, &o);
        mem_payer_free(&payer);
        mem_budget_free(&b);
    }
    return e ? args_fail("eval", e) : 0;
}

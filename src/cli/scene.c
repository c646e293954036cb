/* `brim scene -o DIR`: draws a synthetic site with exact ground truth (scene/files.h says what lies in DIR).
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli/scene.h"

#include "cli/args.h"
#include "scene/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct request {
    const char *dir, *size, *light;
    int64_t seed, cameras, people, vehicles, coco, quality;
    double seconds, fps, noise;
    uint64_t budget;
    bool json, help;
};

static void show_progress(void *user, int done, int total)
{
    int64_t start = *(const int64_t *)user;
    double spent = (double)(clock_ns() - start) * 1e-9;
    if (done % 5 && done != total) return;
    fprintf(stderr, "\rframe %d of %d, %.0f s left ", done, total, spent / done * (total - done));
    if (done == total) fputc('\n', stderr);
}

static err parse(int argc, char **argv, struct request *r)
{
    const struct args_option table[] = {
        {"output", ARGS_STRING, &r->dir, "DIR  the folder to write to (also -o DIR)"},
        {"seed", ARGS_INT, &r->seed, "N  the same seed draws the same bytes (1)"},
        {"cameras", ARGS_INT, &r->cameras, "N  1 to 8 (4)"},
        {"seconds", ARGS_FLOAT, &r->seconds, "S  length (20)"},
        {"fps", ARGS_FLOAT, &r->fps, "F  frames a second (10)"},
        {"size", ARGS_STRING, &r->size, "WxH  of the pictures (640x360)"},
        {"light", ARGS_STRING, &r->light, "day, dusk, day-to-dusk or night (day)"},
        {"people", ARGS_INT, &r->people, "N  on foot at any time (26)"},
        {"vehicles", ARGS_INT, &r->vehicles, "N  parked ones included (14)"},
        {"noise", ARGS_FLOAT, &r->noise, "K  of the sensors; 0 is none (1)"},
        {"quality", ARGS_INT, &r->quality, "1-100  of the videos (75)"},
        {"coco", ARGS_INT, &r->coco, "N  also every N-th frame as JPEG, with truth/coco.json"},
        {"budget", ARGS_SIZE, &r->budget, "B  memory that may be used (unlimited)"},
        {"json", ARGS_FLAG, &r->json, "print one JSON object"},
        {NULL, 0, NULL, NULL},
    };
    struct args_list rest = {0};
    err e = args_parse(argc, argv, table, &rest, &r->help);
    if (!e && rest.n) e = err_set(ERR_USAGE, "'%s' is one word too many; the folder goes after -o", rest.items[0]);
    free(rest.items);
    if (!e && r->help)
        args_help("brim scene -o DIR [options]\n\nDraws a synthetic site: videos of several cameras with exact "
                  "ground truth.",
                  table);
    else if (!e && !r->dir)
        e = err_set(ERR_USAGE, "where to? give -o DIR");
    return e;
}

static err fits(int64_t v, int *to)
{
    if (v < -1000000 || v > 1000000) return err_set(ERR_USAGE, "%lld is out of range", (long long)v);
    *to = (int)v;
    return ERR_OK;
}

static err to_options(const struct request *r, struct scene_options *o)
{
    o->seed = (uint64_t)r->seed;
    o->seconds = r->seconds, o->fps = r->fps, o->noise = r->noise;
    err e = fits(r->cameras, &o->cameras);
    if (!e) e = fits(r->people, &o->people);
    if (!e) e = fits(r->vehicles, &o->vehicles);
    if (!e) e = scene_light_parse(r->light, &o->light);
    int end = 0;
    if (!e && (sscanf(r->size, "%5dx%5d%n", &o->width, &o->height, &end) != 2 || r->size[end]))
        e = err_set(ERR_USAGE, "--size %s: expected something like 640x360", r->size);
    return e;
}

int cli_scene(int argc, char **argv)
{
    struct scene_options o = SCENE_OPTIONS_DEFAULT;
    struct request r = {.size = "640x360",
                        .light = "day",
                        .seed = 1,
                        .cameras = o.cameras,
                        .people = o.people,
                        .vehicles = o.vehicles,
                        .quality = 75,
                        .seconds = o.seconds,
                        .fps = o.fps,
                        .noise = o.noise,
                        .budget = UINT64_MAX};
    char output[] = "--output", **args = xnewn(char *, (size_t)argc + 1); /* -o is --output */
    for (int i = 0; i < argc; i++) args[i] = strcmp(argv[i], "-o") == 0 ? output : argv[i];
    err e = parse(argc, args, &r);
    free(args);
    if (!e && r.help) return 0;
    if (!e) e = to_options(&r, &o);
    struct scene_files_options f = {.dir = r.dir};
    if (!e) e = fits(r.coco, &f.coco_every);
    if (!e) e = fits(r.quality, &f.quality);
    int64_t start = clock_ns();
    if (isatty(STDERR_FILENO)) f.progress = show_progress, f.user = &start;
    if (e) return args_fail("scene", e);
    struct mem_budget *b = mem_budget_new("host", r.budget);
    struct scene_files_result done;
    e = scene_files_write(&o, &f, b, &done);
    if (!e) {
        double drawn = done.seconds - done.bake_seconds;
        long pictures = (long)done.frames * o.cameras;
        if (r.json)
            printf("{\"frames\": %d, \"cameras\": %d, \"identities\": %d, \"boxes\": %ld, \"seconds\": %.3f, "
                   "\"bake_seconds\": %.3f, "
                   "\"pictures_per_second\": %.1f, \"peak_bytes\": %llu}\n",
                   done.frames, o.cameras, done.identities, done.boxes, done.seconds, done.bake_seconds,
                   (double)pictures / drawn, (unsigned long long)mem_budget_peak(b));
        else
            printf("%d frames of %d cameras, %d identities, %ld boxes in %.1f s (%.0f pictures a second)\n",
                   done.frames, o.cameras, done.identities, done.boxes, done.seconds, (double)pictures / drawn);
    }
    mem_budget_free(&b);
    return e ? args_fail("scene", e) : 0;
}

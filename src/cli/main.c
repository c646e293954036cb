/* argv: a table of verbs.
 *
 * Debian's oneDNN uses OpenMP, whose idle threads spin for milliseconds unless the environment said otherwise when libgomp was loaded; setting
 * it here is too late, so the program executes itself once more. Passive waiting alone sleeps between any two operators, which cost 1.4
 * times the run time on two threads; a spin of 1,000 pauses (some 40 microseconds) bridges the gaps inside a run, and none between
 * frames: an idle box uses no processor time (docs/results.md). SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"
#include "cli/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    {"run", cli_run, "run one model: outputs as .npy, times and bytes"},
    {"verify", cli_verify, "check models against recorded inputs and outputs"},
    {"explain", cli_explain, "operations in order, kernels, layouts, bytes"},
    CLI_MORE_COMMANDS
    {NULL, NULL, NULL},
};

static void usage(FILE *to)
{
    fprintf(to, "brim: one small box, many cameras, many neural networks, little memory\n\nusage: brim COMMAND [options]\n");
    for (const struct command *c = commands; c->name; c++)
        if (c->what) fprintf(to, "  %-9s %s\n", c->name, c->what);
    fprintf(to, "\nbrim COMMAND --help says more. Sizes take K, M, G (1024). Exit: 0 fine, 1 the work failed, 2 wrong usage or input.\n");
}

/* What libgomp and glibc read before main. The box runs for months with two dozen threads: with an arena and a cache of free blocks for each, glibc
 * spreads what lives over ever more pages (measured over 15 minutes: +6 KB a minute that no allocation accounts for; 0 with one arena and no caches, and
 * 2 MB less). Frames allocate too little for it to cost time. */
static void restart_with_settings(char **argv)
{
    bool box = argv[0] && argv[1] && !strcmp(argv[1], "serve");
    if (getenv("BRIM_STARTED") || (getenv("OMP_WAIT_POLICY") && (!box || getenv("GLIBC_TUNABLES")))) return;
    setenv("OMP_WAIT_POLICY", "passive", 0);
    setenv("GOMP_SPINCOUNT", "1000", 0);
    if (box) setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0", 0);
    setenv("BRIM_STARTED", "1", 1); /* never twice */
    execv("/proc/self/exe", argv);
    /* without /proc: slower when idle, nothing else */
}

/* A standard stream that is closed would be given to the next file that is opened, and what is printed would go into that file. */
static void open_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_WRONLY : O_RDONLY) != fd) _exit(1);
}

/* Results that did not arrive are a failure (a full disk behind a redirection), unless the reader left on purpose. */
static int finish(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return status;
    if (errno == EPIPE) return status;
    fprintf(stderr, "brim: cannot write the output: %s\n", strerror(errno));
    return status ? status : 1;
}

int main(int argc, char **argv)
{
    open_standard_streams();
    if (argc >= 2 && !strcmp(argv[1], VIDEO_DECODE_ARG)) return video_decode_main(argc, argv); /* a decoding child: nothing else first */
    restart_with_settings(argv);
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        usage(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("brim " BRIM_VERSION);
        return 0;
    }
    for (const struct command *c = commands; c->name; c++)
        if (strcmp(argv[1], c->name) == 0) return finish(c->run(argc - 1, argv + 1));
    fprintf(stderr, "brim: there is no command '%s'; brim --help lists them\n", argv[1]);
    return 2;
}

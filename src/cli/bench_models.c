/* Benches that are Python scripts: `models` (brim's package against other engines') and `precision` (what bf16 and auto cost detectors) in an
 * interpreter that has the peers ($BRIM_PEERS, or --python), the others (swap: block swapping against the bound and other ways ...) in any. This
 * finds both and goes out of the way.
 *
 * The interpreter gets the environment that this program was started with: what it set for itself (main.c) would slow
 * the other engines that use OpenMP down. The package is the installed one, else the one that the build folder holds
 * beside this program. SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench_inside.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* bench/NAME: of the source folder that tests name, above the build folder, here, or where it was installed to.
 * free() */
static err find_script(const char *folder, const char *name, char **ret)
{
    const char *source = getenv("BRIM_SOURCE");
    char *places[] = {source ? xasprintf("%s/bench/%s", source, name) : NULL, xasprintf("%s/../bench/%s", folder, name),
                      xasprintf("bench/%s", name), xasprintf("%s/../share/brim/bench_%s", folder, name)};
    char *found = NULL;
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        if (!found && places[i] && access(places[i], R_OK) == 0)
            found = places[i];
        else
            free(places[i]);
    }
    if (!found)
        return err_set(ERR_NOT_FOUND, "bench/%s is neither here, nor above %s, nor in ../share/brim", name, folder);
    *ret = found;
    return ERR_OK;
}

static const char *find_python(int *argc, char **argv)
{
    const char *python = getenv("BRIM_PEERS");
    int n = 1;
    for (int i = 1; i < *argc; i++) {
        if (!strcmp(argv[i], "--python") && i + 1 < *argc)
            python = argv[++i];
        else if (str_starts(argv[i], "--python="))
            python = argv[i] + strlen("--python=");
        else
            argv[n++] = argv[i];
    }
    *argc = n;
    return python && *python ? python : "python3";
}

static err run_script(const char *name, const char *python, int argc, char **argv)
{
    char self[PATH_MAX], *script = NULL;
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len <= 0) return err_set(ERR_IO, "/proc/self/exe: %s", strerror(errno));
    self[len] = 0;
    setenv("BRIM_SELF", self, 1);
    const char *folder = dirname(self);
    err e = find_script(folder, name, &script);
    if (e) return e;
    char **args = xnewn(char *, argc + 3), *package = xasprintf("%s/python", folder);
    args[0] = (char *)(uintptr_t)python;
    args[1] = (char *)(uintptr_t) "-B";
    args[2] = script;
    memcpy(args + 3, argv + 1, (size_t)(argc - 1) * sizeof *args);
    if (getenv("BRIM_STARTED")) {
        unsetenv("OMP_WAIT_POLICY");
        unsetenv("GOMP_SPINCOUNT");
    }
    if (access(package, F_OK) == 0) setenv("BRIM_BENCH_PACKAGE", package, 0);
    fflush(stdout);
    execvp(python, args);
    e = err_set(ERR_NOT_FOUND, "%s: cannot be started (%s); --python FILE or $BRIM_PEERS names an interpreter",
                python, strerror(errno));
    free(package);
    free(args);
    free(script);
    return e;
}

err bench_models(int argc, char **argv)
{
    const char *python = find_python(&argc, argv);
    return run_script("models.py", python, argc, argv);
}

err bench_precision(int argc, char **argv)
{
    const char *python = find_python(&argc, argv);
    return run_script("precision.py", python, argc, argv);
}

err bench_swap(int argc, char **argv)
{
    return run_script("swap.py", "python3", argc, argv);
}

err bench_train_script(int argc, char **argv)
{
    return run_script("train.py", "python3", argc, argv);
}

err bench_merge_script(int argc, char **argv)
{
    return run_script("merge.py", "python3", argc, argv);
}

err bench_serving_script(int argc, char **argv)
{
    return run_script("serving.py", "python3", argc, argv);
}

err bench_applications(int argc, char **argv)
{
    return run_script("applications.py", "python3", argc + 1, argv - 1);
}

/* The script does two benches and wants the name, which is argv[0], as its first argument. */
err bench_site_script(int argc, char **argv)
{
    return run_script("site.py", "python3", argc + 1, argv - 1);
}

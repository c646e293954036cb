/* Fuzz target: any bytes as a site file; what was read is compared with itself.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/site_diff.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const *labels(void *arg, int model)
{
    static const char *const some[] = {"person", "car", NULL};
    (void)arg;
    return model % 2 ? NULL : some;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct site *a = NULL, *b = NULL;
    struct site_problems p = {0};
    setenv("V", "value", 1);
    err e = site_load_all("dir/f.yaml", (const char *)data, size, &p, &a);
    if ((e == ERR_OK) != (p.count == 0) || (e == ERR_OK) != (a != NULL)) abort();
    if (!e) {
        (void)site_check_labels(a, labels, NULL, &p);
        if (site_load_all("dir/f.yaml", (const char *)data, size, NULL, &b)) abort();
        struct site_diff *d = site_diff(a, b);
        for (size_t i = 0; i < d->query_count; i++)
            if (!d->queries[i].same) abort();
        if (!d->settings_same || !d->outputs_same) abort();
        site_diff_free(&d);
    }
    site_free(&a);
    site_free(&b);
    site_problems_done(&p);
    return 0;
}

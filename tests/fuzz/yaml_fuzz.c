/* Fuzz target: any bytes as YAML, then every reader on every value. SPDX-License-Identifier: Apache-2.0 */
#include "base/yaml.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void touch(const struct yaml_node *n)
{
    static const char *const words[] = {"live", "max", "process", NULL};
    const char *s;
    int64_t i;
    uint64_t u;
    double d;
    float f[8];
    bool b;
    int k;
    const struct yaml_node *child;
    (void)yaml_str(n, &s);
    (void)yaml_int(n, -5, 100, &i);
    (void)yaml_float(n, 0, 1, &d);
    (void)yaml_bool(n, &b);
    (void)yaml_size(n, 1, 1 << 30, &u);
    (void)yaml_duration_ms(n, 0, 3600000, &i);
    (void)yaml_enum(n, words, &k);
    (void)yaml_floats(n, -1, 1000, 1, ARRAY_LEN(f), f, NULL);
    if (yaml_kind(n) == YAML_MAP) (void)yaml_check_keys(n, words);
    (void)yaml_need(n, "live", &child);
    (void)yaml_err_key(n, ERR_FORMAT, "key '%s'", yaml_key(n) ? yaml_key(n) : "none");
    for (const struct yaml_node *c = yaml_first(n); c; c = yaml_next(c)) touch(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    setenv("V", "value", 1);
    for (unsigned flags = YAML_PLAIN; flags <= YAML_ENV; flags++) {
        struct yaml *doc = NULL;
        if (yaml_parse("f.yaml", (const char *)data, size, flags, &doc)) continue;
        touch(yaml_root(doc));
        yaml_doc_free(&doc);
    }
    return 0;
}

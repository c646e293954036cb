/* CRC32C: the published value, the plain way, parts and lengths around the lanes. SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"
#include "base/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void known(void **state)
{
    (void)state;
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(crc32c_plain(0, "123456789", 9), 0xe3069283u);
    unsigned char zeros[32] = {0};
    assert_int_equal(crc32c(0, zeros, 32), 0x8a9136aau); /* RFC 3720, B.4 */
}

static void same_as_plain(void **state)
{
    (void)state;
    size_t n = 200000;
    unsigned char *p = xcalloc(n, 1);
    for (size_t i = 0; i < n; i++) p[i] = (unsigned char)(hash64(&i, sizeof i, 1) >> 5);
    const size_t lengths[] = {0, 1, 7, 8, 9, 4096, 65519, 65520, 65521, 65536, 131040, 131072, 199990};
    for (size_t k = 0; k < ARRAY_LEN(lengths); k++)
        for (size_t at = 0; at < 10; at += 3) assert_int_equal(crc32c(7, p + at, lengths[k]), crc32c_plain(7, p + at, lengths[k]));
    assert_int_equal(crc32c(crc32c(0, p, 70001), p + 70001, n - 70001), crc32c_plain(0, p, n));
    p[150000] ^= 1;
    uint32_t altered = crc32c(0, p, n);
    p[150000] ^= 1;
    assert_int_not_equal(altered, crc32c(0, p, n));
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known), cmocka_unit_test(same_as_plain)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

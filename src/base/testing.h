/* For tests. What must come is waited for until a machine twenty times slower than today's, under a sanitizer and with other tests beside, would have brought it long
 * ago: a test fails because of what is wrong, never because of the clock. What truly hangs is named by the test, before Meson ends it (src/meson.build).
 *
 *     for (int64_t end = testing_deadline(); !it_came() && clock_ns() < end;) nap();
 *     assert_true(it_came());
 *
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"

enum { TESTING_PATIENCE_S = 1200, TESTING_PATIENCE_MS = 1000 * TESTING_PATIENCE_S };

static inline int64_t testing_deadline(void)
{
    return clock_ns() + (int64_t)TESTING_PATIENCE_S * 1000000000;
}

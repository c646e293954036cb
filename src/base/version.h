/* The one place that says which version this is. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#define BRIM_VERSION "0.1.0"

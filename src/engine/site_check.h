/* What a site file cannot know by itself: do its models' files and cards exist, are they right, and do queries ask
 * for labels and boxes that they have? SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "engine/site.h"

/* Opens no network and no camera. ERR_OK, or the code of the first problem; all sentences go to `problems`. */
err site_check_models(const struct site *s, struct site_problems *problems);

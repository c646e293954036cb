/* Inside train/data: what is known of the objects of a rendered site, by their ids. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "train/data_set.h"

struct data_object {
    int64_t id;
    char text[64];
};
/* The objects that have `key`; ret: data_object, by id, MEM_TRAINING of the set's payer (data_list_done). ERR_NOT_FOUND, ERR_FORMAT (with file:line), ERR_NOMEM. */
err data_objects_read(struct train_set *s, const char *path, const char *key, struct data_list *ret);
const char *data_objects_find(const struct data_list *l, int64_t id); /* NULL: not there */

/* Fuzz target: any bytes as a request of the control socket, line by line. SPDX-License-Identifier: Apache-2.0 */
#include "base/control.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static err echo(void *arg, const json_t *request, json_t **ret)
{
    (void)arg;
    const char *camera = json_string_value(json_object_get(request, "camera"));
    if (camera) return err_set(ERR_NOT_FOUND, "no camera '%s'", camera);
    *ret = json_deep_copy(request);
    return ERR_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *s = (const char *)data, *end = s + size;
    while (s < end) {
        const char *stop = memchr(s, '\n', (size_t)(end - s));
        if (!stop) stop = end;
        struct strbuf reply = {0};
        control_answer(s, (size_t)(stop - s), echo, NULL, &reply);
        json_t *back = json_loadb(reply.s, reply.len, 0, NULL); /* whatever came in, the reply is one line of JSON */
        if (!json_is_object(back) || memchr(reply.s, '\n', reply.len) != reply.s + reply.len - 1) abort();
        json_decref(back);
        strbuf_done(&reply);
        s = stop + 1;
    }
    return 0;
}

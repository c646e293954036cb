/* Fuzzes what video reads of strangers: a decoding child's packets (first byte 'w'), URLs ('u'), and anything else as
 * a file that is opened, decoded for a few frames and made into tensors, with a budget of 64 MiB.
 * SPDX-License-Identifier: Apache-2.0 */
#include "video/convert.h"
#include "video/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static bool tick(void *user)
{
    return clock_ns() > *(int64_t *)user;
}

static void decode(struct mem_budget *b, const char *path)
{
    struct video_options o = {
        .name = "fuzz", .url = path, .pace = VIDEO_PACE_MAX, .timeout_ms = 1000, .stall_ms = 1000};
    struct video_counters c = {.need = -1};
    struct video_pool *pool = video_pool_new(b, "fuzz", 32);
    int64_t end = clock_ns() + 2000000000;
    struct video_env env = {&o, pool, &c, tick, &end};
    void *session = NULL;
    struct video_conv *conv = video_conv_new(video_pool_payer(pool));
    if (video_source_ops.open(&env, &session) == ERR_OK) {
        struct video_frame *f;
        float dst[3 * 16 * 16];
        struct video_tensor_spec s = {.w = 16, .h = 16, .resize = VIDEO_LETTERBOX_CENTRE, .scale = {1, 1, 1}};
        struct video_rect roi = {1, 1, 7.5, 3};
        for (int i = 0; i < 20 && video_source_ops.next(session, &f) == ERR_OK; i++) {
            video_to_tensor(conv, f, NULL, &s, dst, NULL);
            video_to_tensor(conv, f, &roi, &s, dst, NULL);
            video_frame_unref(&f);
        }
        video_source_ops.close(&session);
    }
    video_conv_free(&conv);
    video_pool_close(pool);
    video_pool_unref(&pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n && data[0] == 'w') {
        struct video_wire_state st = {.generation = 1, .slot_bytes = 65536, .busy = {false, true, false}};
        video_wire_check(data + 1, n - 1, &st);
        return 0;
    }
    if (n && data[0] == 'u') {
        char *url = xstrndup((const char *)data + 1, n - 1), text[64];
        video_url_redact(url, text, sizeof text);
        if (strlen(text) >= sizeof text) abort();
        enum video_kind kind;
        const char *path;
        video_url_kind(url, &kind, &path);
        free(url);
        return 0;
    }
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n) abort();
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct mem_budget *b = mem_budget_new("host", 64 << 20);
    decode(b, path);
    mem_budget_free(&b);
    close(fd);
    return 0;
}

/* A camera of the site. Invariant: `cam` was opened with this struct as its wakeup's user, and is closed before it is freed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/inside.h"

#include <stdio.h>
#include <stdlib.h>

static void wake(void *user)
{
    struct engine_camera *c = user;
    thread_event_set(&c->engine->wake);
}

err engine_camera_open(struct engine *e, struct engine_site *site, const struct site_camera *o, struct engine_camera **ret)
{
    struct engine_camera *c = xnew(struct engine_camera);
    c->engine = e;
    c->site = engine_site_ref(site);
    c->o = o;
    c->need = -1;
    c->max_pace = o->video.pace == VIDEO_PACE_MAX;
    snprintf(c->name, sizeof c->name, "%s", o->name);
    pthread_mutex_init(&c->lock, NULL);
    err x = video_camera_open(&o->video, e->budget, wake, c, &c->cam);
    if (x) {
        engine_camera_close(&c);
        return x;
    }
    *ret = c;
    return ERR_OK;
}

void engine_camera_close(struct engine_camera **cp)
{
    struct engine_camera *c = *cp;
    if (!c) return;
    video_camera_close(&c->cam);
    video_frame_unref(&c->picture);
    pthread_mutex_destroy(&c->lock);
    engine_site_unref(&c->site);
    free(c);
    *cp = NULL;
}

/* The outputs of a site file: database, pictures, JSON lines, MOT, video, MQTT, HTTP. SPDX-License-Identifier: Apache-2.0 */
#include "engine/site_inside.h"

#include <stdlib.h>
#include <string.h>

/* A path, or off (also false, which is what some YAML editors make of it). NULL and *ret_off untouched: not there. */
static void read_path(struct site_reader *r, const struct yaml_node *map, const char *key, bool *ret_off,
                      const char **ret) {
    const struct yaml_node *n = yaml_get(map, key);
    const char *path = NULL;
    if (!n || site_note(r, yaml_str(n, &path))) return;
    if (!strcmp(path, "off") || !strcmp(path, "false"))
        *ret_off = true;
    else
        *ret = strcmp(path, "-") ? site_path(r->site, path) : path;
}

/* video: FOLDER   or   video: {folder: FOLDER, cameras: [NAME, ...]} */
static void read_video(struct site_reader *r, const struct yaml_node *n, struct site_outputs *o)
{
    const char *path = NULL;
    const struct yaml_node *folder = n, *cameras = NULL;
    o->video_cameras.all = true;
    if (!n) return;
    if (yaml_kind(n) == YAML_MAP) {
        site_note(r, yaml_check_keys(n, site_keys("video")));
        cameras = yaml_get(n, "cameras");
        if (site_note(r, yaml_need(n, "folder", &folder))) return;
    }
    if (site_note(r, yaml_str(folder, &path))) return;
    if (strcmp(path, "off") && strcmp(path, "false")) o->video = site_path(r->site, path);
    site_names_read(r, cameras, &o->video_cameras);
    for (size_t i = 0; i < o->video_cameras.count; i++) {
        const struct yaml_node *at = cameras;
        for (const struct yaml_node *c = yaml_first(cameras); c; c = yaml_next(c))
            if (yaml_text(c) && !strcmp(yaml_text(c), o->video_cameras.items[i])) at = c;
        (void)site_find(r, at, o->video_cameras.items[i], r->camera_names, "camera");
    }
}

/* pictures: BYTES   or   pictures: {keep: BYTES, side: PIXELS} */
static void read_pictures(struct site_reader *r, const struct yaml_node *n, struct site_outputs *o)
{
    const struct yaml_node *keep = n;
    const char *text = yaml_text(n);
    o->pictures_side = 640;
    if (!n || (text && (!strcmp(text, "off") || !strcmp(text, "false")))) return;
    if (yaml_kind(n) == YAML_MAP) {
        site_note(r, yaml_check_keys(n, site_keys("pictures")));
        site_int(r, n, "side", 64, 4096, &o->pictures_side);
        if (site_note(r, yaml_need(n, "keep", &keep))) return;
    }
    if (!site_note(r, yaml_size(keep, 1 << 20, (uint64_t)1 << 44, &o->pictures_keep)) && o->database_off)
        site_note(r, yaml_err_key(n, ERR_FORMAT, "pictures are of the database's events, but the database is off"));
}

static void read_mqtt(struct site_reader *r, const struct yaml_node *m, struct site_outputs *o)
{
    const struct yaml_node *host = NULL;
    o->mqtt_port = 1883, o->mqtt_prefix = "brim", o->mqtt_outbox_max = 64 << 20;
    if (!m || site_note(r, yaml_is_map(m))) return;
    site_note(r, yaml_check_keys(m, site_keys("mqtt")));
    if (!site_note(r, yaml_need(m, "host", &host))) site_note(r, yaml_str(host, &o->mqtt_host));
    site_int(r, m, "port", 1, 65535, &o->mqtt_port);
    const struct yaml_node *prefix = yaml_get(m, "prefix"), *password = yaml_get(m, "password");
    if (!site_note(r, yaml_str(prefix, &o->mqtt_prefix)) && prefix &&
        (strpbrk(o->mqtt_prefix, "+# ") || o->mqtt_prefix[0] == '/' || str_ends(o->mqtt_prefix, "/") ||
         strlen(o->mqtt_prefix) > 128))
        site_note(r, yaml_err(prefix, ERR_FORMAT,
                              "a topic has no '+', '#' or space, does not begin or end with '/', and has at most "
                              "128 bytes"));
    site_note(r, yaml_str(yaml_get(m, "user"), &o->mqtt_user));
    if (password && yaml_kind(password) != YAML_SCALAR)
        site_note(r, yaml_err(password, ERR_FORMAT, "expected text; write it in quotes, or as \"${MQTT_PASSWORD}\""));
    else
        o->mqtt_password = yaml_text(password);
    if (password && !yaml_get(m, "user"))
        site_note(r, yaml_err_key(password, ERR_FORMAT, "a password needs a user; add 'user:'"));
    site_note(r, yaml_bool(yaml_get(m, "discovery"), &o->mqtt_discovery));
    site_note(r, yaml_size(yaml_get(m, "outbox_max"), 64 << 10, (uint64_t)1 << 40, &o->mqtt_outbox_max));
}

/* HOST:PORT, [IPv6]:PORT */
static void read_listen(struct site_reader *r, const struct yaml_node *n, struct site_outputs *o)
{
    const char *text = NULL;
    if (site_note(r, yaml_str(n, &text))) return;
    if (!strcmp(text, "off") || !strcmp(text, "false")) {
        o->http_off = true;
        return;
    }
    const char *colon = strrchr(text, ':'), *host = text;
    size_t len = colon ? (size_t)(colon - text) : 0;
    bool bracket = len > 2 && text[0] == '[' && text[len - 1] == ']';
    size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;
    long port = digits && digits <= 5 && !colon[1 + digits] ? strtol(colon + 1, NULL, 10) : -1;
    if (bracket) host++, len -= 2;
    if (!len || len > 255 || port < 0 || port > 65535 || (!bracket && memchr(text, ':', len)) ||
        strcspn(host, "/ @?#") < len) {
        site_note(r, yaml_err(n, ERR_FORMAT, "expected HOST:PORT such as 127.0.0.1:8090 or [::1]:8090, or off"));
        return;
    }
    o->http_host = site_own(r->site, xstrndup(host, len));
    o->http_port = (int)port;
}

static void read_http(struct site_reader *r, const struct yaml_node *m, struct site_outputs *o)
{
    o->http_host = "127.0.0.1", o->http_port = 8090;
    if (!m) return;
    if (yaml_kind(m) == YAML_SCALAR) { /* http: off, http: HOST:PORT */
        read_listen(r, m, o);
        return;
    }
    if (site_note(r, yaml_is_map(m))) return;
    site_note(r, yaml_check_keys(m, site_keys("http")));
    if (yaml_get(m, "listen")) read_listen(r, yaml_get(m, "listen"), o);
    site_names_read(r, yaml_get(m, "hosts"), &o->http_hosts);
    if (o->http_hosts.all)
        site_note(r, yaml_err(yaml_get(m, "hosts"), ERR_FORMAT,
                              "name the hosts; allowing all would let foreign pages in"));
}

void site_read_outputs(struct site_reader *r, const struct yaml_node *m)
{
    struct site_outputs *o = &r->site->outputs;
    bool off = false;
    if (!site_note(r, yaml_is_map(m))) site_note(r, yaml_check_keys(m, site_keys("outputs")));
    read_path(r, m, "database", &o->database_off, &o->database);
    read_pictures(r, yaml_get(m, "pictures"), o);
    read_path(r, m, "jsonl", &off, &o->jsonl);
    read_path(r, m, "mot", &off, &o->mot);
    read_video(r, yaml_get(m, "video"), o);
    read_mqtt(r, yaml_get(m, "mqtt"), o);
    read_http(r, yaml_get(m, "http"), o);
}

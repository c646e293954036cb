/* Log lines on stderr: "2026-11-21T02:30:00Z warn  video: camera 'door': ...". One write(2) per line, so lines of
 * threads never mix. Never logs a URL's password: callers pass names. SPDX-License-Identifier: Apache-2.0 */
#pragma once

enum log_level { LOG_DEBUG = 1, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Lines below `level` are dropped. Default LOG_INFO; the environment's BRIM_LOG=debug|info|warn|error wins. */
void log_set_level(enum log_level level);
void log_line(enum log_level level, const char *room, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_debug(room, ...) log_line(LOG_DEBUG, room, __VA_ARGS__)
#define log_info(room, ...)  log_line(LOG_INFO, room, __VA_ARGS__)
#define log_warn(room, ...)  log_line(LOG_WARN, room, __VA_ARGS__)
#define log_error(room, ...) log_line(LOG_ERROR, room, __VA_ARGS__)

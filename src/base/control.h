/* The control socket: how `brim mem`, `brim why` and others talk to a running box, one line of JSON each way.
 *
 * The server owns PATH (a unix socket, mode 0600) as long as it holds the lock file PATH.lock; so a socket that a
 * dead process left behind is replaced, and a second server on the same path is refused with the first one's pid.
 *
 *     request:  {"do": "mem"}\n                       any JSON object of at most 64 KiB
 *     reply:    {"ok": true, "result": ...}\n
 *               {"ok": false, "code": "not found", "error": "no camera 'door'; ..."}\n
 *
 * The server has one thread of its own, at most 16 clients, and gives no client more memory than one request and
 * one reply. A client that is too many takes the place of the one that was silent longest. SPDX-License-Identifier:
 * Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

#include <jansson.h>

enum { CONTROL_MAX_REQUEST = 64 << 10, CONTROL_MAX_REPLY = 16 << 20, CONTROL_MAX_CLIENTS = 16 };

/* Answers one request (an object, borrowed). Runs on the server's thread and must answer soon: start a job for what
 * takes long. *ret is any JSON value, given to the caller; left NULL it means null. An error becomes the reply. */
typedef err control_handler(void *arg, const json_t *request, json_t **ret);

struct control;

/* ERR_BUSY: "another brim serve uses this store (pid N)"; ERR_IO: the path cannot be used. */
err control_open(const char *path, control_handler *handler, void *arg, struct control **ret);
/* Ends the thread, removes the socket, gives up the lock. Requests not answered yet are dropped. */
void control_close(struct control **c);

/* Asks the server at `path` and waits for its answer. *ret_result is the result (json_decref it).
 * ERR_NOT_FOUND: nobody is there; ERR_TIMEOUT; ERR_CLOSED: it died meanwhile; else the server's own code and
 * sentence. */
err control_call(const char *path, const json_t *request, int timeout_ms, json_t **ret_result);

/* One request line (without its end) to one reply line (with it): what the server does with each line. */
void control_answer(const char *line, size_t n, control_handler *handler, void *arg, struct strbuf *reply);

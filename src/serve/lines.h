/* Lines into a file, a pipe or a terminal, from a thread of their own behind a bounded queue.
 *
 * A reader that does not read, or a disk that is full, costs lines (counted), never the box: serve_lines_put copies into a queue of
 * SERVE_LINES_BYTES and returns. Lines that do not fit are dropped, the newest first, and counted as `slow` or `failed`. Only a regular file
 * that is slow without having failed is waited for, SERVE_LINES_WAIT_MS once; so a file loses lines only when its disk fails.
 * What is in a file is whole lines at any time, also after a full disk. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"
#include "serve/counts.h"

enum { SERVE_LINES_BYTES = 1 << 20, SERVE_LINES_WAIT_MS = 2000, SERVE_LINES_CLOSE_MS = 2000 };

struct serve_lines;

struct serve_lines_options {
    const char *path;          /* "-": standard output */
    struct mem_payer *payer;   /* pays the queue (MEM_QUEUE) */
    struct serve_count *count; /* may be NULL */
    /* Called on the thread that writes whenever the state changes: what is wrong, or "" once it works again. May be NULL. */
    void (*problem)(void *user, const char *sentence);
    void *user;
};

/* ERR_IO, ERR_NOMEM. A file that ends in half a line gets a newline first; a FIFO needs no reader yet. */
err serve_lines_open(const struct serve_lines_options *o, struct serve_lines **ret);
/* `text` ends with its newline and has no other. Any thread. */
void serve_lines_put(struct serve_lines *l, const char *text, size_t n);
/* Writes what waits for at most SERVE_LINES_CLOSE_MS, counts the rest as dropped, closes. */
void serve_lines_close(struct serve_lines **l);

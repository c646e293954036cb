/* Metrics. Families are written whole, one after the other, as the format demands; so each family walks the rows
 * once. Counters end in _total, units are bytes and seconds. Latencies are gauges of the last 512 runs, because a
 * summary's sum is not known.
 *
 * Invariant: every label's value went through metrics_escape. SPDX-License-Identifier: Apache-2.0 */
#include "serve/metrics.h"

#include "engine/guard.h"
#include "engine/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *metrics_escape(const char *s, char ret[METRICS_TEXT])
{
    size_t n = 0;
    for (; *s && n < METRICS_TEXT - 3; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '\\' || c == '"') ret[n++] = '\\', ret[n++] = (char)c;
        else if (c == '\n') ret[n++] = '\\', ret[n++] = 'n';
        else ret[n++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
    ret[n] = 0;
    return ret;
}

static void family(struct strbuf *b, const char *name, const char *type, const char *help)
{
    strbuf_addf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(struct strbuf *b, const char *name, const char *type, const char *help, double value)
{
    family(b, name, type, help);
    strbuf_addf(b, "%s %.15g\n", name, value);
}

/* ---- memory */

static void write_memory(struct strbuf *b, struct mem_budget *budget)
{
    struct mem_row *rows;
    struct mem_rss rss = mem_process_rss();
    char text[METRICS_TEXT];
    size_t n = mem_snapshot(budget, &rows);
    one(b, "brim_memory_limit_bytes", "gauge", "The budget.", (double)mem_budget_limit(budget));
    one(b, "brim_memory_used_bytes", "gauge", "Bytes of the budget in use.", (double)mem_budget_used(budget));
    one(b, "brim_memory_peak_bytes", "gauge", "Most bytes of the budget that were ever in use.",
        (double)mem_budget_peak(budget));
    family(b, "brim_memory_bytes", "gauge", "Bytes of the budget in use, by payer and purpose.");
    for (size_t i = 0; i < n; i++) {
        bool seen = false;
        uint64_t sum[MEM_PURPOSE_COUNT] = {0};
        for (size_t k = 0; k < i; k++) seen |= !strcmp(rows[k].payer, rows[i].payer);
        for (size_t k = i; k < n && !seen; k++) /* several payers may have one name: one series each */
            if (!strcmp(rows[k].payer, rows[i].payer))
                for (int p = 0; p < MEM_PURPOSE_COUNT; p++) sum[p] += rows[k].used[p];
        for (int p = 0; p < MEM_PURPOSE_COUNT && !seen; p++)
            if (sum[p])
                strbuf_addf(b, "brim_memory_bytes{payer=\"%s\",purpose=\"%s\"} %llu\n",
                            metrics_escape(rows[i].payer, text), mem_purpose_name((enum mem_purpose)p),
                            (unsigned long long)sum[p]);
    }
    free(rows);
    family(b, "brim_process_resident_bytes", "gauge",
           "What the kernel says is resident: anon is private, file is mapped files.");
    strbuf_addf(b,
                "brim_process_resident_bytes{kind=\"anon\"} %llu\nbrim_process_resident_bytes{kind=\"file\"} %llu\n",
                (unsigned long long)rss.anon, (unsigned long long)rss.file);
    one(b, "brim_process_resident_total_bytes", "gauge", "The process's whole resident set.", (double)rss.total);
}

/* ---- tables: a family is a name and how to get its number from a row */

struct number {
    const char *name, *type, *help;
    double (*get)(const void *row);
};

#define GET(fn, type, expression)     \
    static double fn(const void *row) \
    {                                 \
        const struct type *r = row;   \
        return (double)(expression);  \
    }
GET(c_live, engine_camera_row, r->video.state == VIDEO_LIVE)
GET(c_decoded, engine_camera_row, r->video.decoded)
GET(c_published, engine_camera_row, r->video.published)
GET(c_corrupt, engine_camera_row, r->video.corrupt)
GET(c_reconnects, engine_camera_row, r->video.reconnects)
GET(c_bytes, engine_camera_row, r->video.bytes)
GET(c_fps, engine_camera_row, r->video.fps_in)
GET(q_offered, engine_query_row, r->stats.offered)
GET(q_run, engine_query_row, r->stats.run)
GET(q_late, engine_query_row, r->stats.late)
GET(q_saved, engine_query_row, r->motion_saved)
GET(q_detections, engine_query_row, r->detections)
GET(q_tracks, engine_query_row, r->tracks)
GET(q_events, engine_query_row, r->events)
GET(q_asked, engine_query_row, r->fps_asked)
GET(q_fps, engine_query_row, r->fps_run)
GET(q_max, engine_query_row, r->stats.max_ns / 1e9)
GET(q_healthy, engine_query_row, !r->problem[0])
GET(m_resident, engine_model_row, r->stats.resident)
GET(m_weights, engine_model_row, r->stats.weight_bytes)
GET(m_in_memory, engine_model_row, r->stats.resident_bytes)
GET(m_shared, engine_model_row, r->stats.shared_bytes)
GET(m_streamed, engine_model_row, r->stats.streamed_bytes)
GET(m_read, engine_model_row, r->stats.read_bytes)
GET(m_waited, engine_model_row, r->stats.waited_ns / 1e9)
GET(m_loads, engine_model_row, r->stats.loads)
GET(m_evictions, engine_model_row, r->stats.evictions)
GET(m_runs, engine_model_row, r->stats.runs)
GET(m_run_s, engine_model_row, r->stats.run_ns / 1e9)
GET(m_load_s, engine_model_row, r->stats.load_ns / 1e9)
GET(m_healthy, engine_model_row, !r->problem[0])

static const struct number CAMERA[] = {
    {"brim_camera_live", "gauge", "1 while frames come.", c_live},
    {"brim_camera_decoded_frames_total", "counter", "Frames decoded.", c_decoded},
    {"brim_camera_published_frames_total", "counter", "Frames handed on.", c_published},
    {"brim_camera_corrupt_total", "counter", "Packets and frames with errors.", c_corrupt},
    {"brim_camera_reconnects_total", "counter", "Connections made again.", c_reconnects},
    {"brim_camera_received_bytes_total", "counter", "Bytes received or read.", c_bytes},
    {"brim_camera_frames_per_second", "gauge", "Frames decoded a second, over the last few seconds.", c_fps},
};
static const struct number QUERY[] = {
    {"brim_query_offered_total", "counter", "Frames offered to the query.", q_offered},
    {"brim_query_run_total", "counter", "Frames run.", q_run},
    {"brim_query_late_total", "counter", "Runs that ended after their deadline.", q_late},
    {"brim_query_motion_saved_total", "counter", "Runs saved because nothing moved.", q_saved},
    {"brim_query_detections_total", "counter", "Detections.", q_detections},
    {"brim_query_tracks_total", "counter", "Tracks.", q_tracks},
    {"brim_query_events_total", "counter", "Events.", q_events},
    {"brim_query_asked_frames_per_second", "gauge", "Runs a second asked for; 0: every frame, or a cascade.",
     q_asked},
    {"brim_query_frames_per_second", "gauge", "Runs a second, over the last five seconds.", q_fps},
    {"brim_query_latency_max_seconds", "gauge", "Longest time from frame to result of the last 512 runs.", q_max},
    {"brim_query_healthy", "gauge", "0: the query has a problem.", q_healthy},
};
static const struct number MODEL[] = {
    {"brim_model_resident", "gauge", "1 while the weights are in memory.", m_resident},
    {"brim_model_weight_bytes", "gauge", "Size of the weights.", m_weights},
    {"brim_model_resident_bytes", "gauge", "Bytes of the weights in memory now.", m_in_memory},
    {"brim_model_shared_bytes", "gauge", "Of these, bytes that another model has too and pays for.", m_shared},
    {"brim_model_streamed_bytes", "gauge", "Bytes of the weights that are read in each run.", m_streamed},
    {"brim_model_read_bytes_total", "counter", "Bytes of weights read from disk.", m_read},
    {"brim_model_waited_seconds_total", "counter", "Time that runs waited for weights.", m_waited},
    {"brim_model_loads_total", "counter", "Times the weights were read.", m_loads},
    {"brim_model_evictions_total", "counter", "Times the weights had to go.", m_evictions},
    {"brim_model_runs_total", "counter", "Runs.", m_runs},
    {"brim_model_run_seconds", "gauge", "Estimate of a run.", m_run_s},
    {"brim_model_load_seconds", "gauge", "Estimate of reading the weights.", m_load_s},
    {"brim_model_healthy", "gauge", "0: the model has a problem.", m_healthy},
};

/* `labels` has one string per row. */
static void write_table(struct strbuf *b, const struct number *table, size_t n_table, const void *rows, size_t n,
                        size_t size, char **labels)
{
    for (size_t k = 0; k < n_table && n; k++) {
        family(b, table[k].name, table[k].type, table[k].help);
        for (size_t i = 0; i < n; i++)
            strbuf_addf(b, "%s{%s} %.15g\n", table[k].name, labels[i], table[k].get((const char *)rows + i * size));
    }
}

static void free_labels(char **labels, size_t n)
{
    for (size_t i = 0; i < n; i++) free(labels[i]);
    free(labels);
}

/* ---- cameras */

static void write_cameras(struct strbuf *b, struct engine *e)
{
    struct engine_camera_row *rows;
    char text[METRICS_TEXT];
    size_t n = engine_cameras(e, &rows);
    char **labels = xnewn(char *, n + 1);
    for (size_t i = 0; i < n; i++) labels[i] = xasprintf("camera=\"%s\"", metrics_escape(rows[i].name, text));
    write_table(b, CAMERA, ARRAY_LEN(CAMERA), rows, n, sizeof *rows, labels);
    if (n) family(b, "brim_camera_state", "gauge", "1 for the state that the camera is in.");
    for (size_t i = 0; i < n; i++)
        for (int s = VIDEO_CONNECTING; s <= VIDEO_FAILED; s++)
            strbuf_addf(b, "brim_camera_state{%s,state=\"%s\"} %d\n", labels[i],
                        video_state_name((enum video_state)s), rows[i].video.state == (enum video_state)s);
    if (n)
        family(b, "brim_camera_dropped_frames_total", "counter",
               "Frames not used: replaced by a newer one, not needed, or no memory for them.");
    for (size_t i = 0; i < n; i++)
        strbuf_addf(b,
                    "brim_camera_dropped_frames_total{%s,reason=\"newer\"} "
                    "%llu\nbrim_camera_dropped_frames_total{%s,reason=\"not_needed\"} %llu\n"
                    "brim_camera_dropped_frames_total{%s,reason=\"no_memory\"} %llu\n",
                    labels[i], (unsigned long long)rows[i].video.dropped, labels[i],
                    (unsigned long long)rows[i].video.skipped, labels[i],
                    (unsigned long long)rows[i].video.no_memory);
    free_labels(labels, n);
    free(rows);
}

/* ---- queries */

static const char *drop_label(int k)
{
    static const char *const names[SCHED_DROP_COUNT] = {[SCHED_DROP_NEWER] = "newer",
                                                        [SCHED_DROP_LATE] = "late",
                                                        [SCHED_DROP_MEMORY] = "memory",
                                                        [SCHED_DROP_ERROR] = "error",
                                                        [SCHED_DROP_CLOSED] = "closed"};
    return names[k] ? names[k] : "other";
}

static void write_queries(struct strbuf *b, struct engine *e)
{
    struct engine_query_row *rows;
    char text[3][METRICS_TEXT];
    size_t n = engine_queries(e, &rows);
    char **labels = xnewn(char *, n + 1);
    for (size_t i = 0; i < n; i++)
        labels[i] = xasprintf("query=\"%s\",camera=\"%s\",model=\"%s\"", metrics_escape(rows[i].query, text[0]),
                              metrics_escape(rows[i].camera, text[1]), metrics_escape(rows[i].model, text[2]));
    write_table(b, QUERY, ARRAY_LEN(QUERY), rows, n, sizeof *rows, labels);
    if (n) family(b, "brim_query_dropped_total", "counter", "Frames not run, by reason.");
    for (size_t i = 0; i < n; i++)
        for (int k = 1; k < SCHED_DROP_COUNT; k++)
            strbuf_addf(b, "brim_query_dropped_total{%s,reason=\"%s\"} %llu\n", labels[i], drop_label(k),
                        (unsigned long long)rows[i].stats.dropped[k]);
    if (n) family(b, "brim_query_latency_seconds", "gauge", "Time from frame to result of the last 512 runs.");
    for (size_t i = 0; i < n; i++)
        strbuf_addf(b,
                    "brim_query_latency_seconds{%s,quantile=\"0.5\"} "
                    "%.9g\nbrim_query_latency_seconds{%s,quantile=\"0.95\"} %.9g\n",
                    labels[i], (double)rows[i].stats.p50_ns / 1e9, labels[i], (double)rows[i].stats.p95_ns / 1e9);
    free_labels(labels, n);
    free(rows);
}

static void write_models(struct strbuf *b, struct engine *e)
{
    struct engine_model_row *rows;
    char text[METRICS_TEXT];
    size_t n = engine_models(e, &rows);
    char **labels = xnewn(char *, n + 1);
    for (size_t i = 0; i < n; i++) labels[i] = xasprintf("model=\"%s\"", metrics_escape(rows[i].name, text));
    write_table(b, MODEL, ARRAY_LEN(MODEL), rows, n, sizeof *rows, labels);
    free_labels(labels, n);
    free(rows);
}

/* ---- guards */

GET(g_score, engine_guard_row, r->score)
GET(g_target, engine_guard_row, r->target)
GET(g_compared, engine_guard_row, r->compared)
GET(g_skipped, engine_guard_row, r->skipped)
GET(g_guarding, engine_guard_row, r->state == ENGINE_GUARD_ON)
GET(g_reverted, engine_guard_row, r->state == ENGINE_GUARD_REVERTED)

static const struct number GUARD[] = {
    {"brim_guard_score", "gauge", "How like its original the merged model is, over the last frames; 1: the same.", g_score},
    {"brim_guard_target", "gauge", "Below this it goes back to its original.", g_target},
    {"brim_guard_frames_total", "counter", "Frames compared.", g_compared},
    {"brim_guard_skipped_total", "counter", "Frames not compared: no room, or an error.", g_skipped},
    {"brim_guard_on", "gauge", "1: it is compared.", g_guarding},
    {"brim_guard_reverted", "gauge", "1: it went back to its original.", g_reverted},
};

static void write_guards(struct strbuf *b, struct engine *e)
{
    struct engine_guard_row *rows;
    char text[METRICS_TEXT];
    size_t n = engine_guards(e, &rows);
    char **labels = xnewn(char *, n + 1);
    for (size_t i = 0; i < n; i++) labels[i] = xasprintf("model=\"%s\"", metrics_escape(rows[i].model, text));
    write_table(b, GUARD, ARRAY_LEN(GUARD), rows, n, sizeof *rows, labels);
    free_labels(labels, n);
    free(rows);
}

/* ---- jobs */

static void job_family(struct strbuf *b, const struct engine_job_row *rows, size_t n, const char *name, const char *help, double (*of)(const struct engine_job_row *))
{
    char text[METRICS_TEXT];
    family(b, name, "gauge", help);
    for (size_t i = 0; i < n; i++)
        strbuf_addf(b, "%s{job=\"%s\",kind=\"%s\"} %.9g\n", name, metrics_escape(rows[i].name, text), rows[i].kind, of(&rows[i]));
}

static double job_runs(const struct engine_job_row *r)
{
    return r->state == ENGINE_JOB_RUNNING;
}

static double job_done(const struct engine_job_row *r)
{
    return r->done;
}

static double job_eta(const struct engine_job_row *r)
{
    return r->eta_s;
}

static double job_bytes(const struct engine_job_row *r)
{
    return (double)r->bytes;
}

static void write_jobs(struct strbuf *b, struct engine *e)
{
    struct engine_job_row *rows;
    char text[METRICS_TEXT];
    size_t n = engine_jobs(e, &rows);
    if (n) {
        job_family(b, rows, n, "brim_job_running", "1: it works; 0: it waits, is done, was stopped or failed.", job_runs);
        job_family(b, rows, n, "brim_job_done_ratio", "How much of its work is done.", job_done);
        job_family(b, rows, n, "brim_job_eta_seconds", "Until it is done; below 0: unknown.", job_eta);
        job_family(b, rows, n, "brim_job_bytes", "Bytes of the budget that it holds.", job_bytes);
        family(b, "brim_job_number", "gauge", "What the job tells: epoch, loss ...");
    }
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < rows[i].n; k++)
            strbuf_addf(b, "brim_job_number{job=\"%s\",what=\"%s\"} %.9g\n", metrics_escape(rows[i].name, text), rows[i].numbers[k].name, rows[i].numbers[k].value);
    free(rows);
}

/* ---- database and problems */

static void write_rows(struct strbuf *b, struct rows *rows)
{
    struct rows_stats s;
    rows_stats(rows, &s);
    one(b, "brim_events_written_total", "counter", "Events on disk since the start.", (double)s.written);
    one(b, "brim_events_lost_total", "counter", "Events that the full queue dropped.", (double)s.lost);
    one(b, "brim_events_waiting", "gauge", "Events that wait for the disk.", s.waiting);
    one(b, "brim_outbox_waiting", "gauge", "Messages that wait for the broker.",
        (double)MAX(rows_outbox_count(rows), (int64_t)0));
}

/* A problem reads "what: sentence"; models' problems have no such word and are told by brim_model_healthy. */
static void write_problems(struct strbuf *b, struct engine *e)
{
    json_t *list = engine_problems(e), *seen = json_object();
    size_t i;
    json_t *item;
    char what[64], text[METRICS_TEXT];
    family(b, "brim_problem", "gauge", "1: something is wrong with this part.");
    json_array_foreach(list, i, item)
    {
        const char *s = json_string_value(item), *colon = s ? strstr(s, ": ") : NULL;
        size_t n = colon ? (size_t)(colon - s) : 0;
        if (!n || n >= sizeof what || memchr(s, ' ', n)) continue;
        snprintf(what, sizeof what, "%.*s", (int)n, s);
        if (json_object_get(seen, what)) continue;
        json_object_set_new(seen, what, json_true());
        strbuf_addf(b, "brim_problem{what=\"%s\"} 1\n", metrics_escape(what, text));
    }
    one(b, "brim_problems", "gauge", "How many problems are shown.", (double)json_array_size(list));
    json_decref(seen);
    json_decref(list);
}

void metrics_write(struct strbuf *b, struct engine *e, struct rows *rows)
{
    one(b, "brim_uptime_seconds", "gauge", "Seconds since the start.", engine_uptime_s(e));
    write_memory(b, engine_budget(e));
    write_cameras(b, e);
    write_queries(b, e);
    write_models(b, e);
    write_guards(b, e);
    write_jobs(b, e);
    if (rows) write_rows(b, rows);
    write_problems(b, e);
}

void metrics_write_outputs(struct strbuf *b, struct serve_counts *c)
{
    struct {
        const char *name;
        struct serve_count *count;
    } outputs[] = {{"jsonl", &c->jsonl}, {"mot", &c->mot}, {"pictures", &c->pictures}};
    family(b, "brim_output_lines_total", "counter", "Lines, or pictures, written.");
    for (size_t i = 0; i < ARRAY_LEN(outputs); i++)
        strbuf_addf(b, "brim_output_lines_total{output=\"%s\"} %llu\n", outputs[i].name, atomic_load(&outputs[i].count->written));
    family(b, "brim_output_dropped_total", "counter", "Lines, or pictures, dropped. slow: nobody took them in time; failed: they could not be written.");
    for (size_t i = 0; i < ARRAY_LEN(outputs); i++)
        strbuf_addf(b, "brim_output_dropped_total{output=\"%s\",reason=\"slow\"} %llu\n"
                       "brim_output_dropped_total{output=\"%s\",reason=\"failed\"} %llu\n",
                    outputs[i].name, atomic_load(&outputs[i].count->slow), outputs[i].name, atomic_load(&outputs[i].count->failed));
}

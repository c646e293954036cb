/* The jobs of a site file: what the box does beside its cameras. SPDX-License-Identifier: Apache-2.0 */
#include "engine/site_inside.h"

#include "engine/job.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* "HH:MM", up to `end`. -1: it is none. */
static int minutes_of(const char *text, const char *end)
{
    static const char form[] = "dd:dd";
    if (end - text != 5) return -1;
    for (int i = 0; i < 5; i++)
        if (form[i] == 'd' ? !isdigit((unsigned char)text[i]) : text[i] != form[i]) return -1;
    int h = (text[0] - '0') * 10 + text[1] - '0', m = (text[3] - '0') * 10 + text[4] - '0';
    return h < 24 && m < 60 ? 60 * h + m : -1;
}

static void read_between(struct site_reader *r, const struct yaml_node *n, struct site_job *j)
{
    const char *text = NULL;
    if (!n || site_note(r, yaml_str(n, &text))) return;
    const char *dash = strchr(text, '-');
    j->from = dash ? minutes_of(text, dash) : -1;
    j->to = dash ? minutes_of(dash + 1, text + strlen(text)) : -1;
    if (j->from < 0 || j->to < 0 || j->from == j->to)
        site_note(r, yaml_err(n, ERR_FORMAT, "expected hours of the day such as \"22:00-06:00\" (in quotes)"));
}

/* A list, or a line that is taken apart at spaces. */
static void read_words(struct site_reader *r, const struct yaml_node *n, struct site_job *j)
{
    const char *word = NULL;
    j->words = site_own(r->site, xnewn(const char *, ENGINE_JOB_WORDS + 1));
    if (yaml_kind(n) == YAML_LIST) {
        if (yaml_count(n) > ENGINE_JOB_WORDS) site_note(r, yaml_err(n, ERR_LIMIT, "%zu words; at most %d are possible", yaml_count(n), ENGINE_JOB_WORDS));
        for (const struct yaml_node *c = yaml_first(n); c && j->word_count < ENGINE_JOB_WORDS; c = yaml_next(c))
            if (!site_note(r, yaml_str(c, &word))) j->words[j->word_count++] = word;
        return;
    }
    if (site_note(r, yaml_str(n, &word))) return;
    char *copy = site_own(r->site, xstrdup(word)), *save = NULL;
    for (char *part = strtok_r(copy, " \t\n", &save); part; part = strtok_r(NULL, " \t\n", &save)) {
        if (j->word_count == ENGINE_JOB_WORDS) {
            site_note(r, yaml_err(n, ERR_LIMIT, "more than %d words", ENGINE_JOB_WORDS));
            return;
        }
        j->words[j->word_count++] = part;
    }
}

static void read_job(struct site_reader *r, const struct yaml_node *n, struct site_job *j)
{
    const struct yaml_node *need = NULL;
    const char *model = NULL;
    *j = (struct site_job){.name = yaml_key(n), .from = -1, .to = -1, .publish = -1, .at = n};
    if (!isalpha((unsigned char)j->name[0])) site_note(r, yaml_err_key(n, ERR_FORMAT, "the name of a job begins with a letter"));
    if (site_note(r, yaml_is_map(n))) return;
    site_note(r, yaml_check_keys(n, site_keys("job")));
    if (!site_note(r, yaml_need(n, "do", &need))) site_note(r, yaml_str(need, &j->kind));
    if (!site_note(r, yaml_need(n, "words", &need))) read_words(r, need, j);
    if (yaml_get(n, "publish") && !site_note(r, yaml_str(yaml_get(n, "publish"), &model)))
        j->publish = site_find(r, yaml_get(n, "publish"), model, r->model_names, "model");
    read_between(r, yaml_get(n, "between"), j);
}

void site_read_jobs(struct site_reader *r, const struct yaml_node *map)
{
    struct site *s = r->site;
    const char **names;
    if (!map) return;
    s->job_count = site_count_named(r, map, ENGINE_MAX_JOBS / 2, &names); /* there is room for others */
    s->jobs = site_own(s, xnewn(struct site_job, s->job_count + 1));
    const struct yaml_node *n = s->job_count ? yaml_first(map) : NULL;
    for (size_t i = 0; n; n = yaml_next(n), i++) read_job(r, n, &s->jobs[i]);
}

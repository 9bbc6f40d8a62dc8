// SPDX-License-Identifier: Apache-2.0
#include "report.h"

#include <math.h>
#include <string.h>

/* The object of that name in an array of groups, or NULL. */
static const json_t *named(const json_t *groups, const char *name) {
    size_t i;
    json_t *group;
    json_array_foreach((json_t *)(uintptr_t)groups, i, group) {
        const char *its = json_string_value(json_object_get(group, "name"));
        if (its && strcmp(its, name) == 0) return group;
    }
    return NULL;
}

static void score_cell(const json_t *score, sago_str *out) {
    if (!score) {
        sago_str_puts(out, "<td class=n>–</td>");
        return;
    }
    sago_str_printf(out, "<td class=n><b>%.1f</b> <small>%.1f–%.1f</small></td>",
                    json_number_value(json_object_get(score, "mean")), json_number_value(json_object_get(score, "low")),
                    json_number_value(json_object_get(score, "high")));
}

static void plain_cell(const json_t *score, sago_str *out) {
    if (score)
        sago_str_printf(out, "<td class=n>%.1f</td>", json_number_value(json_object_get(score, "mean")));
    else
        sago_str_puts(out, "<td class=n>–</td>");
}

/* One row: exact match of every evaluation, then the last one's other scores and the baselines. */
static void row(const char *name, const char *note, const json_t *const groups[], int n, sago_str *out) {
    const json_t *last = groups[n - 1];
    sago_str_puts(out, "<tr><th scope=row>");
    sago_html_text(out, name);
    if (note[0]) sago_str_printf(out, " <small>%s</small>", note);
    sago_str_puts(out, "</th>");
    for (int i = 0; i < n; i++) score_cell(json_object_get(groups[i], "exact_match"), out);
    plain_cell(json_object_get(last, "rouge_l"), out);
    plain_cell(json_object_get(last, "token_f1"), out);
    plain_cell(json_object_get(last, "accuracy"), out);
    plain_cell(json_object_get(json_object_get(last, "majority"), "exact_match"), out);
    plain_cell(json_object_get(json_object_get(last, "copy"), "exact_match"), out);
    sago_str_puts(out, "</tr>\n");
}

/* The evaluations that have a column: the first one, which later ones are compared with, and the latest. */
enum { MOST_EVALS = 6 };

static int columns(const sago_run_record *run) { return run->n_evals < MOST_EVALS ? run->n_evals : MOST_EVALS; }

static const json_t *column(const sago_run_record *run, int i) {
    return run->evals[i == 0 ? 0 : run->n_evals - columns(run) + i].scores;
}

static void group_row(const sago_run_record *run, const char *key, const char *label, sago_str *out) {
    const json_t *groups[MOST_EVALS];
    int n = columns(run);
    char note[64];
    for (int i = 0; i < n; i++) groups[i] = json_object_get(column(run, i), key);
    json_int_t tasks = json_integer_value(json_object_get(groups[n - 1], "tasks"));
    if (tasks == 0) return;
    snprintf(note, sizeof note, "%lld task%s", (long long)tasks, tasks == 1 ? "" : "s");
    row(label, note, groups, n, out);
}

static void list_rows(const sago_run_record *run, const char *key, sago_str *out) {
    const json_t *groups[MOST_EVALS];
    int n = columns(run);
    const json_t *last = json_object_get(run->evals[run->n_evals - 1].scores, key);
    for (size_t k = 0; k < json_array_size(last); k++) {
        const json_t *group = json_array_get(last, k);
        const char *name = json_string_value(json_object_get(group, "name"));
        char note[64] = "";
        if (!name) continue;
        for (int i = 0; i < n; i++) groups[i] = named(json_object_get(column(run, i), key), name);
        json_int_t tasks = json_integer_value(json_object_get(group, "tasks"));
        if (json_object_get(group, "held_out"))
            snprintf(note, sizeof note, "%s", json_is_true(json_object_get(group, "held_out")) ? "never seen" : "");
        else
            snprintf(note, sizeof note, "%lld task%s", (long long)tasks, tasks == 1 ? "" : "s");
        row(name, note, groups, n, out);
    }
}

/* Plain text: the loss of every evaluation, then the last one's perplexity. */
static void text_table(const sago_run_record *run, sago_str *out) {
    int n = columns(run);
    const json_t *last = json_object_get(column(run, n - 1), "text");
    if (json_array_size(last) == 0) return;
    sago_str_puts(out, "<p>Plain text under its objective: loss in nats a target token on documents that were kept out of "
                       "training; small figures are 95&nbsp;% bootstrap intervals.</p>\n"
                       "<div class=wide><table><thead><tr><th>Text</th>");
    for (int i = 0; i < n; i++) {
        const char *label = json_string_value(json_object_get(column(run, i), "label"));
        sago_str_puts(out, "<th class=n>loss<br>");
        sago_html_text(out, label ? label : "");
        sago_str_puts(out, "</th>");
    }
    sago_str_puts(out, "<th class=n>perplexity</th><th class=n>tokens</th></tr></thead><tbody>\n");
    for (size_t k = 0; k < json_array_size(last); k++) {
        const json_t *row = json_array_get(last, k);
        const char *name = json_string_value(json_object_get(row, "name")),
                   *category = json_string_value(json_object_get(row, "category"));
        if (!name || !category) continue;
        sago_str_puts(out, "<tr><th scope=row>");
        sago_html_text(out, category);
        sago_str_puts(out, " <small>");
        sago_html_text(out, name);
        sago_str_puts(out, "</small></th>");
        for (int i = 0; i < n; i++) {
            const json_t *loss = NULL, *texts = json_object_get(column(run, i), "text");
            for (size_t t = 0; t < json_array_size(texts); t++) {
                const json_t *other = json_array_get(texts, t);
                const char *its = json_string_value(json_object_get(other, "name")),
                           *of = json_string_value(json_object_get(other, "category"));
                if (its && of && !strcmp(its, name) && !strcmp(of, category)) loss = json_object_get(other, "loss");
            }
            if (loss)
                sago_str_printf(out, "<td class=n><b>%.4f</b> <small>%.4f–%.4f</small></td>",
                                json_number_value(json_object_get(loss, "mean")),
                                json_number_value(json_object_get(loss, "low")),
                                json_number_value(json_object_get(loss, "high")));
            else
                sago_str_puts(out, "<td class=n>–</td>");
        }
        sago_str_printf(out, "<td class=n>%.2f</td><td class=n>%lld</td></tr>\n",
                        json_number_value(json_object_get(json_object_get(row, "perplexity"), "mean")),
                        (long long)json_integer_value(json_object_get(row, "target_tokens")));
    }
    sago_str_puts(out, "</tbody></table></div>\n");
}

static void head(const sago_run_record *run, const char *what, sago_str *out) {
    sago_str_printf(out, "<div class=wide><table><thead><tr><th>%s</th>", what);
    for (int i = 0; i < columns(run); i++) {
        const char *label = json_string_value(json_object_get(column(run, i), "label"));
        sago_str_puts(out, "<th class=n>exact match<br>");
        sago_html_text(out, label ? label : "");
        sago_str_puts(out, "</th>");
    }
    sago_str_puts(out, "<th class=n>ROUGE-L</th><th class=n>token F1</th><th class=n>option accuracy</th>"
                       "<th class=n>majority answer</th><th class=n>copy the input</th></tr></thead><tbody>\n");
}

void sago_report_scores(const sago_run_record *run, sago_str *out) {
    if (run->n_evals == 0) {
        sago_str_puts(out, "<p>No evaluation yet: <code>sago eval RUN</code> adds one.</p>\n");
        return;
    }
    text_table(run, out);
    const json_t *latest = column(run, columns(run) - 1);
    if (json_object_get(latest, "text") && json_array_size(json_object_get(latest, "tasks")) == 0) return;
    sago_str_puts(out, "<p>Percent; small figures are 95&nbsp;% bootstrap intervals. Averages give every task the same "
                       "weight. The columns after exact match are the last evaluation's. The majority baseline always "
                       "gives a task's most frequent answer; the copy baseline gives back the prompt's last line.</p>\n");
    head(run, "Average", out);
    group_row(run, "seen", "tasks trained on", out);
    group_row(run, "unseen", "tasks never seen", out);
    group_row(run, "overall", "all tasks", out);
    sago_str_puts(out, "</tbody></table></div>\n");
    head(run, "Category", out);
    list_rows(run, "categories", out);
    sago_str_puts(out, "</tbody></table></div>\n<details><summary>Every task</summary>\n");
    head(run, "Task", out);
    list_rows(run, "tasks", out);
    sago_str_puts(out, "</tbody></table></div></details>\n");
}

// SPDX-License-Identifier: Apache-2.0
#include "report.h"

#include "curve.h"
#include "log.h"

#include <math.h>
#include <string.h>

static const char style[] =
    "body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:60rem;margin:0 auto;padding:1rem}"
    "h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid #ddd}"
    "h4{margin:.2rem 0;font-size:1rem}small{color:#666;font-weight:normal}"
    ".cards{display:flex;flex-wrap:wrap;gap:.6rem}.cards div{flex:1 1 9rem;background:#f4f6f8;border-radius:.5rem;"
    "padding:.6rem .8rem}.cards b{display:block;font-size:1.25rem}"
    ".wide{overflow-x:auto;margin:.5rem 0}table{border-collapse:collapse;width:100%;font-size:.9rem}"
    "th,td{padding:.3rem .5rem;border-bottom:1px solid #e5e5e5;text-align:left;vertical-align:top}"
    ".n{text-align:right;white-space:nowrap}thead th{font-weight:600;background:#fafafa}th[scope=row]{font-weight:500}"
    "svg{width:100%;height:auto}pre{background:#f6f6f6;padding:.6rem;border-radius:.4rem;overflow-x:auto;font-size:.8rem;"
    "white-space:pre-wrap;overflow-wrap:anywhere}article{border:1px solid #e2e2e2;border-radius:.5rem;padding:.6rem;"
    "margin:.6rem 0}dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem .8rem;margin:.3rem 0}dt{color:#666}"
    "dd{margin:0;overflow-wrap:anywhere}.right{color:#14693a}.wrong{color:#a33}";

void sago_html_text(sago_str *out, const char *text) {
    for (const char *p = text ? text : ""; *p; p++) {
        switch (*p) {
        case '&': sago_str_puts(out, "&amp;"); break;
        case '<': sago_str_puts(out, "&lt;"); break;
        case '>': sago_str_puts(out, "&gt;"); break;
        case '"': sago_str_puts(out, "&quot;"); break;
        default: sago_str_putc(out, *p);
        }
    }
}

static void card(const char *label, sago_str *out, const char *format, ...) SAGO_PRINTF(3, 4);
static void card(const char *label, sago_str *out, const char *format, ...) {
    char text[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    sago_str_printf(out, "<div><small>%s</small><b>", label);
    sago_html_text(out, text);
    sago_str_puts(out, "</b></div>\n");
}

static double exact_match(const sago_run_record *run, int eval, const char *group) {
    const json_t *score = json_object_get(json_object_get(run->evals[eval].scores, group), "exact_match");
    return score ? json_number_value(json_object_get(score, "mean")) : NAN;
}

static void score_card(const sago_run_record *run, const char *group, const char *label, sago_str *out) {
    if (run->n_evals == 0) return;
    double after = exact_match(run, run->n_evals - 1, group), before = exact_match(run, 0, group);
    if (!isfinite(after)) return;
    if (run->n_evals > 1 && isfinite(before))
        card(label, out, "%.1f → %.1f %%", before, after);
    else
        card(label, out, "%.1f %%", after);
}

static void summary(const sago_run_record *run, sago_str *out) {
    char time[32];
    sago_str_puts(out, "<div class=cards>\n");
    double parameters = json_number_value(json_object_get(run->environment, "parameters"));
    if (parameters > 0) card("parameters", out, parameters < 1e9 ? "%.2f M" : "%.2f G", parameters < 1e9 ? parameters * 1e-6 : parameters * 1e-9);
    card("steps", out, "%lld", (long long)run->points[run->n_points - 1].step);
    card("training time", out, "%s", sago_duration_text(run->seconds, time));
    card("tokens", out, "%.2f M", (run->input_tokens + run->target_tokens) * 1e-6);
    if (isfinite(run->median_tokens_per_second)) card("tokens a second", out, "%.0f", run->median_tokens_per_second);
    if (isfinite(run->median_mfu)) card("of matrix-product speed", out, "%.0f %%", 100 * run->median_mfu);
    score_card(run, "seen", "exact match, trained tasks", out);
    score_card(run, "unseen", "exact match, unseen tasks", out);
    sago_str_puts(out, "</div>\n");
    if (run->seconds > 0) {
        double data = fmin(100 * run->data_wait_seconds / run->seconds, 100);
        double others = fmin(100 * run->comm_wait_seconds / run->seconds, 100 - data);
        sago_str_printf(out, "<p>Training time by part: %.1f %% computation, %.1f %% waiting for other ranks, %.1f %% waiting "
                             "for data.", 100 - data - others, others, data);
        if (run->most_memory_gb > 0) sago_str_printf(out, " Most device memory: %.2f GB.", run->most_memory_gb);
        sago_str_puts(out, "</p>\n");
    }
    if (run->n_resumes + run->n_skipped + run->n_spikes > 0)
        sago_str_printf(out, "<p>Times continued: %lld. Steps skipped for values that were not finite: %lld. Loss "
                             "spikes: %lld.</p>\n", (long long)run->n_resumes, (long long)run->n_skipped,
                        (long long)run->n_spikes);
}

static void curves(const sago_run_record runs[], int n, sago_str *out) {
    static const struct {
        sago_curve_kind kind;
        const char *title;
    } all[] = {{SAGO_CURVE_LOSS, "Loss"}, {SAGO_CURVE_THROUGHPUT, "Throughput"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        sago_str_printf(out, "<h2>%s</h2>\n", all[i].title);
        if (sago_curve_draw(all[i].kind, runs, n, out) != SAGO_OK) {
            sago_warn("%s", sago_message());
            sago_str_printf(out, "<p>%s.</p>\n", sago_message());
        }
    }
}

/* The mixture as it was drawn, a row a member. */
static void mixture(const sago_run_record *run, sago_str *out) {
    const json_t *members = json_object_get(run->drawn, "members");
    double examples = 0;
    for (size_t i = 0; i < json_array_size(members); i++)
        examples += json_number_value(json_object_get(json_array_get(members, i), "examples"));
    if (examples == 0) return;
    sago_str_puts(out, "<h2>Data as drawn</h2><div class=wide><table><thead><tr><th>member</th><th class=n>tasks drawn"
                       "</th><th class=n>examples</th><th class=n>share</th><th class=n>tokens</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < json_array_size(members); i++) {
        const json_t *m = json_array_get(members, i);
        double mine = json_number_value(json_object_get(m, "examples"));
        sago_str_puts(out, "<tr><th scope=row>");
        sago_html_text(out, json_string_value(json_object_get(m, "name")));
        sago_str_printf(out, "</th><td class=n>%zu</td><td class=n>%.0f</td><td class=n>%.1f %%</td>"
                             "<td class=n>%.0f</td></tr>\n", json_array_size(json_object_get(m, "tasks")), mine,
                        100 * mine / examples, json_number_value(json_object_get(m, "tokens")));
    }
    sago_str_puts(out, "</tbody></table></div>\n");
}

static void environment_row(const char *key, const json_t *value, sago_str *out) {
    sago_str text = {0};
    if (json_is_string(value))
        sago_str_puts(&text, json_string_value(value));
    else
        sago_json_add(&text, value, 9);
    sago_str_puts(out, "<tr><th scope=row>");
    sago_html_text(out, key);
    sago_str_puts(out, "</th><td>");
    sago_html_text(out, sago_str_text(&text));
    sago_str_puts(out, "</td></tr>\n");
    sago_str_free(&text);
}

static void environment(const sago_run_record *run, sago_str *out) {
    const char *key;
    json_t *value;
    sago_str_puts(out, "<h2>Environment</h2><div class=wide><table><tbody>\n");
    json_object_foreach(run->environment, key, value) environment_row(key, value, out);
    sago_str_puts(out, "</tbody></table></div>\n<h2>Configuration</h2><details open><summary>config.yaml</summary><pre>");
    sago_html_text(out, sago_str_text(&run->config));
    sago_str_puts(out, "</pre></details>\n");
}

sago_status sago_report_page(const sago_run_record runs[], int n, sago_str *out) {
    sago_str_puts(out, "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
                       "<meta name=viewport content=\"width=device-width,initial-scale=1\"><title>");
    sago_html_text(out, runs[0].name);
    sago_str_printf(out, " – sago report</title><style>%s</style></head><body>\n", style);
    if (n > 1) {
        sago_str_printf(out, "<h1>%d runs</h1>\n", n);
        curves(runs, n, out);
    }
    for (int i = 0; i < n; i++) {
        sago_str_puts(out, "<h1>");
        sago_html_text(out, runs[i].name);
        sago_str_puts(out, "</h1>\n");
        summary(&runs[i], out);
        sago_str_puts(out, "<h2>Scores</h2>\n");
        sago_report_scores(&runs[i], out);
        if (n == 1) curves(runs, 1, out);
        mixture(&runs[i], out);
        SAGO_TRY(sago_report_samples(&runs[i], out));
        environment(&runs[i], out);
    }
    sago_str_printf(out, "<p><small>Written by sago %s.</small></p></body></html>\n", SAGO_VERSION);
    return SAGO_OK;
}

// SPDX-License-Identifier: Apache-2.0
#include "walk.h"

#include <math.h>
#include <stdio.h>

enum { WIDTH = 1400, LEFT = 110, TOP = 64, LANE = 46, BAR = 30, LEGEND = 40 };

static const struct {
    const char *name, *colour;
} looks[] = {
    [SAGO_EVENT_FORWARD] = {"forward", "#4c78a8"},
    [SAGO_EVENT_AGAIN] = {"forward again", "#9ecae9"},
    [SAGO_EVENT_BACKWARD] = {"backward", "#2f5d3a"},
    [SAGO_EVENT_LOSS] = {"loss", "#b279a2"},
    [SAGO_EVENT_ADD] = {"gradients added", "#54a24b"},
    [SAGO_EVENT_OPTIMIZER] = {"optimizer", "#eeca3b"},
    [SAGO_EVENT_GATHER] = {"gather", "#f58518"},
    [SAGO_EVENT_SCATTER] = {"scatter", "#e45756"},
    [SAGO_EVENT_SUM] = {"sum", "#a32a31"},
};

static const char *const lanes[] = {"computing", "model axis", "data axis"};

static void add_text(sago_str *out, double x, double y, const char *style, const char *text) {
    sago_str_printf(out, "<text x=\"%.1f\" y=\"%.1f\"%s>", x, y, style);
    for (; *text; text++) {
        if (*text == '&')
            sago_str_puts(out, "&amp;");
        else if (*text == '<')
            sago_str_puts(out, "&lt;");
        else
            sago_str_putc(out, *text);
    }
    sago_str_puts(out, "</text>\n");
}

/* A round number of seconds of which some eight make the whole. */
static double tick_of(double seconds) {
    double unit = pow(10, floor(log10(seconds / 8)));
    double steps = seconds / 8 / unit;
    return unit * (steps > 5 ? 10 : steps > 2 ? 5 : steps > 1 ? 2 : 1);
}

static void add_axis(sago_str *out, double seconds, double scale) {
    double bottom = TOP + SAGO_QUEUES * LANE;
    for (double t = 0; t <= seconds * 1.0001; t += tick_of(seconds)) {
        char label[32];
        snprintf(label, sizeof label, "%g s", t);
        sago_str_printf(out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%.0f\" stroke=\"#ddd\"/>\n",
                        LEFT + t * scale, TOP - 8, LEFT + t * scale, bottom);
        add_text(out, LEFT + t * scale, bottom + 14, " text-anchor=\"middle\" fill=\"#666\"", label);
    }
    for (int queue = 0; queue < SAGO_QUEUES; queue++)
        add_text(out, LEFT - 10, TOP + queue * LANE + BAR / 2.0 + 4, " text-anchor=\"end\"", lanes[queue]);
}

/* Neighbours of one kind that are closer than half a pixel become one bar: long steps have more events than
 * pixels. */
static void add_events(sago_str *out, const sago_timeline *timeline, double scale) {
    for (int queue = 0; queue < SAGO_QUEUES; queue++) {
        for (int64_t i = 0; i < timeline->count;) {
            sago_event e = timeline->events[i++];
            if ((int)e.queue != queue) continue;
            int64_t joined = 1;
            for (; i < timeline->count; i++) {
                const sago_event *next = &timeline->events[i];
                if ((int)next->queue != queue) continue;
                if (next->kind != e.kind || (next->start - e.end) * scale > 0.5 ||
                    (next->end - next->start) * scale > 1.5)
                    break;
                e.end = next->end, joined++;
            }
            sago_str_printf(out,
                            "<rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" fill=\"%s\"><title>%s, ",
                            LEFT + e.start * scale, TOP + queue * LANE, fmax((e.end - e.start) * scale, 0.2),
                            BAR, looks[e.kind].colour, sago_event_name(e.kind));
            if (joined > 1)
                sago_str_printf(out, "%lld of them", (long long)joined);
            else
                sago_str_printf(out, "block %d, micro-batch %d", e.block, e.micro_batch);
            sago_str_printf(out, ", %.6g to %.6g s</title></rect>\n", e.start, e.end);
        }
    }
}

static void add_legend(sago_str *out, double y) {
    double x = LEFT;
    for (int kind = 0; kind < SAGO_EVENT_KINDS; kind++) {
        sago_str_printf(out, "<rect x=\"%.0f\" y=\"%.0f\" width=\"12\" height=\"12\" fill=\"%s\"/>\n", x, y,
                        looks[kind].colour);
        add_text(out, x + 17, y + 10, "", looks[kind].name);
        x += 132;
    }
}

void sago_timeline_svg(const sago_timeline *timeline, const sago_step_time *step, const char *title,
                       sago_str *out) {
    double scale = (WIDTH - LEFT - 20) / step->seconds;
    int height = TOP + SAGO_QUEUES * LANE + LEGEND + 24;
    char line[256];
    sago_str_printf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" "
        "fill=\"white\"/>\n",
        WIDTH, height, WIDTH, height);
    add_text(out, LEFT, 20, " font-size=\"15\" font-weight=\"bold\"", title);
    snprintf(line, sizeof line,
             "%.4g s: computing %.4g, optimizer %.3g; exposed: model axis %.3g, data axis %.3g",
             step->seconds, step->compute, step->optimizer, step->exposed_model, step->exposed_data);
    add_text(out, LEFT, 40, " fill=\"#444\"", line);
    add_axis(out, step->seconds, scale);
    add_events(out, timeline, scale);
    add_legend(out, TOP + SAGO_QUEUES * LANE + LEGEND - 8);
    sago_str_puts(out, "</svg>\n");
}

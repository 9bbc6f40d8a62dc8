// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

/* Candidates: every model axis that divides the shape and a node, every power of two and every divisor of a
 * rank's rows as micro-batch, with and without recomputation. */

enum { MOST_ROWS_AT_ONCE = 4096 };

static bool is_candidate(int64_t micro, int64_t rows) {
    return rows % micro == 0 || (micro & (micro - 1)) == 0;
}

static bool is_better(const sago_planned *p, const sago_projection *candidate) {
    if (!p->has_best) return true;
    double now = p->best.step.seconds, then = candidate->step.seconds;
    /* What is as fast and takes less memory leaves more room for what no plan knows. */
    if (then < now * 0.999) return true;
    return then < now * 1.001 && candidate->memory.device_bytes < p->best.memory.device_bytes;
}

static sago_status try_layout(sago_planned *p, const sago_layout *layout, const sago_shares *shares,
                              bool *fits) {
    sago_projection candidate;
    SAGO_TRY(sago_project(p, layout, shares, &candidate));
    *fits = sago_memory_fits(&candidate.memory);
    p->tried++;
    if (!*fits) return SAGO_OK;
    p->fitting++;
    if (is_better(p, &candidate)) p->best = candidate, p->has_best = true;
    return SAGO_OK;
}

static sago_status try_micro_batches(sago_planned *p, sago_layout layout, const sago_shares *shares) {
    int64_t rows = sago_layout_rows(&p->work, &layout);
    for (int recompute = 0; recompute < 2; recompute++) {
        layout.recompute = recompute != 0;
        bool fits = true; /* more rows take more memory */
        for (int64_t micro = 1; micro <= rows && micro <= MOST_ROWS_AT_ONCE && fits; micro++) {
            layout.micro_batch = micro;
            if (is_candidate(micro, rows)) SAGO_TRY(try_layout(p, &layout, shares, &fits));
        }
    }
    return SAGO_OK;
}

sago_status sago_plan_search(sago_planned *p) {
    int64_t most = p->hardware.devices_per_node < p->devices ? p->hardware.devices_per_node : p->devices;
    for (int64_t model = 1; model <= most; model++) {
        if (p->devices % model != 0 || p->hardware.devices_per_node % model != 0) continue;
        if (!sago_workload_can_cut(&p->work, model)) continue;
        sago_layout layout = {.data = p->devices / model, .model = model, .sharded = p->options.sharded};
        sago_shares shares;
        SAGO_TRY(sago_shares_open(&p->work, &layout, &shares));
        sago_status status = try_micro_batches(p, layout, &shares);
        sago_shares_close(&shares);
        SAGO_TRY(status);
    }
    return SAGO_OK;
}

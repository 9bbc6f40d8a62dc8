// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

/* Candidates: every model axis that divides the shape and a node, every kind of data axis, every power of two
 * and every divisor of a rank's rows as micro-batch, with and without recomputation. */

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

/* Fits it? */
static bool try_layout(sago_planned *p, const sago_layout *layout, const sago_shares *shares,
                       int64_t activations) {
    sago_projection candidate;
    sago_project(p, layout, shares, activations, &candidate);
    p->tried++;
    if (!sago_memory_fits(&candidate.memory)) return false;
    p->fitting++;
    if (is_better(p, &candidate)) p->best = candidate, p->has_best = true;
    return true;
}

/* shares: by kind of data axis; NULL: that kind is not tried. Activations are the same for all of them. */
static sago_status try_micro_batches(sago_planned *p, sago_layout layout, const sago_shares *const shares[]) {
    int64_t rows = sago_layout_rows(&p->work, &layout);
    for (int recompute = 0; recompute < 2; recompute++) {
        layout.recompute = recompute != 0;
        bool fits[SAGO_SHARINGS], any = true; /* more rows take more memory */
        for (int kind = 0; kind < SAGO_SHARINGS; kind++) fits[kind] = shares[kind] != NULL;
        for (int64_t micro = 1; micro <= rows && micro <= MOST_ROWS_AT_ONCE && any; micro++) {
            int64_t activations;
            if (!is_candidate(micro, rows)) continue;
            layout.micro_batch = micro;
            SAGO_TRY(sago_activation_bytes(&p->work, &layout, &activations));
            any = false;
            for (int kind = 0; kind < SAGO_SHARINGS; kind++) {
                layout.sharing = (sago_sharing)kind;
                if (fits[kind]) fits[kind] = try_layout(p, &layout, shares[kind], activations);
                any |= fits[kind];
            }
        }
    }
    return SAGO_OK;
}

static sago_status try_model_axis(sago_planned *p, int64_t model) {
    sago_layout layout = {.data = p->devices / model, .model = model};
    bool replicated = p->options.data_axis != SAGO_ONLY_SHARDED || layout.data == 1;
    bool sharded = p->options.data_axis != SAGO_ONLY_REPLICATED && layout.data > 1;
    sago_shares copies = {0}, cut = {0};
    sago_status status = SAGO_OK;
    if (replicated) status = sago_shares_open(&p->work, &layout, &copies);
    layout.sharing = SAGO_SHARDED_DROP;
    if (status == SAGO_OK && sharded) status = sago_shares_open(&p->work, &layout, &cut);
    const sago_shares *shares[] = {[SAGO_REPLICATED] = replicated ? &copies : NULL,
                                   [SAGO_SHARDED_DROP] = sharded ? &cut : NULL,
                                   [SAGO_SHARDED_KEEP] = sharded ? &cut : NULL};
    if (status == SAGO_OK) status = try_micro_batches(p, layout, shares);
    sago_shares_close(&copies);
    sago_shares_close(&cut);
    return status;
}

sago_status sago_plan_search(sago_planned *p) {
    int64_t most = p->hardware.devices_per_node < p->devices ? p->hardware.devices_per_node : p->devices;
    for (int64_t model = 1; model <= most; model++) {
        if (p->devices % model != 0 || p->hardware.devices_per_node % model != 0) continue;
        if (sago_workload_can_cut(&p->work, model)) SAGO_TRY(try_model_axis(p, model));
    }
    return SAGO_OK;
}

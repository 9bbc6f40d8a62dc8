// SPDX-License-Identifier: Apache-2.0
/**
 * Adafactor's second and third phase over all parameters, in four and in three launches: the moments with the
 * sum of y^2, and the update of the values with the sum of their squares.
 */
#include "adafactor_tile.cuh"

/* --- moments ----------------------------------------------------------------------------------- */

/** Second moments of rows and columns, in place. */
static __global__ void __launch_bounds__(ADAFACTOR_BLOCK)
    adafactor_average_kernel(adafactor_plan plan, rule r) {
    if (stands_still(r)) return;
    int64_t place = blockIdx.x;
    /* A parameter that is not factored has no blocks here and its successor's number: the last of equals is
     * it. */
    const adafactor_entry e = plan.entries[entry_of_block<&adafactor_entry::first_average>(plan, place)];
    int64_t i = (place - e.first_average) * ADAFACTOR_BLOCK + threadIdx.x;
    if (!e.factored || i >= e.rows + e.columns) return;
    if (i < e.rows) {
        double take = (1 - r.beta2) / e.global_columns;
        e.row[i] = (float)(r.beta2 * (double)e.row[i] + take * e.row_sum[i]);
    } else {
        double take = (1 - r.beta2) / e.global_rows;
        i -= e.rows;
        e.column[i] = (float)(r.beta2 * (double)e.column[i] + take * e.column_sum[i]);
    }
}

/** lr * max(RMS(p), minimum) / max(1, RMS(y) / threshold), as sago_adafactor_factor has it. */
static __device__ __forceinline__ double factor_of(const adafactor_entry &e, const rule &r) {
    double count = e.global_rows * e.global_columns, factor = (double)e.learning_rate;
    double rms = sqrt(*e.update_square / count) / r.clip_threshold;
    if (r.parameter_scale) {
        double size = sqrt(*e.value_square / count);
        factor *= size > r.minimum_scale ? size : r.minimum_scale;
    }
    return rms > 1 ? factor / rms : factor;
}

/** One block a parameter: the mean of its moments, and its update's factor (of meaning in apply alone). */
static __global__ void __launch_bounds__(ADAFACTOR_MEAN_BLOCK, 1)
    adafactor_scalars_kernel(adafactor_plan plan, rule r) {
    SAGO_SHARED(sum_shared, shared);
    if (stands_still(r)) return;
    const adafactor_entry e = plan.entries[blockIdx.x];
    double mean = 1;
    if (e.mean_parts) {
        mean =
            (r.beta2 * e.mean_parts[1] / e.row_copies + (1 - r.beta2) * e.mean_parts[0] / e.global_columns) /
            e.global_rows;
    } else if (e.factored) {
        const float *moments = e.mean_of_columns ? e.column : e.row;
        int64_t count = e.mean_of_columns ? e.columns : e.rows;
        double sum = 0;
#pragma unroll 8
        for (int64_t i = threadIdx.x; i < count; i += ADAFACTOR_MEAN_BLOCK) sum += (double)moments[i];
        mean = block_sum<ADAFACTOR_MEAN_BLOCK>(sum, shared->parts) / (double)count;
    }
    if (threadIdx.x != 0) return;
    plan.shared[blockIdx.x].mean = mean;
    plan.shared[blockIdx.x].factor = factor_of(e, r);
}

/** scale / sqrt(moment) of this lane's columns. All are under way before the first root, which may branch. */
template <bool full>
static __device__ __forceinline__ void column_weights(float out[GROUPS][4], const adafactor_entry &e,
                                                      const tile &t, float scale) {
    quad<float> moment[GROUPS];
#pragma unroll
    for (int k = 0; k < GROUPS; k++)
        moment[k] = quad_load(e.column + t.first_column + k * 4 * WARP, group_length<full, true>(e, t, 0, k),
                              full || e.vector, 1.0f);
#pragma unroll
    for (int k = 0; k < GROUPS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            out[k][i] = full || i < t.columns - k * 4 * WARP ? scale / sqrtf(moment[k].x[i]) : 0.0f;
}

/** Sum of y^2: the row's part of y^2 is the same for all its elements. This thread's. */
template <bool full>
static __device__ __forceinline__ double factored_squares(const adafactor_entry &e, const tile &t,
                                                          double mean, float scale) {
    float column[GROUPS][4], sum = 0.0f;
    column_weights<full>(column, e, t, scale);
#pragma unroll 2
    for (int r = 0; r < (full ? WARP_ROWS : t.rows); r++) {
        int64_t row = t.first_row + (int64_t)r * WARPS, at = row * e.columns + t.first_column;
        quad<float> g[GROUPS];
#pragma unroll
        for (int k = 0; k < GROUPS; k++)
            g[k] = quad_load(e.gradient + at + k * 4 * WARP, group_length<full, true>(e, t, at, k),
                             full || e.vector);
        float part = 0.0f;
#pragma unroll
        for (int k = 0; k < GROUPS; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float y = g[k].x[i] * column[k][i];
                part += y * y;
            }
        sum += part * (float)(mean / (double)e.row[row]);
    }
    return (double)sum;
}

/** The same where every element has its own moment, which is updated on the way. */
template <bool full>
static __device__ __forceinline__ double whole_squares(const adafactor_entry &e, const tile &t,
                                                       const rule &rule, float scale) {
    float keep = (float)rule.beta2, take = (float)(1 - rule.beta2), epsilon = (float)SAGO_ADAFACTOR_EPSILON;
    float sum = 0.0f;
    for (int r = 0; r < (full ? WARP_ROWS : t.rows); r++) {
        int64_t at = (t.first_row + (int64_t)r * WARPS) * e.columns + t.first_column;
#pragma unroll
        for (int k = 0; k < GROUPS; k++) {
            int64_t place = at + k * 4 * WARP;
            int length = group_length<full, false>(e, t, place, k);
            if (length <= 0) continue;
            quad<float> g = quad_load(e.gradient + place, length, full || e.vector),
                        v = quad_load(e.moment + place, length, full || e.vector);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float x = g.x[i] * scale;
                v.x[i] = keep * v.x[i] + take * (x * x + epsilon);
                float y = x / sqrtf(v.x[i]);
                sum += i < length ? y * y : 0.0f;
            }
            quad_store(e.moment + place, v, length, full || e.vector);
        }
    }
    return (double)sum;
}

template <bool full>
static __device__ __forceinline__ double squares_of(const adafactor_entry &e, const tile &t, const rule &rule,
                                                    double mean) {
    float scale = scale_of(rule);
    return e.factored ? factored_squares<full>(e, t, mean, scale) : whole_squares<full>(e, t, rule, scale);
}

static __global__ void __launch_bounds__(ADAFACTOR_BLOCK, 3)
    adafactor_moments_kernel(adafactor_plan plan, rule r) {
    SAGO_SHARED(sum_shared, shared);
    if (stands_still(r)) return;
    int number = entry_of_block<&adafactor_entry::first_tile>(plan, blockIdx.x);
    const adafactor_entry e = plan.entries[number];
    tile t = tile_of(e, (int64_t)blockIdx.x - e.first_tile);
    double sum = t.full ? squares_of<true>(e, t, r, plan.shared[number].mean)
                        : squares_of<false>(e, t, r, plan.shared[number].mean);
    sum = block_sum(sum, shared->parts);
    if (threadIdx.x == 0) plan.tile_sums[blockIdx.x] = sum;
}

/** One block a parameter. */
static __global__ void __launch_bounds__(ADAFACTOR_BLOCK)
    adafactor_updates_kernel(adafactor_plan plan, rule r) {
    SAGO_SHARED(sum_shared, shared);
    if (stands_still(r)) return;
    const adafactor_entry e = plan.entries[blockIdx.x];
    double sum = sum_of_tiles(plan, e, shared->parts);
    if (threadIdx.x == 0) *e.update_square = sum;
}

/* --- apply ------------------------------------------------------------------------------------- */

/**
 * value = keep value - u, or its momentum's; u = factor g column[j] (factored) or factor scale g /
 * sqrt(moment). The sum of the new values' squares (this thread's).
 */
template <bool split, bool factored, bool full>
static __device__ __forceinline__ double apply_tile(const adafactor_entry &e, const tile &t, const rule &rule,
                                                    const adafactor_shared &scalars, float scale) {
    float column[GROUPS][4], value_square = 0.0f;
    if constexpr (factored) column_weights<full>(column, e, t, scale);
    for (int r = 0; r < (full ? WARP_ROWS : t.rows); r++) {
        int64_t row = t.first_row + (int64_t)r * WARPS, at = row * e.columns + t.first_column;
        float factor = (float)scalars.factor, moment = factored ? e.row[row] : 0.0f;
        quad<float> g[GROUPS], p[GROUPS];
        int length[GROUPS];
#pragma unroll
        for (int k = 0; k < GROUPS; k++) {
            int64_t place = at + k * 4 * WARP;
            length[k] = group_length<full, factored>(e, t, place, k);
            g[k] = quad_load(e.gradient + place, length[k], full || e.vector);
            p[k] = load_value<split>(e, place, length[k], full || e.vector);
        }
        /* Behind the loads, which do not move ahead of the branches of a root and a division in double. */
        if constexpr (factored) factor = (float)(scalars.factor * sqrt(scalars.mean / (double)moment));
#pragma unroll
        for (int k = 0; k < GROUPS; k++) {
            int64_t place = at + k * 4 * WARP;
            if (length[k] <= 0) continue;
            quad<float> u;
            if constexpr (factored) {
#pragma unroll
                for (int i = 0; i < 4; i++) u.x[i] = g[k].x[i] * column[k][i] * factor;
            } else {
                quad<float> v = quad_load(e.moment + place, length[k], full || e.vector);
#pragma unroll
                for (int i = 0; i < 4; i++) u.x[i] = g[k].x[i] * scale / sqrtf(v.x[i]) * factor;
            }
            if (e.momentum) {
                quad<float> m = quad_load(e.momentum + place, length[k], full || e.vector);
#pragma unroll
                for (int i = 0; i < 4; i++) u.x[i] = rule.beta * m.x[i] + rule.rest * u.x[i];
                quad_store(e.momentum + place, u, length[k], full || e.vector);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) p[k].x[i] = rule.keep_value * p[k].x[i] - u.x[i];
            store_value<split>(e, place, p[k], length[k], full || e.vector);
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (full || i < length[k]) value_square = add_square(value_square, p[k].x[i]);
        }
    }
    return (double)value_square;
}

/** A learning rate of 0: values stand still, bit for bit, and what momentum there is fades. */
static __device__ __forceinline__ void fade_tile(const adafactor_entry &e, const tile &t, float beta) {
    if (!e.momentum) return;
    for (int r = 0; r < t.rows; r++) {
        int64_t at = (t.first_row + (int64_t)r * WARPS) * e.columns + t.first_column;
        for (int k = 0; k < GROUPS; k++) {
            int64_t place = at + k * 4 * WARP;
            int length = group_length<false, false>(e, t, place, k);
            if (length <= 0) continue;
            quad<float> m = quad_load(e.momentum + place, length, e.vector);
#pragma unroll
            for (int i = 0; i < 4; i++) m.x[i] *= beta;
            quad_store(e.momentum + place, m, length, e.vector);
        }
    }
}

template <bool split, bool factored>
static __device__ __forceinline__ double apply_of(const adafactor_entry &e, const tile &t, const rule &rule,
                                                  const adafactor_shared &scalars) {
    float scale = scale_of(rule);
    return t.full ? apply_tile<split, factored, true>(e, t, rule, scalars, scale)
                  : apply_tile<split, factored, false>(e, t, rule, scalars, scale);
}

static __global__ void __launch_bounds__(ADAFACTOR_BLOCK, 2)
    adafactor_apply_kernel(adafactor_plan plan, rule r) {
    SAGO_SHARED(sum_shared, shared);
    if (stands_still(r)) return;
    int number = entry_of_block<&adafactor_entry::first_tile>(plan, blockIdx.x);
    const adafactor_entry e = plan.entries[number];
    tile t = tile_of(e, (int64_t)blockIdx.x - e.first_tile);
    adafactor_shared scalars = plan.shared[number];
    if (e.learning_rate == 0.0f) {
        fade_tile(e, t, r.beta);
        return;
    }
    double sum;
    if (e.factored)
        sum = e.remainder ? apply_of<true, true>(e, t, r, scalars) : apply_of<false, true>(e, t, r, scalars);
    else
        sum =
            e.remainder ? apply_of<true, false>(e, t, r, scalars) : apply_of<false, false>(e, t, r, scalars);
    if (!e.kept_square) return;
    sum = block_sum(sum, shared->parts);
    if (threadIdx.x == 0) plan.tile_sums[blockIdx.x] = sum;
}

/** One block a parameter: the squares of its new values, for the next step. */
static __global__ void __launch_bounds__(ADAFACTOR_BLOCK) adafactor_keep_kernel(adafactor_plan plan, rule r) {
    SAGO_SHARED(sum_shared, shared);
    if (stands_still(r)) return;
    const adafactor_entry e = plan.entries[blockIdx.x];
    if (!e.kept_square || e.learning_rate == 0.0f) return; /* values that stood still: what is there holds */
    double sum = sum_of_tiles(plan, e, shared->parts);
    if (threadIdx.x == 0) *e.kept_square = sum;
}

/* --- the operations ---------------------------------------------------------------------------- */

extern "C" sago_status SAGO_GPU(adafactor_moments)(sago_device *device, sago_adafactor_slot slots[], int n,
                                                   const sago_adafactor_args *args) {
    sago_gpu *gpu = sago_gpu_of(device);
    adafactor_plan plan;
    rule r = rule_of(args);
    SAGO_TRY(SAGO_GPU(adafactor_plan)(gpu, "adafactor_moments", slots, n, args, &plan));
    if (plan.n == 0) return SAGO_OK;
    if (plan.n_averages > 0)
        SAGO_TRY(SAGO_LAUNCH(gpu, adafactor_average_kernel, dim3((unsigned)plan.n_averages),
                             dim3(ADAFACTOR_BLOCK), 0, plan, r));
    SAGO_TRY(SAGO_LAUNCH(gpu, adafactor_scalars_kernel, dim3((unsigned)plan.n), dim3(ADAFACTOR_MEAN_BLOCK),
                         sizeof(sum_shared), plan, r));
    if (plan.n_tiles > 0)
        SAGO_TRY(SAGO_LAUNCH(gpu, adafactor_moments_kernel, dim3((unsigned)plan.n_tiles),
                             dim3(ADAFACTOR_BLOCK), sizeof(sum_shared), plan, r));
    return SAGO_LAUNCH(gpu, adafactor_updates_kernel, dim3((unsigned)plan.n), dim3(ADAFACTOR_BLOCK),
                       sizeof(sum_shared), plan, r);
}

extern "C" sago_status SAGO_GPU(adafactor_apply)(sago_device *device, sago_adafactor_slot slots[], int n,
                                                 const sago_adafactor_args *args) {
    sago_gpu *gpu = sago_gpu_of(device);
    adafactor_plan plan;
    rule r = rule_of(args);
    SAGO_TRY(SAGO_GPU(adafactor_plan)(gpu, "adafactor_apply", slots, n, args, &plan));
    if (plan.n_tiles == 0) return SAGO_OK;
    SAGO_TRY(SAGO_LAUNCH(gpu, adafactor_scalars_kernel, dim3((unsigned)plan.n), dim3(ADAFACTOR_MEAN_BLOCK),
                         sizeof(sum_shared), plan, r));
    SAGO_TRY(SAGO_LAUNCH(gpu, adafactor_apply_kernel, dim3((unsigned)plan.n_tiles), dim3(ADAFACTOR_BLOCK),
                         sizeof(sum_shared), plan, r));
    return SAGO_LAUNCH(gpu, adafactor_keep_kernel, dim3((unsigned)plan.n), dim3(ADAFACTOR_BLOCK),
                       sizeof(sum_shared), plan, r);
}

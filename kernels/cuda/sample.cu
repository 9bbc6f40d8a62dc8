// SPDX-License-Identifier: Apache-2.0
/**
 * The next token (docs/kernels/sampling.md): a block a row.
 *
 * A warp owns a run of ids, so that sums by warp lie in the order of ids and the draw looks through one run
 * alone. The cuts are found by search, not by sorting: floats as ordered whole numbers, and in each pass over
 * the row the weights (one for top_k, the probability for top_p) above seven thresholds are added up, which
 * leaves an eighth of the range.
 */
#include "dialect.cuh"

#include "gpu_ops.h"
#include "random.cuh"

extern "C" {
#include "check.h"
#include "check_sample.h"
}

enum {
    BLOCK = 512,
    WARPS = BLOCK / WARP,
    GROUP = 4 * WARP, /* ids that a warp reads at a time, four neighbours a lane */
    WAYS = 8,         /* parts of a range in one pass */
    NO_CUT = 0x7fffffff,
};

typedef struct sample_args {
    float inverse; /* 1 / temperature; 0 for the greatest logit */
    int top_k;     /* 0: all */
    double top_p;  /* 1: all */
    uint64_t key;
} sample_args;

typedef struct sample_shared {
    double parts[WAYS][WARPS];
    float maxima[WARPS];
    int32_t id;
} sample_shared;

typedef struct four {
    float x[4];
} four;

/** A row as a warp sees it: its run of ids is [first, end). */
typedef struct run {
    const float *x;
    int first, end;
    bool vector;
} run;

static __device__ __forceinline__ run run_of(const float *x, int width, bool vector) {
    int warp = (int)threadIdx.x / WARP, groups = (width + GROUP - 1) / GROUP,
        each = (groups + WARPS - 1) / WARPS;
    int64_t first = (int64_t)warp * each * GROUP, end = first + (int64_t)each * GROUP;
    run r;
    r.x = x, r.vector = vector;
    r.first = (int)(first < width ? first : width);
    r.end = (int)(end < width ? end : width);
    return r;
}

/** This lane's four of the group that begins at `group`; -inf past the end. */
static __device__ __forceinline__ four load4(const run &r, int group) {
    int at = group + (int)threadIdx.x % WARP * 4;
    four out = {{-INFINITY, -INFINITY, -INFINITY, -INFINITY}};
    if (r.vector && at + 4 <= r.end) {
        float4 v = *reinterpret_cast<const float4 *>(r.x + at);
        out.x[0] = v.x, out.x[1] = v.y, out.x[2] = v.z, out.x[3] = v.w;
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (at + i < r.end) out.x[i] = r.x[at + i];
    }
    return out;
}

static __device__ __forceinline__ bool is_there(const run &r, int group, int i) {
    return group + (int)threadIdx.x % WARP * 4 + i < r.end;
}

static __device__ __forceinline__ int id_of(int group, int i) {
    return group + (int)threadIdx.x % WARP * 4 + i;
}

/** Whole numbers in the order of floats; both zeros are one. */
static __device__ __forceinline__ uint32_t order_of(float x) {
    uint32_t bits = float_bits(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static __device__ __forceinline__ float value_of(uint32_t order) {
    return bits_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

/** Who stays: logits above the cut's, and of equals the ids up to the cut's. */
typedef struct cut {
    uint32_t order;
    int id;
} cut;

static __device__ __forceinline__ bool stays(const cut &c, float x, int id) {
    uint32_t order = order_of(x);
    return order > c.order || (order == c.order && id <= c.id);
}

/** A logit of that order among those that stay. */
static __device__ __forceinline__ bool is_equal(const run &r, const cut &c, const four &v, int group, int i,
                                                uint32_t order) {
    return order_of(v.x[i]) == order && is_there(r, group, i) && stays(c, v.x[i], id_of(group, i));
}

/** Probability over that of the best one. */
static __device__ __forceinline__ float share_of(float x, float max, float inverse) {
    return expf((x - max) * inverse);
}

/** Sums over the block in a fixed order, the same in every thread; parts are free again on return. */
template <int n> static __device__ __forceinline__ void block_sums(double sums[n], double parts[][WARPS]) {
#pragma unroll
    for (int s = 0; s < n; s++) {
        sums[s] = warp_sum(sums[s]);
        if (threadIdx.x % WARP == 0) parts[s][threadIdx.x / WARP] = sums[s];
    }
    __syncthreads();
#pragma unroll
    for (int s = 0; s < n; s++) {
        sums[s] = 0;
        for (int w = 0; w < WARPS; w++) sums[s] += parts[s][w];
    }
    __syncthreads();
}

typedef struct weighing {
    float max, inverse;
    bool by_share; /* else every id weighs 1 */
} weighing;

static __device__ __forceinline__ double weight_of(const weighing &w, float x) {
    return w.by_share ? (double)share_of(x, w.max, w.inverse) : 1.0;
}

/** The smallest set of best ids, of those that `before` leaves, that weighs `aim`: its last member. */
static __device__ __forceinline__ cut find_cut(const run &r, const cut &before, const weighing &w, double aim,
                                               sample_shared *shared) {
    /* The set's last logit is in [low, high]; above: what those beyond high weigh. */
    uint32_t low = before.order, high = order_of(w.max);
    double above = 0;
    while (low < high) {
        uint32_t step = (high - low) / WAYS + 1;
        double sums[WAYS - 1];
#pragma unroll
        for (int j = 0; j < WAYS - 1; j++) sums[j] = 0;
        for (int group = r.first; group < r.end; group += GROUP) {
            four v = load4(r, group);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t order = order_of(v.x[i]);
                if (order < low + step || !is_there(r, group, i) || !stays(before, v.x[i], id_of(group, i)))
                    continue;
                double weight = weight_of(w, v.x[i]);
#pragma unroll
                for (int j = 0; j < WAYS - 1; j++)
                    sums[j] += order - low >= (uint32_t)(j + 1) * step ? weight : 0;
            }
        }
        block_sums<WAYS - 1>(sums, shared->parts);
        int reached = 0;
#pragma unroll
        for (int j = 0; j < WAYS - 1; j++)
            if (sums[j] >= aim) reached = j + 1;
        uint32_t part = low + (uint32_t)reached * step;
#pragma unroll
        for (int j = 0; j < WAYS - 1; j++)
            if (j == reached && high - part >= step) above = sums[j];
        if (high - part >= step) high = part + step - 1;
        low = part;
    }
    /* Of the equals of the last logit, as many as are missing, by their ids. */
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    double equals = 0, earlier = 0;
    for (int group = r.first; group < r.end; group += GROUP) {
        four v = load4(r, group);
#pragma unroll
        for (int i = 0; i < 4; i++) equals += is_equal(r, before, v, group, i, low) ? 1 : 0;
    }
    equals = warp_sum(equals);
    if (lane == 0) shared->parts[0][warp] = equals;
    if (threadIdx.x == 0) shared->id = NO_CUT;
    __syncthreads();
    for (int i = 0; i < warp; i++) earlier += shared->parts[0][i];
    double each = weight_of(w, value_of(low)), missing = each > 0 ? ceil((aim - above) / each) : 1;
    missing = missing < 1 ? 1 : missing;
    if (earlier < missing && missing <= earlier + equals) {
        for (int group = r.first; group < r.end; group += GROUP) {
            four v = load4(r, group);
            int mine = 0;
            bool here[4];
#pragma unroll
            for (int i = 0; i < 4; i++) here[i] = is_equal(r, before, v, group, i, low), mine += here[i];
            int upto = mine;
            for (int step = 1; step < WARP; step *= 2) {
                int other = __shfl_up_sync(0xffffffffu, upto, step);
                if (lane >= step) upto += other;
            }
            int number = upto - mine;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                number += here[i];
                if (here[i] && earlier + number == missing) shared->id = id_of(group, i);
            }
            earlier += __shfl_sync(0xffffffffu, upto, WARP - 1);
        }
    }
    __syncthreads();
    cut out = {low, shared->id};
    if (low == before.order && before.id < out.id) out.id = before.id;
    __syncthreads();
    return out;
}

/** What stays weighs this by warp: parts[0]. Returns the sum over the block. */
static __device__ __forceinline__ double weigh(const run &r, const cut &c, float max, float inverse,
                                               sample_shared *shared) {
    double sum[1] = {0};
    for (int group = r.first; group < r.end; group += GROUP) {
        four v = load4(r, group);
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (is_there(r, group, i) && stays(c, v.x[i], id_of(group, i)))
                sum[0] += (double)share_of(v.x[i], max, inverse);
    }
    block_sums<1>(sum, shared->parts);
    return sum[0];
}

/** The first id of this warp's run at which the running sum, which begins with `sum`, passes aim; else its
 * last. */
static __device__ __forceinline__ int draw_from(const run &r, const cut &c, float max, float inverse,
                                                double sum, double aim) {
    int lane = (int)threadIdx.x % WARP, last = 0;
    for (int group = r.first; group < r.end; group += GROUP) {
        four v = load4(r, group);
        double share[4], mine = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            bool in = is_there(r, group, i) && stays(c, v.x[i], id_of(group, i));
            share[i] = in ? (double)share_of(v.x[i], max, inverse) : 0;
            mine += share[i];
        }
        double upto = mine;
        for (int step = 1; step < WARP; step *= 2) {
            double other = __shfl_up_sync(0xffffffffu, upto, step);
            if (lane >= step) upto += other;
        }
        double running = sum + (upto - mine);
        int chosen = -1, nonzero = -1;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (share[i] == 0) continue;
            running += share[i];
            nonzero = id_of(group, i);
            if (chosen < 0 && running > aim) chosen = nonzero;
        }
        uint32_t passed = __ballot_sync(0xffffffffu, chosen >= 0);
        if (passed) return __shfl_sync(0xffffffffu, chosen, __ffs((int)passed) - 1);
        uint32_t any = __ballot_sync(0xffffffffu, nonzero >= 0);
        int latest = __shfl_sync(0xffffffffu, nonzero, any ? 31 - __clz((int)any) : 0);
        if (any) last = latest;
        sum += __shfl_sync(0xffffffffu, upto, WARP - 1);
    }
    return last;
}

/** The first id, in the order of ids, at which the sum of what stays passes a uniform share of it all. */
static __device__ __forceinline__ int draw(const run &r, int width, float max, uint64_t counter,
                                           const sample_args &args, sample_shared *shared) {
    cut c = {0, NO_CUT};
    if (args.top_k > 0 && args.top_k < width) {
        weighing ones = {max, args.inverse, false};
        c = find_cut(r, c, ones, (double)args.top_k, shared);
    }
    double total = weigh(r, c, max, args.inverse, shared);
    if (args.top_p < 1) {
        weighing shares = {max, args.inverse, true};
        c = find_cut(r, c, shares, args.top_p * total, shared);
        total = weigh(r, c, max, args.inverse, shared);
    }
    philox4 words = philox_words(args.key, counter);
    double unit = (double)(((uint64_t)words.word[0] << 32 | words.word[1]) >> 11) * 0x1p-53,
           aim = unit * total;
    int chosen = 0;
    double sum = 0, before = 0;
    /* The run in which the sum passes the aim; where rounding lets none do so, the last that weighs anything.
     */
    for (int w = 0; w < WARPS; w++) {
        double part = shared->parts[0][w];
        if (part > 0) chosen = w, before = sum;
        sum += part;
        if (sum > aim) break;
    }
    if ((int)threadIdx.x / WARP == chosen) {
        int id = draw_from(r, c, max, args.inverse, before, aim);
        if (threadIdx.x % WARP == 0) shared->id = id;
    }
    __syncthreads();
    return shared->id;
}

static __global__ void __launch_bounds__(BLOCK)
    sample_kernel(int32_t *ids, float *logprobs, int *bad_row, const float *logits, const uint64_t *draws,
                  int width, bool vector, sample_args args) {
    SAGO_SHARED(sample_shared, shared);
    int64_t row = blockIdx.x;
    const float *x = logits + row * width;
    run r = run_of(x, width, vector);
    float max = -INFINITY;
    for (int group = r.first; group < r.end; group += GROUP) {
        four v = load4(r, group);
#pragma unroll
        for (int i = 0; i < 4; i++) max = fmaxf(max, v.x[i]);
    }
    max = warp_max(max);
    if (threadIdx.x % WARP == 0) shared->maxima[threadIdx.x / WARP] = max;
    __syncthreads();
    for (int w = 0; w < WARPS; w++) max = fmaxf(max, shared->maxima[w]);
    double sum[1] = {0};
    int best = NO_CUT;
    for (int group = r.first; group < r.end; group += GROUP) {
        four v = load4(r, group);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (!is_there(r, group, i)) continue;
            sum[0] += (double)expf(v.x[i] - max);
            if (v.x[i] == max && id_of(group, i) < best) best = id_of(group, i);
        }
    }
    block_sums<1>(sum, shared->parts);
    bool good = isfinite(sum[0]) && sum[0] >= 1;
    int id = 0;
    if (good && args.inverse > 0) {
        id = draw(r, width, max, draws[row], args, shared);
    } else if (good) {
        for (int step = WARP / 2; step > 0; step /= 2)
            best = min(best, __shfl_xor_sync(0xffffffffu, best, step));
        if (threadIdx.x % WARP == 0) shared->parts[0][threadIdx.x / WARP] = (double)best;
        __syncthreads();
        for (int w = 0; w < WARPS; w++) best = min(best, (int)shared->parts[0][w]);
        id = best;
    }
    if (threadIdx.x != 0) return;
    if (!good) atomicMax(bad_row, (int)row);
    ids[row] = id;
    logprobs[row] = (float)((double)(x[id] - max) - log(sum[0]));
}

extern "C" sago_status SAGO_GPU(sample)(sago_device *device, sago_tensor ids, sago_tensor logprobs,
                                        sago_tensor logits, const uint64_t draws[],
                                        const sago_sample_args *args) {
    sago_gpu *gpu = sago_gpu_of(device);
    SAGO_TRY(sago_check_sample(ids, logprobs, logits, args));
    int64_t rows = sago_rows(logits), width = sago_width(logits);
    if (rows == 0) return SAGO_OK;
    size_t draws_bytes = (size_t)rows * sizeof *draws;
    char *memory;
    SAGO_TRY(SAGO_GPU(workspace)(gpu, draws_bytes + sizeof(int), (void **)&memory));
    int *bad_row = (int *)(memory + draws_bytes), bad;
    bool greedy = args->temperature == 0.0f;
    if (!greedy) SAGO_TRY(SAGO_GPU(rt_copy)(memory, draws, draws_bytes, SAGO_HOST_TO_DEVICE, gpu->compute));
    SAGO_TRY(SAGO_GPU(rt_set)(bad_row, 0xff, sizeof *bad_row, gpu->compute)); /* -1 */
    sample_args given = {greedy ? 0.0f : 1.0f / args->temperature, args->top_k, (double)args->top_p,
                         args->key};
    bool vector = width % 4 == 0 && (uintptr_t)logits.data % 16 == 0;
    SAGO_TRY(SAGO_LAUNCH(gpu, sample_kernel, dim3((unsigned)rows), dim3(BLOCK), sizeof(sample_shared),
                         (int32_t *)ids.data, (float *)logprobs.data, bad_row, (const float *)logits.data,
                         (const uint64_t *)memory, (int)width, vector, given));
    SAGO_TRY(SAGO_GPU(rt_copy)(&bad, bad_row, sizeof bad, SAGO_DEVICE_TO_HOST, gpu->compute));
    SAGO_TRY(SAGO_GPU(rt_stream_wait)(gpu->compute));
    return bad >= 0 ? sago_sample_nonfinite(bad) : SAGO_OK;
}

// SPDX-License-Identifier: Apache-2.0
/* Rotary position embeddings: one pass over memory, angles once a token and pair; docs/kernels/rope.md. */
#include "rope.h"

#include "vector.cuh"

#include "check_layers.h"
#include "gpu_ops.h"

enum { THREADS = 256, BLOCKS = 3 /* a multiprocessor: 80 registers a thread */ };

/* N pairs of a head. APART: firsts and seconds are vectors of their own; else pairs lie side by side in one.
 */
template <typename T, int N, bool APART> struct pairs_of {
    vec<T, N> first, second;
    __device__ __forceinline__ void load(const T *from, int apart) {
        first.load(from), second.load(from + apart);
    }
    __device__ __forceinline__ void store(T *to, int apart) const {
        first.store(to), second.store(to + apart);
    }
    __device__ __forceinline__ void rotate(const sago_rotation r[N]) {
        float a[N], b[N];
#pragma unroll
        for (int k = 0; k < N; k++) {
            float x = first.get(k), y = second.get(k);
            a[k] = fmaf(x, r[k].cos, -y * r[k].sin);
            b[k] = fmaf(x, r[k].sin, y * r[k].cos);
        }
        first.set(a), second.set(b);
    }
};
template <typename T, int N> struct pairs_of<T, N, false> {
    vec<T, 2 * N> both;
    __device__ __forceinline__ void load(const T *from, int) { both.load(from); }
    __device__ __forceinline__ void store(T *to, int) const { both.store(to); }
    __device__ __forceinline__ void rotate(const sago_rotation r[N]) {
        float out[2 * N];
#pragma unroll
        for (int k = 0; k < N; k++) {
            float x = both.get(2 * k), y = both.get(2 * k + 1);
            out[2 * k] = fmaf(x, r[k].cos, -y * r[k].sin);
            out[2 * k + 1] = fmaf(x, r[k].sin, y * r[k].cos);
        }
        both.set(out);
    }
};

struct rope_call {
    void *out;
    const void *x;
    const int32_t *positions;
    int64_t tokens;
    int heads, width;
    int step, apart; /* from one pair to the next, and from a pair's first element to its second */
    bool inverse;
};

/*
 * A thread has one place in a head, N pairs wide, and takes tokens in turn; it loads AHEAD heads before it
 * works on the first.
 */
template <typename T, int N, bool APART>
__global__ void __launch_bounds__(THREADS, BLOCKS) rope_kernel(rope_call c, sago_rope_table table) {
    constexpr int AHEAD = APART && N > 1 ? 2 : 4;
    int places = c.width / 2 / N, tokens_a_block = THREADS / places;
    int place = (int)threadIdx.x % places, own = (int)threadIdx.x / places;
    if (own >= tokens_a_block) return;
    uint64_t turns[N];
#pragma unroll
    for (int k = 0; k < N; k++) turns[k] = table.turns[place * N + k];
    for (int64_t token = (int64_t)blockIdx.x * tokens_a_block + own; token < c.tokens;
         token += (int64_t)gridDim.x * tokens_a_block) {
        int64_t at = token * c.heads * c.width + place * N * c.step;
        int position = c.positions[token];
        sago_rotation r[N];
#pragma unroll
        for (int k = 0; k < N; k++) {
            r[k] = sago_rope_rotation(turns[k], position);
            r[k].sin = c.inverse ? -r[k].sin : r[k].sin;
        }
        for (int head = 0; head < c.heads; head += AHEAD) {
            pairs_of<T, N, APART> part[AHEAD];
#pragma unroll
            for (int a = 0; a < AHEAD; a++)
                if (head + a < c.heads) part[a].load((const T *)c.x + at + (head + a) * c.width, c.apart);
#pragma unroll
            for (int a = 0; a < AHEAD; a++)
                if (head + a < c.heads) {
                    if (position >= 0) part[a].rotate(r);
                    part[a].store((T *)c.out + at + (head + a) * c.width, c.apart);
                }
        }
    }
}

template <typename T, int N, bool APART>
static sago_status launch_rope(sago_gpu *gpu, const rope_call &c, const sago_rope_table &table) {
    int tokens_a_block = THREADS / (c.width / 2 / N);
    unsigned blocks = persistent_blocks(gpu, (c.tokens + tokens_a_block - 1) / tokens_a_block, BLOCKS);
    return SAGO_LAUNCH(gpu, (rope_kernel<T, N, APART>), blocks, THREADS, 0, c, table);
}

/* Whole vectors where heads are made of them, else a pair at a time. */
template <typename T>
static sago_status run_rope(sago_gpu *gpu, const rope_call &c, const sago_rope_table &table) {
    constexpr int N = lanes_of<T>::COUNT;
    bool aligned = is_aligned16(c.x) && is_aligned16(c.out);
    if (c.step == 1 && aligned && c.width % (2 * N) == 0) return launch_rope<T, N, true>(gpu, c, table);
    if (c.step == 2 && aligned && c.width % N == 0) return launch_rope<T, N / 2, false>(gpu, c, table);
    return launch_rope<T, 1, true>(gpu, c, table);
}

extern "C" {

sago_status SAGO_GPU(rope)(sago_device *device, sago_tensor out, sago_tensor x, sago_tensor positions,
                           const sago_rope_args *args) {
    SAGO_TRY(sago_fits_rope(device, out, x, positions, args));
    if (sago_tensor_count(x) == 0) return SAGO_OK;
    bool halves = args->style == SAGO_ROPE_HALVES;
    rope_call c = rope_call();
    c.out = out.data, c.x = x.data, c.positions = (const int32_t *)positions.data;
    c.tokens = x.shape[0] * x.shape[1], c.heads = (int)x.shape[2], c.width = (int)x.shape[3];
    c.step = halves ? 1 : 2, c.apart = halves ? c.width / 2 : 1, c.inverse = args->inverse;
    sago_rope_table table;
    sago_rope_table_fill(&table, c.width / 2, args->theta);
    SAGO_BY_DTYPE(x, T, return run_rope<T>(sago_gpu_of(device), c, table));
}
}

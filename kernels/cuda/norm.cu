// SPDX-License-Identifier: Apache-2.0
/*
 * RMSNorm and LayerNorm. A row stays in the registers of the GROUP threads that share it, VECTORS of 16 bytes
 * each, from its only read to its only write; docs/kernels/norms.md.
 */
#include "vector.cuh"

extern "C" {
#include "check.h"
}
#include "check_layers.h"
#include "gpu_ops.h"

enum {
    BLOCK = 256,        /* threads, or GROUP where that is more */
    FORWARD_BLOCKS = 4, /* a multiprocessor: 64 registers a thread */
    MOST_GROUP = 1024,  /* threads of a row, 64 registers each, */
    WIDE_VECTORS = 3,   /* in which a fourth vector of a row has no room backward */
};

/* The two norms: RMSNorm is LayerNorm about a mean of 0. SUMS: what the backward pass adds up over a row. */
struct rmsnorm {
    enum { CENTERED = 0, SUMS = 1 };
};
struct layernorm {
    enum { CENTERED = 1, SUMS = 2 };
};

template <int GROUP> struct block_of {
    enum { THREADS = GROUP < BLOCK ? BLOCK : GROUP, ROWS = THREADS / GROUP };
};

/* Two sets, so that a row's sums may be written while slow threads still read those of the row before. */
template <int SUMS> struct row_sums { float of_warp[2][SUMS][MOST_GROUP / WARP]; };

/* x becomes the sums over the GROUP threads of a row, in each of them. All threads of the block call it if
 * GROUP > WARP, and turn is another one from call to call. */
template <int GROUP, int SUMS>
static __device__ __forceinline__ void sum_group(row_sums<SUMS> *shared, int *turn, float (&x)[SUMS]) {
#pragma unroll
    for (int s = 0; s < SUMS; s++) x[s] = warp_sum(x[s]);
    if constexpr (GROUP == WARP) return;
    int warp = threadIdx.x / WARP, first = threadIdx.x / GROUP * (GROUP / WARP);
    float(*of_warp)[MOST_GROUP / WARP] = shared->of_warp[*turn];
    *turn ^= 1;
    if (threadIdx.x % WARP == 0) {
#pragma unroll
        for (int s = 0; s < SUMS; s++) of_warp[s][warp] = x[s];
    }
    __syncthreads();
#pragma unroll
    for (int s = 0; s < SUMS; s++) {
        x[s] = 0;
#pragma unroll
        for (int w = 0; w < GROUP / WARP; w++) x[s] += of_warp[s][first + w];
    }
}

template <typename NORM, typename T, int GROUP, int VECTORS>
__global__ void __launch_bounds__(block_of<GROUP>::THREADS, FORWARD_BLOCKS *BLOCK / block_of<GROUP>::THREADS)
    norm_forward_kernel(T *y, float *mean, float *rstd, const T *x, const T *scale, int64_t rows, int width,
                        float epsilon) {
    SAGO_SHARED(row_sums<1>, shared);
    constexpr int N = lanes_of<T>::COUNT, ROWS = block_of<GROUP>::ROWS;
    int column = (int)threadIdx.x % GROUP * N, turn = 0;
    vec<T, N> gain[VECTORS];
#pragma unroll
    for (int v = 0; v < VECTORS; v++)
        if (column + v * GROUP * N < width) gain[v].load(scale + column + v * GROUP * N);
    /* All threads of a block stay for as many turns, since they meet in sum_group. */
    for (int64_t base = (int64_t)blockIdx.x * ROWS; base < rows; base += (int64_t)gridDim.x * ROWS) {
        int64_t row = base + (int)threadIdx.x / GROUP, at = row * width + column;
        bool live = row < rows;
        vec<T, N> in[VECTORS];
        float m = 0, sum[1] = {0};
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            if (live && column + v * GROUP * N < width)
                in[v].load(x + at + v * GROUP * N);
            else
                in[v].clear();
        }
        if constexpr (NORM::CENTERED) {
#pragma unroll
            for (int v = 0; v < VECTORS; v++)
#pragma unroll
                for (int k = 0; k < N; k++) sum[0] += in[v].get(k);
            sum_group<GROUP>(shared, &turn, sum);
            m = sum[0] / (float)width, sum[0] = 0;
            if (live && column == 0) mean[row] = m;
#pragma unroll
            for (int v = 0; v < VECTORS; v++) in[v].keep_packed();
        }
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            if (!NORM::CENTERED ||
                column + v * GROUP * N < width) { /* 0 past the end is no distance from m */
#pragma unroll
                for (int k = 0; k < N; k++) sum[0] = fmaf(in[v].get(k) - m, in[v].get(k) - m, sum[0]);
            }
        sum_group<GROUP>(shared, &turn, sum);
        float r = 1.0f / sqrtf(sum[0] / (float)width + epsilon);
        if (live && column == 0) rstd[row] = r;
#pragma unroll
        for (int v = 0; v < VECTORS; v++) in[v].keep_packed(), gain[v].keep_packed();
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            if (live && column + v * GROUP * N < width) {
                float out[N];
#pragma unroll
                for (int k = 0; k < N; k++) out[k] = (in[v].get(k) - m) * r * gain[v].get(k);
                in[v].set(out);
                in[v].store(y + at + v * GROUP * N);
            }
    }
}

/* Rows of any width and address: a block a row, which is read once more for each of its sums. */
template <typename NORM, typename T>
__global__ void __launch_bounds__(BLOCK)
    norm_forward_any_kernel(T *y, float *mean, float *rstd, const T *x, const T *scale, int64_t rows,
                            int width, float epsilon) {
    SAGO_SHARED(row_sums<1>, shared);
    int turn = 0;
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const T *in = x + row * width;
        float m = 0, sum[1] = {0};
        if constexpr (NORM::CENTERED) {
            for (int i = (int)threadIdx.x; i < width; i += BLOCK) sum[0] += to_float(in[i]);
            sum_group<BLOCK>(shared, &turn, sum);
            m = sum[0] / (float)width, sum[0] = 0;
            if (threadIdx.x == 0) mean[row] = m;
        }
        for (int i = (int)threadIdx.x; i < width; i += BLOCK)
            sum[0] = fmaf(to_float(in[i]) - m, to_float(in[i]) - m, sum[0]);
        sum_group<BLOCK>(shared, &turn, sum);
        float r = 1.0f / sqrtf(sum[0] / (float)width + epsilon);
        if (threadIdx.x == 0) rstd[row] = r;
        for (int i = (int)threadIdx.x; i < width; i += BLOCK)
            y[row * width + i] = from_float<T>((to_float(in[i]) - m) * r * to_float(scale[i]));
    }
}

/* --- backward
 * --------------------------------------------------------------------------------------------------- */

/*
 * With x' = (x - mean) rstd and g = d_y scale: d_x += rstd (g - mean(g) - x' mean(g x')), of RMSNorm without
 * mean(g); d_scale += sum over rows of d_y x'. Each thread keeps the sums of its columns over all rows that
 * it sees; at the end the groups of a block add theirs one after the other, and the block leaves one row of
 * partial sums.
 */
template <int GROUP, int SUMS, int COLUMNS /* a thread */> struct backward_shared {
    row_sums<SUMS> rows;
    float columns[GROUP < BLOCK ? COLUMNS : 1][GROUP]; /* a group alone has nothing to add */
};

template <typename NORM, typename T, int GROUP, int VECTORS>
__global__ void __launch_bounds__(block_of<GROUP>::THREADS, 512 / block_of<GROUP>::THREADS)
    norm_backward_kernel(T *d_x, float *partial, const T *d_y, const T *x, const T *scale, const float *mean,
                         const float *rstd, int64_t rows, int width) {
    constexpr int N = lanes_of<T>::COUNT, ROWS = block_of<GROUP>::ROWS;
    typedef backward_shared<GROUP, NORM::SUMS, VECTORS * N> shared_memory;
    SAGO_SHARED(shared_memory, shared);
    int lane = (int)threadIdx.x % GROUP, group = (int)threadIdx.x / GROUP, column = lane * N, turn = 0;
    vec<T, N> gain[VECTORS];
    float total[VECTORS][N];
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        gain[v].clear();
        if (column + v * GROUP * N < width) gain[v].load(scale + column + v * GROUP * N);
#pragma unroll
        for (int k = 0; k < N; k++) total[v][k] = 0;
    }
    for (int64_t base = (int64_t)blockIdx.x * ROWS; base < rows; base += (int64_t)gridDim.x * ROWS) {
        int64_t row = base + group, at = row * width + column;
        bool live = row < rows;
        vec<T, N> in[VECTORS], d_out[VECTORS], d_in[VECTORS];
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            if (live && column + v * GROUP * N < width) {
                in[v].load(x + at + v * GROUP * N);
                d_out[v].load(d_y + at + v * GROUP * N);
                d_in[v].load(d_x + at + v * GROUP * N);
            } else {
                in[v].clear(), d_out[v].clear(), d_in[v].clear();
            }
        }
        float r = live ? rstd[row] : 0.0f, m = NORM::CENTERED && live ? mean[row] : 0.0f;
        float sum[NORM::SUMS] = {0}; /* of g (x - mean), of g */
#pragma unroll
        for (int v = 0; v < VECTORS; v++) gain[v].keep_packed();
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
#pragma unroll
            for (int k = 0; k < N; k++) {
                float g = d_out[v].get(k) * gain[v].get(k);
                sum[0] = fmaf(g, in[v].get(k) - m, sum[0]);
                if constexpr (NORM::CENTERED) sum[1] += g;
            }
        sum_group<GROUP>(&shared->rows, &turn, sum);
        float along = sum[0] * r / (float)width, level = 0;
        if constexpr (NORM::CENTERED) level = sum[1] / (float)width;
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            float out[N];
            in[v].keep_packed(), d_out[v].keep_packed(), gain[v].keep_packed();
#pragma unroll
            for (int k = 0; k < N; k++) {
                float d = d_out[v].get(k), normal = (in[v].get(k) - m) * r;
                total[v][k] = fmaf(d, normal, total[v][k]);
                out[k] = d_in[v].get(k) + r * (d * gain[v].get(k) - normal * along - level);
            }
            if (live && column + v * GROUP * N < width) {
                d_in[v].set(out);
                d_in[v].store(d_x + at + v * GROUP * N);
            }
        }
    }
    if constexpr (ROWS > 1) {
#pragma unroll 1
        for (int g = 0; g < ROWS; g++) {
            if (group == g) {
#pragma unroll
                for (int v = 0; v < VECTORS; v++)
#pragma unroll
                    for (int k = 0; k < N; k++) {
                        if (g > 0) total[v][k] += shared->columns[v * N + k][lane];
                        if (g + 1 < ROWS) shared->columns[v * N + k][lane] = total[v][k];
                    }
            }
            __syncthreads();
        }
    }
    if (group == ROWS - 1) {
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
#pragma unroll
            for (int k = 0; k < N; k += 4)
                if (column + v * GROUP * N < width) {
                    vec<float, 4> sums;
                    sums.set(total[v] + k);
                    sums.store(partial + (int64_t)blockIdx.x * width + column + v * GROUP * N + k);
                }
    }
}

/*
 * Rows so wide that a group of MOST_GROUP threads, who have 64 registers each, takes one: no room for sums of
 * columns, which stand in shared memory, each element one thread's own, nor for d_x and the scale, which are
 * read when the row's sums are known.
 */
template <typename T, int SUMS> struct wide_shared {
    row_sums<SUMS> rows;
    float columns[WIDE_VECTORS * lanes_of<T>::COUNT][MOST_GROUP];
};

template <typename NORM, typename T>
__global__ void __launch_bounds__(MOST_GROUP, 1)
    norm_backward_wide_kernel(T *d_x, float *partial, const T *d_y, const T *x, const T *scale,
                              const float *mean, const float *rstd, int64_t rows, int width) {
    constexpr int N = lanes_of<T>::COUNT, VECTORS = WIDE_VECTORS, STEP = MOST_GROUP * N;
    typedef wide_shared<T, NORM::SUMS> shared_memory;
    SAGO_SHARED(shared_memory, shared);
    int column = (int)threadIdx.x * N, turn = 0;
#pragma unroll
    for (int k = 0; k < VECTORS * N; k++) shared->columns[k][threadIdx.x] = 0;
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        int64_t at = row * width + column;
        vec<T, N> in[VECTORS], d_out[VECTORS];
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            in[v].clear(), d_out[v].clear();
            if (column + v * STEP < width) in[v].load(x + at + v * STEP), d_out[v].load(d_y + at + v * STEP);
        }
        float r = rstd[row], m = NORM::CENTERED ? mean[row] : 0.0f;
        float sum[NORM::SUMS] = {0}; /* of g (x - mean), of g */
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            vec<T, N> gain;
            gain.clear();
            if (column + v * STEP < width) gain.load(scale + column + v * STEP);
#pragma unroll
            for (int k = 0; k < N; k++) {
                float g = d_out[v].get(k) * gain.get(k);
                sum[0] = fmaf(g, in[v].get(k) - m, sum[0]);
                if constexpr (NORM::CENTERED) sum[1] += g;
            }
        }
        sum_group<MOST_GROUP>(&shared->rows, &turn, sum);
        float along = sum[0] * r / (float)width, level = 0;
        if constexpr (NORM::CENTERED) level = sum[1] / (float)width;
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            if (column + v * STEP < width) {
                vec<T, N> gain, d_in;
                float out[N];
                in[v].keep_packed(), d_out[v].keep_packed();
                d_in.load(d_x + at + v * STEP), gain.load(scale + column + v * STEP);
#pragma unroll
                for (int k = 0; k < N; k++) {
                    float d = d_out[v].get(k), normal = (in[v].get(k) - m) * r;
                    float *total = &shared->columns[v * N + k][threadIdx.x];
                    *total = fmaf(d, normal, *total);
                    out[k] = d_in.get(k) + r * (d * gain.get(k) - normal * along - level);
                }
                d_in.set(out);
                d_in.store(d_x + at + v * STEP);
            }
    }
#pragma unroll
    for (int v = 0; v < VECTORS; v++)
#pragma unroll
        for (int k = 0; k < N; k += 4)
            if (column + v * STEP < width) {
                vec<float, 4> sums;
                float four[4];
#pragma unroll
                for (int i = 0; i < 4; i++) four[i] = shared->columns[v * N + k + i][threadIdx.x];
                sums.set(four);
                sums.store(partial + (int64_t)blockIdx.x * width + column + v * STEP + k);
            }
}

/* Rows of any width and address. A block's partial sums are added up in memory, each element by one thread.
 */
template <typename NORM, typename T>
__global__ void __launch_bounds__(BLOCK)
    norm_backward_any_kernel(T *d_x, float *partial, const T *d_y, const T *x, const T *scale,
                             const float *mean, const float *rstd, int64_t rows, int width) {
    SAGO_SHARED(row_sums<NORM::SUMS>, shared);
    float *mine = partial + (int64_t)blockIdx.x * width;
    int turn = 0;
    for (int i = (int)threadIdx.x; i < width; i += BLOCK) mine[i] = 0;
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const T *in = x + row * width, *d_out = d_y + row * width;
        T *d_in = d_x + row * width;
        float r = rstd[row], m = NORM::CENTERED ? mean[row] : 0.0f, sum[NORM::SUMS] = {0};
        for (int i = (int)threadIdx.x; i < width; i += BLOCK) {
            float g = to_float(d_out[i]) * to_float(scale[i]);
            sum[0] = fmaf(g, to_float(in[i]) - m, sum[0]);
            if constexpr (NORM::CENTERED) sum[1] += g;
        }
        sum_group<BLOCK>(shared, &turn, sum);
        float along = sum[0] * r / (float)width, level = 0;
        if constexpr (NORM::CENTERED) level = sum[1] / (float)width;
        for (int i = (int)threadIdx.x; i < width; i += BLOCK) {
            float d = to_float(d_out[i]), normal = (to_float(in[i]) - m) * r;
            mine[i] += d * normal;
            d_in[i] =
                from_float<T>(to_float(d_in[i]) + r * (d * to_float(scale[i]) - normal * along - level));
        }
    }
}

/* d_scale += the partial rows: 32 columns a block, 32 threads a column, whose sums follow on each other. */
enum { SUM_BLOCK = 1024, SUM_COLUMNS = 32, SUM_PARTS = SUM_BLOCK / SUM_COLUMNS };

struct part_sums {
    float of[SUM_PARTS][SUM_COLUMNS];
};

__global__ void __launch_bounds__(SUM_BLOCK)
    norm_scale_kernel(float *d_scale, const float *partial, int n_partial, int width) {
    SAGO_SHARED(part_sums, shared);
    int lane = (int)threadIdx.x % SUM_COLUMNS, part = (int)threadIdx.x / SUM_COLUMNS;
    int column = (int)blockIdx.x * SUM_COLUMNS + lane;
    float sum = 0;
    if (column < width)
#pragma unroll 8
        for (int p = part; p < n_partial; p += SUM_PARTS) sum += partial[(int64_t)p * width + column];
    shared->of[part][lane] = sum;
    __syncthreads();
    if (part > 0 || column >= width) return;
    for (int p = 1; p < SUM_PARTS; p++) sum += shared->of[p][lane];
    d_scale[column] += sum;
}

/* --- launches
 * ------------------------------------------------------------------------------------------------------ */

/* Tensors of a call; those that the pass or the norm does not have are NULL. */
struct norm_call {
    sago_gpu *gpu;
    void *y, *d_x;
    const void *x, *d_y, *scale;
    float *mean, *rstd, *partial;
    int64_t rows;
    int width;
    float epsilon;
};

template <typename NORM, typename T, int GROUP, int VECTORS>
static sago_status launch_forward(const norm_call &c) {
    constexpr int THREADS = block_of<GROUP>::THREADS, ROWS = block_of<GROUP>::ROWS;
    unsigned blocks = persistent_blocks(c.gpu, (c.rows + ROWS - 1) / ROWS, FORWARD_BLOCKS * BLOCK / THREADS);
    return SAGO_LAUNCH(c.gpu, (norm_forward_kernel<NORM, T, GROUP, VECTORS>), blocks, THREADS,
                       sizeof(row_sums<1>), (T *)c.y, c.mean, c.rstd, (const T *)c.x, (const T *)c.scale,
                       c.rows, c.width, c.epsilon);
}

template <typename NORM, typename T, int GROUP, int VECTORS>
static sago_status launch_backward(const norm_call &c, int blocks) {
    typedef backward_shared<GROUP, NORM::SUMS, VECTORS * lanes_of<T>::COUNT> shared_memory;
    return SAGO_LAUNCH(c.gpu, (norm_backward_kernel<NORM, T, GROUP, VECTORS>), (unsigned)blocks,
                       block_of<GROUP>::THREADS, sizeof(shared_memory), (T *)c.d_x, c.partial,
                       (const T *)c.d_y, (const T *)c.x, (const T *)c.scale, (const float *)c.mean,
                       (const float *)c.rstd, c.rows, c.width);
}

/*
 * Blocks of the backward pass, each of which leaves a row of partial sums: from the shapes alone, since the
 * order of the sums is. A multiprocessor takes two at a time, an A100 216 and an H100 264, so they are as
 * many as fill the last wave on both, where each has at least 15 rows to itself: norms.md has the numbers.
 */
enum { LEAST_ROWS = 15 };
static int backward_blocks(int64_t rows, int rows_a_block) {
    int64_t n = (rows + rows_a_block - 1) / rows_a_block;
    int64_t most = rows >= LEAST_ROWS * 1056  ? 1056
                   : rows >= LEAST_ROWS * 792 ? 792
                   : rows >= LEAST_ROWS * 528 ? 528
                                              : 216;
    return (int)(n < most ? n : most);
}

/* Threads of a row for one of `vectors` pieces of 16 bytes; 0: the kernels that take any row. */
static int group_of(int64_t vectors) {
    return vectors <= 128                         ? WARP
           : vectors <= 512                       ? 128
           : vectors <= 2048                      ? 512
           : vectors <= WIDE_VECTORS * MOST_GROUP ? MOST_GROUP
                                                  : 0;
}

template <typename NORM, typename T> static sago_status forward(const norm_call &c, int64_t vectors) {
    switch (group_of(vectors)) {
    case WARP:
        return vectors <= 32   ? launch_forward<NORM, T, WARP, 1>(c)
               : vectors <= 64 ? launch_forward<NORM, T, WARP, 2>(c)
                               : launch_forward<NORM, T, WARP, 4>(c);
    case 128:
        return vectors <= 256 ? launch_forward<NORM, T, 128, 2>(c) : launch_forward<NORM, T, 128, 4>(c);
    case 512:
        return launch_forward<NORM, T, 512, 4>(c);
    case MOST_GROUP:
        return launch_forward<NORM, T, MOST_GROUP, WIDE_VECTORS>(c);
    default:
        return SAGO_LAUNCH(c.gpu, (norm_forward_any_kernel<NORM, T>), persistent_blocks(c.gpu, c.rows, 8),
                           BLOCK, sizeof(row_sums<1>), (T *)c.y, c.mean, c.rstd, (const T *)c.x,
                           (const T *)c.scale, c.rows, c.width, c.epsilon);
    }
}

template <typename NORM, typename T> static sago_status launch_wide(const norm_call &c, int blocks) {
    return SAGO_LAUNCH(c.gpu, (norm_backward_wide_kernel<NORM, T>), (unsigned)blocks, MOST_GROUP,
                       sizeof(wide_shared<T, NORM::SUMS>), (T *)c.d_x, c.partial, (const T *)c.d_y,
                       (const T *)c.x, (const T *)c.scale, (const float *)c.mean, (const float *)c.rstd,
                       c.rows, c.width);
}

template <typename NORM, typename T>
static sago_status backward(const norm_call &c, int64_t vectors, int blocks) {
    switch (group_of(vectors)) {
    case WARP:
        return vectors <= 32   ? launch_backward<NORM, T, WARP, 1>(c, blocks)
               : vectors <= 64 ? launch_backward<NORM, T, WARP, 2>(c, blocks)
                               : launch_backward<NORM, T, WARP, 4>(c, blocks);
    case 128:
        return vectors <= 256 ? launch_backward<NORM, T, 128, 2>(c, blocks)
                              : launch_backward<NORM, T, 128, 4>(c, blocks);
    case 512:
        return launch_backward<NORM, T, 512, 4>(c, blocks);
    case MOST_GROUP:
        return launch_wide<NORM, T>(c, blocks);
    default:
        return SAGO_LAUNCH(c.gpu, (norm_backward_any_kernel<NORM, T>), (unsigned)blocks, BLOCK,
                           sizeof(row_sums<NORM::SUMS>), (T *)c.d_x, c.partial, (const T *)c.d_y,
                           (const T *)c.x, (const T *)c.scale, (const float *)c.mean, (const float *)c.rstd,
                           c.rows, c.width);
    }
}

/* Pieces of 16 bytes in a row, or more than any group takes where rows cannot be read that way. */
static int64_t row_vectors(const norm_call &c, size_t element_bytes) {
    int lanes = (int)(16 / element_bytes);
    bool aligned = is_aligned16(c.x) && is_aligned16(c.scale) && is_aligned16(c.y) && is_aligned16(c.d_x) &&
                   is_aligned16(c.d_y);
    return aligned && c.width % lanes == 0 ? c.width / lanes : INT64_MAX;
}

template <typename NORM>
static sago_status run_forward(sago_device *device, sago_tensor y, float *mean, float *rstd, sago_tensor x,
                               sago_tensor scale, float epsilon) {
    if (sago_tensor_count(x) == 0) return SAGO_OK;
    norm_call c = norm_call();
    c.gpu = sago_gpu_of(device);
    c.y = y.data, c.x = x.data, c.scale = scale.data, c.mean = mean, c.rstd = rstd;
    c.rows = sago_rows(x), c.width = (int)sago_width(x), c.epsilon = epsilon;
    SAGO_BY_DTYPE(x, T, return (forward<NORM, T>(c, row_vectors(c, sizeof(T)))));
}

template <typename NORM>
static sago_status run_backward(sago_device *device, sago_tensor d_x, sago_tensor d_scale, sago_tensor d_y,
                                sago_tensor x, sago_tensor scale, float *mean, float *rstd) {
    if (sago_tensor_count(x) == 0) return SAGO_OK;
    norm_call c = norm_call();
    c.gpu = sago_gpu_of(device);
    c.d_x = d_x.data, c.d_y = d_y.data, c.x = x.data, c.scale = scale.data, c.mean = mean, c.rstd = rstd;
    c.rows = sago_rows(x), c.width = (int)sago_width(x);
    int64_t vectors = row_vectors(c, sago_dtype_bytes(x.dtype));
    int group = group_of(vectors),
        blocks = backward_blocks(c.rows, group && group < BLOCK ? BLOCK / group : 1);
    void *partial;
    SAGO_TRY(SAGO_GPU(workspace)(c.gpu, (size_t)blocks * (size_t)c.width * sizeof(float), &partial));
    c.partial = (float *)partial;
    SAGO_BY_DTYPE(x, T, SAGO_TRY((backward<NORM, T>(c, vectors, blocks))));
    return SAGO_LAUNCH(c.gpu, norm_scale_kernel, (unsigned)((c.width + SUM_COLUMNS - 1) / SUM_COLUMNS),
                       SUM_BLOCK, sizeof(part_sums), (float *)d_scale.data, (const float *)partial, blocks,
                       c.width);
}

extern "C" {

sago_status SAGO_GPU(rmsnorm_forward)(sago_device *device, sago_tensor y, sago_tensor rstd, sago_tensor x,
                                      sago_tensor scale, float epsilon) {
    SAGO_TRY(sago_fits_rmsnorm_forward(device, y, rstd, x, scale));
    return run_forward<rmsnorm>(device, y, NULL, (float *)rstd.data, x, scale, epsilon);
}

sago_status SAGO_GPU(rmsnorm_backward)(sago_device *device, sago_tensor d_x, sago_tensor d_scale,
                                       sago_tensor d_y, sago_tensor x, sago_tensor scale, sago_tensor rstd) {
    SAGO_TRY(sago_fits_rmsnorm_backward(device, d_x, d_scale, d_y, x, scale, rstd));
    return run_backward<rmsnorm>(device, d_x, d_scale, d_y, x, scale, NULL, (float *)rstd.data);
}

sago_status SAGO_GPU(layernorm_forward)(sago_device *device, sago_tensor y, sago_tensor mean,
                                        sago_tensor rstd, sago_tensor x, sago_tensor scale, float epsilon) {
    SAGO_TRY(sago_fits_layernorm_forward(device, y, mean, rstd, x, scale));
    return run_forward<layernorm>(device, y, (float *)mean.data, (float *)rstd.data, x, scale, epsilon);
}

sago_status SAGO_GPU(layernorm_backward)(sago_device *device, sago_tensor d_x, sago_tensor d_scale,
                                         sago_tensor d_y, sago_tensor x, sago_tensor scale, sago_tensor mean,
                                         sago_tensor rstd) {
    SAGO_TRY(sago_fits_layernorm_backward(device, d_x, d_scale, d_y, x, scale, mean, rstd));
    return run_backward<layernorm>(device, d_x, d_scale, d_y, x, scale, (float *)mean.data,
                                   (float *)rstd.data);
}
}

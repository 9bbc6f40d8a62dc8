// SPDX-License-Identifier: Apache-2.0
/*
 * RMSNorm. A row stays in the registers of the GROUP threads that share it, VECTORS of 16 bytes each, from
 * its only read to its only write; docs/kernels/norms.md.
 */
#include "vector.cuh"

extern "C" {
#include "check.h"
}
#include "check_layers.h"
#include "gpu_ops.h"

enum {
    BLOCK = 256,          /* threads, or GROUP where that is more */
    FORWARD_BLOCKS = 4,   /* a multiprocessor: 64 registers a thread */
    BACKWARD_BLOCKS = 264 /* and rows of partial sums: two for each multiprocessor of an H100, everywhere */
};

template <int GROUP> struct block_of {
    enum { THREADS = GROUP < BLOCK ? BLOCK : GROUP, ROWS = THREADS / GROUP };
};

/* Two sets, so that a row's sums may be written while slow threads still read those of the row before. */
struct row_sums {
    float of_warp[2][512 / WARP];
};

/* The sum over the GROUP threads of a row, in each of them. All threads of the block call it if GROUP > WARP.
 */
template <int GROUP> static __device__ __forceinline__ float sum_group(row_sums *shared, int turn, float x) {
    x = warp_sum(x);
    if constexpr (GROUP == WARP) return x;
    int warp = threadIdx.x / WARP, first = threadIdx.x / GROUP * (GROUP / WARP);
    if (threadIdx.x % WARP == 0) shared->of_warp[turn][warp] = x;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int w = 0; w < GROUP / WARP; w++) sum += shared->of_warp[turn][first + w];
    return sum;
}

template <typename T, int GROUP, int VECTORS>
__global__ void __launch_bounds__(block_of<GROUP>::THREADS, FORWARD_BLOCKS *BLOCK / block_of<GROUP>::THREADS)
    rmsnorm_forward_kernel(T *y, float *rstd, const T *x, const T *scale, int64_t rows, int width,
                           float epsilon) {
    SAGO_SHARED(row_sums, shared);
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
        float sum = 0;
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            if (live && column + v * GROUP * N < width)
                in[v].load(x + at + v * GROUP * N);
            else
                in[v].clear();
        }
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
#pragma unroll
            for (int k = 0; k < N; k++) sum = fmaf(in[v].get(k), in[v].get(k), sum);
        sum = sum_group<GROUP>(shared, turn, sum);
        turn ^= 1;
        float r = 1.0f / sqrtf(sum / (float)width + epsilon);
        if (live && column == 0) rstd[row] = r;
#pragma unroll
        for (int v = 0; v < VECTORS; v++) in[v].keep_packed(), gain[v].keep_packed();
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            if (live && column + v * GROUP * N < width) {
                float out[N];
#pragma unroll
                for (int k = 0; k < N; k++) out[k] = in[v].get(k) * r * gain[v].get(k);
                in[v].set(out);
                in[v].store(y + at + v * GROUP * N);
            }
    }
}

/* Rows of any width and address: a block a row, which is read twice. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
    rmsnorm_forward_any_kernel(T *y, float *rstd, const T *x, const T *scale, int64_t rows, int width,
                               float epsilon) {
    SAGO_SHARED(row_sums, shared);
    int turn = 0;
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 1) {
        const T *in = x + row * width;
        float sum = 0;
        for (int i = (int)threadIdx.x; i < width; i += BLOCK)
            sum = fmaf(to_float(in[i]), to_float(in[i]), sum);
        float r = 1.0f / sqrtf(sum_group<BLOCK>(shared, turn, sum) / (float)width + epsilon);
        if (threadIdx.x == 0) rstd[row] = r;
        for (int i = (int)threadIdx.x; i < width; i += BLOCK)
            y[row * width + i] = from_float<T>(to_float(in[i]) * r * to_float(scale[i]));
    }
}

/* --- backward
 * --------------------------------------------------------------------------------------------------- */

/*
 * With x' = x rstd: d_x += rstd (d_y scale - x' mean(d_y scale x')), d_scale += sum over rows of d_y x'. Each
 * thread keeps the sums of its columns over all rows that it sees; at the end the groups of a block add
 * theirs one after the other, and the block leaves one row of partial sums.
 */
template <int GROUP, int COLUMNS /* a thread */> struct backward_shared {
    row_sums rows;
    float columns[GROUP < BLOCK ? COLUMNS : 1][GROUP]; /* a group alone has nothing to add */
};

template <typename T, int GROUP, int VECTORS>
__global__ void __launch_bounds__(block_of<GROUP>::THREADS, 512 / block_of<GROUP>::THREADS)
    rmsnorm_backward_kernel(T *d_x, float *partial, const T *d_y, const T *x, const T *scale,
                            const float *rstd, int64_t rows, int width) {
    constexpr int N = lanes_of<T>::COUNT, ROWS = block_of<GROUP>::ROWS;
    typedef backward_shared<GROUP, VECTORS * N> shared_memory;
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
        float r = live ? rstd[row] : 0.0f, dot = 0;
#pragma unroll
        for (int v = 0; v < VECTORS; v++) gain[v].keep_packed();
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
#pragma unroll
            for (int k = 0; k < N; k++) dot = fmaf(d_out[v].get(k) * gain[v].get(k), in[v].get(k), dot);
        dot = sum_group<GROUP>(&shared->rows, turn, dot);
        turn ^= 1;
        float mean = dot * r / (float)width; /* of d_y scale x' */
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            float out[N];
            in[v].keep_packed(), d_out[v].keep_packed(), gain[v].keep_packed();
#pragma unroll
            for (int k = 0; k < N; k++) {
                float d = d_out[v].get(k), normal = in[v].get(k) * r;
                total[v][k] = fmaf(d, normal, total[v][k]);
                out[k] = d_in[v].get(k) + r * (d * gain[v].get(k) - normal * mean);
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
                if (column + v * GROUP * N < width)
                    *reinterpret_cast<float4 *>(partial + (int64_t)blockIdx.x * width + column +
                                                v * GROUP * N + k) =
                        make_float4(total[v][k], total[v][k + 1], total[v][k + 2], total[v][k + 3]);
    }
}

/* Rows of any width and address. A block's partial sums are added up in memory, each element by one thread.
 */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
    rmsnorm_backward_any_kernel(T *d_x, float *partial, const T *d_y, const T *x, const T *scale,
                                const float *rstd, int64_t rows, int width) {
    SAGO_SHARED(row_sums, shared);
    float *mine = partial + (int64_t)blockIdx.x * width;
    int turn = 0;
    for (int i = (int)threadIdx.x; i < width; i += BLOCK) mine[i] = 0;
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 1) {
        const T *in = x + row * width, *d_out = d_y + row * width;
        T *d_in = d_x + row * width;
        float r = rstd[row], dot = 0;
        for (int i = (int)threadIdx.x; i < width; i += BLOCK)
            dot = fmaf(to_float(d_out[i]) * to_float(scale[i]), to_float(in[i]), dot);
        float mean = sum_group<BLOCK>(shared, turn, dot) * r / (float)width;
        for (int i = (int)threadIdx.x; i < width; i += BLOCK) {
            float d = to_float(d_out[i]), normal = to_float(in[i]) * r;
            mine[i] += d * normal;
            d_in[i] = from_float<T>(to_float(d_in[i]) + r * (d * to_float(scale[i]) - normal * mean));
        }
    }
}

/* d_scale += the partial rows: 32 columns a block, 8 threads a column, whose sums follow on each other. */
enum { SUM_COLUMNS = 32, SUM_PARTS = BLOCK / SUM_COLUMNS };

struct part_sums {
    float of[SUM_PARTS][SUM_COLUMNS];
};

__global__ void __launch_bounds__(BLOCK)
    rmsnorm_scale_kernel(float *d_scale, const float *partial, int n_partial, int width) {
    SAGO_SHARED(part_sums, shared);
    int lane = (int)threadIdx.x % SUM_COLUMNS, part = (int)threadIdx.x / SUM_COLUMNS;
    int column = (int)blockIdx.x * SUM_COLUMNS + lane;
    float sum = 0;
    if (column < width)
        for (int p = part; p < n_partial; p += SUM_PARTS) sum += partial[(int64_t)p * width + column];
    shared->of[part][lane] = sum;
    __syncthreads();
    if (part > 0 || column >= width) return;
    for (int p = 1; p < SUM_PARTS; p++) sum += shared->of[p][lane];
    d_scale[column] += sum;
}

/* --- launches
 * ------------------------------------------------------------------------------------------------------ */

/* Tensors of a call; those that the pass does not have are NULL. */
struct norm_call {
    sago_gpu *gpu;
    void *y, *d_x;
    const void *x, *d_y, *scale;
    float *rstd, *partial;
    int64_t rows;
    int width;
    float epsilon;
};

template <typename T, int GROUP, int VECTORS> static sago_status launch_forward(const norm_call &c) {
    constexpr int THREADS = block_of<GROUP>::THREADS, ROWS = block_of<GROUP>::ROWS;
    unsigned blocks = persistent_blocks(c.gpu, (c.rows + ROWS - 1) / ROWS, FORWARD_BLOCKS * BLOCK / THREADS);
    return SAGO_LAUNCH(c.gpu, (rmsnorm_forward_kernel<T, GROUP, VECTORS>), blocks, THREADS, sizeof(row_sums),
                       (T *)c.y, c.rstd, (const T *)c.x, (const T *)c.scale, c.rows, c.width, c.epsilon);
}

template <typename T, int GROUP, int VECTORS>
static sago_status launch_backward(const norm_call &c, int blocks) {
    typedef backward_shared<GROUP, VECTORS * lanes_of<T>::COUNT> shared_memory;
    return SAGO_LAUNCH(c.gpu, (rmsnorm_backward_kernel<T, GROUP, VECTORS>), (unsigned)blocks,
                       block_of<GROUP>::THREADS, sizeof(shared_memory), (T *)c.d_x, c.partial,
                       (const T *)c.d_y, (const T *)c.x, (const T *)c.scale, (const float *)c.rstd, c.rows,
                       c.width);
}

/* Blocks of the backward pass that leave partial sums: from the shapes alone, since the order of the sums is.
 */
static int backward_blocks(int64_t rows, int rows_a_block) {
    int64_t n = (rows + rows_a_block - 1) / rows_a_block, most = BACKWARD_BLOCKS;
    return (int)(n < most ? n : most);
}

/* Threads of a row for one of `vectors` pieces of 16 bytes; 0: the kernels that take any row. */
static int group_of(int64_t vectors) {
    return vectors <= 128 ? WARP : vectors <= 512 ? 128 : vectors <= 2048 ? 512 : 0;
}

template <typename T> static sago_status forward(const norm_call &c, int64_t vectors) {
    switch (group_of(vectors)) {
    case WARP:
        return vectors <= 32   ? launch_forward<T, WARP, 1>(c)
               : vectors <= 64 ? launch_forward<T, WARP, 2>(c)
                               : launch_forward<T, WARP, 4>(c);
    case 128:
        return vectors <= 256 ? launch_forward<T, 128, 2>(c) : launch_forward<T, 128, 4>(c);
    case 512:
        return launch_forward<T, 512, 4>(c);
    default:
        return SAGO_LAUNCH(c.gpu, rmsnorm_forward_any_kernel<T>, persistent_blocks(c.gpu, c.rows, 8), BLOCK,
                           sizeof(row_sums), (T *)c.y, c.rstd, (const T *)c.x, (const T *)c.scale, c.rows,
                           c.width, c.epsilon);
    }
}

template <typename T> static sago_status backward(const norm_call &c, int64_t vectors, int blocks) {
    switch (group_of(vectors)) {
    case WARP:
        return vectors <= 32   ? launch_backward<T, WARP, 1>(c, blocks)
               : vectors <= 64 ? launch_backward<T, WARP, 2>(c, blocks)
                               : launch_backward<T, WARP, 4>(c, blocks);
    case 128:
        return vectors <= 256 ? launch_backward<T, 128, 2>(c, blocks) : launch_backward<T, 128, 4>(c, blocks);
    case 512:
        return launch_backward<T, 512, 4>(c, blocks);
    default:
        return SAGO_LAUNCH(c.gpu, rmsnorm_backward_any_kernel<T>, (unsigned)blocks, BLOCK, sizeof(row_sums),
                           (T *)c.d_x, c.partial, (const T *)c.d_y, (const T *)c.x, (const T *)c.scale,
                           (const float *)c.rstd, c.rows, c.width);
    }
}

/* Pieces of 16 bytes in a row, or more than any group takes where rows cannot be read that way. */
static int64_t row_vectors(const norm_call &c, size_t element_bytes) {
    int lanes = (int)(16 / element_bytes);
    bool aligned = is_aligned16(c.x) && is_aligned16(c.scale) && is_aligned16(c.y) && is_aligned16(c.d_x) &&
                   is_aligned16(c.d_y);
    return aligned && c.width % lanes == 0 ? c.width / lanes : INT64_MAX;
}

extern "C" {

sago_status SAGO_GPU(rmsnorm_forward)(sago_device *device, sago_tensor y, sago_tensor rstd, sago_tensor x,
                                      sago_tensor scale, float epsilon) {
    SAGO_TRY(sago_fits_rmsnorm_forward(device, y, rstd, x, scale));
    if (sago_tensor_count(x) == 0) return SAGO_OK;
    norm_call c = norm_call();
    c.gpu = sago_gpu_of(device);
    c.y = y.data, c.x = x.data, c.scale = scale.data, c.rstd = (float *)rstd.data;
    c.rows = sago_rows(x), c.width = (int)sago_width(x), c.epsilon = epsilon;
    SAGO_BY_DTYPE(x, T, return forward<T>(c, row_vectors(c, sizeof(T))));
}

sago_status SAGO_GPU(rmsnorm_backward)(sago_device *device, sago_tensor d_x, sago_tensor d_scale,
                                       sago_tensor d_y, sago_tensor x, sago_tensor scale, sago_tensor rstd) {
    SAGO_TRY(sago_fits_rmsnorm_backward(device, d_x, d_scale, d_y, x, scale, rstd));
    if (sago_tensor_count(x) == 0) return SAGO_OK;
    norm_call c = norm_call();
    c.gpu = sago_gpu_of(device);
    c.d_x = d_x.data, c.d_y = d_y.data, c.x = x.data, c.scale = scale.data, c.rstd = (float *)rstd.data;
    c.rows = sago_rows(x), c.width = (int)sago_width(x);
    int64_t vectors = row_vectors(c, sago_dtype_bytes(x.dtype));
    int group = group_of(vectors),
        blocks = backward_blocks(c.rows, group && group < BLOCK ? BLOCK / group : 1);
    void *partial;
    SAGO_TRY(SAGO_GPU(workspace)(c.gpu, (size_t)blocks * (size_t)c.width * sizeof(float), &partial));
    c.partial = (float *)partial;
    SAGO_BY_DTYPE(x, T, SAGO_TRY(backward<T>(c, vectors, blocks)));
    return SAGO_LAUNCH(c.gpu, rmsnorm_scale_kernel, (unsigned)((c.width + SUM_COLUMNS - 1) / SUM_COLUMNS),
                       BLOCK, sizeof(part_sums), (float *)d_scale.data, (const float *)partial, blocks,
                       c.width);
}
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Embedding rows, and their gradient: tokens are sorted by id on the device, so that rows of equal id stand
 * side by side and are added in the order of their tokens without atomics; docs/kernels/embedding.md.
 */
#include "vector.cuh"

#include "check_layers.h"
#include "embedding_sort.h"
#include "gpu_ops.h"

enum { GATHER_THREADS = 256, GATHER_BLOCKS = 8, GATHER_AHEAD = 4 };

/* y[N, D] = table[ids] * factor: a warp a token. An id that is not in the table gives zeros. */
template <typename T, int N>
__global__ void __launch_bounds__(GATHER_THREADS, 4)
    embedding_forward_kernel(T *y, const T *table, const int32_t *ids, int64_t tokens, int64_t rows,
                             int64_t width, float factor) {
    int lane = (int)threadIdx.x % WARP;
    int64_t token = ((int64_t)blockIdx.x * GATHER_THREADS + threadIdx.x) / WARP;
    for (; token < tokens; token += (int64_t)gridDim.x * (GATHER_THREADS / WARP)) {
        int32_t id = ids[token];
        bool known = id >= 0 && id < rows;
        const T *from = table + (known ? id : 0) * width;
        T *to = y + token * width;
        for (int64_t first = lane * N; first < width; first += GATHER_AHEAD * WARP * N) {
            vec<T, N> row[GATHER_AHEAD];
#pragma unroll
            for (int a = 0; a < GATHER_AHEAD; a++) {
                row[a].clear();
                if (known && first + a * WARP * N < width) row[a].load(from + first + a * WARP * N);
            }
#pragma unroll
            for (int a = 0; a < GATHER_AHEAD; a++)
                if (first + a * WARP * N < width) {
                    float out[N];
#pragma unroll
                    for (int k = 0; k < N; k++) out[k] = row[a].get(k) * factor;
                    row[a].set(out);
                    row[a].store(to + first + a * WARP * N);
                }
        }
    }
}

/* --- tokens in the order of their ids
 * -------------------------------------------------------------------------------- */

/*
 * A radix sort, lowest digit first: every pass keeps the order of what has one digit, so equal ids stay in
 * the order of their tokens. A tile is what a block moves; its warps take a share each, one after the other
 * in the order.
 */
enum {
    DIGIT_BITS = SAGO_SORT_DIGIT_BITS,
    DIGITS = 1 << DIGIT_BITS,
    SORT_THREADS = DIGITS, /* a thread a digit, where digits are summed up */
    SORT_WARPS = SORT_THREADS / WARP,
    SORT_STEPS = 8, /* times 32 tokens: a warp's share */
    TILE = SORT_WARPS * SORT_STEPS * WARP,
    FEW_TILES = 2 /* at most: one block sorts them in less time than the launches of many take */
};

struct alignas(8) entry {
    uint32_t id, token;
};

/* Tokens without a row come last: they count as id `rows`. */
static __device__ __forceinline__ entry read_entry(const entry *in, const int32_t *ids, int64_t i,
                                                   uint32_t rows) {
    if (in) return in[i];
    entry e;
    e.id = (uint32_t)ids[i] < rows ? (uint32_t)ids[i] : rows;
    e.token = (uint32_t)i;
    return e;
}

struct count_shared {
    uint32_t count[DIGITS];
};

/* counts[tile, digit]. The first pass reads ids, the others entries. */
__global__ void __launch_bounds__(SORT_THREADS)
    embedding_count_kernel(uint32_t *counts, const entry *in, const int32_t *ids, int64_t n, uint32_t rows,
                           int shift) {
    SAGO_SHARED(count_shared, shared);
    int64_t first = (int64_t)blockIdx.x * TILE;
    shared->count[threadIdx.x] = 0;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < TILE && first + i < n; i += SORT_THREADS)
        atomicAdd(&shared->count[read_entry(in, ids, first + i, rows).id >> shift & (DIGITS - 1)], 1u);
    __syncthreads();
    counts[(int64_t)blockIdx.x * DIGITS + threadIdx.x] = shared->count[threadIdx.x];
}

struct scatter_shared {
    uint32_t at[SORT_WARPS][DIGITS]; /* first how many a warp has of a digit, then where they go */
    uint32_t of_warp[SORT_WARPS];
};

/* Lanes of the warp whose digit is this lane's. */
static __device__ __forceinline__ uint32_t lanes_alike(uint32_t digit, bool live) {
    uint32_t alike = __ballot_sync(0xffffffffu, live);
#pragma unroll
    for (int bit = 0; bit < DIGIT_BITS; bit++) {
        uint32_t set = __ballot_sync(0xffffffffu, digit >> bit & 1);
        alike &= digit >> bit & 1 ? set : ~set;
    }
    return alike;
}

/* Thread d, of `all` entries that have digit d: how many have a smaller one. Clears shared->at on the way. */
static __device__ __forceinline__ uint32_t smaller_digits(scatter_shared *shared, uint32_t all) {
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    uint32_t sum = all;
    for (int step = 1; step < WARP; step *= 2) {
        uint32_t other = __shfl_up_sync(0xffffffffu, sum, (unsigned)step);
        if (lane >= step) sum += other;
    }
    if (lane == WARP - 1) shared->of_warp[warp] = sum;
    for (int w = 0; w < SORT_WARPS; w++) shared->at[w][threadIdx.x] = 0;
    __syncthreads();
    uint32_t start = sum - all;
    for (int w = 0; w < warp; w++) start += shared->of_warp[w];
    return start;
}

/* Writes a tile in order. Thread d: its entries of digit d begin at `start`; gives where the next tile's do.
 */
static __device__ __forceinline__ uint32_t scatter_tile(scatter_shared *shared, entry *out, const entry *in,
                                                        const int32_t *ids, int64_t tile, int64_t n,
                                                        uint32_t rows, int shift, uint32_t start) {
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    /* The place of each entry among those of its warp that have its digit. */
    int64_t first = tile * TILE + warp * (SORT_STEPS * WARP) + lane;
    entry mine[SORT_STEPS];
    uint32_t place[SORT_STEPS];
#pragma unroll
    for (int s = 0; s < SORT_STEPS; s++) {
        bool live = first + s * WARP < n;
        mine[s].id = 0, mine[s].token = 0;
        if (live) mine[s] = read_entry(in, ids, first + s * WARP, rows);
    }
#pragma unroll
    for (int s = 0; s < SORT_STEPS; s++) {
        bool live = first + s * WARP < n;
        uint32_t digit = mine[s].id >> shift & (DIGITS - 1), alike = lanes_alike(digit, live);
        uint32_t earlier = (uint32_t)__popc(alike & ((1u << lane) - 1));
        place[s] = live ? shared->at[warp][digit] + earlier : 0;
        __syncwarp();
        if (live && earlier == 0) shared->at[warp][digit] += (uint32_t)__popc(alike);
        __syncwarp();
    }
    __syncthreads();
    for (int w = 0; w < SORT_WARPS; w++) {
        uint32_t count = shared->at[w][threadIdx.x];
        shared->at[w][threadIdx.x] = start;
        start += count;
    }
    __syncthreads();
#pragma unroll
    for (int s = 0; s < SORT_STEPS; s++)
        if (first + s * WARP < n)
            out[shared->at[warp][mine[s].id >> shift & (DIGITS - 1)] + place[s]] = mine[s];
    return start;
}

__global__ void __launch_bounds__(SORT_THREADS)
    embedding_scatter_kernel(entry *out, const entry *in, const int32_t *ids, const uint32_t *counts,
                             int tiles, int64_t n, uint32_t rows, int shift) {
    SAGO_SHARED(scatter_shared, shared);
    /* Thread d: the entries of digit d in earlier tiles and in all of them. */
    uint32_t before = 0, all = 0;
    for (int t = 0; t < tiles; t++) {
        uint32_t count = counts[(int64_t)t * DIGITS + threadIdx.x];
        if (t < (int)blockIdx.x) before += count;
        all += count;
    }
    uint32_t start = before + smaller_digits(shared, all);
    scatter_tile(shared, out, in, ids, blockIdx.x, n, rows, shift, start);
}

struct few_shared {
    scatter_shared scatter;
    uint32_t count[DIGITS];
};

/* All passes of few tokens in one block, from one of the two lists into the other. */
__global__ void __launch_bounds__(SORT_THREADS)
    embedding_sort_few_kernel(entry *even, entry *odd, const int32_t *ids, int64_t n, uint32_t rows,
                              int passes) {
    SAGO_SHARED(few_shared, shared);
    const entry *in = NULL;
    for (int pass = 0; pass < passes; pass++) {
        entry *out = pass % 2 == 0 ? even : odd;
        int shift = pass * DIGIT_BITS;
        shared->count[threadIdx.x] = 0;
        __syncthreads(); /* and what the last pass wrote is there */
        for (int64_t i = threadIdx.x; i < n; i += SORT_THREADS)
            atomicAdd(&shared->count[read_entry(in, ids, i, rows).id >> shift & (DIGITS - 1)], 1u);
        __syncthreads();
        uint32_t start = smaller_digits(&shared->scatter, shared->count[threadIdx.x]);
        for (int64_t tile = 0; tile * TILE < n; tile++) {
            if (tile > 0) {
                __syncthreads();
                for (int w = 0; w < SORT_WARPS; w++) shared->scatter.at[w][threadIdx.x] = 0;
                __syncthreads();
            }
            start = scatter_tile(&shared->scatter, out, in, ids, tile, n, rows, shift, start);
        }
        in = out;
    }
}

/* --- rows of equal id
 * --------------------------------------------------------------------------------------------------- */

/*
 * The sorted tokens are cut into windows of fixed length, so that an id with thousands of tokens is the work
 * of many blocks. What lies inside a window goes to the table at once. An id that crosses borders leaves a
 * partial sum in each window: TAIL where it begins, HEAD in all later ones; embedding_join_kernel adds them
 * in that order.
 */
enum { WINDOW = 32, WINDOW_AHEAD = 8, HEAD = 0, TAIL = 1, COLUMN_THREADS = 128 };

struct window_shared {
    uint32_t id[WINDOW + 2]; /* of the entry before, of the window, of the entry after */
    uint32_t token[WINDOW];
};

enum : uint32_t { NO_ID = 0xffffffffu };

template <typename Table, int N>
static __device__ __forceinline__ void add_to_row(Table *row, const float sum[N]) {
    vec<Table, N> old;
    float out[N];
    old.load(row);
#pragma unroll
    for (int k = 0; k < N; k++) out[k] = old.get(k) + sum[k];
    old.set(out);
    old.store(row);
}

template <int N> static __device__ __forceinline__ void store_floats(float *to, const float from[N]) {
    vec<float, N> bits;
    bits.set(from);
    bits.store(to);
}

template <typename Table, typename T, int N>
__global__ void __launch_bounds__(COLUMN_THREADS)
    embedding_window_kernel(Table *d_table, float *partial, const T *d_y, const entry *sorted, int64_t n,
                            uint32_t rows, int64_t width, float factor) {
    SAGO_SHARED(window_shared, shared);
    int64_t first = (int64_t)blockIdx.x * WINDOW;
    int count = n - first < WINDOW ? (int)(n - first) : WINDOW;
    for (int i = (int)threadIdx.x; i < WINDOW + 2; i += (int)blockDim.x) {
        int64_t at = first + i - 1;
        entry e;
        e.id = NO_ID, e.token = 0;
        if (at >= 0 && at < n) e = sorted[at];
        shared->id[i] = e.id;
        if (i > 0 && i <= WINDOW) shared->token[i - 1] = e.token;
    }
    __syncthreads();
    const uint32_t *id = shared->id + 1;
    int64_t column = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (column >= width) return;
    float sum[N];
#pragma unroll
    for (int k = 0; k < N; k++) sum[k] = 0;
    bool begins = id[0] != id[-1]; /* the current id has no entry in an earlier window */
    for (int base = 0; base < count; base += WINDOW_AHEAD) {
        vec<T, N> row[WINDOW_AHEAD];
#pragma unroll
        for (int a = 0; a < WINDOW_AHEAD; a++)
            if (base + a < count && id[base + a] < rows)
                row[a].load(d_y + (int64_t)shared->token[base + a] * width + column);
#pragma unroll
        for (int a = 0; a < WINDOW_AHEAD; a++) {
            int i = base + a;
            if (i >= count || id[i] >= rows) continue;
#pragma unroll
            for (int k = 0; k < N; k++) sum[k] = fmaf(row[a].get(k), factor, sum[k]);
            bool ends = id[i] != id[i + 1];
            if (!ends && i + 1 < WINDOW) continue;
            if (begins && ends)
                add_to_row<Table, N>(d_table + (int64_t)id[i] * width + column, sum);
            else
                store_floats<N>(partial + ((int64_t)blockIdx.x * 2 + (begins ? TAIL : HEAD)) * width + column,
                                sum);
#pragma unroll
            for (int k = 0; k < N; k++) sum[k] = 0;
            begins = true;
        }
    }
}

/* Block w adds up the id that begins in window w and goes on behind it, if there is one. */
template <typename Table, int N>
__global__ void __launch_bounds__(COLUMN_THREADS, 5)
    embedding_join_kernel(Table *d_table, const float *partial, const entry *sorted, int64_t n, uint32_t rows,
                          int64_t width) {
    int64_t next = ((int64_t)blockIdx.x + 1) * WINDOW; /* the first entry behind the window */
    int64_t column = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * N;
    uint32_t id = sorted[next - 1].id, first_id = sorted[next - WINDOW].id;
    if (id >= rows || sorted[next].id != id) return;
    if (first_id == id && next > WINDOW && sorted[next - WINDOW - 1].id == id) return; /* began earlier */
    /* How many of the windows behind begin with the id: they follow on each other, and each lane looks at
     * one. */
    int64_t windows = 0;
    for (int found = WARP; found == WARP; windows += found) {
        int64_t at = next + (windows + (int)threadIdx.x % WARP) * WINDOW;
        found = __popc(__ballot_sync(0xffffffffu, at < n && sorted[at < n ? at : n - 1].id == id));
    }
    if (column >= width) return;
    vec<float, N> part;
    float sum[N];
    part.load(partial + ((int64_t)blockIdx.x * 2 + TAIL) * width + column);
#pragma unroll
    for (int k = 0; k < N; k++) sum[k] = part.get(k);
    const float *heads = partial + (next / WINDOW * 2 + HEAD) * width + column;
    for (int64_t w = 0; w < windows; w += WINDOW_AHEAD) {
        vec<float, N> ahead[WINDOW_AHEAD];
        /* Past the last one it is read again: loads under a condition would wait for each other. */
#pragma unroll
        for (int a = 0; a < WINDOW_AHEAD; a++)
            ahead[a].load(heads + (w + a < windows ? w + a : windows - 1) * 2 * width);
#pragma unroll
        for (int a = 0; a < WINDOW_AHEAD; a++)
#pragma unroll
            for (int k = 0; k < N; k++) sum[k] += w + a < windows ? ahead[a].get(k) : 0.0f;
    }
    add_to_row<Table, N>(d_table + (int64_t)id * width + column, sum);
}

/* --- launches
 * -----------------------------------------------------------------------------------------------------------
 */

/* Scratch of the backward pass, one after the other, each at a multiple of 256 bytes. */
struct scratch {
    entry *entries[2];
    uint32_t *counts;
    float *partial;
};

static size_t room(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

static sago_status get_scratch(sago_gpu *gpu, scratch *out, int64_t n, int64_t tiles, int64_t windows,
                               int64_t width) {
    size_t entries = room((size_t)n * sizeof(entry)),
           counts = room((size_t)tiles * DIGITS * sizeof(uint32_t));
    void *memory;
    SAGO_TRY(SAGO_GPU(workspace)(
        gpu, 2 * entries + counts + (size_t)windows * 2 * (size_t)width * sizeof(float), &memory));
    char *at = (char *)memory;
    out->entries[0] = (entry *)at;
    out->entries[1] = (entry *)(at + entries);
    out->counts = (uint32_t *)(at + 2 * entries);
    out->partial = (float *)(at + 2 * entries + counts);
    return SAGO_OK;
}

/* Leaves the entries in *sorted, one of the two of scratch. */
static sago_status sort_tokens(sago_gpu *gpu, const scratch &s, const entry **sorted, const int32_t *ids,
                               int64_t n, uint32_t rows) {
    int tiles = (int)((n + TILE - 1) / TILE), passes = sago_sort_passes(rows), to = 0;
    const entry *in = NULL;
    if (tiles <= FEW_TILES) {
        *sorted = s.entries[(passes - 1) % 2];
        return SAGO_LAUNCH(gpu, embedding_sort_few_kernel, 1, SORT_THREADS, sizeof(few_shared), s.entries[0],
                           s.entries[1], ids, n, rows, passes);
    }
    for (int pass = 0; pass < passes; pass++, to ^= 1) {
        int shift = pass * DIGIT_BITS;
        SAGO_TRY(SAGO_LAUNCH(gpu, embedding_count_kernel, (unsigned)tiles, SORT_THREADS, sizeof(count_shared),
                             s.counts, in, ids, n, rows, shift));
        SAGO_TRY(SAGO_LAUNCH(gpu, embedding_scatter_kernel, (unsigned)tiles, SORT_THREADS,
                             sizeof(scatter_shared), s.entries[to], in, ids, (const uint32_t *)s.counts,
                             tiles, n, rows, shift));
        in = s.entries[to];
    }
    *sorted = in;
    return SAGO_OK;
}

template <typename Table, typename T, int N>
static sago_status add_rows(sago_gpu *gpu, const scratch &s, const entry *sorted, sago_tensor d_table,
                            sago_tensor d_y, int64_t n, float factor) {
    int64_t width = d_table.shape[1], pieces = (width + N - 1) / N, windows = (n + WINDOW - 1) / WINDOW;
    uint32_t rows = (uint32_t)d_table.shape[0];
    int threads = pieces < COLUMN_THREADS ? (int)((pieces + WARP - 1) / WARP * WARP) : (int)COLUMN_THREADS;
    unsigned column_blocks = (unsigned)((pieces + threads - 1) / threads);
    SAGO_TRY(SAGO_LAUNCH(gpu, (embedding_window_kernel<Table, T, N>), dim3((unsigned)windows, column_blocks),
                         (unsigned)threads, sizeof(window_shared), (Table *)d_table.data, s.partial,
                         (const T *)d_y.data, sorted, n, rows, width, factor));
    if (windows < 2) return SAGO_OK;
    return SAGO_LAUNCH(gpu, (embedding_join_kernel<Table, N>), dim3((unsigned)(windows - 1), column_blocks),
                       (unsigned)threads, 0, (Table *)d_table.data, (const float *)s.partial, sorted, n, rows,
                       width);
}

template <typename Table, typename T>
static sago_status add_rows_by_width(sago_gpu *gpu, const scratch &s, const entry *sorted,
                                     sago_tensor d_table, sago_tensor d_y, int64_t n, float factor) {
    constexpr int N = lanes_of<T>::COUNT;
    bool wide = d_table.shape[1] % N == 0 && is_aligned16(d_table.data) && is_aligned16(d_y.data);
    return wide ? add_rows<Table, T, N>(gpu, s, sorted, d_table, d_y, n, factor)
                : add_rows<Table, T, 1>(gpu, s, sorted, d_table, d_y, n, factor);
}

template <typename T>
static sago_status gather(sago_gpu *gpu, sago_tensor y, sago_tensor table, sago_tensor ids, float factor) {
    int64_t tokens = sago_tensor_count(ids), rows = table.shape[0], width = table.shape[1];
    constexpr int N = lanes_of<T>::COUNT, TOKENS = GATHER_THREADS / WARP;
    unsigned blocks = persistent_blocks(gpu, (tokens + TOKENS - 1) / TOKENS, GATHER_BLOCKS);
    if (width % N == 0 && is_aligned16(table.data) && is_aligned16(y.data))
        return SAGO_LAUNCH(gpu, (embedding_forward_kernel<T, N>), blocks, GATHER_THREADS, 0, (T *)y.data,
                           (const T *)table.data, (const int32_t *)ids.data, tokens, rows, width, factor);
    return SAGO_LAUNCH(gpu, (embedding_forward_kernel<T, 1>), blocks, GATHER_THREADS, 0, (T *)y.data,
                       (const T *)table.data, (const int32_t *)ids.data, tokens, rows, width, factor);
}

extern "C" {

sago_status SAGO_GPU(embedding_forward)(sago_device *device, sago_tensor y, sago_tensor table,
                                        sago_tensor ids, float factor) {
    SAGO_TRY(sago_fits_embedding_forward(device, y, table, ids));
    if (sago_tensor_count(y) == 0) return SAGO_OK;
    SAGO_BY_DTYPE(y, T, return gather<T>(sago_gpu_of(device), y, table, ids, factor));
}

sago_status SAGO_GPU(embedding_backward)(sago_device *device, sago_tensor d_table, sago_tensor d_y,
                                         sago_tensor ids, float factor) {
    sago_gpu *gpu = sago_gpu_of(device);
    SAGO_TRY(sago_fits_embedding_backward(device, d_table, d_y, ids));
    if (sago_tensor_count(d_y) == 0 || d_table.shape[0] == 0) return SAGO_OK;
    int64_t n = sago_tensor_count(ids);
    const entry *sorted;
    scratch s;
    SAGO_TRY(get_scratch(gpu, &s, n, (n + TILE - 1) / TILE, (n + WINDOW - 1) / WINDOW, d_table.shape[1]));
    SAGO_TRY(sort_tokens(gpu, s, &sorted, (const int32_t *)ids.data, n, (uint32_t)d_table.shape[0]));
    if (d_table.dtype == SAGO_BF16)
        return add_rows_by_width<bf16, bf16>(gpu, s, sorted, d_table, d_y, n, factor);
    SAGO_BY_DTYPE(d_y, T, return (add_rows_by_width<float, T>(gpu, s, sorted, d_table, d_y, n, factor)));
}
}

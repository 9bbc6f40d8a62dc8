// SPDX-License-Identifier: Apache-2.0
/*
 * Sums of 8-bit times 16-bit integers, whose pairs the processor multiplies and adds at once; the eight rows
 * of x are the lanes of everything after the sums. The names of what is computed are those of the formulas in
 * kernels/greedy.h.
 */
#include "cpu_ops.h"
#include "greedy_loops.h"
#include "product_few.h"
#include "vector.h"

#include <math.h>

enum {
    ROWS = SAGO_GREEDY_ROWS,
    TASK_ROWS = 256, /* rows of w of one task */
    AHEAD = 8192,    /* bytes of q that are asked for ahead */
    MOST_SHARE = 4,  /* candidates above 1 / this of all rows: computing everything is not much more work */
};
_Static_assert(ROWS == 8 && SAGO_FEW_ROWS == ROWS,
               "eight lanes, and the product that is repeated takes as many rows");

#define LEAST_STEP                                                                                           \
    1e-12f /* of w and x; below, a row of w counts as zeros: products of steps do not underflow */
#define LARGEST     1e15 /* norms: their products stay far from overflow */
#define ROUND_UP    (1 + 0x1p-20)
#define UNIT        0x1p-24 /* u */
#define LEAST_BOUND 1e-35   /* more than what k underflows can add up to */

typedef float lanes __attribute__((vector_size(ROWS * 4)));
typedef int32_t int_lanes __attribute__((vector_size(ROWS * 4)));

/* --- the copy ----------------------------------------------------------------------------------------------
 */

/*
 * Row j: q, step, error, length. False where it is out of range. Sums of k squares in fp32 are right to (k +
 * 8) u of themselves; beside that, each difference may be wrong by the rounding of one product, 2 u of s q,
 * and by what underflows, together less than 1e-19.
 */
static bool copy_row(sago_greedy *g, int64_t j) {
    const float *w = g->w + j * g->k;
    int8_t *q = g->q + j * g->padded;
    float max = 0;
#pragma omp simd reduction(max : max)
    for (int64_t p = 0; p < g->k; p++) max = fabsf(w[p]) > max ? fabsf(w[p]) : max;
    float step = max / 127, inverse = 127 / max, off_squares = 0, q_squares = 0;
    if (step < LEAST_STEP) step = inverse = 0;
#pragma omp simd reduction(+ : off_squares, q_squares)
    for (int64_t p = 0; p < g->k; p++) {
        float t = w[p] * inverse;
        t = t > -127 ? t : -127; /* also where t is not a number */
        t = t < 127 ? t : 127;
        float rounded = (t + 0x1.8p23f) - 0x1.8p23f; /* to the nearest integer */
        float off = w[p] - step * rounded;
        off_squares += off * off;
        q_squares += rounded * rounded;
        q[p] = (int8_t)(int32_t)rounded;
    }
    for (int64_t p = g->k; p < g->padded; p++) q[p] = 0;
    double sums = 1 + (double)(g->k + 8) * UNIT;
    double length = (double)step * sqrt((double)q_squares) * sums * ROUND_UP;
    double error = sqrt((double)off_squares) * sums * ROUND_UP + 4 * UNIT * length + 1e-19;
    g->step[j] = step;
    g->error[j] = (float)error;
    g->length[j] = (float)length;
    return error + length <= LARGEST; /* false where it is not a number, too */
}

static void prepare(const sago_device *device, sago_greedy *g) {
    int bad = 0;
#pragma omp parallel for schedule(static) num_threads(device->n_threads) reduction(| : bad)
    for (int64_t j = 0; j < g->n; j++) bad |= !copy_row(g, j);
    g->usable = !bad;
}

/* --- the rows of x -----------------------------------------------------------------------------------------
 */

typedef struct task {
    int64_t candidates;
    float floor[ROWS]; /* the greatest approximation less its bound */
    float best[ROWS];
    int32_t id[ROWS];
} task;

typedef struct search {
    const sago_greedy *g;
    const float *x;                   /* [ROWS, k], zeros past the rows */
    int16_t *y;                       /* [ROWS, padded] */
    lanes by_step;                    /* scale t */
    lanes by_error, by_length, least; /* B = e by_error + n by_length + least */
    lanes *upper;                     /* [n] */
    task *tasks;
    int32_t *candidates; /* [n], those of a task from its first row on */
} search;

/* Lane i of the search. A row of zeros takes part in nothing: its bound is below all. False: out of range. */
static bool copy_x(search *s, int i) {
    const sago_greedy *g = s->g;
    const float *x = s->x + i * g->k;
    int16_t *y = s->y + i * g->padded;
    double most = floor(2147483647.0 / (127.0 * (double)g->k)), squares = 0, off_squares = 0;
    if (most > 32767) most = 32767;
    float max = 0;
    for (int64_t p = 0; p < g->k; p++) {
        squares += (double)x[p] * (double)x[p];
        max = fabsf(x[p]) > max ? fabsf(x[p]) : max;
    }
    memset(y, 0, (size_t)g->padded * sizeof *y);
    s->by_step[i] = s->by_error[i] = s->by_length[i] = 0;
    s->least[i] = -INFINITY;
    if (squares == 0) return true;
    double norm = sqrt(squares), t = (double)max / most;
    if (!(norm <= LARGEST) || t < (double)LEAST_STEP) return false;
    for (int64_t p = 0; p < g->k; p++) {
        double rounded = rint((double)x[p] / t), off = (double)x[p] - t * rounded;
        y[p] = (int16_t)rounded;
        off_squares += off * off;
    }
    double d = sqrt(off_squares) * ROUND_UP, scale = (double)g->scale, k = (double)g->k;
    norm *= ROUND_UP;
    double gamma = (k + 4) * UNIT / (1 - (k + 4) * UNIT);
    s->by_step[i] = (float)(scale * t);
    s->by_error[i] = (float)(scale * norm * (1 + gamma) * ROUND_UP);
    s->by_length[i] = (float)(scale * (d + gamma * norm + 8 * UNIT * (norm + d)) * ROUND_UP);
    s->least[i] = (float)(LEAST_BOUND * (1 + scale));
    return true;
}

#if defined(__AVX2__)
#include <immintrin.h>
/* sums[i] = q . y[i] */
ALWAYS_INLINE void dot_rows(int_lanes *sums, const int8_t *q, const int16_t *y, int64_t padded) {
    __m256i sum[ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) sum[i] = _mm256_setzero_si256();
    for (int64_t p = 0; p < padded; p += 16) {
        if (p % 64 == 0) __builtin_prefetch(q + p + AHEAD, 0, 2);
        __m256i left = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(q + p)));
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            __m256i right = _mm256_loadu_si256((const __m256i *)(const void *)(y + i * padded + p));
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(left, right));
        }
    }
    __m256i low = _mm256_hadd_epi32(_mm256_hadd_epi32(sum[0], sum[1]), _mm256_hadd_epi32(sum[2], sum[3]));
    __m256i high = _mm256_hadd_epi32(_mm256_hadd_epi32(sum[4], sum[5]), _mm256_hadd_epi32(sum[6], sum[7]));
    *sums = (int_lanes)_mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                                        _mm256_permute2x128_si256(low, high, 0x31));
}
#else
ALWAYS_INLINE void dot_rows(int_lanes *sums, const int8_t *q, const int16_t *y, int64_t padded) {
    for (int i = 0; i < ROWS; i++) {
        int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t p = 0; p < padded; p++) sum += (int32_t)q[p] * (int32_t)y[i * padded + p];
        (*sums)[i] = sum;
    }
}
#endif

/* --- the three passes --------------------------------------------------------------------------------------
 */

static int64_t end_of(const search *s, int64_t first) {
    return first + TASK_ROWS < s->g->n ? first + TASK_ROWS : s->g->n;
}

/* upper of a task's rows, and its floor. */
static void bound_rows(const search *s, int64_t first, task *out) {
    const sago_greedy *g = s->g;
    lanes floors = (lanes){0} - INFINITY;
    for (int64_t j = first; j < end_of(s, first); j++) {
        int_lanes sums;
        dot_rows(&sums, g->q + j * g->padded, s->y, g->padded);
        lanes middle = __builtin_convertvector(sums, lanes) * (g->step[j] * s->by_step);
        lanes bound = g->error[j] * s->by_error + g->length[j] * s->by_length + s->least;
        lanes lower = middle - bound;
        s->upper[j] = middle + bound;
        int_lanes above = lower > floors;
        floors = (lanes)((above & (int_lanes)lower) | (~above & (int_lanes)floors));
    }
    memcpy(out->floor, &floors, sizeof floors);
}

/* Lists a task's rows that may be the answer for some row of x. */
static void list_candidates(const search *s, const lanes *threshold, int64_t first, task *out) {
    int32_t *list = s->candidates + first;
    out->candidates = 0;
    for (int64_t j = first; j < end_of(s, first); j++) {
        int_lanes reach = s->upper[j] >= *threshold;
        int64_t any[ROWS / 2];
        memcpy(any, &reach, sizeof any);
        list[out->candidates] = (int32_t)j;
        out->candidates += (any[0] | any[1] | any[2] | any[3]) != 0;
    }
}

/* The best of a task's candidates; more rows of x than asked for are computed with each, which does no harm.
 */
static void compute_candidates(const search *s, const sago_gemm *product, int64_t first, task *out) {
    for (int i = 0; i < ROWS; i++) out->best[i] = -INFINITY, out->id[i] = 0;
    for (int64_t at = 0; at < out->candidates; at++) {
        int32_t j = s->candidates[first + at];
        float logits[ROWS];
        SAGO_CPU(product_few_column)(product, logits, s->x, s->g->w + j * s->g->k);
        for (int i = 0; i < ROWS; i++)
            if (logits[i] > out->best[i]) out->best[i] = logits[i], out->id[i] = j; /* in the order of j */
    }
}

static sago_status choose(sago_device *device, const sago_greedy *g, int32_t *ids, const float *x,
                          int64_t rows, bool *settled) {
    int64_t n_tasks = (g->n + TASK_ROWS - 1) / TASK_ROWS, total = 0;
    int n_threads = device->n_threads;
    size_t upper_bytes = (size_t)g->n * sizeof(lanes), x_bytes = (size_t)(ROWS * g->k) * sizeof(float),
           y_bytes = (size_t)(ROWS * g->padded) * sizeof(int16_t),
           tasks_bytes = (size_t)n_tasks * sizeof(task);
    x_bytes = (x_bytes + 63) / 64 * 64;
    *settled = false;
    if (!g->usable) return SAGO_OK;
    void *scratch;
    SAGO_TRY(sago_cpu_scratch(
        device, upper_bytes + x_bytes + y_bytes + tasks_bytes + (size_t)g->n * sizeof(int32_t), &scratch));
    char *at = scratch;
    search s = {.g = g, .upper = scratch};
    float *padded_x = (float *)(void *)(at += upper_bytes);
    s.y = (int16_t *)(void *)(at += x_bytes);
    s.tasks = (task *)(void *)(at += y_bytes);
    s.candidates = (int32_t *)(void *)(at + tasks_bytes);
    memcpy(padded_x, x, (size_t)(rows * g->k) * sizeof *x);
    memset(padded_x + rows * g->k, 0, (size_t)((ROWS - rows) * g->k) * sizeof *x);
    s.x = padded_x;
    for (int i = 0; i < ROWS; i++)
        if (!copy_x(&s, i)) return SAGO_OK;

#pragma omp parallel for schedule(static) num_threads(n_threads)
    for (int64_t t = 0; t < n_tasks; t++) bound_rows(&s, t * TASK_ROWS, &s.tasks[t]);
    lanes threshold = (lanes){0} - INFINITY;
    for (int64_t t = 0; t < n_tasks; t++)
        for (int i = 0; i < ROWS; i++)
            threshold[i] = s.tasks[t].floor[i] > threshold[i] ? s.tasks[t].floor[i] : threshold[i];
#pragma omp parallel for schedule(static) num_threads(n_threads) reduction(+ : total)
    for (int64_t t = 0; t < n_tasks; t++) {
        list_candidates(&s, &threshold, t * TASK_ROWS, &s.tasks[t]);
        total += s.tasks[t].candidates;
    }
    if (total > g->n / MOST_SHARE + ROWS) return SAGO_OK;
    const sago_gemm product = {.m = rows, .n = g->n, .k = g->k, .transpose_b = true, .alpha = g->scale};
#pragma omp parallel for schedule(dynamic, 1) num_threads(n_threads)
    for (int64_t t = 0; t < n_tasks; t++) compute_candidates(&s, &product, t * TASK_ROWS, &s.tasks[t]);
    for (int i = 0; i < rows; i++) {
        float best = -INFINITY;
        ids[i] = 0;
        for (int64_t t = 0; t < n_tasks && s.least[i] > 0; t++)
            if (s.tasks[t].best[i] > best) best = s.tasks[t].best[i], ids[i] = s.tasks[t].id[i];
    }
    *settled = true;
    return SAGO_OK;
}

const sago_cpu_greedy SAGO_CPU(greedy) = {.prepare = prepare, .choose = choose};

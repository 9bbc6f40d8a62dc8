// SPDX-License-Identifier: Apache-2.0
/**
 * Adafactor in three passes over the gradients (docs/kernels/adafactor.md). All parameters of a call are cut
 * into pieces by their shapes alone; threads take pieces as they come, each piece leaves its sums in a place
 * of its own, and these are added in the order of the pieces.
 */
#include "adafactor.h"
#include "cpu_ops.h"
#include "vector_math.h"

#include <math.h>
#include <string.h>

enum {
    PIECE_ELEMENTS = 65536, /* 256 KiB: long enough to stream, short enough to share out */
    PIECE_ROWS = 64,        /* of wide matrices, so that a piece's column sums are small beside it */
    BLOCK = 512,            /* columns whose sums stay in fp32 before they join a double */
};

/** Rows [first, last) of a factored slot, or elements [first, last) of another. */
typedef struct piece {
    sago_adafactor_slot *slot;
    int64_t first, last;
    int64_t number;  /* of the slot, among slots */
    double sum;      /* of value^2 or y^2 */
    double *columns; /* sums by column; factored ones, statistics only */
} piece;

/** What the elements of a slot share. */
typedef struct shared {
    double mean;   /* of the row moments */
    double factor; /* of y in the update */
    float *column; /* gradient_scale / sqrt(column moment) */
    int64_t columns, first_piece, n_pieces;
} shared;

typedef struct plan {
    const sago_adafactor_args *args;
    double scale; /* of the gradient where it is read */
    bool apply;
    int64_t n_slots, n_pieces;
    shared *slots;
    piece *pieces;
} plan;

static int64_t piece_length(const sago_adafactor_slot *slot, int64_t columns) {
    if (!slot->factored) return PIECE_ELEMENTS;
    int64_t rows = PIECE_ELEMENTS / (columns > 0 ? columns : 1);
    return rows > PIECE_ROWS ? rows : PIECE_ROWS;
}

static size_t aligned(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

/** Cuts the slots into pieces. sums: room for the column sums of each piece. */
static sago_status make_plan(sago_device *device, const char *operation, sago_adafactor_slot slots[], int n,
                             const sago_adafactor_args *args, bool sums, plan *out) {
    SAGO_TRY(sago_adafactor_check(operation, slots, n, args));
    for (int s = 0; s < n; s++)
        if (slots[s].value.dtype != SAGO_F32)
            return sago_fail(SAGO_E_SHAPE, "%s, parameter %d: the cpu device keeps parameters in f32",
                             operation, s);
    int64_t n_pieces = 0, n_columns = 0, n_sums = 0;
    for (int s = 0; s < n; s++) {
        int64_t rows, columns;
        sago_adafactor_extent(&slots[s], &rows, &columns);
        int64_t count = slots[s].factored ? rows : rows * columns, length = piece_length(&slots[s], columns);
        int64_t pieces = (count + length - 1) / length;
        n_pieces += pieces;
        if (slots[s].factored) n_columns += (columns + 15) / 16 * 16, n_sums += sums ? pieces * columns : 0;
    }
    size_t shared_bytes = aligned((size_t)n * sizeof(shared)),
           pieces_bytes = aligned((size_t)n_pieces * sizeof(piece));
    size_t columns_bytes = aligned((size_t)n_columns * sizeof(float));
    char *memory;
    SAGO_TRY(sago_cpu_scratch(device,
                              shared_bytes + pieces_bytes + columns_bytes + (size_t)n_sums * sizeof(double),
                              (void **)&memory));
    *out = (plan){.args = args,
                  .scale = args->control ? args->control->gradient_scale : 1,
                  .apply = !args->control || args->control->apply,
                  .n_slots = n,
                  .n_pieces = n_pieces,
                  .slots = (shared *)memory,
                  .pieces = (piece *)(memory + shared_bytes)};
    float *column = (float *)(memory + shared_bytes + pieces_bytes);
    double *sum = (double *)(memory + shared_bytes + pieces_bytes + columns_bytes);
    int64_t at = 0;
    for (int s = 0; s < n; s++) {
        int64_t rows, columns;
        sago_adafactor_extent(&slots[s], &rows, &columns);
        int64_t count = slots[s].factored ? rows : rows * columns, length = piece_length(&slots[s], columns);
        out->slots[s] = (shared){.columns = columns, .column = column, .first_piece = at};
        for (int64_t first = 0; first < count; first += length, at++) {
            int64_t last = first + length < count ? first + length : count;
            out->pieces[at] =
                (piece){.slot = &slots[s], .first = first, .last = last, .number = s, .columns = sum};
            if (slots[s].factored && sums) sum += columns;
        }
        out->slots[s].n_pieces = at - out->slots[s].first_piece;
        if (slots[s].factored) column += (columns + 15) / 16 * 16;
    }
    return SAGO_OK;
}

/** The pieces' sums of a slot, in their order. */
static double total(const plan *p, int64_t slot) {
    double sum = 0;
    for (int64_t i = 0; i < p->slots[slot].n_pieces; i++)
        sum += p->pieces[p->slots[slot].first_piece + i].sum;
    return sum;
}

/* One body for statistics and apply, not inlined into either: both must come to the same bits. */
static __attribute__((noinline)) double sum_of_squares(const float *x, int64_t n) {
    double sum = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t count = n - start < BLOCK ? n - start : BLOCK;
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int64_t j = 0; j < count; j++) part += x[start + j] * x[start + j];
        sum += (double)part;
    }
    return sum;
}

static double squares_of_values(const piece *p, const shared *sh) {
    int64_t width = p->slot->factored ? sh->columns : 1;
    return sum_of_squares((const float *)p->slot->value.data + p->first * width,
                          (p->last - p->first) * width);
}

static bool square_is_known(const sago_adafactor_slot *slot) {
    return slot->kept_square && *slot->kept_square != 0;
}

/**
 * Sums of s = (scale g)^2 + 1e-30 over a piece's rows and columns. Four rows go together, so that the column
 * sums are read and written once for the four.
 */
static void sum_piece(const piece *p, int64_t columns, float scale) {
    const float *g = p->slot->gradient.data, epsilon = (float)SAGO_ADAFACTOR_EPSILON;
    memset(p->columns, 0, (size_t)columns * sizeof(double));
    for (int64_t i = p->first; i < p->last; i++) p->slot->row_sum[i] = 0;
    for (int64_t start = 0; start < columns; start += BLOCK) {
        int64_t count = columns - start < BLOCK ? columns - start : BLOCK;
        float column[BLOCK];
        for (int64_t group = p->first; group < p->last; group += PIECE_ROWS) {
            int64_t end = group + PIECE_ROWS < p->last ? group + PIECE_ROWS : p->last, i = group;
            memset(column, 0, sizeof column);
            for (; i + 4 <= end; i += 4) {
                const float *a = g + i * columns + start, *b = a + columns, *c = b + columns,
                            *d = c + columns;
                float sum_a = 0.0f, sum_b = 0.0f, sum_c = 0.0f, sum_d = 0.0f;
#pragma omp simd reduction(+ : sum_a, sum_b, sum_c, sum_d)
                for (int64_t j = 0; j < count; j++) {
                    float x = a[j] * scale, y = b[j] * scale, z = c[j] * scale, w = d[j] * scale;
                    x = x * x + epsilon, y = y * y + epsilon, z = z * z + epsilon, w = w * w + epsilon;
                    sum_a += x, sum_b += y, sum_c += z, sum_d += w;
                    column[j] += (x + y) + (z + w);
                }
                p->slot->row_sum[i] += (double)sum_a, p->slot->row_sum[i + 1] += (double)sum_b;
                p->slot->row_sum[i + 2] += (double)sum_c, p->slot->row_sum[i + 3] += (double)sum_d;
            }
            for (; i < end; i++) {
                const float *a = g + i * columns + start;
                float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
                for (int64_t j = 0; j < count; j++) {
                    float x = a[j] * scale;
                    x = x * x + epsilon;
                    sum += x, column[j] += x;
                }
                p->slot->row_sum[i] += (double)sum;
            }
            for (int64_t j = 0; j < count; j++) p->columns[start + j] += (double)column[j];
        }
    }
}

/** Once the rows' sums of this step are known, and before they move the moments. */
static void sum_mean_parts(const sago_adafactor_slot *slot, int64_t columns) {
    int64_t rows = columns > 0 ? sago_tensor_count(slot->value) / columns : 0;
    slot->mean_parts[0] = slot->mean_parts[1] = 0;
    for (int64_t i = 0; i < rows; i++) {
        slot->mean_parts[0] += slot->row_sum[i];
        slot->mean_parts[1] += (double)slot->row[i];
    }
}

sago_status SAGO_CPU(adafactor_statistics)(sago_device *device, sago_adafactor_slot slots[], int n,
                                           const sago_adafactor_args *args) {
    plan p;
    SAGO_TRY(make_plan(device, "adafactor_statistics", slots, n, args, true, &p));
    if (!p.apply) return SAGO_OK;
#pragma omp parallel num_threads(device->n_threads)
    {
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < p.n_pieces; i++) {
            piece *one = &p.pieces[i];
            const shared *sh = &p.slots[one->number];
            if (one->slot->factored) sum_piece(one, sh->columns, (float)p.scale);
            if (!square_is_known(one->slot)) one->sum = squares_of_values(one, sh);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t s = 0; s < p.n_slots; s++) {
            double square = square_is_known(&slots[s]) ? *slots[s].kept_square : total(&p, s);
            *slots[s].value_square = square;
            if (slots[s].kept_square) *slots[s].kept_square = square;
            if (!slots[s].factored) continue;
            double *sum = slots[s].column_sum;
            memset(sum, 0, (size_t)p.slots[s].columns * sizeof(double));
            for (int64_t i = 0; i < p.slots[s].n_pieces; i++) {
                const double *part = p.pieces[p.slots[s].first_piece + i].columns;
                for (int64_t j = 0; j < p.slots[s].columns; j++) sum[j] += part[j];
            }
            if (slots[s].mean_parts) sum_mean_parts(&slots[s], p.slots[s].columns);
        }
    }
    return SAGO_OK;
}

/** What the pieces of a factored slot need of its moments. */
static void share_moments(const plan *p, int64_t s, const sago_adafactor_slot *slot) {
    shared *sh = &p->slots[s];
    sh->mean = sago_adafactor_mean(slot, p->args->beta2);
    if (!slot->factored) return;
    for (int64_t j = 0; j < sh->columns; j++)
        sh->column[j] = (float)(p->scale / sqrt((double)slot->column[j]));
}

/** Second moments of rows and columns, in place. */
static void average(const sago_adafactor_slot *slot, int64_t columns, double beta2) {
    int64_t rows = columns > 0 ? sago_tensor_count(slot->value) / columns : 0;
    double by_row = (1 - beta2) / (double)slot->global_columns,
           by_column = (1 - beta2) / (double)slot->global_rows;
    for (int64_t i = 0; i < rows; i++)
        slot->row[i] = (float)(beta2 * slot->row[i] + by_row * slot->row_sum[i]);
    for (int64_t j = 0; j < columns; j++)
        slot->column[j] = (float)(beta2 * slot->column[j] + by_column * slot->column_sum[j]);
}

/** Sum of y^2 over a piece of a factored slot: the row's part of y^2 is the same for all its elements. */
static double factored_squares(const piece *p, const shared *sh) {
    double sum = 0;
    for (int64_t i = p->first; i < p->last; i++) {
        const float *g = (const float *)p->slot->gradient.data + i * sh->columns;
        double row = 0;
        for (int64_t start = 0; start < sh->columns; start += BLOCK) {
            int64_t count = sh->columns - start < BLOCK ? sh->columns - start : BLOCK;
            const float *x = g + start, *column = sh->column + start;
            float part = 0.0f;
#pragma omp simd reduction(+ : part)
            for (int64_t j = 0; j < count; j++) {
                float y = x[j] * column[j];
                part += y * y;
            }
            row += (double)part;
        }
        sum += row * (sh->mean / (double)p->slot->row[i]);
    }
    return sum;
}

/** The same where every element has its own moment, which is updated on the way. */
static double whole_squares(const piece *p, const sago_adafactor_args *args, float scale) {
    const float *g = (const float *)p->slot->gradient.data + p->first;
    float *moment = p->slot->moment + p->first;
    float keep = (float)args->beta2, take = (float)(1 - args->beta2);
    float epsilon = (float)SAGO_ADAFACTOR_EPSILON;
    double sum = 0;
    for (int64_t start = 0, n = p->last - p->first; start < n; start += BLOCK) {
        int64_t count = n - start < BLOCK ? n - start : BLOCK;
        const float *in = g + start;
        float *v = moment + start, part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int64_t j = 0; j < count; j++) {
            float x = in[j] * scale;
            v[j] = keep * v[j] + take * (x * x + epsilon);
            float y = x / sqrtf(v[j]);
            part += y * y;
        }
        sum += (double)part;
    }
    return sum;
}

sago_status SAGO_CPU(adafactor_moments)(sago_device *device, sago_adafactor_slot slots[], int n,
                                        const sago_adafactor_args *args) {
    plan p;
    SAGO_TRY(make_plan(device, "adafactor_moments", slots, n, args, false, &p));
    if (!p.apply) return SAGO_OK;
#pragma omp parallel num_threads(device->n_threads)
    {
#pragma omp for schedule(dynamic, 1)
        for (int64_t s = 0; s < p.n_slots; s++) {
            if (slots[s].factored) average(&slots[s], p.slots[s].columns, args->beta2);
            share_moments(&p, s, &slots[s]);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < p.n_pieces; i++) {
            piece *one = &p.pieces[i];
            one->sum = one->slot->factored ? factored_squares(one, &p.slots[one->number])
                                           : whole_squares(one, args, (float)p.scale);
        }
    }
    for (int64_t s = 0; s < p.n_slots; s++) *slots[s].update_square = total(&p, s);
    return SAGO_OK;
}

/**
 * value = keep value - u, or its momentum's; u_j = factor x_j, x = g column[j] (factored) or scale g /
 * sqrt(moment). One loop a variant, so that each is a plain vector loop.
 */
static void apply_run(float *value, float *momentum, const float *g, const float *column, const float *moment,
                      float factor, float scale, int64_t n, const sago_adafactor_args *args) {
    float keep = (float)(1 - args->weight_decay), beta = (float)args->momentum,
          rest = (float)(1 - args->momentum);
    if (column && momentum) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) {
            momentum[j] = beta * momentum[j] + rest * (g[j] * column[j] * factor);
            value[j] = keep * value[j] - momentum[j];
        }
    } else if (column) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) value[j] = keep * value[j] - g[j] * column[j] * factor;
    } else if (momentum) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) {
            momentum[j] = beta * momentum[j] + rest * (g[j] * scale / sqrtf(moment[j]) * factor);
            value[j] = keep * value[j] - momentum[j];
        }
    } else {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) value[j] = keep * value[j] - g[j] * scale / sqrtf(moment[j]) * factor;
    }
}

static void apply_piece(const piece *p, const shared *sh, const sago_adafactor_args *args, float scale) {
    const sago_adafactor_slot *slot = p->slot;
    int64_t width = slot->factored ? sh->columns : 1;
    if (slot->learning_rate == 0) { /* values stand still, bit for bit */
        float beta = (float)args->momentum;
        for (int64_t j = p->first * width; slot->momentum && j < p->last * width; j++)
            slot->momentum[j] *= beta;
        return;
    }
    float *value = slot->value.data, *momentum = slot->momentum;
    const float *g = slot->gradient.data;
    if (!slot->factored) {
        apply_run(value + p->first, momentum ? momentum + p->first : NULL, g + p->first, NULL,
                  slot->moment + p->first, (float)sh->factor, scale, p->last - p->first, args);
        return;
    }
    for (int64_t i = p->first; i < p->last; i++)
        apply_run(value + i * width, momentum ? momentum + i * width : NULL, g + i * width, sh->column, NULL,
                  (float)(sh->factor * sqrt(sh->mean / (double)slot->row[i])), 1.0f, width, args);
}

/** Where values stood still, what is there holds. */
static bool keeps_square(const sago_adafactor_slot *slot) {
    return slot->kept_square && slot->learning_rate != 0;
}

sago_status SAGO_CPU(adafactor_apply)(sago_device *device, sago_adafactor_slot slots[], int n,
                                      const sago_adafactor_args *args) {
    plan p;
    SAGO_TRY(make_plan(device, "adafactor_apply", slots, n, args, false, &p));
    if (!p.apply) return SAGO_OK;
#pragma omp parallel num_threads(device->n_threads)
    {
#pragma omp for schedule(dynamic, 1)
        for (int64_t s = 0; s < p.n_slots; s++) {
            share_moments(&p, s, &slots[s]);
            p.slots[s].factor = sago_adafactor_factor(&slots[s], args);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < p.n_pieces; i++) {
            piece *one = &p.pieces[i];
            const shared *sh = &p.slots[one->number];
            apply_piece(one, sh, args, (float)p.scale);
            /* While the cache has the values; the next step then does not read them for it. */
            if (keeps_square(one->slot)) one->sum = squares_of_values(one, sh);
        }
    }
    for (int64_t s = 0; s < p.n_slots; s++)
        if (keeps_square(&slots[s])) *slots[s].kept_square = total(&p, s);
    return SAGO_OK;
}

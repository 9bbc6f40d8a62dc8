// SPDX-License-Identifier: Apache-2.0
/**
 * The parameters of an Adafactor call as its kernels see them: a table on the device, and how each parameter
 * is cut into tiles. A block finds its parameter by looking up its number among the entries' first tiles.
 */
#ifndef SAGO_ADAFACTOR_TABLE_H
#define SAGO_ADAFACTOR_TABLE_H

#ifdef __cplusplus
extern "C" {
#endif
#include "gpu.h"

enum {
    ADAFACTOR_BLOCK = 256,        /* threads */
    ADAFACTOR_TILE_ROWS = 64,     /* of a tile, whose column sums are small beside it */
    ADAFACTOR_TILE_COLUMNS = 512, /* a warp's run: four times four values a lane */
    ADAFACTOR_SUM_COLUMNS = 32,   /* columns that a block of the second reduction adds up */
    ADAFACTOR_MEAN_BLOCK = 1024,  /* threads of the one block that adds up a parameter's moments */
};

/**
 * A parameter as a matrix [rows, columns] of count elements. One that is not factored is cut into rows of
 * ADAFACTOR_TILE_COLUMNS elements, the last of them shorter.
 */
typedef struct adafactor_entry {
    void *value;        /* f32, or bf16 where there is a remainder */
    int16_t *remainder; /* or NULL */
    const float *gradient;
    float *row, *column, *moment, *momentum;
    double *row_sum, *column_sum, *value_square, *update_square;
    double *kept_square; /* or NULL */
    double *mean_parts;  /* or NULL */
    int64_t rows, columns, count;
    double global_rows, global_columns;
    int64_t first_tile, n_tiles, column_tiles;
    int64_t first_sum;     /* blocks of the kernel that adds up partial sums */
    int64_t first_average; /* blocks of the kernel that updates the moments of rows and columns */
    int64_t row_partial,
        column_partial; /* offsets of [column_tiles, rows], [row tiles, columns] in the floats */
    float learning_rate;
    int32_t factored, row_copies;
    int32_t mean_of_columns; /* the mean of moments is taken over columns, else over rows */
    int32_t vector;          /* groups of four elements begin at multiples of their size */
} adafactor_entry;

/** What the elements of a parameter share in a pass. */
typedef struct adafactor_shared {
    double mean;   /* of the row moments; 1 where not factored */
    double factor; /* of y in the update */
} adafactor_shared;

typedef struct adafactor_plan {
    const adafactor_entry *entries; /* device memory */
    int n;
    int64_t n_tiles, n_sums, n_averages;
    double *tile_sums;        /* scratch of the operation: [n_tiles] */
    adafactor_shared *shared; /* [n] */
    float *partial;
} adafactor_plan;

/**
 * Checks the slots, brings the table to the device (without waiting, and only if it changed since the last
 * call: the three calls of a step share it) and takes the operation's scratch. out->n_tiles is 0 where there
 * is nothing to do.
 */
sago_status SAGO_GPU(adafactor_plan)(sago_gpu *gpu, const char *operation, const sago_adafactor_slot slots[],
                                     int n, const sago_adafactor_args *args,
                                     adafactor_plan *out) SAGO_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif

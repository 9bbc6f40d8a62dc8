// SPDX-License-Identifier: Apache-2.0
/**
 * Graphs of a GPU device (graph.c), as gpu.c sees them.
 */
#ifndef SAGO_GPU_GRAPH_H
#define SAGO_GPU_GRAPH_H

#include "gpu.h"

struct sago_graph {
    sago_recording *work;
    void **scratch; /* sim: of its operations */
    int n_scratch;
};

extern const sago_graph_ops SAGO_GPU(graphs);

/** The graph that is being recorded takes scratch memory over. */
void SAGO_GPU(graph_keep)(sago_graph *graph, void *scratch);
/** Gives back scratch that has been replaced, as far as no graph may use it (gpu.c). The compute stream is idle. */
void SAGO_GPU(free_retired)(sago_gpu *gpu);

#endif

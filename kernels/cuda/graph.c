// SPDX-License-Identifier: Apache-2.0
/**
 * Graphs (ops.h): what is handed to the compute stream between begin and end, kept as one thing to launch.
 *
 * Scratch. A recorded operation uses the workspace where it was then. So, while graphs exist, a workspace that
 * has become too small is not given back (gpu.c), and while one is recorded, none may grow. On sim, where every
 * operation gets scratch of its own, that of recorded ones belongs to their graph.
 */
#include "graph.h"

#include "str.h"

#include <stdlib.h>

static sago_status begin(sago_device *device) {
    sago_gpu *gpu = sago_gpu_of(device);
    if (gpu->recorded) return sago_fail(SAGO_E_INTERNAL, "a graph is being recorded already");
    SAGO_TRY(SAGO_GPU(rt_record_begin)(gpu->compute));
    gpu->recorded = sago_alloc_zero(1, sizeof *gpu->recorded);
    gpu->n_graphs++;
    return SAGO_OK;
}

static void close(sago_device *device, sago_graph *graph) {
    sago_gpu *gpu = sago_gpu_of(device);
    sago_error before;
    if (!graph) return;
    sago_error_take(SAGO_OK, &before);
    /* A failure of the device's is told again by the next call that waits. */
    (void)!SAGO_GPU(rt_stream_wait)(gpu->compute);
    if (graph->work) SAGO_GPU(rt_recording_close)(graph->work);
    for (int i = 0; i < graph->n_scratch; i++) SAGO_GPU(rt_free)(graph->scratch[i]);
    free(graph->scratch);
    free(graph);
    gpu->n_graphs--;
    SAGO_GPU(free_retired)(gpu);
    sago_error_give(&before);
}

static sago_status end(sago_device *device, sago_graph **out) {
    sago_gpu *gpu = sago_gpu_of(device);
    sago_graph *graph = gpu->recorded;
    *out = NULL;
    if (!graph) return sago_fail(SAGO_E_INTERNAL, "no graph is being recorded");
    gpu->recorded = NULL;
    sago_status status = SAGO_GPU(rt_record_end)(gpu->compute, &graph->work);
    if (status == SAGO_OK)
        *out = graph;
    else
        close(device, graph);
    return status;
}

static sago_status launch(sago_device *device, const sago_graph *graph) {
    return SAGO_GPU(rt_recording_launch)(graph->work, sago_gpu_of(device)->compute);
}

void SAGO_GPU(graph_keep)(sago_graph *graph, void *scratch) {
    graph->scratch = sago_realloc(graph->scratch, (size_t)(graph->n_scratch + 1) * sizeof *graph->scratch);
    graph->scratch[graph->n_scratch++] = scratch;
}

const sago_graph_ops SAGO_GPU(graphs) = {.begin = begin, .end = end, .launch = launch, .close = close};

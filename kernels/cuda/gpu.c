// SPDX-License-Identifier: Apache-2.0
#include "graph.h"

#include "gpu_ops.h"
#include "str.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef SAGO_SIM
#define DEVICE_NAME "sim"
#else
#define DEVICE_NAME "cuda"
#endif

enum {
    MARKS = 256,               /* that may be told apart; an older one is waited for by a newer one's event */
    WORKSPACE_GRAIN = 1 << 20, /* the workspace grows in whole ones */
    RETIRED = 64, /* workspaces that may still be in use */
};

/* Memory that allocate or allocate_host handed out. */
typedef struct block {
    void *memory;
    size_t bytes;
    const char *purpose; /* NULL: of the host */
} block;

typedef struct inside {
    pthread_mutex_t lock;    /* of everything here but the workspace's, which only the thread that hands over work uses */
    pthread_mutex_t fetching, putting; /* of the copy streams: one copy a way at a time */
    sago_event *events[MARKS];
    sago_mark newest;
    block *blocks;
    int n_blocks, room;
    void *retired[RETIRED]; /* of operations that may not have run yet (sim), or of graphs (cuda) */
    int n_retired;
    size_t most_workspace_bytes; /* that an operation has asked for */
} inside;

static inside *inside_of(sago_device *device) {
    return sago_gpu_of(device)->inside;
}

/* --- what is allocated
 * --------------------------------------------------------------------------------------- */

static void remember(inside *in, void *memory, size_t bytes, const char *purpose) {
    if (in->n_blocks == in->room) {
        in->room = in->room ? 2 * in->room : 32;
        in->blocks = sago_realloc(in->blocks, (size_t)in->room * sizeof *in->blocks);
    }
    in->blocks[in->n_blocks++] = (block){memory, bytes, purpose};
}

static size_t forget(inside *in, const void *memory) {
    for (int i = 0; i < in->n_blocks; i++)
        if (in->blocks[i].memory == memory) {
            size_t bytes = in->blocks[i].bytes;
            in->blocks[i] = in->blocks[--in->n_blocks];
            return bytes;
        }
    return 0;
}

/* One line: what was asked for and by whom, what holds the rest, what is free, what helps. */
static sago_status no_memory(sago_gpu *gpu, size_t bytes, const char *purpose) {
    inside *in = gpu->inside;
    sago_str held = {0};
    bool hint = strcmp(purpose, "activations") != 0; /* there the model says it, with its sizes */
    for (int i = 0; i < in->n_blocks; i++) {
        size_t sum = 0;
        bool first = in->blocks[i].purpose != NULL;
        for (int j = 0; first && j < in->n_blocks; j++) {
            if (!in->blocks[j].purpose || strcmp(in->blocks[j].purpose, in->blocks[i].purpose) != 0) continue;
            if (j < i) first = false;
            sum += in->blocks[j].bytes;
        }
        if (first) sago_str_printf(&held, "%s %.3g GB, ", in->blocks[i].purpose, (double)sum * 1e-9);
    }
    sago_str_printf(&held, "scratch %.3g GB", (double)gpu->workspace_bytes * 1e-9);
    size_t free_bytes = 0, total_bytes = 0;
    sago_status status = SAGO_GPU(rt_memory_info)(&free_bytes, &total_bytes);
    if (status == SAGO_OK)
        status = sago_fail(
            SAGO_E_MEMORY,
            DEVICE_NAME ": no memory for %.3g GB of %s: %.3g of %.3g GB are free, taken are %s%s",
            (double)bytes * 1e-9, purpose, (double)free_bytes * 1e-9, (double)total_bytes * 1e-9,
            sago_str_text(&held),
            hint ? "; lower train.micro_batch or train.loss_chunk, or set train.recompute=true" : "");
    sago_str_free(&held);
    return status;
}

/* For the thread that hands over work. */
static sago_status wait_for_compute(sago_gpu *gpu) {
    gpu->device.host_waits++;
    return SAGO_GPU(rt_stream_wait)(gpu->compute);
}

static void count(sago_gpu *gpu, int64_t bytes) {
    sago_device *d = &gpu->device;
    d->allocated_bytes += (size_t)bytes;
    if (d->allocated_bytes > d->most_allocated_bytes) d->most_allocated_bytes = d->allocated_bytes;
}

static sago_status allocate_zeroed(sago_gpu *gpu, void **out, size_t bytes, const char *purpose) {
    inside *in = gpu->inside;
    size_t room = bytes ? bytes : 1;
    sago_status status = SAGO_GPU(rt_malloc)(out, room);
    if (status == SAGO_E_MEMORY) return no_memory(gpu, bytes, purpose);
    SAGO_TRY(status);
    /* Waited for, so that whichever stream comes first finds zeros. */
    status = SAGO_GPU(rt_set)(*out, 0, room, gpu->up);
    if (status == SAGO_OK) status = SAGO_GPU(rt_stream_wait)(gpu->up);
    if (status != SAGO_OK) {
        SAGO_GPU(rt_free)(*out);
        *out = NULL;
        return status;
    }
    remember(in, *out, bytes, purpose);
    count(gpu, (int64_t)bytes);
    return SAGO_OK;
}

sago_status SAGO_GPU(allocate)(sago_device *device, void **out, size_t bytes) {
    inside *in = inside_of(device);
    *out = NULL;
    pthread_mutex_lock(&in->lock);
    sago_status status =
        allocate_zeroed(sago_gpu_of(device), out, bytes, device->purpose ? device->purpose : "other data");
    pthread_mutex_unlock(&in->lock);
    return status;
}

void SAGO_GPU(release)(sago_device *device, void *memory) {
    sago_gpu *gpu = sago_gpu_of(device);
    inside *in = gpu->inside;
    if (!memory) return;
    pthread_mutex_lock(&in->lock);
    count(gpu, -(int64_t)forget(in, memory));
    SAGO_GPU(rt_free)(memory);
    pthread_mutex_unlock(&in->lock);
}

sago_status SAGO_GPU(allocate_host)(sago_device *device, void **out, size_t bytes) {
    inside *in = inside_of(device);
    size_t room = bytes ? bytes : 1;
    *out = NULL;
    SAGO_TRY(SAGO_GPU(rt_malloc_host)(out, room));
    memset(*out, 0, room);
    pthread_mutex_lock(&in->lock);
    remember(in, *out, room, NULL);
    pthread_mutex_unlock(&in->lock);
    return SAGO_OK;
}

void SAGO_GPU(release_host)(sago_device *device, void *memory) {
    inside *in = inside_of(device);
    if (!memory) return;
    pthread_mutex_lock(&in->lock);
    forget(in, memory);
    pthread_mutex_unlock(&in->lock);
    SAGO_GPU(rt_free_host)(memory);
}

/* --- scratch
 * ------------------------------------------------------------------------------------------------- */

static sago_status note_workspace(sago_gpu *gpu, size_t bytes) {
    inside *in = gpu->inside;
    if (bytes <= in->most_workspace_bytes) return SAGO_OK;
    if (gpu->recorded)
        return sago_fail(SAGO_E_INTERNAL,
                         DEVICE_NAME ": %zu bytes of scratch are wanted in a graph, more than ever before it",
                         bytes);
    in->most_workspace_bytes = bytes;
    return SAGO_OK;
}

#ifdef SAGO_SIM

/*
 * Every operation gets memory of its own, of just the size that it asked for and full of NaN: the guards of
 * the runtime then stand right behind it, and what an operation reads before it wrote it is not what the one
 * before left.
 */
sago_status SAGO_GPU(workspace)(sago_gpu *gpu, size_t bytes, void **out) {
    inside *in = gpu->inside;
    *out = NULL;
    SAGO_TRY(note_workspace(gpu, bytes));
    if (!gpu->recorded) {
        if (in->n_retired == RETIRED) {
            SAGO_TRY(SAGO_GPU(rt_stream_wait)(gpu->compute));
            SAGO_GPU(free_retired)(gpu);
        }
        if (gpu->workspace) in->retired[in->n_retired++] = gpu->workspace;
        count(gpu, -(int64_t)gpu->workspace_bytes);
        gpu->workspace = NULL, gpu->workspace_bytes = 0;
    }
    sago_status status = SAGO_GPU(rt_malloc)(out, bytes ? bytes : 1);
    if (status == SAGO_E_MEMORY) return no_memory(gpu, bytes, "scratch");
    SAGO_TRY(status);
    if (gpu->recorded) {
        SAGO_GPU(graph_keep)(gpu->recorded, *out);
    } else {
        gpu->workspace = *out, gpu->workspace_bytes = bytes;
        count(gpu, (int64_t)bytes);
    }
    return SAGO_GPU(rt_set)(*out, 0xff, bytes, gpu->compute);
}

void SAGO_GPU(free_retired)(sago_gpu *gpu) {
    inside *in = gpu->inside;
    while (in->n_retired > 0) SAGO_GPU(rt_free)(in->retired[--in->n_retired]);
}

#else

sago_status SAGO_GPU(workspace)(sago_gpu *gpu, size_t bytes, void **out) {
    inside *in = gpu->inside;
    SAGO_TRY(note_workspace(gpu, bytes));
    if (bytes > gpu->workspace_bytes) {
        size_t room = (bytes + WORKSPACE_GRAIN - 1) / WORKSPACE_GRAIN * WORKSPACE_GRAIN;
        /* Operations that are under way may still use the old one, and graphs later. */
        SAGO_TRY(wait_for_compute(gpu));
        if (gpu->workspace && in->n_retired == RETIRED)
            return sago_fail(SAGO_E_INTERNAL, DEVICE_NAME ": scratch has grown too often under a graph");
        if (gpu->workspace) in->retired[in->n_retired++] = gpu->workspace;
        SAGO_GPU(free_retired)(gpu);
        count(gpu, -(int64_t)gpu->workspace_bytes);
        gpu->workspace = NULL, gpu->workspace_bytes = 0;
        *out = NULL;
        sago_status status = SAGO_GPU(rt_malloc)(&gpu->workspace, room);
        if (status == SAGO_E_MEMORY) return no_memory(gpu, room, "scratch");
        SAGO_TRY(status);
        gpu->workspace_bytes = room;
        count(gpu, (int64_t)room);
    }
    *out = gpu->workspace;
    return SAGO_OK;
}

void SAGO_GPU(free_retired)(sago_gpu *gpu) {
    inside *in = gpu->inside;
    while (gpu->n_graphs == 0 && in->n_retired > 0) SAGO_GPU(rt_free)(in->retired[--in->n_retired]);
}

#endif

/* --- copies
 * ---------------------------------------------------------------------------------------------------- */

sago_status SAGO_GPU(upload)(sago_device *device, void *to_device, const void *from_host, size_t bytes) {
    sago_gpu *gpu = sago_gpu_of(device);
    if (bytes == 0) return SAGO_OK;
    SAGO_TRY(SAGO_GPU(rt_copy)(to_device, from_host, bytes, SAGO_HOST_TO_DEVICE, gpu->compute));
    return wait_for_compute(gpu); /* the caller may write its memory again */
}

sago_status SAGO_GPU(download)(sago_device *device, void *to_host, const void *from_device, size_t bytes) {
    sago_gpu *gpu = sago_gpu_of(device);
    if (bytes == 0) return SAGO_OK;
    SAGO_TRY(SAGO_GPU(rt_copy)(to_host, from_device, bytes, SAGO_DEVICE_TO_HOST, gpu->compute));
    return wait_for_compute(gpu);
}

/*
 * Small copies, of a batch's ids and a step's sums, stay on the compute stream: they cost microseconds there,
 * and the order with the operations round them needs no thought.
 */
sago_status SAGO_GPU(upload_async)(sago_device *device, void *to_device, const void *from_host,
                                   size_t bytes) {
    if (bytes == 0) return SAGO_OK;
    return SAGO_GPU(rt_copy)(to_device, from_host, bytes, SAGO_HOST_TO_DEVICE, sago_gpu_of(device)->compute);
}

sago_status SAGO_GPU(download_async)(sago_device *device, void *to_host, const void *from_device,
                                     size_t bytes) {
    if (bytes == 0) return SAGO_OK;
    return SAGO_GPU(rt_copy)(to_host, from_device, bytes, SAGO_DEVICE_TO_HOST, sago_gpu_of(device)->compute);
}

sago_status SAGO_GPU(synchronize)(sago_device *device) {
    sago_gpu *gpu = sago_gpu_of(device);
    SAGO_TRY(wait_for_compute(gpu));
    SAGO_GPU(free_retired)(gpu);
    SAGO_TRY(SAGO_GPU(rt_stream_wait)(gpu->down));
    return SAGO_GPU(rt_stream_wait)(gpu->up);
}

sago_status SAGO_GPU(mark)(sago_device *device, sago_mark *out) {
    sago_gpu *gpu = sago_gpu_of(device);
    inside *in = gpu->inside;
    sago_status status = SAGO_OK;
    pthread_mutex_lock(&in->lock);
    sago_event **event = &in->events[(in->newest + 1) % MARKS];
    if (!*event) status = SAGO_GPU(rt_event_open)(event);
    if (status == SAGO_OK) status = SAGO_GPU(rt_event_record)(*event, gpu->compute);
    if (status == SAGO_OK) *out = ++in->newest;
    pthread_mutex_unlock(&in->lock);
    return status;
}

/* Mark 0 is before all work: *out is NULL. */
static sago_status find_mark(inside *in, sago_mark mark, sago_event **out) {
    pthread_mutex_lock(&in->lock);
    bool set = mark <= in->newest;
    *out = set && mark ? in->events[mark % MARKS] : NULL;
    pthread_mutex_unlock(&in->lock);
    if (set) return SAGO_OK;
    return sago_fail(SAGO_E_INTERNAL, DEVICE_NAME ": mark %llu is not set yet", (unsigned long long)mark);
}

sago_status SAGO_GPU(await)(sago_device *device, sago_mark mark) {
    sago_gpu *gpu = sago_gpu_of(device);
    sago_event *event;
    SAGO_TRY(SAGO_GPU(rt_attach)(gpu->properties.index));
    SAGO_TRY(find_mark(gpu->inside, mark, &event));
    return event ? SAGO_GPU(rt_event_wait)(event) : SAGO_OK;
}

sago_status SAGO_GPU(fetch)(sago_device *device, void *to_host, const void *from_device, size_t bytes,
                            sago_mark after) {
    sago_gpu *gpu = sago_gpu_of(device);
    inside *in = gpu->inside;
    sago_event *event;
    if (bytes == 0) return SAGO_OK;
    SAGO_TRY(SAGO_GPU(rt_attach)(gpu->properties.index));
    SAGO_TRY(find_mark(in, after, &event));
    pthread_mutex_lock(&in->fetching);
    sago_status status = event ? SAGO_GPU(rt_stream_wait_event)(gpu->down, event) : SAGO_OK;
    if (status == SAGO_OK)
        status = SAGO_GPU(rt_copy)(to_host, from_device, bytes, SAGO_DEVICE_TO_HOST, gpu->down);
    if (status == SAGO_OK) status = SAGO_GPU(rt_stream_wait)(gpu->down);
    pthread_mutex_unlock(&in->fetching);
    return status;
}

sago_status SAGO_GPU(put)(sago_device *device, void *to_device, const void *from_host, size_t bytes) {
    sago_gpu *gpu = sago_gpu_of(device);
    inside *in = gpu->inside;
    if (bytes == 0) return SAGO_OK;
    SAGO_TRY(SAGO_GPU(rt_attach)(gpu->properties.index));
    pthread_mutex_lock(&in->putting);
    sago_status status = SAGO_GPU(rt_copy)(to_device, from_host, bytes, SAGO_HOST_TO_DEVICE, gpu->up);
    if (status == SAGO_OK) status = SAGO_GPU(rt_stream_wait)(gpu->up);
    pthread_mutex_unlock(&in->putting);
    return status;
}

/* --- opening
 * --------------------------------------------------------------------------------------------------- */

/* "cuda: NVIDIA H100 80GB HBM3 (1 of 8), 85.0 GB, sm_90, driver 13.0, CUDA 13.0, cuBLASLt 13.1.0" */
static void describe(sago_gpu *gpu, const char *products) {
    const sago_gpu_properties *p = &gpu->properties;
    char *to = gpu->device.description;
    size_t bytes = sizeof gpu->device.description;
#ifdef SAGO_SIM
    snprintf(to, bytes, DEVICE_NAME ": %s, products by %s", p->name, products);
#else
    snprintf(to, bytes, DEVICE_NAME ": %s (%d of %d), %.1f GB, sm_%d%d, driver %d.%d, CUDA %d.%d, %s",
             p->name, p->index + 1, p->count, (double)p->memory_bytes * 1e-9, p->major, p->minor,
             p->driver_version / 1000, p->driver_version % 1000 / 10, p->runtime_version / 1000,
             p->runtime_version % 1000 / 10, products);
#endif
}

/* Dense bf16 with fp32 sums, in TFLOP/s, by NVIDIA's data sheets; the first name that is part of the GPU's.
 */
static double peak_flops(const char *name) {
    static const struct {
        const char *name;
        double tflops;
    } peaks[] = {{"GB200", 2500}, {"B200", 2250},  {"H200 NVL", 835.5}, {"H200", 989.4}, {"H100 PCIe", 756}, {"H100 NVL", 835},
                 {"H100", 989.4}, {"H800", 989.4}, {"H20", 148},      {"A100", 312},      {"A800", 312},
                 {"L40S", 362},   {"L40", 181},    {"NVIDIA L4", 121}};
    for (size_t i = 0; i < sizeof peaks / sizeof *peaks; i++)
        if (strstr(name, peaks[i].name)) return peaks[i].tflops * 1e12;
    return 0;
}

sago_status SAGO_GPU(open)(const char *variant, int n_threads, int local_rank, sago_device **out) {
    char products[48] = "";
    sago_gpu *gpu = sago_alloc_zero(1, sizeof *gpu);
    inside *in = sago_alloc_zero(1, sizeof *in);
    sago_status status;
    *out = NULL;
    pthread_mutex_init(&in->lock, NULL);
    pthread_mutex_init(&in->fetching, NULL);
    pthread_mutex_init(&in->putting, NULL);
    gpu->inside = in;
    gpu->device = (sago_device){.ops = &SAGO_GPU(table),
                                .graphs = &SAGO_GPU(graphs),
                                .fits_heads = SAGO_GPU(attention_fits),
                                .name = DEVICE_NAME,
                                .n_threads = n_threads,
                                .has_bf16 = true,
                                .stores_bf16 = true,
                                .asynchronous = true,
                                .state = gpu};
    SAGO_TRY_TO(failed, SAGO_GPU(rt_open)(local_rank, variant, &gpu->properties));
    SAGO_TRY_TO(failed, SAGO_GPU(rt_stream_open)(&gpu->compute));
    SAGO_TRY_TO(failed, SAGO_GPU(rt_stream_open)(&gpu->down));
    SAGO_TRY_TO(failed, SAGO_GPU(rt_stream_open)(&gpu->up));
    SAGO_TRY_TO(failed, SAGO_GPU(products_open)(gpu, products));
    describe(gpu, products);
    gpu->device.peak_flops = peak_flops(gpu->properties.name);
    *out = &gpu->device;
    return SAGO_OK;
failed:
    SAGO_GPU(close)(&gpu->device);
    return status;
}

void SAGO_GPU(close)(sago_device *device) {
    sago_gpu *gpu = sago_gpu_of(device);
    inside *in = gpu->inside;
    sago_error failure;
    /* What ended the run was reported where it happened; here work only has to stop using the memory. */
    sago_error_take(SAGO_OK, &failure);
    if (gpu->compute) (void)!SAGO_GPU(rt_stream_wait)(gpu->compute);
    if (gpu->down) (void)!SAGO_GPU(rt_stream_wait)(gpu->down);
    if (gpu->up) (void)!SAGO_GPU(rt_stream_wait)(gpu->up);
    SAGO_GPU(products_close)(gpu);
    SAGO_GPU(adafactor_close)(gpu);
    for (int i = 0; i < MARKS; i++)
        if (in->events[i]) SAGO_GPU(rt_event_close)(in->events[i]);
    if (gpu->workspace) SAGO_GPU(rt_free)(gpu->workspace);
    SAGO_GPU(free_retired)(gpu);
    if (gpu->compute) SAGO_GPU(rt_stream_close)(gpu->compute);
    if (gpu->down) SAGO_GPU(rt_stream_close)(gpu->down);
    if (gpu->up) SAGO_GPU(rt_stream_close)(gpu->up);
    sago_error_give(&failure);
    pthread_mutex_destroy(&in->lock);
    pthread_mutex_destroy(&in->fetching);
    pthread_mutex_destroy(&in->putting);
    free(in->blocks);
    free(in);
    free(gpu);
}

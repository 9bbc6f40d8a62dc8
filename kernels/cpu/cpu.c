// SPDX-License-Identifier: Apache-2.0
#include "cpu_ops.h"
#include "greedy_loops.h"
#include "onednn.h"

#include <ctype.h>
#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

enum {
    LARGE_BYTES = 1 << 20,     /* from here on memory comes from mmap: zeroed lazily, in huge pages */
    HUGE_PAGE_BYTES = 2 << 20, /* x86-64 */
    HEADER_BYTES = 64,
};

/* Stands right before every block that allocate hands out. */
typedef struct header {
    void *start;
    size_t mapped_bytes; /* 0: from the heap */
} header;

_Static_assert(sizeof(header) <= HEADER_BYTES, "the header must fit before the block");

sago_status sago_cpu_allocate(sago_device *device, void **out, size_t bytes) {
    (void)device;
    header h = {0};
    char *block;
    *out = NULL;
    if (bytes > SIZE_MAX - 2 * HUGE_PAGE_BYTES)
        return sago_fail(SAGO_E_MEMORY, "cpu: %zu bytes are more than an address can say", bytes);
    if (bytes < LARGE_BYTES) {
        if (posix_memalign(&h.start, 64, HEADER_BYTES + bytes) != 0) h.start = NULL;
        if (!h.start) return sago_fail(SAGO_E_MEMORY, "cpu: no memory for %zu bytes", bytes);
        block = (char *)h.start + HEADER_BYTES;
        memset(block, 0, bytes);
    } else {
        h.mapped_bytes = bytes + 2 * HUGE_PAGE_BYTES;
        h.start = mmap(NULL, h.mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (h.start == MAP_FAILED)
            return sago_fail_errno(SAGO_E_MEMORY, "cpu: no memory for %.1f MB", (double)bytes / 1e6);
        uintptr_t at = (uintptr_t)h.start + HEADER_BYTES + HUGE_PAGE_BYTES - 1;
        block = (char *)(at / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES);
        madvise(block, bytes, MADV_HUGEPAGE); /* only advice: without huge pages it is slower, not wrong */
    }
    memcpy(block - HEADER_BYTES, &h, sizeof h);
    *out = block;
    return SAGO_OK;
}

void sago_cpu_release(sago_device *device, void *memory) {
    (void)device;
    if (!memory) return;
    header h;
    memcpy(&h, (char *)memory - HEADER_BYTES, sizeof h);
    if (h.mapped_bytes)
        munmap(h.start, h.mapped_bytes);
    else
        free(h.start);
}

sago_status sago_cpu_upload(sago_device *device, void *to_device, const void *from_host, size_t bytes) {
    (void)device;
    if (bytes) memcpy(to_device, from_host, bytes);
    return SAGO_OK;
}

sago_status sago_cpu_download(sago_device *device, void *to_host, const void *from_device, size_t bytes) {
    (void)device;
    if (bytes) memcpy(to_host, from_device, bytes);
    return SAGO_OK;
}

sago_status sago_cpu_synchronize(sago_device *device) {
    (void)device;
    return SAGO_OK;
}

/* Every operation is done when it returns: there is nothing to wait for. */
sago_status sago_cpu_mark(sago_device *device, sago_mark *out) {
    (void)device;
    *out = 0;
    return SAGO_OK;
}

sago_status sago_cpu_await(sago_device *device, sago_mark mark) {
    (void)device, (void)mark;
    return SAGO_OK;
}

sago_status sago_cpu_fetch(sago_device *device, void *to_host, const void *from_device, size_t bytes,
                           sago_mark after) {
    (void)after;
    return sago_cpu_download(device, to_host, from_device, bytes);
}

sago_status sago_cpu_scratch(sago_device *device, size_t bytes, void **out) {
    sago_cpu *cpu = device->state;
    if (bytes > cpu->scratch_bytes) {
        sago_cpu_release(device, cpu->scratch);
        cpu->scratch = NULL, cpu->scratch_bytes = 0;
        SAGO_TRY(sago_cpu_allocate(device, &cpu->scratch, bytes));
        cpu->scratch_bytes = bytes;
    }
    *out = cpu->scratch;
    return SAGO_OK;
}

/* --- opening
 * ------------------------------------------------------------------------------------------------- */

typedef struct instruction_set {
    const char *name;
    const sago_ops *ops;
    const sago_cpu_greedy *greedy;
    bool here;
} instruction_set;

enum { N_SETS = 3 };

/* Fastest first. */
static int list_sets(instruction_set sets[N_SETS]) {
    int n = 0;
#if defined(SAGO_EVERY_ISA)
    __builtin_cpu_init();
    bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
              __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512vl");
    sets[n++] = (instruction_set){"v4", &sago_cpu_table_v4, &sago_cpu_greedy_v4, v4};
    sets[n++] = (instruction_set){"v3", &sago_cpu_table_v3, &sago_cpu_greedy_v3, v3};
#endif
    sets[n++] = (instruction_set){"base", &sago_cpu_table_base, &sago_cpu_greedy_base, true};
    return n;
}

static sago_status choose_set(const char *variant, instruction_set *out) {
    instruction_set sets[N_SETS];
    int n = list_sets(sets);
    for (int i = 0; i < n; i++) {
        if (variant[0] ? strcmp(variant, sets[i].name) != 0 : !sets[i].here) continue;
        if (!sets[i].here)
            return sago_fail(SAGO_E_DEVICE, "cpu: this processor lacks instructions of x86-64-%s", variant);
        *out = sets[i];
        return SAGO_OK;
    }
    return sago_fail(SAGO_E_DEVICE,
                     "cpu: no instruction set is called '%s'; there are base, v3, v4 on x86-64", variant);
}

/* The processor's name as the system tells it, without runs of blanks. */
static void processor_name(char *out, size_t bytes) {
    snprintf(out, bytes, "unknown processor");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) return;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, "model name", 10) != 0) continue;
        const char *p = strchr(line, ':');
        size_t at = 0;
        for (p = p ? p + 1 : ""; *p && *p != '\n' && at + 1 < bytes; p++)
            if (!isspace((unsigned char)*p) || (at > 0 && out[at - 1] != ' ')) out[at++] = *p;
        out[at] = '\0';
        break;
    }
    fclose(file);
}

/*
 * By the processor, not by a measurement, so that the same machine always decides the same. AMD's avx512_bf16
 * doubles the rate of fp32, as Cooper Lake's does; that of later Intel processors has half of it, and their
 * AMX many times it.
 */
static bool fast_bf16(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    bool amx_bf16 = __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 22 & 1;
    if (amx_bf16) return true;
    return __builtin_cpu_supports("avx512bf16") &&
           (__builtin_cpu_is("amd") || __builtin_cpu_is("cooperlake"));
#else
    return false;
#endif
}

sago_status sago_cpu_open(const char *variant, int n_threads, sago_device **out) {
    instruction_set set = {0};
    SAGO_TRY(choose_set(variant, &set));
    sago_device *device = calloc(1, sizeof *device);
    sago_cpu *cpu = calloc(1, sizeof *cpu);
    sago_status status = SAGO_OK;
    if (!device || !cpu) SAGO_TRY_TO(done, sago_fail(SAGO_E_MEMORY, "cpu: no memory for a device"));
    cpu->isa = set.name;
    cpu->greedy = set.greedy;
    device->ops = set.ops;
    device->name = "cpu";
    device->n_threads = n_threads > 0 ? n_threads : omp_get_num_procs();
    device->has_bf16 = fast_bf16();
    device->state = cpu;
    char model[64];
    processor_name(model, sizeof model);
    const dnnl_version_t *version = dnnl_version();
    snprintf(device->description, sizeof device->description, "cpu: %s, %d thread%s, %s, oneDNN %d.%d.%d",
             model, device->n_threads, device->n_threads == 1 ? "" : "s", set.name, version->major,
             version->minor, version->patch);
    SAGO_TRY_TO(done, sago_onednn_open(&cpu->onednn));
    *out = device;
    return SAGO_OK;
done:
    free(cpu);
    free(device);
    return status;
}

void sago_cpu_close(sago_device *device) {
    sago_cpu *cpu = device->state;
    sago_onednn_close(cpu->onednn);
    sago_cpu_release(device, cpu->scratch);
    free(cpu);
    free(device);
}

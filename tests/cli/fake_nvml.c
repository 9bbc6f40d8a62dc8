// SPDX-License-Identifier: Apache-2.0
/* The calls of NVML that sago doctor makes, of a machine with two GPUs; the second one is too old. */
#include <stdio.h>
#include <string.h>

#define NVML __attribute__((visibility("default")))
typedef struct nvml_device *device;
typedef struct memory {
    unsigned long long total, free, used;
} memory;

NVML int nvmlInit_v2(void);
NVML int nvmlShutdown(void);
NVML int nvmlSystemGetDriverVersion(char *text, unsigned length);
NVML int nvmlDeviceGetCount_v2(unsigned *count);
NVML int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *out);
NVML int nvmlDeviceGetName(device gpu, char *text, unsigned length);
NVML int nvmlDeviceGetMemoryInfo(device gpu, memory *out);
NVML int nvmlDeviceGetCudaComputeCapability(device gpu, int *major, int *minor);
NVML int nvmlDeviceGetCurrPcieLinkGeneration(device gpu, unsigned *out);
NVML int nvmlDeviceGetCurrPcieLinkWidth(device gpu, unsigned *out);
NVML int nvmlDeviceGetNvLinkState(device gpu, unsigned link, unsigned *active);
NVML int nvmlDeviceGetHandleByPciBusId_v2(const char *address, device *out);
NVML int nvmlDeviceGetClockInfo(device gpu, int kind, unsigned *out);
NVML int nvmlDeviceGetCurrentClocksThrottleReasons(device gpu, unsigned long long *out);

enum { OK, NOT_SUPPORTED = 3 };
static char gpus[2];

static int number(device gpu) {
    return (int)((char *)gpu - gpus);
}

int nvmlInit_v2(void) {
    return OK;
}
int nvmlShutdown(void) {
    return OK;
}
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "580.65.06");
    return OK;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 2;
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *out) {
    *out = (device)(void *)&gpus[index];
    return OK;
}
int nvmlDeviceGetName(device gpu, char *text, unsigned length) {
    snprintf(text, length, "%s", number(gpu) ? "Tesla V100" : "NVIDIA H100 80GB HBM3");
    return OK;
}
int nvmlDeviceGetMemoryInfo(device gpu, memory *out) {
    *out = number(gpu) ? (memory){16000000000, 1000000000, 15000000000}
                       : (memory){85000000000, 84000000000, 1000000000};
    return OK;
}
int nvmlDeviceGetCudaComputeCapability(device gpu, int *major, int *minor) {
    *major = number(gpu) ? 7 : 9;
    *minor = 0;
    return OK;
}
int nvmlDeviceGetCurrPcieLinkGeneration(device gpu, unsigned *out) {
    *out = number(gpu) ? 3 : 5;
    return OK;
}
int nvmlDeviceGetCurrPcieLinkWidth(device gpu, unsigned *out) {
    (void)gpu;
    *out = 16;
    return OK;
}
int nvmlDeviceGetNvLinkState(device gpu, unsigned link, unsigned *active) {
    if (number(gpu)) return NOT_SUPPORTED;
    *active = link != 3;
    return OK;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *address, device *out) {
    (void)address, (void)out;
    return NOT_SUPPORTED;
}
int nvmlDeviceGetClockInfo(device gpu, int kind, unsigned *out) {
    (void)gpu;
    *out = kind == 1 ? 1980 : 0;
    return OK;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(device gpu, unsigned long long *out) {
    *out = number(gpu) ? 0x41 : 0x1; /* thermal slowdown of hardware, idle */
    return OK;
}

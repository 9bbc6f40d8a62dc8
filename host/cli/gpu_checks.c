// SPDX-License-Identifier: Apache-2.0
#include "gpu_checks.h"

#include "cuda_library.h"
#include "machine_checks.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* NVML comes with the driver; its header does not. These are the calls used, as its manual declares them. */
typedef struct nvml_device *nvml_device;
typedef struct nvml_memory {
    unsigned long long total, free, used;
} nvml_memory;

typedef struct nvml {
    void *library;
    int (*init)(void);
    int (*shutdown)(void);
    int (*driver_version)(char *, unsigned);
    int (*count)(unsigned *);
    int (*device)(unsigned, nvml_device *);
    int (*name)(nvml_device, char *, unsigned);
    int (*memory)(nvml_device, nvml_memory *);
    int (*capability)(nvml_device, int *, int *);
    int (*pcie_generation)(nvml_device, unsigned *);
    int (*pcie_width)(nvml_device, unsigned *);
    int (*nvlink)(nvml_device, unsigned, unsigned *);
    int (*at_address)(const char *, nvml_device *);
    int (*clock)(nvml_device, int, unsigned *);
    int (*slowed)(nvml_device, unsigned long long *);
} nvml;

enum { NVML_OK = 0, NVLINKS = 18, OLDEST_MAJOR = 8, CLOCK_SM = 1 };
/* Hardware slowdown, software and hardware thermal slowdown, power brake: no clock that was asked for. */
static const unsigned long long bad_reasons = 0x8 | 0x20 | 0x40 | 0x80;

static bool open_nvml(nvml *n) {
    const struct {
        const char *name;
        void *to;
    } calls[] = {
        {"nvmlInit_v2", &n->init},
        {"nvmlShutdown", &n->shutdown},
        {"nvmlSystemGetDriverVersion", &n->driver_version},
        {"nvmlDeviceGetCount_v2", &n->count},
        {"nvmlDeviceGetHandleByIndex_v2", &n->device},
        {"nvmlDeviceGetName", &n->name},
        {"nvmlDeviceGetMemoryInfo", &n->memory},
        {"nvmlDeviceGetCudaComputeCapability", &n->capability},
        {"nvmlDeviceGetCurrPcieLinkGeneration", &n->pcie_generation},
        {"nvmlDeviceGetCurrPcieLinkWidth", &n->pcie_width},
        {"nvmlDeviceGetNvLinkState", &n->nvlink},
        {"nvmlDeviceGetHandleByPciBusId_v2", &n->at_address},
        {"nvmlDeviceGetClockInfo", &n->clock},
        {"nvmlDeviceGetCurrentClocksThrottleReasons", &n->slowed},
    };
    n->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!n->library) return false;
    bool all = true;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        void *found = dlsym(n->library, calls[i].name);
        all &= found != NULL;
        memcpy(calls[i].to, &found, sizeof found);
    }
    if (all && n->init() == NVML_OK) return true;
    dlclose(n->library);
    return false;
}

/* "18 NVLinks, PCIe 5 x16" */
static void describe_links(const nvml *n, nvml_device gpu, char text[64]) {
    unsigned generation = 0, width = 0, n_links = 0;
    bool pcie = n->pcie_generation(gpu, &generation) == NVML_OK && n->pcie_width(gpu, &width) == NVML_OK;
    for (unsigned link = 0; link < NVLINKS; link++) {
        unsigned active = 0;
        n_links += n->nvlink(gpu, link, &active) == NVML_OK && active;
    }
    snprintf(text, 64, "no NVLink");
    if (n_links > 0) snprintf(text, 64, "%u NVLinks", n_links);
    if (pcie) snprintf(text + strlen(text), 64 - strlen(text), ", PCIe %u x%u", generation, width);
}

/* "NVIDIA H100 80GB HBM3, 85.0 GB (84.1 free), sm_90, 18 NVLinks, PCIe 5 x16" */
static void check_gpu(json_t *findings, const nvml *n, unsigned index) {
    char name[96] = "?", links[64], finding[32];
    nvml_device gpu;
    nvml_memory memory = {0};
    int major = 0, minor = 0;
    snprintf(finding, sizeof finding, "gpu %u", index);
    if (n->device(index, &gpu) != NVML_OK) {
        sago_finding_add(findings, finding, "warn",
                         "look at nvidia-smi; another process or container may hold it",
                         "the driver does not hand it out");
        return;
    }
    n->name(gpu, name, sizeof name);
    n->memory(gpu, &memory);
    n->capability(gpu, &major, &minor);
    describe_links(n, gpu, links);
    sago_finding_add(findings, finding, major >= OLDEST_MAJOR ? "ok" : "warn",
                     "compute capability 8.0 or newer is needed (Ampere, Hopper and what came after)",
                     "%s, %.1f GB (%.1f free), sm_%d%d, %s", name, (double)memory.total * 1e-9,
                     (double)memory.free * 1e-9, major, minor, links);
}

static void check_driver(json_t *findings, const char *bad) {
    nvml n;
    if (!open_nvml(&n)) {
        sago_finding_add(findings, "gpu", bad,
                         "for a GPU: install the NVIDIA driver; in a container, start it with "
                         "access to the GPUs",
                         "no NVIDIA driver");
        return;
    }
    char version[96] = "?";
    unsigned count = 0;
    n.driver_version(version, sizeof version);
    n.count(&count);
    sago_finding_add(findings, "gpu driver", count ? "ok" : bad,
                     "no GPU is handed to this machine or container", "NVIDIA %s, %u GPU%s", version, count,
                     count == 1 ? "" : "s");
    for (unsigned i = 0; i < count; i++) check_gpu(findings, &n, i);
    n.shutdown();
    dlclose(n.library);
}

bool sago_gpu_facts_read(const char *address, int local_rank, sago_gpu_facts *out) {
    nvml n;
    nvml_device gpu;
    unsigned count = 0;
    *out = (sago_gpu_facts){0};
    if (!open_nvml(&n)) return false;
    n.driver_version(out->driver, sizeof out->driver);
    n.count(&count);
    bool found = address[0] ? n.at_address(address, &gpu) == NVML_OK
                            : count > 0 && n.device((unsigned)local_rank % count, &gpu) == NVML_OK;
    if (found) {
        n.name(gpu, out->name, sizeof out->name);
        describe_links(&n, gpu, out->links);
        n.clock(gpu, CLOCK_SM, &out->clock_mhz);
        if (n.slowed(gpu, &out->slowed) != NVML_OK) out->slowed = 0;
        out->slowed &= bad_reasons;
    }
    n.shutdown();
    dlclose(n.library);
    return true;
}

static void check_libraries(json_t *findings, const char *bad) {
    const sago_cuda_entry *cuda;
    if (sago_cuda_library(&cuda) != SAGO_OK) {
        sago_finding_add(
            findings, "cuda", bad,
            "for a GPU: build where nvcc 12 or newer is found, and have cuBLASLt of that CUDA on the "
            "library path",
            "%s", sago_message());
        return;
    }
    char runtime[32], driver[32], cublaslt[32], nccl[32];
    cuda->versions(runtime, driver, cublaslt, nccl);
    sago_finding_add(
        findings, "cuda", driver[0] ? "ok" : bad, "the driver is missing or too old for this CUDA",
        "runtime %s, driver for CUDA %s, cuBLASLt %s", runtime, driver[0] ? driver : "(none)", cublaslt);
    sago_finding_add(
        findings, "nccl", nccl[0] ? "ok" : "info",
        "for several GPUs: put libnccl.so.2 on the library path; without it gradients are summed through "
        "host memory by MPI",
        "%s", nccl[0] ? nccl : "no libnccl.so.2");
}

static void check_device(json_t *findings, const char *name, int threads, int local_rank, const char *bad) {
    char finding[32];
    sago_device *device;
    snprintf(finding, sizeof finding, "device %s", name);
    bool opened = sago_device_open_local(name, threads, local_rank, &device) == SAGO_OK;
    sago_finding_add(findings, finding, opened ? "ok" : bad, "", "%s",
                     opened ? device->description : sago_message());
    if (opened) sago_device_close(device);
}

void sago_gpu_check(json_t *findings, int threads, int local_rank, bool wanted) {
    const char *bad = wanted ? "warn" : "info";
    check_driver(findings, bad);
    check_libraries(findings, bad);
    check_device(findings, "cuda", threads, local_rank, bad);
    check_device(findings, "cpu", threads, local_rank, "warn");
    check_device(findings, "sim", threads, local_rank, "warn");
}

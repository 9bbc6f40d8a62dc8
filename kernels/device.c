// SPDX-License-Identifier: Apache-2.0
#include "device.h"

#include "check.h"
#include "cpu/cpu_ops.h"
#include "cuda_library.h"
#include "log.h"
#include "ops.h"
#include "ops_list.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>

typedef struct implementation {
    const char *name;
    bool automatic; /* what "auto" tries, in this order */
    sago_status (*open)(const char *variant, int n_threads, int local_rank, sago_device **out);
    void (*close)(sago_device *);
} implementation;

static sago_status open_cuda(const char *variant, int n_threads, int local_rank, sago_device **out) {
    const sago_cuda_entry *cuda;
    SAGO_TRY(sago_cuda_library(&cuda));
    return cuda->open(variant, n_threads, local_rank, out);
}

static void close_cuda(sago_device *device) {
    const sago_cuda_entry *cuda;
    if (sago_cuda_library(&cuda) == SAGO_OK) cuda->close(device);
}

static sago_status open_cpu(const char *variant, int n_threads, int local_rank, sago_device **out) {
    (void)local_rank;
    return sago_cpu_open(variant, n_threads, out);
}

/* The device sim; its declarations stand with those of the GPU (cuda/gpu.h), which this file does not see
 * twice. */
sago_status sago_sim_open(const char *variant, int n_threads, int local_rank, sago_device **out);
void sago_sim_close(sago_device *device);

static const implementation implementations[] = {{"cuda", true, open_cuda, close_cuda},
                                                 {"cpu", true, open_cpu, sago_cpu_close},
                                                 {"sim", false, sago_sim_open, sago_sim_close}};

enum { N_IMPLEMENTATIONS = sizeof implementations / sizeof implementations[0] };

#define ENTRY(field) {#field, offsetof(sago_ops, field)},

static const struct {
    const char *name;
    size_t offset;
} entries[] = {SAGO_EACH_OP(ENTRY)};

enum { N_ENTRIES = sizeof entries / sizeof entries[0] };
_Static_assert(N_ENTRIES * sizeof(void (*)(void)) == sizeof(sago_ops),
               "an operation of ops.h is not in ops_list.h");

sago_status sago_device_check_table(const char *name, const sago_ops *ops) {
    sago_str missing = {0};
    for (int i = 0; i < N_ENTRIES; i++) {
        void (*function)(void);
        memcpy(&function, (const char *)ops + entries[i].offset, sizeof function);
        if (!function) sago_str_printf(&missing, "%s%s", missing.length ? ", " : "", entries[i].name);
    }
    sago_status status = SAGO_OK;
    if (missing.length)
        status =
            sago_fail(SAGO_E_DEVICE, "device %s lacks these operations: %s", name, sago_str_text(&missing));
    sago_str_free(&missing);
    return status;
}

static sago_status open_one(const implementation *one, const char *variant, int n_threads, int local_rank,
                            bool complete, sago_device **out) {
    SAGO_TRY(one->open(variant, n_threads, local_rank, out));
    sago_status status = complete ? sago_device_check_table(one->name, (*out)->ops) : SAGO_OK;
    if (status != SAGO_OK) {
        one->close(*out);
        *out = NULL;
    }
    return status;
}

/* The first that opens; the log says which, and why none before it. */
static sago_status open_best(int n_threads, int local_rank, sago_device **out) {
    sago_str reasons = {0};
    sago_status status = SAGO_OK;
    for (int i = 0; i < N_IMPLEMENTATIONS; i++) {
        if (!implementations[i].automatic) continue;
        status = open_one(&implementations[i], "", n_threads, local_rank, true, out);
        if (status == SAGO_OK) {
            sago_info("device auto: %s%s%s", (*out)->name, reasons.length ? "; " : "",
                      sago_str_text(&reasons));
            break;
        }
        sago_str_printf(&reasons, "%s%s", reasons.length ? "; " : "", sago_message());
    }
    sago_str_free(&reasons);
    return status;
}

static sago_status open_named(const char *name, int n_threads, int local_rank, bool complete,
                              sago_device **out) {
    *out = NULL;
    if (n_threads < 0)
        return sago_fail(SAGO_E_DEVICE, "device %s: %d threads are less than none", name, n_threads);
    if (strcmp(name, "auto") == 0) return open_best(n_threads, local_rank, out);
    size_t length = strcspn(name, ":");
    const char *variant = name[length] ? name + length + 1 : "";
    for (int i = 0; i < N_IMPLEMENTATIONS; i++)
        if (strlen(implementations[i].name) == length && strncmp(implementations[i].name, name, length) == 0)
            return open_one(&implementations[i], variant, n_threads, local_rank, complete, out);

    sago_str names = {0};
    for (int i = 0; i < N_IMPLEMENTATIONS; i++) sago_str_printf(&names, ", %s", implementations[i].name);
    sago_status status =
        sago_fail(SAGO_E_DEVICE, "no device is called '%s'; there are auto%s", name, sago_str_text(&names));
    sago_str_free(&names);
    return status;
}

sago_status sago_device_open(const char *name, int n_threads, sago_device **out) {
    return open_named(name, n_threads, 0, true, out);
}

sago_status sago_device_open_local(const char *name, int n_threads, int local_rank, sago_device **out) {
    return open_named(name, n_threads, local_rank, true, out);
}

sago_status sago_device_open_partial(const char *name, int n_threads, sago_device **out) {
    return open_named(name, n_threads, 0, false, out);
}

void sago_device_close(sago_device *device) {
    if (!device) return;
    for (int i = 0; i < N_IMPLEMENTATIONS; i++)
        if (strcmp(implementations[i].name, device->name) == 0) {
            implementations[i].close(device);
            return;
        }
}

// SPDX-License-Identifier: Apache-2.0
#include "device.h"

#include "check.h"
#include "cpu/cpu_ops.h"
#include "ops.h"
#include "str.h"

#include <string.h>

typedef struct implementation {
    const char *name;
    sago_status (*open)(const char *variant, int n_threads, sago_device **out);
    void (*close)(sago_device *);
} implementation;

/* The best comes first: that is what "auto" means. */
static const implementation implementations[] = {{"cpu", sago_cpu_open, sago_cpu_close}};

enum { N_IMPLEMENTATIONS = sizeof implementations / sizeof implementations[0] };

#define ENTRY(field)                                                                                         \
    { #field, offsetof(sago_ops, field) }

static const struct {
    const char *name;
    size_t offset;
} entries[] = {ENTRY(allocate),
               ENTRY(release),
               ENTRY(upload),
               ENTRY(download),
               ENTRY(synchronize),
               ENTRY(fill),
               ENTRY(copy),
               ENTRY(add_scaled),
               ENTRY(scale),
               ENTRY(sum_squares),
               ENTRY(dropout),
               ENTRY(residual),
               ENTRY(matmul),
               ENTRY(rmsnorm_forward),
               ENTRY(rmsnorm_backward),
               ENTRY(relu_forward),
               ENTRY(relu_backward),
               ENTRY(geglu_forward),
               ENTRY(geglu_backward),
               ENTRY(embedding_forward),
               ENTRY(embedding_backward),
               ENTRY(attention_ranges),
               ENTRY(attention_forward),
               ENTRY(attention_backward),
               ENTRY(cache_append),
               ENTRY(cross_entropy_forward),
               ENTRY(cross_entropy_backward),
               ENTRY(adafactor_statistics),
               ENTRY(adafactor_moments),
               ENTRY(adafactor_apply),
               ENTRY(sample)};

enum { N_ENTRIES = sizeof entries / sizeof entries[0] };
_Static_assert(N_ENTRIES * sizeof(void (*)(void)) == sizeof(sago_ops),
               "an operation of ops.h is not listed here");

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

static sago_status open_one(const implementation *one, const char *variant, int n_threads,
                            sago_device **out) {
    SAGO_TRY(one->open(variant, n_threads, out));
    sago_status status = sago_device_check_table(one->name, (*out)->ops);
    if (status != SAGO_OK) {
        one->close(*out);
        *out = NULL;
    }
    return status;
}

sago_status sago_device_open(const char *name, int n_threads, sago_device **out) {
    *out = NULL;
    if (n_threads < 0)
        return sago_fail(SAGO_E_DEVICE, "device %s: %d threads are less than none", name, n_threads);
    if (strcmp(name, "auto") == 0) {
        sago_status status = SAGO_OK;
        for (int i = 0; i < N_IMPLEMENTATIONS; i++) {
            status = open_one(&implementations[i], "", n_threads, out);
            if (status == SAGO_OK) return SAGO_OK;
        }
        return status;
    }
    size_t length = strcspn(name, ":");
    const char *variant = name[length] ? name + length + 1 : "";
    for (int i = 0; i < N_IMPLEMENTATIONS; i++)
        if (strlen(implementations[i].name) == length && strncmp(implementations[i].name, name, length) == 0)
            return open_one(&implementations[i], variant, n_threads, out);

    sago_str names = {0};
    for (int i = 0; i < N_IMPLEMENTATIONS; i++) sago_str_printf(&names, ", %s", implementations[i].name);
    sago_status status =
        sago_fail(SAGO_E_DEVICE, "no device is called '%s'; there are auto%s", name, sago_str_text(&names));
    sago_str_free(&names);
    return status;
}

void sago_device_close(sago_device *device) {
    if (!device) return;
    for (int i = 0; i < N_IMPLEMENTATIONS; i++)
        if (strcmp(implementations[i].name, device->name) == 0) {
            implementations[i].close(device);
            return;
        }
}

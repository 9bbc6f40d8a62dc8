// SPDX-License-Identifier: Apache-2.0
#include "precision.h"

#include "log.h"

#include <string.h>

static bool is_auto(const sago_config *config) {
    return strcmp(config->train.precision, "auto") == 0;
}

static bool is_sim(const sago_device *device) {
    return strcmp(device->name, "sim") == 0;
}

bool sago_precision_bf16(const sago_config *config, const sago_device *device) {
    if (is_auto(config)) return device->stores_bf16 && !is_sim(device);
    return strcmp(config->train.precision, "bf16") == 0;
}

sago_status sago_precision_agree(const sago_config *config, const sago_device *device, sago_mesh *mesh,
                                 bool *bf16) {
    *bf16 = mesh->rank == 0 && sago_precision_bf16(config, device);
    if (mesh->rank == 0 && is_auto(config))
        sago_info("train.precision auto: %s, since the device %s %s", sago_precision_name(*bf16),
                  device->name,
                  is_sim(device) ? "is there to compare results exactly"
                  : *bf16        ? "stores bf16"
                                 : "stores no bf16");
    return sago_broadcast(mesh, SAGO_WORLD_AXIS, bf16, sizeof *bf16, 0);
}

const char *sago_precision_name(bool bf16) {
    return bf16 ? "bf16" : "fp32";
}

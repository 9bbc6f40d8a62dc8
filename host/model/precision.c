// SPDX-License-Identifier: Apache-2.0
#include "precision.h"

#include "log.h"

#include <string.h>

bool sago_precision_bf16(const sago_config *config, const sago_device *device) {
    if (strcmp(config->train.precision, "auto") != 0) return strcmp(config->train.precision, "bf16") == 0;
    bool sim = strcmp(device->name, "sim") == 0, bf16 = device->stores_bf16 && !sim;
    sago_info("train.precision auto: %s, since the device %s %s", sago_precision_name(bf16), device->name,
              bf16  ? "stores bf16"
              : sim ? "is there to compare results exactly"
                    : "stores no bf16");
    return bf16;
}

const char *sago_precision_name(bool bf16) { return bf16 ? "bf16" : "fp32"; }

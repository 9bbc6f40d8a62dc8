// SPDX-License-Identifier: Apache-2.0
#include "hardware.h"

#include "ceiling.h"
#include "file.h"
#include "yaml_tree.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 16 };

typedef struct plain_key {
    const char *name;
    size_t place;
    double low, high;
} plain_key;

static const plain_key numbers[] = {
    {"memory_gib", offsetof(sago_hardware, memory_gib), 1e-3, 1e6},
    {"reserved_gib", offsetof(sago_hardware, reserved_gib), 0, 1e6},
};
static const plain_key switches[] = {
    {"stores_bf16", offsetof(sago_hardware, stores_bf16), 0, 1},
    {"memory_is_host", offsetof(sago_hardware, memory_is_host), 0, 1},
};
static const plain_key figures[] = {
    {"bf16_tflops", offsetof(sago_hardware, bf16_tflops), 1e-6, 1e9},
    {"fp32_tflops", offsetof(sago_hardware, fp32_tflops), 1e-6, 1e9},
    {"copy_gb_per_second", offsetof(sago_hardware, copy_gb_per_second), 1e-6, 1e9},
    {"product_share", offsetof(sago_hardware, product_share), 1e-6, 10},
    {"product_half_size", offsetof(sago_hardware, product_half_size), 0, 1e6},
    {"attention_forward_share", offsetof(sago_hardware, attention_forward_share), 1e-6, 10},
    {"attention_backward_share", offsetof(sago_hardware, attention_backward_share), 1e-6, 10},
    {"operation_microseconds", offsetof(sago_hardware, operation_microseconds), 0, 1e6},
    {"node_gb_per_second", offsetof(sago_hardware, node_gb_per_second), 1e-6, 1e9},
    {"node_microseconds", offsetof(sago_hardware, node_microseconds), 0, 1e6},
    {"network_gb_per_second", offsetof(sago_hardware, network_gb_per_second), 1e-6, 1e9},
    {"network_microseconds", offsetof(sago_hardware, network_microseconds), 0, 1e6},
    {"link_compute_share", offsetof(sago_hardware, link_compute_share), 0, 1},
};
enum {
    N_NUMBERS = sizeof numbers / sizeof *numbers,
    N_SWITCHES = sizeof switches / sizeof *switches,
    N_FIGURES = sizeof figures / sizeof *figures,
};

static const char *const bases[] = {"measured", "assumed", "datasheet"};

const char *sago_basis_name(sago_basis basis) {
    return bases[basis];
}

static void *field(sago_hardware *hardware, const plain_key *key) {
    return (char *)hardware + key->place;
}

const char *sago_hardware_figure(const sago_hardware *hardware, int i, const sago_figure **out) {
    if (i < 0 || i >= N_FIGURES) return NULL;
    *out = (const sago_figure *)(const void *)((const char *)hardware + figures[i].place);
    return figures[i].name;
}

/* --- reading
 * ----------------------------------------------------------------------------------------------------- */

static sago_status read_number(sago_yaml *yaml, const yaml_node_t *node, const plain_key *key, double *out) {
    const char *text = sago_yaml_text(node);
    char *end = NULL;
    double value = text ? strtod(text, &end) : NAN;
    if (!text || end == text || *end || !(value >= key->low && value <= key->high))
        return sago_yaml_fail(yaml, node, "%s: a number from %g to %g is needed", key->name, key->low,
                              key->high);
    *out = value;
    return SAGO_OK;
}

/* {datasheet: 989, measured: 780} */
static sago_status read_figure(sago_yaml *yaml, yaml_node_t *node, const plain_key *key, sago_figure *out) {
    double value[SAGO_BASES];
    bool given[SAGO_BASES] = {false};
    int n = sago_yaml_count(node);
    bool right = node->type == YAML_MAPPING_NODE && n > 0;
    for (int i = 0; i < n && right; i++) {
        const char *name;
        yaml_node_t *number;
        int basis = 0;
        sago_yaml_pair(yaml, node, i, &name, &number);
        while (basis < SAGO_BASES && strcmp(name, bases[basis]) != 0) basis++;
        right = basis < SAGO_BASES;
        if (!right) break;
        SAGO_TRY(read_number(yaml, number, key, &value[basis]));
        given[basis] = true;
    }
    if (!right)
        return sago_yaml_fail(
            yaml, node, "%s: {measured: X}, with assumed or datasheet in its place or beside it", key->name);
    sago_basis first = SAGO_MEASURED;
    while (!given[first]) first++;
    *out = (sago_figure){value[first], given[SAGO_DATASHEET] ? value[SAGO_DATASHEET] : 0, first};
    return SAGO_OK;
}

/* seen: a bit a key, in the order of the tables. */
static sago_status read_pair(sago_yaml *yaml, const char *name, yaml_node_t *node, sago_hardware *out,
                             uint64_t *seen) {
    int bit = 0;
    for (int i = 0; i < N_NUMBERS; i++, bit++)
        if (strcmp(name, numbers[i].name) == 0) {
            *seen |= UINT64_C(1) << bit;
            return read_number(yaml, node, &numbers[i], field(out, &numbers[i]));
        }
    for (int i = 0; i < N_SWITCHES; i++, bit++)
        if (strcmp(name, switches[i].name) == 0) {
            *seen |= UINT64_C(1) << bit;
            return sago_yaml_read_bool(yaml, node, name, field(out, &switches[i]));
        }
    for (int i = 0; i < N_FIGURES; i++, bit++)
        if (strcmp(name, figures[i].name) == 0) {
            *seen |= UINT64_C(1) << bit;
            return read_figure(yaml, node, &figures[i], field(out, &figures[i]));
        }
    if (strcmp(name, "devices_per_node") == 0) {
        const plain_key key = {name, 0, 1, 1024};
        double devices = 0;
        SAGO_TRY(read_number(yaml, node, &key, &devices));
        out->devices_per_node = (int64_t)devices;
        return SAGO_OK;
    }
    const char *text = sago_yaml_text(node);
    if (strcmp(name, "name") != 0)
        return sago_yaml_fail(yaml, node, "%s: unknown key; docs/plan.md lists them", name);
    if (!text || !text[0] || strlen(text) >= sizeof out->name)
        return sago_yaml_fail(yaml, node, "name: a text of 1 to %zu bytes is needed", sizeof out->name - 1);
    snprintf(out->name, sizeof out->name, "%s", text);
    return SAGO_OK;
}

static const char *missing_key(const sago_hardware *h, uint64_t seen) {
    int bit = 0;
    for (int i = 0; i < N_NUMBERS; i++, bit++)
        if (!(seen >> bit & 1)) return numbers[i].name;
    for (int i = 0; i < N_SWITCHES; i++, bit++)
        if (!(seen >> bit & 1)) return switches[i].name;
    for (int i = 0; i < N_FIGURES; i++, bit++)
        if (!(seen >> bit & 1)) return figures[i].name;
    if (h->devices_per_node == 0) return "devices_per_node";
    return h->name[0] ? NULL : "name";
}

static sago_status parse(const char *name, const char *text, size_t length, sago_hardware *out) {
    sago_yaml yaml;
    uint64_t seen = 0;
    *out = (sago_hardware){0};
    SAGO_TRY(sago_yaml_parse(&yaml, name, text, length));
    yaml_node_t *root = sago_yaml_root(&yaml);
    sago_status status = SAGO_OK;
    if (!root || root->type != YAML_MAPPING_NODE)
        status = sago_yaml_fail(&yaml, root,
                                "no hardware: lines of \"key: value\" are needed; docs/plan.md lists them");
    for (int i = 0; i < sago_yaml_count(root) && status == SAGO_OK; i++) {
        const char *key;
        yaml_node_t *value;
        sago_yaml_pair(&yaml, root, i, &key, &value);
        status = read_pair(&yaml, key, value, out, &seen);
    }
    const char *missing = status == SAGO_OK ? missing_key(out, seen) : NULL;
    if (missing) status = sago_yaml_fail(&yaml, root, "%s is missing", missing);
    sago_yaml_free(&yaml);
    return status;
}

static sago_status unknown(const char *name) {
    sago_str names = {0};
    for (const sago_embedded_hardware *h = sago_embedded_hardware_files; h->name; h++)
        sago_str_printf(&names, "%s%.*s", names.length ? ", " : "", (int)(strlen(h->name) - strlen(".yaml")),
                        h->name);
    sago_status status =
        sago_fail(SAGO_E_USAGE, "--gpu %s: not known; one of %s, or a file that ends with .yaml", name,
                  sago_str_text(&names));
    sago_str_free(&names);
    return status;
}

sago_status sago_hardware_load(const char *name, sago_hardware *out) {
    for (const sago_embedded_hardware *h = sago_embedded_hardware_files; h->name; h++)
        if (strlen(name) + strlen(".yaml") == strlen(h->name) && sago_starts_with(h->name, name))
            return parse(h->name, (const char *)h->bytes, h->length, out);
    if (!sago_ends_with(name, ".yaml")) return unknown(name);
    sago_str text = {0};
    sago_status status = sago_file_read(name, MOST_BYTES, &text);
    if (status == SAGO_OK) status = parse(name, sago_str_text(&text), text.length, out);
    sago_str_free(&text);
    return status;
}

/* --- measuring
 * --------------------------------------------------------------------------------------------------- */

sago_status sago_hardware_measure(sago_hardware *hardware, sago_device *device) {
    double gflops;
    sago_rate copy, bf16;
    SAGO_TRY(sago_device_measure_gemm(device, &gflops));
    hardware->fp32_tflops = (sago_figure){gflops * 1e-3, hardware->fp32_tflops.datasheet, SAGO_MEASURED};
    /* Where bf16 is no faster, products of bf16 configurations are refused; the figure stands for
     * completeness. */
    if (device->has_bf16) {
        SAGO_TRY(sago_device_measure_product(device, 1024, 1024, 1024, true, 0.3, &bf16));
        gflops = bf16.median;
    }
    hardware->bf16_tflops = (sago_figure){gflops * 1e-3, hardware->bf16_tflops.datasheet, SAGO_MEASURED};
    SAGO_TRY(sago_device_measure_copy(device, (size_t)256 << 20, 0.3, &copy));
    hardware->copy_gb_per_second =
        (sago_figure){copy.median, hardware->copy_gb_per_second.datasheet, SAGO_MEASURED};
    snprintf(hardware->name, sizeof hardware->name, "%.95s", device->description);
    return SAGO_OK;
}

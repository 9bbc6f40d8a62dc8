// SPDX-License-Identifier: Apache-2.0
/* A safetensors file. What parses gives tensors whose bytes lie inside of it, and all of them can be read. */
#include "fuzz.h"
#include "safetensors.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>

static size_t seed_text(uint8_t *out, const char *header, size_t data_bytes) {
    uint64_t length = strlen(header);
    memcpy(out, &length, 8);
    memcpy(out + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++) out[8 + length + i] = (uint8_t)(i * 37);
    return 8 + (size_t)length + data_bytes;
}

size_t sago_fuzz_seed(int i, uint8_t *out, size_t room) {
    static const struct {
        const char *header;
        size_t bytes;
    } seeds[] = {
        {"{\"__metadata__\":{\"format\":\"pt\"},\"shared.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_"
         "offsets\":[0,24]},"
         "\"lm_head.weight\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}}  ",
         32},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"I64\",\"shape\":["
         "1,1,1],"
         "\"data_offsets\":[2,10]},\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[2,2]}}",
         10},
        {"{}", 0},
    };
    if (i >= (int)(sizeof seeds / sizeof seeds[0]) || room < 1024) return 0;
    return seed_text(out, seeds[i].header, seeds[i].bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sago_safetensors *file;
    if (sago_safetensors_parse("fuzz", data, size, &file) != SAGO_OK) {
        if (sago_message()[0] == '\0' || strchr(sago_message(), '\n')) abort();
        return 0;
    }
    for (int i = 0; i < sago_safetensors_count(file); i++) {
        const sago_safetensor *t = sago_safetensors_at(file, i);
        char text[64];
        if (t->at < 8 || t->at > (int64_t)size || t->bytes > size - (size_t)t->at) abort();
        if (sago_safetensors_find(file, t->name) != t) abort();
        sago_safetensor_text(t, text, sizeof text);
        float *values = sago_alloc(t->bytes * 4 + 4);
        int64_t count = 1;
        for (int d = 0; d < t->n_dims; d++) count *= t->shape[d];
        if (sago_safetensors_read_f32(file, t, 0, count, values) != SAGO_OK && sago_message()[0] == '\0') abort();
        free(values);
    }
    sago_safetensors_close(file);
    return 0;
}

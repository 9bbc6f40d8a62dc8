// SPDX-License-Identifier: Apache-2.0
/* What every source must do with any bytes: refuse them in one line, or find records that lie inside the file
 * and that parse again to what the scan saw. */
#ifndef SAGO_FUZZ_SOURCE_H
#define SAGO_FUZZ_SOURCE_H

#include "fuzz.h"
#include "source.h"

#include <stdlib.h>
#include <string.h>

static inline void fuzz_source(const sago_source *source, const char *path, const uint8_t *data,
                               size_t size) {
    sago_scan scan;
    sago_fields fields = {0};
    if (sago_source_scan_bytes(source, path, (const char *)data, size, &scan) != SAGO_OK) {
        if (sago_message()[0] == '\0' || strchr(sago_message(), '\n')) abort();
        if (strncmp(sago_message(), path, strlen(path)) != 0) abort();
        return;
    }
    if (scan.n_records == 0 || scan.n_exemplars >= scan.n_records) abort();
    for (size_t i = 0; i < scan.n_records; i++) {
        const sago_record *at = &scan.records[i];
        if (at->offset > size || at->length > size - at->offset || at->line == 0) abort();
        sago_where where = {path, at->line};
        /* A copy, so that reading past a record's end shows under the address sanitizer. */
        char *bytes = malloc(at->length + 1);
        memcpy(bytes, data + at->offset, at->length);
        bytes[at->length] = '\0';
        if (sago_source_parse(source, where, sago_str_text(&scan.note), bytes, at->length, &fields) !=
            SAGO_OK)
            abort();
        if (sago_fields_hash(&fields) != at->hash) abort();
        free(bytes);
    }
    sago_fields_free(&fields);
    sago_scan_free(&scan);
}

#endif

// SPDX-License-Identifier: Apache-2.0
/* Plain text: whatever the bytes, they are refused in one line, or cut into parts that read again to what was
 * counted and that together are the documents. */
#include "fuzz_source.h"

static const sago_tokenizer *bytes_tokenizer(void) {
    static sago_tokenizer *tokenizer;
    if (!tokenizer && sago_tokenizer_open("bytes", &tokenizer) != SAGO_OK) abort();
    return tokenizer;
}

static void check_parts(const sago_source *source, const char *path, const uint8_t *data, size_t size) {
    sago_scan scan;
    sago_str bytes = {0}, text = {0};
    if (sago_source_scan_bytes(source, path, (const char *)data, size, &scan) != SAGO_OK) {
        if (sago_message()[0] == '\0' || strchr(sago_message(), '\n')) abort();
        if (strncmp(sago_message(), path, strlen(path)) != 0) abort();
        return;
    }
    if (scan.n_exemplars == 0 || scan.n_exemplars >= scan.n_records) abort();
    size_t n_parts = scan.n_records - scan.n_exemplars, of_documents = 0;
    for (size_t d = n_parts; d < scan.n_records; d++) { /* documents have the parts one after the other */
        sago_text_parts parts = sago_text_parts_of(&scan.records[d]);
        if (parts.first != (int64_t)of_documents || parts.n < 1 ||
            parts.n > (int64_t)(n_parts - of_documents))
            abort();
        if (scan.records[d].line != scan.records[parts.first].line) abort();
        for (int64_t p = 0; p < parts.n; p++)
            if (sago_text_part_of(&scan.records[parts.first + p]) != p) abort();
        of_documents += (size_t)parts.n;
    }
    if (of_documents != n_parts) abort();
    for (size_t i = 0; i < n_parts; i++) {
        const sago_record *at = &scan.records[i];
        int64_t part = sago_text_part_of(at), tokens = sago_text_tokens_of(at);
        if (at->offset > size || at->length > size - at->offset || at->line == 0) abort();
        if (part > 0 && part != sago_text_part_of(at - 1) + 1) abort();
        sago_str_clear(&bytes);
        sago_str_add(&bytes, (const char *)data + at->offset, at->length);
        if (sago_text_part_read(source, (sago_where){path, at->line}, &bytes, part, &text) != SAGO_OK)
            abort();
        if ((int64_t)text.length != tokens || tokens == 0) abort(); /* an id a byte */
        size_t wrong;
        if (!sago_utf8_valid(text.data, text.length, &wrong)) abort();
    }
    sago_str_free(&bytes);
    sago_str_free(&text);
    sago_scan_free(&scan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sago_source source = {.format = SAGO_FORMAT_TEXT, .tokenizer = bytes_tokenizer()};
    check_parts(&source, "a.txt", data, size);
    check_parts(&source, "a.jsonl", data, size);
    source.whole_files = true;
    check_parts(&source, "a.txt", data, size);
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
/* Lines of JSON: inputs and targets, ids, and records of a table. */
#include "fuzz_source.h"

static const char mapping_text[] =
    "category: multiple_choice\nfields: {question: q.stem, options: \"q.c[*].t\"}\nanswer: k\n"
    "answer_is: letter\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static sago_mapping *mapping;
    if (!mapping &&
        sago_mapping_parse("m", "m.yaml", mapping_text, sizeof mapping_text - 1, &mapping) != SAGO_OK)
        abort();
    fuzz_source(&(sago_source){.format = SAGO_FORMAT_JSONL}, "a.jsonl", data, size);
    fuzz_source(&(sago_source){.format = SAGO_FORMAT_IDS}, "a.jsonl", data, size);
    fuzz_source(&(sago_source){.format = SAGO_FORMAT_TABLE, .mapping = mapping}, "a.jsonl", data, size);
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
/* Super-NaturalInstructions tasks, and tables that are JSON documents. */
#include "fuzz_source.h"

static const char mapping_text[] =
    "category: arithmetic\nrecords: Instances\nfields: {question: \"{input}, {id}\"}\nanswer: \"output[0]\"\n"
    "answer_after: \"##\"\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static sago_mapping *mapping;
    if (!mapping &&
        sago_mapping_parse("m", "m.yaml", mapping_text, sizeof mapping_text - 1, &mapping) != SAGO_OK)
        abort();
    fuzz_source(&(sago_source){.format = SAGO_FORMAT_NIV2}, "a.json", data, size);
    fuzz_source(&(sago_source){.format = SAGO_FORMAT_TABLE, .mapping = mapping}, "a.json", data, size);
    return 0;
}

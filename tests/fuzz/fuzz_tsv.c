// SPDX-License-Identifier: Apache-2.0
/* Columns: chain-of-thought TSV, CSV with and without a header, TSV tables. */
#include "fuzz_source.h"

static const char with_header[] = "category: direct\nfields: {question: question}\nanswer: answer\n";
static const char without_header[] =
    "category: multiple_choice\ncolumns: [question, a, b, answer]\noption_prefix: true\n"
    "fields: {question: question, options: [\"{a}\", \"{b}\"]}\nanswer: answer\nanswer_is: number\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static sago_mapping *mappings[2];
    if (!mappings[0] &&
        (sago_mapping_parse("m", "m.yaml", with_header, sizeof with_header - 1, &mappings[0]) != SAGO_OK ||
         sago_mapping_parse("n", "n.yaml", without_header, sizeof without_header - 1, &mappings[1]) !=
             SAGO_OK))
        abort();
    fuzz_source(&(sago_source){.format = SAGO_FORMAT_COT}, "a.tsv", data, size);
    for (int i = 0; i < 2; i++) {
        fuzz_source(&(sago_source){.format = SAGO_FORMAT_TABLE, .mapping = mappings[i]}, "a.csv", data, size);
        fuzz_source(&(sago_source){.format = SAGO_FORMAT_TABLE, .mapping = mappings[i]}, "a.tsv", data, size);
    }
    return 0;
}

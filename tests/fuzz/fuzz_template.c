// SPDX-License-Identifier: Apache-2.0
/* Template and mapping files. A pattern that compiles renders any fields. */
#include "fuzz.h"
#include "template.h"

#include <stdlib.h>
#include <string.h>

static void check_message(void) {
    if (sago_message()[0] == '\0' || strchr(sago_message(), '\n')) abort();
}

static void use(const sago_template_set *set) {
    sago_fields fields = {.right_option = 1};
    static const char *const names[] = {"question", "options", "options", "passage", "answer", "chain"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        sago_str_puts(sago_fields_add(&fields, names[i]), i % 3 ? " A text. " : "");
    sago_str out = {0};
    for (int i = 0; i < set->n_wordings; i++) {
        const sago_wording *wording = &set->wordings[i];
        const sago_pattern *const parts[] = {wording->instruction, wording->lead, wording->inputs,
                                             wording->cue, wording->targets};
        for (size_t p = 0; p < sizeof parts / sizeof *parts; p++)
            for (int option = -1; option < 3; option++)
                sago_pattern_render(parts[p], &fields, (sago_answer){.value = i, .option = option}, &out);
    }
    sago_str_free(&out);
    sago_fields_free(&fields);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sago_mapping *mapping;
    if (sago_mapping_parse("fuzz", "fuzz.yaml", (const char *)data, size, &mapping) == SAGO_OK)
        sago_mapping_free(mapping);
    else
        check_message();
    char *folder = sago_path_dir(sago_fuzz_file("nli.yaml", data, size));
    sago_templates *templates;
    const sago_template_set *set;
    if (sago_templates_open(folder, &templates) != SAGO_OK) abort();
    if (sago_templates_set(templates, "nli", &set) == SAGO_OK)
        use(set);
    else
        check_message();
    sago_templates_close(templates);
    free(folder);
    return 0;
}

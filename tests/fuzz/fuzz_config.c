// SPDX-License-Identifier: Apache-2.0
/* A configuration file. Whatever loads must come back as the same text from what it writes. */
#include "config.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sago_config *config, *again;
    /* The first line, where it has a '=', is a --set. */
    const char *end = memchr(data, '\n', size);
    char *set = NULL;
    if (end && memchr(data, '=', (size_t)(end - (const char *)data)))
        set = sago_strndup((const char *)data, (size_t)(end - (const char *)data));
    sago_status status = sago_config_load(sago_fuzz_file("config.yaml", data, size), NULL, 0, &config);
    if (status != SAGO_OK && sago_message()[0] == '\0') abort();
    if (status == SAGO_OK) {
        sago_str first = {0}, second = {0};
        sago_config_write(config, &first);
        const char *path = sago_fuzz_file("again.yaml", (const uint8_t *)sago_str_text(&first), first.length);
        if (sago_config_load(path, NULL, 0, &again) != SAGO_OK) abort();
        sago_config_write(again, &second);
        if (strcmp(sago_str_text(&first), sago_str_text(&second)) != 0) abort();
        if (sago_config_check_resume(config, again) != SAGO_OK) abort();
        sago_config_free(again);
        sago_config_free(config);
        sago_str_free(&first);
        sago_str_free(&second);
    }
    if (set && sago_config_load(NULL, &set, 1, &config) == SAGO_OK) sago_config_free(config);
    free(set);
    return 0;
}

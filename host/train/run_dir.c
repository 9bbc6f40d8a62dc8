// SPDX-License-Identifier: Apache-2.0
#include "run_dir.h"

#include "file.h"

#include <stdlib.h>
#include <string.h>

char *sago_run_checkpoints(const char *run_dir) { return sago_path_join(run_dir, "checkpoints"); }

sago_status sago_run_prepare(const sago_config *config) {
    SAGO_TRY(sago_dir_make(config->run.dir));
    char *path = sago_path_join(config->run.dir, "config.yaml");
    sago_str text = {0}, before = {0};
    sago_config_write(config, &text);
    bool same = sago_is_file(path) && sago_file_read(path, 0, &before) == SAGO_OK && before.length == text.length &&
                memcmp(before.data, text.data, text.length) == 0;
    sago_status status = same ? SAGO_OK : sago_file_replace(path, text.data, text.length);
    sago_str_free(&text);
    sago_str_free(&before);
    free(path);
    return status;
}

/* Does this line belong to a step that the checkpoint has? Anything that is not a whole JSON object does not. */
static bool keep_line(const sago_str *line, int64_t last_step) {
    json_t *object = json_loadb(sago_str_text(line), line->length, 0, NULL);
    const json_t *step = json_object_get(object, "step");
    bool keep = json_is_integer(step) && json_integer_value(step) <= last_step;
    json_decref(object);
    return keep;
}

sago_status sago_metrics_open(const char *run_dir, int64_t last_step, FILE **out) {
    char *path = sago_path_join(run_dir, "metrics.jsonl");
    sago_str kept = {0};
    sago_line_reader reader = {0};
    sago_status status = SAGO_OK;
    *out = NULL;
    if (sago_is_file(path)) {
        SAGO_TRY_TO(done, sago_lines_open(&reader, path, 0));
        for (bool more;;) {
            SAGO_TRY_TO(done, sago_lines_next(&reader, &more));
            if (!more) break;
            if (!keep_line(&reader.line, last_step)) continue;
            sago_str_add(&kept, reader.line.data, reader.line.length);
            sago_str_putc(&kept, '\n');
        }
    }
    SAGO_TRY_TO(done, sago_file_replace(path, kept.data, kept.length));
    SAGO_TRY_TO(done, sago_file_open(path, "ab", out));
done:
    sago_lines_close(&reader);
    sago_str_free(&kept);
    free(path);
    return status;
}

sago_status sago_metrics_append(FILE *file, const json_t *line) {
    sago_str text = {0};
    sago_json_add(&text, line, 9);
    sago_str_putc(&text, '\n');
    bool failed = fwrite(text.data, 1, text.length, file) != text.length || fflush(file) != 0;
    sago_str_free(&text);
    return failed ? sago_fail_errno(SAGO_E_IO, "metrics.jsonl: cannot write") : SAGO_OK;
}

sago_status sago_run_write_json(const char *run_dir, const char *name, json_t *value) {
    char *path = sago_path_join(run_dir, name);
    sago_status status = sago_json_write(path, value);
    json_decref(value);
    free(path);
    return status;
}

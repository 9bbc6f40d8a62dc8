// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include "ckpt.h"
#include "file.h"
#include "log.h"
#include "steps.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void print_damage(const char *text, void *dir) {
    printf("%s/%s\n", (const char *)dir, text);
}

/* Damage goes to standard output, a line a file; what is whole is said in one line a step. */
static sago_status verify_step(char *dir) {
    SAGO_TRY(sago_ckpt_verify(dir, print_damage, dir));
    printf("%s: whole\n", dir);
    return SAGO_OK;
}

/* Every step-N of the folder, also one that has lost its MANIFEST. */
static sago_status verify_steps(const char *folder) {
    sago_names names;
    int n_steps = 0, n_damaged = 0;
    sago_status last = SAGO_OK;
    SAGO_TRY(sago_dir_list(folder, &names));
    for (size_t i = 0; i < names.count; i++) {
        int64_t step;
        char *dir = sago_path_join(folder, names.names[i]);
        if (sago_step_parse(names.names[i], &step)) {
            sago_status status = verify_step(dir);
            n_steps++;
            if (status != SAGO_OK) {
                n_damaged++;
                last = status;
            }
        }
        free(dir);
    }
    sago_names_free(&names);
    if (n_steps == 0)
        return sago_fail(SAGO_E_INPUT, "%s: holds no checkpoint (no step-N/" SAGO_MANIFEST_NAME ")", folder);
    if (n_damaged > 1)
        return sago_fail(last, "%s: %d of %d checkpoints are damaged", folder, n_damaged, n_steps);
    return last;
}

static sago_status run(const sago_arguments *arguments) {
    char *path = sago_path_absolute(arguments->positional[0]);
    char *folder = sago_ckpt_steps_folder(path);
    sago_status status;
    if (!sago_is_dir(path))
        status = sago_fail(SAGO_E_IO, "%s: no such folder", arguments->positional[0]);
    else
        status = folder ? verify_steps(folder) : verify_step(path);
    free(folder);
    free(path);
    return status;
}

const sago_command sago_command_verify = {
    .name = "verify",
    .summary = "check every byte of a checkpoint against its hashes",
    .usage = "sago verify STEP_DIR|RUN|CKPT",
    .details =
        "Reads all files of one step directory, or of every step of a run, and prints each file that is "
        "damaged, "
        "missing or does not belong there, with the tensors whose bytes are touched. Exit code 1 if anything "
        "is wrong.",
    .example = "sago verify runs/first",
    .min_positional = 1,
    .max_positional = 1,
    .run = run,
};

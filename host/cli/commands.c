// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include <string.h>

#define COMMAND(name) extern const sago_command sago_command_##name;
#include "commands.def"
#undef COMMAND

#define COMMAND(name) &sago_command_##name,
const sago_command *const sago_commands[] = {
#include "commands.def"
    NULL};
#undef COMMAND

const sago_command *sago_command_find(const char *name) {
    for (int i = 0; sago_commands[i]; i++)
        if (strcmp(sago_commands[i]->name, name) == 0) return sago_commands[i];
    return NULL;
}

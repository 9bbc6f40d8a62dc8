// SPDX-License-Identifier: Apache-2.0
#include "build.h"

#include "build_parts.h" /* written by the build: SAGO_BUILD_TARGET and SAGO_BUILD_LIBRARIES */

#include <stddef.h>

static const char *commit = "";

const char *sago_build_version(void) {
    return SAGO_VERSION;
}

const char *sago_build_compiler(void) {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "gcc " __VERSION__;
#endif
}

const char *sago_build_target(void) {
    return SAGO_BUILD_TARGET;
}

const sago_build_part *sago_build_libraries(void) {
    static const sago_build_part parts[] = {SAGO_BUILD_LIBRARIES{NULL, NULL}};
    return parts;
}

const char *sago_build_commit(void) {
    return commit;
}

void sago_build_set_commit(const char *text) {
    commit = text;
}

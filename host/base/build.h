// SPDX-License-Identifier: Apache-2.0
/**
 * Build: what this program was made from and by.
 */
#ifndef SAGO_BUILD_H
#define SAGO_BUILD_H

typedef struct sago_build_part {
    const char *name, *version;
} sago_build_part;

const char *sago_build_version(void);  /* "0.1.0" */
const char *sago_build_compiler(void); /* "gcc 12.2.0" */
const char *sago_build_target(void);   /* "x86_64 linux, release" */

/** Libraries as found when it was built; ends with a name of NULL. */
const sago_build_part *sago_build_libraries(void);

/** The commit it was built from, "" where that is unknown. The program sets it once at its start. */
const char *sago_build_commit(void);
void sago_build_set_commit(const char *commit);

#endif

// SPDX-License-Identifier: Apache-2.0
/**
 * Fuzz targets: what reads bytes of users must end every one of them with a status, without a crash, a leak
 * of control or memory without bound.
 *
 * A target is one file, fuzz_NAME.c, with LLVMFuzzerTestOneInput, and a line in meson.build. It is built
 * twice: with fuzz_main.c, which mutates seeds a fixed number of times and so runs with any compiler, and,
 * where -Dfuzz=true and the compiler is clang, with libFuzzer.
 */
#ifndef SAGO_FUZZ_H
#define SAGO_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** Optional: writes seed number i to out (at most room bytes) and returns its size; 0 when there is none. */
size_t sago_fuzz_seed(int i, uint8_t *out, size_t room) __attribute__((weak));

/** A path in a folder of this process's own, for targets whose reader wants a file. The folder goes when it
 * ends. */
const char *sago_fuzz_path(const char *name);

/** Writes bytes to such a path; returns it. */
const char *sago_fuzz_file(const char *name, const uint8_t *data, size_t size);

#endif

// SPDX-License-Identifier: Apache-2.0
/**
 * Strings: a growing byte buffer that may hold NUL bytes, and small helpers over paths.
 * Running out of memory while growing one ends the process with one line: nothing sensible can follow.
 */
#ifndef SAGO_STR_H
#define SAGO_STR_H

#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct sago_str {
    char *data; /* always ends with a NUL that length does not count; NULL when never written */
    size_t length, capacity;
} sago_str;

void sago_str_free(sago_str *s);
void sago_str_clear(sago_str *s); /* keeps the memory */
void sago_str_reserve(sago_str *s, size_t more);
void sago_str_add(sago_str *s, const char *bytes, size_t length);
void sago_str_puts(sago_str *s, const char *text);
void sago_str_putc(sago_str *s, char c);
void sago_str_printf(sago_str *s, const char *format, ...) SAGO_PRINTF(2, 3);
const char *sago_str_text(const sago_str *s); /* never NULL */

/** malloc, realloc, strdup that end the process with one line instead of returning NULL. */
void *sago_alloc(size_t bytes);
void *sago_alloc_zero(size_t count, size_t bytes);
void *sago_realloc(void *old, size_t bytes);
char *sago_strdup(const char *text);
char *sago_strndup(const char *text, size_t length);

/** A new string by printf. */
char *sago_format(const char *format, ...) SAGO_PRINTF(1, 2);

/** "DIR/NAME", or NAME alone when it is absolute or dir is empty. New memory. */
char *sago_path_join(const char *dir, const char *name);

/** The folder part: "a" of "a/b", "." of "b", "/" of "/b". New memory. */
char *sago_path_dir(const char *path);

/** The part after the last '/'. Points into path. */
const char *sago_path_base(const char *path);

/** The absolute form without "." and ".." parts; the path need not exist. New memory. */
char *sago_path_absolute(const char *path);

bool sago_starts_with(const char *text, const char *prefix);
bool sago_ends_with(const char *text, const char *suffix);

/** Edit distance of two short words: what "did you mean" uses. */
int sago_edit_distance(const char *a, const char *b);

/** Shell-style pattern with '*' and '?' over the whole text; '*' also matches '/'. */
bool sago_glob_match(const char *pattern, const char *text);

/** Bytes of the UTF-8 sequence at text (1 to 4), or 0 when none that is well-formed fits in left bytes. */
size_t sago_utf8_step(const char *text, size_t left);

/** True if bytes are valid UTF-8; else *at is the offset of the first wrong byte. NUL counts as valid. */
bool sago_utf8_valid(const char *bytes, size_t length, size_t *at);

#endif

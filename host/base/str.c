// SPDX-License-Identifier: Apache-2.0
#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *checked(void *memory, size_t bytes) {
    if (memory || bytes == 0) return memory;
    fprintf(stderr, "sago: no memory for %zu bytes\n", bytes);
    exit(1);
}

void *sago_alloc(size_t bytes) {
    return checked(malloc(bytes ? bytes : 1), bytes);
}

void *sago_alloc_zero(size_t count, size_t bytes) {
    return checked(calloc(count ? count : 1, bytes ? bytes : 1), count * bytes);
}

void *sago_realloc(void *old, size_t bytes) {
    return checked(realloc(old, bytes ? bytes : 1), bytes);
}

char *sago_strdup(const char *text) {
    return sago_strndup(text, strlen(text));
}

char *sago_strndup(const char *text, size_t length) {
    char *copy = sago_alloc(length + 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

void sago_str_free(sago_str *s) {
    free(s->data);
    *s = (sago_str){0};
}

void sago_str_clear(sago_str *s) {
    s->length = 0;
    if (s->data) s->data[0] = '\0';
}

void sago_str_reserve(sago_str *s, size_t more) {
    if (s->length + more + 1 <= s->capacity) return;
    size_t capacity = s->capacity ? s->capacity : 64;
    while (capacity < s->length + more + 1) capacity *= 2;
    s->data = sago_realloc(s->data, capacity);
    s->capacity = capacity;
}

void sago_str_add(sago_str *s, const char *bytes, size_t length) {
    sago_str_reserve(s, length);
    if (length) memcpy(s->data + s->length, bytes, length);
    s->length += length;
    s->data[s->length] = '\0';
}

void sago_str_puts(sago_str *s, const char *text) {
    sago_str_add(s, text, strlen(text));
}

void sago_str_putc(sago_str *s, char c) {
    sago_str_add(s, &c, 1);
}

static void add_formatted(sago_str *s, const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int need = vsnprintf(NULL, 0, format, arguments);
    if (need > 0) {
        sago_str_reserve(s, (size_t)need);
        vsnprintf(s->data + s->length, (size_t)need + 1, format, again);
        s->length += (size_t)need;
    }
    va_end(again);
}

void sago_str_printf(sago_str *s, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add_formatted(s, format, arguments);
    va_end(arguments);
}

const char *sago_str_text(const sago_str *s) {
    return s->data ? s->data : "";
}

char *sago_format(const char *format, ...) {
    sago_str s = {0};
    va_list arguments;
    va_start(arguments, format);
    add_formatted(&s, format, arguments);
    va_end(arguments);
    return s.data ? s.data : sago_strdup("");
}

char *sago_path_join(const char *dir, const char *name) {
    if (name[0] == '/' || !dir || !dir[0]) return sago_strdup(name);
    return sago_format("%s%s%s", dir, sago_ends_with(dir, "/") ? "" : "/", name);
}

char *sago_path_dir(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return sago_strdup(".");
    return slash == path ? sago_strdup("/") : sago_strndup(path, (size_t)(slash - path));
}

const char *sago_path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *sago_path_absolute(const char *path) {
    char here[4096];
    if (!getcwd(here, sizeof here)) strcpy(here, "/");
    char *whole = sago_path_join(here, path);
    char *out = sago_alloc(strlen(whole) + 2);
    size_t at = 0;
    for (char *save = NULL, *part = strtok_r(whole, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
        if (strcmp(part, ".") == 0) continue;
        if (strcmp(part, "..") == 0) {
            while (at > 0 && out[--at] != '/') {}
            continue;
        }
        out[at++] = '/';
        memcpy(out + at, part, strlen(part));
        at += strlen(part);
    }
    if (at == 0) out[at++] = '/';
    out[at] = '\0';
    free(whole);
    return out;
}

bool sago_starts_with(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool sago_ends_with(const char *text, const char *suffix) {
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

int sago_edit_distance(const char *a, const char *b) {
    enum { LONGEST = 63 };
    size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST) return LONGEST;
    int row[LONGEST + 1];
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int above = row[j];
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (above + 1 < best) best = above + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = above;
            row[j] = best;
        }
    }
    return row[m];
}

bool sago_glob_match(const char *pattern, const char *text) {
    const char *star = NULL, *resume = NULL;
    while (*text) {
        if (*pattern == '*') {
            star = pattern++;
            resume = text;
        } else if (*pattern == '?' || *pattern == *text) {
            pattern++, text++;
        } else if (star) {
            pattern = star + 1;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == '\0';
}

/* RFC 3629: no surrogates, nothing over-long. */
size_t sago_utf8_step(const char *text, size_t left) {
    const unsigned char *s = (const unsigned char *)text;
    if (left == 0) return 0;
    if (s[0] < 0x80) return 1;
    size_t length = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || left < length) return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if (s[0] == 0xE0 && s[1] < 0xA0) return 0;
    if (s[0] == 0xED && s[1] > 0x9F) return 0;
    if (s[0] == 0xF0 && s[1] < 0x90) return 0;
    if (s[0] == 0xF4 && s[1] > 0x8F) return 0;
    return length;
}

bool sago_utf8_valid(const char *bytes, size_t length, size_t *at) {
    for (size_t i = 0; i < length;) {
        size_t step = sago_utf8_step(bytes + i, length - i);
        if (step == 0) {
            if (at) *at = i;
            return false;
        }
        i += step;
    }
    return true;
}

// SPDX-License-Identifier: Apache-2.0
/* A MANIFEST. Its own hash would stop every mutation, so each input is also tried with a hash that holds.
 * What parses comes back the same from what is written of it, and its pieces lie inside of their tensors and
 * files. */
#include "fuzz.h"
#include "manifest.h"
#include "rng.h"
#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TAIL = 20 }; /* sixteen digits and "\n}\n" with the quote before it */

size_t sago_fuzz_seed(int i, uint8_t *out, size_t room) {
    sago_manifest m = {.step = 120, .meta = json_pack("{s:[i, f, n], s:s}", "a", 1, 0.5, "t", "\xc3\xa9")};
    sago_str text = {0};
    if (i > 1) {
        sago_manifest_free(&m);
        return 0;
    }
    for (int file = 0; file < 2 * i; file++) {
        char name[32];
        snprintf(name, sizeof name, "shard-%05d-of-00002.h5", file);
        sago_manifest_add_file(&m, name, 20000000, 0xabcdef);
        for (int k = 0; k < 3; k++) {
            /* a vector, halves of a matrix, and a matrix of two hash blocks */
            if (k != 1 && file != 0) continue;
            sago_manifest_piece p = {.file = file, .offset = {k == 1 ? 2 * file : 0, 0}, .at = 64 * k};
            p.shape[0] = k == 0 ? 7 : k == 1 ? 2 : 1100;
            p.shape[1] = k == 0 ? 1 : k == 1 ? 3 : 1000;
            p.n_hashes = k == 2 ? 2 : 1;
            p.hashes = sago_alloc_zero((size_t)p.n_hashes, sizeof *p.hashes);
            p.dataset = sago_strdup("/d");
            int64_t shape[2] = {k == 1 ? 4 : p.shape[0], p.shape[1]};
            if (sago_manifest_add_piece(&m, (const char *[]){"a", "b", "c"}[k], SAGO_F32, k == 0 ? 1 : 2,
                                        shape, p) != SAGO_OK)
                abort();
        }
    }
    sago_manifest_write(&m, &text);
    if (text.length > room) abort();
    memcpy(out, text.data, text.length);
    size_t size = text.length;
    sago_manifest_free(&m);
    sago_str_free(&text);
    return size;
}

static void parse(const char *text, size_t size) {
    sago_manifest m, again;
    if (sago_manifest_parse(text, size, "fuzz", true, &m) != SAGO_OK) {
        if (sago_message()[0] == '\0' || strchr(sago_message(), '\n')) abort();
        sago_manifest_free(&m);
        return;
    }
    for (int i = 0; i < m.n_tensors; i++)
        for (int k = 0; k < m.tensors[i].n_pieces; k++) {
            const sago_manifest_piece *p = &m.tensors[i].pieces[k];
            int64_t bytes = sago_manifest_piece_bytes(&m.tensors[i], p);
            if (bytes < 1 || p->at < 0 || p->at + bytes > m.files[p->file].bytes) abort();
            for (int d = 0; d < 2; d++)
                if (p->offset[d] < 0 || p->offset[d] + p->shape[d] > m.tensors[i].shape[d]) abort();
        }
    sago_str first = {0}, second = {0};
    sago_manifest_write(&m, &first);
    if (sago_manifest_parse(first.data, first.length, "again", true, &again) != SAGO_OK) abort();
    sago_manifest_write(&again, &second);
    if (first.length != second.length || memcmp(first.data, second.data, first.length) != 0) abort();
    sago_manifest_free(&m);
    sago_manifest_free(&again);
    sago_str_free(&first);
    sago_str_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    parse((const char *)data, size);
    if (size <= TAIL) return 0;
    char *sealed = sago_alloc(size), digits[17];
    memcpy(sealed, data, size);
    memcpy(sealed + size - 4, "\"\n}\n", 4);
    memset(sealed + size - TAIL, '0', 16);
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)sago_hash_bytes(sealed, size));
    memcpy(sealed + size - TAIL, digits, 16);
    parse(sealed, size);
    free(sealed);
    return 0;
}

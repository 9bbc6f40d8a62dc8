// SPDX-License-Identifier: Apache-2.0
/* A tokenizer's model file. What opens must encode and decode any text, and give ids of its own only. */
#include "fuzz.h"
#include "tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Seeds 0 to 3: models written by hand, small, of each kind (unigram, BPE, word, char); 4: one with a
 * normalisation table, as training makes them. */
static size_t piece(uint8_t *out, const char *text, float score, int type) {
    size_t n = strlen(text), body = 2 + n + 5 + 2;
    uint8_t head[4] = {0x0a, (uint8_t)body, 0x0a, (uint8_t)n};
    memcpy(out, head, 4);
    memcpy(out + 4, text, n);
    out[4 + n] = 0x15;
    memcpy(out + 5 + n, &score, 4);
    out[9 + n] = 0x18;
    out[10 + n] = (uint8_t)type;
    return 2 + body;
}

static size_t small_model(int kind, uint8_t *out) {
    static const char *const pieces[] = {"\xe2\x96\x81",
                                         "\xe2\x96\x81th",
                                         "t",
                                         "h",
                                         "e",
                                         "he",
                                         "the",
                                         "r",
                                         "er",
                                         "1",
                                         "\xc3\xa9",
                                         "in",
                                         "g",
                                         "i",
                                         "n",
                                         "ing",
                                         "<extra_id_0>"};
    size_t at = piece(out, "<pad>", 0, 3);
    at += piece(out + at, "</s>", 0, 3);
    at += piece(out + at, "<unk>", 0, 2);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        at += piece(out + at, pieces[i], -1.0f - (float)i / 4, pieces[i][0] == '<' ? 4 : 1);
    if (kind % 2 == 0) {
        char text[8];
        for (int byte = 0; byte < 256; byte++) {
            snprintf(text, sizeof text, "<0x%02X>", byte);
            at += piece(out + at, text, 0, 6);
        }
    }
    /* trainer_spec { model_type: kind + 1, byte_fallback: kind is even } */
    const uint8_t trainer[] = {0x12, 0x05, 0x18, (uint8_t)(kind + 1), 0x98, 0x02, kind % 2 == 0};
    memcpy(out + at, trainer, sizeof trainer);
    return at + sizeof trainer;
}

static size_t trained_model(uint8_t *out, size_t room) {
    char text[512 * 16], *end = text;
    for (int i = 0; i < 512; i++)
        end += sprintf(end, "%s%c", (const char *[]){"the", "ring", "either", "night"}[(i * i + i / 7) % 4],
                       i % 8 == 7 ? '\n' : ' ');
    char *corpus = sago_strdup(sago_fuzz_file("corpus.txt", (const uint8_t *)text, (size_t)(end - text)));
    char *model = sago_strdup(sago_fuzz_path("spiece.model"));
    const char *files[] = {corpus};
    const sago_tokenizer_training training = {files, 1, 14, model, "unigram", 1};
    size_t size = 0;
    sago_tokenizer *tokenizer = NULL;
    if (sago_tokenizer_train(&training) != SAGO_OK || sago_tokenizer_open(model, &tokenizer) != SAGO_OK) {
        fprintf(stderr, "%s\n", sago_message());
        abort();
    }
    const void *bytes = sago_tokenizer_bytes(tokenizer, &size);
    if (size > room) abort();
    memcpy(out, bytes, size);
    sago_tokenizer_close(tokenizer);
    free(corpus);
    free(model);
    return size;
}

size_t sago_fuzz_seed(int i, uint8_t *out, size_t room) {
    if (i < 4) return small_model(i, out);
    return i == 4 ? trained_model(out, room) : 0;
}

static void use(const sago_tokenizer *tokenizer, const char *text, size_t length) {
    sago_ids ids = {0};
    sago_str back = {0};
    if (sago_tokenizer_encode(tokenizer, text, length, &ids) == SAGO_OK) {
        for (int64_t i = 0; i < ids.length; i++)
            if (ids.data[i] < 0 || ids.data[i] >= sago_tokenizer_sentinel(tokenizer, SAGO_SENTINELS - 1))
                abort();
        if (sago_tokenizer_decode(tokenizer, ids.data, ids.length, &back) != SAGO_OK && !sago_message()[0])
            abort();
    }
    sago_ids_free(&ids);
    sago_str_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] =
        "There is the ringing\xe2\x80\xa6 <extra_id_0> \xef\xac\x81\xe2\x85\xa3 e\xcc\x81 \xff 12</s>";
    sago_tokenizer *tokenizer;
    if (sago_tokenizer_from_bytes("fuzz", data, size, &tokenizer) != SAGO_OK) {
        if (sago_message()[0] == '\0' || strchr(sago_message(), '\n')) abort();
        return 0;
    }
    use(tokenizer, text, sizeof text);
    use(tokenizer, (const char *)data, size < 300 ? size : 300); /* bytes that have to do with this model */
    const int32_t ids[] = {3, 4, 0, 1, 2, sago_tokenizer_sentinel(tokenizer, 3), 4000000, -1};
    sago_str back = {0};
    if (sago_tokenizer_decode(tokenizer, ids, 8, &back) != SAGO_OK && !sago_message()[0]) abort();
    sago_str_free(&back);
    sago_tokenizer_close(tokenizer);
    return 0;
}

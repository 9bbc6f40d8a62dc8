// SPDX-License-Identifier: Apache-2.0
/*
 * The parts of sentencepiece_model.proto that matter for safety:
 *     ModelProto      { repeated SentencePiece pieces = 1; NormalizerSpec normalizer_spec = 3,
 * denormalizer_spec = 5 } SentencePiece   { string piece = 1; float score = 2; enum type = 3 } NormalizerSpec
 * { bytes precompiled_charsmap = 2 } charsmap        = u32 trie bytes, trie (u32 units of a Darts-clone
 * double array), NUL-ended strings
 */
#include "sentencepiece.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };
enum { MAX_PIECES = 1 << 20, MAX_PIECE_BYTES = 4096, MAX_REPLACEMENT_BYTES = 256 };

typedef struct reader {
    unsigned char *at, *end;
} reader;

typedef struct field {
    uint64_t number, value; /* value of a varint or of a fixed word */
    int wire;               /* 0 varint, 1 fixed64, 2 bytes, 5 fixed32 */
    reader bytes;           /* wire 2 */
    unsigned char *value_at;
} field;

static bool read_varint(reader *r, uint64_t *out) {
    *out = 0;
    for (int shift = 0; shift < 64 && r->at < r->end; shift += 7) {
        unsigned char byte = *r->at++;
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return true;
    }
    return false;
}

static bool read_fixed(reader *r, int bytes, uint64_t *out) {
    if (r->end - r->at < bytes) return false;
    *out = 0;
    for (int i = 0; i < bytes; i++) *out |= (uint64_t)r->at[i] << (8 * i);
    r->at += bytes;
    return true;
}

static bool read_field(reader *r, field *out) {
    uint64_t key;
    if (!read_varint(r, &key)) return false;
    *out = (field){.number = key >> 3, .wire = (int)(key & 7), .value_at = r->at};
    switch (out->wire) {
    case 0:
        return read_varint(r, &out->value);
    case 1:
        return read_fixed(r, 8, &out->value);
    case 5:
        return read_fixed(r, 4, &out->value);
    case 2: {
        uint64_t length;
        if (!read_varint(r, &length) || length > (uint64_t)(r->end - r->at)) return false;
        out->bytes = (reader){r->at, r->at + length};
        r->at += length;
        return true;
    }
    default:
        return false;
    }
}

static uint32_t unit_at(const unsigned char *trie, uint64_t i) {
    const unsigned char *p = trie + 4 * i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* What one character becomes; NFKC's longest takes 33 bytes. The strings end with a NUL, so each of them ends
 * inside. */
static bool string_is_sound(const unsigned char *strings, uint64_t bytes, uint64_t at) {
    return at < bytes &&
           strnlen((const char *)strings + at, MAX_REPLACEMENT_BYTES + 1) <= MAX_REPLACEMENT_BYTES;
}

/*
 * A walk from node n over byte c goes to unit (n ^ offset(n) ^ c), with no check of bounds in the library: so
 * every node that can be reached must have its 256 neighbours inside, and every value must name a string that
 * ends inside.
 */
static bool trie_is_sound(const unsigned char *trie, uint64_t units, const unsigned char *strings,
                          uint64_t bytes) {
    if (units == 0 || bytes == 0 || strings[bytes - 1] != '\0') return false;
    bool sound = false;
    unsigned char *seen = sago_alloc_zero(units, 1);
    uint64_t *stack = sago_alloc(units * sizeof *stack);
    uint64_t n_stack = 0;
    stack[n_stack++] = 0;
    seen[0] = 1;
    while (n_stack > 0) {
        uint64_t node = stack[--n_stack];
        uint32_t unit = unit_at(trie, node);
        uint64_t base = node ^ (uint64_t)((unit >> 10) << ((unit & (1u << 9)) >> 6));
        if ((base | 255) >= units) goto done;
        bool has_leaf = (unit >> 8) & 1;
        if (has_leaf && !string_is_sound(strings, bytes, unit_at(trie, base) & 0x7fffffffu)) goto done;
        for (uint64_t c = 0; c < 256; c++) {
            uint64_t next = base ^ c;
            bool is_child = (unit_at(trie, next) & (1u << 31 | 255u)) == c;
            if (!is_child || seen[next]) continue;
            seen[next] = 1;
            stack[n_stack++] = next;
        }
    }
    sound = true;
done:
    free(stack);
    free(seen);
    return sound;
}

static sago_status check_normalizer(const char *name, reader r) {
    field f;
    while (r.at < r.end) {
        if (!read_field(&r, &f))
            return sago_fail(SAGO_E_INPUT, "%s: not a SentencePiece model: damaged", name);
        if (f.number != 2 || f.wire != 2 || f.bytes.at == f.bytes.end) continue;
        uint64_t trie_bytes, room = (uint64_t)(f.bytes.end - f.bytes.at);
        reader map = f.bytes;
        if (!read_fixed(&map, 4, &trie_bytes) || trie_bytes > room - 4 || trie_bytes % 4 != 0 ||
            !trie_is_sound(map.at, trie_bytes / 4, map.at + trie_bytes, room - 4 - trie_bytes))
            return sago_fail(SAGO_E_INPUT,
                             "%s: the normalisation table of this SentencePiece model is damaged", name);
    }
    return SAGO_OK;
}

static bool looks_like_sentinel(const reader *piece) {
    static const char head[] = "<extra_id_";
    size_t length = (size_t)(piece->end - piece->at), skip = sizeof head - 1;
    /* Some models keep a word mark in front of the symbol: U+2581. */
    const unsigned char *p = piece->at;
    if (length > 3 && memcmp(p, "\xE2\x96\x81", 3) == 0) p += 3, length -= 3;
    if (length < skip + 2 || memcmp(p, head, skip) != 0 || p[length - 1] != '>') return false;
    for (size_t i = skip; i < length - 1; i++)
        if (p[i] < '0' || p[i] > '9') return false;
    return true;
}

static sago_status check_piece(const char *name, reader r, int32_t id) {
    uint64_t type = NORMAL;
    unsigned char *type_at = NULL;
    reader text = {0};
    float score = 0;
    field f;
    while (r.at < r.end) {
        if (!read_field(&r, &f))
            return sago_fail(SAGO_E_INPUT, "%s: not a SentencePiece model: damaged", name);
        if (f.number == 1 && f.wire == 2) text = f.bytes;
        if (f.number == 2 && f.wire == 5) memcpy(&score, f.value_at, sizeof score);
        if (f.number == 3 && f.wire == 0) type = f.value, type_at = f.value_at;
    }
    size_t length = (size_t)(text.end - text.at), wrong;
    if (length == 0 || length > MAX_PIECE_BYTES || memchr(text.at, '\0', length) ||
        !sago_utf8_valid((const char *)text.at, length, &wrong))
        return sago_fail(SAGO_E_INPUT,
                         "%s: piece %d of this SentencePiece model is not a text of 1 to %d bytes", name,
                         (int)id, MAX_PIECE_BYTES);
    if (!isfinite(score) || fabsf(score) > 1e9f)
        return sago_fail(SAGO_E_INPUT, "%s: the score of piece %d is not a number", name, (int)id);
    if (type < NORMAL || type > BYTE)
        return sago_fail(SAGO_E_INPUT, "%s: piece %d has the unknown type %llu", name, (int)id,
                         (unsigned long long)type);
    if (type == USER_DEFINED && looks_like_sentinel(&text)) *type_at = CONTROL;
    static const char *const special[] = {"a padding control piece", "an end-of-sequence control piece",
                                          "the unknown piece"};
    if (id <= SAGO_UNK_ID && type != (id == SAGO_UNK_ID ? UNKNOWN : CONTROL))
        return sago_fail(
            SAGO_E_INPUT,
            "%s: piece %d is not %s: a model needs T5's special ids, pad 0, eos 1, unk 2 (as `sago "
            "tokenizer train` makes them)",
            name, (int)id, special[id]);
    if (id > SAGO_UNK_ID && type == UNKNOWN)
        return sago_fail(SAGO_E_INPUT, "%s: piece %d is a second unknown piece", name, (int)id);
    return SAGO_OK;
}

sago_status sago_sentencepiece_check(const char *name, unsigned char *bytes, size_t size, int32_t *pieces) {
    reader r = {bytes, bytes + size};
    *pieces = 0;
    field f;
    while (r.at < r.end) {
        if (!read_field(&r, &f) || f.number == 0)
            return sago_fail(SAGO_E_INPUT, "%s: not a SentencePiece model, or cut short (at byte %zu)", name,
                             (size_t)(r.at - bytes));
        if (f.wire != 2) continue;
        if (f.number == 1) {
            if (*pieces == MAX_PIECES)
                return sago_fail(SAGO_E_INPUT, "%s: more than %d pieces", name, (int)MAX_PIECES);
            SAGO_TRY(check_piece(name, f.bytes, (*pieces)++));
        }
        if (f.number == 3 || f.number == 5) SAGO_TRY(check_normalizer(name, f.bytes));
    }
    if (*pieces <= SAGO_UNK_ID)
        return sago_fail(SAGO_E_INPUT, "%s: not a SentencePiece model: %d pieces", name, (int)*pieces);
    return SAGO_OK;
}

// SPDX-License-Identifier: Apache-2.0
#include "rules.h"

#include <string.h>

static const char *const axis_names[] = {"vocab", "embed", "heads", "kv", "mlp", "buckets", "none"};

const char *sago_axis_name(sago_axis axis) {
    return axis_names[axis];
}

static bool word_is(const char *text, size_t length, const char *word) {
    return strlen(word) == length && memcmp(text, word, length) == 0;
}

/* "heads: model" -> SAGO_AXIS_HEADS, true. */
static sago_status parse(const char *rule, sago_axis *axis, bool *cut) {
    const char *left = rule + strspn(rule, " \t");
    size_t left_length = strcspn(left, " \t:");
    const char *colon = left + left_length + strspn(left + left_length, " \t");
    const char *right = *colon == ':' ? colon + 1 + strspn(colon + 1, " \t") : colon;
    size_t right_length = strcspn(right, " \t");
    bool whole = *colon == ':' && right[right_length + strspn(right + right_length, " \t")] == '\0';
    *axis = SAGO_AXIS_NONE;
    for (int a = 0; a < SAGO_AXIS_NONE; a++)
        if (word_is(left, left_length, axis_names[a])) *axis = (sago_axis)a;
    *cut = word_is(right, right_length, "model");
    if (whole && *axis != SAGO_AXIS_NONE && (*cut || word_is(right, right_length, "none"))) return SAGO_OK;
    return sago_fail(
        SAGO_E_CONFIG,
        "mesh.rules: \"%s\": a rule is \"AXIS: model\" or \"AXIS: none\", where AXIS is vocab, embed, "
        "heads, kv, mlp or buckets",
        rule);
}

sago_status sago_rules_dim(const char *const rules[], int n_rules, int n_dims, const sago_axis axes[],
                           int *dim) {
    bool decided[2] = {false, false};
    *dim = -1;
    for (int r = 0; r < n_rules; r++) {
        sago_axis axis;
        bool cut;
        SAGO_TRY(parse(rules[r], &axis, &cut));
        for (int i = 0; i < n_dims; i++) {
            if (axes[i] != axis || decided[i]) continue;
            decided[i] = true;
            if (cut && *dim < 0) *dim = i;
        }
    }
    return SAGO_OK;
}

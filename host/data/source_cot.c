// SPDX-License-Identifier: Apache-2.0
/* Chain-of-thought TSV as published with the Flan collection: question, answer, chain, no header and no
 * quoting; a line break inside a column is written \n. The chain may be missing or empty. */
#include "source.h"

#include <string.h>

static void add_unescaped(sago_str *out, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\\' && i + 1 < length && (text[i + 1] == 'n' || text[i + 1] == 't')) {
            sago_str_putc(out, text[i + 1] == 'n' ? '\n' : '\t');
            i++;
        } else {
            sago_str_putc(out, text[i]);
        }
    }
    while (out->length && (out->data[out->length - 1] == '\n' || out->data[out->length - 1] == ' '))
        out->data[--out->length] = '\0';
}

sago_status sago_parse_cot(const sago_source *source, sago_where where, const char *note, const char *bytes,
                           size_t length, sago_fields *out) {
    static const char *const names[3] = {"question", "answer", "chain"};
    (void)source, (void)note;
    int column = 0;
    for (size_t at = 0; at <= length; column++) {
        const char *tab = at < length ? memchr(bytes + at, '\t', length - at) : NULL;
        size_t stop = tab ? (size_t)(tab - bytes) : length;
        if (column == 3)
            return sago_fail(SAGO_E_INPUT, "%s:%lld: more than three columns (question, answer, chain)",
                             where.path, (long long)where.line);
        if (stop == at && column < 2)
            return sago_fail(SAGO_E_INPUT, "%s:%lld: the %s is empty", where.path, (long long)where.line,
                             names[column]);
        if (stop > at) add_unescaped(sago_fields_add(out, names[column]), bytes + at, stop - at);
        at = stop + 1;
    }
    if (column < 2)
        return sago_fail(SAGO_E_INPUT,
                         "%s:%lld: %d column; question, answer and chain are needed, with tabs between",
                         where.path, (long long)where.line, column);
    return SAGO_OK;
}

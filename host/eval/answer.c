// SPDX-License-Identifier: Apache-2.0
#include "answer.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void sago_answer_extract(const char *output, const char *marker, sago_str *out) {
    const char *start = output;
    size_t length = strlen(marker);
    bool found = false;
    if (length)
        for (const char *p = output; *p; p++)
            if (strncasecmp(p, marker, length) == 0) start = p + length, found = true;
    while (isspace((unsigned char)*start)) start++;
    size_t n = strlen(start);
    while (n && isspace((unsigned char)start[n - 1])) n--;
    if (found && n && start[n - 1] == '.') n--;
    sago_str_clear(out);
    sago_str_add(out, start, n);
}

/* Copies text with runs of white space as one blank, none at the ends. */
static char *fold_space(const char *text) {
    sago_str s = {0};
    for (const char *p = text; *p; p++) {
        if (isspace((unsigned char)*p)) continue;
        if (s.length && p > text && isspace((unsigned char)p[-1])) sago_str_putc(&s, ' ');
        sago_str_putc(&s, *p);
    }
    return s.data ? s.data : sago_strdup("");
}

double sago_exact_match(const char *answer, char *const references[], int n_references) {
    char *mine = fold_space(answer);
    double best = 0;
    for (int i = 0; i < n_references && best == 0; i++) {
        char *theirs = fold_space(references[i]);
        best = strcmp(mine, theirs) == 0;
        free(theirs);
    }
    free(mine);
    return best;
}

/* The words of a text, as offsets into one buffer. */
typedef struct words {
    sago_str text; /* words ended by NUL */
    char **items;
    int count, room;
} words;

static void words_free(words *w) {
    sago_str_free(&w->text);
    free(w->items);
}

static void words_add(words *w, char *word) {
    if (w->count == w->room) {
        w->room = w->room ? 2 * w->room : 16;
        w->items = sago_realloc(w->items, (size_t)w->room * sizeof *w->items);
    }
    w->items[w->count++] = word;
}

/* Splits at what keep() refuses after dropping what drop() names; both over lower-case bytes. */
static words split(const char *text, bool (*is_word)(int), bool (*drop)(int)) {
    words w = {0};
    for (const char *p = text; *p; p++) {
        int c = tolower((unsigned char)*p);
        if (drop && drop(c)) continue;
        sago_str_putc(&w.text, is_word(c) ? (char)c : '\0');
    }
    sago_str_putc(&w.text, '\0');
    for (size_t i = 0; i < w.text.length; i++)
        if (w.text.data[i] && (i == 0 || !w.text.data[i - 1])) words_add(&w, w.text.data + i);
    return w;
}

static bool not_space(int c) { return !isspace(c); }
static bool is_punctuation(int c) { return c < 0x80 && ispunct(c); }
static bool is_letter(int c) { return c >= 0x80 || isalnum(c); }

static words squad_words(const char *text) {
    words w = split(text, not_space, is_punctuation);
    int kept = 0;
    for (int i = 0; i < w.count; i++) {
        const char *word = w.items[i];
        if (strcmp(word, "a") && strcmp(word, "an") && strcmp(word, "the")) w.items[kept++] = w.items[i];
    }
    w.count = kept;
    return w;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static double f_measure(double common, double n_mine, double n_theirs) {
    if (common == 0) return 0;
    double precision = common / n_mine, recall = common / n_theirs;
    return 2 * precision * recall / (precision + recall);
}

static double bag_f1(words *mine, const char *reference) {
    words theirs = squad_words(reference);
    double score;
    if (mine->count == 0 || theirs.count == 0) {
        score = mine->count == theirs.count;
    } else {
        qsort(mine->items, (size_t)mine->count, sizeof *mine->items, by_text);
        qsort(theirs.items, (size_t)theirs.count, sizeof *theirs.items, by_text);
        int common = 0;
        for (int i = 0, j = 0; i < mine->count && j < theirs.count;) {
            int order = strcmp(mine->items[i], theirs.items[j]);
            common += order == 0;
            i += order <= 0;
            j += order >= 0;
        }
        score = f_measure(common, mine->count, theirs.count);
    }
    words_free(&theirs);
    return score;
}

double sago_token_f1(const char *answer, char *const references[], int n_references) {
    words mine = squad_words(answer);
    double best = 0;
    for (int i = 0; i < n_references; i++) {
        double score = bag_f1(&mine, references[i]);
        if (score > best) best = score;
    }
    words_free(&mine);
    return best;
}

static double subsequence_f(const words *mine, const char *reference) {
    words theirs = split(reference, is_letter, NULL);
    int *row = sago_alloc_zero((size_t)theirs.count + 1, sizeof *row);
    for (int i = 0; i < mine->count; i++) {
        int diagonal = 0;
        for (int j = 1; j <= theirs.count; j++) {
            int above = row[j];
            if (strcmp(mine->items[i], theirs.items[j - 1]) == 0)
                row[j] = diagonal + 1;
            else if (row[j - 1] > row[j])
                row[j] = row[j - 1];
            diagonal = above;
        }
    }
    double score = f_measure(row[theirs.count], mine->count, theirs.count);
    free(row);
    words_free(&theirs);
    return score;
}

double sago_rouge_l(const char *answer, char *const references[], int n_references) {
    words mine = split(answer, is_letter, NULL);
    double best = 0;
    for (int i = 0; i < n_references; i++) {
        double score = subsequence_f(&mine, references[i]);
        if (score > best) best = score;
    }
    words_free(&mine);
    return best;
}

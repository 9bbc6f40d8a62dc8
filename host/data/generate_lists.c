// SPDX-License-Identifier: Apache-2.0
/* Operations on lists of words of a kind, each with its instruction: the tasks of DIR/niv2. */
#include "generate.h"

#include <stdio.h>
#include <string.h>

const sago_kind sago_kinds[SAGO_KINDS] = {
    {"animal",
     "animals",
     "an",
     {"cat", "dog", "cow", "horse", "pig", "sheep", "goat", "duck", "hen", "mouse", "fox", "bear"}},
    {"fruit",
     "fruits",
     "a",
     {"apple", "pear", "plum", "peach", "grape", "lemon", "banana", "cherry", "mango", "melon", "fig",
      "kiwi"}},
    {"color",
     "colors",
     "a",
     {"red", "blue", "green", "black", "white", "pink", "gray", "brown", "purple", "gold", "silver",
      "yellow"}},
    {"tool",
     "tools",
     "a",
     {"hammer", "saw", "drill", "knife", "fork", "spoon", "pen", "brush", "rope", "key", "shovel", "ladder"}},
    {"piece of clothing",
     "clothes",
     "a",
     {"hat", "coat", "shirt", "shoe", "sock", "scarf", "glove", "belt", "dress", "boot", "cap", "skirt"}},
    {"name",
     "names",
     "a",
     {"Anna", "Ben", "Carl", "Dana", "Emma", "Fred", "Gina", "Hugo", "Ida", "John", "Kate", "Leo"}},
};

static void add_list(sago_str *out, const char *const words[], int n) {
    for (int i = 0; i < n; i++) sago_str_printf(out, "%s%s", i ? ", " : "", words[i]);
}

static int some_words(sago_dice *dice, int kind, int least, int most, const char *words[]) {
    int n = least + sago_dice_roll(dice, most - least + 1), chosen[SAGO_KIND_WORDS];
    sago_dice_choose(dice, SAGO_KIND_WORDS, n, chosen);
    for (int i = 0; i < n; i++) words[i] = sago_kinds[kind].words[chosen[i]];
    return n;
}

enum { FIRST, SECOND, LAST, N_POSITIONS };

static void make_position(sago_dice *dice, int operation, int kind, sago_made *out) {
    const char *words[SAGO_KIND_WORDS];
    int n = some_words(dice, kind, 3, 5, words);
    add_list(&out->input, words, n);
    sago_str_puts(&out->output, words[operation == FIRST ? 0 : operation == SECOND ? 1 : n - 1]);
}

enum { COUNT, REVERSE, SWAP, REPEAT };

static void make_order(sago_dice *dice, int operation, int kind, sago_made *out) {
    const char *words[SAGO_KIND_WORDS], *changed[SAGO_KIND_WORDS];
    int n = operation == COUNT  ? some_words(dice, kind, 1, 6, words)
            : operation == SWAP ? some_words(dice, kind, 2, 2, words)
                                : some_words(dice, kind, 2, 3, words);
    add_list(&out->input, words, n);
    if (operation == COUNT) {
        sago_str_printf(&out->output, "%d", n);
        return;
    }
    for (int i = 0; i < n; i++) changed[i] = operation == REPEAT ? words[i] : words[n - 1 - i];
    add_list(&out->output, changed, n);
}

/* Words of different kinds; at most one of the kind asked for. */
static void make_mixed(sago_dice *dice, int operation, int kind, sago_made *out) {
    const char *words[4] = {0}; /* for compilers that cannot see that n > 0 */
    int n = 3 + sago_dice_roll(dice, 2), others[SAGO_KINDS], place = sago_dice_roll(dice, n);
    bool present = operation == 0 || sago_dice_roll(dice, 2);
    sago_dice_choose(dice, SAGO_KINDS - 1, n, others);
    for (int i = 0; i < n; i++) {
        int other = others[i] + (others[i] >= kind);
        words[i] = sago_dice_word(dice, present && i == place ? kind : other);
    }
    add_list(&out->input, words, n);
    sago_str_puts(&out->output, operation == 0 ? words[place] : present ? "yes" : "no");
}

/* One word of another kind among three. */
static void make_odd(sago_dice *dice, int operation, int kind, sago_made *out) {
    (void)operation;
    const char *words[4];
    some_words(dice, kind, 4, 4, words);
    int place = sago_dice_roll(dice, 4), other = sago_dice_roll(dice, SAGO_KINDS - 1);
    words[place] = sago_dice_word(dice, other + (other >= kind));
    add_list(&out->input, words, 4);
    sago_str_puts(&out->output, words[place]);
}

static const char *short_name(int kind) {
    return kind == SAGO_KIND_CLOTHES ? "clothes" : sago_kinds[kind].one;
}

void sago_made_lists(sago_made_tasks *tasks) {
    static const char *const places[N_POSITIONS] = {"first", "second", "last"};
    for (int kind = 0; kind < SAGO_KINDS; kind++) {
        const sago_kind *k = &sago_kinds[kind];
        for (int operation = 0; operation < N_POSITIONS; operation++) {
            sago_made_task *task = sago_made_tasks_add(tasks, "niv2", "Position", make_position, operation,
                                                       kind, "%s_%s", places[operation], short_name(kind));
            sago_str_printf(&task->definition, "Write the %s %s of the list.", places[operation], k->one);
        }
        sago_made_task *task = sago_made_tasks_add(tasks, "niv2", "Selection", make_mixed, 0, kind,
                                                   "select_%s", short_name(kind));
        sago_str_printf(&task->definition, "Which word of the list is %s %s?", k->article, k->one);
        task = sago_made_tasks_add(tasks, "niv2", "Membership", make_mixed, 1, kind, "contains_%s",
                                   short_name(kind));
        sago_str_printf(&task->definition, "Is there %s %s in the list? Answer yes or no.", k->article,
                        k->one);
        task = sago_made_tasks_add(tasks, "niv2", "Counting", make_order, COUNT, kind, "count_%s", k->many);
        sago_str_printf(&task->definition, "Count the %s of the list.", k->many);
        task = sago_made_tasks_add(tasks, "niv2", "Reordering", make_order, SWAP, kind, "swap_%s", k->many);
        sago_str_printf(&task->definition, "Swap the two %s.", k->many);
        task =
            sago_made_tasks_add(tasks, "niv2", "Reordering", make_order, REPEAT, kind, "repeat_%s", k->many);
        sago_str_printf(&task->definition, "Repeat the list of %s.", k->many);
    }
    for (int kind = 0; kind < SAGO_KINDS; kind += 2) {
        sago_made_task *task = sago_made_tasks_add(tasks, "niv2", "Reordering", make_order, REVERSE, kind,
                                                   "reverse_%s", sago_kinds[kind].many);
        sago_str_printf(&task->definition, "Reverse the list of %s.", sago_kinds[kind].many);
        task = sago_made_tasks_add(tasks, "niv2", "Odd One Out", make_odd, 0, kind, "odd_among_%s",
                                   sago_kinds[kind].many);
        sago_str_puts(&task->definition, "Which word does not belong in the list?");
    }
}

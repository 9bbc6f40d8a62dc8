// SPDX-License-Identifier: Apache-2.0
/* Questions with a chain of thought: the tasks of DIR/cot. */
#include "generate.h"

#include <string.h>

static void make_story(sago_dice *dice, int operation, int kind, sago_made *out) {
    const char *name = sago_dice_word(dice, SAGO_KIND_NAME);
    const sago_kind *things = &sago_kinds[kind];
    int a = 1 + sago_dice_roll(dice, 9), b = 1 + sago_dice_roll(dice, 9);
    if (operation == 0) {
        sago_str_printf(&out->input, "%s has %d %s and gets %d more. How many %s does %s have now?", name, a,
                        things->many, b, things->many, name);
        sago_str_printf(&out->chain, "%d + %d = %d.", a, b, a + b);
        sago_str_printf(&out->output, "%d", a + b);
    } else {
        sago_str_printf(&out->input, "%s has %d %s and gives %d away. How many %s does %s have now?", name,
                        a + b, things->many, b, things->many, name);
        sago_str_printf(&out->chain, "%d - %d = %d.", a + b, b, a);
        sago_str_printf(&out->output, "%d", a);
    }
}

static void make_coin(sago_dice *dice, int operation, int people, sago_made *out) {
    int chosen[3];
    bool up = true;
    (void)operation;
    sago_dice_choose(dice, SAGO_KIND_WORDS, people, chosen);
    sago_str_puts(&out->input, "A coin is heads up. ");
    for (int i = 0; i < people; i++) {
        bool flips = sago_dice_roll(dice, 2);
        const char *name = sago_kinds[SAGO_KIND_NAME].words[chosen[i]];
        sago_str_printf(&out->input, "%s %s the coin. ", name, flips ? "flips" : "does not flip");
        if (flips) up = !up;
        sago_str_printf(&out->chain, "%sAfter %s it is %s.", i ? " " : "", name, up ? "heads" : "tails");
    }
    sago_str_puts(&out->input, "Is the coin still heads up?");
    sago_str_puts(&out->output, up ? "yes" : "no");
}

static void make_letters(sago_dice *dice, int operation, int kind, sago_made *out) {
    /* A word of the kind and a name, in either order. */
    int turn = sago_dice_roll(dice, 2);
    const char *one = sago_dice_word(dice, turn ? kind : SAGO_KIND_NAME);
    const char *two = sago_dice_word(dice, turn ? SAGO_KIND_NAME : kind);
    char a = operation == 0 ? one[0] : one[strlen(one) - 1],
         b = operation == 0 ? two[0] : two[strlen(two) - 1];
    const char *which = operation == 0 ? "first" : "last";
    sago_str_printf(&out->input, "Put the %s letters of \"%s %s\" together.", which, one, two);
    sago_str_printf(&out->chain, "%s: %c. %s: %c.", one, a, two, b);
    sago_str_printf(&out->output, "%c%c", a, b);
}

void sago_made_chains(sago_made_tasks *tasks) {
    sago_made_tasks_add(tasks, "cot", "stories", make_story, 0, SAGO_KIND_FRUIT, "more_fruits");
    sago_made_tasks_add(tasks, "cot", "stories", make_story, 1, SAGO_KIND_FRUIT, "fewer_fruits");
    sago_made_tasks_add(tasks, "cot", "stories", make_story, 0, SAGO_KIND_TOOL, "more_tools");
    sago_made_tasks_add(tasks, "cot", "stories", make_story, 1, SAGO_KIND_TOOL, "fewer_tools");
    sago_made_tasks_add(tasks, "cot", "coins", make_coin, 0, 1, "coin_one");
    sago_made_tasks_add(tasks, "cot", "coins", make_coin, 0, 2, "coin_two");
    sago_made_tasks_add(tasks, "cot", "letters", make_letters, 0, SAGO_KIND_ANIMAL, "first_letters_animals");
    sago_made_tasks_add(tasks, "cot", "letters", make_letters, 1, SAGO_KIND_ANIMAL, "last_letters_animals");
    sago_made_tasks_add(tasks, "cot", "letters", make_letters, 0, SAGO_KIND_TOOL, "first_letters_tools");
    sago_made_tasks_add(tasks, "cot", "letters", make_letters, 1, SAGO_KIND_TOOL, "last_letters_tools");
}

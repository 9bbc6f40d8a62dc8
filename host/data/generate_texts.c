// SPDX-License-Identifier: Apache-2.0
/* Finished texts: numbers, days, short passages, opposites, sentiment. The tasks of DIR/jsonl, and of
 * DIR/table. */
#include "generate.h"

#include <stdio.h>
#include <string.h>

static void make_numbers(sago_dice *dice, int operation, int count, sago_made *out) {
    int numbers[3], best;
    sago_dice_choose(dice, 30, count, numbers);
    best = numbers[0];
    for (int i = 1; i < count; i++)
        if (operation == 0 ? numbers[i] > best : numbers[i] < best) best = numbers[i];
    const char *word =
        operation == 0 ? (count == 2 ? "larger" : "largest") : (count == 2 ? "smaller" : "smallest");
    sago_str_printf(&out->input, "Which number is %s: ", word);
    for (int i = 0; i < count; i++)
        sago_str_printf(&out->input, "%s%d", i == 0 ? "" : i == count - 1 ? " or " : ", ", numbers[i]);
    sago_str_putc(&out->input, '?');
    sago_str_printf(&out->output, "%d", best);
}

static const char *const days[7] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                    "Friday", "Saturday", "Sunday"};

static void make_days(sago_dice *dice, int operation, int way, sago_made *out) {
    static const char *const acts[] = {"works", "swims", "cooks", "reads", "sings", "paints"};
    int today = sago_dice_roll(dice, 7), step = operation == 0 ? 1 : 6;
    const char *name = sago_dice_word(dice, SAGO_KIND_NAME), *act = acts[sago_dice_roll(dice, 6)];
    const char *other = sago_dice_word(dice, SAGO_KIND_NAME);
    if (way == 0)
        sago_str_printf(&out->input, "%s %s on %s. %s %s the day %s. On which day is that?", name, act,
                        days[today], other, act, operation == 0 ? "after" : "before");
    else
        sago_str_printf(&out->input, "%s says: today is %s and I %.*s. Which day %s?", name, days[today],
                        (int)strlen(act) - 1, act, operation == 0 ? "is tomorrow" : "was yesterday");
    sago_str_puts(&out->output, days[(today + step) % 7]);
}

static const char *article(const char *word) {
    return strchr("aeiou", word[0]) ? "an" : "a";
}

/* Two people and what they have; asks for the person or the thing. */
static void make_having(sago_dice *dice, int operation, int kind, sago_made *out) {
    int people[2], things[2], asked = sago_dice_roll(dice, 2);
    sago_dice_choose(dice, SAGO_KIND_WORDS, 2, people);
    sago_dice_choose(dice, SAGO_KIND_WORDS, 2, things);
    for (int i = 0; i < 2; i++) {
        const char *thing = sago_kinds[kind].words[things[i]];
        sago_str_printf(&out->input, "%s has %s %s. ", sago_kinds[SAGO_KIND_NAME].words[people[i]],
                        article(thing), thing);
    }
    const char *person = sago_kinds[SAGO_KIND_NAME].words[people[asked]];
    const char *thing = sago_kinds[kind].words[things[asked]];
    if (operation == 0) {
        sago_str_printf(&out->input, "Who has %s %s?", article(thing), thing);
        sago_str_puts(&out->output, person);
    } else {
        sago_str_printf(&out->input, "What does %s have?", person);
        sago_str_puts(&out->output, thing);
    }
}

static const char *const places[] = {"kitchen", "garden", "school",  "park",
                                     "shop",    "office", "station", "library"};

static void make_places(sago_dice *dice, int operation, int kind, sago_made *out) {
    (void)kind;
    int people[2], where[2], asked = sago_dice_roll(dice, 2);
    sago_dice_choose(dice, SAGO_KIND_WORDS, 2, people);
    sago_dice_choose(dice, 8, 2, where);
    for (int i = 0; i < 2; i++)
        sago_str_printf(&out->input, "%s is in the %s. ", sago_kinds[SAGO_KIND_NAME].words[people[i]],
                        places[where[i]]);
    const char *person = sago_kinds[SAGO_KIND_NAME].words[people[asked]];
    if (operation == 0) {
        sago_str_printf(&out->input, "Who is in the %s?", places[where[asked]]);
        sago_str_puts(&out->output, person);
    } else {
        sago_str_printf(&out->input, "Where is %s?", person);
        sago_str_puts(&out->output, places[where[asked]]);
    }
}

/* Whether a sentence about a thing is true after another one. */
static void make_claim(sago_dice *dice, int operation, int kind, sago_made *out) {
    (void)operation;
    const char *person = sago_dice_word(dice, SAGO_KIND_NAME);
    int colors[2];
    sago_dice_choose(dice, SAGO_KIND_WORDS, 2, colors);
    bool same = sago_dice_roll(dice, 2);
    const char *thing = sago_dice_word(dice, kind), *first = sago_kinds[SAGO_KIND_COLOR].words[colors[0]];
    const char *second = same ? first : sago_kinds[SAGO_KIND_COLOR].words[colors[1]];
    sago_str_printf(&out->input, "The %s of %s is %s. True or false: the %s is %s.", thing, person, first,
                    thing, second);
    sago_str_puts(&out->output, same ? "true" : "false");
}

static const char *const opposites[][2] = {
    {"big", "small"}, {"hot", "cold"}, {"fast", "slow"},  {"new", "old"},    {"long", "short"},
    {"hard", "soft"}, {"wet", "dry"},  {"full", "empty"}, {"dark", "light"}, {"clean", "dirty"}};

static void make_opposite(sago_dice *dice, int operation, int kind, sago_made *out) {
    static const char *const lead[] = {"Write the opposite", "Say the contrary"};
    int pair = sago_dice_roll(dice, 10), side = sago_dice_roll(dice, 2);
    const char *thing = sago_dice_word(dice, kind);
    sago_str_printf(&out->input, "%s: the %s is %s.", lead[operation], thing, opposites[pair][side]);
    sago_str_printf(&out->output, "the %s is %s.", thing, opposites[pair][1 - side]);
}

static const char *const judgments[2][8] = {
    {"awful", "bad", "terrible", "boring", "ugly", "poor", "horrible", "dull"},
    {"great", "good", "wonderful", "lovely", "nice", "perfect", "superb", "fine"}};

static void make_sentiment(sago_dice *dice, int operation, int subject, sago_made *out) {
    static const char *const subjects[][4] = {{"film", "story", "actor", "ending"},
                                              {"food", "soup", "bread", "waiter"},
                                              {"room", "bed", "view", "hotel"},
                                              {"phone", "screen", "sound", "camera"}};
    static const char *const very[] = {"", "very ", "really ", "so "};
    (void)operation;
    int good = sago_dice_roll(dice, 2);
    int words[2];
    sago_dice_choose(dice, 8, 2, words);
    sago_str_printf(&out->input, "The %s was %s%s and %s. Positive or negative?",
                    subjects[subject][sago_dice_roll(dice, 4)], very[sago_dice_roll(dice, 4)],
                    judgments[good][words[0]], judgments[good][words[1]]);
    sago_str_puts(&out->output, good ? "positive" : "negative");
}

static void make_sum(sago_dice *dice, int operation, int most, sago_made *out) {
    int a = sago_dice_roll(dice, most), b = sago_dice_roll(dice, most);
    const char *name = sago_dice_word(dice, SAGO_KIND_NAME);
    if (operation == 0) {
        sago_str_printf(&out->input, "%s asks: what is %d + %d?", name, a, b);
        sago_str_printf(&out->output, "%d", a + b);
    } else {
        sago_str_printf(&out->input, "%s asks, \"what is %d - %d?\"", name, a + b, b);
        sago_str_printf(&out->output, "%d", a);
    }
}

/* A question with options in the form of CommonsenseQA. */
static void make_choice(sago_dice *dice, int operation, int kind, sago_made *out) {
    (void)operation;
    int others[SAGO_KINDS];
    sago_dice_choose(dice, SAGO_KINDS - 1, 3, others);
    out->n_options = 3;
    out->right = sago_dice_roll(dice, 3);
    for (int i = 0; i < 3; i++)
        out->options[i] = sago_dice_word(dice, i == out->right ? kind : others[i] + (others[i] >= kind));
    sago_str_printf(&out->input, "Which of these is %s %s?", sago_kinds[kind].article, sago_kinds[kind].one);
    sago_str_printf(&out->output, "%c", 'A' + out->right);
}

void sago_made_texts(sago_made_tasks *tasks) {
    static const char *const subjects[] = {"film", "food", "hotel", "phone"};
    sago_made_tasks_add(tasks, "jsonl", "comparison", make_numbers, 0, 2, "larger_of_two");
    sago_made_tasks_add(tasks, "jsonl", "comparison", make_numbers, 1, 2, "smaller_of_two");
    sago_made_tasks_add(tasks, "jsonl", "comparison", make_numbers, 0, 3, "largest_of_three");
    sago_made_tasks_add(tasks, "jsonl", "comparison", make_numbers, 1, 3, "smallest_of_three");
    sago_made_tasks_add(tasks, "jsonl", "days", make_days, 0, 0, "day_after");
    sago_made_tasks_add(tasks, "jsonl", "days", make_days, 1, 0, "day_before");
    sago_made_tasks_add(tasks, "jsonl", "days", make_days, 0, 1, "tomorrow");
    sago_made_tasks_add(tasks, "jsonl", "days", make_days, 1, 1, "yesterday");
    sago_made_tasks_add(tasks, "jsonl", "reading", make_places, 0, 0, "who_is_there");
    sago_made_tasks_add(tasks, "jsonl", "reading", make_places, 1, 0, "where_is");
    for (int kind = 0; kind < SAGO_KIND_NAME; kind++) {
        if (kind == SAGO_KIND_COLOR) continue;
        const char *name = kind == SAGO_KIND_CLOTHES ? "clothes" : sago_kinds[kind].one;
        sago_made_tasks_add(tasks, "jsonl", "reading", make_having, 0, kind, "who_has_%s", name);
        sago_made_tasks_add(tasks, "jsonl", "reading", make_having, 1, kind, "which_%s", name);
        sago_made_tasks_add(tasks, "jsonl", "claims", make_claim, 0, kind, "color_of_%s", name);
        sago_made_tasks_add(tasks, "jsonl", "opposites", make_opposite, kind % 2, kind, "opposite_%s", name);
    }
    for (int i = 0; i < 4; i++)
        sago_made_tasks_add(tasks, "jsonl", "sentiment", make_sentiment, 0, i, "opinion_%s", subjects[i]);
    sago_made_tasks_add(tasks, "table", "sums", make_sum, 0, 10, "additions");
    sago_made_tasks_add(tasks, "table", "sums", make_sum, 1, 10, "differences");
    for (int kind = 0; kind < SAGO_KINDS; kind++)
        sago_made_tasks_add(tasks, "choice", "choice", make_choice, 0, kind, "choose_%s",
                            kind == SAGO_KIND_CLOTHES ? "clothes" : sago_kinds[kind].one);
}

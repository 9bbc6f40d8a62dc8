// SPDX-License-Identifier: Apache-2.0
#include "mixture_text.h"

#include "corpus.h"
#include "log.h"
#include "objective.h"
#include "rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a hash is for; draws have keys of their own (mixture_draw.c). */
enum { FOR_DOCUMENTS = 0x7e87, FOR_PIECES, FOR_QUESTIONS };

/* One side of the split. */
typedef struct side {
    sago_corpus *corpus; /* NULL: no documents */
    int64_t length[SAGO_DENOISERS], pieces[SAGO_DENOISERS];
} side;

struct sago_text_member {
    sago_objective objective;
    sago_ids mode[SAGO_DENOISERS];  /* mode token of each denoiser */
    int64_t length[SAGO_DENOISERS]; /* of the longest piece that fits */
    side sides[2];                  /* by sago_split */
    int64_t dropped;
};

/* Mode tokens are text: a vocabulary that has them gives one id, any other their pieces. */
static sago_status plan_denoiser(const sago_mixture *mixture, const sago_member *member, int i) {
    sago_text_member *text = member->text;
    const sago_denoiser *denoiser = &text->objective.denoisers[i];
    const sago_config *config = mixture->config;
    SAGO_TRY(
        sago_tokenizer_encode(mixture->tokenizer, denoiser->mode, strlen(denoiser->mode), &text->mode[i]));
    if (denoiser->kind == SAGO_DENOISE_CAUSAL && !mixture->decoder_only)
        return sago_fail(SAGO_E_CONFIG,
                         "member \"%s\": objective causal-lm is for decoder-only models; use prefix-lm",
                         member->name);
    int32_t size = sago_tokenizer_size(mixture->tokenizer);
    if (denoiser->kind == SAGO_DENOISE_SPANS && mixture->vocab_size > 0 && size > mixture->vocab_size)
        return sago_fail(SAGO_E_CONFIG,
                         "member \"%s\": sentinels are the ids below %d, but the model's vocabulary has %lld",
                         member->name, size, (long long)mixture->vocab_size);
    const sago_denoise_room room = {config->data.input_length, config->data.target_length,
                                    mixture->decoder_only, text->mode[i].length};
    text->length[i] = sago_denoise_length(denoiser, &room);
    if (text->length[i] == 0)
        return sago_fail(SAGO_E_CONFIG,
                         "member \"%s\": data.input_length and target_length are too short for %s",
                         member->name, denoiser->name);
    return SAGO_OK;
}

sago_status sago_text_member_open(const sago_mixture *mixture, const sago_config_member *from,
                                  sago_member *member) {
    sago_text_member *text = member->text = sago_alloc_zero(1, sizeof *text);
    SAGO_TRY(sago_objective_of(from, &text->objective));
    for (int i = 0; i < text->objective.n_denoisers; i++) SAGO_TRY(plan_denoiser(mixture, member, i));
    return SAGO_OK;
}

/* ---- split ---- */

typedef struct choice {
    const sago_mixture *mixture;
    const sago_member *member;
    const sago_leaks *leaks;
    bool held_out; /* the whole member */
    sago_split split;
    int64_t dropped;
    char *first; /* of the dropped, as a message */
} choice;

static bool is_of_split(void *context, int file, const sago_record *document) {
    choice *c = context;
    bool eval = c->held_out || sago_split_is_eval(document->hash, c->mixture->config->data.eval_fraction);
    if (eval != (c->split == SAGO_SPLIT_EVAL)) return false;
    if (eval) return true;
    const sago_leak_place *place =
        sago_leaks_find(c->leaks, sago_index_task_at(c->member->index, file), document);
    if (place && c->dropped++ == 0) {
        char *where = sago_leak_where(c->mixture, place);
        c->first = sago_format("%s:%u (training) and %s (held out)", sago_index_path(c->member->index, file),
                               document->line, where);
        free(where);
    }
    return !place;
}

static int64_t count_pieces(const sago_denoiser *denoiser, int64_t length, int64_t tokens, sago_split split) {
    if (tokens < 2) return 0;
    if (split == SAGO_SPLIT_TRAIN) return tokens / length;
    if (denoiser->kind == SAGO_DENOISE_CAUSAL)
        return length < 2 ? 0 : (tokens - 1 + length - 2) / (length - 1);
    return tokens / length + (tokens % length >= 2);
}

/* Opens a side, and counts the pieces of each denoiser. */
static void open_side(choice *c, sago_text_member *text, sago_split split) {
    side *of = &text->sides[split];
    c->split = split;
    /* Decoder-only models were pretrained on documents with EOS between them, T5 and UL2 on documents
     * without. */
    sago_corpus_open(c->member->index, &c->member->source, c->mixture->decoder_only, is_of_split, c,
                     &of->corpus);
    int64_t tokens = sago_corpus_tokens(of->corpus);
    for (int i = 0; i < text->objective.n_denoisers; i++) {
        of->length[i] = text->length[i] < tokens ? text->length[i] : tokens;
        of->pieces[i] = count_pieces(&text->objective.denoisers[i], of->length[i], tokens, split);
    }
}

static void tell_of_split(const choice *c, const sago_text_counts *counts) {
    char more[128] = "", kept[128] = "";
    if (c->dropped > 1)
        snprintf(more, sizeof more, ", with %lld more documents of the member", (long long)c->dropped - 1);
    if (c->dropped > 0)
        sago_info("leak: member \"%s\": %s hold the same text, which is left out of training%s",
                  c->member->name, c->first, more);
    if (sago_index_scanned(c->member->index) == 0) return;
    if (counts->eval > 0)
        snprintf(kept, sizeof kept, "; %lld of them, %lld tokens, are kept for evaluation",
                 (long long)counts->eval, (long long)counts->eval_tokens);
    sago_info("member \"%s\": %lld documents, %lld tokens (counted once, then kept in the index)%s",
              c->member->name, (long long)(counts->train + counts->eval),
              (long long)(counts->train_tokens + counts->eval_tokens), kept);
}

sago_status sago_text_member_split(const sago_mixture *mixture, int m, const sago_leaks *leaks) {
    const sago_member *member = &mixture->members[m];
    sago_text_member *text = member->text;
    choice c = {
        .mixture = mixture, .member = member, .leaks = leaks, .held_out = sago_member_held_out(mixture, m)};
    sago_text_counts counts;
    open_side(&c, text, SAGO_SPLIT_EVAL);
    open_side(&c, text, SAGO_SPLIT_TRAIN);
    text->dropped = c.dropped;
    sago_text_member_counts(member, &counts);
    tell_of_split(&c, &counts);
    free(c.first);
    if (counts.train_tokens >= 2 || (c.held_out && counts.eval_tokens >= 2)) return SAGO_OK;
    return sago_fail(SAGO_E_INPUT, "member \"%s\": %s holds fewer than two tokens%s", member->name,
                     sago_index_path(member->index, 0),
                     counts.eval + counts.dropped > 0 && !c.held_out
                         ? " to train on; the rest is kept for evaluation"
                         : "");
}

void sago_text_member_counts(const sago_member *member, sago_text_counts *out) {
    const sago_corpus *train = member->text->sides[SAGO_SPLIT_TRAIN].corpus,
                      *eval = member->text->sides[SAGO_SPLIT_EVAL].corpus;
    *out = (sago_text_counts){.train = sago_corpus_documents(train),
                              .eval = sago_corpus_documents(eval),
                              .dropped = member->text->dropped,
                              .train_tokens = sago_corpus_tokens(train),
                              .eval_tokens = sago_corpus_tokens(eval)};
}

void sago_text_member_close(sago_member *member) {
    if (!member->text) return;
    for (int i = 0; i < 2; i++) sago_corpus_close(member->text->sides[i].corpus);
    for (int i = 0; i < SAGO_DENOISERS; i++) sago_ids_free(&member->text->mode[i]);
    free(member->text);
    member->text = NULL;
}

int sago_text_member_tasks(const sago_member *member) {
    return member->text->objective.n_denoisers;
}

const char *sago_text_task_name(const sago_member *member, int entry) {
    return member->text->objective.denoisers[entry].name;
}

int64_t sago_text_task_weight(const sago_member *member, int entry) {
    return member->text->objective.denoisers[entry].weight;
}

int64_t sago_text_task_pieces(const sago_member *member, int entry, sago_split split) {
    return member->text->sides[split].pieces[entry];
}

/* ---- pieces ---- */

static void append(const sago_ids *from, sago_ids *to) {
    for (int64_t i = 0; i < from->length; i++) sago_ids_add(to, from->data[i]);
}

/* Ids [first, first + n) of a side, as the example that the task's denoiser makes of them by key. */
static sago_status make_example(const sago_mixture *mixture, int number, sago_split split,
                                sago_corpus_order order, int64_t first, int64_t n, uint64_t key,
                                sago_example *out) {
    const sago_task *task = &mixture->tasks[number];
    const sago_text_member *text = mixture->members[task->member].text;
    const sago_denoiser *denoiser = &text->objective.denoisers[task->entry];
    sago_ids ids = {0};
    sago_status status = sago_corpus_read(text->sides[split].corpus, order, first, n, &ids);
    if (status == SAGO_OK) {
        out->member = task->member, out->task = number, out->template_ = -1;
        out->n_exemplars = 0;
        out->chain_of_thought = out->truncated = out->prompt_cut = false;
        sago_str_clear(&out->input_text);
        sago_str_clear(&out->target_text);
        sago_ids_clear(&out->inputs);
        sago_ids_clear(&out->targets);
        append(&text->mode[task->entry], &out->inputs);
        sago_denoise(denoiser, key, ids.data, ids.length, sago_tokenizer_sentinel(mixture->tokenizer, 0),
                     &out->inputs, &out->targets);
        /* A causal piece ends anywhere; its documents bring their own EOS. */
        if (!mixture->decoder_only) sago_ids_add(&out->inputs, SAGO_EOS_ID);
        if (denoiser->kind != SAGO_DENOISE_CAUSAL) sago_ids_add(&out->targets, SAGO_EOS_ID);
    }
    sago_ids_free(&ids);
    return status;
}

sago_status sago_text_draw(const sago_mixture *mixture, int number, uint64_t n, uint64_t key,
                           sago_example *out) {
    const sago_task *task = &mixture->tasks[number];
    const side *train = &mixture->members[task->member].text->sides[SAGO_SPLIT_TRAIN];
    uint64_t seed = (uint64_t)mixture->config->run.seed, pieces = (uint64_t)train->pieces[task->entry];
    uint64_t pass = n / pieces, piece = n % pieces;
    sago_corpus_order order = {.shuffled = !mixture->sequential};
    if (order.shuffled) {
        order.key = sago_mix(sago_mix(sago_mix(seed, FOR_DOCUMENTS), (uint64_t)task->member), pass);
        piece = sago_permute(piece, pieces,
                             sago_mix(sago_mix(sago_mix(seed, FOR_PIECES), (uint64_t)number), pass));
    }
    int64_t length = train->length[task->entry];
    out->index = (int64_t)piece;
    return make_example(mixture, number, SAGO_SPLIT_TRAIN, order, (int64_t)piece * length, length, key, out);
}

sago_status sago_text_question(const sago_mixture *mixture, int number, sago_split split, int64_t index,
                               sago_example *out) {
    const sago_task *task = &mixture->tasks[number];
    const sago_text_member *text = mixture->members[task->member].text;
    const side *of = &text->sides[split];
    bool causal = text->objective.denoisers[task->entry].kind == SAGO_DENOISE_CAUSAL;
    int64_t length = of->length[task->entry], first = index * (causal ? length - 1 : length),
            left = sago_corpus_tokens(of->corpus) - first;
    uint64_t key = sago_mix(sago_mix(FOR_QUESTIONS, (uint64_t)task->entry), (uint64_t)index);
    /* Not in file order, so that the first questions are a sample of all documents. */
    sago_corpus_order order = {.shuffled = true, .key = FOR_QUESTIONS};
    out->index = index;
    SAGO_TRY(make_example(mixture, number, split, order, first, left < length ? left : length, key, out));
    if (!causal) return SAGO_OK;
    sago_ids_add(&out->inputs, out->targets.data[0]);
    out->targets.length--;
    memmove(out->targets.data, out->targets.data + 1,
            (size_t)out->targets.length * sizeof *out->targets.data);
    return SAGO_OK;
}

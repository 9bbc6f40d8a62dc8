// SPDX-License-Identifier: Apache-2.0
#include "mixture_text.h"

#include "corpus.h"
#include "log.h"
#include "objective.h"
#include "rng.h"

#include <stdlib.h>
#include <string.h>

/* What a hash is for; draws have keys of their own (mixture_draw.c). */
enum { FOR_DOCUMENTS = 0x7e87, FOR_PIECES };

struct sago_text_member {
    sago_corpus *corpus;
    sago_objective objective;
    sago_ids mode[SAGO_DENOISERS]; /* mode token of each denoiser */
    int64_t length[SAGO_DENOISERS], pieces[SAGO_DENOISERS];
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
    int64_t length = sago_denoise_length(denoiser, &room), tokens = sago_corpus_tokens(text->corpus);
    if (length == 0)
        return sago_fail(SAGO_E_CONFIG,
                         "member \"%s\": data.input_length and target_length are too short for %s",
                         member->name, denoiser->name);
    if (tokens < 2)
        return sago_fail(SAGO_E_INPUT, "member \"%s\": %s holds fewer than two tokens", member->name,
                         sago_index_path(member->index, 0));
    text->length[i] = length < tokens ? length : tokens;
    text->pieces[i] = tokens / text->length[i];
    return SAGO_OK;
}

sago_status sago_text_member_open(const sago_mixture *mixture, const sago_config_member *from,
                                  sago_member *member) {
    sago_text_member *text = member->text = sago_alloc_zero(1, sizeof *text);
    SAGO_TRY(sago_objective_of(from, &text->objective));
    /* Decoder-only models were pretrained on documents with EOS between them, T5 and UL2 on documents
     * without. */
    sago_corpus_open(member->index, &member->source, mixture->decoder_only, &text->corpus);
    for (int i = 0; i < text->objective.n_denoisers; i++) SAGO_TRY(plan_denoiser(mixture, member, i));
    if (sago_index_scanned(member->index) > 0)
        sago_info("member \"%s\": %lld documents, %lld tokens (counted once, then kept in the index)",
                  member->name, (long long)sago_corpus_documents(text->corpus),
                  (long long)sago_corpus_tokens(text->corpus));
    return SAGO_OK;
}

void sago_text_member_close(sago_member *member) {
    if (!member->text) return;
    sago_corpus_close(member->text->corpus);
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

int64_t sago_text_task_pieces(const sago_member *member, int entry) {
    return member->text->pieces[entry];
}

static void append(const sago_ids *from, sago_ids *to) {
    for (int64_t i = 0; i < from->length; i++) sago_ids_add(to, from->data[i]);
}

sago_status sago_text_draw(const sago_mixture *mixture, int number, uint64_t n, uint64_t key,
                           sago_example *out) {
    const sago_task *task = &mixture->tasks[number];
    const sago_member *member = &mixture->members[task->member];
    const sago_text_member *text = member->text;
    const sago_denoiser *denoiser = &text->objective.denoisers[task->entry];
    uint64_t seed = (uint64_t)mixture->config->run.seed, pieces = (uint64_t)text->pieces[task->entry];
    uint64_t pass = n / pieces, piece = n % pieces;
    sago_corpus_order order = {.shuffled = !mixture->sequential};
    if (order.shuffled) {
        order.key = sago_mix(sago_mix(sago_mix(seed, FOR_DOCUMENTS), (uint64_t)task->member), pass);
        piece = sago_permute(piece, pieces,
                             sago_mix(sago_mix(sago_mix(seed, FOR_PIECES), (uint64_t)number), pass));
    }
    int64_t length = text->length[task->entry];
    sago_ids ids = {0};
    sago_status status = sago_corpus_read(text->corpus, order, (int64_t)piece * length, length, &ids);
    if (status == SAGO_OK) {
        out->member = task->member, out->task = number, out->template_ = -1;
        out->index = (int64_t)piece;
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

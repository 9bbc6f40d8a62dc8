// SPDX-License-Identifier: Apache-2.0
#include "ckpt.h"
#include "cli.h"
#include "jsonl.h"
#include "log.h"
#include "model.h"

#include <stdlib.h>
#include <string.h>

/* inputs_end: the inputs of the checkpoint's model end with EOS; so do those of a tokenizer that stands alone. */
static sago_status open_tokenizer(const sago_arguments *arguments, sago_tokenizer **out, bool *inputs_end) {
    const char *model = sago_argument(arguments, "--model"), *from = sago_argument(arguments, "--checkpoint");
    if (!model == !from)
        return sago_fail(SAGO_E_USAGE,
                         "tokenizer %s: give either --model FILE (or bytes) or --checkpoint CKPT",
                         arguments->positional[0]);
    *inputs_end = true;
    if (model) return sago_tokenizer_open(model, out);
    sago_ckpt *ckpt = NULL;
    sago_str bytes = {0};
    SAGO_TRY(sago_ckpt_open(from, false, &ckpt));
    sago_model_shape shape;
    if (sago_model_shape_from_json(json_object_get(sago_ckpt_meta(ckpt), "model"), &shape) == SAGO_OK)
        *inputs_end = !sago_model_decoder_only(&shape);
    sago_status status = sago_ckpt_read_file(ckpt, SAGO_TOKENIZER_FILE, &bytes);
    if (status == SAGO_OK)
        status = sago_tokenizer_from_bytes(sago_ckpt_dir(ckpt), sago_str_text(&bytes), bytes.length, out);
    sago_ckpt_close(ckpt);
    sago_str_free(&bytes);
    return status;
}

typedef struct work {
    sago_tokenizer *tokenizer;
    bool inputs_end;
    sago_jsonl jsonl;
    sago_ids ids;
    sago_str line, text;
} work;

/* Texts to ids: "text" as it is, "targets" and an encoder's "inputs" with EOS. */
static sago_status encode_line(work *w, const json_t *record) {
    const struct {
        const char *from, *to;
        bool eos;
    } fields[] = {{"text", "ids", false}, {"inputs", "input_ids", w->inputs_end}, {"targets", "target_ids", true}};
    int n = 0;
    sago_str_puts(&w->line, "{");
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++) {
        if (!json_object_get(record, fields[f].from)) continue;
        sago_ids_clear(&w->ids);
        SAGO_TRY(sago_jsonl_encode(&w->jsonl, record, fields[f].from, w->tokenizer, fields[f].eos, &w->ids));
        if (n++) sago_str_puts(&w->line, ", ");
        sago_jsonl_add_ids(&w->line, fields[f].to, w->ids.data, w->ids.length);
    }
    if (n == 0)
        return sago_jsonl_where(&w->jsonl,
                                sago_fail(SAGO_E_INPUT, "needs \"text\", or \"inputs\" and \"targets\""));
    sago_str_puts(&w->line, "}");
    return SAGO_OK;
}

static sago_status decode_line(work *w, const json_t *record) {
    SAGO_TRY(sago_jsonl_ids(&w->jsonl, record, "ids", 0, &w->ids));
    sago_str_clear(&w->text);
    SAGO_TRY(sago_jsonl_where(&w->jsonl,
                              sago_tokenizer_decode(w->tokenizer, w->ids.data, w->ids.length, &w->text)));
    sago_str_puts(&w->line, "{\"text\": ");
    sago_json_quote(&w->line, sago_str_text(&w->text), w->text.length);
    sago_str_puts(&w->line, "}");
    return SAGO_OK;
}

static sago_status convert(const sago_arguments *arguments, sago_status (*one)(work *, const json_t *)) {
    const char *input = sago_argument(arguments, "--input"), *output = sago_argument(arguments, "--output");
    if (!input)
        return sago_fail(SAGO_E_USAGE, "tokenizer %s: --input FILE is missing", arguments->positional[0]);
    work w = {0};
    sago_status status = SAGO_OK;
    SAGO_TRY_TO(done, open_tokenizer(arguments, &w.tokenizer, &w.inputs_end));
    SAGO_TRY_TO(done, sago_jsonl_open(&w.jsonl, input, output));
    for (const json_t *record;;) {
        SAGO_TRY_TO(done, sago_jsonl_next(&w.jsonl, &record));
        if (!record) break;
        sago_str_clear(&w.line);
        SAGO_TRY_TO(done, one(&w, record));
        SAGO_TRY_TO(done, sago_jsonl_write(&w.jsonl, &w.line));
        sago_progress(arguments->positional[0], sago_jsonl_fraction(&w.jsonl), "line %lld",
                      (long long)w.jsonl.reader.number);
    }
    status = sago_jsonl_commit(&w.jsonl);
done:
    sago_jsonl_close(&w.jsonl);
    sago_tokenizer_close(w.tokenizer);
    sago_ids_free(&w.ids);
    sago_str_free(&w.line);
    sago_str_free(&w.text);
    return status;
}

static sago_status train(const sago_arguments *arguments) {
    const char **files = NULL, *kind = sago_argument(arguments, "--kind");
    int n_files = 0;
    int64_t vocab_size, seed;
    SAGO_TRY(sago_argument_int(arguments, "--vocab-size", 0, 8, 1 << 20, &vocab_size));
    SAGO_TRY(sago_argument_int(arguments, "--seed", 1, 0, INT32_MAX, &seed));
    if (vocab_size == 0) return sago_fail(SAGO_E_USAGE, "tokenizer train: --vocab-size N is missing");
    while (sago_argument_nth(arguments, "--input", n_files)) n_files++;
    if (n_files == 0) return sago_fail(SAGO_E_USAGE, "tokenizer train: --input FILE is missing");
    files = sago_alloc((size_t)n_files * sizeof *files);
    for (int i = 0; i < n_files; i++) files[i] = sago_argument_nth(arguments, "--input", i);
    const sago_tokenizer_training training = {
        .files = files,
        .n_files = n_files,
        .vocab_size = (int)vocab_size,
        .output = sago_argument(arguments, "--output"),
        .kind = kind ? kind : "unigram",
        .seed = (uint64_t)seed,
    };
    sago_info("training a %s model of %lld pieces on %d file%s", training.kind, (long long)vocab_size,
              n_files, n_files == 1 ? "" : "s");
    sago_status status = sago_tokenizer_train(&training);
    free(files);
    return status;
}

static sago_status encode(const sago_arguments *arguments) {
    return convert(arguments, encode_line);
}

static sago_status decode(const sago_arguments *arguments) {
    return convert(arguments, decode_line);
}

static sago_status run(const sago_arguments *arguments) {
    static const sago_verb verbs[] = {{"encode", encode}, {"decode", decode}, {"train", train}, {0}};
    return sago_run_verb(verbs, arguments);
}

static const sago_option options[] = {
    {"--input", "FILE",
     "JSONL lines to encode or decode; training also reads .txt files and repeated --input", true},
    {"--output", "FILE", "where the result goes: JSONL lines, or the trained model", true},
    {"--model", "FILE", "a SentencePiece model file, or the word bytes (encode, decode)", false},
    {"--checkpoint", "CKPT", "a checkpoint whose tokenizer to use instead (encode, decode)", false},
    {"--vocab-size", "N", "pieces to train, 8 to 1048576, without the 100 sentinels that stand above them",
     false},
    {"--kind", "unigram|bpe", "what to train (default unigram, T5's)", false},
    {"--seed", "N", "seed of the choice of sentences where the texts are more than two million (default 1)",
     false},
    {0},
};

const sago_command sago_command_tokenizer = {
    .name = "tokenizer",
    .summary = "turn texts into ids and back, or train a tokenizer",
    .usage = "sago tokenizer encode|decode|train --input FILE --output FILE [--model FILE|--checkpoint CKPT] "
             "[--vocab-size N]",
    .details =
        "encode turns {\"text\": ...} into {\"ids\": [...]} with nothing added, and {\"inputs\", "
        "\"targets\"} "
        "into {\"input_ids\", \"target_ids\"}, with EOS after targets and an encoder's inputs; decode turns {\"ids\": [...]} into "
        "{\"text\": ...}. Symbols that a text spells, such as </s> or <extra_id_0>, are ordinary text. train "
        "makes "
        "a SentencePiece model with T5's ids (pad 0, eos 1, unk 2) and T5's normalisation from .txt files, a "
        "text a line, and from the fields text, inputs and targets of .jsonl files.",
    .example = "sago tokenizer train --input tasks.jsonl --vocab-size 4000 --output spiece.model",
    .options = options,
    .min_positional = 1,
    .max_positional = 1,
    .verbs = "encode decode train",
    .run = run,
};

// SPDX-License-Identifier: Apache-2.0
#include "config_schema.h"

#include <stddef.h>
#include <string.h>

enum { KEPT = false, CHANGES = true };

#define FIELD(member) offsetof(sago_config, member)
#define BOOL(path, member, otherwise, change, doc)                                                           \
    { path, CONFIG_BOOL, FIELD(member), otherwise, 0, 0, NULL, change, doc }
#define INT(path, member, otherwise, low, high, change, doc)                                                 \
    { path, CONFIG_INT, FIELD(member), otherwise, low, high, NULL, change, doc }
#define NUMBER(path, member, otherwise, low, high, change, doc)                                              \
    { path, CONFIG_NUMBER, FIELD(member), otherwise, low, high, NULL, change, doc }
#define CHOICE(path, member, otherwise, choices, change, doc)                                                \
    { path, CONFIG_CHOICE, FIELD(member), otherwise, 0, 0, choices, change, doc }
#define PATH(path, member, words, change, doc)                                                               \
    { path, CONFIG_PATH, FIELD(member), "", 0, 0, words, change, doc }
#define TEXTS(path, member, change, doc)                                                                     \
    { path, CONFIG_TEXTS, FIELD(member), "[]", 0, 0, NULL, change, doc }

const config_section config_sections[] = {
    {"", "The machine."},
    {"run", "One training run and its folder."},
    {"model", "What is trained. With `model.init` the sizes come from the checkpoint and need not be given; "
              "sizes that "
              "are given must agree with it."},
    {"data", "From task files to batches. What each format looks like: docs/data-formats.md."},
    {"train", "A step of training."},
    {"train.spike",
     "The rule of PaLM for loss spikes: go back some steps, skip the batches around the spike, go on."},
    {"optimizer", "Adafactor, in the form of T5X, and the learning rate."},
    {"mesh", "Ranks of `mpirun -n N` and how they talk."},
    {"comm", "Looking for faults between ranks."},
    {"checkpoint", "When the state of a run is saved, and what stays."},
    {"eval", "How `sago eval` asks and scores, and evaluation during training."},
    {NULL},
};

static const config_key member_keys[] = {
    {"name", CONFIG_TEXT, offsetof(sago_config_member, name), NULL, 0, 0, NULL, KEPT,
     "Name of the member, once in a mixture; reports and `eval.tasks` use it."},
    {"format", CONFIG_CHOICE, offsetof(sago_config_member, format), NULL, 0, 0,
     "niv2|jsonl|cot|table|ids|text", KEPT, "Format of its files."},
    {"path", CONFIG_PATH, offsetof(sago_config_member, path), NULL, 0, 0, NULL, KEPT,
     "File, or folder with a file a task. Of text: a file, or a folder of them that make one corpus."},
    {"template", CONFIG_NAME, offsetof(sago_config_member, template_), "", 0, 0, NULL, KEPT,
     "Mapping of tables (required for them) or template set: a built-in name, or a file. Empty: the format's "
     "own."},
    {"share", CONFIG_NUMBER, offsetof(sago_config_member, share), "1", 0, 1e9, NULL, KEPT,
     "Weight in the mixture, relative to the sum over all members."},
    {"cap", CONFIG_INT, offsetof(sago_config_member, cap), "0", 0, CONFIG_LARGEST, NULL, KEPT,
     "Examples that a task counts for at most inside the member. 0: no cap."},
    {"include", CONFIG_TEXTS, offsetof(sago_config_member, include), "[]", 0, 0, NULL, KEPT,
     "Patterns (`*`, `?`) of the tasks that belong to it. Empty: all."},
    {"exclude", CONFIG_TEXTS, offsetof(sago_config_member, exclude), "[]", 0, 0, NULL, KEPT,
     "Patterns of tasks that are left out. Of text, both are patterns of file names without their endings."},
    {"objective", CONFIG_CHOICE, offsetof(sago_config_member, objective), "none", 0, 0,
     "none|causal-lm|prefix-lm|span-corruption|ul2|ul2r", KEPT,
     "What plain text is trained for (docs/objectives.md); format text needs one, others have none."},
    {"noise_density", CONFIG_NUMBER, offsetof(sago_config_member, noise_density), "0.15", 0.01, 0.99, NULL,
     KEPT, "Share of the tokens that span-corruption takes out."},
    {"mean_span", CONFIG_NUMBER, offsetof(sago_config_member, mean_span), "3", 1, 1e6, NULL, KEPT,
     "Tokens of a span that span-corruption takes out, on average."},
    {"document", CONFIG_CHOICE, offsetof(sago_config_member, document), "line", 0, 0, "line|file", KEPT,
     "What a document is in .txt files of text: a line, or the whole file."},
    {NULL},
};

static const config_key group_keys[] = {
    {"pattern", CONFIG_TEXT, offsetof(sago_config_group, pattern), NULL, 0, 0, NULL, CHANGES,
     "Pattern (`*`, `?`) of parameter names, as `sago inspect` lists them."},
    {"multiplier", CONFIG_NUMBER, offsetof(sago_config_group, multiplier), "1", 0, 1e6, NULL, CHANGES,
     "Factor on the learning rate. 0 freezes these parameters."},
    {NULL},
};

static const config_record member_record = {"member", sizeof(sago_config_member), member_keys};
static const config_record group_record = {"group", sizeof(sago_config_group), group_keys};

const config_key config_keys[] = {
    CHOICE("device", device, "auto", "auto|cpu|sim|cuda", CHANGES,
           "Where to compute. auto: a GPU where there is one, else the processor; the log says which and "
           "why. cuda: GPUs, one a rank. sim: the GPU's kernels on the processor, slowly, to test them."),
    INT("threads", threads, "0", 0, 4096, CHANGES,
        "Host threads of a rank. 0: the cores of the node, shared evenly by the ranks on it."),
    BOOL("graphs", graphs, "true", CHANGES,
         "On a GPU, steps of generation that repeat are recorded once and launched as one (a CUDA graph). The "
         "results are the same."),

    PATH("run.dir", run.dir, NULL, CHANGES,
         "Folder of the run; made if missing. A run that is there is continued."),
    INT("run.steps", run.steps, "1000", 0, CONFIG_LARGEST, CHANGES,
        "Steps of training, counted from the run's beginning."),
    INT("run.seed", run.seed, "1", 0, CONFIG_LARGEST, KEPT,
        "Seed of everything random: weights, order of data, dropout."),

    PATH("model.init", model.init, NULL, KEPT,
         "Checkpoint to start from: a folder made by `sago import`, a run, or a step of one. Empty: random "
         "weights."),
    CHOICE("model.family", model.family, "t5", "t5|palm", KEPT,
           "Kind of model: t5 is an encoder and a decoder, palm a decoder alone."),
    INT("model.vocab_size", model.vocab_size, "0", 0, 1 << 24, KEPT,
        "Rows of the embedding; at least the tokenizer's size with its 100 sentinels. 0: from `model.init`."),
    INT("model.d_model", model.d_model, "0", 0, 1 << 17, KEPT, "Width of the model. 0: from `model.init`."),
    INT("model.n_heads", model.n_heads, "0", 0, 4096, KEPT, "Attention heads. 0: from `model.init`."),
    INT("model.kv_heads", model.kv_heads, "0", 0, 4096, KEPT,
        "Key/value heads of palm, shared by equal groups of heads. 0: from `model.init`, or 1 (multi-query)."),
    INT("model.head_dim", model.head_dim, "0", 0, 4096, KEPT, "Width of a head. 0: from `model.init`."),
    INT("model.d_ff", model.d_ff, "0", 0, 1 << 20, KEPT, "Width of the MLP. 0: from `model.init`."),
    INT("model.encoder_layers", model.encoder_layers, "0", 0, 4096, KEPT,
        "Encoder layers; palm has none. 0: from `model.init`."),
    INT("model.decoder_layers", model.decoder_layers, "0", 0, 4096, KEPT,
        "Decoder layers. 0: from `model.init`."),
    CHOICE("model.activation", model.activation, "gated-gelu", "gated-gelu|relu|swiglu", KEPT,
           "MLP of new weights: gated-gelu is T5 v1.1's, relu T5 1.0's, swiglu UL2's and palm's (its only one, and its default)."),
    BOOL("model.tied_embeddings", model.tied_embeddings, "false", KEPT,
         "New weights have one matrix for embedding and output (T5 1.0; palm always)."),
    INT("model.relative_buckets", model.relative_buckets, "32", 2, 4096, KEPT,
        "Buckets of relative positions."),
    INT("model.relative_max_distance", model.relative_max_distance, "128", 2, 1 << 20, KEPT,
        "Distance from which on all positions share a bucket."),
    CHOICE("model.rope", model.rope, "interleaved", "interleaved|half", KEPT,
           "Rotary positions of palm turn pairs of neighbours, or the first half of a head with the second."),
    NUMBER("model.rope_theta", model.rope_theta, "10000", 1, 1e12, KEPT, "Base of the rotary frequencies."),
    NUMBER("model.norm_epsilon", model.norm_epsilon, "1e-6", 0, 1, KEPT,
           "Added to the mean square in RMS norms, to the variance in layer norms."),
    NUMBER("model.logit_scale", model.logit_scale, "0", 0, 1e6, KEPT,
           "Factor on the logits. 0: from `model.init`, or d_model^-1/2 where embeddings are tied, else 1."),
    CHOICE("model.attention", model.attention, "causal", "causal|prefix", KEPT,
           "What a token of palm attends: those before it, or with prefix also all inputs of its example, if it "
           "is one of them or comes after them. T5 does not read it."),

    PATH("data.tokenizer", data.tokenizer, "bytes", KEPT,
         "SentencePiece model file, or bytes (an id a byte, as ByT5). Empty: the one that came with "
         "`model.init`."),
    {"data.mixture", CONFIG_RECORDS, FIELD(data.mixture), NULL, 0, 0, NULL, KEPT,
     "The members of the mixture, each a set of tasks.", &member_record, FIELD(data.n_mixture)},
    TEXTS("data.holdout", data.holdout, KEPT,
          "Patterns of tasks or categories that are kept out of training, to be evaluated as unseen."),
    BOOL("data.leak_check", data.leak_check, "true", KEPT,
         "Refuses to train when an input of a held-out task is among the training examples too; "
         "documents of plain text that are held out elsewhere are left out of training."),
    CHOICE("data.order", data.order, "sampled", "sampled|sequential", KEPT,
           "sampled draws from the mixture for ever; sequential takes every example once, in file order."),
    BOOL("data.packing", data.packing, "true", KEPT, "Puts several short examples into one row."),
    INT("data.pack_window", data.pack_window, "512", 1, 1 << 20, KEPT,
        "Examples looked over to fill rows well (sampled order)."),
    INT("data.input_length", data.input_length, "512", 1, 1 << 20, KEPT, "Input tokens of a row."),
    INT("data.target_length", data.target_length, "128", 1, 1 << 20, KEPT, "Target tokens of a row."),
    NUMBER("data.few_shot", data.few_shot, "0", 0, 1, KEPT,
           "Proportion of prompts that begin with solved examples."),
    NUMBER("data.cot", data.cot, "1", 0, 1, KEPT,
           "Proportion of targets with the chain of thought, where an example has one."),
    INT("data.max_exemplars", data.max_exemplars, "5", 1, 16, KEPT,
        "Solved examples in a few-shot prompt, at most."),
    NUMBER("data.eval_fraction", data.eval_fraction, "0", 0, 0.9, KEPT,
           "Share of each task's examples, and of the documents of plain text, that is kept for "
           "evaluation and never trained on."),
    PATH("data.templates", data.templates, NULL, KEPT, "Folder of template files. Empty: the built-in ones."),
    PATH("data.cache_dir", data.cache_dir, NULL, CHANGES,
         "Where indices of task files are kept. Empty: sago in the user's cache folder."),
    INT("data.prefetch", data.prefetch, "2", 1, 64, CHANGES,
        "Batches made ready ahead, by a thread of their own."),

    INT("train.global_batch", train.global_batch, "64", 1, 1 << 24, KEPT, "Rows of a step, over all ranks."),
    INT("train.micro_batch", train.micro_batch, "0", 0, 1 << 24, CHANGES,
        "Rows that a rank computes at once; fewer take less memory and give the same gradient. 0: all of its "
        "rows."),
    NUMBER("train.dropout", train.dropout, "0.05", 0, 0.99, KEPT,
           "Probability that an activation is dropped."),
    NUMBER("train.z_loss", train.z_loss, "1e-4", 0, 1, KEPT,
           "Weight of the squared log normaliser in the objective."),
    NUMBER("train.label_smoothing", train.label_smoothing, "0", 0, 0.99, KEPT,
           "Probability that the target spreads over the vocabulary."),
    BOOL("train.recompute", train.recompute, "false", CHANGES,
         "Keeps a block's input alone and runs the block again for its gradient: less memory, a third more "
         "work."),
    CHOICE("train.precision", train.precision, "auto", "auto|fp32|bf16", KEPT,
           "Of matrix products; the weights that are trained stay fp32. auto: bf16 on a GPU, else fp32 (on the "
           "device sim too); a run keeps what it began with."),
    INT("train.loss_chunk", train.loss_chunk, "256", 1, 1 << 24, CHANGES,
        "Target tokens whose logits exist at once."),
    CHOICE(
        "train.non_finite", train.non_finite, "skip", "skip|stop", CHANGES,
        "What to do with a step whose loss or gradient is not finite. Either way the weights never see it."),
    INT("train.max_skipped", train.max_skipped, "10", 0, CONFIG_LARGEST, CHANGES,
        "Steps that may be skipped one after another before the run stops."),
    NUMBER("train.peak_tflops", train.peak_tflops, "0", 0, 1e6, CHANGES,
           "Speed that MFU is a share of, in TFLOP/s a rank. 0: a GPU's data sheet for dense bf16; on the "
           "processor, what it is measured to do."),
    INT("train.straggler_every", train.straggler_every, "100", 0, CONFIG_LARGEST, CHANGES,
        "Steps between reports of the slowest rank, and of the part of a step that it is slow in. 0: none."),

    NUMBER("train.spike.threshold", train.spike.threshold, "0", 0, 1e6, CHANGES,
           "A loss above this multiple of its running median is a spike; above 1. 0: the rule is off."),
    INT("train.spike.rewind_steps", train.spike.rewind_steps, "100", 1, CONFIG_LARGEST, CHANGES,
        "Steps to go back, to the last checkpoint at least so old."),
    INT("train.spike.skip_batches", train.spike.skip_batches, "200", 0, CONFIG_LARGEST, CHANGES,
        "Batches to leave out then."),

    CHOICE("optimizer.name", optimizer.name, "adafactor", "adafactor", CHANGES, "The optimizer."),
    NUMBER("optimizer.learning_rate", optimizer.learning_rate, "5e-4", 0, 100, CHANGES,
           "Highest learning rate."),
    CHOICE("optimizer.schedule", optimizer.schedule, "constant", "constant|rsqrt|cosine|linear", CHANGES,
           "How the rate goes on after the warm-up."),
    INT("optimizer.warmup_steps", optimizer.warmup_steps, "0", 0, CONFIG_LARGEST, CHANGES,
        "Steps from 0 to the full rate."),
    INT("optimizer.schedule_steps", optimizer.schedule_steps, "0", 0, CONFIG_LARGEST, CHANGES,
        "Length of the schedule: where cosine and linear end, and where rsqrt begins to fall. Not tied to "
        "`run.steps`."),
    NUMBER("optimizer.final_learning_rate", optimizer.final_learning_rate, "0", 0, 100, CHANGES,
           "Rate at the end of cosine and linear."),
    NUMBER("optimizer.decay_exponent", optimizer.decay_exponent, "0.8", 0, 1, CHANGES,
           "Second moments decay with 1 - t^-exponent at step t."),
    NUMBER("optimizer.clip_threshold", optimizer.clip_threshold, "1", 1e-9, 1e9, CHANGES,
           "Largest root mean square of a parameter's update, before scaling."),
    NUMBER("optimizer.minimum_scale", optimizer.minimum_scale, "1e-3", 0, 1e9, CHANGES,
           "Least scale of a parameter that the update is multiplied by."),
    NUMBER("optimizer.momentum", optimizer.momentum, "0", 0, 0.9999, CHANGES,
           "Average over updates; 0: none kept."),
    NUMBER("optimizer.weight_decay", optimizer.weight_decay, "0", 0, 1, CHANGES,
           "Share of a weight lost a step."),
    BOOL("optimizer.weight_decay_by_rate", optimizer.weight_decay_by_rate, "false", CHANGES,
         "Multiplies the weight decay by the learning rate."),
    NUMBER("optimizer.weight_decay_power", optimizer.weight_decay_power, "1", 0, 10, CHANGES,
           "Power of the rate that it is then multiplied by; 2 is PaLM's."),
    NUMBER("optimizer.clip_norm", optimizer.clip_norm, "0", 0, 1e9, CHANGES,
           "Largest norm of the whole gradient. 0: not clipped."),
    BOOL("optimizer.factored", optimizer.factored, "true", CHANGES,
         "Keeps second moments of matrices as a row and a column."),
    INT("optimizer.min_factored_dim", optimizer.min_factored_dim, "128", 1, 1 << 24, CHANGES,
        "Matrices with a smaller dimension than this keep them whole."),
    BOOL("optimizer.parameter_scale", optimizer.parameter_scale, "true", CHANGES,
         "Makes updates proportional to the root mean square of the parameter."),
    CHOICE("optimizer.second_moments", optimizer.second_moments, "keep", "keep|reset", CHANGES,
           "Whether a new run takes over the second moments of `model.init`, where it has them."),
    INT("optimizer.step_offset", optimizer.step_offset, "0", 0, CONFIG_LARGEST, CHANGES,
        "Steps that the age of second moments taken over from `model.init` is lessened by."),
    {"optimizer.groups", CONFIG_RECORDS, FIELD(optimizer.groups), NULL, 0, 0, NULL, CHANGES,
     "Factors on the learning rate by parameter name; the first pattern that matches counts.", &group_record,
     FIELD(optimizer.n_groups)},

    INT("mesh.data", mesh.data, "0", 0, 1 << 20, CHANGES, "Ranks that share a batch. 0: all ranks."),
    INT("mesh.model", mesh.model, "0", 0, 1 << 20, CHANGES, "Ranks that share a model. 0: 1."),
    CHOICE("mesh.data_axis", mesh.data_axis, "replicated", "replicated|sharded", CHANGES,
           "What each of `mesh.data` ranks holds of parameters, gradients and optimizer state: all, or its share of whole "
           "rows (FSDP, ZeRO-3), with parameters gathered a block ahead."),
    CHOICE("mesh.gathered", mesh.gathered, "drop", "drop|keep", CHANGES,
           "Of a sharded data axis: gathers a block's parameters for each pass over it, or once a step, which takes room for "
           "all parameters and gradients and sends less where a step has several micro-batches."),
    INT("mesh.timeout_seconds", mesh.timeout_seconds, "40", 1, 86400, CHANGES,
        "A rank that is not heard of for so long ends the run on all ranks."),
    INT("mesh.bucket_bytes", mesh.bucket_bytes, "8388608", 1024, 1 << 30, CHANGES,
        "Gradients are summed over ranks in pieces of this size, while backward goes on."),
    TEXTS("mesh.rules", mesh.rules, CHANGES,
          "Which logical axis lies on which mesh axis, as \"heads: model\"."),

    BOOL("comm.check", comm.check, "false", CHANGES,
         "Compares what ranks enter before every collective and equal results after it, and names the first rank that "
         "differs. Slow."),

    INT("checkpoint.every", checkpoint.every, "1000", 0, CONFIG_LARGEST, CHANGES,
        "Steps between saves; the last step is always saved. 0: that one alone."),
    INT("checkpoint.keep", checkpoint.keep, "3", 0, CONFIG_LARGEST, CHANGES,
        "Newest checkpoints that stay. 0: all."),
    INT("checkpoint.keep_every", checkpoint.keep_every, "0", 0, CONFIG_LARGEST, CHANGES,
        "Checkpoints of steps that this divides stay for good. 0: none."),
    BOOL("checkpoint.background", checkpoint.background, "true", CHANGES,
         "Writes while training goes on, from a copy in memory."),

    TEXTS("eval.tasks", eval.tasks, CHANGES,
          "Patterns of tasks, members or categories to evaluate. Empty: all."),
    INT("eval.examples_per_task", eval.examples_per_task, "100", 0, CONFIG_LARGEST, CHANGES,
        "Examples of a task, at most. 0: all."),
    INT("eval.batch", eval.batch, "8", 1, 1 << 16, CHANGES, "Prompts that are answered at once by a rank."),
    INT("eval.max_new_tokens", eval.max_new_tokens, "64", 1, 1 << 16, CHANGES, "Longest answer in tokens."),
    INT("eval.samples", eval.samples, "1", 1, 1024, CHANGES, "Answers drawn for each prompt."),
    NUMBER("eval.temperature", eval.temperature, "0", 0, 100, CHANGES,
           "0: greedy, the likeliest token each time."),
    INT("eval.top_k", eval.top_k, "0", 0, 1 << 24, CHANGES,
        "Draws among the k likeliest tokens. 0: among all."),
    NUMBER("eval.top_p", eval.top_p, "1", 1e-9, 1, CHANGES,
           "Draws among the likeliest tokens whose probabilities sum to p."),
    BOOL("eval.length_normalised", eval.length_normalised, "false", CHANGES,
         "Ranks options by log-probability a token instead of the whole option's."),
    INT("eval.bootstrap", eval.bootstrap, "1000", 1, 1 << 20, CHANGES, "Resamples behind a 95 % interval."),
    INT("eval.few_shot", eval.few_shot, "0", 0, 16, CHANGES, "Solved examples in each prompt."),
    BOOL("eval.cot", eval.cot, "false", CHANGES,
         "Asks for a chain of thought before the answer, where tasks have one."),
    INT("eval.every", eval.every, "0", 0, CONFIG_LARGEST, CHANGES,
        "Steps between evaluations during training. 0: none."),
    {NULL},
};

const char *sago_config_key(int i) {
    return i >= 0 && (size_t)i < sizeof config_keys / sizeof *config_keys - 1 ? config_keys[i].path : NULL;
}

const config_key *config_find(const config_key *keys, const char *path) {
    for (; keys->path; keys++)
        if (strcmp(keys->path, path) == 0) return keys;
    return NULL;
}

bool config_is_section(const char *path) {
    for (const config_section *s = config_sections; s->path; s++)
        if (path[0] && strcmp(s->path, path) == 0) return true;
    return false;
}

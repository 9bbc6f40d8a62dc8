#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""transformers loads what sago exports: test_hf_roundtrip.py SAGO. Skipped (exit 77) where torch or transformers is missing.

Each kind of T5, and PaLM's shape as a Cohere, is made by transformers with random weights, saved whole and in parts,
imported, exported and loaded again: the same state, the same logits, the norms that inspect prints, and what sago scores.
A PaLM that sago made itself is loaded and scored too.
"""
import json
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
try:
    import torch
    from transformers import CohereConfig, CohereForCausalLM, T5Config, T5ForConditionalGeneration
except ImportError as missing:
    print("skipped:", missing)
    sys.exit(77)

SAGO = os.path.abspath(sys.argv[1])
T5 = dict(vocab_size=97, d_model=24, d_kv=5, d_ff=40, num_heads=3)
COHERE = dict(vocab_size=97, hidden_size=24, head_dim=6, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
              pad_token_id=0, bos_token_id=None, eos_token_id=1, layer_norm_eps=1e-6, rope_theta=700.0)
KINDS = {
    "v1.1": T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_layers=2, num_decoder_layers=3),
    "1.0": T5Config(**T5, feed_forward_proj="relu", tie_word_embeddings=True, num_layers=3, num_decoder_layers=1),
    "ul2": T5Config(**T5, feed_forward_proj="gated-silu", tie_word_embeddings=True, num_layers=2, num_decoder_layers=2),
    "palm": CohereConfig(**COHERE, num_key_value_heads=1, logit_scale=0.3),
    "palm-grouped": CohereConfig(**COHERE, num_key_value_heads=2),
}
KEPT = ("num_layers", "num_decoder_layers", "d_kv", "feed_forward_proj", "tie_word_embeddings", "num_key_value_heads",
        "head_dim", "logit_scale", "layer_norm_eps", "rope_theta", "rope_parameters")


def sago(*words):
    done = subprocess.run([SAGO, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def logits(model, x, y):
    """Of every token of y, a row of ids."""
    with torch.no_grad():
        if isinstance(model, CohereForCausalLM):
            return model.eval()(input_ids=torch.tensor([x + y[:-1]])).logits[0, len(x) - 1:]
        return model.eval()(input_ids=torch.tensor([x]), decoder_input_ids=torch.tensor([[0] + y[:-1]])).logits[0]


PAIRS = [([5, 9, 33, 1], [17, 4, 1]), ([2], [3]), (list(range(2, 60)), list(range(60, 90)) + [1])]


def check_scores(folder, checkpoint, model):
    """What sago scores is what transformers does; sums of fp32, so 1e-4 of a log-probability."""
    with open(folder + "/pairs.jsonl", "w") as f:
        for x, y in PAIRS: f.write(json.dumps({"input_ids": x, "target_ids": y}) + "\n")
    sago("score", "--checkpoint", checkpoint, "--input", folder + "/pairs.jsonl", "--output", folder + "/score.jsonl")
    with open(folder + "/score.jsonl") as f: got = [json.loads(line)["target_logprobs"] for line in f]
    assert len(got) == len(PAIRS)
    for (x, y), mine in zip(PAIRS, got):
        want = torch.log_softmax(logits(model, x, y).double(), -1)[range(len(y)), y]
        assert (want - torch.tensor(mine, dtype=torch.float64)).abs().max() < 1e-4, (x, y)


def load(kind, exported):
    again, told = kind.from_pretrained(exported, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"], told
    return again


def check(folder, kind, config, parts, dtype):
    torch.manual_seed(len(kind) + parts)
    palm = isinstance(config, CohereConfig)
    model = (CohereForCausalLM if palm else T5ForConditionalGeneration)(config)
    for p in model.parameters(): p.data = p.data.to(dtype)  # and not the frequencies of rotary positions
    source, checkpoint, exported = (f"{folder}/{n}" for n in ("source", "checkpoint", "exported"))
    model.save_pretrained(source, safe_serialization=True, **({"max_shard_size": "20KB"} if parts else {}))
    assert os.path.exists(source + "/model.safetensors.index.json") == bool(parts)
    sago("import", "--format", "hf", source, checkpoint)
    sago("export", "--format", "hf", checkpoint, exported, *(["--shard-bytes", "20000"] if parts else []))
    assert os.path.exists(exported + "/model.safetensors.index.json") == bool(parts)
    again = load(type(model), exported)
    before, after = model.float().state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for name in before:
        assert after[name].dtype == torch.float32 and torch.equal(before[name], after[name]), name
    for x, y in PAIRS: assert torch.equal(logits(model, x, y), logits(again, x, y))
    check_scores(folder, checkpoint, again)
    for key in KEPT: assert getattr(again.config, key, None) == getattr(config, key, None), key
    norms = {t["name"]: t["l2_norm"] for t in json.loads(sago("inspect", "--json", checkpoint))["tensors"]}
    want = before["model.embed_tokens.weight" if palm else "shared.weight"].double().norm().item()
    assert abs(norms["param/shared.embedding"] - want) <= 1e-6 * want


CONFIG = """run: {steps: 1, dir: run}
model: {family: palm, vocab_size: 97, d_model: 24, n_heads: 4, kv_heads: 2, head_dim: 6, d_ff: 40, encoder_layers: 0,
        decoder_layers: 2}
data: {mixture: [{name: some, format: ids, path: train.jsonl}], order: sequential, input_length: 20, target_length: 20}
train: {global_batch: 1}
"""


def check_own(folder):
    with open(folder + "/config.yaml", "w") as f: f.write(CONFIG)
    with open(folder + "/train.jsonl", "w") as f: f.write('{"input_ids": [5, 6, 7], "target_ids": [8, 1]}\n')
    sago("train", folder + "/config.yaml", "--quiet")
    sago("export", "--format", "hf", folder + "/run", folder + "/exported")
    model = load(CohereForCausalLM, folder + "/exported")
    assert model.config.layer_norm_eps == 1e-6 and model.config.num_key_value_heads == 2
    check_scores(folder, folder + "/run", model)


TEXTS = ["one two three", "  two  spaces", "line\nbreak", "caf\u00e9 \u6c34 \uff21", "", " x ", "Tab\tx", "a" * 50]


def check_tokenizer(folder):
    """The ids of a decoder's prompt are sago's, with nothing in front or behind; T5's end with EOS."""
    try:
        import sentencepiece  # noqa: F401  (transformers reads a model with it)
    except ImportError as missing:
        print("skipped: tokenizers:", missing)
        return
    from transformers import AutoTokenizer
    with open(folder + "/corpus.txt", "w") as f:
        f.writelines(f"line {i} of one, two and three caf\u00e9s with spaces and a break\n" for i in range(200))
    sago("tokenizer", "train", "--input", folder + "/corpus.txt", "--vocab-size", "50", "--output", folder + "/spiece.model")
    with open(folder + "/texts.jsonl", "w") as f: f.writelines(json.dumps({"text": t}) + "\n" for t in TEXTS)
    sago("tokenizer", "encode", "--model", folder + "/spiece.model", "--input", folder + "/texts.jsonl", "--output",
         folder + "/ids.jsonl")
    with open(folder + "/ids.jsonl") as f: want = [json.loads(line)["ids"] for line in f]
    for family, layers, end in (("palm", 0, []), ("t5", 1, [1])):
        out = f"{folder}/{family}"
        with open(folder + "/config.yaml", "w") as f:
            f.write(f"run: {{steps: 0, dir: {out}-run}}\nmodel: {{family: {family}, vocab_size: 160, d_model: 8, n_heads: 2, "
                    f"head_dim: 4, d_ff: 8, encoder_layers: {layers}, decoder_layers: 1}}\n"
                    f"data: {{tokenizer: {folder}/spiece.model, mixture: [{{name: some, format: jsonl, path: some.jsonl}}]}}\n"
                    "train: {global_batch: 1}\n")
        with open(folder + "/some.jsonl", "w") as f: f.write('{"inputs": "one", "targets": "two"}\n')
        sago("train", folder + "/config.yaml", "--quiet")
        sago("export", "--format", "hf", out + "-run", out)
        tokenizer = AutoTokenizer.from_pretrained(out)
        assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
        assert family == "t5" or len(tokenizer) == 50 and tokenizer.bos_token is None
        for text, ids in zip(TEXTS, want, strict=True):
            assert tokenizer(text)["input_ids"] == ids + end, (family, text, tokenizer(text)["input_ids"], ids)
        print("pass tokenizer of", family)


for kind, config in KINDS.items():
    for parts, dtype in ((0, torch.float32), (1, torch.float32), (0, torch.bfloat16), (0, torch.float16)):
        with tempfile.TemporaryDirectory() as folder:
            check(folder, kind, config, parts, dtype)
            print("pass", kind, "in parts" if parts else "whole", dtype)
with tempfile.TemporaryDirectory() as folder:
    check_own(folder)
    print("pass a palm of sago's own")
with tempfile.TemporaryDirectory() as folder:
    check_tokenizer(folder)

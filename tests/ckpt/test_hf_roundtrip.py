#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""transformers loads what sago exports: test_hf_roundtrip.py SAGO. Skipped (exit 77) where torch or transformers is missing.

Each kind of T5 is made by transformers with random weights, saved whole and in parts, imported, exported and loaded
again: the same state, the same logits, the norms that inspect prints.
"""
import json
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
try:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration
except ImportError as missing:
    print("skipped:", missing)
    sys.exit(77)

SAGO = os.path.abspath(sys.argv[1])
KINDS = {
    "v1.1": dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_layers=2, num_decoder_layers=3),
    "1.0": dict(feed_forward_proj="relu", tie_word_embeddings=True, num_layers=3, num_decoder_layers=1),
}


def sago(*words):
    done = subprocess.run([SAGO, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def logits(model):
    ids = torch.arange(2, 22).reshape(2, 10)
    with torch.no_grad():
        return model.eval()(input_ids=ids, decoder_input_ids=ids[:, :7]).logits


def check(folder, kind, settings, parts, dtype):
    torch.manual_seed(len(kind) + parts)
    config = T5Config(vocab_size=97, d_model=24, d_kv=5, d_ff=40, num_heads=3, **settings)
    model = T5ForConditionalGeneration(config).to(dtype)
    source, checkpoint, exported = (f"{folder}/{n}" for n in ("source", "checkpoint", "exported"))
    model.save_pretrained(source, safe_serialization=True, **({"max_shard_size": "40KB"} if parts else {}))
    assert os.path.exists(source + "/model.safetensors.index.json") == bool(parts)
    sago("import", "--format", "hf", source, checkpoint)
    sago("export", "--format", "hf", checkpoint, exported)
    again, told = T5ForConditionalGeneration.from_pretrained(exported, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"], told
    before, after = model.float().state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for name in before:
        assert after[name].dtype == torch.float32 and torch.equal(before[name], after[name]), name
    assert torch.equal(logits(model), logits(again))
    for key in ("num_layers", "num_decoder_layers", "d_kv", "feed_forward_proj", "tie_word_embeddings"):
        assert getattr(again.config, key) == getattr(config, key), key
    norms = {t["name"]: t["l2_norm"] for t in json.loads(sago("inspect", "--json", checkpoint))["tensors"]}
    want = before["shared.weight"].double().norm().item()
    assert abs(norms["param/shared.embedding"] - want) <= 1e-6 * want


for kind, settings in KINDS.items():
    for parts, dtype in ((0, torch.float32), (1, torch.float32), (0, torch.bfloat16), (0, torch.float16)):
        with tempfile.TemporaryDirectory() as folder:
            check(folder, kind, settings, parts, dtype)
            print("pass", kind, "in parts" if parts else "whole", dtype)

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A tiny twin of every preset trains: the preset's own file with small sizes set over it, and nothing else changed but the
paths. test_twins.py SAGO CONFIGS [NAME ...]"""
import json, os, shutil, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor

SAGO, CONFIGS = sys.argv[1:3]
work = tempfile.mkdtemp()
ENV = dict(os.environ, OMP_WAIT_POLICY="passive")
STEPS = 3

SMALL = {"model.init": "", "model.vocab_size": 384, "model.d_model": 32, "model.n_heads": 2, "model.head_dim": 16, "model.d_ff": 64,
         "model.decoder_layers": 2, "data.tokenizer": "bytes", "data.input_length": 96, "data.target_length": 48, "data.pack_window": 16,
         "data.cache_dir": f"{work}/cache", "train.global_batch": 2, "run.steps": STEPS, "run.seed": 5,
         "checkpoint.every": 0, "mesh.data": 1, "mesh.model": 1, "device": "cpu", "threads": 1}
MEMBERS = {"muffin": "jsonl", "t0sf": "jsonl", "cot": "cot", "niv2": "niv2"}


def sago(*words):
    p = subprocess.run([SAGO, *map(str, words)], capture_output=True, text=True, env=ENV, timeout=280)
    assert p.returncode == 0, (words, p.returncode, p.stderr)
    return p.stdout


def twin(name):
    path, run = f"{CONFIGS}/{name}.yaml", f"{work}/{name}"
    text = open(path).read()
    sets = dict(SMALL, **{"run.dir": run})
    if "encoder_layers:" in text:
        sets["model.encoder_layers"] = 2
    if "name: corpus" in text:
        sets["data.mixture.corpus.path"] = f"{work}/corpus.txt"
    else:
        sets.update({f"data.mixture.{member}.path": f"{work}/tasks/{folder}" for member, folder in MEMBERS.items()})
    sago("train", path, *(w for k, v in sets.items() for w in ("--set", f"{k}={v}")))
    lines = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
    lines = [line for line in lines if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1)), lines
    # Of a guess among 384 ids the loss is log 384 = 5.95; embeddings of deviation 1, tied, give larger logits.
    assert all(4 < line["loss"] < 12 and line["target_tokens"] > 0 and line["gradient_norm"] > 0 for line in lines), (name, lines)
    shutil.rmtree(run)
    return f"{name}: loss {lines[0]['loss']:.2f} to {lines[-1]['loss']:.2f}"


sago("data", "generate", f"{work}/tasks")
with open(f"{work}/corpus.txt", "w") as f:
    for i in range(400):
        f.write(" ".join(f"{('oak', 'elm', 'ash', 'fir', 'yew')[(i * j) % 5]} {i * j % 97}" for j in range(1, 30)) + "\n")
names = sys.argv[3:] or sorted(n[:-5] for n in os.listdir(CONFIGS) if n.endswith(".yaml") and n != "quickstart.yaml" and "mixture" not in n)
assert len(sys.argv) > 3 or len(names) == 17, names
try:
    with ThreadPoolExecutor(2) as pool:
        for line in pool.map(twin, names):
            print(line, flush=True)
finally:
    shutil.rmtree(work)

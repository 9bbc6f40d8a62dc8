#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drives the program over the golden cases beside this file. run.py SAGO MPIRUN [DEVICE]. Standard library only.

Tolerances are those of fp32: log-probabilities 2e-4, losses 1e-4 relative, gradient norms 1e-3 relative, each trained
tensor 1e-4 of the distance that it moved."""
import array, json, math, os, struct, subprocess, sys, tempfile

sago, mpirun = sys.argv[1:3]
device = ["--set", "device=" + sys.argv[3]] if len(sys.argv) > 3 else []
if device and sys.argv[3].startswith("cuda"): device += ["--set", "train.precision=fp32"]  # of itself a GPU takes bf16
here, work = os.path.dirname(os.path.abspath(__file__)), tempfile.mkdtemp()
env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")


def run(*words, ranks=1):
    launch = [mpirun, "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    p = subprocess.run([*launch, sago, *map(str, words), "--quiet"], capture_output=True, text=True, env=env, timeout=200)
    assert p.returncode == 0, (words, p.stderr)


def rows(path): return [json.loads(l) for l in open(path)]


def tensors(path):
    whole = open(path, "rb").read()
    n = struct.unpack("<Q", whole[:8])[0]
    head = {k: v for k, v in json.loads(whole[8:8 + n]).items() if k != "__metadata__"}
    body = whole[8 + n:]
    return {k: (v["shape"], array.array("f", body[slice(*v["data_offsets"])])) for k, v in head.items()}


def near(a, b, tolerance, what): assert abs(a - b) <= tolerance, (what, a, b)


def distance(a, b): return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)))


def train(folder, kind, ckpt, name, metrics, ranks, extra):
    """The run's folder; its metrics agree."""
    there = f"{work}/{kind}-{name}"
    run("train", folder + "/train/config.yaml", "--set", f"model.init={ckpt}", "--set", f"run.dir={there}", *extra, *device,
        ranks=ranks)
    wanted, got = rows(f"{folder}/train/{metrics}.jsonl"), rows(there + "/metrics.jsonl")
    assert len(wanted) == len(got)
    for w, g in zip(wanted, got):
        assert w["target_tokens"] == g["target_tokens"]
        for key, tolerance in (("loss", 1e-4), ("z_loss", 1e-4), ("gradient_norm", 1e-3)):
            near(w[key], g[key], tolerance * abs(w[key]), (name, w["step"], key))
    return there


def score(folder, ckpt, wanted, extra):
    run("score", "--checkpoint", ckpt, "--input", folder + "/pairs.jsonl", "--output", out, *extra, *device)
    wanted, got = rows(f"{folder}/{wanted}.jsonl"), rows(out)
    assert len(wanted) == len(got)
    for w, g in zip(wanted, got):
        assert len(w["target_logprobs"]) == len(g["target_logprobs"])
        for a, b in zip(w["target_logprobs"], g["target_logprobs"]): near(a, b, 2e-4 + 2e-5 * abs(a), "logprob")


prefix, out = ["--set", "model.attention=prefix"], f"{work}/out.jsonl"
for kind in ("gated", "tied", "palm"):
    folder, ckpt = f"{here}/{kind}", f"{work}/{kind}"
    run("import", "--format", "hf", folder + "/model", ckpt)
    run("export", "--format", "hf", ckpt, ckpt + ".hf")
    first = tensors(folder + "/model/model.safetensors")
    assert tensors(ckpt + ".hf/model.safetensors") == first
    score(folder, ckpt, "score", [])
    if kind == "palm": score(folder, ckpt, "score-prefix", prefix)
    run("generate", "--checkpoint", ckpt, "--input", folder + "/prompts.jsonl", "--output", out, "--max-new-tokens", 12,
        *device)
    assert [r["output_ids"] for r in rows(out)] == [r["output_ids"] for r in rows(folder + "/generate.jsonl")]
    for ranks, extra in ((1, []), (2, []), (3, ["--set", "train.recompute=true"])):
        there = train(folder, kind, ckpt, ranks, "metrics", ranks, extra)
        run("export", "--format", "hf", there, there + ".hf")
        last, mine = tensors(folder + "/train/final.safetensors"), tensors(there + ".hf/model.safetensors")
        assert set(mine) == set(first)
        for name, (shape, values) in last.items():
            moved, off = distance(first[name][1], values), distance(values, mine[name][1])
            assert shape == mine[name][0] and moved > 0 and off <= 1e-4 * moved, (ranks, name, off, moved)
    if kind == "palm": train(folder, kind, ckpt, "prefix", "metrics-prefix", 2, prefix)
    print(f"{kind}: import, score, generate, training on 1, 2 and 3 ranks, export agree")

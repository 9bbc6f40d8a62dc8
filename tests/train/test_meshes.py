#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One run on many meshes: the same weights, losses and answers, and checkpoints from any to any. test_meshes.py SAGO MPIRUN [all]

A mesh DxM is D copies of the model, each over M ranks; DxMs shares one copy's parameters out over the D ranks (FSDP), and DxMk
keeps what it gathered for a step. `all` tries every pair of meshes and both families in full."""
import json, os, shutil, subprocess, sys, tempfile

SAGO, MPIRUN = sys.argv[1:3]
ALL = sys.argv[3:] == ["all"]
work = tempfile.mkdtemp()
ENV = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_WAIT_POLICY="passive", OMP_NUM_THREADS="1")

CONFIG = """
run: {{seed: 3, steps: 8}}
model: {{{model}}}
data:
  tokenizer: bytes
  cache_dir: {work}/cache
  mixture:
    - {{name: words, format: jsonl, path: {work}/tasks, share: 1}}
  input_length: 60
  target_length: 21
  pack_window: 16
  eval_fraction: 0.05
train: {{global_batch: 5, micro_batch: 2, dropout: 0.1, z_loss: 1.0e-4}}
optimizer: {{learning_rate: 0.01, min_factored_dim: 32, momentum: 0.5, clip_norm: 1}}
checkpoint: {{every: 0}}
eval: {{examples_per_task: 6, max_new_tokens: 8, batch: 4}}
"""
MODELS = {
    "t5": "vocab_size: 384, d_model: 32, n_heads: 4, head_dim: 8, d_ff: 64, encoder_layers: 1, decoder_layers: 2",
    "palm": "family: palm, vocab_size: 384, d_model: 32, n_heads: 4, head_dim: 8, d_ff: 64, decoder_layers: 2, attention: prefix",
}


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
    return path


words = "oak elm ash fir yew box bay fig".split()
for task in ("copy", "first"):
    write(f"{work}/tasks/{task}.jsonl", "".join(
        json.dumps({"inputs": f"{task}: {a} {b} {c}", "targets": a if task == "first" else f"{a} {b} {c}"}) + "\n"
        for a in words for b in words for c in words if len({a, b, c}) == 3))
configs = {name: write(f"{work}/{name}.yaml", CONFIG.format(work=work, model=model)) for name, model in MODELS.items()}


def sago(*words, mesh="1x1", fails=False):
    ranks = eval(mesh.rstrip("sk").replace("x", "*"))
    launch = [MPIRUN, "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    p = subprocess.run([*launch, SAGO, *map(str, words)], capture_output=True, text=True, env=ENV, timeout=300)
    assert (p.returncode != 0) == fails, (words, mesh, p.returncode, p.stderr[-800:])
    return p.stderr


def train(family, run, mesh, **kv):
    data, model = mesh.rstrip("sk").split("x")
    kv = {"run.dir": f"{work}/{run}", "mesh.data": data, "mesh.model": model, "mesh.data_axis": "sharded" if mesh[-1] in "sk" else "replicated",
          "mesh.gathered": "keep" if mesh[-1] == "k" else "drop", "threads": 1, "device": "cpu", **{k.replace("__", "."): v for k, v in kv.items()}}
    sago("train", configs[family], "--quiet", *[x for k, v in kv.items() for x in ("--set", f"{k}={v}")], mesh=mesh)
    return run


def losses(run):
    rows = [json.loads(l) for l in open(f"{work}/{run}/metrics.jsonl")]
    return [(r["loss"], r["gradient_norm"]) for r in rows if "target_tokens" in r]


def weights(run):
    out = f"{work}/{run}.hf"
    shutil.rmtree(out, ignore_errors=True)
    sago("export", "--format", "hf", f"{work}/{run}", out, "--quiet")
    return open(out + "/model.safetensors", "rb").read()


def case_same_numbers(family, meshes):
    one = losses(train(family, f"{family}-1x1", "1x1"))
    assert len(one) == 8 and one[-1][0] < one[0][0]
    for mesh in meshes:
        run = train(family, f"{family}-{mesh}", mesh)
        for step, ((a, g), (b, h)) in enumerate(zip(one, losses(run)), 1):
            assert abs(a - b) <= 3e-5 * a and abs(g - h) <= 1e-3 * g, (family, mesh, step, a, b, g, h)
        rows = [json.loads(l) for l in open(f"{work}/{run}/metrics.jsonl")][0]["rows_by_data_rank"]
        assert len(rows) == int(mesh[0]) and sum(rows) == 5, rows
    again = train(family, f"{family}-again", meshes[-1])
    assert weights(again) == weights(f"{family}-{meshes[-1]}") and losses(again) == losses(f"{family}-{meshes[-1]}")


def case_first_weights(family, meshes):
    """A step of rate 0 leaves what initialisation made, by global index."""
    first = [weights(train(family, f"{family}-first-{mesh}", mesh, run__steps=1, optimizer__learning_rate=0)) for mesh in ["1x1", *meshes]]
    assert len(set(first)) == 1


def case_any_to_any(family, pairs):
    """What one mesh saved another loads as the same bytes, optimizer's state too: the continued run is that of one mesh."""
    whole = losses(train(family, f"{family}-whole", "1x1"))
    for saved, loaded in pairs:
        run = train(family, f"{family}-{saved}-{loaded}", saved, run__steps=4)
        at4 = weights(run)
        shutil.copytree(f"{work}/{run}", f"{work}/{run}-still")
        assert weights(train(family, run + "-still", loaded, run__steps=5, optimizer__learning_rate=0)) == at4, (saved, loaded)
        for (a, _), (b, _) in zip(whole, losses(train(family, run, loaded))):
            assert abs(a - b) <= 3e-5 * a, (family, saved, loaded, a, b)


def case_same_answers(family):
    run = f"{work}/{family}-1x1"
    pairs = write(f"{work}/pairs.jsonl", "".join(json.dumps({"inputs": f"copy: {a} elm", "targets": f"{a} elm"}) + "\n" for a in words))
    found = {}
    for mesh in ("1x1", "1x2", "1x4"):
        more = ["--quiet", "--set", f"mesh.model={mesh[2]}", "--set", "threads=1"]
        sago("score", "--checkpoint", run, "--input", pairs, "--output", f"{work}/s.jsonl", *more, mesh=mesh)
        sago("generate", "--checkpoint", run, "--input", pairs, "--output", f"{work}/g.jsonl", "--max-new-tokens", 9, *more, mesh=mesh)
        made = [json.loads(l) for l in open(f"{work}/g.jsonl")]
        found[mesh] = [json.loads(l)["logprob"] for l in open(f"{work}/s.jsonl")] + [r["logprob"] for r in made], [r["output_ids"] for r in made]
    for mesh in ("1x2", "1x4"):
        assert all(abs(a - b) < 1e-3 for a, b in zip(found[mesh][0], found["1x1"][0])), (family, mesh, found)
        assert found[mesh][1] == found["1x1"][1], (family, mesh, found)
    scores = []
    for mesh in ("1x1", "2x2"):
        sago("eval", run, "--output", f"{work}/eval-{mesh}", "--quiet", "--set", f"mesh.model={mesh[2]}", "--set", "threads=1", mesh=mesh)
        scores.append([json.loads(l)["outputs"] for l in open(f"{work}/eval-{mesh}/predictions.jsonl")])
    assert scores[0] == scores[1] and len(scores[0]) == 12


def case_from_text_to_instructions():
    """A small U-PaLM: causal language modelling, UL2R, instructions on 2x2; what it answers is the same on every mesh."""
    write(f"{work}/text/a.txt", "".join(f"The {a} stands by the {b}, and the {c} is older than both. " * 2 + "\n" for a in words for b in words for c in words[:4]))
    def stage(name, member, init, attention, steps, length, rate):
        text = CONFIG.format(work=work, model=MODELS["palm"].replace("prefix", attention)).replace("{name: words, format: jsonl, path: " + work + "/tasks, share: 1}", member)
        text = text.replace("input_length: 60", f"input_length: {length}").replace("target_length: 21", f"target_length: {length}").replace("micro_batch: 2", "micro_batch: 2, recompute: true")
        configs[name] = write(f"{work}/{name}.yaml", text)
        return train(name, f"run-{name}", "2x2s" if name == "tuned" else "2x1", run__steps=steps, optimizer__learning_rate=rate, **({"model.init": f"{work}/run-{init}"} if init else {}))
    stage("pretrained", f"{{name: text, format: text, path: {work}/text, objective: causal-lm}}", "", "causal", 30, 40, 0.01)
    stage("ul2r", f"{{name: text, format: text, path: {work}/text, objective: ul2r}}", "pretrained", "prefix", 20, 64, 0.003)
    run = f"{work}/" + stage("tuned", f"{{name: words, format: jsonl, path: {work}/tasks, share: 1}}", "ul2r", "prefix", 40, 40, 0.01)
    for name in ("pretrained", "ul2r", "tuned"):
        found = [l for l, _ in losses(f"run-{name}")]
        assert sum(found[-5:]) < sum(found[:5]), (name, found)
    answers = []
    for mesh in ("1x1", "4x1", "1x2"):
        sago("eval", run, "--output", f"{work}/tuned-{mesh}", "--quiet", "--set", f"mesh.model={mesh[2]}", "--set", "threads=1", mesh=mesh)
        answers.append([json.loads(l)["outputs"] for l in open(f"{work}/tuned-{mesh}/predictions.jsonl")])
    assert answers[0] == answers[1] == answers[2] and len(answers[0]) == 12


def case_what_does_not_divide():
    for family, key, says in (("t5", "model.n_heads=3", "3 heads do not divide by mesh.model=2"),
                              ("palm", "model.d_ff=63", "63 does not divide by mesh.model=2"),
                              ("palm", "model.vocab_size=385", "does not divide by model=2")):
        said = sago("train", configs[family], "--quiet", "--set", f"run.dir={work}/no", "--set", "mesh.model=2", "--set", key, mesh="1x2", fails=True)
        lines = [l for l in said.splitlines() if l.startswith("sago")]
        assert says in said and len(lines) == 1, said


case_same_numbers("palm", ["2x1", "1x2", "3x1", "1x4", "2x2", "2x1s", "3x1s", "4x1k", "2x2k", "2x2s"] if ALL else ["1x4", "2x1k", "2x2s"])
case_same_numbers("t5", ["2x1", "1x2", "3x1", "4x1", "2x2", "2x1k", "3x1s", "4x1s", "2x2s"] if ALL else ["2x2", "3x1s"])
case_first_weights("palm", ["2x1", "1x4", "2x2", "3x1s", "2x2s"] if ALL else ["1x4"])
case_first_weights("t5", ["2x1", "1x4", "2x2", "3x1s", "2x2s"] if ALL else ["2x2s"])
every = ["1x1", "2x1", "1x2", "2x2", "3x1s", "2x2s"]
case_any_to_any("palm", [(a, b) for a in every for b in every if a != b] if ALL else [("2x2", "1x1"), ("1x1", "2x2s"), ("1x2", "2x1")])
case_any_to_any("t5", [(a, b) for a in every for b in every if a != b] if ALL else [("3x1s", "2x2")])
case_same_answers("palm")
case_same_answers("t5")
case_what_does_not_divide()
case_from_text_to_instructions()
shutil.rmtree(work)
print("meshes agree")

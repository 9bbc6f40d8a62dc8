#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sago eval over a small trained model: every figure of scores.json computed again from predictions.jsonl, outputs and
option scores compared with sago generate and sago score, and the same scores on any number of ranks.

model.py SAGO MPIRUN"""
import collections
import json
import math
import os
import re
import shutil
import string
import subprocess
import sys
import tempfile
import unittest

MPIRUN = sys.argv.pop(2)
SAGO = os.path.abspath(sys.argv.pop(1))
WORK = None
ENV = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_WAIT_POLICY="passive")

CONFIG = """
run: {dir: run, steps: 150, seed: 5}
model: {vocab_size: 384, d_model: 32, n_heads: 2, head_dim: 16, d_ff: 64, encoder_layers: 1, decoder_layers: 1}
data:
  tokenizer: bytes
  cache_dir: cache
  mixture:
    - {name: first, format: jsonl, path: first}
    - {name: second, format: jsonl, path: second}
  holdout: [unseen]
  input_length: 200
  target_length: 16
  eval_fraction: 0.3
train: {global_batch: 4, dropout: 0}
optimizer: {learning_rate: 0.01}
checkpoint: {every: 0}
eval: {examples_per_task: 9, batch: 4, max_new_tokens: 5}
"""


def path(name):
    return os.path.join(WORK, name)


def sago(*words, ranks=1):
    start = [MPIRUN, "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    return subprocess.run(start + [SAGO, *map(str, words)], cwd=WORK, env=ENV, capture_output=True, text=True,
                          errors="replace", timeout=240)


def write(name, rows):
    os.makedirs(os.path.dirname(path(name)) or ".", exist_ok=True)
    with open(path(name), "w", encoding="utf-8") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)


def lines(name):
    with open(path(name), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def scores_of(name):
    with open(path(name + "/scores.json"), encoding="utf-8") as f:
        return json.load(f)


def setUpModule():
    global WORK
    WORK = tempfile.mkdtemp(prefix="sago-test-eval-")
    names = ["oak", "elm", "ash", "fir", "yew", "box", "bay", "fig"]
    pairs = [(a, b) for a in names for b in names if a != b]
    # One answer to everything is learned in a few steps; the others are not, and need not be.
    write("first/constant.jsonl", [{"inputs": f"say it, {a} {b}", "targets": "tree"} for a, b in pairs])
    write("first/shared.jsonl", [{"inputs": f"first of {a} {b}", "targets": a} for a, b in pairs])
    write("second/shared.jsonl", [{"inputs": f"last of {a} {b}", "targets": b} for a, b in pairs])
    write("second/unseen.jsonl", [{"inputs": f"say it now, {a} {b}", "targets": "tree"} for a, b in pairs])
    with open(path("config.yaml"), "w", encoding="utf-8") as f:
        f.write(CONFIG)
    for words in (("train", "config.yaml"), ("eval", "run", "--output", "greedy", "--label", "x")):
        done = sago(*words)
        if done.returncode:
            raise RuntimeError(done.stderr)


def tearDownModule():
    shutil.rmtree(WORK)


def bag(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return collections.Counter(w for w in text.split() if w not in ("a", "an", "the"))


def f1(answer, reference):
    x, y = bag(answer), bag(reference)
    common = sum((x & y).values())
    if not x or not y:
        return float(x == y)
    return 2 * common / (sum(x.values()) + sum(y.values()))


def rouge(answer, reference):
    words = lambda text: re.findall(r"[a-z0-9\u0080-\U0010ffff]+", text.lower())
    x, y = words(answer), words(reference)
    table = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return 2 * table[-1][-1] / (len(x) + len(y)) if table[-1][-1] else 0.0


class Model(unittest.TestCase):
    def succeeds(self, *words, ranks=1):
        done = sago(*words, ranks=ranks)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def fails(self, code, says, *words):
        done = sago(*words)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(says, done.stderr)
        # Beside what `device: auto` took, one line.
        said = [line for line in done.stderr.splitlines() if not line.startswith("device auto")]
        self.assertEqual(len(said), 1, done.stderr)

    def test_questions(self):
        records = lines("greedy/predictions.jsonl")
        counts = collections.Counter((r["task"], r["held_out"]) for r in records)
        # Two members have a task "shared": each keeps its own scores.
        self.assertEqual(counts, {("constant", False): 9, ("first/shared", False): 9, ("second/shared", False): 9,
                                  ("unseen", True): 9})
        right = {"constant": lambda p: "tree", "unseen": lambda p: "tree", "first/shared": lambda p: p.split()[2],
                 "second/shared": lambda p: p.split()[3]}
        for r in records:
            self.assertEqual(r["references"], [right[r["task"]](r["prompt"])])
        self.assertEqual(len({r["prompt"] for r in records}), 36)

    def test_scores_again(self):
        records, scores = lines("greedy/predictions.jsonl"), scores_of("greedy")
        sums = collections.defaultdict(lambda: collections.defaultdict(list))
        for r in records:
            answer, options = r["outputs"][0].strip(), r.get("options")
            self.assertEqual(r["answer"], answer)
            mine = {"exact_match": float(" ".join(answer.split()) == r["references"][0]),
                    "token_f1": f1(answer, r["references"][0]), "rouge_l": rouge(answer, r["references"][0])}
            if options:
                self.assertEqual(options[r["right_option"]], r["references"][0])
                best = max(range(len(options)), key=lambda i: r["option_logprobs"][i])
                self.assertEqual(r["chosen_option"], best)
                mine["accuracy"] = float(best == r["right_option"])
            for kind, value in mine.items():
                self.assertAlmostEqual(r[kind], value, places=6, msg=(kind, r))
                sums[r["task"]][kind].append(100 * value)
        mean = {t: {k: sum(v) / len(v) for k, v in kinds.items()} for t, kinds in sums.items()}
        self.assertEqual(mean["constant"]["exact_match"], 100)
        self.assertEqual(mean["unseen"]["exact_match"], 100)
        self.assertLess(mean["first/shared"]["exact_match"], 100)
        for task in scores["tasks"]:
            for kind, value in mean[task["name"]].items():
                self.assertAlmostEqual(task[kind]["mean"], value, places=4)
                self.assertLessEqual(task[kind]["low"], task[kind]["mean"] + 1e-9)
                self.assertGreaterEqual(task[kind]["high"], task[kind]["mean"] - 1e-9)
        for group, names in (("overall", list(mean)), ("unseen", ["unseen"]),
                             ("seen", [t for t in mean if t != "unseen"])):
            self.assertEqual((scores[group]["tasks"], scores[group]["examples"]), (len(names), 9 * len(names)))
            macro = sum(mean[t]["rouge_l"] for t in names) / len(names)
            self.assertAlmostEqual(scores[group]["rouge_l"]["mean"], macro, places=4)

    def test_outputs_are_those_of_generate_and_score(self):
        records = lines("greedy/predictions.jsonl")
        write("prompts.jsonl", [{"inputs": r["prompt"]} for r in records])
        self.succeeds("generate", "--checkpoint", "run", "--input", "prompts.jsonl", "--output", "generated.jsonl",
                      "--max-new-tokens", 5, "--batch", 3)
        for r, g in zip(records, lines("generated.jsonl"), strict=True):
            self.assertEqual(r["outputs"], [g["output"].replace("\0", "\ufffd")])
            self.assertAlmostEqual(r["logprob"], g["logprob"], places=3)
        asked = [(r, o, option) for r in records for o, option in enumerate(r.get("options", []))]
        self.assertGreater(len(asked), 50)
        write("pairs.jsonl", [{"inputs": r["prompt"], "targets": option} for r, _, option in asked])
        self.succeeds("score", "--checkpoint", "run", "--input", "pairs.jsonl", "--output", "scored.jsonl")
        scored = lines("scored.jsonl")
        for (r, o, _), s in zip(asked, scored, strict=True):
            self.assertAlmostEqual(r["option_logprobs"][o], s["logprob"], places=3)
        self.succeeds("eval", "run", "--output", "normalised", "--set", "eval.length_normalised=true")
        by_prompt = {r["prompt"]: r for r in lines("normalised/predictions.jsonl")}
        for (r, o, _), s in zip(asked, scored):
            self.assertAlmostEqual(by_prompt[r["prompt"]]["option_logprobs"][o],
                                   s["logprob"] / len(s["target_logprobs"]), places=3)

    def test_ranks_and_batches(self):
        sampled = ["--label", "x", "--set", "eval.temperature=1.3", "--set", "eval.samples=3", "--set", "eval.top_k=300"]
        self.succeeds("eval", "run", "--output", "sampled", *sampled)
        for ranks, batch in ((2, 4), (3, 5), (1, 1)):
            for name, more in (("greedy", ["--label", "x"]), ("sampled", sampled)):
                self.succeeds("eval", "run", "--output", "again", "--set", f"eval.batch={batch}", *more, ranks=ranks)
                for mine, theirs in zip(lines("again/predictions.jsonl"), lines(name + "/predictions.jsonl"), strict=True):
                    self.assertEqual((mine["prompt"], mine["outputs"]), (theirs["prompt"], theirs["outputs"]), name)
                self.assertEqual(scores_of("again"), scores_of(name))
        # Drawn bytes are often no text; no question is lost over it.
        self.assertTrue(any("\ufffd" in o for r in lines("sampled/predictions.jsonl") for o in r["outputs"]))

    def test_few_shot(self):
        self.succeeds("eval", "run", "--output", "few", "--set", "eval.few_shot=3")
        asked = [r["prompt"] for r in lines("greedy/predictions.jsonl")]
        for zero, few in zip(asked, (r["prompt"] for r in lines("few/predictions.jsonl")), strict=True):
            self.assertEqual(few.count(zero), 1, few)
            self.assertGreater(len(few), len(zero))
            self.assertFalse([other for other in asked if other != zero and other in few])

    def test_cut_prompts_are_told(self):
        done = sago("eval", "run", "--output", "cut", "--quiet", "--set", "data.input_length=18")
        self.assertEqual(done.returncode, 0, done.stderr)
        records = lines("cut/predictions.jsonl")
        cut = [r for r in records if len(r["prompt"]) + 1 > 18]
        self.assertTrue(0 < len(cut) < len(records))
        self.assertEqual([r for r in records if r.get("prompt_cut")], cut)
        self.assertIn(f"{len(cut)} of {len(records)} prompts", done.stderr)

    def test_ids_without_texts(self):
        write("ids/pairs.jsonl", [{"input_ids": [b + 3 for b in b"say it, oak elm%d" % i] + [1],
                                   "target_ids": [b + 3 for b in b"tree"] + [1]} for i in range(8)])
        self.succeeds("eval", "config.yaml", "--checkpoint", "run", "--output", "of-ids", "--set", "data.holdout=['*']",
                      "--set", "data.mixture=[{name: ids, format: ids, path: ids}]")
        records = lines("of-ids/predictions.jsonl")
        self.assertGreater(len(records), 4)
        for r in records:
            self.assertRegex(r["prompt"], r"^say it, oak elm\d$")
            self.assertEqual(r["references"], ["tree"])
        self.assertGreater(scores_of("of-ids")["unseen"]["exact_match"]["mean"], 50)

    def test_moved_run(self):
        shutil.copytree(path("run"), path("moved"))
        self.succeeds("eval", "moved", "--tasks", "constant")
        self.assertEqual(os.listdir(path("moved/eval")), ["step-000150"])
        self.assertFalse(os.path.exists(path("run/eval")))

    def test_refused(self):
        self.fails(2, "names no task", "eval", "run", "--tasks", "")
        self.fails(2, '"nosuch" matches no task', "eval", "run", "--tasks", "constant,nosuch")
        self.fails(2, "eval.temperature", "eval", "run", "--set", "eval.samples=2")
        self.fails(2, "not a split", "eval", "run", "--split", "test")
        self.fails(2, "config.yaml", "eval", "first")
        self.fails(1, "nosuch", "eval", "config.yaml", "--checkpoint", "nosuch")
        self.fails(2, "usage: sago eval CONFIG", "eval", "run", "more")

    def test_only_held_out_tasks(self):
        self.succeeds("eval", "config.yaml", "--checkpoint", "run", "--output", "held", "--set", "data.holdout=['*']")
        self.assertEqual(scores_of("held")["seen"]["tasks"], 0)
        self.assertEqual(scores_of("held")["unseen"]["tasks"], 4)

    def test_text_loss(self):
        """Held-out text: the windows of the one document are cut here, and scored by sago score."""
        for name, objective, family in (("causal", "causal-lm", "palm"), ("spans", "span-corruption", "t5")):
            with self.subTest(objective):
                document = "".join(f"The {i}th stone lies in the river. " for i in range(40))
                os.makedirs(path(f"{name}/train"), exist_ok=True)
                with open(path(f"{name}/train/a.txt"), "w", encoding="utf-8") as f:
                    f.writelines(f"A line number {i} of the text that is learned from.\n" for i in range(200))
                with open(path(f"{name}/test.txt"), "w", encoding="utf-8") as f:
                    f.write(document + "\n")
                shape = ("{family: palm, vocab_size: 384, d_model: 32, n_heads: 2, head_dim: 16, d_ff: 64, decoder_layers: 1}"
                         if family == "palm" else
                         "{vocab_size: 384, d_model: 32, n_heads: 2, head_dim: 16, d_ff: 64, encoder_layers: 1, decoder_layers: 1}")
                with open(path(f"{name}.yaml"), "w", encoding="utf-8") as f:
                    f.write(f"run: {{dir: {name}/run, steps: 20, seed: 2}}\nmodel: {shape}\n"
                            "data:\n  tokenizer: bytes\n  cache_dir: cache\n  input_length: 60\n  target_length: 40\n"
                            "  eval_fraction: 0.1\n  holdout: [test]\n  mixture:\n"
                            f"    - {{name: web, format: text, path: {name}/train, objective: {objective}}}\n"
                            f"    - {{name: test, format: text, path: {name}/test.txt, objective: {objective}}}\n"
                            "train: {global_batch: 4, dropout: 0}\noptimizer: {learning_rate: 0.01}\n"
                            "checkpoint: {every: 0}\neval: {batch: 4, every: 10}\n")
                done = self.succeeds("train", f"{name}.yaml")
                self.assertIn("nats a token", done.stderr)  # eval.every
                done = self.succeeds("eval", f"{name}.yaml", "--output", f"{name}/one")
                self.assertIn("perplexity", done.stderr)
                rows = {row["category"]: row for row in scores_of(f"{name}/one")["text"]}
                self.assertEqual(set(rows), {"web", "test"})
                self.assertEqual((rows["web"]["held_out"], rows["test"]["held_out"]), (False, True))
                self.assertEqual(scores_of(f"{name}/one")["overall"]["tasks"], 0)
                records = lines(f"{name}/one/predictions.jsonl")
                for category, row in rows.items():
                    mine = [r for r in records if r["category"] == category]
                    tokens = sum(r["target_tokens"] for r in mine)
                    loss = -sum(r["logprob"] for r in mine) / tokens
                    self.assertEqual((row["pieces"], row["target_tokens"]), (len(mine), tokens))
                    self.assertAlmostEqual(row["loss"]["mean"], loss, places=7)
                    self.assertAlmostEqual(row["perplexity"]["mean"], math.exp(loss), places=4)
                    self.assertTrue(row["loss"]["low"] <= loss <= row["loss"]["high"] and row["loss"]["low"] < row["loss"]["high"])
                    self.assertTrue(0.5 < loss < math.log(384) + 1)
                if family == "palm":
                    stream = [b + 3 for b in document.encode()] + [1]
                    windows = [stream[at:at + 100] for at in range(0, len(stream) - 1, 99)]
                    write("causal/windows.jsonl", [{"input_ids": w[:1], "target_ids": w[1:]} for w in windows])
                    self.succeeds("score", "--checkpoint", "causal/run", "--input", "causal/windows.jsonl", "--output",
                                  "causal/scored.jsonl")
                    mine = [r for r in records if r["category"] == "test"]
                    self.assertEqual([r["target_tokens"] for r in mine], [len(w) - 1 for w in windows])
                    for record, scored in zip(mine, lines("causal/scored.jsonl"), strict=True):
                        self.assertAlmostEqual(record["logprob"], scored["logprob"], delta=1e-3)
                for ranks in (2, 3):
                    done = sago("eval", f"{name}.yaml", "--output", f"{name}/{ranks}", ranks=ranks)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    again = {row["category"]: row for row in scores_of(f"{name}/{ranks}")["text"]}
                    for category, row in rows.items():
                        self.assertEqual(again[category]["target_tokens"], row["target_tokens"])
                        self.assertAlmostEqual(again[category]["loss"]["mean"], row["loss"]["mean"], places=6)
                self.succeeds("eval", "--predictions", f"{name}/one/predictions.jsonl", "--output", f"{name}/recorded")
                for kept, made in zip(scores_of(f"{name}/recorded")["text"], scores_of(f"{name}/one")["text"], strict=True):
                    self.assertEqual((kept["name"], kept["target_tokens"]), (made["name"], made["target_tokens"]))
                    self.assertAlmostEqual(kept["loss"]["mean"], made["loss"]["mean"], places=7)
                done = self.succeeds("eval", f"{name}.yaml", "--output", f"{name}/seen", "--split", "train", "--set",
                                     "eval.examples_per_task=3")
                self.assertEqual([row["pieces"] for row in scores_of(f"{name}/seen")["text"]], [3])
                done = sago("eval", f"{name}.yaml", "--set", "data.eval_fraction=0", "--set", "data.holdout=[]", "--output", "no")
                self.assertNotEqual(done.returncode, 0)
                self.assertIn("data.eval_fraction", done.stderr)


if __name__ == "__main__":
    unittest.main()

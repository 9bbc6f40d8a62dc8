#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""score, generate and tokenizer over files of lines: order, batches, seeds, and what a bad line says.

test_lines.py SAGO"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

SAGO = os.path.abspath(sys.argv.pop(1))
VOCABULARY, WORK = 400, None

CONFIG = """
run: {dir: run, steps: 1, seed: 3}
model: {vocab_size: %d, d_model: 32, n_heads: 2, head_dim: 16, d_ff: 64, encoder_layers: 1, decoder_layers: 1}
data:
  tokenizer: bytes
  mixture: [{name: lines, format: ids, path: train.jsonl}]
  cache_dir: cache
  order: sequential
  packing: false
  input_length: 16
  target_length: 8
train: {global_batch: 2}
"""


def number(*of):
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:4], "big")


def path(name):
    return os.path.join(WORK, name)


def ids(key, most):
    return [3 + number(key, i) % 250 for i in range(number(key) % most)] + [1]


def write(name, rows):
    with open(path(name), "w", encoding="utf-8") as f:
        for row in rows:
            f.write(row if isinstance(row, str) else json.dumps(row))
            f.write("\n")
    return path(name)


def read(name):
    with open(path(name), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def run(*words):
    return subprocess.run([SAGO, *map(str, words)], cwd=WORK, capture_output=True, text=True, errors="replace", timeout=120)


def setUpModule():
    global WORK
    WORK = tempfile.mkdtemp(prefix="sago-test-lines-")
    write("train.jsonl", [{"input_ids": ids(("i", n), 14), "target_ids": ids(("t", n), 7)} for n in range(4)])
    with open(path("config.yaml"), "w", encoding="utf-8") as f:
        f.write(CONFIG % VOCABULARY)
    done = run("train", "config.yaml")
    if done.returncode:
        raise RuntimeError(done.stderr)
    write("pairs.jsonl", [{"input_ids": ids(("a", n), 60), "target_ids": ids(("b", n), 30)} for n in range(41)])


def tearDownModule():
    shutil.rmtree(WORK)


class Lines(unittest.TestCase):
    def passes(self, *words):
        done = run(*words)
        self.assertEqual(done.returncode, 0, done.stderr)

    def fails(self, part, *words, code=1, where=""):
        done = run(*words)
        self.assertEqual(done.returncode, code, done.stderr)
        errors = [line for line in done.stderr.splitlines() if "error:" in line]
        self.assertEqual(len(errors), 1, done.stderr)
        self.assertIn(part, errors[0])
        self.assertIn(where, errors[0])

    def score(self, inputs, output, *more):
        self.passes("score", "--checkpoint", "run", "--input", inputs, "--output", output, *more)
        return read(output)

    def generate(self, inputs, output, *more):
        self.passes("generate", "--checkpoint", "run", "--input", inputs, "--output", output, *more)
        return read(output)

    def test_scores_do_not_depend_on_batch_or_order(self):
        whole = self.score("pairs.jsonl", "whole.jsonl", "--batch", 16)
        single = self.score("pairs.jsonl", "single.jsonl", "--batch", 1)
        pairs = read("pairs.jsonl")
        write("reversed.jsonl", pairs[::-1])
        backwards = self.score("reversed.jsonl", "backwards.jsonl", "--batch", 5)[::-1]
        self.assertEqual(len(whole), len(pairs))
        for pair, a, b, c in zip(pairs, whole, single, backwards):
            self.assertEqual(len(a["target_logprobs"]), len(pair["target_ids"]))
            self.assertAlmostEqual(a["logprob"], sum(a["target_logprobs"]), places=4)
            self.assertLess(a["logprob"], 0)
            for other in (b, c):
                for x, y in zip(a["target_logprobs"], other["target_logprobs"]):
                    self.assertAlmostEqual(x, y, places=4)

    def test_greedy_output_is_the_most_likely_and_scores_as_said(self):
        outputs = self.generate("pairs.jsonl", "greedy.jsonl", "--max-new-tokens", 6)
        again = self.generate("pairs.jsonl", "greedy1.jsonl", "--max-new-tokens", 6, "--batch", 3)
        self.assertEqual([o["output_ids"] for o in outputs], [o["output_ids"] for o in again])
        pairs = [{"input_ids": p["input_ids"], "target_ids": o["output_ids"]}
                 for p, o in zip(read("pairs.jsonl"), outputs)]
        write("greedy-pairs.jsonl", pairs)
        for output, scored in zip(outputs, self.score("greedy-pairs.jsonl", "greedy-score.jsonl")):
            self.assertLessEqual(len(output["output_ids"]), 6)
            self.assertAlmostEqual(output["logprob"], scored["logprob"], places=3)

    def test_without_log_probabilities_the_same_ids(self):
        few = ("--max-new-tokens", 12, "--batch", 3)
        outputs = self.generate("pairs.jsonl", "with.jsonl", *few)
        alone = self.generate("pairs.jsonl", "alone.jsonl", *few, "--no-logprob")
        self.assertTrue(all(o.pop("logprob") < 0 for o in outputs))
        self.assertEqual(outputs, alone)

    def test_samples_are_seeded(self):
        draw = ("--max-new-tokens", 5, "--temperature", 1, "--samples", 4)
        first = self.generate("pairs.jsonl", "s1.jsonl", *draw, "--seed", 7, "--batch", 3)
        same = self.generate("pairs.jsonl", "s2.jsonl", *draw, "--seed", 7, "--batch", 32)
        other = self.generate("pairs.jsonl", "s3.jsonl", *draw, "--seed", 8)
        taken = lambda lines: [[s["output_ids"] for s in line["samples"]] for line in lines]
        self.assertEqual(taken(first), taken(same))
        self.assertNotEqual(taken(first), taken(other))
        self.assertGreater(len({tuple(s) for line in taken(first) for s in line}), 100)
        greedy = self.generate("pairs.jsonl", "s4.jsonl", "--max-new-tokens", 5)
        narrow = self.generate("pairs.jsonl", "s5.jsonl", "--max-new-tokens", 5, "--temperature", 1, "--top-k", 1)
        self.assertEqual([o["output_ids"] for o in greedy], [o["output_ids"] for o in narrow])

    def test_text_is_encoded_with_eos(self):
        write("text.jsonl", [{"inputs": "a\0é </s>", "targets": "b"}])
        self.passes("tokenizer", "encode", "--checkpoint", "run", "--input", "text.jsonl", "--output", "text-ids.jsonl")
        encoded = read("text-ids.jsonl")
        self.assertEqual(encoded[0]["input_ids"], [b + 3 for b in "a\0é </s>".encode()] + [1])
        self.assertEqual(encoded[0]["target_ids"], [ord("b") + 3, 1])
        self.assertEqual(self.score("text.jsonl", "x.jsonl"), self.score("text-ids.jsonl", "y.jsonl"))
        output = self.generate("text.jsonl", "z.jsonl", "--max-new-tokens", 4)[0]
        write("output-ids.jsonl", [{"ids": output["output_ids"]}])
        self.passes("tokenizer", "decode", "--model", "bytes", "--input", "output-ids.jsonl", "--output", "o.jsonl")
        self.assertEqual(output["output"], read("o.jsonl")[0]["text"])

    def test_encode_and_decode(self):
        texts = ["", "a", "tab\tand \"quotes\"", "é\0\u2028", "</s><pad><extra_id_0>"]
        write("texts.jsonl", [{"text": t} for t in texts])
        self.passes("tokenizer", "encode", "--model", "bytes", "--input", "texts.jsonl", "--output", "ids.jsonl")
        self.assertEqual([r["ids"] for r in read("ids.jsonl")], [[b + 3 for b in t.encode()] for t in texts])
        self.passes("tokenizer", "decode", "--model", "bytes", "--input", "ids.jsonl", "--output", "back.jsonl")
        self.assertEqual([r["text"] for r in read("back.jsonl")], texts)
        self.passes("tokenizer", "decode", "--model", "bytes", "--input", "ids.jsonl", "--output", "ids.jsonl")
        self.assertEqual([r["text"] for r in read("ids.jsonl")], texts)  # over its own input

    def test_what_a_killed_command_left_goes(self):
        dead = subprocess.Popen(["true"])
        dead.wait()
        left = path(f"swept.jsonl.tmp-{dead.pid}")
        with open(left, "w", encoding="utf-8") as f:
            f.write("half")
        os.utime(left, (1e9, 1e9))
        self.score("pairs.jsonl", "swept.jsonl")
        self.assertFalse(os.path.exists(left))
        self.assertFalse([n for n in os.listdir(WORK) if ".tmp-" in n])

    def test_training_a_tokenizer_shows_its_progress(self):
        with open(path("progress.txt"), "w", encoding="utf-8") as f:
            f.writelines(f"word{number(i) % 997} and letter{number(i, 1) % 131}\n" for i in range(3000))
        for kind, says in (("unigram", r"training +\d+%  \d+ pieces, 140 wanted"), ("bpe", r"training +\d+%  \d+ of 140")):
            done = run("tokenizer", "train", "--input", "progress.txt", "--vocab-size", 140, "--kind", kind, "--output",
                       "progress.model")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stderr, r"reading +\d+%  1 texts")
            self.assertRegex(done.stderr, says)
            self.assertNotIn("LOG(INFO)", done.stderr)

    def test_trained_tokenizer(self):
        write("corpus.jsonl", [{"inputs": " ".join(["red", "blue", "stone", "river"][number(n, i) % 4] for i in range(8)),
                                "targets": str(n)} for n in range(300)])
        self.passes("tokenizer", "train", "--input", "corpus.jsonl", "--vocab-size", 40, "--output", "spiece.model")
        write("t.jsonl", [{"text": "red river 12 stone"}, {"text": "</s>"}])
        self.passes("tokenizer", "encode", "--model", "spiece.model", "--input", "t.jsonl", "--output", "t-ids.jsonl")
        self.assertTrue(all(2 <= i < 40 for row in read("t-ids.jsonl") for i in row["ids"]))
        self.passes("tokenizer", "decode", "--model", "spiece.model", "--input", "t-ids.jsonl", "--output", "t-back.jsonl")
        self.assertEqual(read("t-back.jsonl")[0]["text"], "red river 12 stone")
        self.fails("--vocab-size", "tokenizer", "train", "--input", "corpus.jsonl", "--output", "x.model", code=2)
        self.fails("corpus.jsonl", "tokenizer", "encode", "--model", "corpus.jsonl", "--input", "t.jsonl", "--output", "x")

    def test_bad_lines_are_named_and_change_nothing(self):
        good = {"input_ids": [5, 1], "target_ids": [6, 1]}
        bad = [
            ({"input_ids": [5, VOCABULARY], "target_ids": [1]}, "id %d" % VOCABULARY),
            ({"input_ids": [5], "target_ids": [-1]}, "id -1"),
            ({"input_ids": [5], "target_ids": [1.5]}, "target_ids[0]"),
            ({"input_ids": [5], "target_ids": ["1"]}, "target_ids[0]"),
            ({"input_ids": [5], "target_ids": 1}, "target_ids"),
            ({"input_ids": [5]}, "target_ids"),
            ({"inputs": 5, "targets": "x"}, "inputs"),
            ({"inputs": "x" * 70000, "targets": "x"}, "70001 ids"),
            ('{"input_ids": [5], "target_ids": [1', "not JSON"),
            ("[5, 1]", "JSON object"),
            ("\0", "not JSON"),
            ('{"input_ids": [99999999999999999999], "target_ids": [1]}', "not JSON"),
        ]
        with open(path("out.jsonl"), "w", encoding="utf-8") as f:
            f.write("kept")
        before = sorted(os.listdir(WORK) + ["bad.jsonl"])
        for line, part in bad:
            write("bad.jsonl", [good, "", good, line, good])
            words = ("score", "--checkpoint", "run", "--input", "bad.jsonl", "--output", "out.jsonl")
            self.fails(part, *words, where="bad.jsonl:4")
        with open(path("bad.jsonl"), "wb") as f:
            f.write(b'{"inputs": "\xff", "targets": "x"}\n')
        self.fails("bad.jsonl:1", *words)
        self.assertEqual(sorted(os.listdir(WORK)), before)
        with open(path("out.jsonl"), encoding="utf-8") as f:
            self.assertEqual(f.read(), "kept")

    def test_empty_lists_and_files(self):
        write("empty.jsonl", [{"input_ids": [], "target_ids": []}, {"input_ids": [], "target_ids": [1]}])
        scores = self.score("empty.jsonl", "empty-out.jsonl")
        self.assertEqual(scores[0], {"logprob": 0, "target_logprobs": []})
        self.assertEqual(len(scores[1]["target_logprobs"]), 1)
        self.assertEqual(len(self.generate("empty.jsonl", "empty-out.jsonl", "--max-new-tokens", 2)), 2)
        write("nothing.jsonl", [])
        self.assertEqual(self.score("nothing.jsonl", "nothing-out.jsonl"), [])

    def test_wrong_command_lines(self):
        words = ("generate", "--checkpoint", "run", "--input", "pairs.jsonl", "--output", "o.jsonl")
        self.fails("--samples", *words, "--samples", 3, code=2)
        self.fails("--top-p", *words, "--top-p", 0, code=2)
        self.fails("--max-new-tokens", *words, "--max-new-tokens", 0, code=2)
        self.fails("nowhere", "score", "--checkpoint", "nowhere", "--input", "pairs.jsonl", "--output", "o.jsonl")
        self.fails("nowhere", "score", "--checkpoint", "run", "--input", "nowhere", "--output", "o.jsonl")
        self.fails("nowhere/o", "score", "--checkpoint", "run", "--input", "pairs.jsonl", "--output", "nowhere/o")
        self.fails("--model", "tokenizer", "encode", "--input", "pairs.jsonl", "--output", "o.jsonl", code=2)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The resolved configuration of a run: it repeats the run bit for bit from anywhere, and guards what may not change.

    test_run_config.py SAGO
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

SAGO = os.path.abspath(sys.argv[1])
ENV = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_COMM", "PMI", "SLURM_PROCID"))}
CONFIG = """
run: {dir: first, steps: 3, seed: 5}
model: {vocab_size: 64, d_model: 16, n_heads: 2, head_dim: 8, d_ff: 32, encoder_layers: 1, decoder_layers: 1}
data:
  mixture: [{name: numbers, format: ids, path: data/train.jsonl}]
  input_length: 16
  target_length: 8
train: {global_batch: 4, dropout: 0.1}
optimizer: {learning_rate: 1.0e-2}
threads: 1
"""
COMPUTED = ("step", "loss", "z_loss", "gradient_norm", "target_tokens", "learning_rate")


def sago(*words, cwd=None, code=0):
    result = subprocess.run([SAGO, *words], capture_output=True, text=True, env=ENV, cwd=cwd, timeout=120)
    assert result.returncode == code, result.stderr
    return result


class Run(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = os.path.realpath(cls.temporary.name)
        os.makedirs(cls.path("data"))
        with open(cls.path("data/train.jsonl"), "w", encoding="utf-8") as file:
            for i in range(40):
                ids = [3 + (7 * i + 11 * j) % 60 for j in range(3 + i % 6)] + [1]
                file.write(json.dumps({"input_ids": ids, "target_ids": ids[:3] + [1]}) + "\n")
        with open(cls.path("c.yaml"), "w", encoding="utf-8") as file:
            file.write(CONFIG)
        sago("train", cls.path("c.yaml"), cwd="/")

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def text(self, name, mode="r"):
        with open(self.path(name), mode) as file:
            return file.read()

    def computed(self, run):
        lines = [json.loads(line) for line in self.text(f"{run}/metrics.jsonl").splitlines()]
        return [[line[key] for key in COMPUTED] for line in lines if "target_tokens" in line]

    def weights(self, run):
        sago("export", "--format", "hf", self.path(run), self.path(run + ".hf"))
        return self.text(f"{run}.hf/model.safetensors", "rb")

    def test_resolved_paths_are_absolute(self):
        text = self.text("first/config.yaml")
        self.assertIn(f"  dir: {self.folder}/first\n", text)
        self.assertIn(f"path: {self.folder}/data/train.jsonl\n", text)

    def test_repeats_bit_for_bit(self):
        sago("train", self.path("first/config.yaml"), "--set", "run.dir=second", cwd=self.folder)
        self.assertEqual(len(self.computed("first")), 3)
        self.assertEqual(self.computed("second"), self.computed("first"))
        self.assertEqual(self.weights("second"), self.weights("first"))
        self.assertEqual(self.text("second/config.yaml").replace("/second\n", "/first\n"), self.text("first/config.yaml"))

    def test_another_seed_is_another_run(self):
        sago("train", self.path("c.yaml"), "--set", "run.dir=" + self.path("third"), "--set", "run.seed=6")
        self.assertNotEqual(self.weights("third"), self.weights("first"))

    def test_what_may_change_and_what_not(self):
        sago("train", self.path("c.yaml"), "--set", "run.dir=" + self.path("fourth"))
        run = self.path("fourth/config.yaml")
        for wrong, part in (("data.input_length=12", "data.input_length: 16 in the run, 12 now"),
                            ("run.seed=9", "run.seed: 5 in the run, 9 now"),
                            ("data.mixture.numbers.share=2", "data.mixture.0.share: 1 in the run, 2 now"),
                            ("train.dropout=0", "train.dropout: 0.1 in the run, 0 now")):
            result = sago("train", run, "--set", wrong, code=2)
            self.assertIn(part, result.stderr)
        before = self.text("fourth/metrics.jsonl")
        sago("train", run, "--set", "run.steps=4", "--set", "optimizer.learning_rate=1e-3", "--set", "train.micro_batch=2")
        self.assertTrue(self.text("fourth/metrics.jsonl").startswith(before))
        self.assertEqual(len(self.computed("fourth")), 4)
        self.assertIn("  steps: 4\n", self.text("fourth/config.yaml"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])

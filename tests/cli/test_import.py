#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Model folders that sago import must refuse, each with one line and with nothing written. test_import.py SAGO"""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

SAGO = os.path.abspath(sys.argv.pop(1))
WORK = None
CONFIG = """
run: {dir: run, steps: 1}
model: {vocab_size: 384, d_model: 16, n_heads: 2, head_dim: 8, d_ff: 16, encoder_layers: 1, decoder_layers: 1}
data: {mixture: [{name: ids, format: ids, path: ids.jsonl}], cache_dir: cache, input_length: 8, target_length: 8,
       order: sequential, packing: false}
train: {global_batch: 1}
"""


def path(*parts):
    return os.path.join(WORK, *parts)


def run(*words):
    return subprocess.run([SAGO, *words], cwd=WORK, capture_output=True, text=True, errors="replace", timeout=120)


def setUpModule():
    global WORK
    WORK = tempfile.mkdtemp(prefix="sago-test-import-")
    for name, text in (("config.yaml", CONFIG), ("ids.jsonl", '{"input_ids": [5, 1], "target_ids": [6, 1]}\n')):
        with open(path(name), "w", encoding="utf-8") as f:
            f.write(text)
    for words in (("train", "config.yaml"), ("export", "--format", "hf", "run", "good")):
        done = run(*words)
        if done.returncode:
            raise RuntimeError(done.stderr)


def tearDownModule():
    shutil.rmtree(WORK)


class Import(unittest.TestCase):
    def setUp(self):
        shutil.rmtree(path("model"), ignore_errors=True)
        shutil.copytree(path("good"), path("model"))

    def refused(self, says, to="made"):
        before = sorted(os.listdir(path(to))) if os.path.exists(path(to)) else None
        done = run("import", "--format", "hf", "model", to)
        self.assertGreater(done.returncode, 0)
        self.assertIn(says, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertEqual(sorted(os.listdir(path(to))) if os.path.exists(path(to)) else None, before)

    def configure(self, **keys):
        with open(path("good/config.json"), encoding="utf-8") as f:
            config = json.load(f)
        with open(path("model/config.json"), "w", encoding="utf-8") as f:
            json.dump({**config, **keys}, f)

    def test_good(self):
        done = run("import", "--format", "hf", "model", "fine")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_special_ids(self):
        for key, value in (("pad_token_id", 3), ("eos_token_id", 2), ("decoder_start_token_id", 1)):
            self.configure(**{key: value})
            self.refused(f'"{key}" is {value}')

    def test_sizes(self):
        for key, value in (("num_heads", 0), ("num_heads", 3), ("d_model", 17), ("num_layers", 2), ("num_layers", 10**9),
                           ("d_ff", "x"), ("vocab_size", 2**62), ("model_type", "bert"), ("layer_norm_epsilon", -1)):
            self.configure(**{key: value})
            self.refused("model")

    def test_values_that_are_not_finite(self):
        for value, says in ((float("nan"), "not a number"), (float("inf"), "infinite")):
            with open(path("good/model.safetensors"), "rb") as f:
                data = f.read()
            with open(path("model/model.safetensors"), "wb") as f:
                f.write(data[:-4] + struct.pack("<f", value))
            self.refused(says)

    def test_tokenizers(self):
        with open(path("corpus.txt"), "w", encoding="utf-8") as f:
            f.writelines(f"word{i} letter{i * 7 % 131} {i * i}\n" for i in range(2000))
        done = run("tokenizer", "train", "--input", "corpus.txt", "--vocab-size", "300", "--output", "large.model")
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(path("large.model"), "rb") as f:
            large = f.read()
        for data, says in ((b"", "SentencePiece"), (b"garbage" * 99, "SentencePiece"), (large[:-100], "SentencePiece"),
                           (large, "vocabulary is 384")):
            with open(path("model/spiece.model"), "wb") as f:
                f.write(data)
            self.refused(says)

    def test_a_model_is_replaced_only_when_asked(self):
        self.assertEqual(run("import", "--format", "hf", "model", "twice").returncode, 0)
        self.refused("holds an imported model already; --force", to="twice")
        self.assertEqual(run("import", "--format", "hf", "model", "twice", "--force").returncode, 0)
        export = "export", "--format", "hf", "twice"
        shutil.copytree(path("good"), path("out"))
        with open(path("good/model.safetensors"), "rb") as f:
            data = f.read()
        done = run(*export, "out")
        self.assertEqual(done.returncode, 0, "the same model again: " + done.stderr)
        other = data[:-4] + struct.pack("<f", 0.5)
        with open(path("out/model.safetensors"), "wb") as f:
            f.write(other)
        done = run(*export, "out")
        self.assertIn("out/model.safetensors: belongs to another model", done.stderr)
        self.assertGreater(done.returncode, 0)
        with open(path("out/model.safetensors"), "rb") as f:
            self.assertEqual(f.read(), other)
        self.assertEqual(sorted(os.listdir(path("out"))), sorted(os.listdir(path("good"))))
        done = run(*export, "out", "--force")
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(path("out/model.safetensors"), "rb") as f:
            self.assertEqual(f.read(), data)

    def test_exports_in_several_files(self):
        export = "export", "--format", "hf", "run", "parts", "--shard-bytes"
        for wrong in ("0", "-1", "5GB", ""):
            done = run(*export, wrong)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("--shard-bytes", done.stderr)
            self.assertFalse(os.path.exists(path("parts")))
        done = run(*export, "20000")
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(path("parts/model.safetensors.index.json"), encoding="utf-8") as f:
            index = json.load(f)
        parts = sorted(set(index["weight_map"].values()))
        self.assertGreater(len(parts), 1)
        self.assertEqual(parts, [f"model-{i + 1:05}-of-{len(parts):05}.safetensors" for i in range(len(parts))])
        others = [name for name in os.listdir(path("good")) if name != "model.safetensors"]
        self.assertEqual(sorted(os.listdir(path("parts"))), sorted([*others, *parts, "model.safetensors.index.json"]))
        done = run("import", "--format", "hf", "parts", "joined")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = run("export", "--format", "hf", "joined", "whole")
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(path("good/model.safetensors"), "rb") as good, open(path("whole/model.safetensors"), "rb") as whole:
            self.assertEqual(good.read(), whole.read())

    def test_export_in_too_many_files(self):
        layers, d = 520, 4
        sizes = {"model.embed_tokens": [8, d], "model.norm": [d]}
        for i in range(layers):
            sizes[f"model.layers.{i}.input_layernorm"] = [d]
            for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
                         "mlp.up_proj", "mlp.down_proj"):
                sizes[f"model.layers.{i}.{name}"] = [d, d]
        header, at = {}, 0
        for name, shape in sizes.items():
            size = 4 * shape[0] * (shape + [1])[1]
            header[name + ".weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        os.mkdir(path("deep"))
        with open(path("deep/model.safetensors"), "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text + bytes(at))
        with open(path("deep/config.json"), "w", encoding="utf-8") as f:
            json.dump({"model_type": "cohere", "vocab_size": 8, "hidden_size": d, "num_attention_heads": 2,
                       "intermediate_size": d, "num_hidden_layers": layers}, f)
        done = run("import", "--format", "hf", "deep", "deep-imported")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = run("export", "--format", "hf", "deep-imported", "deep-exported", "--shard-bytes", "1")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(f"would make {len(sizes)} files of weights, and 4096 is the most", done.stderr)
        self.assertFalse(os.path.exists(path("deep-exported")))

    def test_into_a_run(self):
        self.refused("a run's folder", to="run")


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the same small T5 on a device and on the cpu and compares; then resumes on the device.

    gpu_curve.py SAGO DEVICE OUT.json [STEPS]

Rules. fp32 on the device: each loss within 2e-4 relative of the cpu's. bf16: each loss within 2 % of the cpu's fp32 loss, the
mean over the last ten steps within 1 %. Resume: the weights after 7 steps and 13 more are the bytes of 20 in one go (STEPS below 20:
a third and the rest). Standard library only; exit code 1 when a rule is broken, with both curves in OUT.json either way.
"""
import hashlib
import json
import os
import subprocess
import sys
import tempfile

sago, device, out = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 50
work = tempfile.mkdtemp()
CONFIG = """
run: {dir: unset, seed: 3}
model: {vocab_size: 384, d_model: 64, n_heads: 2, head_dim: 32, d_ff: 128, encoder_layers: 2, decoder_layers: 2, activation: gated-gelu}
data:
  tokenizer: bytes
  mixture:
    - {name: instructions, format: niv2, path: tasks/niv2, share: 1}
    - {name: templated, format: jsonl, path: tasks/jsonl, share: 1}
  input_length: 128
  target_length: 32
train: {global_batch: 4, dropout: 0.1, z_loss: 1.0e-4}
optimizer: {learning_rate: 1.0e-2, schedule: constant}
checkpoint: {every: 0}
"""


def run(*words):
    done = subprocess.run([sago, *map(str, words), "--quiet"], capture_output=True, text=True, cwd=work)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stderr.strip()[-300:]}")


def train(name, n, on, precision):
    run("train", "c.yaml", "--set", f"run.dir={name}", "--set", f"run.steps={n}", "--set", f"device={on}", "--set",
        f"train.precision={precision}")
    return [row["loss"] for row in map(json.loads, open(f"{work}/{name}/metrics.jsonl")) if "loss" in row]


def weights(name):
    run("export", "--format", "hf", name, name + ".hf")
    return hashlib.sha256(open(f"{work}/{name}.hf/model.safetensors", "rb").read()).hexdigest()


open(work + "/c.yaml", "w").write(CONFIG)
run("data", "generate", "tasks")
result = {"device": device, "steps": steps, "broken": []}
cpu = result["cpu_fp32"] = train("cpu", steps, "cpu", "fp32")
fp32 = result["device_fp32"] = train("fp32", steps, device, "fp32")
bf16 = result["device_bf16"] = train("bf16", steps, device, "bf16")
last = min(10, steps)
result["fp32_worst"] = max(abs(a - b) / abs(a) for a, b in zip(cpu, fp32))
result["bf16_worst"] = max(abs(a - b) / abs(a) for a, b in zip(cpu, bf16))
result["bf16_last"] = abs(sum(bf16[-last:]) / sum(cpu[-last:]) - 1)
for rule, limit in (("fp32_worst", 2e-4), ("bf16_worst", 2e-2), ("bf16_last", 1e-2)):
    if not result[rule] <= limit:
        result["broken"].append(f"{rule} is {result[rule]:.3g}, at most {limit}")
whole, first = (20, 7) if steps >= 20 else (steps, steps // 3)
for precision in ("fp32", "bf16"):
    train("whole-" + precision, whole, device, precision)
    train("parts-" + precision, first, device, precision)
    train("parts-" + precision, whole, device, precision)
    if weights("whole-" + precision) != weights("parts-" + precision):
        result["broken"].append(f"{precision}: {first} + {whole - first} steps are not the bytes of {whole}")
json.dump(result, open(out, "w"), indent=1)
print(json.dumps({k: v for k, v in result.items() if not isinstance(v, list) or k == "broken"}))
sys.exit(1 if result["broken"] else 0)

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sago plan as a user calls it. test_plan.py SAGO CONFIGS"""
import json, os, resource, subprocess, sys, tempfile
import xml.etree.ElementTree as xml

SAGO, CONFIGS = map(os.path.abspath, sys.argv[1:3])
work = tempfile.mkdtemp()


def plan(*words, code=0):
    p = subprocess.run([SAGO, "plan", *words], capture_output=True, text=True, timeout=120, cwd=work)
    assert p.returncode == code, (words, p.returncode, p.stderr)
    if code:
        assert len(p.stderr.splitlines()) == 1, p.stderr
    return p.stderr if code else p.stdout


# 540 billion parameters on 1024 GPUs: fits, and what is printed agrees with what is in the JSON.
big = f"{CONFIGS}/palm-540b.yaml"
said = json.loads(plan(big, "--gpu", "h100-80", "--nodes", "128", "--price", "2", "--json"))
assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime < 2  # the search in it
for which in ("as_configured", "fastest_that_fits"):
    x = said[which]
    memory = x["memory_bytes"]
    kinds = ("parameters", "gradients", "optimizer", "activations", "gathered", "workspace")
    assert x["fits"] and memory["device"] == sum(memory[k] for k in kinds) < 80e9, x
    assert x["mesh"]["data"] * x["mesh"]["model"] == 1024 and x["mesh"]["data_axis"] == "sharded"
    assert abs(x["cost"] / (2 * x["device_hours"]) - 1) < 1e-6 and abs(x["device_hours"] / 1024 / 24 / x["days"] - 1) < 1e-6
    assert abs(x["days"] * 86400 / said["workload"]["steps"] / x["step"]["seconds"] - 1) < 1e-6
    # Model FLOPs of 1024 devices of 989 TFLOP/s.
    assert abs(said["workload"]["step_flops"] / x["step"]["seconds"] / 1024 / 989e12 / x["mfu"] - 1) < 1e-6
assert abs(said["workload"]["parameters"] / 540.35e9 - 1) < 1e-4
assert said["fastest_that_fits"]["step"]["seconds"] <= said["as_configured"]["step"]["seconds"]
text = plan(big, "--gpu", "h100-80", "--nodes", "128", "--price", "2")
for part in ("128 nodes of 8", "540.36 billion parameters", "data axis     sharded", "fits", "MFU", "assumed", "measured"):
    assert part in text, (part, text)

# The node count follows the mesh; copies of 540 billion parameters fit nowhere.
assert "128 nodes of 8" in plan(big)
text = plan(big, "--data-axis", "replicated")
assert "replicated" in text and "sharded" not in text and "does not fit" in text and "none: more devices" in text

# The kind of data axis is the configured one, or what --data-axis says; the search takes any, or that one alone.
mesh = lambda which, *words: json.loads(plan(f"{CONFIGS}/flan-t5-base.yaml", "--nodes", "2", "--json", *words))[which]["mesh"]
kinds = {words: mesh("as_configured", *words.split()) for words in (
    "", "--data-axis sharded", "--set mesh.data_axis=sharded", "--set mesh.data_axis=sharded --data-axis replicated",
    "--set mesh.data_axis=sharded --set mesh.gathered=keep")}
assert [(m["data_axis"], m.get("gathered")) for m in kinds.values()] == [
    ("replicated", None), ("sharded", "drop"), ("sharded", "drop"), ("replicated", None), ("sharded", "keep")], kinds
for kind in ("replicated", "sharded"):
    assert mesh("fastest_that_fits", "--data-axis", kind)["data_axis"] == kind
one = json.loads(plan(f"{CONFIGS}/flan-t5-base.yaml", "--gpus-per-node", "1", "--json", "--set", "mesh.data_axis=sharded"))
assert one["as_configured"]["mesh"]["data_axis"] == "replicated" and one["as_configured"]["memory_bytes"]["gathered"] == 0

# What the suggestion says to set is then what is configured.
small = f"{CONFIGS}/flan-t5-xl.yaml"
first = plan(small, "--gpu", "h200", "--set", "train.precision=bf16")
assert "the one that is configured" not in first
sets = next(line for line in first.splitlines() if line.strip().startswith("--set")).split()
assert "the one that is configured" in plan(small, "--gpu", "h200", "--set", "train.precision=bf16", *sets)
keeps = plan(f"{CONFIGS}/palm-8b.yaml", "--set", "mesh.gathered=drop")
sets = next(line for line in keeps.splitlines() if line.strip().startswith("--set")).split()
assert "mesh.data_axis=sharded" in sets and "mesh.gathered=keep" in sets
assert "the one that is configured" in plan(f"{CONFIGS}/palm-8b.yaml", "--set", "mesh.gathered=drop", *sets)

# --simulate draws every lane, and nothing outside of the picture.
plan(small, "--nodes", "2", "--set", "mesh.model=2", "--set", "mesh.data=8", "--simulate", "--svg", f"{work}/step.svg")
root = xml.parse(f"{work}/step.svg").getroot()
space = "{http://www.w3.org/2000/svg}"
bars = [r for r in root.iter(f"{space}rect") if r.find(f"{space}title") is not None]
assert len({r.get("y") for r in bars}) == 3 and len(bars) > 100, len(bars)
width = float(root.get("width"))
assert all(0 <= float(r.get("x")) and float(r.get("x")) + float(r.get("width")) <= width for r in bars)

# Wrong words.
assert "h100-80" in plan(small, "--gpu", "h100", code=2)
assert "add --simulate" in plan(small, "--svg", "x.svg", code=2)
assert "sharded or replicated" in plan(small, "--data-axis", "both", code=2)
assert "mesh.model: 3 does not divide" in plan(small, "--nodes", "1", "--set", "mesh.model=3", code=2)
open(f"{work}/empty.yaml", "w").write("run: {steps: 3}\n")
assert "no shape to plan for" in plan(f"{work}/empty.yaml", code=2)
open(f"{work}/card.yaml", "w").write("name: card\nmemory: 3\n")
assert "card.yaml:2: memory: unknown key" in plan(small, "--gpu", f"{work}/card.yaml", code=2)
print("ok")

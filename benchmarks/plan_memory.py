#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""plan_memory: what `sago plan --gpu cpu` says of memory, beside what runs take.

    python3 benchmarks/plan_memory.py SAGO [--quick] [--only NAME] [--output FILE]

Each case trains one step of full rows of random ids and reads the most memory that the process had (VmHWM, as
wait4 gives it), less that of an idle run: the same command with a model of a few thousand parameters. Prints JSON
with both figures of every case and the largest deviation. --quick: the smallest case alone, smaller still, for the test suite; exits 1
where a case is off by more than 5 %. Disk: the last step of each case is saved, up to 5 GB in a temporary folder that goes."""
import json, os, random, shutil, subprocess, sys, tempfile

T5 = {"small": (512, 6, 1024, 8), "base": (768, 12, 2048, 12), "large": (1024, 16, 2816, 24)}
# name: size, rows, micro-batch, inputs + targets, recompute, what else is set
CASES = {
    "small, 8 rows of 512 + 128": ("small", 8, 8, 512, 128, False, {}),
    "small, 4 rows of 512 + 128 in micro-batches of 2": ("small", 4, 2, 512, 128, False, {}),
    "small, 2 rows of 1024 + 256, recomputed": ("small", 2, 2, 1024, 256, True, {"train.loss_chunk": 512}),
    "base, 1 row of 256 + 64": ("base", 1, 1, 256, 64, False, {}),
    "base, 1 row of 512 + 128, no copy for the checkpoint": ("base", 1, 1, 512, 128, False, {"checkpoint.background": "false"}),
    "base, 2 rows of 256 + 64 in micro-batches of 1, recomputed": ("base", 2, 1, 256, 64, True, {}),
    "base, second moments whole and momentum": ("base", 1, 1, 64, 32, False, {"optimizer.factored": "false", "optimizer.momentum": 0.9, "checkpoint.background": "false"}),
    "large, 1 row of 128 + 32, no copy for the checkpoint": ("large", 1, 1, 128, 32, False, {"checkpoint.background": "false"}),
    "large, 1 row of 256 + 64, recomputed": ("large", 1, 1, 256, 64, True, {}),
}
QUICK = {"small, 1 row of 256 + 64": ("small", 1, 1, 256, 64, False, {"checkpoint.background": "false"})}
IDLE = ("idle", 1, 1, 32, 32, False, {"checkpoint.background": "false"})
SIZES = {"idle": (16, 1, 16, 1)}


def write_config(folder, case):
    size, rows, micro, inputs, targets, recompute, sets = case
    d, heads, ff, layers = {**T5, **SIZES}[size]
    draw = random.Random(1)
    with open(f"{folder}/rows.jsonl", "w") as f:
        for _ in range(rows):
            row = {"input_ids": [draw.randrange(2, 512) for _ in range(inputs)], "target_ids": [draw.randrange(2, 512) for _ in range(targets)]}
            f.write(json.dumps(row) + "\n")
    config = {
        "run": {"dir": f"{folder}/run", "steps": 1},
        "model": {"vocab_size": 512 if size == "idle" else 32128, "d_model": d, "n_heads": heads, "head_dim": 64, "d_ff": ff, "encoder_layers": layers, "decoder_layers": layers},
        "data": {"mixture": [{"name": "rows", "format": "ids", "path": f"{folder}/rows.jsonl"}], "order": "sequential", "packing": False, "input_length": inputs, "target_length": targets, "cache_dir": f"{folder}/cache"},
        "train": {"global_batch": rows, "micro_batch": micro, "recompute": recompute, "dropout": 0.05},
        "checkpoint": {"every": 0},
    }
    for key, value in sets.items():
        section, name = key.split(".")
        config.setdefault(section, {})[name] = {"true": True, "false": False}.get(value, value)
    path = f"{folder}/config.yaml"
    with open(path, "w") as f:
        json.dump(config, f)  # which is YAML
    return path


def most_memory(command):
    """Bytes of VmHWM of a command that must succeed."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: status {status}")
    return usage.ru_maxrss * 1024


def train(sago, case):
    folder = tempfile.mkdtemp()
    try:
        config = write_config(folder, case)
        planned = json.loads(subprocess.check_output([sago, "plan", config, "--gpu", "cpu", "--gpus-per-node", "1", "--json"]))
        return most_memory([sago, "train", config, "--quiet", "--set", "device=cpu", "--set", "threads=2"]), planned["as_configured"]["memory_bytes"]
    finally:
        shutil.rmtree(folder)


def main():
    words = sys.argv[2:]
    sago, option = sys.argv[1], lambda name: words[words.index(name) + 1] if name in words else None
    cases = QUICK if "--quick" in words else CASES
    idle, of_idle = train(sago, IDLE)
    rows = []
    for name, case in cases.items():
        if option("--only") not in (None, name):
            continue
        taken, planned = train(sago, case)
        # What the idle run takes of the same kinds is no part of its floor.
        taken -= idle - of_idle["device"]
        row = {"case": name, "planned_mib": round(planned["device"] / 2**20), "taken_mib": round(taken / 2**20), "ratio": round(planned["device"] / taken, 3)}
        print(json.dumps(row), file=sys.stderr)
        rows.append(row)
    worst = max(abs(r["ratio"] - 1) for r in rows)
    out = {"command": " ".join(sys.argv), "idle_mib": round(idle / 2**20), "largest_deviation": round(worst, 4), "cases": rows}
    text = json.dumps(out, indent=2)
    if option("--output"):
        open(option("--output"), "w").write(text + "\n")
    else:
        print(text)
    sys.exit(worst > 0.05)


main()

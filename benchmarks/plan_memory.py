#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""plan_memory: what `sago plan --gpu cpu` says of memory, beside what runs take.

    python3 benchmarks/plan_memory.py SAGO [--quick] [--only NAME] [--output FILE]

Each case trains one step of full rows of random ids and reads the most memory that the process had (VmHWM, as
wait4 gives it), less that of an idle run: the same command with a model of a few thousand parameters. Of a case of several
ranks, started by mpirun, the one that had most. Prints JSON
with both figures of every case and the largest deviation. --quick: two small cases alone, for the test suite; exits 1
where a case is off by more than 5 %. Disk: the last step of each case is saved, up to 5 GB in a temporary folder that goes."""
import json, os, random, shutil, subprocess, sys, tempfile

# d_model, heads, d_ff, layers (of each stack)
SIZES = {"small": (512, 6, 1024, 8), "base": (768, 12, 2048, 12), "large": (1024, 16, 2816, 24), "PaLM": (1024, 16, 4096, 12), "idle": (16, 2, 16, 1)}
ALONE = {"checkpoint.background": "false"}  # no copy for the checkpoint
DROP, KEEP = {"mesh.data": 2, "mesh.data_axis": "sharded"}, {"mesh.data": 2, "mesh.data_axis": "sharded", "mesh.gathered": "keep"}
COPIES, MODEL = {"mesh.data": 2}, {"mesh.model": 2}
# name: size, rows, micro-batch, inputs + targets, recompute, what else is set
CASES = {
    "small, 8 rows of 512 + 128": ("small", 8, 8, 512, 128, False, {}),
    "small, 4 rows of 512 + 128 in micro-batches of 2": ("small", 4, 2, 512, 128, False, {}),
    "small, 2 rows of 1024 + 256, recomputed": ("small", 2, 2, 1024, 256, True, {"train.loss_chunk": 512}),
    "base, 1 row of 256 + 64": ("base", 1, 1, 256, 64, False, {}),
    "base, 1 row of 512 + 128, no copy for the checkpoint": ("base", 1, 1, 512, 128, False, ALONE),
    "base, 2 rows of 256 + 64 in micro-batches of 1, recomputed": ("base", 2, 1, 256, 64, True, {}),
    "base, second moments whole and momentum": ("base", 1, 1, 64, 32, False, {"optimizer.factored": "false", "optimizer.momentum": 0.9, **ALONE}),
    "large, 1 row of 128 + 32, no copy for the checkpoint": ("large", 1, 1, 128, 32, False, ALONE),
    "large, 1 row of 256 + 64, recomputed": ("large", 1, 1, 256, 64, True, {}),
    "base, data 2, 2 rows of 256 + 64": ("base", 2, 1, 256, 64, False, COPIES),
    "base, data 2 sharded, 2 rows of 256 + 64": ("base", 2, 1, 256, 64, False, DROP),
    "base, data 2 sharded and kept, 2 rows of 256 + 64": ("base", 2, 1, 256, 64, False, KEEP),
    "base, data 2 sharded, whole moments and momentum": ("base", 2, 1, 64, 32, False, {"optimizer.factored": "false", "optimizer.momentum": 0.9, **DROP}),
    "base, model 2, 2 rows of 256 + 64": ("base", 2, 2, 256, 64, False, MODEL),
    "large, data 2 sharded, 2 rows of 128 + 32": ("large", 2, 1, 128, 32, False, {**DROP, **ALONE}),
    "PaLM, 2 rows of 256 + 64": ("PaLM", 2, 2, 256, 64, False, {}),
    "PaLM, data 2 sharded, 2 rows of 256 + 64": ("PaLM", 2, 1, 256, 64, False, DROP),
    "PaLM, data 2 sharded and kept, 2 rows of 256 + 64": ("PaLM", 2, 1, 256, 64, False, KEEP),
    "PaLM, model 2, 2 rows of 256 + 64": ("PaLM", 2, 2, 256, 64, False, MODEL),
}
QUICK = {
    "small, 1 row of 256 + 64": ("small", 1, 1, 256, 64, False, ALONE),
    "small, data 2 sharded, 2 rows of 256 + 64": ("small", 2, 1, 256, 64, False, {**DROP, **ALONE}),
}


def write_config(folder, case):
    size, rows, micro, inputs, targets, recompute, sets = case
    d, heads, ff, layers = SIZES[size]
    palm = {"family": "palm", "kv_heads": 1} if size == "PaLM" else {"encoder_layers": layers}
    draw = random.Random(1)
    with open(f"{folder}/rows.jsonl", "w") as f:
        for _ in range(rows):
            row = {"input_ids": [draw.randrange(2, 512) for _ in range(inputs)], "target_ids": [draw.randrange(2, 512) for _ in range(targets)]}
            f.write(json.dumps(row) + "\n")
    config = {
        "run": {"dir": f"{folder}/run", "steps": 1},
        "model": {"vocab_size": 512 if size == "idle" else 32128, "d_model": d, "n_heads": heads, "head_dim": 64, "d_ff": ff, "decoder_layers": layers, **palm},
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


def most_memory_of_ranks(command, ranks, folder):
    """The largest of all ranks: each is started by this program, which leaves its figure in the folder."""
    mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), sys.executable, __file__, "--rank", folder]
    subprocess.run(mpirun + command, check=True, stdout=subprocess.DEVNULL)
    return max(int(open(f"{folder}/rank-{rank}").read()) for rank in range(ranks))


def train(sago, case):
    folder = tempfile.mkdtemp()
    try:
        config, sets = write_config(folder, case), case[6]
        ranks = sets.get("mesh.data", 1) * sets.get("mesh.model", 1)
        planned = json.loads(subprocess.check_output([sago, "plan", config, "--gpu", "cpu", "--nodes", "1", "--gpus-per-node", str(ranks), "--json"]))
        command = [sago, "train", config, "--quiet", "--set", "device=cpu", "--set", f"threads={2 if ranks == 1 else 1}"]
        taken = most_memory(command) if ranks == 1 else most_memory_of_ranks(command, ranks, folder)
        return taken, planned["as_configured"]["memory_bytes"]
    finally:
        shutil.rmtree(folder)


def idle_of(case, known):
    """An idle run of the same mesh, less what is planned for it: it is no part of the floor."""
    sets = {**ALONE, **{key: value for key, value in case[6].items() if key.startswith("mesh.")}}
    if str(sets) not in known["runs"]:
        taken, planned = train(known["sago"], ("idle", 2, 1, 32, 32, False, sets))
        known["runs"][str(sets)] = taken - planned["device"]
    return known["runs"][str(sets)]


def main():
    words = sys.argv[2:]
    sago, option = sys.argv[1], lambda name: words[words.index(name) + 1] if name in words else None
    cases = QUICK if "--quick" in words else CASES
    rows, known = [], {"sago": sago, "runs": {}}
    for name, case in cases.items():
        if option("--only") and option("--only") not in name:
            continue
        idle = idle_of(case, known)
        taken, planned = train(sago, case)
        taken -= idle
        row = {"case": name, "planned_mib": round(planned["device"] / 2**20), "taken_mib": round(taken / 2**20), "ratio": round(planned["device"] / taken, 3)}
        print(json.dumps(row), file=sys.stderr)
        rows.append(row)
    worst = max(abs(r["ratio"] - 1) for r in rows)
    out = {"command": " ".join(sys.argv), "largest_deviation": round(worst, 4), "cases": rows}
    text = json.dumps(out, indent=2)
    if option("--output"):
        open(option("--output"), "w").write(text + "\n")
    else:
        print(text)
    sys.exit(worst > 0.05)


if sys.argv[1] == "--rank":
    open(f"{sys.argv[2]}/rank-{os.environ['OMPI_COMM_WORLD_RANK']}", "w").write(str(most_memory(sys.argv[3:])))
else:
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""plan_time: the time of a step as `sago plan --gpu` projects it, beside steps of `sago train` on one and two ranks.

    python3 benchmarks/plan_time.py SAGO [--steps 20] [--only NAME] [--output FILE]

One thread a rank, full rows of random ids. Before and after each run its ranks measure, all at once and with other shapes, what
they reach: products and copies by `sago plan --measure`, sums between ranks by `sago doctor`. Every other rate is that of
configs/hardware/cpu.yaml. Of a run's steps the median counts, without the first; load is the machine's at the beginning. Prints JSON with both
times, their ratio, what was waited for between ranks in both, and the largest deviation; exits 1 where it is more than 20 %."""
import json, os, random, re, shutil, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
T5 = {"vocab_size": 8192, "d_model": 512, "n_heads": 8, "head_dim": 64, "d_ff": 1024, "encoder_layers": 4, "decoder_layers": 4}
PALM = {"family": "palm", "vocab_size": 8192, "d_model": 768, "n_heads": 12, "kv_heads": 1, "head_dim": 64, "d_ff": 2048, "decoder_layers": 6}
WIDE = {"vocab_size": 8192, "d_model": 1024, "n_heads": 16, "head_dim": 64, "d_ff": 2816, "encoder_layers": 2, "decoder_layers": 2}
COPIES, MODEL = {"data": 2}, {"model": 2}
DROP, KEEP = {"data": 2, "data_axis": "sharded"}, {"data": 2, "data_axis": "sharded", "gathered": "keep"}
# model, mesh, rows, micro-batch, inputs, targets, recompute
CASES = {
    "T5 d512, one rank": (T5, {}, 4, 4, 128, 64, False),
    "T5 d512, data 2": (T5, COPIES, 8, 4, 128, 64, False),
    "T5 d512, data 2 sharded": (T5, DROP, 8, 4, 128, 64, False),
    "T5 d512, data 2 sharded, two micro-batches": (T5, DROP, 8, 2, 128, 64, False),
    "T5 d512, data 2 sharded and kept, two micro-batches": (T5, KEEP, 8, 2, 128, 64, False),
    "T5 d512, model 2": (T5, MODEL, 4, 4, 128, 64, False),
    "PaLM d768, one rank": (PALM, {}, 2, 2, 128, 128, False),
    "PaLM d768, data 2": (PALM, COPIES, 4, 2, 128, 128, False),
    "PaLM d768, data 2 sharded": (PALM, DROP, 4, 2, 128, 128, False),
    "PaLM d768, data 2 sharded and kept, two micro-batches": (PALM, KEEP, 4, 1, 128, 128, False),
    "PaLM d768, model 2": (PALM, MODEL, 2, 2, 128, 128, False),
    "T5 d1024, one rank, recomputed": (WIDE, {}, 2, 1, 256, 64, True),
    "T5 d1024, data 2 sharded, recomputed": (WIDE, DROP, 4, 2, 256, 64, True),
}


def write_config(folder, case, steps):
    model, mesh, rows, micro, inputs, targets, recompute = case
    draw = random.Random(1)
    ids = lambda n: [draw.randrange(2, model["vocab_size"]) for _ in range(n)]
    with open(f"{folder}/rows.jsonl", "w") as f:
        for _ in range(rows * steps):
            f.write(json.dumps({"input_ids": ids(inputs), "target_ids": ids(targets)}) + "\n")
    config = {
        "run": {"dir": f"{folder}/run", "steps": steps}, "model": model, "mesh": mesh, "device": "cpu", "threads": 1,
        "data": {"mixture": [{"name": "rows", "format": "ids", "path": f"{folder}/rows.jsonl"}], "order": "sequential", "packing": False, "input_length": inputs, "target_length": targets, "cache_dir": f"{folder}/cache"},
        "train": {"global_batch": rows, "micro_batch": micro, "recompute": recompute, "precision": "fp32", "dropout": 0.05},
        "checkpoint": {"every": 0, "background": False},
    }
    json.dump(config, open(f"{folder}/config.yaml", "w"))  # which is YAML
    return f"{folder}/config.yaml"


def mpirun(ranks):
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks > 1 else []


def measure(sago, config, ranks):
    """GFLOP/s of products and GB/s of copies of a rank while all measure; GB/s of a sum between them."""
    command = [sago, "plan", config, "--gpu", "cpu", "--nodes", "1", "--gpus-per-node", str(ranks), "--measure", "--threads", "1", "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(ranks)]
    said = [json.loads(p.communicate()[0])["hardware"] for p in both]
    out = {key: statistics.mean(h[key]["value"] for h in said) for key in ("fp32_tflops", "copy_gb_per_second")}
    if ranks > 1:
        record = subprocess.check_output(mpirun(ranks) + [sago, "doctor", "--set", "device=cpu", "--set", "threads=1"], text=True)
        out["node_gb_per_second"] = float(re.search(r"sums .* at ([0-9.]+) GB/s", record)[1])
    return out


def project(sago, config, ranks, rates, folder):
    text = open(f"{HERE}/../configs/hardware/cpu.yaml").read()
    for key, value in rates.items():
        text = re.sub(rf"(?m)^{key}: \{{.*?\}}", f"{key}: {{measured: {value}}}", text)
    open(f"{folder}/here.yaml", "w").write(text)
    words = [config, "--gpu", f"{folder}/here.yaml", "--nodes", "1", "--gpus-per-node", str(ranks), "--json"]
    return json.loads(subprocess.check_output([sago, "plan"] + words))["as_configured"]["step"]


def run_case(sago, case, steps):
    folder, mesh = tempfile.mkdtemp(), case[1]
    try:
        config, ranks = write_config(folder, case, steps + 1), mesh.get("data", 1) * mesh.get("model", 1)
        load = os.getloadavg()[0]
        before = measure(sago, config, ranks)
        subprocess.check_call(mpirun(ranks) + [sago, "train", config, "--quiet"], stdout=subprocess.DEVNULL)
        after = measure(sago, config, ranks)
        lines = [json.loads(line) for line in open(f"{folder}/run/metrics.jsonl")]
        taken = [m for m in lines if "step_seconds" in m and "comm_wait" in m][1:]
        seconds = sorted(m["step_seconds"] for m in taken)
        rates = {key: (before[key] + after[key]) / 2 for key in before}
        step = project(sago, config, ranks, rates, folder)
        middle = statistics.median(seconds)
        return {"projected_seconds": round(step["seconds"], 4), "measured_seconds": round(middle, 4), "ratio": round(step["seconds"] / middle, 3),
                "quartiles": [round(q, 4) for q in statistics.quantiles(seconds, n=4)[::2]], "steps": len(seconds), "load": round(load, 1),
                "projected_waits": round(step["exposed_model_seconds"] + step["exposed_data_seconds"], 4), "measured_waits": round(statistics.median(m["comm_wait"] for m in taken), 4),
                "rates": {key: [round(before[key], 4), round(after[key], 4)] for key in before}}
    finally:
        shutil.rmtree(folder)


def main():
    sago, words = sys.argv[1], sys.argv[2:]
    option = lambda name, otherwise=None: words[words.index(name) + 1] if name in words else otherwise
    rows = []
    for name, case in CASES.items():
        if option("--only", "") not in name:
            continue
        rows.append({"case": name, **run_case(sago, case, int(option("--steps", "20")))})
        print(json.dumps(rows[-1]), file=sys.stderr)
    worst = max(abs(r["ratio"] - 1) for r in rows)
    text = json.dumps({"command": " ".join(sys.argv), "largest_deviation": round(worst, 3), "cases": rows}, indent=2)
    if option("--output"):
        open(option("--output"), "w").write(text + "\n")
    else:
        print(text)
    sys.exit(worst > 0.2)


main()

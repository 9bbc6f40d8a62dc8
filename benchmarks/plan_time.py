#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""plan_time: the time of a step as `sago plan --gpu` projects it, beside steps as they are measured.

    python3 benchmarks/plan_time.py SAGO BENCH_TRAIN_STEP [--steps 20] [--only NAME] [--output FILE]

One thread by processor time, so that other work on the machine counts less. The speed of products is the ceiling that
each run measures before its steps, that of memory what its zeroing and norm of the gradients show; every other rate is that
of configs/hardware/cpu.yaml, taken from another shape (T5 small, 4 rows of 512 + 128). Prints JSON with both times, their ratio, and the largest deviation."""
import json, os, re, subprocess, sys, tempfile

T5 = {"small": (512, 6, 1024, 8), "base": (768, 12, 2048, 12), "large": (1024, 16, 2816, 24)}
# size, rows, micro-batch, inputs, targets, recompute
CASES = [("small", 4, 2, 128, 32, 0), ("small", 1, 1, 512, 128, 1), ("small", 2, 2, 256, 256, 0), ("base", 1, 1, 256, 64, 0)]


# Of the run that cpu.yaml's copy rate is from: zeroing and norm of the gradients, nanoseconds a parameter.
NANOSECONDS, GB_PER_SECOND = (0.0317 + 0.0237) * 1e9 / 76961152, 16


def project(sago, case, ceiling, copy):
    size, rows, micro, inputs, targets, recompute = case
    d, heads, ff, layers = T5[size]
    config = {"model": {"vocab_size": 32128, "d_model": d, "n_heads": heads, "head_dim": 64, "d_ff": ff, "encoder_layers": layers, "decoder_layers": layers},
              "data": {"input_length": inputs, "target_length": targets},
              "train": {"global_batch": rows, "micro_batch": micro, "recompute": bool(recompute), "loss_chunk": 512}}
    shipped = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../configs/hardware/cpu.yaml")).read()
    with tempfile.TemporaryDirectory() as folder:
        json.dump(config, open(f"{folder}/config.yaml", "w"))
        here = re.sub(r"fp32_tflops: \{.*\}", f"fp32_tflops: {{measured: {ceiling * 1e-3}}}", shipped)
        here = re.sub(r"copy_gb_per_second: \{.*\}", f"copy_gb_per_second: {{measured: {copy}}}", here)
        open(f"{folder}/here.yaml", "w").write(here)
        out = subprocess.check_output([sago, "plan", f"{folder}/config.yaml", "--gpu", f"{folder}/here.yaml", "--gpus-per-node", "1", "--json"])
    return json.loads(out)["as_configured"]["step"]["seconds"]


def main():
    sago, bench = sys.argv[1:3]
    option = lambda name, otherwise: sys.argv[sys.argv.index(name) + 1] if name in sys.argv else otherwise
    rows = []
    for case in CASES:
        size, n, micro, inputs, targets, recompute = case
        name = f"{size}, {n} rows of {inputs} + {targets} in micro-batches of {micro}" + (", recomputed" if recompute else "")
        if option("--only", name) != name:
            continue
        words = f"--threads 1 --processor-time 1 --size {size} --rows {n} --micro-batch {micro} --inputs {inputs} --targets {targets} --recompute {recompute} --steps {option('--steps', '20')}"
        measured = json.loads(subprocess.check_output([bench] + words.split()))
        ceiling, seconds = measured["gemm_ceiling_gflops"]["median"], measured["seconds_per_step"]
        memory = (measured["parts"]["fill"]["seconds"] + measured["parts"]["gradient norm"]["seconds"]) * 1e9 / measured["parameters"]
        copy = round(GB_PER_SECOND * NANOSECONDS / memory, 2)
        projected = project(sago, case, ceiling, copy)
        rows.append({"case": name, "projected_seconds": projected, "measured_seconds": seconds, "gemm_ceiling_gflops": ceiling, "copy_gb_per_second": copy, "ratio": round(projected / seconds["median"], 3)})
        print(f"{name}: projected {projected:.3f} s, measured {seconds['median']:.3f} s, ratio {projected / seconds['median']:.3f}", file=sys.stderr)
    out = {"command": " ".join(sys.argv), "device": measured["device"], "largest_deviation": max(abs(r["ratio"] - 1) for r in rows), "cases": rows}
    text = json.dumps(out, indent=2)
    if option("--output", None):
        open(option("--output", None), "w").write(text + "\n")
    else:
        print(text)


main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes gpu.json and gpu.md of what benchmarks/gpu.sh left in a folder.

    gpu_collect.py FOLDER [--device cuda] [--command TEXT]
"""
import argparse
import datetime
import json
import os
import subprocess


def lines(path):
    if not os.path.exists(path):
        return []
    found = []
    for line in open(path):
        try:
            found.append(json.loads(line))
        except ValueError:
            pass  # a line that a time limit cut
    return found


def asked(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def rate(row):
    for unit, name in (("tflops", "TFLOP/s"), ("gb_per_second", "GB/s"), ("rows_per_second", "rows/s")):
        if unit in row:
            return f"{row[unit]:.4g} {name}"
    return "-"


def spread(row):
    s = row["seconds"]
    return f"{s['median'] * 1e3:.4g} ({s['low'] * 1e3:.4g} - {s['high'] * 1e3:.4g})"


def step_rows(steps, peers):
    """A row a step of bench_train_step, beside each peer of its name. MFU counts a row's FLOPs as sago does for both."""
    for name, step in steps.items():
        def cells(seconds, rows):
            share = "%.3f" % (step["mfu"] * rows / step["rows_per_second"]) if "mfu" in step else "-"
            tokens = step["tokens_per_second"] / step["rows_per_second"]
            return f"{seconds['median'] * 1e3:.4g} ({seconds['low'] * 1e3:.4g} - {seconds['high'] * 1e3:.4g})", \
                f"{rows:.4g}", f"{rows * tokens:.4g}", share
        mine = (name, *cells(step["seconds_per_step"], step["rows_per_second"]))
        beside = [p for p in peers if p.get("step") == name and "seconds" in p]
        for i, p in enumerate(beside or [None]):
            other = ("-",) * 6 if p is None else (
                p["peer"], *cells(p["seconds"], p["rows_per_second"]), "%.2f" % (step["rows_per_second"] / p["rows_per_second"]))
            yield *(mine if i == 0 else ("",) * 5), *other


def of_kind(folder, prefix):
    """What the programs of a kind printed, by the names that gpu.sh gave them."""
    found = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith(prefix) and name.endswith(".json"):
            try:
                found[name[len(prefix):-5]] = json.load(open(os.path.join(folder, name)))
            except ValueError:
                pass  # the program failed
    return found


def generation_rows(generations, peers):
    """A row a run of bench_generate, beside each peer of its name."""
    for name, run in generations.items():
        number = lambda of, key: f"{of[key]['median']:.4g}" if of else "-"
        plain, tokens = run.get("without_graphs"), run["tokens_per_second"]["median"]
        mine = (name, number(run, "milliseconds_per_step"), number(run, "tokens_per_second"),
                f"{run['bandwidth_gb_per_second']:.4g}", number(plain, "milliseconds_per_step"), number(plain, "tokens_per_second"))
        beside = [p for p in peers if p.get("generate") == name and "tokens_per_second" in p]
        for i, p in enumerate(beside or [None]):
            other = ("-",) * 3 if p is None else (p["peer"], f"{p['tokens_per_second']:.4g}", "%.2f" % (tokens / p["tokens_per_second"]))
            yield *(mine if i == 0 else ("",) * 6), *other


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--command", default="")
    args = parser.parse_args()
    at = lambda name: os.path.join(args.folder, name)
    kernels, peers = lines(at("kernels.jsonl")), lines(at("peers.jsonl"))
    steps, generations = of_kind(args.folder, "train_step-"), of_kind(args.folder, "generate-")
    whole = {
        "date": datetime.date.today().isoformat(),
        "commit": asked("git", "rev-parse", "--short", "HEAD"),
        "command": args.command,
        "device": args.device,
        "gpu": asked("nvidia-smi", "--query-gpu=name,memory.total,driver_version,clocks.sm,clocks.mem,clocks.max.sm",
                     "--format=csv,noheader"),
        "doctor": open(at("doctor.log")).read().splitlines() if os.path.exists(at("doctor.log")) else [],
        "stages": lines(at("stages.jsonl")),
        "curve": json.load(open(at("curve.json"))) if os.path.exists(at("curve.json")) else None,
        "kernels": kernels,
        "peers": peers,
        "train_step": steps,
        "generate": generations,
    }
    json.dump(whole, open(at("gpu.json"), "w"), indent=1)
    with open(at("gpu.md"), "w") as page:
        page.write(f"{whole['gpu'] or args.device}, commit {whole['commit']}, {whole['date']}, `{whole['command']}`\n\n")
        page.write("| case | sago, ms | rate | peer, ms | peer's rate | sago over peer |\n| --- | --- | --- | --- | --- | --- |\n")
        for row in kernels:
            if "case" not in row:
                continue
            beside = [p for p in peers if p.get("case") == row["case"] and "seconds" in p]
            for i, p in enumerate(beside or [None]):
                mine = (row["case"], spread(row), rate(row)) if i == 0 else ("", "", "")
                other = ("-", "-", "-") if p is None else (f"{p['peer']}: {spread(p)}", rate(p), "%.2f" % (p["seconds"]["median"] / row["seconds"]["median"]))
                page.write("| " + " | ".join((*mine, *other)) + " |\n")
        page.write("\n| step | sago, ms | rows/s | tokens/s | MFU | peer | ms | rows/s | tokens/s | MFU | sago over peer |\n"
                   "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
        for row in step_rows(steps, peers):
            page.write("| " + " | ".join(row) + " |\n")
        page.write("\n| generation | ms a step | tokens/s | GB/s of weights | without graphs: ms a step | tokens/s "
                   "| peer | tokens/s | sago over peer |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
        for row in generation_rows(generations, peers):
            page.write("| " + " | ".join(row) + " |\n")
        page.write("\n| stage | result | seconds |\n| --- | --- | --- |\n")
        for s in whole["stages"]:
            page.write(f"| {s['stage']} | {s['result']} | {s.get('seconds', '-')} |\n")
    print(at("gpu.json"), at("gpu.md"))


main()

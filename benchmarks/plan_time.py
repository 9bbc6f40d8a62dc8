#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""plan_time: the time of a step as `sago plan --gpu` projects it, beside steps of `sago train` on one and two ranks.

    python3 benchmarks/plan_time.py SAGO BENCH_TRAIN_STEP [--steps 20] [--only NAME] [--output FILE]

One thread a rank, full rows of random ids. All by processor time, so that other work on the machine counts less: of a step, what a rank's
threads ran, mean of the ranks, median of the steps without the first two. That leaves out what a rank sleeps for while it waits, and has what it
moves to others. Before and after each case as many processes as it has ranks measure on another shape (T5 v1.1 small, 2 rows of 128 + 64)
what its products and its passes over memory take, and the median of all of them counts; every other rate, that of the link too, is that
of configs/hardware/cpu.yaml. Prints JSON with both times, their ratio and
the largest deviation, and the median by the clock beside them with the load; exits 1 where a ratio is off by more than 20 %."""
import glob, json, os, random, re, shutil, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
T5 = {"vocab_size": 8192, "d_model": 512, "n_heads": 8, "head_dim": 64, "d_ff": 1024, "encoder_layers": 4, "decoder_layers": 4}
PALM = {"family": "palm", "vocab_size": 8192, "d_model": 768, "n_heads": 12, "kv_heads": 1, "head_dim": 64, "d_ff": 2048, "decoder_layers": 6}
WIDE = {"vocab_size": 8192, "d_model": 1024, "n_heads": 16, "head_dim": 64, "d_ff": 2816, "encoder_layers": 2, "decoder_layers": 2}
COPIES, MODEL = {"data": 2}, {"model": 2}
DROP, KEEP = {"data": 2, "data_axis": "sharded"}, {"data": 2, "data_axis": "sharded", "gathered": "keep"}
# model, mesh, rows, micro-batch, inputs, targets, recompute
CASES = {
    "T5 d512, one rank": (T5, {}, 4, 4, 128, 64, False),
    "PaLM d768, one rank": (PALM, {}, 2, 2, 128, 128, False),
    "T5 d512, data 2": (T5, COPIES, 8, 4, 128, 64, False),
    "T5 d512, data 2 sharded": (T5, DROP, 8, 4, 128, 64, False),
    "T5 d512, model 2": (T5, MODEL, 4, 4, 128, 64, False),
    "PaLM d768, data 2": (PALM, COPIES, 4, 2, 128, 128, False),
    "PaLM d768, data 2 sharded": (PALM, DROP, 4, 2, 128, 128, False),
    "PaLM d768, model 2": (PALM, MODEL, 2, 2, 128, 128, False),
    "T5 d512, model 2, twice the rows": (T5, MODEL, 8, 8, 128, 64, False),
    "T5 d512, data 2 sharded, two micro-batches": (T5, DROP, 8, 2, 128, 64, False),
    "T5 d512, data 2 sharded and kept, two micro-batches": (T5, KEEP, 8, 2, 128, 64, False),
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


def ranks_in(case):
    return case[1].get("data", 1) * case[1].get("model", 1)


def mpirun(ranks):
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks > 1 else []


# Of the run that cpu.yaml's copy rate is from: zeroing and norm of the gradients, nanoseconds a parameter.
NANOSECONDS, GB_PER_SECOND = (0.0317 + 0.0237) * 1e9 / 76961152, 16


def product_work(rows, inputs, targets):
    """FLOPs of the products of a step of T5 v1.1 small, each over the share of the rate that cpu.yaml has for its size."""
    d, width, ff, layers, vocabulary, n, m = 512, 384, 1024, 8, 32128, rows * inputs, rows * targets
    layer = 3 * [(n, width, d)] + [(n, d, width), (n, ff, d), (n, ff, d), (n, d, ff)]  # encoder
    layer += 4 * [(m, width, d)] + 2 * [(n, width, d)] + [(m, d, width), (m, d, width), (m, ff, d), (m, ff, d), (m, d, ff)]  # decoder
    products = layers * layer + [(m, vocabulary, d)]
    return sum(3 * 2 * x * y * z / (0.95 * min(x, y, z) / (min(x, y, z) + 13)) for x, y, z in products)  # forward, and twice backward


def measure(bench, ranks):
    words = "--threads 1 --processor-time 1 --size small --rows 2 --inputs 128 --targets 64 --steps 1".split()
    running = [subprocess.Popen([bench] + words, stdout=subprocess.PIPE) for _ in range(ranks)]
    parts = [json.loads(p.communicate()[0])["parts"] for p in running]
    seconds = lambda *names: statistics.mean(sum(p["seconds"] for name, p in x.items() if name.startswith(names)) for x in parts)
    nanoseconds = seconds("fill", "gradient norm") * 1e9 / 76961152
    return {"fp32_tflops": round(product_work(2, 128, 64) / seconds("product") * 1e-12, 5), "copy_gb_per_second": round(GB_PER_SECOND * NANOSECONDS / nanoseconds, 2)}


def processor_seconds(pid):
    return sum(int(open(path).read().split()[0]) for path in glob.glob(f"/proc/{pid}/task/*/schedstat")) * 1e-9


def ranks_of(word):
    """Processes that have it among their words, but for those that started them."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = open(path, "rb").read().split(b"\0")
        except OSError:
            continue
        if word.encode() in words and not words[0].endswith(b"mpirun"):
            found.append(int(path.split("/")[2]))
    return found


def watch(command, word, ranks, metrics):
    """Processor seconds of a rank for each step: what its threads had run by when a step's line was written, less the one before."""
    child, marks, seen, pids = subprocess.Popen(command, stdout=subprocess.DEVNULL), [], 0, []
    while child.poll() is None:
        time.sleep(0.02)
        lines = open(metrics).read().count('"step_seconds"') if os.path.exists(metrics) else 0
        if lines == seen:
            continue
        if len(pids) != ranks:
            pids = ranks_of(word)
        try:
            marks.append((lines, sum(map(processor_seconds, pids)) / ranks))
        except OSError:  # it has ended
            break
        seen = lines
    if child.wait() != 0 or len(pids) != ranks:
        sys.exit(f"{' '.join(command)}: status {child.returncode}, {len(pids)} ranks seen")
    return [(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(marks[1:], marks[2:])]


def project(sago, case, rates):
    text = open(f"{HERE}/../configs/hardware/cpu.yaml").read()
    for key, value in rates.items():
        text = re.sub(rf"(?m)^{key}: \{{.*?\}}", f"{key}: {{measured: {value}}}", text)
    with tempfile.TemporaryDirectory() as folder:
        open(f"{folder}/here.yaml", "w").write(text)
        words = [write_config(folder, case, 0), "--gpu", f"{folder}/here.yaml", "--nodes", "1", "--gpus-per-node", str(ranks_in(case)), "--json"]
        return json.loads(subprocess.check_output([sago, "plan"] + words))["as_configured"]["step"]


def run_case(sago, case, steps):
    folder, load = tempfile.mkdtemp(), os.getloadavg()[0]
    try:
        config, ranks, metrics = write_config(folder, case, steps + 3), ranks_in(case), f"{folder}/run/metrics.jsonl"
        seconds = watch(mpirun(ranks) + [sago, "train", config, "--quiet"], config, ranks, metrics)
        lines = [json.loads(line) for line in open(metrics)]
        clock = [m["step_seconds"] for m in lines if "step_seconds" in m and "comm_wait" in m][2:]
        low, high = statistics.quantiles(seconds, n=4)[::2]
        return {"measured_seconds": round(statistics.median(seconds), 4), "quartiles": [round(low, 4), round(high, 4)], "steps": len(seconds),
                "by_the_clock": round(statistics.median(clock), 4), "load": round(load, 1)}
    finally:
        shutil.rmtree(folder)


def main():
    sago, bench, words = *sys.argv[1:3], sys.argv[3:]
    option = lambda name, otherwise=None: words[words.index(name) + 1] if name in words else otherwise
    rows, rates = [], {}
    for name, case in CASES.items():
        if option("--only", "") not in name:
            continue
        of_ranks = rates.setdefault(ranks_in(case), [])
        of_ranks.append(measure(bench, ranks_in(case)))
        rows.append({"case": name, **run_case(sago, case, int(option("--steps", "20")))})
        of_ranks.append(measure(bench, ranks_in(case)))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    for row in rows:
        case = CASES[row["case"]]
        middle = {key: statistics.median(r[key] for r in rates[ranks_in(case)]) for key in ("fp32_tflops", "copy_gb_per_second")}
        step = project(sago, case, middle)
        row["projected_seconds"], row["ratio"] = round(step["seconds"], 4), round(step["seconds"] / row["measured_seconds"], 3)
        row["projected_exposed"] = round(step["exposed_model_seconds"] + step["exposed_data_seconds"], 4)
    worst = max(abs(r["ratio"] - 1) for r in rows)
    text = json.dumps({"command": " ".join(sys.argv), "rates_by_ranks": rates, "largest_deviation": round(worst, 3), "cases": rows}, indent=2)
    if option("--output"):
        open(option("--output"), "w").write(text + "\n")
    else:
        print(text)
    sys.exit(worst > 0.2)


main()

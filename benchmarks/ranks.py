#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What two ranks of one thread make of one step, beside one rank and beside two runs that share nothing.
ranks.py SAGO [--steps N] [--rounds N] [--family palm,t5] [--only CASE,...] [--rows N] [--output FILE.json]

Trains a PaLM and a T5 of d_model 1024 on random ids, 2 rows a step, in these cases, in turns (--rows: of a step of the cases on two
ranks; with 4 each rank of a data axis has as many as an independent run):
    one        one rank of one thread
    apart      two independent runs of one rank at once: what two cores have to give
    data       data axis of 2, replicated            sharded    data axis of 2, fully sharded
    keep       the same, gathered once a step        model      model axis of 2
of each: seconds of a step (median and quartiles of all steps but the first of each run), its throughput in rows as a share of that
of `apart`, its time as a share of `one`, and each rank's peak memory less that of a run that does nothing (VmHWM). MPI's processes are
bound to a core each. Prints a table, and writes JSON."""
import argparse, json, os, random, shutil, statistics, subprocess, sys, tempfile

ap = argparse.ArgumentParser()
ap.add_argument("sago"); ap.add_argument("--steps", type=int, default=5); ap.add_argument("--rounds", type=int, default=1)
ap.add_argument("--family", default="palm,t5"); ap.add_argument("--output"); ap.add_argument("--only", default=""); ap.add_argument("--rows", type=int, default=2)
a = ap.parse_args()
SAGO = os.path.abspath(a.sago)
work = tempfile.mkdtemp(prefix="ranks-")
ENV = dict(os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
CASES = {"one": (1, {}), "apart": (1, {}), "data": (2, {"mesh.data": 2}), "sharded": (2, {"mesh.data": 2, "mesh.data_axis": "sharded"}),
         "keep": (2, {"mesh.data": 2, "mesh.data_axis": "sharded", "mesh.gathered": "keep"}), "model": (2, {"mesh.model": 2})}
SHAPES = {
    "palm": ("family: palm, vocab_size: 32000, d_model: 1024, n_heads: 16, kv_heads: 1, head_dim: 64, d_ff: 4096, decoder_layers: 8", 768, 256),
    "t5": ("family: t5, vocab_size: 32128, d_model: 1024, n_heads: 16, head_dim: 64, d_ff: 2816, encoder_layers: 4, decoder_layers: 4", 768, 256),
}
CONFIG = """run: {{seed: 1, steps: {steps}}}
model: {{{shape}}}
data: {{mixture: [{{name: ids, format: ids, path: {work}/ids.jsonl, share: 1}}], order: sequential, packing: false, input_length: {inputs}, target_length: {targets}, cache_dir: {work}/cache}}
train: {{global_batch: 2, dropout: 0, straggler_every: 0}}
optimizer: {{learning_rate: 0.001}}
checkpoint: {{every: 0, background: false}}
device: cpu
threads: 1
"""


def start(family, name, case):
    """One run, under a shell that says each rank's peak memory when it ends."""
    ranks, sets = CASES[case]
    run = f"{work}/{name}"
    shutil.rmtree(run, ignore_errors=True)
    words = [SAGO, "train", f"{work}/{family}.yaml", "--quiet", "--set", f"run.dir={run}"]
    for key, value in {**sets, "train.global_batch": a.rows if ranks > 1 else 2}.items():
        words += ["--set", f"{key}={value}"]
    os.makedirs(run)
    peak = [sys.executable, "-c", "import resource, subprocess, sys, os; c = subprocess.run(sys.argv[2:]).returncode; "
            "open(sys.argv[1] + os.environ.get('OMPI_COMM_WORLD_RANK', '0'), 'w').write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)); sys.exit(c)",
            f"{work}/{name}.peak"]
    launch = ["mpirun", "--bind-to", "core", "-n", str(ranks)] if ranks > 1 else []
    return run, subprocess.Popen([*launch, *peak, *words], env=ENV, stdout=subprocess.DEVNULL)


def finish(run, process):
    if process.wait() != 0:
        sys.exit(f"{run}: exit {process.returncode}")
    rows = [json.loads(l) for l in open(f"{run}/metrics.jsonl")]
    rows = [r for r in rows if "target_tokens" in r]
    peaks = [int(open(f"{run}.peak{r}").read()) / 1024 for r in range(2) if os.path.exists(f"{run}.peak{r}")]
    return {"seconds": [r["step_seconds"] for r in rows[1:]], "waits": [r.get("comm_wait", 0) for r in rows[1:]],
            "peak_mib": peaks, "loss": [r["loss"] for r in rows]}


def add(to, found):
    for key, value in found.items():
        to[key] = value if key in ("peak_mib", "loss") else to.get(key, []) + value


def measure(family):
    shape, inputs, targets = SHAPES[family]
    open(f"{work}/{family}.yaml", "w").write(CONFIG.format(steps=a.steps, shape=shape, work=work, inputs=inputs, targets=targets))
    found = {case: {} for case in CASES if not a.only or case in a.only.split(",")}
    for _ in range(a.rounds):
        for case in found:
            if case == "apart":
                both = [start(family, f"{case}{i}", case) for i in range(2)]
                for run, process in both: add(found[case], finish(run, process))
            else:
                add(found[case], finish(*start(family, case, case)))
    return found


def table(family, found):
    median = lambda case: statistics.median(found[case]["seconds"])
    for case, x in found.items():
        q = statistics.quantiles(x["seconds"], n=4)
        x.update(median=median(case), quartiles=[q[0], q[2]])
        if "apart" in found and case not in ("one", "apart"): x["throughput_of_apart"] = (a.rows / median(case)) / (2 * 2 / median("apart"))
        if "one" in found: x["time_of_one"] = median(case) / median("one")
        if "one" in found: x["memory_of_one"] = max(x["peak_mib"]) / max(found["one"]["peak_mib"])
        print(f"{family:5} {case:8} {x['median']:7.2f} s ({q[0]:.2f} - {q[2]:.2f})  waits {statistics.median(x['waits']):.2f} s  "
              f"of one: time {x.get('time_of_one', 0):.2f} memory {x.get('memory_of_one', 0):.2f}  of apart's throughput {x.get('throughput_of_apart', 0):.2f}  "
              f"peak {' '.join(f'{p:.0f}' for p in x['peak_mib'])} MiB", flush=True)


random.seed(1)
with open(f"{work}/ids.jsonl", "w") as f:
    for _ in range(max(2, a.rows) * a.steps + 2):
        print(json.dumps({"input_ids": [random.randrange(3, 32000) for _ in range(768)], "target_ids": [random.randrange(3, 32000) for _ in range(256)]}), file=f)
result = {"command": " ".join(sys.argv), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
for family in a.family.split(","):
    result[family] = measure(family)
    table(family, result[family])
if a.output:
    json.dump(result, open(a.output, "w"), indent=1)
shutil.rmtree(work)

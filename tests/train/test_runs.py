#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training runs as a user starts, stops, breaks and continues them. test_runs.py SAGO MPIRUN [CASE ...]

SAGO_TEST_DEVICE names the device; cpu where it is unset."""
import glob, json, os, shutil, signal, struct, subprocess, sys, tempfile, time

SAGO, MPIRUN = sys.argv[1:3]
work = tempfile.mkdtemp()
ENV = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_WAIT_POLICY="passive")

CONFIG = """
run: {{seed: 3, steps: 20}}
model: {{vocab_size: 384, d_model: 32, n_heads: 2, head_dim: 16, d_ff: 64, encoder_layers: 1, decoder_layers: 1}}
data:
  tokenizer: bytes
  cache_dir: {work}/cache
  mixture:
    - {{name: words, format: jsonl, path: {work}/tasks, share: 1}}
  input_length: 96
  target_length: 32
  pack_window: 16
train: {{global_batch: 4, dropout: 0.1}}
optimizer: {{learning_rate: 0.01}}
checkpoint: {{every: 5, keep: 0}}
"""


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
    return path


words = "oak elm ash fir yew box bay fig".split()
for task in ("copy", "first"):
    write(f"{work}/tasks/{task}.jsonl", "".join(
        json.dumps({"inputs": f"{task}: {a} {b} {c}", "targets": a if task == "first" else f"{a} {b} {c}"}) + "\n"
        for a in words for b in words for c in words if len({a, b, c}) == 3))
config = write(f"{work}/config.yaml", CONFIG.format(work=work))


def sets(kv):
    return [x for k, v in kv.items() for x in ("--set", f"{k.replace('__', '.')}={v}")]


def command(run, ranks=1, **kv):
    kv.setdefault("threads", 1)
    kv.setdefault("device", os.environ.get("SAGO_TEST_DEVICE", "cpu"))
    words = [SAGO, "train", config] + sets({"run.dir": f"{work}/{run}", **kv})
    return ([MPIRUN, "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []) + words


def train(run, ranks=1, code=0, **kv):
    p = subprocess.run(command(run, ranks, **kv), capture_output=True, text=True, env=ENV, timeout=240)
    assert (p.returncode == 0) if code == 0 else (p.returncode == code if code > 0 else p.returncode != 0), (p.returncode, p.stderr)
    return p.stderr


def lines(run):
    return [json.loads(l) for l in open(f"{work}/{run}/metrics.jsonl")]


def losses(run):
    return [(r["step"], r["loss"], r["gradient_norm"]) for r in lines(run) if "target_tokens" in r]


def no_step_waits(run):
    """From the third step on, what a device that works behind the host is told never makes the host wait for it."""
    waits = [r["device_waits"] for r in lines(run) if "device_waits" in r]
    assert not any(waits[2:]) and (len(waits) > 2 or os.environ.get("SAGO_TEST_DEVICE", "cpu") == "cpu"), waits


def weights(run):
    out = f"{work}/{run}.hf"
    subprocess.run([SAGO, "export", "--format", "hf", f"{work}/{run}", out, "--quiet"], check=True, env=ENV)
    return open(out + "/model.safetensors", "rb").read()


def steps_on_disk(run):
    return sorted(int(os.path.basename(p)[5:]) for p in glob.glob(f"{work}/{run}/checkpoints/step-*") if ".tmp" not in p)


def case_resume_is_bit_exact():
    train("whole")
    train("parts", run__steps=7)
    # A config.yaml from before these keys were: they follow from others.
    kept = [l for l in open(f"{work}/parts/config.yaml") if l.split(":")[0].strip() not in ("kv_heads", "logit_scale")]
    write(f"{work}/parts/config.yaml", "".join(kept))
    train("parts", run__steps=20)
    assert losses("whole") == losses("parts") and len(losses("whole")) == 20
    assert weights("whole") == weights("parts")
    assert steps_on_disk("whole") == [5, 10, 15, 20]
    # The stored configuration repeats the run; its losses fall, so all this compared something that learns.
    again = [SAGO, "train", f"{work}/whole/config.yaml", "--set", f"run.dir={work}/again", "--quiet"]
    subprocess.run(again, check=True, env=ENV)
    assert weights("again") == weights("whole") and losses("whole")[-1][1] < losses("whole")[0][1]


def case_two_ranks_and_micro_batches_agree():
    train("one", train__dropout=0.1)
    train("two", ranks=2, train__dropout=0.1)
    train("micro", train__micro_batch=1, train__recompute="true")
    for other in ("two", "micro"):
        for (s, l, g), (t, m, h) in zip(losses("one"), losses(other)):
            assert s == t and abs(l - m) < 1e-4 * l and abs(g - h) < 2e-3 * g, (other, s, l, m, g, h)
    assert lines("two")[0]["rows_by_data_rank"] == [2, 2]


def case_two_ranks_share_a_model():
    train("alone", run__steps=6)
    train("shared", ranks=2, mesh__model=2, run__steps=6, train__micro_batch=3)
    for (s, l, g), (t, m, h) in zip(losses("alone"), losses("shared")):
        assert s == t and abs(l - m) < 1e-4 * l and abs(g - h) < 2e-3 * g, (s, l, m, g, h)
    train("cut", ranks=2, mesh__data_axis="sharded", run__steps=6)
    no_step_waits("alone"), no_step_waits("shared"), no_step_waits("cut")
    assert len(losses("shared")) == 6 and lines("shared")[0]["rows_by_data_rank"] == [4]


def case_sigterm_saves():
    train("whole2", run__steps=60)
    p = subprocess.Popen(command("stopped", run__steps=60), stderr=subprocess.PIPE, text=True, env=ENV)
    while not (os.path.exists(f"{work}/stopped/metrics.jsonl") and len(losses("stopped")) >= 3): time.sleep(.01)
    # One thread alone takes signals: one that came in the middle of a matrix product could be written over the heap.
    masks = [int(open(f).read().split("SigBlk:")[1].split()[0], 16) for f in glob.glob(f"/proc/{p.pid}/task/*/status")]
    takes = [m for m in masks if not m >> (signal.SIGTERM - 1) & 1]
    main = int(open(f"/proc/{p.pid}/status").read().split("SigBlk:")[1].split()[0], 16)
    assert len(takes) == 1 and all(main >> (s - 1) & 1 for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)), masks
    p.send_signal(signal.SIGTERM)
    said = p.communicate(timeout=60)[1]
    assert p.returncode == 75 and "saved" in said, (p.returncode, said)
    assert steps_on_disk("stopped")[-1] == losses("stopped")[-1][0]
    train("stopped", run__steps=60)
    assert losses("stopped") == losses("whole2") and weights("stopped") == weights("whole2")


def case_checked_run_records_on_request():
    train("unchecked", ranks=2)
    p = subprocess.Popen(command("checked", ranks=2, run__steps=100000, comm__check="true"), stderr=subprocess.PIPE, text=True, env=ENV)
    while not (os.path.exists(f"{work}/checked/metrics.jsonl") and len(losses("checked")) >= 20): time.sleep(.01)
    p.send_signal(signal.SIGUSR2)  # mpirun passes it and SIGUSR1 on to the ranks
    while len(glob.glob(f"{work}/checked/flight/rank-?.jsonl")) < 2: time.sleep(.01)
    p.send_signal(signal.SIGUSR1)
    said = p.communicate(timeout=120)[1]
    assert p.returncode == 75 and losses("checked")[:10] == losses("unchecked")[:10], (p.returncode, said)
    told = subprocess.run([SAGO, "inspect", "--flight", f"{work}/checked", "--json"], check=True, env=ENV, capture_output=True).stdout
    ranks = json.loads(told)["ranks"]
    assert [r["reason"] for r in ranks] == ["asked for by a signal"] * 2 and all(r["collectives"] > 9 for r in ranks), told
    assert not os.path.exists(f"{work}/unchecked/flight")


def case_non_finite_never_reaches_the_weights():
    train("sound", run__steps=1)
    weights("sound")
    path = f"{work}/sound.hf/model.safetensors"
    whole = bytearray(open(path, "rb").read())
    n = struct.unpack("<Q", whole[:8])[0]
    at = 8 + n + json.loads(whole[8:8 + n])["lm_head.weight"]["data_offsets"][0]
    whole[at:at + 12800] = struct.pack("<f", 3e38) * 3200  # finite, but its products are not
    open(path, "wb").write(whole)
    subprocess.run([SAGO, "import", "--format", "hf", f"{work}/sound.hf", f"{work}/bad", "--quiet"], check=True, env=ENV)
    said = train("stops", code=-1, model__init=f"{work}/bad", train__non_finite="stop")
    assert "step 1" in said and "not finite" in said and not losses("stops"), said
    said = train("skips", ranks=2, code=-1, model__init=f"{work}/bad", train__max_skipped=3, checkpoint__every=2)
    skipped = [r for r in lines("skips") if r.get("skipped")]
    assert len(skipped) == 3 and all(r["loss"] is None for r in skipped) and "in a row" in said, (skipped, said)
    assert weights("skips") == bytes(whole)


def case_spike_goes_back():
    good = [json.dumps({"inputs": f"first: {a} {b}", "targets": a}) for a in words for b in words]
    bad = [json.dumps({"inputs": f"first: {a} {b}", "targets": "#%$@!^&*()" * 3}) for a in words for b in words]
    # 50 batches of one task, two of noise, 50 more.
    path = write(f"{work}/ordered.jsonl", "\n".join((good * 4)[:200] + bad[:8] + (good * 4)[:200]) + "\n")
    member = f"[{{name: ordered, format: jsonl, path: {path}, share: 1}}]"
    said = train("spiky", run__steps=80, data__mixture=member, data__order="sequential", data__packing="false",
                 data__eval_fraction=0, train__spike__threshold=1.6, train__spike__rewind_steps=8,
                 train__spike__skip_batches=12, checkpoint__every=5, train__dropout=0)
    spikes = [r for r in lines("spiky") if r.get("event") == "spike"]
    assert [r["at_step"] for r in spikes] == [51] and spikes[0]["step"] == 40 and "loss spike" in said, said[-500:]
    assert [s for s, _, _ in losses("spiky")] == list(range(1, 81))
    assert max(l for s, l, _ in losses("spiky") if s > 40) < spikes[0]["loss"]


def case_refusals():
    train("kept", run__steps=5)
    before = weights("kept")
    for kv, names in (({"data__input_length": 64}, "data.input_length"), ({"model__d_ff": 128}, "model.d_ff"),
                      ({"run__seed": 4}, "run.seed"), ({"optimizer__learning_rat": 1}, "optimizer.learning_rate")):
        said = train("kept", code=2, **kv)
        assert names in said and len(said.strip().splitlines()) == 1, said
    assert weights("kept") == before and len(losses("kept")) == 5
    said = train("meshes", ranks=2, code=-1, mesh__data=3)
    assert "3" in said and "2" in said and said.count("sago:") == 1, said


def case_one_process_at_a_time():
    p = subprocess.Popen(command("busy", run__steps=100000), stderr=subprocess.DEVNULL, env=ENV)
    while not os.path.exists(f"{work}/busy/metrics.jsonl"): time.sleep(.01)
    said = train("busy", code=-1)
    p.kill(); p.wait()
    assert "in use by process" in said and str(p.pid) in said, said
    train("busy", run__steps=1 + max([0] + steps_on_disk("busy")))  # a killed process leaves no lock


def case_a_full_disk_costs_no_step():
    small = f"{work}/full/checkpoints"
    os.makedirs(small)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small], capture_output=True).returncode:
        print("  cannot mount here: not tried")
        return
    try:
        p = subprocess.run(command("full"), capture_output=True, text=True, env=ENV, timeout=240)
        assert p.returncode == 1 and "No space left" in p.stderr, (p.returncode, p.stderr)
        assert len(losses("full")) == 20 and not steps_on_disk("full")
    finally:
        subprocess.run(["umount", small])


def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 1]))


def case_damage_costs_one_interval():
    train("undamaged", run__steps=25)
    for ranks in (1, 2):
        run = f"damaged{ranks}"
        train(run)
        flip(glob.glob(f"{work}/{run}/checkpoints/step-000020/shard-*")[0], 60000)  # among the bytes of the tensors
        said = train(run, ranks, run__steps=25)
        assert "step-000020" in said and "going back to step 15" in said, said
        for a, b in zip(losses(run), losses("undamaged")):
            assert a == b if ranks == 1 else a[0] == b[0] and abs(a[1] - b[1]) < 1e-4 * b[1], (a, b)
        assert len(losses(run)) == 25
    os.remove(f"{work}/damaged1/config.yaml")
    said = train("damaged1", code=2, run__steps=30, run__seed=9)  # the checkpoint remembers
    assert "run.seed" in said, said
    # All damaged, or out of sight: an error, and every file is as it was.
    for hurt in ("cut", "gone"):
        run = f"hopeless-{hurt}"
        train(run)
        for path in glob.glob(f"{work}/{run}/checkpoints/step-*/MANIFEST.json"):
            os.truncate(path, 100) if hurt == "cut" else os.remove(path)
        files = [p for p in glob.glob(f"{work}/{run}/**", recursive=True) if os.path.isfile(p)]
        before = [open(p, "rb").read() for p in files]
        said = train(run, code=1, run__steps=25)
        assert "MANIFEST.json" in said, said
        assert before == [open(p, "rb").read() for p in files]


def case_a_spike_without_checkpoint_is_no_end():
    good = [json.dumps({"inputs": f"first: {a} {b}", "targets": a}) for a in words for b in words]
    bad = [json.dumps({"inputs": f"first: {a} {b}", "targets": "#%$@!^&*()" * 3}) for a in words for b in words]
    path = write(f"{work}/turned.jsonl", "\n".join((good * 4)[:200] + bad * 2) + "\n")
    said = train("turned", run__steps=70, data__mixture=f"[{{name: turned, format: jsonl, path: {path}, share: 1}}]",
                 data__order="sequential", data__packing="false", train__spike__threshold=1.6, checkpoint__every=0)
    assert "no checkpoint to go back to" in said and [s for s, _, _ in losses("turned")] == list(range(1, 71)), said


def case_model_init_and_the_config_agree():
    train("teacher", run__steps=2, model__activation="relu", model__tied_embeddings="true")
    sizes = "{vocab_size: 384, d_model: 32, n_heads: 2, head_dim: 16, d_ff: 64, encoder_layers: 1, decoder_layers: 1}"
    bare = write(f"{work}/bare.yaml", CONFIG.format(work=work).replace(sizes, "{init: teacher}"))
    for steps in (2, 4):
        subprocess.run([SAGO, "train", bare, "--set", f"run.dir={work}/pupil", "--set", f"run.steps={steps}", "--quiet"],
                       check=True, env=ENV)
    kept = open(f"{work}/pupil/config.yaml").read()
    assert "activation: relu" in kept and "tied_embeddings: true" in kept and "d_model: 32" in kept
    subprocess.run([SAGO, "train", f"{work}/pupil/config.yaml", "--set", f"run.dir={work}/pupil2", "--quiet"], check=True,
                   env=ENV)
    assert losses("pupil2") == losses("pupil")
    for kv, names in (({"model__activation": "gated-gelu"}, "model.activation"),
                      ({"model__tied_embeddings": "false"}, "model.tied_embeddings"), ({"model__d_ff": 65}, "model.d_ff"),
                      ({"model__relative_buckets": 16}, "model.relative_buckets"),
                      ({"model__norm_epsilon": 1e-5}, "model.norm_epsilon")):
        said = train("odd", code=2, model__init=f"{work}/teacher", **kv)
        assert names in said and len(said.strip().splitlines()) == 1, said
    # Second moments go on ageing where the checkpoint left them, through a chain of runs too.
    train("third", run__steps=1, model__init=f"{work}/pupil", model__activation="relu", model__tied_embeddings="true")
    meta = json.load(open(f"{work}/third/checkpoints/step-000001/MANIFEST.json"))["meta"]
    assert meta["moment_age_offset"] == -6, meta
    said = train("odd", code=2, model__init=f"{work}/pupil", model__activation="relu", model__tied_embeddings="true",
                 optimizer__step_offset=7)
    assert "optimizer.step_offset" in said, said


def case_evaluation_on_the_way():
    extra = {"data__eval_fraction": 0.1, "eval__examples_per_task": 6, "eval__max_new_tokens": 4}
    train("unwatched", **extra)
    for ranks in (1, 2):
        run = f"watched{ranks}"
        train(run, ranks, eval__every=8, **extra)
        assert sorted(os.listdir(f"{work}/{run}/eval")) == ["step-000008", "step-000016"]
        if ranks == 1: assert losses(run) == losses("unwatched") and weights(run) == weights("unwatched")
    # The weights of that step were asked, not others: their checkpoint gives the same answers.
    train("unwatched8", run__steps=8, **extra)
    subprocess.run([SAGO, "eval", f"{work}/unwatched8", "--quiet"], check=True, env=ENV)
    answers = [open(f"{work}/{r}/eval/step-000008/predictions.jsonl").read() for r in ("watched1", "unwatched8")]
    assert answers[0] == answers[1] and answers[0].count("\n") == 12, answers
    # Ranks that hold a share of the weights each gather them to be asked.
    train("shared8", 2, run__steps=8, eval__every=8, mesh__data_axis="sharded", **extra)
    subprocess.run([SAGO, "eval", f"{work}/shared8", "--quiet", "--output", f"{work}/shared-again"], check=True, env=ENV)
    answers = [open(f"{work}/{r}/predictions.jsonl").read() for r in ("shared8/eval/step-000008", "shared-again")]
    assert answers[0] == answers[1] and answers[0].count("\n") == 12, answers
    said = train("unasked", run__steps=6, eval__every=4)
    assert "not evaluated after step 4" in said and len(losses("unasked")) == 6, said


def case_bf16_follows_fp32():
    # Tensors of bf16 (8 bits of mantissa) against those of fp32, over the same batches: each loss within 1%, the mean of
    # the last five within 0.5%, each norm of a gradient within 5%; and what is saved goes on bit by bit.
    few = {"run__steps": 12, "device": "sim", "train__global_batch": 2, "data__pack_window": 4, "checkpoint__every": 6}
    train("full", **few)
    train("half", train__precision="bf16", **few)
    pairs = list(zip(losses("full"), losses("half")))
    assert len(pairs) == 12 and losses("full") != losses("half")
    for (s, l, g), (t, m, h) in pairs:
        assert s == t and abs(l - m) < 0.01 * l and abs(g - h) < 0.05 * g, (s, l, m, g, h)
    mean = [sum(r[1] for r in losses(run)[-5:]) / 5 for run in ("full", "half")]
    assert abs(mean[0] - mean[1]) < 0.005 * mean[0] and mean[0] < losses("full")[0][1], mean
    memory = [json.load(open(f"{work}/{run}/environment.json"))["memory_bytes"]["activations"] for run in ("full", "half")]
    assert memory[1] < 0.65 * memory[0], memory
    train("half6", train__precision="bf16", **dict(few, run__steps=6))
    train("half6", ranks=2, train__precision="bf16", **dict(few, run__steps=7))
    train("half7", train__precision="bf16", **dict(few, run__steps=6))
    train("half7", train__precision="bf16", **few)
    assert losses("half7") == losses("half") and weights("half7") == weights("half")
    assert abs(losses("half6")[6][1] - losses("half")[6][1]) < 0.01 * losses("half")[6][1]


def case_precision_is_chosen_once():
    def said_precision(run): return [l.split(": ")[1] for l in open(f"{work}/{run}/config.yaml") if l.split(":")[0].strip() == "precision"]
    few = {"run__steps": 2, "train__global_batch": 2, "data__pack_window": 4, "checkpoint__every": 2}
    more = dict(few, run__steps=4)
    for device, why in (("cpu", "stores no bf16"), ("sim", "is there to compare results exactly")):
        said = train("auto-" + device, device=device, **few)
        assert f"train.precision auto: fp32, since the device {device} {why}" in said, said
        train("fp32-" + device, device=device, train__precision="fp32", **few)
        assert weights("auto-" + device) == weights("fp32-" + device)
        assert said_precision("auto-" + device) == ["fp32\n"]
    meta = json.load(open(f"{work}/auto-cpu/checkpoints/step-000002/MANIFEST.json"))["meta"]
    assert meta["precision"] == "fp32" and "precision: fp32" in meta["config"], meta
    # What a run began with stays, whoever continues it; also where its config.yaml was set back.
    train("half-whole", device="sim", train__precision="bf16", **more)
    train("half-auto", device="sim", train__precision="bf16", **few)
    kept = open(f"{work}/half-auto/config.yaml").read()
    write(f"{work}/half-auto/config.yaml", kept.replace("precision: bf16", "precision: auto"))
    said = train("half-auto", ranks=2, device="sim", code=2, train__precision="fp32", **more)
    assert "train.precision: bf16 in the run, fp32 now" in said, said
    said = train("half-auto", device="sim", **more)
    assert "train.precision auto: bf16, as this run began" in said and said_precision("half-auto") == ["bf16\n"], said
    assert weights("half-auto") == weights("half-whole") != weights("fp32-sim")
    said = train("auto-cpu", code=2, device="cpu", train__precision="bf16", **more)
    assert "train.precision: fp32 in the run, bf16 now" in said, said
    p = subprocess.run(command("half-auto", ranks=2, device="cpu", **dict(few, run__steps=5)), capture_output=True, text=True, env=ENV)
    if p.returncode: assert "train.precision: bf16 is not faster than fp32 on this processor" in p.stderr and "(device: cuda)" in p.stderr, p.stderr
    assert said_precision("half-auto") == ["bf16\n"]  # also where the processor has bf16 products and goes on


def rank_pid(run, rank):
    """The process of a rank of a run under mpirun."""
    while True:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
                around = open(f"/proc/{pid}/environ", "rb").read().split(b"\0")
            except OSError:
                continue
            if words[0] == SAGO.encode() and f"run.dir={work}/{run}".encode() in words and f"OMPI_COMM_WORLD_RANK={rank}".encode() in around:
                return int(pid)
        time.sleep(.01)


def case_the_slowest_rank_is_named():
    for slow in (1, 0):
        run = f"slow{slow}"
        p = subprocess.Popen(command(run, 2, run__steps=30, train__straggler_every=6, train__global_batch=16), stderr=subprocess.PIPE,
                             text=True, env=ENV)
        pid = rank_pid(run, slow)
        while not (os.path.exists(f"{work}/{run}/metrics.jsonl") and losses(run)): time.sleep(.01)
        while p.poll() is None and len(losses(run)) < 30:  # this rank stands still for most of the time
            os.kill(pid, signal.SIGSTOP)
            time.sleep(.1)
            os.kill(pid, signal.SIGCONT)
            time.sleep(.006)
        said = p.communicate(timeout=120)[1]
        assert p.returncode == 0, said
        reports = [r for r in lines(run) if r.get("event") == "straggler"]
        assert [r["step"] for r in reports] == list(range(6, 31, 6)) and all(r["steps"] == 6 for r in reports), reports
        named = [r for r in reports if r["rank"] == slow and r["part"] == "compute" and r["stands_out"]]
        assert len(named) >= 3, (slow, reports)  # not every one: the machine has other work too
        for r in named:
            assert r["compute"][slow] == r["seconds"] > r["median"] == r["compute"][1 - slow], r
            assert abs(r["seconds"] - r["median"] - r["excess"]) < 1e-9 and r["excess"] >= 0.1 * r["step_seconds"], r
        assert said.count(f"straggler: rank {slow} (host {os.uname().nodename}), compute: ") == len(named), said
    train("unreported", 2, train__straggler_every=0, run__steps=5)
    assert not [r for r in lines("unreported") if r.get("event") == "straggler"]


cases = {n[5:]: f for n, f in globals().items() if n.startswith("case_")}
NAMED_ALONE = {"the_slowest_rank_is_named"}  # half a minute of pauses
for name in sys.argv[3:] or [c for c in cases if c not in NAMED_ALONE]:
    started = time.time()
    cases[name]()
    print(f"{name}: {time.time() - started:.1f} s", flush=True)
shutil.rmtree(work, ignore_errors=True)

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""launch/slurm.sh under a real Slurm of two emulated nodes: test_slurm.py SOURCE_ROOT SAGO MPIRUN

Submits a run, asks it to stop as before its time limit, then takes one node away in the middle of training, and wants the job to
start again by itself each time, the second time on the node that is left, and to end with what an undisturbed run ends with.
Skipped (77) where Slurm is not installed.
"""
import json, os, shutil, signal, subprocess, sys, tempfile, time

import cluster

ROOT, SAGO, MPIRUN = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3]
STEPS = 1000

CONFIG = """
run: {{seed: 5, steps: {steps}}}
model: {{vocab_size: 384, d_model: 64, n_heads: 2, head_dim: 32, d_ff: 128, encoder_layers: 1, decoder_layers: 1}}
data:
  tokenizer: bytes
  cache_dir: {work}/cache
  mixture: [{{name: words, format: jsonl, path: {work}/tasks, share: 1}}]
  input_length: 64
  target_length: 32
  pack_window: 16
device: cpu
threads: 1
train: {{global_batch: 4, dropout: 0.1}}
optimizer: {{learning_rate: 0.01}}
checkpoint: {{every: 20, keep: 3}}
"""


def prepare(work):
    os.makedirs(f"{work}/tasks")
    words = "oak elm ash fir yew box bay fig".split()
    with open(f"{work}/tasks/copy.jsonl", "w") as file:
        for a in words:
            for b in words:
                file.write(json.dumps({"inputs": f"copy: {a} {b}", "targets": f"{a} {b}"}) + "\n")
    with open(f"{work}/config.yaml", "w") as file:
        file.write(CONFIG.format(work=work, steps=STEPS))


def lines(run):
    with open(f"{run}/metrics.jsonl") as file:
        return [json.loads(line) for line in file]


def steps_saved(run):
    names = os.listdir(f"{run}/checkpoints") if os.path.isdir(f"{run}/checkpoints") else []
    return [int(n[5:]) for n in names if n.startswith("step-") and n[5:].isdigit()]


def weights(run):
    subprocess.run([SAGO, "export", "--format", "hf", run, f"{run}.hf", "--quiet"], check=True)
    with open(f"{run}.hf/model.safetensors", "rb") as file:
        return file.read()


def train_undisturbed(work, env):
    subprocess.run([MPIRUN, "--oversubscribe", "-n", "2", SAGO, "train", f"{work}/config.yaml", "--set",
                    f"run.dir={work}/whole", "--quiet"], env=env, check=True, timeout=300)


def has_ended(slurm, number):
    return slurm.job(number)["JobState"] in ("COMPLETED", "FAILED", "NODE_FAIL", "CANCELLED")


def read(path):
    with open(path) as file:
        return file.read()


def case_disturbed_run(slurm, work):
    run = f"{work}/run"
    said = slurm.run("sbatch", "--parsable", "--nodes=1-2", "--ntasks=2", f"--output={work}/job.out", f"{ROOT}/launch/slurm.sh",
                     "--cores", "0", f"{work}/config.yaml", "--set", f"run.dir={run}", cwd=ROOT)
    number = int(said.split(";")[0])
    slurm.until(lambda: max(steps_saved(run), default=0) >= 40, 90, "the run has saved step 40")
    assert slurm.job(number)["NodeList"] == "n[1-2]", slurm.job(number)
    slurm.run("scancel", "--batch", "--signal=USR1", str(number))
    slurm.until(lambda: slurm.job(number)["Restarts"] == "1", 60, "the job went back into the queue")
    stopped = max(steps_saved(run))
    slurm.until(lambda: max(steps_saved(run)) >= stopped + 40 or has_ended(slurm, number), 90, "the run goes on")
    assert not has_ended(slurm, number), (slurm.job(number), read(f"{work}/job.out"))
    slurm.kill_node("n2")
    lost = max(steps_saved(run))
    assert lost < STEPS - 40, f"the run was nearly done ({lost}) before the node could be taken away"
    slurm.until(lambda: has_ended(slurm, number), 150, "the job has ended")
    job = slurm.job(number)
    told = read(f"{work}/job.out")
    assert (job["JobState"], job["Restarts"], job["NodeList"]) == ("COMPLETED", "2", "n1"), (job, told)
    for start, nodes in ((1, "n1,n2"), (2, "n1,n2"), (3, "n1")):
        assert f"start {start}: 2 ranks on {nodes}\n" in told, told
    assert "stopped by a signal, saved: back into the queue" in told and slurm.states()["n2"].startswith("down"), told

    metrics = lines(run)
    losses = [(r["step"], r["loss"], r["gradient_norm"]) for r in metrics if "target_tokens" in r]
    resumes = [r["step"] for r in metrics if r.get("event") == "resume"]
    assert len(resumes) == 2 and resumes[0] == stopped and resumes[1] >= lost and resumes[1] % 20 == 0, (resumes, stopped, lost)
    assert losses == [(r["step"], r["loss"], r["gradient_norm"]) for r in lines(f"{work}/whole") if "target_tokens" in r]
    assert len(losses) == STEPS and losses[-1][1] < losses[0][1] / 2, (losses[0], losses[-1])
    assert weights(run) == weights(f"{work}/whole")


def case_preflight_by_srun(slurm, work):
    out = slurm.run("srun", "--mpi=pmix", "--nodes=1", "--ntasks=2", SAGO, "doctor", f"{work}/config.yaml", "--all-ranks", "--json")
    said = json.loads(out[out.index("{"):])
    assert [r["rank"] for r in said["ranks"]] == [0, 1] and all(not r["failures"] for r in said["ranks"]), said
    assert "alike on 2 ranks" in {f["name"]: f["text"] for f in said["together"]}["versions"], said


def case_wrong_configuration(slurm, work):
    said = slurm.run("sbatch", "--parsable", "--nodes=1", f"--output={work}/wrong.out", f"{ROOT}/launch/slurm.sh", "--cores", "0",
                     f"{work}/config.yaml", "--set", "optimizer.learning_rat=1", cwd=ROOT)
    number = int(said.split(";")[0])
    slurm.until(lambda: has_ended(slurm, number), 60, "the job has ended")
    told = read(f"{work}/wrong.out")
    job = slurm.job(number)
    assert (job["JobState"], job["Restarts"]) == ("FAILED", "0") and "optimizer.learning_rat" in told, (job, told)


def main():
    why = cluster.missing()
    if why:
        print("skipped: " + why)
        return 77
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # of a test runner whose patience has ended: clear away
    work = tempfile.mkdtemp(prefix="sago-slurm-")
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_WAIT_POLICY="passive")
    os.environ.update(env, SAGO=SAGO)
    try:
        prepare(work)
        train_undisturbed(work, env)
        with cluster.Cluster(f"{work}/slurm") as slurm:
            for case in (case_preflight_by_srun, case_wrong_configuration, case_disturbed_run):
                started = time.monotonic()
                case(slurm, work)
                print(f"{case.__name__[5:]}: {time.monotonic() - started:.1f} s", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

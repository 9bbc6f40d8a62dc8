#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""launch/mpirun.sh and launch/slurm.sh without a cluster: test_launch.py SOURCE_ROOT SAGO MPIRUN

mpirun.sh is asked what it would start, and trains for real on two ranks. slurm.sh runs beside stand-ins for srun, scontrol and
mpirun.sh, which say which nodes are well and how training ends; what counts is whether it goes back into the queue.
"""
import json, os, shutil, signal, subprocess, sys, tempfile, time

ROOT, SAGO, MPIRUN = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3]
work = tempfile.mkdtemp(prefix="sago-launch-")
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "NCCL_"))}
ENV.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_WAIT_POLICY="passive", SAGO=SAGO,
           OMPI_MCA_rmaps_base_oversubscribe="1")


def launch(script, *words, **more):
    done = subprocess.run(["bash", f"{ROOT}/launch/{script}", *words], env=dict(ENV, **more), capture_output=True, text=True,
                          timeout=100)
    return done.returncode, done.stdout, done.stderr


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def case_what_mpirun_gets():
    hosts = write(f"{work}/hosts", "# two machines\nnode1 slots=8\nnode2 slots=8 # the second\n\n")
    for machines, told in ((("--hostfile", hosts), f"--hostfile {hosts}"), (("--hosts", "node1,node2"), "--host node1:3,node2:3")):
        code, out, err = launch("mpirun.sh", "--dry-run", *machines, "--ranks", "6", "--cores", "4", "--network", "eth7", "c.yaml",
                                "--set", "run.dir=r", NCCL_IB_HCA="mlx5", SAGO_X="1")
        check, train = out.splitlines()
        assert code == 0 and not err and check.endswith(f"{SAGO} doctor --all-ranks c.yaml --set run.dir=r"), out
        assert train.endswith(f"{SAGO} train c.yaml --set run.dir=r") and train.startswith("mpirun -n 6 " + told), train
        for words in ("--map-by ppr:3:node:PE=4 --bind-to core", "btl_tcp_if_include eth7", "-x NCCL_IB_HCA", "-x NCCL_SOCKET_IFNAME",
                      "-x SAGO_X", "-x OMP_WAIT_POLICY", "oob_tcp_keepalive_time"):
            assert words in train and words in check, (words, train)
    code, out, err = launch("mpirun.sh", "--dry-run", "--no-check", "--cores", "0", "--ranks", "2", "c.yaml")
    assert out.count("\n") == 1 and "--bind-to none" in out and "train c.yaml" in out, out


def case_help_and_mistakes():
    for script in ("mpirun.sh", "slurm.sh"):
        code, out, err = launch(script, "--help")
        assert code == 0 and out.startswith("usage: ") and not err, (script, out, err)
    for words, names in ((["--ranks", "x", "c.yaml"], "--ranks x"), (["--rank", "2", "c.yaml"], "--rank"), ([], "configuration"),
                         (["--hosts", "a", "--hostfile", "b", "c.yaml"], "twice"), (["--hostfile", "/none", "c.yaml"], "/none"),
                         (["--cores"], "--cores needs a value")):
        code, out, err = launch("mpirun.sh", *words)
        assert code == 2 and names in err and err.count("\n") == 1, (words, code, err)
    code, out, err = launch("slurm.sh", "c.yaml")
    assert code == 2 and "sbatch" in err, err
    code, out, err = launch("mpirun.sh", "c.yaml", SAGO="/no/sago")
    assert code == 2 and "/no/sago" in err, err
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", f"{ROOT}/launch/mpirun.sh", f"{ROOT}/launch/slurm.sh"], check=True)


def case_mpirun_trains():
    ids = write(f"{work}/tasks/t.jsonl", "".join(json.dumps({"inputs": f"say {i}", "targets": str(i)}) + "\n" for i in range(40)))
    config = write(f"{work}/c.yaml", f"""
run: {{seed: 1, steps: 3}}
model: {{vocab_size: 384, d_model: 16, n_heads: 2, head_dim: 8, d_ff: 32, encoder_layers: 1, decoder_layers: 1}}
data: {{tokenizer: bytes, cache_dir: {work}/cache, mixture: [{{name: t, format: jsonl, path: {ids}}}], input_length: 32, target_length: 8, pack_window: 4}}
device: cpu
threads: 1
train: {{global_batch: 2}}
""")
    code, out, err = launch("mpirun.sh", "--ranks", "2", "--cores", "0", config, "--set", f"run.dir={work}/run")
    assert code == 0 and "versions" in out and "alike on 2 ranks" in out, (code, out, err)
    with open(f"{work}/run/metrics.jsonl") as file:
        assert [json.loads(line)["step"] for line in file][-1] == 3
    # The pre-flight stops what cannot go well, here a mesh of more ranks than there are.
    code, out, err = launch("mpirun.sh", "--ranks", "2", "--cores", "0", config, "--set", f"run.dir={work}/run", "--set", "mesh.data=3")
    assert code != 0 and "mesh.data=3" in err and "pre-flight" in err, (code, err)


# --- slurm.sh beside stand-ins ---

def stand_ins():
    write(f"{work}/bin/srun", """#!/bin/bash
for word; do case $word in --nodelist=*) node=${word#*=} ;; esac; done
[ "$node" = "$SICK" ] && { echo "sago: error: no GPU"; exit 1; }
[ -e "$WORK/trained" ] && [ "$node" = "$DYING" ] && exit 1
exit 0
""", 0o755)
    write(f"{work}/bin/scontrol", """#!/bin/bash
case $1 in
show) printf 'n1\\nn2\\nn3\\n' ;;
requeue) echo "$2" >"$WORK/requeued"; kill -9 $PPID ;;
esac
""", 0o755)
    write(f"{work}/home/launch/mpirun.sh", """#!/bin/bash
echo "$@" >"$WORK/trained"
[ "$CODE" = wait ] || exit "$CODE"
trap 'exit 75' USR1
for i in $(seq 600); do sleep 0.1; done
""")


def job(code, signalled=False, **more):
    """(exit code, whether it went back into the queue, what mpirun.sh was given, standard error)"""
    for name in ("trained", "requeued"):
        if os.path.exists(f"{work}/{name}"): os.remove(f"{work}/{name}")
    env = dict(ENV, PATH=f"{work}/bin:{ENV['PATH']}", WORK=work, CODE=str(code), SLURM_JOB_ID="7", SLURM_JOB_NODELIST="n[1-3]",
               SLURM_SUBMIT_DIR=f"{work}/home", SICK="", DYING="")
    env.update(more)
    p = subprocess.Popen(["bash", f"{ROOT}/launch/slurm.sh", "--cores", "4", "c.yaml", "--set", "a=b"], env=env, stderr=subprocess.PIPE,
                         text=True)
    if signalled:
        while not os.path.exists(f"{work}/trained"): time.sleep(0.01)
        p.send_signal(signal.SIGUSR1)
    err = p.communicate(timeout=60)[1]
    given = open(f"{work}/trained").read().strip() if os.path.exists(f"{work}/trained") else None
    return p.returncode, os.path.exists(f"{work}/requeued"), given, err


def case_what_slurm_does():
    stand_ins()
    words = "--cores 4 c.yaml --set a=b"
    assert job(0)[:3] == (0, False, f"--hosts n1,n2,n3 --ranks 3 {words}")
    assert job(0, SLURM_NTASKS_PER_NODE="8", SICK="n2")[:3] == (0, False, f"--hosts n1,n3 --ranks 16 {words}")
    code, again, given, err = job(0, SLURM_NTASKS="24", SICK="n3")
    assert (code, again, given) == (0, False, f"--hosts n1,n2 --ranks 24 {words}") and "n3 is left out: sago: error: no GPU" in err, err
    # Back into the queue: a rank that was killed, a node that no longer answers, a signal; and nothing else.
    assert job(137)[1] and job(205)[1] and job(1, DYING="n2")[1] and job("wait", signalled=True)[1]
    for code in (1, 2):
        assert job(code)[:2] == (code, False)
    assert job(2, DYING="n2")[:2] == (2, False) and job(75)[:2] == (75, False)
    code, again, given, err = job(137, SLURM_RESTART_COUNT="3", SAGO_RESTARTS="3")
    assert (code, again) == (137, False) and "SAGO_RESTARTS" in err, err
    assert job(137, SLURM_RESTART_COUNT="2", SAGO_RESTARTS="3")[1]
    write(f"{work}/bin/srun", "#!/bin/bash\nexit 1\n", 0o755)
    code, again, given, err = job(0)
    assert (code, again, given) == (1, False, None) and "no node" in err, err


try:
    for name, case in [(n[5:], f) for n, f in globals().items() if n.startswith("case_")]:
        started = time.monotonic()
        case()
        print(f"{name}: {time.monotonic() - started:.1f} s", flush=True)
finally:
    shutil.rmtree(work, ignore_errors=True)

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sago doctor, alone and under mpirun: test_doctor.py SAGO MPIRUN FAKE_NVML. What it says is held against what Python
sees, and what it says of GPUs against a stand-in for the driver's library."""
import json
import os
import re
import subprocess
import sys
import tempfile

sago, mpirun, fake_nvml = sys.argv[1:4]
env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", ASAN_OPTIONS="detect_leaks=0")


def run(*command):
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def doctor_json(*launcher):
    code, out, err = run(*launcher, sago, "doctor", "--json")
    assert code == 0, (code, out, err)
    said = json.loads(out)
    findings = {f["name"]: f for f in said["nodes"][0]["findings"] + said["together"]}
    for finding in findings.values():
        assert finding["status"] in ("ok", "info", "warn"), finding
        assert finding["remedy"] or finding["status"] in ("ok", "info"), finding
    return said, findings


said, alone = doctor_json()
assert len(said["nodes"]) == 1 and said["nodes"][0]["ranks"] == 1
assert f"{os.cpu_count()} cores online" in alone["processor"]["text"], alone["processor"]
assert re.search(rf"\b{len(os.sched_getaffinity(0))} a rank", alone["threads"]["text"]), alone["threads"]
disk = os.statvfs(".")
free = float(re.match(r"([\d.]+) GiB free", alone["disk"]["text"])[1])
assert abs(free - disk.f_bavail * disk.f_frsize / 2**30) < 2, (free, alone["disk"])
for library in ("oneDNN", "hdf5", "sentencepiece", "mpi"):
    assert re.search(rf"{library} \d", alone["program"]["text"]), alone["program"]
with open("/proc/cpuinfo") as file:
    flags = re.search(r"^flags.*$", file.read(), re.M)
if flags:
    assert ("avx512f" in alone["instructions"]["text"]) == (" avx512f" in flags[0]), alone["instructions"]
assert "one process" in alone["mpi"]["text"] and "sums" not in alone

said, three = doctor_json(mpirun, "--oversubscribe", "-n", "3")
assert len(said["nodes"]) == 1 and said["nodes"][0]["ranks"] == 3
assert "3 ranks on 1 node" in three["mpi"]["text"], three["mpi"]
assert three["sums"]["text"].startswith("right;"), three["sums"]
assert (three["threads"]["status"] == "warn") == (os.cpu_count() < 3), three["threads"]

code, out, err = run(sago, "doctor")
assert code == 0 and out.count("\n") >= len(alone), out
code, out, err = run(mpirun, "--oversubscribe", "-n", "2", sago, "doctor", "--set", "mesh.data=5")
errors = [line for line in err.splitlines() if line.startswith("sago:")]
assert code == 1 and len(errors) == 1, (code, errors)
assert all(word in errors[0] for word in ("mesh.data=5", "mesh.model=1", "has 2", "mpirun -n 5")), errors
code, out, err = run(sago, "doctor", "--set", "device=none")
assert code != 0 and "device" in err, (code, err)

# Devices. cpu and sim are everywhere; without a driver cuda says why in one line, and what to do.
assert alone["device cpu"]["status"] == alone["device sim"]["status"] == "ok", alone
assert alone["device sim"]["text"].startswith("sim: "), alone["device sim"]
if "gpu" in alone:
    assert alone["gpu"]["text"] == "no NVIDIA driver" and "install" in alone["gpu"]["remedy"], alone["gpu"]
    assert alone["device cuda"]["status"] == "info" and alone["device cuda"]["text"].startswith("cuda: "), alone
    assert alone["device"]["text"].startswith("cpu: "), alone["device"]
    code, out, err = run(sago, "doctor", "--set", "device=cuda")
    assert code == 1 and "cuda: " in err and re.search("warn +gpu .*no NVIDIA driver", out), (code, out, err)
    code, out, err = run(sago, "doctor", "--json", "--set", "device=sim")
    named = {f["name"]: f for f in json.loads(out)["nodes"][0]["findings"]}
    assert code == 0 and named["device"]["text"].startswith("sim: "), (code, out, err)

# The pre-flight of a run: every rank's figures, on the mesh and in the folder that the config names.
def preflight(*ranks):
    """Exit code, findings by name (the last of each), records, standard error; ranks: the command line of each."""
    words = [mpirun, "--oversubscribe"]
    for number, rank in enumerate(ranks):
        words += [":"] * (number > 0) + ["-n", "1", *rank]
    code, out, err = run(*words)
    said = json.loads(out)
    return code, {f["name"]: f for f in said["together"]}, said["ranks"], err


with tempfile.TemporaryDirectory() as folder:
    config, other = os.path.join(folder, "c.yaml"), os.path.join(folder, "other")
    os.mkdir(other)
    with open(config, "w") as file:
        file.write("run: {dir: runs/first}\nmesh: {model: 2}\ndevice: cpu\nthreads: 1\n")
    doctor = [sago, "doctor", config, "--all-ranks", "--json"]
    code, named, ranks, err = preflight(doctor, doctor, doctor, doctor)
    assert code == 0 and [r["rank"] for r in ranks] == [0, 1, 2, 3], (code, err)
    assert all(r["host"] == os.uname().nodename and not r["failures"] for r in ranks), ranks
    assert named["versions"]["status"] == "ok" and "alike on 4 ranks" in named["versions"]["text"], named
    for name, unit in (("products", "GFLOP/s"), ("axis data", "GB/s"), ("axis model", "GB/s"), ("disk speed", "MB/s")):
        values = sorted(r["speeds"][name]["value"] for r in ranks)
        assert values[0] > 0 and f"median {values[1]:.4g} {unit} of 4 ranks, least {values[0]:.4g}" in named[name]["text"], named[name]
        assert named[name]["status"] == ("warn" if values[0] < 0.8 * values[1] else "ok"), named[name]
    assert ranks[0]["same"]["hdf5"] == re.search(r"hdf5 ([\d.]+)", alone["program"]["text"])[1], ranks[0]
    assert not os.listdir(other) and sorted(os.listdir(folder)) == ["c.yaml", "other"], "it leaves something behind"
    # A rank whose folder is another one, and one that can't write at all.
    code, named, ranks, err = preflight(doctor, doctor, [*doctor, "--dir", other], [*doctor, "--dir", "/nowhere"])
    assert code == 1 and "error" in err, (code, err)
    failures = {r["rank"]: [f["name"] for f in r["failures"]] for r in ranks}
    assert failures == {0: [], 1: [], 2: ["shared folder"], 3: ["disk speed", "shared folder"]}, failures
    assert "ranks 2-3 (host " in named["shared folder"]["text"], named["shared folder"]
    # A rank with another driver. On the processor it would not matter; auto might go to either.
    os.symlink(os.path.abspath(fake_nvml), os.path.join(other, "libnvidia-ml.so.1"))
    automatic = [sago, "doctor", "--all-ranks", "--json", "--dir", folder, "--set", "threads=1"]
    odd = ["env", f"LD_LIBRARY_PATH={other}:{env.get('LD_LIBRARY_PATH', '')}", *automatic]
    code, named, ranks, err = preflight(automatic, odd)
    mine = ranks[0]["same"].get("gpu driver", "none")
    assert code == 1 and named["gpu driver"]["status"] == "fail", (code, named)
    assert named["gpu driver"]["text"].startswith(f"{mine} on rank 0 (host ") and "; 580.65.06 on rank 1 (host " in named["gpu driver"]["text"]
    assert ranks[1]["same"]["gpu"] == "Tesla V100" and ranks[1]["same"]["gpu links"] == "no NVLink, PCIe 3 x16", ranks[1]
    assert [f["status"] for f in ranks[1]["failures"]] == ["warn"] and "slowed" in ranks[1]["failures"][0]["text"], ranks[1]
    code, named, ranks, err = preflight([*automatic, "--set", "device=cpu"], [*odd, "--set", "device=cpu"])
    assert code == 0 and "gpu driver" not in named, (code, named)

# A machine with two GPUs, as far as NVML goes.
with tempfile.TemporaryDirectory() as folder:
    os.symlink(os.path.abspath(fake_nvml), os.path.join(folder, "libnvidia-ml.so.1"))
    env["LD_LIBRARY_PATH"] = folder + ":" + env.get("LD_LIBRARY_PATH", "")
    code, out, err = run(sago, "doctor", "--json")
    named = {f["name"]: f for f in json.loads(out)["nodes"][0]["findings"]}
    assert named["gpu driver"]["text"] == "NVIDIA 580.65.06, 2 GPUs", named["gpu driver"]
    assert named["gpu 0"]["text"] == "NVIDIA H100 80GB HBM3, 85.0 GB (84.0 free), sm_90, 17 NVLinks, PCIe 5 x16", named
    assert named["gpu 0"]["status"] == "ok"
    assert named["gpu 1"]["text"] == "Tesla V100, 16.0 GB (1.0 free), sm_70, no NVLink, PCIe 3 x16", named["gpu 1"]
    assert named["gpu 1"]["status"] == "warn" and "8.0" in named["gpu 1"]["remedy"], named["gpu 1"]
print("ok")

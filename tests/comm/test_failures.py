#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What happens to a run when one of its ranks goes wrong: test_failures.py MPIRUN RANK_FAILURES [all]

Starts rank_failures on three ranks, and wants of each case: an exit code, an end in time, a line that names the rank
and the cause, and no process left over.
"""
import os
import re
import subprocess
import sys
import time

TIMEOUT = 3  # mesh.timeout_seconds of these runs
SPARE = 25  # for slow machines: seconds that a run may take beyond what it waits for

# what one rank does; exit code (None: any but 0); seconds that must pass at least; what must be said of that rank
CASES = {
    "none": (0, 0, None),
    "busy": (0, 2.5 * TIMEOUT, r"rank \d: warning: waiting for rank {r} \(host \S+, pid \d+\) in all_reduce #\d+ for"),
    "agree": (1, 0, r"rank 0: error: rank {r}: disk of this test is full"),
    "error": (1, 0, r"rank {r}: error: disk of this test is full"),
    "early": (None, 0, r"rank {r}: error: no such file on this node"),
    "wrong-size": (1, 0, r"rank 0: error: mesh.data=7 x mesh.model=1 needs 7 ranks, but this run has 3: .*mpirun -n 7"),
    "leave": (1, 0, r"rank {r} \(host \S+, pid \d+\) has left the run while this rank waits for it in all_reduce"),
    "stop": (None, TIMEOUT, r"error: rank {r} \(host \S+, pid \d+\) has not been heard of for 3 s: its process is stopped"),
    "kill": (None, 0, r"(error: rank {r} \(host \S+, pid \d+\) has ended without a word)|(process rank {r} with PID)"),
    "crash": (None, 0, r"(error: rank {r} \(host \S+, pid \d+\) has ended without a word)|(process rank {r} with PID)"),
    "exit": (3, 0, r"(error: rank {r} \(host \S+, pid \d+\) has ended without a word)|(Process name: \[\[\d+,1\],{r}\])"),
    "exit-zero": (None, 0, r"(error: rank {r} \(host \S+, pid \d+\) has ended without a word)|(due to process rank {r})"),
    "abort": (7, 0, r"rank {r}: error: this rank ends the run on all ranks, with exit code 7"),
    "absent": (None, TIMEOUT, r"error: rank {r} \(host \S+, pid \d+\) has not entered all_reduce #31.*does nothing"),
    "other-path": (None, 0, r"error: rank \d \(host \S+, pid \d+\) (sent (fewer|more) bytes|entered \w+ as collective #31)"),
    "other-size": (None, 0, r"error: rank \d \(host \S+, pid \d+\) (sent (fewer|more) bytes|entered \w+ as collective #31)"),
    "check-none": (0, 0, None),
    "check-size": (1, 0, r"error: comm.check: collective #31: rank {r} \(host \S+, pid \d+\) entered all_reduce over world of 799996 bytes, "
                   r"where rank \d entered all_reduce over world of 800000 bytes"),
    "check-operation": (1, 0, r"error: comm.check: collective #31: rank {r} \(host \S+, pid \d+\) entered barrier over world of 3 bytes, "
                        r"where rank \d entered all_reduce over world of 800000 bytes"),
    "check-axis": (1, 0, r"error: comm.check: collective #31: rank {r} \(host \S+, pid \d+\) entered all_reduce over data of 800000 bytes, "
                   r"where rank \d entered all_reduce over world of 800000 bytes"),
    "check-buffer": (1, 0, r"error: comm.check: collective #31, all_reduce over world of 8192 bytes: rank {r} \(host \S+, pid \d+\) "
                     r"has another result than rank \d"),
    "check-group": (1, 0, r"rank 2: error: comm.check: collective #3: rank {r} \(host \S+, pid \d+\) entered all_reduce over model of 799996 bytes, "
                    r"where rank 2 entered all_reduce over model of 800000 bytes"),
    "check-group-none": (0, 0, None),
}
FOUR = ("check-group", "check-group-none")  # on two groups of two ranks; else three


def run(mpirun, program, what, rank, more=()):
    """Exit code, seconds, output, and the states of processes that were still there two seconds later."""
    mark = f"SAGO_TEST_MARK={os.getpid()}-{what}-{rank}"
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    env.update([mark.split("=")])
    command = [mpirun, "--oversubscribe", *more, "-n", "4" if what in FOUR else "3", program, what, str(rank), str(TIMEOUT)]
    began = time.monotonic()
    try:
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90)
        code, output = done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as late:
        code, output = "still running after 90 s", (late.stdout or b"").decode(errors="replace")
    seconds = time.monotonic() - began
    for _ in range(20):
        left = marked(mark)
        if not left:
            break
        time.sleep(0.1)
    return code, seconds, output, left


def marked(mark):
    """Processes whose environment has the mark: those of this run."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if mark.encode() in file.read().split(b"\0"):
                    found.append(int(pid))
        except OSError:
            pass
    return found


def check(mpirun, program, what, rank, more=()):
    want_code, least, want_line = CASES[what]
    code, seconds, output, left = run(mpirun, program, what, rank, more)
    wrong = []
    if code != want_code if want_code is not None else code == 0 or not isinstance(code, int):
        wrong.append(f"exit code {code}, not {want_code if want_code is not None else 'non-zero'}")
    if seconds > least + SPARE or seconds < least:
        wrong.append(f"took {seconds:.1f} s, not {least} to {least + SPARE}")
    if want_line and not re.search(want_line.format(r=rank), output):
        wrong.append("no line like: " + want_line.format(r=rank))
    if (what in ("agree", "wrong-size") or what.startswith("check-") and want_line) and len(re.findall(r"^sago: .*error", output, re.M)) != 1:
        wrong.append("more than one line of sago's")
    if left:
        wrong.append(f"processes left over: {left}")
    name = f"{what}, rank {rank}" + (", " + " ".join(more) if more else "")
    print(f"{'not ok' if wrong else 'ok'} - {name} ({seconds:.1f} s)", flush=True)
    for line in wrong:
        print("#   " + line)
    if wrong:
        print("".join(f"#   | {line}\n" for line in output.splitlines() if line.strip()), flush=True)
    return not wrong


def main():
    mpirun, program = sys.argv[1:3]
    everything = len(sys.argv) > 3
    plan = [(what, 3 if what in FOUR else 1, ()) for what in CASES]
    if everything:
        plan = [(what, rank, ()) for what in CASES for rank in ([3] if what in FOUR else range(3))]
        tcp = ("--mca", "btl", "tcp,self")
        plan += [(what, 1, tcp) for what in ("none", "stop", "kill", "absent", "error", "other-size")]
    else:
        plan += [("stop", 0, ()), ("kill", 0, ()), ("error", 0, ())]
    failed = sum(not check(mpirun, program, *case) for case in plan)
    print(f"{len(plan) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Flight records of runs that go wrong: test_flight.py MPIRUN RANK_FAILURES SAGO

Starts rank_failures on three ranks, of which rank 1 goes wrong in collective #32, and wants of each case: the ranks that
left a record, what the record holds, and what `sago inspect --flight` makes of all of them.
"""
import json
import os
import re
import subprocess
import sys
import tempfile

TIMEOUT = 3  # mesh.timeout_seconds of these runs
SUM = r"all_reduce #32 over world \(800000 bytes\)"

# what rank 1 does; ranks that leave a record; what inspect says, in this order
CASES = {
    "error": ({0, 1, 2}, [rf"rank 1 has not entered {SUM}, which was entered by ranks 0, 2, \d+\.\d s before",
                          r"rank 1 \(host \S+, pid \d+\): last all_reduce #31 .*, done; written: disk of this test is full"]),
    "kill": ({0, 2}, [rf"ranks 0, 2 waited in {SUM} for rank 1, which left no record", r"rank 1 left no record"]),
    "stop": ({0, 2}, [rf"ranks 0, 2 waited in {SUM} for rank 1, which left no record", r"rank 1 left no record"]),
    "check-operation": ({0, 1, 2}, [rf"rank 1 entered barrier #32 over world \(3 bytes\), where rank 0 entered {SUM}"]),
    "record": ({0, 1, 2}, [r"no rank has missed a collective", r"last all_reduce #31 .*, done; written: asked for by a signal"]),
}


def check(mpirun, program, sago, what, folder):
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    # mpirun is to leave the ranks alone that go on: it is theirs to notice.
    command = [mpirun, "--oversubscribe", "--enable-recovery", "-n", "3", program, what, "1", str(TIMEOUT), folder]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90)
    there, lines_wanted = CASES[what]
    found = {r for r in range(3) if os.path.exists(f"{folder}/rank-{r}.jsonl")}
    assert found == there, (what, found, done.stdout.decode())
    for rank in found:
        head, *rows = [json.loads(line) for line in open(f"{folder}/rank-{rank}.jsonl")]
        assert head["rank"] == rank and head["ranks"] == 3 and head["failed"] == (what != "record"), head
        assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1)), rows
        assert rows[0]["name"] == "broadcast" and all(row["name"] == "all_reduce" for row in rows[1:31]), rows
        assert all(row["state"] == "done" and row["seconds"] >= 0 for row in rows[:31]), rows
        assert all(row["state"] == "started" for row in rows[31:]), rows
    text = subprocess.run([sago, "inspect", "--flight", folder], stdout=subprocess.PIPE, check=True).stdout.decode()
    at = 0
    for line in lines_wanted:
        match = re.compile(line).search(text, at)
        assert match, (what, line, text, done.stdout.decode())
        at = match.end()
    told = json.loads(subprocess.run([sago, "inspect", "--flight", folder, "--json"], stdout=subprocess.PIPE, check=True).stdout)
    assert [r["present"] for r in told["ranks"]] == [r in there for r in range(3)], told
    assert len(told["findings"]) == (2 if what in ("kill", "stop") else 0 if what == "record" else 1), told


def check_wrong_files(sago, folder):
    """What is no record is one line that names file and line."""
    for text, said in (("", "no rank-N.jsonl"), ("{}\n", "rank-0.jsonl:1: not the head"), ("[1, 2\n", "rank-0.jsonl:1"),
                       ('{"rank":0,"ranks":1,"run":1,"pid":1,"at":1,"host":"h","reason":"r"}\n{"name":"x"}\n', "rank-0.jsonl:2: not a line")):
        if text:
            open(f"{folder}/rank-0.jsonl", "w").write(text)
        done = subprocess.run([sago, "inspect", "--flight", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == 1 and said in done.stderr.decode() and done.stderr.count(b"\n") == 1, (text, done)


mpirun_path, rank_failures, sago_path = sys.argv[1:4]
for case in CASES:
    with tempfile.TemporaryDirectory() as where:
        check(mpirun_path, rank_failures, sago_path, case, os.path.join(where, "flight"))
        print(f"ok - {case}", flush=True)
with tempfile.TemporaryDirectory() as where:
    check_wrong_files(sago_path, where)
print("ok - wrong files")

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sago eval --predictions over recorded outputs, as a user runs it.

recorded.py SAGO. With SAGO_DATA set: the published Codex generations on BIG-Bench Hard must score exactly the published
accuracies, all 28 of them. Without: a small file whose scores follow by hand, and files that must be refused.
"""
import glob, json, os, subprocess, sys, tempfile

sago = sys.argv[1]
work = tempfile.mkdtemp()


def run(records, ok=True):
    path = os.path.join(work, "records.jsonl")
    with open(path, "w", encoding="utf-8") as f:
        f.write(records if isinstance(records, str) else "".join(json.dumps(r) + "\n" for r in records))
    out = os.path.join(work, "out")
    p = subprocess.run([sago, "eval", "--predictions", path, "--output", out], capture_output=True, text=True)
    assert (p.returncode == 0) == ok, (p.returncode, p.stderr)
    return json.load(open(out + "/scores.json")) if ok else p.stderr


def task(scores, name):
    return next(t for t in scores["tasks"] if t["name"] == name)


s = run([
    {"task": "a", "category": "c", "references": ["7"], "marker": "the answer is", "output": "3+4, so the answer is 7."},
    {"task": "a", "category": "c", "references": ["8"], "marker": "the answer is", "output": "the answer is 7."},
    {"task": "b", "category": "c", "held_out": True, "targets": "x", "outputs": ["y", "x", "x"]},
    {"task": "b", "category": "c", "held_out": True, "references": ["p", "q"], "outputs": ["q"],
     "options": ["p", "q"], "right_option": 1, "accuracy": 1},
])
assert task(s, "a")["exact_match"]["mean"] == 50 and task(s, "b")["exact_match"]["mean"] == 100
assert s["overall"]["exact_match"]["mean"] == 75 and s["unseen"]["tasks"] == 1
assert task(s, "b")["normalised_accuracy"]["mean"] == 100
assert task(s, "a")["majority"]["exact_match"]["mean"] == 50
for bad, says in (("", "no recorded outputs"), ("{", "records.jsonl:1"), ('{"output": "x"}\n', "references"),
                  ('{"references": ["x"]}\n', "output"), ('{"references": [3], "output": "x"}\n', "references")):
    said = run(bad, ok=False)
    assert says in said and said.count("\n") == 1, (bad, said)

data = os.environ.get("SAGO_DATA")
if data and os.path.isdir(data + "/bbh/codex"):
    published = json.load(open(data + "/bbh/codex/accuracy.json"))
    records = []
    for name in published:
        for line in open(f"{data}/bbh/codex/{name}.jsonl", encoding="utf-8"):
            r = json.loads(line)
            records.append({"task": name, "references": [r["target"]], "marker": "the answer is", "output": r["generation"]})
    s = run(records)
    right = [n for n in published if abs(task(s, n)["exact_match"]["mean"] - published[n]) < 1e-6]
    assert len(right) == len(published) == 28, sorted(set(published) - set(right))
    print("28 of 28 published accuracies")
else:
    print("SAGO_DATA is not set: only the small file")

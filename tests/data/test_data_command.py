#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sago data generate, stats, sample and pack, as a user drives them. Usage: test_data_command.py SAGO"""
import collections
import json
import pathlib
import re
import subprocess
import sys
import tempfile

SAGO = str(pathlib.Path(sys.argv[1]).resolve())


def run(*arguments, fails=None):
    done = subprocess.run([SAGO, *map(str, arguments)], capture_output=True, text=True)
    if fails is None:
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout
    assert done.returncode != 0, arguments
    last = done.stderr.strip().splitlines()[-1]
    assert fails in last, (fails, done.stderr)
    return last


CONFIG = """
data:
  tokenizer: bytes
  cache_dir: cache
  input_length: 256
  target_length: 64
  few_shot: 0.2
  eval_fraction: 0.1
  holdout: [last_tool, Counting]
  mixture:
    - {name: lists, format: niv2, path: tasks/niv2, share: 3}
    - {name: texts, format: jsonl, path: tasks/jsonl, share: 2}
    - {name: chains, format: cot, path: tasks/cot, share: 1}
    - {name: sums, format: table, path: tasks/table, template: question_answer, share: 1}
    - {name: choice, format: table, path: tasks/choice, template: commonsense_qa, share: 1}
"""


def main(folder):
    run("data", "generate", folder / "tasks", "--seed", 3, "--count", 50)
    config = folder / "config.yaml"
    config.write_text(CONFIG)

    stats = json.loads(run("data", "stats", config, "--json", "--count", 800))
    files = sum(len(list((folder / "tasks" / d).iterdir())) for d in ("niv2", "jsonl", "cot", "table", "choice"))
    assert stats["tasks"] == files
    shares = {m["name"]: m["proportion"] for m in stats["members"]}
    assert abs(shares["lists"] - 3 / 8) < 1e-9 and abs(sum(shares.values()) - 1) < 1e-9
    for member in stats["members"]:
        assert member["examples"] == sum(t["examples"] for t in member["tasks"])
        assert abs(sum(t["proportion"] for t in member["tasks"]) - member["proportion"]) < 1e-9
        assert abs(member["lengths"]["draws"] / 800 - member["proportion"]) < 0.01
        for task in member["tasks"]:
            held_out = task["name"] == "last_tool" or task["name"].startswith("count_")
            assert task["held_out"] == held_out and (task["proportion"] == 0) == held_out

    run("data", "sample", config, "--count", 400, "--output", folder / "draws.jsonl")
    draws = [json.loads(line) for line in (folder / "draws.jsonl").read_text().splitlines()]
    assert len(draws) == 400
    counts = collections.Counter(d["mixture"] for d in draws)
    assert abs(counts["lists"] - 150) <= 3 and abs(counts["sums"] - 50) <= 3
    for draw in draws:
        assert draw["inputs"] and draw["targets"] and draw["example"] not in draw["exemplars"]
        assert draw["task"] != "last_tool" and not draw["task"].startswith("count_")
        if not draw["truncated"]:  # bytes and EOS
            assert draw["input_tokens"] == len(draw["inputs"].encode()) + 1
    assert 40 < sum(bool(d["exemplars"]) for d in draws) < 130
    # The same draws again, and as the first of more.
    run("data", "sample", config, "--count", 40, "--output", folder / "again.jsonl")
    assert (folder / "draws.jsonl").read_text().startswith((folder / "again.jsonl").read_text())

    packed = json.loads(run("data", "pack", config, "--rows", 100, "--json"))
    assert packed["rows"] == 100 and packed["examples"] > 100
    assert 0.9 < packed["input_fill"] <= 1 and 0 < packed["target_fill"] < 1
    # A decoder-only model has one length to fill, and its inputs have no EOS.
    joint = json.loads(run("data", "pack", config, "--rows", 100, "--json", "--set", "model.family=palm"))
    assert "input_fill" not in joint and 0.95 < joint["fill"] <= 1
    assert abs(joint["fill"] - (joint["input_tokens"] + joint["target_tokens"]) / (100 * (256 + 64))) < 1e-9
    run("data", "sample", config, "--count", 40, "--output", folder / "joint.jsonl", "--set", "model.family=palm")
    for draw in map(json.loads, (folder / "joint.jsonl").read_text().splitlines()):
        if not draw["truncated"]:
            assert draw["input_tokens"] == len(draw["inputs"].encode())
            assert draw["target_tokens"] == len(draw["targets"].encode()) + 1

    # Plain text under an objective, in rows of T5's pretraining.
    text = folder / "text.yaml"
    text.write_text("data:\n  tokenizer: bytes\n  cache_dir: cache\n  input_length: 512\n  target_length: 114\n"
                    "  mixture: [{name: web, format: text, path: tasks/corpus.txt, objective: span-corruption}]\n")
    stats = json.loads(run("data", "stats", text, "--json", "--count", 50))
    lengths = stats["members"][0]["lengths"]
    assert (lengths["input_tokens"], lengths["target_tokens"], lengths["truncated"]) == (512, 114, 0)
    corpus = (folder / "tasks/corpus.txt").read_text().splitlines()
    pieces = sum(len(line.encode()) for line in corpus if line.strip()) // 568
    assert stats["members"][0]["examples"] == pieces
    run("data", "sample", text, "--count", 30, "--output", folder / "spans.jsonl")
    for draw in map(json.loads, (folder / "spans.jsonl").read_text().splitlines()):
        assert len(draw["input_ids"]) == 512 and len(draw["target_ids"]) == 114
        if "inputs" in draw and "targets" in draw:
            back = draw["inputs"]
            for i, span in enumerate(re.split("<extra_id_[0-9]+>", draw["targets"])[1:]):
                back = back.replace("<extra_id_%d>" % i, span)
            assert len(back.encode()) == 568
    # A part of the documents kept, and others that stand in a held-out file too left out.
    kept = json.loads(run("data", "stats", text, "--json", "--count", 50, "--set", "data.eval_fraction=0.2"))["members"][0]
    documents = kept["documents"]
    assert documents["train"] + documents["eval"] == len([line for line in corpus if line.strip()])
    assert 0.1 < documents["eval"] / documents["train"] < 0.4 and kept["eval"] > 0 and documents["dropped"] == 0
    (folder / "heldout.txt").write_text("none of theirs\n" + corpus[3].upper() + " !\n")
    copies = sum(re.findall("[a-z0-9]+", line.lower()) == re.findall("[a-z0-9]+", corpus[3].lower()) for line in corpus)
    held = json.loads(run("data", "stats", text, "--json", "--count", 50, "--set", "data.holdout=[test]", "--set",
                          "data.mixture=[{name: web, format: text, path: %s, objective: prefix-lm}, "
                          "{name: test, format: text, path: %s, objective: prefix-lm}]"
                          % (folder / "tasks/corpus.txt", folder / "heldout.txt")))["members"]
    assert held[0]["documents"]["dropped"] == copies and held[1]["documents"]["eval"] == 2
    assert (held[1]["proportion"], held[1]["train"]) == (0, 0)
    packed = json.loads(run("data", "pack", text, "--rows", 40, "--json"))
    assert packed["input_fill"] == packed["target_fill"] == 1
    packed = json.loads(run("data", "pack", text, "--rows", 40, "--json", "--set", "model.family=palm",
                            "--set", "data.mixture=[{name: web, format: text, path: %s, objective: causal-lm}]"
                            % (folder / "tasks/corpus.txt")))
    assert packed["fill"] == 1 and packed["input_tokens"] == 40 and packed["target_tokens"] == 40 * 625

    # Bad input: one line, with file and line.
    lines = (folder / "tasks/jsonl/tomorrow.jsonl").read_text().splitlines()
    lines[6] = '{"inputs": "x"}'
    (folder / "tasks/jsonl/tomorrow.jsonl").write_text("\n".join(lines))
    run("data", "stats", config, fails="tomorrow.jsonl:7: ")
    (folder / "tasks/jsonl/tomorrow.jsonl").write_bytes(b'{"inputs": "\xff", "targets": "y"}\n')
    run("data", "stats", config, fails="tomorrow.jsonl:1: ")
    (folder / "tasks/jsonl/tomorrow.jsonl").write_text("")
    run("data", "stats", config, fails="tomorrow.jsonl:1: the file is empty")
    (folder / "tasks/jsonl/tomorrow.jsonl").unlink()
    copied = (folder / "tasks/niv2/last_tool.json").read_text()
    (folder / "tasks/niv2/copied.json").write_text(copied)
    line = run("data", "stats", config, fails="leak: ")
    assert "copied.json:" in line and "last_tool.json:" in line
    run("data", "stats", config, "--set", "data.mixture=[]", fails="data.mixture")
    run("data", "sample", config, fails="--output")
    run("data", "stats", fails="configuration")


with tempfile.TemporaryDirectory() as name:
    main(pathlib.Path(name))
print("ok")

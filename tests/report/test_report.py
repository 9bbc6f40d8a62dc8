#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sago report over run folders written here: its figures, what it escapes, what it does without gnuplot, with odd and
with damaged runs.

test_report.py SAGO"""
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SAGO = os.path.abspath(sys.argv.pop(1))
WORK = None
VOID = {"meta", "br", "link", "img", "hr"}


def path(*parts):
    return os.path.join(WORK, *parts)


def write(name, text):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    with open(path(name), "w", encoding="utf-8") as f:
        f.write(text if isinstance(text, str) else json.dumps(text))


def group(tasks, exact, rouge=40.0, **more):
    score = lambda x: {"mean": x, "low": round(x - 1.25, 4), "high": round(x + 1.25, 4)}
    return {"tasks": tasks, "examples": 10 * tasks, "exact_match": score(exact), "token_f1": score(31.5),
            "rouge_l": score(rouge), "majority": {"exact_match": score(12.5)},
            "copy": {"exact_match": score(3.5), "rouge_l": score(7.5)}, **more}


def scores(label, step, seen, unseen):
    return {"label": label, "step": step, "seen": group(2, seen, accuracy={"mean": 66.0, "low": 60, "high": 70}),
            "unseen": group(1, unseen), "overall": group(3, round((2 * seen + unseen) / 3, 4)),
            "categories": [group(3, 33.0, name="Kind <i>")],
            "tasks": [group(1, seen, name="sums & <b>", category="Kind <i>", held_out=False),
                      group(1, unseen, name="new", category="Kind <i>", held_out=True)]}


STEPS = [{"step": i + 1, "loss": 5.0 - i / 8, "target_tokens": 100 + i, "input_tokens": 1000, "step_seconds": 0.5,
          "tokens_per_second": 2000 + 10 * i, "accuracy": 0.25, "data_wait": 0.05, "comm_wait": 0.1} for i in range(21)]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def make_run(name, steps=STEPS, evals=True):
    write(f"{name}/metrics.jsonl", jsonl(steps))
    write(f"{name}/config.yaml", "run: {dir: x} # <script>alert(1)</script>\n")
    write(f"{name}/environment.json", {"parameters": 1500000, "host": "a&b"})
    write(f"{name}/mixture.json", {"members": [
        {"name": "one<", "examples": 300, "tokens": 12345, "tasks": [1, 2]},
        {"name": "two", "examples": 100, "tokens": 777, "tasks": [1]}]})
    if evals:
        for label, step, seen, unseen in (("before", 0, 1.5, 2.5), ("after", 21, 61.25, 22.75)):
            write(f"{name}/eval/{label}/scores.json", scores(label, step, seen, unseen))
            write(f"{name}/eval/{label}/predictions.jsonl", jsonl(
                {"task": "new", "held_out": True, "index": 0, "prompt": "<script>x</script> & \"more\"",
                 "references": ["<right>"], "answer": f"<{label}>", "exact_match": float(label == "after")} for _ in "1"))


class Balance(html.parser.HTMLParser):
    """Every element that is opened is closed, in order."""
    def __init__(self):
        super().__init__()
        self.open, self.bad, self.tags, self.links = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href", "data") and v and not v.startswith("#")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.bad.append(tag)


def setUpModule():
    global WORK
    WORK = tempfile.mkdtemp(prefix="sago-test-report-")
    os.mkdir(path("nothing"))


def tearDownModule():
    shutil.rmtree(WORK)


class Report(unittest.TestCase):
    def report(self, *words, gnuplot=True):
        env = dict(os.environ, **({} if gnuplot else {"PATH": path("nothing")}))
        return subprocess.run([SAGO, "report", *words], cwd=WORK, env=env, capture_output=True, text=True, timeout=120)

    def made(self, *words, folder=None, **options):
        done = self.report(*words, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(path(folder or words[0], "report.html"), encoding="utf-8") as f:
            page = f.read()
        with open(path(folder or words[0], "report.json"), encoding="utf-8") as f:
            figures = json.load(f)
        seen = Balance()
        seen.feed(page)
        self.assertEqual((seen.bad, seen.open), ([], []))
        self.assertNotIn("script", seen.tags)
        self.assertEqual(seen.links, [])
        return page, figures, done.stderr

    def refused(self, says, *words):
        done = self.report(*words)
        self.assertGreater(done.returncode, 0)
        self.assertIn(says, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_text(self):
        """Losses of plain text beside the questions, and alone."""
        make_run("text")
        loss = lambda mean: {"mean": mean, "low": mean - 0.25, "high": mean + 0.25}
        for label, mean in (("before", 5.9375), ("after", 2.8125)):
            with open(path("text/eval", label, "scores.json"), encoding="utf-8") as f:
                its = json.load(f)
            its["text"] = [{"name": "causal", "category": "web <b>", "held_out": False, "pieces": 3, "target_tokens": 4321,
                            "loss": loss(mean), "perplexity": loss(16.625)}]
            write(f"text/eval/{label}/scores.json", its)
            with open(path("text/eval", label, "predictions.jsonl"), "a", encoding="utf-8") as f:
                f.write(jsonl({"task": "causal", "held_out": held, "index": i, "target_tokens": 99, "logprob": -5.5}
                              for held in (False, True) for i in range(20)))
        page, _, _ = self.made("text")
        row = re.search(r"<tr><th scope=row>web &lt;b&gt; <small>causal</small></th>(.*?)</tr>", page).group(1)
        self.assertEqual(re.findall(r"\d+\.\d+|\d{3,}", row),
                         ["5.9375", "5.6875", "6.1875", "2.8125", "2.5625", "3.0625", "16.62", "4321"])
        self.assertIn("tasks trained on", page)
        self.assertEqual(page.count("<article>"), 1)  # the one question with an answer
        for label in ("before", "after"):
            with open(path("text/eval", label, "scores.json"), encoding="utf-8") as f:
                its = json.load(f)
            write(f"text/eval/{label}/scores.json",
                  dict(its, overall={"tasks": 0, "examples": 0}, seen={"tasks": 0}, unseen={"tasks": 0}, categories=[], tasks=[]))
            write(f"text/eval/{label}/predictions.jsonl", "")
        page, _, _ = self.made("text")
        self.assertIn("5.9375", page)
        self.assertNotIn("option accuracy", page)

    def test_figures(self):
        make_run("run")
        page, figures, _ = self.made("run")
        (run,) = figures["runs"]
        self.assertEqual((run["name"], run["steps"], run["last_step"]), ("run", 21, STEPS[-1]))
        self.assertAlmostEqual(run["training_seconds"], 10.5)
        self.assertEqual((run["input_tokens"], run["target_tokens"]), (21000, sum(s["target_tokens"] for s in STEPS)))
        self.assertEqual((run["median_tokens_per_second"], run["median_mfu"]), (2100, None))
        self.assertAlmostEqual(run["data_wait_seconds"], 1.05)
        self.assertAlmostEqual(run["comm_wait_seconds"], 2.1)
        self.assertIn("70.0 % computation, 20.0 % waiting for other ranks, 10.0 % waiting for data", page)
        self.assertEqual((run["resumes"], run["skipped_steps"], run["loss_spikes"]), (0, 0, 0))
        for mine, label in zip(run["evaluations"], ("before", "after"), strict=True):
            with open(path("run/eval", label, "scores.json"), encoding="utf-8") as f:
                self.assertEqual(mine, json.load(f))
        for text in ("1.5 → 61.2 %", "2.5 → 22.8 %", "<b>61.2</b> <small>60.0–62.5</small>", "<td class=n>66.0</td>",
                     "<td class=n>12.5</td>", "<td class=n>3.5</td>", "75.0 %", "25.0 %", "12345", "1.50 M", "<b>2100</b>",
                     "<b>0.02 M</b>", "2 tasks", "1 task<", "never seen"):
            self.assertIn(text, page)
        if shutil.which("gnuplot"):
            self.assertEqual(page.count("<svg"), 2)

    def test_escapes(self):
        make_run("r' <i>&x")
        page, _, _ = self.made("r' <i>&x")
        for text in ("&lt;script&gt;x&lt;/script&gt; &amp; &quot;more&quot;", "&lt;right&gt;", "&lt;before&gt; ✗",
                     "&lt;after&gt; ✓", "sums &amp; &lt;b&gt;", "Kind &lt;i&gt;", "one&lt;", "a&amp;b", "<h1>r' &lt;i&gt;&amp;x"):
            self.assertIn(text, page)

    def test_without_gnuplot(self):
        # More points than a pipe holds, to a program that is not there.
        make_run("long", [dict(STEPS[0], step=i + 1, loss=5 - i / 9999.7) for i in range(9000)])
        page, figures, said = self.made("long", gnuplot=False)
        self.assertIn("gnuplot", said)
        self.assertNotIn("<svg", page)
        self.assertIn("install gnuplot", page)
        self.assertEqual(figures["runs"][0]["steps"], 9000)
        self.assertIn("1.5 → 61.2 %", page)

    def test_odd_runs(self):
        make_run("one", STEPS[:1], evals=False)
        page, figures, _ = self.made("one")
        self.assertIn("No evaluation yet", page)
        self.assertEqual(figures["runs"][0]["evaluations"], [])
        make_run("nulls", [{"step": 1, "loss": None, "skipped": True}, {"step": 2}, {"step": 2, "event": "resume"},
                           {"step": 2, "event": "spike"}], evals=False)
        page, figures, said = self.made("nulls")
        self.assertNotIn("gnuplot", said)
        self.assertNotRegex(page.split("</style>")[1], r"\bnan\b|\binf\b")
        run = figures["runs"][0]
        self.assertEqual((run["steps"], run["resumes"], run["skipped_steps"], run["loss_spikes"]), (2, 1, 1, 1))
        write("bare/metrics.jsonl", jsonl(STEPS))
        self.made("bare")
        # A run that was killed while it wrote a line.
        write("killed/metrics.jsonl", jsonl(STEPS) + '{"step":22,"lo')
        self.assertEqual(self.made("killed")[1]["runs"][0]["steps"], 21)

    def test_several_runs(self):
        make_run("a")
        make_run("b", STEPS[:9], evals=False)
        _, figures, _ = self.made("a", "b", "a", "--output", "all", folder="all")
        self.assertEqual([(r["name"], r["steps"]) for r in figures["runs"]], [("a", 21), ("b", 9), ("a", 21)])
        self.assertFalse(os.path.exists(path("a/report.html")))

    def test_many_evaluations(self):
        make_run("many")
        for i in range(1, 9):
            write(f"many/eval/step-{i}/scores.json", scores(f"at {i}", i, 10 + i, 20))
        page, _, _ = self.made("many")
        first_table = page.split("<th>Average")[1].split("</thead>")[0]
        self.assertEqual(re.findall("exact match<br>([^<]*)", first_table), ["before", "at 5", "at 6", "at 7", "at 8", "after"])

    def test_damage(self):
        make_run("bad")
        for text, says in (("", "no step"), (jsonl(STEPS) + '{"st\n', "metrics.jsonl:22"), ("[]\n", "metrics.jsonl:1"),
                           ('{"loss": 1}\n', "metrics.jsonl:1"), ("\0\n", "metrics.jsonl:1")):
            write("bad/metrics.jsonl", text)
            self.refused(says, "bad")
        make_run("bad")
        for name in ("environment.json", "mixture.json", "eval/after/scores.json", "eval/after/predictions.jsonl"):
            make_run("bad")
            write("bad/" + name, '{"half')
            self.refused(name, "bad")
        make_run("bad")
        for odd in ([], {}, {"tasks": [1, {}, {"name": 3}], "categories": {"a": 1}, "seen": [1], "label": 7, "step": "x"}):
            write("bad/eval/after/scores.json", odd)
            self.made("bad")
        self.assertFalse([n for n in os.listdir(path("bad")) if "tmp" in n])
        self.refused("nosuch", "nosuch")
        self.refused("no metrics.jsonl", "nothing")


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drives the program as a user does: help, wrong command lines, wrong configurations, exit codes, several ranks.

    test_cli.py SAGO MPIRUN
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

SAGO, MPIRUN = os.path.abspath(sys.argv[1]), sys.argv[2]
COMMANDS = "train eval score generate import export data tokenizer report inspect verify plan bench doctor version".split()
ENV = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
for name in list(ENV):  # a test run that itself was started by a launcher must not look like a rank
    if name.startswith(("OMPI_COMM", "PMI", "SLURM_PROCID")):
        del ENV[name]


def sago(*words, ranks=1, **more):
    command = [SAGO, *words]
    if ranks > 1:
        command = [MPIRUN, "--oversubscribe", "-n", str(ranks), *command]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=120, **more)


def own_lines(result):
    """What sago said on standard error, without mpirun's own words."""
    return [line for line in result.stderr.splitlines() if line.startswith("sago: ")]


class Help(unittest.TestCase):
    def test_all_commands_are_listed(self):
        result = sago("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        listed = re.findall(r"^  ([a-z]+) ", result.stdout, re.M)
        self.assertEqual(listed, COMMANDS)
        self.assertEqual(sago("-h").stdout, result.stdout)
        self.assertEqual(sago("help").stdout, result.stdout)

    def test_each_command_has_help_with_an_example(self):
        for command in COMMANDS:
            with self.subTest(command):
                result = sago(command, "--help")
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                self.assertIn(f"usage: sago {command}", result.stdout)
                example = result.stdout.split("\nexample:\n")[1]
                self.assertIn(f"sago {command}", example)
                self.assertEqual(sago("help", command).stdout, result.stdout)
                self.assertLessEqual(max(map(len, result.stdout.splitlines())), 130)

    def test_options_of_the_examples_exist(self):
        for command in COMMANDS:
            text = sago(command, "--help").stdout
            options = set(re.findall(r"^  (--[a-z-]+)", text.split("\noptions:\n")[1], re.M))
            example = text.split("\nexample:\n")[1].split("\n\n")[0]
            self.assertLessEqual(set(re.findall(r"\s(--[a-z-]+)", example)), options | {"--oversubscribe"}, command)

    def test_help_wins_over_missing_arguments(self):
        self.assertEqual(sago("score", "--input", "x", "--help").returncode, 0)

    def test_help_of_rank_0_alone(self):
        result = sago("train", "--help", ranks=3)
        self.assertEqual(result.returncode, 0)
        self.assertEqual(result.stdout.count("usage: "), 1)


class WrongCommandLines(unittest.TestCase):
    def refuses(self, part, *words, code=2, **more):
        result = sago(*words, **more)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertEqual(len(own_lines(result)), 1, result.stderr)
        self.assertIn(part, result.stderr)
        return result

    def test_commands(self):
        self.refuses("'sago --help' lists them all")
        self.refuses("unknown command 'trian'; did you mean 'train'?", "trian")
        self.refuses("unknown command 'xyzzy'; 'sago --help' lists them all", "xyzzy")
        self.refuses("unknown command ''", "")
        self.refuses("unknown command 'evla'; did you mean 'eval'?", "help", "evla")

    def test_options(self):
        self.refuses("unknown option --imput; did you mean --input?", "score", "--imput", "x")
        self.refuses("unknown option --imput; did you mean --input?", "score", "--imput=x")
        self.refuses("unknown option --zzzzzz; 'sago train --help'", "train", "c", "--zzzzzz")
        self.refuses("unknown option -q", "train", "c", "-q")
        self.refuses("--input needs a value: --input FILE", "score", "--input")
        self.refuses("--input needs a value", "score", "--input", "--output", "x")
        self.refuses("--quiet takes no value", "train", "c", "--quiet=yes")
        self.refuses("is required", "score", "--input", "x", "--output", "y")
        self.refuses("--set needs a value", "train", "c", "--set")
        self.refuses("KEY=VALUE is needed", "train", "c", "--set", "run.steps")
        self.refuses("KEY=VALUE is needed", "train", "c", "--set", "=3")

    def test_numbers_of_arguments(self):
        self.refuses("0 of 1 arguments given; usage: sago train", "train")
        self.refuses("unexpected argument 'b'; usage: sago train", "train", "a", "b")
        self.refuses("1 of 2 arguments given; usage: sago import", "import", "--format", "hf", "a")
        self.refuses("unexpected argument '--quiet'", "train", "a", "--", "--quiet")
        self.refuses("more than 64 arguments", "report", *["run"] * 65)

    def test_verbs(self):
        self.refuses("unknown word 'stat'; did you mean 'stats'?", "data", "stat", "c")
        self.refuses("one of: ", "tokenizer", "xyzzy", "--input", "a", "--output", "b")

    def test_numbers(self):
        base = ("generate", "--checkpoint", "c", "--input", "i", "--output", "o")
        for bad in ("x", "-1", "1.5", "", "1e3", "99999999999999999999", " 3"):
            self.refuses("--max-new-tokens", *base, "--max-new-tokens=" + bad)

    def test_several_ranks(self):
        for command in ("version", "verify x", "import --format hf a b"):
            result = sago(*command.split(), ranks=3)
            self.assertNotEqual(result.returncode, 0)
            self.assertEqual(len(own_lines(result)), 1, result.stderr)
            self.assertIn("runs as one process, and 3 were started", result.stderr)
        self.refuses("unknown option --x", "train", "--x", ranks=2)


class WrongConfigurations(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def config(self, text):
        path = os.path.join(self.folder.name, "c.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def refuses(self, part, text, *words, code=2, ranks=1):
        result = sago("train", self.config(text), *words, ranks=ranks)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(len(own_lines(result)), 1, result.stderr)
        self.assertIn(part, result.stderr)

    def test_file_line_key_and_nearest(self):
        self.refuses("c.yaml:2: train.dropuot: unknown key; did you mean train.dropout?", "train:\n  dropuot: 1\n")
        self.refuses("c.yaml:2: train.dropout: 2 is given, a number from 0 to 0.99 is needed", "train:\n  dropout: 2\n")
        self.refuses("c.yaml:2: run.steps: ten is given, a whole number", "run:\n  steps: ten\n")
        self.refuses("c.yaml:2: not YAML: a tab", "run:\n\tsteps: 1\n")
        self.refuses("c.yaml:1: is empty", "")

    def test_set(self):
        self.refuses("--set run.stepz: unknown key; did you mean run.steps?", "run: {steps: 1}", "--set", "run.stepz=2")
        self.refuses("--set run.steps: -2 is given", "run: {steps: 1}", "--set=run.steps=-2")

    def test_one_line_for_all_ranks(self):
        self.refuses("unknown key; did you mean train.dropout?", "train: {dropuot: 1}", ranks=3)

    def test_missing_file(self):
        result = sago("train", "/nowhere/c.yaml")
        self.assertEqual(result.returncode, 1)
        self.assertIn("/nowhere/c.yaml: cannot open: No such file or directory", result.stderr)

    def test_set_on_every_command(self):
        for command in COMMANDS:
            self.assertIn("--set KEY=VALUE", sago(command, "--help").stdout, command)


class Output(unittest.TestCase):
    def test_version(self):
        text = sago("version").stdout
        for word in ("sago 0.", "compiler", "libraries", "hdf5", "oneDNN"):
            self.assertIn(word, text)
        self.assertEqual(sago("--version").stdout, text)
        parts = json.loads(sago("version", "--json").stdout)
        self.assertLessEqual({"version", "commit", "compiler", "target", "libraries"}, set(parts))

    def test_full_disk(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "w") as full:
            result = subprocess.run([SAGO, "version"], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn("standard output: cannot write: No space left", result.stderr)

    def test_reader_that_went_away(self):
        read, write = os.pipe()
        os.close(read)
        result = subprocess.run([SAGO, "--help"], stdout=write, stderr=subprocess.PIPE, text=True)
        os.close(write)
        self.assertEqual((result.returncode, result.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plants faults in the GPU kernels, one at a time, and demands that the conformance suite notices each on sim.

A fault (faults.py) replaces one piece of text of one file of kernels/cuda. The units that hold it are compiled from a
copy, as the build compiles them, and linked in front of the program's own into a copy of a test program, which must
fail. Before that the program must pass as it is. A fault whose text is not there (any more) is an error.

    mutations.py BUILD_DIR [--short] [--only NUMBER,...] [--list]
"""
import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

from faults import FAULTS

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
KERNELS = os.path.join(SOURCE, "kernels", "cuda")
TEST_SECONDS = 300


def stop(message):
    print("mutations: " + message)
    sys.exit(1)


def find(text, old):
    """Places of old in text, whatever white space stands between its words."""
    return list(re.finditer(r"\s+".join(re.escape(word) for word in old.split()), text))


def plant(fault):
    """The file's text with the fault in it."""
    with open(os.path.join(KERNELS, fault["file"])) as f:
        text = f.read()
    places = find(text, fault["old"])
    if len(places) != 1:
        stop("fault %d: the text stands %d times in %s: %s" % (fault["number"], len(places), fault["file"], fault["old"]))
    place = places[0]
    return text[:place.start()] + fault["new"] + text[place.end():]


class Build:
    def __init__(self, folder):
        self.folder = folder
        with open(os.path.join(folder, "compile_commands.json")) as f:
            self.commands = json.load(f)

    def compile(self, unit, scratch, output):
        """Compiles a unit of kernels/cuda for sim out of scratch, which holds a copy of the folder."""
        is_c = unit.endswith(".c")
        wanted = os.path.join("kernels", "cuda", unit) if is_c else unit.replace(".cu", "_cu.cpp")
        for entry in self.commands:
            if entry["file"].endswith(wanted) and "kernels/sim/" in entry["output"]:
                break
        else:
            stop("the build in %s has no command for %s" % (self.folder, unit))
        words, command, skip = shlex.split(entry["command"]), [], False
        for word in words:
            if skip:
                skip = False
            elif word in ("-o", "-MQ", "-MF"):
                skip = True
            elif word not in ("-MD", "-c", entry["file"]) and not word.endswith(wanted):
                command.append(word)
        source = os.path.join(scratch, unit)
        # The copy is looked at first; less optimisation, since it runs once; what a fault leaves unused is no matter.
        at = next(i for i, word in enumerate(command) if word.startswith("-I")) # the compiler may be two words
        command[at:at] = ["-I" + scratch]
        command += ["-O1", "-w", "-c", "-x", "c" if is_c else "c++", source, "-o", output]
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            stop("%s does not compile with its fault:\n%s" % (unit, done.stdout))

    def link(self, test, objects, output):
        target = "tests/kernels/test_" + test
        done = subprocess.run(["ninja", "-t", "commands", target], cwd=self.folder, stdout=subprocess.PIPE, text=True)
        words = shlex.split(done.stdout.strip().split("\n")[-1])
        at = words.index("-o")
        # Of two definitions the first one counts.
        words[at:at + 2] = ["-o", output, "-Wl,-z,muldefs"] + objects
        done = subprocess.run(words, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            stop("linking %s failed:\n%s" % (test, done.stdout))


def run(program, fault):
    """The exit status and what the program said."""
    environment = dict(os.environ, OMP_WAIT_POLICY="passive")
    command = [program, fault.get("device", "sim")] + (["only=" + fault["only"]] if "only" in fault else [])
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              timeout=TEST_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return 124, "no end after %d s" % TEST_SECONDS
    return done.returncode, done.stdout


def who(output):
    """The first failing test and its reason."""
    reason = re.search(r"^ERROR: (.*)$", output, re.M) or re.search(r"exception: (.*)$", output, re.M)
    test = re.search(r"^\[  FAILED  \] (test_\w+)", output, re.M)
    return (test.group(1) if test else "the program") + ": " + (reason.group(1) if reason else "an assertion")[:150]


def check(fault, build, folder, sound):
    started = time.monotonic()
    key = (fault["test"], fault.get("only"), fault.get("device"))
    if key not in sound:
        status, output = run(os.path.join(build.folder, "tests", "kernels", "test_" + fault["test"]), fault)
        if status != 0:
            stop("test_%s fails without any fault:\n%s" % (fault["test"], output))
        if "Running 0 test" in output:
            stop("fault %d: no test of test_%s is called '%s'" % (fault["number"], fault["test"], fault["only"]))
        sound.add(key)
    scratch = os.path.join(folder, "cuda")
    shutil.copytree(KERNELS, scratch)
    with open(os.path.join(scratch, fault["file"]), "w") as f:
        f.write(plant(fault))
    objects = []
    for unit in fault.get("units", [fault["file"]]):
        objects.append(os.path.join(folder, unit + ".o"))
        build.compile(unit, scratch, objects[-1])
    program = os.path.join(folder, "mutant")
    build.link(fault["test"], objects, program)
    status, output = run(program, fault)
    shutil.rmtree(scratch)
    seconds = time.monotonic() - started
    caught = status != 0
    print("%s %2d  %s: %s\n           %s (%.0f s)" % ("caught" if caught else "MISSED", fault["number"], fault["file"],
          fault["why"], who(output) if caught else "test_%s passed" % fault["test"], seconds), flush=True)
    return caught


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", help="a build folder of meson in which the tests are built")
    parser.add_argument("--short", action="store_true", help="a few faults in small kernels")
    parser.add_argument("--only", help="numbers of faults")
    parser.add_argument("--list", action="store_true", help="checks that each text is there, and shows the list")
    arguments = parser.parse_args()
    faults = [dict(fault, number=number) for number, fault in enumerate(FAULTS, 1)]
    if arguments.list:
        for fault in faults:
            plant(fault)
            print("%2d  %s: %s (test_%s)" % (fault["number"], fault["file"], fault["why"], fault["test"]))
        return
    if arguments.only:
        numbers = [int(number) for number in arguments.only.split(",")]
        faults = [fault for fault in faults if fault["number"] in numbers]
    elif arguments.short:
        faults = [fault for fault in faults if fault.get("short")]
    for fault in faults:
        plant(fault)
    build, missed, sound = Build(os.path.abspath(arguments.build)), 0, set()
    for fault in faults:
        with tempfile.TemporaryDirectory(prefix="sago-mutant-") as folder:
            missed += not check(fault, build, folder, sound)
    print("%d of %d faults caught" % (len(faults) - missed, len(faults)))
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()

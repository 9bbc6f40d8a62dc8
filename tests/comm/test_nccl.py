#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sums by NCCL, without one: test_nccl.py MPIRUN NCCL_RANKS FAKE_LIBRARY. What is tested is everything round NCCL: the
library that is opened on demand, who uses NCCL and who does not, and what becomes of a sum whose peer is gone."""
import os
import subprocess
import sys

mpirun, program, library = sys.argv[1:4]
for case in ("sums", "shared", "refuses", "leaves", "errs"):
    env = dict(os.environ, SAGO_CUDA_LIBRARY=library, FAKE_CUDA=case)
    done = subprocess.run([mpirun, "--oversubscribe", "-n", "2", program, case], env=env, timeout=100,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = done.stdout.decode(), done.stderr.decode()
    leaves = case == "leaves"
    assert (done.returncode != 0) == leaves, (case, done.returncode, out, err)
    assert f"rank 0: {case}: as it should be" in out, (case, out, err)
    assert f"rank 1: {case}: " + ("rank 1 has a reason of its own" if leaves else "as it should be") in out, (case, out, err)
    if case == "shared":
        assert "ranks 0 and 1 share a GPU" in err, err
    if leaves:  # the mesh's and its view's; axes of the same ranks share one
        assert err.count("rank 0: a communicator was aborted") == 2, err
    if case == "sums":
        assert "gradients are summed by NCCL" in err, err
print("ok")

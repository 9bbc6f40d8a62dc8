#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every program that a GPU is to run finds libsago_cuda.so and has what it takes from a program: without a GPU it must
# get as far as asking for one.
#
#     test_cuda_library.sh PROGRAM...        each is a program of tests/kernels or benchmarks
failed=0
for program in "$@"; do
    name=$(basename "$program")
    case $name in
    test_device | test_onednn | test_vector_math) continue ;; # about the cpu, or libraries that are not there
    bench_*) said=$(timeout 60 "$program" --device cuda --only nothing --size tiny --rounds 1 --rows 1 --steps 1 --runs 1 2>&1) ;;
    *) said=$(timeout 60 "$program" cuda short only=nothing 2>&1) ;;
    esac
    if grep -qE 'libsago_cuda|undefined symbol' <<<"$said"; then
        echo "$name: $said"
        failed=1
    fi
done
exit $failed

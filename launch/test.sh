#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds sago and runs its tests; the last line is "N passed, N failed, N skipped".
#
#   bash launch/test.sh          the short set: units, conformance, command line, sanitizers, short fuzzing and kills;
#                                at most 15 minutes on two cores
#   bash launch/test.sh --all    everything: every mesh, long fuzzing, 200 kills
#
# SAGO_GOLDEN=FOLDER (with accept.py in it) adds the golden cases, SAGO_DATA=FOLDER the tests over real task files;
# without them those are counted as skipped.
set -uo pipefail
cd "$(dirname "$0")/.."
all=no
[ "${1:-}" = --all ] && all=yes
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
# Tests share two cores: threads that wait should sleep, not spin.
export OMP_WAIT_POLICY=passive
passed=0 failed=0 skipped=0
started=$SECONDS

count_meson() { # BUILD_DIR: adds what meson's log of the last run says
    local log=$1/meson-logs/testlog.json
    [ -f "$log" ] || { failed=$((failed + 1)); return; }
    local ok skip every
    ok=$(grep -cE '"result": "(OK|EXPECTEDFAIL)"' "$log")
    skip=$(grep -c '"result": "SKIP"' "$log")
    every=$(grep -c '"result": "' "$log")
    passed=$((passed + ok)) skipped=$((skipped + skip)) failed=$((failed + every - ok - skip))
}

run_suites() { # BUILD_DIR SUITE...
    local dir=$1 suites=()
    shift
    for s in "$@"; do suites+=(--suite "$s"); done
    rm -f "$dir/meson-logs/testlog.json"
    meson test -C "$dir" --no-rebuild --print-errorlogs "${suites[@]}" || true
    count_meson "$dir"
}

one() { # NAME COMMAND...: one test by its exit status
    local name=$1
    shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $name" >&2; fi
}

finish() {
    echo "tests took $((SECONDS - started)) s"
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ] && exit 0
    exit 1
}

if ! bash launch/build.sh; then
    failed=1
    finish
fi

echo "== units, conformance, command line"
suites=(unit cli)
[ $all = yes ] && suites+=(long)
run_suites build "${suites[@]}"

echo "== the same under AddressSanitizer and UndefinedBehaviorSanitizer, with short fuzzing"
# gcc 12 warns of what is no fault when it builds with sanitizers, hence werror=false.
if SAGO_INSTALL=no bash launch/build.sh build-asan -Db_sanitize=address,undefined -Db_lundef=false -Doptimization=1 -Dwerror=false -Dbenchmarks=false -Devery_isa=false -Dcuda=disabled; then
    # Leaks are looked for in sago's own tests, not in what MPI and OpenMP keep until exit.
    export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
    asan_suites=(asan fuzz)
    [ $all = yes ] && asan_suites+=(unit fuzz-long)
    run_suites build-asan "${asan_suites[@]}"
    unset ASAN_OPTIONS UBSAN_OPTIONS
else
    failed=$((failed + 1))
fi

if [ -n "${SAGO_GOLDEN:-}" ]; then
    echo "== golden cases of other implementations"
    if [ $all = yes ]; then
        one goldens python3 "$SAGO_GOLDEN/accept.py" --sago build/sago --model tokenizer,t5,t5-tied,palm,palm-gqa --ranks 1,2,3 --tensor 2
        one "goldens, a model over 4 ranks" python3 "$SAGO_GOLDEN/accept.py" --sago build/sago --model palm --ranks 1 --tensor 4
        one "goldens, parameters shared out" python3 "$SAGO_GOLDEN/accept.py" --sago build/sago --model t5,palm --ranks 2,3 --tensor 2 --set mesh.data_axis=sharded
        one "goldens on sim" python3 "$SAGO_GOLDEN/accept.py" --sago build/sago --model t5,t5-tied,palm-gqa --ranks 1,2 --quick --steps 3 --set device=sim
    else
        one goldens python3 "$SAGO_GOLDEN/accept.py" --sago build/sago --model tokenizer,t5 --ranks 1,2
        one "goldens of palm" python3 "$SAGO_GOLDEN/accept.py" --sago build/sago --model palm-gqa --ranks 1,2 --tensor 2
        one "goldens on sim" python3 "$SAGO_GOLDEN/accept.py" --sago build/sago --model t5-tied,palm-gqa --quick --steps 3 --set device=sim
    fi
else
    echo "== golden cases: SAGO_GOLDEN is not set, skipped"
    skipped=$((skipped + 1))
fi
finish

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From nothing to a report: installs what is missing, builds, generates the bundled task set, evaluates a small T5,
# finetunes it on two ranks, evaluates it again on tasks it was trained on and on tasks it never saw, and writes a page.
#
#   bash launch/quickstart.sh [RUN_DIR]      default runs/quickstart; run again, it goes on where it stands
#   SAGO_QUICKSTART=short                    few steps and questions: checks the road, learns little
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/quickstart}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
started=$SECONDS

sets=()
if [ "${SAGO_QUICKSTART:-}" = short ]; then
    sets=(--set run.steps=60 --set checkpoint.every=30 --set eval.examples_per_task=4)
fi
stage() { echo; echo "== $1 ($((SECONDS - started)) s so far)"; }

stage "1/6 build"
bash launch/build.sh
sago=build/sago

stage "2/6 task set"
data=$run/data
[ -f "$data/README.md" ] || $sago data generate "$data"
paths=(--set "run.dir=$run" --set "data.cache_dir=$run/cache" --set "data.mixture=[
    {name: instructions, format: niv2, path: $data/niv2, share: 0.5},
    {name: templated, format: jsonl, path: $data/jsonl, share: 0.3},
    {name: chains, format: cot, path: $data/cot, share: 0.2}]")

stage "3/6 scores before"
[ -f "$run/eval/before/scores.json" ] ||
    mpirun -n 2 --oversubscribe $sago eval configs/quickstart.yaml "${paths[@]}" "${sets[@]}" \
        --checkpoint configs/quickstart --output "$run/eval/before"

stage "4/6 finetune on two ranks"
mpirun -n 2 --oversubscribe $sago train configs/quickstart.yaml "${paths[@]}" "${sets[@]}"

stage "5/6 scores after"
[ -f "$run/eval/after/scores.json" ] ||
    mpirun -n 2 --oversubscribe $sago eval "$run" "${sets[@]}" --output "$run/eval/after"

stage "6/6 report"
$sago report "$run"
echo
echo "done in $((SECONDS - started)) s: open $run/report.html"

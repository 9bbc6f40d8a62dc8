#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From nothing to a report: installs what is missing, builds, generates the bundled task set, trains a small T5 on two
# ranks, scores it before and after on tasks it was trained on and on tasks it never saw, and writes a page about it.
# Run again, it goes on where it stands; after the end it has nothing left to do.
#
#   bash launch/quickstart.sh
#   SAGO_QUICKSTART=short bash launch/quickstart.sh      few steps and questions: walks the road, learns little
set -euo pipefail
cd "$(dirname "$0")/.."
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
started=$SECONDS
config=configs/quickstart.yaml tasks=runs/tasks run=runs/quickstart sets=()
if [ "${SAGO_QUICKSTART:-}" = short ]; then
    run=runs/quickstart-short
    sets=(--set "run.dir=$run" --set run.steps=60 --set eval.examples_per_task=4)
fi
stage() { echo "== $1 ($((SECONDS - started)) s)"; }
ranks() { mpirun -n 2 --oversubscribe build/sago "$@"; }

stage "1/6 build"
bash launch/build.sh

stage "2/6 tasks and tokenizer"
if [ ! -f $tasks/spiece.model ]; then
    build/sago data generate $tasks --count 1000
    build/sago data sample $config --set data.tokenizer=bytes --set data.input_length=1024 --count 20000 \
        --output $tasks/samples.jsonl
    build/sago tokenizer train --input $tasks/samples.jsonl --vocab-size 412 --output $tasks/spiece.model
fi

stage "3/6 scores of the untrained model"
if [ ! -f $run/eval/before/scores.json ]; then
    ranks train $config "${sets[@]}" --set run.steps=0
    ranks eval $config "${sets[@]}" --checkpoint $run --output $run/eval/before
fi

stage "4/6 training on two ranks"
ranks train $config "${sets[@]}"

stage "5/6 scores of the trained model"
[ -f $run/eval/after/scores.json ] || ranks eval $config "${sets[@]}" --checkpoint $run --output $run/eval/after

stage "6/6 report"
build/sago report $run
echo "done in $((SECONDS - started)) s: open $run/report.html"

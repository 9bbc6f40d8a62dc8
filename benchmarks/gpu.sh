#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that a GPU is needed for, in one unattended run: correctness on the device, then timings beside PyTorch.
#
#   bash benchmarks/gpu.sh [--device cuda|sim] [--build build] [--out runs/gpu] [--seconds 470]
#
# Stages, in this order, each with a limit of its own; a stage that fails is written down and the next one runs:
#   conformance   every program of tests/kernels on the device
#   goldens       the golden cases of tests/golden through the program, fp32; with SAGO_GOLDEN set also accept.py there
#   curve         50 training steps on the device and on the cpu: losses side by side; fp32, and bf16 by its own rule;
#                 and resume: 7 + 13 steps are the bytes of 20
#   timings       bench_gpu_kernels; bench_train_step of T5 base, large and XL and PaLM 1B and 3B; bench_generate with
#                 and without graphs, whose tokens must agree; the same work by PyTorch
#   sanitizer     the conformance programs' small shapes under compute-sanitizer, as far as time is left (memcheck;
#                 racecheck for attention)
# It ends with 0 only where conformance, goldens, curve and generation have passed and nothing has failed.
# With --device sim all shapes are small and no GPU is needed: it shows that the script itself is right.
# Result: OUT/gpu.json and OUT/gpu.md (benchmarks/gpu_collect.py), to be kept in benchmarks/results/.
set -uo pipefail
cd "$(dirname "$0")/.."
device=cuda build=build out=runs/gpu seconds=470
while [ $# -gt 0 ]; do
  case "$1" in
    --device) device=$2 ;;
    --build) build=$2 ;;
    --out) out=$2 ;;
    --seconds) seconds=$2 ;;
    *) echo "usage: gpu.sh [--device cuda|sim] [--build FOLDER] [--out FOLDER] [--seconds N]" >&2; exit 2 ;;
  esac
  shift 2
done
[ -x "$build/sago" ] || { echo "gpu.sh: no $build/sago; build first: bash launch/build.sh" >&2; exit 2; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
rm -rf "$out"
mkdir -p "$out"
started=$SECONDS
small=() peer=(--device cuda) rounds=31
if [ "$device" = sim ]; then
  small=(--small 1) peer=(--small --device cpu) rounds=3
fi

left() { echo $((seconds - (SECONDS - started))); }

# stage NAME LIMIT COMMAND...: output to OUT/NAME.log, a line of JSON to OUT/stages.jsonl.
stage() {
  local name=$1 limit=$2 since=$SECONDS rc
  shift 2
  if [ "$(left)" -lt 5 ]; then
    echo "{\"stage\": \"$name\", \"result\": \"no time left\"}" >>"$out/stages.jsonl"
    echo "$name: no time left"
    return 1
  fi
  [ "$limit" -gt "$(left)" ] && limit=$(left)
  timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1
  rc=$?
  local result=passed
  [ $rc = 77 ] && result=skipped
  [ $rc = 124 ] && result="stopped after $limit s"
  [ $rc != 0 ] && [ $rc != 77 ] && [ $rc != 124 ] && result="failed ($rc)"
  local command=${*//\"/\\\"}
  echo "{\"stage\": \"$name\", \"result\": \"$result\", \"seconds\": $((SECONDS - since)), \"command\": \"$command\"}" >>"$out/stages.jsonl"
  echo "$name: $result, $((SECONDS - since)) s"
  [ "$result" = passed ] || tail -3 "$out/$name.log" | sed 's/^/    /'
  return $rc
}

timeout 60 "$build/sago" doctor >"$out/doctor.log" 2>&1
for program in "$build"/tests/kernels/test_*; do
  name=$(basename "$program") # those about the cpu's own loops aside
  case "$name" in *.p | test_onednn | test_vector_math | test_greedy | test_device | test_packed_attention) continue ;; esac
  stage "conformance-$name" 60 "$program" "$device"
done

stage goldens 90 python3 tests/golden/run.py "$build/sago" "$(command -v mpirun)" "$device"
if [ -n "${SAGO_GOLDEN:-}" ]; then
  stage accept 120 python3 "$SAGO_GOLDEN/accept.py" --sago "$build/sago" --model t5-tied --quick --steps 3 --set "device=$device" --set train.precision=fp32
fi
stage curve 120 python3 benchmarks/gpu_curve.py "$build/sago" "$device" "$out/curve.json" "$([ "$device" = sim ] && echo 8 || echo 50)"

stage timings 120 sh -c '"$0" --device "$1" --rounds "$2" $3 >"$4"' "$build/benchmarks/bench_gpu_kernels" "$device" "$rounds" "${small[*]-}" "$out/kernels.jsonl"
# step NAME LIMIT OPTION...: bench_train_step with these, to OUT/train_step-NAME.json.
step() {
  local name=$1 limit=$2
  shift 2
  stage "train_step-$name" "$limit" sh -c 'out=$1; shift; "$0" "$@" >"$out"' "$build/benchmarks/bench_train_step" \
    "$out/train_step-$name.json" --device "$device" --bf16 1 --dropout-percent 0 "$@"
}
# generation NAME LIMIT OPTION...: bench_generate with these, to OUT/generate-NAME.json.
generation() {
  local name=$1 limit=$2
  shift 2
  stage "generate-$name" "$limit" sh -c 'out=$1; shift; "$0" "$@" >"$out"' "$build/benchmarks/bench_generate" \
    "$out/generate-$name.json" --device "$device" --bf16 1 "$@"
}
if [ "$device" = sim ]; then
  step tiny 60 --size tiny --rows 1 --inputs 32 --targets 16 --steps 1
  step palm-tiny 60 --family palm --size tiny --rows 1 --tokens 64 --steps 1
  generation tiny 60 --size tiny --rows 2 --inputs 16 --tokens 8 --runs 1
  generation palm-tiny 60 --family palm --size tiny --rows 2 --inputs 16 --tokens 8 --runs 1
else
  for size in base large xl; do
    rows=32
    [ $size = large ] && rows=16
    [ $size = xl ] && rows=4
    step $size 90 --size $size --rows $rows --inputs 512 --targets 114 --steps 11 --chunk 2048
  done
  step palm-1b 60 --family palm --size 1b --rows 8 --tokens 2048 --steps 11 --chunk 2048
  step palm-3b 90 --family palm --size 3b --rows 4 --tokens 2048 --steps 11 --chunk 2048
  generation large 60 --size large --rows 32 --inputs 512 --tokens 64 --runs 3
  generation xl 90 --size xl --rows 64 --inputs 512 --tokens 64 --runs 3
  generation palm-1b 60 --family palm --size 1b --rows 32 --inputs 512 --tokens 64 --runs 3
fi

# A case of a peer may take 30 s to compile; what it does not come to is missing and nothing else.
peer_seconds() { echo $(($(left) < 220 ? $(left) - 40 : 180)); }
if python3 -c 'import torch' 2>/dev/null; then
  stage peers 210 sh -c 'python3 benchmarks/peers/gpu_peer.py --rounds "$0" --seconds "$1" $2 >"$3"' "$rounds" "$(peer_seconds)" "${peer[*]}" "$out/peers.jsonl"
else
  echo '{"stage": "peers", "result": "skipped: python3 has no torch"}' >>"$out/stages.jsonl"
fi

if [ "$device" = cuda ]; then
  if command -v compute-sanitizer >/dev/null; then
    for name in norms rope activations embedding cross_entropy adafactor adafactor_pieces attention attention_backward; do
      stage "memcheck-$name" 40 compute-sanitizer --error-exitcode 9 --tool memcheck "$build/tests/kernels/test_$name" "$device"
    done
    stage racecheck-attention 40 compute-sanitizer --error-exitcode 9 --tool racecheck "$build/tests/kernels/test_attention" "$device"
  else
    echo '{"stage": "sanitizer", "result": "skipped: no compute-sanitizer on PATH"}' >>"$out/stages.jsonl"
  fi
fi

python3 benchmarks/gpu_collect.py "$out" --device "$device" --command "benchmarks/gpu.sh --device $device"
# What says whether results are right must have passed, and nothing may have failed.
wrong=$(grep -E '"stage": "(conformance|goldens|accept|curve|generate)' "$out/stages.jsonl" | grep -vc '"result": "passed"')
! grep -q '"result": "failed' "$out/stages.jsonl" && [ "$wrong" = 0 ]

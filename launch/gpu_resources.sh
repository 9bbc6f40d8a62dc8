#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Compiles every GPU kernel for sm_80 and sm_90a and writes docs/kernels/resources.md: registers, shared memory and
# spills of each, and how many of its stores are vectors. Leaves with 1 when a hot kernel (attention, Adafactor, norms,
# cross-entropy) spills registers to memory or when a kernel that must store vectors has no such store, with 77 where
# there is no nvcc. Needs no GPU.
#
#   bash launch/gpu_resources.sh            all of kernels/cuda/*.cu
#   bash launch/gpu_resources.sh --check    the same without writing the page
set -euo pipefail
cd "$(dirname "$0")/.."
page=docs/kernels/resources.md
[ "${1:-}" = --check ] && page=
hot='^(attention_.*|adafactor_.*|norm|rope|cross_entropy)$'
# File and kernel, as the page has them, and the bytes of the vectors that it must store: those whose threads take whole
# vectors. The compiler takes a struct's store apart where it can (dialect.cuh, store16), which costs four times the
# instructions and shows nowhere else.
vectors='
rope rope_kernel<(float|bf16),[248], 16
norm norm_(forward|backward|backward_wide)_kernel< 16
embedding embedding_(forward|window|join)_kernel<.*,[48]> 16
activation elementwise_kernel<.*,[48],(true|false)> 16
elementwise elementwise_kernel<.*,[48],(true|false)> 16
elementwise cast_kernel<float,bf16,4> 16
elementwise cast_kernel<bf16,float,4> 8
cross_entropy cross_entropy_backward_kernel<float,true> 16
cross_entropy cross_entropy_backward_kernel<bf16,true> 8
adafactor_update adafactor_(moments|apply)_kernel 16
adafactor_update adafactor_apply_kernel 8
cache cache_append_kernel<uint4> 16
attention_forward_mma attention_forward_mma_kernel< 16
'

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -x "$nvcc" ] || { echo "no nvcc on the path: nothing to compile with"; exit 77; }
version=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
[ "${version%%.*}" -ge 12 ] || { echo "nvcc $version is too old for sm_90a"; exit 77; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export nvcc work

# One line a kernel: file, architecture, registers, stack, spill stores, spill loads, shared bytes, stores of 16 bytes, of
# 8, name. SAGO_RESOURCES makes SAGO_SHARED leave its size in the PTX: shared memory is asked for at launch, so ptxas knows nothing of it.
list_kernels() { # FILE ARCH
    set -euo pipefail
    local stem here
    stem=$(basename "$1" .cu)
    here=$work/$stem.$2
    mkdir "$here"
    "$nvcc" -std=c++17 -O3 -Werror all-warnings -Ikernels/cuda -Ikernels -Ihost/base -DSAGO_RESOURCES \
        -gencode="arch=compute_${2#sm_},code=$2" -Xptxas -v -c "$1" -o "$here/object" -keep -keep-dir "$here" \
        2>"$here/ptxas.log" || { cat "$here/ptxas.log" >&2; return 1; }
    awk -v stem="$stem" -v arch="$2" '
        FILENAME ~ /ptx$/ {
            if (match($0, /\.entry [A-Za-z0-9_$]+/)) entry = substr($0, RSTART + 7, RLENGTH - 7)
            if (/st\.(global\.)?v4\.[bfsu]32/) sixteens[entry]++
            if (/st\.(global\.)?v2\.([bfsu]32|[bfsu]64)/) eights[entry]++
            if (match($0, /sago_shared [0-9]+/)) shared[entry] = substr($0, RSTART + 12, RLENGTH - 12)
            next
        }
        /Compiling entry function/ { split($0, part, "\047"); name = part[2] }
        /bytes stack frame/ { stack[name] = $1; stores[name] = $5; loads[name] = $9 }
        /Used [0-9]+ registers/ {
            match($0, /Used [0-9]+/)
            print stem, arch, substr($0, RSTART + 5, RLENGTH - 5), stack[name], stores[name], loads[name], shared[name] + 0,
                sixteens[name] + 0, eights[name] + 0, name
        }' "$here/$stem".*ptx "$here/ptxas.log" | c++filt >"$here/kernels"
    rm -f "$here/$stem".*
}
export -f list_kernels

for source in kernels/cuda/*.cu; do
    for arch in sm_80 sm_90a; do echo "$source" "$arch"; done
done | xargs -P "$(nproc)" -L 1 bash -c 'list_kernels "$@"' _
cat "$work"/*/kernels | sort -k1,1 -k10 >"$work/kernels"

# Both architectures of a kernel in one row; the name without its parameter types.
{
    cat <<HEAD
# Resources of the GPU kernels
Made by \`bash launch/gpu_resources.sh\` with nvcc $version; compiled, not run. Registers are those of a thread; spills
are bytes of stores and loads a thread; shared memory is the fixed part of what a block asks for (a struct's size; where
a launch adds rows to it, the kernel's page says how many). Vector stores are the instructions that write 16 and 8 bytes
to global memory, in the PTX of sm_90a; the script fails where a kernel that must have some (its list \`vectors\`) has none on
either architecture.

| file | kernel | registers sm_80 | registers sm_90a | spills sm_80 | spills sm_90a | shared bytes | vector stores |
| --- | --- | --- | --- | --- | --- | --- | --- |
HEAD
    awk '{
            file = $1; arch = $2
            name = $0
            for (i = 0; i < 9; i++) sub(/^[^ ]+ /, "", name)
            sub(/^void /, "", name); sub(/\(anonymous namespace\)::/, "", name)
            depth = 0; cut = 0 # at the parenthesis that opens the parameters: the first outside <>
            for (i = 1; i <= length(name) && !cut; i++) {
                c = substr(name, i, 1)
                if (c == "<") depth++
                if (c == ">") depth--
                if (c == "(" && depth == 0) cut = i
            }
            if (cut) name = substr(name, 1, cut - 1)
            gsub(/__nv_bfloat16/, "bf16", name)
            key = file " | `" name "`"
            if (!(key in seen)) { seen[key] = 1; order[++n] = key }
            used[key, arch] = $3; spill[key, arch] = $5 == 0 && $6 == 0 ? "0" : $5 " + " $6; shared[key] = $7; vectors[key] = $8 " + " $9
        }
        END {
            for (i = 1; i <= n; i++) {
                k = order[i]
                printf "| %s | %s | %s | %s | %s | %s | %s |\n", k, used[k, "sm_80"], used[k, "sm_90a"], spill[k, "sm_80"],
                    spill[k, "sm_90a"], shared[k], vectors[k]
            }
        }' "$work/kernels"
} >"$work/page.md"
if [ -n "$page" ]; then
    mkdir -p "$(dirname "$page")"
    cp "$work/page.md" "$page"
fi

echo "$(cut -d' ' -f10- "$work/kernels" | sort -u | wc -l) kernels compiled for sm_80 and sm_90a"
failed=
spilled=$(awk -v hot="$hot" '$1 ~ hot && ($5 > 0 || $6 > 0)' "$work/kernels")
if [ -n "$spilled" ]; then
    echo "hot kernels that spill (file, architecture, registers, stack, stored, loaded, shared bytes, stores of 16, of 8, kernel):"
    echo "$spilled"
    failed=1
fi
scalar=$(awk -v list="$vectors" '
    BEGIN { n = split(list, line, "\n") }
    {
        name = $0
        for (i = 0; i < 9; i++) sub(/^[^ ]+ /, "", name)
        gsub(/__nv_bfloat16/, "bf16", name); gsub(/ /, "", name)
        for (i = 1; i <= n; i++) {
            if (split(line[i], want, " ") != 3 || $1 != want[1] || name !~ want[2]) continue
            found[i] = 1
            if ((want[3] == 16 ? $8 : $9) == 0) print want[3] " bytes:", $0
        }
    }
    END { for (i = 1; i <= n; i++) if (line[i] != "" && !found[i]) print "no kernel is meant by:", line[i] }' "$work/kernels")
if [ -n "$scalar" ]; then
    echo "kernels that must store vectors and do not:"
    echo "$scalar"
    failed=1
fi
[ -z "$failed" ]

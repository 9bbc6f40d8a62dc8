#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what sago needs (Debian 12, Ubuntu 24.04; root or sudo), then builds it. The program is at build/sago.
#
#   bash launch/build.sh [BUILD_DIR [MESON_OPTION ...]]      default build; options as meson setup takes them
#   SAGO_INSTALL=no bash launch/build.sh                     installs nothing
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-build}
[ $# -gt 0 ] && shift

packages=(build-essential meson ninja-build pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libdnnl-dev
    libsentencepiece-dev libyaml-dev libjansson-dev libxxhash-dev libcmocka-dev gnuplot-nox)

# A line every few seconds: what is going on, percent (may have a fraction), text.
last_shown=-5 stage_shown="" stage_since=0
show_stage() {
    local left="" percent=${2%.*}
    if [ "$1" != "$stage_shown" ]; then stage_shown=$1 stage_since=$SECONDS last_shown=-5; fi
    [ $((SECONDS - last_shown)) -ge 5 ] || return 0
    last_shown=$SECONDS
    [ "$percent" -lt 3 ] || left="  ETA $(((SECONDS - stage_since) * (100 - percent) / percent))s"
    echo "$1 $percent%  $3$left"
}

# apt-get's own lines for programs: "dlstatus:FILES:PERCENT:TEXT" and "pmstatus:PACKAGE:PERCENT:TEXT".
show_apt() {
    local kind name percent text
    while IFS=: read -r kind name percent text; do
        [[ $percent =~ ^[0-9]+(\.[0-9]+)?$ ]] || continue
        case $kind in
        dlstatus) show_stage download "$percent" "${text% (*}" ;;
        pmstatus) show_stage install "$percent" "$text" ;;
        esac
    done
}

# What apt-get has to say goes to a file, which is shown where it fails.
apt_quietly() {
    local log="/tmp/sago-apt-$$.log"
    { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o APT::Status-Fd=1 "$@" 2>"$log" | show_apt; } || {
        cat "$log" >&2
        echo "sago: apt-get $1 failed" >&2
        exit 1
    }
    rm -f "$log"
}

install_missing() {
    command -v dpkg-query >/dev/null || {
        echo "sago: not a Debian system: install the equivalents of: ${packages[*]}" >&2
        return
    }
    local missing=()
    for p in "${packages[@]}"; do
        dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
    done
    [ ${#missing[@]} -eq 0 ] && return
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || {
            echo "sago: these packages are missing and there is no sudo: ask for: apt-get install ${missing[*]}" >&2
            exit 1
        }
        as_root=(sudo)
    fi
    echo "installing: ${missing[*]}"
    apt_quietly update
    apt_quietly install -y --no-install-recommends "${missing[@]}"
}

[ "${SAGO_INSTALL:-yes}" = no ] || install_missing
if [ -f "$dir/build.ninja" ]; then
    [ $# -eq 0 ] || meson configure "$dir" "$@"
else
    meson setup "$dir" "$@" >"/tmp/sago-meson-$$.log" 2>&1 || {
        tail -n 20 "/tmp/sago-meson-$$.log" >&2
        echo "sago: meson setup failed; the whole log: /tmp/sago-meson-$$.log" >&2
        exit 1
    }
    rm -f "/tmp/sago-meson-$$.log"
fi

# ninja's own lines come as one line every few seconds with an estimate; compiler messages pass through.
show_progress() {
    local line done total
    while IFS= read -r line; do
        if [[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]]; then
            done=${BASH_REMATCH[1]} total=${BASH_REMATCH[2]}
            show_stage "build $dir" $((100 * done / total)) "$done of $total"
        elif [[ $line != ninja:* ]]; then
            echo "$line"
        fi
    done
}
if grep -q 'libsago_cuda\.so' "$dir/build.ninja"; then
    echo "CUDA: compiled for sm_80, sm_90a and PTX, into $dir/libsago_cuda.so"
else
    echo "CUDA: left out, since there is no nvcc 12 or newer (or -Dcuda=disabled); the devices cpu and sim need none"
fi
ninja -C "$dir" | show_progress

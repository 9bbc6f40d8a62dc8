#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains on one or many machines under Open MPI's mpirun, after a pre-flight check of all ranks. See --help.
set -euo pipefail
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
    cat <<'END'
usage: bash launch/mpirun.sh [OPTION ...] CONFIG.yaml [--set KEY=VALUE ...]

Runs `sago doctor --all-ranks` and, if that finds no error, `sago train` with the same CONFIG and --set words.

  --hostfile FILE   the machines, as "node1 slots=8" a line; default: this machine, or those of the job's allocation
  --hosts A,B       the same by name; a folder of the same path and content must be on each
  --ranks N         ranks in all, spread evenly over the machines; default: one a GPU of this machine on each, else one
  --cores N         cores that each rank is bound to; default: an even share of this machine's; 0: no binding
  --network IF      the interface that MPI and NCCL meet on (ip -br addr shows them); default: theirs to choose
  --no-check        leaves the pre-flight check out
  --dry-run         prints the commands and runs nothing
  --help            this text

Variables: SAGO, the program (default: build/sago of this folder). Every NCCL_*, OMP_* and SAGO_* variable and LD_LIBRARY_PATH
go to all ranks. Exit codes are sago's: 0 done, 1 failed, 2 configuration, 75 stopped by a signal with everything saved. To stop
and save: kill -USR1 PID of this script.
END
}

fail() {
    echo "launch/mpirun.sh: $1" >&2
    exit 2
}

number() { # NAME VALUE LEAST
    if ! [[ $2 =~ ^[0-9]+$ ]] || [ "$2" -lt "$3" ]; then fail "$1 $2: a whole number of at least $3 is needed"; fi
    echo "$2"
}

hostfile='' hosts='' ranks='' cores='' network='' check=yes dry=no
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage && exit 0 ;;
    --no-check) check=no && shift && continue ;;
    --dry-run) dry=yes && shift && continue ;;
    --hostfile | --hosts | --ranks | --cores | --network) [ $# -ge 2 ] || fail "$1 needs a value; --help shows it" ;;
    --*) fail "unknown option $1; --help lists them" ;;
    *) break ;;
    esac
    case $1 in
    --hostfile) hostfile=$2 ;;
    --hosts) hosts=$2 ;;
    --ranks) ranks=$(number "$1" "$2" 1) ;;
    --cores) cores=$(number "$1" "$2" 0) ;;
    --network) network=$2 ;;
    esac
    shift 2
done
[ $# -ge 1 ] || fail "a configuration is missing; --help shows the usage"
[ -z "$hostfile" ] || [ -z "$hosts" ] || fail "--hostfile and --hosts name the machines twice"
[ -z "$hostfile" ] || [ -r "$hostfile" ] || fail "--hostfile $hostfile: can't be read"
sago=${SAGO:-$home/build/sago}
[ -x "$sago" ] || fail "$sago is no program: build it with bash launch/build.sh, or set SAGO"

# How many machines, and how many ranks on each.
if [ -n "$hostfile" ]; then
    n_nodes=$(sed 's/#.*//' "$hostfile" | awk 'NF { print $1 }' | sort -u | wc -l)
elif [ -n "$hosts" ]; then
    n_nodes=$(tr ',' '\n' <<<"$hosts" | sort -u | wc -l)
else
    n_nodes=${SLURM_JOB_NUM_NODES:-1}
fi
[ "$n_nodes" -gt 0 ] || fail "--hostfile $hostfile: names no machine"
n_gpus=0
if command -v nvidia-smi >/dev/null; then n_gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true); fi
[ -n "$ranks" ] || ranks=$((n_nodes * (n_gpus > 0 ? n_gpus : 1)))
per_node=$(((ranks + n_nodes - 1) / n_nodes))
[ -n "$cores" ] || cores=$(($(nproc) / per_node))

launcher=(mpirun -n "$ranks")
[ -z "$hostfile" ] || launcher+=(--hostfile "$hostfile")
[ -z "$hosts" ] || launcher+=(--host "${hosts//,/:$per_node,}:$per_node")
if [ "$cores" -gt 0 ]; then
    launcher+=(--map-by "ppr:$per_node:node:PE=$cores" --bind-to core)
else
    launcher+=(--map-by "ppr:$per_node:node" --bind-to none --oversubscribe)
fi
# A machine that is lost without a word is noticed within half a minute.
launcher+=(--mca oob_tcp_keepalive_time 20 --mca oob_tcp_keepalive_intvl 5 --mca oob_tcp_keepalive_probes 3)
if [ -n "$network" ]; then
    launcher+=(--mca btl_tcp_if_include "$network" --mca oob_tcp_if_include "$network")
    export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$network}
fi
[ "$(id -u)" -ne 0 ] || launcher+=(--allow-run-as-root)
# NCCL tells of what goes wrong; threads that wait leave their core to the others.
export NCCL_DEBUG=${NCCL_DEBUG:-WARN} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
for name in $(compgen -e); do
    case $name in NCCL_* | OMP_* | SAGO_* | LD_LIBRARY_PATH) launcher+=(-x "$name") ;; esac
done

if [ $dry = yes ]; then
    [ $check = no ] || echo "${launcher[*]} $sago doctor --all-ranks $*"
    echo "${launcher[*]} $sago train $*"
    exit 0
fi
if [ $check = yes ]; then
    "${launcher[@]}" "$sago" doctor --all-ranks "$@" || {
        code=$?
        echo "launch/mpirun.sh: the pre-flight check failed; --no-check trains all the same" >&2
        exit $code
    }
fi
exec "${launcher[@]}" "$sago" train "$@"

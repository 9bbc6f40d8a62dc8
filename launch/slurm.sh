#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains as a job of Slurm that goes on by itself after a lost node or at its time limit. See --help and docs/launch.md.
#SBATCH --job-name=sago
#SBATCH --output=sago-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
set -uo pipefail

usage() {
    cat <<'END'
usage: sbatch [SBATCH OPTION ...] launch/slurm.sh [OPTION OF launch/mpirun.sh ...] CONFIG.yaml [--set KEY=VALUE ...]

    sbatch --nodes=3-4 --ntasks-per-node=8 --gpus-per-node=8 --exclusive --time=24:00:00 \
        launch/slurm.sh configs/flan-t5-xl.yaml --set run.dir=/shared/runs/xl

To be submitted from sago's folder, which all nodes see under the same path, and so they do run.dir.

- Each start looks at every node of the allocation (`sago doctor` there) and leaves out those that do not answer or fail.
- --ntasks-per-node=N: N ranks on each node that is left. --ntasks=N: N ranks in all, however many nodes are left.
- --nodes=LEAST-MOST lets the job start again on fewer nodes while none replaces a lost one.
- A lost node, or a rank that was killed: the job goes back into the queue and continues from its newest verified
  checkpoint, at most SAGO_RESTARTS times (default 20). An error that sago itself reports on healthy nodes ends the job.
- Five minutes before its time limit the job saves and goes back into the queue.

Variables: SAGO_HOME, sago's folder (default: where sbatch was called); SAGO, the program; SAGO_RESTARTS.
END
}

say() { echo "launch/slurm.sh: $1" >&2; }

case ${1:-} in
--help | -h) usage && exit 0 ;;
esac
[ -n "${SLURM_JOB_ID:-}" ] || { say "not inside a job: submit it with sbatch; --help shows how" && exit 2; }
home=${SAGO_HOME:-$SLURM_SUBMIT_DIR}
export SAGO=${SAGO:-$home/build/sago}
[ -f "$home/launch/mpirun.sh" ] || { say "$home has no launch/mpirun.sh: set SAGO_HOME to sago's folder" && exit 2; }
restarts=${SLURM_RESTART_COUNT:-0}

# The signal before the time limit reaches this script alone, which passes it on to the ranks.
stopping=no training=
trap 'stopping=yes; [ -z "$training" ] || kill -USR1 "$training"' USR1 TERM

# Prints the nodes of the allocation on which a command succeeds, separated by commas.
nodes_where() { # SECONDS COMMAND...
    local seconds=$1 node said
    shift
    said=$(mktemp -d)
    for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
        timeout "$seconds" srun --overlap --mpi=none --nodes=1 --ntasks=1 --nodelist="$node" "$@" >"$said/$node" 2>&1 &&
            touch "$said/$node.well" &
    done
    wait
    for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
        if [ -f "$said/$node.well" ]; then
            echo "$node"
        else
            say "node $node is left out: $(grep '^sago: ' "$said/$node" || tail -n 1 "$said/$node")"
        fi
    done | paste -sd,
    rm -rf "$said"
}

count() { tr ',' '\n' <<<"$1" | grep -c .; }

go_back_to_the_queue() { # WHY
    if [ "$restarts" -ge "${SAGO_RESTARTS:-20}" ]; then
        say "$1, and the job has started $restarts times again (SAGO_RESTARTS): it ends here"
        return
    fi
    say "$1: back into the queue"
    scontrol requeue "$SLURM_JOB_ID" && exec sleep 60 # which Slurm ends
}

# The configuration and its --set words, behind the options of launch/mpirun.sh.
words=("$@")
while [ ${#words[@]} -gt 0 ]; do
    case ${words[0]} in
    --no-check | --dry-run) words=("${words[@]:1}") ;;
    --*) words=("${words[@]:2}") ;;
    *) break ;;
    esac
done

nodes=$(nodes_where 120 "$SAGO" doctor "${words[@]}")
[ -n "$nodes" ] || { say "no node of the allocation is fit to train" && exit 1; }
if [ -n "${SLURM_NTASKS_PER_NODE:-}" ]; then
    ranks=$((SLURM_NTASKS_PER_NODE * $(count "$nodes")))
else
    ranks=${SLURM_NTASKS:-$(count "$nodes")}
fi
say "start $((restarts + 1)): $ranks ranks on $nodes"

bash "$home/launch/mpirun.sh" --hosts "$nodes" --ranks "$ranks" "$@" &
training=$!
wait "$training"
code=$?
while kill -0 "$training" 2>/dev/null; do # the wait was cut short by a signal
    wait "$training"
    code=$?
done

case $code in
0) say "done" ;;
2) say "the command line or the configuration is wrong: see above" ;;
*)
    if [ $stopping = yes ]; then
        go_back_to_the_queue "stopped by a signal, saved"
    elif [ "$code" -gt 128 ]; then
        go_back_to_the_queue "a rank or its node was lost (exit code $code)"
    elif [ "$(nodes_where 60 true)" != "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | paste -sd,)" ]; then
        go_back_to_the_queue "a node was lost (exit code $code)"
    fi
    ;;
esac
exit "$code"
